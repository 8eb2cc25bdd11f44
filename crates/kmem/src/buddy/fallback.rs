//! Taking from another migrate type when one runs out.

use super::areas::{End, FreeAreas};
use crate::page::{Block, Memmap, MigrateType};
use crate::{Order, Pfn};

/// What was taken from another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stolen {
    /// The order of the block that was found.
    pub order: Order,
    /// The type that it had.
    pub from: MigrateType,
    /// Whether its page block changed to the type that was asked for.
    pub change_ownership: bool,
}

/// Whom a type takes from, in this order. Unmovable and reclaimable take from each other first:
/// both break up what movable pages could be compacted into.
const FALLBACKS: [[MigrateType; 2]; MigrateType::COUNT] = [
    [MigrateType::Reclaimable, MigrateType::Movable],
    [MigrateType::Reclaimable, MigrateType::Unmovable],
    [MigrateType::Unmovable, MigrateType::Movable],
];

/// Finds a block of another type that is large enough, and changes the type of its page block where
/// that pays. Answers on which type's list, and of which order, the block now is.
///
/// The cost is bounded by a page block, whatever the number of free blocks.
pub(super) fn steal(
    areas: &mut FreeAreas,
    map: &Memmap,
    order: Order,
    wanted: MigrateType,
) -> Option<(MigrateType, Order, Stolen)> {
    let (found, from) = largest(areas, order, wanted)?;
    let page_block = map.page_block_order();

    if found >= page_block {
        let first = areas.lists[found.index()][from.index()].first()?;
        retype_whole(areas, map, first, found, wanted);
        let stolen = Stolen { order: found, from, change_ownership: true };
        return Some((wanted, found, stolen));
    }
    // Below half a page block, movable pages are better off in somebody else's block than with a
    // block of their own: they can be moved out again. The others spoil every page block that they
    // get into, so they take over the one they are in as soon as half of it is free.
    if wanted != MigrateType::Movable || found.get() + 1 >= page_block.get() {
        let first = areas.lists[found.index()][from.index()].first()?;
        if take_over(areas, map, first, wanted) {
            let stolen = Stolen { order: found, from, change_ownership: true };
            return Some((wanted, areas.smallest(order, wanted)?, stolen));
        }
    }
    // Only one block: the smallest that will do.
    let (found, from) = smallest(areas, order, wanted)?;
    Some((from, found, Stolen { order: found, from, change_ownership: false }))
}

fn largest(areas: &FreeAreas, order: Order, wanted: MigrateType) -> Option<(Order, MigrateType)> {
    let mut best: Option<(Order, MigrateType)> = None;
    for from in FALLBACKS[wanted.index()] {
        let bits = areas.nonempty[from.index()] >> order.get();
        if bits != 0 {
            let found = Order::from_raw((order.get() + bits.ilog2()) as u8);
            if best.is_none_or(|(order, _)| found > order) {
                best = Some((found, from));
            }
        }
    }
    best
}

fn smallest(areas: &FreeAreas, order: Order, wanted: MigrateType) -> Option<(Order, MigrateType)> {
    FALLBACKS[wanted.index()]
        .into_iter()
        .filter_map(|from| Some((areas.smallest(order, from)?, from)))
        .min_by_key(|(order, _)| *order)
}

/// Changes the type of all page blocks of a free block, and moves the block to the new list.
fn retype_whole(
    areas: &mut FreeAreas,
    map: &Memmap,
    first: Pfn,
    order: Order,
    wanted: MigrateType,
) {
    let Some(descriptor) = map.get(first) else { return };
    areas.unlink(map, descriptor, order, map.migrate_type(first));
    let step = map.page_block_order().pages();
    for block in 0..order.pages() / step {
        map.set_migrate_type(Pfn::from_raw(first.raw() + (block * step) as u32), wanted);
    }
    areas.link(map, first, descriptor, order, wanted, End::Hot);
}

/// Where at least half of the page block around `inside` is free, changes its type and moves its
/// free blocks to the new lists. Answers whether it did.
fn take_over(areas: &mut FreeAreas, map: &Memmap, inside: Pfn, wanted: MigrateType) -> bool {
    let page_block = map.page_block_order();
    let first = Pfn::from_raw(inside.raw() & !(page_block.pages() as u32 - 1));
    let free: u64 = free_blocks(areas, map, first).map(|(_, order)| order.pages()).sum();
    if free * 2 < page_block.pages() || is_shared(areas, map, first) {
        return false;
    }
    for (pfn, order) in free_blocks(areas, map, first) {
        areas.unlink(map, map.at(pfn), order, map.migrate_type(pfn));
    }
    map.set_migrate_type(first, wanted);
    for (pfn, order) in free_blocks(areas, map, first) {
        areas.link(map, pfn, map.at(pfn), order, wanted, End::Hot);
    }
    true
}

/// Whether another zone has frames in a page block too. Such a one keeps its type: the other zone's
/// free blocks are on that type's lists, under another lock.
fn is_shared(areas: &FreeAreas, map: &Memmap, first: Pfn) -> bool {
    let frames = first.raw()..first.raw() + map.page_block_order().pages() as u32;
    frames
        .filter_map(|frame| map.get(Pfn::from_raw(frame)))
        .any(|descriptor| descriptor.zone() != areas.zone && !descriptor.is(Block::Hole))
}

/// The free blocks of this zone that begin in a page block.
fn free_blocks<'a>(
    areas: &FreeAreas,
    map: &'a Memmap,
    first: Pfn,
) -> impl Iterator<Item = (Pfn, Order)> + use<'a> {
    let zone = areas.zone;
    let end = first.raw() + map.page_block_order().pages() as u32;
    let mut at = first.raw();
    core::iter::from_fn(move || {
        while at < end {
            let pfn = Pfn::from_raw(at);
            let descriptor = map.get(pfn)?;
            if let Block::Free(order) = descriptor.block()
                && descriptor.zone() == zone
            {
                at += order.pages() as u32;
                return Some((pfn, order));
            }
            at += 1;
        }
        None
    })
}
