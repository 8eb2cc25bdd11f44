//! Counters of a zone that any CPU adds to.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a zone counts on its shared path. The per-CPU lists count theirs by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ZoneEvent {
    /// Pages handed out from the free areas directly.
    Allocated,
    /// Pages given back to the free areas directly.
    Freed,
    /// Requests met here that preferred this node.
    NumaHit,
    /// Requests met here that preferred another node.
    NumaMiss,
    /// Requests that preferred this node and were met elsewhere.
    NumaForeign,
    /// Requests met here from a CPU of this node.
    NumaLocal,
    /// Requests met here from a CPU of another node.
    NumaOther,
    /// Pages marked as slab, reclaimable (A018).
    SlabReclaimable,
    /// Pages marked as slab, not reclaimable (A018).
    SlabUnreclaimable,
}

const EVENTS: usize = ZoneEvent::SlabUnreclaimable as usize + 1;

/// The counters.
///
/// Each event has two: one that the holder of the zone's lock adds to with a plain load and store,
/// and one for everybody else.
pub struct ZoneCounters {
    locked: [AtomicU64; EVENTS],
    shared: [AtomicU64; EVENTS],
}

impl ZoneCounters {
    /// All zero.
    pub const fn new() -> ZoneCounters {
        ZoneCounters {
            locked: [const { AtomicU64::new(0) }; EVENTS],
            shared: [const { AtomicU64::new(0) }; EVENTS],
        }
    }

    /// Adds, for code that holds the zone's lock.
    #[inline]
    pub(super) fn add_locked(&self, event: ZoneEvent, count: u64) {
        let counter = &self.locked[event as usize];
        counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Adds. One locked instruction.
    #[inline]
    pub(crate) fn add(&self, event: ZoneEvent, count: u64) {
        self.shared[event as usize].fetch_add(count, Relaxed);
    }

    /// Takes away. One locked instruction.
    #[inline]
    pub(crate) fn sub(&self, event: ZoneEvent, count: u64) {
        self.shared[event as usize].fetch_sub(count, Relaxed);
    }

    /// The count.
    #[inline]
    pub fn get(&self, event: ZoneEvent) -> u64 {
        let locked = self.locked[event as usize].load(Relaxed);
        locked.wrapping_add(self.shared[event as usize].load(Relaxed))
    }
}

impl Default for ZoneCounters {
    fn default() -> Self {
        Self::new()
    }
}
