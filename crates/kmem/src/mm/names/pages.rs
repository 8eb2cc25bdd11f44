//! The page allocator's calls.

/// Half of [`texts_names!`](crate::texts_names): pages.
#[macro_export]
#[doc(hidden)]
macro_rules! __texts_names_pages {
    ($mm:expr) => {
        /// See [`kmem::Mm::alloc_pages`](::kmem::Mm::alloc_pages).
        #[track_caller]
        #[must_use]
        pub fn alloc_pages(gfp: $crate::Gfp, order: u32) -> Option<$crate::Page> {
            $mm.alloc_pages(gfp, order).ok()
        }

        /// See [`kmem::Mm::alloc_page`](::kmem::Mm::alloc_page).
        #[track_caller]
        #[must_use]
        pub fn alloc_page(gfp: $crate::Gfp) -> Option<$crate::Page> {
            $mm.alloc_page(gfp).ok()
        }

        /// See [`kmem::Mm::alloc_pages_node`](::kmem::Mm::alloc_pages_node); -1 is any node.
        #[track_caller]
        #[must_use]
        pub fn alloc_pages_node(node: i32, gfp: $crate::Gfp, order: u32) -> Option<$crate::Page> {
            let node = match u32::try_from(node) {
                Ok(number) => Some($crate::NodeId::new(number)?),
                Err(_) => None,
            };
            $mm.alloc_pages_node(node, gfp, order).ok()
        }

        /// See [`kmem::Mm::__get_free_pages`](::kmem::Mm::__get_free_pages).
        #[track_caller]
        #[must_use]
        pub fn __get_free_pages(gfp: $crate::Gfp, order: u32) -> usize {
            $mm.__get_free_pages(gfp, order).map_or(0, $crate::VirtAddr::get)
        }

        /// See [`kmem::Mm::__get_free_page`](::kmem::Mm::__get_free_page).
        #[track_caller]
        #[must_use]
        pub fn __get_free_page(gfp: $crate::Gfp) -> usize {
            $mm.__get_free_page(gfp).map_or(0, $crate::VirtAddr::get)
        }

        /// See [`kmem::Mm::get_zeroed_page`](::kmem::Mm::get_zeroed_page).
        #[track_caller]
        #[must_use]
        pub fn get_zeroed_page(gfp: $crate::Gfp) -> usize {
            $mm.get_zeroed_page(gfp).map_or(0, $crate::VirtAddr::get)
        }

        /// See [`kmem::Mm::__get_dma_pages`](::kmem::Mm::__get_dma_pages).
        #[track_caller]
        #[must_use]
        pub fn __get_dma_pages(gfp: $crate::Gfp, order: u32) -> usize {
            $mm.__get_dma_pages(gfp, order).map_or(0, $crate::VirtAddr::get)
        }

        /// See [`kmem::Mm::__free_pages`](::kmem::Mm::__free_pages).
        ///
        /// # Safety
        ///
        /// The block is the caller's, and nothing uses it after the call.
        #[track_caller]
        pub unsafe fn __free_pages(page: $crate::Page, order: u32) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.__free_pages(page, order) }
        }

        /// See [`kmem::Mm::__free_page`](::kmem::Mm::__free_page).
        ///
        /// # Safety
        ///
        /// As [`__free_pages`].
        #[track_caller]
        pub unsafe fn __free_page(page: $crate::Page) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.__free_page(page) }
        }

        /// See [`kmem::Mm::free_pages`](::kmem::Mm::free_pages).
        ///
        /// # Safety
        ///
        /// As [`__free_pages`].
        #[track_caller]
        pub unsafe fn free_pages(address: usize, order: u32) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.free_pages($crate::VirtAddr::new(address), order) }
        }

        /// See [`kmem::Mm::free_page`](::kmem::Mm::free_page).
        ///
        /// # Safety
        ///
        /// As [`__free_pages`].
        #[track_caller]
        pub unsafe fn free_page(address: usize) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.free_page($crate::VirtAddr::new(address)) }
        }
    };
}
