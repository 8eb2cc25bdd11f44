//! [`Mm`]: the memory manager as a value, and its entry points.
//!
//! The folders below know one subject each; this one sees them all and joins them.
//!
//! # The way of an allocation
//!
//! ```text
//!   alloc_pages ──> fast path (alloc.rs)        the CPU's own list: no lock, nothing masked
//!                     │ list empty              └─> refill: a batch under the zone's lock
//!                     v
//!                   slow path (slow.rs)         the only code that may sleep or call reclaim
//!                     1. is the request sound?  flags, order, context
//!                     2. every zone of the zonelist, down to the low mark
//!                     3. wake background reclaim; every zone, as far as its priority goes
//!                     4. drain lists, reclaim, try again; as often as the flags say
//!                     5. say why not
//! ```
//!
//! The fast path takes a request only if nothing about it is unusual: flags of the everyday kind, a
//! small order, the CPU's own node, a zone above its low mark. Everything else is found by one of
//! its few tests and goes the slow way, which treats all cases alike.
//!
//! # The way of a free
//!
//! `__free_pages` looks at the block's descriptor: used, of this order, with a caller, one
//! reference (free.rs). If so the block goes to the CPU's list. If anything differs the slow way
//! finds out what (wrong.rs): a reference that remains, a compound block, or a wrong free, which is
//! reported and changes nothing.
//!
//! # Before and after boot
//!
//! [`Mm::new`] is `const`. A manager that is not booted has, for every CPU, an area whose section
//! cannot be entered, so the fast paths need no test for it: they fail, and the slow path refuses.
//!
//! # Locking
//!
//! Only zones have locks (level 1); one is held at a time, and none when a reclaimer or a cross call
//! runs. Trace events, and reports of what comes to light while a batch moves, are made with the lock
//! held: hooks do not call the manager. Per-CPU areas have sections. The tables do not change after
//! boot.

mod alloc;
mod boot;
mod bootmem;
mod compound;
mod cpu;
mod dma;
mod exact;
#[cfg(feature = "x86_64")]
mod frame_allocator;
mod free;
mod highmem;
mod look;
mod lookup;
mod names;
mod owned;
mod percpu;
mod slab;
mod slow;
mod stack;
mod state;
mod tables;
#[cfg(test)]
mod tests;
mod trace;
mod user;
mod vmalloc;
mod wrong;

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};

use crate::boot::Carveout;
use crate::boot::map::Normalised;
use crate::gfp::ZoneKind;
use crate::pcp::CpuArea;
use crate::percpu::Chunks;
use crate::platform::Platform;
use crate::reclaim::{NoReclaim, Reclaim};
use crate::sync::{PerCpuLevel, SpinLock};
use crate::{CpuId, MAX_CPUS};

pub use boot::{BootError, ReleaseError};
pub use cpu::CpuError;
pub use dma::{Coherent, DmaBox, DmaMapped};
#[cfg(feature = "x86_64")]
pub use frame_allocator::Frames;
pub use highmem::{KmapGuard, KmapLocalGuard};
pub use look::{Counters, Owner, PagesetInfo};
pub use owned::Pages;
pub(crate) use percpu::Allocated;
pub use percpu::{
    CpuGuard, CpuPtr, CpuVar, InAtomic, PerCpuCounts, SetupPerCpuError, Task, ThisCpu,
};
pub use slab::{CacheError, CacheInfo, Owned};
use stack::Stacks;
pub use stack::{KernelStack, StackInfo};
use tables::Tables;
use vmalloc::Vmalloc;
pub use vmalloc::{AreaInfo, IoMem, Touch, VmallocInfo};

/// Not booted.
const NEW: u8 = 0;
/// `boot` is at work, or has failed and is putting things back.
const BOOTING: u8 = 1;
/// Booted.
const READY: u8 = 2;

/// A memory manager.
///
/// An ordinary value: a kernel puts one in a `static`, a test makes as many as it likes. `P` is the
/// kernel's [`Platform`]; `R` what frees memory when there is too little.
///
/// ```
/// use kmem::{Mm, Setup, MemoryMap, GFP_KERNEL, NodeId};
/// # let mut ram = vec![0; 17 << 20];
/// # // SAFETY: one thread.
/// # let my_kernel = unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) };
/// // In a kernel: static MM: Mm<MyKernel> = Mm::new(MyKernel);
/// let mm = Mm::new(my_kernel);
/// // SAFETY: the RAM is there, and nobody else uses it.
/// unsafe { mm.boot(&MemoryMap::new().ram(0..16 << 20, NodeId::ZERO), &Setup::new()) }?;
/// let page = mm.alloc_pages(GFP_KERNEL, 3)?;
/// // SAFETY: the block is ours, and nothing uses it.
/// unsafe { mm.__free_pages(page, 3) };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
///
/// * `areas[cpu]` points to `CLOSED` or to the area of that CPU in the tables.
/// * `tables` is null until `state` is `READY`, and points to the tables from then on.
/// * `frames` is written by `boot` alone, while `state` is `BOOTING`.
pub struct Mm<P, R = NoReclaim> {
    areas: [AtomicPtr<CpuArea>; MAX_CPUS],
    tables: AtomicPtr<Tables>,
    state: AtomicU8,
    events: Events,
    frames: UnsafeCell<Normalised>,
    vmalloc: Vmalloc,
    bigphysarea: Carveout,
    percpu: SpinLock<PerCpuLevel, Chunks>,
    stacks: Stacks,
    platform: P,
    reclaim: R,
}

/// What the manager as a whole counts.
struct Events {
    /// Allocations that went into reclaim, by the highest zone that they could use.
    stalls: [AtomicU64; ZoneKind::COUNT],
    /// Allocations that failed.
    failures: AtomicU64,
    /// Wrong calls that were reported.
    misuses: AtomicU64,
}

/// The area of every CPU that has none.
static CLOSED: CpuArea = CpuArea::closed();

// SAFETY: `frames` is written by `boot` alone, which one caller at a time enters, and read after
// `state` says that it has ended; everything else is `Sync` by itself.
unsafe impl<P: Sync, R: Sync> Sync for Mm<P, R> {}
// SAFETY: the tables live in RAM, not in the value; nothing depends on the thread.
unsafe impl<P: Send, R: Send> Send for Mm<P, R> {}

impl<P> Mm<P, NoReclaim> {
    /// A manager that is not booted, for a kernel without reclaim.
    pub const fn new(platform: P) -> Self {
        Self::with_reclaim(platform, NoReclaim)
    }
}

impl<P, R> Mm<P, R> {
    /// A manager that is not booted.
    pub const fn with_reclaim(platform: P, reclaim: R) -> Self {
        Mm {
            areas: [const { AtomicPtr::new((&raw const CLOSED).cast_mut()) }; MAX_CPUS],
            tables: AtomicPtr::new(core::ptr::null_mut()),
            state: AtomicU8::new(NEW),
            events: Events {
                stalls: [const { AtomicU64::new(0) }; ZoneKind::COUNT],
                failures: AtomicU64::new(0),
                misuses: AtomicU64::new(0),
            },
            frames: UnsafeCell::new(Normalised::new()),
            vmalloc: Vmalloc::new(),
            bigphysarea: Carveout::new(),
            percpu: SpinLock::new(Chunks::new()),
            stacks: Stacks::new(),
            platform,
            reclaim,
        }
    }

    /// The platform.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// What frees memory when there is too little.
    pub fn reclaim(&self) -> &R {
        &self.reclaim
    }
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// The area of a CPU: its own, or [`CLOSED`].
    #[inline]
    fn area(&self, cpu: CpuId) -> &CpuArea {
        // Acquire pairs with the Release in `set_area`: the area's contents are seen.
        let area = self.areas[cpu.index()].load(Ordering::Acquire);
        // SAFETY: by the invariant it points to an area that lives as long as the manager is used.
        unsafe { &*area }
    }

    fn set_area(&self, cpu: CpuId, area: Option<NonNull<CpuArea>>) {
        let area = area.map_or((&raw const CLOSED).cast_mut(), NonNull::as_ptr);
        // Release pairs with the Acquire in `area`.
        self.areas[cpu.index()].store(area, Ordering::Release);
    }

    /// The tables, once booted.
    #[inline]
    fn tables(&self) -> Option<&Tables> {
        // Acquire pairs with the Release at the end of `boot`: the tables' contents are seen.
        let tables = self.tables.load(Ordering::Acquire);
        // SAFETY: by the invariant it is null or points to tables that are not changed any more.
        unsafe { tables.as_ref() }
    }

    /// Which manager this is: a number that no other one has; 0 before boot.
    #[inline]
    fn identity(&self) -> usize {
        self.tables().map_or(0, |tables| tables.identity)
    }
}
