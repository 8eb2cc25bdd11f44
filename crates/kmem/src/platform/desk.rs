//! A platform without a machine: one CPU, no interrupts, RAM in a slice.
//!
//! For tests of code that takes a [`Mm`](crate::Mm), for tools, and as the shortest example of the
//! contract. It is what every platform is measured against first: it passes
//! [`conformance`](super::conformance).

use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{Context, Cpus, DirectMap, Hooks, Level, Misuse};
use crate::{CpuId, PhysAddr, VirtAddr};

/// RAM in a slice, for one CPU. Physical address 0 is the first byte of the slice that is aligned to
/// 64 KiB, or to a page where that is larger; so give up to that much more than the memory map says.
pub struct Desk<'r, const SHIFT: u32 = 12> {
    base: VirtAddr,
    bytes: u64,
    pins: AtomicU32,
    masked: AtomicBool,
    misuses: AtomicU64,
    messages: AtomicU64,
    ram: PhantomData<&'r mut [u8]>,
}

impl<'r, const SHIFT: u32> Desk<'r, SHIFT> {
    /// A machine with the slice as its RAM.
    ///
    /// # Safety
    ///
    /// There is one CPU: at most one thread at a time uses the platform and what is built on it.
    pub unsafe fn new(ram: &'r mut [u8]) -> Self {
        let start = ram.as_mut_ptr().expose_provenance();
        let base = start.next_multiple_of((1 << SHIFT).max(1 << 16));
        let bytes = (start + ram.len()).saturating_sub(base) as u64;
        Desk {
            base: VirtAddr::new(base),
            bytes,
            pins: AtomicU32::new(0),
            masked: AtomicBool::new(false),
            misuses: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            ram: PhantomData,
        }
    }

    /// How many wrong calls were reported.
    pub fn misuses(&self) -> u64 {
        self.misuses.load(Relaxed)
    }

    /// How many messages were logged.
    pub fn messages(&self) -> u64 {
        self.messages.load(Relaxed)
    }
}

// SAFETY: there is one CPU, used by one thread at a time, which nothing interrupts.
unsafe impl<const SHIFT: u32> Cpus for Desk<'_, SHIFT> {
    #[inline]
    fn pin(&self) {
        self.pins.store(self.pins.load(Relaxed) + 1, Relaxed);
    }

    #[inline]
    fn unpin(&self) {
        self.pins.store(self.pins.load(Relaxed) - 1, Relaxed);
    }

    #[inline]
    fn current(&self) -> CpuId {
        CpuId::BOOT
    }
}

// SAFETY: there are no interrupts.
unsafe impl<const SHIFT: u32> Context for Desk<'_, SHIFT> {
    type Saved = bool;

    #[inline]
    fn mask(&self) -> bool {
        let before = self.masked.load(Relaxed);
        self.masked.store(true, Relaxed);
        before
    }

    #[inline]
    fn restore(&self, saved: bool) {
        self.masked.store(saved, Relaxed);
    }

    #[inline]
    fn in_atomic(&self) -> bool {
        self.pins.load(Relaxed) != 0 || self.masked.load(Relaxed)
    }

    #[inline]
    fn in_nmi(&self) -> bool {
        false
    }
}

// SAFETY: the slice is writable for as long as `'r`, at the same place.
unsafe impl<const SHIFT: u32> DirectMap for Desk<'_, SHIFT> {
    const PAGE_SHIFT: u32 = SHIFT;

    #[inline]
    fn base(&self) -> VirtAddr {
        self.base
    }

    #[inline]
    fn limit(&self) -> PhysAddr {
        PhysAddr::new(self.bytes)
    }
}

impl<const SHIFT: u32> Hooks for Desk<'_, SHIFT> {
    fn log(&self, _: Level, _: fmt::Arguments<'_>) {
        self.messages.store(self.messages.load(Relaxed) + 1, Relaxed);
    }

    fn misuse(&self, _: &Misuse<'_>) {
        self.misuses.store(self.misuses.load(Relaxed) + 1, Relaxed);
    }
}
