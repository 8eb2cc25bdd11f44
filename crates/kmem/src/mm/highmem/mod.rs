//! Mapping high memory: the entry points, and what they share.

mod copy;
mod guard;
mod kmap;
mod local;

use core::ops::Range;
use core::panic::Location;
use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::AtomicU32;

use super::Mm;
use super::boot::{BootError, Carver};
use super::tables::Tables;
use crate::boot::Setup;
use crate::highmem::{
    CpuSlots, HighMem, KmapError, KmapInfo, OWN_SLOT, OWN_SLOT_IN_NMI, PermanentMaps, Slot, window,
};
use crate::page::{Block, Page, Place};
use crate::platform::{MisuseKind, Passed, Platform, TemporaryMap};
use crate::reclaim::Reclaim;
use crate::sync::SpinLock;
use crate::{CpuId, Pfn, VirtAddr};

pub use guard::{KmapGuard, KmapLocalGuard};

/// The tables for mapping high memory, for a machine that has some.
pub(super) fn build<P: Platform>(
    carver: &mut Carver<'_, P>,
    platform: &P,
    setup: &Setup,
) -> Result<(NonNull<HighMem>, NonNull<CpuSlots>), BootError> {
    let cpus: NonNull<CpuSlots> = carver.table("temporary mappings", setup.cpus as usize, None)?;
    for cpu in 0..setup.cpus as usize {
        // SAFETY: the table has so many.
        unsafe { cpus.add(cpu).write(CpuSlots::new()) };
    }
    // A platform that maps no pages has room for none.
    let nothing = VirtAddr::new(0)..VirtAddr::new(0);
    let range = platform.page_map().map_or(nothing, |map| map.range());
    let window = window(range, P::PAGE_SHIFT, setup.kmap_slots);
    let count = (window.end.get() - window.start.get()) >> P::PAGE_SHIFT;
    let slots: NonNull<Slot> = carver.table("permanent mappings", count, None)?;
    let bucket_count = PermanentMaps::buckets_for(count as u32);
    let buckets: NonNull<u16> = carver.table("buckets of mappings", bucket_count, None)?;
    let high: NonNull<HighMem> = carver.table("high memory", 1, None)?;
    // SAFETY: the tables have so many, are written here, and are reached through these slices alone,
    // for as long as the manager is used.
    unsafe {
        (0..count).for_each(|slot| slots.add(slot).write(Slot::EMPTY));
        (0..bucket_count).for_each(|bucket| buckets.add(bucket).write(0));
        let slots = slice::from_raw_parts_mut(slots.as_ptr(), count);
        let buckets = slice::from_raw_parts_mut(buckets.as_ptr(), bucket_count);
        let maps = SpinLock::new(PermanentMaps::new(slots, buckets));
        high.write(HighMem { maps, window, freed: AtomicU32::new(0) });
    }
    Ok((high, cpus))
}

/// A platform that has high memory and no way to map it is refused at boot, and the tables are made
/// there for all that are not.
const NO_MAP: KmapError = KmapError::NotBooted;

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Which addresses the slots of [`Mm::kmap`] have: the last ones of
    /// [`PageMap::range`](crate::platform::PageMap::range) (A271). Without high memory they are none,
    /// at the end of the range.
    pub fn kmap_window(&self) -> Range<VirtAddr> {
        match self.tables().and_then(Tables::highmem) {
            Some(high) => high.window.clone(),
            None => {
                let end = self.platform.page_map().map_or(VirtAddr::new(0), |map| map.range().end);
                end..end
            }
        }
    }

    /// How many slots permanent mappings have, and what they are doing (A270). Any context but NMI.
    pub fn kmap_info(&self) -> KmapInfo {
        let high = self.tables().and_then(Tables::highmem);
        high.map_or(KmapInfo::default(), |high| high.maps.lock(&self.platform).info())
    }

    /// How many temporary mappings have not been ended, on all CPUs. Exact while none is made or
    /// ended. Any context.
    pub fn temporary_mappings(&self) -> u32 {
        let tables = self.tables();
        tables.map_or(0, |tables| tables.cpu_slots().iter().map(CpuSlots::live).sum())
    }

    /// Fills a page that the direct map does not reach with zeros. Any context.
    pub(super) fn clear_frame(&self, map: &dyn TemporaryMap, frame: Pfn) {
        self.with_frame(map, frame, |start| {
            // SAFETY: the caller's frame.
            unsafe { start.write_bytes(0, 1 << P::PAGE_SHIFT) };
        });
    }

    /// Calls `work` with where the first byte of a frame is seen that the direct map does not reach. Any
    /// context.
    ///
    /// In a slot of the manager's own: it does not fail because others have theirs taken. Interrupts are
    /// masked meanwhile.
    pub(super) fn with_frame(
        &self,
        map: &dyn TemporaryMap,
        frame: Pfn,
        work: impl FnOnce(*mut u8),
    ) {
        let work = |slot| {
            let address = map.map(frame, slot);
            work(address.as_ptr());
            // SAFETY: mapped above, and not used any more; nobody else uses this slot.
            unsafe { map.unmap(address, slot) };
        };
        if self.platform.in_nmi() {
            work(OWN_SLOT_IN_NMI);
        } else {
            let saved = self.platform.mask();
            work(OWN_SLOT);
            self.platform.restore(saved);
        }
    }

    /// The way to temporary mappings, and the tables.
    fn temporary(&self) -> Result<(&Tables, &dyn TemporaryMap), KmapError> {
        let tables = self.tables().ok_or(KmapError::NotBooted)?;
        Ok((tables, self.platform.temporary_map().ok_or(NO_MAP)?))
    }

    /// Refuses to map what nobody holds. Reserved frames may be mapped: who reserved them holds them.
    #[inline]
    fn check_in_use(
        &self,
        tables: &Tables,
        page: Page,
        site: &'static Location<'static>,
    ) -> Result<(), KmapError> {
        let (memmap, pfn) = (&tables.memmap, page.pfn());
        match memmap.head(pfn) {
            Some((_, Block::Reserved)) => Ok(()),
            Some((head, Block::Used(_) | Block::Compound(_)))
                if memmap.at(head).place() == Place::Held =>
            {
                Ok(())
            }
            _ => {
                self.report_at(pfn, MisuseKind::MapNotInUse, Passed::Page(pfn, 0), site);
                Err(KmapError::NotInUse(pfn))
            }
        }
    }
}

impl Tables {
    /// What a CPU has mapped for a time; `None` without high memory, and for a CPU that there cannot
    /// be.
    #[inline]
    fn slots_of(&self, cpu: CpuId) -> Option<&CpuSlots> {
        self.cpu_slots().get(cpu.index())
    }
}
