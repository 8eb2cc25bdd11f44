//! `/proc/vmallocinfo`: the areas of `vmalloc` and its sisters.

use core::fmt::{self, Write};

use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::vmalloc::AreaKind;
use crate::{AreaInfo, Mm, VirtAddr};

/// Writes `/proc/vmallocinfo`: a line for each area, by its addresses (A226).
///
/// The addresses from the first to behind the page that nothing is mapped at, how many bytes that is, who
/// made the area (a file and a line), how many pages it has, or where a device's begin, what it is, and
/// how many pages lie on each node. What has been given back and waits to be unmapped is an `unpurged
/// vm_area`. `out` takes the text.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any but NMI. Cost: a search of the areas for each of them, and all their runs; areas that come and go
/// meanwhile may be missed.
///
/// ```text
/// 0xffffc90000000000-0xffffc90000011000   69632 drivers/scull.rs:44 pages=16 vmalloc N0=16
/// ```
pub fn vmallocinfo<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let mut at = VirtAddr::new(0);
    while let Some(area) = mm.vm_area_from(at) {
        let AreaInfo { start, pages, kind, is_going, caller, physical, .. } = area;
        let size = (pages + 1) << P::PAGE_SHIFT;
        let end = start.get() + size;
        at = VirtAddr::new(end);
        write!(out, "{:#018x}-{end:#018x} {size:>7}", start.get())?;
        if is_going {
            writeln!(out, " unpurged vm_area")?;
            continue;
        }
        write!(out, " {}:{}", caller.file(), caller.line())?;
        if kind == AreaKind::Ioremap {
            write!(out, " phys={:#018x}", physical.get())?;
        } else {
            write!(out, " pages={pages}")?;
        }
        write!(out, " {}", kind.name())?;
        // The frames of the others are not the area's.
        if kind == AreaKind::Vmalloc {
            let nodes = mm.vm_area_nodes(start);
            for (node, pages) in nodes.iter().enumerate().filter(|(_, pages)| **pages > 0) {
                write!(out, " N{node}={pages}")?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
