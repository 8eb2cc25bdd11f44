//! Temporary mappings: by type, and nested.

use core::panic::Location;

use super::super::Mm;
use super::super::tables::Tables;
use crate::highmem::{Ended, KmType, KmapError, Typed};
use crate::page::Page;
use crate::platform::{Misuse, MisuseKind, Passed, Pinned, Platform, There};
use crate::reclaim::Reclaim;
use crate::{CpuId, Pfn, VirtAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Maps a page in this CPU's slot for a type and answers its address, which is good on this CPU
    /// until [`Mm::kunmap_atomic`], or until the next mapping in the slot (A273, A276). The code is
    /// pinned until then, and must not sleep; for a page of the direct map, too.
    ///
    /// A slot whose mapping has not been ended is reported as misuse; the new one takes its place, and
    /// whoever made the old one finds another page at its address, or none.
    ///
    /// ```no_run
    /// # fn example(mm: &kmem::Mm<kmem::platform::desk::Desk<'_>>, page: kmem::Page) -> Result<(), kmem::KmapError> {
    /// use kmem::highmem::KM_USER0;
    /// let address = mm.kmap_atomic(page, KM_USER0)?;
    /// // SAFETY: the page is ours, and mapped until `kunmap_atomic`.
    /// unsafe {
    ///     address.as_ptr::<u8>().write(1);
    ///     mm.kunmap_atomic(address, KM_USER0);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`KmapError::NotInUse`] and [`KmapError::SlotBusy`], with a report; [`KmapError::NoSuchCpu`]
    /// and [`KmapError::NotBooted`]. None for a page of the direct map.
    ///
    /// # Context
    ///
    /// Any; never waits. NMI handlers have types of their own.
    ///
    /// # Cost
    ///
    /// A page of the direct map: arithmetic, and what it takes to pin. Otherwise an entry of a page
    /// table and a flush of it on this CPU; no lock, no atomic read-modify-write.
    #[inline]
    #[track_caller]
    pub fn kmap_atomic(&self, page: Page, slot: KmType) -> Result<VirtAddr, KmapError> {
        match self.direct_address(page) {
            Some(address) => {
                self.platform.pin();
                Ok(address)
            }
            None => self.map_typed(page, slot, Location::caller()),
        }
    }

    /// Ends what [`Mm::kmap_atomic`] of a type began on this CPU, by its address (A275).
    ///
    /// An address that is not mapped in that slot of this CPU is reported as misuse, and nothing
    /// changes.
    ///
    /// # Safety
    ///
    /// The mapping is the caller's, who does not use the address any more.
    ///
    /// # Context and cost
    ///
    /// As [`Mm::kmap_atomic`].
    #[inline]
    #[track_caller]
    pub unsafe fn kunmap_atomic(&self, address: VirtAddr, slot: KmType) {
        if self.platform.virt_to_phys(address).is_some() {
            self.platform.unpin();
        } else {
            self.unmap_typed(address, slot, Location::caller());
        }
    }

    /// Maps a page for a time and answers its address, which is good on this CPU until
    /// [`Mm::kunmap_local`]. Calls nest, up to [`NESTED`](crate::highmem::NESTED) on a CPU, and end in
    /// the opposite order. This is what took the place of [`Mm::kmap`] and [`Mm::kmap_atomic`] (A269,
    /// A274). For a page of high memory the code is pinned, and must not sleep, until then.
    ///
    /// [`Mm::kmap_local`] ends by itself.
    ///
    /// # Errors
    ///
    /// [`KmapError::NotInUse`], with a report; [`KmapError::TooDeep`], [`KmapError::NoSuchCpu`] and
    /// [`KmapError::NotBooted`]. None for a page of the direct map.
    ///
    /// # Context
    ///
    /// Any; never waits.
    ///
    /// # Cost
    ///
    /// A page of the direct map: arithmetic. Otherwise as [`Mm::kmap_atomic`].
    #[inline]
    #[track_caller]
    pub fn kmap_local_page(&self, page: Page) -> Result<VirtAddr, KmapError> {
        match self.direct_address(page) {
            Some(address) => Ok(address),
            None => self.map_nested(page, Location::caller()),
        }
    }

    /// Ends what [`Mm::kmap_local_page`] began on this CPU, by its address.
    ///
    /// An address that is not mapped is reported as misuse, and nothing changes. One that is not the
    /// latest is reported, too, and that mapping ends: whoever made it uses it no more.
    ///
    /// # Safety
    ///
    /// The mapping is the caller's, who does not use the address any more.
    ///
    /// # Context and cost
    ///
    /// As [`Mm::kmap_local_page`].
    #[inline]
    #[track_caller]
    pub unsafe fn kunmap_local(&self, address: VirtAddr) {
        if self.platform.virt_to_phys(address).is_none() {
            self.unmap_nested(address, Location::caller());
        }
    }

    #[cold]
    #[inline(never)]
    fn map_typed(
        &self,
        page: Page,
        slot: KmType,
        site: &'static Location<'static>,
    ) -> Result<VirtAddr, KmapError> {
        let (tables, map) = self.temporary()?;
        self.check_in_use(tables, page, site)?;
        // The mapping pins by itself; until then this does.
        let pinned = Pinned::new(&self.platform);
        let slots = tables.slots_of(pinned.cpu()).ok_or(KmapError::NoSuchCpu)?;
        let before = slots.typed(slot);
        if before != Typed::Free {
            let there = match before {
                Typed::Live(address, frame) => There::Mapping { address, frame, cpu: pinned.cpu() },
                _ => There::NotMapped,
            };
            let (kind, passed) = (MisuseKind::SlotInUse, Passed::Page(page.pfn(), 0));
            self.report(&Misuse { kind, passed, there, site });
        }
        match before {
            Typed::Changing => return Err(KmapError::SlotBusy(slot)),
            Typed::Live(address, _) => {
                // SAFETY: mapped in this slot. Its holder loses it, which is what the texts say and
                // what has been reported.
                slots.end_typed(slot, |number| unsafe { map.unmap(address, number) });
            }
            Typed::Free => {}
        }
        Ok(slots.begin_typed(slot, page.pfn(), |number| map.map(page.pfn(), number)))
    }

    #[cold]
    #[inline(never)]
    fn unmap_typed(&self, address: VirtAddr, slot: KmType, site: &'static Location<'static>) {
        let passed = Passed::Mapping(address, Some(slot as u8));
        let Ok((tables, map)) = self.temporary() else {
            return self.report_not_mapped(address, passed, site);
        };
        let pinned = Pinned::new(&self.platform);
        match tables.slots_of(pinned.cpu()).map(|slots| (slots, slots.typed(slot))) {
            Some((slots, Typed::Live(there, _))) if there == address => {
                // SAFETY: mapped in this slot, and the caller uses it no more.
                slots.end_typed(slot, |number| unsafe { map.unmap(address, number) });
            }
            _ => self.report_not_mapped(address, passed, site),
        }
    }

    #[cold]
    #[inline(never)]
    fn map_nested(
        &self,
        page: Page,
        site: &'static Location<'static>,
    ) -> Result<VirtAddr, KmapError> {
        let (tables, map) = self.temporary()?;
        self.check_in_use(tables, page, site)?;
        // The mapping pins by itself; until then this does.
        let pinned = Pinned::new(&self.platform);
        let slots = tables.slots_of(pinned.cpu()).ok_or(KmapError::NoSuchCpu)?;
        let mapped = slots.begin_nested(page.pfn(), |number| map.map(page.pfn(), number));
        mapped.ok_or(KmapError::TooDeep)
    }

    #[cold]
    #[inline(never)]
    fn unmap_nested(&self, address: VirtAddr, site: &'static Location<'static>) {
        let passed = Passed::Mapping(address, None);
        let Ok((tables, map)) = self.temporary() else {
            return self.report_not_mapped(address, passed, site);
        };
        let pinned = Pinned::new(&self.platform);
        // SAFETY: mapped in the slot that it is called with, and the caller uses it no more.
        let unmap = |number| unsafe { map.unmap(address, number) };
        let slots = tables.slots_of(pinned.cpu());
        match slots.map_or(Ended::NotThere, |slots| slots.end_nested(address, unmap)) {
            Ended::Latest => {}
            Ended::Inner(address, frame) => {
                let there = There::Mapping { address, frame, cpu: pinned.cpu() };
                self.report(&Misuse { kind: MisuseKind::MapOrder, passed, there, site });
            }
            Ended::NotThere => self.report_not_mapped(address, passed, site),
        }
    }

    /// Reports the end of a mapping that there is not, and what there is at its address.
    fn report_not_mapped(
        &self,
        address: VirtAddr,
        passed: Passed,
        site: &'static Location<'static>,
    ) {
        let found = self.tables().and_then(|tables| mapped_at(tables, address));
        let there = match found {
            Some((frame, cpu)) => There::Mapping { address, frame, cpu },
            None => There::NotMapped,
        };
        self.report(&Misuse { kind: MisuseKind::NotMapped, passed, there, site });
    }
}

/// What is mapped for a time at an address, and on which CPU.
fn mapped_at(tables: &Tables, address: VirtAddr) -> Option<(Pfn, CpuId)> {
    let all = tables.cpu_slots().iter().enumerate();
    let mut found = all.filter_map(|(cpu, slots)| Some((slots.mapped_at(address)?, cpu)));
    found.next().and_then(|(frame, cpu)| Some((frame, CpuId::new(cpu as u32)?)))
}
