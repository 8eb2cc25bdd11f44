//! Magazines: free objects at hand.

use core::ptr::NonNull;

use super::record::{ObjectState, State};

/// A free object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Its address.
    pub(crate) object: usize,
    /// The byte that says where it is. It is kept with the address because to find it from there
    /// takes three loads that depend on each other.
    pub(crate) state: NonNull<ObjectState>,
}

impl Entry {
    /// What the object's byte says.
    #[inline]
    pub(crate) fn get(&self) -> State {
        self.byte().get()
    }

    /// Writes the object's byte.
    #[inline]
    pub(crate) fn set(&self, state: State) {
        self.byte().set(state);
    }

    #[inline]
    fn byte(&self) -> &ObjectState {
        // SAFETY: an entry is of an object whose slab stays as long as the object is not in it.
        unsafe { self.state.as_ref() }
    }
}

/// Free objects in an array: the last one put in comes out first, or the first one, by choice.
///
/// ```text
///            cold                 hot
///   [  -  |  -  | 1c0 | 080 | 140 |  -  |  -  |  -  ]       a ring of slots, a power of two
/// ```
///
/// # Invariants
///
/// `slots` points to `mask + 1` slots, a power of two, that are this magazine's for as long as it is
/// used; those of the `len` entries from `cold` on are written. `len <= high <= mask + 1`.
pub(crate) struct Magazine {
    slots: NonNull<Entry>,
    mask: u32,
    cold: u32,
    len: u32,
    high: u32,
}

impl Magazine {
    /// A magazine that holds nothing: every push fails.
    pub(crate) const NONE: Magazine =
        Magazine { slots: NonNull::dangling(), mask: 0, cold: 0, len: 0, high: 0 };

    /// An empty magazine with so many slots.
    ///
    /// # Safety
    ///
    /// `slots` points to room for `count` entries, a power of two, which is the magazine's for as
    /// long as it is used.
    pub(crate) const unsafe fn new(slots: NonNull<Entry>, count: u32) -> Magazine {
        Magazine { slots, mask: count - 1, cold: 0, len: 0, high: count }
    }

    /// Where the slots are, for who allocated them; `None` for a magazine without.
    pub(crate) fn slots(&self) -> Option<NonNull<Entry>> {
        (self.high > 0).then_some(self.slots)
    }

    /// How many objects there are.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The coldest object.
    pub(crate) fn coldest(&self) -> Option<Entry> {
        // SAFETY: as in `pop_hot`.
        (self.len > 0).then(|| unsafe { self.slot(self.cold).read() })
    }

    /// How many more there is room for.
    #[inline]
    pub(crate) fn room(&self) -> u32 {
        self.high - self.len
    }

    #[inline]
    fn slot(&self, position: u32) -> NonNull<Entry> {
        // SAFETY: by the invariant there are `mask + 1` slots.
        unsafe { self.slots.add((position & self.mask) as usize) }
    }

    /// Takes the hottest object.
    #[inline]
    pub(crate) fn pop_hot(&mut self) -> Option<Entry> {
        if self.len == 0 {
            return None;
        }
        self.len -= 1;
        // SAFETY: by the invariant the slot of an entry is written.
        Some(unsafe { self.slot(self.cold.wrapping_add(self.len)).read() })
    }

    /// Takes the coldest object.
    pub(crate) fn pop_cold(&mut self) -> Option<Entry> {
        if self.len == 0 {
            return None;
        }
        let slot = self.slot(self.cold);
        self.cold = self.cold.wrapping_add(1);
        self.len -= 1;
        // SAFETY: as in `pop_hot`.
        Some(unsafe { slot.read() })
    }

    /// Puts an object in, to come out first. `false` where there is no room.
    #[inline]
    #[must_use]
    pub(crate) fn push_hot(&mut self, entry: Entry) -> bool {
        if self.len >= self.high {
            return false;
        }
        // SAFETY: the slot is this magazine's.
        unsafe { self.slot(self.cold.wrapping_add(self.len)).write(entry) };
        self.len += 1;
        true
    }

    /// Puts an object in, to come out last. `false` where there is no room.
    #[must_use]
    pub(crate) fn push_cold(&mut self, entry: Entry) -> bool {
        if self.len >= self.high {
            return false;
        }
        self.cold = self.cold.wrapping_sub(1);
        self.len += 1;
        // SAFETY: the slot is this magazine's.
        unsafe { self.slot(self.cold).write(entry) };
        true
    }
}
