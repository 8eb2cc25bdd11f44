//! `crash`: breaks the kernel on purpose, to see what is said then.

use alloc::format;
use alloc::string::{String, ToString};
use core::arch::asm;
use core::hint::black_box;

use cases::Machine as _;
use kmem::{CpuId, GFP_ATOMIC, GFP_HIGHUSER, GFP_KERNEL};
use kmem_shell::{Command, Failure, Shell, Sink};

use super::usage;
use crate::cpu::{self, Cpu};
use crate::machine::Machine;
use crate::{MM, direct, interrupt, paging, smp, task};

pub(super) const COMMAND: Command<Machine> = Command {
    name: "crash",
    usage: "crash panic|page-fault|null|write-text|execute|stack|broken-stack|high-memory|double-fault|divide|\
            invalid|wrong-free|hang [CPU|all|interrupt]",
    about: "break the kernel on purpose, and end with a report\n\
            It is done on this CPU, another, all at once, or in an interrupt handler of this one.\n\
            page-fault    a write to the registers of a device that is not there\n\
            null          a call of address 0\n\
            write-text    a write to the kernel's code\n\
            execute       a call of a page of the manager's\n\
            stack         a function that calls itself without end, pinned: its task cannot be ended\n\
            broken-stack  an invalid instruction, with frames that lead nowhere\n\
            high-memory   a read of high memory where the direct map would have it\n\
            double-fault  a page fault without a handler\n\
            wrong-free    a page freed twice\n\
            hang          a loop with interrupts masked; only a time limit ends it",
    example: "crash page-fault 1",
    run,
};

/// The ways to crash.
const KINDS: &[(&str, fn())] = &[
    ("panic", panic),
    ("page-fault", write_to_device),
    ("null", call_null),
    ("write-text", write_code),
    ("execute", call_page),
    ("stack", overflow),
    ("broken-stack", lose_frames),
    ("high-memory", read_high_memory),
    ("double-fault", fault_without_handler),
    ("divide", divide),
    ("invalid", invalid),
    ("wrong-free", free_twice),
    ("hang", hang),
];

fn run(shell: &mut Shell<'_, Machine>, words: &[String], _: &mut dyn Sink) -> Result<(), Failure> {
    let (kind, place) = match words {
        [kind] => (kind, None),
        [kind, place] => (kind, Some(place.as_str())),
        _ => return Err(usage(&COMMAND)),
    };
    let kind = KINDS.iter().find(|(name, _)| name == kind);
    let (_, crash) = kind.ok_or_else(|| usage(&COMMAND))?;
    let failed = |message| Err(Failure::Failed(message));
    match place {
        None => crash(),
        Some("all") => shell.system().concurrently(&|_| crash()),
        Some("interrupt") => {
            if smp::call_on(Cpu::id(), crash).is_err() {
                return failed("no interrupt can be raised".into());
            }
        }
        Some(number) => {
            let cpu = number.parse().ok().and_then(CpuId::new).ok_or_else(|| usage(&COMMAND))?;
            if !smp::is_online(cpu) {
                return failed(format!("CPU {number} does not run: see `cpu`"));
            }
            task::run_on(cpu.get(), crash).map_err(|error| Failure::Failed(error.to_string()))?;
        }
    }
    failed("the kernel did not crash".into())
}

fn panic() {
    panic!("asked to, by the command crash");
}

/// An address where no device of the PC is.
const NO_DEVICE: usize = paging::DEVICES + 0x1000;

fn write_to_device() {
    // SAFETY: none: nothing is mapped there, and the fault is what is wanted.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(NO_DEVICE).write_volatile(1) };
}

fn call_null() {
    call(0);
}

fn call_page() {
    if let Ok(address) = MM.__get_free_pages(GFP_ATOMIC, 2) {
        call(address.get() + 0x1234);
    }
}

fn call(address: usize) {
    // SAFETY: none: it is no code, and the fault is what is wanted.
    unsafe { asm!("call {}", in(reg) address, clobber_abi("C")) };
}

fn write_code() {
    let code = call_null as *const () as usize;
    // SAFETY: none: code is read-only, and the fault is what is wanted.
    unsafe { core::ptr::with_exposed_provenance_mut::<u8>(code).write_volatile(0) };
}

fn overflow() {
    Cpu::pin();
    black_box(deeper(black_box(0)));
}

#[expect(unconditional_recursion, reason = "it is what is wanted")]
fn deeper(depth: u64) -> u64 {
    let room = black_box([depth; 16]);
    room[15] + deeper(depth + 1)
}

fn lose_frames() {
    // SAFETY: none: the fault is what is wanted. The address is one that the list of frames may have.
    unsafe { asm!("mov rbp, {}", "ud2", in(reg) NO_DEVICE, options(noreturn)) };
}

fn fault_without_handler() {
    cpu::mask();
    // A page fault's gate is out of reach: that is another fault, whose gate is out of reach too.
    // SAFETY: what is to be raised is the double fault, the last that has a gate.
    unsafe { interrupt::use_gates(9) };
    write_to_device();
}

fn read_high_memory() {
    let Ok(page) = MM.alloc_page(GFP_HIGHUSER) else { return };
    let address = direct::BASE + MM.page_to_phys(page).get() as usize;
    if MM.page_address(page).is_none() {
        // SAFETY: none: nothing is mapped there, and the fault is what is wanted.
        unsafe { core::ptr::with_exposed_provenance::<u64>(address).read_volatile() };
    }
    // SAFETY: it was just allocated.
    unsafe { MM.__free_page(page) };
}

fn divide() {
    // SAFETY: none: the fault is what is wanted. Rust's own division panics.
    unsafe {
        asm!("div {:e}", in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _, options(nostack));
    }
}

fn invalid() {
    // SAFETY: none: the fault is what is wanted.
    unsafe { asm!("ud2") };
}

fn free_twice() {
    if let Ok(page) = MM.alloc_page(GFP_KERNEL) {
        // SAFETY: the first free is right. The second is reported and changes nothing.
        unsafe {
            MM.__free_page(page);
            MM.__free_page(page);
        }
    }
}

fn hang() {
    cpu::mask();
    loop {
        core::hint::spin_loop();
    }
}
