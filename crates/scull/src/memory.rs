//! Where the drivers' own small structures come from: list items, quantum sets, the device table.
//!
//! The texts take them from kmalloc. Until kmem has it they are whole pages. This file is the only
//! one that knows.

use core::mem::size_of;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use kmem::{AllocError, GFP_KERNEL, Mm, Platform, Reclaim, VirtAddr, get_order};

/// Owns a row of values in memory of the manager.
///
/// Does not know its manager, so that a list of them costs two words each: whoever made it gives it
/// back with [`Small::free`]. Dropping one leaks it.
///
/// # Invariants
///
/// `values` points to initialised values in a block of `order_of(size in bytes)` that nothing else
/// uses.
pub(crate) struct Small<T> {
    values: NonNull<[T]>,
}

// SAFETY: a `Small` owns its values as a `Box` does.
unsafe impl<T: Send> Send for Small<T> {}
// SAFETY: a shared `Small` gives out shared values only.
unsafe impl<T: Sync> Sync for Small<T> {}

impl<T> Small<T> {
    /// Allocates `count` values, of which number i is `make(i)`. May sleep.
    pub(crate) fn new<P: Platform, R: Reclaim>(
        mm: &Mm<P, R>,
        count: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Result<Self, AllocError> {
        const { assert!(align_of::<T>() <= 4096) };
        let bytes = count.checked_mul(size_of::<T>()).ok_or(AllocError::ZeroSize)?;
        let address = mm.__get_free_pages(GFP_KERNEL, order_of::<P>(bytes))?;
        let first: *mut T = address.as_ptr();
        for index in 0..count {
            // SAFETY: the block has room for `count` values and starts at a page, so that it is
            // aligned for them; nothing else uses it.
            unsafe { first.add(index).write(make(index)) };
        }
        let values = NonNull::slice_from_raw_parts(
            // SAFETY: a block of memory does not start at address 0.
            unsafe { NonNull::new_unchecked(first) },
            count,
        );
        Ok(Small { values })
    }

    /// Drops the values and gives their memory back.
    ///
    /// # Safety
    ///
    /// `mm` is the manager that it was made with.
    pub(crate) unsafe fn free<P: Platform, R: Reclaim>(self, mm: &Mm<P, R>) {
        let bytes = self.len() * size_of::<T>();
        let address = VirtAddr::from_ptr(self.values.as_ptr().cast::<T>());
        // SAFETY: by the invariant the values are initialised and ours, and the block is of this
        // order; the caller vouches for the manager.
        unsafe {
            self.values.drop_in_place();
            mm.free_pages(address, order_of::<P>(bytes));
        }
    }

    /// Where the values are, for reports.
    pub(crate) fn address(&self) -> usize {
        self.values.cast::<T>().addr().get()
    }
}

impl<T> Deref for Small<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: by the invariant the values are initialised and ours.
        unsafe { self.values.as_ref() }
    }
}

impl<T> DerefMut for Small<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: by the invariant the values are initialised and ours.
        unsafe { self.values.as_mut() }
    }
}

/// The order of the block that holds `bytes`.
fn order_of<P: Platform>(bytes: usize) -> u32 {
    get_order(bytes, P::PAGE_SHIFT)
}
