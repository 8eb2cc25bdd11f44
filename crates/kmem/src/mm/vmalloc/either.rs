//! Memory that may be contiguous as frames, and need not be.

use core::panic::Location;
use core::ptr::NonNull;

use super::super::Mm;
use super::gather::Frames;
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{AllocError, Gfp};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Allocates at least `size` bytes: from [`Mm::kmalloc`] if that has them without effort, or else,
    /// where they are not small, as [`Mm::vmalloc`] does. Given back with [`Mm::kvfree`].
    ///
    /// # Errors
    ///
    /// Those of both.
    ///
    /// # Context
    ///
    /// May sleep. Flags that do not sleep leave only the first way.
    ///
    /// # Cost
    ///
    /// That of [`Mm::kmalloc`], or both.
    #[track_caller]
    pub fn kvmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        let site = Location::caller();
        // Slabs of such small objects are single pages: an area would need one as well.
        let is_small = size <= (1 << P::PAGE_SHIFT) / 8;
        if is_small || !gfp.may_sleep() {
            return self.kmalloc(size, gfp);
        }
        // A block is taken if there is one, and nothing is done to have one.
        let at_hand =
            gfp - (Gfp::DIRECT_RECLAIM | Gfp::IO | Gfp::FS | Gfp::NOFAIL | Gfp::RETRY_MAYFAIL);
        self.kmalloc(size, at_hand | Gfp::NOWARN).or_else(|_| {
            let frames = Frames { gfp: (gfp - Gfp::ZERO) | Gfp::HIGHMEM, node: None };
            let memory = self.vmalloc_frames(size, frames, site)?;
            if gfp.contains(Gfp::ZERO) {
                // SAFETY: so many bytes are mapped there, and are nobody's yet.
                unsafe { memory.write_bytes(0, size) };
            }
            Ok(memory)
        })
    }

    /// [`Mm::kvmalloc`] filled with zeros.
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::kvmalloc`].
    #[track_caller]
    pub fn kvzalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.kvmalloc(size, gfp | Gfp::ZERO)
    }

    /// Gives memory of [`Mm::kvmalloc`], [`Mm::kmalloc`] or [`Mm::vmalloc`] back. Null is no memory.
    ///
    /// # Safety
    ///
    /// As [`Mm::kfree`] and [`Mm::vfree`], which also say how wrong frees are found.
    ///
    /// # Context
    ///
    /// Any but NMI.
    #[track_caller]
    pub unsafe fn kvfree(&self, memory: *const u8) {
        if self.is_vmalloc_addr(memory) {
            // SAFETY: the caller's promise is the same.
            unsafe { self.vfree(memory) }
        } else {
            // SAFETY: the caller's promise is the same.
            unsafe { self.kfree(memory) }
        }
    }
}
