//! What a kernel must supply, as small traits.
//!
//! A kernel that wants page frames implements four traits, about fifty lines:
//!
//! ```text
//!   Cpus       which CPU is this, stay on it, wait a moment
//!   Context    interrupts: mask, restore; may this code sleep?
//!   DirectMap  where physical memory is seen, and how large a page is
//!   Hooks      where messages, reports of misuse and trace events go
//!   ------------------------------------------------------------------
//!   Platform = all four, supplied by a blanket implementation
//! ```
//!
//! The rest are *facilities*: [`CrossCall`], [`TemporaryMap`], [`PageMap`], [`Clock`] and
//! [`Sleep`]. Whoever wants one asks the base traits for it ([`Cpus::cross_call`],
//! [`DirectMap::temporary_map`], [`DirectMap::page_map`], [`Context::sleep`]) and is told `None`
//! where there is none: a path that merely does better with it goes without, and a call that cannot
//! answers an error. Only cold paths ask, so a `dyn` costs nothing that matters. [`UserMap`] is no part
//! of a platform: there is one for each address space of a user.
//!
//! Each method states what the caller guarantees (*before*) and what the platform guarantees
//! (*after*). [`conformance`] checks the second half of that on a real platform.
//!
//! # Contexts
//!
//! | context | may sleep | may be interrupted by |
//! | --- | --- | --- |
//! | task | yes | interrupt, NMI |
//! | task, pinned or holding a spin lock | no | interrupt, NMI |
//! | interrupts masked | no | NMI |
//! | interrupt handler | no | NMI (and nested interrupts, where a kernel has them) |
//! | NMI handler | no | - |
//!
//! Whatever interrupts a CPU ends before the interrupted code goes on: interruptions nest. The
//! per-CPU lists lean on that and on nothing else.
//!
//! Linux: the counterparts are `smp_processor_id`, `preempt_disable`, `local_irq_save`,
//! `in_atomic`, `__va`/`__pa` and `printk`. Linux masks interrupts or takes a local lock on its
//! fast paths; here the fast paths mask nothing, so `Context::mask` may be as slow as it likes.

pub mod conformance;
pub mod desk;
mod events;
mod facility;
mod misuse;
mod overwritten;
mod stack;

use core::fmt;

use crate::{CpuId, NodeMask, PhysAddr, VirtAddr};

pub use events::{Event, Frame, PerCpuPlace, Site};
pub use facility::{
    Caching, Clock, CrossCall, NotCalled, PageMap, PageMapError, Sleep, TEMPORARY_SLOTS,
    TemporaryMap, Unflushed, UserMap, WakeReason,
};
pub use misuse::{Misuse, MisuseKind, Passed, There};
pub use overwritten::{Caller, Overwritten, Where};
pub use stack::{StackHarm, StackOwner};

/// Which CPU this is.
///
/// # Safety
///
/// The manager keeps one set of page lists for each CPU and touches it without a lock or an atomic
/// read-modify-write, so between [`Cpus::pin`] and [`Cpus::unpin`] [`Cpus::current`] must be
/// constant, and no other code may run with the same number at the same time, except code that
/// interrupts this code and ends before it goes on.
pub unsafe trait Cpus {
    /// Keeps the running code on its CPU until [`Cpus::unpin`]; calls nest.
    ///
    /// *After:* the code is neither moved to another CPU nor pre-empted by other code of this CPU.
    /// Interrupts still arrive.
    fn pin(&self);

    /// Undoes one [`Cpus::pin`].
    fn unpin(&self);

    /// As [`Cpus::pin`], for code that is not the manager's, and may by mistake do what sleeps: until
    /// [`Cpus::enable_preemption`] [`Context::in_atomic`] is true as well. Calls nest.
    ///
    /// It need not be implemented where `pin` does that already.
    fn disable_preemption(&self) {
        self.pin();
    }

    /// Undoes one [`Cpus::disable_preemption`].
    fn enable_preemption(&self) {
        self.unpin();
    }

    /// The CPU that runs this code.
    ///
    /// *Before:* the code is pinned, runs in an interrupt handler or has interrupts masked;
    /// otherwise the answer may be out of date when it is read (A282).
    fn current(&self) -> CpuId;

    /// Waits a moment in a loop that spins: a `pause` instruction, or, where CPUs are themselves
    /// scheduled by something, a yield after some calls.
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// How to make another CPU run something, where the platform can.
    ///
    /// Without it, memory on another CPU's lists is had back by a request that the CPU honours the
    /// next time it allocates or frees.
    fn cross_call(&self) -> Option<&dyn CrossCall> {
        None
    }
}

/// The state of the code that runs: interrupts, and whether it may sleep.
///
/// # Safety
///
/// Between [`Context::mask`] and the matching [`Context::restore`] no interrupt handler may run on
/// this CPU: spin locks that handlers also take rely on it. An NMI may; [`Context::in_nmi`] must
/// then be true in its handler.
pub unsafe trait Context {
    /// What [`Context::mask`] found: masked already, or not.
    type Saved: Copy;

    /// Masks interrupts on this CPU and answers what they were; calls nest.
    ///
    /// *After:* no interrupt handler runs on this CPU before the matching [`Context::restore`].
    /// What arrives meanwhile is kept for then.
    fn mask(&self) -> Self::Saved;

    /// Puts the interrupt state back.
    ///
    /// *Before:* `saved` came from the latest `mask` on this CPU that has not been restored.
    fn restore(&self, saved: Self::Saved);

    /// Whether the running code must not sleep: in an interrupt or NMI handler, with interrupts
    /// masked, pinned, or holding a spin lock (A135).
    ///
    /// A platform without [`Cpus::cross_call`] and [`Context::sleep`] that does not know may answer
    /// `false`: a sleeping call in the wrong place then goes unreported. With either of them the
    /// answer must be right, because the manager waits for another CPU, or sleeps, where it is
    /// `false`.
    fn in_atomic(&self) -> bool;

    /// Whether the running code is an NMI handler: it may not spin on a lock, since the code that
    /// it interrupted may hold that lock.
    fn in_nmi(&self) -> bool;

    /// The nodes that the current task may take memory from where a request respects cpusets
    /// (`__GFP_HARDWALL`, A111). All of them where there are no tasks or no such limits.
    #[inline]
    fn allowed_nodes(&self) -> NodeMask {
        NodeMask::ALL
    }

    /// Whether the current task frees memory for others and may use all reserves meanwhile.
    #[inline]
    fn memalloc(&self) -> bool {
        false
    }

    /// How a task waits and is woken, where the platform has tasks.
    fn sleep(&self) -> Option<&dyn Sleep> {
        None
    }
}

/// Where physical memory is seen: the one-to-one map of the texts, shifted by `PAGE_OFFSET` (A161).
///
/// # Safety
///
/// The manager reads and writes RAM through these addresses: for every physical address below
/// [`DirectMap::limit`] that the boot memory map calls RAM (and, before the kernel has mapped more,
/// calls *mapped*), `base + address` must be readable and writable, and be the same memory at every
/// call.
pub unsafe trait DirectMap {
    /// The base-two logarithm of the page size: 12 for 4 KiB (A002).
    const PAGE_SHIFT: u32 = 12;

    /// Where physical address 0 is, or would be, seen: `PAGE_OFFSET`. Arithmetic on it wraps.
    fn base(&self) -> VirtAddr;

    /// The first physical address that the direct map does not reach. RAM from here on is high
    /// memory (A020, A035).
    fn limit(&self) -> PhysAddr;

    /// Where a physical address is seen, or `None` at or above the limit (A010, A014).
    #[inline]
    fn phys_to_virt(&self, address: PhysAddr) -> Option<VirtAddr> {
        if address < self.limit() {
            Some(VirtAddr::new(self.base().get().wrapping_add(address.get() as usize)))
        } else {
            None
        }
    }

    /// The physical address behind an address of the direct map, or `None` outside it (A015).
    #[inline]
    fn virt_to_phys(&self, address: VirtAddr) -> Option<PhysAddr> {
        let offset = address.get().wrapping_sub(self.base().get()) as u64;
        if offset < self.limit().get() { Some(PhysAddr::new(offset)) } else { None }
    }

    /// How to reach a frame that the direct map does not, for a short time, where the platform
    /// can. A memory map with RAM above [`DirectMap::limit`] is refused without it.
    fn temporary_map(&self) -> Option<&dyn TemporaryMap> {
        None
    }

    /// How to map frames at addresses of their own, where the platform can: `vmalloc`, `ioremap` and
    /// `kmap` need it.
    fn page_map(&self) -> Option<&dyn PageMap> {
        None
    }
}

/// How urgent a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever watches a boot.
    Info,
    /// Something failed that somebody should know of.
    Warning,
    /// A bug was found.
    Error,
}

/// Where the manager's messages go.
///
/// All of these are called in whatever context the call was made: an interrupt or NMI handler
/// included. They must not sleep and must not call the manager: what comes to light while a batch
/// moves is reported with the zone's lock held.
pub trait Hooks {
    /// Whether trace events are wanted. Where this is `false` no code for them is compiled.
    const TRACE: bool = false;

    /// Takes a message of one line, without a line end.
    fn log(&self, level: Level, message: fmt::Arguments<'_>);

    /// Takes the report of a wrong free or a wrong call. The manager has left memory as it was:
    /// the hook may stop the kernel, or count and go on.
    fn misuse(&self, report: &Misuse<'_>);

    /// The time, in nanoseconds since some moment: for reports of who had an object when. A kernel
    /// without a clock leaves it at 0.
    fn now(&self) -> u64 {
        0
    }

    /// Takes a trace event. Called only where [`Hooks::TRACE`] is true.
    fn trace(&self, event: &Event) {
        let _ = event;
    }
}

/// What the page allocator needs of a kernel: [`Cpus`], [`Context`], [`DirectMap`] and [`Hooks`].
/// Implemented for everything that implements those.
pub trait Platform: Cpus + Context + DirectMap + Hooks + Sync {}

impl<P: Cpus + Context + DirectMap + Hooks + Sync> Platform for P {}

/// Keeps the running code on its CPU while it lives.
pub(crate) struct Pinned<'p, P: Cpus + ?Sized> {
    platform: &'p P,
    cpu: CpuId,
}

impl<'p, P: Cpus + ?Sized> Pinned<'p, P> {
    /// Pins.
    #[inline]
    pub(crate) fn new(platform: &'p P) -> Self {
        platform.pin();
        Pinned { platform, cpu: platform.current() }
    }

    /// The CPU that this code stays on.
    #[inline]
    pub(crate) fn cpu(&self) -> CpuId {
        self.cpu
    }
}

/// Keeps code that is not the manager's on its CPU while it lives.
pub(crate) struct Unpreempted<'p, P: Cpus> {
    platform: &'p P,
    cpu: CpuId,
}

impl<'p, P: Cpus> Unpreempted<'p, P> {
    /// Disables pre-emption.
    #[inline]
    pub(crate) fn new(platform: &'p P) -> Self {
        platform.disable_preemption();
        Unpreempted { platform, cpu: platform.current() }
    }

    /// The CPU that this code stays on.
    #[inline]
    pub(crate) fn cpu(&self) -> CpuId {
        self.cpu
    }
}

impl<P: Cpus> Drop for Unpreempted<'_, P> {
    #[inline]
    fn drop(&mut self) {
        self.platform.enable_preemption();
    }
}

impl<P: Cpus + ?Sized> Drop for Pinned<'_, P> {
    #[inline]
    fn drop(&mut self) {
        self.platform.unpin();
    }
}
