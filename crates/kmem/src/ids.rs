//! Numbers of nodes and CPUs, sets of nodes, and how far nodes are apart.

use core::fmt;

/// How many CPUs a manager can know. The table that finds a CPU's lists has this many entries of
/// one pointer each; the lists themselves are carved from RAM for the CPUs that a machine has.
pub const MAX_CPUS: usize = 256;

/// How many NUMA nodes a manager can know: one bit each in a [`NodeMask`].
pub const MAX_NODES: usize = 16;

/// The number of a CPU, below [`MAX_CPUS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct CpuId(u16);

impl CpuId {
    /// The CPU that boots.
    pub const BOOT: CpuId = CpuId(0);

    /// The CPU with this number, or `None` at [`MAX_CPUS`] and above.
    #[inline]
    pub const fn new(number: u32) -> Option<CpuId> {
        if (number as usize) < MAX_CPUS { Some(CpuId(number as u16)) } else { None }
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0 as u32
    }

    /// The number as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu {}", self.0)
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number of a NUMA node: memory that some CPUs reach faster than others (A087).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct NodeId(u8);

impl NodeId {
    /// The first node; the only one of a machine without NUMA.
    pub const ZERO: NodeId = NodeId(0);

    /// The node with this number, or `None` at [`MAX_NODES`] and above.
    #[inline]
    pub const fn new(number: u32) -> Option<NodeId> {
        if (number as usize) < MAX_NODES { Some(NodeId(number as u8)) } else { None }
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0 as u32
    }

    /// The number as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A set of nodes: where a task may take memory from (A111).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct NodeMask(u16);

const _: () = assert!(MAX_NODES == u16::BITS as usize);

impl NodeMask {
    /// Every node.
    pub const ALL: NodeMask = NodeMask(u16::MAX);
    /// No node.
    pub const NONE: NodeMask = NodeMask(0);

    /// The set of one node.
    #[inline]
    pub const fn of(node: NodeId) -> NodeMask {
        NodeMask(1 << node.0)
    }

    /// The set with the bits of `bits`: bit n is node n.
    #[inline]
    pub const fn from_bits(bits: u16) -> NodeMask {
        NodeMask(bits)
    }

    /// One bit a node.
    #[inline]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether the node is in the set.
    #[inline]
    pub const fn contains(self, node: NodeId) -> bool {
        self.0 & (1 << node.0) != 0
    }

    /// The nodes of both sets.
    #[inline]
    pub const fn intersection(self, other: NodeMask) -> NodeMask {
        NodeMask(self.0 & other.0)
    }

    /// The nodes of either set.
    #[inline]
    pub const fn union(self, other: NodeMask) -> NodeMask {
        NodeMask(self.0 | other.0)
    }
}

impl fmt::Debug for NodeMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nodes {:#b}", self.0)
    }
}

/// The distance between nodes, in the unit of ACPI's SLIT: 10 is a node to itself.
#[derive(Clone, Copy)]
pub struct Distances([[u8; MAX_NODES]; MAX_NODES]);

impl Distances {
    /// A node to itself.
    pub const LOCAL: u8 = 10;
    /// One node to another where nothing else is said.
    pub const REMOTE: u8 = 20;

    /// All nodes equally far from each other.
    pub const fn new() -> Distances {
        let mut table = [[Self::REMOTE; MAX_NODES]; MAX_NODES];
        let mut node = 0;
        while node < MAX_NODES {
            table[node][node] = Self::LOCAL;
            node += 1;
        }
        Distances(table)
    }

    /// The distance.
    pub const fn get(&self, from: NodeId, to: NodeId) -> u8 {
        self.0[from.index()][to.index()]
    }

    /// Sets the distance.
    pub const fn set(&mut self, from: NodeId, to: NodeId, distance: u8) {
        self.0[from.index()][to.index()] = distance;
    }
}

impl Default for Distances {
    fn default() -> Self {
        Self::new()
    }
}
