//! What the CPUs share of a cache: its slabs on one node, and the depot.

use super::debug::Debug;
use super::leaving::{Departures, Visitors};
use super::lists::{Lists, SlabCounts};
use super::magazine::{Entry, Magazine};
use super::record::Record;
use super::shared::{Asked, Giver, Shared, Sight, record_of};
use super::state::State;
use crate::page::PageFlags;
use crate::platform::{Caller, Overwritten, Platform};
use crate::sync::{Aside, CacheLevel, SpinGuard, SpinLock};
use crate::{NodeId, Order, Pfn};

/// How many slabs with objects that were put aside are found at once.
const ASIDE: usize = 4;

/// A cache's slabs on one node, and the node's depot: free objects that one CPU put down for the next
/// to take, without a look at their slabs.
#[repr(align(64))]
pub(crate) struct NodeSlabs {
    inner: SpinLock<CacheLevel, Inner>,
    /// Slabs with objects that were put aside, by their first frames.
    put_aside: Aside<ASIDE>,
    /// NMI handlers that put an object aside.
    visitors: Visitors,
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
            inner: SpinLock::new(Inner {
                lists: Lists::new(0, Order::ZERO),
                depot: Magazine::NONE,
            }),
            put_aside: Aside::new(),
            visitors: Visitors::new(),
        }
    }

    /// Begins anew, for a cache whose slabs are as its geometry says. Answers the depot that was there.
    pub(crate) fn reset<P: Platform>(&self, of: Shared<'_, P>, depot: Magazine) -> Magazine {
        let mut inner = self.inner.lock(of.platform);
        inner.lists = Lists::new(of.geometry.objects, of.geometry.order);
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

    /// Does something that other CPUs keep out of with the node's lock held: `None` where that cannot
    /// be waited for. What a CPU has of a cache comes, goes, and is looked at by others under the lock
    /// of the CPU's node.
    pub(crate) fn alone<T, P: Platform>(
        &self,
        of: Shared<'_, P>,
        work: impl FnOnce() -> T,
    ) -> Option<T> {
        let _locked = self.locked(of)?;
        Some(work())
    }

    /// What there is at an address in a slab of this node; `None` where there is no such slab. It stays
    /// while it is looked at.
    pub(crate) fn see<P: Platform>(
        &self,
        of: Shared<'_, P>,
        node: NodeId,
        address: usize,
    ) -> Option<Sight> {
        let look = || {
            let (head, view) = of.slab_at(address).filter(|(_, view)| view.node == node)?;
            Some(match of.find(head, view, address) {
                Some(at) => Sight::Object(of.seen(at)),
                None => Sight::Inside(head, of.around(head, view, address)),
            })
        };
        match self.locked(of) {
            Some(_locked) => look(),
            None => self.visitors.visit(look),
        }
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
    /// from use, to the quarantine. `false`, and nothing is done, where it is not held any more. In an
    /// NMI handler that meets the lock taken it is put aside.
    #[must_use]
    pub(crate) fn give<P: Platform>(
        &self,
        of: Shared<'_, P>,
        node: NodeId,
        address: usize,
        owner: Option<Caller>,
        may_keep: bool,
        mut wrong: impl FnMut(Overwritten),
    ) -> bool {
        // Looked for with the lock held, under which slabs go: what is found stays.
        let find = || {
            let at = of.look(address).filter(|at| at.node == node)?;
            let record = record_of(of.map.at(at.head).slab(), of.geometry.objects)?;
            (at.state.get() == State::HELD).then_some((at, record))
        };
        let Some(mut inner) = self.locked(of) else {
            return self.visitors.visit(|| {
                let found = find().filter(|(at, _)| at.state.change(State::HELD, State::ASIDE));
                if let Some((at, record)) = &found {
                    of.take_back(*record, at.object, address, owner, &mut wrong);
                    self.put_aside.put(at.head.raw());
                }
                found.is_some()
            });
        };
        let Some((at, record)) = find() else { return false };
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

    /// Marks up to so many slabs without objects in use as leaving; answers how many. They stay until
    /// every CPU has acknowledged that: see `leaving.rs`.
    pub(crate) fn retire<P: Platform>(
        &self,
        of: Shared<'_, P>,
        departures: &Departures,
        most: u64,
        stray: impl FnMut(Entry),
    ) -> u64 {
        let Some(mut inner) = self.locked(of) else { return 0 };
        let Inner { lists, depot } = &mut *inner;
        if of.debug.is_none() {
            // One of its entries may be of an object that was freed once more since, and that its slab
            // has.
            give_all(of, lists, depot, stray);
        }
        let retired = (0..most).take_while(|_| lists.retire(of.map)).count() as u64;
        if retired > 0 {
            lists.set_since(departures.announce());
        }
        retired
    }

    /// Whether slabs are leaving.
    pub(crate) fn has_leaving<P: Platform>(&self, of: Shared<'_, P>) -> bool {
        self.locked(of).is_some_and(|inner| inner.lists.leaving_since().is_some())
    }

    /// Takes a slab away whose departure all CPUs have acknowledged, to give its pages back.
    pub(crate) fn depart<P: Platform>(&self, of: Shared<'_, P>, acknowledged: u64) -> Option<Pfn> {
        let mut inner = self.locked(of)?;
        inner.lists.leaving_since().filter(|since| *since <= acknowledged)?;
        inner.lists.depart(of.map, || self.visitors.wait(|| of.platform.relax()))
    }

    /// Gives what is in the depot back to the slabs. Answers the depot itself, which is empty.
    pub(crate) fn empty_depot<P: Platform>(
        &self,
        of: Shared<'_, P>,
        stray: impl FnMut(Entry),
        mut wrong: impl FnMut(Overwritten),
    ) -> Magazine {
        let Some(mut inner) = self.locked(of) else { return Magazine::NONE };
        let Inner { lists, depot } = &mut *inner;
        if of.debug.is_some() {
            while let Some(entry) = depot.pop() {
                let _ = of.leave_quarantine(lists, entry.object, &mut wrong);
            }
        }
        give_all(of, lists, depot, stray);
        core::mem::replace(depot, Magazine::NONE)
    }

    /// How many slabs and free objects there are, and how many objects are in the depot.
    pub(crate) fn counts<P: Platform>(&self, of: Shared<'_, P>) -> Option<(SlabCounts, u32)> {
        let inner = self.locked(of)?;
        Some((inner.lists.counts(), inner.depot.len()))
    }

    /// How many objects of the slabs are with callers.
    pub(crate) fn held<P: Platform>(&self, of: Shared<'_, P>) -> u64 {
        let mut count = 0;
        self.each_held(of, |_| count += 1);
        count
    }

    /// Calls `look` for each object of the slabs that is with a caller. Under the node's lock.
    pub(crate) fn each_held<P: Platform>(&self, of: Shared<'_, P>, mut look: impl FnMut(usize)) {
        let Some(inner) = self.locked(of) else { return };
        for (head, record) in inner.lists.all(of.map) {
            let first = of.first(head, of.map.at(head).slab().colour);
            for object in 0..record.objects() {
                if record.state(object).get() == State::HELD {
                    look(of.entry(first, record, object).object);
                }
            }
        }
    }
}

/// Gives all that is in a depot back to the slabs.
fn give_all<P: Platform>(
    of: Shared<'_, P>,
    lists: &mut Lists,
    depot: &mut Magazine,
    mut stray: impl FnMut(Entry),
) {
    let mut giver = Giver::new(of, lists);
    while let Some(entry) = depot.pop() {
        if !giver.give(entry.object, State::DEPOT) {
            stray(entry);
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
        // What is of a slab that leaves goes there, and nowhere else.
        let leaving = lists.leaving_since().is_some();
        let mut giver = Giver::new(of, lists);
        while let Some(entry) = entries.get(left) {
            if home.is_none() && of.at(entry.object).node != node {
                break;
            }
            left += 1;
            let to_depot = home.is_some() && depot.room() > 0;
            let gone = if to_depot && !(leaving && of.is_leaving(entry.object)) {
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
