//! The addresses that mappings have, and the areas among them that wait to be unmapped.

use core::ops::Range;
use core::panic::Location;

use super::areas::{Area, Areas, Place, Request};
use super::mapping::{Going, Mapping};

/// All addresses for mappings, and what each area of them is.
///
/// # Invariants
///
/// `going` and the `next_going` of the areas that it leads to are the areas that have been given back and
/// that nobody unmaps yet.
pub(crate) struct Space {
    areas: Areas<Mapping>,
    /// The area that was given back last.
    going: Option<Going>,
    page_shift: u32,
}

/// Why no area is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// There is none at the address.
    Nowhere,
    /// The address is inside of one.
    Inside,
    /// It has been given back.
    Going,
    /// It is of another kind.
    Kind,
}

impl Space {
    /// Without addresses.
    pub(crate) const fn new() -> Space {
        Space { areas: Areas::new(0..0), going: None, page_shift: 0 }
    }

    /// Takes over the addresses of a range, where there were none.
    pub(crate) fn open(&mut self, range: Range<usize>, page_shift: u32) {
        *self = Space { areas: Areas::new(range), going: None, page_shift };
    }

    /// The addresses.
    pub(crate) fn range(&self) -> Range<usize> {
        self.areas.range()
    }

    /// Takes addresses for a mapping, and for the pages before and behind it that nothing is mapped at;
    /// answers the first of all. `align` is in bytes, a power of two.
    ///
    /// # Errors
    ///
    /// There is no room: the mapping.
    ///
    /// # Safety
    ///
    /// `place` is memory for the area until [`Space::remove`] answers it, and nobody else uses it.
    pub(crate) unsafe fn reserve(
        &mut self,
        mapping: Mapping,
        align: usize,
        place: Place<Mapping>,
    ) -> Result<usize, Mapping> {
        let guards = mapping.kind.pages_before() + 1;
        let size =
            mapping.pages.checked_add(guards).and_then(|pages| pages.checked_shl(self.page_shift));
        let Some(size) = size.filter(|size| size >> self.page_shift > mapping.pages) else {
            return Err(mapping);
        };
        // SAFETY: the caller's promise.
        unsafe { self.areas.alloc(Request { size, align }, place, mapping) }
    }

    /// The area that an address is in, its guard pages included.
    pub(crate) fn find(&self, address: usize) -> Option<&Area<Mapping>> {
        self.areas.find_area(address)
    }

    /// The first area that begins at or above an address.
    pub(crate) fn at_or_above(&self, address: usize) -> Option<&Area<Mapping>> {
        self.areas.at_or_above(address)
    }

    /// The area that begins at an address, if it is such a one and still in use.
    pub(crate) fn check(
        &self,
        start: usize,
        is_wanted: impl Fn(&Mapping) -> bool,
    ) -> Result<&Area<Mapping>, Wrong> {
        let area = self.find(start).ok_or(Wrong::Nowhere)?;
        if area.range().start != start {
            return Err(Wrong::Inside);
        }
        if area.data.is_going {
            return Err(Wrong::Going);
        }
        if is_wanted(&area.data) { Ok(area) } else { Err(Wrong::Kind) }
    }

    /// Has the area at an address, which is in use, wait to be unmapped.
    pub(crate) fn retire(&mut self, start: usize) {
        if let Some(mapping) = self.areas.data_mut(start) {
            mapping.is_going = true;
            mapping.next_going = self.going.replace(Going { start, pages: mapping.pages });
        }
    }

    /// Takes the area that was given back last into use again, if it has so many pages and is such a one;
    /// answers its first address. It is mapped still, and nobody's.
    pub(crate) fn revive(
        &mut self,
        pages: usize,
        is_wanted: impl FnOnce(&Mapping) -> bool,
        caller: &'static Location<'static>,
    ) -> Option<usize> {
        let going = self.going.filter(|going| going.pages == pages)?;
        let mapping = self.areas.data_mut(going.start).filter(|mapping| is_wanted(mapping))?;
        self.going = mapping.next_going.take();
        mapping.is_going = false;
        mapping.caller = caller;
        Some(going.start)
    }

    /// Takes all areas that wait: the first address of one, which knows the next. Whoever has them unmaps
    /// them and removes them.
    pub(crate) fn take_going(&mut self) -> Option<Going> {
        self.going.take()
    }

    /// Marks an area that is in use as one that its holder takes apart at once.
    pub(crate) fn seize(&mut self, start: usize) {
        if let Some(mapping) = self.areas.data_mut(start) {
            mapping.is_going = true;
        }
    }

    /// Takes an area out: its addresses are free again.
    pub(crate) fn remove(&mut self, start: usize) -> Option<(Mapping, Place<Mapping>)> {
        let (area, place) = self.areas.free(start)?;
        Some((area.data, place))
    }

    /// How many areas there are, with those that wait.
    pub(crate) fn len(&self) -> usize {
        self.areas.len()
    }
}
