//! `/proc/vmstat`: counters of the machine, one a line.

use core::fmt::{self, Write};

use super::{free_in_page_blocks, kinds};
use crate::boot::map::ReservedClass;
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{Mm, Zone, ZoneKind};

/// Writes `/proc/vmstat`: a name and a number a line.
///
/// `nr_*` are pages now; the others count since boot. `pgalloc_*` and `pgfree` are pages that
/// callers had and gave back: on a machine at rest they differ by what callers hold. `numa_*` are
/// requests, `allocstall_*` those that went into reclaim. `nr_memmap_boot_pages` are the pages that the descriptors lie in. `out` takes the text.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any but NMI. Cost: as `zoneinfo`.
pub fn vmstat<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let Some(frames) = mm.frames() else { return Ok(()) };
    let zones = mm.zones();
    let counted = mm.counters();
    let memmap = frames.reserved().filter(|r| r.class == ReservedClass::Metadata);
    let memmap = memmap.filter(|r| r.name == "memmap").map(|r| r.range.end - r.range.start);

    let mut line = |name: &str, value: u64| writeln!(out, "{name} {value}");
    line("nr_free_pages", zones.iter().map(Zone::free_pages).sum())?;
    line("nr_free_pages_blocks", zones.iter().map(|zone| free_in_page_blocks(mm, zone)).sum())?;
    line("numa_hit", counted.numa_hit)?;
    line("numa_miss", counted.numa_miss)?;
    line("numa_foreign", counted.numa_foreign)?;
    line("numa_local", counted.numa_local)?;
    line("numa_other", counted.numa_other)?;
    line("nr_slab_reclaimable", counted.slab_reclaimable)?;
    line("nr_slab_unreclaimable", counted.slab_unreclaimable)?;
    line("nr_memmap_boot_pages", memmap.sum())?;
    for kind in kinds(mm) {
        line(pgalloc(kind), counted.allocated[kind.index()])?;
    }
    for kind in kinds(mm) {
        line(allocstall(kind), counted.stalls[kind.index()])?;
    }
    line("pgfree", counted.freed)
}

const fn allocstall(kind: ZoneKind) -> &'static str {
    match kind {
        ZoneKind::Dma => "allocstall_dma",
        ZoneKind::Dma32 => "allocstall_dma32",
        ZoneKind::Normal => "allocstall_normal",
        ZoneKind::HighMem => "allocstall_high",
        ZoneKind::Movable => "allocstall_movable",
    }
}

const fn pgalloc(kind: ZoneKind) -> &'static str {
    match kind {
        ZoneKind::Dma => "pgalloc_dma",
        ZoneKind::Dma32 => "pgalloc_dma32",
        ZoneKind::Normal => "pgalloc_normal",
        ZoneKind::HighMem => "pgalloc_high",
        ZoneKind::Movable => "pgalloc_movable",
    }
}
