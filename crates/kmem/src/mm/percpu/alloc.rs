//! Allocating per-CPU data.

use core::alloc::Layout;
use core::panic::Location;
use core::ptr::NonNull;

use super::super::Mm;
use crate::gfp::GfpError;
use crate::percpu::{Memory, Wanted};
use crate::platform::{Passed, PerCpuPlace, Platform};
use crate::reclaim::Reclaim;
use crate::{AllocError, CpuId, GFP_KERNEL, Gfp, Order, VirtAddr};

/// How much per-CPU data there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PerCpuCounts {
    /// Chunks. Each has a page for each CPU.
    pub chunks: u64,
    /// Objects.
    pub objects: u64,
    /// Their bytes, at each CPU: sizes are rounded up to 8.
    pub bytes: u64,
}

/// Per-CPU memory that was just allocated.
///
/// # Invariants
///
/// It is there until it is given back, for `cpus` CPUs.
#[derive(Clone, Copy)]
pub(crate) struct Allocated {
    pub(crate) memory: Memory,
    pub(crate) cpus: u32,
    pub(crate) owner: usize,
}

impl Allocated {
    /// Each CPU, and its copy.
    pub(crate) fn copies(self) -> impl Iterator<Item = (CpuId, NonNull<u8>)> {
        let cpus = (0..self.cpus).filter_map(CpuId::new);
        // SAFETY: by the invariant each has one.
        cpus.map(move |cpu| (cpu, unsafe { self.memory.copy(cpu) }))
    }

    /// The boot CPU's copy: what a call names all copies by.
    pub(crate) fn first(self) -> NonNull<u8> {
        // SAFETY: there is a boot CPU.
        unsafe { self.memory.copy(CpuId::BOOT) }
    }
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Allocates a zeroed object of `size` bytes for every CPU that there can be, each at a multiple of
    /// `align` (A287, A290). Given back with [`Mm::free_percpu`].
    ///
    /// The answer is the address of the boot CPU's copy and names them all: [`Mm::per_cpu_ptr`],
    /// [`Mm::this_cpu_ptr`] and [`Mm::get_cpu_ptr`] find the others'. [`PerCpu`](crate::PerCpu) is the
    /// same as a type that owns its memory, with nothing unsafe about it.
    ///
    /// Copies of different CPUs are on different pages, and so never in one line of the processor's
    /// cache (A291). Sizes are rounded up to 8 bytes.
    ///
    /// # Errors
    ///
    /// [`AllocError::ZeroSize`] for 0 bytes; [`AllocError::PerCpuLayout`] for more than a page, or an
    /// alignment that is above that or no power of two; [`AllocError::NoMemory`] where there is none.
    ///
    /// # Context
    ///
    /// May sleep: it allocates with `GFP_KERNEL`. Not in an NMI handler, where it is reported.
    ///
    /// # Cost
    ///
    /// One lock and a search of a few steps, and the zeros, which each CPU's cache gives up for them. Every
    /// so often a page for each CPU.
    #[track_caller]
    pub fn __alloc_percpu(&self, size: usize, align: usize) -> Result<NonNull<u8>, AllocError> {
        self.__alloc_percpu_gfp(size, align, GFP_KERNEL)
    }

    /// As [`Mm::__alloc_percpu`], with other flags. With [`GFP_ATOMIC`](crate::GFP_ATOMIC) it does not
    /// sleep and may be called by interrupt handlers: it then succeeds where a chunk has room, or pages
    /// for a new one can be had at once.
    ///
    /// # Errors
    ///
    /// As [`Mm::__alloc_percpu`]; [`AllocError::BadFlags`] for flags that contradict each other, or ask
    /// for a zone.
    #[track_caller]
    pub fn __alloc_percpu_gfp(
        &self,
        size: usize,
        align: usize,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        self.allocate_percpu(size, align, gfp).map(Allocated::first)
    }

    /// Allocates a zeroed `T` for every CPU that there can be, with the type's own size and alignment
    /// (A287, A290). Otherwise as [`Mm::__alloc_percpu`].
    ///
    /// ```
    /// # use kmem::{Mm, Setup, MemoryMap, NodeId};
    /// # let mut ram = vec![0; 9 << 20];
    /// # // SAFETY: one thread.
    /// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
    /// # // SAFETY: the RAM is there, and nobody else uses it.
    /// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new().cpus(2)) }?;
    /// let cheetahs = mm.alloc_percpu::<u64>()?;
    /// // SAFETY: they are allocated.
    /// let own = unsafe { mm.get_cpu_ptr(cheetahs) }.expect("they are the manager's");
    /// // SAFETY: this CPU's copy, which nobody else uses.
    /// unsafe { own.as_ptr().write(7) };
    /// mm.put_cpu_ptr(own);
    /// // SAFETY: nothing uses them any more.
    /// unsafe { mm.free_percpu(cheetahs.as_ptr()) };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Mm::__alloc_percpu`].
    #[track_caller]
    pub fn alloc_percpu<T>(&self) -> Result<NonNull<T>, AllocError> {
        self.alloc_percpu_gfp(GFP_KERNEL)
    }

    /// As [`Mm::alloc_percpu`], with other flags: see [`Mm::__alloc_percpu_gfp`].
    ///
    /// # Errors
    ///
    /// As [`Mm::__alloc_percpu_gfp`].
    #[track_caller]
    pub fn alloc_percpu_gfp<T>(&self, gfp: Gfp) -> Result<NonNull<T>, AllocError> {
        let layout = Layout::new::<T>();
        self.__alloc_percpu_gfp(layout.size(), layout.align(), gfp).map(NonNull::cast)
    }

    /// How much per-CPU data there is. Takes its lock; not in an NMI handler.
    pub fn percpu_counts(&self) -> PerCpuCounts {
        let (chunks, objects, bytes) = self.percpu.lock(&self.platform).counts();
        PerCpuCounts { chunks, objects, bytes }
    }

    /// Whether the chunks, their maps and their lists agree. For tests; takes the lock, and looks at all
    /// chunks that have room.
    pub fn is_percpu_consistent(&self) -> bool {
        self.percpu.lock(&self.platform).is_consistent()
    }

    /// Allocates, and says where all copies are.
    #[track_caller]
    pub(crate) fn allocate_percpu(
        &self,
        size: usize,
        align: usize,
        gfp: Gfp,
    ) -> Result<Allocated, AllocError> {
        let tables = self.tables().ok_or(AllocError::NotBooted)?;
        gfp.check()?;
        let refused = gfp.intersection(Gfp::HIGHMEM | Gfp::MOVABLE | Gfp::DMA32 | Gfp::DMA);
        if !refused.is_empty() {
            return Err(GfpError::NotForObjects(refused).into());
        }
        if size == 0 {
            return Err(AllocError::ZeroSize);
        }
        let largest = 1 << P::PAGE_SHIFT;
        let wanted = Wanted::new(size, align, largest);
        let wanted = wanted.ok_or(AllocError::PerCpuLayout { size, align, largest })?;
        let site = Location::caller();
        if self.is_nmi_refused(Passed::Flags(gfp), site) {
            return Err(AllocError::NoMemory { order: Order::ZERO, gfp });
        }
        let gfp = self.flags_for_context(gfp, site);
        let found = self.percpu.lock(&self.platform).alloc(wanted);
        let memory = match found {
            Some(memory) => memory,
            None => self.grow_percpu(tables, wanted, gfp).inspect_err(|_| {
                self.trace_percpu_alloc(None, (size, align, 0), gfp, site);
            })?,
        };
        let allocated = Allocated { memory, cpus: tables.cpus, owner: self.identity() };
        for (_, copy) in allocated.copies() {
            // SAFETY: so many bytes, whole words, were just allocated at each CPU.
            unsafe { clear(copy, wanted.bytes()) };
        }
        if P::TRACE {
            let base = VirtAddr::from_ptr(allocated.first().as_ptr()).get() - memory.offset;
            let place = PerCpuPlace { base: VirtAddr::new(base), offset: memory.offset };
            let got = wanted.bytes() * tables.cpus as usize;
            self.trace_percpu_alloc(Some(place), (size, align, got), gfp, site);
        }
        Ok(allocated)
    }
}

/// Writes zeros. Most objects are a few words, for which a call is more than the stores.
///
/// # Safety
///
/// So many bytes, a multiple of 8, are the caller's; so is the alignment.
#[inline]
unsafe fn clear(memory: NonNull<u8>, bytes: usize) {
    const FEW: usize = 64;
    if bytes > FEW {
        // SAFETY: the caller's promise.
        unsafe { memory.write_bytes(0, bytes) };
        return;
    }
    for word in 0..bytes / size_of::<u64>() {
        // SAFETY: the caller's promise. Volatile, or the compiler makes it a call after all.
        unsafe { memory.cast::<u64>().add(word).write_volatile(0) };
    }
}
