//! The other CPUs: how they are started, and how one makes another run something.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use kmem::platform::NotCalled;
use kmem::{CpuId, GFP_KERNEL};

use crate::cpu::{CPUS, Cpu};
use crate::interrupt::Entry;
use crate::{MM, apic, clock, direct, paging, task};

/// Where a CPU begins, in real mode: a page below 1 MiB.
pub const START: u64 = 0x8000;

unsafe extern "C" {
    static cpu_start: u8;
    static cpu_start_end: u8;
    static cpu_root: AtomicPtr<u8>;
    static cpu_stack: AtomicPtr<u8>;
}

/// How many CPUs run.
static RUNNING: AtomicU32 = AtomicU32::new(1);

/// The controllers' numbers of the CPUs.
static CONTROLLERS: [AtomicU32; CPUS] = [const { AtomicU32::new(u32::MAX) }; CPUS];

/// What a new CPU finds: its number and its own data.
static NEXT: AtomicPtr<NewCpu> = AtomicPtr::new(core::ptr::null_mut());

struct NewCpu {
    number: u32,
    cpu: Cpu,
    entry: Entry,
}

/// How many CPUs there are.
pub fn count() -> u32 {
    RUNNING.load(Ordering::Acquire)
}

/// Starts the CPUs with these controllers, one after the other. By the boot CPU.
///
/// # Errors
///
/// There is no memory for a stack.
pub fn start(controllers: impl Iterator<Item = u32>) -> Result<(), kmem::AllocError> {
    let own = apic::id();
    CONTROLLERS[0].store(own, Ordering::Relaxed);
    let (from, to) = (&raw const cpu_start, &raw const cpu_start_end);
    // SAFETY: the page was kept out of the manager's map; the code is as long as its end says. It lies
    // in the low part of the image, which the direct map has.
    unsafe {
        let from = direct::pointer::<u8>(from.addr() as u64);
        let length = to.addr() - (&raw const cpu_start).addr();
        direct::pointer::<u8>(START).copy_from(from, length);
        cpu_root
            .store(core::ptr::without_provenance_mut(paging::root() as usize), Ordering::Release);
    }
    for (number, controller) in (1..CPUS as u32).zip(controllers.filter(|other| *other != own)) {
        let stack = MM.__get_free_pages(GFP_KERNEL, 4)?;
        let cpu = Box::new(NewCpu { number, cpu: Cpu::new(), entry: Entry::new() });
        NEXT.store(Box::into_raw(cpu), Ordering::Release);
        // SAFETY: a word of the image's.
        unsafe {
            let top = core::ptr::with_exposed_provenance_mut(stack.get() + (4096 << 4));
            cpu_stack.store(top, Ordering::Release);
        }
        CONTROLLERS[number as usize].store(controller, Ordering::Release);
        apic::start_cpu(controller, START);
        let begun = clock::nanoseconds();
        while count() == number {
            assert!(clock::nanoseconds() - begun < 10_000_000_000, "CPU {number} does not start");
            core::hint::spin_loop();
        }
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cpu_main() -> ! {
    // SAFETY: `start` put it there for this CPU, which has it for ever.
    let own: &'static NewCpu = unsafe { &*NEXT.load(Ordering::Acquire) };
    own.cpu.begin(own.number);
    own.entry.begin();
    apic::begin();
    apic::start_timer(1_000_000);
    if let Some(id) = CpuId::new(own.number) {
        // One that is online already, or that the manager does not know, is served by the zones' lists.
        let _ = MM.cpu_online(id);
    }
    RUNNING.store(own.number + 1, Ordering::Release);
    task::idle()
}

/// Has a CPU leave its halt and look at its queue.
pub fn nudge(cpu: u32) {
    apic::send(CONTROLLERS[cpu as usize].load(Ordering::Relaxed), apic::NUDGE);
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
/// There is no such CPU.
pub fn call_on(target: CpuId, work: &(dyn Fn() + Sync)) -> Result<(), NotCalled> {
    if target.get() >= count() {
        return Err(NotCalled::NoSuchCpu);
    }
    let call = Call { work, done: AtomicBool::new(false) };
    let at = (&raw const call).cast_mut().cast::<Call<'static>>();
    let place = &CALLS[target.index()];
    // Release pairs with the Acquire in `run_call`.
    while place
        .compare_exchange(core::ptr::null_mut(), at, Ordering::Release, Ordering::Relaxed)
        .is_err()
    {
        core::hint::spin_loop();
    }
    apic::send(CONTROLLERS[target.index()].load(Ordering::Relaxed), apic::CALL);
    while !call.done.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    Ok(())
}

/// Runs the call that this CPU is asked for.
pub fn run_call() {
    let at = CALLS[Cpu::id().index()].swap(core::ptr::null_mut(), Ordering::Acquire);
    // SAFETY: whoever put it there waits until it is done.
    if let Some(call) = unsafe { at.as_ref() } {
        (call.work)();
        call.done.store(true, Ordering::Release);
    }
}
