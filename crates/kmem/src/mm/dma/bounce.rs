//! Slots that stand in for memory that a device does not reach.

use core::panic::Location;

use super::super::Mm;
use crate::dma::{DmaDevice, DmaError, DmaMask, Pool, SLOT, Slots};
use crate::page::Page;
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{AllocError, GFP_ATOMIC, GFP_KERNEL, Gfp, Order, PhysAddr, VirtAddr, ZoneKind};

/// Which way a copy goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Copy {
    /// From the driver's memory into the slots.
    In,
    /// From the slots into the driver's memory.
    Out,
}

/// How many slots hold so many bytes.
fn slots_for(size: usize) -> usize {
    size.div_ceil(SLOT)
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Takes slots for some bytes of memory; answers the first, and the physical address of it.
    pub(super) fn take_slots(
        &self,
        device: &DmaDevice,
        (start, size): (PhysAddr, usize),
        site: &'static Location<'static>,
    ) -> Result<(usize, PhysAddr), DmaError> {
        let given = || self.given(device, (start.get(), size), site).ok_or(DmaError::OthersDevice);
        if size > device.slot_bytes() {
            return Err(DmaError::TooLarge { size, slots: device.slot_bytes() });
        }
        loop {
            {
                let mut state = given()?;
                if let Some(pool) = &mut state.pool {
                    let slot =
                        pool.slots.take(slots_for(size)).ok_or(DmaError::NoSlots { size })?;
                    return Ok((slot, PhysAddr::new(pool.start.get() + (slot * SLOT) as u64)));
                }
            }
            let mut made = Some(self.make_pool(device)?);
            {
                let mut state = device.state.lock(&self.platform);
                if state.pool.is_none() && state.is_for(self.identity()) {
                    state.pool = made.take();
                }
            }
            // Another CPU was sooner, or another manager, which the next look finds.
            if let Some(pool) = made {
                self.free_pool(pool);
            }
        }
    }

    /// Gives the slots of a mapping back.
    pub(super) fn give_slots(&self, device: &DmaDevice, slot: usize, size: usize) {
        let mut state = device.state.lock(&self.platform);
        if let Some(pool) = &mut state.pool {
            pool.slots.give(slot, slots_for(size));
        }
    }

    /// How many slots of a device are taken, and how many bytes one has. Any context but NMI.
    pub fn dma_slots_taken(&self, device: &DmaDevice) -> (usize, usize) {
        let state = device.state.lock(&self.platform);
        (state.pool.as_ref().map_or(0, |pool| pool.slots.taken()), SLOT)
    }

    /// Makes a device's slots.
    fn make_pool(&self, device: &DmaDevice) -> Result<Pool, DmaError> {
        let pages = (device.slot_bytes() as u64).div_ceil(1 << P::PAGE_SHIFT);
        let gfp = if self.platform.in_atomic() { GFP_ATOMIC } else { GFP_KERNEL };
        let no_memory = |why| DmaError::NoMemory { mask: device.mask(), why };
        let first =
            self.pages_within(pages, device.mask(), gfp | Gfp::NOWARN).map_err(no_memory)?;
        match self.page_address(first) {
            Some(address) => Ok(Pool {
                start: self.page_to_phys(first),
                address,
                pages,
                slots: Slots::new(device.slot_count()),
            }),
            None => {
                // SAFETY: just allocated.
                unsafe { self.free_contig_pages(first, pages) };
                Err(no_memory(AllocError::NotAllocated))
            }
        }
    }

    /// Contiguous pages of the direct map that lie within a mask, as single pages: given back with
    /// [`Mm::free_contig_pages`].
    pub(super) fn pages_within(
        &self,
        pages: u64,
        mask: DmaMask,
        gfp: Gfp,
    ) -> Result<Page, AllocError> {
        let zones = Gfp::DMA | Gfp::DMA32 | Gfp::HIGHMEM | Gfp::MOVABLE;
        let gfp = gfp - zones;
        // A zone that lies within the mask has what is wanted at once, and is reclaimed if need be.
        let size = usize::try_from(pages << P::PAGE_SHIFT).ok().filter(|_| pages >> 32 == 0);
        let within = self.widest_zone(|zone| mask.reaches(0, self.end_of(zone)));
        if let (Some(size), Some(zone)) = (size, within)
            && pages <= self.largest_order().pages()
            && let Ok(address) = self.alloc_pages_exact(size, gfp | zone | Gfp::NOWARN)
        {
            return self.virt_to_page(address).ok_or(AllocError::NotBooted);
        }
        // Otherwise, or where it has no such block: a part of any zone.
        let touched = self.widest_zone(|zone| self.start_of(zone) <= mask.last());
        let end = mask.last().saturating_add(1);
        let end = end.min(self.platform.limit().get());
        let within = PhysAddr::new(0)..PhysAddr::new(end);
        self.alloc_contig_pages(pages, Order::ZERO, within, gfp | touched.unwrap_or(Gfp::DMA))
    }

    /// The flag of the highest kind of zone of the direct map for which, and for all below it, this holds.
    fn widest_zone(&self, holds: impl Fn(ZoneKind) -> bool) -> Option<Gfp> {
        let flags = [
            (ZoneKind::Normal, Gfp::NONE),
            (ZoneKind::Dma32, Gfp::DMA32),
            (ZoneKind::Dma, Gfp::DMA),
        ];
        let has_some = |kind| self.zones().iter().any(|zone| zone.kind() == kind);
        flags.into_iter().find(|(kind, _)| has_some(*kind) && holds(*kind)).map(|(_, flag)| flag)
    }

    /// Where zones up to this kind end, in bytes.
    fn end_of(&self, kind: ZoneKind) -> u64 {
        let zones = self.zones().iter().filter(|zone| zone.kind() <= kind);
        let end = zones.map(|zone| zone.start_pfn() + zone.spanned_pages()).max();
        end.unwrap_or(0) << P::PAGE_SHIFT
    }

    /// Where zones of this kind begin, in bytes.
    fn start_of(&self, kind: ZoneKind) -> u64 {
        let zones = self.zones().iter().filter(|zone| zone.kind() == kind);
        zones.map(|zone| zone.start_pfn() << P::PAGE_SHIFT).min().unwrap_or(u64::MAX)
    }

    /// Copies between a mapping's slots and the memory that they stand in for, which may be high memory:
    /// `size` bytes, `offset` bytes behind the start of both.
    ///
    /// # Safety
    ///
    /// The slots are the mapping's, nobody else uses them or the memory, and both have so many bytes.
    pub(super) unsafe fn copy(
        &self,
        device: &DmaDevice,
        (memory, slot): (PhysAddr, usize),
        (offset, size): (usize, usize),
        way: Copy,
    ) {
        let pool = {
            let state = device.state.lock(&self.platform);
            state.pool.as_ref().map(|pool| pool.address)
        };
        // There are slots as long as a mapping has some.
        let Some(pool) = pool else { return };
        let page = 1usize << P::PAGE_SHIFT;
        let mut done = 0;
        while done < size {
            let at = memory.get() + (offset + done) as u64;
            let within = at as usize & (page - 1);
            let count = (page - within).min(size - done);
            let slot = VirtAddr::new(pool.get() + slot * SLOT + offset + done).as_ptr::<u8>();
            self.with_page_at(PhysAddr::new(at), |start| {
                let memory = start.wrapping_add(within);
                // SAFETY: the caller's promise: so many bytes of the page, and of the slots.
                unsafe {
                    match way {
                        Copy::In => slot.copy_from_nonoverlapping(memory, count),
                        Copy::Out => memory.copy_from_nonoverlapping(slot, count),
                    }
                }
            });
            done += count;
        }
    }

    /// Calls `work` with where the first byte of the frame of an address is seen.
    fn with_page_at(&self, at: PhysAddr, work: impl FnOnce(*mut u8)) {
        let Some(pfn) = at.frame(P::PAGE_SHIFT) else { return };
        match (self.page_address(Page::of(pfn)), self.platform.temporary_map()) {
            (Some(address), _) => work(address.as_ptr()),
            (None, Some(map)) => self.with_frame(map, pfn, work),
            // Boot refuses high memory without such mappings.
            (None, None) => {}
        }
    }
}
