//! kmem on the metal: a PC.
//!
//! The worked example of a kernel that adopts [`kmem`].
//!
//! | file | what is in it |
//! | --- | --- |
//! | `entry.rs`, `trampoline.rs`, `memory.rs` | from the loader to Rust, and what Rust's code calls |
//! | `start_info.rs`, `acpi.rs` | what the loader and the firmware say of the machine |
//! | `options.rs`, `boot.rs`, `heap.rs` | from that to a manager that works, and to the machine's own heap |
//! | `direct.rs`, `paging.rs`, `temporary.rs`, `stack.rs`, `user.rs` | where memory is seen |
//! | `pci.rs` | the device that uses memory by itself |
//! | `interrupt.rs`, `trap.rs`, `hook.rs`, `probe.rs`, `apic.rs`, `port.rs` | how the processor enters the kernel, and what then |
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
mod hook;
mod interrupt;
mod keys;
mod lock;
mod log;
mod machine;
mod memory;
mod options;
mod paging;
mod pci;
mod place;
mod platform;
mod port;
mod probe;
mod serial;
mod smp;
mod stack;
mod start_info;
mod task;
mod temporary;
mod trampoline;
mod trap;
mod user;

use core::fmt::Write;

use acpi::Acpi;
use boot::Found;
use cases::FreeOnDemand;
use console::Console;
use exit::Status;
use kmem::{CpuId, Mm};
use kmem_shell::{Count, Failure, Shell};
use machine::Machine;
use options::Options;
use platform::Pc;
use serial::Serial;
use stack::{Handlers, Stack};
use start_info::StartInfo;

/// The memory manager.
pub static MM: Mm<Pc, FreeOnDemand> =
    Mm::with_reclaim(Pc::new(paging::MAPPINGS).with_slots(), FreeOnDemand::new());

static BOOT_CPU: cpu::Cpu = cpu::Cpu::new();
static BOOT_ENTRY: interrupt::Entry = interrupt::Entry::new();

#[unsafe(no_mangle)]
extern "C" fn kernel_main(start_info: u32) -> ! {
    boot::begin();
    BOOT_CPU.begin(0);
    interrupt::write_gates();
    // SAFETY: they are this CPU's, which has not let interrupts in.
    unsafe { BOOT_ENTRY.use_stacks(interrupt::early_tops()) };
    BOOT_ENTRY.begin();
    let info = StartInfo::new(start_info);
    // The loader left it in the first GiB, which the first tables have.
    let options = match info.command_line().ok_or("it is too long").map(Options::parse) {
        Ok(Ok(options)) => options,
        Ok(Err(word)) => refuse(format_args!("the option '{word}' is not understood")),
        Err(why) => refuse(format_args!("the command line cannot be read: {why}")),
    };
    // SAFETY: once, before other CPUs are started.
    unsafe {
        paging::begin(info.regions(), options.highmem.unwrap_or(u64::MAX));
        apic::map();
    }
    apic::begin();
    boot::step("tables");
    clock::begin();
    boot::step("clock");
    let found = match Found::new(info, info.acpi_root().map(Acpi::new), &options) {
        Ok(found) => found,
        Err(why) => refuse(format_args!("{why}")),
    };
    // SAFETY: once, and the tables have all RAM.
    unsafe { found.boot() };
    cpu::restore(true);
    let idle = guard_stacks();
    if let Err(error) = smp::start(found.controllers()) {
        panic!("not all CPUs could be started: {error}");
    }
    boot::step("CPUs");
    note_free_pages();
    apic::start_timer(apic::TICKS_A_SECOND);
    if let Err(error) = task::spawn(0, move || run(found, options)) {
        panic!("the first task: {error}");
    }
    task::idle_on(idle)
}

/// Ends a run whose description makes no sense.
fn refuse(why: core::fmt::Arguments<'_>) -> ! {
    let _ = writeln!(Serial, "kmem: {why}");
    exit::end(Status::Usage)
}

/// Gives the boot CPU's handlers stacks that have nothing below them; answers one for its idle loop.
fn guard_stacks() -> Stack {
    let stacks =
        Handlers::new(CpuId::BOOT).and_then(|handlers| Ok((handlers, stack::of_task(0, "idle")?)));
    let (handlers, idle) = match stacks {
        Ok(stacks) => stacks,
        Err(error) => panic!("the boot CPU's stacks: {error}"),
    };
    let were = cpu::mask();
    // SAFETY: they are this CPU's, which runs no handler, and they stay.
    unsafe { BOOT_ENTRY.use_stacks(handlers.tops()) };
    cpu::restore(were);
    core::mem::forget(handlers);
    idle
}

/// What the first task does.
fn run(found: Found, options: Options) {
    boot::step("first task");
    let Options { commands, sent, .. } = options.clone();
    let machine = Machine::new(found, options);
    let mut shell = Shell::new(&machine);
    let done =
        if commands.is_empty() { prompt(&mut shell, &machine, sent) } else { shell.run(&commands) };
    let finished = shell.finish();
    let ended = done.and(finished);
    if let Err(error) = &ended {
        say(error);
    }
    if let Err(lost) = lost() {
        let _ = writeln!(Serial, "kmem: {lost}");
        exit::end(Status::Lost);
    }
    exit::end(match ended.map_err(|error| error.failure) {
        Ok(()) => Status::Fine,
        Err(Failure::Usage(_)) => Status::Usage,
        Err(Failure::Failed(_)) => Status::Failed,
    })
}

/// Runs lines as they come. Where nobody types them, one that fails ends the run.
fn prompt(
    shell: &mut Shell<'_, Machine>,
    machine: &Machine,
    sent: bool,
) -> Result<(), kmem_shell::Error> {
    let mut console = Console::new("kmem> ", !sent);
    if !sent {
        let _ = writeln!(Serial, "{machine}; `help` lists the commands, `exit` or Ctrl-D ends");
    }
    while !shell.has_ended()
        && let Some(line) = console.read_line()
    {
        // Where lines are sent, a byte more is of the next one.
        let result = if sent { shell.run(&line) } else { keys::interruptible(|| shell.run(&line)) };
        match result {
            Err(error) if sent => return Err(error),
            Err(error) => say(&error),
            Ok(()) => {}
        }
    }
    Ok(())
}

fn say(error: &kmem_shell::Error) {
    let _ = writeln!(Serial, "kmem: {error}");
}

/// Has the manager give back what CPUs and caches keep at hand.
fn give_back(cpus: impl Iterator<Item = CpuId>) {
    MM.drain_stacks();
    MM.vm_unmap_aliases();
    for cpu in cpus {
        // SAFETY: the others have no task, and no handler allocates.
        let _ = unsafe { MM.cpu_offline(cpu) };
    }
    while MM.shrink_caches() > 0 {}
}

/// Notes how many pages are free: the machine has booted, and has what it keeps. The other CPUs have had
/// nothing of the manager's yet.
fn note_free_pages() {
    give_back([CpuId::BOOT].into_iter());
    boot::note_free_pages();
    if let Err(error) = MM.cpu_online(CpuId::BOOT) {
        panic!("the boot CPU gets no lists: {error}");
    }
}

/// Whether all memory is free again that was free when the machine had booted, once CPUs and caches keep
/// nothing.
fn lost() -> Result<(), alloc::string::String> {
    give_back(smp::online());
    let (before, now) = (boot::free_pages(), MM.free_page_count());
    if let Err(corruption) = MM.verify() {
        return Err(alloc::format!("memory is corrupted: {corruption}"));
    }
    match before.checked_sub(now) {
        None | Some(0) => Ok(()),
        Some(lost) => {
            let pages = Count(lost, "page");
            Err(alloc::format!("of {before} pages that were free at boot, {pages} are lost"))
        }
    }
}
