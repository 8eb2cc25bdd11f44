//! Giving back what caches do not use.

use super::super::Mm;
use super::super::tables::Tables;
use super::look::CacheInfo;
use crate::platform::{Pinned, Platform};
use crate::reclaim::{Reclaim, Shrinker};
use crate::slab::{Cache, CacheId};
use crate::{CacheFlags, CpuId, Order};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Gives the pages of a cache's empty slabs back (A186). Answers how many pages.
    ///
    /// What is in magazines and the depot goes to its slabs first; of other CPUs, as
    /// [`Mm::drain_all_pages`]. Any context but NMI; does not sleep, but a destructor may be called.
    #[track_caller]
    pub fn kmem_cache_shrink(&self, id: CacheId) -> u64 {
        let Some(tables) = self.tables() else { return 0 };
        if tables.cache(id).is_none() {
            return 0;
        }
        self.drain_caches(tables, usize::from(id.number)..usize::from(id.number) + 1);
        self.empty_depots(tables, id.number);
        self.shrink_place(tables, id.number)
    }

    /// Gives the pages of all caches' empty slabs back, but of those that are not to be shrunk
    /// ([`CacheFlags::NO_REAP`]) (A168, A192). Answers how many pages.
    ///
    /// Context as [`Mm::kmem_cache_shrink`]. Cost: all caches.
    pub fn shrink_caches(&self) -> u64 {
        self.shrink(u64::MAX)
    }

    /// Gives what is in the depots of a cache back to its slabs, and the depots themselves.
    #[track_caller]
    fn empty_depots(&self, tables: &Tables, number: u16) {
        let Some(cache) = tables.caches()[usize::from(number)].pin() else { return };
        let Some(kind) = cache.kind() else { return };
        let of = self.shared(tables, kind);
        for slabs in cache.nodes() {
            let depot = self.empty_depot(slabs, of);
            self.free_magazine(tables, depot);
        }
    }

    /// Gives the pages of a cache's empty slabs back; answers how many.
    fn shrink_place(&self, tables: &Tables, number: u16) -> u64 {
        let Some(cache) = tables.caches()[usize::from(number)].pin() else { return 0 };
        let (Some(kind), Some(generation)) = (cache.kind(), cache.generation()) else { return 0 };
        let of = self.shared(tables, kind);
        let id = CacheId { number, generation };
        let mut pages = 0;
        for slabs in cache.nodes() {
            while let Some(head) = slabs.remove_empty(of) {
                self.free_slab(tables, id, kind, head);
                pages += Order::pages(kind.geometry.order);
            }
        }
        pages
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
            if let Some(cache) = tables.caches().get(number).and_then(Cache::pin)
                && let Some(own) = tables.cpu_cache(cpu, &cache)
            {
                own.section.request();
            }
        }
    }
}

/// The caches, but for those that are not to be shrunk ([`CacheFlags::NO_REAP`]).
impl<P: Platform, R: Reclaim> Shrinker for Mm<P, R> {
    /// The pages of empty slabs, and as many as what is in magazines and depots would fill.
    fn count(&self) -> u64 {
        let reaped = self.caches().filter(|cache| !cache.flags.contains(CacheFlags::NO_REAP));
        let of = |cache: CacheInfo| {
            let slabs = cache.slabs.empty + cache.at_hand / u64::from(cache.objects_per_slab);
            slabs * cache.order.pages()
        };
        reaped.map(of).sum()
    }

    fn shrink(&self, pages: u64) -> u64 {
        let Some(tables) = self.tables() else { return 0 };
        self.drain_caches(tables, 0..tables.caches().len());
        let is_reaped = |number: &u16| {
            tables.caches()[usize::from(*number)].pin().is_some_and(|cache| {
                cache.kind().is_some_and(|kind| !kind.flags.contains(CacheFlags::NO_REAP))
            })
        };
        let reaped = || (0..tables.caches().len() as u16).filter(is_reaped);
        // All depots first: they are objects of any of kmalloc's caches.
        reaped().for_each(|number| self.empty_depots(tables, number));
        // Then from the last: a slab that goes may give its record back to a cache of kmalloc's, and
        // those are the first.
        let mut freed = 0;
        for number in reaped().rev() {
            if freed >= pages {
                break;
            }
            freed += self.shrink_place(tables, number);
        }
        freed
    }
}
