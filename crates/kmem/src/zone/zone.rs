//! One zone: the free areas behind their lock, and what is known without it.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{Floor, Watermarks, ZoneCounters, ZoneEvent};
use crate::buddy::{Corruption, End, FreeAreas, Taken};
use crate::gfp::ZoneKind;
use crate::page::{Block, Memmap, MigrateType, Place};
use crate::platform::{Event, Hooks, Platform};
use crate::sync::{Aside, SpinGuard, SpinLock, ZoneLevel};
use crate::{CpuId, NodeId, Order, Pfn};

/// Which frames a zone has (A039).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ZoneSpan {
    /// The first frame of RAM.
    pub start: u64,
    /// One past the last frame of RAM.
    pub end: u64,
    /// Frames of RAM in between; holes are left out.
    pub present: u64,
}

/// How many blocks that were put aside are found at once: an NMI handler rarely frees, and more
/// rarely while the code that it interrupted holds the lock.
const ASIDE: usize = 32;

/// What many CPUs write, kept off the lines that all of them read.
#[repr(align(64))]
struct Apart<T>(T);

/// A zone of a node. The folder's theory has its concepts, invariants and locking.
#[repr(align(64))]
pub struct Zone {
    node: NodeId,
    kind: ZoneKind,
    index: u8,
    pressed: AtomicBool,
    span: ZoneSpan,
    managed: AtomicU64,
    marks: [AtomicU64; 3],
    reserve: [AtomicU64; ZoneKind::COUNT],
    largest: Order,
    areas: Apart<SpinLock<ZoneLevel, FreeAreas>>,
    free: Apart<AtomicU64>,
    put_aside: Aside<ASIDE>,
    counters: Apart<ZoneCounters>,
}

/// How many free blocks a zone has of each order and migrate type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FreeAreaCounts([[u64; MigrateType::COUNT]; Order::COUNT]);

impl FreeAreaCounts {
    /// Blocks of an order, all types together.
    pub fn blocks(&self, order: Order) -> u64 {
        self.0[order.index()].iter().sum()
    }

    /// Blocks of an order and type.
    pub fn blocks_of(&self, order: Order, migrate_type: MigrateType) -> u64 {
        self.0[order.index()][migrate_type.index()]
    }

    /// Pages of all blocks.
    pub fn pages(&self) -> u64 {
        let orders = (0..Order::COUNT as u32).filter_map(Order::new);
        orders.map(|order| self.blocks(order) << order.get()).sum()
    }

    /// How much of the free memory no block of an order can be had of, in thousandths: the share of the pages
    /// in smaller blocks (A081). 0 where nothing is free.
    pub fn unusable(&self, order: Order) -> u64 {
        let smaller = (0..order.get()).filter_map(Order::new);
        let apart: u64 = smaller.map(|order| self.blocks(order) << order.get()).sum();
        (apart * 1000).checked_div(self.pages()).unwrap_or(0)
    }
}

type Locked<'a, P> = SpinGuard<'a, ZoneLevel, FreeAreas, P>;

impl Zone {
    /// A zone without free pages.
    pub(crate) const fn new(
        node: NodeId,
        kind: ZoneKind,
        index: u8,
        span: ZoneSpan,
        largest: Order,
    ) -> Zone {
        Zone {
            node,
            kind,
            index,
            pressed: AtomicBool::new(true),
            span,
            managed: AtomicU64::new(0),
            marks: [const { AtomicU64::new(0) }; 3],
            reserve: [const { AtomicU64::new(0) }; ZoneKind::COUNT],
            largest,
            areas: Apart(SpinLock::new(FreeAreas::new(largest, index))),
            free: Apart(AtomicU64::new(0)),
            put_aside: Aside::new(),
            counters: Apart(ZoneCounters::new()),
        }
    }

    /// The node that the zone belongs to (A092).
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The kind.
    pub fn kind(&self) -> ZoneKind {
        self.kind
    }

    /// The name, as the reports have it (A027).
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// The zone's place among all zones.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// The first frame of RAM, or 0 for a zone without any.
    pub fn start_pfn(&self) -> u64 {
        self.span.start
    }

    /// Frames from the first to the last of RAM, holes included (A039).
    pub fn spanned_pages(&self) -> u64 {
        self.span.end - self.span.start
    }

    /// Frames of RAM (A039).
    pub fn present_pages(&self) -> u64 {
        self.span.present
    }

    /// Frames that the page allocator was given.
    pub fn managed_pages(&self) -> u64 {
        self.managed.load(Relaxed)
    }

    /// Whether the page allocator was given any (A022).
    pub fn is_populated(&self) -> bool {
        self.managed_pages() != 0
    }

    /// Free pages in the free areas; those on per-CPU lists are not among them.
    pub fn free_pages(&self) -> u64 {
        self.free.0.load(Relaxed)
    }

    /// Whether free pages are at or below the low mark, so that every request is looked at.
    #[inline]
    pub fn is_pressed(&self) -> bool {
        self.pressed.load(Relaxed)
    }

    /// The watermarks (A026).
    pub fn watermarks(&self) -> Watermarks {
        let [min, low, high] = &self.marks;
        Watermarks { min: min.load(Relaxed), low: low.load(Relaxed), high: high.load(Relaxed) }
    }

    /// Pages kept back from requests whose highest zone is `highest` (A037).
    pub fn lowmem_reserve(&self, highest: ZoneKind) -> u64 {
        self.reserve[highest.index()].load(Relaxed)
    }

    /// The counters.
    pub fn counters(&self) -> &ZoneCounters {
        &self.counters.0
    }

    /// Sets the marks and what is kept back from each kind of request.
    pub(crate) fn set_watermarks(&self, marks: Watermarks, reserve: [u64; ZoneKind::COUNT]) {
        for (cell, value) in self.marks.iter().zip([marks.min, marks.low, marks.high]) {
            cell.store(value, Relaxed);
        }
        for (cell, value) in self.reserve.iter().zip(reserve) {
            cell.store(value, Relaxed);
        }
        self.note_free(self.free_pages());
    }

    /// Says that the zone manages so many pages more.
    pub(crate) fn add_managed(&self, pages: u64) {
        self.managed.fetch_add(pages, Relaxed);
    }

    /// How many free blocks there are of each order and type, at one moment (A080). `None` in an
    /// NMI handler that finds the lock taken.
    pub(crate) fn free_area_counts<P: Platform>(&self, platform: &P) -> Option<FreeAreaCounts> {
        let areas = self.lock_areas(platform)?;
        Some(FreeAreaCounts(core::array::from_fn(|order| {
            let order = Order::from_raw(order as u8);
            MigrateType::ALL.map(|migrate_type| areas.blocks(order, migrate_type))
        })))
    }

    fn note_free(&self, free: u64) {
        self.free.0.store(free, Relaxed);
        let pressed = free <= self.marks[1].load(Relaxed);
        // Read by every CPU's fast path: written only when it changes.
        if pressed != self.pressed.load(Relaxed) {
            self.pressed.store(pressed, Relaxed);
        }
    }

    /// Holds the zone's lock, as another CPU would.
    #[cfg(test)]
    pub(crate) fn hold<'a, P: Platform>(&'a self, platform: &'a P) -> impl Drop + 'a {
        self.areas.0.lock(platform)
    }

    /// Waits for the lock; `None` in an NMI handler where it is taken.
    // Always inline, here and below: a guard returned through memory is written in parts and read
    // as a whole, which costs more than taking the lock.
    #[inline(always)]
    fn lock_areas<'a, P: Platform>(&'a self, platform: &'a P) -> Option<Locked<'a, P>> {
        if platform.in_nmi() {
            self.areas.0.try_lock(platform)
        } else {
            Some(self.areas.0.lock(platform))
        }
    }

    /// As [`Zone::lock_areas`], and frees what was put aside meanwhile.
    #[inline(always)]
    fn lock_settled<'a, P: Platform>(
        &'a self,
        platform: &'a P,
        map: &Memmap,
    ) -> Option<Locked<'a, P>> {
        let mut areas = self.lock_areas(platform)?;
        if !self.put_aside.is_empty() {
            self.free_put_aside(&mut areas, map);
        }
        Some(areas)
    }

    #[cold]
    fn free_put_aside(&self, areas: &mut FreeAreas, map: &Memmap) {
        let mut look = |pfn: Pfn| {
            let Some(descriptor) = map.get(pfn).filter(|there| there.zone() == self.index) else {
                return;
            };
            // Another CPU may have freed it at the same moment, onto its lists: then it is there.
            if let Block::Used(order) = descriptor.block()
                && descriptor.place() == Place::PutAside
            {
                areas.free_block(map, pfn, order, End::Cold);
            }
        };
        if self.put_aside.take(|frame| look(Pfn::from_raw(frame))) {
            (self.span.start..self.span.end).filter_map(Pfn::new).for_each(look);
        }
        self.note_free(areas.free());
    }

    /// Takes one block and hands it out. `None` where the zone has no block that large above the
    /// floor. `met` says for whom, for the counters.
    pub(crate) fn take<P: Platform>(
        &self,
        platform: &P,
        map: &Memmap,
        order: Order,
        migrate_type: MigrateType,
        floor: Floor,
        met: Met,
    ) -> Option<Pfn> {
        let mut areas = self.lock_settled(platform, map)?;
        if floor.allows(areas.free().saturating_sub(order.pages() - 1)) == 0 {
            return None;
        }
        let taken = areas.take(map, order, migrate_type, 1)?;
        map.at(taken.first).hand_out(order);
        self.note_free(areas.free());
        let counters = &self.counters.0;
        counters.add_locked(ZoneEvent::Allocated, order.pages());
        counters.add_locked(met.preference(), 1);
        counters.add_locked(met.distance(), 1);
        trace_taken(platform, map, &taken, order, migrate_type, false);
        Some(taken.first)
    }

    /// Takes up to `batch` blocks for a CPU's lists, marks them as being there and passes each to
    /// `put`. Answers how many.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn refill<P: Platform>(
        &self,
        platform: &P,
        map: &Memmap,
        order: Order,
        migrate_type: MigrateType,
        floor: Floor,
        (cpu, batch): (CpuId, u32),
        mut put: impl FnMut(Pfn),
    ) -> u32 {
        let Some(mut areas) = self.lock_settled(platform, map) else { return 0 };
        let mut blocks = 0;
        while blocks < batch {
            let spare = floor.allows(areas.free().saturating_sub(order.pages() - 1));
            let most = spare.div_ceil(order.pages()).min(u64::from(batch - blocks)) as u32;
            if most == 0 {
                break;
            }
            let Some(taken) = areas.take(map, order, migrate_type, most) else { break };
            // From the last to the first, so that the caller's hottest is the lowest: callers that
            // take several get them in ascending order, as devices like them.
            for block in (0..taken.blocks).rev() {
                let pfn = Pfn::from_raw(taken.first.raw() + (block << order.get()));
                map.at(pfn).hand_to_lists(order, cpu);
                put(pfn);
            }
            blocks += taken.blocks;
            trace_taken(platform, map, &taken, order, migrate_type, true);
        }
        self.note_free(areas.free());
        blocks
    }

    /// Gives back a block that a caller held. In an NMI handler that meets the lock taken, the block
    /// is put aside for whoever takes the lock next.
    ///
    /// Answers `false`, and does nothing, where the block is no longer held: another CPU has freed
    /// it since the caller looked.
    #[must_use]
    pub(crate) fn give<P: Platform>(
        &self,
        platform: &P,
        map: &Memmap,
        pfn: Pfn,
        order: Order,
        end: End,
    ) -> bool {
        let descriptor = map.at(pfn);
        match self.lock_settled(platform, map) {
            Some(mut areas) => {
                if !descriptor.is(Block::Used(order)) || !descriptor.mark().is_held() {
                    return false;
                }
                descriptor.set_count(0);
                descriptor.reset();
                areas.free_block(map, pfn, order, end);
                self.note_free(areas.free());
                self.counters.0.add_locked(ZoneEvent::Freed, order.pages());
            }
            None => {
                if !descriptor.mark().put_aside() {
                    return false;
                }
                descriptor.set_count(0);
                descriptor.reset();
                self.counters.0.add(ZoneEvent::Freed, order.pages());
                self.put_aside.put(pfn.raw());
            }
        }
        true
    }

    /// Gives back blocks from a CPU's lists: whatever `next` answers, until it answers `None`.
    /// Entries whose mark is not that CPU's any more are passed to `stray` and left alone.
    pub(crate) fn give_back<P: Platform>(
        &self,
        platform: &P,
        map: &Memmap,
        cpu: CpuId,
        mut next: impl FnMut() -> Option<(Pfn, Order)>,
        mut stray: impl FnMut(Pfn, Order),
    ) {
        let Some(mut areas) = self.lock_settled(platform, map) else { return };
        while let Some((pfn, order)) = next() {
            let descriptor = map.at(pfn);
            if !descriptor.is_on_lists(order, cpu) {
                stray(pfn, order);
                continue;
            }
            areas.free_block(map, pfn, order, End::Hot);
            if P::TRACE {
                let (first, migrate_type) = (map.frame(pfn), map.migrate_type(pfn) as u8);
                platform.trace(&Event::PagePcpuDrain { first, order, migrate_type });
            }
        }
        self.note_free(areas.free());
    }

    /// Gives the zone frames that were never free: at boot, and memory that becomes usable later.
    /// Their descriptors are `Interior` and of this zone.
    pub(crate) fn give_range<P: Platform>(
        &self,
        platform: &P,
        map: &Memmap,
        frames: core::ops::Range<u64>,
    ) {
        let Some(mut areas) = self.lock_settled(platform, map) else { return };
        areas.give_back(map, frames.start as u32..frames.end as u32);
        self.note_free(areas.free());
    }

    /// Takes a run of free frames and hands each out as a block of one page.
    pub(crate) fn take_range<P: Platform>(
        &self,
        platform: &P,
        map: &Memmap,
        count: u64,
        align: Order,
        within: core::ops::Range<u64>,
        floor: Floor,
    ) -> Option<Pfn> {
        let own = within.start.max(self.span.start)..within.end.min(self.span.end);
        let mut areas = self.lock_settled(platform, map)?;
        if floor.allows(areas.free()) < count {
            return None;
        }
        let first = areas.take_range(map, count, align, own)?;
        for frame in first.raw()..first.raw() + count as u32 {
            map.at(Pfn::from_raw(frame)).hand_out(Order::ZERO);
        }
        self.note_free(areas.free());
        self.counters.0.add_locked(ZoneEvent::Allocated, count);
        Some(first)
    }

    /// How many page blocks of a type begin in the zone. Cost: all page blocks of the zone.
    pub fn page_blocks(&self, map: &Memmap, migrate_type: MigrateType) -> u64 {
        let step = map.page_block_order().pages();
        let first = self.span.start / step * step;
        (first..self.span.end)
            .step_by(step as usize)
            .filter_map(Pfn::new)
            .filter(|pfn| {
                // A page block belongs to the zone of its first frame of RAM here.
                let at = Pfn::from_raw(pfn.raw().max(self.span.start as u32));
                map.get(at).is_some_and(|d| d.zone() == self.index && d.block() != Block::Hole)
                    && map.migrate_type(*pfn) == migrate_type
            })
            .count() as u64
    }

    /// Checks the free areas and the counter beside them.
    pub(crate) fn verify<P: Platform>(&self, platform: &P, map: &Memmap) -> Result<(), Corruption> {
        let Some(areas) = self.lock_settled(platform, map) else { return Ok(()) };
        areas.verify(map)?;
        let counted = self.free_pages();
        if areas.free() == counted {
            Ok(())
        } else {
            Err(Corruption::count("a zone's free pages are wrong", areas.free(), counted))
        }
    }

    /// The largest order.
    pub fn largest_order(&self) -> Order {
        self.largest
    }
}

/// Reports what was taken to the trace sink; no code where there is none.
#[inline]
fn trace_taken<P: Hooks>(
    platform: &P,
    map: &Memmap,
    taken: &Taken,
    order: Order,
    migrate_type: MigrateType,
    percpu_refill: bool,
) {
    if !P::TRACE {
        return;
    }
    let migrate_type = migrate_type as u8;
    if let Some(stolen) = taken.stolen {
        platform.trace(&Event::PageAllocExtfrag {
            first: map.frame(taken.first),
            order,
            migrate_type,
            fallback_order: stolen.order,
            fallback_migrate_type: stolen.from as u8,
            page_block_order: map.page_block_order(),
            change_ownership: stolen.change_ownership,
        });
    }
    for block in 0..taken.blocks {
        let first = map.frame(Pfn::from_raw(taken.first.raw() + (block << order.get())));
        let event = Event::PageAllocZoneLocked { first, order, migrate_type, percpu_refill };
        platform.trace(&event);
    }
}

/// Where a request was met, seen from where it wanted to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// On the node that it preferred.
    pub preferred: bool,
    /// On the node of the CPU that asked.
    pub local: bool,
}

impl Met {
    /// On the CPU's own node, which was preferred.
    pub const AT_HOME: Met = Met { preferred: true, local: true };

    fn preference(self) -> ZoneEvent {
        if self.preferred { ZoneEvent::NumaHit } else { ZoneEvent::NumaMiss }
    }

    fn distance(self) -> ZoneEvent {
        if self.local { ZoneEvent::NumaLocal } else { ZoneEvent::NumaOther }
    }

    /// Counts a request that was met from a CPU's list.
    pub(crate) fn count(self, zone: &Zone) {
        zone.counters.0.add(self.preference(), 1);
        zone.counters.0.add(self.distance(), 1);
    }
}
