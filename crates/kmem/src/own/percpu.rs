//! Per-CPU variables that own their memory.

use core::alloc::Layout;
use core::marker::PhantomData;

use super::{Handle, Zeroable};
use crate::mm::Allocated;
use crate::percpu::{Copies, CpuCell, CpuCounter, PerCpuVar};
use crate::{AllocError, CpuId, Gfp};

// SAFETY: nobody is inside, and the value is zeros.
unsafe impl<T: Zeroable> Zeroable for CpuCell<T> {}
// SAFETY: nobody is inside, and both numbers are 0.
unsafe impl Zeroable for CpuCounter {}

/// A variable with a copy for each CPU that there can be, which is given back when this is dropped
/// (A287, A288).
///
/// This CPU's copy is had with [`Mm::get_cpu_var`](crate::Mm::get_cpu_var), another's with
/// [`Mm::per_cpu`](crate::Mm::per_cpu). Where the values are ordinary data that a CPU changes in place,
/// `T` is a [`CpuCell`].
///
/// # Context
///
/// Making one: as [`Mm::__alloc_percpu_gfp`](crate::Mm::__alloc_percpu_gfp) with these flags. Dropping
/// one: any but NMI, as far as `T` allows.
///
/// ```
/// # use kmem::{Mm, Setup, MemoryMap, NodeId};
/// # let mut ram = vec![0; 9 << 20];
/// # // SAFETY: one thread.
/// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
/// # // SAFETY: the RAM is there, and nobody else uses it.
/// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
/// use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use kmem::{CpuId, GFP_KERNEL, PerCpu};
///
/// let hits: PerCpu<AtomicU32, _> = PerCpu::new_zeroed_in(GFP_KERNEL, &mm)?;
/// mm.this_cpu_add(&hits, 3);
/// let own = mm.get_cpu_var(&hits);
/// assert_eq!(own.load(Relaxed), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
///
/// `room` was allocated by the handle's manager, is this value's alone, and has a `T` for each CPU.
pub struct PerCpu<T, H: Handle> {
    room: Allocated,
    handle: H,
    owns: PhantomData<T>,
}

// SAFETY: it owns the values; the manager is used by all CPUs.
unsafe impl<T: Send, H: Handle + Send> Send for PerCpu<T, H> {}
// SAFETY: shared, it gives `&T` to all CPUs.
unsafe impl<T: Send + Sync, H: Handle + Sync> Sync for PerCpu<T, H> {}

impl<T, H: Handle> PerCpu<T, H> {
    /// Allocates a copy for each CPU, with what `make` answers for it.
    ///
    /// # Errors
    ///
    /// As [`Mm::__alloc_percpu_gfp`](crate::Mm::__alloc_percpu_gfp); then `make` was not called. Where `make`
    /// panics, what it has made so far is never dropped.
    #[track_caller]
    pub fn new_in(
        mut make: impl FnMut(CpuId) -> T,
        gfp: Gfp,
        handle: H,
    ) -> Result<Self, AllocError> {
        let room = Self::allocate(gfp, &handle)?;
        for (cpu, copy) in room.copies() {
            // SAFETY: there is room for one.
            unsafe { copy.cast::<T>().write(make(cpu)) };
        }
        Ok(PerCpu { room, handle, owns: PhantomData })
    }

    /// Allocates a copy of zeros for each CPU, which are a value.
    ///
    /// # Errors
    ///
    /// As [`Mm::__alloc_percpu_gfp`](crate::Mm::__alloc_percpu_gfp).
    #[track_caller]
    pub fn new_zeroed_in(gfp: Gfp, handle: H) -> Result<Self, AllocError>
    where
        T: Zeroable,
    {
        let room = Self::allocate(gfp, &handle)?;
        Ok(PerCpu { room, handle, owns: PhantomData })
    }

    #[track_caller]
    fn allocate(gfp: Gfp, handle: &H) -> Result<Allocated, AllocError> {
        let layout = Layout::new::<T>();
        handle.mm().allocate_percpu(layout.size().max(1), layout.align(), gfp)
    }
}

impl<T, H: Handle> PerCpu<T, H> {
    /// All copies, for whoever has the variable to itself.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (CpuId, &mut T)> {
        // SAFETY: each is a value of this variable, which is borrowed mutably.
        self.room.copies().map(|(cpu, copy)| (cpu, unsafe { copy.cast::<T>().as_mut() }))
    }
}

// SAFETY: by the type's invariant.
unsafe impl<T: Sync, H: Handle> PerCpuVar for PerCpu<T, H> {
    type Value = T;

    #[inline]
    fn copies(&self) -> Copies<T> {
        let Allocated { memory, cpus, owner } = self.room;
        Copies { owner, cpus, image: self.room.first().cast(), memory: Some(memory) }
    }
}

impl<T, H: Handle> Drop for PerCpu<T, H> {
    fn drop(&mut self) {
        if core::mem::needs_drop::<T>() {
            for (_, copy) in self.room.copies() {
                // SAFETY: each is a value, and used no more.
                unsafe { copy.cast::<T>().drop_in_place() };
            }
        }
        // SAFETY: it is this value's, and used no more.
        unsafe { self.handle.mm().free_percpu(self.room.first().as_ptr()) };
    }
}

/// A counter that many CPUs add to and few read: a part for each CPU.
///
/// To add takes neither a lock nor a locked instruction, and is right in interrupt and NMI handlers
/// ([`CpuCounter`] says how). To read it is to sum the parts.
///
/// ```
/// # use kmem::{Mm, Setup, MemoryMap, NodeId};
/// # let mut ram = vec![0; 9 << 20];
/// # // SAFETY: one thread.
/// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
/// # // SAFETY: the RAM is there, and nobody else uses it.
/// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
/// use kmem::{GFP_KERNEL, PerCpuCounter};
///
/// let packets = PerCpuCounter::new_in(GFP_KERNEL, &mm)?;
/// packets.inc();
/// packets.add(10);
/// packets.add(-1);
/// assert_eq!(packets.sum(), 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PerCpuCounter<H: Handle> {
    parts: PerCpu<CpuCounter, H>,
}

impl<H: Handle> PerCpuCounter<H> {
    /// A counter that says 0.
    ///
    /// # Errors
    ///
    /// As [`Mm::__alloc_percpu_gfp`](crate::Mm::__alloc_percpu_gfp).
    #[track_caller]
    pub fn new_in(gfp: Gfp, handle: H) -> Result<Self, AllocError> {
        Ok(PerCpuCounter { parts: PerCpu::new_zeroed_in(gfp, handle)? })
    }

    /// Adds. Any context. Cost: that of [`Cpus::pin`](crate::platform::Cpus::pin), and a few loads and
    /// stores of a line that no other CPU has.
    #[inline]
    pub fn add(&self, amount: i64) {
        self.parts.handle.mm().counter_add(&self.parts, amount);
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// The sum of all parts: exact where nobody adds meanwhile. Any context. Cost: a line of each CPU's.
    pub fn sum(&self) -> i64 {
        self.parts.handle.mm().counter_sum(&self.parts)
    }
}
