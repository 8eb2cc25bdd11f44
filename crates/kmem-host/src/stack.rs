//! Running on a kernel stack, and leaving it by force.
//!
//! A task is a thread, which has a stack of the host's. [`run`] has it go on on another one: a kernel stack
//! of the machine, with whatever lies below it. When the work is done the thread is back on its own.
//!
//! ```text
//!   the thread's stack                       a kernel stack
//!
//!     run ── call_on_stack ────────────────► work
//!      ▲          │                            │ ends
//!      │◄─────────┴────────────────────────────┤
//!      │                                       │ touches the guard page
//!      └◄── leave_stack ◄── on_fault ◄── SIGSEGV, on the alternate stack
//! ```
//!
//! A task that touches a page which nothing is mapped at, below its stack or behind an area of `vmalloc`, is
//! *ended by force*: the fault's handler has the thread go on where it called. Nothing of what it had on the
//! stack is dropped: what it borrowed is as it was left, locks of the host that it held stay locked, and what
//! it owned is lost, unless the stack has it ([`kmem::KernelStack::kmalloc`]). Of the machine it gives back
//! what it changed of the thread: its CPU, its nodes, its reserves.
//!
//! That is done only where the code was in nothing of the manager's: interrupts were unmasked, it ran in no
//! handler, pre-emption was enabled, and its CPU's sections were empty. Elsewhere there is no way on: the
//! process says so and aborts.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use kmem::{AllocError, KernelStack, Reclaim};

use crate::host::Host;
use crate::local;
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

#[cfg(target_arch = "x86_64")]
mod switch {
    std::arch::global_asm!(
        r#"
    .text
    .globl kmem_host_call_on_stack
    .hidden kmem_host_call_on_stack
    .type kmem_host_call_on_stack, @function
    /* Calls rsi with rdx on the stack that ends at rdi; saves at rcx where this one is. Answers 0. */
kmem_host_call_on_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rcx)
    movq %rsp, %rbx
    movq %rdi, %rsp
    movq %rdx, %rdi
    xorl %ebp, %ebp
    call *%rsi
    movq %rbx, %rsp
    xorl %eax, %eax
    jmp 1f
    .globl kmem_host_leave_stack
    .hidden kmem_host_leave_stack
    .type kmem_host_leave_stack, @function
    /* Goes on where the call that saved rdi returns, which answers 1. */
kmem_host_leave_stack:
    movq %rdi, %rsp
    movl $1, %eax
1:
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
"#,
        options(att_syntax)
    );

    unsafe extern "C" {
        fn kmem_host_call_on_stack(
            top: usize,
            function: unsafe extern "C" fn(*mut ()),
            argument: *mut (),
            save: *mut usize,
        ) -> usize;
        fn kmem_host_leave_stack();
    }

    /// Calls a function on the stack that ends at `top`, and answers whether it returned. Where the calling
    /// stack is, is at `save` before the function begins.
    ///
    /// # Safety
    ///
    /// The stack has room, and nobody else is on it. The function does not unwind.
    pub(super) unsafe fn call(
        top: usize,
        function: unsafe extern "C" fn(*mut ()),
        argument: *mut (),
        save: *mut usize,
    ) -> bool {
        // SAFETY: the caller's promise.
        unsafe { kmem_host_call_on_stack(top, function, argument, save) == 0 }
    }

    /// Has an interrupted thread leave the stack that it is on: `saved` is what the call saved.
    ///
    /// # Safety
    ///
    /// The context is the thread's, which goes on with it. The call has not returned.
    pub(crate) unsafe fn leave(context: *mut libc::c_void, saved: usize) {
        // SAFETY: the caller's promise.
        let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        registers[libc::REG_RIP as usize] = kmem_host_leave_stack as *const () as i64;
        registers[libc::REG_RSP as usize] = saved as i64;
        registers[libc::REG_RDI as usize] = saved as i64;
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use switch::leave;

/// The work, and what becomes of it.
struct Errand<F, T> {
    work: Option<F>,
    done: Option<Result<T, Box<dyn Any + Send>>>,
}

#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn errand<F: FnOnce() -> T, T>(errand: *mut ()) {
    // SAFETY: `run` waits, and does not touch it meanwhile.
    let errand = unsafe { &mut *errand.cast::<Errand<F, T>>() };
    if let Some(work) = errand.work.take() {
        // A panic cannot unwind from one stack to the other: it is carried over.
        errand.done = Some(catch_unwind(AssertUnwindSafe(work)));
    }
}

/// Runs `work` on a kernel stack, as the running task.
///
/// # Errors
///
/// It was ended by force.
#[cfg(target_arch = "x86_64")]
pub(crate) fn run<const SHIFT: u32, R: Reclaim, T>(
    stack: &KernelStack<'_, Host<SHIFT>, R>,
    work: impl FnOnce() -> T,
) -> Result<T, Broken> {
    fn go<F: FnOnce() -> T, T>(top: usize, work: F, save: *mut usize) -> Option<Errand<F, T>> {
        let mut wanted = Errand { work: Some(work), done: None };
        let argument = (&raw mut wanted).cast();
        // SAFETY: the stack is the caller's of `run`. The errand catches panics.
        unsafe { switch::call(top, errand::<F, T>, argument, save) }.then_some(wanted)
    }
    assert!(stack.enter(), "code runs on the stack already: it would be overwritten");
    let before = task::State::save();
    let outer = local::saved_way_out();
    let gone = go(stack.top().get(), work, local::way_out());
    stack.leave();
    local::set_way_out(outer);
    match gone.and_then(|errand| errand.done) {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(payload)) => resume_unwind(payload),
        None => {
            before.put_back();
            Err(Broken)
        }
    }
}

/// # Panics
///
/// Always: how stacks are changed is written for x86-64 alone.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn run<const SHIFT: u32, R: Reclaim, T>(
    _: &KernelStack<'_, Host<SHIFT>, R>,
    _: impl FnOnce() -> T,
) -> Result<T, Broken> {
    unimplemented!("work on kernel stacks needs a processor of the x86-64 kind")
}
