//! The slabs of a cache on one node, by how many of their objects are free.

use core::ptr::NonNull;

use super::record::Record;
use super::state::State;
use crate::page::{Descriptor, List, Memmap, PageFlags};
use crate::{Order, Pfn};

/// Full, partial and empty slabs (A179, A181).
///
/// A request is served from a partial slab, else from an empty one; a full one has nothing
/// (A180). Each slab is on the list that its record says, named by its first frame and linked through
/// that frame's descriptor.
///
/// # Invariants
///
/// Every slab on a list has `objects` objects, and its first frame's descriptor says where its record
/// is. On `full` are the slabs with no free object, on `empty` and `leaving` those with nothing but free
/// ones, on `partial` the others; the frames of those on `leaving` are marked so, and no others. `free`
/// is how many objects are free in all of them. `since` is the last departure of a slab on `leaving`.
pub(crate) struct Lists {
    objects: u32,
    order: Order,
    free: u64,
    full: List,
    partial: List,
    empty: List,
    leaving: List,
    since: u64,
}

/// How many slabs there are, and how many objects are free in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SlabCounts {
    /// Slabs without a free object.
    pub full: u64,
    /// Slabs with some.
    pub partial: u64,
    /// Slabs with no object in use, those that are about to go among them.
    pub empty: u64,
    /// Free objects in all slabs; those in magazines and the depot are not among them.
    pub free: u64,
}

impl SlabCounts {
    /// All slabs.
    pub fn slabs(&self) -> u64 {
        self.full + self.partial + self.empty
    }
}

/// A slab from which objects are taken, or to which they are given. It goes back by
/// [`Lists::close`] before the lists are used otherwise.
#[must_use]
pub(crate) struct Open {
    pub(crate) head: Pfn,
    /// How far its first object is from its start, in bytes.
    pub(crate) colour: u32,
    pub(crate) record: Record,
    before: u32,
}

impl Lists {
    /// No slabs, for a cache whose slabs have so many objects and pages.
    pub(crate) const fn new(objects: u32, order: Order) -> Lists {
        let (full, partial, empty) = (List::EMPTY, List::EMPTY, List::EMPTY);
        let (leaving, since, free) = (List::EMPTY, 0, 0);
        Lists { objects, order, free, full, partial, empty, leaving, since }
    }

    /// How many there are.
    pub(crate) fn counts(&self) -> SlabCounts {
        SlabCounts {
            full: self.full.len(),
            partial: self.partial.len(),
            empty: self.empty.len() + self.leaving.len(),
            free: self.free,
        }
    }

    /// Adds a slab whose objects are all free.
    ///
    /// # Safety
    ///
    /// The descriptor of `head` says where the slab's record is, that of a slab with as many objects
    /// as the lists were made for; both stay until [`Lists::depart`] answers the slab. It is on
    /// no list.
    pub(crate) unsafe fn add(&mut self, map: &Memmap, head: Pfn) {
        self.free += u64::from(self.objects);
        self.empty.push_front(map, head, map.at(head));
    }

    /// Marks a slab without objects in use as leaving. Answers whether there was one.
    pub(crate) fn retire(&mut self, map: &Memmap) -> bool {
        let Some(head) = self.empty.first() else { return false };
        self.empty.remove(map, map.at(head));
        self.each_frame(map, head, |frame| {
            frame.set(PageFlags::Leaving);
        });
        self.leaving.push_front(map, head, map.at(head));
        true
    }

    /// Notes the departure that was announced for what has been retired.
    pub(crate) fn set_since(&mut self, departure: u64) {
        self.since = departure;
    }

    /// The last departure of a slab that is leaving, if one is.
    pub(crate) fn leaving_since(&self) -> Option<u64> {
        (!self.leaving.is_empty()).then_some(self.since)
    }

    /// Takes a slab back into use that is leaving.
    fn revive(&mut self, map: &Memmap) -> Option<Pfn> {
        let head = self.leaving.first()?;
        self.leaving.remove(map, map.at(head));
        self.each_frame(map, head, |frame| {
            frame.clear(PageFlags::Leaving);
        });
        self.empty.push_front(map, head, map.at(head));
        Some(head)
    }

    /// Takes a slab off the lists that is leaving, and that every CPU has left: from here on its
    /// frames are not of a slab. `settle` waits for NMI handlers that may have found it before.
    ///
    /// One of which an object was freed once more, and handed out for that, stays.
    pub(crate) fn depart(&mut self, map: &Memmap, settle: impl Fn()) -> Option<Pfn> {
        while let Some(head) = self.leaving.first() {
            let record = self.record(map, head);
            // Nobody has an entry of it, so what is free stays free.
            if (0..self.objects).all(|object| record.state(object).get() == State::FREE) {
                self.each_frame(map, head, |frame| {
                    frame.clear(PageFlags::Objects);
                });
                settle();
                self.leaving.remove(map, map.at(head));
                self.free -= u64::from(self.objects);
                return Some(head);
            }
            self.revive(map);
        }
        None
    }

    fn each_frame(&self, map: &Memmap, head: Pfn, call: impl Fn(&Descriptor)) {
        (0..self.order.pages())
            .filter_map(|frame| head.checked_add(frame))
            .for_each(|frame| call(map.at(frame)));
    }

    /// The slab that serves the next request: a partial one, else an empty one, else one that is
    /// leaving.
    pub(crate) fn next(&mut self, map: &Memmap) -> Option<Open> {
        let head = self.partial.first().or_else(|| self.empty.first());
        let head = head.or_else(|| self.revive(map))?;
        Some(self.open(map, head))
    }

    /// Opens a slab that is on these lists: objects may be taken from its record and given to it.
    pub(crate) fn open(&self, map: &Memmap, head: Pfn) -> Open {
        let view = map.at(head).slab();
        let record = self.record(map, head);
        Open { head, colour: view.colour, record, before: record.free() }
    }

    /// Puts a slab where it belongs after what was taken and given.
    pub(crate) fn close(&mut self, map: &Memmap, slab: Open) {
        let (before, after) = (slab.before, slab.record.free());
        self.free = self.free - u64::from(before) + u64::from(after);
        self.place(map, slab.head, before, after);
    }

    /// Gives an object that is in a state back to its slab, which is on these lists. Answers `false`,
    /// and does nothing, where it is not in that state, or the slab has it.
    #[must_use]
    pub(crate) fn give(&mut self, map: &Memmap, head: Pfn, object: u32, from: State) -> bool {
        let slab = self.open(map, head);
        let given = slab.record.give(object, from);
        self.close(map, slab);
        given
    }

    /// Puts a slab on the list of those with `after` free objects, from that of those with `before`.
    fn place(&mut self, map: &Memmap, head: Pfn, before: u32, after: u32) {
        let descriptor = map.at(head);
        let kind = |free: u32, objects: u32| match free {
            0 => 0,
            free if free == objects => 2,
            _ => 1,
        };
        let (from, to) = (kind(before, self.objects), kind(after, self.objects));
        if from != to {
            self.list(from).remove(map, descriptor);
            // The slab that was used last is used next: it is the one whose lines are at hand.
            self.list(to).push_front(map, head, descriptor);
        }
    }

    fn list(&mut self, kind: usize) -> &mut List {
        match kind {
            0 => &mut self.full,
            1 => &mut self.partial,
            _ => &mut self.empty,
        }
    }

    /// The record of a slab on the lists.
    fn record(&self, map: &Memmap, head: Pfn) -> Record {
        let address = map.at(head).slab().record;
        let Some(at) = NonNull::new(core::ptr::with_exposed_provenance_mut(address)) else {
            panic!("kmem: the slab at {head:?} has no record: its descriptor is corrupt");
        };
        // SAFETY: by the promise made to `add` it is the record of a slab with so many objects.
        unsafe { Record::new(at, self.objects) }
    }

    /// All slabs.
    pub(crate) fn all<'a>(&'a self, map: &'a Memmap) -> impl Iterator<Item = (Pfn, Record)> + 'a {
        let empty = self.empty.iter(map).chain(self.leaving.iter(map));
        self.in_use(map).chain(empty.map(|head| (head, self.record(map, head))))
    }

    /// The slabs that have objects in use, for those who look for them.
    pub(crate) fn in_use<'a>(
        &'a self,
        map: &'a Memmap,
    ) -> impl Iterator<Item = (Pfn, Record)> + 'a {
        let heads = self.full.iter(map).chain(self.partial.iter(map));
        heads.map(|head| (head, self.record(map, head)))
    }
}
