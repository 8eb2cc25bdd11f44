//! buddyinfo and pagetypeinfo.

use std::format;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::{MigrateType, Order, Zone, ZoneKind};

/// Each line's blocks of an order, times its pages, are the pages in that zone's free areas.
fn assert_sums<P: Platform>(mm: &Mm<P>) {
    let text = text!(buddyinfo, mm);
    let zones: Vec<&Zone> = mm.zones().iter().filter(|zone| zone.is_populated()).collect();
    assert_eq!(text.lines().count(), zones.len(), "{text}");
    for (line, zone) in text.lines().zip(zones) {
        let (head, blocks) = line.split_at("Node 0, zone   Normal".len());
        assert_eq!(head, format!("Node {}, zone {}", zone.node(), right(zone.name(), 8)));
        let blocks = numbers(blocks);
        assert_eq!(blocks.len(), mm.largest_order().index() + 1, "{line}");
        let pages: u64 = blocks.iter().enumerate().map(|(order, count)| count << order).sum();
        assert_eq!(pages, zone.free_pages(), "{line}");
    }
}

// A080, A322: before, amid and after work, at every page size.
fn sums_hold_amid_work<const SHIFT: u32>() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<SHIFT>(&mut ram);
    let fresh = text!(buddyinfo, &mm);
    assert_sums(&mm);
    let held = work(&mm);
    assert_sums(&mm);
    assert_ne!(text!(buddyinfo, &mm), fresh);
    for (page, order) in held {
        // SAFETY: `work` allocated it.
        unsafe { mm.__free_pages(page, order) };
    }
    mm.drain_all_pages();
    assert_sums(&mm);
    assert_eq!(text!(buddyinfo, &mm), fresh);
    mm.verify().unwrap();
}

#[test]
fn buddyinfo_adds_up_to_the_free_areas_with_pages_of_4_kib() {
    sums_hold_amid_work::<12>();
}

#[test]
fn buddyinfo_adds_up_to_the_free_areas_with_pages_of_8_16_and_64_kib() {
    sums_hold_amid_work::<13>();
    sums_hold_amid_work::<14>();
    sums_hold_amid_work::<16>();
}

// A080, A092: one line for each node and zone with pages; none for those without (A022).
#[test]
fn buddyinfo_has_a_line_for_each_zone_of_each_node() {
    let mut ram = ram(64 * MIB);
    let mm = two_nodes(&mut ram);
    work(&mm);
    let text = text!(buddyinfo, &mm);
    let columns = " ######".repeat(11);
    let template = format!(
        "Node 0, zone      DMA{columns} \n\
         Node 0, zone   Normal{columns} \n\
         Node 1, zone   Normal{columns} \n\
         Node 1, zone  Movable{columns} \n"
    );
    assert_shape(&text, &lines(&template));
    assert_sums(&mm);
    assert_eq!(mm.zones().len(), 6);
}

// A058, A080: the columns are the machine's orders.
#[test]
fn buddyinfo_has_a_column_for_each_order_of_the_machine() {
    let mut ram = ram(16 * MIB);
    let map = MemoryMap::new().ram(0..16 * MIB, NodeId::ZERO);
    let mm: Mm<Desk<'_>> = boot(&mut ram, map, Setup::new().largest_order(Order::new(5).unwrap()));
    assert_shape(
        &text!(buddyinfo, &mm),
        &[format!("Node 0, zone   Normal{} ", " ######".repeat(6))],
    );
    assert_sums(&mm);
}

// Each type's blocks add up to buddyinfo's line, and the page blocks to those that the zone has.
#[test]
fn pagetypeinfo_splits_buddyinfo_by_migrate_type() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<12>(&mut ram);
    work(&mm);
    let text = text!(pagetypeinfo, &mm);
    let columns = " ######".repeat(11);
    let mut template = String::from("Page block order: 9\nPages per block:  512\n\n");
    template += "Free pages count per migrate type at order  ";
    for order in 0..11 {
        template += &format!("{} ", right(&format!("{order}"), 6));
    }
    template += "\n";
    for zone in ["     DMA", "   DMA32", " Movable"] {
        for name in ["   Unmovable", "     Movable", " Reclaimable"] {
            template += &format!("Node    0, zone {zone}, type {name}{columns} \n");
        }
    }
    template += "\nNumber of blocks type     Unmovable      Movable  Reclaimable \n";
    for zone in ["     DMA", "   DMA32", " Movable"] {
        template += &format!("Node 0, zone {zone}{} \n", " ############".repeat(3));
    }
    assert_shape(&text, &lines(&template));

    let buddyinfo = text!(buddyinfo, &mm);
    let typed: Vec<Vec<u64>> = text.lines().filter(|l| l.contains("type  ")).map(numbers).collect();
    let typed: Vec<&[u64]> =
        typed.iter().filter(|row| row.len() == 12).map(|row| &row[1..]).collect();
    let zones = mm.zones().iter().filter(|zone| zone.is_populated());
    let mut kinds_of_types = 0;
    for ((line, rows), zone) in buddyinfo.lines().zip(typed.chunks(3)).zip(zones) {
        for (order, blocks) in numbers(line)[1..].iter().enumerate() {
            assert_eq!(rows.iter().map(|row| row[order]).sum::<u64>(), *blocks, "{line}");
            for (row, migrate_type) in rows.iter().zip(MigrateType::ALL) {
                let order = Order::new(order as u32).unwrap();
                assert_eq!(row[order.index()], mm.free_blocks_of(zone, order, migrate_type));
            }
        }
        kinds_of_types += rows.iter().filter(|row| row.iter().any(|blocks| *blocks != 0)).count();
        let head = format!("Node 0, zone {} ", right(zone.name(), 8));
        let counts = text.lines().rfind(|line| line.starts_with(&head)).unwrap();
        let blocks: u64 = numbers(&counts[head.len()..]).iter().sum();
        assert_eq!(blocks, zone.spanned_pages().div_ceil(512), "{counts}");
    }
    assert!(kinds_of_types > 3, "work took blocks of one type only:\n{text}");
}

// A page block is the machine's, and so is what it says at larger pages.
#[test]
fn pagetypeinfo_says_the_machines_page_block() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<14>(&mut ram);
    let text = text!(pagetypeinfo, &mm);
    assert!(text.starts_with("Page block order: 3\nPages per block:  8\n\n"), "{text}");
    let zone = mm.zone(NodeId::ZERO, ZoneKind::Movable).unwrap();
    assert_eq!(zone.spanned_pages(), 128 * 8);
    // All of it: the manager's own tables, which never move, lie below the zone.
    let line = text.lines().rfind(|line| line.starts_with("Node 0, zone  Movable")).unwrap();
    assert_eq!(numbers(line), [0, 0, 128, 0]);
}

// A081: against the shares that buddyinfo's own numbers make.
#[test]
fn unusable_index_is_the_share_of_free_memory_in_smaller_blocks() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<12>(&mut ram);
    let held = work(&mm);
    let (blocks, shares) = (text!(buddyinfo, &mm), text!(unusable_index, &mm));
    assert_eq!(blocks.lines().count(), shares.lines().count());
    let mut between = 0;
    for (blocks, shares) in blocks.lines().zip(shares.lines()) {
        let head = "Node 0, zone   Normal ".len();
        assert_eq!(blocks[..head], shares[..head]);
        let blocks = numbers(&blocks[head..]);
        let pages = |blocks: &[u64]| -> u64 {
            blocks.iter().enumerate().map(|(order, count)| count << order).sum()
        };
        let wanted: String = (0..blocks.len())
            .map(|order| pages(&blocks[..order]) * 1000 / pages(&blocks))
            .inspect(|share| between += u32::from((1..1000).contains(share)))
            .map(|share| format!("{}.{:03} ", share / 1000, share % 1000))
            .collect();
        assert_eq!(shares[head..], wanted);
    }
    assert!(between > 2, "{shares}");
    for (page, order) in held {
        // SAFETY: `work` allocated it.
        unsafe { mm.__free_pages(page, order) };
    }
}
