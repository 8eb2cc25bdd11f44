//! What of a machine matters to the choice.

use std::ops::Range;

use kmem::Gfp;
use kmem_host::Description;

/// What of a machine matters to the choice. Sizes and addresses are in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    pub name: String,
    pub page: u64,
    /// The largest block of pages (A058), and with it the largest piece of kmalloc's (A156).
    pub block: u64,
    pub ram: u64,
    pub cpus: u64,
    /// How many addresses vmalloc has.
    pub mapping_area: u64,
    /// The RAM that has an address at all times.
    pub low: Part,
    /// Of that, what `GFP_DMA32` and `GFP_DMA` open, where there are such zones.
    pub dma32: Option<Part>,
    pub dma: Option<Part>,
    /// Whether there is RAM above the direct map.
    pub high: bool,
}

/// RAM below an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it ends: a device has to reach all below.
    pub end: u64,
    /// How much RAM it is.
    pub bytes: u64,
}

impl Limits {
    /// Those of a machine.
    pub fn of(machine: &Description) -> Self {
        let ram = machine.ram();
        let low_end = machine.direct_map_limit.unwrap_or(u64::MAX);
        let below = |end: u64| Part { end, bytes: below(&ram, end) };
        let last = ram.last().map_or(0, |range| range.end);
        let page = 1 << machine.page_shift;
        Limits {
            name: machine.name.clone(),
            page,
            block: page << machine.largest_order,
            ram: machine.ram_bytes(),
            cpus: u64::from(machine.cpus),
            mapping_area: machine.mapping_area,
            low: below(last.min(low_end)),
            dma32: machine.dma32_limit.map(|end| below(end.min(low_end))),
            dma: machine.dma_limit.map(|end| below(end.min(low_end))),
            high: last > low_end,
        }
    }

    /// The zone modifier for a device with this many address lines, and what it opens: as much as
    /// the device reaches. `None`: the machine has no zone that is low enough.
    ///
    /// A mask of 32 bits or fewer takes its zone even where all RAM happens to be low enough, so
    /// that the advice holds when RAM is added. All of the direct map of a machine with high memory
    /// stays in reach: that is where Normal ends (A034).
    pub fn zone_for(&self, bits: u32) -> Option<(Gfp, Part)> {
        let reaches = |part: &Part| bits >= 64 || part.end <= 1 << bits;
        let low = Some((Gfp::NONE, self.low)).filter(|(_, part)| reaches(part));
        let zone = |gfp, part: Option<Part>| Some((gfp, part.filter(&reaches)?));
        let wide = if bits > 32 { low } else { None };
        wide.or_else(|| zone(Gfp::DMA32, self.dma32)).or(low).or_else(|| zone(Gfp::DMA, self.dma))
    }
}

/// How much of RAM lies below an address.
fn below(ram: &[Range<u64>], end: u64) -> u64 {
    ram.iter().map(|range| range.end.min(end).saturating_sub(range.start)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(machine: &str) -> Limits {
        Limits::of(&Description::preset(machine).unwrap())
    }

    /// A020, A021, A034: a device gets the highest zone that it reaches all of.
    #[test]
    fn a_device_gets_the_highest_zone_that_it_reaches() {
        for (machine, bits, expected) in [
            ("default", 24, Some(Gfp::DMA)),
            ("default", 20, None),
            ("default", 32, Some(Gfp::DMA32)),
            ("default", 30, Some(Gfp::NONE)),
            ("default", 29, Some(Gfp::DMA)),
            ("default", 64, Some(Gfp::NONE)),
            ("x86_64", 24, Some(Gfp::DMA)),
            ("x86_64", 32, Some(Gfp::DMA32)),
            ("x86_64", 33, Some(Gfp::DMA32)),
            ("x86_64", 34, Some(Gfp::NONE)),
            ("numa2", 30, Some(Gfp::DMA32)),
            ("lkd-i386", 24, Some(Gfp::DMA)),
            ("lkd-i386", 32, Some(Gfp::NONE)),
            ("pae", 32, Some(Gfp::NONE)),
            ("ldd2-i386", 24, Some(Gfp::DMA)),
            ("ldd2-i386", 32, Some(Gfp::NONE)),
            ("tiny", 24, None),
            ("tiny", 26, Some(Gfp::NONE)),
        ] {
            let zone = limits(machine).zone_for(bits).map(|(gfp, _)| gfp);
            assert_eq!(zone, expected, "{machine}, {bits} bits");
        }
    }

    #[test]
    fn ram_is_counted_without_its_holes() {
        let default = limits("default");
        assert_eq!(default.dma.unwrap().bytes, (16 << 20) - (384 << 10));
        assert_eq!((default.page, default.block, default.high), (4096, 4 << 20, false));
        let lkd = limits("lkd-i386");
        assert_eq!((lkd.low.end, lkd.low.bytes), (896 << 20, (896 << 20) - (384 << 10)));
        assert!(lkd.high);
        assert_eq!(limits("ldd2-i386").block, 128 << 10);
    }
}
