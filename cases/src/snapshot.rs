//! The free lists at a moment, to see whether they are the same later.

use kmem::Order;
use kmem::zone::MAX_ZONES;

use crate::failure::equal;
use crate::{Failure, Machine};

/// How many free blocks of each order each zone has, with all caches shrunk, all CPUs' lists
/// drained and no area that waits to be unmapped.
///
/// Blocks merge as far as they can, so that the same pages being free means the same counts.
pub struct Snapshot {
    blocks: [[u64; Order::COUNT]; MAX_ZONES],
    free: u64,
}

impl Snapshot {
    /// Unmaps what waits for that, shrinks all caches, drains all CPUs' lists, and looks. It means something only while nothing
    /// else allocates or frees.
    pub fn take<M: Machine>(machine: &M) -> Snapshot {
        let mm = machine.mm();
        mm.drain_stacks();
        mm.vm_unmap_aliases();
        // A slab that goes gives its record back, which may have been the last of another slab.
        while mm.shrink_caches() > 0 {}
        mm.drain_all_pages();
        let mut blocks = [[0; Order::COUNT]; MAX_ZONES];
        for (zone, row) in mm.zones().iter().zip(&mut blocks) {
            for (count, order) in row.iter_mut().zip((0..).map_while(Order::new)) {
                *count = mm.free_blocks(zone, order);
            }
        }
        Snapshot { blocks, free: mm.free_page_count() }
    }

    /// How many pages are free.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// How many free blocks of an order the zone with this index had.
    pub fn blocks(&self, zone: u8, order: u32) -> u64 {
        self.blocks[usize::from(zone)][order as usize]
    }

    /// Fails where `later` has other free blocks.
    ///
    /// # Errors
    ///
    /// The number of free pages, or else the first order of which there are more or fewer blocks.
    pub fn same(&self, later: &Snapshot) -> Result<(), Failure> {
        equal(later.free, self.free, "as many pages are free as before")?;
        for (before, after) in self.blocks.iter().flatten().zip(later.blocks.iter().flatten()) {
            equal(*after, *before, "the free lists are as before, for each zone and order")?;
        }
        Ok(())
    }
}
