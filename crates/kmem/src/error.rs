//! Why a call failed.

use core::fmt;

use crate::gfp::GfpError;
use crate::{CpuId, Gfp, NodeId, Order};

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
    /// The machine was described without this CPU.
    NoSuchCpu(CpuId),
    /// The manager has not been booted.
    NotBooted,
    /// The cache has been destroyed.
    NoSuchCache,
    /// The memory that was to be made larger or smaller was not allocated.
    NotAllocated,
    /// The call may sleep, and was made where sleeping is forbidden. It has been reported as misuse.
    Atomic,
    /// More pages were asked for than the machine has RAM: most likely a mistake (A224).
    MoreThanRam {
        /// The pages asked for.
        pages: usize,
        /// The pages that the manager has.
        ram: u64,
    },
    /// So many pages in a row, and one behind them, are not to be had among the addresses for mappings.
    NoAddresses {
        /// The pages asked for.
        pages: usize,
    },
    /// The platform has no memory for page tables.
    NoPageTables,
    /// The platform's limit on the number of separate mappings is reached.
    TooManyMappings,
    /// A page is mapped there already, or the address is none that pages are mapped at.
    Occupied,
    /// The platform cannot map pages at all.
    NoPageMap,
    /// Per-CPU data of this size or alignment is not possible (A287).
    PerCpuLayout {
        /// The size asked for, in bytes.
        size: usize,
        /// The alignment asked for.
        align: usize,
        /// The most that either may be: a page.
        largest: usize,
    },
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AllocError::NoMemory { order, gfp } => {
                write!(f, "out of memory: no block of order {order} for {gfp}")
            }
            AllocError::OrderTooLarge { order, largest } => {
                write!(
                    f,
                    "order {order} is too large: the largest of this machine is {largest}, "
                )?;
                write!(f, "2^{largest} pages")
            }
            AllocError::BadFlags(error) => error.fmt(f),
            AllocError::ZeroSize => f.write_str("a size of 0 was asked for"),
            AllocError::NoSuchNode(node) => write!(f, "there is no memory on node {node}"),
            AllocError::NoSuchCpu(cpu) => {
                write!(f, "the machine was described without {cpu:?}: see Setup::cpus")
            }
            AllocError::NoSuchCache => f.write_str("there is no such cache any more"),
            AllocError::NotAllocated => f.write_str("the memory to resize was not allocated"),
            AllocError::Atomic => f.write_str(
                "the call may sleep, and must not here: allocate before, or with kmalloc",
            ),
            AllocError::MoreThanRam { pages, ram } => {
                write!(f, "{pages} pages were asked for, and the machine has {ram}")
            }
            AllocError::NoAddresses { pages } => {
                write!(
                    f,
                    "no {pages} pages of addresses in a row, and one behind them, are left for \
                     mappings: free some, or keep more addresses for them"
                )
            }
            AllocError::NoPageTables => f.write_str("no memory for page tables"),
            AllocError::TooManyMappings => f.write_str(
                "as many pieces of memory are mapped as the platform can: free some, or ask for \
                 larger ones",
            ),
            AllocError::Occupied => f.write_str("no page may be mapped at that address"),
            AllocError::NoPageMap => {
                f.write_str("the platform has no page tables to map with: see DirectMap::page_map")
            }
            AllocError::PerCpuLayout { size, align, largest } => write!(
                f,
                "per-cpu data of {size} bytes aligned to {align} was asked for: both may be at most a \
                 page, {largest}, and the alignment must be a power of two"
            ),
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
