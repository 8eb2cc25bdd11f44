//! Magazines and the lists of slabs beside naive models, in lock step.

use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::vec;
use std::vec::Vec;

use core::ptr::NonNull;
use core::sync::atomic::AtomicU8;

use super::lists::Lists;
use super::magazine::{Entry, Magazine};
use super::record::Record;
use super::state::State;
use crate::page::{Descriptor, Memmap, SlabView};
use crate::{NodeId, Order, Pfn};

#[allow(dead_code, clippy::duplicate_mod, reason = "shared, and not all of it is needed here")]
#[path = "../../tests/common/rng.rs"]
mod rng;
use rng::Rng;

fn entry(object: u64) -> Entry {
    Entry { object: object as usize, state: NonNull::dangling() }
}

/// A174: beside a stack whose bottom can be taken away.
#[test]
fn magazines_are_stacks_that_lose_their_bottom() {
    let mut rng = Rng::new();
    for slots in [1, 2, 8, 64] {
        let room = |slots| {
            let mut room = Vec::<Entry>::with_capacity(slots);
            let first = NonNull::new(room.as_mut_ptr()).unwrap();
            // SAFETY: the room outlives the magazine: both live as long as the loop's body.
            (room, unsafe { Magazine::new(first, slots as u32) })
        };
        let (_room, mut magazine) = room(slots);
        let (_other_room, mut other) = room(5);
        let mut model = VecDeque::new();
        for step in 0..20_000 {
            match rng.below(if step / 256 % 2 == 0 { 3 } else { 6 }) {
                0 => {
                    assert_eq!(magazine.hottest(), model.back().copied());
                    assert_eq!(magazine.pop(), model.pop_back());
                }
                1 => {
                    let count = rng.below(4) as usize;
                    magazine.drop_coldest(count as u32);
                    model.drain(..count.min(model.len()));
                }
                2 => {
                    let count = rng.below(4) as usize;
                    magazine.reverse(count as u32);
                    let first = model.len().saturating_sub(count);
                    model.make_contiguous()[first..].reverse();
                }
                3 => {
                    (0..5).for_each(|_| assert!(other.push(entry(rng.below(u64::MAX)))));
                    let taken = (slots - model.len()).min(5);
                    model.extend(&other.entries()[..taken]);
                    let left = other.entries()[taken..].to_vec();
                    magazine.take_all(&mut other);
                    assert_eq!(other.entries(), left);
                    other.drop_coldest(5);
                }
                _ => {
                    let entry = entry(rng.below(u64::MAX));
                    let room = model.len() < slots;
                    assert_eq!(magazine.push(entry), room);
                    if room {
                        model.push_back(entry);
                    }
                }
            }
            assert_eq!(magazine.entries(), model.make_contiguous());
            assert_eq!(magazine.len() as usize, model.len());
            assert_eq!(magazine.room() as usize, slots - model.len());
        }
    }
}

#[test]
fn a_magazine_without_slots_holds_nothing() {
    let mut magazine = Magazine::NONE;
    assert!(!magazine.push(entry(8)));
    assert_eq!((magazine.pop(), magazine.entries().len(), magazine.room()), (None, 0, 0));
}

/// Frames with descriptors, and records for slabs of one page each.
struct World {
    map: Memmap,
    objects: u32,
    records: Vec<Box<[u64]>>,
    /// What the memmap points into.
    _tables: (Box<[Descriptor]>, Box<[AtomicU8]>),
}

const FRAMES: u32 = 16;

fn pfn(frame: u32) -> Pfn {
    Pfn::new(frame.into()).unwrap()
}

impl World {
    fn new(objects: u32) -> World {
        let mut descriptors: Box<[Descriptor]> = (0..FRAMES).map(|_| Descriptor::new()).collect();
        let mut types: Box<[AtomicU8]> = (0..FRAMES).map(|_| AtomicU8::new(0)).collect();
        let mut map = Memmap::new(Order::ZERO);
        let first = NonNull::new(descriptors.as_mut_ptr()).unwrap();
        let type_cells = NonNull::new(types.as_mut_ptr()).unwrap();
        // SAFETY: one for each frame, kept beside the memmap.
        assert!(unsafe { map.add(pfn(0), FRAMES, first, type_cells) });
        let words = Record::bytes(objects) as usize / 8;
        let records = (0..FRAMES).map(|_| vec![0; words].into_boxed_slice()).collect();
        World { map, objects, records, _tables: (descriptors, types) }
    }

    /// The record of a slab, as it was made.
    fn record(&mut self, frame: u32) -> Record {
        let at = NonNull::new(self.records[frame as usize].as_mut_ptr()).unwrap();
        let record = at.as_ptr().expose_provenance();
        self.map.at(pfn(frame)).set_slab(SlabView {
            cache: 3,
            node: NodeId::new(15).unwrap(),
            colour: 64,
            record,
        });
        // SAFETY: the room of a record, which nobody else uses.
        let record = unsafe { Record::new(at.cast(), self.objects) };
        record.init();
        record
    }
}

/// A slab goes that every CPU has left.
fn remove_empty(lists: &mut Lists, map: &Memmap) -> Option<Pfn> {
    let retired = lists.retire(map);
    let gone = lists.depart(map, || {});
    assert_eq!(retired, gone.is_some());
    gone
}

/// A179, A180, A181: slabs come and go, objects are taken and given, and each slab is where
/// the number of its free objects says.
#[test]
fn slabs_are_on_the_list_of_what_they_have_free() {
    let mut rng = Rng::new();
    for objects in [1, 2, 7, 64] {
        let mut world = World::new(objects);
        let mut lists = Lists::new(objects, Order::ZERO);
        // The objects that are out, by slab.
        let mut out: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for step in 0..10_000u32 {
            match rng.below(10) {
                0 => {
                    let frame = rng.below(FRAMES.into()) as u32;
                    if let std::collections::btree_map::Entry::Vacant(place) = out.entry(frame) {
                        world.record(frame);
                        // SAFETY: the record was just made, and the slab is on no list.
                        unsafe { lists.add(&world.map, pfn(frame)) };
                        place.insert(BTreeSet::new());
                    }
                }
                1 => match remove_empty(&mut lists, &world.map) {
                    Some(head) => {
                        let gone = out.remove(&head.raw());
                        assert_eq!(gone, Some(BTreeSet::new()), "a slab in use was removed");
                    }
                    None => assert!(out.values().all(|objects| !objects.is_empty())),
                },
                2..=5 => {
                    let most = 1 + rng.below(2 * u64::from(objects)) as u32;
                    let spare: usize = out.values().map(|out| objects as usize - out.len()).sum();
                    let was_partial = |frame: &u32, out: &BTreeMap<u32, BTreeSet<u32>>| {
                        (1..objects as usize).contains(&out[frame].len())
                    };
                    let before = out.clone();
                    let mut first = None;
                    let mut taken = 0;
                    while taken < most
                        && let Some(slab) = lists.next(&world.map)
                    {
                        let head = slab.head.raw();
                        first.get_or_insert(head);
                        assert_eq!(slab.colour, 64);
                        taken += slab.record.take(most - taken, |object| {
                            assert!(slab.record.state(object).get() == State::FREE);
                            slab.record.state(object).set(State::HELD);
                            assert!(out.get_mut(&head).unwrap().insert(object), "taken twice");
                        });
                        lists.close(&world.map, slab);
                    }
                    assert_eq!(taken as usize, spare.min(most as usize));
                    // Partial slabs first.
                    if before.keys().any(|frame| was_partial(frame, &before)) {
                        assert!(was_partial(&first.unwrap(), &before));
                    }
                }
                _ => {
                    let held: Vec<(u32, u32)> = out
                        .iter()
                        .flat_map(|(frame, out)| out.iter().map(|object| (*frame, *object)))
                        .collect();
                    if !held.is_empty() {
                        let (frame, object) = held[rng.below(held.len() as u64) as usize];
                        let mut give = |from| lists.give(&world.map, pfn(frame), object, from);
                        assert!(!give(State::DEPOT));
                        assert!(give(State::HELD));
                        assert!(!give(State::HELD) && !give(State::FREE), "given twice");
                        out.get_mut(&frame).unwrap().remove(&object);
                    }
                }
            }
            let count = |with: &dyn Fn(usize) -> bool| {
                out.values().filter(|out| with(out.len())).count() as u64
            };
            let counts = lists.counts();
            let all = objects as usize;
            assert_eq!(counts.full, count(&|out| out == all), "step {step}");
            assert_eq!(counts.empty, count(&|out| out == 0), "step {step}");
            assert_eq!(counts.partial, count(&|out| out > 0 && out < all), "step {step}");
            let free: usize = out.values().map(|out| all - out.len()).sum();
            assert_eq!(counts.free, free as u64, "step {step}");
            let in_use: BTreeSet<u32> =
                lists.in_use(&world.map).map(|(head, _)| head.raw()).collect();
            let expected: BTreeSet<u32> =
                out.iter().filter(|(_, out)| !out.is_empty()).map(|(frame, _)| *frame).collect();
            assert_eq!(in_use, expected);
            assert_eq!(lists.all(&world.map).count(), out.len());
        }
        for frame in 0..FRAMES {
            let view = world.map.at(pfn(frame)).slab();
            let kept = (view.cache, view.node.get(), view.colour);
            assert!(view.record == 0 || kept == (3, 15, 64), "{view:?}");
        }
    }
}
