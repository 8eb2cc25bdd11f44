//! What is done about interrupts and exceptions.

use core::arch::asm;
use core::fmt::Write;

use crate::apic;
use crate::cpu::Cpu;
use crate::exit::{self, Status};
use crate::interrupt::{FIRST, Frame};
use crate::serial::Serial;

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

/// Handles an interrupt or an exception.
pub fn handle(frame: &mut Frame) {
    let cpu = Cpu::current();
    match frame.vector as u8 {
        2 => cpu.interrupted_by_nmi(|| {}),
        vector if vector >= FIRST => cpu.interrupted(|| apic::interrupt(vector)),
        _ => fault(frame),
    }
}

fn fault(frame: &Frame) -> ! {
    let address: u64;
    // SAFETY: reads.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    let name = NAMES.get(frame.vector as usize).unwrap_or(&"unknown exception");
    let _ = writeln!(
        Serial,
        "fault: {name} at {:#x}, address {address:#x}, error {:#x}, {:?}",
        frame.rip,
        frame.error,
        Cpu::id(),
    );
    exit::end(Status::Fault)
}
