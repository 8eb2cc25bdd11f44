//! NMIs, which arrive at any instruction, while all CPUs allocate and free.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cases::{Failure, at_least};
use kmem::{GFP_ATOMIC, GFP_KERNEL};

use super::note;
use super::ring::{self, Place};
use crate::cpu::INTERRUPTS;
use crate::machine::Machine;
use crate::smp;
use crate::trap::ON_NMI;

/// How many NMIs arrive.
const NMIS: u64 = 50_000;

/// How many of them are to find interrupts masked: the code that they interrupt may hold a lock then.
const MASKED: u64 = 200;

/// How many have, and how many of them found interrupts masked.
static HANDLED: AtomicU64 = AtomicU64::new(0);
static FOUND_MASKED: AtomicU64 = AtomicU64::new(0);

/// An NMI has arrived at this CPU.
fn arrived(flags: u64) {
    // SAFETY: an NMI handler is not interrupted, and the check waits for the last.
    unsafe { ring::turn(Place::Nmi, GFP_ATOMIC) };
    HANDLED.fetch_add(1, Relaxed);
    if flags & INTERRUPTS == 0 {
        FOUND_MASKED.fetch_add(1, Relaxed);
    }
}

pub(super) fn under_load(_: &Machine) -> Result<(), Failure> {
    HANDLED.store(0, Relaxed);
    FOUND_MASKED.store(0, Relaxed);
    // SAFETY: nobody is at a ring before this and after it.
    let done = unsafe {
        ring::begin()?;
        ON_NMI.set(arrived);
        let loaded = ring::load(|| {
            let mut pause = 0;
            while HANDLED.load(Relaxed) < NMIS {
                smp::online().for_each(smp::send_nmi);
                ring::turn(Place::Task, GFP_KERNEL);
                // Not always at the same distance from the last one: a prime number of pauses.
                pause = (pause + 1) % 127;
                (0..pause).for_each(|_| core::hint::spin_loop());
            }
        });
        ON_NMI.clear();
        // Whoever has answered is in no NMI handler that began before.
        for cpu in smp::online() {
            let _ = smp::call_on(cpu, &|| {});
        }
        loaded?;
        ring::end()?
    };
    let handled = HANDLED.load(Relaxed);
    at_least(handled, NMIS, "so many NMIs were handled")?;
    let masked = FOUND_MASKED.load(Relaxed);
    at_least(masked, MASKED, "so many of them interrupted masked code")?;
    note(format_args!(
        "{handled} NMIs, {masked} of masked code, among {} turns, {} refused",
        done.turns, done.refused
    ));
    Ok(())
}
