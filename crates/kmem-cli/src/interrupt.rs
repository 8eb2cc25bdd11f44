//! Ctrl-C while commands run: it ends the command, and not the machine.
//!
//! The first one is noted, and a command that takes long looks ([`is_asked`]) and stops. The second one, of a
//! command that does not, ends the process: see [`signals`](crate::signals).

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

/// What becomes of a Ctrl-C now.
static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// No command runs.
const IDLE: u8 = 0;
/// One runs, and may be asked to stop.
const RUNNING: u8 = 1;
/// It has been asked.
const ASKED: u8 = 2;

/// Whether the command that runs has been asked to stop.
pub fn is_asked() -> bool {
    STATE.load(Relaxed) == ASKED
}

/// Asks the command that runs to stop. Answers whether there is one that had not been asked before.
pub fn ask() -> bool {
    STATE.compare_exchange(RUNNING, ASKED, Relaxed, Relaxed).is_ok()
}

/// Runs a command, which Ctrl-C asks to stop.
pub fn interruptible<T>(command: impl FnOnce() -> T) -> T {
    STATE.store(RUNNING, Relaxed);
    let result = command();
    STATE.store(IDLE, Relaxed);
    result
}
