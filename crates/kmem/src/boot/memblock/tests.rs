//! A memory map kept in order, in lock step with a model that marks one byte at a time.

use std::string::String;
use std::vec::Vec;
use std::{env, format, vec};

use super::*;
use crate::Order;

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn range(&mut self, space: u64, longest: u64) -> Range<u64> {
        let start = self.below(space);
        start..space.min(start + 1 + self.below(longest))
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const SPACE: u64 = 400;
/// Pages of eight bytes.
const SHIFT: u32 = 3;

/// What is known of one byte.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Byte {
    node: Option<u32>,
    reserved: Option<(ReservedClass, &'static str)>,
    mapped: bool,
}

type Model = Vec<Byte>;

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

/// A random map, and what each byte of it is.
fn map(random: &mut Random) -> (MemoryMap, Model) {
    let mut map = MemoryMap::new();
    let mut model = vec![Byte::default(); SPACE as usize];
    for number in 0..1 + random.below(3) as u32 {
        let range = random.range(SPACE, SPACE / 2);
        let free = |at: u64| model[at as usize].node.is_none();
        // Each byte has one node.
        if let Some(end) = range.clone().find(|at| !free(*at)).or(Some(range.end))
            && range.start < end
        {
            map = map.ram(range.start..end, node(number));
            (range.start..end).for_each(|at| model[at as usize].node = Some(number));
        }
    }
    let lay = |model: &mut Model, range: Range<u64>, class, name| {
        for at in range {
            let byte = &mut model[at as usize];
            if byte.reserved.is_none_or(|(there, _)| class < there) {
                byte.reserved = Some((class, name));
            }
        }
    };
    for _ in 0..random.below(6) {
        let range = random.range(SPACE, 40);
        let name = NAMES[random.below(3) as usize];
        if random.below(2) == 0 {
            map = map.reserved(range.clone(), name);
            lay(&mut model, range, ReservedClass::Firmware, name);
        } else {
            map = map.kernel(range.clone(), name);
            lay(&mut model, range, ReservedClass::Kernel, name);
        }
    }
    for _ in 0..random.below(3) {
        let range = random.range(SPACE, 40);
        if range.clone().all(|at| model[at as usize].node.is_some()) {
            map = map.late(range.clone());
            lay(&mut model, range, ReservedClass::Late, "Boot loader");
        }
    }
    let mapped = random.below(3);
    for _ in 0..mapped {
        let range = random.range(SPACE, SPACE);
        map = map.mapped(range.clone());
        range.for_each(|at| model[at as usize].mapped = true);
    }
    if mapped == 0 {
        model.iter_mut().for_each(|byte| byte.mapped = true);
    }
    (map, model)
}

/// Where the model would put it.
fn place(model: &Model, wanted: &Wanted) -> Option<u64> {
    let fits = |start: u64| {
        let end = start + wanted.size;
        let bytes = model.get(start as usize..end as usize)?;
        let on = bytes.first()?.node?;
        let all = bytes.iter().all(|b| b.node == Some(on) && b.reserved.is_none() && b.mapped);
        let inside = wanted.within.start <= start && end <= wanted.within.end;
        (all && inside && start.is_multiple_of(wanted.align)).then_some(on)
    };
    let all: Vec<(u64, u32)> =
        (0..SPACE).filter_map(|start| fits(start).map(|on| (start, on))).collect();
    let best = |preferred: bool| {
        let is_on = |(_, on): &&(u64, u32)| {
            !preferred || wanted.prefer.is_some_and(|node| node.get() == *on)
        };
        let mut places = all.iter().filter(is_on).map(|(start, _)| *start);
        if wanted.top_down { places.next_back() } else { places.next() }
    };
    best(true).or_else(|| best(false))
}

/// Compares every byte, and looks whether the lists are in order.
fn compare(blocks: &Memblock, model: &Model) {
    for (at, byte) in model.iter().enumerate() {
        let at = at as u64;
        let on = blocks.memory().find(|(range, _)| range.contains(&at)).map(|(_, on)| on.get());
        assert_eq!(on, byte.node, "node of {at}: {blocks:?}");
        let reserved = blocks.reserved().find(|reserved| reserved.range.contains(&at));
        assert_eq!(reserved.map(|r| (r.class, r.name)), byte.reserved, "byte {at}: {blocks:?}");
        let free = blocks.free_ranges().any(|(range, _)| range.contains(&at));
        assert_eq!(free, byte.node.is_some() && byte.reserved.is_none(), "{at}: {blocks:?}");
    }
    let reserved: Vec<ReservedBytes> = blocks.reserved().collect();
    for pair in reserved.windows(2) {
        assert!(pair[0].range.end <= pair[1].range.start, "{blocks:?}");
        let alike = pair[0].class == pair[1].class && pair[0].name == pair[1].name;
        assert!(!alike || pair[0].range.end < pair[1].range.start, "not merged: {blocks:?}");
    }
    assert_eq!(blocks.memory().count(), blocks.memory, "{blocks:?}");
    assert_eq!(reserved.len(), blocks.reserved);
    let mut text = String::new();
    blocks.dump(&mut text).unwrap();
    assert_eq!(text.lines().count(), 2 + blocks.memory + blocks.reserved, "{text}");
}

fn limit(model: &mut Model, limit: u64) -> Result<(), MemblockError> {
    let page = 1 << SHIFT;
    let limit = limit / page * page;
    if !model.iter().take(limit as usize).any(|byte| byte.node.is_some()) {
        return Err(MemblockError::NoRam { limit });
    }
    let allocated = |byte: &Byte| {
        byte.reserved
            .is_some_and(|(class, _)| class == ReservedClass::Boot || class == ReservedClass::Kept)
    };
    if let Some(at) = (limit..SPACE).find(|at| allocated(&model[*at as usize])) {
        return Err(MemblockError::InUse { at });
    }
    let before = model.clone();
    for at in limit..SPACE {
        let byte = &mut model[at as usize];
        byte.node = None;
        match byte.reserved {
            Some((ReservedClass::Late, name)) => {
                byte.reserved = Some((ReservedClass::Firmware, name));
            }
            Some(_) => {}
            None => {
                let node = before[at as usize].node;
                let first = at / page * page;
                let page: Vec<_> =
                    (first..first + page).filter_map(|at| before.get(at as usize)).collect();
                let whole = page.len() == 1 << SHIFT && page.iter().all(|byte| byte.node == node);
                if node.is_some() && whole {
                    byte.reserved = Some((ReservedClass::Unmanaged, ABOVE));
                }
            }
        }
    }
    Ok(())
}

/// A247, A249, A251, A252, A257
#[test]
fn every_byte_is_what_a_model_says() {
    let seed = env::var("KMEM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    std::println!("KMEM_SEED={seed}");
    let mut random = Random(seed);
    let mut blocks = Memblock::new();
    let mut seen = [0; 6];
    for _ in 0..400 {
        let (map, mut model) = map(&mut random);
        blocks.load(&map).unwrap();
        compare(&blocks, &model);
        for _ in 0..40 {
            let name = NAMES[random.below(3) as usize];
            match random.below(20) {
                0..9 => {
                    let wanted = Wanted {
                        size: random.below(30),
                        align: [1, 1, 2, 7, 8, 16, 0][random.below(7) as usize],
                        within: if random.below(2) == 0 {
                            0..u64::MAX
                        } else {
                            random.range(SPACE, SPACE)
                        },
                        prefer: NodeId::new(random.below(4) as u32).filter(|n| n.get() < 3),
                        top_down: random.below(2) == 0,
                        for_ever: random.below(5) == 0,
                    };
                    let got = blocks.alloc(name, &wanted);
                    if wanted.size == 0 || wanted.align == 0 {
                        assert_eq!(got, Err(MemblockError::Empty));
                        continue;
                    }
                    match place(&model, &wanted) {
                        None => assert_eq!(got, Err(MemblockError::NoRoom(wanted))),
                        Some(start) => {
                            seen[0] += 1;
                            assert_eq!(got, Ok(start), "{wanted:?} {blocks:?}");
                            let class = match wanted.for_ever {
                                true => ReservedClass::Kept,
                                false => ReservedClass::Boot,
                            };
                            for at in start..start + wanted.size {
                                model[at as usize].reserved = Some((class, name));
                            }
                        }
                    }
                }
                9..17 => {
                    // Often what is allocated, or a part of it.
                    let boot = |r: &ReservedBytes| r.class == ReservedClass::Boot;
                    let all: Vec<_> = blocks.reserved().filter(boot).collect();
                    let any = random.range(SPACE, 12);
                    let range = match all.get(random.below(all.len().max(1) as u64) as usize) {
                        Some(there) if random.below(4) > 0 => {
                            let length = there.range.end - there.range.start;
                            let start = there.range.start + random.below(length);
                            start..start + 1 + random.below(there.range.end - start)
                        }
                        _ => any,
                    };
                    let boot = |at: &u64| {
                        let class = model[*at as usize].reserved.map(|(class, _)| class);
                        class == Some(ReservedClass::Boot)
                    };
                    let got = blocks.free(range.clone());
                    match range.clone().find(|at| !boot(at)) {
                        Some(at) => assert_eq!(got, Err(MemblockError::NotAllocated { at })),
                        None => {
                            seen[1] += 1;
                            assert_eq!(got, Ok(()));
                            range.for_each(|at| model[at as usize].reserved = None);
                        }
                    }
                }
                17..19 => {
                    let range = random.range(SPACE, 30);
                    assert_eq!(blocks.reserve(range.clone(), name), Ok(()));
                    for at in range {
                        let byte = &mut model[at as usize];
                        if byte.reserved.is_none_or(|(class, _)| class == ReservedClass::Late) {
                            byte.reserved = Some((ReservedClass::Boot, name));
                        }
                    }
                }
                _ => {
                    let to = random.below(SPACE + 20);
                    let expected = limit(&mut model, to);
                    seen[2] += usize::from(expected.is_ok());
                    assert_eq!(blocks.limit_ram(to, SHIFT), expected, "{to} {blocks:?}");
                }
            }
            compare(&blocks, &model);
        }
    }
    assert!(seen[..3].iter().all(|times| *times > 100), "{seen:?}");
}

/// What is handed over is what was taken over, if nobody has allocated.
#[test]
fn a_map_that_nobody_touched_is_the_same_in_frames() {
    let map = MemoryMap::new()
        .ram(0..0x9_fc00, node(0))
        .ram(0x10_0000..0x80_0000, node(0))
        .ram(0x80_0000..0x100_0000, node(1))
        .ram(0x40_0000..0x60_0000, node(0))
        .reserved(0xf_0000..0x10_0000, "firmware")
        .reserved(0x20_0000..0x30_0000, "firmware")
        .kernel(0x28_0000..0x38_0123, "kernel")
        .late(0x38_0000..0x50_0000)
        .mapped(0..0x90_0000);
    let mut blocks = Memblock::new();
    blocks.load(&map).unwrap();
    let order = Order::new(10).unwrap();
    let (before, after) =
        (map.normalise(12, order).unwrap(), blocks.map().normalise(12, order).unwrap());
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}

/// A table without room says so, and is as it was.
#[test]
fn a_full_table_refuses_and_stays_as_it_is() {
    let mut blocks = Memblock::new();
    blocks.load(&MemoryMap::new().ram(0..1 << 20, node(0))).unwrap();
    // Every other byte has a name of its own kind: no two merge.
    let mut taken = 0;
    let full = loop {
        let wanted = Wanted { within: 2 * taken..u64::MAX, ..Wanted::new(1, 2) };
        match blocks.alloc("one", &wanted) {
            Ok(at) => assert_eq!(at, 2 * taken),
            Err(error) => break error,
        }
        taken += 1;
    };
    assert_eq!((full, taken), (MemblockError::Full, MAX_REGIONS as u64 - 1));
    let before = format!("{blocks:?}");
    assert_eq!(blocks.reserve(1000..1010, "two"), Err(MemblockError::Full));
    assert_eq!(blocks.limit_ram(1 << 19, 12), Err(MemblockError::Full));
    assert_eq!(format!("{blocks:?}"), before);
    // What joins two ranges needs no place, and gives one.
    assert_eq!(blocks.alloc("one", &Wanted::new(1, 1)), Ok(1));
    assert_eq!(blocks.reserve(1000..1010, "two"), Ok(()));
    // To free the middle of a range takes a place.
    let before = format!("{blocks:?}");
    assert_eq!(blocks.free(1004..1005), Err(MemblockError::Full));
    assert_eq!(format!("{blocks:?}"), before);
    assert_eq!(blocks.free(1000..1010), Ok(()));
    // A map can have more pieces than regions.
    let mut map = MemoryMap::new().ram(0..1 << 20, node(0)).reserved(0..1 << 19, "firmware");
    for at in 0..MAX_REGIONS as u64 - 2 {
        map = map.kernel(16 * at + 8..16 * at + 9, "kernel");
    }
    let refused = Memblock::new().load(&map);
    assert!(matches!(refused, Err(MapError::TooManyRegions { .. })), "{refused:?}");
}

#[test]
fn a_map_with_a_mistake_is_refused_and_leaves_nothing() {
    let mut blocks = Memblock::new();
    blocks.load(&MemoryMap::new().ram(0..4096, node(0))).unwrap();
    let empty = MemoryMap::new().ram(5..5, node(0));
    assert!(matches!(blocks.load(&empty), Err(MapError::Empty { .. })));
    let overlap = MemoryMap::new().ram(0..4096, node(0)).ram(0..4096, node(1));
    assert!(matches!(blocks.load(&overlap), Err(MapError::NodesOverlap { .. })));
    assert_eq!(blocks.memory().count(), 0);
    let wanted = Wanted::new(1, 1);
    assert_eq!(blocks.alloc("a", &wanted), Err(MemblockError::NoRoom(wanted)));
    let huge = Wanted::new(u64::MAX, 1);
    assert_eq!(blocks.alloc("a", &huge), Err(MemblockError::NoRoom(huge)));
    assert_eq!(blocks.limit_ram(4096, 64), Err(MemblockError::Empty));
}
