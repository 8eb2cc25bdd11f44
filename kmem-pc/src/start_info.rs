//! What the loader says of the machine: memory, command line, and where the ACPI tables begin.

use core::ops::Range;

use crate::direct::{self, At};

const MAGIC: u32 = 0x336e_c578;

/// The start information of the PVH protocol, at a physical address.
#[derive(Clone, Copy)]
pub struct StartInfo {
    at: At,
}

/// A range of physical addresses, and what is there.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
    /// What e820 calls it: 1 is RAM.
    pub kind: u32,
}

impl Region {
    /// Whether it is RAM.
    pub fn is_ram(&self) -> bool {
        self.kind == 1
    }

    /// Whether it is memory of any kind: RAM, or where the firmware keeps its tables. Those lie right
    /// behind RAM; what is called reserved at the end of 4 GiB and beyond is devices'.
    pub fn is_memory(&self) -> bool {
        self.is_ram() || self.start < 0xc000_0000
    }
}

impl Region {
    /// What is left of it without a range.
    pub fn without(self, hole: &Range<u64>) -> impl Iterator<Item = Region> + Clone + use<> {
        let below = Region { end: self.end.min(hole.start), ..self };
        let above = Region { start: self.start.max(hole.end), ..self };
        [below, above].into_iter().filter(|part| part.start < part.end)
    }
}

impl StartInfo {
    /// What the loader left at an address.
    ///
    /// # Panics
    ///
    /// Where it is no start information: the image was not loaded by PVH.
    pub fn new(address: u32) -> StartInfo {
        let at = direct::at(address.into());
        assert!(at.u32(0) == MAGIC, "the image was not loaded by the PVH protocol");
        StartInfo { at }
    }

    /// The memory map, in the loader's order.
    pub fn regions(self) -> impl Iterator<Item = Region> + Clone {
        let table = direct::at(self.at.u64(40));
        (0..self.at.u32(48) as usize).map(move |index| {
            let (start, size) = (table.u64(index * 24), table.u64(index * 24 + 8));
            Region { start, end: start + size, kind: table.u32(index * 24 + 16) }
        })
    }

    /// The text behind `-append`; `None` where it is longer than 4095 bytes, or no UTF-8.
    pub fn command_line(self) -> Option<&'static str> {
        match self.at.u64(24) {
            0 => Some(""),
            text => direct::at(text).text(),
        }
    }

    /// Where ACPI's root pointer is, if the loader says so.
    pub fn acpi_root(self) -> Option<u64> {
        Some(self.at.u64(32)).filter(|at| *at != 0)
    }
}
