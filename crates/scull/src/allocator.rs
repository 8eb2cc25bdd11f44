//! The sample module `allocator`: RAM above `mem=`, for drivers that want large buffers (A320).
//!
//! ```text
//!   0            the manager's RAM            mem=     RAM that nobody manages     end
//!   [-----------------------------------------)[ buffer )[ buffer )[ free )[ table )
//! ```
//!
//! The manager was told on the command line to leave the end of RAM alone (A257). This module hands that
//! out: it keeps a list of its own, and nothing of the manager's is needed for it or touched by it.
//! Nothing of the kernel has to be changed for it; but whoever puts RAM into the machine or takes some
//! out has to change the command line. Such memory lies high, so that devices of the ISA bus, which have
//! 24 address lines, do not reach it (A258).
//!
//! A module that comes late can use it, as it can `bigphysarea`: both were set aside at boot by others.
//! What is allocated at boot by the kernel's own code a module cannot have (A260).

use core::ops::Range;
use core::ptr::NonNull;

use kmem::boot::carveout::Usage;
use kmem::boot::{Carveout, CarveoutError};
use kmem::{Gfp, Mm, PhysAddr, Platform, Reclaim};

/// What devices of the ISA bus reach.
pub const ISA_LIMIT: PhysAddr = PhysAddr::new(16 << 20);

/// The module, loaded.
pub struct Allocator<'m, P: Platform, R: Reclaim> {
    mm: &'m Mm<P, R>,
    memory: Carveout,
    range: Range<PhysAddr>,
    isa_limit: PhysAddr,
}

impl<'m, P: Platform, R: Reclaim> Allocator<'m, P, R> {
    /// Loads the module: takes the largest range above `mem=` that the direct map reaches, or as much of
    /// it as it reaches. Devices of the ISA bus reach what lies below `isa_limit`: [`ISA_LIMIT`] on a PC.
    ///
    /// # Errors
    ///
    /// [`CarveoutError::Nothing`] where there is no such RAM.
    ///
    /// # Context
    ///
    /// Any but NMI.
    ///
    /// # Safety
    ///
    /// Nobody else uses the RAM above `mem=`: the module is loaded once at a time.
    pub unsafe fn load(mm: &'m Mm<P, R>, isa_limit: PhysAddr) -> Result<Self, CarveoutError> {
        let limit = mm.platform().limit().get();
        let seen = |range: kmem::PfnRange| {
            let end = (range.end << P::PAGE_SHIFT).min(limit);
            PhysAddr::new(range.start << P::PAGE_SHIFT)..PhysAddr::new(end)
        };
        let size = |range: &Range<PhysAddr>| range.end.get().saturating_sub(range.start.get());
        let range = mm.unmanaged_ram().map(seen).max_by_key(size).ok_or(CarveoutError::Nothing)?;
        let memory = Carveout::new();
        // SAFETY: the manager leaves that RAM alone, and the caller vouches for everybody else.
        unsafe { memory.begin(mm.platform(), range.clone()) }?;
        Ok(Allocator { mm, memory, range, isa_limit })
    }

    /// Unloads the module: it can be loaded again then.
    ///
    /// # Errors
    ///
    /// The module itself, where buffers of it are out.
    pub fn unload(self) -> Result<(), Self> {
        match self.usage() {
            Ok(usage) if usage.used == 0 => Ok(()),
            _ => Err(self),
        }
    }

    /// The RAM that it took, its table included.
    pub fn range(&self) -> Range<PhysAddr> {
        self.range.clone()
    }

    /// Allocates so many KiB, contiguous, beginning with a page and rounded up to pages. The content is
    /// whatever was there. With `Gfp::DMA`, memory for the ISA bus is meant.
    ///
    /// # Errors
    ///
    /// [`CarveoutError::NoRoom`]; [`CarveoutError::NotForDma`] where the ISA bus does not reach the
    /// memory (A258); [`CarveoutError::BadFlags`] and the others.
    ///
    /// # Context
    ///
    /// Any; an NMI handler may be refused.
    pub fn allocate_dma(&self, kilobytes: u64, gfp: Gfp) -> Result<NonNull<u8>, CarveoutError> {
        gfp.check().map_err(CarveoutError::BadFlags)?;
        let not_for_dma =
            |end| Err(CarveoutError::NotForDma { end: PhysAddr::new(end), limit: self.isa_limit });
        if gfp.contains(Gfp::DMA) && self.range.start >= self.isa_limit {
            return not_for_dma(self.range.end.get());
        }
        let pages = kilobytes.saturating_mul(1 << 10).div_ceil(1 << P::PAGE_SHIFT);
        let platform = self.mm.platform();
        let memory = self.memory.alloc_memory(platform, pages, 1)?;
        let seen = platform.virt_to_phys(kmem::VirtAddr::from_ptr(memory.as_ptr()));
        let end = seen.map_or(u64::MAX, |start| start.get() + (pages << P::PAGE_SHIFT));
        if gfp.contains(Gfp::DMA) && end > self.isa_limit.get() {
            // The lowest place is the one that was found: no other would do.
            // SAFETY: it was just allocated, and nobody was told of it.
            let _ = unsafe { self.memory.free_memory(platform, memory) };
            return not_for_dma(end);
        }
        Ok(memory)
    }

    /// Gives back what [`Allocator::allocate_dma`] gave. An address where no buffer begins is reported
    /// to the platform, and changes nothing.
    ///
    /// # Context
    ///
    /// Any but NMI.
    ///
    /// # Safety
    ///
    /// The buffer is the caller's, and nothing uses it after the call.
    #[track_caller]
    pub unsafe fn free_dma(&self, memory: NonNull<u8>) {
        // SAFETY: the caller's promise.
        if let Err(misuse) = unsafe { self.memory.free_memory(self.mm.platform(), memory) } {
            self.mm.platform().misuse(&misuse);
        }
    }

    /// How full its memory is, in pages.
    ///
    /// # Errors
    ///
    /// [`CarveoutError::Busy`] in an NMI handler.
    pub fn usage(&self) -> Result<Usage, CarveoutError> {
        self.memory.usage(self.mm.platform())
    }
}
