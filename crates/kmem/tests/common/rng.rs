//! Random numbers for tests that can be run again: a failing test prints its seed.

use std::eprintln;

/// A generator of random numbers (splitmix64). When the test that owns it panics, it prints the
/// seed; `KMEM_SEED=<seed>` runs the test with that one again.
pub struct Rng {
    seed: u64,
    state: u64,
}

impl Rng {
    /// A generator with the seed of the environment, or else one from the clock.
    pub fn new() -> Rng {
        let given = std::env::var("KMEM_SEED").ok().map(|seed| {
            seed.parse().unwrap_or_else(|_| panic!("KMEM_SEED={seed:?} is not a number"))
        });
        let seed = given.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| now.as_nanos() as u64)
        });
        Rng { seed, state: seed }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True `parts` times in a hundred.
    pub fn percent(&mut self, parts: u64) -> bool {
        self.below(100) < parts
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// An order up to `largest`; small ones more often, as in life.
    pub fn order(&mut self, largest: u32) -> u32 {
        let limit = u64::from(largest) + 1;
        (0..3).map(|_| self.below(limit)).min().unwrap_or(0) as u32
    }
}

impl Drop for Rng {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to run this again: KMEM_SEED={}", self.seed);
        }
    }
}
