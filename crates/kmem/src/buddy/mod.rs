//! The buddy system: the free blocks of one zone (A078, A079).
//!
//! # What it is
//!
//! A *block* of order k is 2^k frames whose first frame number is a multiple of 2^k. Its *buddy* is
//! the block that differs in bit k of that number only: together they are a block of order k + 1.
//! To allocate, take a free block that is large enough and *split* it in halves, keeping the lower
//! and freeing the upper, until it has the order asked for. To free, *merge* the block with its
//! buddy while that is free as a whole.
//!
//! ```text
//!   areas:   order   unmovable   movable   reclaimable        nonempty, a bit an order:
//!            0       [ ]->[ ]    -         -                    unmovable    0b1001
//!            1       -           -         -                    movable      0b0100
//!            2       -           [    ]    -                    reclaimable  0
//!            3       [        ]  -         -
//! ```
//!
//! Each area is a list of blocks, linked through the descriptors of their first frames by frame
//! number. A bit set per type says which orders have blocks, so the smallest block that is large
//! enough is found with one count of trailing zeros. Splitting and merging take at most one step an
//! order; nothing here depends on how many blocks are free.
//!
//! # Migrate types
//!
//! What can be moved, what can be given back and what can do neither are kept in different *page
//! blocks* (512 pages by default), so that long-lived unmovable pages do not end up strewn over
//! every large block. A free block is on the list of the type of the page block that its first
//! frame lies in. When a type runs out it *falls back* on another: it takes the largest block of
//! that, so that the next such case is far off, and when that takes over at least half of a page
//! block, or a whole one, the page block changes its type.
//!
//! # Invariants
//!
//! * The first frame of every block on a list is [`Block::Free`](crate::page::Block) with the order
//!   of the list; its other frames are `Interior`.
//! * The page block of the first frame has the type of the list.
//! * No two free blocks of one order below the largest are buddies (they would have merged).
//! * All frames of a block belong to one zone (A028).
//! * `nonempty` has exactly the bits of lists with blocks; `free` is the sum over all blocks.
//!
//! [`FreeAreas::verify`] checks all of them.
//!
//! # Locking
//!
//! None here: `&mut self`. The zone's lock is around it. Nothing here sleeps, calls a platform or
//! reclaims.
//!
//! Linux: `mm/page_alloc.c`, `struct free_area`. The differences: descriptors link by frame number;
//! an area is found by a bit set and not by a walk over the orders; a page block that is stolen from
//! always changes its type or gives one block only, so "the list of a block is the list of its page
//! block" always holds; there are no high-atomic, CMA or isolate types.

mod areas;
mod fallback;
mod range;
#[cfg(test)]
mod tests;
mod verify;

pub(crate) use areas::{End, FreeAreas, Taken};
pub use verify::Corruption;
