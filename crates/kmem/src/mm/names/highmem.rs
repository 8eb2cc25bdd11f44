//! The calls that map high memory.

/// Part of [`texts_names!`](crate::texts_names): high memory.
#[macro_export]
#[doc(hidden)]
macro_rules! __texts_names_highmem {
    ($mm:expr) => {
        /// See [`kmem::Mm::kmap`](::kmem::Mm::kmap); null where the page cannot be mapped.
        #[track_caller]
        #[must_use]
        pub fn kmap(page: $crate::Page) -> *mut u8 {
            $mm.kmap(page).map_or(::core::ptr::null_mut(), $crate::VirtAddr::as_ptr)
        }

        /// See [`kmem::Mm::kunmap`](::kmem::Mm::kunmap).
        ///
        /// # Safety
        ///
        /// The caller has mapped the page and uses the address no more.
        #[track_caller]
        pub unsafe fn kunmap(page: $crate::Page) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.kunmap(page) }
        }

        /// See [`kmem::Mm::kmap_atomic`](::kmem::Mm::kmap_atomic); null where the page cannot be
        /// mapped.
        #[track_caller]
        #[must_use]
        pub fn kmap_atomic(page: $crate::Page, slot: $crate::highmem::KmType) -> *mut u8 {
            $mm.kmap_atomic(page, slot).map_or(::core::ptr::null_mut(), $crate::VirtAddr::as_ptr)
        }

        /// See [`kmem::Mm::kunmap_atomic`](::kmem::Mm::kunmap_atomic).
        ///
        /// # Safety
        ///
        /// The mapping is the caller's, who does not use the address any more.
        #[track_caller]
        pub unsafe fn kunmap_atomic(address: *const u8, slot: $crate::highmem::KmType) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.kunmap_atomic($crate::VirtAddr::from_ptr(address), slot) }
        }

        /// See [`kmem::Mm::kmap_local_page`](::kmem::Mm::kmap_local_page); null where the page cannot
        /// be mapped.
        #[track_caller]
        #[must_use]
        pub fn kmap_local_page(page: $crate::Page) -> *mut u8 {
            $mm.kmap_local_page(page).map_or(::core::ptr::null_mut(), $crate::VirtAddr::as_ptr)
        }

        /// See [`kmem::Mm::kunmap_local`](::kmem::Mm::kunmap_local).
        ///
        /// # Safety
        ///
        /// As [`kunmap_atomic`].
        #[track_caller]
        pub unsafe fn kunmap_local(address: *const u8) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.kunmap_local($crate::VirtAddr::from_ptr(address)) }
        }

        /// See [`kmem::Mm::page_address`](::kmem::Mm::page_address); null for high memory that is not
        /// mapped.
        #[must_use]
        pub fn page_address(page: $crate::Page) -> *mut u8 {
            $mm.page_address(page).map_or(::core::ptr::null_mut(), $crate::VirtAddr::as_ptr)
        }
    };
}
