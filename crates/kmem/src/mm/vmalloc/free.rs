//! Giving areas back.

use core::panic::Location;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::super::Mm;
use crate::platform::{PageMap, Passed, Platform, Unflushed};
use crate::reclaim::Reclaim;
use crate::vmalloc::{AreaKind, Going, Mapping, Run};
use crate::{Order, VirtAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Gives an area of [`Mm::vmalloc`] and its sisters back (A222). Null is no area.
    ///
    /// The area is unmapped later, together with others; its frames are free, and its addresses used again,
    /// when all CPUs have forgotten it. At most [`VmallocInfo::bound`](super::VmallocInfo::bound) pages
    /// wait so, but for what code that must not sleep gives back.
    ///
    /// # Wrong frees
    ///
    /// An address that is not the first of an area, one of an area that is given back already, what `vmap`
    /// or `ioremap` made, an object of kmalloc: each is found here, reported to
    /// [`Hooks::misuse`](crate::platform::Hooks::misuse), and changes nothing. So is a call in an NMI handler.
    ///
    /// # Safety
    ///
    /// The area is the caller's, and nothing uses it after the call. What the checks cannot tell is an
    /// area that was given back and whose addresses somebody else has since.
    ///
    /// # Context
    ///
    /// Any but NMI (A231): where it must not sleep, all but the mark is left to others. Cost: a search of
    /// the areas; once in many calls, the unmapping of many areas.
    #[track_caller]
    pub unsafe fn vfree(&self, address: *const u8) {
        if address.is_null() {
            return;
        }
        self.retire_area(address.expose_provenance(), AreaKind::Vmalloc, Location::caller());
    }

    /// Marks an area of frames of its own, of a kind, to be unmapped later. `start` is its first address,
    /// that of a guard page where there is one before it.
    pub(in super::super) fn retire_area(
        &self,
        start: usize,
        kind: AreaKind,
        site: &'static Location<'static>,
    ) {
        if self.is_nmi_refused(Passed::Object(VirtAddr::new(start)), site) {
            return;
        }
        let retired = {
            let mut space = self.vmalloc.space.lock(&self.platform);
            let area = space.check(start, |mapping| mapping.kind == kind);
            let pages = area.map(|area| area.data.pages);
            if let Ok(pages) = pages {
                self.trace_area_free(start, self.vmalloc.waiting.load(Relaxed) + pages);
                space.retire(start);
                // With the lock held: whoever takes the area again counts it down.
                self.vmalloc.used.fetch_sub(pages, Relaxed);
                self.vmalloc.waiting.fetch_add(pages, Relaxed);
            }
            pages
        };
        match retired {
            Ok(_) => {
                if self.vmalloc.waiting.load(Relaxed) > self.vmalloc.bound.load(Relaxed) {
                    self.purge();
                }
            }
            Err(wrong) => self.report_area(start, wrong, site),
        }
    }

    /// Unmaps all areas that have been given back, has all CPUs forget them, and frees their pages; what
    /// another CPU is about to unmap is waited for. Answers how many pages this call freed.
    ///
    /// It happens by itself where too many wait or something runs out: call it to have the memory back at
    /// once, or before a device is told to use frames by their physical addresses.
    ///
    /// # Context
    ///
    /// May sleep; where it must not it does nothing and answers 0. Cost: the platform's unmapping, once
    /// for areas that lie side by side, and one flush.
    pub fn vm_unmap_aliases(&self) -> u64 {
        let freed = self.purge();
        // A purge takes microseconds: after so long something else is wrong, and not for this to mend.
        const WAITS: u32 = 1000;
        const PAUSE_NANOSECONDS: u64 = 100_000;
        for _ in 0..WAITS {
            if self.vmalloc.purges.load(Acquire) == 0 || self.platform.in_atomic() {
                break;
            }
            match self.platform.sleep() {
                Some(sleep) => {
                    let key = core::ptr::from_ref(&self.vmalloc.purges).addr();
                    let none = || self.vmalloc.purges.load(Acquire) == 0;
                    sleep.wait(key, &none, PAUSE_NANOSECONDS);
                }
                None => self.platform.relax(),
            }
        }
        freed
    }

    /// The same, but does not wait: a purge may call this itself.
    fn purge(&self) -> u64 {
        let Some(map) = self.platform.page_map().filter(|_| !self.platform.in_atomic()) else {
            return 0;
        };
        let mut freed = 0;
        loop {
            let first = {
                let mut space = self.vmalloc.space.lock(&self.platform);
                let first = space.take_going();
                // With the lock held: who finds the list empty sees that it is being seen to.
                if first.is_some() {
                    self.vmalloc.purges.fetch_add(1, Relaxed);
                }
                first
            };
            let Some(Going { start: first, .. }) = first else { return freed };
            let _unfinished = self.unfinished();
            self.unmap_going(map, first);
            self.trace_purge(first);
            // What the runs of these were kept in may be an area itself, which is given back by this.
            freed += self.remove_going(first);
            // Release pairs with the Acquire of those who wait: the frames are free.
            self.vmalloc.purges.fetch_sub(1, Release);
        }
    }

    /// Removes the areas that follow from one on, which nobody reaches any more; answers how many pages they
    /// had.
    fn remove_going(&self, first: usize) -> u64 {
        let (mut next, mut freed) = (Some(first), 0);
        while let Some(at) = next {
            let removed = self.vmalloc.space.lock(&self.platform).remove(at);
            // Nobody else removes an area that was taken off the list.
            let Some((mapping, node)) = removed else { break };
            next = mapping.next_going.map(|going| going.start);
            freed += mapping.pages as u64;
            self.vmalloc.waiting.fetch_sub(mapping.pages, Relaxed);
            self.free_frames(mapping);
            // SAFETY: the area that was in it is gone.
            unsafe { self.kfree(node.as_ptr().cast()) };
        }
        freed
    }

    /// Unmaps the areas that follow from one on, and has all CPUs forget them.
    fn unmap_going(&self, map: &dyn PageMap, first: usize) {
        // The pages to unmap next: areas that lie side by side are unmapped as one, with the pages between
        // them that nothing is mapped at.
        let mut pages = first..first;
        let mut unflushed: Option<Unflushed> = None;
        let mut unmap = |pages: core::ops::Range<usize>| {
            let count = pages.len() >> P::PAGE_SHIFT;
            // SAFETY: the areas have been given back, and nobody uses them.
            let gone = unsafe { map.unmap(VirtAddr::new(pages.start), count) };
            unflushed = Some(match unflushed.take() {
                Some(before) => before.and(gone),
                None => gone,
            });
        };
        let mut next = Some(first);
        while let Some(at) = next {
            let area = {
                let space = self.vmalloc.space.lock(&self.platform);
                let Some(area) = space.find(at) else { break };
                next = area.data.next_going.map(|going| going.start);
                area.range()
            };
            if area.end == pages.start {
                pages.start = area.start;
            } else if area.start == pages.end {
                pages.end = area.end;
            } else {
                if !pages.is_empty() {
                    unmap(pages);
                }
                pages = area;
            }
        }
        unmap(pages);
        if let Some(unflushed) = unflushed {
            map.flush(unflushed);
        }
    }

    /// Frees the frames of an area of vmalloc that is mapped nowhere any more, and what its runs are kept
    /// in.
    fn free_frames(&self, mapping: Mapping) {
        for (Run { first, .. }, pages) in mapping.runs.from(0, mapping.pages) {
            // Each run of such an area is a block.
            self.free_block(first, Order::new(pages.ilog2()).unwrap_or(Order::ZERO));
        }
        self.free_runs(mapping.runs);
    }

    /// Takes an area apart that does not wait: unmapped and forgotten when this returns. Its frames are
    /// somebody else's.
    pub(super) fn take_apart(
        &self,
        start: usize,
        is_wanted: impl Fn(&Mapping) -> bool,
        site: &'static Location<'static>,
    ) -> Option<Mapping> {
        let map = self.mapper(1, site).ok()?;
        let seized = {
            let mut space = self.vmalloc.space.lock(&self.platform);
            let area = space.check(start, is_wanted).map(|area| area.data.pages);
            if area.is_ok() {
                self.trace_area_free(start, self.vmalloc.waiting.load(Relaxed));
                space.seize(start);
            }
            area
        };
        let pages = match seized {
            Ok(pages) => pages,
            Err(wrong) => {
                self.report_area(start, wrong, site);
                return None;
            }
        };
        let _unfinished = self.unfinished();
        // SAFETY: the caller has done with the area, which nobody else takes apart.
        map.flush(unsafe { map.unmap(VirtAddr::new(start), pages) });
        let (mapping, node) = self.vmalloc.space.lock(&self.platform).remove(start)?;
        // SAFETY: the area that was in it is gone.
        unsafe { self.kfree(node.as_ptr().cast()) };
        Some(mapping)
    }
}
