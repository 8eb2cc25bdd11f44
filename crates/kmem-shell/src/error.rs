//! Why a command failed.

use alloc::string::String;
use core::fmt;

/// What went wrong with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was asked for in a way that makes no sense.
    Usage(String),
    /// It was understood and could not be done, or found something wrong.
    Failed(String),
}

impl Failure {
    /// The reason, in one line.
    pub fn message(&self) -> &str {
        match self {
            Failure::Usage(message) | Failure::Failed(message) => message,
        }
    }
}

/// What is not about usage is a failure, so that `?` does what is meant.
impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure::Failed(message)
    }
}

/// A command that failed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The command's name; empty where the line could not be read at all.
    pub command: String,
    /// The reason.
    pub failure: Failure,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.command.is_empty() {
            write!(f, "{}: ", self.command)?;
        }
        f.write_str(self.failure.message())
    }
}

impl core::error::Error for Error {}
