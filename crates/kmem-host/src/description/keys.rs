//! The keys of a description: one row of a table reads a key, writes it and says what it takes.

use std::fmt::Write as _;
use std::ops::Range;

use kmem::boot::{Classes, SlabDebug};
use kmem::{MAX_CPUS, Order};
use toml::Value;

use super::{Description, Node, format_range, format_size, parse_range, parse_size};

/// One key of `T`.
pub(super) struct Key<T> {
    pub name: &'static str,
    /// What it is for, with its unit.
    pub about: &'static str,
    /// What it takes, as the end of "give ...".
    pub allowed: &'static str,
    /// Takes a value, or answers what of it the key does not take.
    pub put: fn(&mut T, &Value) -> Result<(), Refused>,
    /// What is there; `None` where nothing is, which is what leaving the key out means.
    pub get: fn(&T) -> Option<Value>,
}

/// What of a value a key does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// All of it.
    Whole,
    /// An item of a list, by its number.
    Item(usize),
}

/// What `none` in a setting means for a key that may be left out.
const NONE: &str = "none";

pub(super) const MACHINE: &[Key<Description>] = &[
    Key {
        name: "name",
        about: "what the machine is called",
        allowed: "a text of one line",
        put: |d, v| store(&mut d.name, text(v)),
        get: |d| Some(d.name.clone().into()),
    },
    Key {
        name: "about",
        about: "one line on what the machine is",
        allowed: "a text of one line",
        put: |d, v| store(&mut d.about, text(v)),
        get: |d| (!d.about.is_empty()).then(|| d.about.clone().into()),
    },
    Key {
        name: "page_shift",
        about: "the page size: 2^page_shift bytes",
        allowed: "12, 13, 14 or 16, for pages of 4, 8, 16 or 64 KiB",
        put: |d, v| store(&mut d.page_shift, count(v, 0, 63).filter(is_page_shift)),
        get: |d| Some(i64::from(d.page_shift).into()),
    },
    Key {
        name: "cpus",
        about: "how many CPUs the machine has",
        allowed: "a number from 1 to 256",
        put: |d, v| store(&mut d.cpus, count(v, 1, MAX_CPUS as u32)),
        get: |d| Some(i64::from(d.cpus).into()),
    },
    Key {
        name: "dma_limit",
        about: "where ZONE_DMA ends, in bytes; none: there is no such zone",
        allowed: "an address such as \"16M\", or \"none\"",
        put: |d, v| store(&mut d.dma_limit, optional(v, size)),
        get: |d| d.dma_limit.map(size_value),
    },
    Key {
        name: "dma32_limit",
        about: "where ZONE_DMA32 ends, in bytes; none: there is no such zone",
        allowed: "an address such as \"4G\", or \"none\"",
        put: |d, v| store(&mut d.dma32_limit, optional(v, size)),
        get: |d| d.dma32_limit.map(size_value),
    },
    Key {
        name: "direct_map_limit",
        about: "where the direct map ends and high memory begins, in bytes; none: all is mapped",
        allowed: "an address such as \"896M\", or \"none\"",
        put: |d, v| store(&mut d.direct_map_limit, optional(v, size)),
        get: |d| d.direct_map_limit.map(size_value),
    },
    Key {
        name: "mapping_area",
        about: "address space for mappings of pages, vmalloc and the like, in bytes",
        allowed: "a size from \"1M\" to \"1T\"",
        put: |d, v| {
            store(&mut d.mapping_area, size(v).filter(|size| (1 << 20..=1 << 40).contains(size)))
        },
        get: |d| Some(size_value(d.mapping_area)),
    },
    Key {
        name: "largest_order",
        about: "the largest block that can be allocated: 2^largest_order pages",
        allowed: "a number from 0 to 15",
        put: |d, v| store(&mut d.largest_order, count(v, 0, Order::LIMIT.get())),
        get: |d| Some(i64::from(d.largest_order).into()),
    },
    Key {
        name: "page_block_order",
        about: "what has one migrate type together: blocks of 2^page_block_order pages",
        allowed: "a number from 0 to 15; above largest_order that is taken",
        put: |d, v| store(&mut d.page_block_order, count(v, 0, Order::LIMIT.get())),
        get: |d| Some(i64::from(d.page_block_order).into()),
    },
    Key {
        name: "min_free_kbytes",
        about: "the sum of the min watermarks, in KiB; none: computed from the amount of RAM",
        allowed: "a number of KiB, or \"none\" to have it computed",
        put: |d, v| store(&mut d.min_free_kbytes, optional(v, |v| number(v, 0, u64::MAX >> 11))),
        get: |d| d.min_free_kbytes.map(|kbytes| (kbytes as i64).into()),
    },
    Key {
        name: "reserve_ratio",
        about: "how many pages above a zone make it keep back one page; 0: it keeps back none",
        allowed: "five numbers, for DMA, DMA32, Normal, HighMem and Movable, such as \
                  [256, 256, 32, 0, 0]",
        put: |d, v| {
            let ratios = list(v, |v| count(v, 0, u32::MAX))?;
            store(&mut d.reserve_ratio, ratios.try_into().ok())
        },
        get: |d| list_value(&d.reserve_ratio, |ratio| i64::from(*ratio).into()),
    },
    Key {
        name: "whole_reserve_for_atomic",
        about: "whether an atomic request may take even the last free page",
        allowed: "true or false",
        put: |d, v| store(&mut d.whole_reserve_for_atomic, boolean(v)),
        get: |d| Some(d.whole_reserve_for_atomic.into()),
    },
    Key {
        name: "pagesets",
        about: "whether CPUs keep lists of free pages of their own",
        allowed: "true or false",
        put: |d, v| store(&mut d.pagesets, boolean(v)),
        get: |d| Some(d.pagesets.into()),
    },
    Key {
        name: "kmalloc_sizes",
        about: "the sizes that kmalloc has, in bytes; none: eight for each doubling up to 64K",
        allowed: "rising sizes up to 128K, one of them from 152 to 511 bytes, such as \
                  [32, 256, 4096]",
        put: |d, v| {
            let sizes = list(v, kmalloc_size)?;
            store(&mut d.kmalloc_sizes, Some(sizes).filter(|all| are_classes(all)))
        },
        get: |d| list_value(&d.kmalloc_sizes, |size| i64::from(*size).into()),
    },
    Key {
        name: "cache_name_limit",
        about: "how long the name of a cache may be, in bytes",
        allowed: "a number from 16 to 31",
        put: |d, v| store(&mut d.cache_name_limit, count(v, 16, 31)),
        get: |d| Some(i64::from(d.cache_name_limit).into()),
    },
    Key {
        name: "slab_debug",
        about: "which caches are debugged: P poison, Z red zones, U owners, Q quarantine",
        allowed: "letters out of PZUQ, then names if not all are, such as \"PZ,kmalloc-*;U\"",
        put: |d, v| {
            store(&mut d.slab_debug, text(v).filter(|rules| SlabDebug::parse(rules).is_ok()))
        },
        get: |d| (!d.slab_debug.is_empty()).then(|| d.slab_debug.clone().into()),
    },
    Key {
        name: "keep_boot_memory",
        about: "whether what is allocated at boot can never be given back",
        allowed: "true or false",
        put: |d, v| store(&mut d.keep_boot_memory, boolean(v)),
        get: |d| d.keep_boot_memory.then_some(true.into()),
    },
    Key {
        name: "command_line",
        about: "the kernel's command line: mem= and bigphysarea= set RAM aside",
        allowed: "words such as \"mem=126M bigphysarea=512\"",
        // What its words mean together with other keys, and whether they mean something, is checked later.
        put: |d, v| store(&mut d.command_line, text(v)),
        get: |d| (!d.command_line.is_empty()).then(|| d.command_line.clone().into()),
    },
    Key {
        name: "stack_pages",
        about: "how many pages a kernel stack has",
        allowed: "1, 2, 4, 8, 16, 32 or 64",
        put: |d, v| {
            let pages = count(v, 1, 64).filter(|pages| pages.is_power_of_two());
            store(&mut d.stack_pages, pages)
        },
        get: |d| Some(i64::from(d.stack_pages).into()),
    },
    Key {
        name: "stack_guard",
        about: "whether kernel stacks are mapped, with a guard page below, and not blocks of pages",
        allowed: "true or false",
        put: |d, v| store(&mut d.stack_guard, boolean(v)),
        get: |d| Some(d.stack_guard.into()),
    },
    Key {
        name: "reserved",
        about: "what firmware keeps, in bytes; may lie outside RAM",
        allowed: "ranges such as [\"640K-1M\", \"4G+64K\"]",
        put: |d, v| store(&mut d.reserved, Some(ranges(v)?)),
        get: |d| ranges_value(&d.reserved),
    },
    Key {
        name: "kernel",
        about: "where the kernel's image is, in bytes",
        allowed: "ranges such as [\"1M-3M\"]",
        put: |d, v| store(&mut d.kernel, Some(ranges(v)?)),
        get: |d| ranges_value(&d.kernel),
    },
    Key {
        name: "late",
        about: "RAM that the boot loader holds and that may be released later, in bytes",
        allowed: "ranges of RAM such as [\"32M-34M\"]",
        put: |d, v| store(&mut d.late, Some(ranges(v)?)),
        get: |d| ranges_value(&d.late),
    },
];

pub(super) const NODE: &[Key<Node>] = &[
    Key {
        name: "ram",
        about: "where the node's RAM is, in bytes; a file has a node's keys below a line [[node]]",
        allowed: "ranges such as [\"0-640K\", \"1M-1G\"]",
        put: |n, v| store(&mut n.ram, Some(ranges(v)?)),
        get: |n| ranges_value(&n.ram),
    },
    Key {
        name: "cpus",
        about: "the node's CPUs; a CPU that no node names belongs to node `cpu % nodes`",
        allowed: "numbers of CPUs such as [0, 1]",
        put: |n, v| store(&mut n.cpus, Some(list(v, |v| count(v, 0, MAX_CPUS as u32 - 1))?)),
        get: |n| list_value(&n.cpus, |cpu| i64::from(*cpu).into()),
    },
    Key {
        name: "movable",
        about: "how much of the node's top is ZONE_MOVABLE, in bytes",
        allowed: "a size such as \"64M\"",
        put: |n, v| store(&mut n.movable, size(v)),
        get: |n| (n.movable != 0).then(|| size_value(n.movable)),
    },
    Key {
        name: "distance",
        about: "how far each node is; none: 10 to itself and 20 to the others",
        allowed: "a number from 10 to 254 for each node such as [10, 20]",
        put: |n, v| {
            store(&mut n.distance, Some(list(v, |v| u8::try_from(count(v, 10, 254)?).ok())?))
        },
        get: |n| list_value(&n.distance, |distance| i64::from(*distance).into()),
    },
];

/// A key, as people read about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyHelp {
    /// Its name, as [`Description::set`] takes it; in a machine file those of a node stand below
    /// `[[node]]`, without `node.N.`.
    pub name: &'static str,
    /// What it is for, with its unit.
    pub about: &'static str,
    /// What it takes, as the end of "give ...".
    pub takes: &'static str,
    /// What leaving it out means, as it would stand in a file; `None` where that is nothing at all.
    pub default: Option<String>,
}

/// All keys; those of a node last.
pub(super) fn all() -> impl Iterator<Item = KeyHelp> {
    const OF_NODES: [&str; NODE.len()] =
        ["node.N.ram", "node.N.cpus", "node.N.movable", "node.N.distance"];
    let machine = MACHINE.iter().map(|key| explain(key.name, key, &Description::default()));
    let nodes = OF_NODES.iter().zip(NODE);
    machine.chain(nodes.map(|(name, key)| explain(name, key, &Node::default())))
}

fn explain<T>(name: &'static str, key: &Key<T>, unset: &T) -> KeyHelp {
    let default = (key.get)(unset).map(|value| value.to_string());
    KeyHelp { name, about: key.about, takes: key.allowed, default }
}

impl Description {
    /// Writes the text form, which [`Description::from_toml`] reads back.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        write_keys(&mut text, self, MACHINE);
        for node in &self.nodes {
            text.push_str("\n[[node]]\n");
            write_keys(&mut text, node, NODE);
        }
        text
    }
}

fn write_keys<T>(text: &mut String, source: &T, keys: &[Key<T>]) {
    for key in keys {
        if let Some(value) = (key.get)(source) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{} = {value}", key.name);
        }
    }
}

/// A text that does nothing to a terminal but show itself.
fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.contains(|c: char| c.is_control())).map(String::from)
}

/// Puts a value where it belongs, if there is one.
fn store<T>(place: &mut T, value: Option<T>) -> Result<(), Refused> {
    *place = value.ok_or(Refused::Whole)?;
    Ok(())
}

/// A number from `least` to `most`; in a setting it is a text.
fn number(value: &Value, least: u64, most: u64) -> Option<u64> {
    let number = match value {
        Value::Integer(number) => u64::try_from(*number).ok()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    (least..=most).contains(&number).then_some(number)
}

/// A small [`number`].
fn count(value: &Value, least: u32, most: u32) -> Option<u32> {
    u32::try_from(number(value, u64::from(least), u64::from(most))?).ok()
}

fn is_page_shift(shift: &u32) -> bool {
    matches!(shift, 12 | 13 | 14 | 16)
}

/// A size or an address. It ends far below 2^64, so that sums of a few do not overflow.
fn size(value: &Value) -> Option<u64> {
    let bytes = match value {
        Value::Integer(bytes) => u64::try_from(*bytes).ok()?,
        Value::String(text) => parse_size(text)?,
        _ => return None,
    };
    (bytes < 1 << 60).then_some(bytes)
}

fn kmalloc_size(value: &Value) -> Option<u32> {
    u32::try_from(size(value)?).ok()
}

/// Whether kmalloc can have these sizes.
fn are_classes(sizes: &[u32]) -> bool {
    let sizes: Vec<usize> = sizes.iter().map(|size| *size as usize).collect();
    let classes = if sizes.is_empty() { Ok(Classes::FINE) } else { Classes::new(&sizes) };
    classes.is_ok_and(|classes| classes.has_size_for_records())
}

fn boolean(value: &Value) -> Option<bool> {
    value.as_bool().or_else(|| value.as_str()?.parse().ok())
}

fn optional<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Option<T>> {
    if value.as_str() == Some(NONE) { Some(None) } else { read(value).map(Some) }
}

/// A list; in a setting it is a text with commas.
fn list<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>, Refused> {
    let item = |(index, value): (usize, &Value)| read(value).ok_or(Refused::Item(index));
    match value {
        Value::Array(values) => values.iter().enumerate().map(item).collect(),
        Value::String(text) if text.is_empty() || text == NONE => Ok(Vec::new()),
        Value::String(text) => {
            let values: Vec<_> =
                text.split(',').map(|item| Value::String(item.trim().into())).collect();
            values.iter().enumerate().map(item).collect()
        }
        _ => Err(Refused::Whole),
    }
}

fn ranges(value: &Value) -> Result<Vec<Range<u64>>, Refused> {
    list(value, |value| parse_range(value.as_str()?).filter(|range| range.end < 1 << 60))
}

fn size_value(bytes: u64) -> Value {
    format_size(bytes).into()
}

fn list_value<T>(items: &[T], write: impl Fn(&T) -> Value) -> Option<Value> {
    (!items.is_empty()).then(|| Value::Array(items.iter().map(write).collect()))
}

fn ranges_value(ranges: &[Range<u64>]) -> Option<Value> {
    list_value(ranges, |range| format_range(range).into())
}
