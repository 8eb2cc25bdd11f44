//! A lock that is taken with interrupts masked: handlers take it too.

use core::ops::{Deref, DerefMut};

use crate::cpu;

/// A value that one CPU at a time is at.
pub struct Lock<T>(spin::Mutex<T>);

/// The value, until this is dropped.
pub struct Guard<'l, T> {
    value: Option<spin::MutexGuard<'l, T>>,
    were: bool,
}

impl<T> Lock<T> {
    /// Around a value.
    pub const fn new(value: T) -> Lock<T> {
        Lock(spin::Mutex::new(value))
    }

    /// Waits until nobody else is at the value.
    pub fn lock(&self) -> Guard<'_, T> {
        let were = cpu::mask();
        Guard { value: Some(self.0.lock()), were }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // It is there until the guard is dropped.
        self.value.as_ref().unwrap_or_else(|| unreachable!())
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().unwrap_or_else(|| unreachable!())
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        cpu::restore(self.were);
    }
}
