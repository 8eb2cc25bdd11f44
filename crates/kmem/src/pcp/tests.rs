//! Page sets beside double-ended queues, in lock step.

use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use super::{PCP_LARGEST, PageSet, PcpSize};
use crate::page::MigrateType;
use crate::{Order, Pfn};

#[allow(dead_code, clippy::duplicate_mod, reason = "shared, and not all of it is needed here")]
#[path = "../../tests/common/rng.rs"]
mod rng;
use rng::Rng;

/// The most blocks that a ring of each order holds in a page set with this many pages of order 0:
/// in proportion to 256, 64, 32 and 32.
fn high(pages: u32) -> [usize; 4] {
    [256, 64, 32, 32].map(|slots| pages as usize * slots / 256)
}

fn kinds() -> Vec<(Order, MigrateType)> {
    PageSet::kinds().collect()
}

fn lock_step(size: PcpSize, steps: u32) {
    let mut rng = Rng::new();
    let kinds = kinds();
    let mut set = PageSet::new();
    set.resize(size);
    let mut model = vec![VecDeque::new(); kinds.len()];
    let mut filling = 50;
    for step in 0..steps {
        if step % 512 == 0 {
            filling = rng.pick(&[20, 50, 80]);
        }
        let at = rng.below(kinds.len() as u64) as usize;
        let (order, kind) = kinds[at];
        let queue = &mut model[at];
        let hot = rng.percent(70);
        if rng.percent(filling) {
            let pfn = Pfn::new(rng.below(1 << 32) & !1).unwrap();
            let pushed =
                if hot { set.push_hot(order, kind, pfn) } else { set.push_cold(order, kind, pfn) };
            assert_eq!(pushed, queue.len() < high(size.high)[order.index()], "{order:?} {kind:?}");
            match (pushed, hot) {
                (true, true) => queue.push_back(pfn),
                (true, false) => queue.push_front(pfn),
                (false, _) => {}
            }
        } else {
            let (popped, expected) = if hot {
                (set.pop_hot(order, kind), queue.pop_back())
            } else {
                (set.pop_cold(order, kind), queue.pop_front())
            };
            assert_eq!(popped, expected, "{order:?} {kind:?}");
        }
        let ring = set.ring(order, kind).unwrap();
        assert_eq!(ring.len() as usize, model[at].len());
        assert_eq!(ring.is_empty(), model[at].is_empty());
        if step % 64 == 0 {
            let pages = kinds.iter().zip(&model).map(|((o, _), q)| o.pages() * q.len() as u64);
            assert_eq!(set.pages(), pages.sum::<u64>());
        }
    }
    // No ring has written over another: all of them still hold what the queues do.
    for ((order, kind), mut queue) in kinds.into_iter().zip(model) {
        while let Some(pfn) = set.pop_cold(order, kind) {
            assert_eq!(Some(pfn), queue.pop_front());
        }
        assert!(queue.is_empty());
    }
}

/// A084, A085, A105
#[test]
fn lock_step_with_full_rings() {
    lock_step(PcpSize { high: 256, batch: 64 }, 700_000);
}

/// A084
#[test]
fn lock_step_with_small_rings() {
    lock_step(PcpSize { high: 5, batch: 1 }, 200_000);
    lock_step(PcpSize { high: 64, batch: 16 }, 200_000);
}

/// A ring goes round many times in both directions, and its count of turns below 0.
///
/// A084
#[test]
fn rings_go_round() {
    let mut set = PageSet::new();
    set.resize(PcpSize { high: 256, batch: 64 });
    for (order, kind) in kinds() {
        let pfn = |number: u32| Pfn::new(u64::from(number)).unwrap();
        for turn in 0..70_000 {
            assert!(set.push_hot(order, kind, pfn(turn)));
            assert!(set.push_hot(order, kind, pfn(turn + 1)));
            assert_eq!(set.pop_cold(order, kind), Some(pfn(turn)));
            assert_eq!(set.pop_cold(order, kind), Some(pfn(turn + 1)));
        }
        for turn in 0..140_000 {
            assert!(set.push_cold(order, kind, pfn(turn)));
            assert!(set.push_cold(order, kind, pfn(turn + 1)));
            assert_eq!(set.pop_hot(order, kind), Some(pfn(turn)));
            assert_eq!(set.pop_hot(order, kind), Some(pfn(turn + 1)));
        }
        assert_eq!(set.pages(), 0);
    }
}

/// Before boot, and on a machine without per-CPU lists, every push fails and every pop finds
/// nothing.
///
/// A084
#[test]
fn a_set_without_slots_holds_nothing() {
    let mut sized = PageSet::new();
    sized.resize(PcpSize::NONE);
    for mut set in [PageSet::new(), sized] {
        for (order, kind) in kinds() {
            assert!(!set.push_hot(order, kind, Pfn::new(1).unwrap()));
            assert!(!set.push_cold(order, kind, Pfn::new(1).unwrap()));
            assert_eq!(set.pop_hot(order, kind), None);
            assert_eq!(set.pop_cold(order, kind), None);
        }
        assert_eq!(set.pages(), 0);
    }
}

/// Orders above the largest have no ring; the others have room for one batch more than once.
///
/// A084
#[test]
fn a_batch_is_a_part_of_what_a_ring_holds() {
    let mut set = PageSet::new();
    for managed in [0, 127, 128, 1000, 4096, 32_768, 1 << 30] {
        for cpus in [1, 2, 8, 256] {
            let size = PcpSize::for_zone(managed, cpus);
            assert!(u64::from(size.high) * u64::from(cpus) * 32 <= managed.max(1));
            set.resize(size);
            for (order, kind) in kinds() {
                let ring = set.ring(order, kind).unwrap();
                assert_eq!(ring.high() as usize, high(size.high)[order.index()]);
                assert_eq!(ring.batch() == 0, ring.high() == 0);
                assert!(ring.high() < 2 || ring.batch() * 2 <= ring.high());
            }
        }
    }
    let above = Order::new(PCP_LARGEST.get() + 1).unwrap();
    assert!(set.ring(above, MigrateType::Unmovable).is_none());
}
