//! `/proc/meminfo`: the machine's memory in KiB.

use core::fmt::{self, Write};

use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{Mm, Zone, ZoneKind};

/// Writes `/proc/meminfo`, in KiB whatever the page size is.
///
/// * `MemTotal`: what the zones manage. Reserved frames and the manager's own tables are no part.
/// * `MemFree`: free pages in the zones and on CPUs' lists (A086), as
///   [`Mm::free_page_count`] has it.
/// * `MemAvailable`: how much of that ordinary requests get before the system works to keep up:
///   `MemFree` without each zone's high mark and the most that the zone keeps back, and the slabs that
///   no object is out of, which a request that may sleep has back. With no page cache there is nothing
///   more to add.
/// * `HighTotal` to `LowFree`, on a machine with a zone HighMem: the zones that reach above the
///   direct map, and the others.
/// * `Slab`, `SReclaimable`, `SUnreclaim`: pages marked as slab (A018).
/// * `KernelStack`: pages of kernel stacks that are in use.
/// * `VmallocTotal`, `VmallocUsed`, on a platform with page tables: the addresses for mappings, and the
///   pages of `vmalloc` that are in use.
///
/// `out` takes the text.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any but NMI. Cost: a look at each zone's and each CPU's counters, and for each cache one taking of each
/// node's lock.
pub fn meminfo<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    if !mm.is_booted() {
        return Ok(());
    }
    let (mut high, mut low, mut reserve) = (Sum::default(), Sum::default(), 0);
    for zone in mm.zones() {
        if is_high(mm, zone) { &mut high } else { &mut low }.add(mm, zone);
        reserve += kept_back(zone);
    }
    let total = high.managed + low.managed;
    let free = high.free + low.free;
    let mut line = |label: &str, pages: u64| {
        writeln!(out, "{label:<16}{:>8} kB", (pages << P::PAGE_SHIFT) >> 10)
    };
    line("MemTotal:", total)?;
    line("MemFree:", free)?;
    line("MemAvailable:", free.saturating_sub(reserve) + in_empty_slabs(mm))?;
    if mm.zones().iter().any(|zone| zone.kind() == ZoneKind::HighMem) {
        line("HighTotal:", high.managed)?;
        line("HighFree:", high.free)?;
        line("LowTotal:", low.managed)?;
        line("LowFree:", low.free)?;
    }
    let counted = mm.counters();
    line("Slab:", counted.slab_reclaimable + counted.slab_unreclaimable)?;
    line("SReclaimable:", counted.slab_reclaimable)?;
    line("SUnreclaim:", counted.slab_unreclaimable)?;
    line("KernelStack:", mm.stack_info().pages as u64)?;
    let vmalloc = mm.vmalloc_info();
    let addresses = vmalloc.range.end.get() - vmalloc.range.start.get();
    if addresses > 0 {
        line("VmallocTotal:", (addresses >> P::PAGE_SHIFT) as u64)?;
        line("VmallocUsed:", vmalloc.used as u64)?;
    }
    Ok(())
}

/// Pages of slabs that no object is out of.
fn in_empty_slabs<P: Platform, R: Reclaim>(mm: &Mm<P, R>) -> u64 {
    mm.caches().map(|cache| cache.slabs.empty << cache.order.get()).sum()
}

#[derive(Default)]
struct Sum {
    managed: u64,
    free: u64,
}

impl Sum {
    fn add<P: Platform, R: Reclaim>(&mut self, mm: &Mm<P, R>, zone: &Zone) {
        let listed: u64 = mm.pagesets(zone).map(|set| set.count).sum();
        self.managed += zone.managed_pages();
        self.free += zone.free_pages() + listed;
    }
}

/// Whether a zone has frames above the direct map. A zone Movable may, as well as HighMem.
fn is_high<P: Platform, R: Reclaim>(mm: &Mm<P, R>, zone: &Zone) -> bool {
    let end = zone.start_pfn() + zone.spanned_pages();
    zone.spanned_pages() != 0 && end > mm.platform().limit().get() >> P::PAGE_SHIFT
}

/// What a zone does not give to ordinary requests that could be met elsewhere too.
fn kept_back(zone: &Zone) -> u64 {
    let reserves = ZoneKind::ALL.map(|highest| zone.lowmem_reserve(highest));
    let most = reserves.into_iter().max().unwrap_or(0);
    (zone.watermarks().high + most).min(zone.managed_pages())
}
