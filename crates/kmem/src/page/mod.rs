//! `struct page`: one descriptor for every frame, and the memmap that holds them.
//!
//! # The descriptor
//!
//! 32 bytes (Linux: 64), with every field of A005:
//!
//! ```text
//!  0        1        2                 4                           8
//!  +--------+--------+-----------------+---------------------------+
//!  | block  | zone   | mark            | flags   32 states (A006)  |
//!  +--------+--------+-----------------+---------------------------+ 8
//!  | count   references (A007)         | map count                 |
//!  +-----------------------------------+---------------------------+ 16
//!  | private 64 bits    -- or --    mapping id 32 | index 32       |
//!  +-----------------------------------+---------------------------+ 24
//!  | next    frame number              | prev    frame number      |
//!  +-----------------------------------+---------------------------+ 32
//! ```
//!
//! * *block* says what the frame is part of ([`Block`]): a hole, reserved, the first page of a free
//!   or a used block of some order, or a page inside one. It is written under the zone's lock, or
//!   by the holder of a used block.
//! * *mark* says where a used block is: with a caller, or on a CPU's page lists ([`Place`]). It is
//!   written without a lock by whoever frees the block; `mark.rs` says why that is enough.
//! * *private* and *mapping, index* share their place: a frame is private data, or page cache, or
//!   neither (A009).
//! * The *virtual* of A005 is computed: frames of the direct map by addition, others by asking
//!   whoever mapped them.
//!
//! Links are frame numbers, not pointers: half the size, good in any address space, checkable.
//!
//! # The memmap
//!
//! Descriptors are in *extents*: runs of frames, each aligned outward to blocks of the largest
//! order, so that a frame's buddy always has a descriptor in the same extent. Holes between extents
//! have none.
//!
//! ```text
//!  frames     |=== RAM ===|.....hole.....|==== RAM ====|..|== RAM ==|
//!  extents    [   extent 0   ]        [          extent 1           ]
//!  index      [0|0|0|0|0|0|0|0|1|1|1|1|1|1|1|1 ...]   one byte for a 256th of the span
//! ```
//!
//! A frame is compared with the two largest extents first, which hold nearly all frames of most
//! machines. For the others the index gives the extent, and the extent the descriptor; extents that
//! lie in one cell of the index are stepped through.
//!
//! # Invariants
//!
//! * Every frame of RAM has exactly one descriptor (A004).
//! * A frame that is not RAM and has a descriptor is [`Block::Hole`].
//! * No code outside this folder reads a descriptor's raw fields.
//!
//! Linux: `struct page`, `mem_section`, `pageblock_flags`. There a pointer to the descriptor is the
//! handle; here it is [`Page`], the frame's number with the knowledge that it has a descriptor.

mod block;
mod descriptor;
#[cfg(not(loom))]
mod list;
mod mark;
#[cfg(not(loom))]
mod memmap;

pub use block::Block;
pub use descriptor::{Descriptor, PageFlags};
pub(crate) use descriptor::{SlabView, SlabWord};
#[cfg(not(loom))]
pub(crate) use list::List;
pub(crate) use mark::Mark;
pub use mark::Place;
#[cfg(not(loom))]
pub use memmap::{Extent, MAX_EXTENTS, Memmap, MigrateType};

use crate::Pfn;

/// A frame that has a descriptor: what the texts' `struct page *` names.
///
/// The handle says which frame; it does not say that the frame is still the holder's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Page(Pfn);

impl Page {
    /// A frame that the caller knows to have a descriptor.
    #[inline]
    pub(crate) const fn of(pfn: Pfn) -> Page {
        Page(pfn)
    }

    /// The frame's number (A015).
    #[inline]
    pub const fn pfn(self) -> Pfn {
        self.0
    }
}
