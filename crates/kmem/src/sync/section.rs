//! Entry to data of one CPU, without a lock.

use core::marker::PhantomData;
use core::sync::atomic::compiler_fence;

use super::atomic::{AtomicBool, Ordering};

/// Guards data that only one CPU touches, against interrupts on that CPU.
///
/// The CPU says when it is inside with a plain store. An interrupt handler that arrives inside sees
/// the flag and stays out; one that arrives between the test and the store enters and leaves before
/// the interrupted code goes on, so the test is still true. No atomic read-modify-write is needed,
/// because the flag is written by one CPU only.
///
/// Another CPU can ask for something with [`CpuSection::request`]; the CPU notices at its next
/// entry.
///
/// # Invariants
///
/// `inside` is written only by the CPU that the data belongs to, pinned. At most one [`Entered`]
/// lives.
pub struct CpuSection {
    inside: AtomicBool,
    requested: AtomicBool,
}

impl CpuSection {
    /// A section that nobody is inside.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        CpuSection { inside: AtomicBool::new(false), requested: AtomicBool::new(false) }
    }

    /// A section that nobody is inside.
    #[cfg(loom)]
    pub fn new() -> Self {
        CpuSection { inside: AtomicBool::new(false), requested: AtomicBool::new(false) }
    }

    /// A section that can never be entered and is never written: it stands for a CPU that has no
    /// data.
    #[cfg(not(loom))]
    pub const fn closed() -> Self {
        CpuSection { inside: AtomicBool::new(true), requested: AtomicBool::new(false) }
    }

    /// Enters, or answers `None` where code of this CPU is inside already or the section is closed.
    ///
    /// # Safety
    ///
    /// The caller runs on the CPU that the section belongs to and stays on it until the [`Entered`]
    /// is dropped, or that CPU is offline and nobody else acts for it.
    #[inline]
    pub unsafe fn enter(&self) -> Option<Entered<'_>> {
        if self.inside.load(Ordering::Relaxed) {
            return None;
        }
        self.inside.store(true, Ordering::Relaxed);
        // An interrupt handler runs on this CPU and sees its stores in program order; only the
        // compiler could move the data's accesses out of the section.
        compiler_fence(Ordering::Acquire);
        Some(Entered { section: self, stays: PhantomData })
    }

    /// Whether code of the CPU is inside, or the section is closed. For code of that CPU that has
    /// interrupted what may be there.
    pub fn is_entered(&self) -> bool {
        self.inside.load(Ordering::Relaxed)
    }

    /// Asks the CPU for whatever its owner does on a request. Any CPU, any context.
    #[inline]
    pub fn request(&self) {
        // Release pairs with the Acquire in `take_request`.
        #[cfg(not(loom))]
        self.requested.store(true, Ordering::Release);
        // The model checker may order a store before an exchange that did not see it, which no memory
        // model allows.
        #[cfg(loom)]
        self.requested.swap(true, Ordering::Release);
    }

    /// Whether a request waits. A plain read, for fast paths.
    #[inline]
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Takes the request, if one waits.
    #[inline]
    pub fn take_request(&self) -> bool {
        // Acquire pairs with the Release in `request`. Two requests may become one: both are met
        // by what follows. An exchange, since a store could hide a request that came after the look.
        self.requested.load(Ordering::Relaxed) && self.requested.swap(false, Ordering::Acquire)
    }
}

impl Default for CpuSection {
    fn default() -> Self {
        Self::new()
    }
}

/// The right to touch the CPU's data, until it is dropped. It stays on its CPU: it cannot be sent.
pub struct Entered<'a> {
    section: &'a CpuSection,
    // A pointer is neither `Send` nor `Sync`.
    stays: PhantomData<*mut ()>,
}

impl Entered<'_> {
    /// Whether it is that section that was entered.
    pub fn is_of(&self, section: &CpuSection) -> bool {
        core::ptr::eq(self.section, section)
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(Ordering::Release);
        self.section.inside.store(false, Ordering::Relaxed);
    }
}
