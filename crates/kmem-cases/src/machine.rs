//! A hosted machine, as the acceptance cases see it.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};

use cases::{Facts, Failure, FreeOnDemand, equal};
use kmem::io::Registers;
use kmem::platform::{Cpus, UserMap};
use kmem::{CpuId, KernelStack, Mm, NodeMask, PhysAddr};
use kmem_host::{Description, Host, HostError, Machine};

/// A machine that has just booted.
pub struct Hosted<const SHIFT: u32> {
    machine: Arc<Machine<SHIFT, FreeOnDemand>>,
    facts: Facts,
    /// The lines that have been taken from the machine's log so far: how many, and the latest.
    log: Mutex<(u64, String)>,
}

impl<const SHIFT: u32> Hosted<SHIFT> {
    pub fn boot(name: &'static str, description: &Description) -> Result<Self, HostError> {
        Ok(Hosted {
            machine: Machine::boot_with(description, FreeOnDemand::new())?,
            facts: facts(name, description),
            log: Mutex::default(),
        })
    }

    /// Runs `work` as a task of the boot CPU.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.machine.run_on(CpuId::BOOT, work)
    }

    fn log(&self) -> (u64, String) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        for line in self.machine.take_log() {
            *log = (log.0 + 1, line);
        }
        log.clone()
    }
}

/// What a description says before anything is booted.
pub fn facts(name: &'static str, description: &Description) -> Facts {
    // Cases see the RAM that the manager has.
    let ram = description.managed_ram();
    Facts {
        name,
        cpus: description.cpus,
        nodes: description.nodes.len() as u32,
        ram: ram.iter().map(|range| range.end - range.start).sum(),
        end: ram.last().map_or(0, |range| range.end),
        dma_ram: Facts::dma_ram_of(
            ram.iter().cloned(),
            description.dma_limit,
            description.dma32_limit,
        ),
        page_shift: description.page_shift,
        dma_limit: description.dma_limit,
        dma32_limit: description.dma32_limit,
        direct_limit: description.direct_map_limit,
        movable: description.nodes.iter().any(|node| node.movable != 0),
        largest_order: description.largest_order,
        pagesets: description.pagesets,
        whole_reserve_for_atomic: description.whole_reserve_for_atomic,
        interrupt_stacks: false,
        has_device: true,
    }
}

impl<const SHIFT: u32> cases::Machine for Hosted<SHIFT> {
    type P = Host<SHIFT>;

    fn mm(&self) -> &Mm<Host<SHIFT>, FreeOnDemand> {
        self.machine.mm()
    }

    fn facts(&self) -> Facts {
        self.facts
    }

    fn user(&self) -> &dyn UserMap {
        self.machine.host()
    }

    fn run_on(&self, cpu: CpuId, work: &(dyn Fn() + Sync)) {
        self.machine.run_on(cpu, work);
    }

    fn run_on_stack(
        &self,
        stack: &KernelStack<'_, Host<SHIFT>, FreeOnDemand>,
        work: &dyn Fn(),
    ) -> bool {
        self.machine.run_on_stack(stack, work).is_ok()
    }

    fn concurrently(&self, work: &(dyn Fn(CpuId) + Sync)) {
        let machine = &*self.machine;
        let cpus: Vec<CpuId> = machine.online_cpus().collect();
        let all_there = Barrier::new(cpus.len());
        // The tasks need this task's CPU, too.
        machine.without_cpu(|| {
            std::thread::scope(|scope| {
                for cpu in cpus {
                    let all_there = &all_there;
                    scope.spawn(move || {
                        machine.run_on(cpu, || {
                            all_there.wait();
                            work(cpu);
                        });
                    });
                }
            });
        });
    }

    fn interrupt(&self, cpu: CpuId, handler: &(dyn Fn() + Sync)) -> Result<(), Failure> {
        // SAFETY: only the lifetime changes. The handler runs once, before `done` is set, and this
        // waits for that; a panic in a handler ends the process.
        let handler = unsafe {
            std::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(handler)
        };
        let done = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&done);
        let raised = self.machine.interrupt(cpu, move || {
            handler();
            // Release pairs with the Acquire below: what the handler did is seen.
            tell.store(true, Ordering::Release);
        });
        raised.map_err(|_| Failure::new("an interrupt can be raised"))?;
        // The interrupt may be for the CPU that this thread holds: it arrives in this loop.
        while !done.load(Ordering::Acquire) {
            self.machine.host().relax();
        }
        Ok(())
    }

    fn without_preemption(&self, work: &dyn Fn()) {
        let _guard = self.machine.preempt_disable();
        work();
    }

    fn with_allowed_nodes(&self, nodes: NodeMask, work: &dyn Fn()) {
        self.machine.with_allowed_nodes(nodes, work);
    }

    fn offline(&self, cpu: CpuId) -> Result<(), Failure> {
        self.machine.offline(cpu).map_err(|_| Failure::new("a cpu can be taken out of service"))
    }

    fn online(&self, cpu: CpuId) -> Result<(), Failure> {
        self.machine.online(cpu).map_err(|_| Failure::new("a cpu can be put into service"))
    }

    fn device_window(&self) -> Option<Range<PhysAddr>> {
        Some(self.machine.host().device_window())
    }

    fn with_device(
        &self,
        work: &mut dyn FnMut(&dyn Registers) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let host = self.machine.host();
        let start = host.device_window().start;
        // SAFETY: the window is a model's, whose memory nobody uses otherwise; its driver tells it of what it
        // was given.
        let window = unsafe { self.machine.mm().iomem(start, edu::REGISTERS) };
        let window = window.map_err(|_| Failure::new("the device can be mapped"))?;
        let before = host.device_counters();
        work(&host.device(window))?;
        // The model says what a device would do in silence, or end the machine for.
        let after = host.device_counters();
        equal(after.clamped, before.clamped, "the device is told only what it reaches")?;
        equal(after.errors, before.errors, "and only of its own buffer")
    }

    fn misuses(&self) -> u64 {
        self.machine.misuse_count()
    }

    fn last_misuse(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.machine.misuses().last().map_or(Ok(()), |line| out.write_str(line))
    }

    fn log_lines(&self) -> u64 {
        self.log().0
    }

    fn last_log_line(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str(&self.log().1)
    }
}
