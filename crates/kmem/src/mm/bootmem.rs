//! From boot-time memory to the page allocator, and what boot has set aside for run time: the pages of
//! `bigphysarea`, and RAM above `mem=`.
//!
//! A driver that uses `bigphysarea` if there is some tries it first and does without where the call says
//! that nothing was set aside ([`CarveoutError::Nothing`]): the machine's owner decides on the command
//! line, and one driver serves both (A321).

use core::ptr::NonNull;

use super::Mm;
use crate::boot::carveout::Usage;
use crate::boot::map::ReservedClass;
use crate::boot::{BootMem, Carveout, CarveoutError, Setup};
use crate::gfp::ZoneKind;
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{BootError, Gfp, Pfn, PfnRange, PhysAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Boots with what boot-time memory has left: see [`Mm::boot`]. What is allocated there stays
    /// reserved (A253), and calls there are refused from now on (A250). What `bigphysarea=` has taken is
    /// handed out by [`Mm::bigphysarea_alloc`].
    ///
    /// # Errors
    ///
    /// As [`Mm::boot`], and [`BootError::BootMem`] where the memory is not open. Then the manager is as
    /// it was, and the memory is open as it was.
    ///
    /// # Context
    ///
    /// As [`Mm::boot`].
    ///
    /// # Safety
    ///
    /// As for [`Mm::boot`], with the map that `boot` was opened with; what was allocated there is still
    /// its owners'.
    #[track_caller]
    pub unsafe fn boot_from(&self, boot: &BootMem, setup: &Setup) -> Result<(), BootError> {
        let mut taken = boot.take(&self.platform)?;
        // SAFETY: the caller's promise.
        unsafe { self.boot(taken.map(), setup) }?;
        if let Some(range) = taken.hand_over() {
            // SAFETY: it was allocated for this, for ever, and nobody else was told of it.
            let begun = unsafe { self.bigphysarea.begin(&self.platform, range) };
            debug_assert!(begun.is_ok(), "it was taken from the direct map, whole and once");
        }
        Ok(())
    }

    /// Allocates at least `bytes` bytes of `bigphysarea`, contiguous, beginning with a page (A256). Their
    /// content is whatever was there.
    ///
    /// # Errors
    ///
    /// See [`CarveoutError`]; [`CarveoutError::Nothing`] where nothing was set aside.
    ///
    /// # Context
    ///
    /// Any; an NMI handler may be refused. Cost: a step for each block or gap in front of the place.
    pub fn bigphysarea_alloc(&self, bytes: usize) -> Result<NonNull<u8>, CarveoutError> {
        let pages = bytes.div_ceil(1 << P::PAGE_SHIFT) as u64;
        self.bigphysarea_alloc_pages(pages, 1, Gfp::NONE)
    }

    /// Allocates `pages` pages of `bigphysarea`, contiguous, the first frame's number a multiple of
    /// `align` (A256). Of `gfp` the flags `ZERO` and `DMA` count: zeros are written, and where the area
    /// lies outside zone DMA a request for that is refused.
    ///
    /// # Errors
    ///
    /// See [`CarveoutError`].
    ///
    /// # Context
    ///
    /// As [`Mm::bigphysarea_alloc`].
    pub fn bigphysarea_alloc_pages(
        &self,
        pages: u64,
        align: u64,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, CarveoutError> {
        gfp.check().map_err(CarveoutError::BadFlags)?;
        if gfp.contains(Gfp::DMA) {
            self.bigphysarea_is_for_dma()?;
        }
        let memory = self.bigphysarea.alloc_memory(&self.platform, pages, align)?;
        if gfp.contains(Gfp::ZERO) {
            // SAFETY: the pages were just allocated, and are seen there.
            unsafe { memory.write_bytes(0, (pages as usize) << P::PAGE_SHIFT) };
        }
        Ok(memory)
    }

    /// Whether all of the area is memory that the devices of zone DMA reach.
    fn bigphysarea_is_for_dma(&self) -> Result<(), CarveoutError> {
        let Some(area) = self.bigphysarea.frames(&self.platform)? else {
            return Err(CarveoutError::Nothing);
        };
        let mut zones = self.zones().iter().filter(|zone| zone.kind() == ZoneKind::Dma).peekable();
        let last = Pfn::new(area.end - 1).and_then(|pfn| self.pfn_to_page(pfn));
        let zone = last.and_then(|page| self.page_zone(page));
        // Without a zone DMA devices reach everything (A022).
        if zones.peek().is_none() || zone.is_some_and(|zone| zone.kind() == ZoneKind::Dma) {
            return Ok(());
        }
        let limit = zones.map(|zone| zone.start_pfn() + zone.spanned_pages()).max().unwrap_or(0);
        let (end, limit) = (area.end << P::PAGE_SHIFT, limit << P::PAGE_SHIFT);
        Err(CarveoutError::NotForDma { end: PhysAddr::new(end), limit: PhysAddr::new(limit) })
    }

    /// Gives back what [`Mm::bigphysarea_alloc`] gave. An address where no block begins is reported, and
    /// changes nothing.
    ///
    /// # Context
    ///
    /// Any but NMI: there it may be reported and not freed. Cost: a step for each block or gap in front
    /// of the block.
    ///
    /// # Safety
    ///
    /// The block is the caller's, and nothing uses it after the call.
    #[track_caller]
    pub unsafe fn bigphysarea_free(&self, memory: NonNull<u8>) {
        // SAFETY: the caller's promise.
        if let Err(misuse) = unsafe { self.bigphysarea.free_memory(&self.platform, memory) } {
            self.report(&misuse);
        }
    }

    /// As [`Mm::bigphysarea_free`], for what [`Mm::bigphysarea_alloc_pages`] gave.
    ///
    /// # Context
    ///
    /// As [`Mm::bigphysarea_free`].
    ///
    /// # Safety
    ///
    /// As for [`Mm::bigphysarea_free`].
    #[track_caller]
    pub unsafe fn bigphysarea_free_pages(&self, memory: NonNull<u8>) {
        // SAFETY: the caller's promise.
        unsafe { self.bigphysarea_free(memory) }
    }

    /// How full `bigphysarea` is, in pages: all zero where nothing was set aside.
    ///
    /// # Errors
    ///
    /// [`CarveoutError::Busy`] in an NMI handler.
    ///
    /// # Context
    ///
    /// Any. Cost: a step for each block or gap.
    pub fn bigphysarea_usage(&self) -> Result<Usage, CarveoutError> {
        self.bigphysarea.usage(&self.platform)
    }

    /// The frames of `bigphysarea`; `None` where nothing was set aside.
    ///
    /// # Errors
    ///
    /// [`CarveoutError::Busy`] in an NMI handler.
    ///
    /// # Context
    ///
    /// Any.
    pub fn bigphysarea_frames(&self) -> Result<Option<PfnRange>, CarveoutError> {
        self.bigphysarea.frames(&self.platform)
    }

    /// The RAM above `mem=`, in order: whole pages that the manager leaves alone and has no descriptors
    /// for (A257). Empty before boot.
    pub fn unmanaged_ram(&self) -> impl Iterator<Item = PfnRange> + '_ {
        let reserved = self.frames().into_iter().flat_map(|frames| frames.reserved());
        reserved
            .filter(|reserved| reserved.class == ReservedClass::Unmanaged)
            .map(|reserved| reserved.range)
    }
}

// A manager's carveout has its lock and no more: it is in every manager.
const _: () = assert!(size_of::<Carveout>() <= 4 * size_of::<usize>());
