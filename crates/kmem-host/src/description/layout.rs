//! The same machine with more or less memory, other CPUs, other nodes.
//!
//! The holes of a machine stay where they are: devices do not move when somebody adds memory. RAM
//! is laid into the addresses between the holes, from the bottom up, node after node; above the
//! highest RAM that the machine had there is room without end. A hole of less than 1 MiB counts as
//! RAM that firmware took: a PC "with 1 GiB" still lacks the 384 KiB below 1 MiB.

use std::ops::Range;

use kmem::{MAX_CPUS, MAX_NODES};

use super::{Description, DescriptionError, Node, format_size, join, wrong};

/// The least memory of a node: enough for the tables and a few blocks.
const LEAST: u64 = 1 << 20;
/// 32-bit frame numbers reach 16 TiB with the smallest pages.
const MOST: u64 = 16 << 40;

impl Description {
    /// Gives the machine `bytes` of memory in all, shared between the nodes as it was before.
    /// Reserved regions stay; of the kernel's and late regions those that lost their RAM go.
    ///
    /// # Errors
    ///
    /// Less than 1 MiB a node, more than 16 TiB, or not a multiple of the page size.
    pub fn mem(&mut self, bytes: u64) -> Result<(), DescriptionError> {
        let had: Vec<u64> = self.nodes.iter().map(Node::size).collect();
        let total: u64 = had.iter().sum();
        if total == 0 {
            return Err(wrong(
                "mem",
                format_size(bytes),
                "the machine some ram first: it has none to enlarge",
            ));
        }
        let share = |size: u64| (u128::from(bytes) * u128::from(size) / u128::from(total)) as u64;
        self.lay_out(bytes, &had.into_iter().map(share).collect::<Vec<_>>())
    }

    /// Gives the machine `count` CPUs. CPUs that a node names and that are no more are dropped; new
    /// ones go round the nodes.
    ///
    /// # Errors
    ///
    /// None, or more than 256.
    pub fn cpus(&mut self, count: u32) -> Result<(), DescriptionError> {
        if count == 0 || count as usize > MAX_CPUS {
            return Err(wrong("cpus", count, "a number from 1 to 256"));
        }
        self.cpus = count;
        self.places.forget("cpus");
        for (index, node) in self.nodes.iter().enumerate() {
            if node.cpus.iter().any(|cpu| *cpu >= count) {
                self.places.forget(&format!("node.{index}.cpus"));
            }
        }
        for node in &mut self.nodes {
            node.cpus.retain(|&cpu| cpu < count);
        }
        Ok(())
    }

    /// Gives the machine `count` nodes with equal shares of its memory, the CPUs going round them,
    /// at distance 20 from each other. What a node's ZONE_MOVABLE had is shared too.
    ///
    /// # Errors
    ///
    /// None, more than 16, or less than 1 MiB for each.
    pub fn nodes(&mut self, count: u32) -> Result<(), DescriptionError> {
        if count == 0 || count as usize > MAX_NODES {
            return Err(wrong("nodes", count, "a number from 1 to 16"));
        }
        let total: u64 = self.nodes.iter().map(Node::size).sum();
        let movable: u64 = self.nodes.iter().map(|node| node.movable).sum();
        let least = LEAST.max(1 << self.page_shift);
        if total / least < u64::from(count) {
            let allowed = format!(
                "at most {}, or ram of {} and more: the machine has {}",
                (total / least).max(1),
                format_size(least * u64::from(count)),
                format_size(total)
            );
            return Err(wrong("nodes", count, allowed));
        }
        let count = u64::from(count);
        let before = self.clone();
        let ram = self.nodes.drain(..).flat_map(|node| node.ram).collect();
        self.nodes = vec![Node::default(); count as usize];
        self.nodes[0].ram = ram;
        let total = round_down(total, 1 << self.page_shift);
        let result = self.lay_out(total, &vec![total / count; count as usize]);
        if result.is_err() {
            *self = before;
            return result;
        }
        let share = round_down(movable / count, 1 << self.page_shift);
        self.nodes.iter_mut().for_each(|node| node.movable = share);
        Ok(())
    }

    /// Lays out `total` bytes anew; node `i` has about `shares[i]` of them.
    fn lay_out(&mut self, total: u64, shares: &[u64]) -> Result<(), DescriptionError> {
        let page = 1 << self.page_shift;
        let least = LEAST.max(page) * shares.len() as u64;
        if total < least || total > MOST || !total.is_multiple_of(page) {
            let allowed = format!(
                "a multiple of the page size from {} to {}",
                format_size(least),
                format_size(MOST)
            );
            return Err(wrong("mem", format_size(total), allowed));
        }
        let mut space = Space::new(self.ram());
        let mut left = total;
        let count = shares.len();
        for (index, (node, share)) in self.nodes.iter_mut().zip(shares).enumerate() {
            // The later nodes keep room for their least; the last takes what rounding left over.
            let later = (count - index - 1) as u64;
            let most = left - later * LEAST.max(page);
            let size = if later == 0 {
                left
            } else {
                round_down(*share, LEAST.max(page)).clamp(LEAST.max(page), most)
            };
            node.ram = space.take(size);
            node.movable = node.movable.min(round_down(size / 2, page));
            left -= size;
        }
        let ram = self.ram();
        let (end, limit) = (ram.last().map_or(0, |last| last.end), self.address_limit());
        if end > limit {
            // What holes push above the limit is too much.
            let most = format_size(round_down(total.saturating_sub(end - limit), LEAST.max(page)));
            let allowed = format!("at most {most}, which ends with its holes below {limit:#x}");
            return Err(wrong("mem", format_size(total), allowed));
        }
        let in_ram = |range: &Range<u64>| {
            ram.iter().any(|ram| ram.start <= range.start && range.end <= ram.end)
        };
        self.kernel.retain(in_ram);
        self.late.retain(in_ram);
        // Nothing of this stands in a file any more.
        for key in ["node", "kernel", "late"] {
            self.places.forget(key);
        }
        Ok(())
    }
}

impl Node {
    /// The bytes of RAM, counting small holes as RAM.
    fn size(&self) -> u64 {
        fill_small_holes(join(self.ram.clone()))
            .iter()
            .map(|(whole, _)| whole.end - whole.start)
            .sum()
    }
}

/// Joins ranges over holes of less than 1 MiB; each result comes with its parts.
fn fill_small_holes(ranges: Vec<Range<u64>>) -> Vec<(Range<u64>, Vec<Range<u64>>)> {
    let mut filled: Vec<(Range<u64>, Vec<Range<u64>>)> = Vec::new();
    for range in ranges {
        match filled.last_mut() {
            Some((whole, parts)) if range.start - whole.end < LEAST => {
                whole.end = range.end;
                parts.push(range);
            }
            _ => filled.push((range.clone(), vec![range])),
        }
    }
    filled
}

/// The addresses that RAM may have, handed out from the bottom up.
struct Space {
    ranges: Vec<(Range<u64>, Vec<Range<u64>>)>,
    next: usize,
    at: u64,
}

impl Space {
    fn new(ram: Vec<Range<u64>>) -> Space {
        let mut ranges = fill_small_holes(ram);
        if let Some((whole, parts)) = ranges.last_mut() {
            // The highest RAM may grow without end: past the most that any machine has.
            whole.end += MOST;
            if let Some(part) = parts.last_mut() {
                part.end = whole.end;
            }
        }
        let at = ranges.first().map_or(0, |(whole, _)| whole.start);
        Space { ranges, next: 0, at }
    }

    /// The RAM in the next `size` bytes.
    fn take(&mut self, mut size: u64) -> Vec<Range<u64>> {
        let mut taken = Vec::new();
        while size > 0 {
            let (whole, parts) = &self.ranges[self.next];
            let end = whole.end.min(self.at + size);
            size -= end - self.at;
            for part in parts {
                let piece = part.start.max(self.at)..part.end.min(end);
                if piece.start < piece.end {
                    taken.push(piece);
                }
            }
            self.at = end;
            if end == whole.end {
                self.next += 1;
                self.at = self.ranges.get(self.next).map_or(end, |(whole, _)| whole.start);
            }
        }
        taken
    }
}

fn round_down(bytes: u64, unit: u64) -> u64 {
    bytes / unit * unit
}
