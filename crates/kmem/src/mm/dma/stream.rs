//! Memory that the CPU and a device use in turns.

use core::panic::Location;
use core::sync::atomic::{Ordering, fence};

use super::super::Mm;
use super::bounce::Copy;
use crate::dma::{Direction, DmaAddr, DmaDevice, DmaError, Record, What};
use crate::page::Page;
use crate::platform::{Passed, Platform};
use crate::reclaim::Reclaim;
use crate::{AllocError, PhysAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Gives a buffer of the direct map to a device, and answers the address that the device is told. Taken
    /// back with [`Mm::dma_unmap_single`]; [`Mm::dma_mapped`] is the same as a value that does that by
    /// itself.
    ///
    /// Where the device does not reach the buffer, slots that it does reach stand in. They begin with the
    /// buffer's contents in every direction, so that what a device leaves unwritten is as it was.
    ///
    /// # Errors
    ///
    /// [`DmaError::NotForDma`], reported as misuse: an address of `vmalloc` (A228), of `ioremap`, of a
    /// stack that is mapped, null, or pages that nobody has. [`DmaError::ZeroSize`];
    /// [`DmaError::TooLarge`], [`DmaError::NoSlots`] and [`DmaError::NoMemory`] for memory that the device
    /// does not reach; [`DmaError::OthersDevice`], reported as misuse; [`DmaError::Alloc`].
    ///
    /// # Safety
    ///
    /// The buffer stays until it is unmapped, and is used meanwhile only between
    /// [`Mm::dma_sync_single_for_cpu`] and [`Mm::dma_sync_single_for_device`].
    ///
    /// # Context
    ///
    /// Any but NMI. It does not sleep; the first mapping of memory that the device does not reach allocates
    /// its slots, which in a task may.
    ///
    /// # Cost
    ///
    /// A look at the descriptor of each block, an object of kmalloc's, the device's lock; and a copy where
    /// the device does not reach the memory.
    #[track_caller]
    pub unsafe fn dma_map_single(
        &self,
        device: &DmaDevice,
        memory: *const u8,
        size: usize,
        direction: Direction,
    ) -> Result<DmaAddr, DmaError> {
        let site = Location::caller();
        if size == 0 {
            return Err(DmaError::ZeroSize);
        }
        let start = self.phys_for_dma(memory, size, site)?;
        // SAFETY: the caller's promise; all of it is RAM in use.
        unsafe { self.map_phys(device, start, size, direction, site) }
    }

    /// [`Mm::dma_map_single`] of `size` bytes from `offset` on of a page and those behind it: also of high
    /// memory, which has no address. Taken back with [`Mm::dma_unmap_page`].
    ///
    /// # Errors
    ///
    /// [`DmaError::NotInUse`], reported as misuse, where any of the pages is not RAM in use; otherwise, and
    /// in context and cost, as [`Mm::dma_map_single`].
    ///
    /// # Safety
    ///
    /// As [`Mm::dma_map_single`]; the pages are the caller's.
    #[track_caller]
    pub unsafe fn dma_map_page(
        &self,
        device: &DmaDevice,
        page: Page,
        offset: usize,
        size: usize,
        direction: Direction,
    ) -> Result<DmaAddr, DmaError> {
        let site = Location::caller();
        if size == 0 {
            return Err(DmaError::ZeroSize);
        }
        let start = self.page_to_phys(page).get().saturating_add(offset as u64);
        let start = PhysAddr::new(start);
        self.check_all_in_use(start, size, site)?;
        // SAFETY: the caller's promise; all of it is RAM in use.
        unsafe { self.map_phys(device, start, size, direction, site) }
    }

    /// # Safety
    ///
    /// As [`Mm::dma_map_page`]; all of the bytes are RAM in use.
    unsafe fn map_phys(
        &self,
        device: &DmaDevice,
        start: PhysAddr,
        size: usize,
        direction: Direction,
        caller: &'static Location<'static>,
    ) -> Result<DmaAddr, DmaError> {
        if self.is_nmi_refused(Passed::Dma { address: start.get(), size }, caller) {
            return Err(DmaError::Alloc(AllocError::Atomic));
        }
        let record = |address: PhysAddr, bounced| Record {
            address: address.get(),
            size,
            what: What::Stream { direction, bounced },
            caller,
        };
        if device.mask().reaches(start.get(), size as u64) {
            self.note(device, record(start, None))?;
            return Ok(start.into());
        }
        let (slot, at) = self.take_slots(device, (start, size), caller)?;
        // SAFETY: the slots were just taken; nobody uses the memory, as the caller promises.
        unsafe { self.copy(device, (start, slot), (0, size), Copy::In) };
        self.note(device, record(at, Some((start, slot))))
            .inspect_err(|_| self.give_slots(device, slot, size))?;
        Ok(at.into())
    }

    /// Takes a buffer back from a device: what the device wrote is there when this returns.
    ///
    /// What the device has not, or not with this size or direction, is reported as misuse, and nothing
    /// changes: also where it was taken back before, in an NMI handler, and where the device is another
    /// manager's.
    ///
    /// # Safety
    ///
    /// The device has done with the buffer and has forgotten the address.
    ///
    /// # Context
    ///
    /// Any but NMI. Cost: the device's lock, a free of kmalloc's; and a copy where slots stood in and the
    /// device may have written.
    #[track_caller]
    pub unsafe fn dma_unmap_single(
        &self,
        device: &DmaDevice,
        address: DmaAddr,
        size: usize,
        direction: Direction,
    ) {
        let is_wanted = |record: &Record| record.size == size && is_stream(record, direction);
        let passed = (address.get(), size);
        let record = self.take_note(device, passed, is_wanted, Location::caller());
        let Some(Record { what: What::Stream { bounced: Some((memory, slot)), .. }, .. }) = record
        else {
            return;
        };
        if direction.is_from_device() {
            // SAFETY: the record was this mapping's: the slots are ours until they are given back below,
            // and the memory is as the caller of the mapping promised.
            unsafe { self.copy(device, (memory, slot), (0, size), Copy::Out) };
        }
        self.give_slots(device, slot, size);
    }

    /// Takes back what [`Mm::dma_map_page`] gave. The same as [`Mm::dma_unmap_single`].
    ///
    /// # Safety
    ///
    /// As [`Mm::dma_unmap_single`]; so are context and cost.
    #[track_caller]
    pub unsafe fn dma_unmap_page(
        &self,
        device: &DmaDevice,
        address: DmaAddr,
        size: usize,
        direction: Direction,
    ) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.dma_unmap_single(device, address, size, direction) }
    }

    /// Lets the CPU have a buffer for a while that stays mapped: what the device wrote is there when this
    /// returns.
    ///
    /// `size` bytes from `offset` on are exchanged, which lie in what was mapped at `address`. What the
    /// device has not, or not in this direction, or not with so many bytes, is reported as misuse.
    ///
    /// # Safety
    ///
    /// The device does not use those bytes until [`Mm::dma_sync_single_for_device`].
    ///
    /// # Context
    ///
    /// Any but NMI. Cost: the device's lock, and a copy where slots stand in.
    #[track_caller]
    pub unsafe fn dma_sync_single_for_cpu(
        &self,
        device: &DmaDevice,
        address: DmaAddr,
        (offset, size): (usize, usize),
        direction: Direction,
    ) {
        let site = Location::caller();
        let copied = direction.is_from_device().then_some(Copy::Out);
        // SAFETY: the caller's promise.
        unsafe { self.sync(device, address, (offset, size), direction, copied, site) };
        // The driver has read that the device is done. Reads of what it wrote come after that.
        fence(Ordering::Acquire);
    }

    /// Gives a buffer back to the device that was taken for a while by [`Mm::dma_sync_single_for_cpu`]:
    /// what the CPU wrote is there for the device.
    ///
    /// Wrong calls, context and cost are as there.
    ///
    /// # Safety
    ///
    /// The CPU does not use those bytes any more.
    #[track_caller]
    pub unsafe fn dma_sync_single_for_device(
        &self,
        device: &DmaDevice,
        address: DmaAddr,
        (offset, size): (usize, usize),
        direction: Direction,
    ) {
        let site = Location::caller();
        // In every direction, as at first: what the device leaves unwritten is what the CPU left.
        // SAFETY: the caller's promise.
        unsafe { self.sync(device, address, (offset, size), direction, Some(Copy::In), site) };
        // What was written is there before the device is told.
        fence(Ordering::Release);
    }

    /// # Safety
    ///
    /// Neither the device nor anybody else uses the bytes.
    unsafe fn sync(
        &self,
        device: &DmaDevice,
        address: DmaAddr,
        (offset, size): (usize, usize),
        direction: Direction,
        copied: Option<Copy>,
        site: &'static Location<'static>,
    ) {
        let is_wanted = |record: &Record| {
            is_stream(record, direction) && offset <= record.size && size <= record.size - offset
        };
        let found = self.look_up(device, (address.get(), size), is_wanted, site);
        if let (Some(Record { what: What::Stream { bounced: Some(bounced), .. }, .. }), Some(way)) =
            (found, copied)
        {
            // SAFETY: the mapping has the slots, and so many bytes; the caller's promise.
            unsafe { self.copy(device, bounced, (offset, size), way) };
        }
    }
}

/// Whether something was given in this direction, to be used in turns.
fn is_stream(record: &Record, wanted: Direction) -> bool {
    matches!(record.what, What::Stream { direction, .. } if direction == wanted)
}
