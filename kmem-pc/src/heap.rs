//! The machine's own heap: a manager of its own, over memory set aside at boot.
//!
//! A kernel has one manager, and its collections live there. This machine is a laboratory as well: its
//! commands use up all that the manager has, and compare its free lists before and after. So what the
//! machine needs for itself, which is tasks, stacks, and the shell's words and lists, comes from another
//! manager that the commands do not see.

use core::ops::Range;

use kmem::{GlobalKmalloc, Mm};

use crate::paging;
use crate::platform::Pc;
use crate::start_info::Region;

/// The manager of the heap.
pub static HEAP: Mm<Pc> = Mm::new(Pc::new(paging::HEAP_MAPPINGS));

mod types {
    kmem::kernel_types!(super::HEAP: kmem::Mm<super::Pc>);
}

#[global_allocator]
static ALLOCATOR: GlobalKmalloc<types::Memory> = GlobalKmalloc::new_in(types::Memory);

/// The heap begins and ends at a block of the largest order.
const BLOCK: u64 = 4 << 20;

/// What each CPU takes of it: the stacks of two tasks and of its handlers, and what it keeps at hand.
const OF_A_CPU: u64 = 1 << 20;

/// The memory that is set aside: the end of the largest region, a sixteenth of it, and at least two
/// blocks and what the CPUs take. `None` where the region has no room for that, and as much again for the manager.
pub fn place(ram: impl Iterator<Item = Region>, cpus: u32) -> Option<Range<u64>> {
    let Region { start, end, .. } = ram.max_by_key(|region| region.end - region.start)?;
    let end = end / BLOCK * BLOCK;
    let least = (BLOCK + u64::from(cpus) * OF_A_CPU).next_multiple_of(BLOCK).max(2 * BLOCK);
    let size = (end.saturating_sub(start) / 16).next_multiple_of(BLOCK).max(least);
    (start + 2 * size <= end).then(|| end - size..end)
}
