//! The platform that a machine's memory manager runs on.
//!
//! What is read on the manager's fast paths lies in [`Host`] itself or in thread-local words; the
//! rest is behind it. Pinning costs nothing: a task moves to another CPU only where it sleeps or
//! yields, and pinned code does neither.

use std::fmt;
use std::io::Write as _;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Instant;

use kmem::io::Registers;
use kmem::platform::{
    Caching, Clock, Context, Cpus as PlatformCpus, CrossCall, DirectMap, Event, Hooks, Level,
    Misuse, NotCalled, Overwritten, PageMap, PageMapError, Sleep, TemporaryMap, There, Unflushed,
    UserMap, WakeReason,
};
use kmem::{CpuId, MAX_CPUS, Mm, NodeMask, Pfn, PhysAddr, Reclaim, VirtAddr};
use rustix::io::Errno;

use crate::cpu::{Cpus, Manager, VirtualCpu};
use crate::description::Description;
use crate::edu::{self, Edu, EduCounters, EduRegisters};
use crate::interrupt;
use crate::journal::{Journal, Line};
use crate::local::{self, Saved};
use crate::mapping::{Mappings, TemporaryMappings};
use crate::memory::Memory;
use crate::task::Waits;
use crate::trace::{Ages, Recorder};
use crate::user::UserSpace;

/// The platform of a hosted machine with pages of `2^SHIFT` bytes, which is traced or not.
pub struct Host<const SHIFT: u32 = 12, const TRACE: bool = false> {
    /// What a thread's word is less its CPU's number, if it holds one of this machine.
    tag: u64,
    base: usize,
    limit: u64,
    /// Whether there is RAM at or above the limit.
    has_high_memory: bool,
    pub(crate) cpus: Arc<Cpus>,
    memory: Memory,
    edu: Edu,
    mappings: Mappings,
    temporary: TemporaryMappings,
    user: UserSpace,
    waits: Waits,
    pub(crate) log: Journal,
    pub(crate) misuses: Journal,
    /// When the machine was made.
    start: Instant,
    echo: AtomicBool,
    /// Where trace events go. Without it there is nobody whom they are for.
    recorder: Option<Arc<Recorder>>,
    /// When blocks were handed out, where there is a trace.
    ages: Option<Ages>,
}

impl<const SHIFT: u32, const TRACE: bool, R: Reclaim> Manager for Mm<Host<SHIFT, TRACE>, R> {
    fn cache_name(&self, number: u16) -> Option<Line> {
        Mm::cache_name(self, number).map(|name| Line::new(format_args!("{name}")))
    }

    fn report_touch(&self, address: VirtAddr) -> Option<Line> {
        Mm::report_touch(self, address).map(|touch| Line::new(format_args!("{touch}")))
    }

    fn is_inside(&self) -> bool {
        Mm::is_inside(self)
    }
}

impl<const SHIFT: u32, const TRACE: bool> Host<SHIFT, TRACE> {
    pub(crate) fn new(
        description: &Description,
        recorder: Option<Arc<Recorder>>,
    ) -> Result<Self, Errno> {
        let ram = description.ram();
        let end = ram.last().map_or(0, |range| range.end);
        let limit = description.direct_map_limit.unwrap_or(end.next_multiple_of(1 << SHIFT));
        let cpus = Arc::new(Cpus::new(description.cpus));
        let memory = Memory::new(&ram, limit)?;
        let edu = Edu::new(&memory);
        Ok(Host {
            tag: cpus.tag(),
            base: memory.base(),
            limit,
            has_high_memory: end > limit,
            memory,
            edu,
            mappings: Mappings::new(description.mapping_area, SHIFT)?,
            temporary: TemporaryMappings::new(cpus.all().len(), SHIFT)?,
            user: UserSpace::new(SHIFT)?,
            waits: Waits::new(),
            log: Journal::new(),
            misuses: Journal::new(),
            start: Instant::now(),
            echo: AtomicBool::new(false),
            ages: recorder.is_some().then(|| Ages::new(&ram, SHIFT)),
            recorder,
            cpus,
        })
    }

    /// Whether it keeps when blocks of pages are handed out: it is traced.
    pub fn keeps_ages(&self) -> bool {
        self.ages.is_some()
    }

    /// For how many nanoseconds the block of pages that begins at a frame has been handed out; `None` where
    /// that is not known.
    pub fn block_age(&self, first: Pfn) -> Option<u64> {
        let since = self.ages.as_ref()?.since(first)?;
        Some(self.now().saturating_sub(since))
    }

    /// Says which manager runs on this: reports name its caches from then on.
    pub(crate) fn set_manager<R: Reclaim + Send + 'static>(&self, mm: &Arc<Mm<Self, R>>) {
        let manager: Weak<Mm<Self, R>> = Arc::downgrade(mm);
        self.cpus.set_manager(manager);
    }

    /// A report as a line, with the name of the cache that it is about beside the cache's number.
    fn line_of(&self, report: &Misuse<'_>) -> Line {
        let plain = Line::new(format_args!("{report}"));
        let (There::Object { cache, .. } | There::Overwritten(Overwritten { cache, .. })) =
            report.there
        else {
            return plain;
        };
        let manager = self.cpus.manager();
        let number = Line::new(format_args!("cache {cache} "));
        match (
            manager.and_then(|manager| manager.cache_name(cache)),
            plain.as_str().split_once(number.as_str()),
        ) {
            (Some(name), Some((before, after))) => {
                Line::new(format_args!("{before}{}({}) {after}", number.as_str(), name.as_str()))
            }
            _ => plain,
        }
    }

    /// Whether messages also go to standard error as they come.
    pub(crate) fn set_echo(&self, echo: bool) {
        self.echo.store(echo, Relaxed);
    }

    /// How many page mappings have been made or removed since boot: writes to a page table (A161).
    pub fn mapping_changes(&self) -> u64 {
        self.mappings.changes()
    }

    /// How many bytes of RAM the host has had to supply so far.
    pub fn touched_bytes(&self) -> u64 {
        self.memory.touched()
    }

    /// The physical addresses of the machine's device: no RAM, for `ioremap`.
    pub fn device_window(&self) -> Range<PhysAddr> {
        edu::window_of(&self.memory)
    }

    /// The device behind its registers, which are mapped at `window`.
    pub fn device<G: Registers>(&self, window: G) -> EduRegisters<'_, G> {
        EduRegisters::new(window, &self.edu, &self.memory)
    }

    /// What the device did since boot.
    pub fn device_counters(&self) -> EduCounters {
        self.edu.counters()
    }

    /// The CPU of this machine that the running thread holds.
    fn held(&self) -> &VirtualCpu {
        self.cpus.held().unwrap_or_else(|| no_cpu())
    }

    fn record(&self, line: Line) {
        self.log.write(line);
        if self.echo.load(Relaxed) {
            // One write, so that lines stay whole; a handler may not use the standard library's
            // locked stream.
            let mut bytes = [0; 256];
            let mut rest = &mut bytes[..];
            let _ = writeln!(rest, "{}", line.as_str());
            let left = rest.len();
            let _ = rustix::io::write(rustix::stdio::stderr(), &bytes[..bytes.len() - left]);
        }
    }
}

/// A thread that is no task has called something that works on a CPU's own data.
#[cold]
#[inline(never)]
#[track_caller]
fn no_cpu() -> ! {
    panic!(
        "thread '{}' holds no cpu of this machine: call this within Machine::run_on or \
         Machine::spawn",
        std::thread::current().name().unwrap_or("unnamed")
    )
}

// SAFETY: a thread holds a CPU alone until it sleeps or yields, which pinned code does not do;
// handlers run on that same thread and end before it goes on.
unsafe impl<const SHIFT: u32, const TRACE: bool> PlatformCpus for Host<SHIFT, TRACE> {
    #[inline]
    fn pin(&self) {}

    #[inline]
    fn unpin(&self) {}

    #[inline]
    fn disable_preemption(&self) {
        local::preempt_disable();
    }

    #[inline]
    fn enable_preemption(&self) {
        local::preempt_enable();
    }

    /// # Panics
    ///
    /// The running thread holds no CPU of this machine.
    #[inline]
    fn current(&self) -> CpuId {
        let number = local::held().wrapping_sub(self.tag);
        if number < MAX_CPUS as u64
            && let Some(cpu) = CpuId::new(number as u32)
        {
            return cpu;
        }
        no_cpu()
    }

    #[inline]
    fn relax(&self) {
        local::relax();
    }

    fn cross_call(&self) -> Option<&dyn CrossCall> {
        Some(self)
    }
}

// SAFETY: while the thread's mask is set, a signal that arrives only marks that it came; a thread
// that takes a CPU handles what waits for it before it runs anything. NMIs set their own mark.
unsafe impl<const SHIFT: u32, const TRACE: bool> Context for Host<SHIFT, TRACE> {
    type Saved = Saved;

    #[inline]
    fn mask(&self) -> Saved {
        local::mask()
    }

    #[inline]
    fn restore(&self, saved: Saved) {
        local::restore(saved);
    }

    /// In handlers, with interrupts masked, and where a task has disabled pre-emption. The manager's
    /// own short pins are not counted: it does not sleep in them.
    #[inline]
    fn in_atomic(&self) -> bool {
        local::in_atomic()
    }

    #[inline]
    fn in_nmi(&self) -> bool {
        local::in_nmi()
    }

    #[inline]
    fn allowed_nodes(&self) -> NodeMask {
        local::allowed_nodes()
    }

    #[inline]
    fn memalloc(&self) -> bool {
        local::memalloc()
    }

    fn sleep(&self) -> Option<&dyn Sleep> {
        Some(self)
    }
}

// SAFETY: the memfd is mapped at `base` wherever the description says that there is RAM below the
// limit, for as long as this value lives.
unsafe impl<const SHIFT: u32, const TRACE: bool> DirectMap for Host<SHIFT, TRACE> {
    const PAGE_SHIFT: u32 = SHIFT;

    #[inline]
    fn base(&self) -> VirtAddr {
        VirtAddr::new(self.base)
    }

    #[inline]
    fn limit(&self) -> PhysAddr {
        PhysAddr::new(self.limit)
    }

    fn temporary_map(&self) -> Option<&dyn TemporaryMap> {
        if self.has_high_memory { Some(self) } else { None }
    }

    fn page_map(&self) -> Option<&dyn PageMap> {
        Some(self)
    }
}

impl<const SHIFT: u32, const TRACE: bool> Hooks for Host<SHIFT, TRACE> {
    const TRACE: bool = TRACE;

    fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        let mark = match level {
            Level::Info => "",
            Level::Warning => "warning: ",
            Level::Error => "error: ",
        };
        self.record(Line::new(format_args!("{mark}{message}")));
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn misuse(&self, report: &Misuse<'_>) {
        let line = self.line_of(report);
        self.misuses.write(line);
        self.log(Level::Error, format_args!("{}", line.as_str()));
    }

    fn trace(&self, event: &Event) {
        if let Some(recorder) = &self.recorder {
            recorder.record(self.cpus.held().map(VirtualCpu::id), event);
        }
        if let Some(ages) = &self.ages {
            ages.note(event, self.now());
        }
    }
}

// SAFETY: the work runs in a handler on the thread that holds the CPU, or on this one if it does;
// the call waits until it has run, and posts it at most once.
unsafe impl<const SHIFT: u32, const TRACE: bool> CrossCall for Host<SHIFT, TRACE> {
    fn call_on(&self, cpu: CpuId, work: &(dyn Fn() + Sync)) -> Result<(), NotCalled> {
        interrupt::call_on(&self.cpus, cpu, work)
    }
}

// SAFETY: the frame's bytes of the memfd are mapped at the page until `unmap`.
unsafe impl<const SHIFT: u32, const TRACE: bool> TemporaryMap for Host<SHIFT, TRACE> {
    /// # Panics
    ///
    /// The running thread holds no CPU, or there is no such slot.
    fn map(&self, frame: Pfn, slot: usize) -> VirtAddr {
        local::preempt_disable();
        let from = frame.start(SHIFT).get();
        VirtAddr::new(self.temporary.map(&self.memory, self.held(), from, slot))
    }

    unsafe fn unmap(&self, address: VirtAddr, slot: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.temporary.unmap(self.held(), address.get(), slot) };
        local::preempt_enable();
    }
}

// SAFETY: the frames' bytes of the memfd are mapped at the pages until `unmap`.
unsafe impl<const SHIFT: u32, const TRACE: bool> PageMap for Host<SHIFT, TRACE> {
    fn range(&self) -> Range<VirtAddr> {
        let range = self.mappings.range();
        VirtAddr::new(range.start)..VirtAddr::new(range.end)
    }

    /// All memory of a process is cached, whatever is wanted.
    unsafe fn map(
        &self,
        address: VirtAddr,
        first: Pfn,
        count: usize,
        _: Caching,
    ) -> Result<(), PageMapError> {
        // SAFETY: the caller's promise.
        unsafe { self.mappings.map(&self.memory, address.get(), first.start(SHIFT).get(), count) }
    }

    unsafe fn unmap(&self, address: VirtAddr, count: usize) -> Unflushed {
        // SAFETY: the caller's promise.
        unsafe { self.mappings.unmap(address.get(), count) };
        Unflushed::new(address..VirtAddr::new(address.get() + (count << SHIFT)))
    }

    /// Nothing is left to do: the host makes all threads forget a mapping when it is removed.
    fn flush(&self, _: Unflushed) {}
}

// SAFETY: the frame's bytes of the memfd are mapped at the page until `unmap`.
unsafe impl<const SHIFT: u32, const TRACE: bool> UserMap for Host<SHIFT, TRACE> {
    fn range(&self) -> Range<VirtAddr> {
        let range = self.user.range();
        VirtAddr::new(range.start)..VirtAddr::new(range.end)
    }

    unsafe fn map(
        &self,
        address: VirtAddr,
        frame: Pfn,
        writable: bool,
    ) -> Result<(), PageMapError> {
        // SAFETY: the caller's promise.
        unsafe { self.user.map(&self.memory, address.get(), frame, writable) }
    }

    fn unmap(&self, address: VirtAddr) -> Option<Pfn> {
        self.user.unmap(address.get())
    }
}

impl<const SHIFT: u32, const TRACE: bool> Clock for Host<SHIFT, TRACE> {
    fn nanoseconds(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }
}

impl<const SHIFT: u32, const TRACE: bool> Sleep for Host<SHIFT, TRACE> {
    /// In atomic context it returns at once: to sleep there would hang the machine.
    fn wait(&self, key: usize, ready: &(dyn Fn() -> bool + Sync), nanoseconds: u64) -> WakeReason {
        self.waits.wait(key, ready, nanoseconds)
    }

    fn wake(&self, key: usize) {
        self.waits.wake(key);
    }
}
