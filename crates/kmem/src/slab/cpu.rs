//! What one CPU has of one cache.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::leaving::Acknowledged;
use super::magazine::Magazine;
use super::state::State;
use crate::NodeId;
use crate::sync::{CpuSection, Entered};

/// What one CPU has of one cache: a magazine of objects of its own node, and one of other nodes'
/// objects that were freed here and are on their way home.
///
/// The first begins with a few slots, which lie behind this. One that both runs dry and overflows has
/// too few: what the CPU uses of the cache goes up and down by more than that. It is given twice as
/// many, elsewhere.
///
/// # Invariants
///
/// The magazines and `first` are touched by whoever is inside `section`.
// All that the common path touches is in the first line of the processor's cache.
#[repr(C, align(64))]
pub(crate) struct CpuCache {
    /// Entry to the magazines.
    pub(crate) section: CpuSection,
    /// The state of an object in them.
    pub(crate) state: State,
    /// The node whose objects are the CPU's own.
    pub(crate) home: NodeId,
    own: UnsafeCell<Magazine>,
    counters: CpuCounters,
    away: UnsafeCell<Magazine>,
    /// The magazine of the first slots, while there are others.
    first: UnsafeCell<Magazine>,
    /// Whether the own magazine was found empty since it was given its slots.
    ran_dry: AtomicBool,
    acknowledged: Acknowledged,
}

const _: () = assert!(core::mem::offset_of!(CpuCache, away) <= 64);

/// What went through a CPU's magazines. Written by its CPU with plain loads and stores, inside the
/// section; read by anybody.
pub(crate) struct CpuCounters {
    allocated: AtomicU64,
    freed: AtomicU64,
}

impl CpuCounters {
    /// Counts an object that a caller got. This and the next: by the CPU, inside the section.
    #[inline]
    pub(crate) fn count_allocated(&self) {
        self.allocated.store(self.allocated.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Counts an object that a caller gave back.
    #[inline]
    pub(crate) fn count_freed(&self) {
        self.freed.store(self.freed.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Counts many of both.
    #[inline]
    pub(crate) fn count_many(&self, allocated: u64, freed: u64) {
        self.allocated.store(self.allocated.load(Relaxed).wrapping_add(allocated), Relaxed);
        self.freed.store(self.freed.load(Relaxed).wrapping_add(freed), Relaxed);
    }

    /// How many objects callers got.
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated.load(Relaxed)
    }

    /// How many objects callers gave back.
    pub(crate) fn freed(&self) -> u64 {
        self.freed.load(Relaxed)
    }
}

// SAFETY: the magazines are reached inside the section only, which lets in one at a time; the rest
// are atomics.
unsafe impl Sync for CpuCache {}
// SAFETY: as above.
unsafe impl Send for CpuCache {}

impl CpuCache {
    /// What a CPU of a node has with these magazines, where objects are in this state, and there were
    /// so many departures.
    pub(crate) const fn new(
        state: State,
        home: NodeId,
        own: Magazine,
        away: Magazine,
        departures: u64,
    ) -> CpuCache {
        CpuCache {
            section: CpuSection::new(),
            state,
            home,
            own: UnsafeCell::new(own),
            counters: CpuCounters { allocated: AtomicU64::new(0), freed: AtomicU64::new(0) },
            away: UnsafeCell::new(away),
            first: UnsafeCell::new(Magazine::NONE),
            ran_dry: AtomicBool::new(false),
            acknowledged: Acknowledged::new(departures),
        }
    }

    /// The departures that the CPU has acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.get()
    }

    /// Acknowledges the departures that were announced before the magazines were drained, where
    /// nothing is left in them. Answers whether it did.
    pub(crate) fn acknowledge(&self, entered: &mut Entered<'_>, announced: u64) -> bool {
        let is_drained = self.own(entered).len() == 0 && self.away(entered).len() == 0;
        if is_drained {
            self.acknowledged.set(announced);
        }
        is_drained
    }

    /// Notes that the own magazine was found empty.
    pub(crate) fn run_dry(&self) {
        self.ran_dry.store(true, Relaxed);
    }

    /// Whether the own magazine, which is full, was found empty before: it has too few slots.
    pub(crate) fn has_run_dry(&self) -> bool {
        self.ran_dry.load(Relaxed)
    }

    /// Gives the CPU another own magazine, if it has more room; what is in the old one goes to it.
    /// Answers what is left over: empty, with slots that nobody uses.
    pub(crate) fn set_own(&self, entered: &mut Entered<'_>, mut own: Magazine) -> Magazine {
        debug_assert!(entered.is_of(&self.section));
        // SAFETY: whoever has an `Entered` of the section is alone in it, and the mutable borrow of
        // the `Entered` makes these the only borrows.
        let (old, first) = unsafe { (&mut *self.own.get(), &mut *self.first.get()) };
        if own.high() <= old.high() {
            return own;
        }
        self.ran_dry.store(false, Relaxed);
        own.take_all(old);
        let old = core::mem::replace(old, own);
        match first.slots() {
            Some(_) => old,
            // The first slots are this value's own.
            None => core::mem::replace(first, old),
        }
    }

    /// Goes back to the first slots, where the own magazine is empty. Answers what is left over.
    pub(crate) fn reset_own(&self, entered: &mut Entered<'_>) -> Magazine {
        debug_assert!(entered.is_of(&self.section));
        // SAFETY: as in `set_own`.
        let (own, first) = unsafe { (&mut *self.own.get(), &mut *self.first.get()) };
        if own.len() > 0 || first.slots().is_none() {
            return Magazine::NONE;
        }
        core::mem::replace(own, core::mem::replace(first, Magazine::NONE))
    }

    /// The magazine of objects of the CPU's own node, for code inside the section.
    #[inline]
    pub(crate) fn own<'e>(&'e self, entered: &'e mut Entered<'_>) -> &'e mut Magazine {
        debug_assert!(entered.is_of(&self.section));
        // SAFETY: whoever has an `Entered` of the section is alone in it, and the mutable borrow of
        // the `Entered` makes this the only magazine that is borrowed.
        unsafe { &mut *self.own.get() }
    }

    /// The magazine of other nodes' objects, for code inside the section.
    #[inline]
    pub(crate) fn away<'e>(&'e self, entered: &'e mut Entered<'_>) -> &'e mut Magazine {
        debug_assert!(entered.is_of(&self.section));
        // SAFETY: as in `own`.
        unsafe { &mut *self.away.get() }
    }

    /// What went through.
    #[inline]
    pub(crate) fn counters(&self) -> &CpuCounters {
        &self.counters
    }
}
