//! A block of pages that somebody holds.

use kmem::{Mm, Page, Pfn, Platform, Reclaim, VirtAddr};

/// How a block was allocated, which says how it is freed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// By `alloc_pages` and its like.
    Pages,
    /// By `__get_free_pages` and its like.
    Address,
    /// By `alloc_pages_exact`.
    Exact,
    /// By `alloc_contig_pages`.
    Contiguous,
    /// By `alloc_pages` with `__GFP_COMP`.
    Compound,
}

/// A block.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) pfn: Pfn,
    /// How many pages it has; a power of two but for `Exact` and `Contiguous`.
    pub(super) pages: u32,
    pub(super) kind: Kind,
    /// What its stamp is made of, besides the frame's number.
    pub(super) salt: u16,
}

impl Held {
    /// The salts are 0 to one less than this.
    pub(super) const SALTS: u64 = 1 << u16::BITS;

    /// How many bytes were asked for, for `Exact`: some less than whole pages.
    pub(super) fn exact_bytes(pages: u32, salt: u16, page_shift: u32) -> usize {
        let slack = usize::from(salt) & ((1 << page_shift) - 1);
        ((pages as usize) << page_shift) - slack
    }

    /// Frees it in the way that belongs to its kind.
    ///
    /// # Safety
    ///
    /// It is the caller's alone, and all that is in it was given by the allocation.
    pub(super) unsafe fn free<P: Platform, R: Reclaim>(self, mm: &Mm<P, R>) {
        let Some(page) = mm.pfn_to_page(self.pfn) else { return };
        let order = self.pages.ilog2();
        // SAFETY: the caller vouches for each of these.
        unsafe {
            match self.kind {
                Kind::Pages | Kind::Compound => mm.__free_pages(page, order),
                Kind::Contiguous => mm.free_contig_pages(page, u64::from(self.pages)),
                Kind::Address => mm.free_pages(address(mm, page), order),
                Kind::Exact => {
                    let bytes = Self::exact_bytes(self.pages, self.salt, P::PAGE_SHIFT);
                    mm.free_pages_exact(address(mm, page), bytes);
                }
            }
        }
    }
}

/// The address of a block that was handed out as an address.
fn address<P: Platform, R: Reclaim>(mm: &Mm<P, R>, page: Page) -> VirtAddr {
    // It has one, or it would not have been handed out so. A wrong answer is reported by the free.
    mm.page_address(page).unwrap_or(VirtAddr::new(0))
}
