//! Who has a CPU next: a fair queue of threads.
//!
//! A ticket lock whose waiters sleep. A thread draws a ticket and waits until it is served; whoever
//! leaves serves the next. There is no list, so nothing is allocated and nothing can be left half
//! changed, and the order is that of arrival.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use rustix::thread::futex;

/// The queue. Free when new.
pub(crate) struct Queue {
    /// The ticket that the next thread draws.
    next: AtomicU32,
    /// The ticket that is served.
    served: AtomicU32,
}

impl Queue {
    pub(crate) const fn new() -> Queue {
        Queue { next: AtomicU32::new(0), served: AtomicU32::new(0) }
    }

    /// Waits in the queue and takes what it guards.
    pub(crate) fn acquire(&self) {
        // Pairs with the read-modify-write in `release`, see there.
        let ticket = self.next.fetch_add(1, Acquire);
        loop {
            // Pairs with the release in `release`: what the holder before did is seen.
            let served = self.served.load(Acquire);
            if served == ticket {
                return;
            }
            // Any error means that the word has changed or a signal came: look again.
            let _ = futex::wait_bitset(
                &self.served,
                futex::Flags::PRIVATE,
                served,
                None,
                waiter_bit(ticket),
            );
        }
    }

    /// Takes what the queue guards if nobody has it or waits for it.
    pub(crate) fn try_acquire(&self) -> bool {
        let served = self.served.load(Acquire);
        self.next.compare_exchange(served, served.wrapping_add(1), Acquire, Relaxed).is_ok()
    }

    /// Gives it to the next thread.
    ///
    /// Only for the thread that has it.
    pub(crate) fn release(&self) {
        let served = self.served.load(Relaxed).wrapping_add(1);
        self.served.store(served, Release);
        // Acquire-release and not a plain load: drawing a ticket is a read-modify-write of the same
        // word, so a thread that drew before this is seen, and one that draws after it sees
        // `served` as stored above.
        if self.next.fetch_add(0, AcqRel) != served {
            let _ = futex::wake_bitset(
                &self.served,
                futex::Flags::PRIVATE,
                i32::MAX as u32,
                waiter_bit(served),
            );
        }
    }

    /// Whether a thread waits.
    pub(crate) fn is_contended(&self) -> bool {
        self.length() > 1
    }

    /// How many threads have it or wait for it: 0 where it is free.
    pub(crate) fn length(&self) -> u32 {
        self.next.load(Relaxed).wrapping_sub(self.served.load(Relaxed))
    }
}

/// The bit that a waiter with this ticket is woken by: only every 32nd waiter shares it.
fn waiter_bit(ticket: u32) -> NonZeroU32 {
    // Never zero: the shift is less than the width.
    NonZeroU32::new(1 << (ticket % u32::BITS)).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn one_thread_at_a_time_has_it() {
        let queue = Queue::new();
        let inside = AtomicUsize::new(0);
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            // More threads than the bits that waiters are told apart by.
            for _ in 0..40 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        queue.acquire();
                        assert_eq!(inside.fetch_add(1, Relaxed), 0);
                        total.store(total.load(Relaxed) + 1, Relaxed);
                        inside.fetch_sub(1, Relaxed);
                        queue.release();
                    }
                });
            }
        });
        assert_eq!(total.load(Relaxed), 40 * 200);
        assert_eq!(queue.length(), 0);
    }

    #[test]
    fn threads_are_served_in_the_order_of_their_arrival() {
        let queue = Queue::new();
        let order = Mutex::new(Vec::new());
        queue.acquire();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (queue, order) = (&queue, &order);
                scope.spawn(move || {
                    queue.acquire();
                    order.lock().unwrap().push(number);
                    queue.release();
                });
                while queue.length() < number + 2 {
                    std::thread::yield_now();
                }
            }
            assert!(!queue.try_acquire());
            queue.release();
        });
        assert_eq!(*order.lock().unwrap(), (0..8).collect::<Vec<_>>());
        assert!(queue.try_acquire() && !queue.is_contended());
    }
}
