//! The page allocator as a frame allocator of the `x86_64` crate.

use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PhysFrame, Size4KiB};

use super::Mm;
use crate::page::Page;
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{Gfp, Order, Pfn};

/// Gives frames of 4 KiB to the mappers of the `x86_64` crate: for page tables.
///
/// ```ignore
/// let mut frames = Frames::new(&MM, GFP_KERNEL);
/// // SAFETY: ...
/// unsafe { mapper.map_to(page, frame, flags, &mut frames) }?.flush();
/// ```
pub struct Frames<'m, P, R> {
    mm: &'m Mm<P, R>,
    gfp: Gfp,
}

impl<'m, P: Platform, R: Reclaim> Frames<'m, P, R> {
    /// Frames allocated with these flags.
    pub fn new(mm: &'m Mm<P, R>, gfp: Gfp) -> Self {
        const { assert!(P::PAGE_SHIFT == 12, "the adaptor is for pages of 4 KiB") };
        Frames { mm, gfp }
    }
}

// SAFETY: the page allocator hands a frame out to one holder at a time.
unsafe impl<P: Platform, R: Reclaim> FrameAllocator<Size4KiB> for Frames<'_, P, R> {
    fn allocate_frame(&mut self) -> Option<PhysFrame<Size4KiB>> {
        let page = self.mm.alloc_pages(self.gfp, Order::ZERO.get()).ok()?;
        let start = x86_64::PhysAddr::new(self.mm.page_to_phys(page).get());
        Some(PhysFrame::containing_address(start))
    }
}

impl<P: Platform, R: Reclaim> FrameDeallocator<Size4KiB> for Frames<'_, P, R> {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame<Size4KiB>) {
        // A frame beyond all numbers is none of ours; the free reports what is wrong with others.
        if let Some(pfn) = Pfn::new(frame.start_address().as_u64() >> P::PAGE_SHIFT) {
            // SAFETY: the caller's promise is the same.
            unsafe { self.mm.__free_pages(Page::of(pfn), 0) };
        }
    }
}
