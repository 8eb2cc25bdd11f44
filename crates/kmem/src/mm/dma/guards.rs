//! Memory of devices as values that give it back.

use core::fmt;
use core::ops::Deref;

use super::super::Mm;
use super::Coherent;
use crate::Gfp;
use crate::dma::{Direction, DmaAddr, DmaDevice, DmaError};
use crate::io::{IoPtr, IoRange};
use crate::platform::Platform;
use crate::reclaim::{NoReclaim, Reclaim};

/// Memory that the CPU and a device use at any time ([`Mm::dma_box`]), given back when this is dropped. The device writes it
/// when it likes, so it is read and written with the calls of [`IoRange`] and not by reference.
///
/// # Invariants
///
/// The memory was allocated for the device with this size, and is this value's.
pub struct DmaBox<'m, P: Platform, R: Reclaim = NoReclaim> {
    mm: &'m Mm<P, R>,
    device: &'m DmaDevice,
    given: Coherent,
    range: IoRange,
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// [`Mm::dma_alloc_coherent`] as a value that gives the memory back when it is dropped.
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::dma_alloc_coherent`].
    ///
    /// # Safety
    ///
    /// When the value is dropped the device has forgotten the address. To forget the value loses the memory
    /// and does no harm.
    #[track_caller]
    pub unsafe fn dma_box<'m>(
        &'m self,
        device: &'m DmaDevice,
        size: usize,
        gfp: Gfp,
    ) -> Result<DmaBox<'m, P, R>, DmaError> {
        let given = self.dma_alloc_coherent(device, size, gfp)?;
        // SAFETY: so many bytes were just allocated, and stay until this is dropped.
        let range = unsafe { IoPtr::new(given.memory).range(size) };
        Ok(DmaBox { mm: self, device, given, range })
    }

    /// [`Mm::dma_map_single`] as a value that takes the buffer back from the device when it is dropped.
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::dma_map_single`].
    ///
    /// # Safety
    ///
    /// The device uses the buffer only while the value is there, and not in [`DmaMapped::with_cpu`]. A value
    /// that is forgotten instead of dropped ends no less: the buffer is its owner's again, and only
    /// [`Mm::dma_detach`] still knows.
    #[track_caller]
    pub unsafe fn dma_mapped<'m>(
        &'m self,
        device: &'m DmaDevice,
        buffer: &'m mut [u8],
        direction: Direction,
    ) -> Result<DmaMapped<'m, P, R>, DmaError> {
        // SAFETY: the buffer is borrowed for as long as the value is there, which unmaps it; the device does
        // not use it for longer, as the caller promises.
        let address =
            unsafe { self.dma_map_single(device, buffer.as_ptr(), buffer.len(), direction) }?;
        Ok(DmaMapped { mm: self, device, buffer, direction, address })
    }
}

impl<P: Platform, R: Reclaim> DmaBox<'_, P, R> {
    /// What the device is told.
    pub fn address(&self) -> DmaAddr {
        self.given.address
    }
}

impl<P: Platform, R: Reclaim> Deref for DmaBox<'_, P, R> {
    type Target = IoRange;

    fn deref(&self) -> &IoRange {
        &self.range
    }
}

impl<P: Platform, R: Reclaim> Drop for DmaBox<'_, P, R> {
    fn drop(&mut self) {
        // SAFETY: the memory is this value's, and the device has forgotten it: so `dma_box` was promised.
        unsafe { self.mm.dma_free_coherent(self.device, self.range.size(), self.given) };
    }
}

impl<P: Platform, R: Reclaim> fmt::Debug for DmaBox<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBox").field("given", &self.given).finish_non_exhaustive()
    }
}

/// A buffer that a device has ([`Mm::dma_mapped`]), taken back when this is dropped.
///
/// # Invariants
///
/// The buffer was given to the device in this direction, and nobody reads or writes it.
pub struct DmaMapped<'m, P: Platform, R: Reclaim = NoReclaim> {
    mm: &'m Mm<P, R>,
    device: &'m DmaDevice,
    buffer: &'m mut [u8],
    direction: Direction,
    address: DmaAddr,
}

impl<P: Platform, R: Reclaim> DmaMapped<'_, P, R> {
    /// What the device is told.
    pub fn address(&self) -> DmaAddr {
        self.address
    }

    /// How many bytes the device has.
    pub fn size(&self) -> usize {
        self.buffer.len()
    }

    /// Lets `work` have the buffer, which stays mapped. The device does not use it meanwhile.
    #[track_caller]
    pub fn with_cpu<T>(&mut self, work: impl FnOnce(&mut [u8]) -> T) -> T {
        let all = (0, self.buffer.len());
        // SAFETY: the mapping is this value's, and the device does not use it: so `dma_mapped` was promised.
        unsafe {
            self.mm.dma_sync_single_for_cpu(self.device, self.address, all, self.direction);
        }
        let done = work(self.buffer);
        // SAFETY: as above; `work` has done with it.
        unsafe {
            self.mm.dma_sync_single_for_device(self.device, self.address, all, self.direction);
        }
        done
    }
}

impl<P: Platform, R: Reclaim> Drop for DmaMapped<'_, P, R> {
    fn drop(&mut self) {
        let (address, size) = (self.address, self.buffer.len());
        // SAFETY: the mapping is this value's, and the device has done with it: so `dma_mapped` was promised.
        unsafe { self.mm.dma_unmap_single(self.device, address, size, self.direction) };
    }
}

impl<P: Platform, R: Reclaim> fmt::Debug for DmaMapped<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DmaMapped { address, direction, .. } = self;
        let size = self.buffer.len();
        write!(f, "{size} bytes at {address:?}, {}", direction.name())
    }
}
