//! Clearing and copying pages, wherever they are.

use super::super::Mm;
use crate::highmem::KmapError;
use crate::page::Page;
use crate::platform::Platform;
use crate::reclaim::Reclaim;

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Fills a page with zeros, of high memory or not.
    ///
    /// # Errors and context
    ///
    /// As [`Mm::kmap_local_page`].
    ///
    /// # Safety
    ///
    /// The page is the caller's, and nobody else uses its bytes meanwhile.
    #[track_caller]
    pub unsafe fn clear_highpage(&self, page: Page) -> Result<(), KmapError> {
        // SAFETY: the caller's promise.
        let mut bytes = unsafe { self.kmap_local(page) }?;
        bytes.fill(0);
        Ok(())
    }

    /// Copies the bytes of a page to another one, each of high memory or not.
    ///
    /// # Errors and context
    ///
    /// As [`Mm::kmap_local_page`]; nothing is copied then.
    ///
    /// # Safety
    ///
    /// The pages are two, and the caller's; nobody else uses their bytes meanwhile.
    #[track_caller]
    pub unsafe fn copy_highpage(&self, to: Page, from: Page) -> Result<(), KmapError> {
        // SAFETY: the caller's promise.
        let from = unsafe { self.kmap_local(from) }?;
        // SAFETY: as above. It is dropped before the other, since it was made after it.
        let mut to = unsafe { self.kmap_local(to) }?;
        to.copy_from_slice(&from);
        Ok(())
    }
}
