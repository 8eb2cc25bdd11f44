//! The stacks that a CPU has: those that it keeps at hand, and that of its interrupt handlers.

use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// How many stacks a CPU keeps: a task that starts while another ends is the usual case, and one more.
pub(crate) const AT_HAND: usize = 2;

/// The stacks of a CPU, by their lowest addresses; null is none.
///
/// # Invariants
///
/// A kept stack is in one place at most, and whoever exchanges it for null has it.
pub(crate) struct CpuStacks {
    kept: [AtomicPtr<u8>; AT_HAND],
    interrupt: AtomicPtr<u8>,
    /// How many calls are at something on this CPU that must be finished.
    unfinished: AtomicU32,
}

impl CpuStacks {
    /// None.
    pub(crate) const fn new() -> CpuStacks {
        CpuStacks {
            kept: [const { AtomicPtr::new(ptr::null_mut()) }; AT_HAND],
            interrupt: AtomicPtr::new(ptr::null_mut()),
            unfinished: AtomicU32::new(0),
        }
    }

    /// Counts the calls that are at something on this CPU that must be finished. Relaxed, here and below:
    /// who asks has interrupted the code that counts, on the same CPU.
    pub(crate) fn begin(&self) {
        self.unfinished.fetch_add(1, Ordering::Relaxed);
    }

    /// One of them is done.
    pub(crate) fn finish(&self) {
        self.unfinished.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there is one.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed) != 0
    }

    /// Puts a stack by. It comes back where all places are taken. Any context.
    pub(crate) fn put(&self, stack: NonNull<u8>) -> Result<(), NonNull<u8>> {
        // The look before saves the exchange where it would be in vain.
        let is_put = |place: &&AtomicPtr<u8>| {
            place.load(Ordering::Relaxed).is_null() && place_in(place, stack).is_ok()
        };
        self.kept.iter().find(is_put).map(|_| ()).ok_or(stack)
    }

    /// Takes a stack that is kept. Any CPU, any context.
    pub(crate) fn take(&self) -> Option<NonNull<u8>> {
        self.kept.iter().find_map(|place| {
            if place.load(Ordering::Relaxed).is_null() { None } else { take_from(place) }
        })
    }

    /// How many are kept.
    pub(crate) fn count(&self) -> usize {
        let is_taken = |place: &&AtomicPtr<u8>| !place.load(Ordering::Relaxed).is_null();
        self.kept.iter().filter(is_taken).count()
    }

    /// The stack of the CPU's interrupt handlers.
    pub(crate) fn interrupt(&self) -> Option<NonNull<u8>> {
        // Acquire pairs with the Release in `place_in`: the stack has been prepared.
        NonNull::new(self.interrupt.load(Ordering::Acquire))
    }

    /// Makes a stack that of the interrupt handlers, unless there is one: that is the error.
    pub(crate) fn set_interrupt(&self, stack: NonNull<u8>) -> Result<(), NonNull<u8>> {
        place_in(&self.interrupt, stack)
    }

    /// Takes the stack of the interrupt handlers away.
    pub(crate) fn take_interrupt(&self) -> Option<NonNull<u8>> {
        take_from(&self.interrupt)
    }
}

/// Puts a stack where none is; otherwise answers which.
fn place_in(place: &AtomicPtr<u8>, stack: NonNull<u8>) -> Result<(), NonNull<u8>> {
    let (none, new) = (ptr::null_mut(), stack.as_ptr());
    // Release pairs with the Acquire of whoever takes or reads it: what was written to the stack is seen.
    match place.compare_exchange(none, new, Ordering::Release, Ordering::Acquire) {
        Ok(_) => Ok(()),
        // It was not null.
        Err(there) => Err(NonNull::new(there).unwrap_or(stack)),
    }
}

fn take_from(place: &AtomicPtr<u8>) -> Option<NonNull<u8>> {
    // Acquire pairs with the Release in `place_in`.
    NonNull::new(place.swap(ptr::null_mut(), Ordering::Acquire))
}
