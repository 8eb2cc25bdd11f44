//! The descriptor of one frame.

use super::{Block, Mark, Place};
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use crate::{CpuId, MAX_NODES, NodeId, Pfn, order::Order};

/// The descriptor of one frame; the folder's theory has its picture.
///
/// Every field is an atomic, and all but the flags and the count are read and written with plain
/// loads and stores: which code may write which field when is the folder's matter, and a wrong call
/// may race with a right one without undefined behaviour.
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
    /// Memory that can become usable later.
    Late = 16,
    /// It went into user space.
    User = 17,
    /// For the first page of a block: some of the others have states of their own.
    Inner = 18,
    /// Its map count is not 0.
    Mapped = 19,
    /// A page of memory that kmalloc handed out and that is larger than its size classes; the first one
    /// says how large.
    Large = 20,
    /// A page of a slab of the manager's own: its descriptor says which.
    Objects = 21,
    /// A page of such a slab that is about to go: no object of it is freed the common way any more.
    Leaving = 22,
    /// For the first page of a block: it belongs to an area of vmalloc, which frees it.
    Vmalloc = 23,
    /// A page of per-CPU data; `private` says of which chunk.
    PerCpu = 24,
}

impl PageFlags {
    /// Whether whoever holds a page may set and clear the state as they like. The others say what
    /// the manager knows: they change with its own calls only.
    pub const fn is_holders(self) -> bool {
        use PageFlags::*;
        match self {
            Locked | Dirty | Uptodate | Referenced | Lru | Active | Writeback | SwapCache
            | Unevictable | Reclaim | User => true,
            Slab | SlabReclaimable | Private | Mapping | Kernel | Metadata | Late | Inner
            | Mapped | Large | Objects | Leaving | Vmalloc | PerCpu => false,
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// The states that a free has more to do for than to take them away.
    const TO_SETTLE: u32 = Self::Slab.bit()
        | Self::Inner.bit()
        | Self::Large.bit()
        | Self::Objects.bit()
        | Self::Vmalloc.bit()
        | Self::PerCpu.bit();
}

/// How many bits of a descriptor say which cache a slab is of.
const CACHE_BITS: u32 = 12;

const _: () = assert!(MAX_NODES <= 16);

/// What the descriptors of a slab's pages say of the slab.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlabView {
    /// The number of its cache, below [`MAX_CACHES`].
    pub(crate) cache: u16,
    /// The node that it lies on.
    pub(crate) node: NodeId,
    /// How far the first object is from the slab's start: a multiple of 8, below 512 KiB.
    pub(crate) colour: u32,
    /// The address of its record.
    pub(crate) record: usize,
}

/// All of that but the record, as it is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlabWord(u32);

impl SlabWord {
    /// The number of the cache.
    #[inline(always)]
    pub(crate) fn cache(self) -> u16 {
        (self.0 & ((1 << CACHE_BITS) - 1)) as u16
    }

    #[inline(always)]
    fn view(self, record: u64) -> SlabView {
        // Four bits: a node that there can be.
        let node = NodeId::new(self.0 >> CACHE_BITS & 0xf).unwrap_or(NodeId::ZERO);
        let (colour, record) = ((self.0 >> 16) * 8, record as usize);
        SlabView { cache: self.cache(), node, colour, record }
    }
}

/// References at which a count stays from then on: the page is never freed, but not freed while it
/// is used either. Half of what the field holds, so that as many CPUs as there can be, each past
/// its look, do not carry it round to 0.
const SATURATED: u32 = 1 << 31;

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

    /// The descriptor of a hole.
    #[cfg(loom)]
    pub fn new() -> Self {
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
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Where the block is, for the first frame of a used one.
    pub fn place(&self) -> Place {
        self.mark.place()
    }

    /// The number of references: 0 when free (A007).
    #[inline]
    pub fn count(&self) -> u32 {
        // Acquire pairs with the Release half of `decrement_count`: whoever sees that the other
        // references are gone sees what their holders did to the page.
        self.count.load(Acquire)
    }

    #[inline]
    pub(crate) fn set_count(&self, count: u32) {
        self.count.store(count, Relaxed);
    }

    /// Takes a reference. `false` where there are so many that they are no longer counted.
    #[inline]
    #[must_use]
    pub(crate) fn increment_count(&self) -> bool {
        // Relaxed: who takes a reference holds one, which already orders its accesses.
        let counted = self.count.fetch_add(1, Relaxed) < SATURATED - 1;
        if !counted {
            self.count.store(SATURATED, Relaxed);
        }
        counted
    }

    /// Takes a reference where there are some, and not so many that one more is not counted. Otherwise
    /// `false`, and nothing changes.
    #[must_use]
    pub(crate) fn try_increment_count(&self) -> bool {
        // Acquire, as in `count`: the block was handed out before.
        self.count
            .fetch_update(Acquire, Acquire, |count| {
                (1..SATURATED - 1).contains(&count).then(|| count + 1)
            })
            .is_ok()
    }

    /// Drops a reference and answers how many are left; `None` where there was none. Where they are
    /// no longer counted, that stays so.
    #[inline]
    pub(crate) fn decrement_count(&self) -> Option<u32> {
        // AcqRel: pairs with the same of the other holders, so that whoever drops the last
        // reference sees all that they did to the page.
        self.count
            .fetch_update(AcqRel, Acquire, |count| {
                if count >= SATURATED { Some(SATURATED) } else { count.checked_sub(1) }
            })
            .ok()
            .map(|before| before.saturating_sub(1))
    }

    /// In how many page tables the frame is.
    #[inline]
    pub fn map_count(&self) -> u32 {
        self.map_count.load(Relaxed)
    }

    pub(crate) fn set_map_count(&self, count: u32) {
        self.map_count.store(count, Relaxed);
        match count {
            0 => self.clear(PageFlags::Mapped),
            _ => self.set(PageFlags::Mapped),
        };
    }

    /// Counts a page table more that the frame is in. `false`, and nothing, where there are as many as can be
    /// counted.
    #[must_use]
    pub(crate) fn add_mapping(&self) -> bool {
        let count = self.map_count.fetch_update(Relaxed, Relaxed, |count| count.checked_add(1));
        if count.is_ok() {
            self.set(PageFlags::Mapped);
        }
        count.is_ok()
    }

    /// Counts a page table less. `false` where there is none to take away.
    #[must_use]
    pub(crate) fn drop_mapping(&self) -> bool {
        let count = self.map_count.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
        if count == Ok(1) {
            self.clear(PageFlags::Mapped);
            // Somebody may have counted one meanwhile, before the state was taken away.
            if self.map_count() > 0 {
                self.set(PageFlags::Mapped);
            }
        }
        count.is_ok()
    }

    /// Whether the frame has a state.
    #[inline]
    pub fn has(&self, flag: PageFlags) -> bool {
        self.flags.load(Relaxed) & flag.bit() != 0
    }

    /// All states, one bit each.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags.load(Relaxed)
    }

    /// Gives the frame a state; answers whether it had it. Safe against other CPUs that change
    /// other states.
    pub(crate) fn set(&self, flag: PageFlags) -> bool {
        self.flags.fetch_or(flag.bit(), AcqRel) & flag.bit() != 0
    }

    /// Takes a state away; answers whether the frame had it.
    pub(crate) fn clear(&self, flag: PageFlags) -> bool {
        self.flags.fetch_and(!flag.bit(), AcqRel) & flag.bit() != 0
    }

    /// Whether the block that begins here has states that a free must settle first.
    #[inline]
    pub(crate) fn is_to_settle(&self) -> bool {
        self.flags.load(Relaxed) & PageFlags::TO_SETTLE != 0
    }

    /// Whether the block that begins here is a slab, or other memory that the manager handed out as
    /// something else than pages, and so takes back as that.
    pub(crate) fn is_of_objects(&self) -> bool {
        self.has(PageFlags::Slab) || self.has(PageFlags::Vmalloc) || self.is_managers()
    }

    /// Whether the page is of objects that the manager hands out: what its descriptor says is not for
    /// whoever holds them to change.
    pub(crate) fn is_managers(&self) -> bool {
        self.has(PageFlags::Objects) || self.has(PageFlags::Large) || self.has(PageFlags::PerCpu)
    }

    /// Whether the block that begins here is an area of vmalloc's and no page of it has any other state.
    pub(crate) fn is_plain_vmalloc(&self) -> bool {
        self.flags.load(Acquire) == PageFlags::Vmalloc.bit()
    }

    /// Takes all states and mappings away, for a frame that nobody uses any more.
    #[inline]
    pub(crate) fn reset(&self) {
        if self.flags.load(Relaxed) != 0 {
            self.flags.store(0, Relaxed);
            self.map_count.store(0, Relaxed);
        }
    }

    /// As [`Descriptor::reset`], for the first frame of a block; or `false`, and nothing, where there
    /// is more to do before the block is freed. One load where there are no states.
    #[inline]
    pub(crate) fn reset_first(&self) -> bool {
        let clean = self.flags.load(Relaxed) == 0;
        clean
            || !self.is_to_settle() && {
                self.reset();
                true
            }
    }

    /// The holder's own 64 bits, where it set them (A009).
    pub fn private(&self) -> Option<u64> {
        self.has(PageFlags::Private).then(|| self.private.load(Relaxed))
    }

    /// Makes the frame private data, with 64 bits of the holder's own; `None` undoes it.
    pub(crate) fn set_private(&self, value: Option<u64>) {
        self.set_shared_field(value, PageFlags::Private, PageFlags::Mapping);
    }

    /// The mapping that the frame is page cache of, and its place in it, in pages (A009).
    pub fn mapping(&self) -> Option<(u32, u32)> {
        let value = self.private.load(Relaxed);
        self.has(PageFlags::Mapping).then_some(((value >> 32) as u32, value as u32))
    }

    /// Makes the frame page cache: a mapping's number and the place in it, in pages; `None` undoes
    /// it.
    pub(crate) fn set_mapping(&self, value: Option<(u32, u32)>) {
        let value = value.map(|(mapping, index)| u64::from(mapping) << 32 | u64::from(index));
        self.set_shared_field(value, PageFlags::Mapping, PageFlags::Private);
    }

    /// Sets the field that `private` shares with `mapping` and `index`, and which of them it is.
    fn set_shared_field(&self, value: Option<u64>, meaning: PageFlags, other: PageFlags) {
        self.clear(other);
        self.private.store(value.unwrap_or(0), Relaxed);
        match value {
            Some(_) => self.set(meaning),
            None => self.clear(meaning),
        };
    }

    /// Says of a page which slab it is of: which cache's, how far from the slab's start the first
    /// object is, in bytes, and the address of the slab's record.
    pub(crate) fn set_slab(&self, slab: SlabView) {
        let SlabView { cache, node, colour, record } = slab;
        self.private.store(record as u64, Relaxed);
        let owner = u32::from(cache) | node.get() << CACHE_BITS;
        self.map_count.store((colour / 8) << 16 | owner, Relaxed);
        self.set(PageFlags::Objects);
    }

    /// Whether [`Descriptor::set_slab`] said something, which then is seen.
    pub(crate) fn is_slab(&self) -> bool {
        // Acquire pairs with the Release in `set`.
        self.flags.load(Acquire) & PageFlags::Objects.bit() != 0
    }

    /// What [`Descriptor::set_slab`] said.
    #[inline(always)]
    pub(crate) fn slab(&self) -> SlabView {
        self.slab_word().view(self.private.load(Relaxed))
    }

    /// What the field says that has a slab's cache, whether the page is a slab's or not.
    #[inline(always)]
    pub(crate) fn slab_word(&self) -> SlabWord {
        SlabWord(self.map_count.load(Relaxed))
    }

    /// What [`Descriptor::set_slab`] said, of a slab of which objects may be freed the common way, if
    /// the field still says that.
    #[inline(always)]
    pub(crate) fn slab_in_use(&self, word: SlabWord) -> Option<SlabView> {
        const BOTH: u32 = PageFlags::Objects.bit() | PageFlags::Leaving.bit();
        // Acquire pairs with the Release in `set`: what `set_slab` wrote before is seen.
        if self.flags.load(Acquire) & BOTH != PageFlags::Objects.bit() || self.slab_word() != word {
            return None;
        }
        Some(word.view(self.private.load(Relaxed)))
    }

    /// Undoes [`Descriptor::set_slab`].
    pub(crate) fn clear_slab(&self) {
        self.clear(PageFlags::Objects);
        self.clear(PageFlags::Leaving);
        self.private.store(0, Relaxed);
        self.map_count.store(0, Relaxed);
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

    // From here on a block leaves the free areas. Its mark may be that of a free which came too late:
    // an entry of some CPU's list that is not good. So the mark is written before the block is, or
    // that CPU could see the block used and its own number still there.

    /// Hands the block out: it is used, of this order, with one reference, and held by a caller.
    #[inline]
    pub(crate) fn hand_out(&self, order: Order) {
        self.mark.set_held();
        self.set_count(1);
        self.begin_use(order);
    }

    /// Puts the block on a CPU's lists: it is used, of this order, and free.
    #[inline]
    pub(crate) fn hand_to_lists(&self, order: Order, cpu: CpuId) {
        self.mark.set_on_lists(cpu);
        self.begin_use(order);
    }

    #[inline]
    fn begin_use(&self, order: Order) {
        // Release pairs with the Acquire in `is_on_lists`: who sees the block used sees the mark.
        self.block.store(Block::Used(order).encode(), Release);
    }

    /// Whether an entry of a CPU's lists is good: the block is used, of this order, and on them.
    #[inline]
    pub(crate) fn is_on_lists(&self, order: Order, cpu: CpuId) -> bool {
        // Acquire pairs with the Release in `begin_use`.
        let block = self.block.load(Acquire);
        block == Block::Used(order).encode() && self.mark.is_on_lists_of(cpu)
    }
}

#[cfg(not(loom))]
impl Default for Descriptor {
    fn default() -> Self {
        Self::new()
    }
}
