//! Looking at areas: what is at an address, and what there is altogether.

use core::fmt;
use core::ops::Range;
use core::panic::Location;
use core::sync::atomic::Ordering::Relaxed;

use super::super::Mm;
use super::first_mapped;
use crate::page::Page;
use crate::platform::{Platform, StackOwner};
use crate::reclaim::Reclaim;
use crate::sync::{SpinGuard, VmapLevel};
use crate::vmalloc::{Area, AreaKind, Mapping, Space};
use crate::{MAX_NODES, PhysAddr, VirtAddr};

/// What `vmalloc` and its sisters hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmallocInfo {
    /// The addresses that areas are placed at (A226).
    pub range: Range<VirtAddr>,
    /// How many areas there are, with those that wait to be unmapped.
    pub areas: usize,
    /// Pages in areas of `vmalloc` that are in use.
    pub used: usize,
    /// Pages of areas that have been given back and wait to be unmapped.
    pub waiting: usize,
    /// How many may wait.
    pub bound: usize,
}

/// One area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaInfo {
    /// The first address that something is mapped at.
    pub start: VirtAddr,
    /// How many pages it has; those around them that nothing is mapped at are not counted.
    pub pages: usize,
    /// What it is.
    pub kind: AreaKind,
    /// Whether it has been given back and waits to be unmapped.
    pub is_going: bool,
    /// Who made it.
    pub caller: &'static Location<'static>,
    /// The physical address of its first page.
    pub physical: PhysAddr,
    /// How many runs of frames it has.
    pub runs: usize,
}

/// What an address is that was touched and that nothing is mapped at. Its text is for the report of the
/// fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// The page behind an area: so many bytes behind the area's last.
    Guard(AreaInfo, usize),
    /// The page below a kernel stack, so many bytes below its first, and whose the stack is, where it
    /// says so: the stack is used up (A266).
    StackOverflow(AreaInfo, Option<StackOwner>, usize),
    /// An area that has been given back: so many bytes from its start.
    Freed(AreaInfo, usize),
    /// The page below a kernel stack that has been given back, so many bytes below its first. It is nobody's
    /// stack any more.
    BelowFreed(AreaInfo, usize),
    /// An area that is in use, so many bytes from its start: the fault has another reason.
    Used(AreaInfo, usize),
    /// Addresses for mappings that no area has.
    NoArea(VirtAddr),
}

impl fmt::Display for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (area, offset, what) = match self {
            Touch::Guard(area, offset) => (area, offset, "bytes behind the end of the"),
            Touch::Freed(area, offset) => (area, offset, "bytes into the freed"),
            Touch::BelowFreed(area, offset) => (area, offset, "bytes below the freed"),
            Touch::Used(area, offset) => (area, offset, "bytes into the"),
            Touch::StackOverflow(area, owner, offset) => {
                write!(f, "{offset} bytes below the kernel stack of ")?;
                match owner {
                    Some(owner) => write!(f, "{owner}")?,
                    None => f.write_str("nobody")?,
                }
                let AreaInfo { start, pages, caller, .. } = area;
                return write!(f, ", {pages} pages at {start} by {caller}");
            }
            Touch::NoArea(address) => {
                return write!(f, "{address} is an address for mappings that no area has");
            }
        };
        let AreaInfo { start, pages, kind, caller, .. } = area;
        write!(f, "{offset} {what} area at {start}, {pages} pages of {} by {caller}", kind.name())
    }
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Whether an address is among those for mappings: of `vmalloc`, not of the direct map (A245). Any
    /// context; two comparisons.
    #[inline]
    pub fn is_vmalloc_addr(&self, address: *const u8) -> bool {
        let address = address.addr();
        self.vmalloc.start.load(Relaxed) <= address && address < self.vmalloc.end.load(Relaxed)
    }

    /// The page behind an address of an area; `None` where there is none. For a device's descriptors,
    /// and for whoever maps the memory for somebody else, page by page.
    ///
    /// A page of a larger block is a tail of it: references ([`Mm::get_page`]) are the block's, which is
    /// freed with the last one.
    ///
    /// # Context
    ///
    /// Any but NMI. Cost: a search of the areas, and one of the area's runs.
    pub fn vmalloc_to_page(&self, address: *const u8) -> Option<Page> {
        let address = address.addr();
        let space = self.vmalloc.space.lock(&self.platform);
        let area = space.find(address)?;
        let page = address.checked_sub(first_mapped::<P>(area).get())? >> P::PAGE_SHIFT;
        let is_there = page < area.data.pages && !area.data.is_going;
        let is_ram = area.data.kind != AreaKind::Ioremap;
        area.data.runs.frame(page).filter(|_| is_there && is_ram).map(Page::of)
    }

    /// What `vmalloc` holds altogether. Any context but NMI.
    pub fn vmalloc_info(&self) -> VmallocInfo {
        let (range, areas) = {
            let space = self.vmalloc.space.lock(&self.platform);
            (space.range(), space.len())
        };
        VmallocInfo {
            range: VirtAddr::new(range.start)..VirtAddr::new(range.end),
            areas,
            used: self.vmalloc.used.load(Relaxed),
            waiting: self.vmalloc.waiting.load(Relaxed),
            bound: self.vmalloc.bound.load(Relaxed),
        }
    }

    /// The first area that begins at or above an address; called with the end of the last one again, it
    /// goes through all. Any context but NMI. Cost: a search of the areas.
    pub fn vm_area_from(&self, address: VirtAddr) -> Option<AreaInfo> {
        let space = self.vmalloc.space.lock(&self.platform);
        space.at_or_above(address.get()).map(|area| info::<P>(area))
    }

    /// How many pages an area of RAM has on each node. Any context but NMI. Cost: all runs of the area,
    /// with the lock held for some of them at a time.
    pub fn vm_area_nodes(&self, start: VirtAddr) -> [usize; MAX_NODES] {
        /// How many runs are looked at with the lock held.
        const AT_ONCE: usize = 64;
        let mut nodes = [0; MAX_NODES];
        let mut looked = 0;
        loop {
            let space = self.vmalloc.space.lock(&self.platform);
            let Some(area) = space.find(start.get()) else { break };
            let runs = area.data.runs.from(looked, area.data.pages);
            let mut here = 0;
            for (run, pages) in runs.take(AT_ONCE) {
                if let Some(zone) = self.page_zone(Page::of(run.first)) {
                    nodes[zone.node().index()] += pages;
                }
                here += 1;
            }
            looked += here;
            if here < AT_ONCE {
                break;
            }
        }
        nodes
    }

    /// The area of `vmalloc` that a page is in, and which of the area's pages it is; `None` where it is in none.
    /// What was given back and waits to be unmapped has its pages still. Any context but NMI. Cost: all runs of
    /// all areas, with the lock held for those of one at a time; areas that come and go meanwhile may be
    /// missed.
    pub fn vm_area_of(&self, page: Page) -> Option<(AreaInfo, usize)> {
        let frame = page.pfn().number();
        let mut at = 0;
        loop {
            let space = self.vmalloc.space.lock(&self.platform);
            let area = space.at_or_above(at)?;
            let found = info::<P>(area);
            // The frames of the others are not the area's.
            if found.kind == AreaKind::Vmalloc {
                for (run, pages) in area.data.runs.from(0, area.data.pages) {
                    let first = run.first.number();
                    if (first..first + pages as u64).contains(&frame) {
                        return Some((found, run.at as usize + (frame - first) as usize));
                    }
                }
            }
            at = found.start.get() + (found.pages << P::PAGE_SHIFT).max(1);
        }
    }

    /// What an address is that was touched in vain, for the report of a fault; `None` where it is not one
    /// for mappings, or where what is there cannot be looked at: another CPU, or the code that met the
    /// fault, is at the areas.
    ///
    /// # Context
    ///
    /// Any. Cost: a search of the areas.
    pub fn explain_touch(&self, address: VirtAddr) -> Option<Touch> {
        let space = self.look_at_areas(address)?;
        let Some(area) = space.find(address.get()) else { return Some(Touch::NoArea(address)) };
        let info = info::<P>(area);
        let bytes = info.pages << P::PAGE_SHIFT;
        let Some(offset) = address.get().checked_sub(info.start.get()) else {
            let below = info.start.get() - address.get();
            if info.is_going {
                return Some(Touch::BelowFreed(info, below));
            }
            // Of the frame, not of the mapping, which may be about to be made or removed.
            let last = area.data.runs.frame(info.pages - 1);
            let end = info.start.get() + bytes;
            let owner = last.and_then(|last| self.owner_of_mapped(last, end));
            return Some(Touch::StackOverflow(info, owner, below));
        };
        Some(if info.is_going {
            Touch::Freed(info, offset)
        } else if offset >= bytes {
            Touch::Guard(info, offset - bytes)
        } else {
            Touch::Used(info, offset)
        })
    }

    /// The areas, for whoever must not wait, if the address is one for mappings.
    pub(in super::super) fn look_at_areas(
        &self,
        address: VirtAddr,
    ) -> Option<SpinGuard<'_, VmapLevel, Space, P>> {
        // Another CPU is done in a moment; the running one is not, if it is there itself.
        const TRIES: u32 = 100_000;
        if !self.is_vmalloc_addr(address.as_ptr()) {
            return None;
        }
        (0..TRIES).find_map(|_| self.vmalloc.space.try_lock(&self.platform))
    }
}

fn info<P: Platform>(area: &Area<Mapping>) -> AreaInfo {
    let Mapping { kind, is_going, pages, caller, ref runs, .. } = area.data;
    let physical = runs.frame(0).map_or(PhysAddr::new(0), |first| first.start(P::PAGE_SHIFT));
    let start = first_mapped::<P>(area);
    AreaInfo { start, pages, kind, is_going, caller, physical, runs: runs.as_slice().len() }
}
