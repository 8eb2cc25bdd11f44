//! The calls of memory that is contiguous as addresses only.

/// A part of [`texts_names!`](crate::texts_names): areas.
#[macro_export]
#[doc(hidden)]
macro_rules! __texts_names_areas {
    ($mm:expr) => {
        /// See [`kmem::Mm::vmalloc`](::kmem::Mm::vmalloc).
        #[track_caller]
        #[must_use]
        pub fn vmalloc(size: usize) -> *mut u8 {
            $mm.vmalloc(size).map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::vzalloc`](::kmem::Mm::vzalloc).
        #[track_caller]
        #[must_use]
        pub fn vzalloc(size: usize) -> *mut u8 {
            $mm.vzalloc(size).map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::vmalloc_32`](::kmem::Mm::vmalloc_32).
        #[track_caller]
        #[must_use]
        pub fn vmalloc_32(size: usize) -> *mut u8 {
            $mm.vmalloc_32(size).map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::vmalloc_node`](::kmem::Mm::vmalloc_node); -1 is any node.
        #[track_caller]
        #[must_use]
        pub fn vmalloc_node(size: usize, node: i32) -> *mut u8 {
            let node = match u32::try_from(node) {
                Ok(number) => match $crate::NodeId::new(number) {
                    None => return ::core::ptr::null_mut(),
                    node => node,
                },
                Err(_) => None,
            };
            let memory = $mm.vmalloc_node(size, node);
            memory.map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::vfree`](::kmem::Mm::vfree).
        ///
        /// # Safety
        ///
        /// The area is the caller's, and nothing uses it after the call. Null is no area.
        #[track_caller]
        pub unsafe fn vfree(address: *const u8) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.vfree(address) }
        }

        /// See [`kmem::Mm::vmap`](::kmem::Mm::vmap).
        #[track_caller]
        #[must_use]
        pub fn vmap(pages: &[$crate::Page]) -> *mut u8 {
            $mm.vmap(pages).map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::vunmap`](::kmem::Mm::vunmap).
        ///
        /// # Safety
        ///
        /// Nothing uses the addresses any more. Null is nothing.
        #[track_caller]
        pub unsafe fn vunmap(address: *const u8) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.vunmap(address) }
        }

        /// See [`kmem::Mm::vm_map_ram`](::kmem::Mm::vm_map_ram).
        #[track_caller]
        #[must_use]
        pub fn vm_map_ram(pages: &[$crate::Page]) -> *mut u8 {
            $mm.vm_map_ram(pages).map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::vm_unmap_ram`](::kmem::Mm::vm_unmap_ram).
        ///
        /// # Safety
        ///
        /// Nothing uses the addresses any more.
        #[track_caller]
        pub unsafe fn vm_unmap_ram(address: *const u8, count: usize) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.vm_unmap_ram(address, count) }
        }

        /// See [`kmem::Mm::vmalloc_to_page`](::kmem::Mm::vmalloc_to_page).
        #[must_use]
        pub fn vmalloc_to_page(address: *const u8) -> Option<$crate::Page> {
            $mm.vmalloc_to_page(address)
        }

        /// See [`kmem::Mm::kvmalloc`](::kmem::Mm::kvmalloc).
        #[track_caller]
        #[must_use]
        pub fn kvmalloc(size: usize, gfp: $crate::Gfp) -> *mut u8 {
            $mm.kvmalloc(size, gfp).map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::kvzalloc`](::kmem::Mm::kvzalloc).
        #[track_caller]
        #[must_use]
        pub fn kvzalloc(size: usize, gfp: $crate::Gfp) -> *mut u8 {
            $mm.kvzalloc(size, gfp).map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::kvfree`](::kmem::Mm::kvfree).
        ///
        /// # Safety
        ///
        /// The memory is the caller's, and nothing uses it after the call. Null is no memory.
        #[track_caller]
        pub unsafe fn kvfree(memory: *const u8) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.kvfree(memory) }
        }
    };
}
