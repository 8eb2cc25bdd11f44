//! A kernel's memory manager: page frames, zones, NUMA nodes, GFP flags, the buddy system, per-CPU
//! page lists, the slab layer and kmalloc, vmalloc and ioremap, high memory, memory for DMA, per-CPU
//! data, kernel stacks and memory at boot, for kernels that are not Linux.
//!
//! A kernel implements [`Platform`] (four small traits), puts one [`Mm`] in a `static`, and hands
//! the boot loader's memory map to [`Mm::boot`]. From then on [`Mm::alloc_pages`] and its sisters
//! hand out page frames, and [`Mm::kmalloc`] and [`Mm::kmem_cache_alloc`] objects, in any context,
//! and never panic when there are none.
//!
//! ```text
//!   KBox, KVec, Cache<T>    values that own their memory                   own
//!             |
//!   vmalloc, kmap, percpu,  addresses for pages, a copy for each CPU,      vmalloc, highmem,
//!   dma, kernel stacks      buffers for devices, stacks with a guard       percpu, dma, stack
//!             |
//!     kmalloc, caches       objects of a size or kind, many to a page      slab
//!             |
//!        alloc_pages        a kernel's calls, under the texts' names       mm
//!             |
//!      per-CPU page lists   arrays; no lock, no atomic read-modify-write   pcp
//!             |
//!       zones and nodes     who may have what is left                      zone
//!             |
//!        free areas         blocks of 2^order pages that split and merge   buddy
//!             |
//!          memmap           32 bytes for each frame of RAM                 page
//! ```
//!
//! The folders import only those below them; each begins with its theory: what it is for, its
//! structures in a drawing, its invariants, its locking, and how it differs from Linux.
//!
//! # What it promises
//!
//! * It works from the first instruction: no heap to boot, its tables lie inside the RAM it
//!   manages, and holes in that RAM cost nothing.
//! * It can be called from interrupt handlers, always, and from NMI handlers with flags that do not
//!   sleep. The common path takes no lock and masks nothing.
//! * Everything can fail and says so: an [`AllocError`], no panic.
//! * A wrong free is found at the call, in constant time, reported to
//!   [`Hooks::misuse`](platform::Hooks::misuse), and changes nothing. One block freed by two CPUs at
//!   one moment is found at the latest when it would be handed out again; it never is twice.
//!
//! Identifiers such as A062 in the documentation name statements about what a kernel's memory
//! manager does, listed in `docs/acceptance.md`; `docs/conformance.md` says what proves each.
//!
//! # Features
//!
//! * `allocator-api2`: `Kmalloc`, kmalloc as an allocator of that crate, for collections of others.
//! * `x86_64`: `mm::Frames`, the page allocator as a frame allocator of the `x86_64` crate.
#![no_std]
#![deny(missing_docs)]
// Under the model checker only what CPUs share is built.
#![cfg_attr(loom, allow(dead_code, unused))]

#[cfg(test)]
extern crate std;

mod addr;
mod cache_flags;
mod cache_name;
#[cfg(not(loom))]
pub mod dma;
#[cfg(not(loom))]
mod error;
pub mod gfp;
mod ids;
#[cfg(all(test, loom))]
mod models;
mod order;

#[cfg(not(loom))]
pub mod boot;
#[cfg(not(loom))]
mod buddy;
#[cfg(not(loom))]
pub mod highmem;
#[cfg(not(loom))]
pub mod io;
#[cfg(not(loom))]
pub mod mm;
#[cfg(not(loom))]
pub mod own;
pub mod page;
#[cfg(not(loom))]
mod pcp;
#[cfg(not(loom))]
pub mod percpu;
pub mod platform;
#[cfg(not(loom))]
pub mod reclaim;
#[cfg(not(loom))]
pub mod report;
#[cfg(not(loom))]
pub mod slab;
// The model checker is given what CPUs share of it without a lock.
#[cfg(loom)]
#[path = "slab/leaving.rs"]
mod leaving;
#[cfg(loom)]
#[path = "slab/state.rs"]
mod object_state;
pub mod spelling;
#[cfg(not(loom))]
mod stack;
pub mod sync;
#[cfg(not(loom))]
pub mod vmalloc;
#[cfg(not(loom))]
pub mod zone;

pub use addr::{Pfn, PfnRange, PhysAddr, VirtAddr};
#[cfg(not(loom))]
pub use boot::{MapError, MemoryMap, Setup, SetupError};
#[cfg(not(loom))]
pub use buddy::Corruption;
pub use cache_flags::CacheFlags;
pub use cache_name::CacheName;
#[cfg(not(loom))]
pub use error::AllocError;
pub use gfp::{
    GFP_ATOMIC, GFP_BUFFER, GFP_DMA, GFP_DMA32, GFP_HIGHUSER, GFP_HIGHUSER_MOVABLE, GFP_KERNEL,
    GFP_NOFS, GFP_NOIO, GFP_NOWAIT, GFP_USER,
};
pub use gfp::{Gfp, GfpError, ParseGfpError, ZoneKind};
#[cfg(not(loom))]
pub use highmem::{KM_TYPE_NR, KmType, KmapError, KmapInfo};
pub use ids::{CpuId, Distances, MAX_CPUS, MAX_NODES, NodeId, NodeMask};
#[cfg(not(loom))]
pub use mm::{
    AreaInfo, BootError, CacheError, CacheInfo, Counters, CpuError, CpuGuard, CpuPtr, CpuVar,
    InAtomic, IoMem, KernelStack, KmapGuard, KmapLocalGuard, Mm, Owned, Owner, Pages, PagesetInfo,
    PerCpuCounts, ReleaseError, SetupPerCpuError, StackInfo, Task, ThisCpu, Touch, VmallocInfo,
};
pub use order::{Order, get_order};
#[cfg(all(feature = "allocator-api2", not(loom)))]
pub use own::Kmalloc;
#[cfg(not(loom))]
pub use own::{
    Cache, CacheBox, CacheOptions, Construct, Constructed, ConstructedCache, DestroyError,
    GlobalKmalloc, Handle, InsertError, KBox, KString, KVec, PerCpu, PerCpuCounter, PushError,
    WriteError, Zeroable,
};
#[cfg(not(loom))]
pub use page::MigrateType;
pub use page::Page;
#[cfg(not(loom))]
pub use percpu::{CpuCell, CpuCounter, CpuRefMut, PerCpuStatic, PerCpuVar, StaticPerCpu};
pub use platform::Platform;
#[cfg(not(loom))]
pub use reclaim::{NoReclaim, PageSource, Reclaim, ReclaimRequest, Shrinker};
#[cfg(not(loom))]
pub use slab::CacheId;
#[cfg(not(loom))]
pub use zone::Zone;

/// The examples of the README, compiled and run.
#[cfg(all(doctest, not(loom)))]
#[doc = include_str!("../../../README.md")]
pub struct ReadmeExamples;
