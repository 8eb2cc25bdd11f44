//! Ctrl-C while commands run: it ends the command, and not the machine.
//!
//! The first one is noted, and a command that takes long looks ([`is_asked`]) and stops. The second one, of a
//! command that does not, ends the process as it would have without this.

use std::mem::MaybeUninit;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// Whether the running command is to stop.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Whether Ctrl-C was pressed since the command began.
pub fn is_asked() -> bool {
    ASKED.load(Relaxed)
}

/// Runs a command, which Ctrl-C asks to stop.
pub fn interruptible<T>(command: impl FnOnce() -> T) -> T {
    ASKED.store(false, Relaxed);
    let mut kept = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all bytes zero are an action, which is filled in. The handler does what one may do: it changes an
    // atomic, and calls `signal` and `raise`. It runs on the alternate stack of a thread that has one, as the
    // stack of a task may be small.
    unsafe {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
        action.sa_sigaction = on_interrupt as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaction(libc::SIGINT, &raw const action, kept.as_mut_ptr());
    }
    let result = command();
    // SAFETY: the action was in force before.
    unsafe { libc::sigaction(libc::SIGINT, kept.as_ptr(), std::ptr::null_mut()) };
    result
}

extern "C" fn on_interrupt(signal: libc::c_int) {
    if ASKED.swap(true, Relaxed) {
        // SAFETY: both may be called in a handler. The signal comes when the handler has returned, and ends the
        // process.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
}
