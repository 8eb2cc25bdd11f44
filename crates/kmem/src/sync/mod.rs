//! What CPUs share, and what they do not.
//!
//! * [`SpinLock`]: one CPU at a time, interrupts masked while it is held. For the cold paths: a
//!   lock is taken for a batch of pages, not for a page.
//! * [`CpuSection`]: entry to data of one CPU. No lock and no atomic read-modify-write; an
//!   interrupt that arrives inside finds the section busy and takes the shared path instead.
//! * [`Aside`]: frames put aside by code that may not wait for a lock.
//!
//! # Lock levels
//!
//! Every lock has a [`Level`] in its type, for whoever reads the code: a lock is taken only while
//! every lock held is of a lower level, so no two CPUs wait for each other. Nothing checks it; there
//! is little to check:
//!
//! | level | lock | held for |
//! | --- | --- | --- |
//! | 0 | none: a [`CpuSection`] | one push or pop, or a batch |
//! | 1 | [`ZoneLevel`]: a zone's free areas | a batch of splits or merges |
//! | 2 | [`CacheLevel`]: a cache's slabs on a node | a batch of objects taken or given |
//! | 3 | [`VmapLevel`]: the addresses for mappings | a search of the areas |
//! | 4 | [`CarveoutLevel`]: who has which pages of a carveout | one walk over its blocks |
//! | 5 | [`KmapLevel`]: the permanent mappings | a look into a hash table |
//! | 6 | [`PerCpuLevel`]: the chunks of per-CPU data | one object taken or given |
//!
//! So far no path holds two locks at once: pages for a slab are taken before its cache is locked, and
//! given back after.
//!
//! The atomics come from `atomic`, which is `core`'s, or the model checker's under `--cfg loom`.

mod aside;
mod section;
mod spin;

pub(crate) mod atomic {
    //! Atomics: `core`'s, or the model checker's.
    #[cfg(not(loom))]
    pub(crate) use core::sync::atomic::*;
    #[cfg(loom)]
    pub(crate) use loom::sync::atomic::*;
}

pub use aside::Aside;
pub use section::{CpuSection, Entered};
pub use spin::{
    CacheLevel, CarveoutLevel, DmaLevel, KmapLevel, Level, PerCpuLevel, SpinGuard, SpinLock,
    VmapLevel, ZoneLevel,
};
