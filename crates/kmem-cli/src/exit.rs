//! How the command ends.

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use crate::console;

/// Why the command does not end well: one line for a person, and the exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Status 1: something was asked for that could not be done.
    Failed(String),
    /// Status 2: what was asked for makes no sense.
    BadInput(String),
    /// Status 3: memory was lost or corrupted.
    Lost(String),
    /// Status 141: nobody reads the output any more. Whoever closed it knows, so nothing is said.
    Closed,
}

/// What a shell makes of a process that SIGPIPE (13) has ended. The signal itself would end the
/// process before the machine is checked.
const CLOSED: u8 = 128 + 13;

impl Exit {
    /// Standard output took nothing.
    pub fn not_printed(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Exit::Closed,
            _ => Exit::Failed(console::cannot_print(&error)),
        }
    }

    /// The same, where the input says it.
    pub fn at(mut self, place: &str) -> Self {
        if let Exit::Failed(line) | Exit::BadInput(line) | Exit::Lost(line) = &mut self {
            line.insert_str(0, &format!("{place}: "));
        }
        self
    }

    /// Prints the line.
    pub fn tell(&self) {
        if let Exit::Failed(line) | Exit::BadInput(line) | Exit::Lost(line) = self {
            console::error(line);
        }
    }

    /// Prints the line and answers the status.
    pub fn report(self) -> ExitCode {
        self.tell();
        ExitCode::from(match self {
            Exit::Failed(_) => 1,
            Exit::BadInput(_) => 2,
            Exit::Lost(_) => 3,
            Exit::Closed => CLOSED,
        })
    }
}

impl From<kmem_shell::Error> for Exit {
    fn from(error: kmem_shell::Error) -> Self {
        match error.failure {
            kmem_shell::Failure::Usage(_) => Exit::BadInput(error.to_string()),
            kmem_shell::Failure::Failed(_) => Exit::Failed(error.to_string()),
        }
    }
}
