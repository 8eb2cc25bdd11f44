//! The rows of objects: what is measured, the goal for it, and how the work of one thread goes.
//!
//! The first word of every object is written, as whoever allocates one does.

use std::hint::black_box;
use std::ptr::NonNull;

use kmem::{CacheId, GFP_KERNEL, Mm, Platform, Reclaim};

use crate::heaps::Heap;
use crate::measure::{Plan, Random, nanoseconds, shuffled};
use crate::rows::{Counts, Row};

/// What a row of objects does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// An object is allocated and freed, again and again.
    Pair {
        /// Its bytes.
        size: usize,
    },
    /// [`LIVE`] objects are allocated, then freed.
    Many {
        /// Bytes of each.
        size: usize,
        /// Whether they are freed in a random order, or in the order of allocation.
        shuffled: bool,
    },
    /// [`Work::Pair`] from a cache of its own.
    CachePair,
    /// [`Work::Many`] from a cache of its own, freed in the order of allocation.
    CacheMany,
    /// [`BATCH`] objects of a cache of its own are allocated in one call and freed in one call.
    CacheBulk,
    /// A random one of [`LIVE`] objects of random sizes is replaced.
    Mixed,
    /// [`Work::Mixed`] by two threads, each with as many objects.
    MixedByTwo,
    /// A thread allocates, another frees.
    Remote {
        /// Bytes of each object.
        size: usize,
    },
    /// Bytes held for each byte asked for, with so many objects of random sizes.
    Held {
        /// How many.
        live: usize,
    },
    /// Bytes held for an object of one size.
    HeldEach {
        /// Bytes of each.
        size: usize,
    },
}

impl Work {
    /// Whether the figures are times, which differ from one repetition to the next.
    pub fn is_timed(self) -> bool {
        !matches!(self, Work::Held { .. } | Work::HeldEach { .. })
    }
}

/// Objects that rows of many hold at once.
pub const LIVE: usize = 10_000;
/// Objects of a bulk call.
pub const BATCH: usize = 16;
/// Bytes of an object of the dedicated cache.
pub const CACHED: usize = 192;
/// Random sizes that come again and again; a power of two, so that counting them costs little.
const SIZES: usize = 1 << 16;
/// Objects that are replaced in a repetition.
pub const REPLACED: usize = 100_000;

const fn time(name: &'static str, work: Work, goal: f64, linux: Option<f64>) -> Row<Work> {
    Row { name, work, unit: "ns", goal, linux, counts: Counts::Least }
}

const fn by_two(name: &'static str, work: Work, goal: f64) -> Row<Work> {
    Row { name, work, unit: "ns", goal, linux: None, counts: Counts::Median }
}

const fn pair(name: &'static str, size: usize, goal: f64, linux: f64) -> Row<Work> {
    time(name, Work::Pair { size }, goal, Some(linux))
}

const fn fifo(name: &'static str, size: usize, goal: f64, linux: f64) -> Row<Work> {
    time(name, Work::Many { size, shuffled: false }, goal, Some(linux))
}

const fn shuffle(name: &'static str, size: usize, goal: f64, linux: f64) -> Row<Work> {
    time(name, Work::Many { size, shuffled: true }, goal, Some(linux))
}

const fn held(name: &'static str, live: usize, goal: f64) -> Row<Work> {
    let unit = "bytes/byte";
    Row { name, work: Work::Held { live }, unit, goal, linux: None, counts: Counts::Least }
}

const fn held_each(name: &'static str, size: usize, goal: f64, linux: f64) -> Row<Work> {
    let (work, unit) = (Work::HeldEach { size }, "bytes");
    Row { name, work, unit, goal, linux: Some(linux), counts: Counts::Least }
}

/// All rows of objects. The goal of an object of 24 bytes is what Linux takes; from 64 bytes up it is
/// an eighth more than what was asked for.
pub const ROWS: [Row<Work>; 25] = [
    pair("kmalloc 8 pair", 8, 5.0, 23.0),
    pair("kmalloc 64 pair", 64, 5.0, 24.0),
    pair("kmalloc 192 pair", 192, 5.0, 23.0),
    pair("kmalloc 256 pair", 256, 5.0, 23.0),
    pair("kmalloc 1K pair", 1 << 10, 6.0, 23.0),
    pair("kmalloc 4K pair", 4 << 10, 8.0, 24.0),
    pair("kmalloc 64K pair", 64 << 10, 9.0, 146.0),
    fifo("kmalloc 64 fifo", 64, 10.0, 34.0),
    shuffle("kmalloc 64 shuffled", 64, 11.0, 35.0),
    fifo("kmalloc 256 fifo", 256, 18.0, 48.0),
    shuffle("kmalloc 256 shuffled", 256, 20.0, 51.0),
    fifo("kmalloc 1K fifo", 1 << 10, 32.0, 66.0),
    shuffle("kmalloc 1K shuffled", 1 << 10, 38.0, 72.0),
    time("cache pair", Work::CachePair, 5.0, Some(22.0)),
    time("cache fifo", Work::CacheMany, 18.0, Some(43.0)),
    time("cache bulk calls", Work::CacheBulk, 3.0, Some(7.6)),
    time("mixed", Work::Mixed, 28.0, None),
    by_two("mixed, 2 threads", Work::MixedByTwo, 45.0),
    by_two("remote free", Work::Remote { size: 64 }, 36.0),
    held("held, 10k live", 10_000, 1.15),
    held("held, 100k live", 100_000, 1.05),
    held_each("held for 24", 24, 32.0, 32.0),
    held_each("held for 100", 100, 112.5, 128.0),
    held_each("held for 700", 700, 787.5, 1024.0),
    held_each("held for 3000", 3000, 3375.0, 4096.0),
];

/// An object with its first word written.
#[inline(always)]
pub fn get<H: Heap>(heap: &H, size: usize) -> NonNull<u8> {
    let object = heap.alloc(size).expect("every object of a row fits");
    // SAFETY: no row's objects are smaller than a word, or aligned to less.
    unsafe { object.cast::<u64>().write_volatile(size as u64) };
    object
}

/// One round of a row that is the same for every heap. Others are not this function's.
pub fn measure<H: Heap>(heap: &H, work: Work, seed: u64, plan: &Plan) -> Vec<f64> {
    heap.settle();
    match work {
        Work::Pair { size } => pairs(heap, size, plan),
        Work::Many { size, shuffled } => many(heap, size, shuffled.then_some(seed), plan),
        Work::CachePair => pairs(heap, CACHED, plan),
        Work::CacheMany => many(heap, CACHED, None, plan),
        Work::Mixed => {
            let mut mixed = Mixed::with_room(heap, LIVE, seed);
            mixed.fill(LIVE);
            plan.repeat_within_budget(|| mixed.time_replaced())
        }
        Work::CacheBulk
        | Work::MixedByTwo
        | Work::Remote { .. }
        | Work::Held { .. }
        | Work::HeldEach { .. } => vec![],
    }
}

/// Nanoseconds for an allocation and its free, an object after the other.
fn pairs<H: Heap>(heap: &H, size: usize, plan: &Plan) -> Vec<f64> {
    // Not a constant of the loop: the caller of a library may not know its size either.
    let size = black_box(size);
    plan.short(|| {
        let object = black_box(get(heap, size));
        // SAFETY: just allocated, with this size.
        unsafe { heap.free(object, size) };
    })
}

/// Nanoseconds for an allocation and its free, many objects at once. Where a seed is given they are
/// freed in the random order that it stands for.
fn many<H: Heap>(heap: &H, size: usize, seed: Option<u64>, plan: &Plan) -> Vec<f64> {
    let size = black_box(size);
    let turns = seed.map(|seed| shuffled(LIVE, seed));
    let mut objects = vec![NonNull::dangling(); LIVE];
    plan.repeat_within_budget(|| {
        nanoseconds(|| {
            for slot in &mut objects {
                *slot = get(heap, size);
            }
            let free = |object: NonNull<u8>| {
                // SAFETY: called once for each object that was just allocated.
                unsafe { heap.free(object, size) }
            };
            match &turns {
                // A permutation: each object is met once.
                Some(turns) => turns.iter().for_each(|turn| free(objects[*turn])),
                None => objects.iter().for_each(|object| free(*object)),
            }
        }) / LIVE as f64
    })
}

/// Nanoseconds an object, allocated and freed, of bulk calls.
pub fn bulk<P: Platform, R: Reclaim>(mm: &Mm<P, R>, cache: CacheId, plan: &Plan) -> Vec<f64> {
    crate::heaps::settle(mm);
    let mut places = [None; BATCH];
    let mut objects = [NonNull::dangling(); BATCH];
    let batches = plan.short(|| {
        mm.kmem_cache_alloc_bulk(cache, GFP_KERNEL, black_box(&mut places)).expect("a batch fits");
        for (object, place) in objects.iter_mut().zip(&places) {
            *object = place.expect("all places were filled");
            // SAFETY: just allocated, and larger than a word.
            unsafe { object.cast::<u64>().write_volatile(CACHED as u64) };
        }
        // SAFETY: just allocated from this cache.
        unsafe { mm.kmem_cache_free_bulk(cache, black_box(&objects)) };
    });
    batches.into_iter().map(|batch| batch / BATCH as f64).collect()
}

/// Objects of random sizes, of which random ones are replaced.
pub struct Mixed<'h, H: Heap> {
    heap: &'h H,
    objects: Vec<(NonNull<u8>, usize)>,
    sizes: Vec<u16>,
    /// Of the size that comes next.
    next: usize,
    random: Random,
}

impl<'h, H: Heap> Mixed<'h, H> {
    /// None yet, and room for so many.
    pub fn with_room(heap: &'h H, live: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let sizes = sizes(SIZES, &mut random);
        // Written, so that the memory of the list is there.
        let mut objects = vec![(NonNull::dangling(), 1); live];
        black_box(&mut objects).clear();
        Mixed { heap, objects, sizes, next: 0, random }
    }

    /// So many more.
    pub fn fill(&mut self, more: usize) {
        for _ in 0..more {
            let size = self.size();
            self.objects.push((get(self.heap, size), size));
        }
    }

    #[inline(always)]
    fn size(&mut self) -> usize {
        self.next = (self.next + 1) % SIZES;
        self.sizes[self.next].into()
    }

    /// Frees a random one and allocates another in its place. Answers that one, and its size.
    #[inline(always)]
    pub fn replace(&mut self) -> (NonNull<u8>, usize) {
        let size = self.size();
        let slot = self.random.below(self.objects.len());
        let slot = &mut self.objects[slot];
        // SAFETY: allocated with this size, and replaced at once.
        unsafe { self.heap.free(slot.0, slot.1) };
        *slot = (get(self.heap, size), size);
        *slot
    }

    /// Nanoseconds for replacing one, over [`REPLACED`] of them.
    pub fn time_replaced(&mut self) -> f64 {
        let all = nanoseconds(|| {
            for _ in 0..REPLACED {
                black_box(self.replace());
            }
        });
        all / REPLACED as f64
    }

    /// All objects, and their sizes.
    pub fn objects(&self) -> &[(NonNull<u8>, usize)] {
        &self.objects
    }
}

impl<H: Heap> Drop for Mixed<'_, H> {
    fn drop(&mut self) {
        for (object, size) in self.objects.drain(..) {
            // SAFETY: allocated with this size, and forgotten.
            unsafe { self.heap.free(object, size) };
        }
    }
}

/// Sizes of 8 to 8191 bytes, as many of each power of two.
fn sizes(count: usize, random: &mut Random) -> Vec<u16> {
    const STEPS: usize = 1 << 20;
    let mut size = || (8.0 * 1024_f64.powf(random.below(STEPS) as f64 / STEPS as f64)) as u16;
    (0..count).map(|_| size()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heaps::Kmalloc;
    use crate::subjects::{self, Ram};

    #[test]
    fn rows_have_names_of_their_own_and_goals() {
        for (index, row) in ROWS.iter().enumerate() {
            assert!(row.goal > 0.0, "{}", row.name);
            assert!(ROWS[..index].iter().all(|other| other.name != row.name), "{}", row.name);
        }
    }

    #[test]
    fn sizes_are_in_range_and_as_many_of_each_power_of_two() {
        const EACH: usize = 1000;
        let sizes = sizes(10 * EACH, &mut Random::new(7));
        assert!(sizes.iter().all(|size| (8..8192).contains(size)));
        for power in 3..13 {
            let of = sizes.iter().filter(|size| size.ilog2() == power).count();
            assert!(of.abs_diff(EACH) < EACH / 5, "{of} of 2^{power}");
        }
    }

    #[test]
    fn rows_of_one_thread_give_figures_and_every_object_back() {
        let mut ram = Ram::new(64 << 20);
        let desk = subjects::boot_desk(subjects::desk(&mut ram), 64 << 20).unwrap();
        let rows = [
            Work::Pair { size: 8 },
            Work::Pair { size: 64 << 10 },
            Work::Many { size: 64, shuffled: false },
            Work::Many { size: 1024, shuffled: true },
            Work::Mixed,
        ];
        for work in rows {
            let values = measure(&Kmalloc(&desk), work, 1, &Plan::TEST);
            assert!(!values.is_empty() && values.iter().all(|value| *value > 0.0), "{work:?}");
        }
        crate::heaps::settle(&desk);
        for cache in desk.caches() {
            // What the manager itself has of kmalloc: a record a slab, a magazine a cache.
            assert!(cache.active < 100, "{cache:?}");
        }
        assert_eq!(desk.platform().misuses(), 0);
        desk.verify().unwrap();
    }
}
