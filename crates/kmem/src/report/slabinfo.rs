//! `/proc/slabinfo`: all caches.

use core::fmt::{self, Write};

use crate::Mm;
use crate::platform::Platform;
use crate::reclaim::Reclaim;

/// Writes `/proc/slabinfo`: a line for each cache with its objects in use and in all, their size, how
/// many a slab has, and its pages (A213). `out` takes the text.
///
/// `objsize` is the distance from one object to the next. There is nothing to tune; slabs in use are
/// those with objects in use or at hand.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any but NMI. Cost: for each cache, one taking of each node's lock.
pub fn slabinfo<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    out.write_str("slabinfo - version: 2.1\n")?;
    out.write_str(
        "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : \
         tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> \
         <sharedavail>\n",
    )?;
    for cache in mm.caches() {
        writeln!(
            out,
            "{:<17} {:>6} {:>6} {:>6} {:>4} {:>4} : tunables {:>4} {:>4} {:>4} : slabdata {:>6} \
             {:>6} {:>6}",
            cache.name,
            cache.active,
            cache.objects(),
            cache.stride,
            cache.objects_per_slab,
            cache.order.pages(),
            0,
            0,
            0,
            cache.slabs.full + cache.slabs.partial,
            cache.slabs.slabs(),
            0
        )?;
    }
    Ok(())
}
