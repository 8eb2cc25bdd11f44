//! Compound blocks: every page knows the first one (A113).

use super::Mm;
use crate::page::{Block, Memmap, Page};
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{Order, Pfn};

/// Makes a block that was just handed out compound. Cost: a store for each page.
pub(super) fn make(memmap: &Memmap, head: Pfn, order: Order) {
    for frame in head.raw() + 1..head.raw() + order.pages() as u32 {
        memmap.at(Pfn::from_raw(frame)).make_tail(head);
    }
    memmap.at(head).set_block(Block::Compound(order));
}

/// Makes a compound block an ordinary one again, before it is freed.
pub(super) fn dissolve(memmap: &Memmap, head: Pfn, order: Order) {
    for frame in head.raw() + 1..head.raw() + order.pages() as u32 {
        memmap.at(Pfn::from_raw(frame)).set_block(Block::Interior);
    }
    memmap.at(head).set_block(Block::Used(order));
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// The first page of the compound block that a page is part of; the page itself where it is
    /// part of none (A113). Any context; one load of the descriptor.
    #[inline]
    pub fn compound_head(&self, page: Page) -> Page {
        self.tables()
            .and_then(|tables| tables.memmap.get(page.pfn())?.compound_head())
            .map_or(page, Page::of)
    }

    /// The order of the compound block that a page is the first of; 0 for every other page (A113).
    #[inline]
    pub fn compound_order(&self, page: Page) -> Order {
        match self.tables().and_then(|tables| tables.memmap.get(page.pfn())) {
            Some(descriptor) => match descriptor.block() {
                Block::Compound(order) => order,
                _ => Order::ZERO,
            },
            None => Order::ZERO,
        }
    }
}
