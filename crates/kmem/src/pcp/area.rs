//! What one CPU has of the page allocator: its section, and a page set for each zone.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::tune::ORDERS;
use super::{PageSet, RingGroup};
use crate::gfp::ZoneKind;
use crate::page::{Memmap, MigrateType};
use crate::sync::{CpuSection, Entered};
use crate::zone::Zone;
use crate::{CpuId, NodeId, Order};

/// What went through a page set. Written by its CPU with plain loads and stores, inside the section;
/// read by anybody.
pub struct SetCounters {
    /// Blocks that callers got, by order.
    taken: [AtomicU64; ORDERS],
    /// Blocks that callers gave back, by order.
    given: [AtomicU64; ORDERS],
    /// Pages that came from the zone.
    refilled: AtomicU64,
    /// Pages that went to the zone.
    drained: AtomicU64,
}

impl SetCounters {
    const fn new() -> SetCounters {
        SetCounters {
            taken: [const { AtomicU64::new(0) }; ORDERS],
            given: [const { AtomicU64::new(0) }; ORDERS],
            refilled: AtomicU64::new(0),
            drained: AtomicU64::new(0),
        }
    }

    /// Counts a block that a caller got. This and the next three: by the set's CPU, inside the
    /// section.
    #[inline]
    pub fn count_taken(&self, order: Order) {
        bump(&self.taken[order.index()], 1);
    }

    /// Counts a block that a caller gave back.
    #[inline]
    pub fn count_given(&self, order: Order) {
        bump(&self.given[order.index()], 1);
    }

    /// Counts pages that came from the zone.
    pub fn count_refilled(&self, pages: u64) {
        bump(&self.refilled, pages);
    }

    /// Counts pages that left the set other than to a caller of the fast path.
    pub fn count_drained(&self, pages: u64) {
        bump(&self.drained, pages);
    }

    /// How many requests were met.
    pub fn requests(&self) -> u64 {
        self.taken.iter().map(|blocks| blocks.load(Relaxed)).sum()
    }

    /// How many pages callers got.
    pub fn allocated(&self) -> u64 {
        pages(&self.taken)
    }

    /// How many pages callers gave back.
    pub fn freed(&self) -> u64 {
        pages(&self.given)
    }

    /// How many pages the set holds. Exact while its CPU is outside the section.
    pub fn pages(&self) -> u64 {
        let into = self.freed().wrapping_add(self.refilled.load(Relaxed));
        let out = self.allocated().wrapping_add(self.drained.load(Relaxed));
        // A reader on another CPU may see one side of a move only.
        let pages = into.wrapping_sub(out);
        if pages > u64::from(u32::MAX) { 0 } else { pages }
    }
}

#[inline]
fn bump(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}

fn pages(blocks: &[AtomicU64; ORDERS]) -> u64 {
    blocks.iter().enumerate().map(|(order, blocks)| blocks.load(Relaxed) << order).sum()
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
/// and each of `preferred` is null or points to one of them. So does the slot of `recent`, which is
/// that of its zone. A set, and `recent`, are touched by whoever is inside `section`. Where the
/// section can be entered, `memmap` points to the memmap.
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
    recent: UnsafeCell<Recent>,
}

/// Where the latest block went that was freed: nearly always, where the next one goes.
///
/// A zone and a migrate type come from the block's descriptor and its page block, which takes a
/// chain of loads to find. To compare with them is predicted and not waited for, so the ring that is
/// written does not depend on that chain, nor does the next allocation that reads it.
#[derive(Clone, Copy)]
struct Recent {
    zone: u8,
    migrate_type: MigrateType,
    slot: *const SetSlot,
    /// The rings of the migrate type: kept and not computed from it, or the compiler, knowing the
    /// two types to be equal, would compute it from the one that is waited for.
    group: RingGroup,
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
            recent: UnsafeCell::new(Recent::NONE),
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
        CpuArea {
            section: CpuSection::new(),
            node,
            cpu,
            zones,
            memmap,
            preferred: [core::ptr::null(); ZoneKind::COUNT],
            slots,
            recent: UnsafeCell::new(Recent::NONE),
        }
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

    /// The page set that a block of a zone and migrate type is freed to, its slot, and the rings of
    /// that type, for code inside the section. The answer does not depend on the arguments but by the
    /// branches taken: see [`Recent`].
    #[inline]
    pub fn set_to_free<'a, 'e>(
        &'a self,
        entered: &'e mut Entered<'_>,
        zone: u8,
        migrate_type: MigrateType,
    ) -> Option<(&'e mut PageSet, &'a SetSlot, RingGroup)>
    where
        'a: 'e,
    {
        debug_assert!(entered.is_of(&self.section));
        // SAFETY: whoever has an `Entered` of the section is alone in it.
        let recent = unsafe { *self.recent.get() };
        let recent = if recent.zone == zone && recent.migrate_type == migrate_type {
            recent
        } else {
            self.remember(zone, migrate_type)?
        };
        // SAFETY: by the invariant it is one of the slots, or null.
        let slot = unsafe { recent.slot.as_ref() }?;
        // SAFETY: as in `set`.
        Some((unsafe { &mut *slot.set.get() }, slot, recent.group))
    }

    #[cold]
    #[inline(never)]
    fn remember(&self, zone: u8, migrate_type: MigrateType) -> Option<Recent> {
        let slot = core::ptr::from_ref(self.slot(zone)?);
        let recent = Recent { zone, migrate_type, slot, group: RingGroup::of(migrate_type) };
        // SAFETY: called from inside the section only.
        unsafe { *self.recent.get() = recent };
        Some(recent)
    }
}

impl Recent {
    /// No zone has this number.
    const NONE: Recent = Recent {
        zone: u8::MAX,
        migrate_type: MigrateType::Unmovable,
        slot: core::ptr::null(),
        group: RingGroup::of(MigrateType::Unmovable),
    };
}
