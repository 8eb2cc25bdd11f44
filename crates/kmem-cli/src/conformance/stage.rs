//! A machine inside this process, as the cases see it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cases::{Facts, Failure, FreeOnDemand};
use kmem::{CpuId, Mm, NodeMask};
use kmem_host::{Description, Host, HostError, Machine};

/// A machine for one case.
pub struct Stage<const SHIFT: u32> {
    pub machine: Arc<Machine<SHIFT, FreeOnDemand>>,
    facts: Facts,
    /// What has been logged so far: reading the machine's log takes lines out.
    log: Mutex<Vec<String>>,
}

impl<const SHIFT: u32> Stage<SHIFT> {
    /// Boots a machine.
    pub fn boot(description: &Description) -> Result<Self, HostError> {
        let machine = Machine::boot(description)?;
        Ok(Stage { machine, facts: facts(description), log: Mutex::default() })
    }

    fn with_log<T>(&self, look: impl FnOnce(&[String]) -> T) -> T {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend(self.machine.take_log());
        look(&log)
    }
}

/// What is known of a machine before it is booted.
pub fn facts(description: &Description) -> Facts {
    let ram = description.ram();
    Facts {
        name: lasting(&description.name),
        cpus: description.cpus,
        nodes: description.nodes.len() as u32,
        ram: description.ram_bytes(),
        end: ram.last().map_or(0, |range| range.end),
        page_shift: description.page_shift,
        dma_limit: description.dma_limit,
        dma32_limit: description.dma32_limit,
        direct_limit: description.direct_map_limit,
        movable: description.nodes.iter().any(|node| node.movable > 0),
        largest_order: description.largest_order,
        pagesets: description.pagesets,
        whole_reserve_for_atomic: description.whole_reserve_for_atomic,
    }
}

/// A copy of a name that is never freed: there are a few, and facts are copied about.
fn lasting(name: &str) -> &'static str {
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    names.iter().find(|known| **known == name).copied().unwrap_or_else(|| {
        let copy: &'static str = Box::leak(name.to_owned().into_boxed_str());
        names.push(copy);
        copy
    })
}

impl<const SHIFT: u32> cases::Machine for Stage<SHIFT> {
    type P = Host<SHIFT>;

    fn mm(&self) -> &Mm<Host<SHIFT>, FreeOnDemand> {
        self.machine.mm()
    }

    fn facts(&self) -> Facts {
        self.facts
    }

    fn run_on(&self, cpu: CpuId, work: &(dyn Fn() + Sync)) {
        self.machine.run_on(cpu, work);
    }

    fn concurrently(&self, work: &(dyn Fn(CpuId) + Sync)) {
        // The tasks need this task's CPU too.
        self.machine.without_cpu(|| {
            std::thread::scope(|scope| {
                for cpu in self.machine.online_cpus() {
                    scope.spawn(move || self.machine.run_on(cpu, || work(cpu)));
                }
            });
        });
    }

    fn interrupt(&self, cpu: CpuId, handler: &(dyn Fn() + Sync)) -> Result<(), Failure> {
        // SAFETY: only the lifetime is changed. The handler runs once and is not called later:
        // this function waits for its end, and a panic in a handler ends the process.
        let handler = unsafe {
            std::mem::transmute::<&(dyn Fn() + Sync), &'static (dyn Fn() + Sync)>(handler)
        };
        let done = Arc::new(AtomicBool::new(false));
        let tell = done.clone();
        let raised = self.machine.interrupt(cpu, move || {
            handler();
            // Pairs with the Acquire below: what the handler did is seen.
            tell.store(true, Ordering::Release);
        });
        raised.map_err(|_| Failure::new("an interrupt can be raised"))?;
        while !done.load(Ordering::Acquire) {
            self.machine.yield_now();
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

    fn misuses(&self) -> u64 {
        self.machine.misuse_count()
    }

    fn last_misuse(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.machine.misuses().last().map_or(Ok(()), |report| out.write_str(report))
    }

    fn log_lines(&self) -> u64 {
        self.with_log(|log| log.len() as u64)
    }

    fn last_log_line(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.with_log(|log| log.last().map_or(Ok(()), |line| out.write_str(line)))
    }
}
