//! A CPU's part of a counter.

use core::sync::atomic::{AtomicI64, Ordering::Relaxed};

use crate::sync::CpuSection;

/// A CPU's part of a counter: a value for per-CPU variables.
///
/// The CPU adds to it with plain loads and stores, inside a [`CpuSection`]. An interrupt or NMI handler
/// that arrives there must not: the sum that it would add to is out of date when the interrupted code
/// stores its own. It adds to a second number, by one locked instruction, which is right wherever it
/// comes. So nothing is lost, nothing is masked, and the common way has no locked instruction.
///
/// Parts are added with [`counter_add`](crate::Mm::counter_add) or the guard's `add`, and summed with
/// [`counter_sum`](crate::Mm::counter_sum). [`PerCpuCounter`](crate::PerCpuCounter) is all of it as one
/// value.
pub struct CpuCounter {
    section: CpuSection,
    own: AtomicI64,
    aside: AtomicI64,
}

impl CpuCounter {
    /// A part that says 0.
    pub const fn new() -> CpuCounter {
        CpuCounter { section: CpuSection::new(), own: AtomicI64::new(0), aside: AtomicI64::new(0) }
    }

    /// What this CPU has added. Any context and CPU; exact where nobody adds meanwhile.
    #[inline]
    pub fn get(&self) -> i64 {
        self.own.load(Relaxed).wrapping_add(self.aside.load(Relaxed))
    }

    /// Adds, as the CPU whose part it is.
    ///
    /// # Safety
    ///
    /// It is a copy of the CPU that runs this, pinned while the call lasts.
    #[inline]
    pub(crate) unsafe fn add(&self, amount: i64) {
        // SAFETY: as the caller says.
        match unsafe { self.section.enter() } {
            Some(_entered) => {
                self.own.store(self.own.load(Relaxed).wrapping_add(amount), Relaxed);
            }
            None => self.add_aside(amount),
        }
    }

    /// Adds from wherever.
    #[cold]
    pub(crate) fn add_aside(&self, amount: i64) {
        self.aside.fetch_add(amount, Relaxed);
    }
}

impl Default for CpuCounter {
    fn default() -> CpuCounter {
        CpuCounter::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A292: what a handler adds that arrives between the load and the store of an addition.
    #[test]
    fn what_is_added_in_the_midst_of_an_addition_is_not_lost() {
        let counter = CpuCounter::new();
        // SAFETY: this thread is the CPU.
        unsafe { counter.add(3) };
        // As `add` does, up to its store.
        // SAFETY: as above.
        let inside = unsafe { counter.section.enter() };
        let sum = counter.own.load(Relaxed) + 1;
        for amount in [5, -1] {
            // SAFETY: as above, in a handler.
            unsafe { counter.add(amount) };
        }
        counter.own.store(sum, Relaxed);
        drop(inside);
        assert_eq!(counter.get(), 3 + 1 + 5 - 1);
        // SAFETY: as above.
        unsafe { counter.add(10) };
        assert_eq!((counter.get(), counter.own.load(Relaxed)), (18, 14));
    }
}
