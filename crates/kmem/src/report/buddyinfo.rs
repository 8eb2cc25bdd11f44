//! `/proc/buddyinfo`: free blocks of each order.

use core::fmt::{self, Write};

use super::orders;
use crate::Mm;
use crate::platform::Platform;
use crate::reclaim::Reclaim;

/// Writes `/proc/buddyinfo`: for each zone with pages, how many free blocks there are of each order
/// (A080, A092, A322).
///
/// Blocks times their pages add up to the pages in the free areas; pages on CPUs' lists are not
/// among them. `out` takes the text.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any but NMI. Cost: one taking of a zone's lock for each line.
///
/// ```text
/// Node 0, zone   Normal      2      1      0      3
/// ```
pub fn buddyinfo<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    for zone in mm.zones().iter().filter(|zone| zone.is_populated()) {
        write!(out, "Node {}, zone {:>8} ", zone.node(), zone.name())?;
        let counts = mm.free_area_counts(zone);
        for order in orders(mm) {
            write!(out, "{:>6} ", counts.blocks(order))?;
        }
        writeln!(out)?;
    }
    Ok(())
}
