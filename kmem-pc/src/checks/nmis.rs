//! NMIs, which arrive at any instruction, while all CPUs allocate and free.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use cases::{Failure, at_least};
use kmem::{GFP_ATOMIC, GFP_KERNEL};

use super::note;
use super::ring::{self, Place};
use crate::machine::Machine;
use crate::smp;

/// How many NMIs arrive.
const NMIS: u64 = 50_000;

/// Whether NMI handlers allocate and free.
static ACTIVE: AtomicBool = AtomicBool::new(false);

/// How many have.
static HANDLED: AtomicU64 = AtomicU64::new(0);

/// An NMI has arrived at this CPU.
pub fn arrived() {
    if ACTIVE.load(Relaxed) {
        // SAFETY: an NMI handler is not interrupted, and the check waits for the last.
        unsafe { ring::turn(Place::Nmi, GFP_ATOMIC) };
        HANDLED.fetch_add(1, Relaxed);
    }
}

pub(super) fn under_load(_: &Machine) -> Result<(), Failure> {
    HANDLED.store(0, Relaxed);
    // SAFETY: nobody is at a ring before this and after it.
    let done = unsafe {
        ring::begin()?;
        ACTIVE.store(true, Relaxed);
        let loaded = ring::load(|| {
            while HANDLED.load(Relaxed) < NMIS {
                smp::online().for_each(smp::send_nmi);
                ring::turn(Place::Task, GFP_KERNEL);
            }
        });
        ACTIVE.store(false, Relaxed);
        // Whoever has answered is in no NMI handler that began before.
        for cpu in smp::online() {
            let _ = smp::call_on(cpu, &|| {});
        }
        loaded?;
        ring::end()?
    };
    let handled = HANDLED.load(Relaxed);
    at_least(handled, NMIS, "so many NMIs were handled")?;
    note(format_args!("{handled} NMIs among {} turns, {} refused", done.turns, done.refused));
    Ok(())
}
