//! Tasks: threads that hold a CPU, give it away to sleep, and get it back.
//!
//! Scheduling is cooperative, as in a kernel without pre-emption: a task keeps its CPU until it
//! sleeps, yields or ends. The host's scheduler may stop the thread at any time; for the machine
//! that is a CPU that is slow for a while.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use kmem::NodeMask;
use kmem::platform::WakeReason;
use rustix::thread::{Timespec, futex};

use crate::cpu::{Cpus, Wish};
use crate::local;

/// Has the running thread give away its CPU, if it holds one, until this is dropped.
pub(crate) struct Away {
    /// The CPUs and what to wish for; `None` if the thread held none.
    back: Option<(*const Cpus, Wish)>,
}

impl Away {
    /// # Panics
    ///
    /// In atomic context: whoever waits there never gets what it waits for.
    pub(crate) fn leave() -> Away {
        let Some((cpus, cpu)) = local::cpu() else { return Away { back: None } };
        assert!(!local::in_atomic(), "a task gave its cpu away in atomic context");
        // SAFETY: both live while a thread holds the CPU.
        let id = unsafe { (*cpu).id() };
        let wish = if local::is_bound() { Wish::Bound(id) } else { Wish::Prefer(id) };
        // SAFETY: as above; the thread's `OnCpu`, which is further out on its stack, borrows them.
        unsafe { (*cpus).leave() };
        Away { back: Some((cpus, wish)) }
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        if let Some((cpus, wish)) = self.back {
            // SAFETY: the thread's `OnCpu` still borrows them.
            unsafe { (*cpus).take(wish) };
        }
    }
}

/// Keeps the running thread a task until this is dropped.
struct OnCpu<'c> {
    cpus: &'c Cpus,
    was_bound: bool,
    /// The CPU that the thread held before, perhaps of another machine.
    _before: Away,
}

impl<'c> OnCpu<'c> {
    fn enter(cpus: &'c Cpus, wish: Wish) -> OnCpu<'c> {
        let before = Away::leave();
        let was_bound = local::is_bound();
        local::set_bound(matches!(wish, Wish::Bound(_)));
        cpus.take(wish);
        OnCpu { cpus, was_bound, _before: before }
    }
}

impl Drop for OnCpu<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            local::forget_atomic();
        }
        self.cpus.leave();
        local::set_bound(self.was_bound);
        // `_before` takes the former CPU again, after this.
    }
}

/// What of a thread a task may have changed that was ended by force.
pub(crate) struct State {
    held: Option<(*const Cpus, Wish)>,
    bound: bool,
    nodes: NodeMask,
    memalloc: u32,
}

impl State {
    pub(crate) fn save() -> State {
        let held = local::cpu().map(|(cpus, cpu)| {
            // SAFETY: the CPU lives while this thread holds it.
            (cpus, Wish::Bound(unsafe { (*cpu).id() }))
        });
        let nodes = local::set_allowed_nodes(NodeMask::ALL);
        local::set_allowed_nodes(nodes);
        State { held, bound: local::is_bound(), nodes, memalloc: local::memalloc_depth() }
    }

    /// Has the thread hold what it held. It is in no atomic context.
    pub(crate) fn put_back(self) {
        local::set_allowed_nodes(self.nodes);
        local::set_memalloc_depth(self.memalloc);
        let holds = local::cpu().map(|(cpus, cpu)| {
            // SAFETY: as above.
            (cpus, Wish::Bound(unsafe { (*cpu).id() }))
        });
        if holds != self.held {
            if let Some((cpus, _)) = holds {
                // SAFETY: the CPUs live while this thread holds one.
                unsafe { (*cpus).leave() };
            }
            if let Some((cpus, wish)) = self.held {
                // SAFETY: the thread's `OnCpu`, which is further out, borrows them.
                unsafe { (*cpus).take(wish) };
            }
        }
        local::set_bound(self.bound);
    }
}

/// Runs `work` as a task.
pub(crate) fn run<T>(cpus: &Cpus, wish: Wish, work: impl FnOnce() -> T) -> T {
    let here = cpus.held().is_some_and(|cpu| wish == Wish::Bound(cpu.id()) && local::is_bound());
    if here {
        return work();
    }
    let _on = OnCpu::enter(cpus, wish);
    work()
}

/// A task of its own thread, made by [`Machine::spawn`](crate::Machine::spawn).
///
/// Dropping it leaves the task running.
#[must_use = "a task that is not joined may outlive what it works for"]
pub struct Task<T> {
    thread: std::thread::JoinHandle<T>,
}

impl<T: Send + 'static> Task<T> {
    pub(crate) fn spawn(
        cpus: &Arc<Cpus>,
        wish: Wish,
        name: String,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<Task<T>> {
        struct Counted(Arc<Cpus>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.tasks.fetch_sub(1, Relaxed);
            }
        }
        cpus.tasks.fetch_add(1, Relaxed);
        let counted = Counted(Arc::clone(cpus));
        let body = move || run(&counted.0, wish, work);
        Ok(Task { thread: std::thread::Builder::new().name(name).spawn(body)? })
    }

    /// Waits until the task has ended, and answers what it answered. A task that joins another
    /// gives its CPU away meanwhile.
    ///
    /// # Panics
    ///
    /// The task panicked: with the same payload.
    pub fn join(self) -> T {
        let away = Away::leave();
        let result = self.thread.join();
        drop(away);
        result.unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Lets another task that waits for this thread's CPU have it first.
pub(crate) fn yield_now() {
    if local::cpu().is_none() {
        std::thread::yield_now();
    } else if !give_way() {
        rustix::thread::sched_yield();
    }
}

/// Lets another task have the thread's CPU if one waits for it; answers whether one did.
pub(crate) fn give_way() -> bool {
    let Some((_, cpu)) = local::cpu() else { return false };
    // SAFETY: the CPU lives while this thread holds it.
    let gives = unsafe { (*cpu).is_wanted() } && !local::in_atomic();
    if gives {
        drop(Away::leave());
    }
    gives
}

/// Runs `work` while the thread's CPU is free for other tasks.
pub(crate) fn without_cpu<T>(work: impl FnOnce() -> T) -> T {
    let _away = Away::leave();
    work()
}

/// Where tasks wait: a few words that count wakes, shared by all keys.
///
/// A waiter notes the count, looks whether it still has to wait, and sleeps unless the count has
/// changed; a wake changes the count first. Keys that share a word wake each other's waiters early,
/// which a waiter must expect anyway.
pub(crate) struct Waits {
    words: [Word; 64],
}

/// One word and the number of its waiters, apart from its neighbours in the cache.
#[repr(align(64))]
struct Word {
    wakes: AtomicU32,
    waiters: AtomicU32,
}

impl Waits {
    pub(crate) const fn new() -> Waits {
        Waits {
            words: [const { Word { wakes: AtomicU32::new(0), waiters: AtomicU32::new(0) } }; 64],
        }
    }

    fn word(&self, key: usize) -> &Word {
        // Keys are mostly addresses: a multiplication spreads them over the upper bits.
        let hash = (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.words[(hash >> (u64::BITS - 6)) as usize]
    }

    /// See [`kmem::platform::Sleep::wait`].
    pub(crate) fn wait(
        &self,
        key: usize,
        ready: &(dyn Fn() -> bool + Sync),
        nanoseconds: u64,
    ) -> WakeReason {
        let word = self.word(key);
        // Before the count is read: a wake that sees no waiter has counted before that.
        word.waiters.fetch_add(1, SeqCst);
        let wakes = word.wakes.load(SeqCst);
        let reason = if ready() || local::in_atomic() {
            WakeReason::Woken
        } else {
            let away = Away::leave();
            let reason = sleep_while(&word.wakes, wakes, nanoseconds);
            drop(away);
            reason
        };
        word.waiters.fetch_sub(1, SeqCst);
        reason
    }

    /// See [`kmem::platform::Sleep::wake`].
    pub(crate) fn wake(&self, key: usize) {
        let word = self.word(key);
        word.wakes.fetch_add(1, SeqCst);
        if word.waiters.load(SeqCst) != 0 {
            let _ = futex::wake(&word.wakes, futex::Flags::PRIVATE, i32::MAX as u32);
        }
    }
}

/// Sleeps until a wake after the given count, or early, or for so long.
fn sleep_while(wakes: &AtomicU32, count: u32, nanoseconds: u64) -> WakeReason {
    let time = Duration::from_nanos(nanoseconds);
    let timeout = Timespec::try_from(time).ok();
    match futex::wait(wakes, futex::Flags::PRIVATE, count, timeout.as_ref()) {
        Err(rustix::io::Errno::TIMEDOUT) => WakeReason::TimedOut,
        _ => WakeReason::Woken,
    }
}
