//! Permanent mappings.

use core::panic::Location;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::super::Mm;
use super::super::tables::Tables;
use crate::highmem::{Acquired, HighMem, KmapError, PermanentMaps};
use crate::page::Page;
use crate::platform::{Caching, Misuse, MisuseKind, PageMap, Passed, Platform, There, Unflushed};
use crate::reclaim::Reclaim;
use crate::{Pfn, VirtAddr};

/// How many slots are unmapped between two looks at the lists, on whose time interrupts are masked.
const BATCH: usize = 64;

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Answers an address at which a page is seen by all CPUs: that of the direct map, or, for a page
    /// of high memory, one in [`Mm::kmap_window`], until [`Mm::kunmap`] (A269).
    ///
    /// Calls for one page nest: each has its [`Mm::kunmap`]. There are only so many slots
    /// ([`Setup::kmap_slots`](crate::Setup::kmap_slots)); where all are taken the call waits for a
    /// `kunmap` (A270). Who holds one mapping and waits for another may wait for ever, if others do the
    /// same: map both for a time ([`Mm::kmap_local_page`]), or one after the other. The address is good
    /// for one page: the next page of its block is elsewhere.
    ///
    /// ```no_run
    /// # fn example(mm: &kmem::Mm<kmem::platform::desk::Desk<'_>>) -> Result<(), Box<dyn std::error::Error>> {
    /// let page = mm.alloc_page(kmem::GFP_HIGHUSER)?;
    /// let address = mm.kmap(page)?;
    /// // SAFETY: the page is ours, and mapped until `kunmap`.
    /// unsafe {
    ///     address.as_ptr::<u8>().write_bytes(0x5a, 4096);
    ///     mm.kunmap(page);
    ///     mm.__free_page(page);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`KmapError::AtomicContext`] and [`KmapError::NotInUse`], with a report;
    /// [`KmapError::NoSlots`], [`KmapError::TooManyUsers`], [`KmapError::PageMap`] say what they say.
    /// None for a page of the direct map.
    ///
    /// # Context
    ///
    /// A task that may sleep, if the page may be high.
    ///
    /// # Cost
    ///
    /// A page of the direct map: arithmetic. A page that is mapped, or was lately: a spin lock and a
    /// look into a hash table. Otherwise an entry of a page table, and, once in as many as there are
    /// slots, a flush of all CPUs.
    #[inline]
    #[track_caller]
    pub fn kmap(&self, page: Page) -> Result<VirtAddr, KmapError> {
        match self.direct_address(page) {
            Some(address) => Ok(address),
            None => self.kmap_high(page, Location::caller()),
        }
    }

    /// Ends one [`Mm::kmap`] of a page (A270). For a page of the direct map there is nothing to do.
    ///
    /// A page that nobody has mapped is reported as misuse.
    ///
    /// # Safety
    ///
    /// The caller, or whoever let it do this, has mapped the page and uses the address no more.
    ///
    /// # Context
    ///
    /// Any but NMI; does not sleep.
    #[inline]
    #[track_caller]
    pub unsafe fn kunmap(&self, page: Page) {
        if self.direct_address(page).is_none() {
            self.kunmap_high(page, Location::caller());
        }
    }

    /// The address of a page of high memory, while somebody has it mapped with [`Mm::kmap`] (A277).
    #[cold]
    #[inline(never)]
    pub(in super::super) fn kmapped_address(&self, page: Page) -> Option<VirtAddr> {
        let high = self.tables()?.highmem()?;
        // The code that an NMI interrupted may have the lock, and waits for the handler to end.
        let maps = if self.platform.in_nmi() {
            high.maps.try_lock(&self.platform)?
        } else {
            high.maps.lock(&self.platform)
        };
        maps.find(page.pfn()).map(|slot| address_of::<P>(high, slot))
    }

    /// The page that is mapped with [`Mm::kmap`] at an address, in either of both ways; `None` where
    /// there is none. Any context but NMI.
    pub fn kmap_to_page(&self, address: VirtAddr) -> Option<Page> {
        let high = self.tables().and_then(Tables::highmem);
        let Some(high) = high.filter(|high| high.window.contains(&address)) else {
            return self.virt_to_page(address);
        };
        let slot = (address.get() - high.window.start.get()) >> P::PAGE_SHIFT;
        high.maps.lock(&self.platform).frame_in(slot as u16).map(Page::of)
    }

    #[cold]
    #[inline(never)]
    fn kmap_high(
        &self,
        page: Page,
        site: &'static Location<'static>,
    ) -> Result<VirtAddr, KmapError> {
        let pfn = page.pfn();
        let tables = self.tables().ok_or(KmapError::NotBooted)?;
        let high = tables.highmem().filter(|high| !high.window.is_empty());
        let (Some(high), Some(map)) = (high, self.platform.page_map()) else {
            return Err(KmapError::NoSlots);
        };
        if self.platform.in_atomic() {
            self.report_atomic(pfn, site);
            return Err(KmapError::AtomicContext);
        }
        self.check_in_use(tables, page, site)?;
        loop {
            // Before the look: what is freed after it changes the number.
            let freed = high.freed.load(Relaxed);
            // A flush is begun by the look.
            let unfinished = self.unfinished();
            let mut acquired = high.maps.lock(&self.platform).acquire(pfn);
            if let Acquired::Fresh(slot) = acquired {
                acquired = self.fill(high, map, slot, pfn)?;
            }
            match acquired {
                Acquired::Mapped(slot) => return Ok(address_of::<P>(high, slot)),
                Acquired::TooMany => return Err(KmapError::TooManyUsers(pfn)),
                Acquired::Flush => self.flush_idle(high, map),
                Acquired::Wait => {
                    drop(unfinished);
                    self.wait_for_slot(high, freed);
                }
                // `fill` has answered another.
                Acquired::Fresh(_) => {}
            }
        }
    }

    /// Maps a frame in a fresh slot and publishes it.
    fn fill(
        &self,
        high: &HighMem,
        map: &dyn PageMap,
        slot: u16,
        pfn: Pfn,
    ) -> Result<Acquired, KmapError> {
        let address = address_of::<P>(high, slot);
        // SAFETY: the slot is this call's and nothing is mapped there. Its holder lets the frame be
        // mapped; what happens to it after the holder has freed it is the holder's promise not to do.
        match unsafe { map.map(address, pfn, 1, Caching::Cached) } {
            Ok(()) => Ok(self.change(high, |maps| maps.publish(slot, pfn))),
            Err(error) => {
                self.change(high, |maps| maps.abandon(slot));
                Err(KmapError::PageMap(error))
            }
        }
    }

    /// Unmaps all idle slots, has all CPUs forget them at once, and makes them free.
    fn flush_idle(&self, high: &HighMem, map: &dyn PageMap) {
        let mut slots = [0; BATCH];
        let mut gone: Option<Unflushed> = None;
        loop {
            let count = high.maps.lock(&self.platform).retire(&mut slots);
            let slots = &mut slots[..count];
            if slots.is_empty() {
                break;
            }
            // Neighbours go together.
            slots.sort_unstable();
            for run in slots.chunk_by(|a, b| a + 1 == *b) {
                let address = address_of::<P>(high, run[0]);
                // SAFETY: the slots are this call's, and nobody has used them since their last user
                // ended the mapping.
                let unmapped = unsafe { map.unmap(address, run.len()) };
                gone = Some(match gone.take() {
                    Some(before) => before.and(unmapped),
                    None => unmapped,
                });
            }
        }
        if let Some(gone) = gone {
            map.flush(gone);
        }
        self.change(high, PermanentMaps::finish);
    }

    /// Waits until a slot may be had, in which somebody said that it waits since `freed` was read.
    fn wait_for_slot(&self, high: &HighMem, freed: u32) {
        // Acquire pairs with the Release in `change`: the slot is seen.
        let ready = || high.freed.load(Acquire) != freed;
        match self.platform.sleep() {
            Some(sleep) => {
                sleep.wait(key(high), &ready, u64::MAX);
            }
            None => self.platform.relax(),
        }
        high.maps.lock(&self.platform).stop_waiting();
    }

    /// Does something after which a slot may be had, and wakes those who wait for one.
    fn change<T>(&self, high: &HighMem, work: impl FnOnce(&mut PermanentMaps<'static>) -> T) -> T {
        let mut maps = high.maps.lock(&self.platform);
        let result = work(&mut maps);
        let wake = maps.info().waiting > 0;
        if wake {
            high.freed.fetch_add(1, Release);
        }
        drop(maps);
        if wake && let Some(sleep) = self.platform.sleep() {
            sleep.wake(key(high));
        }
        result
    }

    #[cold]
    #[inline(never)]
    fn kunmap_high(&self, page: Page, site: &'static Location<'static>) {
        let pfn = page.pfn();
        if self.platform.in_nmi() {
            // The code that it interrupted may have the lock.
            return self.report_atomic(pfn, site);
        }
        let high = self.tables().and_then(Tables::highmem);
        let left = high.and_then(|high| self.change(high, |maps| maps.release(pfn)));
        if left.is_none() {
            let passed = Passed::Page(pfn, 0);
            let (kind, there) = (MisuseKind::NotMapped, There::NotMapped);
            self.report(&Misuse { kind, passed, there, site });
        }
    }

    #[cold]
    fn report_atomic(&self, pfn: Pfn, site: &'static Location<'static>) {
        let (kind, there) = (MisuseKind::SleepInAtomic, There::AtomicContext);
        self.report(&Misuse { kind, passed: Passed::Page(pfn, 0), there, site });
    }
}

/// Where a slot is seen.
fn address_of<P: Platform>(high: &HighMem, slot: u16) -> VirtAddr {
    VirtAddr::new(high.window.start.get() + (usize::from(slot) << P::PAGE_SHIFT))
}

/// What those who wait for a slot wait for.
fn key(high: &HighMem) -> usize {
    core::ptr::from_ref(high).addr()
}
