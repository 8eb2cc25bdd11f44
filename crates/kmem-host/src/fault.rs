//! Faults: what a thread meets that touches an address where nothing is mapped.
//!
//! The handler of `SIGSEGV` and `SIGBUS` asks the machine whose CPU the thread holds what the address is. A
//! page that is there to be met is reported, and the task is ended ([`stack`](crate::stack)). Anything else
//! is not this crate's matter, and goes to whoever handled the signal before.
//!
//! Signals are handled on an alternate stack that every thread has which takes a CPU: the stack that they
//! interrupt may be used up, or so small that not even their frame has room.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;

use kmem::VirtAddr;

use crate::journal::Line;
use crate::local;

/// The size of an alternate stack. Handlers of interrupts run on it, an NMI's on top of those, and a fault's
/// on top of that; what is not used costs nothing.
const ALTERNATE: usize = 512 << 10;

/// What is not mapped below it.
const GUARD: usize = 64 << 10;

/// The alternate stack of a thread, or null.
struct Alternate(Cell<*mut libc::c_void>);

thread_local! {
    static ALTERNATE_STACK: Alternate = const { Alternate(Cell::new(ptr::null_mut())) };
}

impl Drop for Alternate {
    fn drop(&mut self) {
        if self.0.get().is_null() {
            return;
        }
        let nothing =
            libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: the thread ends: it is on its own stack, and no signal is handled on the other one from
        // the first call on.
        unsafe {
            libc::sigaltstack(&nothing, ptr::null_mut());
            libc::munmap(self.0.get(), GUARD + ALTERNATE);
        }
    }
}

/// Gives the running thread an alternate stack, if it has none of this crate's.
///
/// # Panics
///
/// The host has no memory for it.
pub(crate) fn prepare_thread() {
    ALTERNATE_STACK.with(|own| {
        if !own.0.get().is_null() {
            return;
        }
        let (protection, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new memory, which nobody else knows, and which stays until the thread ends.
        unsafe {
            let at = libc::mmap(ptr::null_mut(), GUARD + ALTERNATE, protection, flags, -1, 0);
            assert!(at != libc::MAP_FAILED, "the host has no memory for a signal stack");
            let base = at.byte_add(GUARD);
            let writable = libc::PROT_READ | libc::PROT_WRITE;
            let changed = libc::mprotect(base, ALTERNATE, writable);
            assert_eq!(changed, 0, "the host has no memory for a signal stack");
            let stack = libc::stack_t { ss_sp: base, ss_flags: 0, ss_size: ALTERNATE };
            let given = libc::sigaltstack(&stack, ptr::null_mut());
            assert_eq!(given, 0, "a thread gets no signal stack");
            own.0.set(at);
        }
    });
}

/// The signals of faults, and what handled them before.
static BEFORE: [(i32, OnceLock<libc::sigaction>); 2] =
    [(libc::SIGSEGV, OnceLock::new()), (libc::SIGBUS, OnceLock::new())];

/// Installs the handler of faults. Once for the process. `blocked` are the signals that wait meanwhile.
pub(crate) fn install(blocked: libc::sigset_t) {
    for (signal, before) in &BEFORE {
        let mut old = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: the action is valid: zeroed, then filled in; the handler keeps to what one may do.
        let old = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            action.sa_mask = blocked;
            let result = libc::sigaction(*signal, &action, old.as_mut_ptr());
            assert_eq!(result, 0, "cannot install a handler for signal {signal}");
            old.assume_init()
        };
        let _ = before.set(old);
    }
}

unsafe extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the host passes what is said about the signal.
    let address = unsafe { (*info).si_addr() }.addr();
    if !is_ended(VirtAddr::new(address), context) {
        // SAFETY: as above.
        unsafe { pass_on(signal, info, context) };
    }
}

/// Reports a touch of a page that is there to be met, and ends the task. Answers whether it was one.
///
/// Where the task cannot be ended the process aborts.
fn is_ended(address: VirtAddr, context: *mut libc::c_void) -> bool {
    let Some((cpus, _)) = local::cpu() else { return false };
    // SAFETY: the CPUs live while a thread holds one.
    let manager = unsafe { (*cpus).manager() };
    let Some(manager) = manager else { return false };
    // Looked at before anything here masks or enters.
    let way_out =
        if local::in_atomic() || manager.is_inside() { ptr::null() } else { local::way_out() };
    let Some(touched) = manager.report_touch(address) else { return false };
    // SAFETY: the thread runs work on another stack that has not ended, and what it does there can be left: it
    // holds nothing of the manager's.
    if way_out.is_null() || !unsafe { crate::stack::leave(context, way_out) } {
        stop(&touched);
    }
    true
}

/// Ends the process: the code that met the fault can neither go on nor be left.
fn stop(touched: &Line) -> ! {
    let stderr = rustix::stdio::stderr();
    for part in
        ["kmem: ", touched.as_str(), "; its code cannot be ended there: the machine stops\n"]
    {
        let _ = rustix::io::write(stderr, part.as_bytes());
    }
    // SAFETY: it does not return. It may be called in any handler.
    unsafe { libc::abort() }
}

/// Has the signal handled as it was before this crate came.
///
/// # Safety
///
/// The arguments are the handler's.
unsafe fn pass_on(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.iter().find(|(number, _)| *number == signal);
    let Some(before) = before.and_then(|(_, before)| before.get()) else { return };
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // The same fault is met again, and has its usual end. What another process sent, as `kill` does,
            // is not met again: it is sent once more.
            // SAFETY: the action was the process's; the host passes what is said about the signal.
            unsafe {
                libc::sigaction(signal, before, ptr::null_mut());
                if (*info).si_code <= 0 {
                    libc::raise(signal);
                }
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: it was installed as such a one.
            unsafe {
                let handler: unsafe extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
                    std::mem::transmute(handler);
                handler(signal, info, context);
            }
        }
        handler => {
            // SAFETY: as above.
            unsafe {
                let handler: unsafe extern "C" fn(i32) = std::mem::transmute(handler);
                handler(signal);
            }
        }
    }
}
