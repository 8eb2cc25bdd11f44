//! zoneinfo, meminfo and vmstat.

use std::format;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::{Zone, ZoneKind};

/// A zone's part of zoneinfo, its first line included.
fn part<'t>(text: &'t str, zone: &Zone) -> &'t str {
    let head = format!("Node {}, zone {}\n", zone.node(), right(zone.name(), 8));
    let from = text.find(&head).unwrap_or_else(|| panic!("no {head:?} in:\n{text}"));
    let rest = &text[from + head.len()..];
    let end = rest.find("Node ").unwrap_or(rest.len());
    &text[from..from + head.len() + end]
}

/// The numbers behind the label in a zone's part.
#[track_caller]
fn row(part: &str, label: &str) -> Vec<u64> {
    let line = part.lines().find(|line| line.trim_start().starts_with(label));
    numbers(&line.unwrap_or_else(|| panic!("no {label} in:\n{part}")).trim_start()[label.len()..])
}

const SIZES: &str = "  pages free     *
        min      *
        low      *
        high     *
        spanned  *
        present  *
        managed  *
        protection: (*, *, *, *)
";

const COUNTERS: &str = "      nr_free_pages *
      nr_free_pages_blocks *
      numa_hit     *
      numa_miss    *
      numa_foreign *
      numa_local   *
      numa_other   *
  pagesets
    cpu: 0
              count:    *
              high:     *
              batch:    *
  start_pfn:           *
";

const NODE: &str = "  per-node stats
      nr_slab_reclaimable *
      nr_slab_unreclaimable *
";

// A022: an empty zone is shown as far as its protection.
#[test]
fn zoneinfo_has_each_zone_and_the_nodes_counters_once() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<12>(&mut ram);
    work(&mm);
    let template = [
        "Node 0, zone      DMA\n",
        &[NODE, SIZES, COUNTERS].concat(),
        "Node 0, zone    DMA32\n",
        &[SIZES, COUNTERS].concat(),
        "Node 0, zone   Normal\n",
        SIZES,
        "Node 0, zone  Movable\n",
        &[SIZES, COUNTERS].concat(),
    ];
    let text = text!(zoneinfo, &mm);
    assert_shape(&text, &lines(&template.concat()));
    let empty = part(&text, mm.zone(NodeId::ZERO, ZoneKind::Normal).unwrap());
    for label in ["pages free", "spanned", "present", "managed"] {
        assert_eq!(row(empty, label), [0], "{empty}");
    }
}

// A026, A037, A039, A085, A092.
#[test]
fn zoneinfo_says_what_the_zones_say() {
    let mut ram = ram(64 * MIB);
    let mm = two_nodes(&mut ram);
    let held = work(&mm);
    mm.set_page_slab(held[0].0, true);
    let text = text!(zoneinfo, &mm);
    let mut with_lists = 0;
    for zone in mm.zones() {
        let part = part(&text, zone);
        let marks = zone.watermarks();
        assert_eq!(row(part, "pages free"), [zone.free_pages()]);
        assert_eq!(row(part, "min"), [marks.min]);
        assert_eq!(row(part, "low"), [marks.low]);
        assert_eq!(row(part, "high"), [marks.high]);
        assert_eq!(row(part, "spanned"), [zone.spanned_pages()]);
        assert_eq!(row(part, "present"), [zone.present_pages()]);
        assert_eq!(row(part, "managed"), [zone.managed_pages()]);
        let kinds = [ZoneKind::Dma, ZoneKind::Normal, ZoneKind::Movable];
        assert_eq!(row(part, "protection"), kinds.map(|kind| zone.lowmem_reserve(kind)));
        if !zone.is_populated() {
            assert!(!part.contains("start_pfn"));
            continue;
        }
        assert!(0 < marks.min && marks.min < marks.low && marks.low < marks.high, "{part}");
        let counted = mm.zone_counters(zone);
        assert_eq!(row(part, "start_pfn"), [zone.start_pfn()]);
        assert_eq!(row(part, "nr_free_pages "), [zone.free_pages()]);
        assert_eq!(row(part, "numa_hit"), [counted.numa_hit]);
        assert_eq!(row(part, "numa_local"), [counted.numa_local]);
        assert_eq!(row(part, "numa_other"), [counted.numa_other]);
        let set = mm.pagesets(zone).next().unwrap();
        assert_eq!(row(part, "count"), [set.count]);
        assert_eq!(row(part, "high: "), [set.capacity]);
        assert_eq!(row(part, "batch"), [u64::from(set.batch)]);
        with_lists += u64::from(set.count > 0);
    }
    assert!(with_lists > 0, "{text}");

    // The holes at 8 to 12 and 40 to 44 MiB are spanned and not present.
    let zone = |node: u32, kind| mm.zone(NodeId::new(node).unwrap(), kind).unwrap();
    for (zone, start, spanned, present) in
        [(zone(0, ZoneKind::Dma), 0, 4096, 3072), (zone(1, ZoneKind::Normal), 8192, 6144, 5120)]
    {
        let part = part(&text, zone);
        assert_eq!(row(part, "start_pfn"), [start]);
        assert_eq!(row(part, "spanned"), [spanned]);
        assert_eq!(row(part, "present"), [present]);
    }
    assert!(zone(0, ZoneKind::Dma).lowmem_reserve(ZoneKind::Normal) > 0);
    // The node's slab pages stand in its first zone with pages.
    assert_eq!(text.matches("per-node stats").count(), 2);
    assert_eq!(row(part(&text, zone(0, ZoneKind::Dma)), "nr_slab_reclaimable"), [1]);
    assert_eq!(row(part(&text, zone(1, ZoneKind::Normal)), "nr_slab_reclaimable"), [0]);
}

// A CPU's page sets are shown while it is online.
#[test]
fn zoneinfo_has_the_page_sets_of_cpus_that_are_online() {
    let mut ram = ram(64 * MIB);
    let mm = two_nodes(&mut ram);
    let other = crate::CpuId::new(1).unwrap();
    let shown = || text!(zoneinfo, &mm).matches("    cpu: 1\n              count:    0\n").count();
    assert_eq!(shown(), 0);
    mm.cpu_online(other).unwrap();
    assert_eq!(shown(), mm.zones().iter().filter(|zone| zone.is_populated()).count());
    // SAFETY: that CPU does nothing meanwhile.
    unsafe { mm.cpu_offline(other) }.unwrap();
    assert_eq!(shown(), 0);
}

// A page block has order 9 here: blocks of orders 9 and 10 hold whole ones.
#[test]
fn nr_free_pages_blocks_is_what_lies_in_whole_page_blocks() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<12>(&mut ram);
    work(&mm);
    let buddyinfo = text!(buddyinfo, &mm);
    let mut sum = 0;
    for (line, zone) in buddyinfo.lines().zip(mm.zones().iter().filter(|z| z.is_populated())) {
        let blocks = &numbers(line)[1..];
        let whole = blocks[9] * 512 + blocks[10] * 1024;
        assert_eq!(row(part(&text!(zoneinfo, &mm), zone), "nr_free_pages_blocks"), [whole]);
        sum += whole;
    }
    assert_eq!(value(&text!(vmstat, &mm), "nr_free_pages_blocks"), sum);
    assert!(0 < sum && sum < value(&text!(vmstat, &mm), "nr_free_pages"));
}

const MEMINFO: &str = "MemTotal:       ######## kB
MemFree:        ######## kB
MemAvailable:   ######## kB
Slab:           ######## kB
SReclaimable:   ######## kB
SUnreclaim:     ######## kB
KernelStack:    ######## kB
";

// A002, A018, A026, A037, A086.
fn meminfo_is_right<const SHIFT: u32>() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<SHIFT>(&mut ram);
    let kib = |pages: u64| pages * (1 << SHIFT) / 1024;
    let fresh = text!(meminfo, &mm);
    assert_shape(&fresh, &lines(MEMINFO));
    assert_eq!(value(&fresh, "MemTotal"), kib(mm.managed_pages()));
    // Nothing is lost: what is not managed is reserved, or a table.
    assert_eq!(value(&fresh, "MemTotal"), 65536 - kib(mm.frames().unwrap().reserved_pages()));
    assert_eq!(value(&fresh, "MemFree"), value(&fresh, "MemTotal"));

    let held = work(&mm);
    mm.set_page_slab(held[0].0, true);
    let unshrinkable = held.iter().find(|(_, order)| *order == 2).unwrap();
    mm.set_page_slab(unshrinkable.0, false);
    let text = text!(meminfo, &mm);
    assert_shape(&text, &lines(MEMINFO));
    let pages: u64 = held.iter().map(|(_, order)| 1 << order).sum();
    assert_eq!(value(&text, "MemFree"), kib(mm.managed_pages() - pages));
    assert_eq!(value(&text, "MemFree"), kib(mm.free_page_count()));
    assert_eq!(value(&text, "Slab"), kib(5));
    assert_eq!(value(&text, "SReclaimable"), kib(1));
    assert_eq!(value(&text, "SUnreclaim"), kib(4));
    mm.clear_page_slab(held[0].0);
    mm.clear_page_slab(unshrinkable.0);

    // MemAvailable, from what zoneinfo prints.
    let zoneinfo = text!(zoneinfo, &mm);
    let kept: u64 = mm
        .zones()
        .iter()
        .map(|zone| {
            let part = part(&zoneinfo, zone);
            let most = row(part, "protection").into_iter().max().unwrap();
            (row(part, "high")[0] + most).min(row(part, "managed")[0])
        })
        .sum();
    assert!(kept > 0);
    assert_eq!(value(&text, "MemAvailable"), value(&text, "MemFree") - kib(kept));

    // MemFree is the zones' free pages and those on the lists.
    let listed: u64 =
        zoneinfo.lines().filter(|l| l.contains("count:")).map(|l| numbers(l)[0]).sum();
    assert!(listed > 0, "{zoneinfo}");
    let in_zones = value(&text!(vmstat, &mm), "nr_free_pages");
    assert_eq!(value(&text, "MemFree"), kib(in_zones + listed));

    for (page, order) in held {
        // SAFETY: `work` allocated it.
        unsafe { mm.__free_pages(page, order) };
    }
    // Back to where it was, though pages are on the lists.
    assert_eq!(text!(meminfo, &mm), fresh);
    mm.drain_all_pages();
    assert_eq!(text!(meminfo, &mm), fresh);
}

#[test]
fn meminfo_is_in_kib_with_pages_of_4_kib() {
    meminfo_is_right::<12>();
}

#[test]
fn meminfo_is_in_kib_with_pages_of_8_16_and_64_kib() {
    meminfo_is_right::<13>();
    meminfo_is_right::<14>();
    meminfo_is_right::<16>();
}

// A machine with less free than its reserves has nothing available, and says so.
#[test]
fn nothing_is_available_below_the_reserves() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<12>(&mut ram);
    while mm.alloc_page(GFP_HIGHUSER_MOVABLE).is_ok() {}
    while mm.alloc_page(GFP_KERNEL).is_ok() {}
    let text = text!(meminfo, &mm);
    assert!(value(&text, "MemFree") > 0, "{text}");
    assert_eq!(value(&text, "MemAvailable"), 0, "{text}");
}

// A018: pages that callers had and gave back, by kind of zone.
#[test]
fn vmstat_counts_pages_that_came_and_went() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<12>(&mut ram);
    let names = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(' ').next().unwrap().into()).collect()
    };
    let fresh = text!(vmstat, &mm);
    assert_eq!(
        names(&fresh),
        [
            "nr_free_pages",
            "nr_free_pages_blocks",
            "numa_hit",
            "numa_miss",
            "numa_foreign",
            "numa_local",
            "numa_other",
            "nr_slab_reclaimable",
            "nr_slab_unreclaimable",
            "nr_memmap_boot_pages",
            "pgalloc_dma",
            "pgalloc_dma32",
            "pgalloc_normal",
            "pgalloc_movable",
            "allocstall_dma",
            "allocstall_dma32",
            "allocstall_normal",
            "allocstall_movable",
            "pgfree",
        ]
    );
    let templates: Vec<String> = names(&fresh).iter().map(|name| format!("{name} *")).collect();
    assert_shape(&fresh, &templates);
    for name in &names(&fresh)[10..] {
        assert_eq!(value(&fresh, name), 0);
    }

    let held = work(&mm);
    let kept: u64 = held.iter().map(|(_, order)| 1 << order).sum();
    let text = text!(vmstat, &mm);
    assert_shape(&text, &templates);
    let each = 3 + 2 + 4 + 8 + 32;
    assert_eq!(value(&text, "pgalloc_dma"), each);
    assert_eq!(value(&text, "pgalloc_dma32"), 2 * each);
    assert_eq!(value(&text, "pgalloc_normal"), 0);
    assert_eq!(value(&text, "pgalloc_movable"), each);
    assert_eq!(4 * each - value(&text, "pgfree"), kept);
    assert_eq!(value(&text, "numa_hit"), mm.counters().numa_hit);
    assert!(value(&text, "numa_hit") > 0);
    assert_eq!(value(&text, "numa_local"), value(&text, "numa_hit"));
}
