//! What happens between boot and shutdown.

use std::ops::ControlFlow;

use kmem_shell::{Completion, Shell};

use super::input::Input;
use super::prompt::{self, Talk};
use crate::console;
use crate::exit::Exit;
use crate::hosted::{Hosted, Visit};

/// Where commands come from.
pub enum Commands {
    /// A text, a file, or standard input.
    Given(Input),
    /// A person at a terminal.
    Prompt,
}

/// Runs commands.
pub struct Session(pub Commands);

impl<const TRACE: bool> Visit<TRACE> for Session {
    fn visit<const SHIFT: u32>(self, machine: &Hosted<SHIFT, TRACE>) -> Result<(), Exit> {
        let mut lines = Lines { machine, shell: Shell::new(machine), is_prompt: false };
        let result = match self.0 {
            Commands::Given(input) => input.each(|text| lines.run(text)),
            Commands::Prompt => {
                lines.is_prompt = true;
                let title = console::printable(machine.title());
                eprintln!("{title}: `help` lists the commands, Tab completes, `exit` ends");
                prompt::talk(&mut lines)
            }
        };
        // What the user still holds is given back even after a failure, so that the check at
        // shutdown finds only what is really lost.
        let finished = machine.run(|| lines.shell.finish());
        result.and(finished.map_err(|error| Exit::Lost(error.to_string())))
    }
}

/// Runs lines by a shell, as tasks of its machine.
struct Lines<'m, const SHIFT: u32, const TRACE: bool> {
    machine: &'m Hosted<SHIFT, TRACE>,
    shell: Shell<'m, Hosted<SHIFT, TRACE>>,
    /// Whether a person waits for the machine's messages.
    is_prompt: bool,
}

impl<const SHIFT: u32, const TRACE: bool> Talk for Lines<'_, SHIFT, TRACE> {
    fn run(&mut self, text: &str) -> Result<ControlFlow<()>, Exit> {
        let result = self.machine.run(|| self.shell.run(text));
        self.machine.settle();
        if self.is_prompt {
            self.machine.show_log();
        }
        result.map_err(|error| self.machine.exit_of(error))?;
        let ended = self.shell.has_ended();
        Ok(if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn complete(&self, line: &str) -> (usize, Vec<String>) {
        let Completion { start, words } = self.machine.run(|| self.shell.complete(line));
        (start, words)
    }

    fn wants(&self, line: &str) -> String {
        self.shell.wants(line)
    }
}
