//! Memory before there is a page allocator: the manager's own tables are carved out of the map,
//! from RAM that is not reserved and that the boot loader has mapped.
//!
//! ```text
//! ram       [---------------------------------)       [------------------)
//! reserved     [firmware)                                 [kernel)
//! mapped    [-------------------------)
//! after        [firmware)[memmap)                         [kernel)
//! ```

#![forbid(unsafe_code)]

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use super::map::{Normalised, intersect};
use crate::{NodeId, PfnRange};

/// Carves ranges of frames out of a normalised map, each of which is then a reserved range of the
/// class [`Metadata`](super::map::ReservedClass::Metadata): [`Normalised::free_ranges`] leaves it
/// out, and `/proc/iomem` can show it.
///
/// Nothing is given back: what is carved belongs to the manager for as long as it runs.
///
/// # Invariants
///
/// What was carved is RAM of one node, was mapped by the boot loader, and overlaps nothing that is
/// reserved.
#[derive(Debug)]
pub struct EarlyAlloc<'map> {
    map: &'map mut Normalised,
}

impl<'map> EarlyAlloc<'map> {
    /// Carves out of this map.
    pub fn new(map: &'map mut Normalised) -> Self {
        EarlyAlloc { map }
    }

    /// The map with what has been carved so far.
    pub fn map(&self) -> &Normalised {
        self.map
    }

    /// Carves `pages` frames inside `within`, the first a multiple of `align_pages`, from RAM that
    /// is mapped and not reserved.
    ///
    /// The lowest place that fits is taken, or the highest with `top_down`. A place on the node
    /// `prefer` is taken before any other, wherever it lies. `name` is what `/proc/iomem` shows;
    /// neighbours of one name become one entry. The frames' content is not touched.
    ///
    /// `None` where nothing fits, where `pages` or `align_pages` is 0, and where the list of
    /// reserved ranges is full, which cannot happen before
    /// [`MAX_CARVINGS`](super::map::MAX_CARVINGS) ranges are carved.
    ///
    /// Cost: the number of free ranges times that of mapped ranges.
    pub fn alloc(
        &mut self,
        name: &'static str,
        pages: u64,
        align_pages: u64,
        within: PfnRange,
        prefer: Option<NodeId>,
        top_down: bool,
    ) -> Option<PfnRange> {
        if pages == 0 || align_pages == 0 {
            return None;
        }
        let mut best: Option<(bool, u64)> = None;
        for (free, node) in self.map.free_ranges() {
            let Some(free) = intersect(&free, &within) else { continue };
            let preferred = prefer == Some(node);
            for mapped in self.map.mapped() {
                let Some(room) = intersect(&free, &mapped) else { continue };
                let Some(start) = place(room, pages, align_pages, top_down) else { continue };
                // Places come in ascending order.
                let better = best.is_none_or(|(best_preferred, _)| {
                    preferred && !best_preferred || preferred == best_preferred && top_down
                });
                if better {
                    best = Some((preferred, start));
                }
            }
        }
        let (_, start) = best?;
        let carved = start..start + pages;
        self.map.reserve_metadata(&carved, name).then_some(carved)
    }
}

/// The lowest or highest multiple of `align` in `room` that `pages` frames can start at.
pub(super) fn place(room: PfnRange, pages: u64, align: u64, top_down: bool) -> Option<u64> {
    let last = room.end.checked_sub(pages)?;
    let start =
        if top_down { last - last % align } else { room.start.checked_next_multiple_of(align)? };
    (room.start <= start && start <= last).then_some(start)
}
