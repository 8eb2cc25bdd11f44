//! Splitting and merging.

use super::fallback::{self, Stolen};
use crate::page::{Block, Descriptor, List, Memmap, MigrateType};
use crate::{Order, Pfn};

/// Which end of a list a freed block goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Allocated next: its contents are likely in the CPU's cache (A085).
    Hot,
    /// Allocated last.
    Cold,
}

/// Blocks that were taken from the free areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The first frame.
    pub first: Pfn,
    /// How many blocks of the order asked for begin there, one behind the other; at least 1.
    pub blocks: u32,
    /// Whose page block was stolen from, if that was needed.
    pub stolen: Option<Stolen>,
}

/// The free blocks of one zone. The folder's theory has its picture, invariants and locking.
pub struct FreeAreas {
    pub(super) lists: [[List; MigrateType::COUNT]; Order::COUNT],
    /// For each type, which orders have blocks: bit k for order k.
    pub(super) nonempty: [u32; MigrateType::COUNT],
    pub(super) largest: Order,
    pub(super) zone: u8,
    free: u64,
}

impl FreeAreas {
    /// Free areas without blocks.
    ///
    /// `largest` is the order that merging stops at; `zone` the index that the descriptors of the
    /// frames have.
    pub const fn new(largest: Order, zone: u8) -> FreeAreas {
        FreeAreas {
            lists: [[List::EMPTY; MigrateType::COUNT]; Order::COUNT],
            nonempty: [0; MigrateType::COUNT],
            largest,
            zone,
            free: 0,
        }
    }

    /// The number of free pages.
    #[inline]
    pub fn free(&self) -> u64 {
        self.free
    }

    /// How many free blocks of an order and type there are.
    #[inline]
    pub fn blocks(&self, order: Order, migrate_type: MigrateType) -> u64 {
        self.lists[order.index()][migrate_type.index()].len()
    }

    /// Frees a block: merges it with its buddy as often as that is free, and puts the result on the
    /// list of its page block's type. At most one step an order.
    ///
    /// The caller has made sure that the block is used, of this order, and of this zone.
    pub fn free_block(&mut self, map: &Memmap, pfn: Pfn, order: Order, end: End) {
        let Some(extent) = map.extent_of(pfn) else { return };
        let Some(mut descriptor) = extent.descriptor(pfn) else { return };
        self.free += order.pages();
        let (mut pfn, mut order) = (pfn, order);
        let mut migrate_type = map.type_in(extent, pfn);
        while order < self.largest {
            let buddy = Pfn::from_raw(pfn.raw() ^ order.pages() as u32);
            let Some(there) = extent.descriptor(buddy) else { break };
            if !there.is(Block::Free(order)) || there.zone() != self.zone {
                break;
            }
            // Buddies below the size of a page block are in the same one.
            let small = order < map.page_block_order();
            let its_type = if small { migrate_type } else { map.type_in(extent, buddy) };
            self.unlink(map, there, order, its_type);
            if buddy < pfn {
                // The block that is being freed is the upper half.
                descriptor.set_block(Block::Interior);
                (pfn, descriptor, migrate_type) = (buddy, there, its_type);
            } else {
                there.set_block(Block::Interior);
            }
            order = Order::from_raw(order.get() as u8 + 1);
        }
        self.link(map, pfn, descriptor, order, migrate_type, end);
    }

    /// Takes blocks of an order: one, or up to `most` that lie one behind the other where a larger
    /// block had to be split anyway. `None` where no block of any type is large enough.
    ///
    /// The frames' descriptors are left as `Interior`; the caller hands the blocks out.
    pub fn take(
        &mut self,
        map: &Memmap,
        order: Order,
        migrate_type: MigrateType,
        most: u32,
    ) -> Option<Taken> {
        if let Some(found) = self.smallest(order, migrate_type) {
            let (first, blocks) = self.split(map, found, migrate_type, order, most)?;
            return Some(Taken { first, blocks, stolen: None });
        }
        let (from, found, stolen) = fallback::steal(self, map, order, migrate_type)?;
        // One block only where the page block stays with its type: take no more than is asked for.
        let most = if stolen.change_ownership { most } else { 1 };
        let (first, blocks) = self.split(map, found, from, order, most)?;
        Some(Taken { first, blocks, stolen: Some(stolen) })
    }

    /// The smallest order of at least `order` that has a block of this type.
    #[inline]
    pub(super) fn smallest(&self, order: Order, migrate_type: MigrateType) -> Option<Order> {
        let candidates = self.nonempty[migrate_type.index()] >> order.get();
        if candidates == 0 {
            return None;
        }
        Some(Order::from_raw((order.get() + candidates.trailing_zeros()) as u8))
    }

    /// Takes the first block of order `found` and splits it, keeping the lower half each time,
    /// until it has the order asked for or is `most` blocks of it.
    fn split(
        &mut self,
        map: &Memmap,
        found: Order,
        migrate_type: MigrateType,
        order: Order,
        most: u32,
    ) -> Option<(Pfn, u32)> {
        let first = self.lists[found.index()][migrate_type.index()].first()?;
        let extent = map.extent_of(first)?;
        let descriptor = extent.descriptor(first)?;
        self.unlink(map, descriptor, found, migrate_type);
        descriptor.set_block(Block::Interior);

        // As many doublings of `order` as `most` allows.
        let keep = (order.get() + most.max(1).ilog2()).min(found.get());
        let mut half = found.get();
        while half > keep {
            half -= 1;
            let size = Order::from_raw(half as u8);
            let upper = Pfn::from_raw(first.raw() + size.pages() as u32);
            // A block of several page blocks may have several types.
            let half_type = if size >= map.page_block_order() {
                map.type_in(extent, upper)
            } else {
                migrate_type
            };
            self.link(map, upper, extent.descriptor(upper)?, size, half_type, End::Hot);
        }
        self.free -= 1 << keep;
        Some((first, 1 << (keep - order.get())))
    }

    /// Puts a block on a list and marks it free.
    #[inline]
    pub(super) fn link(
        &mut self,
        map: &Memmap,
        pfn: Pfn,
        descriptor: &Descriptor,
        order: Order,
        migrate_type: MigrateType,
        end: End,
    ) {
        descriptor.set_block(Block::Free(order));
        let list = &mut self.lists[order.index()][migrate_type.index()];
        match end {
            End::Hot => list.push_front(map, pfn, descriptor),
            End::Cold => list.push_back(map, pfn, descriptor),
        }
        self.nonempty[migrate_type.index()] |= 1 << order.get();
    }

    /// Takes a free block off the list that it is on: that of its page block's type.
    #[inline]
    pub(super) fn unlink(
        &mut self,
        map: &Memmap,
        descriptor: &Descriptor,
        order: Order,
        migrate_type: MigrateType,
    ) {
        let list = &mut self.lists[order.index()][migrate_type.index()];
        list.remove(map, descriptor);
        if list.is_empty() {
            self.nonempty[migrate_type.index()] &= !(1 << order.get());
        }
    }

    /// Pages that left the free areas other than by [`FreeAreas::take`].
    pub(super) fn account_removed(&mut self, pages: u64) {
        self.free -= pages;
    }
}
