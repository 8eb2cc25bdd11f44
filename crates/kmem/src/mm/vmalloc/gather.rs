//! Gathering frames for an area: the largest blocks that there are.

use core::ptr::NonNull;

use super::super::{Mm, compound};
use crate::page::{Block, Memmap, Page, PageFlags};
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::vmalloc::{FEW, Run, Runs};
use crate::{AllocError, GFP_KERNEL, GFP_NOFS, GFP_NOIO, Gfp, NodeId, Order, Pfn};

/// Which frames an area is to have.
#[derive(Clone, Copy)]
pub(super) struct Frames {
    pub(super) gfp: Gfp,
    pub(super) node: Option<NodeId>,
}

/// Blocks that have been gathered, in order, each of which knows the next by its descriptor's link, which
/// is nobody else's while the block is in use.
pub(super) struct Chain {
    ends: Option<(Pfn, Pfn)>,
    blocks: usize,
}

impl Chain {
    /// The first frames of the blocks, and their orders.
    fn iter<'m>(&self, memmap: &'m Memmap) -> impl Iterator<Item = (Pfn, Order)> + use<'m> {
        let mut next = self.ends.map(|(first, _)| first);
        let last = self.ends.map(|(_, last)| last);
        (0..self.blocks).map_while(move |_| {
            let pfn = next?;
            let descriptor = memmap.at(pfn);
            // The link of the last one has not been written.
            next = (Some(pfn) != last).then(|| Pfn::from_raw(descriptor.links().0));
            match descriptor.block() {
                Block::Used(order) | Block::Compound(order) => Some((pfn, order)),
                _ => None,
            }
        })
    }
}

impl Frames {
    /// With which flags an area of these is kept note of: those of the frames, as far as they say what may be
    /// done to have memory.
    pub(super) fn for_notes(&self) -> Gfp {
        if self.gfp.may_fs() {
            GFP_KERNEL
        } else if self.gfp.may_io() {
            GFP_NOFS
        } else {
            GFP_NOIO
        }
    }
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Gathers so many frames. A block of more than one is compound, so that any page of it can be
    /// referred to; each knows that it is an area's.
    pub(super) fn gather(&self, pages: usize, frames: Frames) -> Result<Chain, AllocError> {
        let tables = self.tables().ok_or(AllocError::NotBooted)?;
        let Frames { gfp, node } = frames;
        // To reclaim for a large block would be waste: smaller ones do as well.
        let at_hand = (gfp - (Gfp::DIRECT_RECLAIM | Gfp::IO | Gfp::FS)) | Gfp::NOWARN;
        let mut chain = Chain { ends: None, blocks: 0 };
        let (mut left, mut largest) = (pages, tables.largest);
        while left > 0 {
            let order = Order::new(left.ilog2()).map_or(largest, |fits| fits.min(largest));
            let gfp = if order == Order::ZERO { gfp | Gfp::NOWARN } else { at_hand };
            match self.alloc_pages_node(node, gfp, order.get()) {
                Ok(page) => {
                    let pfn = page.pfn();
                    if order > Order::ZERO {
                        compound::make(&tables.memmap, pfn, order);
                    }
                    tables.memmap.at(pfn).set(PageFlags::Vmalloc);
                    chain.ends = match chain.ends {
                        None => Some((pfn, pfn)),
                        Some((first, last)) => {
                            tables.memmap.at(last).set_next(pfn.raw());
                            Some((first, pfn))
                        }
                    };
                    chain.blocks += 1;
                    left -= order.pages() as usize;
                }
                Err(error) => match Order::new(order.get().wrapping_sub(1)) {
                    Some(smaller) => largest = smaller,
                    None => {
                        self.scatter(&chain);
                        return Err(error);
                    }
                },
            }
        }
        Ok(chain)
    }

    /// Gives gathered frames back.
    pub(super) fn scatter(&self, chain: &Chain) {
        let Some(tables) = self.tables() else { return };
        for (pfn, order) in chain.iter(&tables.memmap) {
            self.free_block(pfn, order);
        }
    }

    /// Frees a block of an area; where somebody else refers to it, with their reference.
    pub(super) fn free_block(&self, pfn: Pfn, order: Order) {
        let Some(tables) = self.tables() else { return };
        tables.memmap.at(pfn).clear(PageFlags::Vmalloc);
        // SAFETY: the block is the area's, with this order, and nothing is mapped any more.
        unsafe { self.__free_pages(Page::of(pfn), order.get()) };
    }

    /// Gathered frames as the runs of an area: a block is one.
    pub(super) fn runs_of(&self, chain: &Chain, gfp: Gfp) -> Result<Runs, AllocError> {
        let tables = self.tables().ok_or(AllocError::NotBooted)?;
        let mut at = 0;
        let runs = chain.iter(&tables.memmap).map(|(first, order)| {
            let run = Run { first, at };
            at += order.pages() as u32;
            run
        });
        self.collect(runs, chain.blocks, gfp)
    }

    /// So many runs, of which there is one at least.
    pub(super) fn collect(
        &self,
        mut runs: impl Iterator<Item = Run>,
        count: usize,
        gfp: Gfp,
    ) -> Result<Runs, AllocError> {
        if count <= FEW {
            let nothing = Run { first: Pfn::from_raw(0), at: 0 };
            let few = core::array::from_fn(|_| runs.next().unwrap_or(nothing));
            return Ok(Runs::Few(few, count as u8));
        }
        let bytes = count.checked_mul(size_of::<Run>()).ok_or(AllocError::ZeroSize)?;
        let place: NonNull<Run> = self.kvmalloc(bytes, gfp)?.cast();
        for (index, run) in runs.take(count).enumerate() {
            // SAFETY: the memory is for `count` of them.
            unsafe { place.add(index).write(run) };
        }
        Ok(Runs::Many(place, count))
    }

    /// Frees what the runs of an area are kept in.
    pub(super) fn free_runs(&self, runs: Runs) {
        if let Runs::Many(place, _) = runs {
            // SAFETY: it was allocated for the runs, which nobody uses any more.
            unsafe { self.kvfree(place.as_ptr().cast()) };
        }
    }
}
