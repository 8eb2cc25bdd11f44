//! The slabs of a cache on one node, by how many of their objects are free.

use core::ptr::NonNull;

use super::record::Record;
use super::state::State;
use crate::Pfn;
use crate::page::{List, Memmap};

/// Full, partial and empty slabs (A179, A181).
///
/// A request is served from a partial slab, else from an empty one; a full one has nothing
/// (A180). Each slab is on the list that its record says, named by its first frame and linked through
/// that frame's descriptor.
///
/// # Invariants
///
/// Every slab on a list has `objects` objects, and its first frame's descriptor says where its record
/// is. On `full` are the slabs with no free object, on `empty` those with nothing but free ones, on
/// `partial` the others. `free` is how many objects are free in all of them.
pub(crate) struct Lists {
    objects: u32,
    free: u64,
    full: List,
    partial: List,
    empty: List,
}

/// How many slabs there are, and how many objects are free in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SlabCounts {
    /// Slabs without a free object.
    pub full: u64,
    /// Slabs with some.
    pub partial: u64,
    /// Slabs with no object in use.
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
    /// No slabs, for a cache whose slabs have so many objects.
    pub(crate) const fn new(objects: u32) -> Lists {
        Lists { objects, free: 0, full: List::EMPTY, partial: List::EMPTY, empty: List::EMPTY }
    }

    /// How many there are.
    pub(crate) fn counts(&self) -> SlabCounts {
        SlabCounts {
            full: self.full.len(),
            partial: self.partial.len(),
            empty: self.empty.len(),
            free: self.free,
        }
    }

    /// Adds a slab whose objects are all free.
    ///
    /// # Safety
    ///
    /// The descriptor of `head` says where the slab's record is, that of a slab with as many objects
    /// as the lists were made for; both stay until [`Lists::remove_empty`] answers the slab. It is on
    /// no list.
    pub(crate) unsafe fn add(&mut self, map: &Memmap, head: Pfn) {
        self.free += u64::from(self.objects);
        self.empty.push_front(map, head, map.at(head));
    }

    /// Takes a slab without objects in use off the lists.
    pub(crate) fn remove_empty(&mut self, map: &Memmap) -> Option<Pfn> {
        let head = self.empty.first()?;
        self.empty.remove(map, map.at(head));
        self.free -= u64::from(self.objects);
        Some(head)
    }

    /// The slab that serves the next request: a partial one, else an empty one.
    pub(crate) fn next(&self, map: &Memmap) -> Option<Open> {
        let head = self.partial.first().or_else(|| self.empty.first())?;
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
        let empty = self.empty.iter(map).map(|head| (head, self.record(map, head)));
        self.in_use(map).chain(empty)
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
