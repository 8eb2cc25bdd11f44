//! Magazines: free objects at hand.

use core::ptr::NonNull;

use super::state::{ObjectState, State};

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

    /// Changes what the object's byte says, if it says that; answers whether it did.
    #[inline]
    pub(crate) fn change(&self, from: State, to: State) -> bool {
        self.byte().change(from, to)
    }

    #[inline]
    fn byte(&self) -> &ObjectState {
        // SAFETY: an entry is of an object whose slab stays as long as the object is not in it.
        unsafe { self.state.as_ref() }
    }
}

/// Free objects in an array: the last one put in comes out first.
///
/// ```text
///   coldest                hottest
///   [ 1c0 | 080 | 140 | 200 |  -  |  -  |  -  |  -  ]
/// ```
///
/// # Invariants
///
/// `slots` points to `high` slots that are this magazine's for as long as it is used; the first `len`
/// are written. `len <= high`.
pub(crate) struct Magazine {
    slots: NonNull<Entry>,
    len: u32,
    high: u32,
}

impl Magazine {
    /// A magazine that holds nothing: every push fails.
    pub(crate) const NONE: Magazine = Magazine { slots: NonNull::dangling(), len: 0, high: 0 };

    /// An empty magazine with so many slots.
    ///
    /// # Safety
    ///
    /// `slots` points to room for `count` entries, which is the magazine's for as long as it is used.
    pub(crate) const unsafe fn new(slots: NonNull<Entry>, count: u32) -> Magazine {
        Magazine { slots, len: 0, high: count }
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

    /// How many there is room for in all.
    pub(crate) fn high(&self) -> u32 {
        self.high
    }

    /// How many more there is room for.
    #[inline]
    pub(crate) fn room(&self) -> u32 {
        self.high - self.len
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> NonNull<Entry> {
        // SAFETY: callers pass an index below `high`, and by the invariant there are so many.
        unsafe { self.slots.add(index as usize) }
    }

    /// The objects, the coldest first.
    pub(crate) fn entries(&self) -> &[Entry] {
        // SAFETY: by the invariant so many slots are written, and they are this magazine's.
        unsafe { core::slice::from_raw_parts(self.slots.as_ptr(), self.len as usize) }
    }

    /// The hottest object, which stays.
    #[inline(always)]
    pub(crate) fn hottest(&self) -> Option<Entry> {
        // SAFETY: by the invariant the slot of an entry is written.
        Some(unsafe { self.slot(self.len.checked_sub(1)?).read() })
    }

    /// Takes the hottest object.
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        let hottest = self.hottest()?;
        self.len -= 1;
        Some(hottest)
    }

    /// Puts an object in, to come out first. `false` where there is no room.
    #[inline(always)]
    #[must_use]
    pub(crate) fn push(&mut self, entry: Entry) -> bool {
        if self.len >= self.high {
            return false;
        }
        // SAFETY: the slot is this magazine's.
        unsafe { self.slot(self.len).write(entry) };
        self.len += 1;
        true
    }

    /// Turns the last `count` objects round: of those that were put in one after the other the first
    /// comes out first.
    pub(crate) fn reverse(&mut self, count: u32) {
        let first = self.len.saturating_sub(count);
        // SAFETY: as in `entries`, and the borrow is a mutable one.
        let entries =
            unsafe { core::slice::from_raw_parts_mut(self.slots.as_ptr(), self.len as usize) };
        entries[first as usize..].reverse();
    }

    /// Takes the coldest objects out, as many as there are up to `count`.
    pub(crate) fn drop_coldest(&mut self, count: u32) {
        let count = count.min(self.len);
        let left = self.len - count;
        // SAFETY: both are within the slots that are written.
        unsafe { self.slots.copy_from(self.slot(count), left as usize) };
        self.len = left;
    }

    /// Takes as many objects as there is room for from another magazine, in their order.
    pub(crate) fn take_all(&mut self, from: &mut Magazine) {
        let count = from.len.min(self.room());
        // SAFETY: so many are written there, there is room for so many here, and they are two arrays.
        unsafe { self.slot(self.len).copy_from_nonoverlapping(from.slots, count as usize) };
        self.len += count;
        from.drop_coldest(count);
    }
}
