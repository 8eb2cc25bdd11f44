//! scullc: quanta from a slab cache of its own (A304).

use core::ptr::NonNull;

use kmem::{AllocError, CacheFlags, CacheId, GFP_KERNEL, Mm, Platform, Reclaim};

use super::{Kind, Source};
use crate::module::check;
use crate::{Parameters, ScullError};

/// scullc's quanta: objects of a cache that all its devices share.
///
/// Quanta of another size would need another cache, so the size is set when the module is loaded
/// and not afterwards (A305).
#[derive(Clone, Copy, Debug)]
pub struct SlabCache {
    cache: CacheId,
    bytes: usize,
}

// SAFETY: a cache hands out objects of the size that it was made for, each to one caller.
unsafe impl Source for SlabCache {
    const KIND: Kind = Kind {
        name: "scullc",
        size: "quantum",
        label: "quantum",
        resizable: false,
        defaults: Parameters { devices: 4, size: 4000, qset: 500, quota: 0 },
    };

    fn new<P: Platform, R: Reclaim>(mm: &Mm<P, R>, size: u64) -> Result<Self, ScullError> {
        check("quantum", size, 1, mm.largest_order().pages() << P::PAGE_SHIFT)?;
        let bytes = size as usize;
        // No constructor and no destructor: a quantum is cleared when it is allocated.
        let flags = CacheFlags::HWCACHE_ALIGN;
        let made = mm.kmem_cache_create(Self::KIND.name, bytes, 0, flags, None, None);
        Ok(SlabCache { cache: made.map_err(ScullError::NoCache)?, bytes })
    }

    fn size(&self) -> u64 {
        self.bytes as u64
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn allocate<P: Platform, R: Reclaim>(&self, mm: &Mm<P, R>) -> Result<NonNull<u8>, AllocError> {
        mm.kmem_cache_alloc(self.cache, GFP_KERNEL)
    }

    unsafe fn free<P: Platform, R: Reclaim>(&self, mm: &Mm<P, R>, quantum: NonNull<u8>) {
        // SAFETY: the caller's promise.
        unsafe { mm.kmem_cache_free(self.cache, quantum.as_ptr()) };
    }

    unsafe fn close<P: Platform, R: Reclaim>(self, mm: &Mm<P, R>) {
        // SAFETY: nobody uses the cache any more, by the caller's promise. A quantum that were still
        // out would keep the cache alive; the manager names it in the log (A208).
        let _ = unsafe { mm.kmem_cache_destroy(self.cache) };
    }
}
