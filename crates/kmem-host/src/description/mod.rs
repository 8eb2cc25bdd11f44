//! What a machine is made of, as data.
//!
//! A [`Description`] is a value with a text form in TOML. It comes from a preset
//! ([`Description::preset`]), a file ([`Description::from_file`]) or code, and may then be changed:
//! [`Description::set`] changes one key, [`Description::mem`], [`Description::cpus`] and
//! [`Description::nodes`] lay the machine out anew for another size. Nothing is checked against
//! other keys until [`Description::check`], which booting calls, so keys may be set in any order.
//!
//! ```
//! use kmem_host::Description;
//!
//! let mut machine = Description::from_toml(
//!     r#"
//!     name = "bench"
//!     cpus = 2
//!     dma_limit = "16M"
//!     reserved = ["640K-1M"]
//!
//!     [[node]]
//!     ram = ["0-640K", "1M-512M"]
//!     "#,
//! )?;
//! machine.set("largest_order=8")?;
//! machine.set("page_block_order=8")?;
//! machine.mem(2 << 30)?;
//! machine.check()?;
//! assert_eq!(machine.ram().last().unwrap().end, 2 << 30);
//! # Ok::<(), kmem_host::DescriptionError>(())
//! ```
//!
//! [`Description::keys`] explains the keys. A range is half open: its start, then
//! `-` and its end or `+` and its size.
//!
//! ```text
//!   mod.rs      the value, presets, where it comes from
//!   keys.rs     the table of keys: one row reads, writes and explains a key
//!   read.rs     a machine file and a setting, read
//!   places.rs   where in a file a value is, for messages
//!   layout.rs   another amount of memory, other numbers of CPUs and nodes
//!   check.rs    what must hold between keys, and what a machine costs its host
//!   size.rs     "64M" and "1M-1G"
//! ```

mod check;
mod keys;
mod layout;
mod places;
mod read;
mod size;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use kmem::boot::{Carveout, CommandLine};
use kmem::spelling::nearest;
use kmem::{CpuId, NodeId, ZoneKind};

pub use check::Footprint;
pub use keys::KeyHelp;
pub use places::{Place, Places};
pub use size::{format_range, format_size, parse_range, parse_size};

/// A machine: its memory, nodes, CPUs and settings. All sizes and addresses are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What it is called.
    pub name: String,
    /// One line on what it is.
    pub about: String,
    /// The base-two logarithm of the page size (A002).
    pub page_shift: u32,
    /// How many CPUs it has. All are online after boot.
    pub cpus: u32,
    /// Where ZONE_DMA ends, if there is one (A020).
    pub dma_limit: Option<u64>,
    /// Where ZONE_DMA32 ends, if there is one (A021).
    pub dma32_limit: Option<u64>,
    /// Where the direct map ends and high memory begins (A020, A035). `None`: all is mapped.
    pub direct_map_limit: Option<u64>,
    /// How much address space there is for mappings of pages: vmalloc and the like.
    pub mapping_area: u64,
    /// The largest order of a block (A058).
    pub largest_order: u32,
    /// The order of a page block: what has one migrate type.
    pub page_block_order: u32,
    /// The sum of the `min` watermarks in KiB. `None`: computed from the amount of memory.
    pub min_free_kbytes: Option<u64>,
    /// For each zone kind from DMA up: how many pages above it make it keep back one page (A037).
    pub reserve_ratio: [u32; ZoneKind::COUNT],
    /// Whether an atomic request may take even the last free page (A140).
    pub whole_reserve_for_atomic: bool,
    /// Whether CPUs keep lists of free pages of their own.
    pub pagesets: bool,
    /// The sizes that kmalloc has, in bytes (A154). Empty: eight for each doubling.
    pub kmalloc_sizes: Vec<u32>,
    /// How long the name of a cache may be, in bytes (A189).
    pub cache_name_limit: u32,
    /// Which caches are debugged: see [`SlabDebug`](kmem::boot::SlabDebug). Empty: none.
    pub slab_debug: String,
    /// Whether what is allocated at boot can never be given back (A252).
    pub keep_boot_memory: bool,
    /// What the kernel's command line says: see [`CommandLine`].
    pub command_line: String,
    /// How many pages a kernel stack has, a power of two up to 64 (A261, A262, A264).
    pub stack_pages: u32,
    /// Whether kernel stacks are mapped, with a guard page below (A266), and not blocks of pages.
    pub stack_guard: bool,
    /// What firmware keeps. May lie outside RAM.
    pub reserved: Vec<Range<u64>>,
    /// Where the kernel's image is.
    pub kernel: Vec<Range<u64>>,
    /// RAM that the boot loader holds and that may be released later.
    pub late: Vec<Range<u64>>,
    /// The nodes; at least one.
    pub nodes: Vec<Node>,
    /// Where the values above stand in the file that they were read from.
    pub places: Places,
}

/// One node: memory, and the CPUs that are near it (A087).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Where its RAM is, in any order.
    pub ram: Vec<Range<u64>>,
    /// Its CPUs. A CPU that no node names belongs to node `cpu % nodes`.
    pub cpus: Vec<u32>,
    /// How much of its top is ZONE_MOVABLE.
    pub movable: u64,
    /// How far each node is, itself included. Empty: 10 to itself and 20 to the others.
    pub distance: Vec<u8>,
}

/// How large a machine file may be, in bytes: many times what all keys and ranges need.
const LARGEST_FILE: u64 = 1 << 20;

/// The presets: each is a file of the `machines` folder.
const PRESETS: [(&str, &str); 8] = [
    ("tiny", include_str!("../../machines/tiny.toml")),
    ("default", include_str!("../../machines/default.toml")),
    ("ldd2-i386", include_str!("../../machines/ldd2-i386.toml")),
    ("lkd-i386", include_str!("../../machines/lkd-i386.toml")),
    ("pae", include_str!("../../machines/pae.toml")),
    ("x86_64", include_str!("../../machines/x86_64.toml")),
    ("numa2", include_str!("../../machines/numa2.toml")),
    ("holes", include_str!("../../machines/holes.toml")),
];

impl Default for Description {
    /// One CPU and one node without any RAM, and today's settings: what keys that are left out
    /// mean.
    fn default() -> Self {
        Description {
            name: "unnamed".into(),
            about: String::new(),
            page_shift: 12,
            cpus: 1,
            dma_limit: None,
            dma32_limit: None,
            direct_map_limit: None,
            mapping_area: 64 << 30,
            largest_order: 10,
            page_block_order: 9,
            min_free_kbytes: None,
            reserve_ratio: [256, 256, 32, 0, 0],
            whole_reserve_for_atomic: false,
            pagesets: true,
            kmalloc_sizes: Vec::new(),
            cache_name_limit: 31,
            slab_debug: String::new(),
            keep_boot_memory: false,
            command_line: String::new(),
            stack_pages: 4,
            stack_guard: true,
            reserved: Vec::new(),
            kernel: Vec::new(),
            late: Vec::new(),
            nodes: vec![Node::default()],
            places: Places::default(),
        }
    }
}

impl Description {
    /// The preset with this name.
    ///
    /// # Errors
    ///
    /// There is none; the error names those that there are.
    pub fn preset(name: &str) -> Result<Self, DescriptionError> {
        match PRESETS.iter().find(|(preset, _)| *preset == name) {
            Some((_, text)) => Self::from_toml(text),
            None => Err(DescriptionError::NoPreset { name: name.into() }),
        }
    }

    /// All presets, from the smallest machine to the strangest.
    pub fn presets() -> impl Iterator<Item = Self> {
        PRESETS.iter().filter_map(|(_, text)| Self::from_toml(text).ok())
    }

    /// The names of the presets.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// Reads a machine file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or what it holds is not a description.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, DescriptionError> {
        let path = path.as_ref();
        let unreadable = |reason| DescriptionError::Unreadable { path: path.into(), reason };
        let mut bytes = Vec::new();
        // A file such as /dev/zero has no end: one byte too many tells that it is too large.
        File::open(path)
            .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
            .map_err(|error| unreadable(error.to_string()))?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(unreadable(format!("it is larger than {LARGEST_FILE} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..good]);
            let Place { line, column } = Place::of(&before, good);
            unreadable(format!("it is no text of UTF-8 from line {line}, column {column} on"))
        })?;
        let mut places = Places::default();
        places.name_file(path.display().to_string());
        Self::read(&text, places)
    }

    /// The machine file that it was read from, if it was.
    pub fn file(&self) -> Option<&str> {
        self.places.file()
    }

    /// Every key that [`Description::set`] and machine files know.
    pub fn keys() -> impl Iterator<Item = KeyHelp> {
        keys::all()
    }

    /// The node that a CPU belongs to.
    pub fn cpu_node(&self, cpu: CpuId) -> NodeId {
        let named = self.nodes.iter().position(|node| node.cpus.contains(&cpu.get()));
        let node = named.unwrap_or(cpu.index() % self.nodes.len().max(1));
        NodeId::new(node as u32).unwrap_or(NodeId::ZERO)
    }

    /// How far node `to` is from node `from`, by number.
    pub fn distance(&self, from: usize, to: usize) -> u8 {
        let given = self.nodes.get(from).and_then(|node| node.distance.get(to)).copied();
        given.unwrap_or(if from == to { 10 } else { 20 })
    }

    /// What the command line says about memory.
    ///
    /// # Errors
    ///
    /// A word about memory makes no sense.
    pub fn parsed_command_line(&self) -> Result<CommandLine, DescriptionError> {
        CommandLine::parse(&self.command_line)
            .map_err(|error| wrong("command_line", error.word, error.allowed))
    }

    /// The RAM that the manager is given: without what lies above `mem=`. As [`Description::ram`].
    pub fn managed_ram(&self) -> Vec<Range<u64>> {
        let end = self.parsed_command_line().ok().and_then(|line| line.mem).unwrap_or(u64::MAX);
        let end = end >> self.page_shift << self.page_shift;
        let below = |range: Range<u64>| range.start..range.end.min(end);
        self.ram().into_iter().map(below).filter(|range| range.start < range.end).collect()
    }

    /// What of the managed RAM has an address at all times and is nobody's when the machine boots: sorted,
    /// without overlaps, each range of one node. The manager's tables come out of it, and what is allocated at boot.
    pub fn free_low_memory(&self) -> Vec<Range<u64>> {
        let limit = self.direct_map_limit.unwrap_or(u64::MAX);
        let taken = self.reserved.iter().chain(&self.kernel).chain(&self.late);
        let managed = self.managed_ram().last().map_or(0, |range| range.end);
        let mut free = Vec::new();
        for Range { mut start, end } in self.nodes.iter().flat_map(|node| join(node.ram.clone())) {
            let end = end.min(limit).min(managed);
            for taken in join(taken.clone().cloned().collect()) {
                if taken.start < end && start < taken.end {
                    free.push(start..taken.start);
                    start = taken.end;
                }
            }
            free.push(start..end);
        }
        free.retain(|range| range.start < range.end);
        free.sort_by_key(|range| range.start);
        free
    }

    /// Where `bigphysarea=` sets so many pages aside, with those that note who has them: at the start of
    /// the first piece that has room, above the first megabyte and where all devices reach it if there is
    /// such a one (A256). `None`: nowhere.
    pub fn place_of_bigphysarea(&self, pages: u64) -> Option<Range<u64>> {
        const FIRST_MEGABYTE: u64 = 1 << 20;
        let page = 1 << self.page_shift;
        let bytes = Carveout::pages_to_reserve(pages, self.page_shift).checked_mul(page)?;
        let low = self.dma_limit.unwrap_or(u64::MAX);
        let places = [FIRST_MEGABYTE..low, FIRST_MEGABYTE..u64::MAX, 0..u64::MAX];
        let free = self.free_low_memory();
        places.into_iter().find_map(|place| {
            free.iter().find_map(|free| {
                let start = free.start.max(place.start).checked_next_multiple_of(page)?;
                let end = start.checked_add(bytes)?;
                (end <= free.end.min(place.end)).then_some(start..end)
            })
        })
    }

    /// All RAM: sorted, without overlaps, neighbours joined.
    pub fn ram(&self) -> Vec<Range<u64>> {
        join(self.nodes.iter().flat_map(|node| node.ram.iter().cloned()).collect())
    }

    /// How many bytes of RAM there are.
    pub fn ram_bytes(&self) -> u64 {
        self.ram().iter().map(|range| range.end - range.start).sum()
    }
}

/// Sorts ranges and joins those that touch or overlap.
fn join(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// What is wrong with a description. Each prints as one line with the key, the value and what is
/// allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescriptionError {
    /// There is no preset with that name.
    NoPreset {
        /// The name.
        name: String,
    },
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The text is not TOML.
    Syntax {
        /// What is wrong.
        reason: String,
    },
    /// There is no such key.
    NoSuchKey {
        /// The key.
        key: String,
        /// What was likely meant, or which keys there are.
        advice: String,
    },
    /// `KEY=VALUE` was expected.
    NotASetting {
        /// What was given.
        text: String,
    },
    /// A value is not one that its key takes.
    Wrong {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What the key takes.
        allowed: String,
    },
    /// One of the others, where a file has it.
    At {
        /// The file; `None` for a text without a name.
        file: Option<String>,
        /// Where in it; `None` where it is about what the file does not say.
        place: Option<Place>,
        /// What is wrong there.
        error: Box<DescriptionError>,
    },
}

/// A value that its key does not take.
fn wrong(
    key: impl Into<String>,
    value: impl fmt::Display,
    allowed: impl Into<String>,
) -> DescriptionError {
    let (key, mut value, allowed) = (key.into(), value.to_string(), allowed.into());
    if value.is_empty() {
        // It would not be seen.
        value = "''".into();
    }
    DescriptionError::Wrong { key, value, allowed }
}

impl fmt::Display for DescriptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DescriptionError::NoPreset { name } => {
                write!(f, "there is no machine '{name}'")?;
                match nearest(name, Description::preset_names()) {
                    Some(near) => write!(f, ", did you mean '{near}'? There are ")?,
                    None => f.write_str(": there are ")?,
                }
                let names: Vec<_> = Description::preset_names().collect();
                f.write_str(&names.join(", "))
            }
            DescriptionError::Unreadable { path, reason } => {
                write!(f, "cannot read machine file {}: {reason}", path.display())
            }
            DescriptionError::Syntax { reason } => {
                write!(f, "this is not toml: {reason}; write KEY = VALUE, and texts in quotes")
            }
            DescriptionError::NoSuchKey { key, advice } => {
                write!(f, "a machine has no key '{key}': {advice}")
            }
            DescriptionError::At { file, place, error } => {
                places::write_place(f, file.as_deref(), *place)?;
                error.fmt(f)
            }
            DescriptionError::NotASetting { text } => {
                write!(f, "'{text}' is not a setting: give key=value")
            }
            DescriptionError::Wrong { key, value, allowed } => {
                write!(f, "{key} = {value} is not allowed: give {allowed}")
            }
        }
    }
}

impl std::error::Error for DescriptionError {}
