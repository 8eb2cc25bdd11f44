//! Values side by side in memory that grows.

mod iter;
mod traits;

use core::mem::{ManuallyDrop, MaybeUninit};
use core::ops::{Bound, RangeBounds};
use core::ptr::NonNull;

use super::layout::free;
use super::{Handle, InsertError, KBox, PushError};
use crate::{AllocError, Gfp};

pub use iter::{Drain, IntoIter};

/// A list of values side by side in memory from kmalloc.
///
/// It is `Vec` for a kernel: each call that may grow it takes [`Gfp`] flags and can fail, and then
/// leaves it as it was. What could not be put in comes back with the error. A place that there is not
/// is no panic either, but `None` or an error; what is a slice's own, such as `list[5]`, is as in Rust.
///
/// It grows to twice its capacity, and to all of the size class that this falls into, so that kmalloc's
/// rounding up is not lost. Where there is no memory for twice as much it takes what is needed.
///
/// # Context
///
/// Calls with flags: as [`Mm::kmalloc`](crate::Mm::kmalloc). The others, dropping included: any, as far
/// as `T` allows.
///
/// ```
/// # use kmem::{Mm, Setup, MemoryMap, NodeId};
/// # let mut ram = vec![0; 9 << 20];
/// # // SAFETY: one thread.
/// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
/// # // SAFETY: the RAM is there, and nobody else uses it.
/// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
/// use kmem::{GFP_ATOMIC, GFP_KERNEL, KVec};
///
/// let mut list = KVec::with_capacity_in(10, GFP_KERNEL, &mm)?;
/// list.push("dog", GFP_ATOMIC)?;
/// list.extend_from_slice(&["cat", "mouse"], GFP_KERNEL)?;
/// list.insert(1, "cow", GFP_KERNEL)?;
/// assert_eq!(list, ["dog", "cow", "cat", "mouse"]);
/// assert_eq!(list.remove(0), Some("dog"));
/// assert_eq!(list.remove(9), None);
///
/// // Far more than there is: the list and the value are as they were.
/// assert!(list.try_reserve(1 << 40, GFP_KERNEL).is_err());
/// assert_eq!(list.len(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
///
/// `pointer` is aligned. Where a `T` has bytes and `capacity` is not 0, it points to memory that kmalloc
/// of the handle's manager handed out, with room for `capacity` of them, and that is this list's. The
/// first `len` are values; `len` is at most the capacity.
pub struct KVec<T, H: Handle> {
    pointer: NonNull<T>,
    /// In values. Not looked at where they have no bytes.
    capacity: usize,
    len: usize,
    handle: H,
}

// SAFETY: it owns the values; the manager is used by all CPUs.
unsafe impl<T: Send, H: Handle + Send> Send for KVec<T, H> {}
// SAFETY: as above.
unsafe impl<T: Sync, H: Handle + Sync> Sync for KVec<T, H> {}

impl<T, H: Handle> KVec<T, H> {
    /// An empty list, which has no memory.
    pub const fn new_in(handle: H) -> Self {
        KVec { pointer: NonNull::dangling(), capacity: 0, len: 0, handle }
    }

    /// An empty list with room for so many values.
    ///
    /// # Errors
    ///
    /// As [`Mm::kmalloc_layout`](crate::Mm::kmalloc_layout); more bytes than fit `usize` are more than
    /// there are.
    #[track_caller]
    pub fn with_capacity_in(capacity: usize, gfp: Gfp, handle: H) -> Result<Self, AllocError> {
        let mut list = Self::new_in(handle);
        list.try_reserve_exact(capacity, gfp)?;
        Ok(list)
    }

    /// [`KVec::new_in`] of the kernel's only manager.
    pub fn new() -> Self
    where
        H: Default,
    {
        Self::new_in(H::default())
    }

    /// [`KVec::with_capacity_in`] of the kernel's only manager.
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn with_capacity(capacity: usize, gfp: Gfp) -> Result<Self, AllocError>
    where
        H: Default,
    {
        Self::with_capacity_in(capacity, gfp, H::default())
    }

    /// The manager that the memory is from.
    pub fn handle(&self) -> H {
        self.handle
    }

    /// For how many values there is room, those that there are included.
    pub fn capacity(&self) -> usize {
        if size_of::<T>() == 0 { usize::MAX } else { self.capacity }
    }

    /// The values.
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: by the invariant so many are values.
        unsafe { core::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }

    /// The values, to be changed.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`, and the list is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }

    /// The room behind the values. What is written there becomes part of the list with
    /// [`KVec::set_len`].
    pub fn spare_capacity_mut(&mut self) -> &mut [MaybeUninit<T>] {
        let spare = self.capacity() - self.len;
        // SAFETY: by the invariant there is so much room, which need not be initialised.
        unsafe { core::slice::from_raw_parts_mut(self.place(self.len).cast().as_ptr(), spare) }
    }

    /// Says how many values there are.
    ///
    /// # Safety
    ///
    /// `len` is at most the capacity, and the first `len` have been written.
    pub unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.capacity());
        self.len = len;
    }

    /// Makes room for so many values more, and a reserve.
    ///
    /// # Errors
    ///
    /// As [`KVec::with_capacity_in`]; the list is as it was.
    #[inline]
    #[track_caller]
    pub fn try_reserve(&mut self, additional: usize, gfp: Gfp) -> Result<(), AllocError> {
        if additional <= self.capacity() - self.len {
            return Ok(());
        }
        let needed = self.len.saturating_add(additional);
        let twice = self.capacity.saturating_mul(2);
        // Nobody need hear that there was not memory for twice as much.
        if twice > needed && self.resize_memory(twice, gfp | Gfp::NOWARN).is_ok() {
            return Ok(());
        }
        self.resize_memory(needed, gfp)
    }

    /// Makes room for so many values more, and no reserve but what kmalloc rounds up to.
    ///
    /// # Errors
    ///
    /// As [`KVec::with_capacity_in`]; the list is as it was.
    #[track_caller]
    pub fn try_reserve_exact(&mut self, additional: usize, gfp: Gfp) -> Result<(), AllocError> {
        if additional <= self.capacity() - self.len {
            return Ok(());
        }
        self.resize_memory(self.len.saturating_add(additional), gfp)
    }

    /// Gives back the room that is not used, as far as kmalloc's sizes allow, and as there is smaller
    /// memory for the values to move to.
    #[track_caller]
    pub fn shrink_to_fit(&mut self, gfp: Gfp) {
        if self.len == 0 {
            // This gives the memory back.
            *self = Self::new_in(self.handle);
        } else if size_of::<T>() > 0 && self.len < self.capacity {
            // It stays where it cannot move, so there is no error.
            let _ = self.resize_memory(self.len, gfp);
        }
    }

    /// Makes the memory one with room for `capacity` values, which is at least `len` and not 0.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn resize_memory(&mut self, capacity: usize, gfp: Gfp) -> Result<(), AllocError> {
        let mm = self.handle.mm();
        let (size, align) = (size_of::<T>(), align_of::<T>());
        if size == 0 {
            // There are no more than `usize` counts.
            return mm.kmalloc(usize::MAX, gfp).map(|_| ());
        }
        let asked = capacity.saturating_mul(size);
        // All of the size class is used. A size that there is not is refused below.
        let bytes = mm.kmalloc_size_roundup(asked).max(asked);
        let memory = if self.capacity == 0 {
            mm.kmalloc_aligned(bytes, align, gfp)?
        } else {
            let used = self.len * size;
            // SAFETY: by the invariant the memory is this list's, with that much in use; the new
            // memory has room for `len`.
            unsafe { mm.krealloc_aligned(self.pointer.cast(), used, bytes, align, gfp)? }
        };
        self.pointer = memory.cast();
        self.capacity = bytes / size;
        Ok(())
    }

    /// Puts a value at the end.
    ///
    /// # Errors
    ///
    /// As [`KVec::with_capacity_in`]; the error has the value, and the list is as it was.
    #[inline]
    #[track_caller]
    pub fn push(&mut self, value: T, gfp: Gfp) -> Result<(), PushError<T>> {
        if let Err(error) = self.try_reserve(1, gfp) {
            return Err(PushError { value, error });
        }
        // SAFETY: there is room.
        unsafe { self.push_unchecked(value) };
        Ok(())
    }

    /// Puts a value at the end, where there is room without more memory. Any context.
    ///
    /// # Errors
    ///
    /// The value, where there is none.
    #[inline]
    pub fn push_within_capacity(&mut self, value: T) -> Result<(), T> {
        if self.len == self.capacity() {
            return Err(value);
        }
        // SAFETY: there is room.
        unsafe { self.push_unchecked(value) };
        Ok(())
    }

    /// # Safety
    ///
    /// There is room.
    #[inline]
    unsafe fn push_unchecked(&mut self, value: T) {
        // SAFETY: the caller's promise.
        unsafe { self.place(self.len).write(value) };
        self.len += 1;
    }

    /// Takes the last value.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: it was the last value, and is none of the list's any more.
        Some(unsafe { self.place(self.len).read() })
    }

    /// Puts a value before the one at `index`, or at the end where that is the length. The values from
    /// there on move.
    ///
    /// # Errors
    ///
    /// As [`KVec::push`]; [`InsertError::OutOfBounds`] for an index beyond the end.
    #[track_caller]
    pub fn insert(&mut self, index: usize, value: T, gfp: Gfp) -> Result<(), InsertError<T>> {
        let len = self.len;
        if index > len {
            return Err(InsertError::OutOfBounds { value, index, len });
        }
        if let Err(error) = self.try_reserve(1, gfp) {
            return Err(InsertError::Push(PushError { value, error }));
        }
        let place = self.place(index);
        // SAFETY: the values from `index` on have room for one more behind them, and move there.
        unsafe { place.copy_to(place.add(1), len - index) };
        // SAFETY: what was there has moved.
        unsafe { place.write(value) };
        self.len = len + 1;
        Ok(())
    }

    /// Takes the value at `index`, where there is one. The values behind it move.
    pub fn remove(&mut self, index: usize) -> Option<T> {
        let behind = self.len.checked_sub(index)?.checked_sub(1)?;
        let place = self.place(index);
        // SAFETY: it is a value, which the next line overwrites or the shorter list leaves out.
        let value = unsafe { place.read() };
        // SAFETY: so many values lie behind it.
        unsafe { place.add(1).copy_to(place, behind) };
        self.len -= 1;
        Some(value)
    }

    /// Takes the value at `index`, where there is one. The last value takes its place.
    pub fn swap_remove(&mut self, index: usize) -> Option<T> {
        if index >= self.len {
            return None;
        }
        let last = self.len - 1;
        self.as_mut_slice().swap(index, last);
        self.pop()
    }

    /// Drops the values from `len` on. Their memory stays.
    pub fn truncate(&mut self, len: usize) {
        let Some(gone) = self.len.checked_sub(len) else { return };
        self.len = len;
        let gone = NonNull::slice_from_raw_parts(self.place(len), gone);
        // SAFETY: they were values, and are none of the list's any more.
        unsafe { gone.drop_in_place() };
    }

    /// Drops all values. Their memory stays.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Puts copies of values at the end. The flags are for the memory of the list alone.
    ///
    /// # Errors
    ///
    /// As [`KVec::with_capacity_in`]; the list is as it was.
    #[track_caller]
    pub fn extend_from_slice(&mut self, values: &[T], gfp: Gfp) -> Result<(), AllocError>
    where
        T: Clone,
    {
        self.try_reserve(values.len(), gfp)?;
        for value in values {
            // SAFETY: there is room for all of them.
            unsafe { self.push_unchecked(value.clone()) };
        }
        Ok(())
    }

    /// Puts all values of an iterator at the end.
    ///
    /// # Errors
    ///
    /// As [`KVec::with_capacity_in`]; the list is as it was, and what the iterator had given is dropped.
    #[track_caller]
    pub fn try_extend(
        &mut self,
        values: impl IntoIterator<Item = T>,
        gfp: Gfp,
    ) -> Result<(), AllocError> {
        let before = self.len;
        let mut values = values.into_iter();
        while let Some(value) = values.next() {
            if self.len == self.capacity() {
                let more = values.size_hint().0.saturating_add(1);
                if let Err(error) = self.try_reserve(more, gfp) {
                    self.truncate(before);
                    return Err(error);
                }
            }
            // SAFETY: there is room.
            unsafe { self.push_unchecked(value) };
        }
        Ok(())
    }

    /// Makes the list `len` values long: drops those behind, or puts copies of `value` at the end.
    ///
    /// # Errors
    ///
    /// As [`KVec::with_capacity_in`]; the list is as it was.
    #[track_caller]
    pub fn resize(&mut self, len: usize, value: T, gfp: Gfp) -> Result<(), AllocError>
    where
        T: Clone,
    {
        let more = len.saturating_sub(self.len);
        self.truncate(len);
        self.try_reserve(more, gfp)?;
        for _ in 0..more {
            // SAFETY: there is room for all of them.
            unsafe { self.push_unchecked(value.clone()) };
        }
        Ok(())
    }

    /// Keeps the values that `keep` is true for, in order, and drops the others.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        let len = self.len;
        // Should `keep` panic, what is left is forgotten and not dropped twice.
        self.len = 0;
        let mut kept = 0;
        for index in 0..len {
            let mut place = self.place(index);
            // SAFETY: it is a value, which nobody has moved yet.
            if keep(unsafe { place.as_mut() }) {
                // SAFETY: the place of a value that went, or its own.
                unsafe { place.copy_to(self.place(kept), 1) };
                kept += 1;
            } else {
                // SAFETY: it is a value, and none of the list's any more.
                unsafe { place.drop_in_place() };
            }
        }
        self.len = kept;
    }

    /// Takes the values of a range out of the list: those that the iterator has not given when it is
    /// dropped are dropped. `None` where there is no such range.
    ///
    /// An iterator that is forgotten takes the values behind the range with it.
    pub fn drain(&mut self, range: impl RangeBounds<usize>) -> Option<Drain<'_, T, H>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.checked_add(1)?,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.checked_add(1)?,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => self.len,
        };
        (start <= end && end <= self.len).then(|| Drain::new(self, start..end))
    }

    /// The values as a box. No memory is allocated or freed, but for an empty list's.
    pub fn into_boxed_slice(self) -> KBox<[T], H> {
        let mut this = ManuallyDrop::new(self);
        if this.len == 0 {
            // The box of no values has no memory.
            this.free_memory();
            this.pointer = NonNull::dangling();
        }
        let values = NonNull::slice_from_raw_parts(this.pointer, this.len);
        // SAFETY: the values and their memory were this list's, which is no more.
        unsafe { KBox::from_raw(values, this.handle) }
    }

    /// A list of copies, with memory of its own.
    ///
    /// # Errors
    ///
    /// As [`KVec::with_capacity_in`].
    #[track_caller]
    pub fn try_clone(&self, gfp: Gfp) -> Result<Self, AllocError>
    where
        T: Clone,
    {
        let mut copy = Self::with_capacity_in(self.len, gfp, self.handle)?;
        copy.extend_from_slice(self, gfp)?;
        Ok(copy)
    }

    /// Where the value at `index` is or would be; `index` is at most the capacity.
    #[inline]
    fn place(&self, index: usize) -> NonNull<T> {
        debug_assert!(index <= self.capacity());
        // SAFETY: within the memory, or at its end.
        unsafe { self.pointer.add(index) }
    }

    /// Gives the memory back. The list is not used any more.
    fn free_memory(&mut self) {
        // SAFETY: by the invariant the memory is this list's, if there is room for any bytes.
        unsafe { free(&self.handle, self.pointer, self.capacity.saturating_mul(size_of::<T>())) };
    }
}

impl<T, H: Handle> Drop for KVec<T, H> {
    fn drop(&mut self) {
        self.clear();
        self.free_memory();
    }
}

/// The values of a box as a list. No memory is allocated.
impl<T, H: Handle> From<KBox<[T], H>> for KVec<T, H> {
    fn from(values: KBox<[T], H>) -> Self {
        let (values, handle) = KBox::into_raw(values);
        let len = values.len();
        KVec { pointer: values.cast(), capacity: len, len, handle }
    }
}

/// As [`KVec::into_boxed_slice`].
impl<T, H: Handle> From<KVec<T, H>> for KBox<[T], H> {
    fn from(list: KVec<T, H>) -> Self {
        list.into_boxed_slice()
    }
}

impl<T, H: Handle> KBox<[T], H> {
    /// Copies values into memory of their own.
    ///
    /// # Errors
    ///
    /// As [`KBox::new_uninit_slice_in`].
    #[track_caller]
    pub fn from_slice_in(values: &[T], gfp: Gfp, handle: H) -> Result<Self, AllocError>
    where
        T: Clone,
    {
        let mut list = KVec::with_capacity_in(values.len(), gfp, handle)?;
        list.extend_from_slice(values, gfp)?;
        Ok(list.into_boxed_slice())
    }
}
