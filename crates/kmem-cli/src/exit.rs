//! How the command ends.

use std::io::{self, ErrorKind};
use std::panic::{self, PanicHookInfo};
use std::process::{ExitCode, exit};

use crate::{boot, console, mount, top};

/// Why the command does not end well: one line for a person, and the exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Status 1: something was asked for that could not be done.
    Failed(String),
    /// Status 2: what was asked for makes no sense.
    BadInput(String),
    /// Status 3: memory was lost or corrupted.
    Lost(String),
    /// Status 130: Ctrl-C was pressed while a command ran, which stopped.
    Interrupted(String),
    /// Status 141: nobody reads the output any more. Whoever closed it knows, so nothing is said.
    Closed,
}

/// What a shell makes of a process that SIGINT (2) has ended.
const INTERRUPTED: u8 = 128 + 2;

/// What a shell makes of a process that SIGPIPE (13) has ended. The signal itself would end the
/// process before the machine is checked.
const CLOSED: u8 = 128 + 13;

/// The status of a machine that a kernel panic has ended.
const PANICKED: i32 = 4;

/// What the manager's own panics begin with.
const MANAGERS: &str = "kmem: ";

/// Has a panic of the manager's, such as that of a cache that must be made and cannot (A197), end the
/// process as it ends a kernel: with one line, and a status of its own. Any other panic is a bug of this
/// program, and is shown as one.
pub fn end_on_kernel_panic() {
    let bug = panic::take_hook();
    panic::set_hook(Box::new(move |info| match message(info) {
        Some(message) if message.starts_with(MANAGERS) => {
            top::put_back();
            console::kernel_panic(message);
            mount::detach();
            if let Err(unwritten) = boot::finish_trace() {
                unwritten.tell();
            }
            exit(PANICKED);
        }
        _ => bug(info),
    }));
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> Option<&'a str> {
    let payload = info.payload();
    payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied())
}

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
        if let Some(line) = self.line() {
            line.insert_str(0, &format!("{place}: "));
        }
        self
    }

    /// Prints the line.
    pub fn tell(&self) {
        if let Some(line) = self.clone().line() {
            console::error(line);
        }
    }

    fn line(&mut self) -> Option<&mut String> {
        match self {
            Exit::Failed(line)
            | Exit::BadInput(line)
            | Exit::Lost(line)
            | Exit::Interrupted(line) => Some(line),
            Exit::Closed => None,
        }
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Exit::Failed(_) => 1,
            Exit::BadInput(_) => 2,
            Exit::Lost(_) => 3,
            Exit::Interrupted(_) => INTERRUPTED,
            Exit::Closed => CLOSED,
        }
    }

    /// Prints the line and answers the status.
    pub fn report(self) -> ExitCode {
        self.tell();
        ExitCode::from(self.status())
    }

    /// Ends the process here, from whichever thread, with what came of its machine.
    pub fn end(ended: Result<(), Exit>) -> ! {
        top::put_back();
        let status = boot::finish_trace_after(ended).map_or_else(
            |exit| {
                exit.tell();
                exit.status()
            },
            |()| 0,
        );
        exit(status.into())
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
