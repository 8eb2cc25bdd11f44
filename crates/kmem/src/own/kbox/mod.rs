//! A value in memory of its own.

mod traits;

use core::mem::{ManuallyDrop, MaybeUninit};
use core::pin::Pin;
use core::ptr::NonNull;

use super::layout::{allocate, free};
use super::{Handle, Zeroable};
use crate::{AllocError, Gfp};

/// A value in memory from kmalloc that belongs to it, and that is given back when it is dropped.
///
/// It is `Box` for a kernel: making one takes [`Gfp`] flags and can fail. It has any alignment
/// ([`Mm::kmalloc_layout`](crate::Mm::kmalloc_layout)); a value without bytes takes no memory.
///
/// Functions that a `T` could have too are not methods: `KBox::leak(boxed)`.
///
/// # Context
///
/// Making one: as [`Mm::kmalloc`](crate::Mm::kmalloc) with these flags. Dropping one: any, as far as
/// `T` allows.
///
/// ```
/// # use kmem::{Mm, Setup, MemoryMap, NodeId};
/// # let mut ram = vec![0; 9 << 20];
/// # // SAFETY: one thread.
/// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
/// # // SAFETY: the RAM is there, and nobody else uses it.
/// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
/// use kmem::{GFP_KERNEL, KBox};
///
/// let mut dog = KBox::new_in(["Rex", "Bello"], GFP_KERNEL, &mm)?;
/// dog[1] = "Hasso";
/// assert_eq!(*dog, ["Rex", "Hasso"]);
/// drop(dog);
///
/// // Memory first: the value is still there when there is none.
/// let room = KBox::new_uninit_in(GFP_KERNEL, &mm)?;
/// let cat = KBox::write(room, String::from("Minka"));
/// assert_eq!(KBox::into_inner(cat), "Minka");
///
/// // Slices.
/// let table: KBox<[u64], _> = KBox::new_zeroed_slice_in(512, GFP_KERNEL, &mm)?;
/// assert_eq!(table.iter().sum::<u64>(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
///
/// `pointer` is aligned and points to a `T` that is this value's alone. Where that has bytes, they lie
/// at the start of memory that kmalloc of the handle's manager handed out and that is this value's.
pub struct KBox<T: ?Sized, H: Handle> {
    pointer: NonNull<T>,
    handle: H,
}

// SAFETY: it owns the `T`; the manager is used by all CPUs.
unsafe impl<T: ?Sized + Send, H: Handle + Send> Send for KBox<T, H> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync, H: Handle + Sync> Sync for KBox<T, H> {}

impl<T, H: Handle> KBox<T, H> {
    /// Allocates memory and moves a value there.
    ///
    /// # Errors
    ///
    /// As [`Mm::kmalloc_layout`](crate::Mm::kmalloc_layout); the value is dropped. To keep it, allocate
    /// first: [`KBox::new_uninit_in`], then [`KBox::write`].
    #[inline]
    #[track_caller]
    pub fn new_in(value: T, gfp: Gfp, handle: H) -> Result<Self, AllocError> {
        Ok(KBox::write(Self::new_uninit_in(gfp, handle)?, value))
    }

    /// Allocates memory and puts what `make` answers there, which is called once the memory is there.
    ///
    /// # Errors
    ///
    /// As [`KBox::new_in`], and those of `make`.
    #[inline]
    #[track_caller]
    pub fn try_new_with_in<E: From<AllocError>>(
        make: impl FnOnce() -> Result<T, E>,
        gfp: Gfp,
        handle: H,
    ) -> Result<Self, E> {
        let room = Self::new_uninit_in(gfp, handle)?;
        Ok(KBox::write(room, make()?))
    }

    /// Allocates memory for a value that is written later.
    ///
    /// # Errors
    ///
    /// As [`Mm::kmalloc_layout`](crate::Mm::kmalloc_layout).
    #[inline]
    #[track_caller]
    pub fn new_uninit_in(gfp: Gfp, handle: H) -> Result<KBox<MaybeUninit<T>, H>, AllocError> {
        let pointer = allocate(&handle, 1, gfp)?;
        Ok(KBox { pointer, handle })
    }

    /// Allocates memory of zeros, which are a value.
    ///
    /// # Errors
    ///
    /// As [`Mm::kmalloc_layout`](crate::Mm::kmalloc_layout).
    #[inline]
    #[track_caller]
    pub fn new_zeroed_in(gfp: Gfp, handle: H) -> Result<Self, AllocError>
    where
        T: Zeroable,
    {
        let room = Self::new_uninit_in(gfp, handle)?;
        // SAFETY: there is room for one.
        unsafe { room.pointer.write_bytes(0, 1) };
        // SAFETY: zeros are a value.
        Ok(unsafe { room.assume_init() })
    }

    /// Allocates memory and moves a value there, to stay there.
    ///
    /// Pinned memory is not used again before the value is dropped, even if that is forgotten; so the
    /// manager is one that is always there.
    ///
    /// # Errors
    ///
    /// As [`KBox::new_in`].
    #[inline]
    #[track_caller]
    pub fn pin_in(value: T, gfp: Gfp, handle: H) -> Result<Pin<Self>, AllocError>
    where
        H: 'static,
    {
        Ok(KBox::into_pin(Self::new_in(value, gfp, handle)?))
    }

    /// [`KBox::new_in`] of the kernel's only manager.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    #[track_caller]
    pub fn new(value: T, gfp: Gfp) -> Result<Self, AllocError>
    where
        H: Default,
    {
        Self::new_in(value, gfp, H::default())
    }

    /// [`KBox::try_new_with_in`] of the kernel's only manager.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    #[track_caller]
    pub fn try_new_with<E: From<AllocError>>(
        make: impl FnOnce() -> Result<T, E>,
        gfp: Gfp,
    ) -> Result<Self, E>
    where
        H: Default,
    {
        Self::try_new_with_in(make, gfp, H::default())
    }

    /// [`KBox::new_uninit_in`] of the kernel's only manager.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    #[track_caller]
    pub fn new_uninit(gfp: Gfp) -> Result<KBox<MaybeUninit<T>, H>, AllocError>
    where
        H: Default,
    {
        Self::new_uninit_in(gfp, H::default())
    }

    /// [`KBox::new_zeroed_in`] of the kernel's only manager.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    #[track_caller]
    pub fn new_zeroed(gfp: Gfp) -> Result<Self, AllocError>
    where
        T: Zeroable,
        H: Default,
    {
        Self::new_zeroed_in(gfp, H::default())
    }

    /// [`KBox::pin_in`] of the kernel's only manager.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    #[track_caller]
    pub fn pin(value: T, gfp: Gfp) -> Result<Pin<Self>, AllocError>
    where
        H: Default + 'static,
    {
        Self::pin_in(value, gfp, H::default())
    }

    /// Takes the value out and gives the memory back.
    pub fn into_inner(this: Self) -> T {
        let (pointer, handle) = KBox::into_raw(this);
        // SAFETY: it points to a value, which is taken out once.
        let value = unsafe { pointer.read() };
        // SAFETY: the memory was the box's, and nothing is in it any more.
        unsafe { free(&handle, pointer, size_of::<T>()) };
        value
    }

    /// A copy in memory of its own. The flags are for the memory of the box alone.
    ///
    /// # Errors
    ///
    /// As [`KBox::new_in`]; the value is cloned once the memory is there.
    #[track_caller]
    pub fn try_clone(&self, gfp: Gfp) -> Result<Self, AllocError>
    where
        T: Clone,
    {
        Ok(KBox::write(Self::new_uninit_in(gfp, self.handle)?, T::clone(self)))
    }
}

impl<T, H: Handle> KBox<[T], H> {
    /// Allocates memory for so many values that are written later.
    ///
    /// # Errors
    ///
    /// As [`Mm::kmalloc_layout`](crate::Mm::kmalloc_layout); more bytes than fit `usize` are more than
    /// there are.
    #[track_caller]
    pub fn new_uninit_slice_in(
        len: usize,
        gfp: Gfp,
        handle: H,
    ) -> Result<KBox<[MaybeUninit<T>], H>, AllocError> {
        let pointer = NonNull::slice_from_raw_parts(allocate(&handle, len, gfp)?, len);
        Ok(KBox { pointer, handle })
    }

    /// Allocates memory of zeros for so many values.
    ///
    /// # Errors
    ///
    /// As [`KBox::new_uninit_slice_in`].
    #[track_caller]
    pub fn new_zeroed_slice_in(len: usize, gfp: Gfp, handle: H) -> Result<Self, AllocError>
    where
        T: Zeroable,
    {
        let room = Self::new_uninit_slice_in(len, gfp, handle)?;
        // SAFETY: there is room for so many.
        unsafe { room.pointer.cast::<T>().write_bytes(0, len) };
        // SAFETY: zeros are values.
        Ok(unsafe { room.assume_init() })
    }

    /// [`KBox::new_uninit_slice_in`] of the kernel's only manager.
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn new_uninit_slice(len: usize, gfp: Gfp) -> Result<KBox<[MaybeUninit<T>], H>, AllocError>
    where
        H: Default,
    {
        Self::new_uninit_slice_in(len, gfp, H::default())
    }

    /// [`KBox::new_zeroed_slice_in`] of the kernel's only manager.
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn new_zeroed_slice(len: usize, gfp: Gfp) -> Result<Self, AllocError>
    where
        T: Zeroable,
        H: Default,
    {
        Self::new_zeroed_slice_in(len, gfp, H::default())
    }
}

impl<T, H: Handle> KBox<MaybeUninit<T>, H> {
    /// Writes the value.
    #[inline]
    pub fn write(this: Self, value: T) -> KBox<T, H> {
        // SAFETY: there is room for one.
        unsafe { this.pointer.cast().write(value) };
        // SAFETY: just written.
        unsafe { this.assume_init() }
    }

    /// The box of a value that has been written.
    ///
    /// # Safety
    ///
    /// The value has been written.
    #[inline]
    pub unsafe fn assume_init(self) -> KBox<T, H> {
        let (pointer, handle) = KBox::into_raw(self);
        KBox { pointer: pointer.cast(), handle }
    }
}

impl<T, H: Handle> KBox<[MaybeUninit<T>], H> {
    /// The box of values that have been written.
    ///
    /// # Safety
    ///
    /// All of them have.
    pub unsafe fn assume_init(self) -> KBox<[T], H> {
        let (pointer, handle) = KBox::into_raw(self);
        let pointer = NonNull::slice_from_raw_parts(pointer.cast(), pointer.len());
        KBox { pointer, handle }
    }
}

impl<T: ?Sized, H: Handle> KBox<T, H> {
    /// The manager that the memory is from.
    pub fn handle(this: &Self) -> H {
        this.handle
    }

    /// Gives up ownership: the value and its memory are the caller's, until [`KBox::from_raw`].
    #[inline]
    pub fn into_raw(this: Self) -> (NonNull<T>, H) {
        let this = ManuallyDrop::new(this);
        (this.pointer, this.handle)
    }

    /// Takes ownership of a value and its memory.
    ///
    /// This is also the way to a box of a trait object, as Rust lets only its own `Box` become one by
    /// itself:
    ///
    /// ```
    /// # use kmem::{Mm, Setup, MemoryMap, NodeId, GFP_KERNEL, KBox};
    /// # let mut ram = vec![0; 9 << 20];
    /// # // SAFETY: one thread.
    /// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
    /// # // SAFETY: the RAM is there, and nobody else uses it.
    /// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
    /// use std::{fmt::Display, ptr::NonNull};
    ///
    /// let (pointer, handle) = KBox::into_raw(KBox::new_in(5, GFP_KERNEL, &mm)?);
    /// let pointer: NonNull<dyn Display> = pointer;
    /// // SAFETY: the box gave it up, and it is the same value.
    /// let shown = unsafe { KBox::from_raw(pointer, handle) };
    /// assert_eq!(shown.to_string(), "5");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Safety
    ///
    /// `pointer` is aligned and points to a `T` that is the caller's alone. Where that has bytes, they
    /// lie at the start of memory that kmalloc of this manager handed out, and the memory is the
    /// caller's.
    #[inline]
    pub unsafe fn from_raw(pointer: NonNull<T>, handle: H) -> Self {
        KBox { pointer, handle }
    }

    /// Gives up the memory for good: the value is not dropped.
    pub fn leak<'a>(this: Self) -> &'a mut T
    where
        H: 'a,
    {
        let (mut pointer, _) = KBox::into_raw(this);
        // SAFETY: a value that nobody else has, in memory that the manager never takes back, for as
        // long as there is the manager.
        unsafe { pointer.as_mut() }
    }

    /// Pins the value, which stays where it is.
    pub fn into_pin(this: Self) -> Pin<Self>
    where
        H: 'static,
    {
        // SAFETY: the box never moves the value, and its memory is not used again before the value is
        // dropped: the manager is always there.
        unsafe { Pin::new_unchecked(this) }
    }
}

impl<T: ?Sized, H: Handle> Drop for KBox<T, H> {
    #[inline]
    fn drop(&mut self) {
        let bytes = size_of_val::<T>(self);
        // SAFETY: the value is this box's, and nobody sees it any more.
        unsafe { self.pointer.drop_in_place() };
        // SAFETY: by the invariant so is the memory, if there are bytes.
        unsafe { free(&self.handle, self.pointer.cast::<u8>(), bytes) };
    }
}
