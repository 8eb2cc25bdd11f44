//! Interrupts as signals.
//!
//! Two real-time signals go to single threads: one for interrupts, one for NMIs. Their handlers are
//! installed once for the process, on a stack that each thread has for them (`fault.rs`), since what
//! they interrupt may run on a kernel stack of a page. The interrupt's signal is blocked while an NMI's handler runs, and each is blocked while its
//! own does. System calls that they interrupt are restarted.
//!
//! A handler that is run this way may have interrupted anything, the C library's allocator and the
//! standard library's locks included. It must use neither: the machine's own memory and spin locks
//! that mask interrupts are what it has. A panic in a handler ends the process.

use std::sync::Once;
use std::sync::atomic::AtomicU32;

use crate::cpu::Flavour;
use crate::{fault, local};

/// The real-time signals, counted from the first. The C library keeps a few low ones; debuggers and
/// profilers use the highest.
const NMI: i32 = 5;
const INTERRUPT: i32 = 6;

fn number(flavour: Flavour) -> i32 {
    libc::SIGRTMIN()
        + match flavour {
            Flavour::Nmi => NMI,
            Flavour::Interrupt => INTERRUPT,
        }
}

/// Makes the running thread ready for interrupts and answers the number to send them to.
pub(crate) fn prepare_thread() -> i32 {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        install(Flavour::Interrupt, on_interrupt, &[]);
        install(Flavour::Nmi, on_nmi, &[Flavour::Interrupt]);
        fault::install(set_of(&[Flavour::Interrupt, Flavour::Nmi]));
    });
    fault::prepare_thread();
    change_mask(libc::SIG_UNBLOCK, &[Flavour::Interrupt, Flavour::Nmi]);
    rustix::thread::gettid().as_raw_nonzero().get()
}

fn set_of(flavours: &[Flavour]) -> libc::sigset_t {
    // SAFETY: a signal set is plain data, and `sigemptyset` makes it a valid one.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for flavour in flavours {
            libc::sigaddset(&mut set, number(*flavour));
        }
        set
    }
}

fn change_mask(how: i32, flavours: &[Flavour]) {
    let set = set_of(flavours);
    // SAFETY: the set is valid, and the old mask is not asked for.
    let error = unsafe { libc::pthread_sigmask(how, &set, std::ptr::null_mut()) };
    assert_eq!(error, 0, "cannot change the signal mask");
}

fn install(flavour: Flavour, handler: extern "C" fn(i32), blocked: &[Flavour]) {
    // SAFETY: the action is valid: zeroed, then filled in. The handler keeps to what a signal
    // handler may do; what it calls is bound by the rules in this module's documentation.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        action.sa_mask = set_of(blocked);
        libc::sigaction(number(flavour), &action, std::ptr::null_mut())
    };
    assert_eq!(result, 0, "cannot install a handler for signal {}", number(flavour));
}

/// Signals a thread of this process. Any context. A thread that has ended is not an error.
pub(crate) fn send(thread: i32, flavour: Flavour) {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: sending a signal touches no memory of this process.
    let sent = || unsafe { libc::syscall(libc::SYS_tgkill, process, thread, number(flavour)) };
    // The user's limit on queued signals may be reached for a moment.
    while sent() == -1 && errno() == libc::EAGAIN {
        rustix::thread::sched_yield();
    }
}

/// Wakes whoever waits for the word at this address, which need not exist any more. Any context.
pub(crate) fn wake_address(word: *const AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel compares the address and does not read the word.
    unsafe { libc::syscall(libc::SYS_futex, word, operation, i32::MAX) };
}

fn errno() -> i32 {
    // SAFETY: the C library's pointer to the thread's own word is always valid.
    unsafe { *libc::__errno_location() }
}

/// Runs a handler's work, and leaves the interrupted code its `errno`.
fn keeping_errno(work: impl FnOnce()) {
    let before = errno();
    work();
    // SAFETY: as in `errno`.
    unsafe { *libc::__errno_location() = before };
}

extern "C" fn on_interrupt(_signal: i32) {
    keeping_errno(local::handle_interrupts);
}

extern "C" fn on_nmi(_signal: i32) {
    keeping_errno(local::handle_nmis);
}
