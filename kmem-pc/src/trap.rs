//! What is done about interrupts and exceptions.

use crate::apic;
use crate::cpu::Cpu;
use crate::crash;
use crate::hook::Hook;
use crate::interrupt::{FIRST, Frame};
use crate::probe;

/// A single step.
const STEP: u8 = 1;
const NMI: u8 = 2;
const PAGE_FAULT: u8 = 14;

/// What is called after each instruction that is executed with the trap flag set; it is told the flags.
pub static ON_STEP: Hook<u64> = Hook::new();

/// What is called in an NMI's handler; it is told the flags of what it interrupts.
pub static ON_NMI: Hook<u64> = Hook::new();

/// Handles an interrupt or an exception.
pub fn handle(frame: &mut Frame) {
    let cpu = Cpu::current();
    match frame.vector as u8 {
        STEP if ON_STEP.call(frame.flags) => {}
        NMI => {
            crash::halt_if_reported();
            cpu.interrupted_by_nmi(|| ON_NMI.call(frame.flags));
        }
        PAGE_FAULT if probe::resume(frame) => {}
        vector if vector >= FIRST => cpu.interrupted(|| apic::interrupt(vector)),
        _ => crash::fault(frame),
    }
}
