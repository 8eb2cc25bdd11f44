//! Memory before there is a page allocator, for everybody: a memory map that is kept in order, out of
//! which bytes are allocated and to which they are given back.
//!
//! ```text
//!   memory    [---------- node 0 ----------)[---- node 1 ----)        [------)
//!   reserved     [firmware)[bootmem)    [kernel)                      [bootmem)
//!   mapped    [---------------------------------)
//!   free      [-)                   [---)       (not mapped: not looked at)
//! ```
//!
//! [`super::BootMem`] is what a kernel calls; this is the structure behind it. Bytes are the grain, so
//! that an allocation is as large as it says, and a part of one can be given back.
//!
//! Linux: `memblock`, with the names of its calls. There its tables grow, out of themselves; here they
//! have [`MAX_REGIONS`] places, as the boot loader's map has, and a full one is
//! an error. Here neighbours of one name and sort become one range, there neighbours with equal flags.

#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use core::fmt;
use core::ops::Range;

use super::early::place;
use super::map::{Kind, MAX_REGIONS, MapError, MemoryMap, Region, ReservedClass, intersect};
use crate::NodeId;

/// What `/proc/iomem` calls RAM above `mem=`.
const ABOVE: &str = "RAM above mem=";

/// Which bytes are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// How many.
    pub size: u64,
    /// The first one's address is a multiple of this.
    pub align: u64,
    /// They lie in here.
    pub within: Range<u64>,
    /// A place on this node is taken before any other, wherever it lies.
    pub prefer: Option<NodeId>,
    /// Whether the highest place that fits is taken, and not the lowest.
    pub top_down: bool,
    /// Whether they are never given back: [`Memblock::free`] refuses them, and they are not released
    /// after boot either.
    pub for_ever: bool,
}

impl Wanted {
    /// So many bytes at a multiple of `align`: anywhere, the lowest place first, to be freed one day.
    pub const fn new(size: u64, align: u64) -> Wanted {
        let within = 0..u64::MAX;
        Wanted { size, align, within, prefer: None, top_down: false, for_ever: false }
    }
}

/// Why a [`Memblock`] refused a call. It is as it was before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MemblockError {
    /// A size or an alignment of 0 was asked for, or a range without bytes was named.
    Empty,
    /// No place fits.
    NoRoom(Wanted),
    /// The table has no place for another range.
    Full,
    /// A byte of a range that was to be freed is not allocated.
    NotAllocated {
        /// The first such byte.
        at: u64,
    },
    /// All RAM lies above the limit.
    NoRam {
        /// The limit.
        limit: u64,
    },
    /// Memory above the limit has been allocated.
    InUse {
        /// Its first byte.
        at: u64,
    },
}

impl fmt::Display for MemblockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemblockError::Empty => f.write_str("a size or an alignment of 0 was asked for"),
            MemblockError::NoRoom(Wanted { size, align, within, .. }) => write!(
                f,
                "no mapped and unreserved ram in {:#x}..{:#x} has room for {size} bytes at a \
                 multiple of {align:#x}: ask for less, or with wider limits",
                within.start, within.end
            ),
            MemblockError::Full => write!(
                f,
                "the table of {MAX_REGIONS} ranges is full: allocate less often, or with \
                 neighbours under one name"
            ),
            MemblockError::NotAllocated { at } => {
                write!(f, "{at:#x} is not allocated: free what was allocated, and once")
            }
            MemblockError::NoRam { limit } => {
                write!(f, "all ram lies above the limit of {limit:#x}: give a higher one")
            }
            MemblockError::InUse { at } => write!(
                f,
                "{at:#x} is allocated and lies above the limit: set the limit before allocating"
            ),
        }
    }
}

impl core::error::Error for MemblockError {}

/// Why a range is not free, as [`Memblock::reserved`] lists it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReservedBytes {
    /// The bytes.
    pub range: Range<u64>,
    /// Who uses them.
    pub class: ReservedClass,
    /// What `/proc/iomem` calls them.
    pub name: &'static str,
}

/// A memory map that is kept in order, and what has been allocated out of it. Addresses are physical,
/// sizes in bytes.
///
/// It takes about 10 KiB, and a `const fn` makes it, so that it can be in a static. Cost of a call:
/// the number of ranges squared at worst; memory itself is not touched.
///
/// ```
/// use kmem::boot::memblock::{Memblock, Wanted};
/// use kmem::{MemoryMap, NodeId};
///
/// let mut blocks = Memblock::new();
/// blocks.load(&MemoryMap::new().ram(0..1 << 20, NodeId::ZERO).reserved(0..4096, "firmware"))?;
/// let ring = blocks.alloc("ring", &Wanted::new(100, 64))?;
/// let tables = blocks.alloc("tables", &Wanted { top_down: true, ..Wanted::new(300, 1) })?;
/// assert_eq!((ring, tables), (4096, (1 << 20) - 300));
/// blocks.free(ring + 50..ring + 100)?;
/// assert!(blocks.free(ring..ring + 100).is_err(), "the second half is free");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
///
/// `map` has `memory` regions of RAM, then `reserved` reserved ones, then those that are mapped. The
/// first two sorts are each sorted and disjoint; no two neighbours of one sort that touch are of one
/// kind and name.
pub struct Memblock {
    map: MemoryMap,
    memory: usize,
    reserved: usize,
}

impl Memblock {
    /// One without memory.
    pub const fn new() -> Memblock {
        Memblock { map: MemoryMap::new(), memory: 0, reserved: 0 }
    }

    /// Takes over a boot loader's map; what was there before is forgotten.
    ///
    /// # Errors
    ///
    /// The first mistake in the map, or [`MapError::TooManyRegions`] where its overlapping reserved
    /// regions have more pieces than there is room for. Then there is no memory.
    pub fn load(&mut self, map: &MemoryMap) -> Result<(), MapError> {
        self.map.clear();
        (self.memory, self.reserved) = (0, 0);
        if let Some(mistake) = map.mistake() {
            return Err(mistake.clone());
        }
        map.check_nodes()?;
        let loaded = self.load_checked(map);
        if loaded.is_err() {
            self.map.clear();
            (self.memory, self.reserved) = (0, 0);
        }
        loaded
    }

    fn load_checked(&mut self, map: &MemoryMap) -> Result<(), MapError> {
        let full = |kind: Kind, range: &Range<u64>| MapError::TooManyRegions {
            kind: kind.name(),
            range: range.clone(),
        };
        for (range, node) in map.merged_ram() {
            let kind = Kind::Ram(node);
            let (start, end) = (range.start, range.end);
            if !self.map.insert(self.memory, Region { start, end, kind, name: "" }) {
                return Err(full(kind, &range));
            }
            self.memory += 1;
        }
        // The classes in the order in which they win.
        let all = || map.regions().iter().filter(|r| matches!(r.kind, Kind::Reserved(_)));
        let mut class = all().map(class_of).min();
        while let Some(now) = class {
            for region in all().filter(|region| class_of(region) == now) {
                let range = region.start..region.end;
                if self.lay(range.clone(), now, region.name).is_err() {
                    return Err(full(region.kind, &range));
                }
            }
            class = all().map(class_of).filter(|other| *other > now).min();
        }
        for region in map.regions().iter().filter(|region| region.kind == Kind::Mapped) {
            if !self.map.insert(self.map.regions().len(), *region) {
                return Err(full(Kind::Mapped, &(region.start..region.end)));
            }
        }
        Ok(())
    }

    /// The map as it is now, for [`Mm::boot`](crate::Mm::boot): what is allocated is reserved in it.
    pub fn map(&self) -> &MemoryMap {
        &self.map
    }

    /// The RAM: each range and its node, in order.
    pub fn memory(&self) -> impl Iterator<Item = (Range<u64>, NodeId)> + '_ {
        self.map.regions()[..self.memory].iter().filter_map(|region| match region.kind {
            Kind::Ram(node) => Some((region.start..region.end, node)),
            _ => None,
        })
    }

    /// What is reserved or allocated, in order, in RAM and outside it.
    pub fn reserved(&self) -> impl Iterator<Item = ReservedBytes> + '_ {
        self.reserved_regions().iter().map(|region| ReservedBytes {
            range: region.start..region.end,
            class: class_of(region),
            name: region.name,
        })
    }

    /// The RAM that nobody has, mapped or not: each longest range of one node, in order.
    pub fn free_ranges(&self) -> impl Iterator<Item = (Range<u64>, NodeId)> + '_ {
        self.memory().flat_map(move |(ram, node)| {
            let mut at = ram.start;
            core::iter::from_fn(move || {
                let gap = self.gap(at..ram.end, |_| true)?;
                at = gap.end;
                Some((gap, node))
            })
        })
    }

    /// What lies in `within`, is mapped and nobody has: each longest range of one node, in order.
    pub(super) fn usable_ranges(
        &self,
        within: Range<u64>,
    ) -> impl Iterator<Item = Range<u64>> + '_ {
        let all_mapped = !self.map.regions().iter().any(|region| region.kind == Kind::Mapped);
        let free = self.free_ranges().filter_map(move |(free, _)| intersect(&free, &within));
        free.flat_map(move |free| {
            let mapped = self.map.merged(|kind| kind == Kind::Mapped).map(|(range, _)| range);
            mapped
                .chain(all_mapped.then_some(0..u64::MAX))
                .filter_map(move |mapped| intersect(&free, &mapped))
        })
    }

    /// Allocates bytes: `memblock_alloc` and its sisters (A247). Their content is not touched. `name`
    /// is what `/proc/iomem` calls them.
    ///
    /// # Errors
    ///
    /// [`MemblockError::Empty`], [`MemblockError::NoRoom`] or [`MemblockError::Full`].
    pub fn alloc(&mut self, name: &'static str, wanted: &Wanted) -> Result<u64, MemblockError> {
        if wanted.size == 0 || wanted.align == 0 {
            return Err(MemblockError::Empty);
        }
        let start = self.find(wanted).ok_or_else(|| MemblockError::NoRoom(wanted.clone()))?;
        let class = if wanted.for_ever { ReservedClass::Kept } else { ReservedClass::Boot };
        self.lay(start..start + wanted.size, class, name)?;
        Ok(start)
    }

    /// Where [`Memblock::alloc`] would put it.
    fn find(&self, wanted: &Wanted) -> Option<u64> {
        let mut best: Option<(bool, u64)> = None;
        let all_mapped = !self.map.regions().iter().any(|region| region.kind == Kind::Mapped);
        for (free, node) in self.free_ranges() {
            let Some(free) = intersect(&free, &wanted.within) else { continue };
            let preferred = wanted.prefer == Some(node);
            let mapped = self.map.merged(|kind| kind == Kind::Mapped).map(|(range, _)| range);
            for mapped in mapped.chain(all_mapped.then_some(0..u64::MAX)) {
                let Some(room) = intersect(&free, &mapped) else { continue };
                let start = place(room, wanted.size, wanted.align, wanted.top_down);
                let Some(start) = start else { continue };
                // Places come in ascending order.
                let better = best.is_none_or(|(best_preferred, _)| {
                    preferred && !best_preferred || preferred == best_preferred && wanted.top_down
                });
                if better {
                    best = Some((preferred, start));
                }
            }
        }
        best.map(|(_, start)| start)
    }

    /// Reserves bytes at an address, in RAM or outside it: `memblock_reserve`. What is reserved already
    /// stays whose it is, but for RAM that the boot loader holds, which is not released with the rest of
    /// that then.
    ///
    /// # Errors
    ///
    /// [`MemblockError::Empty`] or [`MemblockError::Full`].
    pub fn reserve(&mut self, range: Range<u64>, name: &'static str) -> Result<(), MemblockError> {
        self.lay(range, ReservedClass::Boot, name)
    }

    /// Gives bytes back, all or a part of what was allocated or reserved by one or more calls:
    /// `memblock_free` (A252).
    ///
    /// # Errors
    ///
    /// [`MemblockError::NotAllocated`] where any byte is not allocated, or is firmware's, the kernel's
    /// or somebody's for ever: then none is freed. [`MemblockError::Full`] where two parts of one
    /// range would remain and there is no place for the second; [`MemblockError::Empty`].
    pub fn free(&mut self, range: Range<u64>) -> Result<(), MemblockError> {
        if range.is_empty() {
            return Err(MemblockError::Empty);
        }
        let mut at = range.start;
        for region in self.reserved_regions() {
            if region.start <= at && at < region.end && class_of(region) == ReservedClass::Boot {
                at = region.end;
            }
        }
        if at < range.end {
            return Err(MemblockError::NotAllocated { at });
        }
        if self.splits(&range, ReservedClass::Boot) > self.room() {
            return Err(MemblockError::Full);
        }
        self.cut(&range, ReservedClass::Boot);
        Ok(())
    }

    /// Takes all RAM from `limit` on, rounded down to a page, out of the memory: `mem=` (A257). It is
    /// remembered, by whole pages of `2^page_shift` bytes, as [`ReservedClass::Unmanaged`], but for what
    /// somebody has of it; the boot loader keeps what it has there.
    ///
    /// # Errors
    ///
    /// [`MemblockError::NoRam`], [`MemblockError::Full`], or [`MemblockError::InUse`] where something
    /// up there has been allocated.
    pub fn limit_ram(&mut self, limit: u64, page_shift: u32) -> Result<(), MemblockError> {
        let page = 1u64.checked_shl(page_shift).ok_or(MemblockError::Empty)?;
        let limit = limit / page * page;
        if self.memory().next().is_none_or(|(first, _)| first.start >= limit) {
            return Err(MemblockError::NoRam { limit });
        }
        let above = |region: &&Region| region.end > limit;
        let in_use = |region: &&Region| above(region) && is_allocated(region);
        if let Some(region) = self.reserved_regions().iter().find(in_use) {
            return Err(MemblockError::InUse { at: region.start.max(limit) });
        }
        // Each range of RAM up there can become one more than the reserved ranges in it, and one range
        // of the boot loader's two. Some slots come free meanwhile: this is the most that it can take.
        let ram = self.memory().filter(|(range, _)| range.end > limit).count();
        if ram + self.reserved_regions().iter().filter(above).count() + 1 > self.room() {
            return Err(MemblockError::Full);
        }
        self.keep_late(limit);
        while let Some(last) = self.memory.checked_sub(1) {
            let Region { start, end, .. } = self.map.regions()[last];
            if end <= limit {
                break;
            }
            if start >= limit {
                self.map.remove(last);
                self.memory = last;
            } else {
                self.map.regions_mut()[last].end = limit;
            }
            let whole = start.max(limit).next_multiple_of(page)..end / page * page;
            // There is room, and a range without a whole page has nothing to remember.
            let _ = self.lay(whole, ReservedClass::Unmanaged, ABOVE);
        }
        Ok(())
    }

    /// What the boot loader holds above the limit stays its own: it is no RAM that could be released.
    fn keep_late(&mut self, limit: u64) {
        let late_above = |region: &Region| region.kind == LATE && region.end > limit;
        while let Some(index) = self.reserved_regions().iter().position(late_above) {
            let region = self.map.regions()[self.memory + index];
            self.map.remove(self.memory + index);
            self.reserved -= 1;
            if region.start < limit {
                self.add(Region { end: limit, ..region });
            }
            let kind = Kind::Reserved(ReservedClass::Firmware);
            self.add(Region { start: region.start.max(limit), kind, ..region });
        }
    }

    /// Writes what there is: a line for each range, with its bounds, which are both in it, its size, and
    /// its node or name.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn dump(&self, out: &mut (impl fmt::Write + ?Sized)) -> fmt::Result {
        let size = |range: &Range<u64>| range.end - range.start;
        let bytes: u64 = self.memory().map(|(range, _)| size(&range)).sum();
        writeln!(out, "memory: {} ranges, {bytes} bytes", self.memory)?;
        for (range, node) in self.memory() {
            let (start, last) = (range.start, range.end - 1);
            let node = node.get();
            writeln!(out, "  {start:#018x}-{last:#018x}, {} bytes, node {node}", size(&range))?;
        }
        let bytes: u64 = self.reserved().map(|reserved| size(&reserved.range)).sum();
        writeln!(out, "reserved: {} ranges, {bytes} bytes", self.reserved)?;
        for ReservedBytes { range, name, .. } in self.reserved() {
            let (start, last) = (range.start, range.end - 1);
            writeln!(out, "  {start:#018x}-{last:#018x}, {} bytes, {name}", size(&range))?;
        }
        Ok(())
    }

    fn reserved_regions(&self) -> &[Region] {
        &self.map.regions()[self.memory..self.memory + self.reserved]
    }

    /// How many more regions there can be.
    fn room(&self) -> usize {
        MAX_REGIONS - self.map.regions().len()
    }

    /// The first bytes of `within` that no reserved range has which `counts`, as far as that is so.
    fn gap(&self, within: Range<u64>, counts: impl Fn(&Region) -> bool) -> Option<Range<u64>> {
        let (mut start, mut end) = (within.start, within.end);
        for region in self.reserved_regions().iter().filter(|region| counts(region)) {
            if region.start <= start {
                start = start.max(region.end);
            } else {
                end = end.min(region.start);
                break;
            }
        }
        (start < end).then_some(start..end)
    }

    /// Makes bytes those of a class where no class that wins against it has them.
    fn lay(
        &mut self,
        range: Range<u64>,
        class: ReservedClass,
        name: &'static str,
    ) -> Result<(), MemblockError> {
        if range.is_empty() {
            return Err(MemblockError::Empty);
        }
        let kind = Kind::Reserved(class);
        let gives_way = |region: &Region| class < ReservedClass::Late && region.kind == LATE;
        // What merges needs no slot: counted for the everyday case, a range that lies in no other.
        let (mut slots, mut at) = (0, range.start);
        while let Some(gap) = self.gap(at..range.end, |region| !gives_way(region)) {
            let joins = self.reserved_regions().iter().any(|region| {
                (region.end == gap.start || region.start == gap.end)
                    && region.kind == kind
                    && region.name == name
            });
            slots += usize::from(!joins);
            at = gap.end;
        }
        if class < ReservedClass::Late {
            slots += self.splits(&range, ReservedClass::Late);
        }
        if slots > self.room() {
            return Err(MemblockError::Full);
        }
        if class < ReservedClass::Late {
            self.cut(&range, ReservedClass::Late);
        }
        let mut at = range.start;
        while let Some(gap) = self.gap(at..range.end, |_| true) {
            at = gap.end;
            self.add(Region { start: gap.start, end: gap.end, kind, name });
        }
        Ok(())
    }

    /// Adds a reserved range that overlaps none, joined with neighbours of its kind and name.
    fn add(&mut self, new: Region) {
        let like = |region: &Region| region.kind == new.kind && region.name == new.name;
        let at = self.memory + self.reserved_regions().partition_point(|r| r.end <= new.start);
        let last = self.memory + self.reserved;
        let regions = self.map.regions_mut();
        let left = at > self.memory && regions[at - 1].end == new.start && like(&regions[at - 1]);
        let right = at < last && regions[at].start == new.end && like(&regions[at]);
        match (left, right) {
            (true, true) => {
                regions[at - 1].end = regions[at].end;
                self.map.remove(at);
                self.reserved -= 1;
            }
            (true, false) => regions[at - 1].end = new.end,
            (false, true) => regions[at].start = new.start,
            (false, false) => {
                let fits = self.map.insert(at, new);
                debug_assert!(fits, "whoever adds has looked whether there is room");
                self.reserved += usize::from(fits);
            }
        }
    }

    /// How many ranges of a class are cut in two where `range` is taken out.
    fn splits(&self, range: &Range<u64>, class: ReservedClass) -> usize {
        let of_class = |region: &&Region| region.kind == Kind::Reserved(class);
        let within = |region: &&Region| region.start < range.start && range.end < region.end;
        self.reserved_regions().iter().filter(of_class).filter(within).count()
    }

    /// Takes a range's bytes from the ranges of a class.
    fn cut(&mut self, range: &Range<u64>, class: ReservedClass) {
        let mut index = self.memory;
        while index < self.memory + self.reserved {
            let region = self.map.regions()[index];
            if region.kind != Kind::Reserved(class)
                || region.end <= range.start
                || range.end <= region.start
            {
                index += 1;
                continue;
            }
            self.map.remove(index);
            self.reserved -= 1;
            let below = Region { end: range.start, ..region };
            let above = Region { start: range.end, ..region };
            for part in [below, above].into_iter().filter(|part| part.start < part.end) {
                let fits = self.map.insert(index, part);
                debug_assert!(fits, "whoever cuts has looked whether there is room");
                self.reserved += usize::from(fits);
                index += 1;
            }
        }
    }
}

impl Default for Memblock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Memblock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(f)
    }
}

const LATE: Kind = Kind::Reserved(ReservedClass::Late);

/// Whether somebody allocated it, and did not find it reserved.
fn is_allocated(region: &Region) -> bool {
    matches!(class_of(region), ReservedClass::Boot | ReservedClass::Kept)
}

/// The class of a reserved region.
fn class_of(region: &Region) -> ReservedClass {
    match region.kind {
        Kind::Reserved(class) => class,
        // Only reserved regions are asked.
        Kind::Ram(_) | Kind::Mapped => ReservedClass::Firmware,
    }
}
