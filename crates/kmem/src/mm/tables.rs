//! The tables that boot carves from RAM and nobody changes afterwards.

use core::ptr::NonNull;

use crate::gfp::ZoneKind;
use crate::page::Memmap;
use crate::pcp::{CpuArea, PcpSize};
use crate::zone::{Zone, Zonelist};
use crate::{CpuId, MAX_NODES, NodeId, NodeMask, Order};

/// The manager's tables.
///
/// # Invariants
///
/// `zones`, `zonelists`, `sizes` and `areas` point to as many elements as the counts say (zonelists:
/// one for each node and kind; sizes: one for each zone), valid for as long as the manager is used.
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
    pub(super) zone_at: [[Option<u8>; ZoneKind::COUNT]; MAX_NODES],
    pub(super) metadata_bytes: u64,
}

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

    /// The node of a CPU; the first for a CPU that the machine was described without.
    #[inline]
    pub(super) fn node_of(&self, cpu: CpuId) -> NodeId {
        // SAFETY: `area` answers areas that live as long as the tables.
        self.area(cpu).map_or(NodeId::ZERO, |area| unsafe { area.as_ref() }.node())
    }

    /// The areas of all CPUs that there can be.
    pub(super) fn areas(&self) -> impl Iterator<Item = &CpuArea> {
        let cpus = (0..self.cpus).filter_map(CpuId::new);
        // SAFETY: `area` answers areas that live as long as the tables.
        cpus.filter_map(|cpu| self.area(cpu)).map(|area| unsafe { area.as_ref() })
    }
}
