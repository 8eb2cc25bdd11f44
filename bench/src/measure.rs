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
    /// What a row may take of a round where a peer is far slower than others.
    pub budget: Duration,
}

impl Plan {
    /// Repetitions that do not count, of what has a budget.
    pub const WARM_UP: usize = 16;

    /// Under a minute.
    pub const QUICK: Plan = Plan {
        rounds: 3,
        repetitions: 9,
        stretch: Duration::from_micros(1000),
        slow_repetitions: 5,
        budget: Duration::from_millis(20),
    };

    /// Under three minutes.
    pub const FULL: Plan = Plan {
        rounds: 7,
        repetitions: 25,
        stretch: Duration::from_micros(2000),
        slow_repetitions: 5,
        budget: Duration::from_millis(100),
    };

    /// For tests of the rows themselves.
    #[cfg(test)]
    pub const TEST: Plan = Plan {
        rounds: 1,
        repetitions: 2,
        stretch: Duration::from_micros(10),
        slow_repetitions: 1,
        budget: Duration::from_millis(1),
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

    /// [`Plan::repeat`] within the budget, after up to [`Plan::WARM_UP`] that do not count: heaps fit
    /// what they keep at hand to what went on lately. What spends the budget at once is measured by
    /// that once.
    pub fn repeat_within_budget(&self, mut once: impl FnMut() -> f64) -> Vec<f64> {
        let start = Instant::now();
        let mut value = once();
        for _ in 1..Self::WARM_UP {
            if start.elapsed() >= self.budget / 4 {
                break;
            }
            value = once();
        }
        let mut values = Vec::new();
        while values.len() < self.repetitions && start.elapsed() < self.budget {
            values.push(once());
        }
        if values.is_empty() { vec![value] } else { values }
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

/// The CPUs of the host that the program may use.
#[derive(Clone, Copy, Debug)]
pub struct HostCpus {
    /// Where all rows of one thread run: the last of them, as interrupts of the host tend to go to the
    /// first.
    pub own: usize,
    /// Where the second thread of rows of two runs, if there is another.
    pub other: Option<usize>,
}

impl HostCpus {
    /// Finds them, and binds the thread, and those that it starts, to its own.
    pub fn pin() -> io::Result<HostCpus> {
        let allowed = sched_getaffinity(None)?;
        let mut last = (0..CpuSet::MAX_CPU).rev().filter(|cpu| allowed.is_set(*cpu));
        let cpus = HostCpus { own: last.next().unwrap_or(0), other: last.next() };
        bind(cpus.own)?;
        Ok(cpus)
    }
}

/// Binds the thread to a CPU of the host.
pub fn bind(cpu: usize) -> io::Result<()> {
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one)?;
    Ok(())
}

/// Random numbers that depend on the seed alone.
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        // xorshift64*: its state must not be 0.
        Random(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// The next one below `limit`, which is at most 2^32.
    #[inline(always)]
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        ((high * limit as u64) >> 32) as usize
    }
}

/// The numbers below `count` in a random order that depends on the seed alone.
pub fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, random.below(last + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_is_spent_at_once_gives_one_value() {
        let plan = Plan { budget: Duration::ZERO, ..Plan::TEST };
        assert_eq!(plan.repeat_within_budget(|| 7.0), [7.0]);
    }

    #[test]
    fn a_budget_that_lasts_gives_all_repetitions_and_no_warm_up() {
        let plan = Plan { budget: Duration::MAX, ..Plan::TEST };
        let mut calls = 0.0;
        let values = plan.repeat_within_budget(|| {
            calls += 1.0;
            calls
        });
        let warm = Plan::WARM_UP as f64;
        assert_eq!(values, [warm + 1.0, warm + 2.0]);
    }

    #[test]
    fn an_order_is_a_permutation_that_depends_on_the_seed() {
        let mut order = shuffled(1000, 3);
        assert_eq!(order, shuffled(1000, 3));
        assert_ne!(order, shuffled(1000, 4));
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }
}
