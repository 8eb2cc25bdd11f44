//! A list of free blocks, linked through descriptors by frame number.

use crate::Pfn;
use crate::page::{Descriptor, Memmap};

/// No frame: the end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// A list of blocks by their first frames.
///
/// # Invariants
///
/// Walking `next` from `head` visits `len` frames and ends at `tail`; `prev` is the reverse.
#[derive(Clone, Copy)]
pub(super) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl List {
    pub(super) const EMPTY: List = List { head: NONE, tail: NONE, len: 0 };

    #[inline]
    pub(super) fn len(&self) -> u64 {
        u64::from(self.len)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.head == NONE
    }

    #[inline]
    pub(super) fn first(&self) -> Option<Pfn> {
        (self.head != NONE).then(|| Pfn::from_raw(self.head))
    }

    pub(super) fn push_front(&mut self, map: &Memmap, pfn: Pfn, descriptor: &Descriptor) {
        descriptor.set_next(self.head);
        descriptor.set_prev(NONE);
        match self.first() {
            Some(head) => map.at(head).set_prev(pfn.raw()),
            None => self.tail = pfn.raw(),
        }
        self.head = pfn.raw();
        self.len += 1;
    }

    pub(super) fn push_back(&mut self, map: &Memmap, pfn: Pfn, descriptor: &Descriptor) {
        descriptor.set_next(NONE);
        descriptor.set_prev(self.tail);
        if self.tail == NONE {
            self.head = pfn.raw();
        } else {
            map.at(Pfn::from_raw(self.tail)).set_next(pfn.raw());
        }
        self.tail = pfn.raw();
        self.len += 1;
    }

    /// Unlinks a block that is on this list.
    pub(super) fn remove(&mut self, map: &Memmap, descriptor: &Descriptor) {
        let (next, prev) = descriptor.links();
        if prev == NONE {
            self.head = next;
        } else {
            map.at(Pfn::from_raw(prev)).set_next(next);
        }
        if next == NONE {
            self.tail = prev;
        } else {
            map.at(Pfn::from_raw(next)).set_prev(prev);
        }
        self.len -= 1;
    }

    /// The blocks, first to last.
    pub(super) fn iter<'a>(&self, map: &'a Memmap) -> impl Iterator<Item = Pfn> + 'a {
        let mut at = self.head;
        // A list cannot have more blocks than it says: a loop in a corrupt one ends.
        (0..=self.len).map_while(move |_| {
            let pfn = (at != NONE).then(|| Pfn::from_raw(at))?;
            at = map.get(pfn)?.links().0;
            Some(pfn)
        })
    }

    #[inline]
    pub(super) fn tail(&self) -> u32 {
        self.tail
    }
}
