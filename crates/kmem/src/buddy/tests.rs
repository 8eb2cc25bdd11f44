//! The free areas beside a naive model of the buddy system, in lock step.

use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use core::ptr::NonNull;
use core::sync::atomic::AtomicU8;

use super::{End, FreeAreas, Taken};
use crate::page::{Block, Descriptor, Memmap, MigrateType};
use crate::{Order, Pfn};

#[allow(clippy::duplicate_mod, reason = "shared by tests that share nothing else")]
#[path = "../../tests/common/rng.rs"]
mod rng;
use rng::Rng;

/// Frames: a zone's, or a hole. The list says how many of which, one after the other, from frame 0.
type Layout = [(u32, Option<u8>)];

/// What the model knows of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Frame {
    Hole,
    Used,
    Free,
}

/// The naive model: a state for each frame, and for the first frame of a free block its order.
struct Model {
    largest: u32,
    frames: Vec<Frame>,
    zones: Vec<u8>,
    heads: Vec<Option<u32>>,
    counts: Vec<[u64; Order::COUNT]>,
}

impl Model {
    fn free(&mut self, first: u32, order: u32) {
        for frame in first..first + (1 << order) {
            assert_eq!(self.frames[frame as usize], Frame::Used, "frame {frame:#x}");
            self.frames[frame as usize] = Frame::Free;
        }
        let zone = self.zones[first as usize];
        let (mut first, mut order) = (first, order);
        while order < self.largest {
            let buddy = first ^ (1 << order);
            let mergeable = self.heads.get(buddy as usize) == Some(&Some(order))
                && self.zones[buddy as usize] == zone;
            if !mergeable {
                break;
            }
            self.heads[buddy as usize] = None;
            self.counts[usize::from(zone)][order as usize] -= 1;
            first = first.min(buddy);
            order += 1;
        }
        self.heads[first as usize] = Some(order);
        self.counts[usize::from(zone)][order as usize] += 1;
    }

    /// Takes frames that lie in one free block.
    fn take(&mut self, first: u32, frames: u32) {
        let head = (0..=self.largest)
            .map(|order| (first & !((1 << order) - 1), order))
            .find(|(head, order)| self.heads[*head as usize] == Some(*order));
        let (head, order) = head.unwrap_or_else(|| panic!("{first:#x} is in no free block"));
        let end = head + (1 << order);
        assert!(first + frames <= end, "{first:#x} + {frames} leaves its free block");
        let zone = usize::from(self.zones[head as usize]);
        self.heads[head as usize] = None;
        self.counts[zone][order as usize] -= 1;
        for frame in head..end {
            assert_eq!(self.frames[frame as usize], Frame::Free, "frame {frame:#x}");
            self.frames[frame as usize] = Frame::Used;
        }
        // The model merges by itself: give the rest back page by page.
        for frame in (head..first).chain(first + frames..end) {
            self.free(frame, 0);
        }
    }

    /// The free blocks of a zone by order, from nothing but which frames are free: the largest
    /// aligned runs.
    fn maximal(&self, zone: u8) -> [u64; Order::COUNT] {
        let mut counts = [0; Order::COUNT];
        let is_free = |frame: usize| {
            self.zones.get(frame) == Some(&zone) && self.frames[frame] == Frame::Free
        };
        let mut frame = 0;
        while frame < self.frames.len() {
            let fits = |order: &u32| {
                frame.is_multiple_of(1 << order) && (frame..frame + (1 << order)).all(is_free)
            };
            match (0..=self.largest).take_while(fits).last() {
                Some(order) => {
                    counts[order as usize] += 1;
                    frame += 1 << order;
                }
                None => frame += 1,
            }
        }
        counts
    }
}

/// The descriptors and the page block types of an extent.
type Tables = (Box<[Descriptor]>, Box<[AtomicU8]>);

/// A memmap over plain vectors, the free areas of its zones, and the model.
struct World {
    map: Memmap,
    areas: Vec<FreeAreas>,
    model: Model,
    /// What the memmap points into.
    tables: Vec<Tables>,
}

impl World {
    /// All frames of the zones are free to begin with, and movable. Runs of whole largest blocks
    /// without a zone have no descriptors at all.
    fn new(layout: &Layout, largest: u32, page_block: u32) -> World {
        let largest = Order::new(largest).unwrap();
        let page_block = Order::new(page_block).unwrap();
        let grain = 1usize << largest.get().max(page_block.get());
        let mut zone_of: Vec<Option<u8>> = layout
            .iter()
            .flat_map(|(frames, zone)| std::iter::repeat_n(*zone, *frames as usize))
            .collect();
        zone_of.resize(zone_of.len().next_multiple_of(grain), None);
        let zones = zone_of.iter().flatten().max().unwrap() + 1;

        let mut world = World {
            map: Memmap::new(page_block),
            areas: (0..zones).map(|zone| FreeAreas::new(largest, zone)).collect(),
            model: Model {
                largest: largest.get(),
                frames: zone_of.iter().map(|z| z.map_or(Frame::Hole, |_| Frame::Used)).collect(),
                zones: zone_of.iter().map(|zone| zone.unwrap_or(u8::MAX)).collect(),
                heads: vec![None; zone_of.len()],
                counts: vec![[0; Order::COUNT]; usize::from(zones)],
            },
            tables: Vec::new(),
        };
        let mut at = 0;
        while at < zone_of.len() {
            let present = |start: usize| zone_of[start..start + grain].iter().any(Option::is_some);
            let mut end = at;
            while end < zone_of.len() && present(end) {
                end += grain;
            }
            if end > at {
                world.add_extent(at, end);
            }
            at = end.max(at + grain);
        }
        for (frame, zone) in zone_of.iter().enumerate() {
            if let Some(zone) = *zone {
                let pfn = Pfn::from_raw(frame as u32);
                world.map.at(pfn).init(Block::Interior, zone);
                world.map.set_migrate_type(pfn, MigrateType::Movable);
            }
        }
        for (frame, zone) in zone_of.iter().enumerate() {
            if let Some(zone) = *zone {
                world.free(zone, frame as u32, 0, End::Cold);
            }
        }
        world.check_all();
        world
    }

    fn add_extent(&mut self, start: usize, end: usize) {
        let frames = end - start;
        let mut descriptors: Box<[Descriptor]> = (0..frames).map(|_| Descriptor::new()).collect();
        let page_blocks = frames >> self.map.page_block_order().get();
        let mut types: Box<[AtomicU8]> = (0..page_blocks).map(|_| AtomicU8::new(0)).collect();
        // SAFETY: the boxes have that many elements, live as long as the memmap and are reached
        // through it only.
        let added = unsafe {
            self.map.add(
                Pfn::from_raw(start as u32),
                frames as u32,
                NonNull::new(descriptors.as_mut_ptr()).unwrap(),
                NonNull::new(types.as_mut_ptr()).unwrap(),
            )
        };
        assert!(added);
        self.tables.push((descriptors, types));
    }

    fn free(&mut self, zone: u8, first: u32, order: u32, end: End) {
        let order = Order::new(order).unwrap();
        self.areas[usize::from(zone)].free_block(&self.map, Pfn::from_raw(first), order, end);
        self.model.free(first, order.get());
    }

    fn total(&self, zone: u8, order: Order) -> u64 {
        MigrateType::ALL.map(|kind| self.areas[usize::from(zone)].blocks(order, kind)).iter().sum()
    }

    fn hand_out(&self, first: u32, order: Order) {
        self.map.at(Pfn::from_raw(first)).hand_out(order);
    }

    /// Takes blocks from both and compares. The blocks are handed out.
    fn take(&mut self, zone: u8, order: u32, wanted: MigrateType, most: u32) -> Option<Taken> {
        let order = Order::new(order).unwrap();
        let at_least = |world: &World, kind| {
            let orders = (order.get()..Order::COUNT as u32).filter_map(Order::new);
            orders.map(|o| world.areas[usize::from(zone)].blocks(o, kind)).sum::<u64>()
        };
        let before = MigrateType::ALL.map(|kind| at_least(self, kind));
        let taken = self.areas[usize::from(zone)].take(&self.map, order, wanted, most);
        let Some(taken) = taken else {
            assert_eq!(before, [0; 3], "{order:?} was refused although there is one");
            return None;
        };
        assert!((1..=most.max(1)).contains(&taken.blocks), "{taken:?} of at most {most}");
        assert!(taken.first.is_aligned(order), "{taken:?} is not aligned to {order:?}");
        let kind = self.map.migrate_type(taken.first);
        match taken.stolen {
            None => assert_eq!(kind, wanted, "{taken:?} came from another type's list"),
            Some(stolen) => {
                assert_eq!(before[wanted.index()], 0, "{taken:?}: nothing had to be stolen");
                assert!(before[stolen.from.index()] > 0);
                let expected = if stolen.change_ownership { wanted } else { stolen.from };
                assert_eq!(kind, expected, "{taken:?}");
            }
        }
        let frames = taken.blocks << order.get();
        self.model.take(taken.first.raw(), frames);
        for block in 0..taken.blocks {
            let first = taken.first.raw() + (block << order.get());
            assert_eq!(self.map.at(Pfn::from_raw(first)).block(), Block::Interior);
            self.hand_out(first, order);
        }
        Some(taken)
    }

    /// Compares the number of free blocks of each order: cheap, for every step.
    fn check_counts(&self, zone: u8) {
        let mut free = 0;
        for order in (0..Order::COUNT as u32).filter_map(Order::new) {
            let expected = self.model.counts[usize::from(zone)][order.index()];
            assert_eq!(self.total(zone, order), expected, "zone {zone}, {order:?}");
            free += expected * order.pages();
        }
        assert_eq!(self.areas[usize::from(zone)].free(), free);
    }

    /// Compares everything.
    fn check_all(&self) {
        for (zone, areas) in self.areas.iter().enumerate() {
            self.check_counts(zone as u8);
            areas.verify(&self.map).unwrap();
            assert_eq!(self.model.maximal(zone as u8), self.model.counts[zone]);
        }
        for (frame, head) in self.model.heads.iter().enumerate() {
            let found = self.map.get(Pfn::from_raw(frame as u32)).map(Descriptor::block);
            let expected = head.map(|order| Block::Free(Order::new(order).unwrap()));
            match (found, expected) {
                (found, Some(_)) => assert_eq!(found, expected, "frame {frame:#x}"),
                (Some(Block::Free(order)), None) => panic!("{frame:#x} is not free: {order:?}"),
                (found, None) => {
                    let hole = self.model.frames[frame] == Frame::Hole;
                    assert_eq!(hole, matches!(found, None | Some(Block::Hole)), "frame {frame:#x}");
                }
            }
        }
    }
}

/// A block that the test holds.
struct Held {
    zone: u8,
    first: u32,
    order: u32,
}

/// Random takes and frees in all zones, compared after each.
fn lock_step(layout: &Layout, largest: u32, page_block: u32, steps: u32) {
    let mut rng = Rng::new();
    let mut world = World::new(layout, largest, page_block);
    let before: Vec<_> = world.model.counts.clone();
    let zones = world.areas.len() as u64;
    let mut held: Vec<Held> = Vec::new();
    let mut filling = 60;
    for step in 0..steps {
        if step % 4096 == 0 {
            world.check_all();
            // Sometimes nearly full, sometimes nearly empty.
            filling = rng.pick(&[30, 45, 55, 80]);
        }
        let zone = rng.below(zones) as u8;
        if rng.percent(filling) {
            if rng.percent(2) {
                take_range(&mut world, &mut rng, zone, &mut held);
            } else {
                let order = rng.order(largest);
                let kind = rng.pick(&MigrateType::ALL);
                let most = rng.pick(&[1, 1, 1, 2, 5, 16, 64]);
                if let Some(taken) = world.take(zone, order, kind, most) {
                    held.extend((0..taken.blocks).map(|block| {
                        let first = taken.first.raw() + (block << order);
                        Held { zone, first, order }
                    }));
                }
            }
            world.check_counts(zone);
        } else if !held.is_empty() {
            let Held { zone, first, order } =
                held.swap_remove(rng.below(held.len() as u64) as usize);
            world.free(zone, first, order, rng.pick(&[End::Hot, End::Cold]));
            world.check_counts(zone);
        }
    }
    for Held { zone, first, order } in held {
        world.free(zone, first, order, End::Cold);
    }
    world.check_all();
    assert_eq!(world.model.counts, before, "the free lists are not the initial ones");
}

/// Takes a run of frames somewhere, and gives some of it back at once.
fn take_range(world: &mut World, rng: &mut Rng, zone: u8, held: &mut Vec<Held>) {
    let span = world.model.frames.len() as u64;
    let count = 1 + rng.below(100);
    let align = Order::new(rng.order(world.model.largest.min(6))).unwrap();
    let start = rng.below(span);
    let within = start..(start + 1 + rng.below(span)).min(span);
    let fits = |first: u64| {
        (first..first + count).all(|frame| {
            world.model.zones[frame as usize] == zone
                && world.model.frames[frame as usize] == Frame::Free
        })
    };
    let last = within.end.saturating_sub(count);
    let mut places = within.start.next_multiple_of(align.pages())..=last;
    let expected = if within.start + count > within.end {
        None
    } else {
        places.find(|first| first.is_multiple_of(align.pages()) && fits(*first))
    };
    let areas = &mut world.areas[usize::from(zone)];
    let found = areas.take_range(&world.map, count, align, within.clone());
    assert_eq!(found.map(Pfn::number), expected, "{count} frames at {align:?} in {within:?}");
    let Some(first) = found.map(Pfn::raw) else { return };
    for frame in first..first + count as u32 {
        world.model.take(frame, 1);
    }
    let back = first + rng.below(count) as u32..first + count as u32;
    for frame in back.clone() {
        world.model.free(frame, 0);
    }
    world.areas[usize::from(zone)].give_back(&world.map, back.clone());
    for frame in first..back.start {
        world.hand_out(frame, Order::ZERO);
        held.push(Held { zone, first: frame, order: 0 });
    }
}

/// How many steps each of the ten random tests does: more than a million together.
const STEPS: u32 = if cfg!(debug_assertions) { 110_000 } else { 400_000 };

/// Two zones, a hole in the middle of a block, and a run without descriptors.
const HOLES: &Layout =
    &[(1024, Some(0)), (1000, Some(1)), (35, None), (2037, Some(1)), (4096, None), (1500, Some(1))];

/// Four zones whose borders are borders of page blocks but not of the largest blocks.
const ZONES: &Layout =
    &[(512, Some(0)), (1536, Some(1)), (512, Some(2)), (512, Some(1)), (1024, Some(3))];

/// A079
#[test]
fn lock_step_with_holes() {
    lock_step(HOLES, 10, 9, STEPS);
}

/// A079, A028
#[test]
fn lock_step_with_four_zones() {
    lock_step(ZONES, 10, 9, STEPS);
}

/// A079, A058
#[test]
fn lock_step_with_largest_order_5() {
    lock_step(HOLES, 5, 5, STEPS);
}

/// A079
#[test]
fn lock_step_with_small_page_blocks() {
    lock_step(ZONES, 10, 5, STEPS);
}

/// A079
#[test]
fn lock_step_with_page_blocks_of_one_page() {
    lock_step(ZONES, 10, 0, STEPS);
}

/// A079, A058
#[test]
fn lock_step_with_single_pages_only() {
    lock_step(&[(200, Some(0)), (3, None), (97, Some(1))], 0, 0, STEPS);
}

/// A079, A058
#[test]
fn lock_step_with_largest_order_15() {
    lock_step(&[(40_000, Some(0)), (1, None), (25_535, Some(0))], 15, 9, STEPS);
}

/// A079, A058
#[test]
fn lock_step_with_largest_order_15_and_page_blocks_of_one_page() {
    lock_step(&[(32_768, Some(0)), (32_768, Some(1))], 15, 0, STEPS);
}

/// A079
#[test]
fn lock_step_with_page_blocks_of_the_largest_order() {
    lock_step(&[(5000, Some(0)), (3192, Some(0))], 10, 10, STEPS);
}

/// Zones may meet inside a page block: its type is then both zones'.
///
/// A079, A028
#[test]
fn lock_step_with_zones_that_share_a_page_block() {
    lock_step(&[(700, Some(0)), (2000, Some(1)), (1396, Some(0))], 10, 9, STEPS);
}

/// A block that is freed hot is the next one of its order, one that is freed cold the last.
///
/// A085, A054
#[test]
fn hot_blocks_are_taken_first_and_cold_ones_last() {
    let mut world = World::new(&[(64, Some(0))], 0, 0);
    let all: Vec<u32> =
        (0..64).map(|_| world.take(0, 0, MigrateType::Movable, 1).unwrap().first.raw()).collect();
    for (frame, end) in [(3, End::Hot), (5, End::Hot), (7, End::Cold), (9, End::Cold)] {
        world.free(0, all[frame], 0, end);
    }
    let next: Vec<u32> =
        (0..4).map(|_| world.take(0, 0, MigrateType::Movable, 1).unwrap().first.raw()).collect();
    assert_eq!(next, [all[5], all[3], all[7], all[9]]);
    world.check_all();
}

/// A checkerboard of free pages has no block of order 1, although half of the pages are free.
///
/// A060
#[test]
fn a_checkerboard_has_no_larger_block() {
    let mut world = World::new(&[(1024, Some(0))], 10, 9);
    while world.take(0, 0, MigrateType::Unmovable, 1).is_some() {}
    for frame in (0..1024).step_by(2) {
        world.free(0, frame, 0, End::Cold);
    }
    assert_eq!(world.areas[0].free(), 512);
    assert_eq!(world.take(0, 1, MigrateType::Unmovable, 1), None);
    world.free(0, 1, 0, End::Hot);
    assert_eq!(world.take(0, 1, MigrateType::Unmovable, 1).unwrap().first.raw(), 0);
}

/// A block of the largest order that gives one page leaves one block of each order below.
///
/// A078
#[test]
fn each_order_has_its_own_list() {
    let mut world = World::new(&[(4096, Some(0))], 10, 9);
    let first = world.take(0, 0, MigrateType::Movable, 1).unwrap().first.raw();
    // The rest of the block is one free block of each order below it.
    for order in 0..10 {
        let order = Order::new(order).unwrap();
        assert_eq!(world.total(0, order), 1, "{order:?}");
    }
    assert_eq!(world.total(0, Order::new(10).unwrap()), 3);
    world.free(0, first, 0, End::Hot);
    assert_eq!(world.total(0, Order::new(10).unwrap()), 4);
}

/// Unmovable pages take over whole page blocks, so that they do not lie strewn over all of them.
///
/// A112, A117
#[test]
fn unmovable_pages_stay_together() {
    let mut world = World::new(&[(8192, Some(0))], 10, 9);
    let mut page_blocks = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let unmovable = world.take(0, 0, MigrateType::Unmovable, 1).unwrap();
        page_blocks.insert(unmovable.first.raw() >> 9);
        world.take(0, 0, MigrateType::Movable, 1).unwrap();
    }
    assert_eq!(page_blocks.len(), 1);
    world.check_all();
}
