//! Per-CPU data's calls.

/// Part of [`texts_names!`](crate::texts_names): per-CPU data.
#[macro_export]
#[doc(hidden)]
macro_rules! __texts_names_percpu {
    ($mm:expr) => {
        /// See [`kmem::Mm::__alloc_percpu`](::kmem::Mm::__alloc_percpu).
        #[track_caller]
        #[must_use]
        pub fn __alloc_percpu(size: usize, align: usize) -> *mut u8 {
            let object = $mm.__alloc_percpu(size, align);
            object.map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::alloc_percpu`](::kmem::Mm::alloc_percpu).
        #[track_caller]
        #[must_use]
        pub fn alloc_percpu<T>() -> *mut T {
            let object = $mm.alloc_percpu();
            object.map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::free_percpu`](::kmem::Mm::free_percpu).
        ///
        /// # Safety
        ///
        /// The object is the caller's, and no CPU uses its copy after the call. Null is no object.
        #[track_caller]
        pub unsafe fn free_percpu<T>(object: *const T) {
            // SAFETY: the caller's promise is the same.
            unsafe { $mm.free_percpu(object) }
        }

        /// See [`kmem::Mm::per_cpu_ptr`](::kmem::Mm::per_cpu_ptr). Null where there is no such copy.
        ///
        /// # Safety
        ///
        /// What is named is not given back meanwhile.
        #[track_caller]
        #[must_use]
        pub unsafe fn per_cpu_ptr<T>(object: *mut T, cpu: $crate::CpuId) -> *mut T {
            let Some(object) = ::core::ptr::NonNull::new(object) else {
                return ::core::ptr::null_mut();
            };
            // SAFETY: the caller's promise is the same.
            let copy = unsafe { $mm.per_cpu_ptr(object, cpu) };
            copy.map_or(::core::ptr::null_mut(), ::core::ptr::NonNull::as_ptr)
        }

        /// See [`kmem::Mm::smp_processor_id`](::kmem::Mm::smp_processor_id).
        #[track_caller]
        #[must_use]
        pub fn smp_processor_id() -> u32 {
            $mm.smp_processor_id().get()
        }
    };
}
