//! How a run ends: QEMU's exit device turns what is written to it into an exit status.

use crate::port;

/// Why a run ends. The value `v` makes QEMU exit with `2 v + 1`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Status {
    /// All went well: 33.
    Fine = 16,
    /// A command failed: 35.
    Failed = 17,
    /// The input makes no sense: 37.
    Usage = 18,
    /// Memory is lost: 39.
    Lost = 19,
    /// The kernel panicked: 41.
    Panic = 20,
    /// The processor met a fault: 43.
    Fault = 21,
    /// Memory was freed wrongly, or another call of the manager was wrong: 45.
    WrongFree = 22,
    /// A stack was too small: 47.
    StackOverflow = 23,
    /// A fault could not be delivered: 49.
    DoubleFault = 24,
}

/// Ends the machine.
pub fn end(status: Status) -> ! {
    loop {
        // SAFETY: the exit device ends the machine; where there is none nothing happens.
        unsafe { port::write32(0xf4, status as u32) };
        // SAFETY: waits for an interrupt; none comes.
        unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
