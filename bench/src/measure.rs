//! How a time is taken: pinned, warmed up, repeated.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How often and for how long.
///
/// Everything is measured once a round, so that a burst of other work on the machine spoils some
/// repetitions of every row and not all repetitions of one.
pub struct Plan {
    /// Passes over all rows.
    pub rounds: usize,
    /// Repetitions of a row in a round.
    pub repetitions: usize,
    /// How long a repetition of a short operation is repeated: long against reading the clock,
    /// short against the host's time slice.
    pub stretch: Duration,
    /// Repetitions in a round of what takes tens of milliseconds to set up.
    pub slow_repetitions: usize,
}

impl Plan {
    /// Under half a minute.
    pub const QUICK: Plan = Plan {
        rounds: 3,
        repetitions: 9,
        stretch: Duration::from_micros(1000),
        slow_repetitions: 5,
    };

    /// Under three minutes.
    pub const FULL: Plan = Plan {
        rounds: 7,
        repetitions: 25,
        stretch: Duration::from_micros(2000),
        slow_repetitions: 5,
    };

    /// Nanoseconds a call of `work`, one value a repetition.
    pub fn short(&self, mut work: impl FnMut()) -> Vec<f64> {
        let mut timed = |calls: u64| {
            nanoseconds(|| {
                for _ in 0..calls {
                    work();
                }
            }) / calls as f64
        };
        timed(64);
        // The first calls met cold caches, so the number of calls is taken from the next.
        let calls = (self.stretch.as_nanos() as f64 / timed(256).max(0.1)) as u64;
        let calls = calls.max(16);
        timed(calls);
        (0..self.repetitions).map(|_| timed(calls)).collect()
    }

    /// What `once` measures, one value a repetition, after one that does not count.
    pub fn repeat(&self, mut once: impl FnMut() -> f64) -> Vec<f64> {
        black_box(once());
        (0..self.repetitions).map(|_| once()).collect()
    }

    /// [`Plan::repeat`] for what is slow to set up.
    pub fn repeat_slow(&self, mut once: impl FnMut() -> f64) -> Vec<f64> {
        black_box(once());
        (0..self.slow_repetitions).map(|_| once()).collect()
    }
}

/// How long `work` takes.
#[inline]
pub fn nanoseconds<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_nanos() as f64
}

/// All repetitions of one measurement, over all rounds.
#[derive(Clone, Debug)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// None yet.
    pub const fn new() -> Self {
        Samples(Vec::new())
    }

    /// Adds the repetitions of a round.
    pub fn extend(&mut self, more: Vec<f64>) {
        self.0.extend(more);
        self.0.sort_by(f64::total_cmp);
    }

    /// The least: what the code costs when nothing else disturbs it.
    pub fn min(&self) -> Option<f64> {
        self.0.first().copied()
    }

    /// The median: how quiet the run was, seen beside [`Samples::min`].
    pub fn median(&self) -> Option<f64> {
        self.0.get(self.0.len() / 2).copied()
    }

    /// How many repetitions.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Binds the thread, and those that it starts, to the last CPU that it may use; interrupts of the
/// host tend to go to the first. Answers which.
pub fn pin() -> io::Result<usize> {
    let allowed = sched_getaffinity(None)?;
    let cpu = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).unwrap_or(0);
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one)?;
    Ok(cpu)
}

/// The numbers below `count` in a random order that depends on the seed alone.
pub fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    // xorshift64*: its state must not be 0.
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut below = |limit: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let high = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        ((high * limit as u64) >> 32) as usize
    };
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, below(last + 1));
    }
    order
}
