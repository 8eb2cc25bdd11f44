//! What is said when something is wrong, and how the machine ends then.
//!
//! A report says what happened, the calls that led there, which CPU was doing what, and what the memory
//! is that it is about. It may be written in any state of the kernel: it allocates nothing, waits for no
//! lock, and reads what it does not trust with [`probe`]. The serial line is polled, and the other CPUs
//! are halted so that none writes in between.

use core::arch::asm;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use kmem::platform::{Misuse, Passed, There};
use kmem::{MAX_CPUS, Pfn, Touch, VirtAddr};

use crate::cpu::{self, Cpu, INTERRUPTS};
use crate::exit::{self, Status};
use crate::heap::HEAP;
use crate::interrupt::{self, Frame, REGISTERS};
use crate::place::Place;
use crate::platform::Pc;
use crate::serial::Serial;
use crate::{MM, backtrace, clock, direct, paging, probe, smp, stack, task};

/// The names of the processor's exceptions.
const NAMES: [&str; 22] = [
    "division by zero",
    "single step",
    "NMI",
    "breakpoint",
    "overflow",
    "out of bounds",
    "invalid instruction",
    "no coprocessor",
    "double fault",
    "coprocessor overrun",
    "invalid task state",
    "segment not present",
    "stack fault",
    "general protection fault",
    "page fault",
    "reserved",
    "floating-point error",
    "misaligned access",
    "machine check",
    "SIMD floating-point error",
    "virtualisation exception",
    "control protection exception",
];

const DOUBLE_FAULT: u64 = 8;
const PAGE_FAULT: u64 = 14;

/// Deals with a fault of the kernel's. One that a task met at a page which is there to be met, below its
/// stack or behind an area, is reported and ends the task; the CPU goes on. All others end the machine.
pub fn fault(frame: &mut Frame) {
    let address = fault_address();
    if frame.vector != PAGE_FAULT || !is_touch_of_guard(address) {
        end_by_fault(frame, address);
    }
    // Code that holds a lock has interrupts masked, code in a section of its CPU's is pinned, and a manager
    // says what must be finished. Such code cannot be left where it is.
    let is_free = frame.flags & INTERRUPTS != 0
        && !Cpu::current().is_pinned()
        && !MM.is_inside()
        && !HEAP.is_inside();
    if !is_free || REPORTER.load(Ordering::Acquire) != NOBODY {
        end_by_fault(frame, address);
    }
    let Some(go_on) = task::way_out() else { end_by_fault(frame, address) };
    let address = VirtAddr::new(address);
    if MM.report_touch(address).or_else(|| HEAP.report_touch(address)).is_none() {
        // Somebody has changed the areas in the meantime.
        end_by_fault(frame, address.get());
    }
    go_on.enter(frame);
}

/// Whether an address is one that nothing is mapped at so that whoever strays there is found out.
fn is_touch_of_guard(address: usize) -> bool {
    stack::touched(address).is_some_and(|touch| !matches!(touch, Touch::Used(..)))
}

/// Reports a fault that ends the machine.
fn end_by_fault(frame: &Frame, address: usize) -> ! {
    let is_overflow = stack::is_below_one(address);
    let status = match (frame.vector, is_overflow) {
        (PAGE_FAULT, true) => Status::StackOverflow,
        (DOUBLE_FAULT, _) => Status::DoubleFault,
        _ => Status::Fault,
    };
    let report = Report::begin(status, format_args!("a fault at {:#x}", frame.rip));
    let _ = match (frame.vector, is_overflow) {
        (PAGE_FAULT, true) => {
            writeln!(Serial, "stack overflow: the stack is used up, and its code cannot be ended")
        }
        (PAGE_FAULT, false) => writeln!(Serial, "fault: page fault: {}", Access { frame, address }),
        (DOUBLE_FAULT, _) => writeln!(
            Serial,
            "double fault: a fault could not be delivered; the latest page fault was at {address:#x}"
        ),
        (vector, _) => {
            let name = NAMES.get(vector as usize).unwrap_or(&"unknown exception");
            writeln!(Serial, "fault: {name}, error code {:#x}", frame.error)
        }
    };
    say_at(frame.rip as usize);
    if paging::part_of_image(frame.rip as usize) != Some(paging::CODE_PART) {
        // A call that went astray: its function did nothing yet, and where it returns to is on top.
        let back = probe::read(frame.rsp as usize).and_then(|back| back.checked_sub(1));
        back.into_iter().for_each(|back| say_at(back as usize));
    }
    say_calls(frame.frame_pointer());
    say_cpu(frame.flags & INTERRUPTS != 0, frame.rsp as usize);
    if matches!(frame.vector, PAGE_FAULT | DOUBLE_FAULT) {
        say_place("the address", address);
    }
    say_registers(frame);
    report.end()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let (were, own) = (cpu::are_unmasked(), backtrace::here());
    let place = info.location().map_or(("", 0), |place| (place.file(), place.line()));
    let report = Report::begin(Status::Panic, format_args!("a panic at {}:{}", place.0, place.1));
    let _ = writeln!(Serial, "kernel panic: {}, at {}:{}", info.message(), place.0, place.1);
    say_calls(own);
    say_cpu(were, own);
    report.end()
}

/// Reports a wrong free, or another wrong call of a manager, that nobody made on purpose.
pub fn wrong_free(platform: &Pc, misuse: &Misuse<'_>) -> ! {
    let (were, own) = (cpu::are_unmasked(), backtrace::here());
    let what = format_args!("a wrong free at {}", misuse.site);
    let report = Report::begin(Status::WrongFree, what);
    let _ = writeln!(Serial, "wrong call of the manager: {misuse}");
    say_calls(own);
    say_cpu(were, own);
    let address_of = |pfn: Pfn| direct::BASE + pfn.start(12).get() as usize;
    match misuse.passed {
        Passed::Page(pfn, _) => say_place("what was passed", address_of(pfn)),
        Passed::Address(address, _) | Passed::Object(address) => {
            say_place("what was passed", address.get());
        }
        Passed::Bytes(start, _) => {
            say_place("what was passed", direct::BASE.wrapping_add(start.get() as usize));
        }
        Passed::Dma { address, .. } => {
            say_place("what was passed", direct::BASE + address as usize);
        }
        Passed::Flags(_)
        | Passed::Cache(_)
        | Passed::Size(_)
        | Passed::Mapping(..)
        | Passed::Cpu(_) => {}
    }
    if let There::Object { cache, .. } = misuse.there {
        let is_heaps = core::ptr::eq(platform, HEAP.platform());
        let name = if is_heaps { HEAP.cache_name(cache) } else { MM.cache_name(cache) };
        if let Some(name) = name {
            let _ = writeln!(Serial, "cache {cache}: {}", name.as_str());
        }
    }
    report.end()
}

/// The address that the latest page fault was about.
fn fault_address() -> usize {
    let address;
    // SAFETY: reads.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

/// What a page fault was about, as the processor's error code has it.
struct Access<'f> {
    frame: &'f Frame,
    address: usize,
}

impl fmt::Display for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |bit: u32| self.frame.error & 1 << bit != 0;
        let (is_mapped, is_write, is_broken, is_fetch) = (has(0), has(1), has(3), has(4));
        let (access, refused) = match (is_fetch, is_write) {
            (true, _) => ("a jump to", "which is no code"),
            (_, true) => ("a write to", "which is read-only"),
            _ => ("a read of", "which is mapped"),
        };
        let why = match (is_mapped, is_broken) {
            (false, _) => "where nothing is mapped",
            (_, true) => "whose page table entry is broken",
            _ => refused,
        };
        write!(f, "{access} {:#x}, {why}", self.address)
    }
}

/// The CPU that reports; the others wait for the end.
static REPORTER: AtomicU32 = AtomicU32::new(NOBODY);
const NOBODY: u32 = MAX_CPUS as u32;

/// The CPUs that wait for the end, a bit each.
static HALTED: AtomicU32 = AtomicU32::new(0);

/// How long the other CPUs may take to halt, in nanoseconds: an NMI finds each between two instructions.
const PATIENCE: u64 = 100_000_000;

/// Halts where another CPU reports a crash: an NMI asks for that. The one that reports goes on, whatever
/// NMIs may still be under way to it.
pub fn halt_if_reported() {
    let reporter = REPORTER.load(Ordering::Acquire);
    if reporter != NOBODY && reporter != Cpu::id().get() {
        halt();
    }
}

/// Waits for the end that another CPU's report has.
pub fn halt() -> ! {
    HALTED.fetch_or(1 << Cpu::id().get(), Ordering::Release);
    loop {
        cpu::halt_masked();
    }
}

/// That this CPU reports, and alone.
struct Report(Status);

impl Report {
    /// Begins the only report there is: a CPU that comes too late waits for the end, and one that meets
    /// another crash in its report gives up.
    fn begin(status: Status, what: fmt::Arguments<'_>) -> Report {
        cpu::mask();
        let own = Cpu::id().get();
        // AcqRel: the first one's report is all that is written.
        match REPORTER.compare_exchange(NOBODY, own, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {}
            Err(reporter) if reporter != own => halt(),
            Err(_) => {
                let _ = writeln!(Serial, "\nand in this report: {what}");
                exit::end(status);
            }
        }
        interrupt::set_page_faults_apart();
        let others = || smp::online().filter(|cpu| cpu.get() != own);
        others().for_each(smp::send_nmi);
        let halted = || HALTED.load(Ordering::Acquire).count_ones() as usize;
        // Where there are others there is a clock.
        let mut until = None;
        while halted() < others().count() {
            let now = clock::nanoseconds();
            if now > *until.get_or_insert(now + PATIENCE) {
                break;
            }
        }
        // Somebody may have been in the middle of a line.
        let _ = writeln!(Serial);
        Report(status)
    }

    fn end(self) -> ! {
        exit::end(self.0)
    }
}

/// Writes which CPU it is and what it was doing: whether it let interrupts in, and an address in its
/// stack.
fn say_cpu(unmasked: bool, at: usize) {
    let cpu = Cpu::current();
    let doing = if cpu.in_nmi() {
        "an NMI handler"
    } else if cpu.in_interrupt() {
        "an interrupt handler"
    } else if task::current().is_some() {
        "a task"
    } else {
        "no task (boot, or the idle loop)"
    };
    let interrupts = if unmasked { "let in" } else { "masked" };
    let _ = write!(Serial, "CPU {}: {doing}", Cpu::id().get());
    if let Some(stack) = stack::holding(at) {
        let _ = write!(Serial, " on the stack at {}", stack.start);
    }
    let _ = writeln!(Serial, ", interrupts {interrupts}");
}

/// Writes a line for an address in code. `cargo xtask pc` adds function, file and line.
fn say_at(address: usize) {
    let _ = writeln!(Serial, "  at {address:#x}");
}

/// Writes the calls that led to the function with a frame.
fn say_calls(frame: usize) {
    for call in backtrace::calls(frame) {
        say_at(call.address);
        if call.times > 1 {
            let _ = writeln!(Serial, "  the same, {} times in all", call.times);
        }
    }
}

fn say_place(what: &str, address: usize) {
    let _ = writeln!(Serial, "{what} {address:#x} is {}", Place(address));
}

fn say_registers(frame: &Frame) {
    let names = REGISTERS.iter().zip(frame.registers).rev();
    let more = [("rsp", frame.rsp), ("rip", frame.rip), ("flags", frame.flags)];
    let all = names.map(|(name, value)| (*name, value)).chain(more);
    for (index, (name, value)) in all.enumerate() {
        let end = if index % 3 == 2 { "\n" } else { "  " };
        let _ = write!(Serial, "{name:>5} {value:#018x}{end}");
    }
}
