//! The slab layer: objects of one kind, many to a page (A168 to A177).
//!
//! # What it is
//!
//! A *cache* has objects of one size. They lie in *slabs*, blocks of one or more pages, side by side
//! from a *colour* on, an offset that differs from slab to slab, so that the first objects of all do
//! not share lines of the processor's cache. kmalloc is a cache for each of its sizes.
//!
//! ```text
//!   a CPU             magazine [ o o o o o . . . ]        no lock; the last one in is the first out
//!                        |  ^      away [ o o . . ]       other nodes' objects, on their way home
//!      a batch at a time v  |
//!   a node            depot [ o o o o o o o o . . . ]     what one CPU puts down another takes
//!                        |  ^                             ---- the node's lock from here on ----
//!                        v  |
//!   its slabs         partial [==__=_] -> [_===__]        served first
//!                     empty   [______]                    then these
//!                     leaving [______]                    then these; they go when memory is low
//!                     full    [======]
//! ```
//!
//! A slab's *record* says how many objects the slab has free, which (a bit each), and where every
//! object is (a byte each). The descriptor of each of the slab's pages says which
//! cache, node and colour the slab has and where its record is: on the slab, behind the objects, where
//! that costs no object or objects are small; else an object of kmalloc's (A183).
//!
//! # The common way
//!
//! An allocation takes the last entry of the CPU's magazine: the object and where its byte is. A free
//! finds the page's descriptor, there the cache's number and the record, and in the cache's
//! `Front`, one line of the processor's cache, what it takes to know the object: its place in the slab
//! times a number, turned, is its own number, and too large where no object begins. Neither takes a lock,
//! masks interrupts, or executes an atomic read-modify-write.
//!
//! A magazine that both runs dry and overflows has too few slots for what its CPU does: it is given
//! twice as many, up to 16384 and to what a 64th of the memory would be, for each cache. Where memory
//! is sought it goes back to the slots that it began with. A CPU that only allocates, or only frees,
//! does not hoard by this.
//!
//! # Caches that are debugged
//!
//! A cache may keep known bytes in and around its objects, and who had them (`debug.rs`). It has no
//! magazines, its objects change hands under the node's lock, and its depot is a quarantine: what is
//! freed last comes out last. The common way of other caches knows nothing of it.
//!
//! # An object's byte
//!
//! *free* in its slab, *held* by a caller, *in the depot*, or *in the magazine of CPU n*. A free looks
//! that it is held; whoever takes an object out of a magazine looks that the byte names that magazine's
//! CPU. So a second free is found at the call, and of two CPUs that free one object at one moment one
//! finds another's number when it takes its entry. No locked instruction on the common way; to and from
//! the depot and slabs, one for an object (`state.rs` has the argument, and `models.rs` the check).
//!
//! # Invariants
//!
//! * An object is in exactly one place, but for entries that are not good: those of an object whose
//!   byte says something else.
//! * A slab is on the list of its node that the number of its free objects says. It goes when no CPU
//!   may have an entry of it (`leaving.rs`).
//! * A place in the table of caches has a cache while its generation is odd; a handle of another
//!   generation names nothing.
//!
//! # Locking
//!
//! Magazines: the CPU, pinned, inside the [`CpuSection`](crate::sync::CpuSection) that each CPU has for
//! each cache; that a CPU has any, and what others may know of them, its node's lock. Depot and slabs:
//! the node's lock (level 2), taken for a batch. Pages are allocated before it is taken and freed after
//! it is released. An NMI handler that finds it taken marks the object and names the slab, for whoever
//! holds the lock next.
//!
//! Linux: `mm/slab.c` of the texts' kernels, whose three lists, colours, per-CPU arrays and shared array
//! these are, and `mm/slub.c` of today, which has none of these and links free objects through
//! themselves. Here an object's memory is never written by the allocator.

mod cache;
mod cpu;
mod debug;
mod front;
mod geometry;
mod leaving;
mod lists;
mod magazine;
mod node;
mod record;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod validate;

pub use crate::CacheName;
pub(crate) use cache::{Cache, Kind, PinnedCache};
pub use cache::{CacheId, Ctor, CtorFlags};
pub(crate) use cpu::CpuCache;
pub(crate) use debug::{Debug, TRACK};
pub(crate) use front::Front;
pub(crate) use geometry::Geometry;
pub use geometry::SMALLEST_OBJECT;
#[cfg(test)]
pub(crate) use lists::Lists;
pub use lists::SlabCounts;
pub(crate) use magazine::{Entry, Magazine};
pub(crate) use node::{NodeSlabs, flush};
pub(crate) use record::Record;
#[cfg(test)]
pub(crate) use shared::At;
pub(crate) use shared::{Asked, Seen, Shared, Sight, slab_of};
pub(crate) use state::{ObjectState, State};
pub use validate::Validated;
