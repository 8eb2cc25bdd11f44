//! A cache of objects of one type.

use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ops::{Deref, DerefMut};
use core::pin::Pin;
use core::ptr::NonNull;

use super::Handle;
use crate::platform::{Hooks, Level};
use crate::slab::{CacheId, Ctor};
use crate::{AllocError, CacheError, CacheFlags, Gfp};

/// How a cache of a type is to be, apart from its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheOptions {
    flags: CacheFlags,
    align: usize,
}

impl CacheOptions {
    /// Nothing special: objects lie as their type needs it.
    pub const fn new() -> Self {
        CacheOptions { flags: CacheFlags::NONE, align: 0 }
    }

    /// Flags of the cache (A192 to A199).
    pub const fn flags(mut self, flags: CacheFlags) -> Self {
        self.flags = flags;
        self
    }

    /// Objects lie at multiples of so many bytes, a power of two, if not at larger ones. 0: as their
    /// type needs it (A191).
    pub const fn align(mut self, align: usize) -> Self {
        self.align = align;
        self
    }
}

/// A cache that was not destroyed, and why.
pub struct DestroyError<C> {
    /// The cache, which is as it was.
    pub cache: C,
    /// Why.
    pub error: CacheError,
}

impl<C> fmt::Debug for DestroyError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DestroyError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<C> fmt::Display for DestroyError<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<C> core::error::Error for DestroyError<C> {}

/// A cache that belongs to this value, whatever its objects are.
///
/// Its handle is not handed out: safe code could allocate from the cache while it is destroyed.
pub(super) struct RawCache<H: Handle> {
    id: CacheId,
    handle: H,
}

impl<H: Handle> RawCache<H> {
    /// Makes a cache of objects that have room for a `T`.
    #[track_caller]
    pub(super) fn new<T>(
        name: &str,
        options: CacheOptions,
        ctor: Option<Ctor>,
        dtor: Option<Ctor>,
        handle: H,
    ) -> Result<Self, CacheError> {
        // An object has an address of its own, even one without bytes.
        let size = size_of::<T>().max(1);
        // What is no power of two stays so, and is refused.
        let align = if options.align > align_of::<T>() { options.align } else { align_of::<T>() };
        let id = handle.mm().kmem_cache_create(name, size, align, options.flags, ctor, dtor)?;
        Ok(RawCache { id, handle })
    }

    /// Takes an object.
    #[inline]
    #[track_caller]
    pub(super) fn take<T>(&self, gfp: Gfp) -> Result<NonNull<T>, AllocError> {
        Ok(self.handle.mm().kmem_cache_alloc(self.id, gfp)?.cast())
    }

    /// Gives an object back.
    ///
    /// # Safety
    ///
    /// It was taken from this cache, and nothing uses it any more.
    #[inline]
    pub(super) unsafe fn give<T>(&self, object: NonNull<T>) {
        // SAFETY: the caller's promise.
        unsafe { self.handle.mm().kmem_cache_free(self.id, object.as_ptr().cast()) };
    }

    pub(super) fn shrink(&self) -> u64 {
        self.handle.mm().kmem_cache_shrink(self.id)
    }

    #[track_caller]
    pub(super) fn destroy(self) -> Result<(), DestroyError<Self>> {
        let cache = ManuallyDrop::new(self);
        // SAFETY: it is this value's alone, and this is its last use.
        match unsafe { cache.handle.mm().kmem_cache_destroy(cache.id) } {
            Ok(()) => Ok(()),
            Err(error) => Err(DestroyError { cache: ManuallyDrop::into_inner(cache), error }),
        }
    }
}

impl<H: Handle> Drop for RawCache<H> {
    fn drop(&mut self) {
        let mm = self.handle.mm();
        // SAFETY: it is this value's alone, and this is its last use.
        if let Err(error) = unsafe { mm.kmem_cache_destroy(self.id) } {
            // Its objects stay where they are, so whoever has one may go on using it.
            let message = format_args!("{:?} is not destroyed, and stays: {error}", self.id);
            mm.platform().log(Level::Error, message);
        }
    }
}

/// A cache of objects of type `T` (A187 to A191).
///
/// An object is a `T` only once it has been written, so what its last user left is never seen. An
/// object that is handed out borrows the cache, so that the cache cannot be destroyed before it; one
/// that was leaked is in the way of destruction (A208).
///
/// When it is dropped the cache is destroyed. Where that fails, because objects were leaked or the
/// context is atomic, the log says so (A209), and the cache stays.
///
/// # Context
///
/// Making and destroying: may sleep. Taking an object: as
/// [`Mm::kmem_cache_alloc`](crate::Mm::kmem_cache_alloc). Dropping one: any, as far as `T` allows.
///
/// ```
/// # use kmem::{Mm, Setup, MemoryMap, NodeId};
/// # let mut ram = vec![0; 9 << 20];
/// # // SAFETY: one thread.
/// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
/// # // SAFETY: the RAM is there, and nobody else uses it.
/// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
/// use kmem::{Cache, CacheFlags, CacheOptions, GFP_KERNEL};
///
/// struct Dog {
///     age: u32,
/// }
///
/// let options = CacheOptions::new().flags(CacheFlags::HWCACHE_ALIGN);
/// let dogs = Cache::new_in("dog", options, &mm)?;
/// let mut dog = dogs.alloc(Dog { age: 3 }, GFP_KERNEL)?;
/// dog.age += 1;
/// assert_eq!(dog.age, 4);
/// drop(dog);
/// dogs.destroy().map_err(|refused| refused.error)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A cache for as long as the kernel runs is in a `static`, in whatever cell the kernel has that is
/// written once. Its objects borrow it for ever, so they go anywhere:
///
/// ```
/// # mod mm {
/// #     use kmem::platform::desk::Desk;
/// #     pub static MM: std::sync::LazyLock<kmem::Mm<Desk<'static>>> = std::sync::LazyLock::new(|| {
/// #         let ram = Box::leak(vec![0; 9 << 20].into_boxed_slice());
/// #         // SAFETY: one thread.
/// #         let mm = kmem::Mm::new(unsafe { Desk::new(ram) });
/// #         let map = kmem::MemoryMap::new().ram(0..8 << 20, kmem::NodeId::ZERO);
/// #         // SAFETY: nobody else uses the RAM.
/// #         unsafe { mm.boot(&map, &kmem::Setup::new()) }.unwrap();
/// #         mm
/// #     });
/// #     kmem::kernel_types!(unsafe MM: kmem::Mm<Desk<'static>>);
/// # }
/// use std::sync::OnceLock; // in a kernel: spin::Once, or its own
/// use kmem::{CacheBox, CacheFlags, CacheOptions, GFP_KERNEL};
///
/// struct Dog {
///     age: u32,
/// }
///
/// static DOGS: OnceLock<mm::Cache<Dog>> = OnceLock::new();
///
/// fn dog(age: u32) -> Result<CacheBox<'static, Dog, mm::Memory>, kmem::AllocError> {
///     let options = CacheOptions::new().flags(CacheFlags::PANIC);
///     let dogs = DOGS.get_or_init(|| mm::Cache::new("dog", options).unwrap());
///     dogs.alloc(Dog { age }, GFP_KERNEL)
/// }
///
/// assert_eq!(dog(3)?.age, 3);
/// # Ok::<(), kmem::AllocError>(())
/// ```
///
/// While an object is out the cache stays:
///
/// ```compile_fail,E0505
/// # fn f<H: kmem::Handle>(dogs: kmem::Cache<u32, H>) {
/// let dog = dogs.alloc(3, kmem::GFP_KERNEL);
/// drop(dogs);
/// drop(dog);
/// # }
/// ```
pub struct Cache<T, H: Handle> {
    raw: RawCache<H>,
    // It makes values of `T` and has none.
    makes: PhantomData<fn() -> T>,
}

impl<T, H: Handle> Cache<T, H> {
    /// Makes a cache. No memory is taken before the first object is.
    ///
    /// # Errors
    ///
    /// As [`Mm::kmem_cache_create`](crate::Mm::kmem_cache_create).
    ///
    /// # Panics
    ///
    /// With [`CacheFlags::PANIC`], where there is an error (A197).
    #[track_caller]
    pub fn new_in(name: &str, options: CacheOptions, handle: H) -> Result<Self, CacheError> {
        let raw = RawCache::new::<T>(name, options, None, None, handle)?;
        Ok(Cache { raw, makes: PhantomData })
    }

    /// [`Cache::new_in`] of the kernel's only manager.
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn new(name: &str, options: CacheOptions) -> Result<Self, CacheError>
    where
        H: Default,
    {
        Self::new_in(name, options, H::default())
    }

    /// Takes an object and moves a value there (A206).
    ///
    /// # Errors
    ///
    /// As [`Mm::kmem_cache_alloc`](crate::Mm::kmem_cache_alloc); the value is dropped. To keep it,
    /// allocate first: [`Cache::alloc_uninit`], then [`CacheBox::write`].
    #[inline]
    #[track_caller]
    pub fn alloc(&self, value: T, gfp: Gfp) -> Result<CacheBox<'_, T, H>, AllocError> {
        Ok(CacheBox::write(self.alloc_uninit(gfp)?, value))
    }

    /// Takes an object and puts what `make` answers there, which is called once there is an object.
    ///
    /// # Errors
    ///
    /// As [`Cache::alloc`].
    #[inline]
    #[track_caller]
    pub fn alloc_with(
        &self,
        make: impl FnOnce() -> T,
        gfp: Gfp,
    ) -> Result<CacheBox<'_, T, H>, AllocError> {
        let room = self.alloc_uninit(gfp)?;
        Ok(CacheBox::write(room, make()))
    }

    /// Takes an object that is written later.
    ///
    /// # Errors
    ///
    /// As [`Cache::alloc`].
    #[inline]
    #[track_caller]
    pub fn alloc_uninit(&self, gfp: Gfp) -> Result<CacheBox<'_, MaybeUninit<T>, H>, AllocError> {
        Ok(CacheBox { pointer: self.raw.take(gfp)?, cache: &self.raw })
    }

    /// Gives the pages back that have no object in use (A186). Answers how many. Context as
    /// [`Mm::kmem_cache_shrink`](crate::Mm::kmem_cache_shrink).
    pub fn shrink(&self) -> u64 {
        self.raw.shrink()
    }

    /// Destroys the cache.
    ///
    /// # Errors
    ///
    /// As [`Mm::kmem_cache_destroy`](crate::Mm::kmem_cache_destroy), with the cache, which is as it was:
    /// [`CacheError::InUse`] where objects were leaked (A208), [`CacheError::Atomic`] where sleeping is
    /// forbidden.
    #[track_caller]
    pub fn destroy(self) -> Result<(), DestroyError<Self>> {
        self.raw.destroy().map_err(|DestroyError { cache, error }| {
            let cache = Cache { raw: cache, makes: PhantomData };
            DestroyError { cache, error }
        })
    }
}

impl<T, H: Handle> fmt::Debug for Cache<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache").field(&self.raw.id).finish()
    }
}

/// An object of a [`Cache`], which goes back there when it is dropped.
///
/// Functions that a `T` could have too are not methods: `CacheBox::leak(object)`.
///
/// # Invariants
///
/// `pointer` points to an object that was taken from `cache`, and to a `T`, both of them this value's
/// alone.
pub struct CacheBox<'c, T, H: Handle> {
    pointer: NonNull<T>,
    cache: &'c RawCache<H>,
}

// SAFETY: it owns the `T`; the manager is used by all CPUs.
unsafe impl<T: Send, H: Handle + Sync> Send for CacheBox<'_, T, H> {}
// SAFETY: as above.
unsafe impl<T: Sync, H: Handle + Sync> Sync for CacheBox<'_, T, H> {}

impl<'c, T, H: Handle> CacheBox<'c, MaybeUninit<T>, H> {
    /// Writes the value.
    #[inline]
    pub fn write(this: Self, value: T) -> CacheBox<'c, T, H> {
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
    pub unsafe fn assume_init(self) -> CacheBox<'c, T, H> {
        let this = ManuallyDrop::new(self);
        CacheBox { pointer: this.pointer.cast(), cache: this.cache }
    }
}

impl<'c, T, H: Handle> CacheBox<'c, T, H> {
    /// Takes the value out and gives the object back.
    pub fn into_inner(this: Self) -> T {
        let this = ManuallyDrop::new(this);
        // SAFETY: it is a value, which is taken out once.
        let value = unsafe { this.pointer.read() };
        // SAFETY: the object is this box's, and nothing is in it any more.
        unsafe { this.cache.give(this.pointer) };
        value
    }

    /// Gives the object up for good: the cache cannot be destroyed any more.
    pub fn leak(this: Self) -> &'c mut T {
        let mut this = ManuallyDrop::new(this);
        // SAFETY: a value that nobody else has, in an object that stays in use.
        unsafe { this.pointer.as_mut() }
    }

    /// Pins the value, which stays where it is.
    pub fn into_pin(this: Self) -> Pin<Self>
    where
        H: 'static,
    {
        // SAFETY: the box never moves the value. Its object is not used again before the value is
        // dropped, even if that is forgotten: a cache with objects in use stays, and the manager is
        // always there.
        unsafe { Pin::new_unchecked(this) }
    }
}

impl<T, H: Handle> Drop for CacheBox<'_, T, H> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the value is this box's, and nobody sees it any more.
        unsafe { self.pointer.drop_in_place() };
        // SAFETY: by the invariant so is the object.
        unsafe { self.cache.give(self.pointer) };
    }
}

impl<T, H: Handle> Deref for CacheBox<'_, T, H> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the invariant it points to a value of this box's.
        unsafe { self.pointer.as_ref() }
    }
}

impl<T, H: Handle> DerefMut for CacheBox<'_, T, H> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and the box is borrowed mutably.
        unsafe { self.pointer.as_mut() }
    }
}

impl<T: fmt::Debug, H: Handle> fmt::Debug for CacheBox<'_, T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: fmt::Display, H: Handle> fmt::Display for CacheBox<'_, T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}
