//! scullv: quanta that are contiguous as addresses only (A313).

use core::ptr::NonNull;

use kmem::{AllocError, Mm, Order, Page, Platform, Reclaim};

use super::{Kind, Source};
use crate::module::check;
use crate::{Parameters, ScullError};

/// scullv's quanta: `2^order` pages each, wherever they are. It differs from scullp in nothing but where
/// they come from, and may so have large ones on a machine whose memory is splintered (A313, A314).
#[derive(Clone, Copy, Debug)]
pub struct Areas {
    order: u32,
    bytes: usize,
}

// SAFETY: an area has at least as many bytes as were asked for, and one caller.
unsafe impl Source for Areas {
    const KIND: Kind = Kind {
        name: "scullv",
        size: "order",
        label: "order",
        resizable: false,
        defaults: Parameters { devices: 4, size: 4, qset: 500, quota: 0 },
    };

    fn new<P: Platform, R: Reclaim>(_: &Mm<P, R>, size: u64) -> Result<Self, ScullError> {
        check("order", size, 0, Order::LIMIT.get().into())?;
        let order = size as u32;
        Ok(Areas { order, bytes: 1 << (P::PAGE_SHIFT + order) })
    }

    fn size(&self) -> u64 {
        self.order.into()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn allocate<P: Platform, R: Reclaim>(&self, mm: &Mm<P, R>) -> Result<NonNull<u8>, AllocError> {
        mm.vmalloc(self.bytes)
    }

    fn is_mappable(&self) -> bool {
        true
    }

    fn page<P: Platform, R: Reclaim>(
        &self,
        mm: &Mm<P, R>,
        quantum: NonNull<u8>,
        offset: usize,
    ) -> Option<Page> {
        mm.vmalloc_to_page(quantum.as_ptr().wrapping_add(offset))
    }

    unsafe fn free<P: Platform, R: Reclaim>(&self, mm: &Mm<P, R>, quantum: NonNull<u8>) {
        // SAFETY: the caller's promise.
        unsafe { mm.vfree(quantum.as_ptr()) };
    }
}
