//! The interrupts that wait for a CPU: what an interrupt controller keeps.
//!
//! Senders are any threads in any context, signal handlers included; the receiver is the thread
//! that holds the CPU. A sender may be interrupted by the receiver's own handler half-way through a
//! post, on the same thread, so nobody here ever waits for anybody: a fixed set of slots, one bitmap
//! of those that are taken and one of those that are ready. Interrupts have no order among them.

use std::cell::UnsafeCell;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// How many interrupts may wait for one CPU.
pub(crate) const SLOTS: usize = u64::BITS as usize;

/// Something to run on a CPU: a function and what it is called with.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    /// Called at most once.
    pub(crate) run: unsafe fn(*const ()),
    /// What `run` is called with, from any thread.
    pub(crate) data: *const (),
}

/// The set of jobs that wait.
pub(crate) struct Lines {
    /// Slots that a sender has claimed and the receiver not yet emptied.
    claimed: AtomicU64,
    /// Slots whose job is complete. A subset of `claimed`.
    ready: AtomicU64,
    slots: [UnsafeCell<Job>; SLOTS],
}

// SAFETY: a slot is written by the sender that claimed it and read by the receiver that took its
// ready bit, one after the other. A job may run on any thread: that is `post`'s contract.
unsafe impl Sync for Lines {}
// SAFETY: as above.
unsafe impl Send for Lines {}

/// What [`Lines::post`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Posted {
    /// Nothing waited before: the receiver must be told.
    First,
    /// Others wait: the receiver has been told, or is being told.
    More,
    /// There is no slot; nothing was posted.
    Full,
}

impl Lines {
    pub(crate) const fn new() -> Lines {
        const NOTHING: Job = Job { run: nothing, data: std::ptr::null() };
        Lines {
            claimed: AtomicU64::new(0),
            ready: AtomicU64::new(0),
            slots: [const { UnsafeCell::new(NOTHING) }; SLOTS],
        }
    }

    /// Adds a job.
    ///
    /// # Safety
    ///
    /// `job.run` may be called with `job.data` once, on any thread, at any later time.
    pub(crate) unsafe fn post(&self, job: Job) -> Posted {
        let mut claimed = self.claimed.load(Relaxed);
        let bit = loop {
            let bit = !claimed & claimed.wrapping_add(1);
            if bit == 0 {
                return Posted::Full;
            }
            // Pairs with the release in `run`: the slot has been read before it is written.
            match self.claimed.compare_exchange_weak(claimed, claimed | bit, Acquire, Relaxed) {
                Ok(_) => break bit,
                Err(now) => claimed = now,
            }
        };
        // SAFETY: the bit was clear and this sender set it, so nobody else touches the slot until
        // the ready bit is set.
        unsafe { *self.slots[bit.trailing_zeros() as usize].get() = job };
        // Hands the slot to `run`. Sequentially consistent, as is the sender's next look at who
        // holds the CPU: a thread that takes the CPU writes the one and reads the other, and at
        // least one of the two sees what the other wrote.
        match self.ready.fetch_or(bit, SeqCst) {
            0 => Posted::First,
            _ => Posted::More,
        }
    }

    /// Whether a job waits.
    pub(crate) fn is_pending(&self) -> bool {
        self.ready.load(SeqCst) != 0
    }

    /// Runs the jobs that wait, until none does.
    ///
    /// Only on the thread that holds the CPU, in handler context; a nested call, from a signal, is
    /// fine.
    pub(crate) fn run(&self) {
        loop {
            // One bit at a time: the jobs behind it stay visible to whoever asks what waits.
            let ready = self.ready.load(Relaxed);
            let bit = ready & ready.wrapping_neg();
            if bit == 0 {
                return;
            }
            // Pairs with `post`: the job is seen. A nested call may have been faster.
            if self.ready.fetch_and(!bit, Acquire) & bit == 0 {
                continue;
            }
            // SAFETY: this call took the ready bit, so the slot is its alone until the claim ends.
            let job = unsafe { *self.slots[bit.trailing_zeros() as usize].get() };
            self.claimed.fetch_and(!bit, Release);
            // SAFETY: whoever posted the job promised that it may run now.
            unsafe { (job.run)(job.data) };
        }
    }
}

unsafe fn nothing(_: *const ()) {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    unsafe fn count(data: *const ()) {
        // SAFETY: the tests pass a counter that outlives the lines.
        unsafe { (*data.cast::<AtomicUsize>()).fetch_add(1, Relaxed) };
    }

    #[test]
    fn every_job_runs_once_and_a_full_set_refuses() {
        let (lines, ran) = (Lines::new(), AtomicUsize::new(0));
        let job = Job { run: count, data: (&raw const ran).cast() };
        // SAFETY: `ran` lives until the end of the test.
        let post = || unsafe { lines.post(job) };
        assert!(!lines.is_pending());
        assert_eq!(post(), Posted::First);
        for _ in 1..SLOTS {
            assert_eq!(post(), Posted::More);
        }
        assert_eq!(post(), Posted::Full);
        lines.run();
        assert_eq!(ran.load(Relaxed), SLOTS);
        assert!(!lines.is_pending());
        lines.run();
        assert_eq!(ran.load(Relaxed), SLOTS);
    }

    #[test]
    fn jobs_of_many_senders_run_once_each() {
        const SENDERS: usize = 4;
        const EACH: usize = 20_000;
        let (lines, ran) = (Lines::new(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| {
                    let job = Job { run: count, data: (&raw const ran).cast() };
                    for _ in 0..EACH {
                        // SAFETY: `ran` outlives the scope, and all jobs run within it.
                        while unsafe { lines.post(job) } == Posted::Full {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            while ran.load(Relaxed) < SENDERS * EACH {
                lines.run();
                std::thread::yield_now();
            }
        });
        lines.run();
        assert_eq!(ran.load(Relaxed), SENDERS * EACH);
    }
}
