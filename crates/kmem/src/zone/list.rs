//! Zonelists: the order in which a request looks at zones.

use crate::gfp::ZoneKind;
use crate::ids::Distances;
use crate::{MAX_NODES, NodeId};

/// How many zones a machine can have: each kind on each node.
pub const MAX_ZONES: usize = MAX_NODES * ZoneKind::COUNT;

/// The zones that a request looks at, best first, as indexes.
#[derive(Clone, Copy)]
pub struct Zonelist {
    zones: [u8; MAX_ZONES],
    len: u8,
}

impl Zonelist {
    /// No zones.
    pub const EMPTY: Zonelist = Zonelist { zones: [0; MAX_ZONES], len: 0 };

    /// The list for requests on `node` that may use zones up to `highest`.
    ///
    /// `zone_at` gives the index of a node's zone of a kind, where it has pages.
    pub fn build(
        node: NodeId,
        highest: ZoneKind,
        distances: &Distances,
        zone_at: impl Fn(NodeId, ZoneKind) -> Option<u8>,
    ) -> Zonelist {
        let mut list = Zonelist::EMPTY;
        let mut taken = 0u32;
        for _ in 0..MAX_NODES {
            let nearest = nearest(node, distances, |other| taken & (1 << other.get()) == 0);
            let Some(nearest) = nearest else { break };
            taken |= 1 << nearest.get();
            for kind in ZoneKind::ALL.into_iter().rev().filter(|kind| *kind <= highest) {
                if let Some(zone) = zone_at(nearest, kind) {
                    list.zones[usize::from(list.len)] = zone;
                    list.len += 1;
                }
            }
        }
        list
    }

    /// The indexes, best first.
    #[inline]
    pub fn zones(&self) -> &[u8] {
        &self.zones[..usize::from(self.len)]
    }
}

/// Of the nodes that are wanted the nearest to a node: itself, if it is one of them.
pub(crate) fn nearest(
    node: NodeId,
    distances: &Distances,
    wanted: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    let nodes = (0..MAX_NODES as u32).filter_map(NodeId::new).filter(|other| wanted(*other));
    nodes.min_by_key(|other| (distances.get(node, *other), *other != node, other.get()))
}
