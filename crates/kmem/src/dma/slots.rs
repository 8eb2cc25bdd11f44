//! Which slots are taken.

/// The bytes of a slot: half of a small page, as most packets are smaller.
pub(crate) const SLOT: usize = 2 << 10;

/// The most slots that a device can have: 1 MiB, a contiguous run that most machines still find below any
/// mask.
pub(crate) const MOST_SLOTS: usize = 512;

/// A bit for each slot.
///
/// # Invariants
///
/// Bits from `count` on are clear; `taken` is the number of bits that are set.
#[derive(Clone)]
pub(crate) struct Slots {
    bits: [u64; MOST_SLOTS / 64],
    count: u16,
    taken: u16,
}

impl Slots {
    /// So many slots, at most [`MOST_SLOTS`], of which none is taken.
    pub(crate) const fn new(count: usize) -> Slots {
        let count = if count > MOST_SLOTS { MOST_SLOTS } else { count };
        Slots { bits: [0; MOST_SLOTS / 64], count: count as u16, taken: 0 }
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        usize::from(self.taken)
    }

    /// Takes the first `count` neighbours that are free; answers the first of them.
    ///
    /// Cost: a look at each slot before them.
    pub(crate) fn take(&mut self, count: usize) -> Option<usize> {
        let mut first = 0;
        while count > 0 && first + count <= usize::from(self.count) {
            // From the last on: the one that is in the way says how far to go on.
            match (first..first + count).rev().find(|slot| self.is_taken(*slot)) {
                Some(taken) => first = taken + 1,
                None => {
                    self.change(first, count);
                    self.taken += count as u16;
                    return Some(first);
                }
            }
        }
        None
    }

    /// Gives slots back that were taken together.
    pub(crate) fn give(&mut self, first: usize, count: usize) {
        debug_assert!((first..first + count).all(|slot| self.is_taken(slot)), "they are taken");
        self.change(first, count);
        self.taken -= count as u16;
    }

    fn is_taken(&self, slot: usize) -> bool {
        self.bits[slot / 64] & 1 << (slot % 64) != 0
    }

    fn change(&mut self, first: usize, count: usize) {
        (first..first + count).for_each(|slot| self.bits[slot / 64] ^= 1 << (slot % 64));
    }
}
