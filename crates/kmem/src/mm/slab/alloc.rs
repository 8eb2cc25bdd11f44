//! Taking objects.

use core::panic::Location;
use core::ptr::NonNull;

use super::super::Mm;
use super::super::tables::Tables;
use super::cpu::{batch, no_object};
use crate::gfp::GfpError;
use crate::platform::{Misuse, MisuseKind, Passed, Pinned, Platform, There};
use crate::reclaim::Reclaim;
use crate::slab::{Asked, Cache, CacheId, Kind, State};
use crate::{AllocError, CacheFlags, Gfp, NodeId};

/// Flags that objects cannot be had with: they lie in the direct map, and do not move.
const NOT_FOR_OBJECTS: Gfp = Gfp::HIGHMEM.union(Gfp::MOVABLE).union(Gfp::DMA32);

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Takes an object of a cache (A206). Its contents are what the constructor or the last user
    /// left, or zeros with [`Gfp::ZERO`]. Given back with [`Mm::kmem_cache_free`].
    ///
    /// # Errors
    ///
    /// [`AllocError::NoMemory`] where the cache has no free object and there are no pages for a slab;
    /// [`AllocError::NoSuchCache`] for a cache that has been destroyed, which is reported too;
    /// [`AllocError::BadFlags`] for flags that contradict each other, that ask for high or movable
    /// memory, or that ask to clear what a constructor has made.
    ///
    /// # Context
    ///
    /// As [`Mm::alloc_pages`]. The flags matter only if the cache has to grow; in an NMI handler it does
    /// not, and what is not at hand or in a slab is not to be had.
    ///
    /// # Cost
    ///
    /// From the CPU's magazine: no lock, no atomic read-modify-write, interrupts not masked. Every so
    /// many objects the cache's lock is taken.
    #[inline]
    #[track_caller]
    pub fn kmem_cache_alloc(&self, id: CacheId, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        match self.alloc_at_hand(id, gfp) {
            Some(object) => {
                self.trace_cache_alloc(Ok(object), id, gfp, None, Location::caller());
                Ok(object)
            }
            None => self.kmem_cache_alloc_slow(id, gfp, None, Location::caller()),
        }
    }

    // As `kmalloc_at_hand`.
    #[inline(never)]
    fn alloc_at_hand(&self, id: CacheId, gfp: Gfp) -> Option<NonNull<u8>> {
        let tables = self.tables()?;
        let cache = tables.cache(id)?;
        if !self.is_plain_for_objects(gfp) || gfp.intersects(Gfp::ZERO | Gfp::DMA) {
            return None;
        }
        self.take_at_hand(tables, cache)
    }

    /// Takes an object that lies on a node, or, where that is out of memory, on another (A175).
    ///
    /// Otherwise as [`Mm::kmem_cache_alloc`].
    #[track_caller]
    pub fn kmem_cache_alloc_node(
        &self,
        id: CacheId,
        gfp: Gfp,
        node: Option<NodeId>,
    ) -> Result<NonNull<u8>, AllocError> {
        match node {
            None => self.kmem_cache_alloc(id, gfp),
            Some(_) => self.kmem_cache_alloc_slow(id, gfp, node, Location::caller()),
        }
    }

    #[cold]
    #[inline(never)]
    fn kmem_cache_alloc_slow(
        &self,
        id: CacheId,
        gfp: Gfp,
        node: Option<NodeId>,
        site: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        let tables = self.tables().ok_or(AllocError::NotBooted)?;
        let Some(kind) = tables.cache(id).and_then(Cache::kind) else {
            self.report(&Misuse {
                kind: MisuseKind::StaleCache,
                passed: Passed::Cache(id.number),
                there: There::Nothing,
                site,
            });
            return Err(AllocError::NoSuchCache);
        };
        let dma = kind.flags.contains(CacheFlags::CACHE_DMA);
        let mut refused = gfp.intersection(NOT_FOR_OBJECTS);
        if !dma {
            refused |= gfp.intersection(Gfp::DMA);
        }
        if kind.ctor.is_some() {
            refused |= gfp.intersection(Gfp::ZERO);
        }
        if !refused.is_empty() {
            return Err(GfpError::NotForObjects(refused).into());
        }
        let answer = self.object_slow(tables, id.number, gfp, node, kind.size as usize, site);
        self.trace_cache_alloc(answer.as_ref().copied(), id, gfp, node, site);
        answer
    }

    /// Whether nothing about a request is unusual.
    #[inline(always)]
    pub(super) fn is_plain_for_objects(&self, gfp: Gfp) -> bool {
        gfp.is_plain()
            && !gfp.intersects(NOT_FOR_OBJECTS.union(Gfp::HARDWALL))
            && !(gfp.may_sleep() && self.platform.in_atomic())
    }

    /// The object at hand: the hottest of the CPU's magazine. `None` where it is empty, or there is
    /// none, this code is not alone with it, or the object in it was freed by two CPUs at one moment.
    #[inline(always)]
    pub(super) fn take_at_hand(&self, tables: &Tables, cache: &Cache) -> Option<NonNull<u8>> {
        let pinned = Pinned::new(&self.platform);
        let own = tables.cpu_cache(pinned.cpu(), cache)?;
        // SAFETY: this code is pinned to the CPU that the magazine belongs to.
        let mut entered = unsafe { own.section.enter() }?;
        if own.section.is_requested() {
            return None;
        }
        let magazine = own.own(&mut entered);
        let entry = magazine.hottest()?;
        if entry.get() != own.state {
            return None;
        }
        let _ = magazine.pop();
        entry.set(State::HELD);
        own.counters().count_allocated();
        NonNull::new(core::ptr::with_exposed_provenance_mut(entry.object))
    }

    /// Takes an object when there was none at hand, or something about the request is unusual.
    pub(super) fn object_slow(
        &self,
        tables: &Tables,
        number: u16,
        gfp: Gfp,
        node: Option<NodeId>,
        size: usize,
        site: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        gfp.check()?;
        let gfp = self.flags_for_context(gfp, site);
        if let Some(node) = node.filter(|node| !tables.nodes.contains(*node)) {
            return Err(AllocError::NoSuchNode(node));
        }
        let cache = &tables.caches()[usize::from(number)];
        let kind = cache.kind().ok_or(AllocError::NoSuchCache)?;
        let here = node.is_none_or(|node| node == self.local_node(tables));
        let refilled = if here { self.refill_and_take(tables, cache, kind) } else { None };
        let object = match refilled {
            Some(object) => object,
            None => {
                let keeps = kind.debug.is_some_and(|debug| debug.has_owners());
                let owner = keeps.then(|| self.caller(site));
                self.object_shared(tables, number, gfp, node, Asked { bytes: size, owner, site })?
            }
        };
        let object = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(object))
            .ok_or(AllocError::NoSuchCache)?;
        if gfp.contains(Gfp::ZERO) {
            let slack = kind.debug.is_some_and(|debug| debug.has_slack());
            let bytes = if slack { size } else { kind.size as usize };
            // SAFETY: the object was just taken, and has so many bytes.
            unsafe { object.write_bytes(0, bytes) };
        }
        Ok(object)
    }

    /// Fills the CPU's magazine, which it is given first where it has none, and takes an object.
    fn refill_and_take(&self, tables: &Tables, cache: &Cache, kind: &Kind) -> Option<usize> {
        if !self.platform.in_nmi() {
            self.make_cpu_cache(tables, cache, kind);
        }
        self.honour_cache_request(tables, cache, kind);
        let pinned = Pinned::new(&self.platform);
        let own = tables.cpu_cache(pinned.cpu(), cache)?;
        // SAFETY: this code is pinned to the CPU that the magazine belongs to.
        let mut entered = unsafe { own.section.enter() }?;
        let magazine = own.own(&mut entered);
        if magazine.len() == 0 {
            own.run_dry();
            let slabs = cache.nodes().get(own.home.index())?;
            let stray = |entry| self.report_stray_object(kind.number, entry);
            let most = batch(kind.geometry.stride);
            slabs.refill(self.shared(tables, kind), own.state, magazine, most, stray);
        }
        loop {
            let entry = magazine.pop()?;
            if entry.get() == own.state {
                entry.set(State::HELD);
                own.counters().count_allocated();
                return Some(entry.object);
            }
            self.report_stray_object(kind.number, entry);
        }
    }

    /// Takes an object of the node's slabs, or of a new slab, or of any other node's.
    #[track_caller]
    pub(super) fn object_shared(
        &self,
        tables: &Tables,
        number: u16,
        gfp: Gfp,
        node: Option<NodeId>,
        asked: Asked,
    ) -> Result<usize, AllocError> {
        let cache = &tables.caches()[usize::from(number)];
        let (Some(kind), Some(generation)) = (cache.kind(), cache.generation()) else {
            return Err(AllocError::NoSuchCache);
        };
        let wanted = node.unwrap_or_else(|| self.local_node(tables));
        let take = |node: NodeId| {
            let slabs = cache.nodes().get(node.index())?;
            let stray = |entry| self.report_stray_object(kind.number, entry);
            let wrong = |wrong| self.report_overwritten(wrong, asked.site);
            let object = slabs.take(self.shared(tables, kind), asked, stray, wrong)?;
            cache.count_allocated();
            Some(object)
        };
        if let Some(object) = take(wanted) {
            return Ok(object);
        }
        // To add a slab the node's lock is waited for.
        if self.platform.in_nmi() {
            return Err(no_object(kind, gfp));
        }
        let id = CacheId { number, generation };
        loop {
            match self.grow(tables, cache, id, kind, wanted, gfp) {
                // Others may have taken all of the new slab's objects.
                Ok(node) => {
                    if let Some(object) = take(node) {
                        return Ok(object);
                    }
                }
                Err(error) => {
                    let allowed = self.allowed_nodes(gfp, wanted);
                    let mut others = (0..cache.nodes().len() as u32).filter_map(NodeId::new);
                    let found =
                        others.find_map(|node| allowed.contains(node).then(|| take(node))?);
                    return found.ok_or(error);
                }
            }
        }
    }
}
