//! `/proc/allocinfo`: what is allocated, by who allocated it.

use core::fmt::{self, Write};
use core::panic::Location;

use crate::Mm;
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::slab::CacheName;

/// How many callers are told apart: the largest of them are shown, and what the others have together.
const CALLERS: usize = 64;

/// What one caller has of one cache.
#[derive(Clone, Copy)]
struct Caller {
    site: &'static Location<'static>,
    cache: CacheName,
    objects: u64,
    bytes: u64,
}

/// Writes `/proc/allocinfo`: what objects are with callers, by the call that allocated them, with the
/// most bytes first (A162). `out` takes the text.
///
/// It knows the objects of caches that keep owners ([`CacheFlags::STORE_USER`](crate::CacheFlags),
/// [`Setup::slab_debug`](crate::Setup::slab_debug)). When all that uses memory has ended, what is left
/// here has leaked.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any but NMI; 5 KiB of stack. Cost: all objects in use, with the lock of a node held.
pub fn allocinfo<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let mut callers: [Option<Caller>; CALLERS] = [None; CALLERS];
    let (mut other_objects, mut other_bytes) = (0u64, 0u64);
    mm.each_owned(|owned| {
        let bytes = u64::from(owned.asked);
        let is_this =
            |caller: &Caller| caller.site == owned.caller.site && caller.cache == owned.cache;
        let place = callers.iter_mut().find(|place| place.as_ref().is_none_or(is_this));
        match place {
            Some(Some(caller)) => {
                caller.objects += 1;
                caller.bytes += bytes;
            }
            Some(place) => {
                let (site, cache) = (owned.caller.site, owned.cache);
                *place = Some(Caller { site, cache, objects: 1, bytes });
            }
            None => {
                other_objects += 1;
                other_bytes += bytes;
            }
        }
    });
    callers.sort_unstable_by_key(|caller| {
        core::cmp::Reverse(caller.map(|caller| (caller.bytes, caller.objects)))
    });
    out.write_str("allocinfo - version: 1.0\n#     <size>  <calls> <tag info>\n")?;
    for Caller { site, cache, objects, bytes } in callers.into_iter().flatten() {
        writeln!(out, "{bytes:>12} {objects:>8} {}:{} cache:{cache}", site.file(), site.line())?;
    }
    if other_objects > 0 {
        writeln!(out, "{other_bytes:>12} {other_objects:>8} others")?;
    }
    Ok(())
}
