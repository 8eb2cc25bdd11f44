//! Many objects in one call.

use core::panic::Location;
use core::ptr::NonNull;

use super::super::Mm;
use super::super::tables::Tables;
use super::free::held_object;
use crate::platform::{Pinned, Platform};
use crate::reclaim::Reclaim;
use crate::slab::{Cache, CacheId, Entry, State};
use crate::{AllocError, Gfp};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Takes as many objects of a cache as `out` has places, or none.
    ///
    /// The CPU's magazine is entered once for as many objects as it has, which makes an object cost
    /// less than half of what [`Mm::kmem_cache_alloc`] costs.
    ///
    /// # Errors
    ///
    /// As [`Mm::kmem_cache_alloc`]; every place of `out` is `None` then.
    ///
    /// # Context
    ///
    /// As [`Mm::kmem_cache_alloc`].
    ///
    /// # Example
    ///
    /// ```
    /// # use kmem::{CacheFlags, Mm, Setup, MemoryMap, GFP_KERNEL, NodeId};
    /// # let mut ram = vec![0; 17 << 20];
    /// # // SAFETY: one thread.
    /// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
    /// # // SAFETY: the RAM is there, and nobody else uses it.
    /// # unsafe { mm.boot(&MemoryMap::new().ram(0..16 << 20, NodeId::ZERO), &Setup::new()) }?;
    /// let packets = mm.kmem_cache_create("packet", 256, 0, CacheFlags::NONE, None, None)?;
    /// let mut burst = [None; 16];
    /// mm.kmem_cache_alloc_bulk(packets, GFP_KERNEL, &mut burst)?;
    /// let burst = burst.map(|packet| packet.unwrap());
    /// // SAFETY: they are ours, and nothing uses them any more.
    /// unsafe { mm.kmem_cache_free_bulk(packets, &burst) };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn kmem_cache_alloc_bulk(
        &self,
        id: CacheId,
        gfp: Gfp,
        out: &mut [Option<NonNull<u8>>],
    ) -> Result<(), AllocError> {
        let plain = self.is_plain_for_objects(gfp) && !gfp.intersects(Gfp::ZERO | Gfp::DMA);
        let mut had = 0;
        while had < out.len() {
            if plain
                && let Some(tables) = self.tables()
                && let Some(cache) = tables.cache(id)
            {
                let before = had;
                had += self.take_many_at_hand(tables, cache, &mut out[had..]);
                if P::TRACE {
                    for object in out[before..had].iter().flatten() {
                        self.trace_cache_alloc(Ok(*object), id, gfp, None, Location::caller());
                    }
                }
            }
            // The next one fills the magazine.
            let Some(place) = out.get_mut(had) else { break };
            match self.kmem_cache_alloc(id, gfp) {
                Ok(object) => *place = Some(object),
                Err(error) => {
                    for object in out[..had].iter().flatten() {
                        // SAFETY: just allocated, and not passed on.
                        unsafe { self.kmem_cache_free(id, object.as_ptr()) };
                    }
                    out.fill(None);
                    return Err(error);
                }
            }
            had += 1;
        }
        Ok(())
    }

    /// Gives many objects back to their cache.
    ///
    /// Wrong ones are found as by [`Mm::kmem_cache_free`], each by itself: the others are freed.
    ///
    /// # Safety
    ///
    /// As [`Mm::kmem_cache_free`], for each of them; so is the context.
    #[track_caller]
    pub unsafe fn kmem_cache_free_bulk(&self, id: CacheId, objects: &[NonNull<u8>]) {
        let site = Location::caller();
        let mut left = objects;
        loop {
            left = &left[self.free_many_at_hand(id, left, site)..];
            // The next one makes room in the magazine, or is a wrong one.
            let Some((first, rest)) = left.split_first() else { return };
            self.free_object(first.as_ptr().expose_provenance(), Some(id), site);
            left = rest;
        }
    }

    /// Takes as many objects as the CPU's magazine has, up to as many as there are places; answers how
    /// many.
    fn take_many_at_hand(
        &self,
        tables: &Tables,
        cache: &Cache,
        out: &mut [Option<NonNull<u8>>],
    ) -> usize {
        let pinned = Pinned::new(&self.platform);
        let Some(own) = tables.cpu_cache(pinned.cpu(), cache) else { return 0 };
        // SAFETY: this code is pinned to the CPU that the magazine belongs to.
        let Some(mut entered) = (unsafe { own.section.enter() }) else { return 0 };
        if own.section.is_requested() {
            return 0;
        }
        let magazine = own.own(&mut entered);
        let count = out.len().min(magazine.len() as usize);
        let (mut taken, state) = (0, own.state);
        for place in &mut out[..count] {
            let Some(entry) = magazine.hottest().filter(|entry| entry.get() == state) else {
                break;
            };
            let _ = magazine.pop();
            entry.set(State::HELD);
            *place = NonNull::new(core::ptr::with_exposed_provenance_mut(entry.object));
            taken += 1;
        }
        own.counters().count_many(taken as u64, 0);
        taken
    }

    /// Puts objects into the CPU's magazine, up to the first with which something is wrong or for
    /// which there is no room; answers how many.
    fn free_many_at_hand(
        &self,
        id: CacheId,
        objects: &[NonNull<u8>],
        site: &'static Location<'static>,
    ) -> usize {
        let Some(tables) = self.tables() else { return 0 };
        let Some(cache) = tables.cache(id) else { return 0 };
        let pinned = Pinned::new(&self.platform);
        let Some(own) = tables.cpu_cache(pinned.cpu(), cache) else { return 0 };
        // SAFETY: this code is pinned to the CPU that the magazines belong to.
        let Some(mut entered) = (unsafe { own.section.enter() }) else { return 0 };
        let mut freed = 0;
        for object in objects {
            let address = object.as_ptr().expose_provenance();
            let Ok((page, physical)) = self.page_at::<false>(tables, address) else { break };
            let word = page.slab_word();
            let held = held_object(cache, word, page, physical);
            let Some((state, node)) = held.filter(|_| word.cache() == id.number) else { break };
            let entry = Entry { object: address, state };
            // One of another node goes the common way.
            if tables.several_nodes && node != own.home {
                break;
            }
            let magazine = own.own(&mut entered);
            if P::TRACE && magazine.room() > 0 {
                self.trace_object_free(address, Some(id), site);
            }
            if !magazine.push(entry) {
                break;
            }
            entry.set(own.state);
            freed += 1;
        }
        own.counters().count_many(0, freed as u64);
        freed
    }
}
