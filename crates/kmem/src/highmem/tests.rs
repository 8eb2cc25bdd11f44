//! The permanent mappings beside a naive model, and a CPU's slots with handlers in between.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use super::permanent::{Acquired, PermanentMaps, Slot};
use super::temporary::{CpuSlots, Ended, Typed};
use super::*;

#[allow(dead_code, clippy::duplicate_mod, reason = "shared, and not all of it is needed here")]
#[path = "../../tests/common/rng.rs"]
mod rng;
use rng::Rng;

/// What should be: which frames are mapped with how many users, and which slots are with somebody who
/// maps a frame.
#[derive(Default)]
struct Model {
    slots: u32,
    /// Users and slot of each frame that somebody has mapped.
    used: BTreeMap<u32, (u32, u16)>,
    /// Frames that nobody has mapped any more, and where they can still be seen.
    idle: BTreeMap<u32, u16>,
    /// Idle slots without a frame.
    nameless: Vec<u16>,
    fresh: Vec<(u16, u32)>,
    retiring: Vec<u16>,
    flushing: bool,
    waiting: u32,
}

impl Model {
    fn free(&self) -> u32 {
        let taken = self.used.len() + self.idle.len() + self.nameless.len();
        self.slots - (taken + self.fresh.len() + self.retiring.len()) as u32
    }

    fn acquired(&mut self, frame: u32, got: Acquired) {
        if let Some((users, slot)) = self.used.get_mut(&frame) {
            *users += 1;
            assert_eq!(got, Acquired::Mapped(*slot));
        } else if let Some(slot) = self.idle.remove(&frame) {
            assert_eq!(got, Acquired::Mapped(slot));
            self.used.insert(frame, (1, slot));
        } else if self.free() > 0 {
            let Acquired::Fresh(slot) = got else { panic!("{got:?} although a slot is free") };
            assert!(u32::from(slot) < self.slots && !self.is_taken(slot));
            self.fresh.push((slot, frame));
        } else if !self.flushing && (!self.idle.is_empty() || !self.nameless.is_empty()) {
            assert_eq!(got, Acquired::Flush);
            self.flushing = true;
        } else {
            assert_eq!(got, Acquired::Wait);
            self.waiting += 1;
        }
    }

    fn is_taken(&self, slot: u16) -> bool {
        self.used.values().any(|(_, other)| *other == slot)
            || self.idle.values().any(|other| *other == slot)
            || self.fresh.iter().any(|(other, _)| *other == slot)
            || self.nameless.contains(&slot)
            || self.retiring.contains(&slot)
    }

    fn published(&mut self, slot: u16, frame: u32, got: Acquired) {
        if let Some((users, other)) = self.used.get_mut(&frame) {
            *users += 1;
            assert_eq!(got, Acquired::Mapped(*other));
            self.nameless.push(slot);
        } else if let Some(other) = self.idle.remove(&frame) {
            assert_eq!(got, Acquired::Mapped(other));
            self.used.insert(frame, (1, other));
            self.nameless.push(slot);
        } else {
            assert_eq!(got, Acquired::Mapped(slot));
            self.used.insert(frame, (1, slot));
        }
    }

    fn released(&mut self, frame: u32, left: Option<u32>) {
        let Some((users, slot)) = self.used.get_mut(&frame) else {
            return assert_eq!(left, None, "the end of a mapping that there is not");
        };
        *users -= 1;
        assert_eq!(left, Some(*users));
        if *users == 0 {
            let slot = *slot;
            self.used.remove(&frame);
            self.idle.insert(frame, slot);
        }
    }

    fn retired(&mut self, slots: &[u16], most: usize) {
        let before = self.idle.len() + self.nameless.len();
        assert_eq!(slots.len(), before.min(most), "as many as there are and as there is room for");
        for slot in slots {
            self.idle.retain(|_, other| other != slot);
            self.nameless.retain(|other| other != slot);
        }
        assert_eq!(self.idle.len() + self.nameless.len(), before - slots.len(), "idle ones");
        self.retiring.extend(slots);
    }
}

fn pfn(frame: u32) -> Pfn {
    Pfn::from_raw(frame)
}

// A269, A270, A277
#[test]
fn permanent_mappings_agree_with_a_model() {
    let mut rng = Rng::new();
    for slots in [1, 2, 7, 64] {
        let mut places = vec![Slot::EMPTY; slots as usize];
        let mut buckets = vec![0; PermanentMaps::buckets_for(slots)];
        let mut maps = PermanentMaps::new(&mut places, &mut buckets);
        let mut model = Model { slots, ..Model::default() };
        for _ in 0..20_000 {
            // About as many frames as slots, so that all is full as often as not.
            let frame = 1000 + rng.below(u64::from(slots) * 3 / 2 + 2) as u32;
            match rng.below(12) {
                0..4 => model.acquired(frame, maps.acquire(pfn(frame))),
                4..6 if !model.fresh.is_empty() => {
                    let (slot, frame) =
                        model.fresh.swap_remove(rng.below(model.fresh.len() as u64) as usize);
                    if rng.percent(90) {
                        model.published(slot, frame, maps.publish(slot, pfn(frame)));
                    } else {
                        maps.abandon(slot);
                    }
                }
                6..10 => model.released(frame, maps.release(pfn(frame))),
                10 if model.flushing => {
                    let mut out = [0; 5];
                    let count = maps.retire(&mut out);
                    model.retired(&out[..count], out.len());
                }
                11 if model.flushing => {
                    maps.finish();
                    model.retiring.clear();
                    model.flushing = false;
                }
                _ if model.waiting > 0 => {
                    maps.stop_waiting();
                    model.waiting -= 1;
                }
                _ => {}
            }
            let wanted = KmapInfo {
                slots,
                used: model.used.len() as u32,
                idle: (model.idle.len() + model.nameless.len()) as u32,
                free: model.free(),
                waiting: model.waiting,
            };
            assert_eq!(maps.info(), wanted);
            let found = maps.find(pfn(frame));
            assert_eq!(found, model.used.get(&frame).map(|(_, slot)| *slot));
            if let Some(slot) = found {
                assert_eq!(maps.frame_in(slot), Some(pfn(frame)));
            }
            maps.verify();
        }
    }
}

#[test]
fn a_frame_has_no_more_users_than_can_be_counted() {
    let (mut places, mut buckets) = (vec![Slot::EMPTY; 2], vec![0; PermanentMaps::buckets_for(2)]);
    let mut maps = PermanentMaps::new(&mut places, &mut buckets);
    let Acquired::Fresh(slot) = maps.acquire(pfn(7)) else { panic!("a slot is free") };
    assert_eq!(maps.publish(slot, pfn(7)), Acquired::Mapped(slot));
    maps.set_users(slot, u32::MAX - 1);
    assert_eq!(maps.acquire(pfn(7)), Acquired::Mapped(slot));
    for _ in 0..2 {
        assert_eq!(maps.acquire(pfn(7)), Acquired::TooMany);
    }
    maps.verify();
    assert_eq!(maps.release(pfn(7)), Some(u32::MAX - 1));
}

#[test]
fn without_slots_everybody_waits() {
    let mut maps_buckets = vec![0; PermanentMaps::buckets_for(0)];
    let mut maps = PermanentMaps::new(&mut [], &mut maps_buckets);
    assert_eq!(maps.acquire(pfn(1)), Acquired::Wait);
    assert_eq!(maps.release(pfn(1)), None);
}

// A271
#[test]
fn the_window_is_the_end_of_the_range_and_leaves_room() {
    let at = VirtAddr::new;
    assert_eq!(window(at(0x10000)..at(0x20000), 12, 3), at(0x1d000)..at(0x20000));
    assert_eq!(window(at(0x10000)..at(0x20000), 12, 1024), at(0x1c000)..at(0x20000));
    assert_eq!(window(at(0x10000)..at(0x20000), 12, 0), at(0x20000)..at(0x20000));
    assert_eq!(window(at(0)..at(0), 12, 1024), at(0)..at(0));
}

// A274
#[test]
fn the_types_are_the_twenty_of_the_texts_in_their_order() {
    const NAMES: [&str; 20] = [
        "KM_BOUNCE_READ",
        "KM_SKB_SUNRPC_DATA",
        "KM_SKB_DATA_SOFTIRQ",
        "KM_USER0",
        "KM_USER1",
        "KM_BIO_SRC_IRQ",
        "KM_BIO_DST_IRQ",
        "KM_PTE0",
        "KM_PTE1",
        "KM_PTE2",
        "KM_IRQ0",
        "KM_IRQ1",
        "KM_SOFTIRQ0",
        "KM_SOFTIRQ1",
        "KM_SYNC_ICACHE",
        "KM_SYNC_DCACHE",
        "KM_UML_USERCOPY",
        "KM_IRQ_PTE",
        "KM_NMI",
        "KM_NMI_PTE",
    ];
    assert_eq!(KM_TYPE_NR, 20);
    assert_eq!(KmType::ALL.map(KmType::name), NAMES);
    for (number, slot) in KmType::ALL.into_iter().enumerate() {
        assert_eq!(slot as usize, number);
    }
    assert_eq!((KM_USER0, KM_NMI_PTE), (KmType::User0, KmType::ALL[19]));
}

/// Where a slot would be seen.
fn seen_at(slot: usize) -> VirtAddr {
    VirtAddr::new((slot + 1) << 12)
}

#[test]
fn nested_slots_are_a_stack_and_what_ends_early_goes_with_what_lies_above() {
    let slots = CpuSlots::new();
    let begin = || slots.begin_nested(pfn(5), seen_at);
    let all: Vec<VirtAddr> = core::iter::from_fn(begin).collect();
    assert_eq!(all.len(), NESTED);
    assert_eq!(slots.live(), NESTED as u32);
    let end = |at: usize| slots.end_nested(all[at], |slot| assert_eq!(seen_at(slot), all[at]));
    assert_eq!(end(NESTED - 1), Ended::Latest);
    assert_eq!(end(NESTED - 1), Ended::NotThere);
    // Two in the middle end too early; the places come back with those above them.
    for early in [NESTED - 4, NESTED - 3] {
        assert_eq!(end(early), Ended::Inner(all[NESTED - 2], pfn(5)));
        assert_eq!(end(early), Ended::NotThere);
    }
    assert_eq!(end(NESTED - 2), Ended::Latest);
    assert_eq!(slots.live(), NESTED as u32 - 4);
    assert_eq!(begin(), Some(all[NESTED - 4]));
    for at in (0..NESTED - 3).rev() {
        assert_eq!(end(at), Ended::Latest);
    }
    assert_eq!((slots.live(), begin()), (0, Some(all[0])));
}

/// A handler arrives at each step of a change, does the same things, and leaves all as it was.
#[test]
fn a_handler_in_the_middle_of_a_change_gets_another_slot() {
    let slots = CpuSlots::new();
    // What is mapped in each slot, as page tables would have it.
    let table = [const { core::cell::Cell::new(0) }; TEMPORARY_SLOTS];
    let map = |slot: usize, frame: u32| {
        assert_eq!(table[slot].replace(frame), 0, "the slot is taken");
        seen_at(slot)
    };
    let unmap = |slot: usize, frame: u32| assert_eq!(table[slot].replace(0), frame);
    let handler = |frame: u32| {
        // Also with an end out of order.
        let first = slots.begin_nested(pfn(frame), |slot| map(slot, frame)).unwrap();
        let second = slots.begin_nested(pfn(frame), |slot| map(slot, frame)).unwrap();
        assert_ne!(first, second);
        let ended = slots.end_nested(first, |slot| unmap(slot, frame));
        assert_eq!(ended, Ended::Inner(second, pfn(frame)));
        assert_eq!(slots.end_nested(second, |slot| unmap(slot, frame)), Ended::Latest);
        let at = slots.begin_typed(KM_IRQ0, pfn(frame), |slot| map(slot, frame));
        assert_eq!(slots.typed(KM_IRQ0), Typed::Live(at, pfn(frame)));
        slots.end_typed(KM_IRQ0, |slot| unmap(slot, frame));
    };
    let begin = |frame: u32| {
        slots.begin_nested(pfn(frame), |slot| {
            handler(90);
            let address = map(slot, frame);
            handler(91);
            address
        })
    };
    let end = |address: VirtAddr, frame: u32| {
        slots.end_nested(address, |slot| {
            handler(92);
            unmap(slot, frame);
            handler(93);
        })
    };
    let (a, b, c) = (begin(1).unwrap(), begin(2).unwrap(), begin(3).unwrap());
    assert_eq!(end(b, 2), Ended::Inner(c, pfn(3)));
    handler(94);
    assert_eq!(end(c, 3), Ended::Latest);
    handler(95);
    assert_eq!(end(a, 1), Ended::Latest);
    let at = slots.begin_typed(KM_USER0, pfn(4), |slot| {
        assert_eq!(slots.typed(KM_USER0), Typed::Changing);
        handler(96);
        map(slot, 4)
    });
    assert_eq!((slots.mapped_at(at), slots.live()), (Some(pfn(4)), 1));
    slots.end_typed(KM_USER0, |slot| {
        assert_eq!(slots.typed(KM_USER0), Typed::Changing);
        unmap(slot, 4);
        handler(97);
    });
    assert_eq!((slots.live(), slots.typed(KM_USER0)), (0, Typed::Free));
    assert!(table.iter().all(|frame| frame.get() == 0));
}
