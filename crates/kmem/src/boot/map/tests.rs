use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::PfnRange;

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn order(order: u32) -> Order {
    Order::new(order).unwrap()
}

/// RAM of node 0 in whole pages.
fn pages(range: Range<u64>) -> Range<u64> {
    range.start * PAGE..range.end * PAGE
}

fn normalised(map: &MemoryMap) -> Normalised {
    map.normalise(12, order(10)).unwrap()
}

fn error(map: MemoryMap) -> MapError {
    map.normalise(12, order(10)).unwrap_err()
}

fn ram(frames: &Normalised) -> Vec<(PfnRange, u32)> {
    frames.ram().map(|(range, node)| (range, node.get())).collect()
}

fn free(frames: &Normalised) -> Vec<(PfnRange, u32)> {
    frames.free_ranges().map(|(range, node)| (range, node.get())).collect()
}

fn reserved(frames: &Normalised) -> Vec<(PfnRange, ReservedClass, &'static str)> {
    frames.reserved().map(|r| (r.range, r.class, r.name)).collect()
}

#[test]
fn ram_may_come_unsorted_overlapping_and_touching() {
    let map = MemoryMap::new()
        .ram(pages(70..90), NodeId::ZERO)
        .ram(pages(10..20), NodeId::ZERO)
        .ram(pages(40..50), node(1))
        .ram(pages(20..30), NodeId::ZERO)
        .ram(pages(15..25), NodeId::ZERO)
        .ram(pages(30..40), NodeId::ZERO)
        .ram(pages(75..80), NodeId::ZERO);
    let frames = normalised(&map);
    assert_eq!(ram(&frames), [(10..40, 0), (40..50, 1), (70..90, 0)]);
    assert_eq!(frames.ram_pages(), 60);
}

/// A023: a page of two nodes would have two zones; it has none.
#[test]
fn ram_is_rounded_inward_after_regions_of_one_node_are_joined() {
    let map = MemoryMap::new()
        .ram(100..2 * PAGE + 1, NodeId::ZERO)
        .ram(2 * PAGE + 1..4 * PAGE + 7, NodeId::ZERO)
        .ram(4 * PAGE + 7..6 * PAGE, node(1))
        .ram(8 * PAGE + 1..10 * PAGE - 1, NodeId::ZERO);
    assert_eq!(ram(&normalised(&map)), [(1..4, 0), (5..6, 1)]);
}

#[test]
fn a_reserved_range_is_rounded_outward_and_wins_over_ram() {
    let map = MemoryMap::new()
        .reserved(3 * PAGE - 1..3 * PAGE + 1, "straddles")
        .ram(pages(0..10), NodeId::ZERO)
        .reserved(9 * PAGE + 4095..12 * PAGE, "crosses the end")
        .reserved(pages(100..200), "outside");
    let frames = normalised(&map);
    assert_eq!(free(&frames), [(0..2, 0), (4..9, 0)]);
    let firmware = ReservedClass::Firmware;
    assert_eq!(
        reserved(&frames),
        [
            (2..4, firmware, "straddles"),
            (9..12, firmware, "crosses the end"),
            (100..200, firmware, "outside"),
        ]
    );
    assert_eq!(frames.reserved_pages(), 3);
    let in_ram: Vec<_> = frames.reserved_in_ram().map(|(r, _)| r.range).collect();
    assert_eq!(in_ram, [2..4, 9..10]);
}

/// A012: one owner for each frame; what the kernel or the firmware uses is never released.
#[test]
fn where_classes_overlap_kernel_wins_over_firmware_and_late_loses() {
    let map = MemoryMap::new()
        .ram(pages(0..100), NodeId::ZERO)
        .late(pages(10..60))
        .reserved(pages(20..50), "firmware")
        .kernel(pages(30..40), "kernel")
        .reserved(pages(45..55), "second");
    let frames = normalised(&map);
    use ReservedClass::{Firmware, Kernel, Late};
    assert_eq!(
        reserved(&frames),
        [
            (10..20, Late, "Boot loader"),
            (20..30, Firmware, "firmware"),
            (30..40, Kernel, "kernel"),
            (40..50, Firmware, "firmware"),
            (50..55, Firmware, "second"),
            (55..60, Late, "Boot loader"),
        ]
    );
    assert_eq!(free(&frames), [(0..10, 0), (60..100, 0)]);
}

#[test]
fn neighbours_of_one_class_and_name_are_one_reserved_range() {
    let map = MemoryMap::new()
        .ram(pages(0..100), NodeId::ZERO)
        .reserved(pages(30..40), "a")
        .reserved(pages(10..20), "a")
        .reserved(pages(20..35), "a")
        .reserved(pages(40..50), "b")
        .kernel(pages(50..60), "b");
    let ranges: Vec<_> = normalised(&map).reserved().map(|r| r.range).collect();
    assert_eq!(ranges, [10..40, 40..50, 50..60]);
}

#[test]
fn late_memory_is_ram_with_a_node_and_not_free() {
    let map = MemoryMap::new()
        .ram(pages(0..10), NodeId::ZERO)
        .ram(10 * PAGE..20 * PAGE + 100, node(1))
        .late(8 * PAGE + 5..12 * PAGE)
        .late(19 * PAGE..20 * PAGE + 100);
    let frames = normalised(&map);
    assert_eq!(free(&frames), [(0..8, 0), (12..19, 1)]);
    let late: Vec<_> = frames.reserved_in_ram().map(|(r, node)| (r.range, node.get())).collect();
    assert_eq!(late, [(8..10, 0), (10..12, 1), (19..20, 1)], "the partial page 20 is not ram");
}

/// A039.
#[test]
fn the_span_includes_holes_and_ram_pages_does_not() {
    let map = MemoryMap::new().ram(pages(1000..1100), NodeId::ZERO).ram(pages(3..7), node(2));
    let frames = normalised(&map);
    assert_eq!(frames.span(), 3..1100);
    assert_eq!(frames.ram_pages(), 104);
    assert_eq!(Normalised::new().span(), 0..0);
}

/// A002.
#[test]
fn page_sizes_from_4_to_64_kib_give_the_same_bytes() {
    let map = MemoryMap::new().ram(0..64 * MIB, NodeId::ZERO).reserved(MIB..2 * MIB, "x");
    for shift in [12, 13, 14, 16] {
        let frames = map.normalise(shift, order(10)).unwrap();
        assert_eq!(frames.ram_pages() << shift, 64 * MIB);
        assert_eq!(frames.reserved_pages() << shift, MIB);
    }
}

#[test]
fn extents_are_whole_blocks_and_bridge_holes_inside_them() {
    let map = MemoryMap::new()
        .ram(pages(1030..1100), NodeId::ZERO)
        .ram(pages(2000..2040), node(1))
        .ram(pages(2049..2050), NodeId::ZERO)
        .ram(pages(8191..8193), NodeId::ZERO);
    let frames = normalised(&map);
    assert_eq!(frames.extents().collect::<Vec<_>>(), [1024..3072, 7168..9216]);
    assert_eq!(frames.bridged_pages(), 0);
}

#[test]
fn a_sparse_tebibyte_has_descriptors_for_its_ram_only() {
    let mut map = MemoryMap::new();
    for bank in 0..16 {
        let start = bank * 64 * GIB;
        map = map.ram(start..start + 32 * MIB, node(bank as u32));
    }
    let map = map.ram(TIB - 4 * MIB..TIB, node(15));
    let frames = normalised(&map);
    let described: u64 = frames.extents().map(|extent| extent.end - extent.start).sum();
    assert_eq!(described, frames.ram_pages());
    assert_eq!(frames.span().end - frames.span().start, TIB / PAGE);
}

#[test]
fn the_smallest_gaps_are_bridged_where_there_are_too_many_extents() {
    // Block n of 2^2 pages lies at a distance that grows, so that the first gaps are the smallest.
    let starts: Vec<u64> = (0..80).map(|n| 4 * (n + n * n)).collect();
    for forward in [true, false] {
        let place = |start: u64| if forward { start } else { 40_000 - start };
        let mut map = MemoryMap::new();
        for &start in &starts {
            map = map.ram(pages(place(start)..place(start) + 4), NodeId::ZERO);
        }
        let frames = map.normalise(12, order(2)).unwrap();
        let extents: Vec<_> = frames.extents().collect();
        assert_eq!(extents.len(), MAX_EXTENTS);
        let first_17 = place(starts[0]).min(place(starts[16]));
        assert!(extents.contains(&(first_17..first_17 + starts[16] + 4)), "{extents:?}");
        assert_eq!(frames.bridged_pages(), starts[16] - 16 * 4);
    }
}

#[test]
fn the_first_mistake_of_a_chain_is_the_one_reported() {
    let map = MemoryMap::new()
        .ram(0..0, NodeId::ZERO)
        .reserved(Range { start: 9, end: 3 }, "inverted")
        .ram(0..GIB, NodeId::ZERO);
    let found = error(map);
    assert_eq!(found, MapError::Empty { kind: "ram", range: 0..0 });
    let inverted = error(MemoryMap::new().mapped(Range { start: 9, end: 3 })).to_string();
    assert_eq!(inverted, "mapped region 0x9..0x3 is empty: give an end above the start");
}

#[test]
fn one_region_too_many_is_an_error_with_that_region() {
    let mut map = MemoryMap::new();
    for n in 0..MAX_REGIONS as u64 {
        map = map.ram(pages(2 * n..2 * n + 1), NodeId::ZERO);
    }
    assert_eq!(normalised(&map).ram().len(), MAX_REGIONS);
    let found = error(map.late(0..PAGE));
    assert_eq!(found, MapError::TooManyRegions { kind: "late", range: 0..PAGE });
    assert!(found.to_string().contains("0x0..0x1000 is one more than the 256"), "{found}");
}

/// A023.
#[test]
fn ram_of_two_nodes_must_not_overlap() {
    let map = MemoryMap::new()
        .ram(0..GIB, NodeId::ZERO)
        .ram(2 * GIB..3 * GIB, node(1))
        .ram(GIB - 1..2 * GIB, node(1));
    let found = error(map);
    let (first, second) = ((0..GIB, NodeId::ZERO), (GIB - 1..2 * GIB, node(1)));
    assert_eq!(found, MapError::NodesOverlap { first, second });
    assert_eq!(
        found.to_string(),
        "ram region 0x0..0x40000000 of node 0 overlaps 0x3fffffff..0x80000000 of node 1: give each \
         byte one node"
    );
}

#[test]
fn ram_up_to_the_last_whole_block_is_taken_and_a_byte_more_is_an_error() {
    for (shift, largest) in [(12, 0), (12, 10), (13, 15), (14, 5), (16, 15), (32, 10)] {
        let block = order(largest).pages();
        let limit = ((u64::from(u32::MAX) / block) * block) << shift;
        let map = MemoryMap::new().ram(limit - (1 << shift)..limit, NodeId::ZERO);
        let frames = map.normalise(shift, order(largest)).unwrap();
        let end = limit >> shift;
        assert!(end - 1 <= Pfn::MAX.number());
        assert!(frames.extents().eq(core::iter::once(end - block..end)));

        let map = MemoryMap::new().ram(0..limit + 1, NodeId::ZERO);
        let found = map.normalise(shift, order(largest)).unwrap_err();
        let range = 0..limit + 1;
        assert_eq!(found, MapError::AboveLimit { range, limit, page_shift: shift });
        assert!(found.to_string().contains(&std::format!("{limit:#x}")), "{found}");
    }
}

#[test]
fn what_is_reserved_or_mapped_above_the_limit_is_cut() {
    let map = MemoryMap::new()
        .ram(0..GIB, NodeId::ZERO)
        .reserved(8 * TIB..u64::MAX, "across")
        .reserved(100 * TIB..u64::MAX, "above")
        .mapped(0..u64::MAX);
    let frames = normalised(&map);
    let limit = (1 << 32) - 1024;
    assert_eq!(reserved(&frames), [(8 * TIB / PAGE..limit, ReservedClass::Firmware, "across")]);
    assert!(frames.mapped().eq(core::iter::once(0..limit)));
}

#[test]
fn a_map_without_a_whole_page_of_ram_is_an_error() {
    for map in [
        MemoryMap::new(),
        MemoryMap::new().reserved(0..GIB, "all"),
        MemoryMap::new().ram(1..2 * PAGE - 1, NodeId::ZERO),
        MemoryMap::new().late(0..GIB),
    ] {
        assert_eq!(error(map), MapError::NoRam { page_shift: 12 });
    }
    let found = error(MemoryMap::new()).to_string();
    assert_eq!(found, "no ram: add a ram region that holds a whole page of 4096 bytes");
}

#[test]
fn late_memory_outside_ram_is_an_error_that_says_where() {
    let map = MemoryMap::new()
        .ram(MIB..2 * MIB, NodeId::ZERO)
        .ram(0..MIB, node(1))
        .ram(2 * MIB + 1..3 * MIB, NodeId::ZERO)
        .late(PAGE..3 * MIB);
    let found = error(map);
    assert_eq!(found, MapError::LateOutsideRam { range: PAGE..3 * MIB, at: 2 * MIB });
    assert!(found.to_string().contains("not ram from 0x200000"), "{found}");
}

#[test]
fn a_page_shift_that_no_machine_has_is_an_error() {
    let map = MemoryMap::new().ram(0..GIB, NodeId::ZERO);
    for page_shift in [33, 64, u32::MAX] {
        let found = map.normalise(page_shift, Order::LIMIT).unwrap_err();
        assert_eq!(found, MapError::PageShift { page_shift });
        assert!(found.to_string().starts_with(&std::format!("page shift {page_shift} is above")));
    }
}

#[test]
fn a_failed_normalise_leaves_its_target_alone() {
    let mut frames = normalised(&MemoryMap::new().ram(pages(1..9), NodeId::ZERO).mapped(0..GIB));
    let before = std::format!("{frames:?}");
    let bad = MemoryMap::new().ram(0..GIB, NodeId::ZERO).late(0..2 * GIB);
    assert!(bad.normalise_into(12, order(10), &mut frames).is_err());
    assert_eq!(std::format!("{frames:?}"), before);

    let good = MemoryMap::new().ram(pages(100..101), node(3));
    good.normalise_into(12, order(0), &mut frames).unwrap();
    assert_eq!(
        std::format!("{frames:?}"),
        std::format!("{:?}", good.normalise(12, order(0)).unwrap())
    );
}

#[test]
fn a_map_can_be_a_constant_and_both_forms_are_as_small_as_documented() {
    const MAP: MemoryMap = MemoryMap::new().ram(0..GIB, NodeId::ZERO).kernel(0..1, "kernel");
    assert_eq!(free(&normalised(&MAP)), [(1..GIB / PAGE, 0)]);
    assert!(size_of::<MemoryMap>() <= 11 << 10, "{}", size_of::<MemoryMap>());
    assert!(size_of::<Normalised>() <= 26 << 10, "{}", size_of::<Normalised>());
}

/// The list of reserved pieces is sized for this.
#[test]
fn regions_that_cut_each_other_most_often_fit() {
    let nested = MAX_REGIONS as u64 - 1;
    let mut map = MemoryMap::new().ram(pages(0..1000), NodeId::ZERO);
    for n in (0..nested).rev() {
        let name = if n % 2 == 0 { "even" } else { "odd" };
        map = map.reserved(pages(n..1000 - n), name);
    }
    let frames = normalised(&map);
    assert_eq!(frames.reserved().len(), 2 * nested as usize - 1);
    assert_eq!(frames.reserved_pages(), 1000);
    assert_eq!(frames.free_ranges().count(), 0);
}
