//! New slabs, and slabs that go.

use core::ptr::NonNull;

use super::super::Mm;
use super::super::tables::Tables;
use crate::page::{Page, SlabView};
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::slab::{Asked, Cache, CacheId, CtorFlags, Kind, Record, Shared};
use crate::{AllocError, CacheFlags, Gfp, NodeId, Order, Pfn, VirtAddr};

/// What of an allocation's flags is not for the pages of a slab.
const NOT_FOR_PAGES: Gfp = Gfp::ZERO.union(Gfp::MOVABLE).union(Gfp::RECLAIMABLE).union(Gfp::DMA);

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Adds a slab to a cache, on a node or, where that is out of memory, on another; answers which
    /// (A184, A185). May sleep where the flags say so.
    #[track_caller]
    pub(super) fn grow(
        &self,
        tables: &Tables,
        cache: &Cache,
        id: CacheId,
        kind: &Kind,
        node: NodeId,
        gfp: Gfp,
    ) -> Result<NodeId, AllocError> {
        let geometry = &kind.geometry;
        let page =
            self.alloc_pages_node(Some(node), page_flags(kind, gfp), geometry.order.get())?;
        // Slabs are of the direct map: the flags never ask for high memory.
        let Some(start) = self.direct_address(page) else {
            // SAFETY: just allocated.
            unsafe { self.__free_pages(page, geometry.order.get()) };
            return Err(AllocError::NoMemory { order: geometry.order, gfp });
        };
        let record = match geometry.record {
            Some(offset) => start.get() + offset as usize,
            None => match self.new_record(tables, geometry.objects, gfp - NOT_FOR_PAGES) {
                Ok(record) => record,
                Err(error) => {
                    // SAFETY: just allocated.
                    unsafe { self.__free_pages(page, geometry.order.get()) };
                    return Err(error);
                }
            },
        };
        let node = self.page_zone(page).map_or(node, |zone| zone.node());
        let zone = kind.debug.map_or(0, |debug| debug.zone());
        let colour = geometry.colour(cache.next_colour()) + zone;
        self.begin_slab(tables, page, SlabView { cache: id.number, node, colour, record }, kind);
        if let Some(debug) = &kind.debug {
            each_object(kind, start.get() + colour as usize, |object| {
                // SAFETY: an object of the slab, which nobody uses yet.
                unsafe { debug.free(object) };
            });
        }
        if let Some(ctor) = kind.ctor {
            let sleeping = if gfp.may_sleep() { CtorFlags::NONE } else { CtorFlags::ATOMIC };
            each_object(kind, start.get() + colour as usize, |object| {
                ctor(object, id, CtorFlags::CONSTRUCTOR.with(sleeping));
            });
        }
        if let Some(slabs) = cache.nodes().get(node.index()) {
            // SAFETY: the slab was just made, of this cache, on this node.
            unsafe { slabs.add(self.shared(tables, kind), page.pfn()) };
        }
        Ok(node)
    }

    /// Room for a record that is not on its slab: an object of kmalloc's, whose own records are on
    /// theirs, so that this ends ([`Setup`](crate::Setup) makes sure of it).
    #[track_caller]
    fn new_record(&self, tables: &Tables, objects: u32, gfp: Gfp) -> Result<usize, AllocError> {
        let size = Record::bytes(objects) as usize;
        let class = tables.classes.class(size).ok_or(AllocError::ZeroSize)?;
        // From the shared slabs: a magazine would want room itself.
        self.object_shared(tables, class as u16, gfp, None, Asked::internal(size))
    }

    /// Makes a block of pages a slab with nothing in use.
    fn begin_slab(&self, tables: &Tables, page: Page, view: SlabView, kind: &Kind) {
        let at = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(view.record));
        if let Some(at) = at {
            // SAFETY: the room for the record was just allocated, of this size, or is the end of the
            // slab.
            let record = unsafe { Record::new(at, kind.geometry.objects) };
            record.init();
            if kind.debug.is_some() {
                // SAFETY: the records of caches that are debugged have room for tracks.
                unsafe { record.init_tracks() };
            }
        }
        self.set_page_slab(page, kind.flags.contains(CacheFlags::RECLAIM_ACCOUNT));
        each_frame(page.pfn(), kind, |frame| tables.memmap.at(frame).set_slab(view));
    }

    /// Gives the pages of a slab back that is off the lists and has no object in use.
    pub(super) fn free_slab(&self, tables: &Tables, id: CacheId, kind: &Kind, head: Pfn) {
        let descriptor = tables.memmap.at(head);
        let view = descriptor.slab();
        let page = Page::of(head);
        let start = self.direct_address(page).map_or(0, VirtAddr::get);
        if let Some(dtor) = kind.dtor {
            let atomic = self.platform.in_atomic();
            let why = if atomic { CtorFlags::ATOMIC } else { CtorFlags::NONE };
            each_object(kind, start + view.colour as usize, |object| dtor(object, id, why));
        }
        each_frame(head, kind, |frame| tables.memmap.at(frame).clear_slab());
        self.clear_page_slab(page);
        if kind.geometry.record.is_none() {
            self.free_internal(tables, view.record);
        }
        // SAFETY: no object of the slab is in use, and it is on no list.
        unsafe { self.__free_pages(page, kind.geometry.order.get()) };
    }

    /// What an operation on a node of a cache needs.
    pub(in crate::mm) fn shared<'a>(&'a self, tables: &'a Tables, kind: &'a Kind) -> Shared<'a, P> {
        let (geometry, cache) = (&kind.geometry, kind.number);
        let debug = kind.debug.as_ref();
        Shared { platform: &self.platform, map: &tables.memmap, geometry, debug, cache }
    }
}

/// The flags for a slab's pages: the caller's, and the cache's own (A184).
fn page_flags(kind: &Kind, gfp: Gfp) -> Gfp {
    let mut flags = gfp - NOT_FOR_PAGES;
    if kind.geometry.order > Order::ZERO {
        // Every page of the slab leads to the first, which says what it is.
        flags |= Gfp::COMP;
    }
    if kind.flags.contains(CacheFlags::CACHE_DMA) {
        flags |= Gfp::DMA;
    }
    if kind.flags.contains(CacheFlags::RECLAIM_ACCOUNT) {
        flags |= Gfp::RECLAIMABLE;
    }
    flags
}

fn each_frame(head: Pfn, kind: &Kind, mut call: impl FnMut(Pfn)) {
    (0..kind.geometry.order.pages())
        .filter_map(|frame| head.checked_add(frame))
        .for_each(&mut call);
}

fn each_object(kind: &Kind, first: usize, mut call: impl FnMut(NonNull<u8>)) {
    let geometry = &kind.geometry;
    for object in 0..geometry.objects as usize {
        let address = first + object * geometry.stride as usize;
        if let Some(object) = NonNull::new(core::ptr::with_exposed_provenance_mut(address)) {
            call(object);
        }
    }
}
