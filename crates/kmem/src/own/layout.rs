//! kmalloc with Rust's layouts: sizes with alignments.

use core::alloc::Layout;
use core::ptr::NonNull;

use super::Handle;
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{AllocError, Gfp, Mm, Order, get_order};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Allocates memory of a size and alignment. Given back with [`Mm::kfree`].
    ///
    /// The size is rounded up to the alignment, and from there to the first of kmalloc's sizes that is
    /// a multiple of it; above the largest, pages lie at multiples of their whole block. Powers of two,
    /// and sizes that are multiples of the alignment, cost no more than [`Mm::kmalloc`] where the
    /// machine's [sizes](crate::Setup::kmalloc_sizes) have them.
    ///
    /// # Errors
    ///
    /// As [`Mm::kmalloc`]; [`AllocError::NoMemory`] for an alignment that the direct map's own base
    /// does not have.
    ///
    /// # Context and cost
    ///
    /// As [`Mm::kmalloc`]. On a machine with odd sizes, two such calls and a free.
    ///
    /// ```
    /// # use kmem::{Mm, Setup, MemoryMap, GFP_KERNEL, NodeId};
    /// # let mut ram = vec![0; 9 << 20];
    /// # // SAFETY: one thread.
    /// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
    /// # // SAFETY: the RAM is there, and nobody else uses it.
    /// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
    /// let layout = std::alloc::Layout::from_size_align(24, 256)?;
    /// let memory = mm.kmalloc_layout(layout, GFP_KERNEL)?;
    /// assert_eq!(memory.addr().get() % 256, 0);
    /// // SAFETY: it is ours, and nothing uses it any more.
    /// unsafe { mm.kfree(memory.as_ptr()) };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[track_caller]
    pub fn kmalloc_layout(&self, layout: Layout, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.kmalloc_aligned(layout.size(), layout.align(), gfp)
    }

    /// [`Mm::kmalloc_layout`] for a size that need not be one that Rust has.
    #[inline]
    #[track_caller]
    pub(super) fn kmalloc_aligned(
        &self,
        size: usize,
        align: usize,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        let size = if size == 0 { 0 } else { size.max(align) };
        let memory = self.kmalloc(size, gfp)?;
        if memory.addr().get().is_multiple_of(align) {
            return Ok(memory);
        }
        // SAFETY: just allocated.
        unsafe { self.kfree(memory.as_ptr()) };
        self.kmalloc_of_multiple(size, align, gfp)
    }

    /// Memory of the first of kmalloc's sizes that is a multiple of the alignment: at such a size's
    /// own power of two its objects lie.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn kmalloc_of_multiple(
        &self,
        size: usize,
        align: usize,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        let mut size = size.next_multiple_of(align);
        loop {
            let class = self.kmalloc_size_roundup(size);
            if class.is_multiple_of(align) {
                break;
            }
            size = (class + 1).next_multiple_of(align);
        }
        let memory = self.kmalloc(size, gfp)?;
        if memory.addr().get().is_multiple_of(align) {
            return Ok(memory);
        }
        // Physical memory is aligned, and the direct map moves it by less than that.
        // SAFETY: just allocated.
        unsafe { self.kfree(memory.as_ptr()) };
        let order = Order::new(get_order(align, P::PAGE_SHIFT)).unwrap_or(Order::LIMIT);
        Err(AllocError::NoMemory { order, gfp })
    }

    /// Makes memory larger or smaller that keeps its alignment, and its first `used` bytes: in place
    /// where its size class allows, or where there is no smaller memory. [`Mm::krealloc`] keeps no
    /// alignment.
    ///
    /// # Errors
    ///
    /// As [`Mm::kmalloc_layout`]; the memory then is as it was. To make it smaller never fails.
    ///
    /// # Safety
    ///
    /// The memory was allocated with this alignment by kmalloc or a sister and is the caller's; it has
    /// `used` bytes, and so has `size`. Where the call succeeds, nothing uses it by its old address.
    #[track_caller]
    pub(super) unsafe fn krealloc_aligned(
        &self,
        memory: NonNull<u8>,
        used: usize,
        size: usize,
        align: usize,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        // All of what ksize says may be used. It stays unless half or more of it would lie idle.
        let held = self.ksize(memory.as_ptr());
        if size <= held && size > held / 2 {
            return Ok(memory);
        }
        let new = if size <= held {
            let Ok(new) = self.kmalloc_aligned(size, align, gfp | Gfp::NOWARN) else {
                return Ok(memory);
            };
            new
        } else {
            self.kmalloc_aligned(size, align, gfp)?
        };
        // SAFETY: both have so many bytes, and they are two.
        unsafe { new.copy_from_nonoverlapping(memory, used) };
        // SAFETY: the caller's promise.
        unsafe { self.kfree(memory.as_ptr()) };
        Ok(new)
    }
}

/// Memory for so many values: uninitialised, and dangling where they take none.
#[inline]
#[track_caller]
pub(super) fn allocate<T, H: Handle>(
    handle: &H,
    count: usize,
    gfp: Gfp,
) -> Result<NonNull<T>, AllocError> {
    // What does not fit `usize` is more than there is.
    let bytes = count.saturating_mul(size_of::<T>());
    if bytes == 0 {
        return Ok(NonNull::dangling());
    }
    Ok(handle.mm().kmalloc_aligned(bytes, align_of::<T>(), gfp)?.cast())
}

/// Gives back what [`allocate`] returned for values of so many bytes together.
///
/// # Safety
///
/// As [`Mm::kfree`]; `bytes` is 0 exactly where nothing was allocated.
#[inline]
#[track_caller]
pub(super) unsafe fn free<T, H: Handle>(handle: &H, memory: NonNull<T>, bytes: usize) {
    if bytes > 0 {
        // SAFETY: the caller's promise.
        unsafe { handle.mm().kfree(memory.as_ptr().cast()) };
    }
}
