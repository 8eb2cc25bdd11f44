//! Per-CPU data: one copy of a variable for each CPU (A279 to A294).
//!
//! # What it is
//!
//! A CPU that has its own copy of a counter or a list needs no lock for it, and its line of the
//! processor's cache stays where it is. A *variable* is static ([`StaticPerCpu`]) or allocated; either
//! has a copy for every CPU that there can be, online or not, so nothing happens to it when CPUs come
//! and go.
//!
//! Memory for it comes in *chunks*. A chunk is a page for each CPU, on that CPU's node, and an object
//! lies at the same *offset* in all of them:
//!
//! ```text
//!                    offset 0     96   104            a page
//!   page of CPU 0      [ ######## | ## | ...           ]  <-- bases[0]
//!   page of CPU 1      [ ######## | ## | ...           ]  <-- bases[1]     copy = bases[cpu] + offset
//!   page of CPU 2      [ ######## | ## | ...           ]  <-- bases[2]
//!                         object    object
//!
//!   Chunk  bases, and a Map: which offsets are allocated, 8 bytes a bit
//!   Chunks lists of chunks by the largest block that each has free
//! ```
//!
//! So two CPUs' copies are never in one line (A291), a chunk needs no block of more than one page, and
//! all of it is near the CPU that uses it. An object is at most a page, and so is its alignment.
//!
//! # The search
//!
//! A request is for so many bytes at a multiple of so many. What is looked for is an *aligned block*, a
//! power of two of granules at a multiple of itself, that has room for both. Each chunk is on the list
//! of the largest one that it has; the request takes a chunk from the first list that will do, whose
//! chunks are the fullest. In the chunk a tree says the same of each half, quarter and so on down to a
//! word of 64 granules, so one way down finds a word. The aligned block proves that there is room; what
//! is taken is the lowest place in the word that fits, aligned as asked and not more, so that objects of
//! 40 bytes lie 40 bytes apart. None of this looks at a chunk or a word that cannot do.
//!
//! # Who may touch a copy
//!
//! Code that is pinned to a CPU has that CPU's copy to itself, but for interrupt handlers, which arrive
//! all the same. To Rust a handler is another thread. So a variable's value is `Sync`, whoever asks gets
//! `&T`, and what changes it is one of these:
//!
//! | value | changed by | against handlers of the CPU |
//! | --- | --- | --- |
//! | an atomic | its own operations, `Relaxed` | right; one locked instruction on a line nobody else has |
//! | [`CpuCounter`] | `add` of the guard | right; no locked instruction |
//! | [`CpuCell`] | `borrow_mut` of the guard: `&mut T` | a handler that arrives inside gets `None` |
//!
//! The last two rest on a [`CpuSection`](crate::sync::CpuSection), which says with a plain store that its
//! CPU is inside. Both ask the guard and not the value: a guard exists only on the CPU whose copy it is
//! of, pinned, while a plain reference may come from [`per_cpu`](crate::Mm::per_cpu) and anywhere.
//!
//! # Static variables
//!
//! The value in the `static` is the boot CPU's copy, from before the manager is booted until the end;
//! nothing that the boot CPU has counted early is lost. The copies of the others are made when the
//! variable is set up, at boot or when a module comes, and given back when the module goes (A286).
//!
//! # Invariants
//!
//! * A granule belongs to at most one object; an object's first granule is marked as such.
//! * A chunk is on the list that its tree's root says; one without room is on none.
//! * The pages of a chunk are marked as per-CPU data, with the chunk's address, from before it is on the
//!   lists until it is off them; both under the lock. So a free finds the chunk by the page.
//!
//! # Locking
//!
//! The lists and all maps: one lock (level 6), held for one search and never while pages or kmalloc's
//! memory are taken or given. Reaching a copy takes none.
//!
//! Linux: `mm/percpu.c`, whose chunks are stretches of virtual memory with the CPUs' pages at fixed
//! distances, mapped as they fill, and searched by hints over a bitmap of four-byte units. Here there is
//! nothing to map, a copy is found through a table of bases, and the search has a bound.

mod cell;
mod chunk;
mod counter;
mod map;
#[cfg(test)]
mod tests;
mod variable;

pub use cell::{CpuCell, CpuRefMut};
pub(crate) use chunk::{Chunk, Chunks, Memory};
pub use counter::CpuCounter;
pub(crate) use map::{NotAllocated, Wanted};
pub(crate) use variable::Copies;
pub use variable::{PerCpuStatic, PerCpuVar, StaticPerCpu};
