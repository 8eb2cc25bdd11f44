//! kmalloc as an allocator of the `allocator-api2` crate.

use core::alloc::Layout;
use core::ptr::NonNull;

use allocator_api2::alloc::{AllocError, Allocator};

use super::Handle;
use crate::Gfp;

/// kmalloc with certain flags, for collections that take an `allocator_api2::alloc::Allocator`.
///
/// The flags are the collection's and not the call's: one that grows in an interrupt handler has
/// [`GFP_ATOMIC`](crate::GFP_ATOMIC). Use the collection's fallible calls, such as `try_reserve`: the
/// others stop the kernel when there is no memory.
///
/// ```
/// # use kmem::{Mm, Setup, MemoryMap, NodeId};
/// # let mut ram = vec![0; 9 << 20];
/// # // SAFETY: one thread.
/// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
/// # // SAFETY: the RAM is there, and nobody else uses it.
/// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
/// use hashbrown::HashMap;
/// use kmem::{GFP_KERNEL, Kmalloc};
///
/// let mut ages = HashMap::new_in(Kmalloc::new_in(GFP_KERNEL, &mm));
/// ages.try_reserve(1).map_err(|_| "out of memory")?;
/// ages.insert("Rex", 3);
/// assert_eq!(ages["Rex"], 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kmalloc<H: Handle> {
    handle: H,
    gfp: Gfp,
}

impl<H: Handle> Kmalloc<H> {
    /// kmalloc of a manager with these flags.
    pub const fn new_in(gfp: Gfp, handle: H) -> Self {
        Kmalloc { handle, gfp }
    }

    /// kmalloc of the kernel's only manager with these flags.
    pub fn new(gfp: Gfp) -> Self
    where
        H: Default,
    {
        Self::new_in(gfp, H::default())
    }

    /// Memory of another size with what was in the old one, as far as both go.
    ///
    /// # Safety
    ///
    /// As `Allocator::grow`, or as `Allocator::shrink`.
    #[track_caller]
    unsafe fn resize(
        &self,
        memory: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        let used = old.size().min(new.size());
        let is_aligned = memory.addr().get().is_multiple_of(new.align());
        if used == 0 || !is_aligned {
            let larger = self.allocate(new)?;
            // SAFETY: both have so many bytes, and they are two.
            unsafe { larger.cast::<u8>().copy_from_nonoverlapping(memory, used) };
            // SAFETY: the caller's promise.
            unsafe { self.deallocate(memory, old) };
            return Ok(larger);
        }
        let mm = self.handle.mm();
        // SAFETY: neither size is 0, so it was allocated, and it is aligned as the new layout asks.
        let new_memory =
            unsafe { mm.krealloc_aligned(memory, used, new.size(), new.align(), self.gfp) };
        Ok(NonNull::slice_from_raw_parts(new_memory.map_err(|_| AllocError)?, new.size()))
    }
}

// SAFETY: memory that kmalloc handed out stays until it is freed, for as long as there is the manager,
// whichever copy of the handle asked for it; copies name one manager.
unsafe impl<H: Handle> Allocator for Kmalloc<H> {
    #[track_caller]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let memory = match layout.size() {
            0 => NonNull::new(core::ptr::without_provenance_mut(layout.align())),
            _ => self.handle.mm().kmalloc_layout(layout, self.gfp).ok(),
        };
        Ok(NonNull::slice_from_raw_parts(memory.ok_or(AllocError)?, layout.size()))
    }

    unsafe fn deallocate(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise; nothing was allocated for a size of 0.
        unsafe { super::layout::free(&self.handle, memory, layout.size()) };
    }

    #[track_caller]
    unsafe fn grow(
        &self,
        memory: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise.
        unsafe { self.resize(memory, old, new) }
    }

    #[track_caller]
    unsafe fn grow_zeroed(
        &self,
        memory: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise.
        let larger = unsafe { self.resize(memory, old, new)? };
        let more = new.size() - old.size();
        // SAFETY: the new memory has so many bytes behind the old ones.
        unsafe { larger.cast::<u8>().add(old.size()).write_bytes(0, more) };
        Ok(larger)
    }

    #[track_caller]
    unsafe fn shrink(
        &self,
        memory: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promise.
        unsafe { self.resize(memory, old, new) }
    }
}
