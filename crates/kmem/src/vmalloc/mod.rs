//! Memory that is contiguous as addresses only: the areas of `vmalloc`, `vmap` and `ioremap` (A220 to
//! A245).
//!
//! # What it is
//!
//! The platform keeps a range of addresses for mappings. An *area* is a part of it that somebody has: some
//! pages with frames behind them, and behind these a *guard page* that nothing is ever mapped at, so that
//! whoever runs past the end meets a fault and not somebody else's memory.
//!
//! ```text
//!   the range   | area        |G|        gap         | area   |G| area       |G|   gap   ...
//!                 |  |  |  |                           |  |
//!   frames        8  9 10  3                           7 42        runs: 8 to 10, 3; 7; 42
//! ```
//!
//! Every area knows the gap behind it, and the tree of areas knows the largest gap of each subtree
//! (`tree.rs`, `areas.rs`): the lowest gap that is large enough, and the area that an address is in, are
//! found by going down once. What an area is and which frames it has is in `mapping.rs`, all of them
//! together in `space.rs`.
//!
//! # Giving back is put off
//!
//! To unmap pages is cheap beside what comes then: every CPU has to forget them. So an area that is given
//! back is only marked. It keeps its addresses, its mappings and its frames until many are done with at
//! once: unmapped, then forgotten by all CPUs, and only then are the frames freed and the addresses used
//! again. Until then what is read through an old address is old memory, never somebody else's. And whoever
//! asks for as many pages as the area that was given back last has gets that one as it is, mapped: a pair
//! of calls costs two searches then.
//!
//! ```text
//!   in use ──vfree──> going ──purge──> unmapped, flushed ──> frames freed, addresses free
//!     ^       any context │    where one may sleep
//!     └─────vmalloc───────┘
//! ```
//!
//! # Invariants
//!
//! * Areas do not overlap, and the gaps and they make up the range.
//! * A frame is freed, and an address handed out again, only after a flush that began when nothing was
//!   mapped there.
//! * What the tree's nodes lie in is brought by whoever makes an area, and given back to whoever takes it
//!   out: the structures here allocate nothing.
//!
//! # Locking
//!
//! Pure. `mm/vmalloc` keeps one `Space` behind a spin lock (`VmapLevel`).
//!
//! # What differs from Linux
//!
//! Linux frees the frames of `vfree` before CPUs have forgotten them, and keeps free addresses in trees of
//! their own, split among CPUs. Here there is one tree, of what is in use. An area's frames are blocks as
//! large as there are, each a compound block, and are mapped as runs.

mod areas;
mod mapping;
mod space;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use areas::{Area, Place};
pub use mapping::AreaKind;
pub(crate) use mapping::{FEW, Going, Mapping, Run, Runs};
pub(crate) use space::{Space, Wrong};

/// What an area is kept in.
pub(crate) type AreaNode = tree::Node<Area<Mapping>>;
