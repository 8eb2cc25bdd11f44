//! Giving per-CPU data back, and finding out what is wrong with it.

use core::panic::Location;
use core::ptr::NonNull;

use super::super::Mm;
use crate::percpu::{Chunk, NotAllocated};
use crate::platform::{Misuse, MisuseKind, Passed, Platform, There};
use crate::reclaim::Reclaim;
use crate::{CpuId, VirtAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Gives an object back, with the copies of all CPUs (A288). Null is no object, and nothing is done.
    ///
    /// # Wrong frees
    ///
    /// An object that is free already, an address inside one, another CPU's copy, memory that is no
    /// per-CPU data: each is found here, reported to
    /// [`Hooks::misuse`](crate::platform::Hooks::misuse), and changes nothing.
    ///
    /// # Safety
    ///
    /// The object is the caller's, and no CPU uses its copy after the call. What the checks cannot tell
    /// is an object that was freed and has been handed out to somebody else since.
    ///
    /// # Context
    ///
    /// Any but NMI, where it is reported; does not sleep.
    ///
    /// # Cost
    ///
    /// One lock and a few steps. Every so often a page for each CPU goes back: of chunks that nobody uses
    /// one is kept.
    #[track_caller]
    pub unsafe fn free_percpu<T>(&self, object: *const T) {
        let site = Location::caller();
        let Some(first) = NonNull::new(object.cast_mut().cast::<u8>()) else { return };
        let address = VirtAddr::from_ptr(first.as_ptr());
        if self.is_nmi_refused(Passed::Object(address), site) {
            return;
        }
        let freed = {
            let mut chunks = self.percpu.lock(&self.platform);
            self.percpu_at(address).and_then(|(chunk, cpu, offset)| {
                let first = |offset| {
                    // SAFETY: the page is marked and the lock is held, so the chunk is there.
                    VirtAddr::from_ptr(
                        unsafe { Chunk::bases(chunk)[0] }.as_ptr().wrapping_add(offset),
                    )
                };
                let there = |offset, free| There::PerCpuData { object: first(offset), cpu, free };
                let wrong = |error| match error {
                    NotAllocated::Free => (MisuseKind::DoubleFree, there(offset, true)),
                    NotAllocated::Inside(start) => (MisuseKind::InsideObject, there(start, false)),
                };
                if cpu != CpuId::BOOT {
                    // SAFETY: as above.
                    unsafe { chunks.find(chunk, offset) }.map_err(wrong)?;
                    return Err((MisuseKind::NotFirstCopy, there(offset, false)));
                }
                // SAFETY: as above.
                if P::TRACE && unsafe { chunks.find(chunk, offset) }.is_ok() {
                    // SAFETY: as above.
                    self.trace_percpu_free(unsafe { Chunk::bases(chunk)[0] }, offset);
                }
                // SAFETY: as above.
                let spare = unsafe { chunks.free(chunk, offset) }.map_err(wrong)?;
                if let Some(spare) = spare {
                    self.unmark_percpu(spare);
                }
                Ok(spare)
            })
        };
        match freed {
            Ok(None) => {}
            Ok(Some(spare)) => _ = self.free_chunk(spare),
            Err((kind, there)) => self.report_percpu(kind, there, address, site),
        }
    }

    /// Reports a wrong free. What is no per-CPU data is described by what it is.
    #[cold]
    #[inline(never)]
    fn report_percpu(
        &self,
        kind: MisuseKind,
        there: There,
        address: VirtAddr,
        site: &'static Location<'static>,
    ) {
        let (kind, there) = match there {
            There::Nothing => match self.object_there(address).unwrap_or(There::Nothing) {
                There::Nothing => (MisuseKind::Foreign, There::Nothing),
                // The chunk that it was in has gone.
                there @ (There::Free { .. } | There::PerCpu { .. }) => {
                    (MisuseKind::DoubleFree, there)
                }
                There::Reserved => (MisuseKind::Reserved, There::Reserved),
                there => (kind, there),
            },
            there => (kind, there),
        };
        self.report(&Misuse { kind, passed: Passed::Object(address), there, site });
    }

    /// The chunk that an address lies in, the CPU whose page that is, and the offset. Under the lock, or
    /// for the holder of an object there.
    pub(super) fn percpu_at(
        &self,
        address: VirtAddr,
    ) -> Result<(NonNull<Chunk>, CpuId, usize), (MisuseKind, There)> {
        let found = || {
            let physical = self.platform.virt_to_phys(address)?.get();
            let pfn = crate::Pfn::new(physical >> P::PAGE_SHIFT)?;
            let chunk = self.chunk_of(crate::page::Page::of(pfn))?;
            let offset = (physical & ((1 << P::PAGE_SHIFT) - 1)) as usize;
            let page = address.get() - offset;
            // SAFETY: the page is marked, so the chunk is there.
            let bases = unsafe { Chunk::bases(chunk) };
            // Nearly always the first.
            let cpu = bases.iter().position(|base| base.as_ptr().addr() == page)?;
            Some((chunk, CpuId::new(cpu as u32)?, offset))
        };
        found().ok_or((MisuseKind::NoObject, There::Nothing))
    }
}
