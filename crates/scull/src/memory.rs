//! Where the drivers' own small structures come from: list items, quantum sets, the device table.
//!
//! kmalloc, as in the texts. This file is the only one that knows.

use core::mem::size_of;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use kmem::{AllocError, GFP_KERNEL, Mm, Platform, Reclaim};

/// Owns a row of values in memory of the manager.
///
/// Does not know its manager, so that a list of them costs two words each: whoever made it gives it
/// back with [`Small::free`]. Dropping one leaks it.
///
/// # Invariants
///
/// `values` points to initialised values in memory of kmalloc's that nothing else uses.
pub(crate) struct Small<T> {
    values: NonNull<[T]>,
}

// SAFETY: a `Small` owns its values as a `Box` does.
unsafe impl<T: Send> Send for Small<T> {}
// SAFETY: a shared `Small` gives out shared values only.
unsafe impl<T: Sync> Sync for Small<T> {}

impl<T> Small<T> {
    /// The bytes that `count` values are.
    pub(crate) const fn bytes_of(count: usize) -> usize {
        count.saturating_mul(size_of::<T>())
    }

    /// Allocates `count` values, of which number i is `make(i)`. May sleep.
    pub(crate) fn new<P: Platform, R: Reclaim>(
        mm: &Mm<P, R>,
        count: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Result<Self, AllocError> {
        const { assert!(align_of::<T>() <= 8, "kmalloc aligns anything to 8 bytes at least") };
        let first: NonNull<T> = mm.kmalloc(Self::bytes_of(count), GFP_KERNEL)?.cast();
        for index in 0..count {
            // SAFETY: the memory has room for `count` values and is aligned for them; nothing else
            // uses it.
            unsafe { first.add(index).write(make(index)) };
        }
        Ok(Small { values: NonNull::slice_from_raw_parts(first, count) })
    }

    /// Drops the values and gives their memory back.
    ///
    /// # Safety
    ///
    /// `mm` is the manager that it was made with.
    pub(crate) unsafe fn free<P: Platform, R: Reclaim>(self, mm: &Mm<P, R>) {
        // SAFETY: by the invariant the values are initialised and ours, and their memory is
        // kmalloc's; the caller vouches for the manager.
        unsafe {
            self.values.drop_in_place();
            mm.kfree(self.values.as_ptr().cast::<u8>());
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
