//! Registers of devices: mapped addresses that are read and written through calls, and in no other way
//! (A243).
//!
//! # What it is
//!
//! What a device shows of itself lies at physical addresses where there is no RAM.
//! [`Mm::ioremap`](crate::Mm::ioremap) has them seen at addresses of their own and answers an
//! [`IoPtr`]: an address, and nothing that can be read as memory is. [`Mm::iomem`](crate::Mm::iomem)
//! does the same and answers a value that unmaps itself.
//!
//! ```text
//!   IoPtr      an address: Copy, says nothing of its size          ioremap, iounmap
//!     |
//!   IoRange    an address and a size: every access is looked at    readl, writel, memcpy_fromio ...
//!     |
//!   IoMem      an IoRange that belongs to somebody: unmaps itself  iomem            (mm/vmalloc)
//! ```
//!
//! A driver that is to run where there is no such device, beside a model of it, is written over the trait
//! [`Registers`].
//!
//! # Why not a pointer
//!
//! The compiler may read memory twice, later, or not at all, and half of it at a time. A register is read
//! once for each call, in the width of the call's name, in the order of the program. Registers are little
//! endian, whatever the processor is.
//!
//! # Order
//!
//! A driver writes a buffer, then tells the device; it reads that the device is done, then reads the
//! buffer. So:
//!
//! * `writel` and its sisters come after all writes to memory before them;
//! * `readl` and its sisters come before all reads of memory behind them;
//! * registers are accessed in the order of the program;
//! * with `_relaxed` only the last holds.
//!
//! The processors of x86 keep this order by themselves for memory that is mapped as registers are, so that
//! only the compiler is told. On others there is a full fence, which costs more than those processors'
//! own instructions for it.
//!
//! # What differs from Linux
//!
//! Accesses are looked at: one outside the mapping, or one that is not aligned, is an [`IoError`] and not a
//! bus error or somebody else's registers.

mod range;
#[cfg(test)]
mod tests;

use core::fmt;
use core::ptr::NonNull;

use crate::{AllocError, PhysAddr};

pub use range::IoRange;

/// Where a device's registers are seen: what [`Mm::ioremap`](crate::Mm::ioremap) answers (A240).
///
/// An address that is not for reading and writing as memory is (A243), so nothing does that:
///
/// ```compile_fail,E0614
/// # fn read(registers: kmem::io::IoPtr) -> u32 {
/// *registers
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct IoPtr(NonNull<u8>);

// SAFETY: an address; what is done with it is its user's promise.
unsafe impl Send for IoPtr {}
// SAFETY: as above.
unsafe impl Sync for IoPtr {}

impl IoPtr {
    /// The registers at an address that was made with [`IoPtr::as_ptr`]; `None` for null.
    pub const fn from_ptr(address: *mut u8) -> Option<IoPtr> {
        match NonNull::new(address) {
            Some(address) => Some(IoPtr(address)),
            None => None,
        }
    }

    pub(crate) const fn new(address: NonNull<u8>) -> IoPtr {
        IoPtr(address)
    }

    /// The address, for code of other languages and for comparison with other addresses.
    pub const fn as_ptr(self) -> *mut u8 {
        self.0.as_ptr()
    }

    /// The first `size` bytes from here on, to be read and written.
    ///
    /// # Safety
    ///
    /// So many bytes are mapped here for as long as the answer is used, as registers or as memory that is
    /// shared with a device; and to read or write them does no harm to memory.
    pub const unsafe fn range(self, size: usize) -> IoRange {
        // SAFETY: the caller's promise.
        unsafe { IoRange::new(self.0, size) }
    }
}

/// Registers of a device, wherever they are: what a driver knows of them.
///
/// [`IoRange`] and [`IoMem`](crate::mm::IoMem) are such; a model of a device is another. Offsets and sizes
/// are in bytes.
pub trait Registers {
    /// Reads 32 bits. What the device wrote to memory before is seen by reads of memory behind this.
    ///
    /// # Errors
    ///
    /// The offset is not one of the device's, or no multiple of 4.
    fn read32(&self, offset: usize) -> Result<u32, IoError>;

    /// Writes 32 bits. What was written to memory before is there when the device takes notice.
    ///
    /// # Errors
    ///
    /// As [`Registers::read32`].
    fn write32(&self, value: u32, offset: usize) -> Result<(), IoError>;

    /// Writes 64 bits at once, as [`Registers::write32`] does 32.
    ///
    /// # Errors
    ///
    /// The offset is not one of the device's, or no multiple of 8.
    fn write64(&self, value: u64, offset: usize) -> Result<(), IoError>;
}

/// Why a register was not accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    /// Not all of it lies in the mapping.
    Outside {
        /// From where on, in bytes.
        offset: usize,
        /// How many bytes.
        width: usize,
        /// How many the mapping has.
        size: usize,
    },
    /// It is not aligned to its own width.
    Misaligned {
        /// From where on, in bytes.
        offset: usize,
        /// How many bytes.
        width: usize,
    },
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IoError::Outside { offset, width, size } => {
                write!(f, "{width} bytes at offset {offset:#x} of registers that have {size:#x}")
            }
            IoError::Misaligned { offset, width } => {
                write!(f, "offset {offset:#x} is no multiple of {width}, the bytes accessed")
            }
        }
    }
}

impl core::error::Error for IoError {}

/// Why a device's registers were not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoremapError {
    /// There is RAM of the manager's there, which has an address already.
    Ram(PhysAddr),
    /// The range ends above what a frame number or an address can say.
    TooHigh {
        /// The first address asked for.
        start: PhysAddr,
        /// How many bytes.
        size: usize,
    },
    /// The address is not the first of a page, which `vremap` does not take (A242).
    Unaligned(PhysAddr),
    /// There are no addresses, no page tables, or no memory to keep note of it.
    Alloc(AllocError),
}

impl From<AllocError> for IoremapError {
    fn from(error: AllocError) -> Self {
        IoremapError::Alloc(error)
    }
}

impl fmt::Display for IoremapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IoremapError::Ram(address) => {
                write!(f, "there is ram at {address}, which is no device: use its own address")
            }
            IoremapError::TooHigh { start, size } => {
                write!(f, "{size:#x} bytes at {start} end above the highest page frame")
            }
            IoremapError::Unaligned(address) => {
                write!(f, "{address} is not the first byte of a page: use ioremap")
            }
            IoremapError::Alloc(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for IoremapError {}
