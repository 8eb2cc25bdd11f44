//! What one CPU has of the page allocator: its section, and a page set for each zone.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::PageSet;
use crate::gfp::ZoneKind;
use crate::page::Memmap;
use crate::sync::{CpuSection, Entered};
use crate::zone::Zone;
use crate::{CpuId, NodeId};

/// How many requests a page set met, and how many pages went through it. Written by its CPU with plain loads and stores, inside
/// the section; read by anybody.
pub struct SetCounters {
    /// Requests met.
    pub requests: AtomicU64,
    /// To callers.
    pub allocated: AtomicU64,
    /// From callers.
    pub freed: AtomicU64,
    /// From the zone.
    pub refilled: AtomicU64,
    /// To the zone.
    pub drained: AtomicU64,
}

impl SetCounters {
    const fn new() -> SetCounters {
        SetCounters {
            requests: AtomicU64::new(0),
            allocated: AtomicU64::new(0),
            freed: AtomicU64::new(0),
            refilled: AtomicU64::new(0),
            drained: AtomicU64::new(0),
        }
    }

    /// Adds to one of the counters. By the set's CPU, inside the section.
    #[inline]
    pub fn bump(counter: &AtomicU64, count: u64) {
        counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// How many pages the set holds. Exact while its CPU is outside the section.
    pub fn pages(&self) -> u64 {
        let into = self.freed.load(Relaxed).wrapping_add(self.refilled.load(Relaxed));
        let out = self.allocated.load(Relaxed).wrapping_add(self.drained.load(Relaxed));
        // A reader on another CPU may see one side of a move only.
        let pages = into.wrapping_sub(out);
        if pages > u64::from(u32::MAX) { 0 } else { pages }
    }
}

/// One CPU's page set for one zone.
#[repr(align(64))]
pub struct SetSlot {
    zone: &'static Zone,
    counters: SetCounters,
    set: UnsafeCell<PageSet>,
}

impl SetSlot {
    /// An empty set for a zone.
    pub const fn new(zone: &'static Zone) -> SetSlot {
        SetSlot { zone, counters: SetCounters::new(), set: UnsafeCell::new(PageSet::new()) }
    }

    /// The zone.
    #[inline]
    pub fn zone(&self) -> &Zone {
        self.zone
    }

    /// What went through the set.
    #[inline]
    pub fn counters(&self) -> &SetCounters {
        &self.counters
    }
}

/// What one CPU has of the page allocator.
///
/// # Invariants
///
/// `slots` points to `zones` slots for as long as the area lives, reached through this area only,
/// and each of `preferred` is null or points to one of them. A set is touched by whoever is inside
/// `section`. Where the section can be entered, `memmap` points to the memmap.
#[repr(align(64))]
pub struct CpuArea {
    /// Entry to the sets.
    pub section: CpuSection,
    node: NodeId,
    cpu: CpuId,
    zones: u32,
    memmap: NonNull<Memmap>,
    preferred: [*const SetSlot; ZoneKind::COUNT],
    slots: NonNull<SetSlot>,
}

// SAFETY: the sets are reached inside the section only, which lets in one at a time; the rest is
// atomics and values that do not change.
unsafe impl Sync for CpuArea {}
// SAFETY: as above.
unsafe impl Send for CpuArea {}

impl CpuArea {
    /// What a CPU without page sets has: a section that cannot be entered. Every call of such a CPU
    /// takes the shared path.
    pub const fn closed() -> CpuArea {
        CpuArea {
            section: CpuSection::closed(),
            node: NodeId::ZERO,
            cpu: CpuId::BOOT,
            zones: 0,
            memmap: NonNull::dangling(),
            preferred: [core::ptr::null(); ZoneKind::COUNT],
            slots: NonNull::dangling(),
        }
    }

    /// The area of a CPU.
    ///
    /// # Safety
    ///
    /// `slots` points to `zones` valid slots and `memmap` to the memmap for as long as the area
    /// lives; the slots are reached in no other way.
    pub const unsafe fn new(
        cpu: CpuId,
        node: NodeId,
        memmap: NonNull<Memmap>,
        zones: u32,
        slots: NonNull<SetSlot>,
    ) -> CpuArea {
        let preferred = [core::ptr::null(); ZoneKind::COUNT];
        CpuArea { section: CpuSection::new(), node, cpu, zones, memmap, preferred, slots }
    }

    /// Says for each highest zone that a request may use the index of the zone that is looked at
    /// first.
    pub fn prefer(&mut self, preferred: [Option<u8>; ZoneKind::COUNT]) {
        self.preferred = preferred.map(|zone| {
            zone.and_then(|zone| self.slot(zone)).map_or(core::ptr::null(), core::ptr::from_ref)
        });
    }

    /// The CPU.
    #[inline]
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// The CPU's node.
    #[inline]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The memmap, for code inside the section.
    #[inline]
    pub fn memmap<'a>(&'a self, entered: &Entered<'_>) -> &'a Memmap {
        debug_assert!(entered.is_of(&self.section));
        // SAFETY: the section was entered, so by the invariant this is the memmap.
        unsafe { self.memmap.as_ref() }
    }

    /// The slot of a zone.
    #[inline]
    pub fn slot(&self, zone: u8) -> Option<&SetSlot> {
        if u32::from(zone) < self.zones {
            // SAFETY: by the invariant there are `zones` slots.
            Some(unsafe { self.slots.add(usize::from(zone)).as_ref() })
        } else {
            None
        }
    }

    /// The page set of a zone, and its slot, for code inside the section.
    #[inline]
    pub fn set<'a, 'e>(
        &'a self,
        entered: &'e mut Entered<'_>,
        zone: u8,
    ) -> Option<(&'e mut PageSet, &'a SetSlot)>
    where
        'a: 'e,
    {
        debug_assert!(entered.is_of(&self.section));
        let slot = self.slot(zone)?;
        // SAFETY: whoever has an `Entered` of the section is alone in it, and the mutable borrow of
        // the `Entered` makes this the only set that is borrowed.
        Some((unsafe { &mut *slot.set.get() }, slot))
    }

    /// The page set that a request which may use zones up to `highest` looks at first, and its slot,
    /// for code inside the section.
    #[inline]
    pub fn preferred<'a, 'e>(
        &'a self,
        entered: &'e mut Entered<'_>,
        highest: ZoneKind,
    ) -> Option<(&'e mut PageSet, &'a SetSlot)>
    where
        'a: 'e,
    {
        debug_assert!(entered.is_of(&self.section));
        // SAFETY: by the invariant it is null or one of the slots.
        let slot = unsafe { self.preferred[highest.index()].as_ref() }?;
        // SAFETY: as in `set`.
        Some((unsafe { &mut *slot.set.get() }, slot))
    }
}
