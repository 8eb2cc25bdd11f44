//! Blocks that a case holds, and gives back by itself, also where it fails half-way.

use kmem::{Gfp, Mm, Page};

use crate::failure::check;
use crate::{Failure, FreeOnDemand, Machine};

/// One block.
pub(crate) struct Block<'m, M: Machine> {
    mm: &'m Mm<M::P, FreeOnDemand>,
    page: Page,
    order: u32,
}

impl<'m, M: Machine> Block<'m, M> {
    /// Allocates a block; fails where there is none.
    #[track_caller]
    pub(crate) fn new(machine: &'m M, gfp: Gfp, order: u32) -> Result<Self, Failure> {
        let page = machine.mm().alloc_pages(gfp, order)?;
        Ok(Block { mm: machine.mm(), page, order })
    }

    /// Owns a block.
    ///
    /// # Safety
    ///
    /// The block is in use with this order and is the caller's.
    pub(crate) unsafe fn own(machine: &'m M, page: Page, order: u32) -> Self {
        Block { mm: machine.mm(), page, order }
    }

    pub(crate) fn page(&self) -> Page {
        self.page
    }

    pub(crate) fn order(&self) -> u32 {
        self.order
    }

    /// The first frame's number.
    pub(crate) fn frame(&self) -> u64 {
        self.page.pfn().number()
    }

    /// Frees the block now.
    pub(crate) fn free(self) {}

    /// The block is freed by somebody else.
    pub(crate) fn into_page(self) -> Page {
        let page = self.page;
        core::mem::forget(self);
        page
    }

    /// Hands the block to the machine's reclaimer.
    #[track_caller]
    pub(crate) fn supply(self) -> Result<(), Failure> {
        // SAFETY: the block is this value's, which is forgotten where it is taken.
        let taken = unsafe { self.mm.reclaim().supply(self.page, self.order) };
        if taken {
            core::mem::forget(self);
        }
        check(taken, "the reclaimer has room for a block")
    }
}

impl<M: Machine> Drop for Block<'_, M> {
    fn drop(&mut self) {
        // SAFETY: the block is this value's.
        unsafe { self.mm.__free_pages(self.page, self.order) };
    }
}

/// Any number of blocks: all that a machine has, if need be.
///
/// There is no heap to keep a list in, so each block's descriptor keeps, as its private data, the
/// block that came before it.
pub(crate) struct Hoard<'m, M: Machine> {
    machine: &'m M,
    last: Option<(Page, u32)>,
    blocks: u64,
    pages: u64,
}

const ORDER_BITS: u32 = 4;

impl<'m, M: Machine> Hoard<'m, M> {
    pub(crate) fn new(machine: &'m M) -> Self {
        Hoard { machine, last: None, blocks: 0, pages: 0 }
    }

    pub(crate) fn push(&mut self, block: Block<'m, M>) {
        let order = block.order();
        let page = block.into_page();
        let before = self
            .last
            .map_or(0, |(page, order)| (page.pfn().number() + 1) << ORDER_BITS | u64::from(order));
        self.machine.mm().set_page_private(page, Some(before));
        self.last = Some((page, order));
        self.blocks += 1;
        self.pages += 1 << order;
    }

    pub(crate) fn pop(&mut self) -> Option<Block<'m, M>> {
        let (page, order) = self.last?;
        let mm = self.machine.mm();
        let before = mm.descriptor(page)?.private().unwrap_or(0);
        mm.set_page_private(page, None);
        self.last = (before >> ORDER_BITS)
            .checked_sub(1)
            .and_then(kmem::Pfn::new)
            .and_then(|pfn| mm.pfn_to_page(pfn))
            .map(|page| (page, (before & ((1 << ORDER_BITS) - 1)) as u32));
        self.blocks -= 1;
        self.pages -= 1 << order;
        // SAFETY: the block was put in by value and is taken out once.
        Some(unsafe { Block::own(self.machine, page, order) })
    }

    /// How many blocks it holds.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many pages they have.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// Allocates blocks until there is none, what is on this and other CPUs' lists included.
    /// Answers how many came.
    pub(crate) fn fill(&mut self, gfp: Gfp, order: u32) -> u64 {
        let mm = self.machine.mm();
        let before = self.blocks;
        loop {
            let mut came = false;
            while let Ok(page) = mm.alloc_pages(gfp, order) {
                // SAFETY: it was just allocated.
                self.push(unsafe { Block::own(self.machine, page, order) });
                came = true;
            }
            // Pages on lists are beyond the reach of a request that must leave a reserve in the
            // zone; once drained they count.
            mm.drain_all_pages();
            if !came {
                return self.blocks - before;
            }
        }
    }

    /// Frees those blocks whose first page `wanted` picks.
    pub(crate) fn free_if(&mut self, wanted: impl Fn(Page) -> bool) {
        let mut kept = Hoard::new(self.machine);
        while let Some(block) = self.pop() {
            if wanted(block.page()) {
                block.free();
            } else {
                kept.push(block);
            }
        }
        *self = kept;
    }

    /// Frees all of them.
    pub(crate) fn clear(&mut self) {
        while self.pop().is_some() {}
    }

    /// Calls `look` with each block, latest first, until it fails.
    pub(crate) fn each(
        &self,
        mut look: impl FnMut(Page, u32) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mm = self.machine.mm();
        let mut at = self.last;
        while let Some((page, order)) = at {
            look(page, order)?;
            let before = mm.descriptor(page).and_then(|d| d.private()).unwrap_or(0);
            at = (before >> ORDER_BITS)
                .checked_sub(1)
                .and_then(kmem::Pfn::new)
                .and_then(|pfn| mm.pfn_to_page(pfn))
                .map(|page| (page, (before & ((1 << ORDER_BITS) - 1)) as u32));
        }
        Ok(())
    }
}

impl<M: Machine> Drop for Hoard<'_, M> {
    fn drop(&mut self) {
        self.clear();
    }
}
