//! The picture of physical memory.

use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::mm::Owner;
use crate::page::Block;
use crate::{Pfn, ZoneKind};

/// One cell as it is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Drawn {
    node: NodeId,
    zone: ZoneKind,
    address: u64,
    sign: char,
}

/// A picture, read back.
struct Picture {
    /// Pages of a cell.
    cell: u64,
    /// Pages by label.
    legend: BTreeMap<String, u64>,
    drawn: Vec<Drawn>,
    rows: usize,
}

impl Picture {
    fn read<const SHIFT: u32>(mm: &Mm<Desk<'_, SHIFT>>) -> Picture {
        let text = text!(pagemap_text, mm);
        for line in text.lines() {
            assert!(line.len() <= 80 && line.is_ascii(), "{line:?}");
            assert!(!line.ends_with(' '), "{line:?}");
        }
        let cell = numbers(&text)[0];
        let (legend, zones) = text.split_once("\n\nNode ").unwrap();
        let legend = legend.lines().skip(3).map(|line| {
            let (label, sizes) = line[14..].split_at(20);
            (String::from(label.trim_end()), numbers(sizes)[0])
        });
        let legend = legend.collect();
        let (mut drawn, mut rows) = (Vec::new(), 0);
        for zone in zones.split("\n\nNode ") {
            let (head, body) = zone.split_once('\n').unwrap();
            let node = NodeId::new(head.split(',').next().unwrap().parse().unwrap()).unwrap();
            let name = head.split([' ', ':']).filter(|word| !word.is_empty()).nth(2).unwrap();
            let zone = ZoneKind::ALL.into_iter().find(|kind| kind.name() == name).unwrap();
            for line in body.lines().filter(|line| !line.starts_with(' ')) {
                let (address, signs) = line.split_once(' ').unwrap();
                let first = u64::from_str_radix(address, 16).unwrap();
                assert!((1..=64).contains(&signs.len()), "{line:?}");
                for (at, sign) in (0..).zip(signs.chars()) {
                    let address = first + at * (cell << SHIFT);
                    drawn.push(Drawn { node, zone, address, sign });
                }
                rows += 1;
            }
        }
        Picture { cell, legend, drawn, rows }
    }

    fn pages(&self, label: &str) -> u64 {
        self.legend.get(label).copied().unwrap_or(0)
    }

    /// The sign of the cell that a page lies in.
    fn sign_of<const SHIFT: u32>(&self, mm: &Mm<Desk<'_, SHIFT>>, page: Page) -> char {
        let address = mm.page_to_phys(page).get();
        let zone = mm.page_zone(page).unwrap();
        let of_zone = self.drawn.iter().filter(|d| (d.node, d.zone) == (zone.node(), zone.kind()));
        let at = of_zone.rev().find(|drawn| drawn.address <= address).unwrap();
        assert!(address < at.address + (self.cell << SHIFT));
        at.sign
    }
}

/// The class of a frame: its sign in a cell of its own, and its label.
fn class(owner: Owner) -> (char, &'static str) {
    match owner {
        Owner::Free => ('.', "free"),
        Owner::FreeOnLists(_) => ('C', "on a CPU's list"),
        Owner::Slab => ('S', "slab"),
        Owner::KernelImage => ('K', "kernel image"),
        Owner::Metadata => ('M', "the manager's tables"),
        Owner::Reserved => ('R', "reserved"),
        Owner::Late => ('L', "to be released late"),
        Owner::Hole => ('-', "no RAM of the zone"),
        _ => ('U', "in use"),
    }
}

/// Holds each cell, and the legend, against the frames looked at one by one.
fn assert_agrees<const SHIFT: u32>(mm: &Mm<Desk<'_, SHIFT>>) {
    let picture = Picture::read(mm);
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for zone in mm.zones() {
        let span = zone.start_pfn()..zone.start_pfn() + zone.spanned_pages();
        let mut cells: BTreeMap<u64, Vec<(char, &str)>> = BTreeMap::new();
        for frame in span {
            let pfn = Pfn::new(frame).unwrap();
            let descriptor = mm.memmap().unwrap().get(pfn);
            let is_in =
                |d: &crate::page::Descriptor| d.zone() == zone.index() && d.block() != Block::Hole;
            let owner = if descriptor.is_some_and(is_in) { mm.owner(pfn) } else { Owner::Hole };
            let (sign, label) = class(owner);
            cells.entry(frame / picture.cell).or_default().push((sign, label));
            *counted.entry(label.into()).or_default() += 1;
            if sign != '-' {
                *counted.entry("all RAM".into()).or_default() += 1;
            }
        }
        for (cell, frames) in cells {
            let address = (cell * picture.cell) << SHIFT;
            let place = (zone.node(), zone.kind(), address);
            let drawn = picture.drawn.iter().find(|d| (d.node, d.zone, d.address) == place);
            if frames.iter().all(|(sign, _)| *sign == '-') {
                assert!(drawn.is_none_or(|drawn| drawn.sign == '-'), "{drawn:?}");
                continue;
            }
            let drawn = drawn.unwrap_or_else(|| panic!("no cell for {address:x}"));
            // From the legend's last to its first: of as many pages each, the former wins.
            let mut most = ('-', 0);
            for sign in "LRMKUSC.".chars() {
                let pages = frames.iter().filter(|(of, _)| *of == sign).count();
                if pages > most.1 {
                    most = (sign, pages);
                }
            }
            let expected = match most {
                (sign, pages) if pages == frames.len() => sign,
                ('.', _) => ':',
                (sign, _) => sign.to_ascii_lowercase(),
            };
            assert_eq!(drawn.sign, expected, "{drawn:?} has {frames:?}");
        }
    }
    assert_eq!(picture.legend, counted);
    let present: u64 = mm.zones().iter().map(crate::Zone::present_pages).sum();
    assert_eq!(picture.pages("all RAM"), present);
    assert_eq!(picture.pages("on a CPU's list"), mm.listed_pages());
    assert_eq!(picture.pages("the manager's tables") << SHIFT, mm.metadata_bytes());
    assert!(picture.rows <= 40, "{} rows", picture.rows);
}

// A012, A039: the text itself. The tables are kept to the last MiB, as large as they are.
#[test]
fn a_small_machine_is_drawn_in_signs() {
    let mut ram = ram(16 * MIB);
    let map = MemoryMap::new()
        .ram(0..0xa_0000, NodeId::ZERO)
        .ram(MIB..6 * MIB - 0x1_1000, NodeId::ZERO)
        .ram(8 * MIB..16 * MIB, NodeId::ZERO)
        .reserved(0x1000..0x4000, "Reserved")
        .kernel(MIB..MIB + 0x9000, "Kernel code")
        .late(8 * MIB..8 * MIB + 0x4000)
        .mapped(15 * MIB..16 * MIB);
    let mm: Mm<Desk<'_>> = boot(&mut ram, map, Setup::new().dma_limit(PhysAddr::new(MIB)));
    let tables = mm.metadata_bytes() >> 12;
    assert!((3..128).contains(&tables), "two rows at most: {tables} pages");
    // An odd one shares its cell with a free page.
    let odd = if tables.is_multiple_of(2) { ' ' } else { 'm' };
    let row = format!("{}{}", if odd == 'm' { "m" } else { "" }, "M".repeat(tables as usize / 2));
    let row = format!("{row:.>64}");
    let size = |kib: u64| match kib {
        0..1024 => format!("{kib} KiB"),
        _ if kib.is_multiple_of(1024) => format!("{} MiB", kib / 1024),
        _ => format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024),
    };
    let free = 3471 - 3 - 9 - 4 - tables;
    let expected = format!(
        "Each sign is a cell of 2 pages, 8 KiB, by what its RAM is:\n\
         \n\
         wholly mostly                            pages\n   \
            .      :   free                 {free:>11}  {}\n   \
            K      k   kernel image                   9  36 KiB\n   \
            M      {odd}   the manager's tables {tables:>11}  {}\n   \
            R      r   reserved                       3  12 KiB\n   \
            L          to be released late            4  16 KiB\n              \
                       all RAM                     3471  13.5 MiB\n   \
            -          no RAM of the zone           529  2.0 MiB\n\
         \n\
         Node 0, zone      DMA: 00000000-0009ffff, 640 KiB\n\
         00000000 rR..............................................................\n\
         00080000 ................\n\
         \n\
         Node 0, zone   Normal: 00100000-00ffffff, 12.9 MiB\n\
         00100000 KKKKk...........................................................\n\
         00580000 .......................................................:--------\n         \
                  (2 MiB without RAM of the zone)\n\
         00800000 LL..............................................................\n\
         00f80000 {row}\n",
        size(4 * free),
        size(4 * tables),
    );
    let text = text!(pagemap_text, &mm);
    let all_free = ".".repeat(64);
    let (dull, lines): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.split_once(' ').is_some_and(|row| row.1 == all_free));
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(lines, expected);
    assert_eq!(dull.len(), 9 + 13);
    assert_agrees(&mm);

    let late = PhysAddr::new(8 * MIB)..PhysAddr::new(8 * MIB + 0x4000);
    // SAFETY: nobody uses the range.
    assert_eq!(unsafe { mm.release_late(late) }, Ok(4));
    let text = text!(pagemap_text, &mm);
    assert!(!text.contains('L') && !text.contains("late"), "{text}");
    assert!(text.contains(&format!("\n00800000 {all_free}\n")), "{text}");
    assert_agrees(&mm);
}

// A012: what is taken is seen where it lies, and is gone when it is given back.
#[test]
fn a_page_changes_its_cell() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<12>(&mut ram);
    let fresh = text!(pagemap_text, &mm);
    let empty = Picture::read(&mm);
    let cell = empty.cell.ilog2();

    let block = mm.alloc_pages(GFP_KERNEL, cell).unwrap();
    assert_eq!(empty.sign_of(&mm, block), '.');
    let picture = Picture::read(&mm);
    assert_eq!(picture.sign_of(&mm, block), 'U');
    assert_eq!(picture.pages("in use"), picture.cell);
    // SAFETY: the block was allocated above.
    unsafe { mm.__free_pages(block, cell) };
    mm.drain_all_pages();
    assert_eq!(text!(pagemap_text, &mm), fresh);

    // One page takes others with it to the CPU's lists.
    let page = mm.alloc_page(GFP_KERNEL).unwrap();
    let picture = Picture::read(&mm);
    assert_eq!(picture.pages("in use"), 1);
    assert_eq!(picture.pages("on a CPU's list"), mm.listed_pages());
    assert!(picture.pages("on a CPU's list") > 0);
    assert_ne!(picture.sign_of(&mm, page), '.');
    mm.drain_all_pages();
    assert_eq!(Picture::read(&mm).sign_of(&mm, page), ':');
    // SAFETY: the page was allocated above.
    unsafe { mm.__free_pages(page, 0) };
    mm.drain_all_pages();
    assert_eq!(text!(pagemap_text, &mm), fresh);
}

// A018: pages of slabs are told from others in use, and are as many as are counted.
#[test]
fn slabs_are_told_from_other_pages_in_use() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<12>(&mut ram);
    let objects: Vec<_> = (0..2000).map(|_| mm.kmalloc(256, GFP_KERNEL).unwrap()).collect();
    let picture = Picture::read(&mm);
    assert!(picture.pages("slab") >= 125, "{} pages", picture.pages("slab"));
    assert_eq!(picture.pages("slab"), mm.counters().slab_unreclaimable);
    assert!(picture.drawn.iter().any(|drawn| drawn.sign == 'S'));
    assert_agrees(&mm);
    for object in objects {
        // SAFETY: allocated above.
        unsafe { mm.kfree(object.as_ptr()) };
    }
}

// A012, A039: every cell and every sum, at each page size, before and amid work.
fn agrees_amid_work<const SHIFT: u32>() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<SHIFT>(&mut ram);
    assert_agrees(&mm);
    work(&mm);
    let picture = Picture::read(&mm);
    assert!(picture.pages("in use") > 0 && picture.pages("on a CPU's list") > 0);
    assert_agrees(&mm);
}

#[test]
fn cells_and_legend_agree_with_the_frames_with_pages_of_4_kib() {
    agrees_amid_work::<12>();
}

#[test]
fn cells_and_legend_agree_with_the_frames_with_pages_of_8_16_and_64_kib() {
    agrees_amid_work::<13>();
    agrees_amid_work::<14>();
    agrees_amid_work::<16>();
}

// A092: zones follow each other by address, each with its node; holes are left out or drawn.
#[test]
fn nodes_and_holes_are_drawn() {
    let mut ram = ram(64 * MIB);
    let mm = two_nodes(&mut ram);
    work(&mm);
    assert_agrees(&mm);
    let text = text!(pagemap_text, &mm);
    let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("Node ")).collect();
    assert_eq!(
        heads,
        [
            "Node 0, zone      DMA: 00000000-00ffffff, 12 MiB",
            "Node 0, zone   Normal: 01000000-017fffff, 8 MiB",
            "Node 1, zone   Normal: 02000000-037fffff, 20 MiB",
            "Node 1, zone  Movable: 03800000-03ffffff, 8 MiB",
        ]
    );
    assert_eq!(text.matches("(4 MiB without RAM of the zone)").count(), 2, "{text}");
}

// Nodes that take turns: a zone's picture leaves the other node's frames out.
#[test]
fn frames_of_another_node_are_not_the_zones() {
    let mut ram = ram(64 * MIB);
    let far = NodeId::new(1).unwrap();
    let map = (0..64).fold(MemoryMap::new(), |map, mib| {
        let node = if mib % 2 == 0 { NodeId::ZERO } else { far };
        map.ram(mib * MIB..(mib + 1) * MIB, node)
    });
    let mm: Mm<Desk<'_>> = boot(&mut ram, map, Setup::new());
    work(&mm);
    assert_agrees(&mm);
    let picture = Picture::read(&mm);
    assert_eq!(picture.pages("all RAM"), (64 * MIB) >> 12);
    assert_eq!(picture.pages("no RAM of the zone"), (2 * 31 * MIB) >> 12);
    for drawn in &picture.drawn {
        let is_theirs = (drawn.address / MIB).is_multiple_of(2) == (drawn.node == NodeId::ZERO);
        assert_eq!(drawn.sign == '-', !is_theirs, "{drawn:?}");
    }
}

// The smallest cells with which it fits in 40 rows.
#[test]
fn cells_are_as_small_as_fit_in_forty_rows() {
    // A row of cells of one page is 256 KiB.
    for (quarters, cell, rows) in [(16, 1, 16), (40, 1, 40), (41, 2, 21), (80, 2, 40), (81, 4, 21)]
    {
        let end = quarters * MIB / 4;
        let mut ram = ram(end);
        let map = MemoryMap::new().ram(0..end, NodeId::ZERO);
        let mm: Mm<Desk<'_>> = boot(&mut ram, map, Setup::new());
        let picture = Picture::read(&mm);
        assert_eq!((picture.cell, picture.rows), (cell, rows), "{end:#x} bytes");
    }
}
