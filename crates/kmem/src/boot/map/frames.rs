//! The map in page frames: sorted, disjoint lists in fixed arrays.

use core::fmt;

use super::MAX_REGIONS;
use crate::{NodeId, Order, PfnRange};

/// How many extents a [`Normalised`] has at most. Looking up a frame's descriptor searches them.
pub const MAX_EXTENTS: usize = 64;

/// How many ranges can be carved at boot: a memmap for each extent, and as many tables again,
/// which is four for each node.
pub const MAX_CARVINGS: usize = 2 * MAX_EXTENTS;

/// How many disjoint pieces are reserved at most. One region of the map must be RAM. The others
/// have two ends each, and a piece begins at every end but the last. Carvings come on top.
pub(super) const MAX_RESERVED: usize = 2 * (MAX_REGIONS - 1) - 1 + MAX_CARVINGS;

/// Why a reserved frame is not handed out: who uses it (A012).
///
/// Where regions of several classes overlap, the class that comes first here wins: a frame that
/// the kernel image or the firmware also uses must not be released with the late ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ReservedClass {
    /// The manager's own tables, carved at boot.
    Metadata,
    /// The kernel image: static kernel code and data.
    Kernel,
    /// Firmware, devices, an initrd: anything that is not the manager's to hand out.
    Firmware,
    /// RAM that the manager was told to leave alone: above `mem=` (A257). It has no descriptors, for
    /// it is none of the manager's RAM.
    Unmanaged,
    /// What somebody took before there was a page allocator, for ever (A255).
    Kept,
    /// What somebody allocated before there was a page allocator (A247). It has descriptors, and can
    /// be released like [`ReservedClass::Late`] unless the machine keeps it (A252).
    Boot,
    /// RAM that the boot loader still uses. It has descriptors and can be released later.
    Late,
}

/// A [`PfnRange`] in half the space: no range ends above 2^32 - 1.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    fn range(self) -> PfnRange {
        u64::from(self.start)..u64::from(self.end)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ram {
    pub(super) span: Span,
    pub(super) node: NodeId,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Reservation {
    pub(super) span: Span,
    pub(super) class: ReservedClass,
    pub(super) name: &'static str,
}

/// A reserved range, as [`Normalised::reserved`] lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reserved {
    /// The frames.
    pub range: PfnRange,
    /// Who uses them.
    pub class: ReservedClass,
    /// What `/proc/iomem` calls them.
    pub name: &'static str,
}

/// A memory map in page frames: what each frame is before there is a page allocator.
///
/// It takes about 26 KiB and lies in fixed arrays, so it can be in a static.
///
/// # Invariants
///
/// - RAM is sorted and disjoint. Two entries that touch are of different nodes.
/// - Reserved ranges are sorted and disjoint. Two that touch differ in class or name. They may lie
///   outside RAM.
/// - Extents are sorted, do not touch, and start and end at blocks of the largest order. Every
///   frame of RAM is in one; two nodes may share one.
/// - No frame is above [`Pfn::MAX`](crate::Pfn::MAX).
#[derive(Clone, Debug)]
pub struct Normalised {
    /// A map of n regions has at most n of these.
    pub(super) ram: List<Ram, MAX_REGIONS>,
    /// One region of the map is RAM.
    pub(super) mapped: List<Span, { MAX_REGIONS - 1 }>,
    pub(super) reserved: List<Reservation, MAX_RESERVED>,
    pub(super) extents: List<Span, MAX_EXTENTS>,
    pub(super) bridged: u64,
}

impl Normalised {
    /// One without any memory, to be filled by
    /// [`MemoryMap::normalise_into`](super::MemoryMap::normalise_into).
    pub const fn new() -> Self {
        const NONE: Span = Span { start: 0, end: 0 };
        Normalised {
            ram: List::new(Ram { span: NONE, node: NodeId::ZERO }),
            mapped: List::new(NONE),
            reserved: List::new(Reservation { span: NONE, class: ReservedClass::Late, name: "" }),
            extents: List::new(NONE),
            bridged: 0,
        }
    }

    /// The RAM: each range and its node, in order.
    pub fn ram(&self) -> impl ExactSizeIterator<Item = (PfnRange, NodeId)> + '_ {
        self.ram.as_slice().iter().map(|ram| (ram.span.range(), ram.node))
    }

    /// Everything reserved, in order, in RAM and outside it, as `/proc/iomem` shows it. A range
    /// that crosses the end of RAM is one entry.
    pub fn reserved(&self) -> impl ExactSizeIterator<Item = Reserved> + '_ {
        self.reserved.as_slice().iter().map(|r| Reserved {
            range: r.span.range(),
            class: r.class,
            name: r.name,
        })
    }

    /// What is reserved of the RAM, in order: every range of [`Normalised::reserved`] cut to each
    /// range of RAM, with the node. The frames of [`ReservedClass::Late`] here are those that can
    /// be released.
    pub fn reserved_in_ram(&self) -> impl Iterator<Item = (Reserved, NodeId)> + '_ {
        self.ram().flat_map(move |(ram, node)| {
            self.reserved().filter_map(move |reserved| {
                let range = intersect(&reserved.range, &ram)?;
                Some((Reserved { range, ..reserved }, node))
            })
        })
    }

    /// The RAM that is not reserved: each longest range and its node, in order.
    pub fn free_ranges(&self) -> impl Iterator<Item = (PfnRange, NodeId)> + '_ {
        let mut ram = self.ram().peekable();
        let mut reserved = self.reserved().map(|reserved| reserved.range).peekable();
        let mut at = 0;
        core::iter::from_fn(move || {
            loop {
                let (range, node) = ram.peek()?;
                at = at.max(range.start);
                if at >= range.end {
                    ram.next();
                    continue;
                }
                while reserved.next_if(|reserved| reserved.end <= at).is_some() {}
                let start = at;
                let end = match reserved.peek() {
                    Some(reserved) if reserved.start <= at => {
                        at = reserved.end;
                        continue;
                    }
                    Some(reserved) => range.end.min(reserved.start),
                    None => range.end,
                };
                at = end;
                return Some((start..end, *node));
            }
        })
    }

    /// The frames that have descriptors, in order: at most [`MAX_EXTENTS`] ranges.
    pub fn extents(&self) -> impl ExactSizeIterator<Item = PfnRange> + '_ {
        self.extents.as_slice().iter().map(|extent| extent.range())
    }

    /// The frames that the boot loader has mapped, in order; all frames where it did not say.
    /// How far the direct map reaches is for the caller to know.
    pub fn mapped(&self) -> impl ExactSizeIterator<Item = PfnRange> + '_ {
        self.mapped.as_slice().iter().map(|mapped| mapped.range())
    }

    /// How many frames lie in holes that got descriptors only because there were more than
    /// [`MAX_EXTENTS`] extents.
    pub fn bridged_pages(&self) -> u64 {
        self.bridged
    }

    /// How many frames are RAM, reserved ones included.
    pub fn ram_pages(&self) -> u64 {
        self.ram().map(|(range, _)| range.end - range.start).sum()
    }

    /// How many frames of RAM are reserved, for any reason.
    pub fn reserved_pages(&self) -> u64 {
        self.reserved_in_ram().map(|(r, _)| r.range.end - r.range.start).sum()
    }

    /// From the first frame of RAM to the last, holes included (A039).
    pub fn span(&self) -> PfnRange {
        match self.ram.as_slice() {
            [] => 0..0,
            [first, .., last] => first.span.range().start..last.span.range().end,
            [only] => only.span.range(),
        }
    }

    /// Adds a range to the reserved ones. It must be free RAM. False where no more fit.
    pub(in crate::boot) fn reserve_metadata(
        &mut self,
        range: &PfnRange,
        name: &'static str,
    ) -> bool {
        let span = Span { start: range.start as u32, end: range.end as u32 };
        let class = ReservedClass::Metadata;
        insert_reserved(&mut self.reserved, Reservation { span, class, name })
    }
}

impl Default for Normalised {
    fn default() -> Self {
        Self::new()
    }
}

/// Adds a range that overlaps none, joined with neighbours of its class and name. False where the
/// list is full.
pub(super) fn insert_reserved(
    list: &mut List<Reservation, MAX_RESERVED>,
    new: Reservation,
) -> bool {
    let like_new = |r: &Reservation| r.class == new.class && r.name == new.name;
    let all = list.as_mut_slice();
    let at = all.partition_point(|r| r.span.end <= new.span.start);
    let (before, after) = all.split_at_mut(at);
    let left = before.last_mut().filter(|r| r.span.end == new.span.start && like_new(r));
    let right = after.first_mut().filter(|r| r.span.start == new.span.end && like_new(r));
    match (left, right) {
        (Some(left), Some(right)) => {
            left.span.end = right.span.end;
            list.remove(at);
        }
        (Some(left), None) => left.span.end = new.span.end,
        (None, Some(right)) => right.span.start = new.span.start,
        (None, None) => return list.insert(at, new),
    }
    true
}

/// Rounds RAM outward to whole blocks. Where that gives too many extents, the smallest gaps are
/// bridged, of equal ones the lowest; returns how many frames those have. Gaps can be chosen while
/// the extents come in: one that is not among the largest so far never will be.
pub(super) fn find_extents(ram: &[Ram], order: Order, out: &mut List<Span, MAX_EXTENTS>) -> u64 {
    let block = order.pages() as u32;
    let mut bridged = 0;
    out.clear();
    for Ram { span, .. } in ram {
        let start = span.start - span.start % block;
        // Cannot overflow: RAM ends at or below a block's end, which fits.
        let end = span.end.next_multiple_of(block);
        let extents = out.as_mut_slice();
        let Some(last) = extents.last_mut() else {
            out.push(Span { start, end });
            continue;
        };
        if start <= last.end {
            last.end = last.end.max(end);
            continue;
        }
        let new_gap = start - last.end;
        if extents.len() == MAX_EXTENTS {
            let gaps = extents.windows(2).map(|pair| pair[1].start - pair[0].end);
            match gaps.enumerate().min_by_key(|&(_, gap)| gap) {
                Some((left, gap)) if gap <= new_gap => {
                    bridged += u64::from(gap);
                    extents[left].end = extents[left + 1].end;
                    out.remove(left + 1);
                }
                _ => {
                    bridged += u64::from(new_gap);
                    extents[MAX_EXTENTS - 1].end = end;
                    continue;
                }
            }
        }
        out.push(Span { start, end });
    }
    bridged
}

/// The frames that are in both, or `None` where there are none.
pub(in crate::boot) fn intersect(a: &PfnRange, b: &PfnRange) -> Option<PfnRange> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (!both.is_empty()).then_some(both)
}

/// Up to `N` things in order, in place.
#[derive(Clone)]
pub(super) struct List<T, const N: usize> {
    items: [T; N],
    len: usize,
}

impl<T: Copy, const N: usize> List<T, N> {
    /// An empty list; `filler` is what the unused places hold.
    const fn new(filler: T) -> Self {
        List { items: [filler; N], len: 0 }
    }

    pub(super) fn as_slice(&self) -> &[T] {
        &self.items[..self.len]
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.items[..self.len]
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// False where the list is full.
    fn insert(&mut self, at: usize, item: T) -> bool {
        if self.len == N {
            return false;
        }
        self.items.copy_within(at..self.len, at + 1);
        self.items[at] = item;
        self.len += 1;
        true
    }

    /// Adds to a list whose length says that there is room.
    pub(super) fn push(&mut self, item: T) {
        let fits = self.insert(self.len, item);
        debug_assert!(fits, "a list of {N} is full");
    }

    fn remove(&mut self, at: usize) {
        self.items.copy_within(at + 1..self.len, at);
        self.len -= 1;
    }
}

impl<T: Copy + fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}
