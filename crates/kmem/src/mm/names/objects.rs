//! kmalloc's and the caches' calls.

/// Half of [`texts_names!`](crate::texts_names): objects.
#[macro_export]
#[doc(hidden)]
macro_rules! __texts_names_objects {
    ($mm:expr) => {
        /// See [`kmem::Mm::kmalloc`](::kmem::Mm::kmalloc).
        #[track_caller]
        #[must_use]
        pub fn kmalloc(size: usize, gfp: $crate::Gfp) -> *mut u8 {
            $mm.kmalloc(size, gfp).map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::kzalloc`](::kmem::Mm::kzalloc).
        #[track_caller]
        #[must_use]
        pub fn kzalloc(size: usize, gfp: $crate::Gfp) -> *mut u8 {
            $mm.kzalloc(size, gfp).map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::kcalloc`](::kmem::Mm::kcalloc).
        #[track_caller]
        #[must_use]
        pub fn kcalloc(count: usize, size: usize, gfp: $crate::Gfp) -> *mut u8 {
            let memory = $mm.kcalloc(count, size, gfp);
            memory.map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::kmalloc_node`](::kmem::Mm::kmalloc_node); -1 is any node.
        #[track_caller]
        #[must_use]
        pub fn kmalloc_node(size: usize, gfp: $crate::Gfp, node: i32) -> *mut u8 {
            let node = match u32::try_from(node) {
                Ok(number) => match $crate::NodeId::new(number) {
                    None => return ::core::ptr::null_mut(),
                    node => node,
                },
                Err(_) => None,
            };
            let memory = $mm.kmalloc_node(size, gfp, node);
            memory.map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::krealloc`](::kmem::Mm::krealloc). Null, and the memory is as it was, where
        /// there is none of that size.
        ///
        /// # Safety
        ///
        /// The memory is the caller's; where the call succeeds, nothing uses it by its old address.
        #[track_caller]
        #[must_use]
        pub unsafe fn krealloc(memory: *mut u8, size: usize, gfp: $crate::Gfp) -> *mut u8 {
            // SAFETY: the caller's promise is the same.
            let memory = unsafe { $mm.krealloc(memory, size, gfp) };
            memory.map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::ksize`](::kmem::Mm::ksize).
        #[track_caller]
        #[must_use]
        pub fn ksize(memory: *const u8) -> usize {
            $mm.ksize(memory)
        }

        /// See [`kmem::Mm::kfree`](::kmem::Mm::kfree).
        ///
        /// # Safety
        ///
        /// The memory is the caller's, and nothing uses it after the call. Null is no memory.
        #[track_caller]
        pub unsafe fn kfree(memory: *const u8) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.kfree(memory) }
        }

        /// See [`kmem::Mm::kmem_cache_create`](::kmem::Mm::kmem_cache_create). The third argument is
        /// the alignment, or, in the words of older texts, the offset; 0 is the usual one.
        #[track_caller]
        #[must_use]
        pub fn kmem_cache_create(
            name: &str,
            size: usize,
            align: usize,
            flags: $crate::CacheFlags,
            ctor: Option<$crate::slab::Ctor>,
            dtor: Option<$crate::slab::Ctor>,
        ) -> Option<$crate::CacheId> {
            $mm.kmem_cache_create(name, size, align, flags, ctor, dtor).ok()
        }

        /// See [`kmem::Mm::kmem_cache_alloc`](::kmem::Mm::kmem_cache_alloc).
        #[track_caller]
        #[must_use]
        pub fn kmem_cache_alloc(cache: $crate::CacheId, gfp: $crate::Gfp) -> *mut u8 {
            let object = $mm.kmem_cache_alloc(cache, gfp);
            object.map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::kmem_cache_free`](::kmem::Mm::kmem_cache_free).
        ///
        /// # Safety
        ///
        /// The object is the caller's, and nothing uses it after the call.
        #[track_caller]
        pub unsafe fn kmem_cache_free(cache: $crate::CacheId, object: *mut u8) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.kmem_cache_free(cache, object) }
        }

        /// See [`kmem::Mm::kmem_cache_shrink`](::kmem::Mm::kmem_cache_shrink).
        pub fn kmem_cache_shrink(cache: $crate::CacheId) -> u64 {
            $mm.kmem_cache_shrink(cache)
        }

        /// See [`kmem::Mm::kmem_cache_destroy`](::kmem::Mm::kmem_cache_destroy): 0 where the cache is
        /// destroyed, and not 0 where it is not, as when objects are in use.
        ///
        /// # Safety
        ///
        /// Nobody else uses the cache while the call lasts.
        #[track_caller]
        #[must_use]
        pub unsafe fn kmem_cache_destroy(cache: $crate::CacheId) -> i32 {
            // SAFETY: the caller's promise is the same.
            match unsafe { $mm.kmem_cache_destroy(cache) } {
                Ok(()) => 0,
                Err(_) => 1,
            }
        }
    };
}
