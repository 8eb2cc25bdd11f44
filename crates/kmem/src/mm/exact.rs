//! Other than one block of a power of two: exact sizes, runs of frames, many single pages.

use core::ops::Range;
use core::panic::Location;

use super::Mm;
use super::tables::Tables;
use crate::buddy::End;
use crate::page::{Block, Page};
use crate::platform::{MisuseKind, Passed, Platform};
use crate::reclaim::Reclaim;
use crate::zone::{Floor, Priority};
use crate::{AllocError, Gfp, Order, Pfn, PhysAddr, VirtAddr, get_order};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Allocates contiguous pages for `size` bytes, no more of them than it takes (A001), and
    /// returns the address of the first byte. Given back with [`Mm::free_pages_exact`] and the same
    /// size.
    ///
    /// # Errors
    ///
    /// As [`Mm::__get_free_pages`]; [`AllocError::ZeroSize`] for 0 bytes.
    ///
    /// # Context and cost
    ///
    /// As [`Mm::alloc_pages`] of the next power of two, and a free for each page that is left over.
    #[track_caller]
    pub fn alloc_pages_exact(&self, size: usize, gfp: Gfp) -> Result<VirtAddr, AllocError> {
        if size == 0 {
            return Err(AllocError::ZeroSize);
        }
        let order = get_order(size, P::PAGE_SHIFT);
        // A compound block cannot be split.
        let address = self.__get_free_pages(gfp - Gfp::COMP, order)?;
        if let Some(page) = self.virt_to_page(address) {
            self.split_page(page, order);
            let wanted = pages_of(size, P::PAGE_SHIFT);
            let block = 1u64 << order;
            for frame in page.pfn().number() + wanted..page.pfn().number() + block {
                // SAFETY: the frame is of the block that was just allocated and split.
                unsafe { self.__free_page(Page::of(Pfn::from_raw(frame as u32))) };
            }
        }
        Ok(address)
    }

    /// Gives back what [`Mm::alloc_pages_exact`] returned for the same size.
    ///
    /// # Safety
    ///
    /// As [`Mm::__free_pages`], for each of the pages.
    #[track_caller]
    pub unsafe fn free_pages_exact(&self, address: VirtAddr, size: usize) {
        let site = Location::caller();
        let is_aligned = address.get().is_multiple_of(1 << P::PAGE_SHIFT);
        let Some(first) = self.virt_to_page(address).filter(|_| is_aligned) else {
            self.report_wrong_address(address, 0, site);
            return;
        };
        for page in self.run(first, pages_of(size, P::PAGE_SHIFT), site) {
            // SAFETY: the caller's promise is the same.
            unsafe { self.__free_page(page) };
        }
    }

    /// Makes a block `2^order` blocks of one page, each with a reference of its own, so that they
    /// can be freed one by one (A016).
    ///
    /// A page that is not the first of a used block of that order, or is that of a compound one, or
    /// of one that others refer to ([`Mm::get_page`]), is reported as misuse and left alone. Any
    /// context. Cost: a store for each page.
    #[track_caller]
    pub fn split_page(&self, page: Page, order: u32) {
        let site = Location::caller();
        let passed = Passed::Page(page.pfn(), order);
        let Some(tables) = self.tables() else { return };
        let Some(descriptor) = self.check_free(page.pfn(), order, passed, site) else { return };
        let order = self.clamp(order);
        if !descriptor.is(Block::Used(order)) {
            return self.report_at(page.pfn(), MisuseKind::CompoundTail, passed, site);
        }
        if descriptor.count() != 1 {
            return self.report_at(page.pfn(), MisuseKind::Shared, passed, site);
        }
        // From the last to the first: until the first is done, the others are inside its block.
        for offset in (0..order.pages() as u32).rev() {
            tables.memmap.at(Pfn::from_raw(page.pfn().raw() + offset)).hand_out(Order::ZERO);
        }
    }

    /// Allocates `count` contiguous frames, the first a multiple of `2^align`, within a range of
    /// physical addresses, from memory that is free at the moment. `count` need not be a power of
    /// two and may be more than the largest block.
    ///
    /// For a device's buffers. Zones are tried in the order of any request with these flags, so that
    /// low memory is left for those who need it. Each frame is a block of one page afterwards; given
    /// back with [`Mm::free_contig_pages`], or page by page.
    ///
    /// # Errors
    ///
    /// [`AllocError::NoMemory`] where there is no such run of free frames;
    /// [`AllocError::ZeroSize`] for a count of 0; [`AllocError::BadFlags`] for [`Gfp::COMP`] and
    /// [`Gfp::NOFAIL`] too.
    ///
    /// # Context
    ///
    /// As [`Mm::alloc_pages`], NMI excluded. With [`Gfp::DIRECT_RECLAIM`] the other CPUs' lists are
    /// drained first; nothing is reclaimed.
    ///
    /// # Cost
    ///
    /// A walk over the frames of the range in steps of blocks, under the zone's lock.
    #[track_caller]
    pub fn alloc_contig_pages(
        &self,
        count: u64,
        align: Order,
        within: Range<PhysAddr>,
        gfp: Gfp,
    ) -> Result<Page, AllocError> {
        let site = Location::caller();
        let tables = self.tables().ok_or(AllocError::NotBooted)?;
        gfp.check_for_run()?;
        if count == 0 {
            return Err(AllocError::ZeroSize);
        }
        let gfp = self.flags_for_context(gfp, site);
        if gfp.may_sleep() {
            self.drain_all_pages();
        } else {
            self.drain_local_pages();
        }
        let page = 1u64 << P::PAGE_SHIFT;
        let frames = within.start.get().div_ceil(page)..within.end.get() / page;
        let Some(first) = self.take_run(tables, count, align, frames, gfp) else {
            // Counts beyond every order are asked for too: no arithmetic that overflows.
            let order = Order::new(u64::BITS - (count - 1).leading_zeros()).unwrap_or(Order::LIMIT);
            return Err(self.no_memory(gfp, order, site));
        };
        if gfp.contains(Gfp::ZERO) {
            for frame in first.raw()..first.raw() + count as u32 {
                self.clear(Pfn::from_raw(frame), Order::ZERO);
            }
        }
        if P::TRACE {
            for frame in first.raw()..first.raw() + count as u32 {
                self.trace_alloc(Some(Pfn::from_raw(frame)), gfp, Order::ZERO);
            }
        }
        Ok(Page::of(first))
    }

    /// Takes a run of frames from the first zone that has one.
    fn take_run(
        &self,
        tables: &Tables,
        count: u64,
        align: Order,
        frames: Range<u64>,
        gfp: Gfp,
    ) -> Option<Pfn> {
        let highest = gfp.highest_zone();
        let local = self.local_node(tables);
        let allowed = self.allowed_nodes(gfp, local);
        let whole = tables.whole_reserve_for_atomic;
        let priority = Priority::of(gfp, self.platform.memalloc(), whole);
        let zones = tables.zonelist(local, highest).zones().iter().map(|index| tables.zone(*index));
        zones.filter(|zone| allowed.contains(zone.node())).find_map(|zone| {
            let reserve = zone.lowmem_reserve(highest);
            let floor = Floor::new(&zone.watermarks(), reserve, priority);
            let range = frames.clone();
            zone.take_range(&self.platform, &tables.memmap, count, align, range, floor)
        })
    }

    /// Gives back what [`Mm::alloc_contig_pages`] returned for the same count.
    ///
    /// # Safety
    ///
    /// As [`Mm::__free_pages`], for each of the pages.
    #[track_caller]
    pub unsafe fn free_contig_pages(&self, page: Page, count: u64) {
        let site = Location::caller();
        for page in self.run(page, count, site) {
            let passed = Passed::Page(page.pfn(), 0);
            // Straight to the zone, where the run can merge.
            if let Some(descriptor) = self.check_free(page.pfn(), 0, passed, site) {
                match descriptor.count() {
                    1 => self.give(page.pfn(), descriptor, Order::ZERO, End::Cold),
                    _ => self.put(page.pfn(), descriptor, Order::ZERO, passed, site),
                }
            }
        }
    }

    /// The pages of a run that is to be freed. It ends, with a report, at the first frame that is not
    /// this manager's: however wrong the count, the call comes back.
    fn run(
        &self,
        first: Page,
        count: u64,
        site: &'static Location<'static>,
    ) -> impl Iterator<Item = Page> {
        let first = first.pfn().number();
        (first..first.saturating_add(count)).map_while(move |frame| {
            let pfn = Pfn::new(frame).unwrap_or(Pfn::MAX);
            let is_ram = |page: &Page| self.page_zone(*page).is_some();
            let page = self.pfn_to_page(pfn).filter(is_ram);
            if page.is_none() {
                self.report_at(pfn, MisuseKind::Foreign, Passed::Page(pfn, 0), site);
            }
            page
        })
    }

    /// Allocates a page for each `None` in `out`, and answers how many places of `out` are filled
    /// then. Places that hold a page already are left alone, so a caller can come back for the rest.
    ///
    /// Context as [`Mm::alloc_pages`]; the pages are given back one by one, or with
    /// [`Mm::free_pages_bulk`].
    #[track_caller]
    pub fn alloc_pages_bulk(&self, gfp: Gfp, out: &mut [Option<Page>]) -> usize {
        let mut filled = 0;
        let mut failed = false;
        for place in out {
            if place.is_none() && !failed {
                *place = self.alloc_pages(gfp, 0).ok();
                failed = place.is_none();
            }
            filled += usize::from(place.is_some());
        }
        filled
    }
}

/// How many pages hold `size` bytes.
fn pages_of(size: usize, page_shift: u32) -> u64 {
    (size as u64).div_ceil(1 << page_shift)
}
