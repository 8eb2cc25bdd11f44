//! Giving back what caches do not use.

use super::super::Mm;
use super::super::tables::Tables;
use super::look::CacheInfo;
use crate::platform::{Pinned, Platform};
use crate::reclaim::{Reclaim, Shrinker};
use crate::slab::{Cache, CacheId, CpuCache, Kind, Shared};
use crate::{CacheFlags, CpuId};

/// How many slabs are marked as leaving in one taking of a node's lock: interrupts are masked
/// meanwhile.
const RETIRED: u64 = 32;

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Gives the pages of a cache's empty slabs back (A186). Answers how many pages.
    ///
    /// What is in magazines and the depot goes to its slabs first; of other CPUs, as
    /// [`Mm::drain_all_pages`]. A slab goes when every CPU that has had objects of the cache has drained
    /// what it has: where the others cannot be called, or in atomic context, when they come to the cache
    /// by themselves.
    ///
    /// Any context but NMI; does not sleep, but a destructor may be called: by this call, or by a CPU
    /// that comes by.
    #[track_caller]
    pub fn kmem_cache_shrink(&self, id: CacheId) -> u64 {
        let Some(tables) = self.tables() else { return 0 };
        if tables.cache(id).is_none() {
            return 0;
        }
        let which = usize::from(id.number)..usize::from(id.number) + 1;
        self.drain_caches(tables, which.clone());
        self.empty_depots(tables, id.number);
        if self.retire_place(tables, id.number, u64::MAX) > 0 {
            self.drain_caches(tables, which);
        }
        self.free_departed_place(tables, id.number)
    }

    /// Gives the pages of all caches' empty slabs back, but of those that are not to be shrunk
    /// ([`CacheFlags::NO_REAP`]) (A168, A192), and the chunk of per-CPU data that is kept empty for the next
    /// request. Answers how many pages.
    ///
    /// Context as [`Mm::kmem_cache_shrink`]. Cost: all caches.
    pub fn shrink_caches(&self) -> u64 {
        self.shrink(u64::MAX)
    }

    /// Gives what is in the depots of a cache back to its slabs, and the depots themselves.
    #[track_caller]
    fn empty_depots(&self, tables: &Tables, number: u16) {
        let Some(cache) = tables.caches()[usize::from(number)].pin() else { return };
        let of = self.shared(tables, cache.kind());
        for slabs in cache.nodes() {
            let depot = self.empty_depot(slabs, of);
            self.free_magazine(tables, depot);
        }
    }

    /// Marks slabs of a cache as leaving, until they have so many pages; answers how many those have.
    fn retire_place(&self, tables: &Tables, number: u16, pages: u64) -> u64 {
        let Some(cache) = tables.caches()[usize::from(number)].pin() else { return 0 };
        self.retire(tables, &cache, cache.kind(), pages)
    }

    /// Marks slabs of a cache that nobody destroys as leaving, until they have so many pages; answers
    /// how many those have.
    pub(super) fn retire(&self, tables: &Tables, cache: &Cache, kind: &Kind, pages: u64) -> u64 {
        let of = self.shared(tables, kind);
        let slab = kind.geometry.order.pages();
        let mut retired = 0;
        for slabs in cache.nodes() {
            while retired < pages {
                let most = (pages - retired).div_ceil(slab).min(RETIRED);
                let stray = |entry| self.report_stray_object(kind.number, entry);
                match slabs.retire(of, cache.departures(), most, stray) {
                    0 => break,
                    slabs => retired += slabs * slab,
                }
            }
        }
        retired
    }

    /// Gives the pages back of slabs of a cache that have left; answers how many.
    pub(super) fn free_departed_place(&self, tables: &Tables, number: u16) -> u64 {
        let Some(cache) = tables.caches()[usize::from(number)].pin() else { return 0 };
        let of = self.shared(tables, cache.kind());
        let (Some(generation), true) =
            (cache.generation(), cache.nodes().iter().any(|slabs| slabs.has_leaving(of)))
        else {
            return 0;
        };
        let acknowledged = self.acknowledged(tables, &cache, of);
        let id = CacheId { number, generation };
        self.free_departed(tables, &cache, id, cache.kind(), acknowledged)
    }

    /// Gives the pages back of slabs that have left with the departures up to that one.
    pub(super) fn free_departed(
        &self,
        tables: &Tables,
        cache: &Cache,
        id: CacheId,
        kind: &Kind,
        acknowledged: u64,
    ) -> u64 {
        let of = self.shared(tables, kind);
        let mut pages = 0;
        for slabs in cache.nodes() {
            while let Some(head) = slabs.depart(of, acknowledged) {
                self.free_slab(tables, id, kind, head);
                pages += kind.geometry.order.pages();
            }
        }
        pages
    }

    /// The departures of a cache's slabs that all CPUs have acknowledged which have magazines of it.
    fn acknowledged(&self, tables: &Tables, cache: &Cache, of: Shared<'_, P>) -> u64 {
        // A CPU that comes to have some later sees all that there were before.
        let announced = cache.departures().announced();
        let cpus = (0..tables.cpus).filter_map(CpuId::new);
        cpus.fold(announced, |all, cpu| {
            let own = self.with_cpu_cache(tables, cache, of, cpu, CpuCache::acknowledged);
            // Where the lock is not to be had nothing is known.
            all.min(own.map_or(0, |own| own.unwrap_or(announced)))
        })
    }

    /// Has all CPUs give back what they have of some caches, as far as that can be waited for here.
    fn drain_caches(&self, tables: &Tables, which: core::ops::Range<usize>) {
        let own = {
            let pinned = Pinned::new(&self.platform);
            pinned.cpu()
        };
        self.drain_local_caches(tables, which.clone());
        let call = if self.platform.in_atomic() { None } else { self.platform.cross_call() };
        for cpu in self.online_cpus().filter(|cpu| *cpu != own) {
            let called = call
                .map(|call| call.call_on(cpu, &|| self.drain_local_caches(tables, which.clone())));
            if !matches!(called, Some(Ok(()))) {
                self.request_drain(tables, cpu, which.clone());
            }
        }
    }

    /// Gives what this CPU has of some caches back to their slabs.
    pub(in crate::mm) fn drain_local_caches(
        &self,
        tables: &Tables,
        which: core::ops::Range<usize>,
    ) {
        for number in which {
            if let Some(cache) = tables.caches().get(number).and_then(Cache::pin) {
                self.drain_cpu_cache(tables, &cache);
            }
        }
    }

    fn request_drain(&self, tables: &Tables, cpu: CpuId, which: core::ops::Range<usize>) {
        for number in which {
            if let Some(cache) = tables.caches().get(number).and_then(Cache::pin) {
                let of = self.shared(tables, cache.kind());
                self.with_cpu_cache(tables, &cache, of, cpu, |own| own.section.request());
            }
        }
    }
}

/// The caches, but for those that are not to be shrunk ([`CacheFlags::NO_REAP`]).
impl<P: Platform, R: Reclaim> Shrinker for Mm<P, R> {
    /// The pages that all free objects would fill.
    fn count(&self) -> u64 {
        let reaped = self.caches().filter(|cache| !cache.flags.contains(CacheFlags::NO_REAP));
        let of = |cache: CacheInfo| {
            let free = cache.objects().saturating_sub(cache.active);
            free / u64::from(cache.objects_per_slab) * cache.order.pages()
        };
        reaped.map(of).sum()
    }

    fn shrink(&self, pages: u64) -> u64 {
        let Some(tables) = self.tables() else { return 0 };
        let percpu = self.shrink_percpu();
        self.drain_caches(tables, 0..tables.caches().len());
        let is_reaped = |number: &u16| {
            let cache = tables.caches()[usize::from(*number)].pin();
            cache.is_some_and(|cache| !cache.kind().flags.contains(CacheFlags::NO_REAP))
        };
        let reaped = || (0..tables.caches().len() as u16).filter(is_reaped);
        // All depots first: they are objects of any of kmalloc's caches.
        reaped().for_each(|number| self.empty_depots(tables, number));
        let departed = || reaped().map(|number| self.free_departed_place(tables, number)).sum();
        // What could not go the last time.
        let mut freed: u64 = percpu + departed();
        // Slabs that go give their records back to caches of kmalloc's, whose slabs may go then.
        while freed < pages {
            let retired = reaped().rev().fold(0, |retired, number| {
                let wanted = (pages - freed).saturating_sub(retired);
                retired + self.retire_place(tables, number, wanted)
            });
            if retired > 0 {
                self.drain_caches(tables, 0..tables.caches().len());
            }
            match departed() {
                0 => break,
                pages => freed += pages,
            }
        }
        freed
    }
}
