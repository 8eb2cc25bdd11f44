//! A list of blocks, linked through the descriptors of their first frames by frame number.

use super::{Descriptor, Memmap};
use crate::Pfn;

/// A list of blocks by their first frames.
///
/// # Invariants
///
/// Walking `next` from `head` visits `len` frames and ends at `tail`; `prev` is the reverse.
#[derive(Clone, Copy)]
pub(crate) struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl List {
    /// No frame: the end of a list.
    pub(crate) const NONE: u32 = u32::MAX;

    pub(crate) const EMPTY: List = List { head: Self::NONE, tail: Self::NONE, len: 0 };

    #[inline]
    pub(crate) fn len(&self) -> u64 {
        u64::from(self.len)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == Self::NONE
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<Pfn> {
        (self.head != Self::NONE).then(|| Pfn::from_raw(self.head))
    }

    pub(crate) fn push_front(&mut self, map: &Memmap, pfn: Pfn, descriptor: &Descriptor) {
        descriptor.set_next(self.head);
        descriptor.set_prev(Self::NONE);
        match self.first() {
            Some(head) => map.at(head).set_prev(pfn.raw()),
            None => self.tail = pfn.raw(),
        }
        self.head = pfn.raw();
        self.len += 1;
    }

    pub(crate) fn push_back(&mut self, map: &Memmap, pfn: Pfn, descriptor: &Descriptor) {
        descriptor.set_next(Self::NONE);
        descriptor.set_prev(self.tail);
        if self.tail == Self::NONE {
            self.head = pfn.raw();
        } else {
            map.at(Pfn::from_raw(self.tail)).set_next(pfn.raw());
        }
        self.tail = pfn.raw();
        self.len += 1;
    }

    /// Unlinks a block that is on this list.
    pub(crate) fn remove(&mut self, map: &Memmap, descriptor: &Descriptor) {
        let (next, prev) = descriptor.links();
        if prev == Self::NONE {
            self.head = next;
        } else {
            map.at(Pfn::from_raw(prev)).set_next(next);
        }
        if next == Self::NONE {
            self.tail = prev;
        } else {
            map.at(Pfn::from_raw(next)).set_prev(prev);
        }
        self.len -= 1;
    }

    /// The blocks, first to last.
    pub(crate) fn iter<'a>(&self, map: &'a Memmap) -> impl Iterator<Item = Pfn> + 'a {
        let mut at = self.head;
        // A list cannot have more blocks than it says: a loop in a corrupt one ends.
        (0..=self.len).map_while(move |_| {
            let pfn = (at != Self::NONE).then(|| Pfn::from_raw(at))?;
            at = map.get(pfn)?.links().0;
            Some(pfn)
        })
    }

    #[inline]
    pub(crate) fn tail(&self) -> u32 {
        self.tail
    }
}
