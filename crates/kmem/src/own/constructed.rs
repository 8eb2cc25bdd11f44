//! A cache whose objects are constructed before they are handed out.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::cache::RawCache;
use super::{CacheOptions, DestroyError, Handle};
use crate::slab::{CacheId, CtorFlags};
use crate::{AllocError, CacheError, Gfp};

/// A type whose values are made once and used again and again, because making one is expensive.
///
/// It goes from one task to another while nobody has it, hence `Send`; it is dropped when the cache's
/// pages are wanted back, at whatever time that is, hence `'static` (A202).
pub trait Construct: Send + 'static {
    /// Makes a value (A201). The memory is there already, and nobody can be told of a failure: what
    /// can fail is put off until the value is used.
    ///
    /// Called for all objects of a slab, in the context of whoever took the first. A panic here leaves
    /// the slab's pages out of use, with what was made on them.
    fn construct() -> Self;

    /// Makes a value that was used as a constructed one is.
    ///
    /// Called when it is given back, in that context. What it leaves undone the next user finds; it
    /// is a value all the same.
    fn reset(&mut self);
}

/// A cache whose free objects are values: LDD2's constructors, for Rust (A201 to A205).
///
/// The constructor runs for all objects of a slab when the slab is made, and not when an object is
/// taken. What is taken is lent: a user has `&mut T`, so the object is a value whatever the user does,
/// and goes back as one. The values are dropped when the slab's pages go, before they go (A203): then
/// `T::drop` runs in the context of whoever wanted memory.
///
/// Apart from that it is as [`Cache`](crate::Cache): so are context, borrowing and destruction. A panic
/// in `T::drop` while the cache is destroyed leaves its place in the table of caches out of use.
///
/// A cache of one type is not one of another, not even where the values of the one are such of the
/// other: what is constructed on its slabs would be dropped as what it was not made as.
///
/// ```compile_fail
/// # use kmem::{Construct, ConstructedCache, Handle};
/// struct Call<F>(F);
/// impl Construct for Call<for<'a> fn(&'a str)> {
/// #   fn construct() -> Self { Call(|_| ()) }
/// #   fn reset(&mut self) {}
///     // ...
/// }
/// impl Construct for Call<fn(&'static str)> {
/// #   fn construct() -> Self { Call(|_| ()) }
/// #   fn reset(&mut self) {}
///     // ...
/// }
/// fn narrow<H: Handle>(
///     cache: ConstructedCache<Call<for<'a> fn(&'a str)>, H>,
/// ) -> ConstructedCache<Call<fn(&'static str)>, H> {
///     cache
/// }
/// ```
///
/// ```
/// # use kmem::{Mm, Setup, MemoryMap, NodeId};
/// # let mut ram = vec![0; 9 << 20];
/// # // SAFETY: one thread.
/// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
/// # // SAFETY: the RAM is there, and nobody else uses it.
/// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
/// use kmem::{CacheOptions, Construct, ConstructedCache, GFP_KERNEL};
///
/// struct Table {
///     crcs: [u32; 256],
///     used: u32,
/// }
///
/// impl Construct for Table {
///     fn construct() -> Table {
///         Table { crcs: std::array::from_fn(|byte| (byte as u32).pow(2)), used: 0 }
///     }
///     fn reset(&mut self) {
///         self.used = 0;
///     }
/// }
///
/// let tables = ConstructedCache::<Table, _>::new_in("table", CacheOptions::new(), &mm)?;
/// let mut table = tables.alloc(GFP_KERNEL)?;
/// table.used += 1;
/// assert_eq!((table.crcs[16], table.used), (256, 1));
/// drop(table);
/// assert_eq!(tables.alloc(GFP_KERNEL)?.used, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
///
/// Every object of the cache is a `T`, but while the constructor or destructor is at it.
pub struct ConstructedCache<T: Construct, H: Handle> {
    raw: RawCache<H>,
    // It has values of `T`, which any CPU's task may take.
    has: PhantomData<fn(T) -> T>,
}

impl<T: Construct, H: Handle> ConstructedCache<T, H> {
    /// Makes a cache. No memory is taken, and nothing constructed, before the first object is taken.
    ///
    /// # Errors and panics
    ///
    /// As [`Cache::new_in`](crate::Cache::new_in).
    #[track_caller]
    pub fn new_in(name: &str, options: CacheOptions, handle: H) -> Result<Self, CacheError> {
        let (ctor, dtor) = (Some(construct::<T> as _), Some(destroy::<T> as _));
        let raw = RawCache::new::<T>(name, options, ctor, dtor, handle)?;
        Ok(ConstructedCache { raw, has: PhantomData })
    }

    /// [`ConstructedCache::new_in`] of the kernel's only manager.
    ///
    /// # Errors and panics
    ///
    /// As there.
    #[track_caller]
    pub fn new(name: &str, options: CacheOptions) -> Result<Self, CacheError>
    where
        H: Default,
    {
        Self::new_in(name, options, H::default())
    }

    /// Takes an object, as it was constructed or reset (A206).
    ///
    /// # Errors
    ///
    /// As [`Mm::kmem_cache_alloc`](crate::Mm::kmem_cache_alloc).
    #[inline]
    #[track_caller]
    pub fn alloc(&self, gfp: Gfp) -> Result<Constructed<'_, T, H>, AllocError> {
        Ok(Constructed { pointer: self.raw.take(gfp)?, cache: &self.raw, lends: PhantomData })
    }

    /// Drops the values that have a slab without an object in use, and gives its pages back (A186).
    /// Answers how many pages. Context as [`Mm::kmem_cache_shrink`](crate::Mm::kmem_cache_shrink).
    pub fn shrink(&self) -> u64 {
        self.raw.shrink()
    }

    /// Drops all values and destroys the cache.
    ///
    /// # Errors
    ///
    /// As [`Cache::destroy`](crate::Cache::destroy).
    #[track_caller]
    pub fn destroy(self) -> Result<(), DestroyError<Self>> {
        self.raw.destroy().map_err(|DestroyError { cache, error }| {
            let cache = ConstructedCache { raw: cache, has: PhantomData };
            DestroyError { cache, error }
        })
    }
}

fn construct<T: Construct>(object: NonNull<u8>, _: CacheId, _: CtorFlags) {
    // SAFETY: an object of this cache, which has room for a `T`, and that nobody else knows yet.
    unsafe { object.cast::<T>().write(T::construct()) };
}

fn destroy<T: Construct>(object: NonNull<u8>, _: CacheId, _: CtorFlags) {
    // SAFETY: a free object of this cache, which by its invariant is a `T`, and whose memory goes.
    unsafe { object.cast::<T>().drop_in_place() };
}

/// An object of a [`ConstructedCache`], which goes back there, reset, when it is dropped.
///
/// # Invariants
///
/// `pointer` points to an object that was taken from `cache`, which is a `T`, and that this value alone
/// has.
pub struct Constructed<'c, T: Construct, H: Handle> {
    pointer: NonNull<T>,
    cache: &'c RawCache<H>,
    lends: PhantomData<&'c mut T>,
}

// SAFETY: it lends the `T` as `&mut T` does; the manager is used by all CPUs.
unsafe impl<T: Construct, H: Handle + Sync> Send for Constructed<'_, T, H> {}
// SAFETY: as above.
unsafe impl<T: Construct + Sync, H: Handle + Sync> Sync for Constructed<'_, T, H> {}

impl<T: Construct, H: Handle> Drop for Constructed<'_, T, H> {
    fn drop(&mut self) {
        T::reset(self);
        // SAFETY: by the invariant the object is this value's; it is a `T`, as free ones are.
        unsafe { self.cache.give(self.pointer) };
    }
}

impl<T: Construct, H: Handle> Deref for Constructed<'_, T, H> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the invariant it points to a value that this one alone has.
        unsafe { self.pointer.as_ref() }
    }
}

impl<T: Construct, H: Handle> DerefMut for Constructed<'_, T, H> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and this value is borrowed mutably.
        unsafe { self.pointer.as_mut() }
    }
}

impl<T: Construct + fmt::Debug, H: Handle> fmt::Debug for Constructed<'_, T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}

impl<T: Construct, H: Handle> fmt::Debug for ConstructedCache<T, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConstructedCache")
    }
}
