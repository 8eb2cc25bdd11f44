//! What of a machine matters to the choice.

use std::ops::Range;

use kmem::Gfp;
use kmem::boot::Carveout;
use kmem_host::Description;

/// How many pages the window of permanent mappings has, which lies at the end of the addresses for
/// mappings: what [`Setup::kmap_slots`](kmem::Setup::kmap_slots) is, or a quarter of all.
const KMAP_WINDOW: u64 = 1024;

/// What of a machine matters to the choice. Sizes and addresses are in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    pub name: String,
    pub page: u64,
    /// The largest block of pages (A058), and with it the largest piece of kmalloc's (A156).
    pub block: u64,
    /// The RAM that the manager is given: what lies below `mem=`.
    pub ram: u64,
    /// What of it is nobody's once the machine has booted: not firmware's, not the kernel's image, not page
    /// descriptors and tables, not set aside.
    pub free: u64,
    pub cpus: u64,
    /// The largest area of vmalloc: all addresses for mappings, less those of kmap and a guard page.
    pub largest_area: u64,
    /// Whether what is allocated at boot can never be given back (A252).
    pub keeps_boot_memory: bool,
    /// How many pages are set aside for bigphysarea.
    pub bigphysarea: u64,
    /// The RAM that has an address at all times.
    pub low: Part,
    /// Of that, what `GFP_DMA32` and `GFP_DMA` open, where there are such zones.
    pub dma32: Option<Part>,
    pub dma: Option<Part>,
    /// Whether there is RAM above the direct map.
    pub high: bool,
    /// What is free in the direct map when the machine boots, and what page descriptors and tables take
    /// of it.
    low_free: Vec<Range<u64>>,
    tables: u64,
    machine: Description,
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
        let ram = machine.managed_ram();
        let low_end = machine.direct_map_limit.unwrap_or(u64::MAX);
        let below = |end: u64| Part { end, bytes: below(&ram, end) };
        let last = ram.last().map_or(0, |range| range.end);
        let page = 1 << machine.page_shift;
        let line = machine.parsed_command_line().unwrap_or_default();
        let bigphysarea = line.bigphysarea.unwrap_or(0);
        let aside =
            Carveout::pages_to_reserve(bigphysarea, machine.page_shift).saturating_mul(page);
        let tables = machine.footprint().metadata;
        let low_free = machine.free_low_memory();
        let high: u64 =
            ram.iter().map(|range| range.end.saturating_sub(range.start.max(low_end))).sum();
        let free = low_free.iter().map(|range| range.end - range.start).sum::<u64>() + high;
        let addresses = machine.mapping_area / page;
        let areas = (addresses - KMAP_WINDOW.min(addresses / 4)).saturating_sub(1);
        Limits {
            name: machine.name.clone(),
            page,
            block: page << machine.largest_order,
            ram: ram.iter().map(|range| range.end - range.start).sum(),
            free: free.saturating_sub(tables.saturating_add(aside)),
            cpus: u64::from(machine.cpus),
            largest_area: areas * page,
            keeps_boot_memory: machine.keep_boot_memory,
            bigphysarea,
            low: below(last.min(low_end)),
            dma32: machine.dma32_limit.map(|end| below(end.min(low_end))),
            dma: machine.dma_limit.map(|end| below(end.min(low_end))),
            high: last > low_end,
            low_free,
            tables: tables.saturating_add(aside),
            machine: machine.clone(),
        }
    }

    /// Those of the machine with another amount of RAM and other settings, if there can be such a one.
    pub fn changed(&self, mem: Option<u64>, settings: &[String]) -> Option<Limits> {
        let mut machine = self.machine.clone();
        if let Some(bytes) = mem {
            machine.mem(bytes).ok()?;
        }
        settings.iter().try_for_each(|setting| machine.set(setting)).ok()?;
        machine.check().ok()?;
        Some(Limits::of(&machine))
    }

    /// The command line with another `bigphysarea=`.
    pub fn with_bigphysarea(&self, pages: u64) -> String {
        let words = self.machine.command_line.split_whitespace();
        let others = words.filter(|word| !word.starts_with("bigphysarea="));
        let all: Vec<String> =
            others.map(str::to_owned).chain([format!("bigphysarea={pages}")]).collect();
        format!("command_line={}", all.join(" "))
    }

    /// Where an area of so many pages would end that `bigphysarea=` sets aside, if there is room for it.
    pub fn end_of_bigphysarea(&self, pages: u64) -> Option<u64> {
        self.changed(None, &[self.with_bigphysarea(pages)])?;
        Some(self.machine.place_of_bigphysarea(pages)?.end)
    }

    /// The longest piece of memory that boot-time allocations find below an address: what is set aside
    /// and where tables will lie is left out where that is all that there is.
    pub fn longest_at_boot(&self, end: u64) -> u64 {
        let run = |free: &Range<u64>| free.end.min(end).saturating_sub(free.start);
        let longest = self.low_free.iter().map(run).max().unwrap_or(0);
        let all: u64 = self.low_free.iter().map(|free| free.end - free.start).sum();
        longest.min(all.saturating_sub(self.tables)) / self.page * self.page
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
