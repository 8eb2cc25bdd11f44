//! A lock whose holder may sleep: the drivers allocate with `GFP_KERNEL` while they hold it.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use kmem::Platform;

const FREE: u32 = 0;
const HELD: u32 = 1;
/// Held, and somebody may be asleep until it is free: whoever lets go wakes them.
const AWAITED: u32 = 2;

/// How long a waiter sleeps before it looks again without having been woken. A wake is not lost;
/// the bound is there because [`kmem::platform::Sleep`] wants one.
const NANOSECONDS_ASLEEP: u64 = 1_000_000_000;

/// A value that one task at a time may use.
pub(crate) struct Lock<T> {
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a guard only, and there is one guard at a time; so tasks
// hand the value to each other but never share it.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A lock that is free.
    pub(crate) const fn new(value: T) -> Self {
        Lock { state: AtomicU32::new(FREE), value: UnsafeCell::new(value) }
    }

    /// Waits until the lock is free and takes it. May sleep: not for atomic context.
    ///
    /// Where the platform has no tasks that sleep, this spins.
    pub(crate) fn lock<'l, P: Platform>(&'l self, platform: &'l P) -> Guard<'l, T, P> {
        // Acquire, here and below, pairs with the Release in the guard's drop: the value is seen
        // as the last holder left it.
        if self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.state.swap(AWAITED, Ordering::Acquire) != FREE {
                match platform.sleep() {
                    Some(sleep) => {
                        let state = &self.state;
                        let free = || state.load(Ordering::Relaxed) == FREE;
                        sleep.wait(self.key(), &free, NANOSECONDS_ASLEEP);
                    }
                    None => platform.relax(),
                }
            }
        }
        Guard { lock: self, platform }
    }

    /// The value, for a caller that has the lock to itself.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// What waiters are woken by: an address that no other lock has.
    fn key(&self) -> usize {
        (&raw const self.state).addr()
    }
}

/// The right to use the value, until it is dropped.
pub(crate) struct Guard<'l, T, P: Platform> {
    lock: &'l Lock<T>,
    platform: &'l P,
}

impl<T, P: Platform> Deref for Guard<'_, T, P> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: there is one guard of a lock at a time, and this is it.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T, P: Platform> DerefMut for Guard<'_, T, P> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: there is one guard of a lock at a time, and it is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T, P: Platform> Drop for Guard<'_, T, P> {
    fn drop(&mut self) {
        if self.lock.state.swap(FREE, Ordering::Release) == AWAITED
            && let Some(sleep) = self.platform.sleep()
        {
            sleep.wake(self.lock.key());
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::fmt;
    use std::cell::Cell;
    use std::sync::Mutex;
    use std::vec::Vec;

    use kmem::platform::{Context, Cpus, DirectMap, Hooks, Level, Misuse, Sleep, WakeReason};
    use kmem::{CpuId, PhysAddr, VirtAddr};
    use kmem_host::{Description, Machine};

    use super::*;

    /// A platform without memory whose tasks wait as a test says.
    struct Waiting {
        on_wait: fn(&Waiting, usize, bool),
        woken: Mutex<Vec<usize>>,
    }

    // SAFETY: there is one CPU and one thread.
    unsafe impl Cpus for Waiting {
        fn pin(&self) {}
        fn unpin(&self) {}
        fn current(&self) -> CpuId {
            CpuId::BOOT
        }
    }

    // SAFETY: there are no interrupts.
    unsafe impl Context for Waiting {
        type Saved = ();
        fn mask(&self) {}
        fn restore(&self, (): ()) {}
        fn in_atomic(&self) -> bool {
            false
        }
        fn in_nmi(&self) -> bool {
            false
        }
        fn sleep(&self) -> Option<&dyn Sleep> {
            Some(self)
        }
    }

    // SAFETY: no address is below the limit.
    unsafe impl DirectMap for Waiting {
        fn base(&self) -> VirtAddr {
            VirtAddr::new(0)
        }
        fn limit(&self) -> PhysAddr {
            PhysAddr::new(0)
        }
    }

    impl Hooks for Waiting {
        fn log(&self, _: Level, _: fmt::Arguments<'_>) {}
        fn misuse(&self, _: &Misuse<'_>) {}
    }

    impl Sleep for Waiting {
        fn wait(&self, key: usize, ready: &(dyn Fn() -> bool + Sync), _: u64) -> WakeReason {
            (self.on_wait)(self, key, ready());
            assert!(ready(), "the lock is free now");
            WakeReason::Woken
        }

        fn wake(&self, key: usize) {
            self.woken.lock().unwrap().push(key);
        }
    }

    #[test]
    fn a_waiter_is_woken_by_the_key_that_it_waits_with() {
        static LOCK: Lock<u32> = Lock::new(7);
        static PLATFORM: Waiting = Waiting {
            on_wait: |platform, key, ready| {
                assert!(!ready, "the lock is held");
                drop(HOLDER.take().expect("it is waited for once"));
                assert_eq!(*platform.woken.lock().unwrap(), [key]);
            },
            woken: Mutex::new(Vec::new()),
        };
        std::thread_local! {
            static HOLDER: Cell<Option<Guard<'static, u32, Waiting>>> = const { Cell::new(None) };
        }
        HOLDER.set(Some(LOCK.lock(&PLATFORM)));
        assert_eq!(*LOCK.lock(&PLATFORM), 7);
        // Nobody waited for the second holder; waking again does no harm.
        drop(LOCK.lock(&PLATFORM));
        assert!(PLATFORM.woken.lock().unwrap().len() <= 2);
    }

    #[test]
    fn one_task_at_a_time_holds_it() {
        const TASKS: u32 = 4;
        const ROUNDS: u32 = 2_000;
        let machine = Machine::<12>::boot(&Description::preset("tiny").unwrap()).unwrap();
        let lock = Lock::new((0, false));
        std::thread::scope(|scope| {
            for task in 0..TASKS {
                let (machine, lock) = (&machine, &lock);
                let work = move || {
                    for round in 0..ROUNDS {
                        let mut guard = lock.lock(machine.host());
                        let (count, held) = *guard;
                        assert!(!held);
                        guard.1 = true;
                        // The others run while the lock is held, on this CPU too.
                        if round % 16 == 0 {
                            machine.yield_now();
                        }
                        *guard = (count + 1, false);
                    }
                };
                scope.spawn(move || machine.run_on(CpuId::new(task % 2).unwrap(), work));
            }
        });
        assert_eq!(*lock.lock(machine.host()), (TASKS * ROUNDS, false));
    }
}
