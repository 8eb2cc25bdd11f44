//! What is done about interrupts and exceptions.

use crate::apic;
use crate::checks::{nmis, steps};
use crate::cpu::Cpu;
use crate::crash;
use crate::interrupt::{FIRST, Frame};
use crate::probe;

/// A single step.
const STEP: u8 = 1;
const NMI: u8 = 2;
const PAGE_FAULT: u8 = 14;

/// Handles an interrupt or an exception.
pub fn handle(frame: &mut Frame) {
    let cpu = Cpu::current();
    match frame.vector as u8 {
        STEP => steps::stepped(frame),
        NMI if crash::is_reported() => crash::halt(),
        NMI => cpu.interrupted_by_nmi(nmis::arrived),
        PAGE_FAULT if probe::resume(frame) => {}
        vector if vector >= FIRST => cpu.interrupted(|| apic::interrupt(vector)),
        _ => crash::fault(frame),
    }
}
