//! Taking a run of frames that no single block holds: any number, any alignment, within limits.

use super::areas::{End, FreeAreas};
use crate::page::{Block, Memmap};
use crate::{Order, Pfn};

impl FreeAreas {
    /// Takes `count` frames in a row, the first a multiple of `2^align`, all within `within`
    /// (frame numbers, half open) and all free. `None` where there is no such run.
    ///
    /// The frames' descriptors are left as `Interior`; the caller hands the frames out.
    ///
    /// Cost: a walk over the frames of `within` in steps of blocks. For drivers' buffers and not
    /// for fast paths.
    pub fn take_range(
        &mut self,
        map: &Memmap,
        count: u64,
        align: Order,
        within: core::ops::Range<u64>,
    ) -> Option<Pfn> {
        let first = self.find_range(map, count, align, within)?;
        let end = first.raw() + count as u32;
        let mut at = first.raw();
        while at < end {
            // By `find_range` the frame lies in a free block.
            let (head, Block::Free(order)) = map.head(Pfn::from_raw(at))? else { return None };
            self.unlink(map, map.at(head), order, map.migrate_type(head));
            self.account_removed(order.pages());
            map.at(head).set_block(Block::Interior);
            let block_end = head.raw() + order.pages() as u32;
            self.give_back(map, head.raw()..at);
            self.give_back(map, end.min(block_end)..block_end);
            at = block_end;
        }
        Some(first)
    }

    /// Frees a run of frames as the largest blocks that it consists of.
    pub fn give_back(&mut self, map: &Memmap, frames: core::ops::Range<u32>) {
        let mut at = frames.start;
        while at < frames.end {
            let left = frames.end - at;
            // The largest block that begins here and fits.
            let order = at.trailing_zeros().min(left.ilog2()).min(self.largest.get());
            let order = Order::from_raw(order as u8);
            self.free_block(map, Pfn::from_raw(at), order, End::Cold);
            at += order.pages() as u32;
        }
    }

    fn find_range(
        &self,
        map: &Memmap,
        count: u64,
        align: Order,
        within: core::ops::Range<u64>,
    ) -> Option<Pfn> {
        let align_up = |frame: u64| frame.next_multiple_of(align.pages());
        let mut start = align_up(within.start);
        let mut at = start;
        while start.checked_add(count)? <= within.end {
            if at >= start + count {
                return Pfn::new(start);
            }
            match self.free_until(map, Pfn::new(at)?) {
                Ok(end) => at = end,
                Err(resume) => {
                    start = align_up(resume);
                    at = start;
                }
            }
        }
        None
    }

    /// The end of the free block that a frame lies in; or where to look on, if it lies in none.
    fn free_until(&self, map: &Memmap, pfn: Pfn) -> Result<u64, u64> {
        let next = pfn.number() + 1;
        match map.head(pfn) {
            Some((head, Block::Free(order))) => {
                let end = head.number() + order.pages();
                if map.at(head).zone() == self.zone { Ok(end) } else { Err(end) }
            }
            Some((head, Block::Used(order) | Block::Compound(order))) => {
                Err(head.number() + order.pages())
            }
            Some(_) => Err(next),
            // Over a hole between extents at once.
            None => {
                let after = map.extents().iter().find(|e| e.range().start > pfn.number());
                Err(after.map_or(u64::MAX >> 1, |e| e.range().start))
            }
        }
    }
}
