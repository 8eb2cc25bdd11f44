//! The local interrupt controllers: a timer for each CPU, and interrupts from one CPU to another.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use kmem::CpuId;

use crate::cpu::{self, Cpu};
use crate::hook::Hook;
use crate::{clock, machine, paging, port, smp, task};

/// The registers of the running CPU's controller.
const BASE: u64 = 0xfee0_0000;

const ID: usize = 0x20;
const COMMAND: usize = 0x300;
const TARGET: usize = 0x310;
const END: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const TIMER: usize = 0x320;
const COUNT: usize = 0x380;
const DIVIDE: usize = 0x3e0;

/// How many steps the timer makes in a second: QEMU's are nanoseconds. Elsewhere the ticks come as
/// often as its clock has it.
const STEPS_A_SECOND: u32 = 1_000_000_000;

/// How often the timer ticks.
pub const TICKS_A_SECOND: u32 = 1000;

/// The timer's vector.
const TICK: u8 = 32;

/// The vector that has a CPU look at its queue.
pub const NUDGE: u8 = 33;

/// The vector of a call from another CPU.
pub const CALL: u8 = 34;

/// The vector of an interrupt that was none.
const NONE: u8 = 255;

/// What is called when a CPU is nudged.
pub static ON_NUDGE: Hook<()> = Hook::new();

/// Where the registers are seen, once they are.
static REGISTERS: AtomicUsize = AtomicUsize::new(0);

fn register(register: usize) -> *mut u32 {
    core::ptr::with_exposed_provenance_mut(REGISTERS.load(Relaxed) + register)
}

fn read(at: usize) -> u32 {
    // SAFETY: a register of the controller, which is mapped.
    unsafe { register(at).read_volatile() }
}

fn write(at: usize, value: u32) {
    // SAFETY: as above; what it does is this file's matter.
    unsafe { register(at).write_volatile(value) }
}

/// Makes the registers seen: each CPU finds its own controller's there.
///
/// # Safety
///
/// By the boot CPU, before others are started.
pub unsafe fn map() {
    // SAFETY: every PC has the controller, there after reset.
    REGISTERS.store(unsafe { paging::map_device(BASE) }, Relaxed);
    // The PC's old interrupt controllers, whose vectors are those of exceptions, are not used.
    // SAFETY: they touch no memory.
    unsafe {
        port::write8(0x21, 0xff);
        port::write8(0xa1, 0xff);
    }
}

/// Switches the running CPU's controller on.
pub fn begin() {
    // SAFETY: the controller is where the processor has it after reset.
    unsafe { cpu::write_msr(0x1b, BASE | 1 << 11 | cpu::read_msr(0x1b) & 1 << 8) };
    write(SPURIOUS, 1 << 8 | u32::from(NONE));
}

/// The running CPU's number as the controllers know it.
pub fn id() -> u32 {
    read(ID) >> 24
}

/// Has an interrupt come so many times a second; 0: none.
pub fn start_timer(a_second: u32) {
    let count = STEPS_A_SECOND.checked_div(a_second).unwrap_or(0);
    // By one, and again and again.
    write(DIVIDE, 0b1011);
    write(TIMER, 1 << 17 | u32::from(TICK));
    write(COUNT, count);
}

/// Handles an interrupt.
pub fn interrupt(vector: u8) {
    if vector != NONE {
        write(END, 0);
    }
    match vector {
        TICK => {
            if Cpu::id() == CpuId::BOOT {
                task::tick();
            }
            machine::tick();
        }
        NUDGE => {
            ON_NUDGE.call(());
        }
        CALL => smp::run_call(),
        _ => {}
    }
}

/// Sends an interrupt to the CPU with a controller. Any context.
pub fn send(controller: u32, vector: u8) {
    command(controller, u32::from(vector));
}

/// Has an NMI arrive at the CPU with a controller.
pub fn send_nmi(controller: u32) {
    command(controller, 4 << 8);
}

/// Starts the CPU with a controller at a page below 1 MiB.
pub fn start_cpu(controller: u32, start: u64) {
    const INIT: u32 = 5 << 8 | 1 << 14;
    const START_UP: u32 = 6 << 8 | 1 << 14;
    let wait = |nanoseconds| {
        let begun = clock::nanoseconds();
        while clock::nanoseconds() - begun < nanoseconds {
            core::hint::spin_loop();
        }
    };
    command(controller, INIT);
    wait(1_000_000);
    command(controller, START_UP | (start >> 12) as u32);
}

fn command(controller: u32, what: u32) {
    // The two writes are one command: no handler of this CPU may give one between them.
    let were = cpu::mask();
    while read(COMMAND) & 1 << 12 != 0 {
        core::hint::spin_loop();
    }
    write(TARGET, controller << 24);
    write(COMMAND, what);
    cpu::restore(were);
}
