//! Looking at the manager: zones, counters, who has a frame, and whether all is as it should be.

use core::sync::atomic::Ordering::Relaxed;

use super::Mm;
use crate::buddy::Corruption;
use crate::gfp::ZoneKind;
use crate::page::{Block, Descriptor, Memmap, MigrateType, PageFlags, Place};
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::zone::{FreeAreaCounts, Zone, ZoneEvent};
use crate::{CpuId, Gfp, NodeId, NodeMask, Order, Pfn};

/// Who has a frame (A012).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody: it is in a zone's free areas.
    Free,
    /// Nobody: it is on a CPU's lists.
    FreeOnLists(CpuId),
    /// The kernel's dynamic data.
    Kernel,
    /// The kernel's dynamic data, in a slab.
    Slab,
    /// The kernel's dynamic data, in an area of `vmalloc`.
    Vmalloc,
    /// Somebody who keeps 64 bits of their own with it.
    Private,
    /// The page cache: which mapping, and which page of it.
    PageCache {
        /// The mapping's number.
        mapping: u32,
        /// The page's place in it.
        index: u32,
    },
    /// User processes: in how many page tables it is.
    User {
        /// The number of page tables.
        mappings: u32,
    },
    /// The kernel image.
    KernelImage,
    /// The manager's own tables.
    Metadata,
    /// Nobody yet, or whoever allocated it at boot: it can be released later.
    Late,
    /// Firmware, or whoever it was reserved for.
    Reserved,
    /// No RAM.
    Hole,
}

/// What the manager as a whole has counted since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Pages handed out, by kind of zone.
    pub allocated: [u64; ZoneKind::COUNT],
    /// Pages given back.
    pub freed: u64,
    /// Allocations that went into reclaim, by the highest zone that they could use.
    pub stalls: [u64; ZoneKind::COUNT],
    /// Allocations that failed.
    pub failures: u64,
    /// Wrong calls that were reported.
    pub misuses: u64,
    /// Requests met on the node that they preferred.
    pub numa_hit: u64,
    /// Requests met on another.
    pub numa_miss: u64,
    /// Requests that preferred a node and were met on another, seen from the preferred one.
    pub numa_foreign: u64,
    /// Requests met on the node of the CPU.
    pub numa_local: u64,
    /// Requests met on another.
    pub numa_other: u64,
    /// Pages marked as slab, reclaimable.
    pub slab_reclaimable: u64,
    /// Pages marked as slab, not reclaimable.
    pub slab_unreclaimable: u64,
}

/// One CPU's page set for one zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagesetInfo {
    /// The CPU.
    pub cpu: CpuId,
    /// How many pages are on it.
    pub count: u64,
    /// The most blocks of order 0 on one of its lists.
    pub high: u32,
    /// The most pages that all of its lists hold together.
    pub capacity: u64,
    /// How many move at once.
    pub batch: u32,
}

/// Looking, in any context unless a method says otherwise. What other CPUs change meanwhile may be
/// seen or not. A method costs a few loads unless it says otherwise.
impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Whether [`Mm::boot`] has ended well.
    pub fn is_booted(&self) -> bool {
        self.tables().is_some()
    }

    /// All zones, node by node, low to high; those without pages too (A022). Empty before boot.
    pub fn zones(&self) -> &[Zone] {
        self.tables().map_or(&[], |tables| tables.zones())
    }

    /// The zone of a kind on a node, if the machine has it.
    pub fn zone(&self, node: NodeId, kind: ZoneKind) -> Option<&Zone> {
        let tables = self.tables()?;
        tables.zone_at[node.index()][kind.index()].map(|index| tables.zone(index))
    }

    /// The nodes that have RAM.
    pub fn nodes(&self) -> NodeMask {
        self.tables().map_or(NodeMask::NONE, |tables| tables.nodes)
    }

    /// The zones that a request on a node with these flags looks at, best first (A036).
    pub fn zonelist(&self, node: NodeId, gfp: Gfp) -> impl Iterator<Item = &Zone> {
        let tables = self.tables();
        let indexes = tables.map_or(&[][..], |t| t.zonelist(node, gfp.highest_zone()).zones());
        indexes.iter().filter_map(move |index| tables.map(|tables| tables.zone(*index)))
    }

    /// The largest order of the machine (A058).
    pub fn largest_order(&self) -> Order {
        self.tables().map_or(Order::ZERO, |tables| tables.largest)
    }

    /// The order of page blocks.
    pub fn page_block_order(&self) -> Order {
        self.tables().map_or(Order::ZERO, |tables| tables.memmap.page_block_order())
    }

    /// The memmap, for those who look at all frames.
    pub fn memmap(&self) -> Option<&Memmap> {
        self.tables().map(|tables| &tables.memmap)
    }

    /// How many bytes of RAM the manager's own tables take (A013).
    pub fn metadata_bytes(&self) -> u64 {
        self.tables().map_or(0, |tables| tables.metadata_bytes)
    }

    /// How many pages the zones manage.
    pub fn managed_pages(&self) -> u64 {
        self.zones().iter().map(Zone::managed_pages).sum()
    }

    /// How many pages are free: in the zones and on all CPUs' lists (A086). Cost: some loads for each
    /// CPU and zone.
    pub fn free_page_count(&self) -> u64 {
        let zones: u64 = self.zones().iter().map(Zone::free_pages).sum();
        zones + self.listed_pages()
    }

    /// How many pages are on CPUs' lists. Cost: some loads for each CPU and zone.
    pub fn listed_pages(&self) -> u64 {
        let Some(tables) = self.tables() else { return 0 };
        let of_area = |area: &crate::pcp::CpuArea| {
            let zones = tables.zones().iter().filter_map(|zone| area.slot(zone.index()));
            zones.map(|slot| slot.counters().pages()).sum::<u64>()
        };
        tables.areas().map(of_area).sum()
    }

    /// Whether CPUs keep free pages and objects of their own: see
    /// [`Setup::pagesets`](crate::Setup::pagesets). Any context.
    pub fn has_pagesets(&self) -> bool {
        self.tables().is_some_and(|tables| tables.has_pagesets())
    }

    /// The page sets of a zone, one for each CPU that has lists.
    pub fn pagesets(&self, zone: &Zone) -> impl Iterator<Item = PagesetInfo> {
        let tables = self.tables();
        let index = zone.index();
        tables.into_iter().flat_map(move |tables| {
            let size = tables.size(index);
            let (high, batch, capacity) = (size.high, size.batch, size.capacity());
            let online = tables.areas().filter(|area| self.is_online(area.cpu()));
            online.filter_map(move |area| {
                let count = area.slot(index)?.counters().pages();
                Some(PagesetInfo { cpu: area.cpu(), count, high, capacity, batch })
            })
        })
    }

    /// How many free blocks a zone has of each order and migrate type, at one moment. Takes the zone's
    /// lock; in an NMI handler it may find none.
    pub fn free_area_counts(&self, zone: &Zone) -> FreeAreaCounts {
        zone.free_area_counts(&self.platform).unwrap_or_default()
    }

    /// How many free blocks of an order a zone has. Otherwise as [`Mm::free_area_counts`].
    pub fn free_blocks(&self, zone: &Zone, order: Order) -> u64 {
        self.free_area_counts(zone).blocks(order)
    }

    /// How many free blocks of an order and migrate type a zone has. Otherwise as
    /// [`Mm::free_area_counts`].
    pub fn free_blocks_of(&self, zone: &Zone, order: Order, migrate_type: MigrateType) -> u64 {
        self.free_area_counts(zone).blocks_of(order, migrate_type)
    }

    /// How many page blocks of a migrate type a zone has. Cost: all page blocks of the zone.
    pub fn page_blocks(&self, zone: &Zone, migrate_type: MigrateType) -> u64 {
        self.memmap().map_or(0, |memmap| zone.page_blocks(memmap, migrate_type))
    }

    /// What has been counted since boot. Cost: some loads for each CPU and zone.
    pub fn counters(&self) -> Counters {
        let mut sums = Counters {
            stalls: self.events.stalls.each_ref().map(|stalls| stalls.load(Relaxed)),
            failures: self.events.failures.load(Relaxed),
            misuses: self.events.misuses.load(Relaxed),
            ..Counters::default()
        };
        for zone in self.zones() {
            self.add_zone(&mut sums, zone);
        }
        sums
    }

    /// What has been counted of one zone since boot. Cost: some loads for each CPU.
    pub fn zone_counters(&self, zone: &Zone) -> Counters {
        let mut sums = Counters::default();
        self.add_zone(&mut sums, zone);
        sums
    }

    fn add_zone(&self, sums: &mut Counters, zone: &Zone) {
        let count = |event| zone.counters().get(event);
        let (mut allocated, mut freed) = (0, 0);
        for area in self.tables().into_iter().flat_map(|tables| tables.areas()) {
            if let Some(set) = area.slot(zone.index()).map(|slot| slot.counters()) {
                allocated += set.allocated();
                freed += set.freed();
                // The fast path takes from the zone that is preferred.
                let requests = set.requests();
                sums.numa_hit += requests;
                if area.node() == zone.node() {
                    sums.numa_local += requests;
                } else {
                    sums.numa_other += requests;
                }
            }
        }
        sums.allocated[zone.kind().index()] += allocated + count(ZoneEvent::Allocated);
        sums.freed += freed + count(ZoneEvent::Freed);
        sums.numa_hit += count(ZoneEvent::NumaHit);
        sums.numa_miss += count(ZoneEvent::NumaMiss);
        sums.numa_foreign += count(ZoneEvent::NumaForeign);
        sums.numa_local += count(ZoneEvent::NumaLocal);
        sums.numa_other += count(ZoneEvent::NumaOther);
        sums.slab_reclaimable += count(ZoneEvent::SlabReclaimable);
        sums.slab_unreclaimable += count(ZoneEvent::SlabUnreclaimable);
    }

    /// Who has a frame (A012). Any context; at most one look-up for each order.
    pub fn owner(&self, pfn: Pfn) -> Owner {
        let Some(memmap) = self.memmap() else { return Owner::Hole };
        let Some(descriptor) = memmap.get(pfn) else { return Owner::Hole };
        match memmap.head(pfn) {
            Some((head, Block::Used(_) | Block::Compound(_))) => {
                let first = memmap.at(head);
                match first.place() {
                    Place::OnLists(cpu) => Owner::FreeOnLists(cpu),
                    Place::PutAside => Owner::Free,
                    Place::Held => holder(first, descriptor),
                }
            }
            Some((_, Block::Free(_))) => Owner::Free,
            Some((_, Block::Reserved)) => reserved(descriptor),
            _ => Owner::Hole,
        }
    }

    /// Checks every invariant of the free areas and the counters beside them. For tests, and for a
    /// machine that is shut down: the lists must not be in use meanwhile. Takes each zone's lock; not in
    /// an NMI handler.
    ///
    /// # Errors
    ///
    /// The first contradiction found. Cost: all frames.
    pub fn verify(&self) -> Result<(), Corruption> {
        let Some(tables) = self.tables() else { return Ok(()) };
        for zone in tables.zones() {
            zone.verify(&self.platform, &tables.memmap)?;
        }
        let mut free = 0;
        let mut listed = 0;
        for extent in tables.memmap.extents() {
            let mut frame = extent.range().start;
            while let Some(pfn) = Pfn::new(frame).filter(|_| frame < extent.range().end) {
                let descriptor = tables.memmap.at(pfn);
                let block = descriptor.block();
                match (block, descriptor.place()) {
                    (Block::Free(order), _) => free += order.pages(),
                    (Block::Used(order), Place::OnLists(_)) => listed += order.pages(),
                    // The zones freed what was put aside, when they were checked above.
                    (Block::Used(_), Place::PutAside) => {
                        return Err(Corruption::at("a block that was put aside is lost", pfn));
                    }
                    _ => {}
                }
                frame += match block {
                    Block::Free(order) | Block::Used(order) | Block::Compound(order) => {
                        order.pages()
                    }
                    _ => 1,
                };
            }
        }
        let counted: u64 = tables.zones().iter().map(Zone::free_pages).sum();
        if free != counted {
            return Err(Corruption::count("frames marked free are not all counted", free, counted));
        }
        if listed != self.listed_pages() {
            let counted = self.listed_pages();
            return Err(Corruption::count(
                "frames on cpus' lists are not all counted",
                listed,
                counted,
            ));
        }
        Ok(())
    }
}

fn holder(first: &Descriptor, page: &Descriptor) -> Owner {
    if first.has(PageFlags::Vmalloc) {
        Owner::Vmalloc
    } else if first.has(PageFlags::PerCpu) {
        Owner::Kernel
    } else if first.is_of_objects() {
        Owner::Slab
    } else if let Some((mapping, index)) = page.mapping() {
        Owner::PageCache { mapping, index }
    } else if page.map_count() > 0 {
        Owner::User { mappings: page.map_count() }
    } else if page.private().is_some() {
        Owner::Private
    } else {
        Owner::Kernel
    }
}

fn reserved(descriptor: &Descriptor) -> Owner {
    if descriptor.has(PageFlags::Kernel) {
        Owner::KernelImage
    } else if descriptor.has(PageFlags::Metadata) {
        Owner::Metadata
    } else if descriptor.has(PageFlags::Late) {
        Owner::Late
    } else {
        Owner::Reserved
    }
}
