//! From what the loader and the firmware say to a manager that works.

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kmem::boot::{BootMem, CommandLine};
use kmem::{CpuId, MemoryMap, NodeId, PhysAddr, Setup};

use crate::acpi::{Acpi, Affinity};
use crate::heap::{self, HEAP};
use crate::options::Options;
use crate::paging::PAGE;
use crate::start_info::{Region, StartInfo};
use crate::{MM, clock, cpu, paging, stack};

/// What devices with 24 address lines reach: where zone DMA ends if nothing else is asked for.
const DMA_LIMIT: u64 = 16 << 20;

/// What devices with 32 address lines reach.
const DMA32_LIMIT: u64 = 4 << 30;

/// What the manager boots from.
static BOOT_MEM: BootMem = BootMem::new();

/// The first pages have what the loader left, and the code that other CPUs start with.
const LOADER: Range<u64> = 0..0x10000;

/// The nodes that distances are asked for.
const NODES: u32 = 8;

/// A machine's memory and CPUs.
pub struct Found {
    /// What the loader calls RAM, without the holes that were asked for.
    pub ram: Vec<Region>,
    /// What is set aside for the machine's own heap.
    pub heap: Range<u64>,
    /// What the command line says about memory.
    memory: CommandLine,
    /// The addresses whose RAM the manager is told to leave alone.
    above: Range<u64>,
    /// Where zone DMA ends.
    pub dma_limit: u64,
    /// Where zone DMA32 ends. A machine with high memory has none, as a processor of 32 bits: what lies
    /// between DMA and the end of the direct map is Normal.
    pub dma32_limit: Option<u64>,
    /// Where the direct map ends, if RAM may lie above.
    pub direct_limit: Option<u64>,
    acpi: Option<Acpi>,
}

impl Found {
    /// Looks at what there is.
    ///
    /// # Errors
    ///
    /// What is left without the holes is not enough, or a hole is where the kernel is.
    pub fn new(
        info: StartInfo,
        acpi: Option<Acpi>,
        options: &Options,
    ) -> Result<Found, &'static str> {
        let (holes, memory) = (&options.holes, options.memory);
        let image = paging::image();
        let is_in = |hole: &Range<u64>| {
            [&image, &LOADER].iter().any(|taken| hole.start < taken.end && taken.start < hole.end)
        };
        if holes.iter().any(is_in) {
            return Err("a hole is where the kernel or what the loader left is");
        }
        // Each hole makes one region two at most.
        let mut ram = Vec::with_capacity(info.regions().count() + holes.len());
        ram.extend(info.regions().filter(Region::is_ram));
        for hole in holes {
            for index in (0..ram.len()).rev() {
                let region: Region = ram.swap_remove(index);
                ram.extend(region.without(hole));
            }
        }
        let above = memory.mem.unwrap_or(u64::MAX) / PAGE * PAGE..u64::MAX;
        if above.start < image.end {
            return Err("mem= leaves the kernel itself no room");
        }
        let dma_limit = options.dma.unwrap_or(DMA_LIMIT);
        let direct_limit = options.highmem;
        let high = direct_limit.unwrap_or(u64::MAX)..u64::MAX;
        if high.start < image.end || high.start <= dma_limit {
            return Err("highmem= leaves the kernel itself or zone DMA no room");
        }
        let dma32_limit = direct_limit.is_none().then_some(DMA32_LIMIT);
        let heap = 0..0;
        let mut found =
            Found { ram, heap, memory, above, dma_limit, dma32_limit, direct_limit, acpi };
        let free = found.ram.iter().flat_map(|region| region.without(&image));
        let free = free.flat_map(|region| region.without(&found.above));
        let free = free.flat_map(|region| region.without(&high));
        let free = free.flat_map(|region| region.without(&LOADER));
        found.heap =
            heap::place(free, found.cpus()).ok_or("there is too little RAM in one piece")?;
        Ok(found)
    }

    /// The RAM that the manager is given: without what lies above `mem=`.
    pub fn managed(&self) -> impl Iterator<Item = Region> + Clone + '_ {
        self.ram.iter().flat_map(|region| region.without(&self.above))
    }

    /// How many pages of that are RAM from their first byte to their last.
    pub fn whole_pages(&self) -> u64 {
        pages(self.managed(), |region| region.start..region.end)
    }

    /// How many of them have what the loader left.
    pub fn loader_pages(&self) -> u64 {
        pages(self.managed(), |region| region.start..region.end.min(LOADER.end))
    }

    /// How many nodes have CPUs or memory.
    pub fn nodes(&self) -> u32 {
        let domains = self.acpi.into_iter().flat_map(Acpi::affinities).map(|affinity| {
            let (Affinity::Cpu(_, domain) | Affinity::Memory(_, _, domain)) = affinity;
            domain
        });
        domains.max().map_or(1, |last| last + 1)
    }

    /// Boots the heap and the manager.
    ///
    /// # Panics
    ///
    /// The memory map cannot be used.
    ///
    /// # Safety
    ///
    /// Once; the direct map has all of the RAM up to its end, and nobody uses it but for what the loader left and the
    /// image.
    pub unsafe fn boot(&self) {
        let end = self.ram.iter().map(|region| region.end).max().unwrap_or(0);
        let limit = self.direct_limit.map_or(end, |limit| limit.min(end));
        MM.platform().set_limit(limit);
        HEAP.platform().set_limit(limit);
        let own = MemoryMap::new().ram(self.heap.clone(), NodeId::ZERO);
        let setup = Setup::new().cpus(self.cpus()).stacks(stack::TASKS);
        // SAFETY: the heap's memory is kept out of the other manager's.
        if let Err(error) = unsafe { HEAP.boot(&own, &setup) } {
            panic!("the heap's manager does not boot: {error}");
        }
        step("heap");
        let map = self
            .map()
            .reserved(LOADER, "loader")
            .reserved(self.heap.clone(), "heap")
            .kernel(paging::image(), "kernel");
        let (setup, pc) = (self.setup(), MM.platform());
        // SAFETY: the caller's promise; the rest is reserved.
        if let Err(error) = unsafe { BOOT_MEM.open(&map, &setup) } {
            panic!("the memory map cannot be used: {error}");
        }
        if let Err(error) = BOOT_MEM.apply(pc, &self.memory) {
            crate::refuse(format_args!("what the command line says of memory: {error}"));
        }
        // SAFETY: as above.
        if let Err(error) = unsafe { MM.boot_from(&BOOT_MEM, &setup) } {
            panic!("the memory manager does not boot: {error}");
        }
        step("manager");
    }

    /// The RAM, with the node of each piece.
    fn map(&self) -> MemoryMap {
        let mut map = MemoryMap::new();
        for region in &self.ram {
            let mut start = region.start;
            while start < region.end {
                let rest = start..region.end;
                let (domain, end) = self.acpi.map_or((0, region.end), |acpi| acpi.node_of(rest));
                map = map.ram(start..end, node(domain));
                start = end;
            }
        }
        map
    }

    fn setup(&self) -> Setup {
        let mut setup = Setup::new()
            .dma_limit(PhysAddr::new(self.dma_limit))
            .cpus(self.cpus())
            .interrupt_stacks(stack::OF_HANDLERS);
        if let Some(limit) = self.dma32_limit {
            setup = setup.dma32_limit(PhysAddr::new(limit));
        }
        for cpu in (0..self.cpus()).filter_map(CpuId::new) {
            setup = setup.cpu_node(cpu, self.node_of(cpu));
        }
        for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
            if let Some(distance) = self.acpi.and_then(|acpi| acpi.distance(from, to)) {
                setup = setup.distance(node(from), node(to), distance);
            }
        }
        setup
    }

    /// The node that a CPU is on.
    pub fn node_of(&self, cpu: CpuId) -> NodeId {
        let controller = self.controllers().nth(cpu.index());
        let mut affinities = self.acpi.into_iter().flat_map(Acpi::affinities);
        let found = affinities.find_map(|affinity| match affinity {
            Affinity::Cpu(other, domain) if Some(other) == controller => Some(domain),
            _ => None,
        });
        found.map_or(NodeId::ZERO, node)
    }

    /// How many CPUs there are.
    fn cpus(&self) -> u32 {
        self.controllers().count().clamp(1, cpu::CPUS) as u32
    }

    /// The interrupt controllers of the CPUs, in the order of the CPUs' numbers.
    pub fn controllers(&self) -> impl Iterator<Item = u32> + use<> {
        self.acpi.into_iter().flat_map(Acpi::cpus)
    }
}

/// How many whole pages parts of regions have. The regions are apart, but for those that holes made.
fn pages(regions: impl Iterator<Item = Region>, part: impl Fn(&Region) -> Range<u64>) -> u64 {
    let whole = |range: Range<u64>| (range.end / PAGE).saturating_sub(range.start.div_ceil(PAGE));
    regions.map(|region| whole(part(&region))).sum()
}

fn node(domain: u32) -> NodeId {
    NodeId::new(domain).unwrap_or(NodeId::ZERO)
}

/// How many pages were free when the machine had booted.
static FREE: AtomicU64 = AtomicU64::new(0);

/// Notes how many pages are free: the machine has booted, and has what it keeps.
pub fn note_free_pages() {
    FREE.store(MM.free_page_count(), Relaxed);
}

/// How many pages were free when the machine had booted.
pub fn free_pages() -> u64 {
    FREE.load(Relaxed)
}

/// The steps of boot, in their order.
const STEPS: [&str; 6] = ["tables", "clock", "heap", "manager", "CPUs", "first task"];

/// What the processor's counter said when each was done, and first of all when the kernel was entered.
static DONE: [AtomicU64; 1 + STEPS.len()] = [const { AtomicU64::new(0) }; 1 + STEPS.len()];

/// Notes that the kernel was entered.
pub fn begin() {
    DONE[0].store(clock::counter(), Relaxed);
}

/// Notes that a step of boot is done.
pub fn step(name: &str) {
    if let Some(index) = STEPS.iter().position(|step| *step == name) {
        DONE[1 + index].store(clock::counter(), Relaxed);
    }
}

/// The steps, and how many nanoseconds each took.
pub fn steps() -> impl Iterator<Item = (&'static str, u64)> {
    STEPS.iter().zip(DONE.windows(2)).map(|(name, ends)| {
        let [begun, done] = [0, 1].map(|end: usize| ends[end].load(Relaxed));
        (*name, clock::in_nanoseconds(done.saturating_sub(begun)))
    })
}
