//! A bounded ring that handlers may write to, and one reader reads.
//!
//! A writer claims a place by a compare-exchange, writes, and marks the place full; it never waits, so a
//! handler may write while the code that it interrupted is half-way through a place. The reader takes
//! places in order and stops at one that is not full yet. When there is no room what was to be written is
//! dropped and counted.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, PoisonError};

struct Place<T> {
    /// Twice the round this place is in, plus one while it is full: which writer or reader is next.
    state: AtomicU64,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// The ring.
///
/// # Invariants
///
/// Where a place's state is odd its value was written.
pub(crate) struct Ring<T> {
    places: Box<[Place<T>]>,
    /// How many places have been claimed.
    claimed: AtomicU64,
    /// How many values there was no room for.
    dropped: AtomicU64,
    /// How many values have been read.
    read: AtomicU64,
    /// Of the reader: one at a time.
    reading: Mutex<()>,
}

// SAFETY: a place's value is written by the one writer that claimed its turn and read by the one
// reader after that; `state` hands it from the one to the other.
unsafe impl<T: Copy + Send> Sync for Ring<T> {}
// SAFETY: as above.
unsafe impl<T: Copy + Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    /// A ring of so many places, not 0. The host supplies the memory as it is used.
    pub(crate) fn new(places: usize) -> Ring<T> {
        assert_ne!(places, 0);
        let Ok(layout) = Layout::array::<Place<T>>(places) else { panic!("the ring is too large") };
        // SAFETY: the layout is not that of nothing: there are places, each of which has a state.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            handle_alloc_error(layout);
        }
        let places = std::ptr::slice_from_raw_parts_mut(memory.cast::<Place<T>>(), places);
        Ring {
            // SAFETY: allocated with that layout. Zeros are a state, and a value that was not written.
            places: unsafe { Box::from_raw(places) },
            claimed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            read: AtomicU64::new(0),
            reading: Mutex::new(()),
        }
    }

    fn length(&self) -> u64 {
        self.places.len() as u64
    }

    /// Adds a value; `false` where there was no room. Any context.
    pub(crate) fn write(&self, value: T) -> bool {
        let mut turn = self.claimed.load(Relaxed);
        loop {
            let place = &self.places[(turn % self.length()) as usize];
            let round = turn / self.length() * 2;
            // Pairs with the reader's release: it has read what was here.
            match place.state.load(Acquire).cmp(&round) {
                // Full of a value from the round before.
                std::cmp::Ordering::Less => {
                    self.dropped.fetch_add(1, Relaxed);
                    return false;
                }
                std::cmp::Ordering::Equal => {
                    match self.claimed.compare_exchange_weak(turn, turn + 1, Relaxed, Relaxed) {
                        Ok(_) => {
                            // SAFETY: the place is empty and this writer alone has the turn.
                            unsafe { (*place.value.get()).write(value) };
                            place.state.store(round + 1, Release);
                            return true;
                        }
                        Err(now) => turn = now,
                    }
                }
                // Another writer has this turn.
                std::cmp::Ordering::Greater => turn = self.claimed.load(Relaxed),
            }
        }
    }

    /// Hands out what has been written, oldest first. Not for handlers.
    pub(crate) fn take(&self, mut each: impl FnMut(&T)) {
        let _alone = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let read = self.read.load(Relaxed);
            let place = &self.places[(read % self.length()) as usize];
            let round = read / self.length() * 2;
            // Pairs with the writer's release: the value is complete.
            if place.state.load(Acquire) != round + 1 {
                return;
            }
            // SAFETY: the place is full and this is the one reader.
            each(unsafe { (*place.value.get()).assume_init_ref() });
            place.state.store(round + 2, Release);
            self.read.store(read + 1, Relaxed);
        }
    }

    /// How full it is, in hundredths: as good as a look at something that changes can be.
    pub(crate) fn percent(&self) -> u64 {
        let held = self.claimed.load(Relaxed).saturating_sub(self.read.load(Relaxed));
        held * 100 / self.length()
    }

    /// How many values have been written, those included that there was no room for.
    pub(crate) fn written(&self) -> u64 {
        self.claimed.load(Relaxed) + self.dropped()
    }

    /// How many values there was no room for.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: u64 = 64;

    fn take(ring: &Ring<(u64, u64)>) -> Vec<(u64, u64)> {
        let mut values = Vec::new();
        ring.take(|value| values.push(*value));
        values
    }

    #[test]
    fn a_full_ring_counts_what_it_drops_and_is_good_again_once_read() {
        let ring = Ring::new(PLACES as usize);
        for round in 0..3 {
            for number in 0..PLACES + 5 {
                assert_eq!(ring.write((round, number)), number < PLACES);
            }
            assert_eq!((ring.dropped(), ring.percent()), (5 * (round + 1), 100));
            assert_eq!(take(&ring), (0..PLACES).map(|number| (round, number)).collect::<Vec<_>>());
            assert_eq!(ring.percent(), 0);
        }
        assert_eq!(ring.written(), 3 * (PLACES + 5));
    }

    #[test]
    fn what_many_writers_write_comes_out_whole_and_in_the_order_of_each() {
        const EACH: u64 = 5_000;
        let ring = Ring::new(PLACES as usize);
        let mut values = Vec::new();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let ring = &ring;
                scope.spawn(move || (0..EACH).for_each(|number| _ = ring.write((writer, number))));
            }
            while ring.written() < 4 * EACH {
                values.extend(take(&ring));
            }
        });
        values.extend(take(&ring));
        assert_eq!(values.len() as u64 + ring.dropped(), 4 * EACH);
        for writer in 0..4 {
            let of = values.iter().filter(|value| value.0 == writer);
            assert!(of.map(|value| value.1).is_sorted_by(|a, b| a < b), "writer {writer}");
        }
    }
}
