//! The kinds of zone, and which of them a mask opens.

use core::fmt;

use super::Gfp;

/// The kind of a zone: which requests it may serve.
///
/// The order is that of fallback: a request that one kind may serve may be served by the kinds
/// before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ZoneKind {
    /// Low memory for devices with few address lines.
    Dma,
    /// Memory for devices with 32 address lines.
    Dma32,
    /// Memory in the direct map.
    Normal,
    /// Memory outside the direct map.
    HighMem,
    /// Memory that holds only pages which can be moved.
    Movable,
}

impl ZoneKind {
    /// How many kinds there are; the length of a table indexed by kind.
    pub const COUNT: usize = 5;

    /// All kinds, in order.
    pub const ALL: [ZoneKind; Self::COUNT] =
        [Self::Dma, Self::Dma32, Self::Normal, Self::HighMem, Self::Movable];

    /// The kind as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name, as `/proc/buddyinfo` prints it (A027).
    pub const fn name(self) -> &'static str {
        match self {
            ZoneKind::Dma => "DMA",
            ZoneKind::Dma32 => "DMA32",
            ZoneKind::Normal => "Normal",
            ZoneKind::HighMem => "HighMem",
            ZoneKind::Movable => "Movable",
        }
    }

    /// The highest kind for each value of [`Gfp::zone_bits`]: a table, since every allocation asks
    /// and a chain of branches would cost it more than one load.
    pub(super) const HIGHEST: [ZoneKind; 16] = {
        let mut table = [ZoneKind::Normal; 16];
        let mut bits = 0;
        while bits < table.len() {
            table[bits] = Self::highest(Gfp(bits as u32));
            bits += 1;
        }
        table
    };

    /// Of zones that exclude each other the lowest counts: memory that every one of them accepts.
    const fn highest(zone: Gfp) -> ZoneKind {
        if zone.contains(Gfp::DMA) {
            ZoneKind::Dma
        } else if zone.contains(Gfp::DMA32) {
            ZoneKind::Dma32
        } else if zone.contains(Gfp::HIGHMEM.union(Gfp::MOVABLE)) {
            ZoneKind::Movable
        } else if zone.contains(Gfp::HIGHMEM) {
            ZoneKind::HighMem
        } else {
            ZoneKind::Normal
        }
    }
}

impl fmt::Display for ZoneKind {
    /// Writes [`ZoneKind::name`]; width and fill are honoured.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
