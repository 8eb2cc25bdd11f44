//! The bytes of pages that the shell owns.

use kmem::{Mm, Page, Platform, Reclaim};

/// Lends the bytes of one page to `work`, mapping it for that time where the direct map does not
/// reach it.
///
/// The bytes are what the last holder of the page left there, or zeroes.
///
/// # Safety
///
/// The page is allocated, the caller owns it, and nothing else reads or writes it meanwhile.
pub(crate) unsafe fn with_page<P: Platform, R: Reclaim, T>(
    mm: &Mm<P, R>,
    page: Page,
    work: impl FnOnce(&mut [u8]) -> T,
) -> Option<T> {
    // SAFETY: the caller's promise.
    unsafe { mm.with_page(page, work) }.ok()
}
