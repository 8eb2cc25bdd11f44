use std::vec::Vec;

use super::super::map::{MAX_CARVINGS, MAX_REGIONS, MemoryMap, Normalised, ReservedClass};
use super::*;
use crate::Order;

const ALL: PfnRange = 0..u64::MAX;

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

/// Pages of one byte: the numbers below are frames.
fn normalised(map: MemoryMap) -> Normalised {
    map.normalise(0, Order::ZERO).unwrap()
}

#[test]
fn the_lowest_or_the_highest_place_is_taken_and_is_aligned() {
    let mut map = normalised(MemoryMap::new().ram(10..101, NodeId::ZERO).reserved(50..60, "x"));
    let mut early = EarlyAlloc::new(&mut map);
    assert_eq!(early.alloc("t", 3, 8, ALL, None, false), Some(16..19));
    assert_eq!(early.alloc("t", 3, 8, ALL, None, true), Some(96..99));
    assert_eq!(early.alloc("t", 2, 1, ALL, None, true), Some(99..101));
    assert_eq!(early.alloc("t", 6, 1, ALL, None, false), Some(10..16));
    assert_eq!(early.alloc("t", 31, 1, ALL, None, false), Some(19..50));
    assert_eq!(map.free_ranges().collect::<Vec<_>>(), [(60..96, NodeId::ZERO)]);
}

/// A012: the manager's tables are frames with an owner too.
#[test]
fn what_is_carved_is_reserved_by_name_and_no_longer_free() {
    let map = MemoryMap::new().ram(0..100, NodeId::ZERO).kernel(20..30, "kernel");
    let mut map = normalised(map);
    let mut early = EarlyAlloc::new(&mut map);
    for (name, pages) in [("memmap", 10), ("lists", 5), ("lists", 5), ("memmap", 7)] {
        assert!(early.alloc(name, pages, 1, ALL, None, false).is_some());
    }
    assert_eq!(map.free_ranges().collect::<Vec<_>>(), [(37..100, NodeId::ZERO)]);
    let reserved: Vec<_> = map.reserved().map(|r| (r.range, r.class, r.name)).collect();
    use ReservedClass::{Kernel, Metadata};
    assert_eq!(
        reserved,
        [
            (0..10, Metadata, "memmap"),
            (10..20, Metadata, "lists"),
            (20..30, Kernel, "kernel"),
            (30..37, Metadata, "memmap"),
        ]
    );
    assert_eq!(map.reserved_pages(), 37);
}

#[test]
fn a_carving_lies_within_the_range_asked_for_and_what_is_mapped() {
    let map = MemoryMap::new().ram(0..100, NodeId::ZERO).mapped(20..40).mapped(60..90);
    let mut map = normalised(map);
    let mut early = EarlyAlloc::new(&mut map);
    assert_eq!(early.alloc("t", 21, 1, ALL, None, false), Some(60..81));
    assert_eq!(early.alloc("t", 5, 1, 0..85, None, true), Some(35..40));
    assert_eq!(early.alloc("t", 4, 1, 0..85, None, true), Some(81..85));
    assert_eq!(early.alloc("t", 16, 1, ALL, None, false), None);
    assert_eq!(early.alloc("t", 1, 1, 40..60, None, false), None);
    assert_eq!(early.alloc("t", 15, 1, ALL, None, false), Some(20..35));
}

#[test]
fn the_preferred_node_comes_first_and_others_follow() {
    let map = MemoryMap::new().ram(0..10, node(0)).ram(10..20, node(1)).ram(20..30, node(2));
    let mut map = normalised(map);
    let mut early = EarlyAlloc::new(&mut map);
    assert_eq!(early.alloc("t", 8, 1, ALL, Some(node(1)), false), Some(10..18));
    assert_eq!(early.alloc("t", 2, 1, ALL, Some(node(1)), true), Some(18..20));
    assert_eq!(early.alloc("t", 8, 1, ALL, Some(node(1)), true), Some(22..30));
    assert_eq!(early.alloc("t", 8, 1, ALL, Some(node(1)), false), Some(0..8));
    assert_eq!(early.alloc("t", 3, 1, ALL, None, false), None);
}

#[test]
fn a_carving_does_not_cross_from_one_node_to_the_next() {
    let mut map = normalised(MemoryMap::new().ram(0..10, node(0)).ram(10..20, node(1)));
    let mut early = EarlyAlloc::new(&mut map);
    assert_eq!(early.alloc("t", 11, 1, ALL, None, false), None);
    assert_eq!(early.alloc("t", 10, 1, 5..20, None, false), Some(10..20));
}

#[test]
fn impossible_requests_get_nothing_and_change_nothing() {
    let mut map = normalised(MemoryMap::new().ram(1..100, NodeId::ZERO));
    let before = std::format!("{map:?}");
    let mut early = EarlyAlloc::new(&mut map);
    for (pages, align, within) in [
        (0, 1, ALL),
        (1, 0, ALL),
        (100, 1, ALL),
        (u64::MAX, 1, ALL),
        (1, u64::MAX, ALL),
        (1, 128, ALL),
        (1, 1, 0..1),
        (1, 1, 100..u64::MAX),
        (1, 1, PfnRange { start: 50, end: 20 }),
    ] {
        for top_down in [false, true] {
            assert_eq!(early.alloc("t", pages, align, within.clone(), None, top_down), None);
        }
    }
    assert_eq!(std::format!("{map:?}"), before);
}

#[test]
fn the_promised_number_of_carvings_fits_beside_the_fullest_map_and_then_no_more() {
    let nested = MAX_REGIONS as u64 - 1;
    let mut boot = MemoryMap::new().ram(0..10_000, NodeId::ZERO);
    for n in (0..nested).rev() {
        boot = boot.reserved(n..1000 - n, if n % 2 == 0 { "even" } else { "odd" });
    }
    let mut map = normalised(boot);
    let full = map.reserved().len();
    let mut early = EarlyAlloc::new(&mut map);
    let carve = |early: &mut EarlyAlloc<'_>, name| early.alloc(name, 1, 2, ALL, None, true);
    for _ in 0..MAX_CARVINGS {
        assert!(carve(&mut early, "t").is_some());
    }
    assert_eq!(carve(&mut early, "t"), None);
    // A range that only makes an entry longer still finds its place.
    let last = early.map().reserved().last().unwrap().range;
    assert_eq!(
        early.alloc("t", 1, 1, last.end..ALL.end, None, false),
        Some(last.end..last.end + 1)
    );
    assert_eq!(map.reserved().len(), full + MAX_CARVINGS);
}
