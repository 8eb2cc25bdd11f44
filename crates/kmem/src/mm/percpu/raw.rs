//! Copies of what is named by an address (A289).

use core::marker::PhantomData;
use core::panic::Location;
use core::ptr::NonNull;

use super::super::Mm;
use crate::percpu::{Chunk, Memory};
use crate::platform::{Cpus, Misuse, MisuseKind, Passed, Platform, There, Unpreempted};
use crate::reclaim::Reclaim;
use crate::{CpuId, VirtAddr};

/// The copy of the CPU that this code is pinned to, as an address, while this lives. It stays on its
/// CPU: it is neither `Send` nor `Sync`.
#[must_use = "the code is pinned while this lives"]
pub struct CpuPtr<'m, T, P: Cpus> {
    pinned: Unpreempted<'m, P>,
    copy: NonNull<T>,
    stays: PhantomData<*mut T>,
}

impl<T, P: Cpus> CpuPtr<'_, T, P> {
    /// The address.
    #[inline]
    pub fn as_ptr(&self) -> *mut T {
        self.copy.as_ptr()
    }

    /// The CPU.
    #[inline]
    pub fn cpu(&self) -> CpuId {
        self.pinned.cpu()
    }
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// The copy of a CPU, of what [`Mm::alloc_percpu`] named (A285). Nothing protects it from that CPU.
    ///
    /// `None`, and a report, where there is no such CPU or the address is not the boot CPU's copy.
    ///
    /// Any context. Cost: to find a page's descriptor and the chunk by it.
    ///
    /// # Safety
    ///
    /// What is named is not given back meanwhile.
    #[track_caller]
    pub unsafe fn per_cpu_ptr<T>(&self, object: NonNull<T>, cpu: CpuId) -> Option<NonNull<T>> {
        self.copy_at(object, cpu, Location::caller())
    }

    /// The copy of this CPU (A289). The caller is pinned, or else the answer may be another CPU's when it
    /// is used: that is reported. Otherwise as [`Mm::per_cpu_ptr`].
    ///
    /// # Safety
    ///
    /// As [`Mm::per_cpu_ptr`].
    #[track_caller]
    pub unsafe fn this_cpu_ptr<T>(&self, object: NonNull<T>) -> Option<NonNull<T>> {
        let cpu = self.smp_processor_id();
        self.copy_at(object, cpu, Location::caller())
    }

    /// Pins, and answers the copy of this CPU (A289): the texts' `get_cpu_var` of a pointer. The code
    /// stays on the CPU until the answer is dropped or given to [`Mm::put_cpu_ptr`].
    ///
    /// `None` as [`Mm::per_cpu_ptr`]; then it is not pinned.
    ///
    /// # Safety
    ///
    /// As [`Mm::per_cpu_ptr`].
    #[track_caller]
    pub unsafe fn get_cpu_ptr<T>(&self, object: NonNull<T>) -> Option<CpuPtr<'_, T, P>> {
        let pinned = Unpreempted::new(&self.platform);
        let copy = self.copy_at(object, pinned.cpu(), Location::caller())?;
        Some(CpuPtr { pinned, copy, stays: PhantomData })
    }

    /// Ends what [`Mm::get_cpu_ptr`] began.
    pub fn put_cpu_ptr<T>(&self, copy: CpuPtr<'_, T, P>) {
        drop(copy);
    }

    /// The copy of a CPU. By the holder of the object.
    fn copy_at<T>(
        &self,
        object: NonNull<T>,
        cpu: CpuId,
        site: &'static Location<'static>,
    ) -> Option<NonNull<T>> {
        let address = VirtAddr::from_ptr(object.as_ptr().cast::<u8>());
        let wrong = |kind, there| {
            self.report(&Misuse { kind, passed: Passed::Object(address), there, site });
            None
        };
        let (chunk, of, offset) = match self.percpu_at(address) {
            Ok(found) => found,
            Err((kind, there)) => return wrong(kind, there),
        };
        // SAFETY: somebody holds an object there.
        let Memory { bases, .. } = unsafe { Chunk::memory(chunk, offset) };
        // SAFETY: as above.
        let count = unsafe { Chunk::bases(chunk) }.len();
        // SAFETY: there is a base for the boot CPU.
        let first = unsafe { Memory { bases, offset }.copy(CpuId::BOOT) };
        let object = VirtAddr::from_ptr(first.as_ptr());
        if of != CpuId::BOOT {
            return wrong(
                MisuseKind::NotFirstCopy,
                There::PerCpuData { object, cpu: of, free: false },
            );
        }
        if cpu.index() >= count {
            return wrong(MisuseKind::NoSuchCpu, There::PerCpuData { object, cpu, free: false });
        }
        // SAFETY: there is a base for the CPU.
        Some(unsafe { Memory { bases, offset }.copy(cpu) }.cast())
    }
}
