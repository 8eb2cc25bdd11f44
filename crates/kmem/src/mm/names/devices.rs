//! The calls for devices.

/// A part of [`texts_names!`](crate::texts_names): registers, and memory for devices.
#[macro_export]
#[doc(hidden)]
macro_rules! __texts_names_devices {
    ($mm:expr) => {
        /// See [`kmem::Mm::ioremap`](::kmem::Mm::ioremap): null where nothing is mapped.
        #[track_caller]
        #[must_use]
        pub fn ioremap(start: u64, size: usize) -> *mut u8 {
            let registers = $mm.ioremap($crate::PhysAddr::new(start), size);
            registers.map_or(::core::ptr::null_mut(), |registers| registers.as_ptr())
        }

        /// See [`kmem::Mm::ioremap_wc`](::kmem::Mm::ioremap_wc): null where nothing is mapped.
        #[track_caller]
        #[must_use]
        pub fn ioremap_wc(start: u64, size: usize) -> *mut u8 {
            let memory = $mm.ioremap_wc($crate::PhysAddr::new(start), size);
            memory.map_or(::core::ptr::null_mut(), |memory| memory.as_ptr())
        }

        /// See [`kmem::Mm::iounmap`](::kmem::Mm::iounmap). Null is nothing.
        ///
        /// # Safety
        ///
        /// The mapping is the caller's, and nothing uses it after the call.
        #[track_caller]
        pub unsafe fn iounmap(registers: *mut u8) {
            if let Some(registers) = $crate::io::IoPtr::from_ptr(registers) {
                // SAFETY: the caller's promise is the same.
                unsafe { $mm.iounmap(registers) }
            }
        }

        /// See [`kmem::Mm::dma_alloc_coherent`](::kmem::Mm::dma_alloc_coherent): null where there is none;
        /// otherwise `address` is what the device is told.
        #[track_caller]
        #[must_use]
        pub fn dma_alloc_coherent(
            device: &$crate::dma::DmaDevice,
            size: usize,
            address: &mut u64,
            gfp: $crate::Gfp,
        ) -> *mut u8 {
            match $mm.dma_alloc_coherent(device, size, gfp) {
                Ok(given) => {
                    *address = given.address.get();
                    given.memory.as_ptr()
                }
                Err(_) => ::core::ptr::null_mut(),
            }
        }

        /// See [`kmem::Mm::dma_free_coherent`](::kmem::Mm::dma_free_coherent). Null is no memory.
        ///
        /// # Safety
        ///
        /// Neither the device nor anybody else uses the memory after the call.
        #[track_caller]
        pub unsafe fn dma_free_coherent(
            device: &$crate::dma::DmaDevice,
            size: usize,
            memory: *mut u8,
            address: u64,
        ) {
            if let Some(memory) = ::core::ptr::NonNull::new(memory) {
                let address = $crate::dma::DmaAddr::new(address);
                let given = $crate::mm::Coherent { memory, address };
                // SAFETY: the caller's promise is the same.
                unsafe { $mm.dma_free_coherent(device, size, given) }
            }
        }

        /// See [`kmem::Mm::dma_map_single`](::kmem::Mm::dma_map_single). Whether it failed is for
        /// `dma_mapping_error` to say.
        ///
        /// # Safety
        ///
        /// As there.
        #[track_caller]
        #[must_use]
        pub unsafe fn dma_map_single(
            device: &$crate::dma::DmaDevice,
            memory: *mut u8,
            size: usize,
            direction: $crate::dma::Direction,
        ) -> u64 {
            // SAFETY: the caller's promise is the same.
            let address = unsafe { $mm.dma_map_single(device, memory, size, direction) };
            address.map_or($crate::dma::MAPPING_ERROR, $crate::dma::DmaAddr::get)
        }

        /// See [`kmem::Mm::dma_map_page`](::kmem::Mm::dma_map_page), and `dma_mapping_error`.
        ///
        /// # Safety
        ///
        /// As there.
        #[track_caller]
        #[must_use]
        pub unsafe fn dma_map_page(
            device: &$crate::dma::DmaDevice,
            page: $crate::Page,
            offset: usize,
            size: usize,
            direction: $crate::dma::Direction,
        ) -> u64 {
            // SAFETY: the caller's promise is the same.
            let address = unsafe { $mm.dma_map_page(device, page, offset, size, direction) };
            address.map_or($crate::dma::MAPPING_ERROR, $crate::dma::DmaAddr::get)
        }

        /// Whether what a mapping answered is no address.
        #[must_use]
        pub fn dma_mapping_error(_: &$crate::dma::DmaDevice, address: u64) -> bool {
            address == $crate::dma::MAPPING_ERROR
        }

        /// See [`kmem::Mm::dma_unmap_single`](::kmem::Mm::dma_unmap_single).
        ///
        /// # Safety
        ///
        /// The device has done with the buffer.
        #[track_caller]
        pub unsafe fn dma_unmap_single(
            device: &$crate::dma::DmaDevice,
            address: u64,
            size: usize,
            direction: $crate::dma::Direction,
        ) {
            let address = $crate::dma::DmaAddr::new(address);
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.dma_unmap_single(device, address, size, direction) }
        }

        /// See [`kmem::Mm::dma_unmap_page`](::kmem::Mm::dma_unmap_page).
        ///
        /// # Safety
        ///
        /// The device has done with the pages.
        #[track_caller]
        pub unsafe fn dma_unmap_page(
            device: &$crate::dma::DmaDevice,
            address: u64,
            size: usize,
            direction: $crate::dma::Direction,
        ) {
            let address = $crate::dma::DmaAddr::new(address);
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.dma_unmap_page(device, address, size, direction) }
        }
    };
}
