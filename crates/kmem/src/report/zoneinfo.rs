//! `/proc/zoneinfo`: all that is known of each zone.

use core::fmt::{self, Write};

use super::{free_in_page_blocks, kinds};
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{Mm, NodeId, Zone};

/// Writes `/proc/zoneinfo`: each zone's free pages, watermarks (A026), sizes (A039), what it keeps
/// back (A037), its counters and its CPUs' page sets.
///
/// Numbers are pages, but for `batch` of a page set: so many blocks move at once to or from its list
/// of order 0. A zone without pages ends after
/// `protection` (A022). `out` takes the text.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any but NMI. Cost: a look at each CPU's page sets, and one taking of a zone's lock for each order
/// from the page block's on.
pub fn zoneinfo<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let mut node_shown = None;
    for zone in mm.zones() {
        writeln!(out, "Node {}, zone {:>8}", zone.node(), zone.name())?;
        if zone.is_populated() && node_shown != Some(zone.node()) {
            node_shown = Some(zone.node());
            node_counters(mm, zone.node(), out)?;
        }
        sizes(mm, zone, out)?;
        if zone.is_populated() {
            counters(mm, zone, out)?;
            pagesets(mm, zone, out)?;
            writeln!(out, "  start_pfn:           {}", zone.start_pfn())?;
        }
    }
    Ok(())
}

fn item(out: &mut (impl Write + ?Sized), name: &str, value: u64) -> fmt::Result {
    writeln!(out, "      {name:<12} {value}")
}

fn node_counters<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    node: NodeId,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let (mut reclaimable, mut unreclaimable) = (0, 0);
    for zone in mm.zones().iter().filter(|zone| zone.node() == node) {
        let counted = mm.zone_counters(zone);
        reclaimable += counted.slab_reclaimable;
        unreclaimable += counted.slab_unreclaimable;
    }
    writeln!(out, "  per-node stats")?;
    item(out, "nr_slab_reclaimable", reclaimable)?;
    item(out, "nr_slab_unreclaimable", unreclaimable)
}

fn sizes<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    zone: &Zone,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let marks = zone.watermarks();
    writeln!(out, "  pages free     {}", zone.free_pages())?;
    for (name, pages) in [
        ("min", marks.min),
        ("low", marks.low),
        ("high", marks.high),
        ("spanned", zone.spanned_pages()),
        ("present", zone.present_pages()),
        ("managed", zone.managed_pages()),
    ] {
        writeln!(out, "        {name:<8} {pages}")?;
    }
    out.write_str("        protection: (")?;
    for (column, kind) in kinds(mm).enumerate() {
        let comma = if column == 0 { "" } else { ", " };
        write!(out, "{comma}{}", zone.lowmem_reserve(kind))?;
    }
    writeln!(out, ")")
}

fn counters<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    zone: &Zone,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let counted = mm.zone_counters(zone);
    item(out, "nr_free_pages", zone.free_pages())?;
    item(out, "nr_free_pages_blocks", free_in_page_blocks(mm, zone))?;
    item(out, "numa_hit", counted.numa_hit)?;
    item(out, "numa_miss", counted.numa_miss)?;
    item(out, "numa_foreign", counted.numa_foreign)?;
    item(out, "numa_local", counted.numa_local)?;
    item(out, "numa_other", counted.numa_other)
}

fn pagesets<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    zone: &Zone,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    writeln!(out, "  pagesets")?;
    for set in mm.pagesets(zone) {
        writeln!(out, "    cpu: {}", set.cpu)?;
        writeln!(out, "              count:    {}", set.count)?;
        writeln!(out, "              high:     {}", set.capacity)?;
        writeln!(out, "              batch:    {}", set.batch)?;
    }
    Ok(())
}
