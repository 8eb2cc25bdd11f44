//! Tasks: what may sleep.
//!
//! A task belongs to one CPU and runs until it waits, yields or ends: nothing takes the CPU away from it
//! but interrupts. A CPU without a task that is ready halts in its idle loop, which is what every task
//! switches to.
//!
//! ```text
//!   ready, a queue a CPU  ──►  idle loop  ──►  running  ──►  waiting, by key and time  ──►  ready
//! ```

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::arch::{asm, global_asm};
use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use kmem::platform::WakeReason;
use kmem::{AllocError, CpuId, NodeMask};

use crate::cpu::{self, CPUS, Cpu};
use crate::interrupt::Frame;
use crate::lock::Lock;
use crate::stack::{self, Stack};
use crate::{clock, smp};

/// What a task does.
type Work = Box<dyn FnOnce() + Send>;

/// A task.
///
/// # Invariants
///
/// The cells are its CPU's, or of whoever has the scheduler's lock: `next` while the task is on a list,
/// `key` and `until` while that is the list of those that wait.
pub struct Task {
    cpu: u32,
    /// Held for as long as the task.
    stack: Stack,
    /// Where its stack is while it does not run.
    saved: UnsafeCell<usize>,
    work: Cell<Option<Work>>,
    next: Cell<*const Task>,
    key: Cell<usize>,
    until: Cell<u64>,
    timed_out: Cell<bool>,
    done: AtomicBool,
    /// Whether it was ended by force.
    is_broken: AtomicBool,
    /// Where the call on another stack that it makes is to be left by force: see [`on_stack`].
    way_out: Cell<usize>,
    /// The nodes that its memory may come from.
    nodes: Cell<NodeMask>,
}

// SAFETY: see the invariants.
unsafe impl Sync for Task {}
// SAFETY: as above.
unsafe impl Send for Task {}

impl Task {
    /// Whether it was ended by force.
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }
}

/// Tasks one behind the other.
struct Queue {
    first: *const Task,
    last: *const Task,
}

impl Queue {
    const EMPTY: Queue = Queue { first: core::ptr::null(), last: core::ptr::null() };

    fn push(&mut self, task: &Task) {
        task.next.set(core::ptr::null());
        if self.first.is_null() {
            self.first = task;
        } else {
            // SAFETY: tasks on a list are alive.
            unsafe { (*self.last).next.set(task) };
        }
        self.last = task;
    }

    fn pop(&mut self) -> Option<&'static Task> {
        // SAFETY: as above.
        let task = unsafe { self.first.as_ref() }?;
        self.first = task.next.get();
        Some(task)
    }

    /// Takes those out that `which` says, and passes them on.
    fn take(&mut self, which: impl Fn(&Task) -> bool, mut to: impl FnMut(&'static Task)) {
        let mut kept = Queue::EMPTY;
        while let Some(task) = self.pop() {
            if which(task) { to(task) } else { kept.push(task) }
        }
        *self = kept;
    }
}

/// What the scheduler's lock guards.
struct Scheduler {
    ready: [Queue; CPUS],
    waiting: Queue,
}

// SAFETY: the pointers are to tasks that stay alive while they are on a list.
unsafe impl Send for Scheduler {}

static SCHEDULER: Lock<Scheduler> =
    Lock::new(Scheduler { ready: [Queue::EMPTY; CPUS], waiting: Queue::EMPTY });

/// The task that each CPU runs, and where its idle loop's stack is.
struct Running {
    task: AtomicPtr<Task>,
    idle: AtomicUsize,
}

static RUNNING: [Running; CPUS] =
    [const { Running { task: AtomicPtr::new(core::ptr::null_mut()), idle: AtomicUsize::new(0) } };
        CPUS];

global_asm!(
    r#"
    .section .text.switch, "ax"
    /* Saves where this stack is at rdi, and goes on at the stack rsi. */
    .globl switch_stacks
switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    /* Calls rsi with rdx on the stack that ends at rdi, and saves at rcx where this one is. Answers 0. */
    .globl call_on_stack
call_on_stack:
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
    /* Goes on where the call that saved rdi returns, which answers 1. */
    .globl leave_stack
leave_stack:
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
    .globl begin_task
begin_task:
    movq %r12, %rdi
    xorl %ebp, %ebp
    call run_task
    ud2
"#,
    options(att_syntax)
);

unsafe extern "C" {
    fn switch_stacks(save: *mut usize, to: usize);
    fn begin_task();
    fn call_on_stack(top: usize, function: usize, argument: usize, save: *mut usize) -> usize;
    fn leave_stack();
}

/// Makes a task of a CPU, which runs when that CPU comes to it.
///
/// # Errors
///
/// There is no memory for its stack.
pub fn spawn(cpu: u32, work: impl FnOnce() + Send + 'static) -> Result<Arc<Task>, AllocError> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let stack = stack::of_task(NEXT.fetch_add(1, Ordering::Relaxed), "task")?;
    let top = stack.top().get();
    let task = Arc::new(Task {
        cpu,
        stack,
        saved: UnsafeCell::new(0),
        work: Cell::new(Some(Box::new(work))),
        next: Cell::new(core::ptr::null()),
        key: Cell::new(0),
        until: Cell::new(0),
        timed_out: Cell::new(false),
        done: AtomicBool::new(false),
        is_broken: AtomicBool::new(false),
        way_out: Cell::new(0),
        nodes: Cell::new(NodeMask::ALL),
    });
    // What `switch_stacks` finds: the registers, of which r12 is the task, and where to go on.
    let frame = [0, 0, 0, Arc::as_ptr(&task).addr(), 0, 0, begin_task as *const () as usize, 0, 0];
    let at = top - size_of_val(&frame);
    // SAFETY: the end of the new stack, which nobody else knows.
    unsafe {
        core::ptr::with_exposed_provenance_mut::<[usize; 9]>(at).write(frame);
        *task.saved.get() = at;
    }
    // The idle loop drops it when the task has ended.
    let _ = Arc::as_ptr(&task).expose_provenance();
    core::mem::forget(task.clone());
    make_ready(&task);
    Ok(task)
}

fn make_ready(task: &Task) {
    SCHEDULER.lock().ready[task.cpu as usize].push(task);
    if task.cpu != Cpu::id().get() {
        smp::nudge(task.cpu);
    }
}

/// The running task, where one runs.
pub fn current() -> Option<&'static Task> {
    // SAFETY: a task lives while it runs.
    unsafe { RUNNING[Cpu::id().index()].task.load(Ordering::Relaxed).as_ref() }
}

/// Why nobody came to the end of what was to be run.
#[derive(Debug)]
pub enum NotRun {
    /// There is no memory for a task's stack.
    NoStack(AllocError),
    /// The task was ended by force: see the report.
    Broken,
}

impl fmt::Display for NotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotRun::NoStack(error) => write!(f, "no stack for a task: {error}"),
            NotRun::Broken => f.write_str("the task was ended by force: see `dmesg`"),
        }
    }
}

impl From<AllocError> for NotRun {
    fn from(error: AllocError) -> Self {
        NotRun::NoStack(error)
    }
}

/// Runs something as a task of a CPU, and waits for it.
///
/// # Errors
///
/// See [`NotRun`].
pub fn run_on(cpu: u32, work: &(dyn Fn() + Sync)) -> Result<(), NotRun> {
    // SAFETY: only the lifetime changes: the task has ended when this returns.
    let work =
        unsafe { core::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(work) };
    let task = spawn(cpu, work)?;
    join(&task);
    if task.is_broken() { Err(NotRun::Broken) } else { Ok(()) }
}

/// Has CPUs run `work` again and again, as a task each, for as long as the calling task, which is on
/// another, does `meanwhile`.
///
/// # Errors
///
/// There is no memory for a task; then nothing is done.
pub fn while_others(
    cpus: impl Iterator<Item = CpuId>,
    work: &(dyn Fn() + Sync),
    meanwhile: impl FnOnce(),
) -> Result<(), AllocError> {
    // SAFETY: only the lifetime changes: the tasks have ended when this returns.
    let work =
        unsafe { core::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(work) };
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    let mut failed = Ok(());
    for cpu in cpus {
        let over = over.clone();
        let again = move || {
            while !over.load(Ordering::Relaxed) {
                work();
            }
        };
        match spawn(cpu.get(), again) {
            Ok(task) => tasks.push(task),
            Err(error) => failed = Err(error),
        }
    }
    if failed.is_ok() {
        meanwhile();
    }
    over.store(true, Ordering::Relaxed);
    tasks.iter().for_each(join);
    failed
}

/// Runs something with the running task's memory restricted to these nodes.
pub fn with_nodes<T>(nodes: NodeMask, work: impl FnOnce() -> T) -> T {
    let Some(task) = current() else { return work() };
    let before = task.nodes.replace(nodes);
    let done = work();
    task.nodes.set(before);
    done
}

/// The nodes that the running task's memory may come from.
pub fn nodes() -> NodeMask {
    current().map_or(NodeMask::ALL, |task| task.nodes.get())
}

#[unsafe(no_mangle)]
extern "C" fn run_task(task: *const Task) -> ! {
    // SAFETY: a task lives while it runs.
    let task = unsafe { &*task };
    cpu::restore(true);
    if let Some(work) = task.work.take() {
        work();
    }
    end(task)
}

fn end(task: &Task) -> ! {
    cpu::mask();
    task.done.store(true, Ordering::Release);
    wake(core::ptr::from_ref(task).addr());
    to_idle(task);
    unreachable!("a task that has ended runs")
}

/// Where a task goes that is ended by force, at the upper end of its stack again. What was on the stack is
/// forgotten: nothing of it is dropped.
extern "C" fn end_by_force() -> ! {
    match current() {
        Some(task) => {
            task.is_broken.store(true, Ordering::Relaxed);
            end(task)
        }
        None => unreachable!("no task is ended"),
    }
}

/// How the running task leaves code that must not go on.
pub struct WayOut {
    at: usize,
    stack: usize,
    first: usize,
}

impl WayOut {
    /// Has the interrupted task take it when the handler returns.
    pub fn enter(self, frame: &mut Frame) {
        frame.rip = self.at as u64;
        frame.rsp = self.stack as u64;
        frame.set_first_argument(self.first as u64);
    }
}

/// The running task's way out: of a call on another stack, if it makes one, or else of the task. `None`
/// where no task runs.
pub fn way_out() -> Option<WayOut> {
    let task = current()?;
    Some(match task.way_out.get() {
        0 => {
            // As after a call: 8 bytes below a multiple of 16.
            let stack = task.stack.top().get() - 8;
            WayOut { at: end_by_force as *const () as usize, stack, first: 0 }
        }
        way => WayOut { at: leave_stack as *const () as usize, stack: way, first: way },
    })
}

/// Runs something on another stack, given by the first address behind it, as the running task. Answers
/// whether it came to its end, and was not left by force.
///
/// # Safety
///
/// The stack is nobody's but the caller's, and has room for the work.
pub unsafe fn on_stack(top: usize, work: &dyn Fn()) -> bool {
    extern "C" fn run(work: *const &dyn Fn()) {
        // SAFETY: `on_stack` waits for it.
        unsafe { (*work)() };
    }
    let Some(task) = current() else { return false };
    let before = task.way_out.get();
    // SAFETY: the caller's promise; the function takes such an argument. The task goes back to this call in
    // either way.
    let left = unsafe {
        call_on_stack(
            top,
            run as *const () as usize,
            (&raw const work).addr(),
            task.way_out.as_ptr(),
        )
    };
    task.way_out.set(before);
    left == 0
}

/// Leaves the CPU to the idle loop. Interrupts are masked.
fn to_idle(task: &Task) {
    let idle = RUNNING[task.cpu as usize].idle.load(Ordering::Relaxed);
    // SAFETY: the idle loop of this CPU saved its stack there when it switched to this task.
    unsafe { switch_stacks(task.saved.get(), idle) };
}

/// Goes on as the idle loop, on another stack: what is on this one is over.
pub fn idle_on(stack: Stack) -> ! {
    let top = stack.top().get();
    core::mem::forget(stack);
    // SAFETY: the stack is nobody else's, and nothing comes back to this one.
    unsafe {
        asm!("mov rsp, {}", "xor ebp, ebp", "call {}", "ud2", in(reg) top, sym begin_idle,
            options(noreturn));
    }
}

extern "C" fn begin_idle() -> ! {
    idle()
}

/// Runs tasks as they become ready, and halts where none is. What a CPU does from its start on.
pub fn idle() -> ! {
    let own = &RUNNING[Cpu::id().index()];
    loop {
        cpu::mask();
        let next = SCHEDULER.lock().ready[Cpu::id().index()].pop();
        let Some(task) = next else {
            smp::leave_if_asked();
            // SAFETY: `sti` lets interrupts in after the next instruction: none is missed.
            unsafe { asm!("sti", "hlt", options(nostack)) };
            continue;
        };
        own.task.store(core::ptr::from_ref(task).cast_mut(), Ordering::Relaxed);
        // SAFETY: the task is this CPU's, and does not run.
        unsafe { switch_stacks(own.idle.as_ptr(), *task.saved.get()) };
        own.task.store(core::ptr::null_mut(), Ordering::Relaxed);
        cpu::restore(true);
        if task.done.load(Ordering::Acquire) {
            // SAFETY: it runs no more, and nothing is on its stack; the reference was the scheduler's.
            drop(unsafe { Arc::from_raw(task) });
        }
    }
}

/// Waits until [`wake`] is called with `key` or so much time has passed; not at all where `ready`.
pub fn wait(key: usize, ready: &dyn Fn() -> bool, nanoseconds: u64) -> WakeReason {
    let Some(task) = current() else { return WakeReason::Woken };
    let were = cpu::mask();
    task.key.set(key);
    task.timed_out.set(false);
    task.until.set(clock::nanoseconds().saturating_add(nanoseconds));
    SCHEDULER.lock().waiting.push(task);
    if ready() {
        // If somebody has woken it already it runs at once.
        wake_those(|waiting| core::ptr::eq(waiting, task), false);
    }
    to_idle(task);
    cpu::restore(were);
    if task.timed_out.get() { WakeReason::TimedOut } else { WakeReason::Woken }
}

/// Wakes all tasks that wait with a key. Any context but NMI.
pub fn wake(key: usize) {
    wake_those(|task| task.key.get() == key, false);
}

/// Wakes the tasks whose time is over. By the timer of one CPU.
pub fn tick() {
    let now = clock::nanoseconds();
    wake_those(|task| task.until.get() <= now, true);
}

fn wake_those(which: impl Fn(&Task) -> bool, timed_out: bool) {
    let mut woken = [false; CPUS];
    {
        let mut scheduler = SCHEDULER.lock();
        let Scheduler { ready, waiting } = &mut *scheduler;
        waiting.take(which, |task| {
            task.timed_out.set(timed_out);
            ready[task.cpu as usize].push(task);
            woken[task.cpu as usize] = true;
        });
    }
    let own = Cpu::id().get();
    let others = woken.iter().enumerate().filter(|(cpu, woken)| **woken && *cpu as u32 != own);
    others.for_each(|(cpu, _)| smp::nudge(cpu as u32));
}

/// Waits until a task has ended.
pub fn join(task: &Arc<Task>) {
    let done = || task.done.load(Ordering::Acquire);
    while !done() {
        wait(Arc::as_ptr(task).addr(), &done, u64::MAX);
    }
}

/// Waits so long.
pub fn sleep(nanoseconds: u64) {
    // A key that nobody wakes: the stack's own.
    let key = core::ptr::from_ref(&nanoseconds).addr();
    let until = clock::nanoseconds().saturating_add(nanoseconds);
    while clock::nanoseconds() < until {
        wait(key, &|| false, until.saturating_sub(clock::nanoseconds()));
    }
}
