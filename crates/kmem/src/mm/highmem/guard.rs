//! Mappings that end by themselves.

use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::slice;

use super::super::Mm;
use crate::VirtAddr;
use crate::highmem::KmapError;
use crate::page::Page;
use crate::platform::Platform;
use crate::reclaim::{NoReclaim, Reclaim};

/// The bytes of one page, mapped for all CPUs until this is dropped ([`Mm::kmap_bytes`]).
///
/// # Invariants
///
/// The page is mapped at the address, and its bytes are this value's alone.
pub struct KmapGuard<'m, P: Platform, R: Reclaim = NoReclaim> {
    mm: &'m Mm<P, R>,
    page: Page,
    address: VirtAddr,
}

/// The bytes of one page, mapped on this CPU until this is dropped ([`Mm::kmap_local`]). Those of high
/// memory are dropped in the opposite order of their making.
///
/// It stays on its CPU: it cannot be sent.
///
/// ```compile_fail,E0277
/// # use kmem::{KmapLocalGuard, platform::desk::Desk};
/// fn sent(_: impl Send) {}
/// fn try_it(guard: KmapLocalGuard<'_, Desk<'_>>) {
///     sent(guard);
/// }
/// ```
///
/// # Invariants
///
/// As of [`KmapGuard`], on this CPU.
pub struct KmapLocalGuard<'m, P: Platform, R: Reclaim = NoReclaim> {
    mm: &'m Mm<P, R>,
    address: VirtAddr,
    // A pointer is neither `Send` nor `Sync`.
    stays: PhantomData<*mut u8>,
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// [`Mm::kmap`] as a value that has the page's bytes and ends the mapping when it is dropped. They
    /// are what the page's last user left.
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::kmap`].
    ///
    /// # Safety
    ///
    /// The page is the caller's, is not freed, and nobody else reads or writes its bytes while the
    /// value lives.
    #[track_caller]
    pub unsafe fn kmap_bytes(&self, page: Page) -> Result<KmapGuard<'_, P, R>, KmapError> {
        Ok(KmapGuard { mm: self, page, address: self.kmap(page)? })
    }

    /// [`Mm::kmap_local_page`] as a value that has the page's bytes and ends the mapping when it is
    /// dropped.
    ///
    /// ```
    /// # use kmem::{Mm, Setup, MemoryMap, GFP_HIGHUSER, NodeId};
    /// # let mut ram = vec![0; 17 << 20];
    /// # // SAFETY: one thread.
    /// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
    /// # // SAFETY: the RAM is there, and nobody else uses it.
    /// # unsafe { mm.boot(&MemoryMap::new().ram(0..16 << 20, NodeId::ZERO), &Setup::new()) }?;
    /// let page = mm.alloc_page(GFP_HIGHUSER)?;
    /// // SAFETY: the page is ours.
    /// let mut bytes = unsafe { mm.kmap_local(page) }?;
    /// bytes[..5].copy_from_slice(b"hello");
    /// drop(bytes);
    /// // SAFETY: the page is ours, and nothing uses it.
    /// unsafe { mm.__free_page(page) };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::kmap_local_page`].
    ///
    /// # Safety
    ///
    /// As [`Mm::kmap_bytes`].
    #[inline]
    #[track_caller]
    pub unsafe fn kmap_local(&self, page: Page) -> Result<KmapLocalGuard<'_, P, R>, KmapError> {
        let address = self.kmap_local_page(page)?;
        Ok(KmapLocalGuard { mm: self, address, stays: PhantomData })
    }

    /// Lends the bytes of a page to `work`, mapped on this CPU for that time; `work` must not sleep
    /// where the page is of high memory.
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::kmap_local_page`].
    ///
    /// # Safety
    ///
    /// As [`Mm::kmap_bytes`], while `work` runs.
    #[inline]
    #[track_caller]
    pub unsafe fn with_page<T>(
        &self,
        page: Page,
        work: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T, KmapError> {
        // SAFETY: the caller's promise.
        let mut bytes = unsafe { self.kmap_local(page) }?;
        Ok(work(&mut bytes))
    }
}

impl<P: Platform, R: Reclaim> KmapGuard<'_, P, R> {
    /// The address of the first byte.
    pub fn address(&self) -> VirtAddr {
        self.address
    }

    /// The page.
    pub fn page(&self) -> Page {
        self.page
    }
}

impl<P: Platform, R: Reclaim> KmapLocalGuard<'_, P, R> {
    /// The address of the first byte.
    pub fn address(&self) -> VirtAddr {
        self.address
    }
}

impl<P: Platform, R: Reclaim> Deref for KmapGuard<'_, P, R> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: by the invariant a page is mapped there, whose bytes are this value's and have been
        // written, if only by their last user.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), 1 << P::PAGE_SHIFT) }
    }
}

impl<P: Platform, R: Reclaim> DerefMut for KmapGuard<'_, P, R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and this value is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr(), 1 << P::PAGE_SHIFT) }
    }
}

impl<P: Platform, R: Reclaim> Drop for KmapGuard<'_, P, R> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: by the invariant the mapping is this value's, and its bytes are not borrowed.
        unsafe { self.mm.kunmap(self.page) };
    }
}

impl<P: Platform, R: Reclaim> Deref for KmapLocalGuard<'_, P, R> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: by the invariant a page is mapped there, whose bytes are this value's and have been
        // written, if only by their last user.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), 1 << P::PAGE_SHIFT) }
    }
}

impl<P: Platform, R: Reclaim> DerefMut for KmapLocalGuard<'_, P, R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and this value is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr(), 1 << P::PAGE_SHIFT) }
    }
}

impl<P: Platform, R: Reclaim> Drop for KmapLocalGuard<'_, P, R> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: by the invariant the mapping is this value's, and its bytes are not borrowed.
        unsafe { self.mm.kunmap_local(self.address) };
    }
}
