//! What a thread knows about the CPU it holds.
//!
//! One set of thread-local words, read on the page allocator's fast path: constant initial values
//! and no destructor make an access one instruction relative to the thread pointer.
//!
//! Interrupts are signals to this same thread, so nothing here is shared between threads: the words
//! are atomics only because a handler may run between any two instructions, all accesses are
//! relaxed, and [`fence`] keeps the compiler from moving them. A handler leaves every word as it
//! found it, except [`Local::deferred`], which only handlers set; so a load, a change and a store of
//! another word need not be one step.

use std::borrow::Cow;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU16, AtomicU32, AtomicU64};

use corosensei::trap::CoroutineTrapHandler;
use kmem::NodeMask;

use crate::cpu::{Cpus, VirtualCpu};

/// How work on a kernel stack is left by force. `true` is what it answers at its own end.
pub(crate) type WayOut = CoroutineTrapHandler<bool>;

/// Interrupts are masked.
const MASKED: u32 = 1 << 0;
/// An interrupt handler runs.
const INTERRUPT: u32 = 1 << 1;
/// An NMI handler runs.
const NMI: u32 = 1 << 2;
/// One `preempt_disable`.
const PREEMPT: u32 = 1 << 3;

/// The thread's words.
pub(crate) struct Local {
    /// The tag of the machine plus the number of the CPU that is held; 0 for none.
    held: AtomicU64,
    /// The CPU that is held, or null. It lives while it is held.
    cpu: AtomicPtr<VirtualCpu>,
    /// The CPUs of the machine whose CPU is held, or null.
    cpus: AtomicPtr<Cpus>,
    /// Whether the task may run on the CPU that it holds alone.
    bound: AtomicBool,
    /// [`MASKED`], [`INTERRUPT`], [`NMI`] and a multiple of [`PREEMPT`]: atomic context unless 0.
    state: AtomicU32,
    /// An interrupt arrived and could not be handled then.
    deferred: AtomicBool,
    /// The thread's number; 0 until it first takes a CPU.
    thread: AtomicI32,
    /// What it is called: the bytes of its name, the first in the lowest.
    name: [AtomicU64; 2],
    /// How often [`relax`] was called.
    relaxed: AtomicU32,
    /// The nodes that the task may not take memory from: the complement, so that 0 is right.
    forbidden_nodes: AtomicU16,
    /// How many calls deep the task frees memory for others.
    memalloc: AtomicU32,
    /// How the thread leaves the kernel stack that it runs on; null while it runs on none.
    way_out: AtomicPtr<WayOut>,
}

thread_local! {
    static LOCAL: Local = const {
        Local {
            held: AtomicU64::new(0),
            cpu: AtomicPtr::new(null_mut()),
            cpus: AtomicPtr::new(null_mut()),
            bound: AtomicBool::new(false),
            state: AtomicU32::new(0),
            deferred: AtomicBool::new(false),
            thread: AtomicI32::new(0),
            name: [const { AtomicU64::new(0) }; 2],
            relaxed: AtomicU32::new(0),
            forbidden_nodes: AtomicU16::new(0),
            memalloc: AtomicU32::new(0),
            way_out: AtomicPtr::new(null_mut()),
        }
    };
}

/// Keeps the compiler from moving accesses of the thread's words, and of what they protect, across.
/// The CPU needs no fence: a signal handler sees its own thread's accesses in order.
#[inline]
fn fence() {
    std::sync::atomic::compiler_fence(SeqCst);
}

/// The tag of the machine plus the number of the CPU that this thread holds; 0 for none.
#[inline]
pub(crate) fn held() -> u64 {
    LOCAL.with(|local| local.held.load(Relaxed))
}

/// The CPU that this thread holds, with the machine's CPUs.
pub(crate) fn cpu() -> Option<(*const Cpus, *const VirtualCpu)> {
    LOCAL.with(|local| {
        let cpu = local.cpu.load(Relaxed);
        (!cpu.is_null()).then(|| (local.cpus.load(Relaxed).cast_const(), cpu.cast_const()))
    })
}

/// Makes `cpu` the one that this thread holds. Interrupts are masked.
pub(crate) fn set_cpu(held: Option<(&Cpus, &VirtualCpu)>) {
    LOCAL.with(|local| {
        debug_assert!(local.state.load(Relaxed) & MASKED != 0);
        let cpus = held.map_or(null_mut(), |(cpus, _)| std::ptr::from_ref(cpus).cast_mut());
        let cpu = held.map_or(null_mut(), |(_, cpu)| std::ptr::from_ref(cpu).cast_mut());
        local.cpus.store(cpus, Relaxed);
        local.cpu.store(cpu, Relaxed);
        local.held.store(held.map_or(0, |(_, cpu)| cpu.tagged()), Relaxed);
        fence();
    });
}

/// Whether the task may run on the CPU that it holds alone.
pub(crate) fn is_bound() -> bool {
    LOCAL.with(|local| local.bound.load(Relaxed))
}

/// Sets [`is_bound`].
pub(crate) fn set_bound(bound: bool) {
    LOCAL.with(|local| local.bound.store(bound, Relaxed));
}

/// Whether the code must not sleep: a handler, interrupts masked, or `preempt_disable`.
#[inline]
pub(crate) fn in_atomic() -> bool {
    LOCAL.with(|local| local.state.load(Relaxed) != 0)
}

/// Whether an interrupt handler runs, or an NMI handler.
#[inline]
pub(crate) fn in_handler() -> bool {
    LOCAL.with(|local| local.state.load(Relaxed) & (INTERRUPT | NMI) != 0)
}

/// Whether an NMI handler runs.
#[inline]
pub(crate) fn in_nmi() -> bool {
    LOCAL.with(|local| local.state.load(Relaxed) & NMI != 0)
}

/// Whether interrupts were masked already: what `mask` answers and `restore` takes.
#[derive(Clone, Copy, Debug)]
pub struct Saved {
    masked: bool,
}

/// Masks interrupts on this thread.
#[inline]
pub(crate) fn mask() -> Saved {
    LOCAL.with(|local| {
        let state = local.state.load(Relaxed);
        local.state.store(state | MASKED, Relaxed);
        fence();
        Saved { masked: state & MASKED != 0 }
    })
}

/// Puts the interrupt mask back, and handles what arrived meanwhile.
#[inline]
pub(crate) fn restore(saved: Saved) {
    if saved.masked {
        return;
    }
    LOCAL.with(|local| {
        fence();
        local.state.store(local.state.load(Relaxed) & !MASKED, Relaxed);
        fence();
        // What arrives from here on is handled as it arrives; what arrived before left this mark.
        if local.deferred.load(Relaxed) {
            handle_deferred();
        }
    });
}

/// Leaves what has arrived to the next holder: this thread gives its CPU away.
pub(crate) fn unmask_without_cpu() {
    LOCAL.with(|local| {
        debug_assert!(local.cpu.load(Relaxed).is_null());
        local.deferred.store(false, Relaxed);
        fence();
        local.state.store(local.state.load(Relaxed) & !MASKED, Relaxed);
        fence();
    });
}

/// Marks that there is something to handle when interrupts are next unmasked.
pub(crate) fn defer() {
    LOCAL.with(|local| local.deferred.store(true, Relaxed));
}

/// Runs what waits for this thread's CPU, unless this is no time for it.
#[cold]
fn handle_deferred() {
    LOCAL.with(|local| {
        while local.deferred.load(Relaxed)
            && local.state.load(Relaxed) & (MASKED | INTERRUPT | NMI) == 0
        {
            handle_interrupts();
        }
    });
}

/// Runs the interrupts that wait for this thread's CPU: on arrival, or when they are unmasked.
/// Handlers run with interrupts masked; what arrives meanwhile is handled before this returns.
pub(crate) fn handle_interrupts() {
    LOCAL.with(|local| {
        let before = local.state.load(Relaxed);
        if before & (MASKED | INTERRUPT | NMI) != 0 {
            local.deferred.store(true, Relaxed);
            return;
        }
        loop {
            local.state.store(before | MASKED | INTERRUPT, Relaxed);
            local.deferred.store(false, Relaxed);
            fence();
            let cpu = local.cpu.load(Relaxed);
            if !cpu.is_null() {
                // SAFETY: a CPU lives while a thread holds it, and this one does.
                unsafe { (*cpu).interrupts.run() };
            }
            fence();
            local.state.store(before, Relaxed);
            fence();
            if !local.deferred.load(Relaxed) {
                return;
            }
        }
    });
}

/// Runs the NMIs that wait for this thread's CPU, whatever the mask says.
pub(crate) fn handle_nmis() {
    LOCAL.with(|local| {
        let before = local.state.load(Relaxed);
        if before & NMI != 0 {
            // The handler that runs looks again before it ends.
            return;
        }
        let cpu = local.cpu.load(Relaxed);
        if cpu.is_null() {
            return;
        }
        // SAFETY: a CPU lives while a thread holds it, and this one does.
        let nmis = unsafe { &(*cpu).nmis };
        while nmis.is_pending() {
            local.state.store(before | NMI, Relaxed);
            fence();
            nmis.run();
            fence();
            local.state.store(before, Relaxed);
            fence();
        }
    });
}

/// Forbids sleeping and giving the CPU away until [`preempt_enable`]; calls nest.
pub(crate) fn preempt_disable() {
    LOCAL.with(|local| local.state.store(local.state.load(Relaxed) + PREEMPT, Relaxed));
    fence();
}

/// Undoes one [`preempt_disable`].
pub(crate) fn preempt_enable() {
    fence();
    LOCAL.with(|local| local.state.store(local.state.load(Relaxed) - PREEMPT, Relaxed));
}

/// After a panic has unwound a task: it is in no atomic context any more. The CPU is not held.
pub(crate) fn forget_atomic() {
    LOCAL.with(|local| local.state.store(local.state.load(Relaxed) & MASKED, Relaxed));
    fence();
}

/// The number that signals to this thread are sent to, once `prepare` has made it ready for them.
pub(crate) fn thread(prepare: impl FnOnce() -> i32) -> i32 {
    LOCAL.with(|local| match local.thread.load(Relaxed) {
        0 => {
            let thread = prepare();
            let mut name = [0; NAME];
            if let Ok(of_host) = rustix::thread::name() {
                let bytes = of_host.as_bytes();
                let length = bytes.len().min(NAME);
                name[..length].copy_from_slice(&bytes[..length]);
            }
            for (word, bytes) in local.name.iter().zip(name.chunks_exact(size_of::<u64>())) {
                let bytes = bytes.try_into().unwrap_or_default();
                word.store(u64::from_le_bytes(bytes), Relaxed);
            }
            local.thread.store(thread, Relaxed);
            thread
        }
        thread => thread,
    })
}

/// Bytes of a thread's name: the host keeps no longer ones.
const NAME: usize = 16;

/// Which thread does something, and in which state.
#[derive(Clone, Copy)]
pub(crate) struct Thread {
    /// Its number.
    pub(crate) number: i32,
    name: [u8; NAME],
    state: u32,
}

/// The running thread. Any context.
pub(crate) fn this_thread() -> Thread {
    LOCAL.with(|local| {
        let mut name = [0; NAME];
        for (bytes, word) in name.chunks_exact_mut(size_of::<u64>()).zip(&local.name) {
            bytes.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        Thread { number: local.thread.load(Relaxed), name, state: local.state.load(Relaxed) }
    })
}

impl Thread {
    /// What it is called.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        let length = self.name.iter().position(|byte| *byte == 0).unwrap_or(NAME);
        String::from_utf8_lossy(&self.name[..length])
    }

    /// Its state as a trace file shows it: whether interrupts are off, whether another task waits (which is
    /// not looked at), what kind of handler runs, how deeply pre-emption is disabled, whether it may change
    /// CPUs (as before).
    pub(crate) fn marks(&self) -> String {
        let off = if self.state & (MASKED | NMI) != 0 { 'd' } else { '.' };
        let handler = match (self.state & NMI != 0, self.state & INTERRUPT != 0) {
            (true, true) => 'Z',
            (true, false) => 'z',
            (false, true) => 'h',
            (false, false) => '.',
        };
        let depth = match self.state / PREEMPT {
            0 => '.',
            depth => char::from_digit(depth.min(0xf), 16).unwrap_or('f'),
        };
        format!("{off}.{handler}{depth}.")
    }
}

/// Waits a moment. Most waits end within a few dozen rounds, unless the thread that is waited for
/// does not run: then it gets this thread's time.
#[inline]
pub(crate) fn relax() {
    const ROUNDS: u32 = 32;
    let round = LOCAL.with(|local| {
        let round = local.relaxed.load(Relaxed).wrapping_add(1);
        local.relaxed.store(round, Relaxed);
        round
    });
    if round.is_multiple_of(ROUNDS) {
        rustix::thread::sched_yield();
    } else {
        std::hint::spin_loop();
    }
}

/// The nodes that the task may take memory from. A handler is no task: it may use all.
pub(crate) fn allowed_nodes() -> NodeMask {
    if in_handler() {
        return NodeMask::ALL;
    }
    LOCAL.with(|local| NodeMask::from_bits(!local.forbidden_nodes.load(Relaxed)))
}

/// Sets [`allowed_nodes`] and answers what they were.
pub(crate) fn set_allowed_nodes(nodes: NodeMask) -> NodeMask {
    LOCAL.with(|local| NodeMask::from_bits(!local.forbidden_nodes.swap(!nodes.bits(), Relaxed)))
}

/// Whether the task frees memory for others. A handler is no task.
pub(crate) fn memalloc() -> bool {
    !in_handler() && LOCAL.with(|local| local.memalloc.load(Relaxed) != 0)
}

/// Changes how many calls deep the task frees memory for others.
pub(crate) fn add_memalloc(by: i32) {
    LOCAL.with(|local| {
        local.memalloc.store(local.memalloc.load(Relaxed).wrapping_add_signed(by), Relaxed);
    });
}

/// How many calls deep the task frees memory for others.
pub(crate) fn memalloc_depth() -> u32 {
    LOCAL.with(|local| local.memalloc.load(Relaxed))
}

/// Sets [`memalloc_depth`].
pub(crate) fn set_memalloc_depth(depth: u32) {
    LOCAL.with(|local| local.memalloc.store(depth, Relaxed));
}

/// How the thread leaves the kernel stack that it runs on; null while it runs on none.
pub(crate) fn way_out() -> *const WayOut {
    LOCAL.with(|local| local.way_out.load(Relaxed))
}

/// Sets [`way_out`].
pub(crate) fn set_way_out(way_out: *const WayOut) {
    LOCAL.with(|local| local.way_out.store(way_out.cast_mut(), Relaxed));
    fence();
}
