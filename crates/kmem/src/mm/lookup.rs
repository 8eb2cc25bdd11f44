//! From pages to addresses and back, and references.

use core::panic::Location;

use super::Mm;
use crate::page::{Block, Descriptor, Page};
use crate::platform::{MisuseKind, Passed, Platform};
use crate::reclaim::Reclaim;
use crate::zone::Zone;
use crate::{Order, Pfn, PhysAddr, VirtAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// The page of a frame number, or `None` for a frame that has no descriptor (A015). Any
    /// context; a few comparisons and loads.
    #[inline]
    pub fn pfn_to_page(&self, pfn: Pfn) -> Option<Page> {
        self.tables()?.memmap.get(pfn).map(|_| Page::of(pfn))
    }

    /// The frame number of a page (A015).
    #[inline]
    pub fn page_to_pfn(&self, page: Page) -> Pfn {
        page.pfn()
    }

    /// The physical address of a page's first byte.
    #[inline]
    pub fn page_to_phys(&self, page: Page) -> PhysAddr {
        page.pfn().start(P::PAGE_SHIFT)
    }

    /// Where a page is seen by all CPUs: in the direct map, or, while somebody has a page of high
    /// memory mapped with [`Mm::kmap`], there. `None` for high memory that is not mapped (A010, A014,
    /// A272, A277). Any context; in an NMI handler that interrupted a change to the mappings, high
    /// memory has no address.
    #[inline]
    pub fn page_address(&self, page: Page) -> Option<VirtAddr> {
        match self.direct_address(page) {
            Some(address) => Some(address),
            None => self.kmapped_address(page),
        }
    }

    /// Where a page is seen in the direct map.
    #[inline]
    pub(super) fn direct_address(&self, page: Page) -> Option<VirtAddr> {
        let start = self.page_to_phys(page);
        // The limit may lie inside a page, of which then nobody sees the end.
        let last = PhysAddr::new(start.get() + ((1 << P::PAGE_SHIFT) - 1));
        if last < self.platform.limit() { self.platform.phys_to_virt(start) } else { None }
    }

    /// The page that an address of the direct map lies in; `None` for other addresses (A015). Any
    /// context.
    #[inline]
    pub fn virt_to_page(&self, address: VirtAddr) -> Option<Page> {
        let pfn = self.platform.virt_to_phys(address)?.frame(P::PAGE_SHIFT)?;
        self.pfn_to_page(pfn)
    }

    /// The descriptor of a page, to be read. What holders keep in it is set by
    /// [`Mm::set_page_flag`] and its sisters. `None` before boot only.
    #[inline]
    pub fn descriptor(&self, page: Page) -> Option<&Descriptor> {
        self.tables()?.memmap.get(page.pfn())
    }

    /// The zone that a page belongs to (A023). `None` before boot, and for a hole.
    pub fn page_zone(&self, page: Page) -> Option<&Zone> {
        let tables = self.tables()?;
        let descriptor = tables.memmap.get(page.pfn())?;
        (descriptor.block() != Block::Hole).then(|| tables.zone(descriptor.zone()))
    }

    /// How many references a page has: 0 where it is free (A007, A008). For a page of a compound
    /// block, those of the block. Any context.
    #[inline]
    pub fn page_count(&self, page: Page) -> u32 {
        let head = self.compound_head(page);
        self.descriptor(head).map_or(0, Descriptor::count)
    }

    /// Takes another reference to a page that the caller has one of. Any context; one locked
    /// instruction.
    ///
    /// A page that is not in use is reported as misuse, and has none afterwards either. So is the
    /// reference that is one too many to be counted: the block is never freed then, which loses it
    /// and harms nobody.
    #[inline]
    #[track_caller]
    pub fn get_page(&self, page: Page) {
        let head = self.compound_head(page);
        let (passed, site) = (Passed::Page(page.pfn(), 0), Location::caller());
        match self.descriptor(head) {
            Some(descriptor) if descriptor.count() != 0 => {
                if !descriptor.increment_count() {
                    self.report_at(head.pfn(), MisuseKind::TooManyReferences, passed, site);
                }
            }
            _ => self.report_at(page.pfn(), MisuseKind::NoReference, passed, site),
        }
    }

    /// Drops a reference to a page, and frees its block with the last one, whatever its order.
    ///
    /// A page that is not in use is reported as misuse.
    ///
    /// # Safety
    ///
    /// The reference is the caller's, and nothing uses it after the call.
    ///
    /// # Context
    ///
    /// Any; does not sleep.
    #[track_caller]
    pub unsafe fn put_page(&self, page: Page) {
        let head = self.compound_head(page);
        let site = Location::caller();
        let order = match self.descriptor(head).map(Descriptor::block) {
            Some(Block::Used(order) | Block::Compound(order)) => order,
            _ => Order::ZERO,
        };
        let passed = Passed::Page(page.pfn(), order.get());
        if let Some(descriptor) = self.check_free(head.pfn(), order.get(), passed, site) {
            self.put(head.pfn(), descriptor, order, passed, site);
        }
    }
}
