//! A spin lock that masks interrupts while it is held.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use super::atomic::{AtomicBool, Ordering};
use crate::platform::{Context, Cpus};

/// The place of a lock in the order in which locks are taken.
pub trait Level {
    /// A lock of this level is taken only while every lock held has a lower number.
    const NUMBER: u8;
}

/// The level of the locks of zones.
pub struct ZoneLevel;

impl Level for ZoneLevel {
    const NUMBER: u8 = 1;
}

/// The level of the locks of caches, one for each node.
pub struct CacheLevel;

impl Level for CacheLevel {
    const NUMBER: u8 = 2;
}

/// The level of the lock of the addresses for mappings.
pub struct VmapLevel;

impl Level for VmapLevel {
    const NUMBER: u8 = 3;
}

/// The level of the locks of carveouts.
pub struct CarveoutLevel;

impl Level for CarveoutLevel {
    const NUMBER: u8 = 4;
}

/// The level of the lock of the permanent mappings of high memory.
pub struct KmapLevel;

impl Level for KmapLevel {
    const NUMBER: u8 = 5;
}

/// The level of the lock of the chunks of per-CPU data.
pub struct PerCpuLevel;

impl Level for PerCpuLevel {
    const NUMBER: u8 = 6;
}

/// The level of the locks of devices that read and write memory, one for each.
pub struct DmaLevel;

impl Level for DmaLevel {
    const NUMBER: u8 = 7;
}

/// A value that one CPU at a time may reach.
///
/// # Invariants
///
/// `locked` is true exactly while a [`SpinGuard`] of this lock lives, and at most one does.
pub struct SpinLock<L, T> {
    locked: AtomicBool,
    value: UnsafeCell<T>,
    level: PhantomData<L>,
}

// SAFETY: the value is reached through a guard only, and at most one guard lives at a time.
unsafe impl<L, T: Send> Sync for SpinLock<L, T> {}
// SAFETY: the lock owns its value.
unsafe impl<L, T: Send> Send for SpinLock<L, T> {}

impl<L: Level, T> SpinLock<L, T> {
    /// A lock that nobody holds.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        SpinLock {
            locked: AtomicBool::new(false),
            value: UnsafeCell::new(value),
            level: PhantomData,
        }
    }

    /// A lock that nobody holds.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        SpinLock {
            locked: AtomicBool::new(false),
            value: UnsafeCell::new(value),
            level: PhantomData,
        }
    }

    /// Masks interrupts, then waits for the lock. Any context but NMI: the code that an NMI
    /// interrupted may hold the lock.
    #[inline]
    pub fn lock<'a, P: Cpus + Context>(&'a self, platform: &'a P) -> SpinGuard<'a, L, T, P> {
        let saved = platform.mask();
        while !self.acquire() {
            // Wait with plain reads: the line stays shared until the holder writes it.
            while self.locked.load(Ordering::Relaxed) {
                platform.relax();
            }
        }
        SpinGuard { lock: self, platform, saved, stays: PhantomData }
    }

    /// Takes the lock if nobody holds it. Any context, NMI included.
    #[inline]
    pub fn try_lock<'a, P: Cpus + Context>(
        &'a self,
        platform: &'a P,
    ) -> Option<SpinGuard<'a, L, T, P>> {
        let saved = platform.mask();
        if self.acquire() {
            Some(SpinGuard { lock: self, platform, saved, stays: PhantomData })
        } else {
            platform.restore(saved);
            None
        }
    }

    #[inline]
    fn acquire(&self) -> bool {
        // Acquire pairs with the Release store in `SpinGuard::drop`: what the last holder wrote is
        // seen.
        self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

/// The right to use a [`SpinLock`]'s value, until it is dropped.
///
/// It stays on the CPU whose interrupts it masks, so it cannot be sent:
///
/// ```compile_fail,E0277
/// # use kmem::sync::{SpinGuard, ZoneLevel};
/// # use kmem::platform::desk::Desk;
/// fn sent(_: impl Send) {}
/// fn try_it(guard: SpinGuard<'_, ZoneLevel, u32, Desk<'_>>) {
///     sent(guard);
/// }
/// ```
pub struct SpinGuard<'a, L, T, P: Context> {
    lock: &'a SpinLock<L, T>,
    platform: &'a P,
    saved: P::Saved,
    // A pointer is neither `Send` nor `Sync`.
    stays: PhantomData<*mut T>,
}

// SAFETY: a shared guard gives shared access to the value and nothing else.
unsafe impl<L, T: Sync, P: Context + Sync> Sync for SpinGuard<'_, L, T, P> where P::Saved: Sync {}

impl<L, T, P: Context> Deref for SpinGuard<'_, L, T, P> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the lock's invariant this guard is the only one.
        unsafe { &*self.lock.value.get() }
    }
}

impl<L, T, P: Context> DerefMut for SpinGuard<'_, L, T, P> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: by the lock's invariant this guard is the only one, and it is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<L, T, P: Context> Drop for SpinGuard<'_, L, T, P> {
    #[inline]
    fn drop(&mut self) {
        // Release pairs with the Acquire exchange in `acquire`.
        self.lock.locked.store(false, Ordering::Release);
        self.platform.restore(self.saved);
    }
}
