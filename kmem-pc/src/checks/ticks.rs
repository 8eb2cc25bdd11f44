//! The timers' interrupts, on all CPUs, while all CPUs allocate and free.

use alloc::boxed::Box;

use cases::{Failure, at_least, check};
use kmem::{GFP_ATOMIC, GFP_KERNEL};
use kmem_shell::Interrupts;

use super::note;
use super::ring::{self, Place};
use crate::machine::{Machine, Ticks};
use crate::smp;

pub(super) fn under_load(machine: &Machine) -> Result<(), Failure> {
    let (wanted, hz) = machine.ticks();
    // SAFETY: nobody is at a ring before this and after it, and the handlers are gone then.
    let (done, handled) = unsafe {
        ring::begin()?;
        let handler = Box::new(|_| ring::turn(Place::Timer, GFP_ATOMIC));
        let ticks = Ticks::new(hz, handler);
        let ticks = ticks.ok_or(Failure::new("nobody else has the timers"))?;
        ring::load(|| {
            while ticks.handled() < wanted {
                ring::turn(Place::Task, GFP_KERNEL);
            }
        })?;
        let handled = ticks.handled();
        drop(ticks);
        (ring::end()?, handled)
    };
    at_least(handled, wanted, "so many ticks were handled")?;
    check(done.refused < done.turns / 100, "memory was there for nearly all")?;
    note(format_args!(
        "{handled} ticks on {} CPUs among {} turns, {} refused",
        smp::online().count(),
        done.turns,
        done.refused
    ));
    Ok(())
}
