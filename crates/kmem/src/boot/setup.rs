//! What a machine is like, apart from its memory map.

use core::fmt;

use super::classes::{LARGEST_RECORD, SMALL_OBJECT};
use super::stack::LARGEST_STACK;
use super::{Classes, SlabDebug, StackSetup};
use crate::gfp::ZoneKind;
use crate::ids::Distances;
use crate::{CpuId, MAX_CPUS, MAX_NODES, NodeId, Order, PhysAddr};

/// The most caches that there can be: a slab's descriptor has 12 bits for the number of its cache.
pub(crate) const MAX_CACHES: u32 = 1 << 12;

/// The most slots for permanent mappings: they are numbered with 16 bits, one value of which is "none".
pub(crate) const MAX_KMAP_SLOTS: u32 = 1 << 15;

/// A machine's description, apart from its memory map. Everything has a default; a PC of today
/// differs from it by [`Setup::dma_limit`], [`Setup::dma32_limit`] and [`Setup::cpus`].
///
/// ```
/// # use kmem::{Setup, PhysAddr};
/// const PC: Setup = Setup::new()
///     .dma_limit(PhysAddr::new(16 << 20))
///     .dma32_limit(PhysAddr::new(4 << 30))
///     .cpus(2);
/// ```
#[derive(Clone)]
pub struct Setup {
    pub(crate) dma: Option<PhysAddr>,
    pub(crate) dma32: Option<PhysAddr>,
    pub(crate) movable: [u64; MAX_NODES],
    pub(crate) largest_order: Order,
    pub(crate) page_block_order: Order,
    pub(crate) cpus: u32,
    pub(crate) cpu_nodes: [NodeId; MAX_CPUS],
    pub(crate) distances: Distances,
    pub(crate) min_free_kilobytes: Option<u64>,
    pub(crate) reserve_ratio: [u32; ZoneKind::COUNT],
    pub(crate) whole_reserve_for_atomic: bool,
    pub(crate) pagesets: bool,
    pub(crate) caches: u32,
    pub(crate) classes: Classes,
    pub(crate) slab_debug: SlabDebug,
    pub(crate) cache_name_limit: usize,
    pub(crate) keep_boot_memory: bool,
    pub(crate) kmap_slots: u32,
    pub(crate) stacks: StackSetup,
    pub(crate) interrupt_stacks: Order,
}

impl Setup {
    /// One CPU, one node, one zone, orders up to 10, page blocks of order 9, per-CPU lists, and the
    /// reserves of today.
    pub const fn new() -> Setup {
        Setup {
            dma: None,
            dma32: None,
            movable: [0; MAX_NODES],
            largest_order: Order::from_raw(10),
            page_block_order: Order::from_raw(9),
            cpus: 1,
            cpu_nodes: [NodeId::ZERO; MAX_CPUS],
            distances: Distances::new(),
            min_free_kilobytes: None,
            // A low zone keeps back a page for each so many above it. DMA and DMA32 are small
            // beside what lies above them; Normal below HighMem is most of what the kernel has.
            reserve_ratio: [256, 256, 32, 0, 0],
            whole_reserve_for_atomic: false,
            pagesets: true,
            caches: 256,
            classes: Classes::FINE,
            slab_debug: SlabDebug::NONE,
            cache_name_limit: usize::MAX,
            keep_boot_memory: false,
            kmap_slots: 1024,
            stacks: StackSetup::MODERN,
            interrupt_stacks: Order::from_raw(0),
        }
    }

    /// Describes a zone DMA: RAM below this address (A020, A034).
    pub const fn dma_limit(mut self, limit: PhysAddr) -> Setup {
        self.dma = Some(limit);
        self
    }

    /// Describes a zone DMA32: RAM below this address and not in DMA (A021).
    pub const fn dma32_limit(mut self, limit: PhysAddr) -> Setup {
        self.dma32 = Some(limit);
        self
    }

    /// Makes the last `bytes` of a node's RAM a zone Movable (A019, A038): rounded so that it begins
    /// with a page block. More than the node has is all that it has.
    pub const fn movable(mut self, node: NodeId, bytes: u64) -> Setup {
        self.movable[node.index()] = bytes;
        self
    }

    /// Sets the largest order (A058).
    pub const fn largest_order(mut self, order: Order) -> Setup {
        self.largest_order = order;
        self
    }

    /// Sets the order of page blocks, the grain of grouping by migrate type. Where it is above the
    /// largest order, that is taken.
    pub const fn page_block_order(mut self, order: Order) -> Setup {
        self.page_block_order = order;
        self
    }

    /// Sets how many CPUs there may ever be, from 1 to [`MAX_CPUS`]. Their numbers are those below it.
    pub const fn cpus(mut self, possible: u32) -> Setup {
        self.cpus = possible;
        self
    }

    /// Says which node a CPU belongs to (A087). A node without RAM is one too: its CPUs get memory of
    /// the nearest node that has some.
    pub const fn cpu_node(mut self, cpu: CpuId, node: NodeId) -> Setup {
        self.cpu_nodes[cpu.index()] = node;
        self
    }

    /// Says how far two nodes are apart, as ACPI's SLIT does: 10 is a node to itself. Only which of
    /// two distances is the smaller matters.
    pub const fn distance(mut self, from: NodeId, to: NodeId, distance: u8) -> Setup {
        self.distances.set(from, to, distance);
        self
    }

    /// Sets the memory kept back from ordinary requests, in KiB, instead of what follows from the
    /// size of the machine. No zone keeps more than a quarter of its pages back.
    pub const fn min_free_kbytes(mut self, kilobytes: u64) -> Setup {
        self.min_free_kilobytes = Some(kilobytes);
        self
    }

    /// Sets how many pages above a zone make it keep back one page (A037). 0 keeps nothing back.
    pub const fn reserve_ratio(mut self, kind: ZoneKind, ratio: u32) -> Setup {
        self.reserve_ratio[kind.index()] = ratio;
        self
    }

    /// Whether `GFP_ATOMIC` may take even the last free page, as the kernels of Linux Device
    /// Drivers' second edition let it (A140).
    pub const fn whole_reserve_for_atomic(mut self, yes: bool) -> Setup {
        self.whole_reserve_for_atomic = yes;
        self
    }

    /// Whether there are per-CPU page lists.
    pub const fn pagesets(mut self, yes: bool) -> Setup {
        self.pagesets = yes;
        self
    }

    /// How many caches there can be, those of kmalloc included; at most 4096. Each takes some hundred
    /// bytes of RAM.
    pub const fn caches(mut self, most: u32) -> Setup {
        self.caches = most;
        self
    }

    /// Which sizes kmalloc has (A154).
    pub const fn kmalloc_sizes(mut self, classes: Classes) -> Setup {
        self.classes = classes;
        self
    }

    /// Which caches are debugged, kmalloc's included (A195, A196).
    pub const fn slab_debug(mut self, rules: SlabDebug) -> Setup {
        self.slab_debug = rules;
        self
    }

    /// How long the name of a cache may be, in bytes; 31 at most. In the kernels of Linux Device
    /// Drivers' second edition it was 19 (A189).
    pub const fn cache_name_limit(mut self, bytes: usize) -> Setup {
        self.cache_name_limit = bytes;
        self
    }

    /// Whether what was allocated before the page allocator ran can never be given back after, as in
    /// the kernels of Linux Device Drivers' second edition (A252).
    pub const fn keep_boot_memory(mut self, yes: bool) -> Setup {
        self.keep_boot_memory = yes;
        self
    }

    /// Sets how many pages of high memory can be mapped at once by [`Mm::kmap`](crate::Mm::kmap)
    /// (A270): 1024 unless this is called, as with 32-bit processors whose tables have so many entries;
    /// at most 32768, and a quarter of the platform's range for mappings. Each takes some 20 bytes of RAM,
    /// on a machine that has high memory. With 0 there are temporary mappings alone.
    pub const fn kmap_slots(mut self, slots: u32) -> Setup {
        self.kmap_slots = slots;
        self
    }

    /// What kernel stacks are like where it is not said for one (A261, A262, A264). Otherwise
    /// [`StackSetup::MODERN`].
    pub const fn stacks(mut self, stacks: StackSetup) -> Setup {
        self.stacks = stacks;
        self
    }

    /// How many pages the stacks of [`Mm::interrupt_stack`](crate::Mm::interrupt_stack) have, by their order:
    /// one unless this is called (A263). In all else they are as the machine's other stacks. A kernel whose
    /// handlers were not written for a page wants more: what they need is what they use at most, and what the
    /// entry code saves.
    pub const fn interrupt_stacks(mut self, order: Order) -> Setup {
        self.interrupt_stacks = order;
        self
    }

    /// Refuses what contradicts itself.
    pub(crate) fn check(&self) -> Result<(), SetupError> {
        if self.cpus == 0 || self.cpus as usize > MAX_CPUS {
            return Err(SetupError::Cpus(self.cpus));
        }
        if let (Some(dma), Some(dma32)) = (self.dma, self.dma32)
            && dma >= dma32
        {
            return Err(SetupError::ZoneLimits { dma, dma32 });
        }
        if !self.classes.has_size_for_records() {
            return Err(SetupError::NoSizeForRecords);
        }
        // A cache of each size, once more for DMA, and one for somebody.
        let least = 2 * self.classes.sizes().count() as u32 + 1;
        if self.caches < least || self.caches > MAX_CACHES {
            return Err(SetupError::Caches { asked: self.caches, least });
        }
        if self.kmap_slots > MAX_KMAP_SLOTS {
            return Err(SetupError::KmapSlots(self.kmap_slots));
        }
        let orders = [self.stacks.order, self.interrupt_stacks];
        if let Some(order) = orders.into_iter().find(|order| order.get() > LARGEST_STACK) {
            return Err(SetupError::StackOrder(order));
        }
        Ok(())
    }

    pub(crate) fn page_block(&self) -> Order {
        self.page_block_order.min(self.largest_order)
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// What is wrong with a [`Setup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// The number of CPUs is not one that there can be.
    Cpus(u32),
    /// The zone DMA does not end below the zone DMA32.
    ZoneLimits {
        /// The end of DMA.
        dma: PhysAddr,
        /// The end of DMA32.
        dma32: PhysAddr,
    },
    /// Of the kmalloc sizes none is for the records of slabs.
    NoSizeForRecords,
    /// So many caches cannot be had, or they are too few for kmalloc.
    Caches {
        /// How many were asked for.
        asked: u32,
        /// How many are needed at least.
        least: u32,
    },
    /// There cannot be so many slots for permanent mappings.
    KmapSlots(u32),
    /// Kernel stacks are not to be as large.
    StackOrder(Order),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupError::Cpus(cpus) => {
                write!(f, "{cpus} cpus: a machine has 1 to {MAX_CPUS}")
            }
            SetupError::ZoneLimits { dma, dma32 } => {
                write!(f, "zone DMA ends at {dma}, zone DMA32 at {dma32}: DMA must end first")
            }
            SetupError::NoSizeForRecords => {
                write!(
                    f,
                    "kmalloc sizes need one from {LARGEST_RECORD} to {} bytes",
                    SMALL_OBJECT - 1
                )
            }
            SetupError::KmapSlots(slots) => {
                write!(f, "{slots} slots for kmap: a machine has at most {MAX_KMAP_SLOTS}")
            }
            SetupError::Caches { asked, least } => {
                write!(
                    f,
                    "{asked} caches: a machine with these kmalloc sizes has {least} to {MAX_CACHES}"
                )
            }
            SetupError::StackOrder(order) => {
                write!(f, "kernel stacks of order {order}: the largest is {LARGEST_STACK}")
            }
        }
    }
}

impl core::error::Error for SetupError {}
