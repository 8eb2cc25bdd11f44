//! iomem.

use std::format;
use std::string::String;
use std::vec::Vec;

use super::*;

/// The entries of a text: indentation, first and last byte, name.
fn entries(text: &str) -> Vec<(usize, u64, u64, &str)> {
    text.lines()
        .map(|line| {
            let indent = line.len() - line.trim_start().len();
            let (range, name) = line[indent..].split_once(" : ").unwrap();
            let (start, end) = range.split_once('-').unwrap();
            assert!(start.len() >= 8 && end.len() >= 8, "{line:?}");
            let number = |digits| u64::from_str_radix(digits, 16).unwrap();
            (indent, number(start), number(end), name)
        })
        .collect()
}

/// Without the manager's tables, whose place boot finds.
fn given(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains(" : kmem "));
    lines.map(|line| format!("{line}\n")).collect()
}

// A012, A039: firmware cuts RAM, the kernel lies in it, holes are in no entry.
#[test]
fn iomem_shows_ram_and_what_is_reserved_of_it() {
    let mut ram = ram(64 * MIB);
    let far = NodeId::new(1).unwrap();
    let map = MemoryMap::new()
        .reserved(0x40_0000_0000..0x40_0010_0000, "Frame buffer")
        .ram(0x10_0000..0x180_0000, NodeId::ZERO)
        .ram(0x180_0000..0x400_0000, far)
        .ram(0..0x9_fc00, NodeId::ZERO)
        .reserved(0x9_fc00..0x10_0000, "Reserved")
        .kernel(0x17f_0000..0x181_0123, "Kernel code")
        .kernel(0x182_0000..0x182_1000, "Kernel data")
        .reserved(0x300_0000..0x300_2000, "ACPI Tables")
        .late(0x100_0000..0x100_4000)
        .reserved(0xfec0_0000..0xfec0_0400, "IOAPIC 0");
    let mm: Mm<Desk<'_>> = boot(&mut ram, map, Setup::new());
    let text = text!(iomem, &mm);
    assert_eq!(
        given(&text),
        "00000000-0009efff : System RAM\n\
         0009f000-000fffff : Reserved\n\
         00100000-02ffffff : System RAM\n  \
           01000000-01003fff : Boot loader\n  \
           017f0000-01810fff : Kernel code\n  \
           01820000-01820fff : Kernel data\n\
         03000000-03001fff : ACPI Tables\n\
         03002000-03ffffff : System RAM\n\
         fec00000-fec00fff : IOAPIC 0\n\
         4000000000-40000fffff : Frame buffer\n"
    );

    // What was released is RAM like any other.
    let released = PhysAddr::new(0x100_1000)..PhysAddr::new(0x100_2000);
    // SAFETY: nobody uses the range.
    assert_eq!(unsafe { mm.release_late(released) }, Ok(1));
    let text = text!(iomem, &mm);
    let late: Vec<_> = entries(&text).into_iter().filter(|e| e.3 == "Boot loader").collect();
    assert_eq!(
        late,
        [(2, 0x100_0000, 0x100_0fff, "Boot loader"), (2, 0x100_2000, 0x100_3fff, "Boot loader")]
    );
    let total = value(&text!(meminfo, &mm), "MemTotal");
    let rest = PhysAddr::new(0x100_2000)..PhysAddr::new(0x100_4000);
    // SAFETY: nobody uses the range.
    assert_eq!(unsafe { mm.release_late(rest) }, Ok(2));
    let first = PhysAddr::new(0x100_0000)..PhysAddr::new(0x100_1000);
    // SAFETY: nobody uses the range.
    assert_eq!(unsafe { mm.release_late(first) }, Ok(1));
    assert!(!text!(iomem, &mm).contains("Boot loader"));
    assert_eq!(value(&text!(meminfo, &mm), "MemTotal"), total + 12);
}

// A013: the tables are entries below RAM, and as large as the manager says.
fn tables_are_shown<const SHIFT: u32>() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<SHIFT>(&mut ram);
    let text = text!(iomem, &mm);
    let entries = entries(&text);
    let tables = entries.iter().filter(|(_, _, _, name)| name.starts_with("kmem "));
    let mut bytes = 0;
    for (indent, start, end, name) in tables {
        assert_eq!(*indent, 2, "{name}");
        let outer = entries.iter().find(|e| e.0 == 0 && e.1 <= *start && *end <= e.2);
        assert_eq!(outer.unwrap().3, "System RAM");
        bytes += end + 1 - start;
    }
    assert_eq!(bytes, mm.metadata_bytes());
    let memmap = entries.iter().filter(|(_, _, _, name)| *name == "kmem memmap");
    let memmap: u64 = memmap.map(|(_, start, end, _)| end + 1 - start).sum();
    assert!(memmap > 0 && memmap < bytes);
    assert_eq!(value(&text!(vmstat, &mm), "nr_memmap_boot_pages"), memmap >> SHIFT);

    // Entries of one depth ascend and do not touch one another's bytes; RAM is all there.
    for indent in [0, 2] {
        let depth: Vec<_> = entries.iter().filter(|e| e.0 == indent).collect();
        assert!(depth.windows(2).all(|pair| pair[0].2 < pair[1].1), "{text}");
    }
    let top = entries.iter().filter(|e| e.0 == 0);
    assert_eq!(top.map(|(_, start, end, _)| end + 1 - start).sum::<u64>(), 64 * MIB);
}

#[test]
fn iomem_shows_the_managers_own_tables() {
    tables_are_shown::<12>();
    tables_are_shown::<13>();
    tables_are_shown::<14>();
    tables_are_shown::<16>();
}
