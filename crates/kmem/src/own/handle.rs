//! Which manager a value's memory is from.

use crate::Mm;
use crate::platform::Platform;
use crate::reclaim::Reclaim;

/// Names the manager that a value's memory is from, and goes with the value so that it can give the
/// memory back.
///
/// There are two kinds. `&Mm<P, R>` names any manager and costs a pointer in each value. A type without
/// fields names a manager in a `static` and costs nothing: [`kernel_types!`](crate::kernel_types) makes
/// it. The second kind is [`Default`] too, which is what calls such as [`KBox::new`](crate::KBox::new)
/// ask for; their sisters such as [`KBox::new_in`](crate::KBox::new_in) take a handle of either kind.
///
/// # Safety
///
/// A handle, and every copy of it, names the same manager at every call.
pub unsafe trait Handle: Copy {
    /// The manager's platform.
    type Platform: Platform;
    /// What the manager reclaims with.
    type Reclaim: Reclaim;

    /// The manager.
    fn mm(&self) -> &Mm<Self::Platform, Self::Reclaim>;
}

// SAFETY: a reference refers to one value.
unsafe impl<P: Platform, R: Reclaim> Handle for &Mm<P, R> {
    type Platform = P;
    type Reclaim = R;

    #[inline]
    fn mm(&self) -> &Mm<P, R> {
        self
    }
}

/// Defines, for a kernel with one manager in a `static`, the type `Memory` that names it, and the
/// owning types of that manager: `KBox<T>`, `KVec<T>`, `KString`, `Cache<T>`, `ConstructedCache<T>`.
///
/// It is used in a module of its own, as [`texts_names!`](crate::texts_names) is, with the path of
/// the `static` and the manager's type; the platform is as visible as the module's types, so `pub`. A
/// value is no larger than its pointers and lengths, and no
/// call names the manager.
///
/// A manager that is made when it is first used is in the `static` only by way of another type, whose
/// `deref` leads to it. `unsafe` before the path promises that it leads to the same one each time, as
/// that of `LazyLock` does; without the word such a path is refused, and so is a `const`:
///
/// ```compile_fail,E0308
/// # type Kernel = kmem::platform::desk::Desk<'static>;
/// # static MM: std::sync::LazyLock<kmem::Mm<Kernel>> = std::sync::LazyLock::new(|| unreachable!());
/// kmem::kernel_types!(MM: kmem::Mm<Kernel>);
/// ```
///
/// ```
/// mod mm {
///     # use kmem::platform::desk::Desk;
///     # pub static MM: std::sync::LazyLock<kmem::Mm<Desk<'static>>> = std::sync::LazyLock::new(|| {
///     #     let ram = Box::leak(vec![0; 9 << 20].into_boxed_slice());
///     #     // SAFETY: one thread.
///     #     let mm = kmem::Mm::new(unsafe { Desk::new(ram) });
///     #     let map = kmem::MemoryMap::new().ram(0..8 << 20, kmem::NodeId::ZERO);
///     #     // SAFETY: nobody else uses the RAM.
///     #     unsafe { mm.boot(&map, &kmem::Setup::new()) }.unwrap();
///     #     mm
///     # });
///     # type Kernel = Desk<'static>;
///     // With pub static MM: kmem::Mm<Kernel> = kmem::Mm::new(Kernel), without the `unsafe`.
///     kmem::kernel_types!(unsafe MM: kmem::Mm<Kernel>);
/// }
///
/// use kmem::GFP_KERNEL;
///
/// let boxed: mm::KBox<[u32; 3]> = mm::KBox::new([1, 2, 3], GFP_KERNEL)?;
/// assert_eq!(size_of_val(&boxed), size_of::<usize>());
/// let mut list = mm::KVec::new();
/// list.push(boxed, GFP_KERNEL)?;
/// assert_eq!(list[0][2], 3);
/// # Ok::<(), kmem::AllocError>(())
/// ```
#[macro_export]
macro_rules! kernel_types {
    (unsafe $mm:path: $manager:ty) => {
        $crate::kernel_types!(@ $manager, &*$mm);
    };
    ($mm:path: $manager:ty) => {
        $crate::kernel_types!(@ $manager, {
            // The address of the static itself: of a type that only leads to a manager there is none.
            let manager: *const $manager = &raw const $mm;
            // SAFETY: a static is always there.
            unsafe { &*manager }
        });
    };
    (@ $manager:ty, $reference:expr) => {
        /// The kernel's memory: names the manager that the types of this module allocate from.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Memory;

        // SAFETY: a static is one value; of anything else whoever wrote `unsafe` says so.
        unsafe impl $crate::Handle for Memory {
            type Platform = <&'static $manager as $crate::Handle>::Platform;
            type Reclaim = <&'static $manager as $crate::Handle>::Reclaim;

            #[inline]
            fn mm(&self) -> &$crate::Mm<Self::Platform, Self::Reclaim> {
                $reference
            }
        }

        /// See [`kmem::KBox`](::kmem::KBox).
        pub type KBox<T> = $crate::KBox<T, Memory>;
        /// See [`kmem::KVec`](::kmem::KVec).
        pub type KVec<T> = $crate::KVec<T, Memory>;
        /// See [`kmem::KString`](::kmem::KString).
        pub type KString = $crate::KString<Memory>;
        /// See [`kmem::Cache`](::kmem::Cache).
        pub type Cache<T> = $crate::Cache<T, Memory>;
        /// See [`kmem::ConstructedCache`](::kmem::ConstructedCache).
        pub type ConstructedCache<T> = $crate::ConstructedCache<T, Memory>;
    };
}
