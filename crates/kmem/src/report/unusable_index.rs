//! `/sys/kernel/debug/extfrag/unusable_index`: how much of the free memory lies in pieces.

use core::fmt::{self, Write};

use super::orders;
use crate::Mm;
use crate::platform::Platform;
use crate::reclaim::Reclaim;

/// Writes `/sys/kernel/debug/extfrag/unusable_index`: for each zone with pages and each order, the share of the
/// zone's free memory that is of no use to a request of that order, since it is in smaller blocks (A081).
///
/// 0 where all that is free lies in blocks of the order or larger ones, 1 where none does. Between two looks at
/// a machine it tells how much more scattered its free memory has become, which the sum of what is free does
/// not. Pages on CPUs' lists are not looked at. `out` takes the text.
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
/// Node 0, zone   Normal 0.000 0.117 0.117 0.702
/// ```
pub fn unusable_index<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    for zone in mm.zones().iter().filter(|zone| zone.is_populated()) {
        write!(out, "Node {}, zone {:>8} ", zone.node(), zone.name())?;
        let counts = mm.free_area_counts(zone);
        for order in orders(mm) {
            let thousandths = counts.unusable(order);
            write!(out, "{}.{:03} ", thousandths / 1000, thousandths % 1000)?;
        }
        writeln!(out)?;
    }
    Ok(())
}
