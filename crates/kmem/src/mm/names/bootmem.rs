//! The calls of boot time, and of what boot set aside.

/// Defines the calls of boot-time memory as free functions under the texts' names, over a
/// [`BootMem`](crate::boot::BootMem) and a manager in `static`s, with the texts' results: a null pointer
/// where there is no memory, and nothing from what frees. Beside [`texts_names!`](crate::texts_names).
///
/// ```
/// mod mm {
///     # use kmem::platform::desk::Desk;
///     # pub static MM: std::sync::LazyLock<kmem::Mm<Desk<'static>>> = std::sync::LazyLock::new(|| {
///     #     let ram = Box::leak(vec![0; 17 << 20].into_boxed_slice());
///     #     // SAFETY: one thread.
///     #     kmem::Mm::new(unsafe { Desk::new(ram) })
///     # });
///     pub static BOOT: kmem::boot::BootMem = kmem::boot::BootMem::new();
///     // pub static MM: kmem::Mm<Kernel> = kmem::Mm::new(Kernel);
///     kmem::bootmem_names!(BOOT, MM);
/// }
///
/// use kmem::{MemoryMap, NodeId, Setup};
///
/// let map = MemoryMap::new().ram(0..16 << 20, NodeId::ZERO);
/// // SAFETY: the RAM is there, and nobody else uses it.
/// unsafe { mm::BOOT.open(&map, &Setup::new()) }?;
/// let buffer = mm::alloc_bootmem_pages(5 << 20);
/// assert!(!buffer.is_null());
/// // SAFETY: as above.
/// unsafe { mm::MM.boot_from(&mm::BOOT, &Setup::new()) }?;
/// assert!(mm::alloc_bootmem(64).is_null(), "boot is over");
/// assert!(mm::bigphysarea_alloc(64).is_null(), "nothing was set aside");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! bootmem_names {
    ($boot:expr, $mm:expr) => {
        $crate::__bootmem_names_alloc!($boot, $mm, alloc_bootmem);
        $crate::__bootmem_names_alloc!($boot, $mm, alloc_bootmem_low);
        $crate::__bootmem_names_alloc!($boot, $mm, alloc_bootmem_pages);
        $crate::__bootmem_names_alloc!($boot, $mm, alloc_bootmem_low_pages);

        /// See [`kmem::boot::BootMem::free_bootmem`](::kmem::boot::BootMem::free_bootmem).
        ///
        /// # Safety
        ///
        /// The memory is the caller's, and nothing uses it after the call. Null is no memory.
        #[track_caller]
        pub unsafe fn free_bootmem(memory: *mut u8, size: usize) {
            if let Some(memory) = ::core::ptr::NonNull::new(memory) {
                // SAFETY: the caller's promise is the same. What is wrong is reported.
                let _ = unsafe { $boot.free_bootmem($mm.platform(), memory, size) };
            }
        }

        /// See [`kmem::Mm::bigphysarea_alloc`](::kmem::Mm::bigphysarea_alloc).
        #[must_use]
        pub fn bigphysarea_alloc(bytes: usize) -> *mut u8 {
            let memory = $mm.bigphysarea_alloc(bytes);
            memory.map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::bigphysarea_alloc_pages`](::kmem::Mm::bigphysarea_alloc_pages); an
        /// alignment of 0 is that of a page.
        #[must_use]
        pub fn bigphysarea_alloc_pages(count: u32, align: u32, gfp: $crate::Gfp) -> *mut u8 {
            let memory = $mm.bigphysarea_alloc_pages(count.into(), align.max(1).into(), gfp);
            memory.map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::bigphysarea_free`](::kmem::Mm::bigphysarea_free).
        ///
        /// # Safety
        ///
        /// The block is the caller's, and nothing uses it after the call. Null is no block.
        #[track_caller]
        pub unsafe fn bigphysarea_free(memory: *mut u8) {
            if let Some(memory) = ::core::ptr::NonNull::new(memory) {
                // SAFETY: the caller's promise is the same.
                unsafe { $mm.bigphysarea_free(memory) }
            }
        }

        /// See [`kmem::Mm::bigphysarea_free_pages`](::kmem::Mm::bigphysarea_free_pages).
        ///
        /// # Safety
        ///
        /// As [`bigphysarea_free`].
        #[track_caller]
        pub unsafe fn bigphysarea_free_pages(memory: *mut u8) {
            // SAFETY: the caller's promise is the same.
            unsafe { bigphysarea_free(memory) }
        }
    };
}

/// One of the four calls that allocate, for [`bootmem_names!`](crate::bootmem_names).
#[macro_export]
#[doc(hidden)]
macro_rules! __bootmem_names_alloc {
    ($boot:expr, $mm:expr, $name:ident) => {
        #[doc = concat!("See [`kmem::boot::BootMem::", stringify!($name), "`](::kmem::boot::BootMem::",
                                                                    stringify!($name), ").")]
        #[track_caller]
        #[must_use]
        pub fn $name(size: usize) -> *mut u8 {
            let memory = $boot.$name($mm.platform(), size);
            memory.map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }
    };
}
