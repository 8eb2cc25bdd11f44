//! What the CPUs share of a cache: its slabs on one node, and the depot.

use super::geometry::Geometry;
use super::lists::{Lists, Open, SlabCounts};
use super::magazine::{Entry, Magazine};
use super::record::{ObjectState, Record, State};
use crate::page::{Descriptor, Memmap, PageFlags, SlabView};
use crate::platform::Platform;
use crate::sync::{Aside, CacheLevel, SpinGuard, SpinLock};
use crate::{NodeId, Pfn, VirtAddr};

/// How many slabs with objects that were put aside are found at once.
const ASIDE: usize = 4;

/// A cache's slabs on one node, and the node's depot: free objects that one CPU put down for the next
/// to take, without a look at their slabs.
#[repr(align(64))]
pub(crate) struct NodeSlabs {
    inner: SpinLock<CacheLevel, Inner>,
    /// Slabs with objects that were put aside, by their first frames.
    put_aside: Aside<ASIDE>,
}

/// What the node's lock guards.
pub(crate) struct Inner {
    lists: Lists,
    depot: Magazine,
}

/// Where an object lies: the first frame of its slab, its number there, the slab's node, and the
/// object's byte.
#[derive(Clone, Copy)]
pub(crate) struct At<'m> {
    pub(crate) head: Pfn,
    pub(crate) object: u32,
    /// The node that the object lies on.
    pub(crate) node: NodeId,
    /// The object's byte.
    pub(crate) state: &'m ObjectState,
}

/// A node of a cache, for one operation: what the cache's objects look like, and where.
pub(crate) struct Shared<'a, P> {
    pub(crate) platform: &'a P,
    pub(crate) map: &'a Memmap,
    pub(crate) geometry: &'a Geometry,
    /// The number of the cache.
    pub(crate) cache: u16,
}

// Not derived: that would ask the platform to be `Copy`.
impl<P> Clone for Shared<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Shared<'_, P> {}

impl<'a, P: Platform> Shared<'a, P> {
    /// Where an object lies that is known to be one of the cache's: an entry of a magazine.
    ///
    /// # Panics
    ///
    /// Where it is none: the magazine is corrupt.
    fn at(&self, object: usize) -> At<'a> {
        let found = || {
            let phys = self.platform.virt_to_phys(VirtAddr::new(object))?;
            let (head, descriptor) = slab_of(self.map, phys.frame(P::PAGE_SHIFT)?)?;
            self.find(head, descriptor.slab(), object)
        };
        match found() {
            Some(at) => at,
            None => panic!("kmem: {object:#x} in a magazine is no object: the magazine is corrupt"),
        }
    }

    /// The object that begins at an address, in a slab of the cache; `None` where none does.
    #[inline(always)]
    pub(crate) fn find<'r>(&self, head: Pfn, view: SlabView, address: usize) -> Option<At<'r>> {
        let offset = address.wrapping_sub(self.first(head, view.colour));
        let object = self.geometry.index(offset as u32)?;
        let record = record_of(view, self.geometry.objects)?;
        Some(At { head, object, node: view.node, state: record.state(object) })
    }

    /// The address of a slab's first object.
    #[inline(always)]
    fn first(&self, head: Pfn, colour: u32) -> usize {
        let start = self.platform.phys_to_virt(head.start(P::PAGE_SHIFT));
        // Slabs are of the direct map: the cache's flags never ask for high memory.
        start.map_or(0, VirtAddr::get).wrapping_add(colour as usize)
    }

    /// The objects of a slab, as entries of a magazine.
    fn entry(&self, first: usize, record: Record, object: u32) -> Entry {
        let address = first + object as usize * self.geometry.stride as usize;
        Entry { object: address, state: record.state(object).into() }
    }
}

/// Gives objects back to their slabs. Those that come one after the other often share one, which then
/// is found, and put on its list, once.
struct Giver<'l, 'a, P: Platform> {
    of: Shared<'a, P>,
    lists: &'l mut Lists,
    /// The slab of the last object, and the address where it begins.
    open: Option<(usize, Open)>,
}

impl<P: Platform> Giver<'_, '_, P> {
    /// Gives an object back that is of a slab on these lists. Answers `false`, and does nothing, where
    /// the slab has it.
    #[must_use]
    fn give(&mut self, object: usize) -> bool {
        let bytes = self.of.geometry.bytes(P::PAGE_SHIFT) as usize;
        if self.open.as_ref().is_none_or(|(start, _)| object.wrapping_sub(*start) >= bytes) {
            self.close();
            let head = self.of.at(object).head;
            let slab = self.lists.open(self.of.map, head);
            self.open = Some((self.of.first(head, 0), slab));
        }
        let Some((start, slab)) = &self.open else { return false };
        let place = (object - start) as u32;
        match self.of.geometry.index(place.wrapping_sub(slab.colour)) {
            Some(index) => slab.record.give(index),
            None => false,
        }
    }

    fn close(&mut self) {
        if let Some((_, slab)) = self.open.take() {
            self.lists.close(self.of.map, slab);
        }
    }
}

impl<P: Platform> Drop for Giver<'_, '_, P> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The first frame of the slab that a frame is part of, and its descriptor.
#[inline]
pub(crate) fn slab_of(map: &Memmap, pfn: Pfn) -> Option<(Pfn, &Descriptor)> {
    let descriptor = map.get(pfn)?;
    let (head, descriptor) = match descriptor.compound_head() {
        Some(head) => (head, map.get(head)?),
        None => (pfn, descriptor),
    };
    descriptor.has(PageFlags::Objects).then_some((head, descriptor))
}

/// The record of the slab of which this is said.
#[inline(always)]
pub(crate) fn record_of(view: SlabView, objects: u32) -> Option<Record> {
    let address = core::ptr::with_exposed_provenance_mut(view.record);
    // SAFETY: a frame that is marked as a slab's has the address of its record, of as many objects as
    // its cache's geometry says, until it is no slab's any more.
    core::ptr::NonNull::new(address).map(|at| unsafe { Record::new(at, objects) })
}

type Locked<'a, P> = SpinGuard<'a, CacheLevel, Inner, P>;

impl NodeSlabs {
    /// No slabs.
    pub(crate) const fn new() -> NodeSlabs {
        NodeSlabs {
            inner: SpinLock::new(Inner { lists: Lists::new(0), depot: Magazine::NONE }),
            put_aside: Aside::new(),
        }
    }

    /// Begins anew, for a cache whose slabs have so many objects. Answers the depot that was there.
    pub(crate) fn reset<P: Platform>(&self, of: Shared<'_, P>, depot: Magazine) -> Magazine {
        let mut inner = self.inner.lock(of.platform);
        inner.lists = Lists::new(of.geometry.objects);
        core::mem::replace(&mut inner.depot, depot)
    }

    /// How many objects the depot has room for in all.
    pub(crate) fn depot_room<P: Platform>(&self, of: Shared<'_, P>) -> Option<u32> {
        Some(self.locked(of)?.depot.high())
    }

    /// Gives the node another depot, if it has more room. What is in the old one goes to the new one.
    /// Answers what is left over, which is empty.
    pub(crate) fn set_depot<P: Platform>(
        &self,
        of: Shared<'_, P>,
        mut depot: Magazine,
    ) -> Magazine {
        match self.locked(of) {
            Some(mut inner) if inner.depot.high() < depot.high() => {
                depot.take_all(&mut inner.depot);
                core::mem::replace(&mut inner.depot, depot)
            }
            _ => depot,
        }
    }

    /// Waits for the lock, and frees what was put aside meanwhile; `None` in an NMI handler where the
    /// lock is taken.
    fn locked<'a, P: Platform>(&'a self, of: Shared<'a, P>) -> Option<Locked<'a, P>> {
        let mut inner = if of.platform.in_nmi() {
            self.inner.try_lock(of.platform)?
        } else {
            self.inner.lock(of.platform)
        };
        if !self.put_aside.is_empty() {
            self.free_put_aside(of, &mut inner.lists);
        }
        Some(inner)
    }

    #[cold]
    fn free_put_aside<P: Platform>(&self, of: Shared<'_, P>, lists: &mut Lists) {
        // Slabs are named, and each is looked through; where there were too many, all in use are.
        let look = |lists: &mut Lists, head: Pfn| {
            let descriptor = of.map.at(head);
            // A slab may be named in vain, and be gone since.
            let view = descriptor.slab();
            if !descriptor.has(PageFlags::Objects) || view.cache != of.cache {
                return;
            }
            let Some(record) = record_of(view, of.geometry.objects) else { return };
            for object in 0..record.objects() {
                if record.state(object).get() == State::ASIDE {
                    // It is out of the slab, so the slab takes it.
                    let _ = lists.give(of.map, head, object);
                }
            }
        };
        let all = self.put_aside.take(|frame| look(lists, Pfn::from_raw(frame)));
        if all {
            // A slab that gets an object back may change its list, so one is found at a time.
            let next = |lists: &Lists| {
                let is_aside = |(_, record): &(Pfn, Record)| {
                    (0..record.objects()).any(|at| record.state(at).get() == State::ASIDE)
                };
                lists.in_use(of.map).find(is_aside).map(|(head, _)| head)
            };
            while let Some(head) = next(lists) {
                look(lists, head);
            }
        }
    }

    /// Fills a CPU's magazine, up to so many objects: from the depot, or else from slabs. What is in
    /// the depot and was freed a second time meanwhile is passed to `stray`. Answers how many.
    pub(crate) fn refill<P: Platform>(
        &self,
        of: Shared<'_, P>,
        state: State,
        magazine: &mut Magazine,
        most: u32,
        mut stray: impl FnMut(Entry),
    ) -> u32 {
        let Some(mut inner) = self.locked(of) else { return 0 };
        let Inner { lists, depot } = &mut *inner;
        let most = most.min(magazine.room());
        let mut filled = 0;
        while filled < most
            && let Some(entry) = depot.pop()
        {
            if entry.get() != State::DEPOT {
                stray(entry);
                continue;
            }
            entry.set(state);
            // There is room: see `most`.
            let _ = magazine.push(entry);
            filled += 1;
        }
        if filled > 0 {
            return filled;
        }
        while filled < most
            && let Some(slab) = lists.next(of.map)
        {
            let first = of.first(slab.head, slab.colour);
            slab.record.take(most - filled, |object| {
                let entry = of.entry(first, slab.record, object);
                if slab.record.state(object).leave_slab(state) {
                    let _ = magazine.push(entry);
                    filled += 1;
                } else {
                    stray(entry);
                }
            });
            lists.close(of.map, slab);
        }
        // Objects that lie one after the other are handed out so.
        magazine.reverse(filled);
        filled
    }

    /// Takes an object for a caller, or `None`: one of the depot, or else of a slab.
    pub(crate) fn take<P: Platform>(
        &self,
        of: Shared<'_, P>,
        mut stray: impl FnMut(Entry),
    ) -> Option<usize> {
        let mut inner = self.locked(of)?;
        let Inner { lists, depot } = &mut *inner;
        while let Some(entry) = depot.pop() {
            if entry.get() == State::DEPOT {
                entry.set(State::HELD);
                return Some(entry.object);
            }
            stray(entry);
        }
        let mut taken = None;
        while taken.is_none() {
            let slab = lists.next(of.map)?;
            let first = of.first(slab.head, slab.colour);
            slab.record.take(1, |object| {
                let entry = of.entry(first, slab.record, object);
                if slab.record.state(object).leave_slab(State::HELD) {
                    taken = Some(entry.object);
                } else {
                    stray(entry);
                }
            });
            lists.close(of.map, slab);
        }
        taken
    }

    /// Gives an object of this node back to its slab. `false`, and nothing is done, where it is not
    /// held any more. In an NMI handler that meets the lock taken it is put aside.
    #[must_use]
    pub(crate) fn give<P: Platform>(&self, of: Shared<'_, P>, at: At<'_>) -> bool {
        match self.locked(of) {
            Some(mut inner) => {
                at.state.get() == State::HELD && inner.lists.give(of.map, at.head, at.object)
            }
            None => {
                if !at.state.change(State::HELD, State::ASIDE) {
                    return false;
                }
                self.put_aside.put(at.head.raw());
                true
            }
        }
    }

    /// Adds a slab whose objects are all free.
    ///
    /// # Safety
    ///
    /// The slab is one of the cache, on this node, with its record made; it is on no list.
    pub(crate) unsafe fn add<P: Platform>(&self, of: Shared<'_, P>, head: Pfn) {
        let mut inner = self.inner.lock(of.platform);
        // SAFETY: the caller's promise is the same.
        unsafe { inner.lists.add(of.map, head) };
    }

    /// Takes a slab with no object in use away, to give its pages back.
    pub(crate) fn remove_empty<P: Platform>(&self, of: Shared<'_, P>) -> Option<Pfn> {
        self.locked(of)?.lists.remove_empty(of.map)
    }

    /// Gives what is in the depot back to the slabs. Answers the depot itself, which is empty.
    pub(crate) fn empty_depot<P: Platform>(
        &self,
        of: Shared<'_, P>,
        mut stray: impl FnMut(Entry),
    ) -> Magazine {
        let Some(mut inner) = self.locked(of) else { return Magazine::NONE };
        let Inner { lists, depot } = &mut *inner;
        let mut giver = Giver { of, lists, open: None };
        while let Some(entry) = depot.pop() {
            if entry.get() != State::DEPOT || !giver.give(entry.object) {
                stray(entry);
            }
        }
        core::mem::replace(depot, Magazine::NONE)
    }

    /// How many slabs and free objects there are, and how many objects are in the depot.
    pub(crate) fn counts<P: Platform>(&self, of: Shared<'_, P>) -> Option<(SlabCounts, u32)> {
        let inner = self.locked(of)?;
        Some((inner.lists.counts(), inner.depot.len()))
    }

    /// Calls `look` for each object of the slabs that is with a caller. Under the node's lock.
    pub(crate) fn each_held<P: Platform>(&self, of: Shared<'_, P>, mut look: impl FnMut(usize)) {
        let Some(inner) = self.locked(of) else { return };
        for (head, record) in inner.lists.in_use(of.map) {
            let first = of.first(head, of.map.at(head).slab().colour);
            for object in 0..record.objects() {
                if record.state(object).get() == State::HELD {
                    look(of.entry(first, record, object).object);
                }
            }
        }
    }
}

/// What became of a magazine's objects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// The depot had room for all that were for it.
    ToDepot,
    /// Some went to slabs because the depot has no room for more.
    Spilled,
}

/// Gives up to `most` objects of a CPU's magazine back, the coldest first: to the depot of the CPU's
/// own node, or to their slabs. An entry whose object is not in this magazine any more is passed to
/// `stray`.
///
/// `home` is the node of all of them, the CPU's own; `None` where they are of others.
pub(crate) fn flush<P: Platform>(
    of: Shared<'_, P>,
    nodes: &[NodeSlabs],
    home: Option<NodeId>,
    state: State,
    magazine: &mut Magazine,
    most: u32,
    mut stray: impl FnMut(Entry),
) -> Flushed {
    let entries = &magazine.entries()[..most.min(magazine.len()) as usize];
    let (mut left, mut flushed) = (0, Flushed::ToDepot);
    // One taking of the lock for all that come from one node one after the other.
    while let Some(first) = entries.get(left) {
        let node = home.unwrap_or_else(|| of.at(first.object).node);
        let Some(mut inner) = nodes.get(node.index()).and_then(|slabs| slabs.locked(of)) else {
            break;
        };
        let Inner { lists, depot } = &mut *inner;
        let mut giver = Giver { of, lists, open: None };
        while let Some(entry) = entries.get(left) {
            if home.is_none() && of.at(entry.object).node != node {
                break;
            }
            left += 1;
            if entry.get() != state {
                stray(*entry);
            } else if home.is_some() && depot.room() > 0 {
                entry.set(State::DEPOT);
                let _ = depot.push(*entry);
            } else {
                flushed = Flushed::Spilled;
                if !giver.give(entry.object) {
                    stray(*entry);
                }
            }
        }
    }
    magazine.drop_coldest(left as u32);
    if home.is_some() { flushed } else { Flushed::ToDepot }
}
