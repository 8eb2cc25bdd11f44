//! The tables that boot carves from RAM and nobody changes afterwards.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::boot::{Classes, SlabDebug, StackSetup};
use crate::gfp::ZoneKind;
use crate::highmem::{CpuSlots, HighMem};
use crate::page::Memmap;
use crate::pcp::{CpuArea, PcpSize};
use crate::slab::{Cache, CacheId, CpuCache};
use crate::stack::CpuStacks;
use crate::zone::{Zone, Zonelist};
use crate::{CpuId, MAX_NODES, NodeId, NodeMask, Order};

/// The manager's tables.
///
/// # Invariants
///
/// `zones`, `zonelists`, `sizes`, `areas`, `stacks` and `caches` point to as many elements as the counts say
/// (zonelists: one for each node and kind; sizes: one for each zone), valid for as long as the manager
/// is used. The first caches are those of kmalloc, in the order of `classes`; then, where the machine has a zone for them, those of
/// kmalloc for DMA. `highmem` points to what the machine has for mapping high memory, and to the slots
/// of `cpus` CPUs.
pub(super) struct Tables {
    pub(super) memmap: Memmap,
    pub(super) largest: Order,
    pub(super) whole_reserve_for_atomic: bool,
    pub(super) min_free_kilobytes: Option<u64>,
    pub(super) reserve_ratio: [u32; ZoneKind::COUNT],
    pub(super) nodes: NodeMask,
    pub(super) cpus: u32,
    pub(super) zone_count: u8,
    pub(super) zones: NonNull<Zone>,
    pub(super) zonelists: NonNull<[Zonelist; ZoneKind::COUNT]>,
    pub(super) sizes: NonNull<PcpSize>,
    pub(super) areas: NonNull<CpuArea>,
    pub(super) stacks: NonNull<CpuStacks>,
    pub(super) stack_setup: StackSetup,
    pub(super) interrupt_stack_order: Order,
    pub(super) zone_at: [[Option<u8>; ZoneKind::COUNT]; MAX_NODES],
    pub(super) metadata_bytes: u64,
    pub(super) classes: Classes,
    pub(super) slab_debug: SlabDebug,
    pub(super) cache_name_limit: usize,
    pub(super) dma_classes: bool,
    pub(super) kmalloc_caches: u32,
    pub(super) pagesets: bool,
    pub(super) several_nodes: bool,
    /// A number that no other manager has, nor has had: larger than 2.
    pub(super) identity: usize,
    pub(super) cache_count: u32,
    pub(super) caches: NonNull<Cache>,
    pub(super) highmem: Option<(NonNull<HighMem>, NonNull<CpuSlots>)>,
}

// SAFETY: the tables do not change, and what they point to is `Sync`.
unsafe impl Sync for Tables {}

impl Tables {
    /// All zones, node by node, low to high.
    #[inline]
    pub(super) fn zones(&self) -> &[Zone] {
        // SAFETY: by the invariant there are `zone_count` of them.
        unsafe { core::slice::from_raw_parts(self.zones.as_ptr(), usize::from(self.zone_count)) }
    }

    /// The zone of that index.
    ///
    /// # Panics
    ///
    /// Where there is none: a descriptor or a list is corrupt.
    #[inline]
    pub(super) fn zone(&self, index: u8) -> &Zone {
        &self.zones()[usize::from(index)]
    }

    /// The zones that a request on `node` which may use zones up to `highest` looks at.
    #[inline]
    pub(super) fn zonelist(&self, node: NodeId, highest: ZoneKind) -> &Zonelist {
        // SAFETY: by the invariant there is a row for each node that there can be.
        let row = unsafe { self.zonelists.add(node.index()).as_ref() };
        &row[highest.index()]
    }

    /// The size of a zone's page sets.
    pub(super) fn size(&self, zone: u8) -> PcpSize {
        if zone < self.zone_count {
            // SAFETY: by the invariant there is one for each zone.
            unsafe { *self.sizes.add(usize::from(zone)).as_ref() }
        } else {
            PcpSize::NONE
        }
    }

    /// The area of a CPU that there can be.
    pub(super) fn area(&self, cpu: CpuId) -> Option<NonNull<CpuArea>> {
        // SAFETY: by the invariant there are `cpus` of them.
        (cpu.get() < self.cpus).then(|| unsafe { self.areas.add(cpu.index()) })
    }

    /// What the machine has for mapping high memory, if it has some.
    #[inline]
    pub(super) fn highmem(&self) -> Option<&HighMem> {
        // SAFETY: by the invariant it is there.
        self.highmem.map(|(high, _)| unsafe { high.as_ref() })
    }

    /// Each CPU's slots for temporary mappings; none without high memory.
    #[inline]
    pub(super) fn cpu_slots(&self) -> &[CpuSlots] {
        self.highmem.map_or(&[], |(_, slots)| {
            // SAFETY: by the invariant there are `cpus` of them.
            unsafe { core::slice::from_raw_parts(slots.as_ptr(), self.cpus as usize) }
        })
    }

    /// The stacks of a CPU that there can be.
    pub(super) fn stacks(&self, cpu: CpuId) -> Option<&CpuStacks> {
        // SAFETY: by the invariant there are `cpus` of them.
        (cpu.get() < self.cpus).then(|| unsafe { self.stacks.add(cpu.index()).as_ref() })
    }

    /// The node of a CPU; the first for a CPU that the machine was described without.
    #[inline]
    pub(super) fn node_of(&self, cpu: CpuId) -> NodeId {
        // SAFETY: `area` answers areas that live as long as the tables.
        self.area(cpu).map_or(NodeId::ZERO, |area| unsafe { area.as_ref() }.node())
    }

    /// How many caches are kmalloc's: the first so many.
    #[inline]
    pub(super) fn kmalloc_caches(&self) -> usize {
        self.kmalloc_caches as usize
    }

    /// Whether CPUs have lists of pages, and of objects.
    pub(super) fn has_pagesets(&self) -> bool {
        self.pagesets
    }

    /// The places for caches.
    #[inline]
    pub(super) fn caches(&self) -> &[Cache] {
        // SAFETY: by the invariant there are so many.
        unsafe { core::slice::from_raw_parts(self.caches.as_ptr(), self.cache_count as usize) }
    }

    /// One of kmalloc's caches, by its number: one that `classes` found, or that is below
    /// [`Tables::kmalloc_caches`].
    #[inline(always)]
    pub(super) fn kmalloc_cache(&self, number: usize) -> &Cache {
        debug_assert!(number < self.kmalloc_caches());
        // SAFETY: callers pass such a number, and by the invariant the first caches are kmalloc's.
        unsafe { self.caches.add(number).as_ref() }
    }

    /// The cache that a handle names, if it is still there.
    #[inline]
    pub(super) fn cache(&self, id: CacheId) -> Option<&Cache> {
        let cache = self.caches().get(usize::from(id.number))?;
        cache.is_of_generation(id.generation).then_some(cache)
    }

    /// Where it is written what a CPU has of a cache; `None` for a CPU that there cannot be.
    #[inline]
    pub(super) fn cpu_cache_cell<'c>(
        &self,
        cpu: CpuId,
        cache: &'c Cache,
    ) -> Option<&'c AtomicPtr<CpuCache>> {
        // SAFETY: a cache has a cell for each of the `cpus`.
        (cpu.get() < self.cpus).then(|| unsafe { cache.front().cell(cpu) })
    }

    /// What a CPU has of a cache.
    #[inline]
    pub(super) fn cpu_cache<'c>(&self, cpu: CpuId, cache: &'c Cache) -> Option<&'c CpuCache> {
        // Acquire pairs with the Release where it is put there: its contents are seen.
        let at = self.cpu_cache_cell(cpu, cache)?.load(Ordering::Acquire);
        // SAFETY: by the invariant it is null or lives as long as it is used.
        unsafe { at.as_ref() }
    }

    /// The areas of all CPUs that there can be.
    pub(super) fn areas(&self) -> impl Iterator<Item = &CpuArea> {
        let cpus = (0..self.cpus).filter_map(CpuId::new);
        // SAFETY: `area` answers areas that live as long as the tables.
        cpus.filter_map(|cpu| self.area(cpu)).map(|area| unsafe { area.as_ref() })
    }
}
