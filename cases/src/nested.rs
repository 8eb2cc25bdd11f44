//! A machine inside a machine: RAM that a case holds, in which it boots a manager of its own.
//!
//! What happens before and while a manager boots cannot be tried on the machine's own, which has booted.
//! Physical memory, CPUs and interrupts are the machine's; messages and reports stay here.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kmem::boot::{BootMem, Classes, CommandLine};
use kmem::platform::{Context, Cpus, DirectMap, Hooks, Level, Misuse, MisuseKind};
use kmem::{
    CpuId, GFP_KERNEL, Gfp, MemoryMap, Mm, NodeId, NodeMask, Order, PhysAddr, Setup, VirtAddr,
};

use crate::Machine;
use crate::failure::{Failure, check, some};
use crate::hold::{Block, Hoard};

/// The platform of the machine inside.
pub(crate) struct Inside<'m, M: Machine> {
    machine: &'m M,
    misuses: AtomicU64,
    /// The kind of the last, as [`KINDS`] numbers it.
    last: AtomicU64,
}

/// The kinds of misuse that cases provoke inside.
const KINDS: [MisuseKind; 6] = [
    MisuseKind::BootIsOver,
    MisuseKind::DoubleFree,
    MisuseKind::Interior,
    MisuseKind::Foreign,
    MisuseKind::Misaligned,
    MisuseKind::Reserved,
];

impl<M: Machine> Inside<'_, M> {
    fn platform(&self) -> &M::P {
        self.machine.mm().platform()
    }

    /// How many reports of misuse there have been, and of which kind the last was.
    pub(crate) fn misuses(&self) -> (u64, Option<MisuseKind>) {
        (self.misuses.load(Relaxed), KINDS.get(self.last.load(Relaxed) as usize).copied())
    }
}

// SAFETY: the machine's.
unsafe impl<M: Machine> Cpus for Inside<'_, M> {
    fn pin(&self) {
        self.platform().pin();
    }

    fn unpin(&self) {
        self.platform().unpin();
    }

    fn current(&self) -> CpuId {
        self.platform().current()
    }

    fn relax(&self) {
        self.platform().relax();
    }
}

// SAFETY: the machine's.
unsafe impl<M: Machine> Context for Inside<'_, M> {
    type Saved = <M::P as Context>::Saved;

    fn mask(&self) -> Self::Saved {
        self.platform().mask()
    }

    fn restore(&self, saved: Self::Saved) {
        self.platform().restore(saved);
    }

    fn in_atomic(&self) -> bool {
        self.platform().in_atomic()
    }

    fn in_nmi(&self) -> bool {
        self.platform().in_nmi()
    }

    fn allowed_nodes(&self) -> NodeMask {
        NodeMask::ALL
    }
}

// SAFETY: the machine's: what the map inside calls RAM lies in the machine's direct map.
unsafe impl<M: Machine> DirectMap for Inside<'_, M> {
    const PAGE_SHIFT: u32 = <M::P as DirectMap>::PAGE_SHIFT;

    fn base(&self) -> VirtAddr {
        self.platform().base()
    }

    fn limit(&self) -> PhysAddr {
        self.platform().limit()
    }
}

impl<M: Machine> Hooks for Inside<'_, M> {
    fn log(&self, _: Level, _: fmt::Arguments<'_>) {}

    fn misuse(&self, report: &Misuse<'_>) {
        let kind = KINDS.iter().position(|kind| *kind == report.kind);
        self.last.store(kind.map_or(u64::MAX, |kind| kind as u64), Relaxed);
        self.misuses.fetch_add(1, Relaxed);
    }
}

/// RAM in one piece, which goes back to the machine when this is dropped. All of its bytes are
/// [`Ram::DIRT`] to begin with.
pub(crate) struct Ram<'m, M: Machine> {
    machine: &'m M,
    // Given back when it is dropped.
    _blocks: Hoard<'m, M>,
    /// Where it is, in bytes.
    pub(crate) range: Range<u64>,
}

impl<'m, M: Machine> Ram<'m, M> {
    /// What is in memory that nobody has cleared.
    pub(crate) const DIRT: u8 = 0xa5;

    /// Takes 4 MiB, or 256 pages where those are more: one block, or some that happen to lie behind one
    /// another.
    pub(crate) fn take(machine: &'m M) -> Result<Self, Failure> {
        let page = machine.facts().page_bytes();
        let size = (4 << 20).max(256 * page);
        let pages = size / page;
        let order = pages.ilog2().min(machine.facts().largest_order);
        let gfp = GFP_KERNEL | Gfp::NOWARN;
        let mut blocks = Hoard::new(machine);
        if 1 << order == pages {
            blocks.push(Block::new(machine, gfp, order)?);
        } else {
            blocks.fill(gfp, order);
        }
        let has = |blocks: &Hoard<'m, M>, frame: u64| {
            let mut found = false;
            let looked = blocks.each(|page, _| {
                found |= page.pfn().number() == frame;
                Ok(())
            });
            looked.map(|()| found)
        };
        let mut start = None;
        blocks.each(|page, _| {
            let first = page.pfn().number();
            let mut frames = (first..first + pages).step_by(1 << order);
            if start.is_none() && frames.all(|frame| has(&blocks, frame) == Ok(true)) {
                start = Some(first);
            }
            Ok(())
        })?;
        let start = some(start, "free memory has 4 MiB in one piece")?;
        blocks.free_if(|page| !(start..start + pages).contains(&page.pfn().number()));
        let ram = Ram { machine, _blocks: blocks, range: start * page..start * page + size };
        // SAFETY: the memory is this value's.
        unsafe { ram.pointer(ram.range.start).write_bytes(Self::DIRT, size as usize) };
        Ok(ram)
    }

    /// Where a byte of it is seen.
    pub(crate) fn pointer(&self, address: u64) -> *mut u8 {
        let base = self.machine.mm().platform().base().get();
        VirtAddr::new(base.wrapping_add(address as usize)).as_ptr()
    }

    /// The physical address of what is seen somewhere in it.
    pub(crate) fn physical(&self, memory: *const u8) -> u64 {
        VirtAddr::from_ptr(memory).get().wrapping_sub(self.machine.mm().platform().base().get())
            as u64
    }

    /// The middle of it: where zone DMA ends inside.
    pub(crate) fn middle(&self) -> u64 {
        self.range.start + (self.range.end - self.range.start) / 2
    }

    /// A machine in it that has not booted.
    pub(crate) fn machine(&self) -> Nested<'m, M> {
        let platform = Inside {
            machine: self.machine,
            misuses: AtomicU64::new(0),
            last: AtomicU64::new(u64::MAX),
        };
        let setup = Setup::new()
            .dma_limit(PhysAddr::new(self.middle()))
            .largest_order(Order::new(LARGEST_ORDER).unwrap_or(Order::LIMIT))
            .kmalloc_sizes(Classes::LINUX)
            .caches(64);
        Nested { boot: BootMem::new(), mm: Mm::new(platform), setup, range: self.range.clone() }
    }
}

/// The largest order inside.
pub(crate) const LARGEST_ORDER: u32 = 4;

/// A machine in a machine's RAM.
pub(crate) struct Nested<'m, M: Machine> {
    pub(crate) boot: BootMem,
    pub(crate) mm: Mm<Inside<'m, M>>,
    pub(crate) setup: Setup,
    range: Range<u64>,
}

impl<'m, M: Machine> Nested<'m, M> {
    pub(crate) fn platform(&self) -> &Inside<'m, M> {
        self.mm.platform()
    }

    /// Opens its boot-time memory and does what the command line says.
    pub(crate) fn open(&self, command_line: &str) -> Result<(), Failure> {
        let map = MemoryMap::new().ram(self.range.clone(), NodeId::ZERO);
        // SAFETY: the RAM is the case's, which has one machine at a time in it.
        let opened = unsafe { self.boot.open(&map, &self.setup) };
        check(opened.is_ok(), "boot-time memory is opened with a map")?;
        let line = CommandLine::parse(command_line);
        let line = line.map_err(|_| Failure::new("a command line is understood"))?;
        check(self.boot.apply(self.platform(), &line).is_ok(), "the command line is followed")
    }

    /// Boots it.
    pub(crate) fn boot(&self) -> Result<(), Failure> {
        // SAFETY: as above.
        let booted = unsafe { self.mm.boot_from(&self.boot, &self.setup) };
        check(booted.is_ok(), "a manager boots from what boot-time memory has left")
    }
}
