//! Raising interrupts: cross calls, one-shot interrupts, lines, and storms.
//!
//! What a handler may do is the same for all: it runs on the CPU's own thread, between two
//! instructions of whatever ran there, with interrupts masked. It may allocate from the machine with
//! an atomic request; it may not sleep, touch the process's heap, or take a lock of the standard
//! library. An NMI's handler may not spin on any lock.

use std::marker::PhantomData;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use std::time::Duration;

use kmem::CpuId;
use kmem::platform::NotCalled;
use rustix::thread::futex;

use crate::cpu::{Cpus, Flavour};
use crate::lines::{Job, Posted};
use crate::{local, signal};

/// Why an interrupt could not be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRaised {
    /// There is no such CPU, or it is offline.
    NotCalled(NotCalled),
    /// As many interrupts as the CPU has slots for wait already.
    Full,
}

impl std::fmt::Display for NotRaised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotRaised::NotCalled(reason) => reason.fmt(f),
            NotRaised::Full => write!(f, "{} interrupts wait for the cpu", crate::lines::SLOTS),
        }
    }
}

impl std::error::Error for NotRaised {}

/// Sends a job, if there is room.
///
/// # Safety
///
/// As for `Lines::post`.
unsafe fn send(cpus: &Cpus, cpu: CpuId, flavour: Flavour, job: Job) -> Result<(), NotRaised> {
    // SAFETY: the caller's promise.
    match unsafe { cpus.send(cpu, flavour, job) } {
        Ok(Posted::First | Posted::More) => Ok(()),
        Ok(Posted::Full) => Err(NotRaised::Full),
        Err(reason) => Err(NotRaised::NotCalled(reason)),
    }
}

/// How often a caller looks for the answer before it sleeps: a few microseconds.
const SPINS: u32 = 200;

/// Runs `work` on a CPU and waits for it.
pub(crate) fn call_on(cpus: &Cpus, cpu: CpuId, work: &(dyn Fn() + Sync)) -> Result<(), NotCalled> {
    struct Call<'a> {
        work: &'a (dyn Fn() + Sync),
        /// 1 when the work has ended. A futex.
        done: AtomicU32,
    }

    unsafe fn run(data: *const ()) {
        let call = data.cast::<Call<'_>>();
        // SAFETY: the caller waits for `done` and keeps the call until then.
        unsafe {
            ((*call).work)();
            let done = &raw const (*call).done;
            (*done).store(1, Release);
            // The call may be gone by now. The address is all that the kernel takes, and whoever
            // may wait there for something else is woken early, which any futex's user expects.
            signal::wake_address(done);
        }
    }

    if cpus.held().is_some_and(|held| held.id() == cpu) {
        let saved = local::mask();
        work();
        local::restore(saved);
        return Ok(());
    }
    let call = Call { work, done: AtomicU32::new(0) };
    let job = Job { run, data: (&raw const call).cast() };
    // SAFETY: `call` lives until the job has run, as this waits for it. The work is `Sync`.
    while unsafe { cpus.send(cpu, Flavour::Interrupt, job)? } == Posted::Full {
        local::relax();
    }
    // Interrupts of this thread's own CPU are handled meanwhile, as they arrive: that is what lets
    // two CPUs call each other. The answer mostly comes in a few microseconds, if the other thread
    // runs; if it does not, it needs this thread's time more than this thread does.
    for _ in 0..SPINS {
        if call.done.load(Acquire) == 1 {
            return Ok(());
        }
        std::hint::spin_loop();
    }
    // Pairs with the release above: what the work did is seen.
    while call.done.load(Acquire) == 0 {
        let _ = futex::wait(&call.done, futex::Flags::PRIVATE, 0, None);
    }
    Ok(())
}

/// An interrupt that is raised once and then forgotten. A handler must not free memory of the
/// process, so what has run goes on a list, and the controller frees it.
pub(crate) struct OneShot {
    next: *mut OneShot,
    cpus: *const Cpus,
    handler: Box<dyn Fn() + Send>,
}

impl OneShot {
    pub(crate) fn raise(
        cpus: &Cpus,
        cpu: CpuId,
        flavour: Flavour,
        handler: Box<dyn Fn() + Send>,
    ) -> Result<(), NotRaised> {
        let shot = OneShot { next: null_mut(), cpus, handler };
        let shot = Box::into_raw(Box::new(shot));
        // SAFETY: the box is freed only after `run`, or below. The handler is `Send` and called
        // once, from one thread.
        unsafe {
            let job = Job { run: OneShot::run, data: shot.cast_const().cast() };
            send(cpus, cpu, flavour, job).inspect_err(|_| drop(Box::from_raw(shot)))
        }
    }

    unsafe fn run(data: *const ()) {
        let shot = data.cast::<OneShot>().cast_mut();
        // SAFETY: `raise` made the box and left it to this call. The CPUs live while one of them runs
        // this.
        unsafe {
            ((*shot).handler)();
            let cpus = &*(*shot).cpus;
            let spent = &cpus.spent;
            let mut first = spent.load(Relaxed);
            loop {
                (*shot).next = first;
                // Pairs with `free_spent`. Nothing is ever taken off but all of it at once, so the
                // same head is the same list.
                match spent.compare_exchange_weak(first, shot, Release, Relaxed) {
                    Ok(_) => break,
                    Err(now) => first = now,
                }
            }
            cpus.wake_controller();
        }
    }

    /// Frees what has run. Not for handlers.
    pub(crate) fn free_spent(spent: &AtomicPtr<OneShot>) {
        let mut next = spent.swap(null_mut(), AcqRel);
        while !next.is_null() {
            // SAFETY: everything on the list is a box whose handler has ended, and this call took
            // the list off for itself.
            let shot = unsafe { Box::from_raw(next) };
            next = shot.next;
        }
    }
}

/// An interrupt line: a handler that may be raised many times, from any context, on any CPU.
///
/// Made by [`Machine::interrupt_line`](crate::Machine::interrupt_line). Dropping it waits until its
/// last interrupt has been handled, so it must not be dropped with interrupts masked.
pub struct InterruptLine<'m> {
    cpus: &'m Cpus,
    line: Arc<Line>,
}

struct Line {
    handler: Box<dyn Fn() + Send + Sync>,
    /// Raised and not yet handled.
    waiting: AtomicUsize,
    handled: AtomicU64,
}

impl<'m> InterruptLine<'m> {
    pub(crate) fn new(cpus: &'m Cpus, handler: Box<dyn Fn() + Send + Sync>) -> Self {
        let line = Line { handler, waiting: AtomicUsize::new(0), handled: AtomicU64::new(0) };
        InterruptLine { cpus, line: Arc::new(line) }
    }

    /// Has the handler run on a CPU, as soon as interrupts are unmasked there. Any context.
    ///
    /// # Errors
    ///
    /// There is no such CPU, it is offline, or too many interrupts wait for it.
    pub fn raise(&self, cpu: CpuId) -> Result<(), NotRaised> {
        self.raise_as(cpu, Flavour::Interrupt)
    }

    /// Has the handler run on a CPU at once, masked or not. Any context.
    ///
    /// # Errors
    ///
    /// As [`InterruptLine::raise`].
    pub fn raise_nmi(&self, cpu: CpuId) -> Result<(), NotRaised> {
        self.raise_as(cpu, Flavour::Nmi)
    }

    fn raise_as(&self, cpu: CpuId, flavour: Flavour) -> Result<(), NotRaised> {
        self.line.waiting.fetch_add(1, Relaxed);
        let job = Job { run: Line::run, data: Arc::as_ptr(&self.line).cast() };
        // SAFETY: the line lives until nothing waits: `drop` sees to it. A line that is forgotten
        // instead lives for ever. The handler is `Send` and `Sync`.
        unsafe { send(self.cpus, cpu, flavour, job) }.inspect_err(|_| {
            self.line.waiting.fetch_sub(1, Release);
        })
    }

    /// How often the handler has run.
    pub fn handled(&self) -> u64 {
        self.line.handled.load(Relaxed)
    }

    /// How many interrupts have been raised and not been handled yet.
    pub fn waiting(&self) -> usize {
        // Pairs with the release in `run`: what the handlers did is seen.
        self.line.waiting.load(Acquire)
    }
}

impl Line {
    unsafe fn run(data: *const ()) {
        let line = data.cast::<Line>();
        // SAFETY: the line is not freed while `waiting` counts this call; that is the last access.
        unsafe {
            ((*line).handler)();
            (*line).handled.fetch_add(1, Relaxed);
            (*line).waiting.fetch_sub(1, Release);
        }
    }
}

impl Drop for InterruptLine<'_> {
    fn drop(&mut self) {
        while self.waiting() != 0 {
            local::relax();
        }
    }
}

/// Interrupts at random moments on all CPUs, until it is dropped.
///
/// Made by [`Machine::interrupt_storm`](crate::Machine::interrupt_storm).
pub struct Storm<'m> {
    shared: Arc<StormState>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// The machine's controller must be there for the last interrupts to be handled.
    machine: PhantomData<&'m Cpus>,
}

#[derive(Default)]
struct StormState {
    over: AtomicBool,
    handled: AtomicU64,
}

impl<'m> Storm<'m> {
    pub(crate) fn start(
        machine: &'m Arc<Cpus>,
        period: Duration,
        handler: Box<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Storm<'m>> {
        let cpus = Arc::clone(machine);
        let shared = Arc::new(StormState::default());
        let state = Arc::clone(&shared);
        let blow = move || {
            let counter = Arc::clone(&state);
            let counted = Box::new(move || {
                handler();
                counter.handled.fetch_add(1, Relaxed);
            });
            let line = InterruptLine::new(&cpus, counted);
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ cpus.tag());
            while !state.over.load(Relaxed) {
                let number = random.below(cpus.all().len() as u64) as u32;
                // A CPU that is offline or flooded gets none: a storm owes nobody anything.
                let _ = CpuId::new(number).map(|cpu| line.raise(cpu));
                if period.is_zero() {
                    // Several that wait for one CPU arrive as one: each is to come on its own.
                    while line.waiting() != 0 && !state.over.load(Relaxed) {
                        std::thread::yield_now();
                    }
                } else {
                    let nanoseconds = random.below(2 * period.as_nanos() as u64 + 1);
                    std::thread::sleep(Duration::from_nanos(nanoseconds));
                }
            }
        };
        let thread = std::thread::Builder::new().name("interrupts".into()).spawn(blow)?;
        Ok(Storm { shared, thread: Some(thread), machine: PhantomData })
    }

    /// How many of its interrupts have been handled.
    pub fn handled(&self) -> u64 {
        self.shared.handled.load(Relaxed)
    }
}

impl Drop for Storm<'_> {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It waits for its last interrupt, which may be for the CPU that this thread holds: so
            // no sleeping here but with interrupts unmasked, as the caller's are.
            let _ = thread.join();
        }
    }
}

/// A small generator of random numbers (xorshift): the intervals need no better one.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}
