//! Giving objects back, and finding out what is wrong with it.

use core::panic::Location;
use core::ptr::NonNull;

use super::super::Mm;
use super::super::tables::Tables;
use super::cpu::batch;
use crate::page::{Block, Descriptor, SlabView, SlabWord};
use crate::platform::{Misuse, MisuseKind, Passed, Pinned, Platform, There};
use crate::reclaim::Reclaim;
use crate::slab::{
    Cache, CacheId, CpuCache, Entry, Kind, ObjectState, PinnedCache, Seen, Sight, State, slab_of,
};
use crate::sync::Entered;
use crate::{NodeId, Pfn, VirtAddr};

/// An object that was found, and its cache, which is not destroyed meanwhile.
pub(in crate::mm) struct Found<'t> {
    pub(in crate::mm) seen: Seen,
    pub(in crate::mm) cache: PinnedCache<'t>,
}

impl Found<'_> {
    /// What the cache is like.
    pub(in crate::mm) fn kind(&self) -> &Kind {
        self.cache.kind()
    }

    /// The number of the cache.
    pub(in crate::mm) fn number(&self) -> u16 {
        self.kind().number
    }

    /// The object, which begins at an address, in the words of a report.
    fn there(&self, address: usize) -> There {
        let free = self.seen.state != State::HELD;
        There::Object { object: VirtAddr::new(address), cache: self.number(), free }
    }
}

/// Why an object was not freed at hand.
pub(super) enum Miss {
    /// Its descriptor is not one of those that are found at once.
    Far,
    /// Something else.
    Other,
}

/// Why no object begins at an address.
pub(in crate::mm) enum NotFound {
    /// There is no slab.
    NoSlab,
    /// The address is inside a slab, and not the first byte of an object: what is there, the object
    /// that it lies in or the slab's own block.
    Interior(There),
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Gives an object back to its cache (A207).
    ///
    /// # Wrong frees
    ///
    /// An object that is free already, one of another cache, an address that is no object's first
    /// byte, a page, a stack, a cache that has been destroyed: each is found here, in constant time,
    /// reported to [`Hooks::misuse`](crate::platform::Hooks::misuse), and changes nothing. Two CPUs
    /// that free one object at one moment are found at the latest when it would be handed out again.
    ///
    /// # Safety
    ///
    /// The object is the caller's, and nothing uses it after the call. What the checks cannot tell is
    /// an object that was freed and has been handed out to somebody else since.
    ///
    /// # Context
    ///
    /// Any, NMI handlers included; does not sleep.
    ///
    /// # Cost
    ///
    /// To the CPU's magazine: no lock, no atomic read-modify-write.
    #[inline]
    #[track_caller]
    pub unsafe fn kmem_cache_free(&self, id: CacheId, object: *mut u8) {
        self.free_object(object.expose_provenance(), Some(id), Location::caller());
    }

    /// Frees an object of a cache, or of kmalloc's where none is named.
    #[inline(always)]
    pub(super) fn free_object(
        &self,
        address: usize,
        id: Option<CacheId>,
        site: &'static Location<'static>,
    ) {
        match self.free_at_hand::<false>(address, id, site) {
            Ok(()) => {}
            // A call of its own, so that the common path has none and keeps nothing on the stack.
            Err(Miss::Far) => self.free_far_object(address, id, site),
            Err(Miss::Other) => self.free_object_slow(address, id, site),
        }
    }

    /// Frees an object whose descriptor takes a longer way to find.
    #[inline(never)]
    fn free_far_object(
        &self,
        address: usize,
        id: Option<CacheId>,
        site: &'static Location<'static>,
    ) {
        if self.free_at_hand::<true>(address, id, site).is_err() {
            self.free_object_slow(address, id, site);
        }
    }

    /// The descriptor of the page that an address of the direct map lies in, and its physical address.
    #[inline(always)]
    pub(super) fn page_at<'t, const FAR: bool>(
        &self,
        tables: &'t Tables,
        address: usize,
    ) -> Result<(&'t Descriptor, u64), Miss> {
        let virt = VirtAddr::new(address);
        let physical = self.platform.virt_to_phys(virt).ok_or(Miss::Other)?.get();
        let frame = physical >> P::PAGE_SHIFT;
        let descriptor = if FAR {
            Pfn::new(frame).and_then(|pfn| tables.memmap.get(pfn)).ok_or(Miss::Other)?
        } else {
            tables.memmap.near(frame).ok_or(Miss::Far)?
        };
        Ok((descriptor, physical))
    }

    /// Puts an object into the CPU's magazine, if all is well with it and there is room.
    ///
    /// Whoever frees looks that the object is held, and then says where it is: see
    /// [`State`](crate::slab::State). Both inside the section: a slab that was found there stays until
    /// the CPU comes by (`leaving.rs`).
    #[inline(always)]
    fn free_at_hand<const FAR: bool>(
        &self,
        address: usize,
        id: Option<CacheId>,
        site: &'static Location<'static>,
    ) -> Result<(), Miss> {
        let tables = self.tables().ok_or(Miss::Other)?;
        let pinned = Pinned::new(&self.platform);
        let (page, physical) = self.page_at::<FAR>(tables, address)?;
        // Whose section to enter; whether it is a slab's is looked at inside.
        let word = page.slab_word();
        let cache = cache_for(tables, word.cache(), id).ok_or(Miss::Other)?;
        let own = tables.cpu_cache(pinned.cpu(), cache).ok_or(Miss::Other)?;
        // SAFETY: this code is pinned to the CPU that the magazines belong to.
        let mut entered = unsafe { own.section.enter() }.ok_or(Miss::Other)?;
        let (state, node) = held_object(cache, word, page, physical).ok_or(Miss::Other)?;
        // Requests are for those who take objects, or who find the magazine full: soon enough.
        let magazine = if !tables.several_nodes || node == own.home {
            own.own(&mut entered)
        } else {
            own.away(&mut entered)
        };
        let entry = Entry { object: address, state };
        if P::TRACE && magazine.room() > 0 {
            self.trace_object_free(address, id, site);
        }
        if !magazine.push(entry) {
            return Err(Miss::Other);
        }
        entry.set(own.state);
        own.counters().count_freed();
        Ok(())
    }

    /// The object that begins at an address, as it is at this moment. Takes the lock of its node.
    pub(in crate::mm) fn find_object<'t>(
        &self,
        tables: &'t Tables,
        address: usize,
    ) -> Result<Found<'t>, NotFound> {
        let find = || {
            let phys = self.platform.virt_to_phys(VirtAddr::new(address))?;
            let (_, descriptor) = slab_of(&tables.memmap, phys.frame(P::PAGE_SHIFT)?)?;
            // Where to look: with the lock held it is looked whether that is so.
            let SlabView { cache: number, node, .. } = descriptor.slab();
            let cache = tables.caches().get(usize::from(number))?.pin()?;
            let of = self.shared(tables, cache.kind());
            let sight = cache.nodes().get(node.index())?.see(of, node, address)?;
            Some((sight, cache))
        };
        match find() {
            Some((Sight::Object(seen), cache)) => Ok(Found { seen, cache }),
            Some((Sight::Inside(head, object), cache)) => {
                let (cache, order) = (cache.kind().number, cache.kind().geometry.order);
                let there = object.map_or(There::Block { head, order }, |(object, free)| {
                    There::Object { object: VirtAddr::new(object), cache, free }
                });
                Err(NotFound::Interior(there))
            }
            None => Err(NotFound::NoSlab),
        }
    }

    /// Frees when it could not be done at hand: makes room, goes to the slab, or finds what is wrong.
    #[cold]
    #[inline(never)]
    fn free_object_slow(
        &self,
        address: usize,
        id: Option<CacheId>,
        site: &'static Location<'static>,
    ) {
        let wrong = |kind, there| {
            let passed = Passed::Object(VirtAddr::new(address));
            self.report(&Misuse { kind, passed, there, site });
            if let Some(tables) = self.tables() {
                self.log_owners(tables, address);
            }
        };
        let Some(tables) = self.tables() else {
            return wrong(MisuseKind::Foreign, There::Nothing);
        };
        if let Some(id) = id
            && tables.cache(id).is_none()
        {
            return wrong(MisuseKind::StaleCache, There::Nothing);
        }
        if id.is_none() && self.free_large_memory(tables, address, Some(site)) {
            return;
        }
        let found = match self.find_object(tables, address) {
            Ok(found) => found,
            Err(NotFound::Interior(there)) => return wrong(MisuseKind::InsideObject, there),
            Err(NotFound::NoSlab) => {
                let there = self.object_there(VirtAddr::new(address)).unwrap_or(There::Nothing);
                let kind = match there {
                    There::Nothing => MisuseKind::Foreign,
                    There::Free { .. } | There::PerCpu { .. } => MisuseKind::DoubleFree,
                    There::Reserved => MisuseKind::Reserved,
                    _ => MisuseKind::NoObject,
                };
                return wrong(kind, there);
            }
        };
        let there = found.there(address);
        match found.seen.state {
            State::HELD if cache_for(tables, found.number(), id).is_some() => {}
            State::HELD => return wrong(MisuseKind::WrongCache, there),
            _ => return wrong(MisuseKind::DoubleFree, there),
        }
        self.make_room(tables, &found);
        if self.free_at_hand::<true>(address, id, site).is_ok() {
            return;
        }
        self.trace_object_free(address, id, site);
        if !self.give_shared(tables, &found, address, Some(site)) {
            wrong(MisuseKind::ConcurrentFree, there);
        }
    }

    /// Gives an object back to its slab. Answers `false`, and does nothing, where it is not held.
    fn give_shared(
        &self,
        tables: &Tables,
        found: &Found<'_>,
        address: usize,
        site: Option<&'static Location<'static>>,
    ) -> bool {
        let Found { seen, cache } = found;
        let (kind, node) = (found.kind(), seen.node);
        let keeps = kind.debug.is_some_and(|debug| debug.has_owners());
        let owner = site.filter(|_| keeps).map(|site| self.caller(site));
        // What the slab layer frees for itself goes at once: it may be sought.
        let may_keep = site.is_some();
        if may_keep && kind.debug.is_some_and(|debug| debug.has_quarantine()) {
            self.make_depot(tables, cache, kind, node);
        }
        let freed = cache.nodes().get(node.index()).is_some_and(|slabs| {
            let site = site.unwrap_or(Location::caller());
            let wrong = |wrong| self.report_overwritten(wrong, site);
            slabs.give(self.shared(tables, kind), node, address, owner, may_keep, wrong)
        });
        if freed {
            cache.count_freed();
        }
        freed
    }

    /// Gives memory back that the slab layer has for itself: not to a magazine, since to make room in
    /// one may take such memory.
    pub(super) fn free_internal(&self, tables: &Tables, address: usize) {
        if self.free_large_memory(tables, address, None) {
            return;
        }
        let found = self.find_object(tables, address);
        let given = found.is_ok_and(|found| self.give_shared(tables, &found, address, None));
        debug_assert!(given, "kmem: {address:#x} is memory of the slab layer's");
    }

    /// Gives a part of the magazine back that the object would go to.
    fn make_room(&self, tables: &Tables, found: &Found<'_>) {
        let (cache, kind) = (&*found.cache, found.kind());
        if !self.platform.in_nmi() {
            self.make_cpu_cache(tables, cache, kind);
        }
        self.honour_cache_request(tables, cache, kind);
        self.with_own(tables, cache, |own, entered| {
            let away = own.away(entered);
            if found.seen.node != own.home && away.room() == 0 {
                self.flush(tables, cache, kind, own.state, None, away, u32::MAX);
            }
        });
        let is_full = |own: &CpuCache, entered: &mut Entered<'_>| {
            found.seen.node == own.home && own.own(entered).room() == 0
        };
        if self.with_own(tables, cache, is_full) != Some(true)
            || self.grow_magazine(tables, cache, kind)
        {
            return;
        }
        self.with_own(tables, cache, |own, entered| {
            let (state, home, magazine) = (own.state, Some(own.home), own.own(entered));
            // Of a large one a quarter: what stays is moved down.
            let most = batch(kind.geometry.stride).max(magazine.high() / 4);
            self.flush(tables, cache, kind, state, home, magazine, most);
        });
    }

    /// What is at an address, in the words of a report.
    pub(in crate::mm) fn object_there(&self, address: VirtAddr) -> Option<There> {
        let tables = self.tables()?;
        if let Ok(found) = self.find_object(tables, address.get()) {
            return Some(found.there(address.get()));
        }
        let pfn = self.platform.virt_to_phys(address)?.frame(P::PAGE_SHIFT)?;
        let (head, block) = tables.memmap.head(pfn)?;
        if block == Block::Hole {
            return None;
        }
        Some(crate::mm::wrong::what_is_there(&tables.memmap, head, block))
    }
}

/// The byte of the object that begins at a physical address, and its node, if it is with a caller, and of
/// a slab that does not leave, of the cache that `word` says.
#[inline(always)]
pub(super) fn held_object(
    cache: &Cache,
    word: SlabWord,
    page: &Descriptor,
    physical: u64,
) -> Option<(NonNull<ObjectState>, NodeId)> {
    let view = page.slab_in_use(word)?;
    let state = cache.front().object(physical, view)?;
    let entry = Entry { object: 0, state };
    if entry.get() == State::HELD { Some((state, view.node)) } else { None }
}

/// The cache with this number, if it is the one that an object is freed to: one of kmalloc's where
/// none is named.
#[inline(always)]
pub(super) fn cache_for(tables: &Tables, number: u16, id: Option<CacheId>) -> Option<&Cache> {
    match id {
        Some(id) if id.number == number => tables.cache(id),
        None if usize::from(number) < tables.kmalloc_caches() => {
            Some(tables.kmalloc_cache(number.into()))
        }
        _ => None,
    }
}

/// The address behind a pointer that may be null.
pub(super) fn address_of(object: *const u8) -> Option<usize> {
    NonNull::new(object.cast_mut()).map(|object| object.as_ptr().expose_provenance())
}
