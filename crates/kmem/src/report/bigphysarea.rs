//! `/proc/bigphysarea`: how much of what was set aside at boot is used.

use core::fmt::{self, Write};

use crate::Mm;
use crate::platform::Platform;
use crate::reclaim::Reclaim;

/// Writes `/proc/bigphysarea`: what was set aside at boot and how much of it is handed out, in pages
/// (A256). A machine without it has an empty file. `out` takes the text.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any; in an NMI handler the file may be empty. Cost: a step for each block or gap.
///
/// ```text
/// area: 00100000-002fffff
/// pages: 512
/// used: 40 in 2 blocks
/// longest free: 384
/// ```
pub fn bigphysarea<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let (Ok(Some(frames)), Ok(usage)) = (mm.bigphysarea_frames(), mm.bigphysarea_usage()) else {
        return Ok(());
    };
    let (start, end) = (frames.start << P::PAGE_SHIFT, (frames.end << P::PAGE_SHIFT) - 1);
    writeln!(out, "area: {start:08x}-{end:08x}")?;
    writeln!(out, "pages: {}", usage.pages)?;
    writeln!(out, "used: {} in {} blocks", usage.used, usage.blocks)?;
    writeln!(out, "longest free: {}", usage.longest)
}
