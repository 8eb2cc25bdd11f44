//! Booting: from a memory map to free pages.

use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicUsize, Ordering};

use super::tables::Tables;
use super::{BOOTING, Mm, NEW, READY};
use crate::boot::early::EarlyAlloc;
use crate::boot::map::{MapError, Normalised, ReservedClass};
use crate::boot::{BootMemError, MemoryMap, Setup, SetupError};
use crate::gfp::ZoneKind;
use crate::page::{Block, Descriptor, Memmap, PageFlags};
use crate::pcp::{CpuArea, PcpSize, SetSlot};
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::slab::{Cache, CacheName, CpuCache, Front, NodeSlabs};
use crate::stack::CpuStacks;
use crate::zone::{
    MAX_ZONES, Watermarks, Zone, ZoneSpan, Zonelist, lowmem_reserve, min_free_kilobytes, nearest,
};
use crate::{CpuId, MAX_NODES, NodeId, NodeMask, Pfn, PhysAddr};

/// Why a manager did not boot. It is as it was before the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootError {
    /// The memory map makes no sense.
    Map(MapError),
    /// The setup makes no sense.
    Setup(SetupError),
    /// `boot` was called before.
    Again,
    /// There is RAM above the direct map's limit, and the platform cannot map frames for a time.
    UnreachableRam {
        /// The first address of it.
        at: PhysAddr,
        /// The direct map's limit.
        limit: PhysAddr,
    },
    /// No RAM that is mapped has room for a table.
    NoRoom {
        /// Which table.
        table: &'static str,
        /// Its size in bytes.
        bytes: u64,
    },
    /// The boot-time memory to boot from is not open.
    BootMem(BootMemError),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootError::Map(error) => error.fmt(f),
            BootError::BootMem(error) => error.fmt(f),
            BootError::Setup(error) => error.fmt(f),
            BootError::Again => f.write_str("the manager is booted already"),
            BootError::UnreachableRam { at, limit } => write!(
                f,
                "ram at {at} lies above the direct map, which ends at {limit}: implement \
                 TemporaryMap, or end the map there"
            ),
            BootError::NoRoom { table, bytes } => write!(
                f,
                "no mapped and unreserved ram has room for the {table} of {bytes} bytes: map or \
                 free more of it, or describe less ram"
            ),
        }
    }
}

impl core::error::Error for BootError {}

impl From<MapError> for BootError {
    fn from(error: MapError) -> Self {
        BootError::Map(error)
    }
}

impl From<BootMemError> for BootError {
    fn from(error: BootMemError) -> Self {
        BootError::BootMem(error)
    }
}

impl From<SetupError> for BootError {
    fn from(error: SetupError) -> Self {
        BootError::Setup(error)
    }
}

/// Why memory could not be released after boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleaseError {
    /// The manager has not been booted.
    NotBooted,
    /// A frame of the range was not described as late, or has been released already.
    NotLate(Pfn),
    /// The range holds no whole frame.
    Empty,
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReleaseError::NotBooted => f.write_str("the manager is not booted"),
            ReleaseError::NotLate(pfn) => {
                write!(f, "{pfn:?} was not described as late, or is released already")
            }
            ReleaseError::Empty => f.write_str("the range holds no whole frame"),
        }
    }
}

impl core::error::Error for ReleaseError {}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Boots: takes over the RAM of a memory map. Once.
    ///
    /// `map` may be unsorted and have overlaps, holes, reserved and late regions. All tables are
    /// carved from RAM of the map that the boot loader has mapped and nobody has reserved, at the
    /// top of the node that they describe. The CPU that calls is online afterwards; others come with
    /// [`Mm::cpu_online`].
    ///
    /// # Errors
    ///
    /// See [`BootError`]; the manager is then as it was, and may be booted with another map.
    ///
    /// # Context
    ///
    /// One CPU, before anything allocates. Cost: a few nanoseconds a frame for its descriptor;
    /// nothing for holes. Map and setup are large: a `static` of the caller's keeps them off the stack.
    ///
    /// # Safety
    ///
    /// All RAM of the map is there, and is the manager's from now on but for what the map calls
    /// reserved or late: nobody else uses it, and no other manager is booted with it.
    pub unsafe fn boot(&self, map: &MemoryMap, setup: &Setup) -> Result<(), BootError> {
        if self.state.compare_exchange(NEW, BOOTING, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return Err(BootError::Again);
        }
        // SAFETY: `state` was `NEW` and is `BOOTING`: this call alone has the frames.
        let frames = unsafe { &mut *self.frames.get() };
        match build(&self.platform, map, setup, frames) {
            Ok(tables) => {
                // SAFETY: just built.
                self.create_kmalloc_caches(unsafe { tables.as_ref() });
                // Release pairs with the Acquire in `tables`.
                self.tables.store(tables.as_ptr(), Ordering::Release);
                self.state.store(READY, Ordering::Release);
                let pinned = crate::platform::Pinned::new(&self.platform);
                // A boot CPU above the described number takes the shared path, as any such CPU.
                let _ = self.cpu_online(pinned.cpu());
                drop(pinned);
                self.open_vmalloc();
                Ok(())
            }
            Err(error) => {
                self.state.store(NEW, Ordering::Release);
                Err(error)
            }
        }
    }

    /// The memory map as boot left it, for reports: RAM, what is reserved, where the tables are.
    pub fn frames(&self) -> Option<&Normalised> {
        // SAFETY: once booted, nobody writes the frames any more.
        self.tables().map(|_| unsafe { &*self.frames.get() })
    }

    /// Hands memory that was described as late, or that somebody allocated at boot and does not need
    /// any more, to the page allocator: all whole frames of `range`. Answers how many pages.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::NotLate`] where any frame was neither, was released before, or is kept for ever
    /// ([`Setup::keep_boot_memory`], A252): then nothing is released.
    ///
    /// # Context
    ///
    /// Any but NMI. Cost: a few nanoseconds a frame.
    ///
    /// # Safety
    ///
    /// Nobody uses the range any more.
    pub unsafe fn release_late(&self, range: Range<PhysAddr>) -> Result<u64, ReleaseError> {
        let tables = self.tables().ok_or(ReleaseError::NotBooted)?;
        let page = 1u64 << P::PAGE_SHIFT;
        let frames = range.start.get().div_ceil(page)..range.end.get() / page;
        if frames.is_empty() {
            return Err(ReleaseError::Empty);
        }
        let late = |frame: u64| {
            let pfn = Pfn::new(frame).ok_or(ReleaseError::NotLate(Pfn::MAX))?;
            match tables.memmap.get(pfn) {
                Some(there) if there.has(PageFlags::Late) && there.is(Block::Reserved) => {
                    Ok((pfn, there))
                }
                _ => Err(ReleaseError::NotLate(pfn)),
            }
        };
        for frame in frames.clone() {
            late(frame)?;
        }
        // Runs of one zone are given as runs. Of two calls for one frame, the one that takes the
        // flag away releases it.
        let mut released = 0;
        let mut run: Option<(u8, Range<u64>)> = None;
        for frame in frames {
            let Ok((_, there)) = late(frame) else { continue };
            if !there.clear(PageFlags::Late) {
                continue;
            }
            there.set_block(Block::Interior);
            released += 1;
            match &mut run {
                Some((zone, run)) if *zone == there.zone() && run.end == frame => run.end += 1,
                _ => {
                    self.give_run(tables, run.take());
                    run = Some((there.zone(), frame..frame + 1));
                }
            }
        }
        self.give_run(tables, run);
        set_watermarks(tables, P::PAGE_SHIFT);
        Ok(released)
    }

    /// Gives frames that were never free to their zone.
    fn give_run(&self, tables: &Tables, run: Option<(u8, Range<u64>)>) {
        if let Some((zone, frames)) = run {
            let zone = tables.zone(zone);
            zone.add_managed(frames.end - frames.start);
            zone.give_range(&self.platform, &tables.memmap, frames);
        }
    }
}

/// A number for a manager that boots: none that there is or was has it. From 3 on, as smaller ones mean
/// something else where it is kept.
fn new_identity() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(3);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Which zone each frame belongs to.
struct Limits<'a> {
    setup: &'a Setup,
    page_shift: u32,
    direct: u64,
    movable_from: [u64; MAX_NODES],
}

impl<'a> Limits<'a> {
    fn new<P: Platform>(platform: &P, setup: &'a Setup, frames: &Normalised) -> Limits<'a> {
        let page_shift = P::PAGE_SHIFT;
        let block = setup.page_block().pages();
        let mut movable_from = [u64::MAX; MAX_NODES];
        for (node, from) in movable_from.iter_mut().enumerate() {
            let wanted = setup.movable[node] >> page_shift;
            if wanted == 0 {
                continue;
            }
            let ram = || frames.ram().filter(|(_, on)| on.index() == node);
            let total: u64 = ram().map(|(range, _)| range.end - range.start).sum();
            // So many frames of the node stay below the zone.
            let mut below = total.saturating_sub(wanted);
            for (range, _) in ram() {
                let pages = range.end - range.start;
                if below < pages {
                    *from = (range.start + below).next_multiple_of(block);
                    break;
                }
                below -= pages;
            }
        }
        Limits { setup, page_shift, direct: platform.limit().get() >> page_shift, movable_from }
    }

    fn kind(&self, frame: u64, node: NodeId) -> ZoneKind {
        let below = |limit: Option<PhysAddr>| {
            limit.is_some_and(|limit| frame < limit.get() >> self.page_shift)
        };
        if frame >= self.movable_from[node.index()] {
            ZoneKind::Movable
        } else if frame >= self.direct {
            // Whatever devices reach it: who asks for DMA memory wants to see it.
            ZoneKind::HighMem
        } else if below(self.setup.dma) {
            ZoneKind::Dma
        } else if below(self.setup.dma32) {
            ZoneKind::Dma32
        } else {
            ZoneKind::Normal
        }
    }

    /// Whether the machine has zones of this kind, if only empty ones.
    fn describes(&self, kind: ZoneKind, frames: &Normalised) -> bool {
        match kind {
            ZoneKind::Dma => self.setup.dma.is_some(),
            ZoneKind::Dma32 => self.setup.dma32.is_some(),
            ZoneKind::Normal => true,
            ZoneKind::HighMem => frames.span().end > self.direct,
            ZoneKind::Movable => self.movable_from.iter().any(|from| *from != u64::MAX),
        }
    }

    /// Cuts a range of one node's RAM where the kind of zone changes.
    fn cut(&self, range: Range<u64>, node: NodeId) -> impl Iterator<Item = (Range<u64>, ZoneKind)> {
        let at = |limit: Option<PhysAddr>| limit.map_or(u64::MAX, |l| l.get() >> self.page_shift);
        let edges = [
            at(self.setup.dma),
            at(self.setup.dma32),
            self.direct,
            self.movable_from[node.index()],
        ];
        let mut start = range.start;
        core::iter::from_fn(move || {
            if start >= range.end {
                return None;
            }
            let next = edges.iter().filter(|edge| **edge > start).min();
            let piece = start..range.end.min(next.copied().unwrap_or(u64::MAX));
            start = piece.end;
            let kind = self.kind(piece.start, node);
            Some((piece, kind))
        })
    }
}

/// Builds all tables in RAM and frees what is free.
fn build<P: Platform>(
    platform: &P,
    map: &MemoryMap,
    setup: &Setup,
    frames: &mut Normalised,
) -> Result<NonNull<Tables>, BootError> {
    setup.check()?;
    map.normalise_into(P::PAGE_SHIFT, setup.largest_order, frames)?;
    let limits = Limits::new(platform, setup, frames);
    let end = frames.span().end;
    if end > limits.direct && platform.temporary_map().is_none() {
        let first = frames.ram().find(|(range, _)| range.end > limits.direct);
        let at = first.map_or(limits.direct, |(range, _)| range.start.max(limits.direct));
        let at = PhysAddr::new(at << P::PAGE_SHIFT);
        return Err(BootError::UnreachableRam { at, limit: platform.limit() });
    }

    let mut spans = [[ZoneSpan::default(); ZoneKind::COUNT]; MAX_NODES];
    let mut nodes = NodeMask::NONE;
    for (range, node) in frames.ram() {
        nodes = nodes.union(NodeMask::of(node));
        for (piece, kind) in limits.cut(range, node) {
            let span = &mut spans[node.index()][kind.index()];
            if span.present == 0 {
                span.start = piece.start;
            }
            span.end = piece.end;
            span.present += piece.end - piece.start;
        }
    }
    let mut zone_at = [[None; ZoneKind::COUNT]; MAX_NODES];
    let mut zone_count = 0u8;
    for node in (0..MAX_NODES as u32).filter_map(NodeId::new).filter(|n| nodes.contains(*n)) {
        for kind in ZoneKind::ALL.into_iter().filter(|kind| limits.describes(*kind, frames)) {
            zone_at[node.index()][kind.index()] = Some(zone_count);
            zone_count += 1;
        }
    }

    let mut carver = Carver {
        platform,
        early: EarlyAlloc::new(frames),
        direct: limits.direct,
        movable_from: limits.movable_from,
        bytes: 0,
    };
    let tables: NonNull<Tables> = carver.table("tables", 1, None)?;
    let zones: NonNull<Zone> = carver.table("zones", usize::from(zone_count), None)?;
    let zonelists: NonNull<[Zonelist; ZoneKind::COUNT]> =
        carver.table("zonelists", MAX_NODES, None)?;
    let sizes: NonNull<PcpSize> = carver.table("page set sizes", usize::from(zone_count), None)?;
    let areas: NonNull<CpuArea> = carver.table("per-cpu areas", setup.cpus as usize, None)?;
    let stacks: NonNull<CpuStacks> = carver.table("stacks of cpus", setup.cpus as usize, None)?;
    for cpu in 0..setup.cpus as usize {
        // SAFETY: the table has so many.
        unsafe { stacks.add(cpu).write(CpuStacks::new()) };
    }
    let caches: NonNull<Cache> = carver.table("caches", setup.caches as usize, None)?;
    let cells = setup.cpus as usize * setup.caches as usize;
    let cpu_caches: NonNull<AtomicPtr<CpuCache>> = carver.table("caches of cpus", cells, None)?;
    for cell in 0..cells {
        // SAFETY: the table has so many.
        unsafe { cpu_caches.add(cell).write(AtomicPtr::new(core::ptr::null_mut())) };
    }
    // Nodes by their numbers, those without RAM too.
    let node_count = (u16::BITS - nodes.bits().leading_zeros()) as usize;
    let node_slabs: NonNull<NodeSlabs> =
        carver.table("nodes of caches", setup.caches as usize * node_count, None)?;
    let generation = Front::first_generation();
    for place in 0..setup.caches as usize {
        // SAFETY: both tables have so many; each place gets nodes of its own.
        unsafe {
            let first = node_slabs.add(place * node_count);
            let front = Front::new(cpu_caches.add(place * setup.cpus as usize), generation);
            (0..node_count).for_each(|node| first.add(node).write(NodeSlabs::new()));
            caches.add(place).write(Cache::new(front, first, node_count as u32));
        }
    }

    let highmem = if end > limits.direct {
        Some(super::highmem::build(&mut carver, platform, setup)?)
    } else {
        None
    };

    let mut memmap = Memmap::new(setup.page_block());
    // Carving changes what is reserved and leaves the extents as they are.
    for index in 0.. {
        let extent = carver.early.map().extents().nth(index);
        let Some(extent) = extent else { break };
        carver.extent(&mut memmap, extent, setup)?;
    }
    for (node, row) in zone_at.iter().enumerate() {
        for (kind, index) in ZoneKind::ALL.into_iter().zip(row) {
            let (Some(index), Some(node)) = (*index, NodeId::new(node as u32)) else { continue };
            let span = spans[node.index()][kind.index()];
            // SAFETY: the table has `zone_count` zones, and nobody else knows it.
            unsafe {
                zones.add(usize::from(index)).write(Zone::new(
                    node,
                    kind,
                    index,
                    span,
                    setup.largest_order,
                ));
            }
        }
    }
    for cpu in (0..setup.cpus).filter_map(CpuId::new) {
        // A CPU's own node may have no RAM: then the nearest that has is as good as its own, for pages and
        // for slabs.
        let own = setup.cpu_nodes[cpu.index()];
        let node = nearest(own, &setup.distances, |node| nodes.contains(node)).unwrap_or(own);
        let slots: NonNull<SetSlot> =
            carver.table("page sets", usize::from(zone_count), Some(node))?;
        for zone in 0..usize::from(zone_count) {
            // SAFETY: both tables have that many; the zones were just written and live as long as
            // the manager is used.
            unsafe { slots.add(zone).write(SetSlot::new(zones.add(zone).as_ref())) };
        }
        // SAFETY: the table has that many areas; the slots were just written and are this area's;
        // the memmap is where it will be when a CPU is given the area.
        unsafe {
            let memmap = NonNull::new_unchecked(&raw mut (*tables.as_ptr()).memmap);
            let area = CpuArea::new(cpu, node, memmap, u32::from(zone_count), slots);
            areas.add(cpu.index()).write(area);
        }
    }
    let metadata_bytes = carver.bytes;
    let classes = setup.classes.clone().up_to(largest_class(setup, P::PAGE_SHIFT));
    let class_count = classes.sizes().count();

    describe(&memmap, frames, &limits, &zone_at);

    // SAFETY: the table has room for it, and nobody else knows it.
    unsafe {
        tables.write(Tables {
            memmap,
            largest: setup.largest_order,
            whole_reserve_for_atomic: setup.whole_reserve_for_atomic,
            min_free_kilobytes: setup.min_free_kilobytes,
            reserve_ratio: setup.reserve_ratio,
            nodes,
            cpus: setup.cpus,
            zone_count,
            zones,
            zonelists,
            sizes,
            areas,
            stacks,
            stack_setup: setup.stacks,
            interrupt_stack_order: setup.interrupt_stacks,
            zone_at,
            metadata_bytes,
            classes,
            dma_classes: setup.dma.is_some(),
            kmalloc_caches: (1 + u32::from(setup.dma.is_some())) * class_count as u32,
            pagesets: setup.pagesets,
            several_nodes: nodes.bits().count_ones() > 1,
            identity: new_identity(),
            cache_count: setup.caches,
            slab_debug: setup.slab_debug,
            cache_name_limit: setup.cache_name_limit.min(CacheName::LONGEST),
            caches,
            highmem,
        });
    }
    // SAFETY: just written.
    let built = unsafe { tables.as_ref() };
    free_ram(platform, built, frames, &limits);
    finish(built, setup, &limits, frames);
    set_watermarks(built, P::PAGE_SHIFT);
    Ok(tables)
}

/// The largest object that a slab of this machine holds, in bytes.
fn largest_class(setup: &Setup, page_shift: u32) -> usize {
    (setup.largest_order.pages() as usize) << page_shift
}

/// How far behind the start of a page a table begins, in bytes: an odd number of lines.
const COLOUR: usize = 9 * 64;

/// Carves tables from RAM.
pub(super) struct Carver<'a, P> {
    platform: &'a P,
    early: EarlyAlloc<'a>,
    direct: u64,
    movable_from: [u64; MAX_NODES],
    bytes: u64,
}

impl<P: Platform> Carver<'_, P> {
    /// Room for `bytes` at the top of a node's RAM, or of any.
    fn room(
        &mut self,
        table: &'static str,
        bytes: u64,
        node: Option<NodeId>,
    ) -> Result<NonNull<u8>, BootError> {
        let pages = bytes.max(1).div_ceil(1 << P::PAGE_SHIFT);
        // Tables never move: below the zones Movable, if that can be.
        let lowest = self.movable_from.iter().min().copied().unwrap_or(u64::MAX);
        let movable = node.map_or(lowest, |node| self.movable_from[node.index()]);
        let frames = [movable.min(self.direct), self.direct]
            .into_iter()
            .find_map(|end| self.early.alloc(table, pages, 1, 0..end, node, true))
            .ok_or(BootError::NoRoom { table, bytes })?;
        self.bytes += pages << P::PAGE_SHIFT;
        let start = PhysAddr::new(frames.start << P::PAGE_SHIFT);
        let address = self.platform.phys_to_virt(start);
        address
            .and_then(|address| NonNull::new(address.as_ptr()))
            .ok_or(BootError::NoRoom { table, bytes })
    }

    /// Room for `count` values.
    ///
    /// Not from the start of a page on: there, and at its middle, are the descriptors of blocks of
    /// many pages, which are what is mostly allocated. A processor tells a load from earlier stores
    /// by the low twelve bits of the address first, so what every allocation reads and writes
    /// besides should lie elsewhere (measured: 9 ns instead of 14 for an order-0 pair).
    pub(super) fn table<T>(
        &mut self,
        table: &'static str,
        count: usize,
        node: Option<NodeId>,
    ) -> Result<NonNull<T>, BootError> {
        const { assert!(COLOUR.is_multiple_of(align_of::<T>())) };
        let room = self.room(table, (COLOUR + count * size_of::<T>()) as u64, node)?;
        // SAFETY: within the room.
        Ok(unsafe { room.add(COLOUR) }.cast())
    }

    /// The descriptors and page block types of one extent.
    fn extent(
        &mut self,
        memmap: &mut Memmap,
        extent: Range<u64>,
        setup: &Setup,
    ) -> Result<(), BootError> {
        let ram = self.early.map().ram().find(|(range, _)| range.end > extent.start);
        let node = ram.map(|(_, node)| node);
        let frames = extent.end - extent.start;
        let descriptors = frames * size_of::<Descriptor>() as u64;
        let types = frames >> setup.page_block().get();
        let room = self.room("memmap", descriptors + types, node)?;
        // SAFETY: the room has that many bytes, which nobody else knows; all zero is a valid
        // descriptor (a hole) and a valid type (unmovable).
        unsafe { room.write_bytes(0, (descriptors + types) as usize) };
        // SAFETY: within the room.
        let types: NonNull<AtomicU8> = unsafe { room.add(descriptors as usize) }.cast();
        let start = Pfn::from_raw(extent.start as u32);
        // SAFETY: the room holds one descriptor for each frame and a byte for each page block and
        // is reached through the memmap only; extents are whole largest blocks.
        let added = unsafe { memmap.add(start, frames as u32, room.cast(), types) };
        // A map has at most as many extents as a memmap takes, in order.
        if added { Ok(()) } else { Err(BootError::NoRoom { table: "memmap", bytes: descriptors }) }
    }
}

/// Whether what is reserved can be released after boot.
fn is_late(class: ReservedClass, setup: &Setup) -> bool {
    match class {
        ReservedClass::Late => true,
        ReservedClass::Boot => !setup.keep_boot_memory,
        _ => false,
    }
}

/// Says of every frame of RAM which zone it is of and, for now, that it is reserved, and why.
fn describe(
    memmap: &Memmap,
    frames: &Normalised,
    limits: &Limits<'_>,
    zone_at: &[[Option<u8>; ZoneKind::COUNT]; MAX_NODES],
) {
    for (range, node) in frames.ram() {
        for (piece, kind) in limits.cut(range, node) {
            let zone = zone_at[node.index()][kind.index()].unwrap_or(0);
            for frame in piece {
                memmap.at(Pfn::from_raw(frame as u32)).init(Block::Reserved, zone);
            }
        }
    }
    for (reserved, _) in frames.reserved_in_ram() {
        let flag = match reserved.class {
            ReservedClass::Kernel => PageFlags::Kernel,
            ReservedClass::Metadata => PageFlags::Metadata,
            class if is_late(class, limits.setup) => PageFlags::Late,
            _ => continue,
        };
        for frame in reserved.range {
            memmap.at(Pfn::from_raw(frame as u32)).set(flag);
        }
    }
}

/// Gives the free RAM to the zones.
fn free_ram<P: Platform>(platform: &P, tables: &Tables, frames: &Normalised, limits: &Limits<'_>) {
    // The frame at address 0, where the direct map has one: its address says "none", so it stays
    // reserved.
    let null = (platform.base().get().wrapping_neg() as u64) >> P::PAGE_SHIFT;
    let around = |range: Range<u64>| {
        if range.contains(&null) { [range.start..null, null + 1..range.end] } else { [range, 0..0] }
    };
    let free = frames.free_ranges().flat_map(|(range, node)| around(range).map(|r| (r, node)));
    for (range, node) in free {
        for (piece, kind) in limits.cut(range, node) {
            let Some(index) = tables.zone_at[node.index()][kind.index()] else { continue };
            for frame in piece.clone() {
                tables.memmap.at(Pfn::from_raw(frame as u32)).set_block(Block::Interior);
            }
            // Movable to begin with: what is unmovable takes whole page blocks as it needs them.
            let block = tables.memmap.page_block_order().pages();
            for first in (piece.start / block * block..piece.end).step_by(block as usize) {
                let movable = crate::page::MigrateType::Movable;
                tables.memmap.set_migrate_type(Pfn::from_raw(first as u32), movable);
            }
            let zone = tables.zone(index);
            zone.add_managed(piece.end - piece.start);
            zone.give_range(platform, &tables.memmap, piece);
        }
    }
}

/// Zonelists, and the per-CPU areas that point into them.
fn finish(tables: &Tables, setup: &Setup, limits: &Limits<'_>, frames: &Normalised) {
    // Zones that have pages now, or will have when late memory is released.
    let mut late = [[0; ZoneKind::COUNT]; MAX_NODES];
    for (reserved, node) in frames.reserved_in_ram() {
        if is_late(reserved.class, limits.setup) {
            for (piece, kind) in limits.cut(reserved.range, node) {
                late[node.index()][kind.index()] += piece.end - piece.start;
            }
        }
    }
    let late_of = |zone: &Zone| late[zone.node().index()][zone.kind().index()];
    let populated = |node: NodeId, kind: ZoneKind| {
        let index = tables.zone_at[node.index()][kind.index()]?;
        let zone = tables.zone(index);
        (zone.is_populated() || late_of(zone) > 0).then_some(index)
    };
    for node in (0..MAX_NODES as u32).filter_map(NodeId::new) {
        let row = ZoneKind::ALL.map(|highest| {
            Zonelist::build(node, effective(highest, limits, frames), &setup.distances, populated)
        });
        // SAFETY: the table has a row for each node that there can be.
        unsafe { tables.zonelists.add(node.index()).write(row) };
    }
    for zone in tables.zones() {
        let size = if setup.pagesets {
            PcpSize::for_zone(zone.managed_pages() + late_of(zone), setup.cpus)
        } else {
            PcpSize::NONE
        };
        // SAFETY: the table has one for each zone.
        unsafe { tables.sizes.add(usize::from(zone.index())).write(size) };
    }
    for cpu in (0..setup.cpus).filter_map(CpuId::new) {
        let Some(mut area) = tables.area(cpu) else { continue };
        // SAFETY: the area was written above, and no CPU knows it yet.
        let area = unsafe { area.as_mut() };
        let node = area.node();
        area.prefer(ZoneKind::ALL.map(|highest| {
            // Without any zone the fast path finds none and the slow one says why.
            tables.zonelist(node, highest).zones().first().copied()
        }));
        // SAFETY: no CPU knows the area, so nobody else is inside.
        if let Some(mut entered) = unsafe { area.section.enter() } {
            for zone in tables.zones() {
                if let Some((set, _)) = area.set(&mut entered, zone.index()) {
                    set.resize(tables.size(zone.index()));
                }
            }
        }
    }
}

/// The highest zone that requests for `kind` use where a machine does not describe that zone (A022,
/// A033). Without a zone DMA, its devices reach everything in the direct map. Without a zone DMA32
/// the same is so if nothing of the direct map lies above 4 GiB; else such a request gets what the
/// zone DMA has.
fn effective(kind: ZoneKind, limits: &Limits<'_>, frames: &Normalised) -> ZoneKind {
    let direct_end = limits.direct.min(frames.span().end);
    match kind {
        ZoneKind::Dma32 if !limits.describes(ZoneKind::Dma32, frames) => {
            if direct_end <= (4 << 30) >> limits.page_shift {
                ZoneKind::Normal
            } else {
                effective(ZoneKind::Dma, limits, frames)
            }
        }
        ZoneKind::Dma if !limits.describes(ZoneKind::Dma, frames) => ZoneKind::Normal,
        kind => kind,
    }
}

// A zone's index fits a byte of the descriptor, and one value is left for "no zone".
const _: () = assert!(MAX_ZONES < u8::MAX as usize);

/// Spreads the machine's minimum over its zones, in proportion to their pages, and sets what each
/// keeps back.
fn set_watermarks(tables: &Tables, page_shift: u32) {
    let low = |zone: &&Zone| zone.kind() < ZoneKind::HighMem;
    let lowmem: u64 = tables.zones().iter().filter(low).map(Zone::managed_pages).sum();
    let kilobytes = tables
        .min_free_kilobytes
        .unwrap_or_else(|| min_free_kilobytes((lowmem << page_shift) >> 10));
    let minimum = kilobytes.saturating_mul(1 << 10) >> page_shift;
    for zone in tables.zones() {
        let managed = zone.managed_pages();
        let min = if zone.kind() < ZoneKind::HighMem {
            // At most the zone: a share of more is a share of all.
            (minimum.min(lowmem) as u128 * u128::from(managed))
                .checked_div(u128::from(lowmem))
                .map_or(0, |share| share as u64)
        } else {
            // Requests for these zones can fall back: a token reserve keeps some for the urgent.
            (managed / 1024).clamp(32.min(managed), 128)
        };
        // The marks of a tiny zone must leave something to allocate.
        let marks = Watermarks::new(min.min(managed / 4), managed);
        let managed_of = |kind: ZoneKind| {
            let index = tables.zone_at[zone.node().index()][kind.index()];
            index.map_or(0, |index| tables.zone(index).managed_pages())
        };
        let ratio = tables.reserve_ratio[zone.kind().index()];
        let reserve = lowmem_reserve(zone.kind(), ratio, managed_of);
        zone.set_watermarks(marks, reserve);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Order;

    /// What a request for `kind` may use on a machine with RAM up to `end`, all of it in the direct
    /// map.
    fn served(kind: ZoneKind, setup: &Setup, end: u64) -> ZoneKind {
        let map = MemoryMap::new().ram(0..end, NodeId::ZERO);
        let frames = map.normalise(12, Order::new(10).unwrap()).unwrap();
        let direct = end >> 12;
        let limits = Limits { setup, page_shift: 12, direct, movable_from: [u64::MAX; MAX_NODES] };
        effective(kind, &limits, &frames)
    }

    /// A022, A033
    #[test]
    fn a_zone_that_is_not_there_is_served_by_what_its_devices_reach() {
        use ZoneKind::{Dma, Dma32, Normal};
        let (small, large) = (4 << 30, (4 << 30) + (4 << 20));
        let none = Setup::new();
        let dma = Setup::new().dma_limit(PhysAddr::new(16 << 20));
        let both = dma.clone().dma32_limit(PhysAddr::new(4 << 30));
        assert_eq!(served(Dma32, &both, large), Dma32);
        assert_eq!(served(Dma, &both, large), Dma);
        assert_eq!(served(Dma32, &dma, small), Normal);
        assert_eq!(served(Dma32, &dma, large), Dma);
        assert_eq!(served(Dma32, &none, small), Normal);
        assert_eq!(served(Dma, &none, small), Normal);
    }
}
