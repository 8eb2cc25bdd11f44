//! What must hold between the keys of a description, and what a machine costs its host.

use std::fmt;
use std::ops::Range;

use kmem::{MAX_NODES, Pfn};

use super::{Description, DescriptionError, Node, format_range, format_size, join, wrong};

/// Bytes of metadata a page frame: its descriptor.
const DESCRIPTOR: u64 = 32;
/// What tables other than the descriptors may take: a page set for each CPU and zone, page block
/// flags, zones and zone lists. Rounded up; far below what the descriptors take.
const TABLES_PER_CPU: u64 = 16 << 10;
const TABLES: u64 = 256 << 10;
/// Regions that one memory map holds.
const MAX_REGIONS: usize = kmem::boot::map::MAX_REGIONS;

/// What a machine takes before anybody has allocated a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// How many page frames get a descriptor.
    pub frames: u64,
    /// The bytes of descriptors and tables. All of it is touched at boot, so it is real memory of
    /// the host; the rest of the machine's RAM costs nothing until it is used.
    pub metadata: u64,
    /// The machine's RAM in bytes.
    pub ram: u64,
    /// The part of the RAM that the direct map reaches and that nothing occupies at boot: the
    /// metadata must fit here.
    pub low_memory: u64,
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} KiB of metadata for {} page frames, {} KiB of RAM, {} KiB of it low memory",
            self.metadata >> 10,
            self.frames,
            self.ram >> 10,
            self.low_memory >> 10
        )
    }
}

impl Description {
    /// Whether the values go together.
    ///
    /// # Errors
    ///
    /// The first that does not, with what it would have to be.
    pub fn check(&self) -> Result<(), DescriptionError> {
        self.check_memory()?;
        self.check_command_line()?;
        self.check_limits()?;
        self.check_nodes()
    }

    /// An error about a key, with the place of its value in the machine's file.
    fn wrong(
        &self,
        key: &str,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) -> DescriptionError {
        self.places.locate(key, None, wrong(key, value, allowed))
    }

    /// The same about an item of a list.
    fn wrong_item(
        &self,
        key: &str,
        item: usize,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) -> DescriptionError {
        self.places.locate(key, Some(item), wrong(key, value, allowed))
    }

    /// Where the addresses of RAM end: frames have numbers of 32 bits.
    pub(super) fn address_limit(&self) -> u64 {
        (Pfn::MAX.number() + 1) << self.page_shift
    }

    fn check_memory(&self) -> Result<(), DescriptionError> {
        let ram = self.ram();
        if ram.is_empty() {
            let error = self.wrong(
                "node.0.ram",
                "[]",
                "at least one range of ram, such as ram = [\"0-64M\"] below a line [[node]]",
            );
            return Err(match error {
                DescriptionError::At { .. } => error,
                _ => self.places.of_file(error),
            });
        }
        let limit = self.address_limit();
        for (node, Node { ram, .. }) in self.nodes.iter().enumerate() {
            if let Some(item) = ram.iter().position(|range| range.end > limit) {
                let allowed = format!("ram below {limit:#x}, the limit of 32-bit frame numbers");
                let key = format!("node.{node}.ram");
                return Err(self.wrong_item(&key, item, format_range(&ram[item]), allowed));
            }
        }
        let regions = self.nodes.iter().map(|node| node.ram.len()).sum::<usize>()
            + self.reserved.len()
            + self.kernel.len()
            + self.late.len();
        if regions > MAX_REGIONS {
            let allowed = format!("at most {MAX_REGIONS} ranges in all");
            let error = wrong("ram, reserved, kernel and late", regions, allowed);
            return Err(self.places.of_file(error));
        }
        for (key, ranges) in [("kernel", &self.kernel), ("late", &self.late)] {
            let outside = |range: &Range<u64>| {
                !ram.iter().any(|ram| ram.start <= range.start && range.end <= ram.end)
            };
            if let Some(item) = ranges.iter().position(outside) {
                let range = format_range(&ranges[item]);
                return Err(self.wrong_item(key, item, range, "ranges that lie in ram"));
            }
        }
        // Who releases it would give away what somebody uses.
        for (key, ranges) in [("kernel", &self.kernel), ("reserved", &self.reserved)] {
            let taken = |late: &Range<u64>| {
                ranges.iter().find(|range| range.start < late.end && late.start < range.end)
            };
            for (item, late) in self.late.iter().enumerate() {
                if let Some(range) = taken(late) {
                    let allowed = format!("ranges apart from {} of {key}", format_range(range));
                    return Err(self.wrong_item("late", item, format_range(late), allowed));
                }
            }
        }
        Ok(())
    }

    /// Whether the command line leaves the manager RAM with room for its tables, and as much in one
    /// piece as is to be set aside.
    fn check_command_line(&self) -> Result<(), DescriptionError> {
        let key = "command_line";
        let located = |error| self.places.locate(key, None, error);
        let line = self.parsed_command_line().map_err(located)?;
        let refuse = |word: String, allowed: String| Err(self.wrong(key, word, allowed));
        let page = 1u64 << self.page_shift;
        let needs = self.footprint().metadata;
        let free = self.free_low_memory();
        let left = size(&free);
        if let Some(limit) = line.mem
            && left < needs
        {
            let free = in_kilobytes(left);
            let needs = in_kilobytes(needs + 1023);
            let allowed = format!(
                "a higher mem=, as the {free} of free low memory below it do not hold the {needs} of page \
                 descriptors and tables; or leave it out"
            );
            return refuse(format!("mem={}", format_size(limit)), allowed);
        }
        let pages = line.bigphysarea.unwrap_or(0);
        if pages > 0 && !self.can_set_aside(pages, &free, needs) {
            // As many as there are: `most` is one, and `too_many` is none.
            let (mut most, mut too_many) = (0, (left >> self.page_shift) + 1);
            while too_many - most > 1 {
                let middle = most + (too_many - most) / 2;
                match self.can_set_aside(middle, &free, needs) {
                    true => most = middle,
                    false => too_many = middle,
                }
            }
            let allowed = format!(
                "at most bigphysarea={most}, {} in one piece: of the {} of free low memory page descriptors \
                 and tables take {} in another one",
                in_kilobytes(most * page),
                in_kilobytes(left),
                in_kilobytes(needs + 1023),
            );
            return refuse(format!("bigphysarea={pages}"), allowed);
        }
        Ok(())
    }

    /// Whether so many pages are free in one piece, and beside them a piece of `tables` bytes.
    fn can_set_aside(&self, pages: u64, free: &[Range<u64>], tables: u64) -> bool {
        self.place_of_bigphysarea(pages).is_some_and(|taken| {
            free.iter().any(|free| {
                let below = taken.start.min(free.end).saturating_sub(free.start);
                let above = free.end.saturating_sub(taken.end.max(free.start));
                below.max(above) >= tables
            })
        })
    }

    fn check_limits(&self) -> Result<(), DescriptionError> {
        let page = 1u64 << self.page_shift;
        let limits = [
            ("dma_limit", self.dma_limit),
            ("dma32_limit", self.dma32_limit),
            ("direct_map_limit", self.direct_map_limit),
        ];
        for (key, limit) in limits {
            let bad = |limit: &u64| *limit == 0 || !limit.is_multiple_of(page);
            if let Some(limit) = limit.filter(bad) {
                let allowed = format!("a multiple of the page size of {}", format_size(page));
                return Err(self.wrong(key, format_size(limit), allowed));
            }
        }
        if let (Some(dma), Some(dma32)) = (self.dma_limit, self.dma32_limit)
            && dma >= dma32
        {
            let allowed = format!("an address above dma_limit = {}", format_size(dma));
            return Err(self.wrong("dma32_limit", format_size(dma32), allowed));
        }
        if !self.mapping_area.is_multiple_of(page) {
            let allowed = format!("a multiple of the page size of {}", format_size(page));
            return Err(self.wrong("mapping_area", format_size(self.mapping_area), allowed));
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), DescriptionError> {
        let count = self.nodes.len();
        if !(1..=MAX_NODES).contains(&count) {
            return Err(self.wrong("node", count, format!("1 to {MAX_NODES} nodes")));
        }
        let page = 1u64 << self.page_shift;
        for (index, node) in self.nodes.iter().enumerate() {
            let key = |name: &str| format!("node.{index}.{name}");
            for (other, ram) in self.nodes[..index]
                .iter()
                .enumerate()
                .flat_map(|(i, n)| n.ram.iter().map(move |r| (i, r)))
            {
                let shared = |range: &Range<u64>| range.start < ram.end && ram.start < range.end;
                if let Some(item) = node.ram.iter().position(shared) {
                    let range = format_range(&node.ram[item]);
                    let allowed =
                        format!("ranges apart from {} of node {other}", format_range(ram));
                    return Err(self.wrong_item(&key("ram"), item, range, allowed));
                }
            }
            for (item, cpu) in node.cpus.iter().enumerate() {
                let taken = self.nodes[..index].iter().any(|other| other.cpus.contains(cpu));
                if *cpu >= self.cpus || taken {
                    let allowed = format!("each cpu below {} on one node", self.cpus);
                    return Err(self.wrong_item(&key("cpus"), item, cpu, allowed));
                }
            }
            let ram = size(&join(node.ram.clone()));
            if !node.movable.is_multiple_of(page) || node.movable > ram {
                let allowed = format!("a multiple of the page size up to {}", format_size(ram));
                return Err(self.wrong(&key("movable"), format_size(node.movable), allowed));
            }
            if !node.distance.is_empty()
                && (node.distance.len() != count || node.distance[index] != 10)
            {
                let allowed = match count {
                    1 => "one number, 10 for the node itself".into(),
                    _ => format!("{count} numbers, one for each node, the node itself 10"),
                };
                return Err(self.wrong(&key("distance"), format!("{:?}", node.distance), allowed));
            }
        }
        Ok(())
    }

    /// What the machine takes before anybody has allocated a page.
    pub fn footprint(&self) -> Footprint {
        let ram = self.managed_ram();
        // Descriptors come for whole blocks of the largest order, so that a frame's buddy of any
        // order has one too.
        let block = (1u64 << self.page_shift) << self.largest_order;
        let blocks =
            ram.iter().map(|r| r.start / block * block..r.end.div_ceil(block) * block).collect();
        let covered = size(&join(blocks));
        let frames = covered >> self.page_shift;
        Footprint {
            frames,
            metadata: frames * DESCRIPTOR + u64::from(self.cpus) * TABLES_PER_CPU + TABLES,
            ram: self.ram_bytes(),
            // Of a description that is not checked nodes may share RAM.
            low_memory: size(&join(self.free_low_memory())),
        }
    }
}

/// A size for people, rounded down to whole kilobytes.
fn in_kilobytes(bytes: u64) -> String {
    format!("{}K", bytes >> 10)
}

/// The bytes of ranges without overlaps.
fn size(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}
