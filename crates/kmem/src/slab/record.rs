//! What is known of each object of a slab: whether the slab has it, and else who.

use core::ptr::NonNull;

use super::debug::{TRACK, Track};
use super::state::{ObjectState, State};
use crate::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};

/// A slab's record: how many objects are free, which, and the state of each.
///
/// ```text
///   +------------------+-----+------+-----+-----------------------------------+
///   | a byte an object | pad | free | pad | a bit an object: free in the slab |
///   +------------------+-----+------+-----+-----------------------------------+
///   0                        8 * n        8 * n + 8
/// ```
///
/// The bytes are first: a free looks at one of them and at nothing else of the record.
///
/// # Invariants
///
/// Exactly the bits of objects that the slab has are set, and `free` is their number. Both are
/// changed under the lock of the cache's node; the bytes by whoever has the object.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    at: NonNull<u8>,
    objects: u32,
}

const HEADER: usize = 8;
const BITS: u32 = u64::BITS;

impl Record {
    /// How many bytes the record of a slab with so many objects has: a multiple of 8.
    pub(crate) const fn bytes(objects: u32) -> u32 {
        Self::header(objects) + HEADER as u32 + 8 * objects.div_ceil(BITS)
    }

    /// Where the count of free objects is, in bytes.
    const fn header(objects: u32) -> u32 {
        objects.next_multiple_of(8)
    }

    /// The record of a slab.
    ///
    /// # Safety
    ///
    /// At `at`, a multiple of 8, are [`Record::bytes`] for so many objects, written by
    /// [`Record::init`] and by records alone, for as long as the record is used.
    #[inline]
    pub(crate) const unsafe fn new(at: NonNull<u8>, objects: u32) -> Record {
        Record { at, objects }
    }

    /// Says that all objects are free.
    pub(crate) fn init(self) {
        self.free_cell().store(self.objects as u16, Relaxed);
        for word in 0..self.words() {
            let left = self.objects - word * BITS;
            let bits = if left >= BITS { u64::MAX } else { (1 << left) - 1 };
            self.word(word).store(bits, Relaxed);
        }
        (0..self.objects).for_each(|object| self.state(object).set(State::FREE));
    }

    /// How many objects the slab has free.
    #[inline]
    pub(crate) fn free(self) -> u32 {
        self.free_cell().load(Relaxed).into()
    }

    /// How many objects there are.
    pub(crate) fn objects(self) -> u32 {
        self.objects
    }

    /// Takes up to `most` free objects, from the lowest up, and passes the number of each to `to`.
    /// Answers how many. Under the node's lock.
    pub(crate) fn take(self, most: u32, mut to: impl FnMut(u32)) -> u32 {
        let mut taken = 0;
        for at in 0..self.words() {
            let word = self.word(at);
            let mut bits = word.load(Relaxed);
            while bits != 0 && taken < most {
                to(at * BITS + bits.trailing_zeros());
                bits &= bits - 1;
                taken += 1;
            }
            word.store(bits, Relaxed);
            if taken == most {
                break;
            }
        }
        self.free_cell().store(self.free_cell().load(Relaxed) - taken as u16, Relaxed);
        taken
    }

    /// Gives an object back that was taken, and that is in a state. Under the node's lock.
    ///
    /// Answers `false` where it is not in that state, or the slab has it.
    #[must_use]
    pub(crate) fn give(self, object: u32, from: State) -> bool {
        let word = self.word(object / BITS);
        let (bits, bit) = (word.load(Relaxed), 1 << (object % BITS));
        // Where the slab has it, it was freed once more: the byte is put right all the same.
        if !self.state(object).change(from, State::FREE) || bits & bit != 0 {
            return false;
        }
        word.store(bits | bit, Relaxed);
        self.free_cell().store(self.free_cell().load(Relaxed) + 1, Relaxed);
        true
    }

    /// Whether the slab has an object free.
    #[cfg(test)]
    pub(crate) fn has(self, object: u32) -> bool {
        self.word(object / BITS).load(Relaxed) & (1 << (object % BITS)) != 0
    }

    /// The state of an object.
    ///
    /// # Panics
    ///
    /// Where there is no object with this number: the geometry of the cache is wrong.
    #[inline(always)]
    pub(crate) fn state<'a>(self, object: u32) -> &'a ObjectState {
        assert!(object < self.objects, "kmem: a slab has {} objects and no {object}", self.objects);
        // SAFETY: by the promise made to `new`, within the record, which is read and written as
        // atomics alone.
        unsafe { self.at.add(object as usize).cast().as_ref() }
    }

    /// Who had an object, for a record with tracks.
    ///
    /// # Safety
    ///
    /// Behind the record there is a track for each object, whose bytes have been written.
    pub(crate) unsafe fn track<'a>(self, object: u32) -> &'a Track {
        debug_assert!(object < self.objects);
        let offset = Self::bytes(self.objects) + object * TRACK;
        // SAFETY: the caller's promise; a multiple of 8.
        unsafe { self.at.add(offset as usize).cast().as_ref() }
    }

    /// Forgets who had the objects, for a record with room for tracks.
    ///
    /// # Safety
    ///
    /// Behind the record there is room for a track for each object.
    pub(crate) unsafe fn init_tracks(self) {
        let tracks = self.objects as usize * TRACK as usize;
        // SAFETY: the caller's promise.
        unsafe { self.at.add(Self::bytes(self.objects) as usize).write_bytes(0, tracks) };
    }

    /// Whether the count of free objects is that of the bits.
    pub(crate) fn is_consistent(self) -> bool {
        let bits: u32 =
            (0..self.words()).map(|word| self.word(word).load(Relaxed).count_ones()).sum();
        bits == self.free()
    }

    fn words(self) -> u32 {
        self.objects.div_ceil(BITS)
    }

    fn word<'a>(self, word: u32) -> &'a AtomicU64 {
        assert!(word < self.words());
        let offset = Self::header(self.objects) as usize + HEADER + 8 * word as usize;
        // SAFETY: as in `state`; a multiple of 8.
        unsafe { self.at.add(offset).cast().as_ref() }
    }

    fn free_cell<'a>(self) -> &'a AtomicU16 {
        // SAFETY: as in `state`; a multiple of 8.
        unsafe { self.at.add(Self::header(self.objects) as usize).cast().as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CpuId;
    use std::collections::BTreeSet;
    use std::vec;
    use std::vec::Vec;

    /// Runs a test over a record with so many objects, and looks that nothing is written beside it.
    fn with(objects: u32, test: impl FnOnce(Record)) {
        let words = Record::bytes(objects) as usize / 8;
        let mut memory = vec![u64::MAX; words + 2];
        let at = NonNull::new(memory[1..].as_mut_ptr()).unwrap().cast();
        // SAFETY: so many bytes, and nobody else looks.
        let record = unsafe { Record::new(at, objects) };
        record.init();
        test(record);
        assert_eq!((memory[0], memory[words + 1]), (u64::MAX, u64::MAX));
    }

    const COUNTS: [u32; 8] = [1, 7, 8, 62, 64, 65, 200, 4096];

    /// A182
    #[test]
    fn each_object_is_taken_once_from_the_lowest_up() {
        for objects in COUNTS {
            with(objects, |record| {
                assert_eq!(record.free(), objects);
                let mut taken = Vec::new();
                for most in (1..).take_while(|_| record.free() > 0) {
                    let free = record.free();
                    assert_eq!(record.take(most, |object| taken.push(object)), most.min(free));
                }
                assert!(taken.into_iter().eq(0..objects));
                assert_eq!((record.free(), record.take(1, |_| panic!())), (0, 0));
            });
        }
    }

    /// A model in lock step.
    #[test]
    fn what_is_given_is_taken_again() {
        for objects in COUNTS {
            with(objects, |record| {
                let mut free: BTreeSet<u32> = (0..objects).collect();
                let mut random = 1u64;
                for _ in 0..4 * objects + 100 {
                    random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    let object = (random >> 33) as u32 % objects;
                    if random >> 63 == 0 {
                        let mut taken = None;
                        record.take(1, |object| taken = Some(object));
                        assert_eq!(taken, free.pop_first());
                    } else {
                        let was_out = free.insert(object);
                        record.state(object).set(State::HELD);
                        assert!(!record.give(object, State::DEPOT), "in another state");
                        assert_eq!(record.give(object, State::HELD), was_out);
                        assert!(!was_out || record.state(object).get() == State::FREE);
                    }
                    assert_eq!(record.free() as usize, free.len());
                    assert_eq!(record.has(object), free.contains(&object));
                }
            });
        }
    }

    #[test]
    fn each_object_has_its_own_state() {
        with(200, |record| {
            for object in 0..200 {
                record.state(object).set(State::of(CpuId::new(object).unwrap()).unwrap());
            }
            for object in 0..200 {
                assert_eq!(record.state(object).get().cpu(), CpuId::new(object));
            }
            assert!(!record.state(3).change(State::HELD, State::ASIDE));
            record.state(3).set(State::HELD);
            assert!(record.state(3).change(State::HELD, State::ASIDE));
            assert!(record.state(3).get() == State::ASIDE);
            assert_eq!(record.free(), 200);
        });
    }

    #[test]
    fn a_cpu_beyond_the_states_has_none() {
        assert!(State::of(CpuId::new(State::CPUS - 1).unwrap()).is_some());
        assert!(State::of(CpuId::new(State::CPUS).unwrap()).is_none());
        for state in [State::FREE, State::HELD, State::DEPOT, State::ASIDE] {
            assert_eq!(state.cpu(), None);
        }
    }
}
