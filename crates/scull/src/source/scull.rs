//! scull: quanta from kmalloc (A303).

use core::ptr::NonNull;

use kmem::{AllocError, GFP_KERNEL, Mm, Platform, Reclaim};

use super::{Kind, Source};
use crate::module::check;
use crate::{Parameters, ScullError};

/// scull's quanta: kmalloc's, of any size.
///
/// The texts' 4000 bytes lie just below 4 KB, so that they fit a page with what an allocator may
/// add to them (A303).
#[derive(Clone, Copy, Debug)]
pub struct Kmalloc {
    bytes: usize,
}

// SAFETY: kmalloc hands out at least as many bytes as it is asked for, to one caller.
unsafe impl Source for Kmalloc {
    const KIND: Kind = Kind {
        name: "scull",
        size: "quantum",
        label: "q",
        resizable: true,
        defaults: Parameters { devices: 4, size: 4000, qset: 1000, quota: 0 },
    };

    fn new<P: Platform, R: Reclaim>(mm: &Mm<P, R>, size: u64) -> Result<Self, ScullError> {
        check("quantum", size, 1, mm.largest_order().pages() << P::PAGE_SHIFT)?;
        Ok(Kmalloc { bytes: size as usize })
    }

    fn size(&self) -> u64 {
        self.bytes as u64
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn allocate<P: Platform, R: Reclaim>(&self, mm: &Mm<P, R>) -> Result<NonNull<u8>, AllocError> {
        mm.kmalloc(self.bytes, GFP_KERNEL)
    }

    unsafe fn free<P: Platform, R: Reclaim>(&self, mm: &Mm<P, R>, quantum: NonNull<u8>) {
        // SAFETY: the caller's promise.
        unsafe { mm.kfree(quantum.as_ptr()) };
    }
}
