//! Zones and nodes: which frames there are, how many are left, and who may have them.
//!
//! # Concepts
//!
//! A *node* is memory that some CPUs reach faster than others (A087). A *zone* is the frames of one
//! node that suit one kind of use (A023): those below 16 MB for ISA devices, those below 4 GB, those
//! of the direct map, those above it, those kept for movable pages. Each frame of RAM belongs to
//! exactly one zone. The limits are a machine's description, not constants (A019).
//!
//! A *zonelist* is the order in which a request looks at zones (A036). It follows from the node and
//! the highest zone that the request's flags allow: on each node, nearest first, that zone and then
//! the ones below it.
//!
//! ```text
//!   request for HIGHMEM on node 0:   0:HighMem  0:Normal  0:DMA | 1:HighMem  1:Normal
//!   request without zone flag:                  0:Normal  0:DMA |            1:Normal
//! ```
//!
//! *Watermarks* say how far down a zone may be used, and by whom (A026, A139):
//!
//! ```text
//!   free pages
//!   high  ---- background reclaim stops
//!   low   ---- background reclaim is woken; per-CPU fast paths stop
//!   min   ---- ordinary requests stop and reclaim
//!   3/8 min -- GFP_ATOMIC stops (with one machine setting: 0, the last page, A140)
//!   0     ---- __GFP_MEMALLOC stops
//! ```
//!
//! On top of its mark, a zone keeps back its *lowmem reserve* from requests that could have used a
//! higher zone (A037).
//!
//! # Invariants
//!
//! * `free` is what the free areas hold, up to the moment at which a holder of the lock changes
//!   them; `pressed` is whether it is at or below `low`.
//! * present <= spanned; managed <= present.
//!
//! # Locking
//!
//! The zone's lock (level 1) guards the free areas and the migrate types of the zone's page blocks,
//! not the pages (A025). Counters are atomics that anybody reads.
//!
//! Linux: `struct zone`, `struct pglist_data`, `struct zonelist`. What A024 lists and is not here:
//! `pages_scanned`, `reclaim_stat`, `prev_priority`, `inactive_ratio` and the LRU lists belong to
//! reclaim; the wait table is the platform's [`Sleep`](crate::platform::Sleep), keyed by address.

mod counters;
mod list;
mod watermark;
#[allow(clippy::module_inception)]
mod zone;

pub use counters::{ZoneCounters, ZoneEvent};
pub(crate) use list::nearest;
pub use list::{MAX_ZONES, Zonelist};
pub use watermark::{Floor, Priority, Watermarks, lowmem_reserve, min_free_kilobytes};
pub use zone::{FreeAreaCounts, Met, Zone, ZoneSpan};
