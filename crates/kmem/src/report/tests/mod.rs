//! The reports of small machines, read back and held against the accessors.

mod blocks;
mod high;
mod pagemap;
mod regions;
mod runs;
mod sizes;
mod slabs;

use std::format;
use std::string::String;
use std::vec::Vec;

use crate::platform::Platform;
use crate::platform::desk::Desk;
use crate::{
    GFP_DMA, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Gfp, MemoryMap, Mm, NodeId, Page, PhysAddr, Setup,
};

const MIB: u64 = 1 << 20;

/// Room for RAM up to this address on a [`Desk`].
fn ram(end: u64) -> Vec<u8> {
    std::vec![0; (end + (1 << 16)) as usize]
}

/// One node, 64 MiB: DMA up to 16, DMA32 up to 48, an empty Normal, Movable from 48. Each is some
/// page blocks at 4 KiB pages; at 64 KiB, where a page block has 32 MiB, they are of order 3.
fn pc<const SHIFT: u32>(ram: &mut [u8]) -> Mm<Desk<'_, SHIFT>> {
    let map = MemoryMap::new()
        .ram(0..64 * MIB, NodeId::ZERO)
        .reserved(0xa_0000..0x10_0000, "Reserved")
        .kernel(0x10_0000..0x28_0000, "Kernel code");
    let block = if SHIFT > 12 { 3 } else { 9 };
    let setup = Setup::new()
        .dma_limit(PhysAddr::new(16 * MIB))
        .dma32_limit(PhysAddr::new(4096 * MIB))
        .movable(NodeId::ZERO, 16 * MIB)
        .page_block_order(crate::Order::new(block).unwrap());
    boot(ram, map, setup)
}

/// Two nodes with a hole in each: 0 to 8 and 12 to 24 MiB on node 0, 32 to 40 and 44 to 64 on
/// node 1, whose last 8 are Movable.
fn two_nodes(ram: &mut [u8]) -> Mm<Desk<'_>> {
    let far = NodeId::new(1).unwrap();
    let map = MemoryMap::new()
        .ram(44 * MIB..64 * MIB, far)
        .ram(12 * MIB..24 * MIB, NodeId::ZERO)
        .ram(32 * MIB..40 * MIB, far)
        .ram(0..8 * MIB, NodeId::ZERO);
    let setup = Setup::new().dma_limit(PhysAddr::new(16 * MIB)).movable(far, 8 * MIB).cpus(2);
    boot(ram, map, setup)
}

fn boot<const SHIFT: u32>(ram: &mut [u8], map: MemoryMap, setup: Setup) -> Mm<Desk<'_, SHIFT>> {
    // SAFETY: the platform and the manager stay with the thread of one test.
    let mm = Mm::new(unsafe { Desk::new(ram) });
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup).unwrap() };
    mm
}

/// Allocates of all kinds and gives part of it back, so that blocks are split, some pages are on
/// the CPU's lists and some with callers. Answers what callers have.
fn work<P: Platform>(mm: &Mm<P>) -> Vec<(Page, u32)> {
    let mut held = Vec::new();
    for gfp in [GFP_KERNEL, GFP_DMA, GFP_HIGHUSER_MOVABLE, GFP_KERNEL | Gfp::RECLAIMABLE] {
        for order in [0, 0, 0, 1, 2, 3, 5] {
            held.push((mm.alloc_pages(gfp, order).unwrap(), order));
        }
    }
    let mut turn = 0;
    held.retain(|&(page, order)| {
        turn += 1;
        if turn % 2 == 0 {
            // SAFETY: the block was allocated above and is forgotten here.
            unsafe { mm.__free_pages(page, order) };
        }
        turn % 2 != 0
    });
    held
}

/// What a report writes.
macro_rules! text {
    ($report:ident, $mm:expr $(, $of:expr)?) => {{
        let mut text = std::string::String::new();
        $crate::report::$report($mm $(, $of)?, &mut text).unwrap();
        text
    }};
}
use text;

/// The numbers of a line, in order, without those that are part of a word.
fn numbers(line: &str) -> Vec<u64> {
    let words = line.split(|c: char| c.is_whitespace() || "(),:".contains(c));
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Whether a line is the template, in which `###` is a number at the right of so many columns, or
/// wider, and `*` one of any width.
fn fits(line: &str, template: &str) -> bool {
    let (mut line, mut template) = (line, template);
    while let Some(first) = template.chars().next() {
        let columns = template.len() - template.trim_start_matches('#').len();
        let (number, rest) = match first {
            '#' | '*' => {
                let blanks = line.len() - line.trim_start_matches(' ').len();
                let blanks = blanks.min(columns.saturating_sub(1));
                let digits = line[blanks..].chars().take_while(char::is_ascii_digit).count();
                let padded = blanks == 0 || blanks + digits == columns;
                if digits == 0 || !padded || blanks + digits < columns {
                    return false;
                }
                (blanks + digits, columns.max(1))
            }
            other if line.starts_with(other) => (other.len_utf8(), other.len_utf8()),
            _ => return false,
        };
        line = &line[number..];
        template = &template[rest..];
    }
    line.is_empty()
}

/// Holds every line against its template.
#[track_caller]
fn assert_shape(text: &str, templates: &[String]) {
    for (line, template) in text.lines().zip(templates) {
        assert!(fits(line, template), "not {template:?}: {line:?}");
    }
    assert_eq!(text.lines().count(), templates.len(), "lines of:\n{text}");
    assert!(text.is_empty() || text.ends_with('\n'));
}

/// A template a line of `text`.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(String::from).collect()
}

/// The number behind a name at the start of a line.
#[track_caller]
fn value(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.split([' ', ':']).next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in:\n{text}"));
    numbers(&line[name.len()..])[0]
}

#[test]
fn templates_tell_widths_apart() {
    assert!(fits("a      7 b", "a ###### b"));
    assert!(fits("a 1234567 b", "a ###### b"));
    assert!(fits("a 17 b", "a * b"));
    for line in
        ["a     7 b", "a       7 b", "a 7      b", "a      7 b ", "a        b", "x      7 b"]
    {
        assert!(!fits(line, "a ###### b"), "{line:?}");
    }
    assert!(!fits("a  17 b", "a * b"));
}

#[test]
fn before_boot_every_report_is_empty() {
    let mut ram = ram(0);
    // SAFETY: one thread uses it.
    let mm = Mm::new(unsafe { Desk::<12>::new(&mut ram) });
    assert_eq!(text!(buddyinfo, &mm), "");
    assert_eq!(text!(pagetypeinfo, &mm), "");
    assert_eq!(text!(zoneinfo, &mm), "");
    assert_eq!(text!(meminfo, &mm), "");
    assert_eq!(text!(vmstat, &mm), "");
    assert_eq!(text!(iomem, &mm), "");
    assert_eq!(text!(pagemap_text, &mm), "");
    assert_eq!(text!(pageruns, &mm), "");
    assert_eq!(text!(page, &mm, crate::Pfn::new(1).unwrap()), "");
}

/// A writer with room for so many bytes.
struct Short(usize);

impl core::fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0 = self.0.checked_sub(text.len()).ok_or(core::fmt::Error)?;
        Ok(())
    }
}

#[test]
fn a_writer_that_is_full_ends_a_report_with_its_error() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<12>(&mut ram);
    macro_rules! check {
        ($($report:ident)*) => {$(
            let length = text!($report, &mm).len();
            for room in (0..length).step_by(7).chain([length - 1]) {
                let result = crate::report::$report(&mm, &mut Short(room));
                assert!(result.is_err(), "{} with {room} of {length}", stringify!($report));
            }
            // An unsized writer does as well.
            let writer: &mut dyn core::fmt::Write = &mut Short(length);
            crate::report::$report(&mm, writer).unwrap();
        )*};
    }
    check!(buddyinfo pagetypeinfo zoneinfo meminfo vmstat iomem pagemap_text pageruns);
}

/// `name` at the right of `width` columns.
fn right(name: &str, width: usize) -> String {
    format!("{name:>width$}")
}
