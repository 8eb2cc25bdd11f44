//! Running on a kernel stack, and leaving it by force.
//!
//! A task is a thread, which has a stack of the host's. [`run`] has it go on on another one: a kernel stack
//! of the machine, with whatever lies below it. When the work is done the thread is back on its own.
//!
//! ```text
//!   the thread's stack                       a kernel stack
//!
//!     run ── resume ───────────────────────► work
//!      ▲                                       │ ends
//!      │◄──────────────────────────────────────┤
//!      │                                       │ touches the guard page
//!      └◄── leave ◄── on_fault ◄── SIGSEGV, on the alternate stack
//! ```
//!
//! How registers and stacks are changed is corosensei's, which knows nine kinds of processors.
//!
//! A task that touches a page which nothing is mapped at, below its stack or behind an area of `vmalloc`, is
//! *ended by force*: the fault's handler has the thread go on where it called. Nothing of what it had on the
//! stack is dropped: what it borrowed is as it was left, locks of the host that it held stay locked, and what
//! it owned is lost, unless the stack has it ([`kmem::KernelStack::kmalloc`]). Of the machine it gives back
//! what it changed of the thread: its CPU, its nodes, its reserves.
//!
//! That is done only where the code was in nothing of the manager's: interrupts were unmasked, it ran in no
//! handler, pre-emption was enabled, and its CPU's sections were empty. Elsewhere, and on processors other than
//! x86-64, there is no way on: the process says so and aborts.

use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use corosensei::{CoroutineResult, ScopedCoroutine, Yielder};
use kmem::{AllocError, KernelStack, Reclaim, VirtAddr};

use crate::host::Host;
use crate::local::{self, WayOut};
use crate::task;

/// A task touched memory that is nobody's, and was ended by force. What it touched has been reported as
/// misuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task was ended by force: the machine's reports of misuse say why")
    }
}

impl std::error::Error for Broken {}

/// Why a task on a kernel stack did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRun {
    /// There was no stack for it.
    NoStack(AllocError),
    /// It was ended by force.
    Broken(Broken),
}

impl fmt::Display for NotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotRun::NoStack(error) => write!(f, "no kernel stack for the task: {error}"),
            NotRun::Broken(broken) => broken.fmt(f),
        }
    }
}

impl std::error::Error for NotRun {}

/// A kernel stack as the library that changes stacks takes it.
struct Area {
    lowest: NonZeroUsize,
    top: NonZeroUsize,
}

// SAFETY: the addresses are those of a kernel stack, which stays where it is while it is entered. The library
// asks for a page of room and for a guard below. A stack of one page lacks the few words of its owner's record,
// which whoever runs work of unknown depth on it has to mind anyway; a stack of a block has a canary in place
// of the guard, as the texts' stacks do: what comes to its top is the library's frame of some hundred bytes.
unsafe impl corosensei::stack::Stack for Area {
    // The library's base is where the stack begins to grow down from.
    fn base(&self) -> NonZeroUsize {
        self.top
    }

    fn limit(&self) -> NonZeroUsize {
        self.lowest
    }
}

/// Runs `work` on a kernel stack, as the running task.
///
/// # Errors
///
/// It was ended by force.
///
/// # Panics
///
/// As `work` does. Code runs on the stack already.
pub(crate) fn run<const SHIFT: u32, const TRACE: bool, R: Reclaim, T>(
    stack: &KernelStack<'_, Host<SHIFT, TRACE>, R>,
    work: impl FnOnce() -> T,
) -> Result<T, Broken> {
    assert!(stack.enter(), "code runs on the stack already: it would be overwritten");
    let before = task::State::save();
    let area = Area { lowest: nonzero(stack.base()), top: nonzero(stack.top()) };
    // What the work takes and answers lies here, not on the small stack.
    let (mut work, mut answer) = (Some(work), None);
    let errand = ScopedCoroutine::with_stack(area, |_: &Yielder<(), ()>, ()| {
        answer = work.take().map(|work| work());
        true
    });
    let outer = local::way_out();
    let ended = errand.scope(|mut errand| {
        let way_out = errand.trap_handler();
        local::set_way_out(&raw const way_out);
        // A panic is carried over, and goes on here.
        catch_unwind(AssertUnwindSafe(|| errand.resume(())))
    });
    stack.leave();
    local::set_way_out(outer);
    match ended {
        Ok(CoroutineResult::Return(true)) => answer.ok_or(Broken),
        Ok(_) => {
            before.put_back();
            Err(Broken)
        }
        Err(payload) => resume_unwind(payload),
    }
}

/// The address of a stack, which is never 0.
fn nonzero(address: VirtAddr) -> NonZeroUsize {
    NonZeroUsize::new(address.get()).unwrap_or(NonZeroUsize::MAX)
}

/// Has an interrupted thread leave the kernel stack that it is on, when the handler returns. Answers whether
/// that is possible here: which registers a context has is the processor's matter.
///
/// # Safety
///
/// The context is the thread's, whose work on the stack has not ended, and which holds nothing that must not be
/// left as it is. `way_out` is the work's.
pub(crate) unsafe fn leave(context: *mut libc::c_void, way_out: *const WayOut) -> bool {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise.
    unsafe {
        let wanted = (*way_out).setup_trap_handler(|| false);
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        registers[libc::REG_RIP as usize] = wanted.rip as i64;
        registers[libc::REG_RSP as usize] = wanted.rsp as i64;
        registers[libc::REG_RBP as usize] = wanted.rbp as i64;
        registers[libc::REG_RDI as usize] = wanted.rdi as i64;
        registers[libc::REG_RSI as usize] = wanted.rsi as i64;
        true
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (context, way_out);
        false
    }
}
