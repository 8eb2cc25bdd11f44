//! kmem on the metal: a PC.
//!
//! The worked example of a kernel that adopts [`kmem`].
//!
//! | file | what is in it |
//! | --- | --- |
//! | `entry.rs`, `trampoline.rs`, `memory.rs` | from the loader to Rust, and what Rust's code calls |
//! | `start_info.rs`, `acpi.rs` | what the loader and the firmware say of the machine |
//! | `options.rs`, `boot.rs`, `heap.rs` | from that to a manager that works, and to the machine's own heap |
//! | `direct.rs`, `paging.rs`, `stack.rs` | where memory is seen |
//! | `interrupt.rs`, `trap.rs`, `probe.rs`, `apic.rs` | how the processor enters the kernel, and what then |
//! | `cpu.rs`, `smp.rs` | what each CPU has, and how the others are started and called |
//! | `clock.rs`, `lock.rs`, `task.rs` | time, locks, and what may sleep |
//! | `platform.rs` | the contract with the memory manager |
//! | `machine.rs`, `serial.rs`, `console.rs`, `log.rs` | the machine as the shell and the cases see it |
//! | `commands/`, `checks/` | what only this machine can do, and what is shown on it |
//! | `crash.rs`, `backtrace.rs`, `place.rs`, `exit.rs` | what is said when something is wrong, and how a run ends |
#![no_std]
#![no_main]
#![allow(bad_asm_style)]

extern crate alloc;

mod acpi;
mod apic;
mod backtrace;
mod boot;
mod checks;
mod clock;
mod commands;
mod console;
mod cpu;
mod crash;
mod direct;
mod entry;
mod exit;
mod heap;
mod interrupt;
mod lock;
mod log;
mod machine;
mod memory;
mod options;
mod paging;
mod place;
mod platform;
mod port;
mod probe;
mod serial;
mod smp;
mod stack;
mod start_info;
mod task;
mod trampoline;
mod trap;

use core::fmt::Write;

use acpi::Acpi;
use boot::Found;
use cases::FreeOnDemand;
use exit::Status;
use kmem::Mm;
use kmem_shell::{Failure, Shell};
use options::Options;
use platform::Pc;
use serial::Serial;
use start_info::StartInfo;

/// The memory manager.
pub static MM: Mm<Pc, FreeOnDemand> = Mm::with_reclaim(Pc::new(), FreeOnDemand::new());

static BOOT_CPU: cpu::Cpu = cpu::Cpu::new();
static BOOT_ENTRY: interrupt::Entry = interrupt::Entry::new();

#[unsafe(no_mangle)]
extern "C" fn kernel_main(start_info: u32) -> ! {
    boot::begin();
    BOOT_CPU.begin(0);
    interrupt::write_gates();
    BOOT_ENTRY.begin();
    let info = StartInfo::new(start_info);
    // SAFETY: once, before other CPUs are started.
    unsafe {
        paging::begin(info.regions());
        apic::map();
    }
    apic::begin();
    boot::step("tables");
    clock::begin();
    boot::step("clock");
    let options = Options::parse(info.command_line());
    let holes = options.as_ref().map_or(&[][..], |options| &options.holes);
    let found = Found::new(info, info.acpi_root().map(Acpi::new), holes);
    // SAFETY: once, and the tables have all RAM.
    unsafe { found.boot() };
    cpu::restore(true);
    if let Err(error) = smp::start(found.controllers()) {
        panic!("not all CPUs could be started: {error}");
    }
    boot::step("CPUs");
    apic::start_timer(apic::TICKS_A_SECOND);
    if let Err(error) = task::spawn(0, move || run(found, options)) {
        panic!("the first task: {error}");
    }
    task::idle()
}

/// What the first task does.
fn run(found: Found, options: Result<Options, alloc::string::String>) {
    boot::step("first task");
    let options = match options {
        Ok(options) => options,
        Err(word) => {
            let _ = writeln!(
                Serial,
                "kmem: '{word}' is no option: there are name, hole, ticks and hz, each with =VALUE, then --"
            );
            exit::end(Status::Usage);
        }
    };
    let commands = options.commands.clone();
    let machine = machine::Machine::new(found, options);
    let mut shell = Shell::new(&machine);
    if commands.is_empty() {
        while !shell.has_ended()
            && let Some(line) = console::read_line("kmem> ")
        {
            if let Err(error) = shell.run(&line) {
                let _ = writeln!(Serial, "kmem: {error}");
            }
        }
        exit::end(Status::Fine);
    }
    let status = match shell.run(&commands) {
        Ok(()) => Status::Fine,
        Err(error) => {
            let _ = writeln!(Serial, "kmem: {error}");
            match error.failure {
                Failure::Usage(_) => Status::Usage,
                _ => Status::Failed,
            }
        }
    };
    exit::end(status)
}
