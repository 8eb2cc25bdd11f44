//! vmalloc: frames, addresses, and one mapped at the other.

use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;

use super::super::Mm;
use super::gather::Frames;
use crate::platform::{Caching, Level, PageMap, PageMapError, Platform};
use crate::reclaim::Reclaim;
use crate::vmalloc::{AreaKind, AreaNode, Mapping, Place, Run, Runs};
use crate::{AllocError, GFP_KERNEL, Gfp, NodeId, VirtAddr, ZoneKind};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Allocates at least `size` bytes that are contiguous as addresses, and as frames only as far as
    /// that comes free (A220, A221, A237). The size is rounded up to pages (A223); the contents are what the last
    /// user left. Given back with [`Mm::vfree`].
    ///
    /// The frames may be high memory. They are nobody else's and stay where they are (A229); a device does
    /// not find them by the address (A228). Behind the area is a page that nothing is mapped at.
    ///
    /// # Errors
    ///
    /// [`AllocError::MoreThanRam`] at once where it can only be a mistake (A224);
    /// [`AllocError::NoMemory`]; [`AllocError::NoAddresses`], [`AllocError::NoPageTables`] and
    /// [`AllocError::TooManyMappings`] where there is no room to map at;
    /// [`AllocError::NoPageMap`] on a platform without page tables; [`AllocError::Atomic`].
    ///
    /// # Context
    ///
    /// May sleep: a task's (A231). Elsewhere it is reported as misuse and refused.
    ///
    /// # Cost
    ///
    /// Blocks of pages, a search of the areas in use, and the platform's page tables. For one page
    /// [`Mm::alloc_page`] does the same for a fraction of it (A233).
    ///
    /// # Example
    ///
    /// ```no_run
    /// # use kmem::{Mm, platform::desk::Desk};
    /// # fn example(mm: &Mm<Desk<'_>>) -> Result<(), kmem::AllocError> {
    /// let buffer = mm.vmalloc(16 * 4096)?;
    /// // ...
    /// // SAFETY: the area is ours, and nothing uses it any more.
    /// unsafe { mm.vfree(buffer.as_ptr()) };
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn vmalloc(&self, size: usize) -> Result<NonNull<u8>, AllocError> {
        let frames = Frames { gfp: GFP_KERNEL | Gfp::HIGHMEM, node: None };
        self.vmalloc_frames(size, frames, Location::caller())
    }

    /// [`Mm::vmalloc`] filled with zeros.
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::vmalloc`].
    #[track_caller]
    pub fn vzalloc(&self, size: usize) -> Result<NonNull<u8>, AllocError> {
        let frames = Frames { gfp: GFP_KERNEL | Gfp::HIGHMEM, node: None };
        self.vzalloc_frames(size, frames, Location::caller())
    }

    /// [`Mm::vmalloc`] on a node, or, where that is out of memory, on the nearest other; `None` is the
    /// node of the running CPU.
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::vmalloc`]; [`AllocError::NoSuchNode`].
    #[track_caller]
    pub fn vmalloc_node(
        &self,
        size: usize,
        node: Option<NodeId>,
    ) -> Result<NonNull<u8>, AllocError> {
        let frames = Frames { gfp: GFP_KERNEL | Gfp::HIGHMEM, node };
        self.vmalloc_frames(size, frames, Location::caller())
    }

    /// [`Mm::vmalloc_node`] filled with zeros.
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::vmalloc_node`].
    #[track_caller]
    pub fn vzalloc_node(
        &self,
        size: usize,
        node: Option<NodeId>,
    ) -> Result<NonNull<u8>, AllocError> {
        let frames = Frames { gfp: GFP_KERNEL | Gfp::HIGHMEM, node };
        self.vzalloc_frames(size, frames, Location::caller())
    }

    /// [`Mm::vmalloc`] of frames that 32 bits of physical address reach (A239).
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::vmalloc`].
    #[track_caller]
    pub fn vmalloc_32(&self, size: usize) -> Result<NonNull<u8>, AllocError> {
        let gfp = GFP_KERNEL | self.below_4_gib();
        self.vmalloc_frames(size, Frames { gfp, node: None }, Location::caller())
    }

    /// The zone flag with which all frames are below 4 GiB.
    fn below_4_gib(&self) -> Gfp {
        let zones = self.zones().iter();
        if self.zones().iter().any(|zone| zone.kind() == ZoneKind::Dma32) {
            return Gfp::DMA32;
        }
        // What a request without a zone flag may have.
        let mut ordinary = zones.filter(|zone| zone.kind() <= ZoneKind::Normal);
        let end = 1u64 << (u32::BITS - P::PAGE_SHIFT);
        let is_below = ordinary.all(|zone| zone.start_pfn() + zone.spanned_pages() <= end);
        if is_below { Gfp::NONE } else { Gfp::DMA }
    }

    fn vzalloc_frames(
        &self,
        size: usize,
        frames: Frames,
        site: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        let memory = self.vmalloc_frames(size, frames, site)?;
        let bytes = size.next_multiple_of(1 << P::PAGE_SHIFT);
        // SAFETY: so many bytes are mapped there, and are nobody's yet.
        unsafe { memory.write_bytes(0, bytes) };
        Ok(memory)
    }

    pub(super) fn vmalloc_frames(
        &self,
        size: usize,
        frames: Frames,
        site: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        self.area_of_frames(size, frames, AreaKind::Vmalloc, site)
    }

    /// So many bytes, mapped as a kernel stack: with a page before them that nothing is mapped at. Given
    /// back with [`Mm::unmap_stack`].
    pub(in super::super) fn map_stack(
        &self,
        bytes: usize,
        site: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        // Not high memory: whose the stack is can be read by the direct map at any time.
        let frames = Frames { gfp: GFP_KERNEL, node: None };
        self.area_of_frames(bytes, frames, AreaKind::Stack, site)
    }

    /// Gives a stack of [`Mm::map_stack`] back, by its first address. Any context but NMI.
    ///
    /// # Safety
    ///
    /// It is the caller's, and nothing uses it any more.
    pub(in super::super) unsafe fn unmap_stack(
        &self,
        base: NonNull<u8>,
        site: &'static Location<'static>,
    ) {
        let before = AreaKind::Stack.pages_before() << P::PAGE_SHIFT;
        self.retire_area(base.as_ptr().addr() - before, AreaKind::Stack, site);
    }

    /// Frames, and addresses that they are mapped at, for an area of a kind.
    fn area_of_frames(
        &self,
        size: usize,
        frames: Frames,
        kind: AreaKind,
        site: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        let map = self.mapper(size, site)?;
        let pages = size.div_ceil(1 << P::PAGE_SHIFT);
        let ram = self.managed_pages();
        if pages as u64 > ram {
            return Err(AllocError::MoreThanRam { pages, ram });
        }
        frames.gfp.check()?;
        if kind == AreaKind::Vmalloc
            && let Some(start) = self.revive(pages, frames, site)
        {
            return Ok(start);
        }
        let chain = match self.gather(pages, frames) {
            Ok(chain) => chain,
            Err(error) => {
                self.platform.log(
                    Level::Warning,
                    format_args!(
                        "{} allocation failure: {size} bytes, at {site}; {} pages free",
                        kind.name(),
                        self.free_page_count()
                    ),
                );
                return Err(error);
            }
        };
        let made = self.runs_of(&chain, frames.for_notes()).and_then(|runs| {
            let mapping =
                Mapping { kind, is_going: false, next_going: None, pages, runs, caller: site };
            self.place(map, mapping, Caching::Cached, frames.for_notes())
        });
        match made {
            Ok(start) => {
                self.vmalloc.used.fetch_add(pages, Relaxed);
                Ok(start)
            }
            Err(error) => {
                self.scatter(&chain);
                Err(error)
            }
        }
    }

    /// An area that was given back and is still mapped, with frames as they are wanted.
    fn revive(
        &self,
        pages: usize,
        frames: Frames,
        site: &'static Location<'static>,
    ) -> Option<NonNull<u8>> {
        // Nobody is sought whose frames lie where few may: all of the area would have to be looked at.
        if !frames.gfp.contains(Gfp::HIGHMEM) {
            return None;
        }
        let tables = self.tables()?;
        let node = frames.node.unwrap_or_else(|| self.local_node(tables));
        let is_wanted = |mapping: &Mapping| {
            // Few runs, so that the lock is not held for long; and nothing of a block may be left of those
            // who had it: a user that has it mapped, somebody who refers to it, a state of a page.
            let is_as_new = |run: &Run| {
                let first = tables.memmap.at(run.first);
                let is_near = !tables.several_nodes || tables.zone(first.zone()).node() == node;
                is_near && first.count() == 1 && first.is_plain_vmalloc()
            };
            mapping.kind == AreaKind::Vmalloc
                && matches!(mapping.runs, Runs::Few(..))
                && mapping.runs.as_slice().iter().all(is_as_new)
        };
        let start = {
            let mut space = self.vmalloc.space.lock(&self.platform);
            let start = space.revive(pages, is_wanted, site)?;
            self.vmalloc.waiting.fetch_sub(pages, Relaxed);
            self.vmalloc.used.fetch_add(pages, Relaxed);
            start
        };
        self.trace_area(Some(start), (pages + 1) << P::PAGE_SHIFT, 1 << P::PAGE_SHIFT);
        NonNull::new(VirtAddr::new(start).as_ptr())
    }

    /// Finds addresses for a mapping, and maps it. Where that cannot be done what it is kept in is freed,
    /// and its frames are as they were.
    pub(super) fn place(
        &self,
        map: &dyn PageMap,
        mapping: Mapping,
        caching: Caching,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        let node = match self.kmalloc(size_of::<AreaNode>(), gfp) {
            Ok(node) => node.cast::<AreaNode>(),
            Err(error) => {
                self.free_runs(mapping.runs);
                return Err(error);
            }
        };
        self.place_at(map, mapping, caching, node).inspect_err(|_| {
            // SAFETY: it was just allocated, and no area is in it.
            unsafe { self.kfree(node.as_ptr().cast()) };
        })
    }

    fn place_at(
        &self,
        map: &dyn PageMap,
        mapping: Mapping,
        caching: Caching,
        node: Place<Mapping>,
    ) -> Result<NonNull<u8>, AllocError> {
        let Mapping { kind, pages, runs, .. } = mapping;
        let _unfinished = self.unfinished();
        let align = self.alignment(map, &runs, pages);
        let size = || (kind.pages_before() + pages + 1) << P::PAGE_SHIFT;
        let start = match self.reserve(mapping, align, node) {
            Ok(start) => start,
            Err(mapping) => {
                // Addresses that wait to be unmapped are addresses too.
                self.vm_unmap_aliases();
                self.reserve(mapping, align, node).map_err(|mapping| {
                    self.free_runs(mapping.runs);
                    self.trace_area(None, size(), align);
                    AllocError::NoAddresses { pages }
                })?
            }
        };
        self.trace_area(Some(start), size(), align);
        let first = start + (kind.pages_before() << P::PAGE_SHIFT);
        // SAFETY: the frames are the area's, whose addresses nobody knows yet.
        let mapped = unsafe { map_runs::<P>(map, first, &runs, pages, caching) }.or_else(|_| {
            self.vm_unmap_aliases();
            // SAFETY: as above; nothing of it is mapped.
            unsafe { map_runs::<P>(map, first, &runs, pages, caching) }
        });
        match mapped {
            // SAFETY: the addresses for mappings do not begin at 0.
            Ok(()) => Ok(unsafe { NonNull::new_unchecked(VirtAddr::new(first).as_ptr()) }),
            Err(error) => {
                self.trace_area_free(start, self.vmalloc.waiting.load(Relaxed));
                if let Some((mapping, _)) = self.vmalloc.space.lock(&self.platform).remove(start) {
                    self.free_runs(mapping.runs);
                }
                Err(error.into())
            }
        }
    }

    fn reserve(
        &self,
        mapping: Mapping,
        align: usize,
        node: Place<Mapping>,
    ) -> Result<usize, Mapping> {
        // SAFETY: the node is memory for it, which whoever removes the area frees.
        unsafe { self.vmalloc.space.lock(&self.platform).reserve(mapping, align, node) }
    }

    /// Of what the addresses are to be multiples: where large pages could be used, of those. Stacks are
    /// smaller than a large page is.
    fn alignment(&self, map: &dyn PageMap, runs: &Runs, pages: usize) -> usize {
        let large = map.large_order().map_or(usize::MAX, |order| order.pages() as usize);
        // Where runs are blocks, the largest comes first.
        let has_large = runs.from(0, pages).next().is_some_and(|(_, pages)| pages >= large);
        (if has_large { large } else { 1 }) << P::PAGE_SHIFT
    }
}

/// Maps the runs of an area at an address, or nothing.
///
/// # Safety
///
/// The frames are the area's, so are the addresses, and nothing is mapped there.
unsafe fn map_runs<P: Platform>(
    map: &dyn PageMap,
    start: usize,
    runs: &Runs,
    pages: usize,
    caching: Caching,
) -> Result<(), PageMapError> {
    let mut done = 0;
    for (first, count) in runs.joined(pages) {
        let at = VirtAddr::new(start + (done << P::PAGE_SHIFT));
        // SAFETY: the caller's promise.
        if let Err(error) = unsafe { map.map(at, first, count, caching) } {
            if done > 0 {
                // SAFETY: mapped above, and nobody knows of it.
                map.flush(unsafe { map.unmap(VirtAddr::new(start), done) });
            }
            return Err(error);
        }
        done += count;
    }
    Ok(())
}
