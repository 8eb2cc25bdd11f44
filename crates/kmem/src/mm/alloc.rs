//! The page allocator's calls, and their fast path.

use core::panic::Location;

use super::Mm;
use crate::page::{MigrateType, Page};
use crate::pcp::{CpuArea, PCP_LARGEST};
use crate::platform::{Misuse, MisuseKind, Passed, Pinned, Platform, There};
use crate::reclaim::Reclaim;
use crate::sync::Entered;
use crate::zone::{Floor, Met, Priority};
use crate::{AllocError, Gfp, NodeId, NodeMask, Order, Pfn, VirtAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Allocates `2^order` contiguous page frames and returns the first (A042, A055, A067).
    ///
    /// The contents are undefined unless `gfp` has [`Gfp::ZERO`] (A049). The block is given back
    /// with [`Mm::__free_pages`] and the same order, or page by page after [`Mm::split_page`].
    /// [`Mm::pages`] does so by itself.
    ///
    /// # Errors
    ///
    /// [`AllocError::NoMemory`] where no zone that the flags allow has such a block (A060);
    /// [`AllocError::OrderTooLarge`], [`AllocError::BadFlags`] and [`AllocError::NotBooted`] say
    /// what they say. Never with [`Gfp::NOFAIL`] and a sound request.
    ///
    /// # Context
    ///
    /// May sleep where the flags say so ([`Gfp::may_sleep`]): not in atomic context then, which is
    /// reported as misuse (A135) and treated as a request that must not sleep. With [`Gfp::ATOMIC`]
    /// any context, interrupt and NMI handlers included.
    ///
    /// # Cost
    ///
    /// Orders 0 to 3 come from the CPU's own list: no lock, no atomic read-modify-write, interrupts
    /// not masked. Larger ones, and every so many small ones, take the zone's lock.
    #[inline]
    #[track_caller]
    pub fn alloc_pages(&self, gfp: Gfp, order: u32) -> Result<Page, AllocError> {
        match self.alloc_fast(gfp, order) {
            Some(page) => Ok(page),
            None => self.alloc_slow(None, gfp, order, Location::caller()),
        }
    }

    /// Allocates one page: [`Mm::alloc_pages`] of order 0 (A043).
    #[inline]
    #[track_caller]
    pub fn alloc_page(&self, gfp: Gfp) -> Result<Page, AllocError> {
        self.alloc_pages(gfp, 0)
    }

    /// Allocates on a node, or, where that is out of memory, on the nearest other (A044, A088);
    /// with [`Gfp::THISNODE`] only there. `None` is the node of the running CPU (A045, A089).
    ///
    /// # Errors
    ///
    /// As [`Mm::alloc_pages`]; [`AllocError::NoSuchNode`] for a node that the machine does not have.
    ///
    /// # Context and cost
    ///
    /// As [`Mm::alloc_pages`]. A node that is named takes a longer way, even if it is the CPU's own.
    #[inline]
    #[track_caller]
    pub fn alloc_pages_node(
        &self,
        node: Option<NodeId>,
        gfp: Gfp,
        order: u32,
    ) -> Result<Page, AllocError> {
        match node {
            None => self.alloc_pages(gfp, order),
            Some(_) => self.alloc_slow(node, gfp, order, Location::caller()),
        }
    }

    /// Allocates `2^order` contiguous pages and returns the address of the first byte (A046).
    ///
    /// An address can be given for frames of the direct map only: with [`Gfp::HIGHMEM`] the call is
    /// reported as misuse and the flag left out (A073, A074).
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::alloc_pages`].
    #[inline]
    #[track_caller]
    pub fn __get_free_pages(&self, gfp: Gfp, order: u32) -> Result<VirtAddr, AllocError> {
        let mut gfp = gfp;
        if gfp.contains(Gfp::HIGHMEM) {
            self.report(&Misuse {
                kind: MisuseKind::HighmemAddress,
                passed: Passed::Flags(gfp),
                there: There::Nothing,
                site: Location::caller(),
            });
            gfp -= Gfp::HIGHMEM;
        }
        let page = self.alloc_pages(gfp, order)?;
        // All zones but HighMem and Movable, which such a request does not see, end where the direct
        // map does.
        self.direct_address(page).ok_or_else(|| {
            // SAFETY: the block was just allocated, and nobody knows of it.
            unsafe { self.__free_pages(page, order) };
            AllocError::NoMemory { order: self.clamp(order), gfp }
        })
    }

    /// Allocates one page and returns its address; not cleared (A047).
    #[inline]
    #[track_caller]
    pub fn __get_free_page(&self, gfp: Gfp) -> Result<VirtAddr, AllocError> {
        self.__get_free_pages(gfp, 0)
    }

    /// Allocates one page of zeros and returns its address (A048).
    #[inline]
    #[track_caller]
    pub fn get_zeroed_page(&self, gfp: Gfp) -> Result<VirtAddr, AllocError> {
        self.__get_free_pages(gfp | Gfp::ZERO, 0)
    }

    /// Allocates pages that a device with few address lines reaches: [`Mm::__get_free_pages`] with
    /// [`Gfp::DMA`] (A050).
    #[inline]
    #[track_caller]
    pub fn __get_dma_pages(&self, gfp: Gfp, order: u32) -> Result<VirtAddr, AllocError> {
        self.__get_free_pages(gfp | Gfp::DMA, order)
    }

    /// A block from the CPU's own list or, of a larger order, from the zone looked at first, if
    /// nothing about the request is unusual.
    #[inline(always)]
    fn alloc_fast(&self, gfp: Gfp, order: u32) -> Option<Page> {
        if !gfp.is_plain() {
            return None;
        }
        if gfp.may_sleep() && self.platform.in_atomic() {
            return None;
        }
        if gfp.contains(Gfp::HARDWALL) && self.platform.allowed_nodes() != NodeMask::ALL {
            return None;
        }
        let (pfn, order) = if order <= PCP_LARGEST.get() {
            let order = Order::from_raw(order as u8);
            let listed = self.alloc_listed(gfp, order);
            (listed.or_else(|miss| self.alloc_missed(gfp, order, miss).ok_or(())).ok()?, order)
        } else {
            let order = Order::new(order)?;
            (self.alloc_large(gfp, order)?, order)
        };
        if gfp.contains(Gfp::ZERO) {
            self.clear(pfn, order);
        }
        self.trace_alloc(Some(pfn), gfp, order);
        Some(Page::of(pfn))
    }

    /// A block from the CPU's own list. Calls nothing, so that nothing is saved for a call: what it
    /// does not find is seen to after it has left the section.
    #[inline(always)]
    fn alloc_listed(&self, gfp: Gfp, order: Order) -> Result<Pfn, Miss> {
        let migrate_type = MigrateType::from_index(gfp.migrate_type_bits());
        let pinned = Pinned::new(&self.platform);
        let area = self.area(pinned.cpu());
        // SAFETY: this code is pinned to the CPU that the area belongs to.
        let mut entered = unsafe { area.section.enter() }.ok_or(Miss::Unusual)?;
        if area.section.is_requested() {
            return Err(Miss::Unusual);
        }
        let highest = gfp.highest_zone();
        let (set, slot) = area.preferred(&mut entered, highest).ok_or(Miss::Unusual)?;
        if slot.zone().is_pressed() {
            return Err(Miss::Unusual);
        }
        let pfn = set.pop_hot(order, migrate_type).ok_or(Miss::Empty)?;
        let descriptor = area.memmap(&entered).get(pfn).ok_or(Miss::Stray(pfn))?;
        if !descriptor.is_on_lists(order, area.cpu()) {
            // Counted here: outside the section this code may be moved to another CPU.
            slot.counters().count_drained(order.pages());
            return Err(Miss::Stray(pfn));
        }
        descriptor.mark().set_held();
        descriptor.set_count(1);
        slot.counters().count_taken(order);
        Ok(pfn)
    }

    /// What [`Mm::alloc_listed`] did not find: fills the list and takes a block, or leaves it to the
    /// slow path.
    #[cold]
    #[inline(never)]
    fn alloc_missed(&self, gfp: Gfp, order: Order, miss: Miss) -> Option<Pfn> {
        match miss {
            Miss::Unusual => return None,
            Miss::Stray(pfn) => {
                self.report_stray(pfn, order);
                return None;
            }
            Miss::Empty => {}
        }
        let highest = gfp.highest_zone();
        let pinned = Pinned::new(&self.platform);
        let area = self.area(pinned.cpu());
        // SAFETY: this code is pinned to the CPU that the area belongs to.
        let mut entered = unsafe { area.section.enter() }?;
        let (set, slot) = area.preferred(&mut entered, highest)?;
        // Since the list was seen empty, an interrupt may have filled it, or this code may have been
        // moved to another CPU: then the slow path takes a block of it.
        let migrate_type = MigrateType::from_index(gfp.migrate_type_bits());
        if !set.ring(order, migrate_type)?.is_empty() {
            return None;
        }
        let zone = slot.zone();
        let floor = Floor::new(&zone.watermarks(), zone.lowmem_reserve(highest), Priority::Low);
        let pfn = self.refill(area, &mut entered, zone.index(), order, gfp, floor)?;
        // Just marked by the refill, under the zone's lock.
        let descriptor = area.memmap(&entered).at(pfn);
        descriptor.mark().set_held();
        descriptor.set_count(1);
        slot.counters().count_taken(order);
        Some(pfn)
    }

    /// A block of an order that the lists do not have, from the zone that is looked at first.
    #[inline(never)]
    fn alloc_large(&self, gfp: Gfp, order: Order) -> Option<Pfn> {
        let tables = self.tables()?;
        let local = self.local_node(tables);
        let highest = gfp.highest_zone();
        let first = tables.zonelist(local, highest).zones().first()?;
        let zone = tables.zone(*first);
        // A zone that is pressed, or an order that the machine does not have: the slow path.
        if zone.is_pressed() || zone.node() != local || order > tables.largest {
            return None;
        }
        let floor = Floor::new(&zone.watermarks(), zone.lowmem_reserve(highest), Priority::Low);
        let migrate_type = MigrateType::from_index(gfp.migrate_type_bits());
        zone.take(&self.platform, &tables.memmap, order, migrate_type, floor, Met::AT_HOME)
    }

    /// Fills the CPU's list from a zone, down to a floor, and takes a block.
    pub(super) fn refill(
        &self,
        area: &CpuArea,
        entered: &mut Entered<'_>,
        index: u8,
        order: Order,
        gfp: Gfp,
        floor: Floor,
    ) -> Option<Pfn> {
        let tables = self.tables()?;
        let migrate_type = MigrateType::from_index(gfp.migrate_type_bits());
        let (set, slot) = area.set(entered, index)?;
        let batch = set.ring(order, migrate_type)?.batch();
        let blocks = slot.zone().refill(
            &self.platform,
            &tables.memmap,
            order,
            migrate_type,
            floor,
            (area.cpu(), batch),
            |pfn| {
                // The ring was empty, and a batch is a quarter of what it holds.
                set.push_hot(order, migrate_type, pfn);
            },
        );
        slot.counters().count_refilled(u64::from(blocks) << order.get());
        set.pop_hot(order, migrate_type)
    }

    /// Fills a block with zeros.
    #[inline]
    pub(super) fn clear(&self, first: Pfn, order: Order) {
        let bytes = (order.pages() as usize) << P::PAGE_SHIFT;
        let end = PhysEnd::of(first, order, P::PAGE_SHIFT);
        if end <= self.platform.limit().get()
            && let Some(address) = self.platform.phys_to_virt(first.start(P::PAGE_SHIFT))
        {
            // SAFETY: the block was just allocated to this call, and by the platform's contract the
            // direct map reaches all of it.
            unsafe { address.as_ptr::<u8>().write_bytes(0, bytes) };
        } else {
            self.clear_high(first, order);
        }
    }

    #[cold]
    fn clear_high(&self, first: Pfn, order: Order) {
        // A machine with RAM above the direct map was booted with a way to map it.
        let Some(map) = self.platform.temporary_map() else { return };
        for frame in first.raw()..first.raw() + order.pages() as u32 {
            self.clear_frame(map, Pfn::from_raw(frame));
        }
    }

    /// An order as far as there are orders, for an error's text.
    pub(super) fn clamp(&self, order: u32) -> Order {
        Order::new(order).unwrap_or(Order::LIMIT)
    }
}

/// Why a CPU's own list did not have a block.
enum Miss {
    /// Something about the request or the CPU is unusual: the slow path finds out what.
    Unusual,
    /// The list is empty.
    Empty,
    /// The entry taken is not that of a block on this CPU's lists any more.
    Stray(Pfn),
}

/// Where a block ends, in bytes.
struct PhysEnd;

impl PhysEnd {
    #[inline]
    fn of(first: Pfn, order: Order, page_shift: u32) -> u64 {
        (first.number() + order.pages()) << page_shift
    }
}
