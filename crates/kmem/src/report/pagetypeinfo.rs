//! `/proc/pagetypeinfo`: free blocks by migrate type, and who has the page blocks.

use core::fmt::{self, Write};

use super::orders;
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{MigrateType, Mm};

/// Writes `/proc/pagetypeinfo`: the size of a page block; for each zone with pages the free blocks
/// of each order and migrate type; and how many page blocks of the zone have each type.
///
/// A line of the second part adds up to the zone's line in `buddyinfo`. `out` takes the text.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any but NMI. Cost: one taking of each zone's lock, and a look at every page block of the machine.
pub fn pagetypeinfo<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    if !mm.is_booted() {
        return Ok(());
    }
    let block = mm.page_block_order();
    writeln!(out, "Page block order: {block}")?;
    writeln!(out, "Pages per block:  {}", block.pages())?;
    writeln!(out)?;
    free_blocks(mm, out)?;
    writeln!(out)?;
    page_blocks(mm, out)
}

fn free_blocks<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    write!(out, "{:<43} ", "Free pages count per migrate type at order")?;
    for order in orders(mm) {
        write!(out, "{:>6} ", order.get())?;
    }
    writeln!(out)?;
    for zone in mm.zones().iter().filter(|zone| zone.is_populated()) {
        let counts = mm.free_area_counts(zone);
        for migrate_type in MigrateType::ALL {
            let (node, name) = (zone.node(), migrate_type.name());
            write!(out, "Node {node:>4}, zone {:>8}, type {name:>12} ", zone.name())?;
            for order in orders(mm) {
                write!(out, "{:>6} ", counts.blocks_of(order, migrate_type))?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}

fn page_blocks<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    write!(out, "{:<23}", "Number of blocks type")?;
    for migrate_type in MigrateType::ALL {
        write!(out, "{:>12} ", migrate_type.name())?;
    }
    writeln!(out)?;
    for zone in mm.zones().iter().filter(|zone| zone.is_populated()) {
        write!(out, "Node {}, zone {:>8} ", zone.node(), zone.name())?;
        for migrate_type in MigrateType::ALL {
            write!(out, "{:>12} ", mm.page_blocks(zone, migrate_type))?;
        }
        writeln!(out)?;
    }
    Ok(())
}
