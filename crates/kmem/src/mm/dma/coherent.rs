//! Memory that the CPU and a device use at any time.

use core::panic::Location;
use core::ptr::NonNull;

use super::super::Mm;
use crate::dma::{DmaAddr, DmaDevice, DmaError, Record, What};
use crate::platform::{Passed, Platform};
use crate::reclaim::Reclaim;
use crate::{AllocError, Gfp, PhysAddr};

/// Memory that the CPU and a device use at any time: where each of both sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coherent {
    /// Where the CPU sees it.
    pub memory: NonNull<u8>,
    /// What the device is told.
    pub address: DmaAddr,
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Allocates `size` bytes that the CPU and a device use at any time: whole pages, contiguous, within
    /// the device's mask for such memory, filled with zeros. Given back with [`Mm::dma_free_coherent`];
    /// [`Mm::dma_box`] is the same as a value that does that by itself.
    ///
    /// The flags say how: sleeping or not. Which zone is the mask's matter: one that lies within it, or
    /// else a run of pages in the part of a zone that does.
    ///
    /// # Errors
    ///
    /// [`DmaError::ZeroSize`]; [`DmaError::NoMemory`] where nothing within the mask is free;
    /// [`DmaError::OthersDevice`], reported as misuse; [`DmaError::Alloc`].
    ///
    /// # Context
    ///
    /// That of the flags, NMI excluded.
    ///
    /// # Cost
    ///
    /// As [`Mm::alloc_pages_exact`] where a zone lies within the mask; otherwise as
    /// [`Mm::alloc_contig_pages`]. For a driver's start, not for every packet.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # use kmem::{Mm, GFP_KERNEL, platform::desk::Desk};
    /// use kmem::dma::{DmaDevice, DmaMask};
    /// # fn example(mm: &Mm<Desk<'_>>) -> Result<(), kmem::dma::DmaError> {
    /// let card = DmaDevice::new("card", DmaMask::bits(32));
    /// let ring = mm.dma_alloc_coherent(&card, 4096, GFP_KERNEL)?;
    /// // The card is told `ring.address`; the driver uses `ring.memory`.
    /// // SAFETY: the card has forgotten it, and nothing uses it.
    /// unsafe { mm.dma_free_coherent(&card, 4096, ring) };
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn dma_alloc_coherent(
        &self,
        device: &DmaDevice,
        size: usize,
        gfp: Gfp,
    ) -> Result<Coherent, DmaError> {
        let caller = Location::caller();
        if size == 0 {
            return Err(DmaError::ZeroSize);
        }
        if self.is_nmi_refused(Passed::Dma { address: 0, size }, caller) {
            return Err(DmaError::Alloc(AllocError::Atomic));
        }
        let mask = device.mask_of_coherent();
        let no_memory = |why| DmaError::NoMemory { mask, why };
        let pages = pages_of::<P>(size);
        let first = self.pages_within(pages, mask, gfp | Gfp::ZERO).map_err(no_memory)?;
        let start = self.page_to_phys(first);
        let memory = self.page_address(first).and_then(|address| NonNull::new(address.as_ptr()));
        let record = Record { address: start.get(), size, what: What::Coherent, caller };
        let noted = match memory {
            Some(memory) => self.note(device, record).map(|()| memory),
            None => Err(no_memory(AllocError::NotAllocated)),
        };
        match noted {
            Ok(memory) => Ok(Coherent { memory, address: start.into() }),
            Err(error) => {
                // SAFETY: just allocated.
                unsafe { self.free_contig_pages(first, pages) };
                Err(error)
            }
        }
    }

    /// Gives back what [`Mm::dma_alloc_coherent`] answered for the same device and size.
    ///
    /// What the device has not, or not with this size or these addresses, is reported as misuse, and
    /// nothing changes.
    ///
    /// # Safety
    ///
    /// Neither the device nor anybody else uses the memory any more.
    ///
    /// # Context
    ///
    /// Any but NMI. Cost: that of freeing the pages.
    #[track_caller]
    pub unsafe fn dma_free_coherent(&self, device: &DmaDevice, size: usize, given: Coherent) {
        let start = PhysAddr::new(given.address.get());
        let is_seen_there = self
            .platform
            .phys_to_virt(start)
            .is_some_and(|address| address.get() == given.memory.addr().get());
        let is_wanted =
            |record: &Record| is_seen_there && record.what == What::Coherent && record.size == size;
        let passed = (given.address.get(), size);
        let record = self.take_note(device, passed, is_wanted, Location::caller());
        if let (Some(_), Some(first)) = (record, start.frame(P::PAGE_SHIFT)) {
            // SAFETY: the record says that the pages were allocated for it; the caller that nobody uses
            // them.
            unsafe { self.free_contig_pages(crate::Page::of(first), pages_of::<P>(size)) };
        }
    }
}

/// How many pages hold so many bytes.
fn pages_of<P: Platform>(size: usize) -> u64 {
    (size as u64).div_ceil(1 << P::PAGE_SHIFT)
}
