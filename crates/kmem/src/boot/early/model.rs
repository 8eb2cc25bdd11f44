//! Random maps and carvings in lock step with a model that marks one byte and one frame at a time.

use std::format;
use std::ops::Range;
use std::string::String;
use std::vec::Vec;
use std::{env, vec};

use super::super::map::{MAX_EXTENTS, MapError, MemoryMap, Normalised, ReservedClass};
use super::EarlyAlloc;
use crate::{NodeId, Order, PfnRange};

/// How many maps that are accepted a run compares.
const MAPS: u64 = 24_000;

/// Pages of eight bytes: ranges hit every offset in a page and the model stays small.
const SHIFT: u32 = 3;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// splitmix64: a full-period generator in four lines; the statistics hardly matter here.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A range that is not empty, in `space`, of at most `longest`; often of whole pages.
    fn range(&mut self, space: &Range<u64>, longest: u64) -> Range<u64> {
        let start = space.start + self.below(space.end - space.start);
        let end = space.end.min(start + 1 + self.below(longest));
        let page = 1 << SHIFT;
        let whole = start / page * page..end.next_multiple_of(page);
        if self.one_in(2) && space.start <= whole.start && whole.end <= space.end {
            whole
        } else {
            start..end
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Ram(u32),
    Reserved(&'static str),
    Kernel(&'static str),
    Late,
    Mapped,
}

type Regions = Vec<(Range<u64>, Kind)>;

/// Mostly sensible maps of a space of `bytes`: each node has its share of the space.
fn regions(random: &mut Random, bytes: u64) -> Regions {
    let nodes = 1 + random.below(3);
    let share = bytes / nodes;
    let (count, longest) = match random.below(60) {
        0 => (1, 16),
        1..9 => (120, 24),
        _ => (1 + random.below(8), bytes / 3),
    };
    let mut all = Regions::new();
    for _ in 0..count {
        let node = random.below(nodes);
        let anywhere = random.one_in(60);
        let space = if anywhere { 0..bytes } else { node * share..(node + 1) * share };
        all.push((random.range(&space, longest), Kind::Ram(node as u32)));
    }
    for _ in 0..random.below(count + 2) {
        let name = NAMES[random.below(NAMES.len() as u64) as usize];
        let (ram, _) = all[random.below(count) as usize].clone();
        let region = match random.below(12) {
            0..5 => (random.range(&(0..bytes), longest), Kind::Reserved(name)),
            5..8 => (random.range(&(0..bytes), longest), Kind::Kernel(name)),
            8..10 => (random.range(&ram, longest), Kind::Late),
            10 => (random.range(&(0..bytes), bytes), Kind::Mapped),
            _ if random.one_in(20) => (random.range(&(0..bytes), longest), Kind::Late),
            _ => (ram, Kind::Mapped),
        };
        all.push(region);
    }
    for last in (1..all.len()).rev() {
        all.swap(last, random.below(last as u64 + 1) as usize);
    }
    all
}

fn build(regions: &Regions) -> MemoryMap {
    regions.iter().fold(MemoryMap::new(), |map, (range, kind)| match (range.clone(), *kind) {
        (range, Kind::Ram(node)) => map.ram(range, NodeId::new(node).unwrap()),
        (range, Kind::Reserved(name)) => map.reserved(range, name),
        (range, Kind::Kernel(name)) => map.kernel(range, name),
        (range, Kind::Late) => map.late(range),
        (range, Kind::Mapped) => map.mapped(range),
    })
}

/// What is known of one frame.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Frame {
    node: Option<u32>,
    reserved: Option<(ReservedClass, &'static str)>,
    mapped: bool,
}

impl Frame {
    fn is_free(&self) -> bool {
        self.node.is_some() && self.reserved.is_none()
    }
}

/// The frames of a map, marked one by one; or the mistake in it.
fn model(regions: &Regions, frames: u64) -> Result<Vec<Frame>, &'static str> {
    let bytes = (frames << SHIFT) as usize;
    let mut node: Vec<Option<u32>> = vec![None; bytes];
    let mut mapped = vec![false; bytes];
    for (range, kind) in regions {
        for at in range.start as usize..range.end as usize {
            match *kind {
                Kind::Ram(new) if node[at].is_some_and(|old| old != new) => {
                    return Err("nodes overlap");
                }
                Kind::Ram(new) => node[at] = Some(new),
                Kind::Mapped => mapped[at] = true,
                _ => {}
            }
        }
    }
    let all_mapped = regions.iter().all(|(_, kind)| *kind != Kind::Mapped);
    let mut model = vec![Frame::default(); frames as usize];
    for (number, frame) in model.iter_mut().enumerate() {
        let page = number << SHIFT..(number + 1) << SHIFT;
        let first = node[page.start];
        frame.node = first.filter(|_| node[page.clone()].iter().all(|&n| n == first));
        frame.mapped = all_mapped || mapped[page].iter().all(|&m| m);
    }
    if model.iter().all(|frame| frame.node.is_none()) {
        return Err("no ram");
    }
    for (range, kind) in regions {
        let (class, name) = match *kind {
            Kind::Reserved(name) => (ReservedClass::Firmware, name),
            Kind::Kernel(name) => (ReservedClass::Kernel, name),
            Kind::Late => (ReservedClass::Late, "Boot loader"),
            _ => continue,
        };
        for at in range.clone() {
            if class == ReservedClass::Late && node[at as usize].is_none() {
                return Err("late outside ram");
            }
            let reserved = &mut model[(at >> SHIFT) as usize].reserved;
            use ReservedClass::{Firmware, Kernel, Late};
            match (*reserved, class) {
                (None, _)
                | (Some((Late, _)), Kernel | Firmware)
                | (Some((Firmware, _)), Kernel) => {
                    *reserved = Some((class, name));
                }
                _ => {}
            }
        }
    }
    Ok(model)
}

/// The runs of frames that give the same `Some`.
fn runs<T: PartialEq>(model: &[Frame], of: impl Fn(&Frame) -> Option<T>) -> Vec<(PfnRange, T)> {
    let mut runs: Vec<(PfnRange, T)> = Vec::new();
    for (number, frame) in (0..).zip(model) {
        let Some(value) = of(frame) else { continue };
        match runs.last_mut() {
            Some((range, last)) if range.end == number && *last == value => range.end += 1,
            _ => runs.push((number..number + 1, value)),
        }
    }
    runs
}

/// The extents by the book: mark blocks, then bridge one smallest gap after the other.
fn extents(model: &[Frame], order: Order) -> (Vec<PfnRange>, u64) {
    let block = order.pages();
    let mut extents: Vec<PfnRange> = Vec::new();
    for (number, chunk) in (0..).zip(model.chunks(block as usize)) {
        if chunk.iter().all(|frame| frame.node.is_none()) {
            continue;
        }
        let range = number * block..(number + 1) * block;
        match extents.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => extents.push(range),
        }
    }
    let mut bridged = 0;
    while extents.len() > MAX_EXTENTS {
        let gap = |left: usize| extents[left + 1].start - extents[left].end;
        let left = (0..extents.len() - 1).min_by_key(|&left| gap(left)).unwrap();
        bridged += gap(left);
        extents[left].end = extents[left + 1].end;
        extents.remove(left + 1);
    }
    (extents, bridged)
}

/// Compares everything that a map says with the model, and checks what must hold of any map.
fn compare(map: &Normalised, model: &[Frame], order: Order) {
    let free = |f: &Frame| f.node.filter(|_| f.is_free());
    let flat = |(range, node): (PfnRange, NodeId)| (range, node.get());
    assert_eq!(map.ram().map(flat).collect::<Vec<_>>(), runs(model, |f| f.node));
    assert_eq!(map.free_ranges().map(flat).collect::<Vec<_>>(), runs(model, free));
    let reserved: Vec<_> = map.reserved().map(|r| (r.range, (r.class, r.name))).collect();
    assert_eq!(reserved, runs(model, |f| f.reserved));
    assert_eq!((map.extents().collect(), map.bridged_pages()), extents(model, order));

    let mut seen = vec![0; model.len()];
    let reserved_ram = map.reserved_in_ram().map(|(r, node)| (r.range, node));
    for (range, node) in map.free_ranges().chain(reserved_ram) {
        for number in range {
            seen[number as usize] += 1;
            assert_eq!(model[number as usize].node, Some(node.get()), "frame {number}");
        }
    }
    for (number, frame) in model.iter().enumerate() {
        assert_eq!(seen[number], i32::from(frame.node.is_some()), "owners of frame {number}");
        let described = map.extents().any(|extent| extent.contains(&(number as u64)));
        assert!(described || frame.node.is_none(), "frame {number} has no descriptor");
    }
    let mut end = None;
    for extent in map.extents() {
        assert!(end < Some(extent.start) && extent.start < extent.end, "{extent:?} after {end:?}");
        assert!(extent.start % order.pages() == 0 && extent.end % order.pages() == 0);
        end = Some(extent.end);
    }
    let count = |of: fn(&Frame) -> bool| model.iter().filter(|frame| of(frame)).count() as u64;
    assert_eq!(map.ram_pages(), count(|f| f.node.is_some()));
    assert_eq!(map.reserved_pages(), count(|f| f.node.is_some() && f.reserved.is_some()));
    assert!(model[map.span().start as usize].node.is_some());
    assert!(model[map.span().end as usize - 1].node.is_some());
}

/// The place that a search frame by frame finds.
fn find(
    model: &[Frame],
    pages: u64,
    align: u64,
    within: &PfnRange,
    node: Option<u32>,
    top_down: bool,
) -> Option<u64> {
    let fits = |&start: &u64| {
        let range = start..start + pages;
        if start % align != 0 || range.end > model.len() as u64 {
            return false;
        }
        let first = model[start as usize].node;
        (node.is_none() || node == first)
            && range.clone().all(|number| {
                let frame = &model[number as usize];
                within.contains(&number) && frame.is_free() && frame.mapped && frame.node == first
            })
    };
    let mut starts = 0..model.len() as u64;
    if top_down { starts.rev().find(fits) } else { starts.find(fits) }
}

fn carve(random: &mut Random, map: &mut Normalised, model: &mut [Frame]) -> String {
    let frames = model.len() as u64;
    let mut early = EarlyAlloc::new(map);
    let name = NAMES[random.below(2) as usize];
    let longest = if random.one_in(2) { 4 } else { frames / 4 };
    let pages = 1 + random.below(longest);
    let align = if random.one_in(4) { 1 + random.below(9) } else { 1 << random.below(6) };
    let within = match random.below(3) {
        0 => random.below(frames)..random.below(frames + 1),
        _ => 0..u64::MAX,
    };
    let prefer = NodeId::new(random.below(4) as u32).filter(|_| random.one_in(2));
    let top_down = random.one_in(2);

    let expected = prefer
        .and_then(|node| find(model, pages, align, &within, Some(node.get()), top_down))
        .or_else(|| find(model, pages, align, &within, None, top_down))
        .map(|start| start..start + pages);
    let carved = early.alloc(name, pages, align, within.clone(), prefer, top_down);
    assert_eq!(
        carved, expected,
        "{pages} pages aligned to {align} within {within:?}, {prefer:?}, top down {top_down}"
    );
    let Some(range) = carved else { return String::from("nothing") };
    for number in range.clone() {
        model[number as usize].reserved = Some((ReservedClass::Metadata, name));
    }
    format!("{range:?}")
}

/// Names the run that failed, whichever assertion it was.
struct Report(u64);

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::eprintln!("repeat this map with KMEM_SEED={:#x}", self.0);
        }
    }
}

/// Runs one map; says what came of it and how many carvings succeeded.
fn run(seed: u64) -> (&'static str, u64) {
    let _report = Report(seed);
    let mut random = Random(seed);
    let order = Order::new(random.below(7) as u32).unwrap();
    // A multiple of every block, so that the model has whole blocks only.
    let frames = (128 << random.below(4)) + random.below(2) * 64;
    let regions = regions(&mut random, frames << SHIFT);
    let result = build(&regions).normalise(SHIFT, order);
    let (mut map, mut model) = match (result, model(&regions, frames)) {
        (Ok(map), Ok(model)) => (map, model),
        (Err(found), Err(expected)) => {
            let found = match found {
                MapError::NodesOverlap { .. } => "nodes overlap",
                MapError::NoRam { .. } => "no ram",
                MapError::LateOutsideRam { .. } => "late outside ram",
                _ => "another error",
            };
            assert_eq!(found, expected);
            return (found, 0);
        }
        (found, expected) => panic!("{found:?} where the model has {expected:?}: {regions:?}"),
    };
    compare(&map, &model, order);
    let mut carved = 0;
    for _ in 0..random.below(12) {
        carved += u64::from(carve(&mut random, &mut map, &mut model) != "nothing");
    }
    compare(&map, &model, order);
    (if map.bridged_pages() > 0 { "bridged" } else { "fine" }, carved)
}

/// A012, A023, A039.
#[test]
fn random_maps_and_carvings_agree_with_marking_frames_one_by_one() {
    let given = env::var("KMEM_SEED").ok();
    let seed = given.map(|text| {
        u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("KMEM_SEED is hexadecimal")
    });
    if let Some(seed) = seed {
        run(seed);
        return;
    }
    // Another part of the sequence for each run.
    let first = u64::from(std::process::id()) << 32;
    std::println!("seeds from {first:#x}");
    let mut counts = std::collections::BTreeMap::new();
    let (mut accepted, mut carved, mut seed) = (0, 0, first);
    while accepted < MAPS {
        let (outcome, carvings) = run(seed);
        *counts.entry(outcome).or_insert(0) += 1;
        accepted += u64::from(matches!(outcome, "fine" | "bridged"));
        carved += carvings;
        seed += 1;
    }
    std::println!("{counts:?}, {carved} carvings");
    for outcome in ["fine", "bridged", "nodes overlap", "no ram", "late outside ram"] {
        assert!(counts.get(outcome).is_some_and(|&n| n > 0), "too few {outcome}: {counts:?}");
    }
    assert!(carved > accepted, "{carved} carvings");
}
