//! The descriptor of one frame.

use super::{Block, Mark};
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::{Pfn, order::Order};

/// The descriptor of one frame; the folder's theory has its picture.
///
/// Every field is an atomic read and written with plain loads and stores: which code may write
/// which field when is the folder's matter, and a wrong call may race with a right one without
/// undefined behaviour.
///
/// # Invariants
///
/// All bytes zero is a valid descriptor: a hole.
#[repr(C, align(32))]
pub struct Descriptor {
    block: AtomicU8,
    zone: AtomicU8,
    mark: Mark,
    flags: AtomicU32,
    count: AtomicU32,
    map_count: AtomicU32,
    private: AtomicU64,
    next: AtomicU32,
    prev: AtomicU32,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Descriptor>() == 32 && align_of::<Descriptor>() == 32);

/// A state of a frame: one of 32 bits (A006).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageFlags {
    /// Somebody has the page to itself.
    Locked = 0,
    /// Its contents are newer than what they were read from.
    Dirty = 1,
    /// Its contents are good.
    Uptodate = 2,
    /// It has been used lately.
    Referenced = 3,
    /// It is on a list of pages by age.
    Lru = 4,
    /// It is on the active one of those.
    Active = 5,
    /// Its contents are being written out.
    Writeback = 6,
    /// It belongs to a slab (A018).
    Slab = 7,
    /// It belongs to a slab whose cache can be shrunk (A018).
    SlabReclaimable = 8,
    /// `private` is set (A009).
    Private = 9,
    /// `mapping` and `index` are set: page cache (A009).
    Mapping = 10,
    /// Its contents are in swap space too.
    SwapCache = 11,
    /// It is kept out of reclaim.
    Unevictable = 12,
    /// Its reader wants it freed soon.
    Reclaim = 13,
    /// The kernel image.
    Kernel = 14,
    /// The manager's own tables.
    Metadata = 15,
    /// Memory that becomes usable later.
    Late = 16,
    /// It went into user space.
    User = 17,
}

impl Descriptor {
    /// The descriptor of a hole.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Descriptor {
            block: AtomicU8::new(0),
            zone: AtomicU8::new(0),
            mark: Mark::new(),
            flags: AtomicU32::new(0),
            count: AtomicU32::new(0),
            map_count: AtomicU32::new(0),
            private: AtomicU64::new(0),
            next: AtomicU32::new(0),
            prev: AtomicU32::new(0),
        }
    }

    /// Says at boot what a frame of RAM is.
    pub(crate) fn init(&self, block: Block, zone: u8) {
        self.set_block(block);
        self.zone.store(zone, Relaxed);
    }

    /// What the frame is part of.
    #[inline]
    pub fn block(&self) -> Block {
        Block::decode(self.block.load(Relaxed))
    }

    /// Whether the frame is part of exactly this. One comparison.
    #[inline]
    pub fn is(&self, block: Block) -> bool {
        self.block.load(Relaxed) == block.encode()
    }

    #[inline]
    pub(crate) fn set_block(&self, block: Block) {
        self.block.store(block.encode(), Relaxed);
    }

    /// The index of the frame's zone.
    #[inline]
    pub fn zone(&self) -> u8 {
        self.zone.load(Relaxed)
    }

    /// Where the block is, for the first frame of a used one.
    #[inline]
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The number of references: 0 when free (A007).
    #[inline]
    pub fn count(&self) -> u32 {
        // Acquire pairs with the Release half of `decrement_count`: whoever sees that the other
        // references are gone sees what their holders did to the page.
        self.count.load(crate::sync::atomic::Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn set_count(&self, count: u32) {
        self.count.store(count, Relaxed);
    }

    /// Takes a reference.
    #[inline]
    pub(crate) fn increment_count(&self) {
        // Relaxed: who takes a reference holds one, which already orders its accesses.
        self.count.fetch_add(1, Relaxed);
    }

    /// Drops a reference and answers how many are left; `None` where there was none.
    #[inline]
    pub(crate) fn decrement_count(&self) -> Option<u32> {
        use crate::sync::atomic::Ordering::{AcqRel, Acquire};
        // AcqRel: pairs with the same of the other holders, so that whoever drops the last
        // reference sees all that they did to the page.
        self.count
            .fetch_update(AcqRel, Acquire, |count| count.checked_sub(1))
            .ok()
            .map(|before| before - 1)
    }

    /// In how many page tables the frame is.
    #[inline]
    pub fn map_count(&self) -> u32 {
        self.map_count.load(Relaxed)
    }

    /// Sets in how many page tables the frame is.
    #[inline]
    pub fn set_map_count(&self, count: u32) {
        self.map_count.store(count, Relaxed);
    }

    /// Whether the frame has a state.
    #[inline]
    pub fn has(&self, flag: PageFlags) -> bool {
        self.flags.load(Relaxed) & (1 << flag as u8) != 0
    }

    /// All states, one bit each.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags.load(Relaxed)
    }

    /// Gives the frame a state; answers whether it had it. Safe against other CPUs that change
    /// other states.
    pub fn set(&self, flag: PageFlags) -> bool {
        let bit = 1 << flag as u8;
        self.flags.fetch_or(bit, crate::sync::atomic::Ordering::AcqRel) & bit != 0
    }

    /// Takes a state away; answers whether the frame had it.
    pub fn clear(&self, flag: PageFlags) -> bool {
        let bit = 1 << flag as u8;
        self.flags.fetch_and(!bit, crate::sync::atomic::Ordering::AcqRel) & bit != 0
    }

    /// Takes all states and mappings away, for a frame that nobody uses any more.
    #[inline]
    pub(crate) fn reset(&self) {
        if self.flags.load(Relaxed) | self.map_count.load(Relaxed) != 0 {
            self.flags.store(0, Relaxed);
            self.map_count.store(0, Relaxed);
        }
    }

    /// The holder's own 64 bits, where it set them (A009).
    pub fn private(&self) -> Option<u64> {
        self.has(PageFlags::Private).then(|| self.private.load(Relaxed))
    }

    /// Makes the frame private data, with 64 bits of the holder's own; `None` undoes it.
    pub fn set_private(&self, value: Option<u64>) {
        self.clear(PageFlags::Mapping);
        self.private.store(value.unwrap_or(0), Relaxed);
        match value {
            Some(_) => self.set(PageFlags::Private),
            None => self.clear(PageFlags::Private),
        };
    }

    /// The mapping that the frame is page cache of, and its place in it, in pages (A009).
    pub fn mapping(&self) -> Option<(u32, u32)> {
        let value = self.private.load(Relaxed);
        self.has(PageFlags::Mapping).then_some(((value >> 32) as u32, value as u32))
    }

    /// Makes the frame page cache: a mapping's number and the place in it, in pages; `None` undoes
    /// it.
    pub fn set_mapping(&self, value: Option<(u32, u32)>) {
        self.clear(PageFlags::Private);
        let (mapping, index) = value.unwrap_or((0, 0));
        self.private.store(u64::from(mapping) << 32 | u64::from(index), Relaxed);
        match value {
            Some(_) => self.set(PageFlags::Mapping),
            None => self.clear(PageFlags::Mapping),
        };
    }

    // The views of the two links. Which one holds depends on `block`; each is used by the code
    // that owns frames of that kind.

    /// A list's next and previous frame, for the first frame of a free block.
    #[inline]
    pub(crate) fn links(&self) -> (u32, u32) {
        (self.next.load(Relaxed), self.prev.load(Relaxed))
    }

    #[inline]
    pub(crate) fn set_next(&self, frame: u32) {
        self.next.store(frame, Relaxed);
    }

    #[inline]
    pub(crate) fn set_prev(&self, frame: u32) {
        self.prev.store(frame, Relaxed);
    }

    /// The first frame of the compound block, for a tail of one.
    #[inline]
    pub(crate) fn compound_head(&self) -> Option<Pfn> {
        match self.block() {
            Block::Tail => Pfn::new(u64::from(self.next.load(Relaxed))),
            _ => None,
        }
    }

    /// Makes the frame a tail of the compound block at `head`.
    pub(crate) fn make_tail(&self, head: Pfn) {
        self.next.store(head.raw(), Relaxed);
        self.set_block(Block::Tail);
    }

    /// Hands the block out: it is used, of this order, with one reference, and held by a caller.
    #[inline]
    pub(crate) fn hand_out(&self, order: Order) {
        self.set_block(Block::Used(order));
        self.mark.set_held();
        self.set_count(1);
    }
}

#[cfg(not(loom))]
impl Default for Descriptor {
    fn default() -> Self {
        Self::new()
    }
}
