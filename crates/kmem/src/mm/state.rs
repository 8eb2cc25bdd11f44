//! What the holder of a page keeps in its descriptor: states, 64 bits, a place in a mapping.
//!
//! A block's first descriptor is the only one that a free reads. The first state that one of the
//! others gets is noted there ([`PageFlags::Inner`]), so that a free takes those away too and a block
//! without any costs nothing.

use core::panic::Location;

use super::Mm;
use crate::page::{Block, Descriptor, Memmap, Page, PageFlags, Place};
use crate::platform::{MisuseKind, Passed, Platform};
use crate::reclaim::Reclaim;
use crate::zone::ZoneEvent;
use crate::{Order, Pfn};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Gives a page a state; answers whether it had it (A006). Other CPUs may change other states of
    /// the page at the same time.
    ///
    /// A page that is not in use is reported as misuse and stays as it is; so does one whose state is
    /// the manager's to change ([`PageFlags::is_holders`]). The states go when the block is freed.
    ///
    /// Any context; one locked instruction.
    #[track_caller]
    pub fn set_page_flag(&self, page: Page, flag: PageFlags) -> bool {
        self.holders_flag(page, flag, Location::caller()).is_some_and(|there| there.set(flag))
    }

    /// Takes a state away; answers whether the page had it (A006). Otherwise as
    /// [`Mm::set_page_flag`].
    #[track_caller]
    pub fn clear_page_flag(&self, page: Page, flag: PageFlags) -> bool {
        self.holders_flag(page, flag, Location::caller()).is_some_and(|there| there.clear(flag))
    }

    /// Makes a page private data with 64 bits of its holder's own; `None` undoes it (A009). A page of
    /// a mapping is none any more.
    ///
    /// A page that is not in use is reported as misuse and stays as it is. Any context. By one CPU at
    /// a time.
    #[track_caller]
    pub fn set_page_private(&self, page: Page, private: Option<u64>) {
        if let Some(there) = self.holders(page, Location::caller()) {
            there.set_private(private);
        }
    }

    /// Makes a page part of the page cache: a mapping's number and the place in it, in pages; `None`
    /// undoes it (A009). A page with private data has none any more.
    ///
    /// A page that is not in use is reported as misuse and stays as it is. Any context. By one CPU at
    /// a time.
    #[track_caller]
    pub fn set_page_mapping(&self, page: Page, place: Option<(u32, u32)>) {
        if let Some(there) = self.holders(page, Location::caller()) {
            there.set_mapping(place);
        }
    }

    /// Says in how many page tables a page is (A005).
    ///
    /// A page that is not in use is reported as misuse and stays as it is. Any context. By one CPU at
    /// a time.
    #[track_caller]
    pub fn set_page_map_count(&self, page: Page, tables: u32) {
        if let Some(there) = self.holders(page, Location::caller()) {
            there.set_map_count(tables);
        }
    }

    /// Marks a block as belonging to a slab and counts its pages, as reclaimable too where its cache
    /// can be shrunk (A018). By the holder of the block; until [`Mm::clear_page_slab`] a free of it
    /// is a wrong one.
    ///
    /// It is for a slab layer beside the manager's own. A block that is a slab's already stays what it
    /// is. A page that is not the first of a block in
    /// use is reported as misuse and stays as it is. Any context.
    #[track_caller]
    pub fn set_page_slab(&self, page: Page, reclaimable: bool) {
        let Some((there, order)) = self.first_of_block(page, Location::caller()) else { return };
        if there.set(PageFlags::Slab) {
            return;
        }
        if reclaimable {
            there.set(PageFlags::SlabReclaimable);
        }
        if let Some(zone) = self.page_zone(page) {
            zone.counters().add(slab_event(reclaimable), order.pages());
        }
    }

    /// Undoes [`Mm::set_page_slab`], before the block is freed. Otherwise as that.
    #[track_caller]
    pub fn clear_page_slab(&self, page: Page) {
        let Some((there, order)) = self.first_of_block(page, Location::caller()) else { return };
        if !there.clear(PageFlags::Slab) {
            return;
        }
        let reclaimable = there.clear(PageFlags::SlabReclaimable);
        if let Some(zone) = self.page_zone(page) {
            zone.counters().sub(slab_event(reclaimable), order.pages());
        }
    }

    fn holders_flag(
        &self,
        page: Page,
        flag: PageFlags,
        site: &'static Location<'static>,
    ) -> Option<&Descriptor> {
        if !flag.is_holders() {
            return self.not_holders(page, site);
        }
        self.holders(page, site)
    }

    /// The descriptor of a page of a block in use, for a change; otherwise a report, and `None`.
    pub(super) fn holders(
        &self,
        page: Page,
        site: &'static Location<'static>,
    ) -> Option<&Descriptor> {
        let Some((memmap, head, _)) = self.block_in_use(page.pfn()) else {
            return self.not_in_use(page, site);
        };
        let first = memmap.at(head);
        if first.is_managers() {
            return self.not_holders(page, site);
        }
        if head != page.pfn() && !first.has(PageFlags::Inner) {
            first.set(PageFlags::Inner);
        }
        memmap.get(page.pfn())
    }

    /// The descriptor of the first page of a block in use, and the block's order; otherwise a report,
    /// and `None`.
    fn first_of_block(
        &self,
        page: Page,
        site: &'static Location<'static>,
    ) -> Option<(&Descriptor, Order)> {
        match self.block_in_use(page.pfn()) {
            Some((memmap, head, _)) if memmap.at(head).is_managers() => {
                self.not_holders(page, site)
            }
            Some((memmap, head, order)) if head == page.pfn() => Some((memmap.at(head), order)),
            _ => self.not_in_use(page, site),
        }
    }

    /// The first frame and the order of the block in use that a frame lies in.
    fn block_in_use(&self, pfn: Pfn) -> Option<(&Memmap, Pfn, Order)> {
        let memmap = self.memmap()?;
        match memmap.head(pfn)? {
            (head, Block::Used(order) | Block::Compound(order))
                if memmap.at(head).place() == Place::Held =>
            {
                Some((memmap, head, order))
            }
            _ => None,
        }
    }

    #[cold]
    fn not_holders<T>(&self, page: Page, site: &'static Location<'static>) -> Option<T> {
        let passed = Passed::Page(page.pfn(), 0);
        self.report_at(page.pfn(), MisuseKind::ManagersState, passed, site);
        None
    }

    #[cold]
    fn not_in_use<T>(&self, page: Page, site: &'static Location<'static>) -> Option<T> {
        let passed = Passed::Page(page.pfn(), 0);
        self.report_at(page.pfn(), MisuseKind::NotInUse, passed, site);
        None
    }
}

/// Takes the states of all pages of a block away but those of the first.
pub(super) fn reset_inner(memmap: &Memmap, head: Pfn, order: Order) {
    if memmap.at(head).clear(PageFlags::Inner) {
        for frame in head.raw() + 1..head.raw() + order.pages() as u32 {
            memmap.at(Pfn::from_raw(frame)).reset();
        }
    }
}

fn slab_event(reclaimable: bool) -> ZoneEvent {
    if reclaimable { ZoneEvent::SlabReclaimable } else { ZoneEvent::SlabUnreclaimable }
}
