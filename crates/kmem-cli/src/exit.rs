//! How the command ends.

use std::fmt;
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
}

impl Exit {
    /// The same, where the input says it.
    pub fn at(mut self, place: &str) -> Self {
        let (Exit::Failed(line) | Exit::BadInput(line) | Exit::Lost(line)) = &mut self;
        line.insert_str(0, &format!("{place}: "));
        self
    }

    /// Prints the line and answers the status.
    pub fn report(self) -> ExitCode {
        console::error(&self.to_string());
        ExitCode::from(match self {
            Exit::Failed(_) => 1,
            Exit::BadInput(_) => 2,
            Exit::Lost(_) => 3,
        })
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Exit::Failed(line) | Exit::BadInput(line) | Exit::Lost(line)) = self;
        f.write_str(line)
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
