//! Checking every invariant of the free areas.

use core::fmt;

use super::areas::FreeAreas;
use crate::page::{Block, List, Memmap, MigrateType};
use crate::{Order, Pfn};

/// An invariant that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// What does not hold.
    pub what: &'static str,
    /// Where, if it is about a frame.
    pub pfn: Option<Pfn>,
    /// What was expected and what was found, if it is about a number.
    pub numbers: Option<(u64, u64)>,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        if let Some(pfn) = self.pfn {
            write!(f, ", at {pfn:?}")?;
        }
        if let Some((expected, found)) = self.numbers {
            write!(f, ", expected {expected}, found {found}")?;
        }
        Ok(())
    }
}

impl core::error::Error for Corruption {}

impl Corruption {
    pub(crate) fn at(what: &'static str, pfn: Pfn) -> Corruption {
        Corruption { what, pfn: Some(pfn), numbers: None }
    }

    pub(crate) fn count(what: &'static str, expected: u64, found: u64) -> Corruption {
        Corruption { what, pfn: None, numbers: Some((expected, found)) }
    }
}

impl FreeAreas {
    /// Checks the folder's invariants. Cost: all free frames.
    pub fn verify(&self, map: &Memmap) -> Result<(), Corruption> {
        let mut free = 0;
        for order in (0..Order::COUNT as u32).filter_map(Order::new) {
            for migrate_type in MigrateType::ALL {
                free += self.verify_list(map, order, migrate_type)? * order.pages();
            }
        }
        if free == self.free() {
            Ok(())
        } else {
            Err(Corruption::count("the number of free pages is wrong", free, self.free()))
        }
    }

    fn verify_list(
        &self,
        map: &Memmap,
        order: Order,
        migrate_type: MigrateType,
    ) -> Result<u64, Corruption> {
        let list = &self.lists[order.index()][migrate_type.index()];
        let bit = self.nonempty[migrate_type.index()] & (1 << order.get()) != 0;
        if bit == list.is_empty() {
            return Err(Corruption::count("a list's bit is wrong", list.len(), u64::from(bit)));
        }
        let mut blocks = 0;
        let mut last = List::NONE;
        for pfn in list.iter(map) {
            let descriptor = map.get(pfn).ok_or(Corruption::at("a list has no frame", pfn))?;
            if !descriptor.is(Block::Free(order)) {
                return Err(Corruption::at("a block on a list is not free with its order", pfn));
            }
            if !pfn.is_aligned(order) {
                return Err(Corruption::at("a free block is not aligned to its size", pfn));
            }
            if descriptor.links().1 != last {
                return Err(Corruption::at("a list's links disagree", pfn));
            }
            if map.migrate_type(pfn) != migrate_type {
                return Err(Corruption::at("a free block is on another type's list", pfn));
            }
            self.verify_block(map, pfn, order)?;
            last = pfn.raw();
            blocks += 1;
        }
        if blocks != list.len() || last != list.tail() {
            return Err(Corruption::count("a list's length or end is wrong", list.len(), blocks));
        }
        Ok(blocks)
    }

    fn verify_block(&self, map: &Memmap, head: Pfn, order: Order) -> Result<(), Corruption> {
        for frame in head.number()..head.number() + order.pages() {
            let pfn = Pfn::new(frame).ok_or(Corruption::at("a free block is too large", head))?;
            let descriptor =
                map.get(pfn).ok_or(Corruption::at("a free block has no descriptor", pfn))?;
            if descriptor.zone() != self.zone {
                return Err(Corruption::at("a free block crosses a zone", pfn));
            }
            if pfn != head && !descriptor.is(Block::Interior) {
                return Err(Corruption::at("a page inside a free block is not interior", pfn));
            }
        }
        let buddy = Pfn::from_raw(head.raw() ^ order.pages() as u32);
        if order < self.largest
            && let Some(there) = map.get(buddy)
            && there.is(Block::Free(order))
            && there.zone() == self.zone
        {
            return Err(Corruption::at("two free buddies were not merged", head));
        }
        Ok(())
    }
}
