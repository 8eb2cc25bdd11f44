//! The entry points of memory that is contiguous as addresses only.
//!
//! # The way of an allocation
//!
//! ```text
//!   vmalloc ──> gather (gather.rs)     blocks of the buddy system, the largest first, one at least for
//!                 │                    each bit of the number of pages; chained by their descriptors
//!                 v
//!               reserve                addresses for the pages and one more, under the lock
//!                 │
//!                 v
//!               map (map.rs)           a call of the platform for each run of frames; no lock
//! ```
//!
//! # The way of a free
//!
//! `vfree` marks the area, in any context (free.rs). When pages of marked areas are more than the bound
//! ([`VmallocInfo::bound`]), when addresses, mappings or memory run out, or when somebody asks
//! ([`Mm::vm_unmap_aliases`](super::Mm::vm_unmap_aliases)), all of them are unmapped, all CPUs forget
//! them, and the frames go back. Mappings of frames that belong to others (`vmap`, `ioremap`) do not wait:
//! their owner may do with the frames what they like as soon as the call returns.
//!
//! # Locking
//!
//! One spin lock over the addresses (`VmapLevel`), held for one search of the tree. Nothing is allocated,
//! mapped or freed with it.

mod either;
mod free;
mod gather;
mod ioremap;
mod look;
mod map;
mod vmap;

use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::Mm;
use crate::platform::{Misuse, MisuseKind, PageMap, PageMapError, Passed, Platform, There};
use crate::reclaim::Reclaim;
use crate::sync::{SpinLock, VmapLevel};
use crate::vmalloc::{Area, Mapping, Space, Wrong};
use crate::{AllocError, VirtAddr};
use core::panic::Location;

pub use ioremap::IoMem;
pub use look::{AreaInfo, Touch, VmallocInfo};

/// The areas, and what is counted of them.
pub(super) struct Vmalloc {
    space: SpinLock<VmapLevel, Space>,
    /// The range of the addresses; both 0 where there are none. Written at boot.
    start: AtomicUsize,
    end: AtomicUsize,
    /// Pages in areas that are in use.
    used: AtomicUsize,
    /// Pages of areas that wait to be unmapped.
    waiting: AtomicUsize,
    /// How many lists of such areas are being unmapped.
    purges: AtomicUsize,
    /// How many may wait.
    bound: AtomicUsize,
}

/// A share of the RAM that may wait to be unmapped: little enough not to be missed.
const WAITING_SHARE: u64 = 64;

/// And never more than so many pages: to unmap and flush them is then cheap beside what they were.
const WAITING_MOST: u64 = 8192;

impl Vmalloc {
    pub(super) const fn new() -> Vmalloc {
        Vmalloc {
            space: SpinLock::new(Space::new()),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            purges: AtomicUsize::new(0),
            bound: AtomicUsize::new(0),
        }
    }

    /// The addresses that areas may have.
    pub(super) fn range(&self) -> (VirtAddr, VirtAddr) {
        (VirtAddr::new(self.start.load(Relaxed)), VirtAddr::new(self.end.load(Relaxed)))
    }

    /// How many pages may wait to be unmapped.
    pub(super) fn bound(&self) -> usize {
        self.bound.load(Relaxed)
    }

    /// The area that begins at an address: the addresses that it has, its guard pages included, and the next
    /// one that waits to be unmapped with it.
    pub(super) fn area<P: Platform>(
        &self,
        platform: &P,
        start: usize,
    ) -> Option<(Range<usize>, Option<usize>)> {
        let space = self.space.lock(platform);
        let area = space.find(start)?;
        Some((area.range(), area.data.next_going.map(|next| next.start)))
    }
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Takes over the platform's addresses for mappings, but for those that permanent mappings of high
    /// memory have at their end. At boot, once.
    pub(super) fn open_vmalloc(&self) {
        let Some(map) = self.platform.page_map() else { return };
        let (start, end) = (map.range().start.get(), self.kmap_window().start.get());
        let bound = (self.managed_pages() / WAITING_SHARE).clamp(1, WAITING_MOST);
        self.vmalloc.space.lock(&self.platform).open(start..end, P::PAGE_SHIFT);
        self.vmalloc.bound.store(bound as usize, Relaxed);
        self.vmalloc.start.store(start, Relaxed);
        self.vmalloc.end.store(end, Relaxed);
    }

    /// The platform's page tables, for a call that may sleep; otherwise why there is nothing to be had.
    /// A call in atomic context is reported.
    fn mapper(
        &self,
        bytes: usize,
        site: &'static Location<'static>,
    ) -> Result<&dyn PageMap, AllocError> {
        self.may_sleep_here(bytes, site)?;
        if bytes == 0 {
            return Err(AllocError::ZeroSize);
        }
        self.platform.page_map().ok_or(AllocError::NoPageMap)
    }

    /// Whether a call that may sleep is made where it may; otherwise it is reported.
    pub(super) fn may_sleep_here(
        &self,
        bytes: usize,
        site: &'static Location<'static>,
    ) -> Result<(), AllocError> {
        if self.tables().is_none() {
            return Err(AllocError::NotBooted);
        }
        if self.platform.in_atomic() {
            let (kind, passed) = (MisuseKind::SleepInAtomic, Passed::Size(bytes));
            self.report(&Misuse { kind, passed, there: There::AtomicContext, site });
            return Err(AllocError::Atomic);
        }
        Ok(())
    }

    /// Reports that an area could not be given back.
    #[cold]
    #[inline(never)]
    fn report_area(&self, address: usize, wrong: Wrong, site: &'static Location<'static>) {
        let kind = match wrong {
            Wrong::Nowhere => MisuseKind::NoArea,
            Wrong::Inside => MisuseKind::InsideArea,
            Wrong::Going => MisuseKind::DoubleFree,
            Wrong::Kind => MisuseKind::WrongArea,
        };
        let passed = Passed::Object(VirtAddr::new(address));
        self.report(&Misuse { kind, passed, there: There::Nothing, site });
    }

    /// The area that an address is in, in the words of a report; `None` where there is none, or where the
    /// areas cannot be looked at now.
    pub(super) fn area_there(&self, address: VirtAddr) -> Option<There> {
        let space = self.look_at_areas(address)?;
        space.find(address.get()).map(in_words::<P>)
    }
}

/// The first address of an area that something is mapped at.
fn first_mapped<P: Platform>(area: &Area<Mapping>) -> VirtAddr {
    VirtAddr::new(area.range().start + (area.data.kind.pages_before() << P::PAGE_SHIFT))
}

/// An area in the words of a report.
fn in_words<P: Platform>(area: &Area<Mapping>) -> There {
    let Mapping { kind, is_going, pages, caller, .. } = area.data;
    let start = first_mapped::<P>(area);
    There::Area { start, pages, kind: kind.name(), is_going, caller }
}

impl From<PageMapError> for AllocError {
    fn from(error: PageMapError) -> Self {
        match error {
            PageMapError::NoTables => AllocError::NoPageTables,
            PageMapError::TooManyMappings => AllocError::TooManyMappings,
            PageMapError::Occupied => AllocError::Occupied,
        }
    }
}
