//! kmem on the metal: a PC.
//!
//! The worked example of a kernel that adopts [`kmem`].
//!
//! | file | what is in it |
//! | --- | --- |
//! | `entry.rs`, `memory.rs` | from the loader to Rust, and what Rust's code calls |
//! | `start_info.rs`, `acpi.rs` | what the loader and the firmware say of the machine |
//! | `direct.rs`, `paging.rs` | where memory is seen |
//! | `interrupt.rs`, `trap.rs`, `apic.rs` | how the processor enters the kernel, and what then |
//! | `cpu.rs`, `smp.rs` | what each CPU has, and how the others are started and called |
//! | `clock.rs`, `lock.rs`, `task.rs` | time, locks, and what may sleep |
//! | `platform.rs` | the contract with the memory manager |
//! | `system.rs`, `serial.rs`, `console.rs`, `log.rs` | the machine as the shell sees it |
//! | `exit.rs` | how a run ends |
#![no_std]
#![no_main]
#![allow(bad_asm_style)]

extern crate alloc;

mod acpi;
mod apic;
mod clock;
mod console;
mod cpu;
mod direct;
mod entry;
mod exit;
mod interrupt;
mod lock;
mod log;
mod memory;
mod paging;
mod platform;
mod port;
mod serial;
mod smp;
mod start_info;
mod system;
mod task;
mod trap;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use acpi::{Acpi, Affinity};
use cases::FreeOnDemand;
use exit::Status;
use kmem::{CpuId, MemoryMap, Mm, NodeId, PhysAddr, Setup};
use kmem_shell::{Failure, Shell};
use platform::Pc;
use serial::Serial;
use start_info::StartInfo;

/// The memory manager.
pub static MM: Mm<Pc, FreeOnDemand> = Mm::with_reclaim(Pc::new(), FreeOnDemand::new());

/// The manager's types.
pub mod mm {
    kmem::kernel_types!(super::MM: kmem::Mm<super::Pc, super::FreeOnDemand>);
}

#[global_allocator]
static ALLOCATOR: kmem::GlobalKmalloc<mm::Memory> = kmem::GlobalKmalloc::new_in(mm::Memory);

static BOOT_CPU: cpu::Cpu = cpu::Cpu::new();
static BOOT_ENTRY: interrupt::Entry = interrupt::Entry::new();

#[unsafe(no_mangle)]
extern "C" fn kernel_main(start_info: u32) -> ! {
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
    clock::begin();
    let acpi = info.acpi_root().map(Acpi::new);
    boot(info, acpi);
    cpu::restore(true);
    let command_line = String::from(info.command_line());
    let controllers: Vec<u32> = acpi.into_iter().flat_map(Acpi::cpus).collect();
    if let Err(error) = smp::start(controllers.into_iter()) {
        panic!("not all CPUs could be started: {error}");
    }
    apic::start_timer(1_000_000);
    if let Err(error) = task::spawn(0, move || run(&command_line)) {
        panic!("there is no memory for the first task: {error}");
    }
    task::idle()
}

/// Boots the manager with what the loader and the firmware say.
fn boot(info: StartInfo, acpi: Option<Acpi>) {
    let node = |domain: u32| NodeId::new(domain).unwrap_or(NodeId::ZERO);
    let mut map = MemoryMap::new();
    let mut limit = 0;
    for region in info.regions().filter(start_info::Region::is_ram) {
        let mut start = region.start;
        while start < region.end {
            let all = start..region.end;
            let (domain, end) = acpi.map_or((0, region.end), |acpi| acpi.node_of(all));
            map = map.ram(start..end, node(domain));
            start = end;
        }
        limit = limit.max(region.end);
    }
    // The first pages have what the loader left, and the code that other CPUs start with.
    map = map.reserved(0..0x10000, "loader").kernel(paging::image(), "kernel");
    MM.platform().set_limit(limit);
    // What devices with 24 and 32 address lines reach.
    let mut setup =
        Setup::new().dma_limit(PhysAddr::new(16 << 20)).dma32_limit(PhysAddr::new(4 << 30));
    let mut cpus = 0;
    for (number, controller) in acpi.into_iter().flat_map(Acpi::cpus).enumerate() {
        let Some(cpu) = CpuId::new(number as u32).filter(|_| number < cpu::CPUS) else { break };
        cpus += 1;
        for affinity in acpi.into_iter().flat_map(Acpi::affinities) {
            if let Affinity::Cpu(other, domain) = affinity
                && other == controller
            {
                setup = setup.cpu_node(cpu, node(domain));
            }
        }
    }
    for (from, to) in (0..8).flat_map(|from| (0..8).map(move |to| (from, to))) {
        if let Some(distance) = acpi.and_then(|acpi| acpi.distance(from, to)) {
            setup = setup.distance(node(from), node(to), distance);
        }
    }
    // SAFETY: the memory is there, and but for what is reserved nobody uses it.
    if let Err(error) = unsafe { MM.boot(&map, &setup.cpus(cpus.max(1))) } {
        panic!("the memory manager does not boot: {error}");
    }
}

/// What the first task does.
fn run(commands: &str) {
    let machine = system::Machine;
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
    let status = match shell.run(commands) {
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

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Serial, "kernel panic: {info}");
    exit::end(Status::Panic)
}
