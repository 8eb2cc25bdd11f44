//! Pages of the kernel in a user's address space.
//!
//! A page that a user sees has a reference more and is counted as mapped, so that it is not free before the
//! user has let go of it, whatever the kernel does with its own.

use core::panic::Location;

use super::Mm;
use crate::page::{Page, PageFlags};
use crate::platform::{MisuseKind, PageMapError, Passed, Platform, UserMap};
use crate::reclaim::Reclaim;
use crate::vmalloc::AreaKind;
use crate::{AllocError, VirtAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Maps a page of the kernel at a user's address, to be read, and written where `writable` says so
    /// (A072, A312). The user has a reference of its own; [`Mm::vm_remove_pages`] takes it back.
    ///
    /// Any page in use will do: of `alloc_pages` and of `vmalloc`
    /// ([`Mm::vmalloc_to_page`]). A page inside a larger block that is not compound has no references of its
    /// own and is refused, and so is one of kmalloc's or a cache's: what lies beside an object is not the
    /// user's. So is a page that has as many references, or mappings, as can be counted.
    ///
    /// # Errors
    ///
    /// [`AllocError::NotAllocated`] for a page that may not be mapped, which is reported as misuse;
    /// [`AllocError::Atomic`], [`AllocError::Occupied`], [`AllocError::NoPageTables`] and
    /// [`AllocError::TooManyMappings`].
    ///
    /// # Context
    ///
    /// May sleep. Cost: the platform's page tables and two locked instructions.
    ///
    /// # Safety
    ///
    /// The page is the caller's. What it holds may be seen by the user, who gets zeros or what is meant for them; and, where it
    /// is writable, it changes at any time: nobody has a Rust reference to its bytes.
    #[track_caller]
    pub unsafe fn vm_insert_page(
        &self,
        user: &dyn UserMap,
        address: VirtAddr,
        page: Page,
        writable: bool,
    ) -> Result<(), AllocError> {
        let site = Location::caller();
        self.may_sleep_here(1 << P::PAGE_SHIFT, site)?;
        let head = self.compound_head(page);
        let there = self.holders(page, site).ok_or(AllocError::NotAllocated)?;
        let first = self.descriptor(head).ok_or(AllocError::NotAllocated)?;
        if first.has(PageFlags::Slab) || first.count() == 0 {
            let kind = if first.count() == 0 { MisuseKind::NoReference } else { MisuseKind::Slab };
            self.report_at(page.pfn(), kind, Passed::Page(page.pfn(), 0), site);
            return Err(AllocError::NotAllocated);
        }
        if !is_in(user, address, 1, P::PAGE_SHIFT) {
            return Err(PageMapError::Occupied.into());
        }
        // Before the user can reach it. A reference that is not counted would be dropped all the same.
        let is_referred_to = first.try_increment_count();
        if !is_referred_to || !there.add_mapping() {
            if is_referred_to {
                // SAFETY: the reference was just taken, and nothing is mapped.
                unsafe { self.put_page(page) };
            }
            let (kind, passed) = (MisuseKind::TooManyReferences, Passed::Page(page.pfn(), 0));
            self.report_at(page.pfn(), kind, passed, site);
            return Err(AllocError::NotAllocated);
        }
        there.set(PageFlags::User);
        // SAFETY: the reference keeps the page; the rest is the caller's promise.
        let mapped = unsafe { user.map(address, page.pfn(), writable) };
        mapped.map_err(|error| {
            self.let_go(page, site);
            error.into()
        })
    }

    /// Unmaps the pages in `count` of a user's addresses from one on, those that there are, and drops the
    /// user's references; answers how many there were. A page that nobody else refers to is free then.
    ///
    /// # Context
    ///
    /// May sleep: elsewhere it is reported as misuse and does nothing. Cost: the platform's unmapping, for
    /// each page.
    #[track_caller]
    pub fn vm_remove_pages(&self, user: &dyn UserMap, address: VirtAddr, count: usize) -> usize {
        let (bytes, site) = (count << P::PAGE_SHIFT, Location::caller());
        let may_sleep = self.may_sleep_here(bytes, site).is_ok();
        if !may_sleep || !is_in(user, address, count, P::PAGE_SHIFT) {
            return 0;
        }
        let addresses = (0..count).map(|index| address.get() + (index << P::PAGE_SHIFT));
        let removed = addresses.filter_map(|address| user.unmap(VirtAddr::new(address)));
        removed.map(|frame| self.let_go(Page::of(frame), site)).count()
    }

    /// Maps an area of `vmalloc` at a user's addresses, page by page: all of it, or nothing. Undone with
    /// [`Mm::vm_remove_pages`] of as many.
    ///
    /// # Errors
    ///
    /// [`AllocError::NotAllocated`] where no area in use begins at `memory` or it is no memory of
    /// `vmalloc`; otherwise as [`Mm::vm_insert_page`].
    ///
    /// # Safety
    ///
    /// As [`Mm::vm_insert_page`]; so is the context.
    #[track_caller]
    pub unsafe fn remap_vmalloc_range(
        &self,
        user: &dyn UserMap,
        address: VirtAddr,
        memory: *const u8,
        writable: bool,
    ) -> Result<usize, AllocError> {
        let starts_here = self.vm_area_from(VirtAddr::from_ptr(memory)).is_some_and(|area| {
            area.start == VirtAddr::from_ptr(memory)
                && area.kind == AreaKind::Vmalloc
                && !area.is_going
        });
        if !starts_here {
            return Err(AllocError::NotAllocated);
        }
        let pages = (0..).map_while(|index: usize| {
            self.vmalloc_to_page(memory.wrapping_add(index << P::PAGE_SHIFT))
        });
        let mut done = 0;
        for page in pages {
            let at = VirtAddr::new(address.get() + (done << P::PAGE_SHIFT));
            // SAFETY: the caller's promise is the same.
            if let Err(error) = unsafe { self.vm_insert_page(user, at, page, writable) } {
                self.vm_remove_pages(user, address, done);
                return Err(error);
            }
            done += 1;
        }
        if done == 0 { Err(AllocError::NotAllocated) } else { Ok(done) }
    }

    /// Drops what a user's mapping of a page held.
    fn let_go(&self, page: Page, site: &'static Location<'static>) {
        let counted = self.descriptor(page).is_some_and(|there| there.drop_mapping());
        if !counted {
            // Its holder has said meanwhile that it is mapped nowhere.
            let passed = Passed::Page(page.pfn(), 0);
            self.report_at(page.pfn(), MisuseKind::NotMapped, passed, site);
        }
        // SAFETY: the reference is the mapping's, which is gone.
        unsafe { self.put_page(page) };
    }
}

/// Whether so many pages from an address on are a user's.
fn is_in(user: &dyn UserMap, address: VirtAddr, count: usize, page_shift: u32) -> bool {
    let range = user.range();
    let room = range.end.get().checked_sub(address.get());
    address >= range.start
        && address.get().is_multiple_of(1 << page_shift)
        && room.is_some_and(|room| room >> page_shift >= count)
}
