//! Giving pages back.

use core::panic::Location;

use super::{Mm, compound, state, wrong};
use crate::buddy::End;
use crate::page::{Block, Descriptor, Page};
use crate::pcp::PCP_LARGEST;
use crate::platform::{MisuseKind, Passed, Pinned, Platform};
use crate::reclaim::Reclaim;
use crate::{Order, Pfn, VirtAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Gives back a block of `2^order` pages by its first page (A053).
    ///
    /// Where references besides the caller's remain ([`Mm::get_page`]), the caller's is dropped and
    /// the last one frees the block.
    ///
    /// # Wrong frees
    ///
    /// A block that is free already, a page that is not the first of its block, a reserved page, a
    /// page that is not this manager's, another order than the block was allocated with: each is
    /// found here, in constant time, reported to [`Hooks::misuse`](crate::platform::Hooks::misuse)
    /// and changes nothing (A062, A063). Two CPUs that free one block at the same moment are found
    /// at the latest when it would be handed out again.
    ///
    /// # Safety
    ///
    /// The block is the caller's, and nothing uses it after the call. What the checks cannot tell is
    /// a block that was freed and has been handed out to somebody else since.
    ///
    /// # Context
    ///
    /// Any, NMI handlers included; does not sleep.
    ///
    /// # Cost
    ///
    /// Orders 0 to 3 go to the CPU's own list: no lock, no atomic read-modify-write.
    #[inline]
    #[track_caller]
    pub unsafe fn __free_pages(&self, page: Page, order: u32) {
        if !self.free_fast(page.pfn(), order, End::Hot) {
            let passed = Passed::Page(page.pfn(), order);
            self.free_slow(page.pfn(), order, End::Hot, passed, Location::caller());
        }
    }

    /// Gives back one page: [`Mm::__free_pages`] of order 0 (A053).
    ///
    /// # Safety
    ///
    /// As [`Mm::__free_pages`].
    #[inline]
    #[track_caller]
    pub unsafe fn __free_page(&self, page: Page) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.__free_pages(page, 0) }
    }

    /// Gives back one page whose contents are likely in the CPU's cache: it is allocated next
    /// (A054).
    ///
    /// # Safety
    ///
    /// As [`Mm::__free_pages`].
    #[inline]
    #[track_caller]
    pub unsafe fn free_hot_page(&self, page: Page) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.__free_pages(page, 0) }
    }

    /// Gives back one page whose contents are likely not in the CPU's cache: it is allocated last
    /// (A054).
    ///
    /// # Safety
    ///
    /// As [`Mm::__free_pages`].
    #[track_caller]
    pub unsafe fn free_cold_page(&self, page: Page) {
        if !self.free_fast(page.pfn(), 0, End::Cold) {
            let passed = Passed::Page(page.pfn(), 0);
            self.free_slow(page.pfn(), 0, End::Cold, passed, Location::caller());
        }
    }

    /// Gives back many single pages.
    ///
    /// # Safety
    ///
    /// As [`Mm::__free_pages`], for each of them.
    #[track_caller]
    pub unsafe fn free_pages_bulk(&self, pages: &[Page]) {
        for page in pages {
            // SAFETY: the caller's promise is the same.
            unsafe { self.__free_pages(*page, 0) };
            self.trace_batched(page.pfn());
        }
    }

    /// Gives back a block of `2^order` pages by the address of its first byte (A052).
    ///
    /// Wrong frees are found as by [`Mm::__free_pages`]; addresses that are not the first byte of a
    /// page, or not of the direct map, too.
    ///
    /// # Safety
    ///
    /// As [`Mm::__free_pages`]; so are context and cost.
    #[inline]
    #[track_caller]
    pub unsafe fn free_pages(&self, address: VirtAddr, order: u32) {
        if let Some(phys) = self.platform.virt_to_phys(address)
            && phys.is_page_aligned(P::PAGE_SHIFT)
            && let Some(pfn) = phys.frame(P::PAGE_SHIFT)
        {
            if !self.free_fast(pfn, order, End::Hot) {
                let passed = Passed::Address(address, order);
                self.free_slow(pfn, order, End::Hot, passed, Location::caller());
            }
        } else {
            self.report_wrong_address(address, order, Location::caller());
        }
    }

    /// Gives back one page by its address: [`Mm::free_pages`] of order 0 (A051).
    ///
    /// # Safety
    ///
    /// As [`Mm::__free_pages`].
    #[inline]
    #[track_caller]
    pub unsafe fn free_page(&self, address: VirtAddr) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.free_pages(address, 0) }
    }

    /// Frees a block, to the CPU's own list or, of a larger order, to its zone, if nothing about the
    /// free is unusual. Answers whether it did.
    #[inline(always)]
    fn free_fast(&self, pfn: Pfn, order: u32, end: End) -> bool {
        if order > PCP_LARGEST.get() {
            return self.free_large(pfn, order, end);
        }
        self.free_small(pfn, Order::from_raw(order as u8), end, 1)
    }

    /// Frees a block that has so many references to the CPU's own list: one, the caller's, or none
    /// where the last was dropped already.
    #[inline(always)]
    fn free_small(&self, pfn: Pfn, order: Order, end: End, references: u32) -> bool {
        match self.free_listed(pfn, order, end, references) {
            Ok(()) => true,
            Err(miss) => self.free_missed(pfn, order, end, references, miss),
        }
    }

    /// Puts a block on the CPU's own list. Calls nothing, so that nothing is saved for a call: what
    /// it cannot do is seen to after it has left the section.
    #[inline(always)]
    fn free_listed(&self, pfn: Pfn, order: Order, end: End, references: u32) -> Result<(), Miss> {
        let pinned = Pinned::new(&self.platform);
        let area = self.area(pinned.cpu());
        // SAFETY: this code is pinned to the CPU that the area belongs to.
        let mut entered = unsafe { area.section.enter() }.ok_or(Miss::Unusual)?;
        if area.section.is_requested() {
            return Err(Miss::Unusual);
        }
        let found = area.memmap(&entered).get_with_type(pfn);
        let (descriptor, migrate_type) = found.ok_or(Miss::Unusual)?;
        if !may_free(descriptor, order, references) || !descriptor.reset_first() {
            return Err(Miss::Unusual);
        }
        let set = area.set_to_free(&mut entered, descriptor.zone(), migrate_type);
        let (set, slot, group) = set.ok_or(Miss::Unusual)?;
        if P::TRACE && set.ring(order, migrate_type).is_some_and(|ring| !ring.is_full()) {
            self.trace_free(pfn, order);
        }
        let pushed = match end {
            End::Hot => set.push_hot_in(order, group, pfn),
            End::Cold => set.push_cold(order, migrate_type, pfn),
        };
        if !pushed {
            return Err(Miss::Full);
        }
        descriptor.set_count(0);
        descriptor.mark().set_on_lists(area.cpu());
        slot.counters().count_given(order);
        Ok(())
    }

    /// What [`Mm::free_listed`] could not do: gives a batch from the cold end of the full list back to
    /// the zone, and tries again. Answers whether the block is freed then; it is not where the zone
    /// has no lists.
    #[cold]
    #[inline(never)]
    fn free_missed(&self, pfn: Pfn, order: Order, end: End, references: u32, miss: Miss) -> bool {
        if matches!(miss, Miss::Unusual) {
            return false;
        }
        {
            let pinned = Pinned::new(&self.platform);
            let area = self.area(pinned.cpu());
            // SAFETY: this code is pinned to the CPU that the area belongs to.
            let Some(mut entered) = (unsafe { area.section.enter() }) else { return false };
            let found = area.memmap(&entered).get_with_type(pfn);
            let Some((descriptor, migrate_type)) = found else { return false };
            let index = descriptor.zone();
            let Some((set, _)) = area.set(&mut entered, index) else { return false };
            let batch = set.ring(order, migrate_type).map_or(0, |ring| ring.batch());
            self.drain_ring(area, &mut entered, index, order, migrate_type, batch);
        }
        self.free_listed(pfn, order, end, references).is_ok()
    }

    /// Gives a block of an order that the lists do not have back to its zone, if nothing about the
    /// free is unusual. Answers whether it did.
    #[inline(never)]
    fn free_large(&self, pfn: Pfn, order: u32, end: End) -> bool {
        let (Some(tables), Some(order)) = (self.tables(), Order::new(order)) else { return false };
        let Some(descriptor) = tables.memmap.get(pfn) else { return false };
        if !may_free(descriptor, order, 1) || descriptor.is_to_settle() {
            return false;
        }
        self.give(pfn, descriptor, order, end);
        true
    }

    /// Frees when the fast path could not, or would not: finds out what the block is.
    #[cold]
    #[inline(never)]
    pub(super) fn free_slow(
        &self,
        pfn: Pfn,
        order: u32,
        end: End,
        passed: Passed,
        site: &'static Location<'static>,
    ) {
        self.honour_request();
        let Some(descriptor) = self.check_free(pfn, order, passed, site) else { return };
        // The check found a block of this order, which is one that there is.
        let order = self.clamp(order);
        match descriptor.count() {
            // A compound block is taken apart before it is freed, which one CPU may do: the one that
            // drops the last reference.
            1 if descriptor.is(Block::Used(order)) => self.release(pfn, descriptor, order, end, 1),
            _ => self.put(pfn, descriptor, order, passed, site),
        }
    }

    /// Drops a reference of a used block, and frees it with the last one.
    pub(super) fn put(
        &self,
        pfn: Pfn,
        descriptor: &Descriptor,
        order: Order,
        passed: Passed,
        site: &'static Location<'static>,
    ) {
        match descriptor.decrement_count() {
            // Two references were dropped at one moment, and each looked while there was another.
            Some(0) if descriptor.is_of_objects() => {
                descriptor.set_count(1);
                self.report_at(pfn, wrong::whose(descriptor), passed, site);
            }
            // The count stays 0: of two who drop the last reference at one moment, one goes on.
            Some(0) => self.release(pfn, descriptor, order, End::Hot, 0),
            Some(_) => {}
            None => self.report_at(pfn, MisuseKind::NoReference, passed, site),
        }
    }

    /// Frees a block that has been checked and that nobody refers to any more but, with one reference
    /// left, the caller.
    fn release(&self, pfn: Pfn, descriptor: &Descriptor, order: Order, end: End, references: u32) {
        let Some(tables) = self.tables() else { return };
        if let Block::Compound(_) = descriptor.block() {
            compound::dissolve(&tables.memmap, pfn, order);
        }
        state::reset_inner(&tables.memmap, pfn, order);
        if order <= PCP_LARGEST && self.free_small(pfn, order, end, references) {
            return;
        }
        self.give(pfn, descriptor, order, end);
    }

    /// Gives a block back to its zone.
    pub(super) fn give(&self, pfn: Pfn, descriptor: &Descriptor, order: Order, end: End) {
        let Some(tables) = self.tables() else { return };
        let zone = tables.zone(descriptor.zone());
        self.trace_free(pfn, order);
        if !zone.give(&self.platform, &tables.memmap, pfn, order, end) {
            self.report_stray(pfn, order);
        }
    }
}

/// Why a block was not put on a CPU's own list.
enum Miss {
    /// Something about the block or the CPU is unusual: the slow path finds out what.
    Unusual,
    /// The list is full, or the zone has none.
    Full,
}

/// Whether a block is what a free expects: used, of this order, with a caller, and with so many
/// references.
#[inline(always)]
fn may_free(descriptor: &Descriptor, order: Order, references: u32) -> bool {
    descriptor.is(Block::Used(order))
        && descriptor.mark().is_held()
        && descriptor.count() == references
}
