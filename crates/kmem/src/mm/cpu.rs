//! CPUs that come and go, and getting back what is on their lists.

use core::fmt;

use super::{CLOSED, Mm};
use crate::page::MigrateType;
use crate::pcp::{CpuArea, PageSet};
use crate::platform::{Pinned, Platform};
use crate::reclaim::Reclaim;
use crate::sync::Entered;
use crate::{CpuId, MAX_CPUS, Order};

/// Why a CPU could not be brought in or taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuError {
    /// The manager has not been booted.
    NotBooted,
    /// The machine was described with fewer CPUs.
    NoSuchCpu(CpuId),
    /// It is online already.
    Online(CpuId),
    /// It is not online.
    Offline(CpuId),
    /// It is at its lists or magazines: the call was made by an interrupt handler that arrived there.
    Busy(CpuId),
}

impl fmt::Display for CpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CpuError::NotBooted => f.write_str("the manager is not booted"),
            CpuError::NoSuchCpu(cpu) => {
                write!(f, "the machine was described without {cpu:?}: see Setup::cpus")
            }
            CpuError::Online(cpu) => write!(f, "{cpu:?} is online already"),
            CpuError::Offline(cpu) => write!(f, "{cpu:?} is not online"),
            CpuError::Busy(cpu) => write!(f, "{cpu:?} is at its page lists: try again later"),
        }
    }
}

impl core::error::Error for CpuError {}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Gives a CPU its page lists. Without it a CPU can allocate and free all the same, by the
    /// zones' locks.
    ///
    /// # Errors
    ///
    /// See [`CpuError`]. Any context but NMI.
    pub fn cpu_online(&self, cpu: CpuId) -> Result<(), CpuError> {
        let tables = self.tables().ok_or(CpuError::NotBooted)?;
        let area = tables.area(cpu).ok_or(CpuError::NoSuchCpu(cpu))?;
        if self.is_online(cpu) {
            return Err(CpuError::Online(cpu));
        }
        self.set_area(cpu, Some(area));
        Ok(())
    }

    /// Takes a CPU's page lists away and gives what is on them back to the zones: no frame is lost
    /// when a CPU goes (A086). It can allocate and free all the same, as before
    /// [`Mm::cpu_online`].
    ///
    /// # Errors
    ///
    /// See [`CpuError`]; then the CPU keeps its lists. Any context but NMI.
    ///
    /// # Safety
    ///
    /// While the call lasts, the CPU runs no code that allocates or frees but, where it is the
    /// caller's own, this call; and nobody brings it online.
    pub unsafe fn cpu_offline(&self, cpu: CpuId) -> Result<(), CpuError> {
        let tables = self.tables().ok_or(CpuError::NotBooted)?;
        let area = tables.area(cpu).ok_or(CpuError::NoSuchCpu(cpu))?;
        if !self.is_online(cpu) {
            return Err(CpuError::Offline(cpu));
        }
        // SAFETY: areas live as long as the tables.
        let area = unsafe { area.as_ref() };
        // SAFETY: the CPU runs no code that would enter, or it is this one, in this call.
        let mut entered = unsafe { area.section.enter() }.ok_or(CpuError::Busy(cpu))?;
        self.set_area(cpu, None);
        self.drain(area, &mut entered);
        drop(entered);
        if !self.take_cpu_caches(tables, cpu) {
            self.set_area(cpu, tables.area(cpu));
            return Err(CpuError::Busy(cpu));
        }
        self.drain_stacks_of(cpu);
        Ok(())
    }

    /// Whether a CPU has page lists.
    pub fn is_online(&self, cpu: CpuId) -> bool {
        !core::ptr::eq(self.area(cpu), &CLOSED)
    }

    /// The CPUs that have page lists.
    pub fn online_cpus(&self) -> impl Iterator<Item = CpuId> {
        (0..MAX_CPUS as u32).filter_map(CpuId::new).filter(|cpu| self.is_online(*cpu))
    }

    /// Gives what is on this CPU's lists back to the zones, so that it can merge (A086).
    ///
    /// Any context. In an interrupt handler that arrived while the CPU was at its lists, the lists
    /// are drained the next time the CPU uses them.
    pub fn drain_local_pages(&self) {
        let pinned = Pinned::new(&self.platform);
        let area = self.area(pinned.cpu());
        // SAFETY: this code is pinned to the CPU that the area belongs to.
        match unsafe { area.section.enter() } {
            Some(mut entered) => self.drain(area, &mut entered),
            None if self.is_online(pinned.cpu()) => area.section.request(),
            None => {}
        }
    }

    /// Gives what is on all CPUs' lists back to the zones (A086).
    ///
    /// Where this code may wait and the platform has cross calls, all lists are empty when they were
    /// drained; otherwise the other CPUs are asked and drain theirs at their next allocation or
    /// free. Atomic context never waits for another CPU.
    pub fn drain_all_pages(&self) {
        self.drain_local_pages();
        let own = {
            let pinned = Pinned::new(&self.platform);
            pinned.cpu()
        };
        let call = if self.platform.in_atomic() { None } else { self.platform.cross_call() };
        for cpu in self.online_cpus().filter(|cpu| *cpu != own) {
            let called = call.map(|call| call.call_on(cpu, &|| self.drain_local_pages()));
            if !matches!(called, Some(Ok(()))) && self.is_online(cpu) {
                self.area(cpu).section.request();
            }
        }
    }

    /// Drains this CPU's lists if somebody asked for it.
    pub(super) fn honour_request(&self) {
        let pinned = Pinned::new(&self.platform);
        let area = self.area(pinned.cpu());
        if !area.section.is_requested() {
            return;
        }
        // SAFETY: this code is pinned to the CPU that the area belongs to.
        if let Some(mut entered) = unsafe { area.section.enter() }
            && area.section.take_request()
        {
            self.drain(area, &mut entered);
        }
    }

    /// Gives everything on a CPU's lists back.
    fn drain(&self, area: &CpuArea, entered: &mut Entered<'_>) {
        let Some(tables) = self.tables() else { return };
        for zone in tables.zones() {
            for (order, migrate_type) in PageSet::kinds() {
                self.drain_ring(area, entered, zone.index(), order, migrate_type, u32::MAX);
            }
        }
    }

    /// Gives up to `most` blocks of one list back, from the cold end. Answers how many left the
    /// list.
    pub(super) fn drain_ring(
        &self,
        area: &CpuArea,
        entered: &mut Entered<'_>,
        index: u8,
        order: Order,
        migrate_type: MigrateType,
        most: u32,
    ) -> u32 {
        let Some(tables) = self.tables() else { return 0 };
        let Some((set, slot)) = area.set(entered, index) else { return 0 };
        let len = set.ring(order, migrate_type).map_or(0, |ring| ring.len());
        if len == 0 {
            return 0;
        }
        let mut left = most;
        let mut popped = 0;
        slot.zone().give_back(
            &self.platform,
            &tables.memmap,
            area.cpu(),
            || {
                left = left.checked_sub(1)?;
                let pfn = set.pop_cold(order, migrate_type)?;
                popped += 1;
                Some((pfn, order))
            },
            |pfn, order| self.report_stray(pfn, order),
        );
        slot.counters().count_drained(u64::from(popped) << order.get());
        popped
    }
}
