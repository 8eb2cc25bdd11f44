//! The memory map: what the boot loader says, and what the manager makes of it.
//!
//! A [`MemoryMap`] is in bytes, in any order, with overlaps. [`MemoryMap::normalise`] turns it into
//! page frames: sorted, disjoint lists in a [`Normalised`]. The *extents* are the frames that get
//! descriptors. Each is a run of blocks of the largest order, so that a frame and its buddy of any
//! order lie in one extent; a hole longer than what that rounding covers has no descriptors.
//!
//! ```text
//! blocks    |       |       |       |       |       |       |       |
//! ram         ############   #####                            #####
//! reserved        xxxx          xxxxxxxx
//! free        ####    ####   ###                              #####
//! extents   [----------------------)                        [------)
//!                         ^ small hole: described
//!                                             ^ large hole: no descriptors
//! ```

#![forbid(unsafe_code)]

use core::fmt;
use core::ops::Range;

use crate::{NodeId, Order, Pfn};

pub(super) use frames::intersect;
use frames::{List, MAX_RESERVED, Ram, Reservation, Span, find_extents, insert_reserved};
pub use frames::{MAX_CARVINGS, MAX_EXTENTS, Normalised, Reserved, ReservedClass};

mod frames;
#[cfg(test)]
mod tests;

/// How many regions a [`MemoryMap`] holds, of all kinds together. The maps of PC firmware have 10
/// to 130 entries.
pub const MAX_REGIONS: usize = 256;

/// At this shift the first address past the last frame still fits in 64 bits.
const MAX_PAGE_SHIFT: u32 = 32;

/// What is wrong with a memory map. Ranges are in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MapError {
    /// A region's end is not above its start.
    Empty {
        /// What the region was given as.
        kind: &'static str,
        /// The region.
        range: Range<u64>,
    },
    /// The map had [`MAX_REGIONS`] regions when this one was added.
    TooManyRegions {
        /// What the region was given as.
        kind: &'static str,
        /// The region.
        range: Range<u64>,
    },
    /// The page shift is not supported.
    PageShift {
        /// The page shift that was asked for.
        page_shift: u32,
    },
    /// A RAM region ends above the last frame that the manager can number.
    AboveLimit {
        /// The region.
        range: Range<u64>,
        /// The address at which RAM must end.
        limit: u64,
        /// The page shift that this limit follows from.
        page_shift: u32,
    },
    /// Two RAM regions of different nodes share memory.
    NodesOverlap {
        /// The region that was added first, and its node.
        first: (Range<u64>, NodeId),
        /// The region that was added later, and its node.
        second: (Range<u64>, NodeId),
    },
    /// There is no whole page of RAM.
    NoRam {
        /// The page shift.
        page_shift: u32,
    },
    /// A late region is not wholly RAM.
    LateOutsideRam {
        /// The late region.
        range: Range<u64>,
        /// Its first byte that is not RAM.
        at: u64,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { kind, range } => write!(
                f,
                "{kind} region {:#x}..{:#x} is empty: give an end above the start",
                range.start, range.end
            ),
            Self::TooManyRegions { kind, range } => write!(
                f,
                "{kind} region {:#x}..{:#x} is one more than the {MAX_REGIONS} that a memory map \
                 holds: join neighbouring regions",
                range.start, range.end
            ),
            Self::PageShift { page_shift } => write!(
                f,
                "page shift {page_shift} is above {MAX_PAGE_SHIFT}: give the base-two logarithm \
                 of the page size, 12 for 4 KiB"
            ),
            Self::AboveLimit { range, limit, page_shift } => write!(
                f,
                "ram region {:#x}..{:#x} ends above {limit:#x}, the limit of 32-bit frame numbers \
                 with pages of {} bytes: end it there, or use larger pages",
                range.start,
                range.end,
                1u64 << page_shift
            ),
            Self::NodesOverlap { first: (a, a_node), second: (b, b_node) } => write!(
                f,
                "ram region {:#x}..{:#x} of {a_node:?} overlaps {:#x}..{:#x} of {b_node:?}: give \
                 each byte one node",
                a.start, a.end, b.start, b.end
            ),
            Self::NoRam { page_shift } => write!(
                f,
                "no ram: add a ram region that holds a whole page of {} bytes",
                1u64 << page_shift
            ),
            Self::LateOutsideRam { range, at } => write!(
                f,
                "late region {:#x}..{:#x} is not ram from {at:#x}: add a ram region that holds \
                 it, or call it reserved",
                range.start, range.end
            ),
        }
    }
}

impl core::error::Error for MapError {}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ram(NodeId),
    Reserved(ReservedClass),
    Mapped,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Ram(_) => "ram",
            Kind::Reserved(ReservedClass::Kernel) => "kernel",
            Kind::Reserved(ReservedClass::Late) => "late",
            Kind::Reserved(ReservedClass::Boot | ReservedClass::Kept) => "boot",
            Kind::Reserved(ReservedClass::Unmanaged) => "unmanaged",
            Kind::Reserved(_) => "reserved",
            Kind::Mapped => "mapped",
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Region {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) kind: Kind,
    pub(super) name: &'static str,
}

/// The boot loader's description of physical memory, in bytes.
///
/// It is a builder: each call takes the map and gives it back. Regions may come unsorted, overlap,
/// touch, lie at any byte and leave holes. A call cannot fail: the first mistake is remembered and
/// comes out of [`MemoryMap::normalise`].
///
/// It takes about 10 KiB. All calls are `const`, so a map that is known when the kernel is built
/// can be a constant and costs no stack.
///
/// ```
/// use kmem::boot::map::MemoryMap;
/// use kmem::{NodeId, Order};
///
/// let map = MemoryMap::new()
///     .ram(0..0x9_fc00, NodeId::ZERO)
///     .ram(0x10_0000..0x800_0000, NodeId::ZERO)
///     .kernel(0x10_0000..0x28_0123, "Kernel image");
/// let frames = map.normalise(12, Order::new(10).unwrap())?;
/// assert_eq!(frames.ram_pages(), 0x9f + 0x7f00);
/// assert_eq!(frames.reserved_pages(), 0x181);
/// # Ok::<(), kmem::boot::map::MapError>(())
/// ```
///
/// # Invariants
///
/// Each region's end is above its start.
#[derive(Clone)]
pub struct MemoryMap {
    regions: [Region; MAX_REGIONS],
    len: usize,
    error: Option<MapError>,
}

impl MemoryMap {
    /// A map with nothing in it.
    pub const fn new() -> Self {
        const UNUSED: Region = Region { start: 0, end: 0, kind: Kind::Mapped, name: "" };
        MemoryMap { regions: [UNUSED; MAX_REGIONS], len: 0, error: None }
    }

    /// RAM in these bytes, on this node. RAM of one node may be given twice; a page that is not
    /// wholly RAM of one node is not used.
    pub const fn ram(self, range: Range<u64>, node: NodeId) -> Self {
        self.with(range, Kind::Ram(node), "")
    }

    /// Bytes that must not be handed out: firmware, an initrd, a device. This wins over RAM and
    /// may lie outside it. A page that it touches is reserved as a whole. `name` is what
    /// `/proc/iomem` shows.
    pub const fn reserved(self, range: Range<u64>, name: &'static str) -> Self {
        self.with(range, Kind::Reserved(ReservedClass::Firmware), name)
    }

    /// Bytes of the kernel image: as [`MemoryMap::reserved`], but the pages' owner is static
    /// kernel code (A012).
    pub const fn kernel(self, range: Range<u64>, name: &'static str) -> Self {
        self.with(range, Kind::Reserved(ReservedClass::Kernel), name)
    }

    /// RAM that the boot loader still uses and that can be released later. It must lie inside what
    /// [`MemoryMap::ram`] gives, which says its node.
    pub const fn late(self, range: Range<u64>) -> Self {
        self.with(range, Kind::Reserved(ReservedClass::Late), "Boot loader")
    }

    /// Bytes that the boot loader has mapped: the manager's tables are placed there and nowhere
    /// else. Where none are given, everything is.
    pub const fn mapped(self, range: Range<u64>) -> Self {
        self.with(range, Kind::Mapped, "")
    }

    const fn with(mut self, range: Range<u64>, kind: Kind, name: &'static str) -> Self {
        if self.error.is_some() {
            return self;
        }
        let Range { start, end } = range;
        if start >= end {
            self.error = Some(MapError::Empty { kind: kind.name(), range: start..end });
        } else if self.len == MAX_REGIONS {
            self.error = Some(MapError::TooManyRegions { kind: kind.name(), range: start..end });
        } else {
            self.regions[self.len] = Region { start, end, kind, name };
            self.len += 1;
        }
        self
    }

    /// The map in page frames, for pages of `2^page_shift` bytes and blocks up to `max_order`.
    ///
    /// Cost: quadratic in the number of regions; the size of memory does not matter. The result
    /// takes about 26 KiB; [`MemoryMap::normalise_into`] spares a small stack.
    ///
    /// # Errors
    ///
    /// The first mistake in the regions, or whatever of [`MapError`] they add up to. RAM must end
    /// at or below the last whole block of `max_order` whose frames are all at most [`Pfn::MAX`]:
    /// just under 16 TiB with pages of 4 KiB.
    pub fn normalise(&self, page_shift: u32, max_order: Order) -> Result<Normalised, MapError> {
        let mut frames = Normalised::new();
        self.normalise_into(page_shift, max_order, &mut frames)?;
        Ok(frames)
    }

    /// As [`MemoryMap::normalise`], into a place that the caller has, whose content is replaced.
    ///
    /// # Errors
    ///
    /// As [`MemoryMap::normalise`]; then `out` is as it was.
    pub fn normalise_into(
        &self,
        page_shift: u32,
        max_order: Order,
        out: &mut Normalised,
    ) -> Result<(), MapError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let grain = Grain::new(page_shift, max_order)?;
        self.check_limit(&grain)?;
        self.check_nodes()?;
        if self.merged_ram().all(|(ram, _)| grain.inward(ram).is_none()) {
            return Err(MapError::NoRam { page_shift });
        }
        self.check_late()?;

        out.ram.clear();
        for (bytes, node) in self.merged_ram() {
            if let Some(span) = grain.inward(bytes) {
                out.ram.push(Ram { span, node });
            }
        }
        out.mapped.clear();
        for (bytes, _) in self.merged(|kind| kind == Kind::Mapped) {
            if let Some(span) = grain.inward(bytes) {
                out.mapped.push(span);
            }
        }
        if self.regions().iter().all(|region| region.kind != Kind::Mapped) {
            out.mapped.push(Span { start: 0, end: grain.limit });
        }
        self.reserve(&grain, &mut out.reserved);
        out.bridged = find_extents(out.ram.as_slice(), max_order, &mut out.extents);
        Ok(())
    }

    /// What has been added so far, in that order.
    pub(super) fn regions(&self) -> &[Region] {
        &self.regions[..self.len]
    }

    /// For whoever keeps a map in an order of its own.
    pub(super) fn regions_mut(&mut self) -> &mut [Region] {
        &mut self.regions[..self.len]
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.error = None;
    }

    /// Adds a region at a place in the order. False where the map is full.
    pub(super) fn insert(&mut self, at: usize, region: Region) -> bool {
        if self.len == MAX_REGIONS {
            return false;
        }
        self.regions.copy_within(at..self.len, at + 1);
        self.regions[at] = region;
        self.len += 1;
        true
    }

    /// Takes a region away.
    pub(super) fn remove(&mut self, at: usize) {
        self.regions.copy_within(at + 1..self.len, at);
        self.len -= 1;
    }

    /// The first mistake in the regions.
    pub(super) fn mistake(&self) -> Option<&MapError> {
        self.error.as_ref()
    }

    fn check_limit(&self, grain: &Grain) -> Result<(), MapError> {
        let (limit, page_shift) = (grain.limit_bytes(), grain.page_shift);
        for region in self.regions() {
            if matches!(region.kind, Kind::Ram(_)) && region.end > limit {
                let range = region.start..region.end;
                return Err(MapError::AboveLimit { range, limit, page_shift });
            }
        }
        Ok(())
    }

    pub(super) fn check_nodes(&self) -> Result<(), MapError> {
        for (index, b) in self.regions().iter().enumerate() {
            for a in &self.regions()[..index] {
                let (Kind::Ram(a_node), Kind::Ram(b_node)) = (a.kind, b.kind) else { continue };
                if a_node != b_node && a.start < b.end && b.start < a.end {
                    return Err(MapError::NodesOverlap {
                        first: (a.start..a.end, a_node),
                        second: (b.start..b.end, b_node),
                    });
                }
            }
        }
        Ok(())
    }

    /// Checks bytes, not frames: a late region may share its last, partial page with the end of
    /// the RAM around it, and then that page simply is no RAM.
    fn check_late(&self) -> Result<(), MapError> {
        for late in self.regions() {
            if late.kind != Kind::Reserved(ReservedClass::Late) {
                continue;
            }
            let mut at = late.start;
            while let Some(ram) = self.regions().iter().find(|region| {
                matches!(region.kind, Kind::Ram(_)) && region.start <= at && at < region.end
            }) {
                at = ram.end;
            }
            if at < late.end {
                return Err(MapError::LateOutsideRam { range: late.start..late.end, at });
            }
        }
        Ok(())
    }

    /// The RAM in bytes, sorted, merged node by node. Merging comes before rounding: the page in
    /// which two regions of one node meet is whole.
    pub(super) fn merged_ram(&self) -> impl Iterator<Item = (Range<u64>, NodeId)> + '_ {
        self.merged(|kind| matches!(kind, Kind::Ram(_))).filter_map(|(bytes, kind)| match kind {
            Kind::Ram(node) => Some((bytes, node)),
            _ => None,
        })
    }

    /// The regions that `select` picks, sorted, with those of equal kind merged where they overlap
    /// or touch. Selected regions of unequal kind must not overlap. Each pass over the regions
    /// yields a range or absorbs a region, so all of it is quadratic.
    pub(super) fn merged(
        &self,
        select: fn(Kind) -> bool,
    ) -> impl Iterator<Item = (Range<u64>, Kind)> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let selected = || self.regions().iter().filter(|region| select(region.kind));
            let first = selected().filter(|r| r.start >= from).min_by_key(|r| r.start)?;
            let mut end = first.end;
            while let Some(longer) = selected().find(|r| {
                r.kind == first.kind && r.end > end && (first.start..=end).contains(&r.start)
            }) {
                end = longer.end;
            }
            from = end;
            Some((first.start..end, first.kind))
        })
    }

    /// Cuts the reserved regions, which may overlap, into disjoint pieces. Each goes from where one
    /// region starts or ends to where the next does, and to the class that wins there; among equals
    /// to the region that was added first.
    fn reserve(&self, grain: &Grain, out: &mut List<Reservation, MAX_RESERVED>) {
        out.clear();
        let all = || {
            self.regions().iter().filter_map(|region| {
                let Kind::Reserved(class) = region.kind else { return None };
                let span = grain.outward(region.start..region.end)?;
                Some(Reservation { span, class, name: region.name })
            })
        };
        let mut from = 0;
        loop {
            let ahead = all().filter(|r| r.span.end > from);
            let Some(start) = ahead.map(|r| r.span.start.max(from)).min() else { return };
            let covering = all().filter(|r| r.span.start <= start && start < r.span.end);
            let Some(winner) = covering.min_by_key(|r| r.class) else { return };
            let starts = all().map(|r| r.span.start).filter(|&other| other > start);
            let end = starts.fold(winner.span.end, u32::min);
            let fits = insert_reserved(out, Reservation { span: Span { start, end }, ..winner });
            debug_assert!(fits, "{MAX_RESERVED} pieces are reserved");
            from = end;
        }
    }
}

impl Default for MemoryMap {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for r in self.regions() {
            let (kind, name) = (r.kind.name(), r.name);
            list.entry(&format_args!("{kind} {:#x}..{:#x} {name:?}", r.start, r.end));
        }
        list.finish()
    }
}

/// How bytes become frames.
struct Grain {
    page_shift: u32,
    /// The first frame that RAM cannot have: frames from here on share a largest block with the
    /// number that means "no frame", so not all of them have buddies.
    limit: u32,
}

impl Grain {
    fn new(page_shift: u32, max_order: Order) -> Result<Grain, MapError> {
        if page_shift > MAX_PAGE_SHIFT {
            return Err(MapError::PageShift { page_shift });
        }
        let frames = Pfn::MAX.number() + 1;
        let limit = (frames - frames % max_order.pages()) as u32;
        Ok(Grain { page_shift, limit })
    }

    fn limit_bytes(&self) -> u64 {
        u64::from(self.limit) << self.page_shift
    }

    /// The frames that lie wholly in these bytes and below the limit.
    fn inward(&self, bytes: Range<u64>) -> Option<Span> {
        self.span(self.round_up(bytes.start), bytes.end >> self.page_shift)
    }

    /// The frames below the limit that these bytes touch.
    fn outward(&self, bytes: Range<u64>) -> Option<Span> {
        self.span(bytes.start >> self.page_shift, self.round_up(bytes.end))
    }

    fn round_up(&self, address: u64) -> u64 {
        let partial = address & ((1 << self.page_shift) - 1) != 0;
        (address >> self.page_shift) + u64::from(partial)
    }

    fn span(&self, start: u64, end: u64) -> Option<Span> {
        let end = end.min(u64::from(self.limit));
        (start < end).then_some(Span { start: start as u32, end: end as u32 })
    }
}
