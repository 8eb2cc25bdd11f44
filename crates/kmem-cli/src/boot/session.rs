//! What happens between boot and shutdown.

use std::ops::ControlFlow;

use kmem_shell::Shell;

use super::input::Input;
use crate::console;
use crate::exit::Exit;
use crate::hosted::{Hosted, Visit};

/// Runs the commands of an input.
pub struct Session(pub Input);

impl Visit for Session {
    fn visit<const SHIFT: u32>(self, machine: &Hosted<SHIFT>) -> Result<(), Exit> {
        let mut shell = Shell::new(machine);
        let prompt = matches!(self.0, Input::Prompt);
        if prompt {
            let title = console::printable(machine.title());
            eprintln!("{title}: `help` lists the commands, `exit` ends");
        }
        let result = self.0.each(|text| {
            let result = machine.run(|| shell.run(text));
            machine.settle();
            if prompt {
                machine.show_log();
            }
            result.map_err(|error| machine.exit_of(error))?;
            Ok(if shell.has_ended() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        // What the user still holds is given back even after a failure, so that the check at
        // shutdown finds only what is really lost.
        let finished = machine.run(|| shell.finish());
        result.and(finished.map_err(|error| Exit::Lost(error.to_string())))
    }
}
