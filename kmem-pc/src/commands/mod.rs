//! The commands that only this machine has: a file each.

mod conformance;
mod cpu;
mod crash;
mod footprint;

use alloc::string::String;
use core::fmt::Write;

use kmem_shell::{Command, Failure, Sink};

use crate::machine::Machine;

/// All of them.
pub static ALL: &[Command<Machine>] =
    &[conformance::COMMAND, cpu::COMMAND, crash::COMMAND, footprint::COMMAND];

/// Writes text to a command's output.
fn print(out: &mut dyn Sink, text: core::fmt::Arguments<'_>) -> Result<(), Failure> {
    let mut line = String::new();
    let _ = line.write_fmt(text);
    Ok(out.write(line.as_bytes())?)
}

/// The failure of a command that was written wrongly.
fn usage(command: &Command<Machine>) -> Failure {
    let mut text = String::new();
    let _ = write!(text, "usage: {}; for example: {}", command.usage, command.example);
    Failure::Usage(text)
}
