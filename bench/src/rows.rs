//! What a row is; the rows of pages: what is measured, the goal for it, and how the work goes.

use std::hint::black_box;

use kmem::{GFP_KERNEL, Mm, Platform, Reclaim};

use crate::measure::{Plan, Samples, nanoseconds, shuffled};
use crate::peers::PageAllocator;

/// What a row of pages does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A block is allocated and freed, again and again.
    Pair {
        /// Of the block.
        order: u32,
    },
    /// `count` blocks are allocated, then freed.
    Bulk {
        /// Of each block.
        order: u32,
        /// How many are held at once.
        count: usize,
        /// Whether they are freed in a random order, or in the order of allocation.
        shuffled: bool,
    },
    /// A page is allocated cleared, and freed.
    Zeroed,
    /// What the allocator keeps for each page.
    Metadata,
    /// From a memory map to free pages.
    Boot,
}

/// A row of a table: `W` says what it does.
pub struct Row<W> {
    /// Its name, for people and for `--filter`.
    pub name: &'static str,
    /// What is done.
    pub work: W,
    /// What the figures are in.
    pub unit: &'static str,
    /// What kmem shall cost at most.
    pub goal: f64,
    /// What Linux 6.12 costs, measured natively on another machine: Cascade Lake at 2.5 GHz.
    pub linux: Option<f64>,
    /// Which figure counts against the goal.
    pub counts: Counts,
}

/// Which of a row's figures counts against its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// The least: what the code costs when nothing else disturbs it.
    Least,
    /// The median, for rows of two threads: where the host stops one of them the other is alone, and
    /// the least would be a figure of one thread.
    Median,
}

impl Counts {
    /// The figure that counts.
    pub fn figure(self, samples: &Samples) -> Option<f64> {
        match self {
            Counts::Least => samples.min(),
            Counts::Median => samples.median(),
        }
    }
}

/// Pages that the bulk rows of order 0 hold at once.
const PAGES: usize = 10_000;
/// Blocks that the bulk row of order 3 holds at once.
const SMALL_BLOCKS: usize = 1_000;
/// Blocks that the bulk row of order 9 holds at once: 1 GiB of the machine's 1.5.
const LARGE_BLOCKS: usize = 512;

const fn row(
    name: &'static str,
    work: Work,
    unit: &'static str,
    goal: f64,
    linux: f64,
) -> Row<Work> {
    Row { name, work, unit, goal, linux: Some(linux), counts: Counts::Least }
}

const fn time(name: &'static str, work: Work, goal: f64, linux: f64) -> Row<Work> {
    row(name, work, "ns", goal, linux)
}

const fn bulk(order: u32, count: usize, shuffled: bool) -> Work {
    Work::Bulk { order, count, shuffled }
}

/// All rows of pages.
pub const ROWS: [Row<Work>; 10] = [
    time("order-0 pair", Work::Pair { order: 0 }, 6.0, 57.0),
    time("order-0 fifo", bulk(0, PAGES, false), 18.0, 56.0),
    time("order-0 shuffled", bulk(0, PAGES, true), 25.0, 57.0),
    time("order-3 pair", Work::Pair { order: 3 }, 8.0, 71.0),
    time("order-3 fifo", bulk(3, SMALL_BLOCKS, false), 25.0, 117.0),
    time("order-9 pair", Work::Pair { order: 9 }, 30.0, 581.0),
    time("order-9 fifo", bulk(9, LARGE_BLOCKS, false), 54.0, 681.0),
    time("zeroed page", Work::Zeroed, 45.0, 221.0),
    row("metadata", Work::Metadata, "bytes/page", 32.0, 64.0),
    row("boot", Work::Boot, "ns/page", 5.0, 27.0),
];

/// Nanoseconds for an allocation and its free, a block after the other.
pub fn pair<A: PageAllocator>(allocator: &mut A, order: u32, plan: &Plan) -> Vec<f64> {
    allocator.settle();
    // Not a constant of the loop: the caller of a library may not know its order either.
    let order = black_box(order);
    plan.short(|| {
        let block = black_box(allocator.alloc(order)).expect("one block fits");
        // SAFETY: just allocated, with this order.
        unsafe { allocator.free(block, order) };
    })
}

/// Nanoseconds for an allocation and its free, many blocks at once. Where a seed is given they are
/// freed in the random order that it stands for.
pub fn many<A: PageAllocator>(
    allocator: &mut A,
    order: u32,
    count: usize,
    seed: Option<u64>,
    plan: &Plan,
) -> Vec<f64> {
    allocator.settle();
    let order = black_box(order);
    let turns = seed.map(|seed| shuffled(count, seed));
    let mut blocks: Vec<A::Block> =
        (0..count).map(|_| allocator.alloc(order).expect("all blocks fit")).collect();
    for block in &blocks {
        // SAFETY: allocated above, each met once.
        unsafe { allocator.free(*block, order) };
    }
    plan.repeat(|| {
        nanoseconds(|| {
            for slot in &mut blocks {
                *slot = allocator.alloc(order).expect("all blocks fit");
            }
            let mut free = |block: A::Block| {
                // SAFETY: called once for each block that was just allocated.
                unsafe { allocator.free(block, order) }
            };
            match &turns {
                // A permutation: each block is met once.
                Some(turns) => turns.iter().for_each(|turn| free(blocks[*turn])),
                None => blocks.iter().for_each(|block| free(*block)),
            }
        }) / count as f64
    })
}

/// Nanoseconds for a cleared page and its free.
pub fn zeroed<P: Platform, R: Reclaim>(mm: &Mm<P, R>, plan: &Plan) -> Vec<f64> {
    mm.drain_local_pages();
    plan.short(|| {
        let address = black_box(mm.get_zeroed_page(GFP_KERNEL)).expect("one page fits");
        // SAFETY: just allocated.
        unsafe { mm.free_page(address) };
    })
}
