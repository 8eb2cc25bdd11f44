//! Giving objects back, and finding out what is wrong with it.

use core::panic::Location;
use core::ptr::NonNull;

use super::super::Mm;
use super::super::tables::Tables;
use super::cpu::batch;
use crate::VirtAddr;
use crate::page::Block;
use crate::platform::{Misuse, MisuseKind, Passed, Pinned, Platform, There};
use crate::reclaim::Reclaim;
use crate::slab::{At, Cache, CacheId, Entry, Kind, State, flush, slab_of};

/// An object that was found, its cache, and that one's number.
#[derive(Clone, Copy)]
pub(in crate::mm) struct Found<'t> {
    pub(in crate::mm) at: At<'t>,
    pub(in crate::mm) cache: &'t Cache,
    pub(in crate::mm) kind: &'t Kind,
    pub(in crate::mm) number: u16,
}

/// Why no object begins at an address.
pub(in crate::mm) enum NotFound {
    /// There is no slab.
    NoSlab,
    /// The address is inside a slab, and not the first byte of an object.
    Interior,
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
        if let Some(tables) = self.tables()
            && let Ok(found) = self.find_object(tables, address)
            && self.may_free(tables, &found, id)
            && self.free_at_hand(tables, address, &found)
        {
            return;
        }
        self.free_object_slow(address, id, site);
    }

    /// Whether an object is with a caller and of the cache that it is freed to.
    #[inline(always)]
    fn may_free(&self, tables: &Tables, found: &Found<'_>, id: Option<CacheId>) -> bool {
        let right = match id {
            Some(id) => {
                id.number == found.number && found.cache.generation() == Some(id.generation)
            }
            None => usize::from(found.number) < tables.kmalloc_caches(),
        };
        right && found.at.state.get() == State::HELD
    }

    /// The object that begins at an address.
    #[inline(always)]
    pub(in crate::mm) fn find_object<'t>(
        &self,
        tables: &'t Tables,
        address: usize,
    ) -> Result<Found<'t>, NotFound> {
        let map = &tables.memmap;
        let phys = self.platform.virt_to_phys(VirtAddr::new(address)).ok_or(NotFound::NoSlab)?;
        let pfn = phys.frame(P::PAGE_SHIFT).ok_or(NotFound::NoSlab)?;
        let (head, descriptor) = slab_of(map, pfn).ok_or(NotFound::NoSlab)?;
        let view = descriptor.slab();
        let number = view.cache;
        let cache = tables.caches().get(usize::from(number)).ok_or(NotFound::NoSlab)?;
        let kind = cache.kind().ok_or(NotFound::NoSlab)?;
        let of = self.shared(tables, kind);
        let at = of.find(head, view, address).ok_or(NotFound::Interior)?;
        Ok(Found { at, cache, kind, number })
    }

    /// Puts an object into the CPU's magazine, if there is room. Answers whether it did.
    #[inline(always)]
    fn free_at_hand(&self, tables: &Tables, address: usize, found: &Found<'_>) -> bool {
        let pinned = Pinned::new(&self.platform);
        let cpu = pinned.cpu();
        let Some(own) = tables.cpu_cache(cpu, found.number) else { return false };
        let Some(state) = State::of(cpu) else { return false };
        // SAFETY: this code is pinned to the CPU that the magazine belongs to.
        let Some(mut entered) = (unsafe { own.section.enter() }) else { return false };
        if own.section.is_requested() {
            return false;
        }
        let magazine = if tables.is_home(cpu, found.at.node) {
            own.own(&mut entered)
        } else {
            own.away(&mut entered)
        };
        let pushed = magazine.push_hot(Entry { object: address, state: found.at.state.into() });
        if pushed {
            found.at.state.set(state);
            own.counters().count_freed();
        }
        pushed
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
        };
        let Some(tables) = self.tables() else {
            return wrong(MisuseKind::Foreign, There::Nothing);
        };
        if let Some(id) = id
            && tables.cache(id).is_none()
        {
            return wrong(MisuseKind::StaleCache, There::Nothing);
        }
        if id.is_none() && self.free_large_memory(tables, address) {
            return;
        }
        let there = self.object_there(VirtAddr::new(address)).unwrap_or(There::Nothing);
        let found = match self.find_object(tables, address) {
            Ok(found) => found,
            Err(NotFound::Interior) => return wrong(MisuseKind::Interior, there),
            Err(NotFound::NoSlab) => {
                let kind = match there {
                    There::Nothing => MisuseKind::Foreign,
                    There::Free { .. } | There::PerCpu { .. } => MisuseKind::DoubleFree,
                    There::Reserved => MisuseKind::Reserved,
                    _ => MisuseKind::NoObject,
                };
                return wrong(kind, there);
            }
        };
        match found.at.state.get() {
            State::HELD if self.may_free(tables, &found, id) => {}
            State::HELD => return wrong(MisuseKind::WrongCache, there),
            _ => return wrong(MisuseKind::DoubleFree, there),
        }
        self.make_room(tables, &found);
        if self.free_at_hand(tables, address, &found) {
            return;
        }
        let freed = found
            .cache
            .nodes()
            .get(found.at.node.index())
            .is_some_and(|slabs| slabs.give(self.shared(tables, found.kind), found.at));
        if freed {
            found.cache.count_freed();
        } else {
            wrong(MisuseKind::ConcurrentFree, there);
        }
    }

    /// Gives a part of the magazine back that the object would go to.
    fn make_room(&self, tables: &Tables, found: &Found<'_>) {
        let Found { cache, kind, number, .. } = *found;
        if !self.platform.in_nmi() {
            self.make_cpu_cache(tables, number, kind);
        }
        let pinned = Pinned::new(&self.platform);
        let cpu = pinned.cpu();
        let Some(own) = tables.cpu_cache(cpu, number) else { return };
        let Some(state) = State::of(cpu) else { return };
        // SAFETY: this code is pinned to the CPU that the magazine belongs to.
        let Some(mut entered) = (unsafe { own.section.enter() }) else { return };
        let of = self.shared(tables, kind);
        let stray = |entry| self.report_stray_object(entry);
        let most = if own.section.take_request() { u32::MAX } else { batch(kind.geometry.stride) };
        let home = tables.node_of(cpu);
        if tables.is_home(cpu, found.at.node) || most == u32::MAX {
            let magazine = own.own(&mut entered);
            if magazine.room() == 0 || most == u32::MAX {
                flush(of, cache.nodes(), home, state, magazine, most, stray);
            }
        }
        let away = own.away(&mut entered);
        if away.len() > 0 && (away.room() == 0 || most == u32::MAX) {
            flush(of, cache.nodes(), home, state, away, u32::MAX, stray);
        }
    }

    /// What is at an address, in the words of a report.
    pub(super) fn object_there(&self, address: VirtAddr) -> Option<There> {
        let tables = self.tables()?;
        if let Ok(found) = self.find_object(tables, address.get()) {
            let cache = found.number;
            let free = found.at.state.get() != State::HELD;
            return Some(There::Object { object: address, cache, free });
        }
        let pfn = self.platform.virt_to_phys(address)?.frame(P::PAGE_SHIFT)?;
        let (head, block) = tables.memmap.head(pfn)?;
        if block == Block::Hole {
            return None;
        }
        Some(crate::mm::wrong::what_is_there(&tables.memmap, head, block))
    }
}

/// The address behind a pointer that may be null.
pub(super) fn address_of(object: *const u8) -> Option<usize> {
    NonNull::new(object.cast_mut()).map(|object| object.as_ptr().expose_provenance())
}
