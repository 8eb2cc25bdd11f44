//! The runs of frames, and what is told of one frame.

use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::{CpuId, Pfn};

/// A line of the runs.
#[derive(Debug)]
struct Run {
    frames: core::ops::Range<u64>,
    sign: char,
    class: String,
    place: (u32, String),
    more: String,
}

fn runs<const SHIFT: u32>(mm: &Mm<Desk<'_, SHIFT>>) -> Vec<Run> {
    let text = text!(pageruns, mm);
    let mut lines = text.lines();
    let version = format!("pageruns - version: 1, page size: {}", 1 << SHIFT);
    assert_eq!(lines.next(), Some(version.as_str()));
    assert!(lines.next().unwrap().starts_with("# <pfn> <pages> "));
    let read = |line: &str| {
        let (before, more) = line.split_once(" :").unwrap();
        let [first, pages, sign, class, node, zone] =
            before.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let first: u64 = first.parse().unwrap();
        let pages: u64 = pages.parse().unwrap();
        assert!(pages > 0, "{line:?}");
        Run {
            frames: first..first + pages,
            sign: sign.parse().unwrap(),
            class: class.into(),
            place: (node.parse().unwrap(), zone.into()),
            more: more.trim_start().into(),
        }
    };
    lines.map(read).collect()
}

/// Holds the runs against the picture's legend and against each frame looked at by itself.
fn assert_agrees<const SHIFT: u32>(mm: &Mm<Desk<'_, SHIFT>>) {
    let runs = runs(mm);
    let mut sums: BTreeMap<char, u64> = BTreeMap::new();
    for pair in runs.windows(2) {
        let [one, next] = pair else { unreachable!() };
        assert!(one.frames.end <= next.frames.start, "{one:?} {next:?}");
        let joins = one.frames.end == next.frames.start;
        let same = (&one.class, &one.place, &one.more) == (&next.class, &next.place, &next.more);
        assert!(!joins || !same, "one run in two: {one:?} {next:?}");
    }
    for run in &runs {
        *sums.entry(run.sign).or_default() += run.frames.end - run.frames.start;
        for frame in run.frames.clone() {
            let page = text!(page, mm, Pfn::new(frame).unwrap());
            let answer = |what: &str| {
                let line = page.lines().find(|line| line.split(':').next() == Some(what));
                line.map(|line| line[12..].trim())
            };
            let class = answer("class").unwrap_or("no RAM");
            let expected = match run.sign {
                '.' => "free",
                'C' => "on a CPU's list (CPU 0)",
                'S' => "slab",
                'U' if run.more == "by=vmalloc" => "in use (vmalloc)",
                'U' if run.more == "by=private" => "in use (private)",
                'U' => "in use (kernel)",
                'K' => "kernel image",
                'M' => "the manager's tables",
                'R' => "reserved",
                'L' => "to be released late",
                _ => "no RAM",
            };
            assert_eq!(class, expected, "{frame}: {run:?}");
            if run.sign != '-' {
                assert_eq!(answer("zone"), Some(run.place.1.as_str()));
                assert_eq!(answer("node"), Some(format!("{}", run.place.0).as_str()));
            }
            if let Some(order) = run.more.strip_prefix("order=") {
                let block = answer("block").unwrap();
                assert!(block.starts_with(&format!("order {order}, ")), "{block} {run:?}");
                assert!(block.ends_with(", free"), "{block}");
            }
        }
    }
    // Of the picture the numbers of its legend.
    let picture = text!(pagemap_text, mm);
    let (legend, _) = picture.split_once("\n\nNode ").unwrap();
    for line in legend.lines().skip(3) {
        let (label, sizes) = line[14..].split_at(20);
        let sign = match label.trim_end() {
            "all RAM" => continue,
            "free" => '.',
            "on a CPU's list" => 'C',
            "slab" => 'S',
            "in use" => 'U',
            "kernel image" => 'K',
            "the manager's tables" => 'M',
            "reserved" => 'R',
            "to be released late" => 'L',
            _ => '-',
        };
        assert_eq!(sums.remove(&sign), Some(numbers(sizes)[0]), "{line:?}");
    }
    assert!(sums.is_empty(), "not in the legend: {sums:?}");
    // Free blocks by order are those of the zones.
    for zone in mm.zones() {
        for order in super::super::orders(mm) {
            let is = |run: &&Run| {
                let place = (run.place.0, run.place.1.as_str());
                place == (zone.node().get(), zone.name())
                    && run.more == format!("order={}", order.get())
            };
            let pages: u64 = runs.iter().filter(is).map(|r| r.frames.end - r.frames.start).sum();
            assert_eq!(pages, mm.free_blocks(zone, order) << order.get(), "{order:?}");
        }
    }
}

// A012, A092: on all kinds of small machines, fresh, at work, and given back.
#[test]
fn runs_agree_with_the_picture_and_with_each_frame() {
    let mut ram = [(); 3].map(|()| ram(64 * MIB));
    let [one, two, three] = &mut ram;
    fn all<const SHIFT: u32>(mm: &Mm<Desk<'_, SHIFT>>) {
        assert_agrees(mm);
        let held = work(mm);
        let objects = [40, 256, 3000].map(|size| mm.kmalloc(size, GFP_KERNEL).unwrap());
        assert_agrees(mm);
        for (page, order) in held {
            // SAFETY: the block was allocated by `work`.
            unsafe { mm.__free_pages(page, order) };
        }
        // SAFETY: allocated above.
        objects.into_iter().for_each(|object| unsafe { mm.kfree(object.as_ptr()) });
        assert_agrees(mm);
    }
    all(&pc::<12>(one));
    all(&pc::<16>(two));
    all(&two_nodes(three));
}

// A012, A018, A058: what is told of a page is what it is.
#[test]
fn a_page_is_told_of() {
    let mut ram = ram(64 * MIB);
    let mm = pc::<12>(&mut ram);
    let block = mm.alloc_pages(GFP_KERNEL | Gfp::COMP, 3).unwrap();
    let first = block.pfn().number();
    let inside = text!(page, &mm, Pfn::new(first + 5).unwrap());
    let last = first + 7;
    for line in [
        format!("frame:       {} ({:#x})", first + 5, first + 5),
        format!("address:     {:#x}-{:#x}", (first + 5) << 12, ((first + 6) << 12) - 1),
        format!("block:       order 3, frames {first}-{last}, held, compound"),
        "class:       in use (kernel)".into(),
        "references:  1".into(),
        "node:        0".into(),
    ] {
        assert!(inside.lines().any(|own| own == line), "{line:?}: {inside}");
    }
    // SAFETY: allocated above.
    unsafe { mm.__free_pages(block, 3) };
    let object = mm.kmalloc(200, GFP_KERNEL).unwrap();
    let slab = mm.virt_to_page(crate::VirtAddr::from_ptr(object.as_ptr())).unwrap();
    let told = text!(page, &mm, slab.pfn());
    assert!(told.contains("class:       slab\n"), "{told}");
    let name = told.lines().find_map(|line| line.strip_prefix("cache:       kmalloc-")).unwrap();
    assert!(name.parse::<u64>().unwrap() >= 200, "{told}");
    // SAFETY: allocated above.
    unsafe { mm.kfree(object.as_ptr()) };
    let large = mm.kmalloc(3 << 16, GFP_KERNEL).unwrap();
    let page = mm.virt_to_page(crate::VirtAddr::from_ptr(large.as_ptr())).unwrap();
    let told = text!(page, &mm, page.pfn());
    assert!(told.contains("pages of its own"), "{told}");
    // SAFETY: allocated above.
    unsafe { mm.kfree(large.as_ptr()) };
    let listed = mm.alloc_page(GFP_KERNEL).unwrap();
    // SAFETY: allocated above.
    unsafe { mm.__free_pages(listed, 0) };
    let told = text!(page, &mm, listed.pfn());
    assert!(told.contains(&format!("(CPU {})", CpuId::BOOT.get())), "{told}");
    assert!(told.contains(", on a CPU's list\n") && told.contains("references:  0\n"), "{told}");
    // Far from all RAM there is nothing to be told.
    assert_eq!(text!(page, &mm, Pfn::new(1 << 30).unwrap()), "");
}
