//! Machines whose memory has run low.

use kmem::{GFP_KERNEL, GFP_NOWAIT, Gfp, NodeId, Zone, ZoneKind};

use crate::Machine;
use crate::hold::Hoard;

/// An ordinary request that gives up after one call of reclaim, without a message.
pub(crate) const ORDINARY: Gfp = GFP_KERNEL.union(Gfp::NORETRY).union(Gfp::NOWARN);

/// A request that no reserve is kept from and that does not sleep.
pub(crate) const EVERYTHING: Gfp = Gfp::MEMALLOC.union(Gfp::NOWARN);

/// The widest choice of zones.
pub(crate) const ANYWHERE: Gfp = Gfp::HIGHMEM.union(Gfp::MOVABLE);

/// Takes all that ordinary requests for `zones` may have: the reserves are left.
pub(crate) fn press<M: Machine>(machine: &M, zones: Gfp) -> Hoard<'_, M> {
    let mut held = Hoard::new(machine);
    // Large blocks first: fewer of them are as much memory.
    for order in (0..=machine.mm().largest_order().get()).rev() {
        held.fill(GFP_NOWAIT | zones, order);
    }
    held
}

/// How many single pages requests with these flags still get. They are given back.
pub(crate) fn left_for<M: Machine>(machine: &M, gfp: Gfp) -> u64 {
    let mut held = Hoard::new(machine);
    let count = held.fill(gfp, 0);
    held.clear();
    machine.mm().drain_all_pages();
    count
}

/// The zone that a request without zone flags prefers on the boot CPU's node.
pub(crate) fn preferred<M: Machine>(machine: &M, gfp: Gfp) -> Option<&Zone> {
    machine.mm().zonelist(NodeId::ZERO, gfp).next()
}

/// Whether a zone has no more to give to ordinary requests that may use zones up to `highest`.
pub(crate) fn is_down_to_min(zone: &Zone, highest: ZoneKind) -> bool {
    zone.free_pages() <= zone.watermarks().min + zone.lowmem_reserve(highest)
}
