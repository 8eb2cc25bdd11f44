//! Writing words, to where `>` sends them.

use alloc::string::String;

use super::{Command, print};
use crate::{Failure, Shell, Sink, System};

pub(super) const fn echo<S: System>() -> Command<S> {
    Command {
        name: "echo",
        usage: "echo [WORD]...",
        about: "write words and a line end; with `>`, to a file",
        example: "echo 8000 > /sys/module/scull/parameters/quantum",
        run: run_echo,
    }
}

fn run_echo<S: System>(
    _: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    print(out, format_args!("{}\n", arguments.join(" ")))
}
