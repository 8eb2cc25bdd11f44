//! The texts' calls as free functions over a static manager.

mod areas;
mod bootmem;
mod devices;
mod highmem;
mod objects;
mod pages;
mod percpu;

/// Defines the manager's calls as free functions under the texts' names, over a manager in a `static`,
/// with the texts' results: no page (`None`), address 0 or a null pointer where there is no memory
/// (A065), and 0 for success from `kmem_cache_destroy` (A208).
///
/// `kmem_cache_create` has six arguments, as in 2.4 and in 2.6 (A187); one for a kernel without
/// destructors passes `None` last.
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
///     // pub static MM: kmem::Mm<Kernel> = kmem::Mm::new(Kernel);
///     kmem::texts_names!(MM);
/// }
///
/// use kmem::{CacheFlags, GFP_KERNEL, get_order};
///
/// let buffer = mm::__get_free_pages(GFP_KERNEL, get_order(20_000, 12));
/// assert_ne!(buffer, 0);
/// // SAFETY: the pages are ours, and nothing uses them.
/// unsafe { mm::free_pages(buffer, get_order(20_000, 12)) };
/// assert!(mm::alloc_pages(GFP_KERNEL, 30).is_none());
///
/// let dogs = mm::kmem_cache_create("dog", 40, 0, CacheFlags::HWCACHE_ALIGN, None, None);
/// let dogs = dogs.expect("there is room for a cache");
/// let dog = mm::kmem_cache_alloc(dogs, GFP_KERNEL);
/// assert!(!dog.is_null());
/// // SAFETY: the object is ours; nobody else uses the cache.
/// unsafe {
///     mm::kmem_cache_free(dogs, dog);
///     assert_eq!(mm::kmem_cache_destroy(dogs), 0);
/// }
/// ```
#[macro_export]
macro_rules! texts_names {
    ($mm:expr) => {
        $crate::__texts_names_pages!($mm);
        $crate::__texts_names_objects!($mm);
        $crate::__texts_names_areas!($mm);
        $crate::__texts_names_highmem!($mm);
        $crate::__texts_names_percpu!($mm);
        $crate::__texts_names_devices!($mm);
    };
}
