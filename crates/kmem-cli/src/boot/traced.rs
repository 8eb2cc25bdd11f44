//! A machine that is traced: `kmem boot --trace FILE`.
//!
//! The file is to be whole however the process ends. Ctrl-C ends the command, and the machine is shut down
//! as always. What ends the process at once is another signal, the machine's kernel panic, or a bug. The first
//! two write out what has been recorded before they do; for the third, and for a second Ctrl-C, there is what
//! the writer wrote some milliseconds before.

use std::fs::File;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use kmem_host::Description;
use kmem_host::trace::{TraceFile, Written};

use super::session::Session;
use crate::console;
use crate::exit::Exit;
use crate::hosted;

/// The trace of this process: one machine is traced.
static TRACE: OnceLock<Arc<TraceFile>> = OnceLock::new();

/// Boots a machine whose trace goes to a file, and runs the commands.
pub fn boot(description: &Description, path: &Path, session: Session) -> Result<(), Exit> {
    let name = path.display().to_string();
    let cannot = |what: &str, error: &dyn std::fmt::Display| {
        format!("cannot {what} the trace {name}: {error}")
    };
    let file = File::create(path).map_err(|error| Exit::BadInput(cannot("write", &error)))?;
    // Threads are born with these signals blocked, so that the one which waits for them gets them.
    let signals = Signals::block();
    let trace = TraceFile::start(file, description.cpus)
        .map_err(|error| Exit::BadInput(cannot("write", &error)))?;
    let trace = TRACE.get_or_init(|| Arc::new(trace));
    signals.watch().map_err(|error| Exit::Failed(cannot("watch over", &error)))?;
    let ended = hosted::boot_traced(description, trace, session);
    match (trace.finish(), ended) {
        (Ok(Written { events, lost }), ended) => {
            console::machine_message(&match lost {
                0 => format!("{name}: {events} events"),
                _ => {
                    format!("{name}: {events} events, and {lost} were lost: the buffers were full")
                }
            });
            ended
        }
        (Err(error), Ok(())) => Err(Exit::Failed(cannot("write", &error))),
        (Err(error), Err(exit)) => {
            Exit::Failed(cannot("write", &error)).tell();
            Err(exit)
        }
    }
}

/// Writes out what has been recorded, where there is a trace: the process is about to end.
pub fn finish() {
    if let Some(trace) = TRACE.get() {
        // Whoever ends the process has said why.
        let _ = trace.finish();
    }
}

/// The signals that end this process, as far as they do.
struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks them in this thread and those that it starts.
    fn block() -> Signals {
        let mut set = MaybeUninit::uninit();
        // SAFETY: it makes any memory a set.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: just made.
        let mut set = unsafe { set.assume_init() };
        for signal in [libc::SIGTERM, libc::SIGHUP] {
            // Those that are ignored, as by nohup, end nothing.
            if is_default(signal) {
                // SAFETY: the set is one.
                unsafe { libc::sigaddset(&mut set, signal) };
            }
        }
        // SAFETY: as above; what was blocked before is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
        Signals(set)
    }

    /// Has a thread wait for one of them, write the trace out, and end the process as it would have.
    fn watch(self) -> std::io::Result<()> {
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut signal = 0;
            // SAFETY: a set, and a place for the number. A wait that fails has nothing to wait for.
            while unsafe { libc::sigwait(&self.0, &mut signal) } == 0 {
                finish();
                // SAFETY: the signal's action is the default one; unblocked here alone, it comes here.
                unsafe {
                    libc::pthread_sigmask(libc::SIG_UNBLOCK, &self.0, std::ptr::null_mut());
                    libc::raise(signal);
                }
            }
        })?;
        Ok(())
    }
}

/// Whether a signal does what it does by default.
fn is_default(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a place for the action; none is set.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zeros are an action, and so is what was put there.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_DFL
}
