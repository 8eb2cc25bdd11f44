//! Areas of a range of addresses: which are in use, and where there is room for one more.
//!
//! ```text
//!   range.start                                                          range.end
//!   | before |   area   |      gap      |  area  |gap|   area   |     gap     |
//! ```
//!
//! Every area knows the gap behind it, and the tree of areas knows the largest gap of each of its
//! subtrees. So the lowest gap that is large enough is found by going down the tree once, and so is the
//! area that an address is in.

use core::ops::Range;
use core::ptr::NonNull;

use super::tree::{Item, Node, Slot, Tree};

/// An area that is in use, and what its holder keeps of it.
#[derive(Debug)]
pub(crate) struct Area<T> {
    start: usize,
    size: usize,
    /// How much is free behind it.
    gap: usize,
    /// What its holder keeps.
    pub(crate) data: T,
}

impl<T> Area<T> {
    /// The addresses that it has.
    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.start + self.size
    }
}

impl<T> Item for Area<T> {
    fn key(&self) -> usize {
        self.start
    }

    fn weight(&self) -> usize {
        self.gap
    }
}

/// The memory that an area is kept in while it is in use.
pub(crate) type Place<T> = NonNull<Node<Area<T>>>;

/// All areas of a range.
pub(crate) struct Areas<T> {
    range: Range<usize>,
    /// How much is free before the first area.
    before: usize,
    tree: Tree<Area<T>>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// How many bytes; not 0.
    pub(crate) size: usize,
    /// Of what the address is to be a multiple: a power of two.
    pub(crate) align: usize,
}

impl<T> Areas<T> {
    /// A range without areas. Its end is below the end of the address space.
    pub(crate) const fn new(range: Range<usize>) -> Self {
        let before = range.end - range.start;
        Areas { range, before, tree: Tree::new() }
    }

    /// How many areas there are.
    pub(crate) fn len(&self) -> usize {
        self.tree.len()
    }

    /// The range.
    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Takes the lowest room that there is into use; answers its first address, or gives `data` back where
    /// there is none.
    ///
    /// Cost: logarithmic in the areas. A request that is aligned to more than all others, and that finds
    /// no gap that is large enough wherever it begins, looks at each gap that might do.
    ///
    /// # Errors
    ///
    /// There is no room.
    ///
    /// # Safety
    ///
    /// `place` is memory for the area until it is [freed](Areas::free), and nobody else uses it.
    pub(crate) unsafe fn alloc(
        &mut self,
        request: Request,
        place: Place<T>,
        data: T,
    ) -> Result<usize, T> {
        let Some((start, from)) = self.find(request) else { return Err(data) };
        let end = start + request.size;
        let gap_end = match from {
            None => {
                self.range.start + core::mem::replace(&mut self.before, start - self.range.start)
            }
            Some(key) => {
                let shrink = |area: &mut Area<T>| {
                    let behind = area.start + area.size;
                    behind + core::mem::replace(&mut area.gap, start - behind)
                };
                // It was found there just now.
                let Some(gap_end) = self.tree.change(key, shrink) else { return Err(data) };
                gap_end
            }
        };
        let area = Area { start, size: request.size, gap: gap_end - end, data };
        // SAFETY: the caller's promise.
        let node = unsafe { Slot::new(place, area) };
        if let Err(node) = self.tree.insert(node) {
            // No area begins inside a gap.
            return Err(node.into_parts().0.data);
        }
        Ok(start)
    }

    /// Takes the area that begins at an address out of use; answers it, and the memory that it was kept
    /// in.
    pub(crate) fn free(&mut self, start: usize) -> Option<(Area<T>, Place<T>)> {
        let (area, place) = self.tree.remove(start)?.into_parts();
        let room = area.size + area.gap;
        let below = start.checked_sub(1).and_then(|below| self.tree.at_or_below(below));
        match below.map(Item::key) {
            Some(key) => _ = self.tree.change(key, |area| area.gap += room),
            None => self.before += room,
        }
        Some((area, place))
    }

    /// The area that an address is in.
    pub(crate) fn find_area(&self, address: usize) -> Option<&Area<T>> {
        self.tree.at_or_below(address).filter(|area| area.range().contains(&address))
    }

    /// The first area that begins at or above an address.
    pub(crate) fn at_or_above(&self, address: usize) -> Option<&Area<T>> {
        self.tree.at_or_above(address)
    }

    /// What the holder keeps of the area that begins at an address.
    pub(crate) fn data_mut(&mut self, start: usize) -> Option<&mut T> {
        self.tree.get_mut(start).map(|area| &mut area.data)
    }

    /// How many levels the tree has.
    #[cfg(test)]
    pub(crate) fn levels(&self) -> u8 {
        self.tree.levels()
    }

    /// Where there is room, and the area that it lies behind, if there is one.
    fn find(&self, request: Request) -> Option<(usize, Option<usize>)> {
        let Request { size, align } = request;
        let fits = |gap: Range<usize>| {
            let start = gap.start.checked_next_multiple_of(align)?;
            (start.checked_add(size)? <= gap.end).then_some(start)
        };
        if let Some(start) = fits(self.range.start..self.range.start + self.before) {
            return Some((start, None));
        }
        // The lowest gap that is large enough wherever it begins, and a lower one that does as it lies.
        let sure = size.checked_add(align - 1)?;
        let sure = self.tree.first_of_weight(0, sure);
        let limit = sure.map_or(usize::MAX, Item::key);
        let mut from = 0;
        for _ in 0..TRIES {
            let Some(area) =
                self.tree.first_of_weight(from, size).filter(|area| area.start < limit)
            else {
                break;
            };
            let behind = area.start + area.size;
            if let Some(start) = fits(behind..behind + area.gap) {
                return Some((start, Some(area.start)));
            }
            from = area.start + 1;
        }
        let area = match sure {
            Some(area) => area,
            None => return self.find_slowly(from, size, fits),
        };
        let behind = area.start + area.size;
        fits(behind..behind + area.gap).map(|start| (start, Some(area.start)))
    }

    fn find_slowly(
        &self,
        mut from: usize,
        size: usize,
        fits: impl Fn(Range<usize>) -> Option<usize>,
    ) -> Option<(usize, Option<usize>)> {
        while let Some(area) = self.tree.first_of_weight(from, size) {
            let behind = area.start + area.size;
            if let Some(start) = fits(behind..behind + area.gap) {
                return Some((start, Some(area.start)));
            }
            from = area.start + 1;
        }
        None
    }
}

/// How many gaps below one that is large enough for certain are tried.
const TRIES: usize = 8;
