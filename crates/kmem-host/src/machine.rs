//! A machine: a description that has been booted.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kmem::boot::{BootMem, StackBacking, StackSetup};
use kmem::platform::{Context, StackOwner};
use kmem::{
    CpuId, KernelStack, MemoryMap, Mm, NoReclaim, NodeId, NodeMask, Order, PhysAddr, Reclaim,
    Setup, ZoneKind,
};
use rustix::io::Errno;

use crate::cpu::{Cpus, Flavour, Wish};
use crate::description::Description;
use crate::error::HostError;
use crate::host::Host;
use crate::interrupt::{InterruptLine, NotRaised, OneShot, Storm};
use crate::shutdown::Shutdown;
use crate::stack::{self, Broken, NotRun};
use crate::task::{self, Task};
use crate::trace::{Recorder, TraceFile};
use crate::{error, local};

/// A machine with pages of `2^SHIFT` bytes, running in this process.
///
/// It is made by [`Machine::boot`] and given back when the last `Arc` of it is dropped.
/// [`Machine::shutdown`] says before that whether it was left in order.
///
/// With `TRACE` the manager tells of its work: see [`trace`](crate::trace).
///
/// Whatever allocates or frees runs on a CPU: within [`Machine::run_on`], [`Machine::run`], a task
/// of [`Machine::spawn`], or an interrupt handler.
pub struct Machine<const SHIFT: u32 = 12, R: Reclaim = NoReclaim, const TRACE: bool = false> {
    /// In an `Arc` so that its platform can ask it what caches are called.
    mm: Arc<Mm<Host<SHIFT, TRACE>, R>>,
    /// What the manager was booted from.
    boot_mem: Box<BootMem>,
    description: Description,
    /// Runs the interrupts of idle CPUs.
    controller: Option<JoinHandle<()>>,
    /// Pages that were in use right after boot.
    used_at_boot: u64,
    /// Reports of misuse that have been taken from the journal.
    misuses: Mutex<Vec<String>>,
    /// One CPU goes offline or comes online at a time.
    hotplug: Mutex<()>,
}

impl<const SHIFT: u32, R: Reclaim + Default + Send + 'static> Machine<SHIFT, R> {
    /// Boots a machine. All of its CPUs are online afterwards.
    ///
    /// # Errors
    ///
    /// What is described makes no sense or is for another page size, its metadata does not fit, or
    /// the host lacks something.
    pub fn boot(description: &Description) -> Result<Arc<Self>, HostError> {
        Self::boot_with(description, R::default())
    }
}

impl<const SHIFT: u32, R: Reclaim> Machine<SHIFT, R> {
    /// [`Machine::boot`] with something that frees pages when they run out.
    ///
    /// # Errors
    ///
    /// As [`Machine::boot`].
    pub fn boot_with(description: &Description, reclaim: R) -> Result<Arc<Self>, HostError>
    where
        R: Send + 'static,
    {
        Self::boot_early(description, reclaim, |_, _| ())
    }

    /// [`Machine::boot_with`], and `early` is run by the boot CPU before there is a page allocator: it
    /// may allocate boot-time memory.
    ///
    /// # Errors
    ///
    /// As [`Machine::boot`].
    pub fn boot_early(
        description: &Description,
        reclaim: R,
        early: impl FnOnce(&Host<SHIFT>, &BootMem),
    ) -> Result<Arc<Self>, HostError>
    where
        R: Send + 'static,
    {
        Self::start(description, reclaim, None, early)
    }
}

impl<const SHIFT: u32, R: Reclaim, const TRACE: bool> Machine<SHIFT, R, TRACE> {
    /// [`Machine::boot_with`] of a machine that is traced from its first step on, where its type has `TRACE`
    /// and there is a trace.
    ///
    /// # Errors
    ///
    /// As [`Machine::boot`].
    pub fn boot_traced(
        description: &Description,
        reclaim: R,
        trace: Option<&TraceFile>,
    ) -> Result<Arc<Self>, HostError>
    where
        R: Send + 'static,
    {
        let recorder = trace.map(|trace| Arc::clone(trace.recorder()));
        Self::start(description, reclaim, recorder, |_, _| ())
    }

    fn start(
        description: &Description,
        reclaim: R,
        recorder: Option<Arc<Recorder>>,
        early: impl FnOnce(&Host<SHIFT, TRACE>, &BootMem),
    ) -> Result<Arc<Self>, HostError>
    where
        R: Send + 'static,
    {
        description.check()?;
        if description.page_shift != SHIFT {
            return Err(HostError::PageShift { described: description.page_shift, built: SHIFT });
        }
        error::check_fit(&description.footprint(), &description.name)?;
        let resource = |what| move |reason: Errno| HostError::Resource { what, reason };
        let host = Host::new(description, recorder).map_err(resource("memory for the machine"))?;
        let cpus = Arc::clone(&host.cpus);
        let mm = Arc::new(Mm::with_reclaim(host, reclaim));
        mm.platform().set_manager(&mm);
        let mut machine = Machine {
            mm,
            boot_mem: Box::default(),
            description: description.clone(),
            controller: None,
            used_at_boot: 0,
            misuses: Mutex::new(Vec::new()),
            hotplug: Mutex::new(()),
        };
        let controller = std::thread::Builder::new()
            .name("controller".into())
            .spawn(move || cpus.control())
            .map_err(|error| HostError::Resource {
                what: "a thread for the interrupt controller",
                reason: Errno::from_io_error(&error).unwrap_or(Errno::AGAIN),
            })?;
        machine.controller = Some(controller);
        task::run(machine.cpus(), Wish::Bound(CpuId::BOOT), || machine.bring_up(early))?;
        machine.used_at_boot = machine.used_pages();
        Ok(Arc::new(machine))
    }

    /// Boots the manager and brings the other CPUs in. Runs on the boot CPU.
    fn bring_up(&self, early: impl FnOnce(&Host<SHIFT, TRACE>, &BootMem)) -> Result<(), HostError> {
        let (host, setup) = (self.host(), setup(&self.description));
        // SAFETY: the memory is this machine's alone, and all of it is there.
        unsafe { self.boot_mem.open(&memory_map(&self.description), &setup) }?;
        self.boot_mem.apply(host, &self.description.parsed_command_line()?)?;
        early(host, &self.boot_mem);
        // SAFETY: as above.
        unsafe { self.mm.boot_from(&self.boot_mem, &setup) }?;
        for cpu in self.cpus().all().iter().filter(|cpu| cpu.id() != CpuId::BOOT) {
            self.mm.cpu_online(cpu.id())?;
            self.cpus().put_online(cpu);
        }
        Ok(())
    }

    /// The memory manager.
    pub fn mm(&self) -> &Mm<Host<SHIFT, TRACE>, R> {
        &self.mm
    }

    /// The memory of boot time, which has been handed over: calls there are refused (A250).
    pub fn boot_mem(&self) -> &BootMem {
        &self.boot_mem
    }

    /// The platform that the manager runs on.
    pub fn host(&self) -> &Host<SHIFT, TRACE> {
        self.mm.platform()
    }

    /// What was booted.
    pub fn description(&self) -> &Description {
        &self.description
    }

    fn cpus(&self) -> &Arc<Cpus> {
        &self.host().cpus
    }

    /// Every CPU, online or not.
    pub fn all_cpus(&self) -> impl Iterator<Item = CpuId> {
        self.cpus().all().iter().map(|cpu| cpu.id())
    }

    /// The CPUs that are online.
    pub fn online_cpus(&self) -> impl Iterator<Item = CpuId> {
        self.cpus().all().iter().filter(|cpu| cpu.is_online()).map(|cpu| cpu.id())
    }

    /// The CPU of this machine that the calling thread holds, if it does.
    pub fn current(&self) -> Option<CpuId> {
        self.cpus().held().map(|cpu| cpu.id())
    }

    /// Runs `work` as a task on a CPU: waits until the CPU is free, holds it, and gives it away
    /// afterwards. A task of this or another machine that calls this gives its own CPU away
    /// meanwhile, unless it is on that very CPU. While the CPU is offline it waits.
    ///
    /// # Panics
    ///
    /// The machine has no such CPU, or the caller is in atomic context.
    pub fn run_on<T>(&self, cpu: CpuId, work: impl FnOnce() -> T) -> T {
        self.expect_cpu(cpu);
        task::run(self.cpus(), Wish::Bound(cpu), work)
    }

    /// [`Machine::run_on`] on whichever CPU is free; it may be another one after `work` has slept.
    ///
    /// # Panics
    ///
    /// The caller is in atomic context.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        task::run(self.cpus(), Wish::Prefer(CpuId::BOOT), work)
    }

    /// Starts a task in a thread of its own, on the given CPU alone or on any.
    ///
    /// # Panics
    ///
    /// The machine has no such CPU, or the host has no thread to give.
    pub fn spawn<T: Send + 'static>(
        &self,
        cpu: Option<CpuId>,
        name: impl Into<String>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Task<T> {
        let wish = match cpu {
            Some(cpu) => {
                self.expect_cpu(cpu);
                Wish::Bound(cpu)
            }
            None => Wish::Prefer(CpuId::BOOT),
        };
        let name = name.into();
        Task::spawn(self.cpus(), wish, name, work)
            .unwrap_or_else(|error| panic!("cannot start a thread for a task: {error}"))
    }

    /// Runs `work` on a kernel stack of the machine, as the running task: see [`Machine::mm`] and
    /// [`Mm::alloc_stack`]. Interrupts of the CPU are handled on another stack meanwhile.
    ///
    /// The stack is small: code of the host's standard library may need more than a few pages, above all
    /// where it prints or panics.
    ///
    /// # Errors
    ///
    /// The work touched what is below the stack, or another page that is there to be met. It has been
    /// reported as misuse, and the work was ended by force: nothing of what it had on the stack was dropped.
    ///
    /// # Panics
    ///
    /// Code runs on the stack already.
    ///
    /// # Aborts
    ///
    /// The same in an interrupt handler, with interrupts masked, with pre-emption disabled, or in the middle
    /// of a call of the manager: the process says what was touched, and aborts.
    pub fn run_on_stack<T>(
        &self,
        stack: &KernelStack<'_, Host<SHIFT, TRACE>, R>,
        work: impl FnOnce() -> T,
    ) -> Result<T, Broken> {
        stack::run(stack, work)
    }

    /// [`Machine::spawn`] of a task that runs on a kernel stack like all of this machine's, of which it is
    /// the owner. It answers what the work answers, or that it was ended by force.
    ///
    /// The work is given the stack, which also takes down what the task allocates by it.
    ///
    /// # Errors
    ///
    /// When it is joined: there was no memory for the stack ([`NotRun`]).
    ///
    /// # Panics
    ///
    /// As [`Machine::spawn`].
    pub fn spawn_on_stack<T: Send + 'static>(
        &self,
        cpu: Option<CpuId>,
        name: &str,
        work: impl FnOnce(&KernelStack<'_, Host<SHIFT, TRACE>, R>) -> T + Send + 'static,
    ) -> Task<Result<T, NotRun>>
    where
        R: Send + 'static,
    {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let owner = StackOwner::new(NEXT.fetch_add(1, Relaxed), name);
        let mm = Arc::clone(&self.mm);
        self.spawn(cpu, name, move || {
            let stack = mm.alloc_stack(owner).map_err(NotRun::NoStack)?;
            stack::run(&stack, || work(&stack)).map_err(NotRun::Broken)
        })
    }

    fn expect_cpu(&self, cpu: CpuId) {
        let count = self.cpus().all().len();
        assert!(cpu.index() < count, "there is no {cpu:?}: the machine has {count}");
    }

    /// Lets other tasks have the caller's CPU before it goes on. Does nothing in atomic context.
    pub fn yield_now(&self) {
        task::yield_now();
    }

    /// Lets another task have the caller's CPU if one waits for it. It costs a few instructions where none
    /// does: loops that take long call it each time round. Does nothing in atomic context.
    pub fn give_way(&self) {
        task::give_way();
    }

    /// Sleeps; other tasks have the CPU meanwhile.
    ///
    /// # Panics
    ///
    /// The caller is in atomic context.
    pub fn sleep(&self, time: Duration) {
        task::without_cpu(|| std::thread::sleep(time));
    }

    /// Runs `work`, which waits for something outside of the machine, while other tasks have the
    /// CPU. `work` must not allocate from the machine.
    ///
    /// # Panics
    ///
    /// The caller is in atomic context.
    pub fn without_cpu<T>(&self, work: impl FnOnce() -> T) -> T {
        task::without_cpu(work)
    }

    /// Forbids the calling task to sleep until the guard is dropped (A135). Interrupts still arrive.
    pub fn preempt_disable(&self) -> PreemptGuard {
        local::preempt_disable();
        PreemptGuard(PhantomData)
    }

    /// Runs `work` with the calling task's memory restricted to these nodes, for requests that
    /// respect that (`__GFP_HARDWALL`, A111).
    pub fn with_allowed_nodes<T>(&self, nodes: NodeMask, work: impl FnOnce() -> T) -> T {
        struct Back(NodeMask);
        impl Drop for Back {
            fn drop(&mut self) {
                local::set_allowed_nodes(self.0);
            }
        }
        let _back = Back(local::set_allowed_nodes(nodes));
        work()
    }

    /// Runs `work` as a task that frees memory for others and may use all reserves meanwhile.
    pub fn with_memalloc<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Back;
        impl Drop for Back {
            fn drop(&mut self) {
                local::add_memalloc(-1);
            }
        }
        local::add_memalloc(1);
        let _back = Back;
        work()
    }

    /// Has `handler` run once on a CPU, at once or as soon as interrupts are unmasked there. Does
    /// not wait for it. Not for handlers, which raise an [`InterruptLine`] instead.
    ///
    /// The handler may interrupt anything on that CPU: see the [crate's documentation](crate) for
    /// what it must not do.
    ///
    /// # Errors
    ///
    /// There is no such CPU, it is offline, or too many interrupts wait for it.
    pub fn interrupt(
        &self,
        cpu: CpuId,
        handler: impl Fn() + Send + 'static,
    ) -> Result<(), NotRaised> {
        OneShot::raise(self.cpus(), cpu, Flavour::Interrupt, Box::new(handler))
    }

    /// As [`Machine::interrupt`], with an interrupt that cannot be masked. The handler may not even
    /// spin on a lock.
    ///
    /// # Errors
    ///
    /// As [`Machine::interrupt`].
    pub fn nmi(&self, cpu: CpuId, handler: impl Fn() + Send + 'static) -> Result<(), NotRaised> {
        OneShot::raise(self.cpus(), cpu, Flavour::Nmi, Box::new(handler))
    }

    /// A handler that can be raised any number of times, by handlers too.
    pub fn interrupt_line(&self, handler: impl Fn() + Send + Sync + 'static) -> InterruptLine<'_> {
        InterruptLine::new(self.cpus(), Box::new(handler))
    }

    /// Has `handler` run on random CPUs at random moments, on average once in `period` (zero: as
    /// often as possible), until the result is dropped.
    ///
    /// # Panics
    ///
    /// The host has no thread to give.
    pub fn interrupt_storm(
        &self,
        period: Duration,
        handler: impl Fn() + Send + Sync + 'static,
    ) -> Storm<'_> {
        Storm::start(self.cpus(), period, Box::new(handler))
            .unwrap_or_else(|error| panic!("cannot start a thread for interrupts: {error}"))
    }

    /// Takes a CPU out of service (A086): waits until no task holds it, then gives its page lists
    /// back. Tasks that may run elsewhere do; those that are bound to it wait until it is online.
    ///
    /// # Errors
    ///
    /// There is no such CPU, it is offline already, it is the last one, or the caller is a task
    /// that is bound to it.
    pub fn offline(&self, cpu: CpuId) -> Result<(), HostError> {
        let virtual_cpu = self.cpus().get(cpu).ok_or(HostError::NoSuchCpu { cpu })?;
        if self.current() == Some(cpu) && local::is_bound() {
            return Err(HostError::OwnCpu { cpu });
        }
        // Without a CPU: the one that goes may be this thread's own, and waiting for the other
        // change with a CPU in hand could stop it.
        task::without_cpu(|| {
            let _alone = self.hotplug.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if !self.online_cpus().any(|other| other != cpu) {
                return Err(HostError::LastCpu { cpu });
            }
            if !self.cpus().take_offline(virtual_cpu) {
                return Err(HostError::Offline { cpu });
            }
            // SAFETY: nothing runs on the CPU since it was taken out, and this is the only way back in.
            self.run(|| unsafe { self.mm.cpu_offline(cpu) }).map_err(|error| {
                self.cpus().put_online(virtual_cpu);
                error.into()
            })
        })
    }

    /// Puts a CPU into service again.
    ///
    /// # Errors
    ///
    /// There is no such CPU, or it is online.
    pub fn online(&self, cpu: CpuId) -> Result<(), HostError> {
        let virtual_cpu = self.cpus().get(cpu).ok_or(HostError::NoSuchCpu { cpu })?;
        task::without_cpu(|| {
            let _alone = self.hotplug.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            self.run(|| self.mm.cpu_online(cpu))?;
            self.cpus().put_online(virtual_cpu);
            Ok(())
        })
    }

    /// Whether messages also go to standard error as they come.
    pub fn set_echo(&self, echo: bool) {
        self.host().set_echo(echo);
    }

    /// The messages since the last call, oldest first; reports of misuse are among them, marked
    /// `error: `. At most 1024 are kept.
    pub fn take_log(&self) -> Vec<String> {
        self.host().log.take()
    }

    /// All reports of misuse so far, oldest first. At most 1024 between two calls are kept;
    /// [`Machine::misuse_count`] counts all.
    pub fn misuses(&self) -> Vec<String> {
        let mut misuses = self.misuses.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        misuses.extend(self.host().misuses.take());
        misuses.clone()
    }

    /// How many reports of misuse there have been.
    pub fn misuse_count(&self) -> u64 {
        self.host().misuses.written()
    }

    /// Pages that somebody holds, the manager's own included.
    fn used_pages(&self) -> u64 {
        self.mm.managed_pages() - self.mm.free_page_count().min(self.mm.managed_pages())
    }

    /// Looks whether the machine was left in order: all pages given back, every structure sound.
    /// The machine runs on.
    ///
    /// What CPUs keep of pages and objects is taken from them first, so that a page, or one object of
    /// a slab, that is still out is seen to be.
    pub fn shutdown(&self) -> Shutdown {
        self.run(|| {
            self.mm.drain_stacks();
            self.mm.vm_unmap_aliases()
        });
        let online: Vec<CpuId> = self.mm.online_cpus().collect();
        let idle = self.cpus().tasks.load(Relaxed) == 0;
        for cpu in online.iter().filter(|_| idle) {
            self.run_on(*cpu, || {
                let saved = self.host().mask();
                // SAFETY: no other task runs, and no interrupt arrives, on this CPU meanwhile. A CPU
                // that cannot go now keeps what it has, and that is reported.
                let _ = unsafe { self.mm.cpu_offline(*cpu) };
                self.host().restore(saved);
            });
        }
        let (corruption, leaks) = self.run(|| {
            self.mm.shrink_caches();
            self.mm.drain_all_pages();
            let mut leaks = String::new();
            // Writing to a String does not fail.
            let _ = kmem::report::allocinfo(&self.mm, &mut leaks);
            (self.mm.verify().err().map(|corruption| corruption.to_string()), leaks)
        });
        let used = self.used_pages();
        for cpu in online {
            // Nobody else brings CPUs online.
            let _ = self.mm.cpu_online(cpu);
        }
        Shutdown {
            lost_pages: used as i64 - self.used_at_boot as i64,
            leaks: leaks.lines().skip(2).map(String::from).collect(),
            page_bytes: 1 << SHIFT,
            corruption,
            misuses: self.misuses(),
            misuse_count: self.misuse_count(),
            running_tasks: self.cpus().tasks.load(Relaxed),
        }
    }
}

impl<const SHIFT: u32, R: Reclaim, const TRACE: bool> Drop for Machine<SHIFT, R, TRACE> {
    fn drop(&mut self) {
        self.cpus().stop_controller();
        let controller = self.controller.take();
        // The last owner may have been an interrupt that the controller has just freed.
        let joins =
            |controller: &JoinHandle<()>| controller.thread().id() != std::thread::current().id();
        if let Some(controller) = controller.filter(joins) {
            let _ = controller.join();
        }
    }
}

/// Keeps the task that made it from sleeping, until it is dropped.
///
/// Made by [`Machine::preempt_disable`].
#[must_use = "pre-emption is enabled again when this is dropped"]
pub struct PreemptGuard(
    /// A raw pointer is not `Send`: the count is the thread's own.
    PhantomData<*const ()>,
);

impl Drop for PreemptGuard {
    fn drop(&mut self) {
        local::preempt_enable();
    }
}

/// The description as a boot loader would hand it over.
fn memory_map(description: &Description) -> MemoryMap {
    let mut map = MemoryMap::new();
    for (index, node) in description.nodes.iter().enumerate() {
        for range in &node.ram {
            map = map.ram(range.clone(), node_id(index));
        }
    }
    for range in &description.reserved {
        map = map.reserved(range.clone(), "Reserved");
    }
    for range in &description.kernel {
        map = map.kernel(range.clone(), "Kernel image");
    }
    for range in &description.late {
        map = map.late(range.clone());
    }
    map
}

/// The description apart from its memory map.
fn setup(description: &Description) -> Setup {
    let order = |order| Order::new(order).unwrap_or(Order::LIMIT);
    let mut setup = Setup::new()
        .cpus(description.cpus)
        .largest_order(order(description.largest_order))
        .page_block_order(order(description.page_block_order))
        .whole_reserve_for_atomic(description.whole_reserve_for_atomic)
        .pagesets(description.pagesets)
        .keep_boot_memory(description.keep_boot_memory);
    let sizes: Vec<usize> = description.kmalloc_sizes.iter().map(|size| *size as usize).collect();
    // Sizes that cannot be are no description's; without any, the default ones are taken.
    if let Ok(classes) = kmem::boot::Classes::new(&sizes) {
        setup = setup.kmalloc_sizes(classes);
    }
    setup = setup.cache_name_limit(description.cache_name_limit as usize);
    let backing = if description.stack_guard { StackBacking::Mapped } else { StackBacking::Pages };
    if let Some(order) = Order::new(description.stack_pages.max(1).ilog2()) {
        // A laboratory wants to know how much is used.
        setup = setup.stacks(StackSetup::new(order, backing).measured(true));
    }
    if let Ok(rules) = kmem::boot::SlabDebug::parse(&description.slab_debug) {
        setup = setup.slab_debug(rules);
    }
    if let Some(limit) = description.dma_limit {
        setup = setup.dma_limit(PhysAddr::new(limit));
    }
    if let Some(limit) = description.dma32_limit {
        setup = setup.dma32_limit(PhysAddr::new(limit));
    }
    if let Some(kbytes) = description.min_free_kbytes {
        setup = setup.min_free_kbytes(kbytes);
    }
    for (kind, ratio) in ZoneKind::ALL.into_iter().zip(&description.reserve_ratio) {
        setup = setup.reserve_ratio(kind, *ratio);
    }
    for (index, node) in description.nodes.iter().enumerate() {
        if node.movable != 0 {
            setup = setup.movable(node_id(index), node.movable);
        }
        for other in 0..description.nodes.len() {
            let distance = description.distance(index, other);
            setup = setup.distance(node_id(index), node_id(other), distance);
        }
    }
    for cpu in (0..description.cpus).filter_map(CpuId::new) {
        setup = setup.cpu_node(cpu, description.cpu_node(cpu));
    }
    setup
}

/// The number of a node that a checked description has.
fn node_id(index: usize) -> NodeId {
    NodeId::new(index as u32).unwrap_or(NodeId::ZERO)
}
