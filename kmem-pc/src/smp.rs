//! The other CPUs: how they are started and stopped, and how one makes another run something.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use kmem::platform::NotCalled;
use kmem::{AllocError, CpuError, CpuId};

use crate::cpu::{self, CPUS, Cpu};
use crate::heap::HEAP;
use crate::interrupt::Entry;
use crate::stack::{self, Handlers, Stack};
use crate::{MM, apic, clock, direct, paging, task};

/// Where a CPU begins, in real mode: a page below 1 MiB.
pub const START: u64 = 0x8000;

/// How long a CPU may take to start, in nanoseconds.
const PATIENCE: u64 = 10_000_000_000;

unsafe extern "C" {
    static cpu_start: u8;
    static cpu_start_end: u8;
    static cpu_root: AtomicPtr<u8>;
    static cpu_stack: AtomicPtr<u8>;
}

/// The CPUs that run, a bit each.
static RUNNING: AtomicU32 = AtomicU32::new(1);

/// The CPUs that are asked to stop.
static LEAVING: AtomicU32 = AtomicU32::new(0);

/// The CPUs that have stopped: they run nothing until they are started again.
static STOPPED: AtomicU32 = AtomicU32::new(0);

/// The controllers' numbers of the CPUs.
static CONTROLLERS: [AtomicU32; CPUS] = [const { AtomicU32::new(u32::MAX) }; CPUS];

/// What each of the other CPUs has.
static OTHERS: [AtomicPtr<Other>; CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; CPUS];

/// What a CPU that is being started finds.
static NEXT: AtomicPtr<Other> = AtomicPtr::new(core::ptr::null_mut());

/// Held while a CPU is started or stopped.
static CHANGE: AtomicBool = AtomicBool::new(false);

/// What a CPU has that is not the boot CPU. It is kept when the CPU stops, for its next start.
struct Other {
    number: u32,
    /// That of its idle loop.
    stack: Stack,
    handlers: Handlers,
    cpu: Cpu,
    entry: Entry,
}

/// Why a CPU was not stopped or started.
#[derive(Debug)]
pub enum ChangeError {
    /// There is none with this number.
    NoSuchCpu,
    /// It is as it should become.
    Unchanged,
    /// The boot CPU keeps the time for all.
    BootCpu,
    /// Another change is under way.
    Busy,
    /// The manager refused.
    Refused(CpuError),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::NoSuchCpu => f.write_str("there is none with this number"),
            ChangeError::Unchanged => f.write_str("it is so already"),
            ChangeError::BootCpu => f.write_str("it keeps the time for all, and cannot be stopped"),
            ChangeError::Busy => f.write_str("another CPU is being started or stopped: try again"),
            ChangeError::Refused(error) => error.fmt(f),
        }
    }
}

impl From<CpuError> for ChangeError {
    fn from(error: CpuError) -> Self {
        ChangeError::Refused(error)
    }
}

/// The CPUs that run.
pub fn online() -> impl Iterator<Item = CpuId> {
    let running = RUNNING.load(Ordering::Acquire);
    (0..CPUS as u32).filter(move |cpu| running & 1 << cpu != 0).filter_map(CpuId::new)
}

/// Whether a CPU runs.
pub fn is_online(cpu: CpuId) -> bool {
    // SeqCst: see `call_on`.
    cpu.index() < CPUS && RUNNING.load(Ordering::SeqCst) & 1 << cpu.get() != 0
}

/// Starts the CPUs with these controllers, one after the other. By the boot CPU, once.
///
/// # Errors
///
/// There is no memory for one.
pub fn start(controllers: impl Iterator<Item = u32>) -> Result<(), AllocError> {
    let own = apic::id();
    CONTROLLERS[0].store(own, Ordering::Relaxed);
    let (from, to) = (&raw const cpu_start, &raw const cpu_start_end);
    // SAFETY: the page was kept out of the manager's map; the code is as long as its end says. It lies
    // in the low part of the image, which the direct map has.
    unsafe {
        let length = to.addr() - from.addr();
        direct::pointer::<u8>(START).copy_from(direct::pointer(from.addr() as u64), length);
        cpu_root
            .store(core::ptr::without_provenance_mut(paging::root() as usize), Ordering::Release);
    }
    for (number, controller) in (1..CPUS as u32).zip(controllers.filter(|other| *other != own)) {
        CONTROLLERS[number as usize].store(controller, Ordering::Release);
        // There are no more CPUs than the manager has numbers for.
        let handlers = Handlers::new(CpuId::new(number).unwrap_or(CpuId::BOOT))?;
        let (stack, cpu, entry) = (stack::of_task(number, "idle")?, Cpu::new(), Entry::new());
        let other = Box::new(Other { number, stack, handlers, cpu, entry });
        OTHERS[number as usize].store(Box::into_raw(other), Ordering::Release);
        begin(number);
    }
    Ok(())
}

/// Starts a CPU that has what it needs and does not run.
fn begin(number: u32) {
    STOPPED.fetch_and(!(1 << number), Ordering::Relaxed);
    let other = OTHERS[number as usize].load(Ordering::Acquire);
    NEXT.store(other, Ordering::Release);
    // SAFETY: it was made by `start` and stays. The word is the image's.
    unsafe {
        let top = (*other).stack.top().get();
        cpu_stack.store(core::ptr::without_provenance_mut(top), Ordering::Release);
    }
    apic::start_cpu(CONTROLLERS[number as usize].load(Ordering::Relaxed), START);
    let begun = clock::nanoseconds();
    while RUNNING.load(Ordering::Acquire) & 1 << number == 0 {
        assert!(clock::nanoseconds() - begun < PATIENCE, "CPU {number} does not start");
        core::hint::spin_loop();
    }
}

#[unsafe(no_mangle)]
extern "C" fn cpu_main() -> ! {
    // SAFETY: `start` made it for this CPU, and it stays.
    let own: &'static Other = unsafe { &*NEXT.load(Ordering::Acquire) };
    own.cpu.begin(own.number);
    // SAFETY: they are this CPU's, which has not let interrupts in.
    unsafe { own.entry.use_stacks(own.handlers.tops()) };
    own.entry.begin();
    apic::begin();
    apic::start_timer(apic::TICKS_A_SECOND);
    for online in [MM.cpu_online(Cpu::id()), HEAP.cpu_online(Cpu::id())] {
        if let Err(error) = online {
            panic!("a CPU gets no lists: {error}");
        }
    }
    RUNNING.fetch_or(1 << own.number, Ordering::AcqRel);
    task::idle()
}

/// Whether there is a CPU with this number besides the boot CPU, running or not.
fn is_known(cpu: CpuId) -> bool {
    cpu.index() < CPUS && !OTHERS[cpu.index()].load(Ordering::Acquire).is_null()
}

/// Runs something while no other CPU is started or stopped.
fn alone<T>(work: impl FnOnce() -> Result<T, ChangeError>) -> Result<T, ChangeError> {
    if CHANGE.swap(true, Ordering::Acquire) {
        return Err(ChangeError::Busy);
    }
    let done = work();
    CHANGE.store(false, Ordering::Release);
    done
}

/// Stops a CPU: what it keeps for itself goes back to the manager. Tasks call it, on another CPU; those
/// of the CPU that stops have ended.
///
/// # Errors
///
/// See [`ChangeError`].
pub fn stop(cpu: CpuId) -> Result<(), ChangeError> {
    if cpu == CpuId::BOOT {
        return Err(ChangeError::BootCpu);
    }
    alone(|| {
        if !is_known(cpu) {
            return Err(ChangeError::NoSuchCpu);
        }
        if !is_online(cpu) {
            return Err(ChangeError::Unchanged);
        }
        LEAVING.fetch_or(1 << cpu.get(), Ordering::Release);
        // Acquire pairs with the Release in `leave_if_asked`: all that the CPU did is seen.
        while STOPPED.load(Ordering::Acquire) & 1 << cpu.get() == 0 {
            nudge(cpu.get());
            task::sleep(100_000);
        }
        // SAFETY: the CPU runs nothing any more, not even calls, and only `resume` starts it.
        let stopped = unsafe { MM.cpu_offline(cpu).and_then(|()| HEAP.cpu_offline(cpu)) };
        if stopped.is_err() {
            begin(cpu.get());
        }
        Ok(stopped?)
    })
}

/// Starts a CPU that was stopped.
///
/// # Errors
///
/// See [`ChangeError`].
pub fn resume(cpu: CpuId) -> Result<(), ChangeError> {
    alone(|| {
        // The boot CPU has nothing there, and always runs.
        if is_online(cpu) {
            return Err(ChangeError::Unchanged);
        }
        if !is_known(cpu) {
            return Err(ChangeError::NoSuchCpu);
        }
        begin(cpu.get());
        Ok(())
    })
}

/// Halts for good if this CPU was asked to. By the idle loop, with interrupts masked and no task ready.
pub fn leave_if_asked() {
    let own = Cpu::id();
    if LEAVING.load(Ordering::Acquire) & 1 << own.get() == 0 {
        return;
    }
    LEAVING.fetch_and(!(1 << own.get()), Ordering::Relaxed);
    apic::start_timer(0);
    // SeqCst: see `call_on`.
    RUNNING.fetch_and(!(1 << own.get()), Ordering::SeqCst);
    run_call();
    STOPPED.fetch_or(1 << own.get(), Ordering::Release);
    loop {
        cpu::halt_masked();
    }
}

/// Has a CPU leave its halt and look at its queue.
pub fn nudge(cpu: u32) {
    apic::send(CONTROLLERS[cpu as usize].load(Ordering::Relaxed), apic::NUDGE);
}

/// Has an NMI arrive at a CPU.
pub fn send_nmi(cpu: CpuId) {
    apic::send_nmi(CONTROLLERS[cpu.index()].load(Ordering::Relaxed));
}

/// What one CPU wants another to run.
struct Call<'w> {
    work: &'w (dyn Fn() + Sync),
    done: AtomicBool,
}

/// The call that each CPU is to run.
static CALLS: [AtomicPtr<Call<'static>>; CPUS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; CPUS];

/// Runs `work` as an interrupt handler on a CPU, which may be this one, and waits for it. Interrupts are
/// let in: two CPUs that call each other both get their answer.
///
/// # Errors
///
/// There is no such CPU, or it does not run.
///
/// # Panics
///
/// Interrupts are masked: the CPU that is called may wait for this one.
pub fn call_on(target: CpuId, work: &(dyn Fn() + Sync)) -> Result<(), NotCalled> {
    assert!(cpu::are_unmasked(), "a CPU is called with interrupts masked");
    if target.index() >= CPUS {
        return Err(NotCalled::NoSuchCpu);
    }
    if !is_online(target) {
        return Err(NotCalled::Offline);
    }
    let call = Call { work, done: AtomicBool::new(false) };
    let at = (&raw const call).cast_mut().cast::<Call<'static>>();
    let (place, none) = (&CALLS[target.index()], core::ptr::null_mut());
    // Release pairs with the Acquire in `run_call`. SeqCst here and at the next look: either a CPU that
    // stops sees the call when it has said that it does not run, or this sees that it does not.
    while place.compare_exchange(none, at, Ordering::SeqCst, Ordering::Relaxed).is_err() {
        core::hint::spin_loop();
    }
    if !is_online(target)
        && place.compare_exchange(at, none, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    {
        return Err(NotCalled::Offline);
    }
    apic::send(CONTROLLERS[target.index()].load(Ordering::Relaxed), apic::CALL);
    while !call.done.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    Ok(())
}

/// Runs the call that this CPU is asked for.
pub fn run_call() {
    let at = CALLS[Cpu::id().index()].swap(core::ptr::null_mut(), Ordering::SeqCst);
    // SAFETY: whoever put it there waits until it is done.
    if let Some(call) = unsafe { at.as_ref() } {
        (call.work)();
        call.done.store(true, Ordering::Release);
    }
}
