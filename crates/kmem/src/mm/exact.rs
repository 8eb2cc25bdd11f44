//! Other than one block of a power of two: exact sizes, runs of frames, many single pages.

use core::ops::Range;
use core::panic::Location;

use super::Mm;
use crate::buddy::End;
use crate::page::{Block, Page};
use crate::platform::{Misuse, MisuseKind, Passed, Platform, There};
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
        for page in 0..pages_of(size, P::PAGE_SHIFT) as usize {
            let address = VirtAddr::new(address.get() + (page << P::PAGE_SHIFT));
            // SAFETY: the caller's promise is the same.
            unsafe { self.free_page(address) };
        }
    }

    /// Makes a block `2^order` blocks of one page, each with a reference of its own, so that they
    /// can be freed one by one (A016).
    ///
    /// A page that is not the first of a used block of that order, or of a compound one, is reported
    /// as misuse and left alone. Any context. Cost: a store for each page.
    #[track_caller]
    pub fn split_page(&self, page: Page, order: u32) {
        let site = Location::caller();
        let passed = Passed::Page(page.pfn(), order);
        let Some(tables) = self.tables() else { return };
        let Some(descriptor) = self.check_free(page.pfn(), order, passed, site) else { return };
        let order = self.clamp(order);
        if !descriptor.is(Block::Used(order)) {
            let there = There::Block { head: page.pfn(), order };
            self.report(&Misuse { kind: MisuseKind::CompoundTail, passed, there, site });
            return;
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
    /// For a device's buffers. Each frame is a block of one page afterwards; given back with
    /// [`Mm::free_contig_pages`], or page by page.
    ///
    /// # Errors
    ///
    /// [`AllocError::NoMemory`] where there is no such run of free frames;
    /// [`AllocError::ZeroSize`] for a count of 0.
    ///
    /// # Context
    ///
    /// Any but NMI; does not sleep, though with [`Gfp::DIRECT_RECLAIM`] the other CPUs' lists are
    /// drained first.
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
        let tables = self.tables().ok_or(AllocError::NotBooted)?;
        gfp.check()?;
        if count == 0 {
            return Err(AllocError::ZeroSize);
        }
        if gfp.may_sleep() {
            self.drain_all_pages();
        } else {
            self.drain_local_pages();
        }
        let page = 1u64 << P::PAGE_SHIFT;
        let frames = within.start.get().div_ceil(page)..within.end.get() / page;
        let highest = gfp.highest_zone();
        let whole = tables.whole_reserve_for_atomic;
        let priority = Priority::of(gfp, self.platform.memalloc(), whole);
        // No node is preferred: a range of addresses says where it is to be.
        for zone in tables.zones().iter().filter(|zone| zone.kind() <= highest) {
            let reserve = zone.lowmem_reserve(highest);
            let floor = Floor::new(&zone.watermarks(), reserve, priority);
            let (map, range) = (&tables.memmap, frames.clone());
            if let Some(first) = zone.take_range(&self.platform, map, count, align, range, floor) {
                if gfp.contains(Gfp::ZERO) {
                    for frame in first.raw()..first.raw() + count as u32 {
                        self.clear(Pfn::from_raw(frame), Order::ZERO);
                    }
                }
                return Ok(Page::of(first));
            }
        }
        // Counts beyond every order are asked for too: no arithmetic that overflows.
        let order = Order::new(u64::BITS - (count - 1).leading_zeros()).unwrap_or(Order::LIMIT);
        Err(AllocError::NoMemory { order, gfp })
    }

    /// Gives back what [`Mm::alloc_contig_pages`] returned for the same count.
    ///
    /// # Safety
    ///
    /// As [`Mm::__free_pages`], for each of the pages.
    #[track_caller]
    pub unsafe fn free_contig_pages(&self, page: Page, count: u64) {
        let first = page.pfn().number();
        for frame in first..first.saturating_add(count) {
            let Some(pfn) = Pfn::new(frame) else { return };
            let passed = Passed::Page(pfn, 0);
            let site = Location::caller();
            // Straight to the zone, where the run can merge.
            if let Some(descriptor) = self.check_free(pfn, 0, passed, site) {
                match descriptor.count() {
                    1 => self.give(pfn, descriptor, Order::ZERO, End::Cold),
                    _ => self.put(pfn, descriptor, Order::ZERO, passed, site),
                }
            }
        }
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
