//! What a machine offers to cases.

use core::fmt;
use core::ops::Range;

use kmem::io::Registers;
use kmem::platform::UserMap;
use kmem::{CpuId, KernelStack, Mm, NodeMask, PhysAddr, Platform};

use crate::{Failure, FreeOnDemand};

/// What is known about a machine before it is tried: its description. Sizes and addresses are in
/// bytes.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// What it is called.
    pub name: &'static str,
    /// How many CPUs it has, all online.
    pub cpus: u32,
    /// How many nodes it has.
    pub nodes: u32,
    /// How much RAM it has.
    pub ram: u64,
    /// Where the last of its RAM ends.
    pub end: u64,
    /// How much of it lies below the limit of ZONE_DMA, and how much of the rest below that of ZONE_DMA32;
    /// 0 where the limit is not described.
    pub dma_ram: (u64, u64),
    /// The base-two logarithm of the page size.
    pub page_shift: u32,
    /// Where ZONE_DMA ends, if it is described.
    pub dma_limit: Option<u64>,
    /// Where ZONE_DMA32 ends, if it is described.
    pub dma32_limit: Option<u64>,
    /// Where the direct map ends, if RAM may lie above it.
    pub direct_limit: Option<u64>,
    /// Whether a node has ZONE_MOVABLE.
    pub movable: bool,
    /// The largest order.
    pub largest_order: u32,
    /// Whether CPUs have page lists.
    pub pagesets: bool,
    /// Whether an atomic request may take even the last free page (A140).
    pub whole_reserve_for_atomic: bool,
    /// Whether interrupt handlers run on the stacks that the manager has for them.
    pub interrupt_stacks: bool,
    /// Whether it has a device, the `edu` of QEMU or a model of it.
    pub has_device: bool,
}

impl Facts {
    /// How much RAM the DMA zones have: for [`Facts::dma_ram`].
    pub fn dma_ram_of(
        ram: impl Iterator<Item = Range<u64>> + Clone,
        dma_limit: Option<u64>,
        dma32_limit: Option<u64>,
    ) -> (u64, u64) {
        let below = |limit: u64| -> u64 {
            ram.clone().map(|range| range.end.min(limit).saturating_sub(range.start)).sum()
        };
        let dma = dma_limit.map_or(0, below);
        (dma, dma32_limit.map_or(0, |limit| below(limit) - dma))
    }

    /// Whether there is RAM above the direct map.
    pub fn has_highmem(&self) -> bool {
        self.direct_limit.is_some_and(|limit| limit < self.end)
    }

    /// The size of a page.
    pub fn page_bytes(&self) -> u64 {
        1 << self.page_shift
    }
}

/// A machine that has just booted, with [`FreeOnDemand`] as its reclaimer.
///
/// All calls but [`Machine::mm`] and [`Machine::facts`] are made by a task of it.
pub trait Machine: Sync {
    /// The platform that its manager runs on.
    type P: Platform;

    /// The manager.
    fn mm(&self) -> &Mm<Self::P, FreeOnDemand>;

    /// The description.
    fn facts(&self) -> Facts;

    /// Runs `work` as a task on a CPU and waits for it.
    fn run_on(&self, cpu: CpuId, work: &(dyn Fn() + Sync));

    /// Runs `work` as a task on every CPU, all at once, and waits for them.
    fn concurrently(&self, work: &(dyn Fn(CpuId) + Sync));

    /// Runs `handler` as an interrupt handler on a CPU and waits for it.
    ///
    /// # Errors
    ///
    /// It could not be raised.
    fn interrupt(&self, cpu: CpuId, handler: &(dyn Fn() + Sync)) -> Result<(), Failure>;

    /// Runs `work` with pre-emption disabled: a task that must not sleep.
    fn without_preemption(&self, work: &dyn Fn());

    /// Runs `work` with the calling task's memory restricted to these nodes (A111).
    fn with_allowed_nodes(&self, nodes: NodeMask, work: &dyn Fn());

    /// The address space of a user of the machine.
    fn user(&self) -> &dyn UserMap;
    /// Runs `work` as the running task, on another stack of its manager's, and waits for it. Answers whether
    /// it came to its end: `false` where it touched what is below the stack, or another page of mapped memory
    /// that is none, and was ended by force. What it had on the stack is forgotten then.
    fn run_on_stack(&self, stack: &KernelStack<'_, Self::P, FreeOnDemand>, work: &dyn Fn())
    -> bool;

    /// Takes a CPU out of service, as [`Mm::cpu_offline`] wants it.
    ///
    /// # Errors
    ///
    /// The machine could not.
    fn offline(&self, cpu: CpuId) -> Result<(), Failure>;

    /// Puts a CPU into service again.
    ///
    /// # Errors
    ///
    /// The machine could not.
    fn online(&self, cpu: CpuId) -> Result<(), Failure>;

    /// The physical addresses of the machine's device: no RAM, and its registers begin there. `None`
    /// where it has none.
    fn device_window(&self) -> Option<Range<PhysAddr>>;

    /// Runs `work` with the registers of the device, which the machine maps for it.
    ///
    /// # Errors
    ///
    /// There is no device, it cannot be mapped, or what `work` answers.
    fn with_device(
        &self,
        work: &mut dyn FnMut(&dyn Registers) -> Result<(), Failure>,
    ) -> Result<(), Failure>;

    /// How many reports of misuse there have been.
    fn misuses(&self) -> u64;

    /// Writes the latest report of misuse.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    fn last_misuse(&self, out: &mut dyn fmt::Write) -> fmt::Result;

    /// How many lines the manager has logged.
    fn log_lines(&self) -> u64;

    /// Writes the latest of them.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    fn last_log_line(&self, out: &mut dyn fmt::Write) -> fmt::Result;
}
