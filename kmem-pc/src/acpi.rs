//! What the firmware's tables say: which CPUs there are, and which node CPUs and memory are on.

use core::ops::Range;

use crate::direct::{self, At};

/// The firmware's tables.
#[derive(Clone, Copy)]
pub struct Acpi {
    root: At,
    entries: usize,
    /// How many bytes the address of a table has.
    width: usize,
}

/// What SRAT says of memory or a CPU: which domain of proximity it is in.
#[derive(Clone, Copy, Debug)]
pub enum Affinity {
    /// A CPU, by its controller's number.
    Cpu(u32, u32),
    /// Memory from one address up to another.
    Memory(u64, u64, u32),
}

const HEADER: usize = 36;

impl Acpi {
    /// The tables whose root pointer is at a physical address.
    pub fn new(pointer: u64) -> Acpi {
        let pointer = direct::at(pointer);
        // The second revision has a table of wide addresses as well.
        let (root, width) = match (pointer.u8(15), pointer.u64(24)) {
            (2.., wide) if wide != 0 => (wide, 8),
            _ => (u64::from(pointer.u32(16)), 4),
        };
        let root = direct::at(root);
        Acpi { root, entries: (root.u32(4) as usize - HEADER) / width, width }
    }

    /// The contents of a table, without its header, and how many bytes those are.
    fn table(self, name: &[u8; 4]) -> Option<(At, usize)> {
        (0..self.entries).find_map(|entry| {
            let at = HEADER + entry * self.width;
            let narrow = self.width == 4;
            let address = if narrow { self.root.u32(at).into() } else { self.root.u64(at) };
            let table = direct::at(address);
            let is_it = (0..4).all(|byte| table.u8(byte) == name[byte]);
            is_it.then(|| (table.plus(HEADER), table.u32(4) as usize - HEADER))
        })
    }

    /// The records of a table whose first bytes are their kind and length, from an offset on.
    fn records(self, name: &[u8; 4], skip: usize) -> impl Iterator<Item = At> {
        let (table, size) = self.table(name).unwrap_or((self.root, 0));
        let mut offset = skip;
        core::iter::from_fn(move || {
            let record = (offset + 2 <= size).then(|| table.plus(offset))?;
            offset += usize::from(record.u8(1)).max(2);
            Some(record)
        })
    }

    /// The CPUs that can be used, by their controllers' numbers.
    pub fn cpus(self) -> impl Iterator<Item = u32> {
        self.records(b"APIC", 8).filter(|record| record.u8(0) == 0).filter_map(|record| {
            let usable = record.u32(4) & 1 != 0;
            usable.then(|| record.u8(3).into())
        })
    }

    /// What is known of nodes.
    pub fn affinities(self) -> impl Iterator<Item = Affinity> {
        self.records(b"SRAT", 12).filter_map(|record| match record.u8(0) {
            0 if record.u32(4) & 1 != 0 => {
                let high = record.u32(9) & 0xff_ffff;
                let domain = u32::from(record.u8(2)) | high << 8;
                Some(Affinity::Cpu(record.u8(3).into(), domain))
            }
            1 if record.u32(28) & 1 != 0 => {
                let start = record.u64(8);
                let end = start + record.u64(16);
                (start < end).then(|| Affinity::Memory(start, end, record.u32(2)))
            }
            _ => None,
        })
    }

    /// The node of memory, where that is known, and how far from `range`'s start it reaches.
    pub fn node_of(self, range: Range<u64>) -> (u32, u64) {
        let mut end = range.end;
        for affinity in self.affinities() {
            if let Affinity::Memory(start, stop, domain) = affinity {
                if (start..stop).contains(&range.start) {
                    return (domain, stop.min(range.end));
                }
                if start > range.start {
                    end = end.min(start);
                }
            }
        }
        (0, end)
    }

    /// The distance from one node to another; `None` where the firmware does not say.
    pub fn distance(self, from: u32, to: u32) -> Option<u8> {
        let (table, _) = self.table(b"SLIT")?;
        let count = table.u64(0) as usize;
        let (from, to) = (from as usize, to as usize);
        (from < count && to < count).then(|| table.u8(8 + from * count + to))
    }
}
