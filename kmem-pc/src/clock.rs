//! The time: the processor's own counter, measured against the PC's timer chip.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::port;

/// Steps of the timer chip in a second.
const CHIP: u64 = 1_193_182;

/// Steps of the counter in a millisecond.
static PER_MILLISECOND: AtomicU64 = AtomicU64::new(1_000_000);

/// Measures the counter, for ten milliseconds.
pub fn begin() {
    let steps = (CHIP / 100) as u16;
    // SAFETY: the timer chip touches no memory. Its third channel counts down once, gated by the port
    // of the loudspeaker, which is off.
    unsafe {
        let gate = port::read8(0x61) & !2;
        port::write8(0x61, gate & !1);
        port::write8(0x43, 0b1011_0000);
        port::write8(0x42, steps as u8);
        port::write8(0x42, (steps >> 8) as u8);
        port::write8(0x61, gate | 1);
        let start = _rdtsc();
        while port::read8(0x61) & 1 << 5 == 0 {
            core::hint::spin_loop();
        }
        PER_MILLISECOND.store(((_rdtsc() - start) / 10).max(1), Relaxed);
    }
}

/// What the processor's counter says.
pub fn counter() -> u64 {
    // SAFETY: reads.
    unsafe { _rdtsc() }
}

/// So many steps of the counter in nanoseconds.
pub fn in_nanoseconds(steps: u64) -> u64 {
    (u128::from(steps) * 1_000_000 / u128::from(PER_MILLISECOND.load(Relaxed))) as u64
}

/// Nanoseconds since the machine was switched on.
pub fn nanoseconds() -> u64 {
    in_nanoseconds(counter())
}
