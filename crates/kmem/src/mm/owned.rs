//! A block that frees itself.

use super::Mm;
use crate::page::Page;
use crate::platform::Platform;
use crate::reclaim::{NoReclaim, Reclaim};
use crate::{AllocError, Gfp, Order, VirtAddr};

/// A block of contiguous pages of the direct map that belongs to this value, which gives it back,
/// with its own order, when it is dropped.
///
/// # Invariants
///
/// The block is in use with this order, and this value has its only reference. Its bytes have been
/// written, if only by the memory's last user.
pub struct Pages<'m, P: Platform, R: Reclaim = NoReclaim> {
    mm: &'m Mm<P, R>,
    page: Page,
    order: Order,
    address: VirtAddr,
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Allocates `2^order` contiguous pages as a value that owns them.
    ///
    /// The bytes can be reached at once, so the block is of the direct map: [`Gfp::HIGHMEM`] is
    /// reported and left out, as by [`Mm::__get_free_pages`]. Without [`Gfp::ZERO`] they are what the
    /// last user left.
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::alloc_pages`].
    #[track_caller]
    pub fn pages(&self, gfp: Gfp, order: u32) -> Result<Pages<'_, P, R>, AllocError> {
        let address = self.__get_free_pages(gfp, order)?;
        let page = self.virt_to_page(address).ok_or(AllocError::NotBooted)?;
        Ok(Pages { mm: self, page, order: self.clamp(order), address })
    }
}

impl<'m, P: Platform, R: Reclaim> Pages<'m, P, R> {
    /// The first page.
    pub fn page(&self) -> Page {
        self.page
    }

    /// The order.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The address of the first byte.
    pub fn address(&self) -> VirtAddr {
        self.address
    }

    /// How many bytes there are.
    pub fn size(&self) -> usize {
        (self.order.pages() as usize) << P::PAGE_SHIFT
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: by the invariant the block is this value's alone, its bytes have been written, and
        // the direct map reaches all of them.
        unsafe { core::slice::from_raw_parts(self.address.as_ptr(), self.size()) }
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and this value is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.address.as_ptr(), self.size()) }
    }

    /// Gives up ownership: the block is the caller's to free, with its order.
    pub fn into_page(self) -> Page {
        let page = self.page;
        core::mem::forget(self);
        page
    }

    /// Takes ownership of a block.
    ///
    /// `None` where not all of the block is of the direct map; then nothing changes.
    ///
    /// # Safety
    ///
    /// The block is in use with this order and is the caller's, with its only reference.
    pub unsafe fn from_page(mm: &'m Mm<P, R>, page: Page, order: Order) -> Option<Self> {
        let address = mm.direct_address(page)?;
        let last = page.pfn().checked_add(order.pages() - 1)?;
        mm.direct_address(Page::of(last))?;
        Some(Pages { mm, page, order, address })
    }
}

impl<P: Platform, R: Reclaim> Drop for Pages<'_, P, R> {
    fn drop(&mut self) {
        // SAFETY: by the invariant the block is this value's.
        unsafe { self.mm.__free_pages(self.page, self.order.get()) };
    }
}

impl<P: Platform, R: Reclaim> core::fmt::Debug for Pages<'_, P, R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pages").field("page", &self.page).field("order", &self.order).finish()
    }
}
