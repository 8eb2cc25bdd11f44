//! What a task allocates so that it goes with the task.

use core::panic::Location;
use core::ptr::{self, NonNull};

use super::KernelStack;
use crate::page::Page;
use crate::platform::{Misuse, MisuseKind, Passed, Platform, There};
use crate::reclaim::Reclaim;
use crate::{AllocError, GFP_KERNEL, Gfp, VirtAddr};

/// Something that a task has, and what it had before.
///
/// # Invariants
///
/// It lies in memory of kmalloc of its own. What it names was allocated and is not freed.
pub(super) struct Managed {
    next: *mut Managed,
    what: What,
}

/// What it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Object(NonNull<u8>),
    Area(NonNull<u8>),
    Pages(Page, u32),
}

/// Memory that goes with the task: what it has not given back when its stack is, is freed then, the latest
/// first. To be called by the task, or by whoever has its stack.
///
/// A task that is ended by force between two instructions leaves the list as it was before or after the
/// call.
impl<P: Platform, R: Reclaim> KernelStack<'_, P, R> {
    /// [`Mm::kmalloc`](crate::Mm::kmalloc) of memory that goes with the task.
    ///
    /// # Errors, context and cost
    ///
    /// As that, twice: what it has is written down in an object of its own.
    #[track_caller]
    pub fn kmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        let node = self.node(gfp)?;
        self.manage(node, self.mm().kmalloc(size, gfp), What::Object)
    }

    /// [`Mm::vmalloc`](crate::Mm::vmalloc) of memory that goes with the task.
    ///
    /// # Errors, context and cost
    ///
    /// As that, and as [`Mm::kmalloc`](crate::Mm::kmalloc).
    #[track_caller]
    pub fn vmalloc(&self, size: usize) -> Result<NonNull<u8>, AllocError> {
        let node = self.node(GFP_KERNEL)?;
        self.manage(node, self.mm().vmalloc(size), What::Area)
    }

    /// [`Mm::alloc_pages`](crate::Mm::alloc_pages) of a block that goes with the task.
    ///
    /// # Errors, context and cost
    ///
    /// As that, and as [`Mm::kmalloc`](crate::Mm::kmalloc).
    #[track_caller]
    pub fn alloc_pages(&self, gfp: Gfp, order: u32) -> Result<Page, AllocError> {
        // The zones are the block's, not those of what it is written down in.
        let own = gfp - (Gfp::DMA | Gfp::DMA32 | Gfp::HIGHMEM | Gfp::MOVABLE | Gfp::COMP);
        let node = self.node(own)?;
        self.manage(node, self.mm().alloc_pages(gfp, order), |page| What::Pages(page, order))
    }

    /// Frees memory of [`KernelStack::kmalloc`] or [`KernelStack::vmalloc`] before the task ends. What is
    /// none of this task's is reported as misuse, and nothing changes. Null is no memory.
    ///
    /// # Safety
    ///
    /// Nothing uses the memory any more.
    ///
    /// # Context
    ///
    /// As [`Mm::vfree`](crate::Mm::vfree). Cost: a look at all that the task has allocated since.
    #[track_caller]
    pub unsafe fn free(&self, memory: *const u8) {
        let Some(at) = NonNull::new(memory.cast_mut()) else { return };
        let is_it = |what: What| what == What::Object(at) || what == What::Area(at);
        // SAFETY: the caller's promise.
        unsafe { self.free_one(is_it, VirtAddr::from_ptr(memory), Location::caller()) };
    }

    /// The same of a block of [`KernelStack::alloc_pages`].
    ///
    /// # Safety
    ///
    /// As [`KernelStack::free`]; so are context and cost.
    #[track_caller]
    pub unsafe fn free_pages(&self, page: Page) {
        let is_it = |what: What| matches!(what, What::Pages(has, _) if has == page);
        let address = self.mm().page_address(page).unwrap_or(VirtAddr::new(0));
        // SAFETY: the caller's promise.
        unsafe { self.free_one(is_it, address, Location::caller()) };
    }

    /// How many pieces of memory go with the task now.
    pub fn managed(&self) -> usize {
        core::iter::successors(NonNull::new(self.managed.get()), |node| {
            // SAFETY: the invariant.
            NonNull::new(unsafe { node.as_ref() }.next)
        })
        .count()
    }

    /// Room to write something down. Before it is allocated, so that it never is in vain.
    #[track_caller]
    fn node(&self, gfp: Gfp) -> Result<NonNull<Managed>, AllocError> {
        self.mm().kmalloc(size_of::<Managed>(), gfp - Gfp::ZERO).map(NonNull::cast)
    }

    /// Writes down what was allocated, or frees the room for that.
    fn manage<T: Copy>(
        &self,
        node: NonNull<Managed>,
        allocated: Result<T, AllocError>,
        what: impl FnOnce(T) -> What,
    ) -> Result<T, AllocError> {
        let got = allocated.inspect_err(|_| {
            // SAFETY: just allocated.
            unsafe { self.mm().kfree(node.as_ptr().cast()) };
        })?;
        // SAFETY: just allocated, for such a one.
        unsafe { node.write(Managed { next: self.managed.get(), what: what(got) }) };
        // From here on, with one store, it goes with the task.
        self.managed.set(node.as_ptr());
        Ok(got)
    }

    /// # Safety
    ///
    /// Nothing uses what is picked any more.
    unsafe fn free_one(
        &self,
        is_it: impl Fn(What) -> bool,
        passed: VirtAddr,
        site: &'static Location<'static>,
    ) {
        let (mut before, mut at): (*mut Managed, _) = (ptr::null_mut(), self.managed.get());
        while !at.is_null() {
            // SAFETY: the invariant.
            let Managed { next, what } = unsafe { at.read() };
            if !is_it(what) {
                (before, at) = (at, next);
                continue;
            }
            // SAFETY: the invariant.
            match unsafe { before.as_mut() } {
                Some(before) => before.next = next,
                None => self.managed.set(next),
            }
            // SAFETY: the caller's promise; nothing leads there any more.
            unsafe { self.free_node(at) };
            return;
        }
        let (kind, passed) = (MisuseKind::NotManaged, Passed::Object(passed));
        self.mm().report(&Misuse { kind, passed, there: There::Nothing, site });
    }

    /// Frees all that is left.
    pub(super) fn free_managed(&self) {
        while let Some(node) = NonNull::new(self.managed.get()) {
            // SAFETY: the invariant.
            self.managed.set(unsafe { node.as_ref() }.next);
            // SAFETY: the task has ended; nothing leads there any more.
            unsafe { self.free_node(node.as_ptr()) };
        }
    }

    /// # Safety
    ///
    /// It is one of this value's, which is on no list any more, and nothing uses what it names.
    unsafe fn free_node(&self, node: *mut Managed) {
        // SAFETY: the caller's promise, and the invariant.
        unsafe {
            match (*node).what {
                What::Object(at) => self.mm().kfree(at.as_ptr()),
                What::Area(at) => self.mm().vfree(at.as_ptr()),
                What::Pages(page, order) => self.mm().__free_pages(page, order),
            }
            self.mm().kfree(node.cast());
        }
    }
}
