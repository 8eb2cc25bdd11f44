//! A platform of threads as CPUs, which records what is reported and can interrupt the manager
//! inside its own calls.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use kmem::platform::{
    Context, Cpus, CrossCall, DirectMap, Event, Hooks, Level, Misuse, MisuseKind, NotCalled,
    Passed, TemporaryMap, There,
};
use kmem::{CpuId, NodeMask, Pfn, PhysAddr, VirtAddr};

/// A report of misuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub kind: MisuseKind,
    pub passed: Passed,
    pub there: There,
    /// The line for people.
    pub line: String,
}

/// Where the manager calls the platform, and so where something can come in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Pin,
    Unpin,
    Current,
    Mask,
    Restore,
    InAtomic,
    InNmi,
    /// With the zone's lock held, for blocks that move under it.
    Trace,
    Relax,
}

/// What comes in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// An interrupt: kept back while interrupts are masked.
    Interrupt,
    /// An interrupt that cannot be masked.
    Nmi,
    /// What another CPU does meanwhile. It must not wait for this one.
    OtherCpu(u32),
}

type Handler = Box<dyn FnMut(Point)>;

/// The CPU that a thread is.
pub struct Cpu {
    pub number: Cell<u32>,
    pub memalloc: Cell<bool>,
    pub nodes: Cell<NodeMask>,
    /// How often the manager has called.
    pub points: Cell<u64>,
    /// Whether what the handler came in between of could not be taken off its CPU.
    pub was_atomic: Cell<bool>,
    pins: Cell<u32>,
    masked: Cell<bool>,
    interrupt: Cell<bool>,
    nmi: Cell<bool>,
    /// Whether something is in between: nothing comes in between that.
    between: Cell<bool>,
    armed: Cell<Option<Armed>>,
    handler: RefCell<Option<Handler>>,
}

#[derive(Clone, Copy)]
struct Armed {
    scope: Scope,
    at: Option<Point>,
    left: u64,
    every: Option<u64>,
}

thread_local! {
    pub static CPU: Cpu = const {
        Cpu {
            number: Cell::new(0),
            memalloc: Cell::new(false),
            nodes: Cell::new(NodeMask::ALL),
            points: Cell::new(0),
            was_atomic: Cell::new(false),
            pins: Cell::new(0),
            masked: Cell::new(false),
            interrupt: Cell::new(false),
            nmi: Cell::new(false),
            between: Cell::new(false),
            armed: Cell::new(None),
            handler: RefCell::new(None),
        }
    };
}

impl Cpu {
    /// Runs `handler` once, after `left` calls of the manager (of the kind `at`, if one is given).
    pub fn arm_once(
        &self,
        scope: Scope,
        at: Option<Point>,
        left: u64,
        handler: impl FnMut(Point) + 'static,
    ) {
        *self.handler.borrow_mut() = Some(Box::new(handler));
        self.armed.set(Some(Armed { scope, at, left, every: None }));
    }

    /// Runs `handler` at every `every`th call of the manager (of the kind `at`, if one is given).
    pub fn arm_every(
        &self,
        scope: Scope,
        at: Option<Point>,
        every: u64,
        handler: impl FnMut(Point) + 'static,
    ) {
        *self.handler.borrow_mut() = Some(Box::new(handler));
        self.armed.set(Some(Armed { scope, at, left: every, every: Some(every) }));
    }

    /// Whether this thread is where sleeping is forbidden.
    pub fn in_atomic(&self) -> bool {
        self.pins.get() > 0 || self.masked.get() || self.interrupt.get() || self.nmi.get()
    }

    /// Ends it. Answers whether something was still armed.
    pub fn disarm(&self) -> bool {
        *self.handler.borrow_mut() = None;
        self.armed.take().is_some()
    }

    fn point(&self, point: Point) {
        self.points.set(self.points.get() + 1);
        let Some(mut armed) = self.armed.get() else { return };
        if self.between.get() || armed.at.is_some_and(|at| at != point) {
            return;
        }
        if armed.left > 0 {
            armed.left -= 1;
            self.armed.set(Some(armed));
            return;
        }
        if armed.scope == Scope::Interrupt && self.masked.get() {
            return;
        }
        armed.left = armed.every.unwrap_or(0);
        self.armed.set(armed.every.map(|_| armed));
        let Some(mut handler) = self.handler.borrow_mut().take() else { return };
        self.was_atomic.set(self.in_atomic());
        let state = (self.number.get(), self.pins.replace(0), self.masked.get());
        self.between.set(true);
        match armed.scope {
            Scope::Interrupt => self.interrupt.set(true),
            Scope::Nmi => self.nmi.set(true),
            Scope::OtherCpu(number) => {
                self.masked.set(false);
                self.number.set(number);
            }
        }
        handler(point);
        assert_eq!(self.pins.get(), 0, "the manager is pinned when it has returned");
        self.number.set(state.0);
        self.pins.set(state.1);
        self.masked.set(state.2);
        self.interrupt.set(false);
        self.nmi.set(false);
        self.between.set(false);
        let mut place = self.handler.borrow_mut();
        if place.is_none() {
            *place = Some(handler);
        }
    }
}

/// A machine whose CPUs are threads: a thread says which one it is with `CPU.number`. One thread at
/// a time is a CPU.
pub struct Rig<const SHIFT: u32 = 12, const TRACE: bool = false> {
    ram: *mut u8,
    bytes: usize,
    direct: u64,
    reports: Mutex<Vec<Report>>,
    lines: Mutex<Vec<String>>,
    /// The slots for temporary mappings that are in use, of each CPU.
    slots: Mutex<BTreeSet<(u32, usize)>>,
    /// Whether a CPU can make another run something. For tests of one thread.
    pub can_call: Switch,
    /// Whether trace events are kept.
    pub keeps_events: Switch,
    events: Mutex<Vec<Event>>,
}

/// Something that is on or off.
#[derive(Default)]
pub struct Switch(AtomicBool);

impl Switch {
    pub fn set(&self, on: bool) {
        self.0.store(on, SeqCst);
    }

    fn is_on(&self) -> bool {
        self.0.load(SeqCst)
    }
}

// SAFETY: the RAM is the manager's and its callers'; the rest is behind locks.
unsafe impl<const SHIFT: u32, const TRACE: bool> Sync for Rig<SHIFT, TRACE> {}
// SAFETY: as above.
unsafe impl<const SHIFT: u32, const TRACE: bool> Send for Rig<SHIFT, TRACE> {}

impl<const SHIFT: u32, const TRACE: bool> Rig<SHIFT, TRACE> {
    /// A machine whose RAM lies within the first `bytes`, all of it in the direct map.
    pub fn new(bytes: usize) -> Self {
        Self::with_direct(bytes, bytes)
    }

    /// As `new`; the direct map reaches the first `direct` bytes.
    pub fn with_direct(bytes: usize, direct: usize) -> Self {
        // SAFETY: the size is not 0.
        let ram = unsafe { alloc_zeroed(Self::layout(bytes)) };
        assert!(!ram.is_null());
        let _ = ram.expose_provenance();
        Rig {
            ram,
            bytes,
            direct: direct as u64,
            reports: Mutex::default(),
            lines: Mutex::default(),
            slots: Mutex::default(),
            can_call: Switch::default(),
            keeps_events: Switch::default(),
            events: Mutex::default(),
        }
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 1 << 16).unwrap()
    }

    /// The reports since the last call.
    pub fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut self.reports.lock().unwrap())
    }

    /// The log lines since the last call.
    pub fn take_lines(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }

    /// The trace events since the last call.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// The first byte of a frame, in the direct map or not.
    pub fn frame(&self, frame: u64) -> *mut u8 {
        let offset = (frame << SHIFT) as usize;
        assert!(offset < self.bytes);
        self.ram.wrapping_add(offset)
    }
}

impl<const SHIFT: u32, const TRACE: bool> Drop for Rig<SHIFT, TRACE> {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.ram, Self::layout(self.bytes)) };
    }
}

// SAFETY: a number is one thread's; what is run in between ends before the thread goes on.
unsafe impl<const SHIFT: u32, const TRACE: bool> Cpus for Rig<SHIFT, TRACE> {
    fn pin(&self) {
        CPU.with(|cpu| {
            cpu.point(Point::Pin);
            cpu.pins.set(cpu.pins.get() + 1);
            cpu.point(Point::Pin);
        });
    }

    fn unpin(&self) {
        CPU.with(|cpu| {
            cpu.point(Point::Unpin);
            cpu.pins.set(cpu.pins.get().checked_sub(1).expect("unpin without pin"));
            cpu.point(Point::Unpin);
        });
    }

    fn current(&self) -> CpuId {
        CPU.with(|cpu| {
            let pinned = cpu.pins.get() > 0 || cpu.masked.get() || cpu.interrupt.get();
            assert!(pinned || cpu.nmi.get(), "asked for the cpu without being pinned");
            cpu.point(Point::Current);
            CpuId::new(cpu.number.get()).unwrap()
        })
    }

    fn relax(&self) {
        CPU.with(|cpu| cpu.point(Point::Relax));
        std::thread::yield_now();
    }

    fn cross_call(&self) -> Option<&dyn CrossCall> {
        if self.can_call.is_on() { Some(self) } else { None }
    }
}

// SAFETY: the other CPU does nothing, as the test has one thread, which is that CPU meanwhile.
unsafe impl<const SHIFT: u32, const TRACE: bool> CrossCall for Rig<SHIFT, TRACE> {
    fn call_on(&self, other: CpuId, work: &(dyn Fn() + Sync)) -> Result<(), NotCalled> {
        CPU.with(|cpu| {
            assert!(!cpu.in_atomic(), "a cpu is called from atomic context");
            let own = cpu.number.replace(other.get());
            cpu.interrupt.set(true);
            work();
            cpu.interrupt.set(false);
            cpu.number.set(own);
        });
        Ok(())
    }
}

// SAFETY: interrupts are run at points only, and not while `masked`.
unsafe impl<const SHIFT: u32, const TRACE: bool> Context for Rig<SHIFT, TRACE> {
    type Saved = bool;

    fn mask(&self) -> bool {
        CPU.with(|cpu| {
            cpu.point(Point::Mask);
            cpu.masked.replace(true)
        })
    }

    fn restore(&self, saved: bool) {
        CPU.with(|cpu| {
            assert!(cpu.masked.replace(saved), "restore without mask");
            cpu.point(Point::Restore);
        });
    }

    fn in_atomic(&self) -> bool {
        CPU.with(|cpu| {
            cpu.point(Point::InAtomic);
            cpu.in_atomic()
        })
    }

    fn in_nmi(&self) -> bool {
        CPU.with(|cpu| {
            cpu.point(Point::InNmi);
            cpu.nmi.get()
        })
    }

    fn allowed_nodes(&self) -> NodeMask {
        CPU.with(|cpu| cpu.nodes.get())
    }

    fn memalloc(&self) -> bool {
        CPU.with(|cpu| cpu.memalloc.get())
    }
}

// SAFETY: the RAM is there as long as the rig.
unsafe impl<const SHIFT: u32, const TRACE: bool> DirectMap for Rig<SHIFT, TRACE> {
    const PAGE_SHIFT: u32 = SHIFT;

    fn base(&self) -> VirtAddr {
        VirtAddr::new(self.ram.addr())
    }

    fn limit(&self) -> PhysAddr {
        PhysAddr::new(self.direct)
    }

    fn temporary_map(&self) -> Option<&dyn TemporaryMap> {
        Some(self)
    }
}

// SAFETY: all RAM is always there; only the manager may not know.
unsafe impl<const SHIFT: u32, const TRACE: bool> TemporaryMap for Rig<SHIFT, TRACE> {
    fn map(&self, frame: Pfn, slot: usize) -> VirtAddr {
        let cpu = CPU.with(|cpu| cpu.number.get());
        let is_free = self.slots.lock().unwrap().insert((cpu, slot));
        assert!(is_free, "slot {slot} of cpu {cpu} is in use");
        self.pin();
        VirtAddr::from_ptr(self.frame(frame.number()))
    }

    unsafe fn unmap(&self, _: VirtAddr, slot: usize) {
        self.unpin();
        let cpu = CPU.with(|cpu| cpu.number.get());
        let was_used = self.slots.lock().unwrap().remove(&(cpu, slot));
        assert!(was_used, "slot {slot} of cpu {cpu} is not in use");
    }
}

impl<const SHIFT: u32, const TRACE: bool> Hooks for Rig<SHIFT, TRACE> {
    const TRACE: bool = TRACE;

    fn log(&self, _: Level, message: fmt::Arguments<'_>) {
        self.lines.lock().unwrap().push(message.to_string());
    }

    fn misuse(&self, report: &Misuse<'_>) {
        let Misuse { kind, passed, there, .. } = *report;
        self.reports.lock().unwrap().push(Report { kind, passed, there, line: report.to_string() });
    }

    fn trace(&self, event: &Event) {
        // Before it is kept: what comes in between is told of first.
        CPU.with(|cpu| cpu.point(Point::Trace));
        if self.keeps_events.is_on() {
            self.events.lock().unwrap().push(*event);
        }
    }
}
