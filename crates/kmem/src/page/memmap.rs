//! All descriptors, and how a frame's is found.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use super::{Block, Descriptor};
use crate::platform::Frame;
use crate::{Order, Pfn, VirtAddr};

/// How many extents a memmap can have. A map of RAM with more holes has the smallest ones bridged
/// with descriptors.
pub const MAX_EXTENTS: usize = 64;

/// What kind of memory a page block is kept for, so that what can be moved or given back does not
/// mix with what cannot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
#[repr(u8)]
pub enum MigrateType {
    /// Stays where it is until it is freed.
    Unmovable = 0,
    /// Can be moved to other frames (A117).
    Movable = 1,
    /// Can be freed on demand (A112).
    Reclaimable = 2,
}

impl MigrateType {
    /// How many there are.
    pub const COUNT: usize = 3;

    /// All of them, in order.
    pub const ALL: [MigrateType; Self::COUNT] =
        [MigrateType::Unmovable, MigrateType::Movable, MigrateType::Reclaimable];

    /// The type with this number; larger ones are unmovable.
    #[inline]
    pub const fn from_index(index: u32) -> MigrateType {
        match index {
            1 => MigrateType::Movable,
            2 => MigrateType::Reclaimable,
            _ => MigrateType::Unmovable,
        }
    }

    /// The type as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name, as /proc/pagetypeinfo has it.
    pub const fn name(self) -> &'static str {
        match self {
            MigrateType::Unmovable => "Unmovable",
            MigrateType::Movable => "Movable",
            MigrateType::Reclaimable => "Reclaimable",
        }
    }
}

/// A run of frames that have descriptors.
///
/// # Invariants
///
/// `descriptors` points to `frames` descriptors and `types` to one byte for each page block, both
/// for as long as the memmap lives; `start` and `frames` are multiples of the largest block. The
/// bytes are numbers of [`MigrateType`]s.
#[derive(Clone, Copy)]
// A power of two, so that an index becomes an address with one shift.
#[repr(align(32))]
pub struct Extent {
    start: u32,
    frames: u32,
    descriptors: NonNull<Descriptor>,
    types: NonNull<AtomicU8>,
}

impl Extent {
    const EMPTY: Extent = Extent {
        start: 0,
        frames: 0,
        descriptors: NonNull::dangling(),
        types: NonNull::dangling(),
    };

    /// The first frame.
    pub fn start(&self) -> Pfn {
        Pfn::from_raw(self.start)
    }

    /// A frame's descriptor, or `None` where the frame is not of this extent.
    #[inline]
    pub fn descriptor(&self, pfn: Pfn) -> Option<&Descriptor> {
        let offset = pfn.raw().wrapping_sub(self.start);
        if offset < self.frames {
            // SAFETY: by the invariant there are `frames` descriptors.
            Some(unsafe { self.descriptors.add(offset as usize).as_ref() })
        } else {
            None
        }
    }

    /// The byte of a frame's page block.
    #[inline]
    fn type_cell(&self, offset: u32, page_block_order: Order) -> &AtomicU8 {
        debug_assert!(offset < self.frames);
        // SAFETY: by the invariant there is a byte for each page block of the frames; callers have
        // made sure that `offset` is below their number.
        unsafe { self.types.add((offset >> page_block_order.get()) as usize).as_ref() }
    }

    /// How many frames there are.
    pub fn frames(&self) -> u64 {
        u64::from(self.frames)
    }

    /// The frames, as numbers.
    pub fn range(&self) -> core::ops::Range<u64> {
        u64::from(self.start)..u64::from(self.start) + u64::from(self.frames)
    }
}

/// The descriptors of all frames.
///
/// # Invariants
///
/// The extents are sorted and disjoint; behind the last one, up to the end of the array, they are
/// empty. `index[i]` is the first extent that ends after frame `i << index_shift`, or `count` where
/// there is none: at most [`MAX_EXTENTS`]. `largest` are copies of the two largest extents.
pub struct Memmap {
    largest: [Extent; 2],
    index_shift: u32,
    count: u32,
    page_block_order: Order,
    index: [u8; 256],
    extents: [Extent; MAX_EXTENTS + 1],
}

// SAFETY: extents point to descriptors, which are made of atomics.
unsafe impl Sync for Memmap {}
// SAFETY: as above.
unsafe impl Send for Memmap {}

impl Memmap {
    /// A memmap without descriptors.
    pub const fn new(page_block_order: Order) -> Memmap {
        Memmap {
            largest: [Extent::EMPTY; 2],
            index_shift: 0,
            count: 0,
            page_block_order,
            index: [0; 256],
            extents: [Extent::EMPTY; MAX_EXTENTS + 1],
        }
    }

    /// Adds an extent behind those that are there. `false` where the memmap is full or the extent
    /// lies before the last one's end.
    ///
    /// # Safety
    ///
    /// `descriptors` points to one valid descriptor for each frame of `start..start + frames` and
    /// `types` to one zeroed byte for each page block of them, both for as long as the memmap
    /// lives and reached in no other way. `start` and `frames` are multiples of the largest block
    /// and of the page block.
    pub unsafe fn add(
        &mut self,
        start: Pfn,
        frames: u32,
        descriptors: NonNull<Descriptor>,
        types: NonNull<AtomicU8>,
    ) -> bool {
        let after = match self.extents().last() {
            Some(last) => last.range().end,
            None => 0,
        };
        if self.count as usize == MAX_EXTENTS || start.number() < after {
            return false;
        }
        self.extents[self.count as usize] =
            Extent { start: start.raw(), frames, descriptors, types };
        self.count += 1;
        let added = self.extents[self.count as usize - 1];
        let [first, second] = self.largest;
        self.largest = if frames > first.frames {
            [added, first]
        } else if frames > second.frames {
            [first, added]
        } else {
            [first, second]
        };
        self.reindex();
        true
    }

    fn reindex(&mut self) {
        let end = self.extents().last().map_or(1, |last| last.range().end);
        // The smallest shift for which the last frame's cell is below 256.
        self.index_shift = (u64::BITS - (end - 1).leading_zeros()).saturating_sub(8);
        for cell in 0..self.index.len() {
            let first = (cell as u64) << self.index_shift;
            let extent = self.extents().iter().position(|e| e.range().end > first);
            self.index[cell] = extent.unwrap_or(self.count as usize) as u8;
        }
    }

    /// The extents, in order.
    pub fn extents(&self) -> &[Extent] {
        &self.extents[..self.count as usize]
    }

    /// The order of a page block: the grain at which frames are grouped by migrate type.
    #[inline]
    pub fn page_block_order(&self) -> Order {
        self.page_block_order
    }

    /// The extent of a frame, and its place in it.
    #[inline]
    fn find(&self, pfn: Pfn) -> Option<(&Extent, u32)> {
        // Nearly all frames of most machines: a PC's RAM lies below its devices and above 4 GiB. The
        // tests are predicted, where the way over the index would be waited for: two loads that
        // depend on each other (measured: 14 ns instead of 11 for a pair in the second extent).
        for extent in &self.largest {
            let offset = pfn.raw().wrapping_sub(extent.start);
            if offset < extent.frames {
                return Some((extent, offset));
            }
        }
        self.find_indexed(pfn)
    }

    #[inline(never)]
    fn find_indexed(&self, pfn: Pfn) -> Option<(&Extent, u32)> {
        let cell = *self.index.get((pfn.raw() >> self.index_shift) as usize)?;
        // SAFETY: by the invariant a cell is at most `MAX_EXTENTS`, and there is one more.
        let extent = unsafe { self.extents.get_unchecked(usize::from(cell)) };
        let offset = pfn.raw().wrapping_sub(extent.start);
        if offset < extent.frames { Some((extent, offset)) } else { self.find_further(pfn, cell) }
    }

    /// As [`Memmap::find`], where the cell's first extent is not the one: several may lie in a cell.
    #[cold]
    fn find_further(&self, pfn: Pfn, cell: u8) -> Option<(&Extent, u32)> {
        let extents = self.extents().get(usize::from(cell)..)?;
        let extent = extents.iter().find(|extent| extent.range().end > pfn.number())?;
        let offset = pfn.raw().checked_sub(extent.start)?;
        Some((extent, offset))
    }

    /// A frame's descriptor, or `None` for a frame that has none.
    #[inline]
    pub fn get(&self, pfn: Pfn) -> Option<&Descriptor> {
        let (extent, offset) = self.find(pfn)?;
        // SAFETY: `offset` is below `frames`, and by the extent's invariant there is a descriptor.
        Some(unsafe { extent.descriptors.add(offset as usize).as_ref() })
    }

    /// The descriptor of a frame of one of the two largest extents; `None` for all others.
    #[inline(always)]
    pub(crate) fn near(&self, frame: u64) -> Option<&Descriptor> {
        self.largest.iter().find_map(|extent| {
            let offset = frame.wrapping_sub(u64::from(extent.start));
            // SAFETY: by the extent's invariant there are so many descriptors.
            (offset < u64::from(extent.frames))
                .then(|| unsafe { extent.descriptors.add(offset as usize).as_ref() })
        })
    }

    /// The descriptor of a frame that is known to have one.
    ///
    /// # Panics
    ///
    /// Where it has none: a link or a list of the manager is corrupt, and to go on would corrupt
    /// memory.
    #[inline]
    pub(crate) fn at(&self, pfn: Pfn) -> &Descriptor {
        match self.get(pfn) {
            Some(descriptor) => descriptor,
            None => no_descriptor(pfn),
        }
    }

    /// A frame that is known to have a descriptor, as trace events name it.
    pub(crate) fn frame(&self, pfn: Pfn) -> Frame {
        let descriptor = VirtAddr::new(core::ptr::from_ref(self.at(pfn)).addr());
        Frame { descriptor, pfn }
    }

    /// The extent that holds a frame's descriptor, for code that goes on to the frame's buddies:
    /// they are in the same one.
    #[inline]
    pub(crate) fn extent_of(&self, pfn: Pfn) -> Option<&Extent> {
        self.find(pfn).map(|(extent, _)| extent)
    }

    /// The migrate type of the frame's page block. Unmovable for a frame without a descriptor.
    #[inline]
    pub fn migrate_type(&self, pfn: Pfn) -> MigrateType {
        match self.find(pfn) {
            Some((extent, offset)) => read_type(extent.type_cell(offset, self.page_block_order)),
            None => MigrateType::Unmovable,
        }
    }

    /// The descriptor and the migrate type of the frame's page block, with one look-up.
    #[inline]
    pub(crate) fn get_with_type(&self, pfn: Pfn) -> Option<(&Descriptor, MigrateType)> {
        let (extent, offset) = self.find(pfn)?;
        let migrate_type = read_type(extent.type_cell(offset, self.page_block_order));
        // SAFETY: `offset` is below `frames`; by the extent's invariant there is a descriptor.
        Some((unsafe { extent.descriptors.add(offset as usize).as_ref() }, migrate_type))
    }

    /// The migrate type of the page block of a frame of this extent.
    #[inline]
    pub(crate) fn type_in(&self, extent: &Extent, pfn: Pfn) -> MigrateType {
        let offset = pfn.raw().wrapping_sub(extent.start);
        if offset < extent.frames {
            read_type(extent.type_cell(offset, self.page_block_order))
        } else {
            MigrateType::Unmovable
        }
    }

    /// Sets the migrate type of the frame's page block. Under the zone's lock, by the code that
    /// keeps free blocks on the lists of their types.
    pub(crate) fn set_migrate_type(&self, pfn: Pfn, migrate_type: MigrateType) {
        if let Some((extent, offset)) = self.find(pfn) {
            let cell = extent.type_cell(offset, self.page_block_order);
            cell.store(migrate_type as u8, Relaxed);
        }
    }

    /// The first frame of the block that the frame lies in and what that block is: for a frame
    /// inside a free or used block, its head. At most one look-up for each order.
    pub fn head(&self, pfn: Pfn) -> Option<(Pfn, Block)> {
        let block = self.get(pfn)?.block();
        if !matches!(block, Block::Interior | Block::Tail) {
            return Some((pfn, block));
        }
        for order in 1..Order::COUNT as u32 {
            let head = Pfn::from_raw(pfn.raw() & !((1u32 << order) - 1));
            let Some(descriptor) = self.get(head) else { break };
            if let Block::Free(size) | Block::Used(size) | Block::Compound(size) =
                descriptor.block()
                && size.get() >= order
            {
                return Some((head, descriptor.block()));
            }
        }
        Some((pfn, block))
    }
}

/// The type that a page block's byte says.
#[inline]
fn read_type(cell: &AtomicU8) -> MigrateType {
    let number = cell.load(Relaxed);
    debug_assert!(usize::from(number) < MigrateType::COUNT);
    // SAFETY: by the extent's invariant the bytes are numbers of migrate types: they begin as 0 and
    // are written by `set_migrate_type` alone.
    unsafe { core::mem::transmute::<u8, MigrateType>(number) }
}

#[cold]
#[inline(never)]
fn no_descriptor(pfn: Pfn) -> ! {
    panic!("kmem: {pfn:?} is on a list and has no descriptor: the memmap or a list is corrupt")
}
