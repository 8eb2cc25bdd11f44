//! Telling of what the manager does: see [`Event`] for what is told, and in which order.
//!
//! Each function here is a test of [`Hooks::TRACE`](crate::platform::Hooks::TRACE), which the compiler
//! makes. Where it is false nothing is left of the call, of its arguments and of what is only passed on for
//! it; where it is true, what is told is found by a function that is called, so that the common ways stay
//! short.
//!
//! What is freed is told of where it is certain that it will be, and before it is: inside the CPU's section
//! where it goes to the CPU's own list, and with the lock held that its addresses are kept under. What two
//! CPUs free at one moment may be told of twice; it is reported as misuse then.

use core::panic::Location;
use core::ptr::NonNull;

use super::Mm;
use crate::platform::{Event, Frame, PerCpuPlace, Platform, Site};
use crate::reclaim::Reclaim;
use crate::slab::{Cache, CacheId};
use crate::{AllocError, Gfp, NodeId, Order, Pfn, VirtAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// A block of pages was handed out, or none.
    #[inline(always)]
    pub(super) fn trace_alloc(&self, pfn: Option<Pfn>, gfp: Gfp, order: Order) {
        if P::TRACE {
            let first = pfn.and_then(|pfn| self.frame(pfn));
            let migrate_type = gfp.migrate_type_bits() as u8;
            self.platform.trace(&Event::PageAlloc { first, order, migrate_type, gfp });
        }
    }

    /// A block of pages is about to be freed.
    #[inline(always)]
    pub(super) fn trace_free(&self, pfn: Pfn, order: Order) {
        if P::TRACE
            && let Some(first) = self.frame(pfn)
        {
            self.platform.trace(&Event::PageFree { first, order });
        }
    }

    /// A page of many was freed.
    #[inline(always)]
    pub(super) fn trace_batched(&self, pfn: Pfn) {
        if P::TRACE
            && let Some(first) = self.frame(pfn)
        {
            self.platform.trace(&Event::PageFreeBatched { first });
        }
    }

    #[inline(never)]
    fn frame(&self, pfn: Pfn) -> Option<Frame> {
        Some(self.tables()?.memmap.frame(pfn))
    }

    /// `kmalloc` answers. Only a want of memory is told of: what is refused is no allocation.
    #[inline(always)]
    pub(super) fn trace_kmalloc(
        &self,
        answer: Result<NonNull<u8>, &AllocError>,
        asked: usize,
        gfp: Gfp,
        node: Option<NodeId>,
        site: &'static Location<'static>,
    ) {
        if P::TRACE {
            self.tell_kmalloc(answer, asked, gfp, node, Site(site));
        }
    }

    #[inline(never)]
    fn tell_kmalloc(
        &self,
        answer: Result<NonNull<u8>, &AllocError>,
        asked: usize,
        gfp: Gfp,
        node: Option<NodeId>,
        site: Site,
    ) {
        let (Some(tables), Some(memory)) = (self.tables(), of_answer(answer)) else { return };
        let got = match tables.classes.class(asked) {
            Some(class) => taken(tables.kmalloc_cache(class)),
            None => asked.next_multiple_of(1 << P::PAGE_SHIFT),
        };
        self.platform.trace(&Event::Kmalloc { site, memory, asked, got, gfp, node });
    }

    /// `kmem_cache_alloc` answers.
    #[inline(always)]
    pub(super) fn trace_cache_alloc(
        &self,
        answer: Result<NonNull<u8>, &AllocError>,
        id: CacheId,
        gfp: Gfp,
        node: Option<NodeId>,
        site: &'static Location<'static>,
    ) {
        if P::TRACE {
            self.tell_cache_alloc(answer, id, gfp, node, Site(site));
        }
    }

    #[inline(never)]
    fn tell_cache_alloc(
        &self,
        answer: Result<NonNull<u8>, &AllocError>,
        id: CacheId,
        gfp: Gfp,
        node: Option<NodeId>,
        site: Site,
    ) {
        let Some(kind) = self.tables().and_then(|tables| tables.cache(id)?.kind()) else { return };
        let Some(object) = of_answer(answer) else { return };
        let (cache, asked, got) = (kind.name, kind.size as usize, kind.geometry.stride as usize);
        self.platform.trace(&Event::CacheAlloc { site, object, cache, asked, got, gfp, node });
    }

    /// An object is about to be freed: of a cache, or of `kmalloc` where none is named.
    #[inline(always)]
    pub(super) fn trace_object_free(
        &self,
        address: usize,
        id: Option<CacheId>,
        site: &'static Location<'static>,
    ) {
        if P::TRACE {
            self.tell_object_free(address, id, Site(site));
        }
    }

    #[inline(never)]
    fn tell_object_free(&self, address: usize, id: Option<CacheId>, site: Site) {
        let object = VirtAddr::new(address);
        let Some(id) = id else {
            self.platform.trace(&Event::Kfree { site, memory: Some(object) });
            return;
        };
        if let Some(kind) = self.tables().and_then(|tables| tables.cache(id)?.kind()) {
            self.platform.trace(&Event::CacheFree { site, object, cache: kind.name });
        }
    }

    /// `kfree` of a null pointer.
    #[inline(always)]
    pub(super) fn trace_null_free(&self, site: &'static Location<'static>) {
        if P::TRACE {
            self.platform.trace(&Event::Kfree { site: Site(site), memory: None });
        }
    }

    /// Addresses for an area were taken, or there were none.
    #[inline(always)]
    pub(super) fn trace_area(&self, start: Option<usize>, size: usize, align: usize) {
        if P::TRACE {
            let (start, within) = (start.map(VirtAddr::new), self.vmalloc.range());
            self.platform.trace(&Event::AreaAlloc { start, size, align, within });
        }
    }

    /// An area is about to be given back, and with it so many pages wait to be unmapped.
    #[inline(always)]
    pub(super) fn trace_area_free(&self, start: usize, waiting: usize) {
        if P::TRACE {
            let (start, bound) = (VirtAddr::new(start), self.vmalloc.bound());
            self.platform.trace(&Event::AreaFree { start, waiting, bound });
        }
    }

    /// The areas from one on, each of which knows the next, are unmapped, and about to be removed.
    #[inline(always)]
    pub(super) fn trace_purge(&self, first: usize) {
        if P::TRACE {
            self.tell_purge(first);
        }
    }

    #[inline(never)]
    fn tell_purge(&self, first: usize) {
        let (mut next, mut count, mut all) = (Some(first), 0, first..first);
        while let Some(at) = next {
            let Some((range, behind)) = self.vmalloc.area(&self.platform, at) else { break };
            next = behind;
            all = all.start.min(range.start)..all.end.max(range.end);
            count += 1;
        }
        let (start, end) = (VirtAddr::new(all.start), VirtAddr::new(all.end));
        self.platform.trace(&Event::AreasPurged { start, end, count });
    }

    /// A per-CPU object was handed out, or none. `place` is its boot CPU's page and how far in it lies.
    #[inline(always)]
    pub(super) fn trace_percpu_alloc(
        &self,
        place: Option<PerCpuPlace>,
        (size, align, got): (usize, usize, usize),
        gfp: Gfp,
        site: &'static Location<'static>,
    ) {
        if P::TRACE {
            let is_atomic = !gfp.may_sleep();
            self.platform.trace(&match place {
                Some(place) => {
                    let site = Site(site);
                    Event::PerCpuAlloc { site, is_atomic, size, align, place, got, gfp }
                }
                None => Event::PerCpuAllocFail { is_atomic, size, align },
            });
        }
    }

    /// A per-CPU object is about to be freed.
    #[inline(always)]
    pub(super) fn trace_percpu_free(&self, base: NonNull<u8>, offset: usize) {
        if P::TRACE {
            let base = VirtAddr::from_ptr(base.as_ptr());
            self.platform.trace(&Event::PerCpuFree { place: PerCpuPlace { base, offset } });
        }
    }

    /// A chunk of per-CPU data was made, or is about to go.
    #[inline(always)]
    pub(super) fn trace_chunk(&self, base: Option<&NonNull<u8>>, comes: bool) {
        if P::TRACE
            && let Some(base) = base
        {
            let base = VirtAddr::from_ptr(base.as_ptr());
            self.platform.trace(&match comes {
                true => Event::PerCpuChunk { base },
                false => Event::PerCpuChunkGone { base },
            });
        }
    }
}

/// What an allocation answered, as an event has it; `None` for no event.
fn of_answer(answer: Result<NonNull<u8>, &AllocError>) -> Option<Option<VirtAddr>> {
    match answer {
        Ok(memory) => Some(Some(VirtAddr::from_ptr(memory.as_ptr()))),
        Err(AllocError::NoMemory { .. }) => Some(None),
        Err(_) => None,
    }
}

/// How many bytes an object of a cache takes.
fn taken(cache: &Cache) -> usize {
    cache.kind().map_or(0, |kind| kind.geometry.stride as usize)
}
