//! Mapping pages that somebody has already.

use core::panic::Location;
use core::ptr::NonNull;

use super::super::Mm;
use crate::page::Page;
use crate::platform::{Caching, Platform};
use crate::reclaim::Reclaim;
use crate::vmalloc::{AreaKind, Mapping, Run};
use crate::{AllocError, GFP_KERNEL, VirtAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Maps pages one behind the other, whatever frames they are, and answers the first address. Undone
    /// with [`Mm::vunmap`].
    ///
    /// The pages stay the caller's, who frees them after that. One page may be mapped more than once.
    ///
    /// # Errors
    ///
    /// [`AllocError::ZeroSize`] without pages; [`AllocError::NotAllocated`] where one of them is no page
    /// of RAM; otherwise as [`Mm::vmalloc`].
    ///
    /// # Context and cost
    ///
    /// As [`Mm::vmalloc`], without the pages.
    #[track_caller]
    pub fn vmap(&self, pages: &[Page]) -> Result<NonNull<u8>, AllocError> {
        self.map_pages(pages, AreaKind::Vmap, Location::caller())
    }

    /// Unmaps what [`Mm::vmap`] mapped. When it returns no CPU reaches the pages by these addresses. Null
    /// is nothing.
    ///
    /// Wrong calls are found as by [`Mm::vfree`].
    ///
    /// # Safety
    ///
    /// Nothing uses the addresses any more.
    ///
    /// # Context
    ///
    /// May sleep: elsewhere it is reported as misuse, and the pages stay mapped. Cost: the platform's
    /// unmapping, and a flush.
    #[track_caller]
    pub unsafe fn vunmap(&self, address: *const u8) {
        if !address.is_null() {
            let is_wanted = |mapping: &Mapping| mapping.kind == AreaKind::Vmap;
            self.unmap_pages(address, is_wanted, Location::caller());
        }
    }

    /// [`Mm::vmap`] for a short time: for pages that are mapped, used and unmapped at once. Undone with
    /// [`Mm::vm_unmap_ram`].
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::vmap`].
    #[track_caller]
    pub fn vm_map_ram(&self, pages: &[Page]) -> Result<NonNull<u8>, AllocError> {
        self.map_pages(pages, AreaKind::VmMapRam, Location::caller())
    }

    /// Unmaps what [`Mm::vm_map_ram`] mapped, which is so many pages. Another number is reported as
    /// misuse, as other wrong calls are; then nothing changes.
    ///
    /// # Safety
    ///
    /// As [`Mm::vunmap`]; so are context and cost.
    #[track_caller]
    pub unsafe fn vm_unmap_ram(&self, address: *const u8, count: usize) {
        let is_wanted =
            |mapping: &Mapping| mapping.kind == AreaKind::VmMapRam && mapping.pages == count;
        self.unmap_pages(address, is_wanted, Location::caller());
    }

    fn map_pages(
        &self,
        pages: &[Page],
        kind: AreaKind,
        caller: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        let map = self.mapper(pages.len() << P::PAGE_SHIFT, caller)?;
        if pages.iter().any(|page| self.page_zone(*page).is_none()) {
            return Err(AllocError::NotAllocated);
        }
        let runs = || runs(pages);
        let runs = self.collect(runs(), runs().count(), GFP_KERNEL)?;
        let mapping =
            Mapping { kind, is_going: false, next_going: None, pages: pages.len(), runs, caller };
        self.place(map, mapping, Caching::Cached, GFP_KERNEL)
    }

    fn unmap_pages(
        &self,
        address: *const u8,
        is_wanted: impl Fn(&Mapping) -> bool,
        site: &'static Location<'static>,
    ) {
        if let Some(mapping) = self.take_apart(VirtAddr::from_ptr(address).get(), is_wanted, site) {
            self.free_runs(mapping.runs);
        }
    }
}

/// Pages as runs of frames that lie side by side.
fn runs(pages: &[Page]) -> impl Iterator<Item = Run> {
    let follows = |index: usize| {
        index
            .checked_sub(1)
            .is_some_and(|before| pages[before].pfn().checked_add(1) == Some(pages[index].pfn()))
    };
    let starts = (0..pages.len()).filter(move |index| !follows(*index));
    starts.map(|index| Run { first: pages[index].pfn(), at: index as u32 })
}
