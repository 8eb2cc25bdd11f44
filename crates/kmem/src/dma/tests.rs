//! Records and slots in lock step with naive models.

use core::panic::Location;
use std::boxed::Box;
use std::vec::Vec;

use super::records::{Place, Records};
use super::slots::MOST_SLOTS;
use super::{Direction, DmaDevice, DmaMask, Found, Record, Slots, What};

fn next(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed as usize
}

fn seeds() -> impl Iterator<Item = u64> {
    (1..40u64).map(|run| {
        let seed = run.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        std::println!("seed {seed:#x}");
        seed
    })
}

#[test]
fn slots_are_taken_as_a_search_one_by_one_finds_them() {
    for mut seed in seeds() {
        let count = 1 + next(&mut seed) % (MOST_SLOTS + 20);
        let mut slots = Slots::new(count);
        let mut model = std::vec![false; count.min(MOST_SLOTS)];
        let mut held = Vec::new();
        for _ in 0..2000 {
            if next(&mut seed) % 5 < 3 {
                let wanted = next(&mut seed) % 9;
                let first = (wanted > 0)
                    .then(|| model.windows(wanted).position(|run| run.iter().all(|taken| !taken)))
                    .flatten();
                assert_eq!(slots.take(wanted), first);
                if let Some(first) = first {
                    model[first..first + wanted].fill(true);
                    held.push((first, wanted));
                }
            } else if !held.is_empty() {
                let (first, count) = held.swap_remove(next(&mut seed) % held.len());
                slots.give(first, count);
                model[first..first + count].fill(false);
            }
            assert_eq!(slots.taken(), model.iter().filter(|taken| **taken).count());
        }
    }
}

#[test]
fn records_are_found_as_a_search_one_by_one_finds_them() {
    let caller = Location::caller();
    let place = || -> Place {
        core::ptr::NonNull::from(Box::leak(Box::<super::Node>::new_uninit())).cast()
    };
    for mut seed in seeds() {
        let mut records = Records::new();
        // The latest last.
        let mut model: Vec<(Record, Place)> = Vec::new();
        for _ in 0..3000 {
            // Few addresses, so that some are there more than once.
            let address = (next(&mut seed) % 40) as u64 * 0x800;
            let size = 1 + next(&mut seed) % 3;
            let what = match next(&mut seed) % 3 {
                0 => What::Coherent,
                1 => What::Stream { direction: Direction::ToDevice, bounced: None },
                _ => What::Stream { direction: Direction::FromDevice, bounced: None },
            };
            let is_wanted = |record: &Record| record.size == size && record.what == what;
            let here = |record: &Record| record.address == address;
            let wanted = model.iter().rposition(|(r, _)| here(r) && is_wanted(r));
            let other = model.iter().position(|(record, _)| here(record));
            match next(&mut seed) % 5 {
                0 | 1 => {
                    let (record, place) = (Record { address, size, what, caller }, place());
                    // SAFETY: the place is the test's, and given to nobody else.
                    unsafe { records.insert(record, place) };
                    model.push((record, place));
                }
                2 => match (records.find(address, is_wanted), wanted, other) {
                    (Found::This(record), Some(at), _) => assert_eq!(record, model[at].0),
                    (Found::Other(record), None, Some(at)) => assert_eq!(record, model[at].0),
                    (Found::Nothing, None, None) => {}
                    wrong => panic!("{wrong:?}"),
                },
                _ => match (records.remove(address, is_wanted), wanted, other) {
                    (Found::This(found), Some(at), _) => {
                        assert_eq!(found, model.remove(at));
                        // SAFETY: it was leaked above, and its record is out.
                        drop(unsafe { Box::from_raw(found.1.as_ptr()) });
                    }
                    (Found::Other(record), None, Some(at)) => assert_eq!(record, model[at].0),
                    (Found::Nothing, None, None) => {}
                    wrong => panic!("{wrong:?}"),
                },
            }
            assert_eq!(records.len(), model.len());
            assert_eq!(records.any().is_some(), !model.is_empty());
        }
        for (record, _) in model {
            let Found::This((_, place)) = records.remove(record.address, |_| true) else {
                panic!("a record is lost");
            };
            // SAFETY: as above.
            drop(unsafe { Box::from_raw(place.as_ptr()) });
        }
        assert!(records.any().is_none());
    }
}

#[test]
// A228
fn a_mask_reaches_what_ends_within_it() {
    let mask = DmaMask::bits(28);
    assert_eq!(mask.last(), 0x0fff_ffff);
    assert!(mask.reaches(0, 1 << 28) && mask.reaches(0x0fff_ffff, 1));
    assert!(!mask.reaches(0, (1 << 28) + 1) && !mask.reaches(1 << 28, 1));
    assert!(!mask.reaches(u64::MAX, 2) && !mask.reaches(1, u64::MAX));
    assert!(DmaMask::bits(64).reaches(1, u64::MAX) && DmaMask::bits(99) == DmaMask::ALL);
    assert!(!DmaMask::ALL.reaches(2, u64::MAX));
}

#[test]
fn a_device_has_as_many_slots_as_there_can_be() {
    let slots = |count| DmaDevice::new("dev", DmaMask::ALL).slots(count).slot_bytes();
    assert_eq!((slots(0), slots(3), slots(9999)), (2048, 3 * 2048, MOST_SLOTS * 2048));
}
