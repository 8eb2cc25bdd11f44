//! scullp: quanta that are whole pages (A310).

use core::ptr::NonNull;

use kmem::{AllocError, GFP_KERNEL, Mm, Order, Page, Platform, Reclaim, VirtAddr};

use super::{Kind, Source};
use crate::module::check;
use crate::{Parameters, ScullError};

/// scullp's quanta: `2^order` pages each. Nothing of them is lost to an allocator's grain.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    order: u32,
    bytes: usize,
}

// SAFETY: a block of pages of an order has this many bytes, and one caller.
unsafe impl Source for Pages {
    const KIND: Kind = Kind {
        name: "scullp",
        size: "order",
        label: "order",
        resizable: false,
        defaults: Parameters { devices: 4, size: 0, qset: 500, quota: 0 },
    };

    fn new<P: Platform, R: Reclaim>(mm: &Mm<P, R>, size: u64) -> Result<Self, ScullError> {
        check("order", size, 0, mm.largest_order().min(Order::LIMIT).get().into())?;
        let order = size as u32;
        Ok(Pages { order, bytes: 1 << (P::PAGE_SHIFT + order) })
    }

    fn size(&self) -> u64 {
        self.order.into()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn allocate<P: Platform, R: Reclaim>(&self, mm: &Mm<P, R>) -> Result<NonNull<u8>, AllocError> {
        let address = mm.__get_free_pages(GFP_KERNEL, self.order)?;
        // SAFETY: a block of memory does not start at address 0.
        Ok(unsafe { NonNull::new_unchecked(address.as_ptr()) })
    }

    /// The pages of a larger block have no references of their own.
    fn is_mappable(&self) -> bool {
        self.order == 0
    }

    fn page<P: Platform, R: Reclaim>(
        &self,
        mm: &Mm<P, R>,
        quantum: NonNull<u8>,
        _: usize,
    ) -> Option<Page> {
        mm.virt_to_page(VirtAddr::from_ptr(quantum.as_ptr()))
    }

    unsafe fn free<P: Platform, R: Reclaim>(&self, mm: &Mm<P, R>, quantum: NonNull<u8>) {
        // SAFETY: the caller's promise; the order is that of the allocation.
        unsafe { mm.free_pages(VirtAddr::from_ptr(quantum.as_ptr()), self.order) };
    }
}
