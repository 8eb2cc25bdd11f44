//! The machine as the shell and the acceptance cases see it.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use cases::{Facts, Failure, FreeOnDemand, Machine as _};
use kmem::io::Registers;
use kmem::platform::UserMap;
use kmem::{CpuId, KernelStack, Mm, NodeMask, PhysAddr};
use kmem_shell::{Command, Count, Handler, Interrupts, Sink, Source, System};

use crate::boot::Found;
use crate::cpu::Cpu;
use crate::options::Options;
use crate::pci::Device;
use crate::platform::Pc;
use crate::serial::Serial;
use crate::user::User;
use crate::{MM, apic, clock, commands, keys, smp, task};

/// The PC. A handle that can be copied to its tasks.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Inner>,
}

struct Inner {
    found: Found,
    /// What it is called, as long as it runs.
    name: &'static str,
    ticks: u64,
    hz: u32,
    /// Where `edu` has its registers, if there is one.
    device: Option<Range<u64>>,
}

/// Who made `edu`, and what it is.
const EDU: (u16, u16) = (0x1234, 0x11e8);

/// What there is instead of files of a host.
const NO_HOST: &str =
    "there is no host behind a PC: give a file of /dev, /proc or /sys, such as /proc/slabinfo";

/// How many of the timers' interrupts the check of them waits for, where it is not said.
const TICKS: u64 = 10_000;

/// How often the timers tick while something else handles their interrupts too.
const STORM: u32 = 20_000;

impl Machine {
    /// The machine that has booted.
    pub fn new(found: Found, options: Options) -> Machine {
        let name = if options.name.is_empty() { "pc".into() } else { options.name };
        let (ticks, hz) = (options.ticks.unwrap_or(TICKS), options.hz.unwrap_or(STORM));
        let device = Device::find(EDU.0, EDU.1).and_then(Device::begin);
        Machine { inner: Arc::new(Inner { found, name: name.leak(), ticks, hz, device }) }
    }

    /// How many of the timers' interrupts the check of them waits for, and how often they come in a
    /// second.
    pub fn ticks(&self) -> (u64, u32) {
        (self.inner.ticks, self.inner.hz)
    }

    /// What the loader and the firmware said of it.
    pub fn found(&self) -> &Found {
        &self.inner.found
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { name, cpus, nodes, ram, .. } = self.facts();
        let (cpus, nodes) = (Count(cpus.into(), "CPU"), Count(nodes.into(), "node"));
        write!(f, "{name}, {} MiB of RAM, {cpus}, {nodes}", ram >> 20)
    }
}

impl System for Machine {
    type Platform = Pc;
    type Reclaim = FreeOnDemand;

    fn commands() -> &'static [Command<Machine>] {
        commands::ALL
    }

    fn mm(&self) -> &Mm<Pc, FreeOnDemand> {
        &MM
    }

    fn print(&self, bytes: &[u8]) -> Result<(), String> {
        Serial.write_text(bytes);
        Ok(())
    }

    fn nanoseconds(&self) -> u64 {
        clock::nanoseconds()
    }

    fn sleep(&self, nanoseconds: u64) {
        task::sleep(nanoseconds);
    }

    fn on_each_cpu(&self, work: Handler<Self>) -> Result<(), String> {
        let mut tasks = Vec::new();
        let mut failed = Ok(());
        for cpu in smp::online() {
            let (machine, work) = (self.clone(), work.clone());
            match task::spawn(cpu.get(), move || work(&machine, cpu)) {
                Ok(task) => tasks.push(task),
                Err(error) => failed = Err(error.to_string()),
            }
        }
        tasks.iter().for_each(task::join);
        if tasks.iter().any(|task| task.is_broken()) {
            failed = Err(task::NotRun::Broken.to_string());
        }
        failed
    }

    fn run_on_stack(&self, stack: &KernelStack<'_, Pc, FreeOnDemand>, work: &dyn Fn()) -> bool {
        cases::Machine::run_on_stack(self, stack, work)
    }

    fn interrupts<'a>(
        &'a self,
        handler: Handler<Self>,
    ) -> Result<Box<dyn Interrupts + 'a>, String> {
        let machine = self.clone();
        let ticks = Ticks::new(STORM, Box::new(move |cpu| handler(&machine, cpu)));
        let ticks = ticks.ok_or("the timer's interrupts have a handler already")?;
        Ok(Box::new(ticks))
    }

    fn user(&self) -> &dyn UserMap {
        &User
    }

    fn take_log(&self) -> Vec<String> {
        MM.platform().log.take()
    }

    fn with_device(
        &self,
        work: &mut dyn FnMut(&dyn Registers) -> Result<(), String>,
    ) -> Result<(), String> {
        let window = self.device_window().ok_or("QEMU was started without -device edu")?;
        // SAFETY: the bus says that the device is there, and its driver tells it of what it was given.
        let registers = unsafe { MM.iomem(window.start, edu::REGISTERS) };
        work(&*registers.map_err(|error| error.to_string())?)
    }

    fn misuses(&self) -> u64 {
        MM.platform().misuses.count()
    }

    fn last_misuse(&self) -> Option<String> {
        let mut text = String::new();
        MM.platform().misuses.last(&mut text).ok().filter(|()| !text.is_empty())?;
        Some(text)
    }

    fn expect_misuses(&self, expected: bool) {
        MM.platform().expect_misuses(expected);
    }

    fn is_interrupted(&self) -> bool {
        keys::is_asked()
    }

    fn has_host(&self) -> bool {
        false
    }

    fn open(&self, _: &str) -> Result<Box<dyn Source>, String> {
        Err(NO_HOST.into())
    }

    fn create(&self, _: &str) -> Result<Box<dyn Sink>, String> {
        Err(NO_HOST.into())
    }

    fn list(&self, _: &str) -> Result<Vec<String>, String> {
        Err(NO_HOST.into())
    }
}

impl cases::Machine for Machine {
    type P = Pc;

    fn mm(&self) -> &Mm<Pc, FreeOnDemand> {
        &MM
    }

    fn facts(&self) -> Facts {
        // The shell and the cases see the RAM that the manager has.
        let found = self.found();
        let ram = found.managed();
        Facts {
            name: self.inner.name,
            cpus: smp::online().count() as u32,
            nodes: found.nodes(),
            ram: ram.clone().map(|region| region.end - region.start).sum(),
            end: ram.clone().map(|region| region.end).max().unwrap_or(0),
            dma_ram: Facts::dma_ram_of(
                ram.map(|region| region.start..region.end),
                Some(found.dma_limit),
                found.dma32_limit,
            ),
            page_shift: 12,
            dma_limit: Some(found.dma_limit),
            dma32_limit: found.dma32_limit,
            direct_limit: found.direct_limit,
            movable: false,
            largest_order: 10,
            pagesets: true,
            whole_reserve_for_atomic: false,
            interrupt_stacks: true,
            has_device: self.inner.device.is_some(),
        }
    }

    fn user(&self) -> &dyn UserMap {
        &User
    }

    fn run_on(&self, cpu: CpuId, work: &(dyn Fn() + Sync)) {
        if let Err(error) = task::run_on(cpu.get(), work) {
            panic!("work for a CPU: {error}");
        }
    }

    fn run_on_stack(&self, stack: &KernelStack<'_, Pc, FreeOnDemand>, work: &dyn Fn()) -> bool {
        // SAFETY: it is the caller's, who waits.
        unsafe { task::on_stack(stack.top().get(), work) }
    }

    fn concurrently(&self, work: &(dyn Fn(CpuId) + Sync)) {
        // SAFETY: only the lifetime changes: the tasks have ended when this returns.
        let work = unsafe {
            core::mem::transmute::<&(dyn Fn(CpuId) + Sync), &'static (dyn Fn(CpuId) + Sync)>(work)
        };
        let (all, there) = (smp::online().count() as u32, Arc::new(AtomicU32::new(0)));
        let start = |cpu: CpuId| {
            let there = there.clone();
            let task = task::spawn(cpu.get(), move || {
                // All at once. Relaxed: it orders nothing.
                there.fetch_add(1, Ordering::Relaxed);
                while there.load(Ordering::Relaxed) < all {
                    core::hint::spin_loop();
                }
                work(cpu);
            });
            task.unwrap_or_else(|error| panic!("there is no memory for a task: {error}"))
        };
        let tasks: Vec<_> = smp::online().map(start).collect();
        tasks.iter().for_each(task::join);
    }

    fn interrupt(&self, cpu: CpuId, handler: &(dyn Fn() + Sync)) -> Result<(), Failure> {
        smp::call_on(cpu, handler).map_err(|_| Failure::new("an interrupt can be raised"))
    }

    fn without_preemption(&self, work: &dyn Fn()) {
        Cpu::pin();
        work();
        Cpu::unpin();
    }

    fn with_allowed_nodes(&self, nodes: NodeMask, work: &dyn Fn()) {
        task::with_nodes(nodes, work);
    }

    fn offline(&self, cpu: CpuId) -> Result<(), Failure> {
        smp::stop(cpu).map_err(|_| Failure::new("a cpu can be taken out of service"))
    }

    fn online(&self, cpu: CpuId) -> Result<(), Failure> {
        smp::resume(cpu).map_err(|_| Failure::new("a cpu can be put into service"))
    }

    fn device_window(&self) -> Option<Range<PhysAddr>> {
        let device = self.inner.device.as_ref()?;
        Some(PhysAddr::new(device.start)..PhysAddr::new(device.end))
    }

    fn with_device(
        &self,
        work: &mut dyn FnMut(&dyn Registers) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let window = self.device_window().ok_or(Failure::new("there is a device"))?;
        // SAFETY: the bus says that the device is there, and its driver tells it of what it was given.
        let registers = unsafe { MM.iomem(window.start, edu::REGISTERS) };
        work(&*registers.map_err(|_| Failure::new("the device can be mapped"))?)
    }

    fn misuses(&self) -> u64 {
        MM.platform().misuses.count()
    }

    fn last_misuse(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        MM.platform().misuses.last(out)
    }

    fn log_lines(&self) -> u64 {
        MM.platform().log.count()
    }

    fn last_log_line(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        MM.platform().log.last(out)
    }
}

/// What the timer's interrupts run besides their own work.
type Ticking = Box<dyn Fn(CpuId) + Send + Sync>;

static HANDLER: AtomicPtr<Ticking> = AtomicPtr::new(core::ptr::null_mut());
static HANDLED: AtomicU64 = AtomicU64::new(0);

/// Runs that, on a CPU whose timer ticked.
pub fn tick() {
    // Acquire pairs with the Release where it is put there. SAFETY: it is freed when no CPU is in a
    // handler any more that may have seen it.
    if let Some(handler) = unsafe { HANDLER.load(Ordering::Acquire).as_ref() } {
        handler(Cpu::id());
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }
}

/// The timers' interrupts on all CPUs, until it is dropped.
pub struct Ticks {
    first: u64,
}

impl Ticks {
    /// Has a handler run at every tick of every CPU's timer, so many a second. `None` where there is a
    /// handler already.
    pub fn new(a_second: u32, handler: Ticking) -> Option<Ticks> {
        let handler = Box::into_raw(Box::new(handler));
        let first = HANDLED.load(Ordering::Relaxed);
        let none = core::ptr::null_mut();
        if HANDLER.compare_exchange(none, handler, Ordering::Release, Ordering::Relaxed).is_err() {
            // SAFETY: it was made above, and nobody knows it.
            drop(unsafe { Box::from_raw(handler) });
            return None;
        }
        Ticks::every_timer(a_second);
        Some(Ticks { first })
    }

    fn every_timer(a_second: u32) {
        for cpu in smp::online() {
            // One that stops meanwhile has no timer.
            let _ = smp::call_on(cpu, &|| apic::start_timer(a_second));
        }
    }
}

impl Interrupts for Ticks {
    fn handled(&self) -> u64 {
        HANDLED.load(Ordering::Relaxed) - self.first
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        let handler = HANDLER.swap(core::ptr::null_mut(), Ordering::AcqRel);
        // An interrupt handler runs to its end before another of its CPU: when all have answered,
        // none is in the one that was.
        Ticks::every_timer(apic::TICKS_A_SECOND);
        // SAFETY: it was made by `new`, and nobody knows it any more.
        drop(unsafe { Box::from_raw(handler) });
    }
}
