//! Looking at caches.

use super::super::Mm;
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::slab::{CacheId, CacheName, CpuCache, SlabCounts};
use crate::{CacheFlags, CpuId, Order};

/// What there is of a cache (A213).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// Its name.
    pub name: CacheName,
    /// How it is.
    pub flags: CacheFlags,
    /// The size of an object, in bytes, as it was asked for.
    pub size: usize,
    /// From one object to the next, in bytes.
    pub stride: usize,
    /// How many objects a slab has.
    pub objects_per_slab: u32,
    /// How many pages a slab has, as their order.
    pub order: Order,
    /// Objects with callers.
    pub active: u64,
    /// Its slabs.
    pub slabs: SlabCounts,
    /// Free objects in CPUs' magazines and depots.
    pub at_hand: u64,
    /// Objects handed out since it was made.
    pub allocated: u64,
    /// Objects given back since it was made.
    pub freed: u64,
    /// How many CPUs have a magazine for it: that comes with a CPU's first request, if there is memory
    /// for it then, and stays until the CPU or the cache goes.
    pub cpus: u32,
}

impl CacheInfo {
    /// All objects that there are, in use or not.
    pub fn objects(&self) -> u64 {
        self.slabs.slabs() * u64::from(self.objects_per_slab)
    }
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// The name of the cache that has a number, as reports of misuse give it; `None` where there is
    /// none, or one that is being destroyed.
    ///
    /// A number is another cache's once its cache is destroyed: ask while the report is made. Any
    /// context, that of [`Hooks::misuse`](crate::platform::Hooks::misuse) too. Cost: constant.
    pub fn cache_name(&self, number: u16) -> Option<CacheName> {
        let cache = self.tables()?.caches().get(usize::from(number))?.pin()?;
        Some(cache.kind().name)
    }

    /// The handle of a cache by its name (A190), whoever made it; `None` where there is none, or one
    /// that is being destroyed.
    ///
    /// It is for what changes nothing for the cache's users: [`Mm::kmem_cache_shrink`] and
    /// [`Mm::kmem_cache_validate`]. Any context. Cost: all places for caches.
    ///
    /// # Safety
    ///
    /// The handle of a cache that others made is passed to these two alone: its objects, and its end, are
    /// the business of who made it, who may be destroying it meanwhile.
    pub unsafe fn find_cache(&self, name: &str) -> Option<CacheId> {
        let places = self.tables()?.caches().iter().enumerate();
        let mut named = places.filter_map(|(number, place)| {
            let cache = place.pin()?;
            let generation = cache.generation().filter(|_| cache.kind().name.as_str() == name)?;
            Some(CacheId { number: number as u16, generation })
        });
        named.next()
    }

    /// All caches, those of kmalloc first.
    ///
    /// Any context but NMI, where some may be left out. Cost: all places for caches, and for each
    /// cache one taking of each node's lock.
    pub fn caches(&self) -> impl Iterator<Item = CacheInfo> {
        let tables = self.tables();
        let places = tables.map_or(&[][..], |tables| tables.caches()).iter();
        places.filter_map(move |place| {
            let tables = tables?;
            let cache = place.pin()?;
            let kind = cache.kind();
            let of = self.shared(tables, kind);
            let (mut slabs, mut at_hand) = (SlabCounts::default(), 0);
            for node in cache.nodes() {
                let (counts, depot) = node.counts(of)?;
                slabs.full += counts.full;
                slabs.partial += counts.partial;
                slabs.empty += counts.empty;
                slabs.free += counts.free;
                at_hand += u64::from(depot);
            }
            let ((mut allocated, mut freed), mut cpus) = (cache.counted(), 0);
            for cpu in (0..tables.cpus).filter_map(CpuId::new) {
                let counts = |own: &CpuCache| (own.counters().allocated(), own.counters().freed());
                let own = self.with_cpu_cache(tables, &cache, of, cpu, counts)?;
                cpus += u32::from(own.is_some());
                let (own_allocated, own_freed) = own.unwrap_or_default();
                allocated += own_allocated;
                freed += own_freed;
            }
            let objects = slabs.slabs() * u64::from(kind.geometry.objects);
            let active = allocated.saturating_sub(freed);
            at_hand = at_hand.max(objects.saturating_sub(slabs.free).saturating_sub(active));
            Some(CacheInfo {
                name: kind.name,
                flags: kind.flags,
                size: kind.size as usize,
                stride: kind.geometry.stride as usize,
                objects_per_slab: kind.geometry.objects,
                order: kind.geometry.order,
                active,
                slabs,
                at_hand,
                allocated,
                freed,
                cpus,
            })
        })
    }
}
