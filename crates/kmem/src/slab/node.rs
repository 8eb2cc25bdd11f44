//! What the CPUs share of a cache: its slabs on one node, and the depot.

use super::debug::Debug;
use super::lists::{Lists, SlabCounts};
use super::magazine::{Entry, Magazine};
use super::record::Record;
use super::shared::{Asked, At, Giver, Shared, record_of};
use super::state::State;
use crate::page::PageFlags;
use crate::platform::{Caller, Overwritten, Platform};
use crate::sync::{Aside, CacheLevel, SpinGuard, SpinLock};
use crate::{NodeId, Pfn};

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
    pub(super) lists: Lists,
    depot: Magazine,
}

pub(super) type Locked<'a, P> = SpinGuard<'a, CacheLevel, Inner, P>;

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
    pub(super) fn locked<'a, P: Platform>(&'a self, of: Shared<'a, P>) -> Option<Locked<'a, P>> {
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
                    let _ = lists.give(of.map, head, object, State::ASIDE);
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
            if entry.change(State::DEPOT, state) {
                // There is room: see `most`.
                let _ = magazine.push(entry);
                filled += 1;
            } else {
                stray(entry);
            }
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
                if entry.change(State::FREE, state) {
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
        asked: Asked,
        mut stray: impl FnMut(Entry),
        mut wrong: impl FnMut(Overwritten),
    ) -> Option<usize> {
        let mut inner = self.locked(of)?;
        let Inner { lists, depot } = &mut *inner;
        // The depot of a cache that is debugged is its quarantine.
        while of.debug.is_none()
            && let Some(entry) = depot.pop()
        {
            if entry.change(State::DEPOT, State::HELD) {
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
                if entry.change(State::FREE, State::HELD) {
                    of.hand_out(slab.record, object, entry.object, asked, &mut wrong);
                    taken = Some(entry.object);
                } else {
                    stray(entry);
                }
            });
            lists.close(of.map, slab);
        }
        taken
    }

    /// Gives an object of this node, which begins at an address, back to its slab, or, if it may be kept
    /// from use, to the quarantine. `false`, and nothing is done, where it is not held any more. In an NMI handler that
    /// meets the lock taken it is put aside.
    #[must_use]
    pub(crate) fn give<P: Platform>(
        &self,
        of: Shared<'_, P>,
        at: At<'_>,
        address: usize,
        owner: Option<Caller>,
        may_keep: bool,
        mut wrong: impl FnMut(Overwritten),
    ) -> bool {
        let Some(record) = record_of(of.map.at(at.head).slab(), of.geometry.objects) else {
            return false;
        };
        let Some(mut inner) = self.locked(of) else {
            if !at.state.change(State::HELD, State::ASIDE) {
                return false;
            }
            of.take_back(record, at.object, address, owner, &mut wrong);
            self.put_aside.put(at.head.raw());
            return true;
        };
        if at.state.get() != State::HELD {
            return false;
        }
        of.take_back(record, at.object, address, owner, &mut wrong);
        let Inner { lists, depot } = &mut *inner;
        if !may_keep || !of.debug.is_some_and(Debug::has_quarantine) || depot.high() == 0 {
            return lists.give(of.map, at.head, at.object, State::HELD);
        }
        if depot.room() == 0 {
            // The half that has been there the longest goes.
            let half = depot.len().div_ceil(2);
            for entry in &depot.entries()[..half as usize] {
                let _ = of.leave_quarantine(lists, entry.object, &mut wrong);
            }
            depot.drop_coldest(half);
        }
        at.state.change(State::HELD, State::DEPOT)
            && depot.push(Entry { object: address, state: at.state.into() })
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
        mut wrong: impl FnMut(Overwritten),
    ) -> Magazine {
        let Some(mut inner) = self.locked(of) else { return Magazine::NONE };
        let Inner { lists, depot } = &mut *inner;
        if of.debug.is_some() {
            while let Some(entry) = depot.pop() {
                let _ = of.leave_quarantine(lists, entry.object, &mut wrong);
            }
        }
        let mut giver = Giver::new(of, lists);
        while let Some(entry) = depot.pop() {
            if !giver.give(entry.object, State::DEPOT) {
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
) {
    let entries = &magazine.entries()[..most.min(magazine.len()) as usize];
    let mut left = 0;
    // One taking of the lock for all that come from one node one after the other.
    while let Some(first) = entries.get(left) {
        let node = home.unwrap_or_else(|| of.at(first.object).node);
        let Some(mut inner) = nodes.get(node.index()).and_then(|slabs| slabs.locked(of)) else {
            break;
        };
        let Inner { lists, depot } = &mut *inner;
        let mut giver = Giver::new(of, lists);
        while let Some(entry) = entries.get(left) {
            if home.is_none() && of.at(entry.object).node != node {
                break;
            }
            left += 1;
            let gone = if home.is_some() && depot.room() > 0 {
                entry.change(state, State::DEPOT) && depot.push(*entry)
            } else {
                giver.give(entry.object, state)
            };
            if !gone {
                stray(*entry);
            }
        }
    }
    magazine.drop_coldest(left as u32);
}
