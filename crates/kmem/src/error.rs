//! Why a call failed.

use core::fmt;

use crate::gfp::GfpError;
use crate::{Gfp, NodeId, Order};

/// Why no memory was handed out. The texts' calls return NULL or 0; these say why (A065, A066).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocError {
    /// No zone that the request may use has a block of this order within what its priority may
    /// take, and nothing could be freed (A060, A302).
    NoMemory {
        /// The order asked for.
        order: Order,
        /// The flags asked with.
        gfp: Gfp,
    },
    /// The order is larger than the machine's largest (A058, A083).
    OrderTooLarge {
        /// The order asked for.
        order: u32,
        /// The machine's largest.
        largest: Order,
    },
    /// The flags contradict each other.
    BadFlags(GfpError),
    /// A size of 0 bytes or pages was asked for.
    ZeroSize,
    /// There is no such node, or it has no memory.
    NoSuchNode(NodeId),
    /// The manager has not been booted.
    NotBooted,
    /// The cache has been destroyed.
    NoSuchCache,
    /// The memory that was to be made larger or smaller was not allocated.
    NotAllocated,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AllocError::NoMemory { order, gfp } => {
                write!(f, "out of memory: no block of order {order} for {gfp}")
            }
            AllocError::OrderTooLarge { order, largest } => {
                write!(f, "order {order} is too large: the largest of this machine is {largest}")
            }
            AllocError::BadFlags(error) => error.fmt(f),
            AllocError::ZeroSize => f.write_str("a size of 0 was asked for"),
            AllocError::NoSuchNode(node) => write!(f, "there is no memory on node {node}"),
            AllocError::NoSuchCache => f.write_str("there is no such cache any more"),
            AllocError::NotAllocated => f.write_str("the memory to resize was not allocated"),
            AllocError::NotBooted => {
                f.write_str("the manager is not booted: call boot with a memory map first")
            }
        }
    }
}

impl core::error::Error for AllocError {}

impl From<GfpError> for AllocError {
    fn from(error: GfpError) -> Self {
        AllocError::BadFlags(error)
    }
}
