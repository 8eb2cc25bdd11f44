//! Slabs that go: when nobody can have an object of theirs any more.
//!
//! A slab goes when it has all of its objects. That is not enough: of two CPUs that free one object at
//! one moment the slower may not have written to the object's byte yet, or has an entry in its
//! magazine that is not good. Were the slab's pages somebody else's by then, that CPU would write to
//! memory that is not an object's, and take what it reads there for one.
//!
//! ```text
//!   who shrinks                            a CPU with magazines of the cache
//!
//!   marks the slab as leaving                enters its section
//!   announces a departure: n                 looks at the mark; at the byte; writes it; puts the
//!   asks the CPUs to drain                   entry into its magazine, leaves the section
//!     .                                        .
//!     .                                      enters its section, reads how many departures there are
//!     .                                      drains: what is of a slab that leaves goes back to it
//!   all have acknowledged n:      <───────   acknowledges that many, leaves the section
//!   looks at all bytes; frees the pages
//! ```
//!
//! A free that began before the CPU drained is over, and its entry is drained; one that begins later
//! sees the mark, and goes by the node's lock, under which a slab goes or does not. So does one of a
//! CPU that has no magazines of the cache. An NMI handler that finds the lock taken says that it is at
//! an object, and is waited for: it waits for nobody.
//!
//! Where one may wait and CPUs can be called, all acknowledge before a shrink returns. Otherwise each
//! does when it comes to the cache by itself, and the last one frees the pages. Until then a slab that
//! leaves serves requests that would need a new one.
//!
//! No CPU writes more for this on the common way than without: nothing. Asking another CPU whether it
//! is in its section would want a barrier there, between the entry and the look.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// How often slabs of a cache were marked as leaving.
pub(crate) struct Departures(AtomicU64);

impl Departures {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Departures {
        Departures(AtomicU64::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Departures {
        Departures(AtomicU64::new(0))
    }

    /// Announces that slabs were marked; answers which departure it is.
    pub(crate) fn announce(&self) -> u64 {
        // Release pairs with the Acquire in `announced`: who knows of the departure sees the marks.
        self.0.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// How many there were: the marks of all of them are seen.
    pub(crate) fn announced(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The departures after which a CPU has drained its magazines.
pub(crate) struct Acknowledged(AtomicU64);

impl Acknowledged {
    /// For magazines that were not there before so many departures.
    #[cfg(not(loom))]
    pub(crate) const fn new(departures: u64) -> Acknowledged {
        Acknowledged(AtomicU64::new(departures))
    }

    #[cfg(loom)]
    pub(crate) fn new(departures: u64) -> Acknowledged {
        Acknowledged(AtomicU64::new(departures))
    }

    /// Says that the magazines were drained after so many were announced.
    pub(crate) fn set(&self, departures: u64) {
        // Release pairs with the Acquire in `get`: what the CPU did to objects is over.
        self.0.store(departures, Ordering::Release);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// NMI handlers that are at an object while somebody else has the lock under which slabs go.
pub(crate) struct Visitors(AtomicU32);

impl Visitors {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Visitors {
        Visitors(AtomicU32::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Visitors {
        Visitors(AtomicU32::new(0))
    }

    /// Looks at a slab and, if it is still one, does something to an object of it. What must not wait
    /// for a lock.
    pub(crate) fn visit<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.fetch_add(1, Ordering::Relaxed);
        // With the one in `wait`: either `work` sees that the slab is none any more, or that one waits.
        fence(Ordering::SeqCst);
        let done = work();
        // Release pairs with the Acquire in `wait`.
        self.0.fetch_sub(1, Ordering::Release);
        done
    }

    /// Waits until nobody is left who has found a slab before it was said to be none.
    pub(crate) fn wait(&self, relax: impl Fn()) {
        fence(Ordering::SeqCst);
        while self.0.load(Ordering::Acquire) > 0 {
            relax();
        }
    }
}
