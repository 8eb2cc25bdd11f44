//! What the manager shows: `/proc`'s files about memory, in Linux's text.
//!
//! Each function writes one file to any [`fmt::Write`](core::fmt::Write), line by line: no buffer,
//! no allocation. Names, their order, widths and indentation are Linux's, so that programs which
//! read those files read these.
//!
//! # What is left out
//!
//! A line stands here only if the manager counts what it says. What it does not know is left out,
//! never printed as a zero.
//!
//! * [`buddyinfo`] is complete: a line for each zone with pages (A080, A092), a column for each
//!   order of the machine.
//! * [`pagetypeinfo`] has the three migrate types that exist. `HighAtomic`, `CMA` and `Isolate` are
//!   no types here.
//! * [`zoneinfo`] has every zone of the machine, with or without pages, and a column of `protection`
//!   for each kind of zone that the machine has. Of the node's counters it has slab pages; page
//!   cache, anonymous and dirty pages belong to folders above this crate. `boost`, `promo` and `cma`
//!   are mechanisms that there are none of, and so are `high_min` and `high_max` of a page set that
//!   does not adapt, `vm stats threshold` and `node_unreclaimable`.
//! * [`meminfo`] has what zones and slabs hold. It starts with the three lines that every program
//!   reads; the rest of Linux's is about users of memory, whom the page allocator does not know.
//! * [`vmstat`] has pages, requests and stalls. `numa_interleave` is left out, as nothing interleaves.
//! * [`allocinfo`] has the objects of caches that keep owners; a caller is a file and a line, with the
//!   cache instead of the function's name, which Rust does not tell.
//! * [`vmallocinfo`] has the areas of `vmalloc` and its sisters, with real addresses; a caller is a file and
//!   a line, and the memory that an area's own list of pages takes is an area like others.
//! * [`iomem`] has RAM and what the boot loader's map says of it. Devices are their drivers' to say.
//! * [`bigphysarea`] is a file of the patch of that name; Linux itself has none.
//! * [`unusable_index`] is complete. It is no file of `/proc`, but of the directory in which Linux has what is for
//!   looking into it.
//! * [`pagemap_text`] is a picture for people, which Linux has no counterpart of; [`pageruns`] is the same for
//!   programs, run by run, and [`page`] tells of one frame.
//!
//! # Which pages are free
//!
//! Pages on a CPU's lists are free memory (A086), but no longer in a zone's free areas:
//!
//! ```text
//!   MemFree  =  nr_free_pages (zoneinfo, vmstat)  +  count of every pageset (zoneinfo)
//!                    =  sum of blocks * 2^order (buddyinfo, pagetypeinfo)
//! ```
//!
//! Linux leaves the lists out of `MemFree`. There they are a small share; on a small machine they
//! are not, and with them a program that frees all that it had finds `MemFree` where it was.
//!
//! # Context
//!
//! Any but NMI. `buddyinfo`, `pagetypeinfo`, `unusable_index` and `zoneinfo` take each zone's lock for a moment: the
//! numbers of one zone are of one moment, those of different zones are not. Nothing is locked while the
//! writer is called. Before boot the files are empty.

#![cfg_attr(not(test), forbid(unsafe_code))]

mod allocinfo;
mod bigphysarea;
mod buddyinfo;
mod class;
mod iomem;
mod meminfo;
mod page;
mod pagemap;
mod pageruns;
mod pagetypeinfo;
mod slabinfo;
mod unusable_index;
mod vmallocinfo;
mod vmstat;
mod zoneinfo;

#[cfg(test)]
mod tests;

pub use allocinfo::allocinfo;
pub use bigphysarea::bigphysarea;
pub use buddyinfo::buddyinfo;
pub use iomem::iomem;
pub use meminfo::meminfo;
pub use page::page;
pub use pagemap::pagemap_text;
pub use pageruns::pageruns;
pub use pagetypeinfo::pagetypeinfo;
pub use slabinfo::slabinfo;
pub use unusable_index::unusable_index;
pub use vmallocinfo::vmallocinfo;
pub use vmstat::vmstat;
pub use zoneinfo::zoneinfo;

use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{Mm, Order, Zone, ZoneKind};

/// The orders of the machine.
fn orders<P: Platform, R: Reclaim>(mm: &Mm<P, R>) -> impl Iterator<Item = Order> {
    (0..=mm.largest_order().get()).filter_map(Order::new)
}

/// The kinds of zone that the machine has, with or without pages.
fn kinds<P: Platform, R: Reclaim>(mm: &Mm<P, R>) -> impl Iterator<Item = ZoneKind> {
    let zones = mm.zones();
    ZoneKind::ALL.into_iter().filter(move |kind| zones.iter().any(|zone| zone.kind() == *kind))
}

/// Pages in free blocks of at least a page block: what grouping by migrate type keeps whole.
fn free_in_page_blocks<P: Platform, R: Reclaim>(mm: &Mm<P, R>, zone: &Zone) -> u64 {
    let whole = orders(mm).filter(|order| *order >= mm.page_block_order());
    let counts = mm.free_area_counts(zone);
    whole.map(|order| counts.blocks(order) << order.get()).sum()
}
