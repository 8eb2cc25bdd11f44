//! A block that somebody holds, and the places where blocks change hands.

use core::sync::atomic::{AtomicU64, Ordering};

use kmem::{Mm, Page, Pfn, Platform, Reclaim, VirtAddr};

/// How a block was allocated, which says how it is freed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// By `alloc_pages` and its like.
    Pages = 0,
    /// By `__get_free_pages` and its like.
    Address = 1,
    /// By `alloc_pages_exact`.
    Exact = 2,
    /// By `alloc_contig_pages`.
    Contiguous = 3,
    /// By `alloc_pages` with `__GFP_COMP`.
    Compound = 4,
}

/// A block.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) pfn: Pfn,
    /// How many pages it has; a power of two but for `Exact` and `Contiguous`.
    pub(super) pages: u32,
    pub(super) kind: Kind,
    /// What its stamp is made of, besides the frame's number.
    pub(super) salt: u16,
}

/// How many bits of a packed block are for what.
const PFN_BITS: u32 = 32;
const PAGES_BITS: u32 = 15;
const KIND_BITS: u32 = 3;
const SALT_BITS: u32 = 13;
// One more says that there is a block at all.
const _: () = assert!(PFN_BITS + PAGES_BITS + KIND_BITS + SALT_BITS + 1 == u64::BITS);
const _: () = assert!(kmem::Order::LIMIT.pages() <= 1 << PAGES_BITS);

impl Held {
    /// The salts are 0 to one less than this.
    pub(super) const SALTS: u64 = 1 << SALT_BITS;

    /// How many bytes were asked for, for `Exact`: some less than whole pages.
    pub(super) fn exact_bytes(pages: u32, salt: u16, page_shift: u32) -> usize {
        let slack = usize::from(salt) & ((1 << page_shift) - 1);
        ((pages as usize) << page_shift) - slack
    }

    /// Frees it in the way that belongs to its kind.
    ///
    /// # Safety
    ///
    /// It is the caller's alone, and all that is in it was given by the allocation.
    pub(super) unsafe fn free<P: Platform, R: Reclaim>(self, mm: &Mm<P, R>) {
        let Some(page) = mm.pfn_to_page(self.pfn) else { return };
        let order = self.pages.ilog2();
        // SAFETY: the caller vouches for each of these.
        unsafe {
            match self.kind {
                Kind::Pages | Kind::Compound => mm.__free_pages(page, order),
                Kind::Contiguous => mm.free_contig_pages(page, u64::from(self.pages)),
                Kind::Address => mm.free_pages(address(mm, page), order),
                Kind::Exact => {
                    let bytes = Self::exact_bytes(self.pages, self.salt, P::PAGE_SHIFT);
                    mm.free_pages_exact(address(mm, page), bytes);
                }
            }
        }
    }

    fn pack(self) -> u64 {
        let mut word = 1;
        word = word << SALT_BITS | u64::from(self.salt);
        word = word << KIND_BITS | self.kind as u64;
        word = word << PAGES_BITS | u64::from(self.pages - 1);
        word << PFN_BITS | self.pfn.number()
    }

    fn unpack(mut word: u64) -> Option<Self> {
        let mut bits = |count: u32| {
            let field = word & ((1 << count) - 1);
            word >>= count;
            field
        };
        let pfn = Pfn::new(bits(PFN_BITS));
        let pages = bits(PAGES_BITS) as u32 + 1;
        let kind = match bits(KIND_BITS) {
            0 => Kind::Pages,
            1 => Kind::Address,
            2 => Kind::Exact,
            3 => Kind::Contiguous,
            _ => Kind::Compound,
        };
        let salt = bits(SALT_BITS) as u16;
        let there = bits(1) == 1;
        pfn.filter(|_| there).map(|pfn| Held { pfn, pages, kind, salt })
    }
}

/// The address of a block that was handed out as an address.
fn address<P: Platform, R: Reclaim>(mm: &Mm<P, R>, page: Page) -> VirtAddr {
    // It has one, or it would not have been handed out so. A wrong answer is reported by the free.
    mm.page_address(page).unwrap_or(VirtAddr::new(0))
}

/// Places where one CPU leaves blocks for another, or for an interrupt handler. Each is one word,
/// so that nobody waits.
pub(super) struct Mailbox {
    places: [AtomicU64; Mailbox::PLACES],
}

impl Mailbox {
    const PLACES: usize = 64;

    pub(super) fn new() -> Self {
        Mailbox { places: [const { AtomicU64::new(0) }; Self::PLACES] }
    }

    /// Leaves a block at a place, or gives it back where one lies there already.
    pub(super) fn post(&self, place: u64, held: Held) -> Result<(), Held> {
        // Release pairs with the Acquire in `take`: the taker sees the stamp.
        self.place(place)
            .compare_exchange(0, held.pack(), Ordering::Release, Ordering::Relaxed)
            .map(drop)
            .map_err(|_| held)
    }

    /// Takes the block that lies at a place.
    pub(super) fn take(&self, place: u64) -> Option<Held> {
        Held::unpack(self.place(place).swap(0, Ordering::Acquire))
    }

    /// Takes all there are.
    pub(super) fn take_all(&self) -> impl Iterator<Item = Held> {
        (0..Self::PLACES as u64).filter_map(|place| self.take(place))
    }

    fn place(&self, place: u64) -> &AtomicU64 {
        &self.places[place as usize % Self::PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_survives_being_packed() {
        for (number, pages, kind, salt) in [
            (0, 1, Kind::Pages, 0),
            (Pfn::MAX.number(), 1 << PAGES_BITS, Kind::Compound, Held::SALTS as u16 - 1),
            (0x1234_5678, 999, Kind::Exact, 4097),
        ] {
            let held = Held { pfn: Pfn::new(number).unwrap(), pages, kind, salt };
            let back = Held::unpack(held.pack()).unwrap();
            assert!(back.pfn == held.pfn && back.pages == pages);
            assert!(back.kind == kind && back.salt == salt);
        }
        assert!(Held::unpack(0).is_none());
    }

    #[test]
    fn a_place_holds_one_block() {
        let mailbox = Mailbox::new();
        let held = Held { pfn: Pfn::new(7).unwrap(), pages: 2, kind: Kind::Address, salt: 3 };
        assert!(mailbox.post(70, held).is_ok());
        assert!(mailbox.post(70, held).is_err());
        assert!(mailbox.take(70).is_some());
        assert!(mailbox.take(70).is_none());
        assert_eq!(mailbox.take_all().count(), 0);
    }
}
