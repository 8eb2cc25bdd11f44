//! The bytes of pages that the shell owns.

use core::slice;

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
    let bytes = 1usize << P::PAGE_SHIFT;
    if let Some(address) = mm.page_address(page) {
        // SAFETY: the page has this many bytes, it is RAM, and the caller owns it.
        return Some(work(unsafe { slice::from_raw_parts_mut(address.as_ptr(), bytes) }));
    }
    // A machine with RAM beyond its direct map has temporary mappings, or it is refused at boot.
    let maps = mm.platform().temporary_map()?;
    let address = maps.map(page.pfn());
    // SAFETY: until it is unmapped the address is the page, which the caller owns.
    let result = work(unsafe { slice::from_raw_parts_mut(address.as_ptr(), bytes) });
    // SAFETY: it is the latest mapping of this code, and the slice is gone.
    unsafe { maps.unmap(address) };
    Some(result)
}
