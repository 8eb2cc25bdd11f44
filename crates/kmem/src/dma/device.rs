//! What a driver keeps of its device.

use core::fmt;
use core::panic::Location;

use super::records::Records;
use super::slots::{MOST_SLOTS, SLOT, Slots};
use crate::sync::{DmaLevel, SpinLock};
use crate::{AllocError, PhysAddr, VirtAddr};

/// An address as a device is told it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct DmaAddr(u64);

impl DmaAddr {
    /// The address with this value.
    pub const fn new(address: u64) -> DmaAddr {
        DmaAddr(address)
    }

    /// What is written to the device.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The address so many bytes further on, if there is one.
    pub const fn checked_add(self, bytes: u64) -> Option<DmaAddr> {
        match self.0.checked_add(bytes) {
            Some(address) => Some(DmaAddr(address)),
            None => None,
        }
    }
}

/// What the texts' calls answer instead of an address where nothing was mapped: no memory lies there.
pub const MAPPING_ERROR: u64 = u64::MAX;

impl From<PhysAddr> for DmaAddr {
    fn from(address: PhysAddr) -> Self {
        DmaAddr(address.get())
    }
}

impl fmt::Debug for DmaAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dma {:#x}", self.0)
    }
}

impl fmt::Display for DmaAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The highest address that a device can be told: one less than a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DmaMask(u64);

impl DmaMask {
    /// All addresses.
    pub const ALL: DmaMask = DmaMask(u64::MAX);

    /// The mask of a device with so many address lines; 64 and more are all addresses.
    pub const fn bits(lines: u32) -> DmaMask {
        if lines >= u64::BITS { Self::ALL } else { DmaMask((1 << lines) - 1) }
    }

    /// The highest address.
    pub const fn last(self) -> u64 {
        self.0
    }

    /// Whether the device reaches all of the `size` bytes from an address on. The test that a device does
    /// not make: it drops the bits that it has no lines for, and uses somebody else's memory.
    pub const fn reaches(self, start: u64, size: u64) -> bool {
        match start.checked_add(size.saturating_sub(1)) {
            Some(last) => last <= self.0,
            None => false,
        }
    }
}

/// Who reads and who writes while a device has a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device reads.
    ToDevice,
    /// The device writes.
    FromDevice,
    /// It may do both.
    Bidirectional,
}

impl Direction {
    /// Whether the device may write.
    pub const fn is_from_device(self) -> bool {
        matches!(self, Direction::FromDevice | Direction::Bidirectional)
    }

    /// Whether the device may read.
    pub const fn is_to_device(self) -> bool {
        matches!(self, Direction::ToDevice | Direction::Bidirectional)
    }

    /// What reports call it.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::ToDevice => "to device",
            Direction::FromDevice => "from device",
            Direction::Bidirectional => "bidirectional",
        }
    }
}

/// A device that reads and writes memory, as its driver describes it. Everything that the device has been
/// given is kept note of here.
///
/// Before it goes, its driver has [`Mm::dma_detach`](crate::Mm::dma_detach) look whether everything was
/// given back. While the device has something, or slots, it is used with the one manager that these are
/// of; other managers refuse it and report that.
///
/// ```
/// use kmem::dma::{DmaDevice, DmaMask};
///
/// static EDU: DmaDevice = DmaDevice::new("edu", DmaMask::bits(28));
/// assert!(EDU.mask().reaches(0xfff_f000, 0x1000));
/// assert!(!EDU.mask().reaches(0xfff_f000, 0x1001));
/// ```
pub struct DmaDevice {
    name: &'static str,
    mask: DmaMask,
    coherent_mask: DmaMask,
    slots: u16,
    pub(crate) state: SpinLock<DmaLevel, State>,
}

/// What a device has been given.
///
/// # Invariants
///
/// What the records are kept in, and the pool, are memory of the manager that `manager` names.
pub(crate) struct State {
    pub(crate) records: Records,
    pub(crate) pool: Option<Pool>,
    manager: usize,
}

impl State {
    /// Whether a manager may use the device: it is its own, or nobody's, and then its own from here on.
    pub(crate) fn is_for(&mut self, manager: usize) -> bool {
        if self.records.len() == 0 && self.pool.is_none() {
            self.manager = manager;
        }
        self.manager == manager
    }
}

/// Memory that a device reaches, in slots.
pub(crate) struct Pool {
    pub(crate) start: PhysAddr,
    pub(crate) address: VirtAddr,
    pub(crate) pages: u64,
    pub(crate) slots: Slots,
}

impl DmaDevice {
    /// A device that reaches the addresses of a mask, for streaming and for coherent memory, with 128
    /// slots of 2 KiB for memory that it does not reach.
    pub const fn new(name: &'static str, mask: DmaMask) -> DmaDevice {
        DmaDevice {
            name,
            mask,
            coherent_mask: mask,
            slots: 128,
            state: SpinLock::new(State { records: Records::new(), pool: None, manager: 0 }),
        }
    }

    /// Sets another mask for coherent memory: devices take their rings from fewer address lines than their
    /// data.
    pub const fn coherent_mask(mut self, mask: DmaMask) -> DmaDevice {
        self.coherent_mask = mask;
        self
    }

    /// Sets how many slots of 2 KiB stand in for memory that the device does not reach: 1 to 512. They
    /// bound how much can be mapped so at once.
    pub const fn slots(mut self, count: usize) -> DmaDevice {
        self.slots = if count == 0 {
            1
        } else if count > MOST_SLOTS {
            MOST_SLOTS as u16
        } else {
            count as u16
        };
        self
    }

    /// What it is called in reports.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What it reaches.
    pub const fn mask(&self) -> DmaMask {
        self.mask
    }

    /// What it reaches of coherent memory.
    pub const fn mask_of_coherent(&self) -> DmaMask {
        self.coherent_mask
    }

    /// How many slots it has, or will have.
    pub(crate) const fn slot_count(&self) -> usize {
        self.slots as usize
    }

    /// The bytes of its slots: the most that can be mapped at once where it does not reach.
    pub const fn slot_bytes(&self) -> usize {
        self.slots as usize * SLOT
    }
}

impl fmt::Debug for DmaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DmaDevice { name, mask, coherent_mask, .. } = self;
        write!(f, "{name}: reaches {:#x}, coherent {:#x}", mask.last(), coherent_mask.last())
    }
}

/// Why a device was not given memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaError {
    /// A size of 0 bytes.
    ZeroSize,
    /// The address is not one of memory that a device can be told of: null, of `vmalloc` (A228), of
    /// `ioremap`, of a stack that is mapped, or of no page in use. It has been reported as misuse.
    NotForDma(VirtAddr),
    /// The pages are not RAM that is in use. It has been reported as misuse.
    NotInUse(PhysAddr),
    /// The device does not reach the memory, and so much does not fit into its slots at all.
    TooLarge {
        /// How many bytes.
        size: usize,
        /// How many its slots have.
        slots: usize,
    },
    /// The device does not reach the memory, and its slots are taken: there are some again when something
    /// is unmapped.
    NoSlots {
        /// How many bytes.
        size: usize,
    },
    /// There is no memory that the device reaches, for slots or as asked for.
    NoMemory {
        /// The highest address that it reaches.
        mask: DmaMask,
        /// Why the allocator had none.
        why: AllocError,
    },
    /// The device has memory of another manager's. It has been reported as misuse.
    OthersDevice,
    /// There is no memory to keep note of it; [`AllocError::Atomic`] in an NMI handler, which has been
    /// reported as misuse.
    Alloc(AllocError),
}

impl fmt::Display for DmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DmaError::ZeroSize => f.write_str("a size of 0 was asked for"),
            DmaError::NotForDma(address) => write!(
                f,
                "{address} is not the address of memory for devices: use kmalloc or alloc_pages"
            ),
            DmaError::NotInUse(address) => write!(f, "no page in use at {address}"),
            DmaError::TooLarge { size, slots } => write!(
                f,
                "{size} bytes that the device does not reach, and its slots have {slots}: map less \
                 at once"
            ),
            DmaError::NoSlots { size } => write!(
                f,
                "{size} bytes that the device does not reach, and its slots are taken: unmap some"
            ),
            DmaError::NoMemory { mask, why } => {
                write!(f, "no memory up to {:#x}, which the device reaches: {why}", mask.last())
            }
            DmaError::OthersDevice => f.write_str(
                "the device has memory of another manager's: have it detached there first",
            ),
            DmaError::Alloc(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for DmaError {}

/// What a device still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillGiven {
    /// How many mappings and pieces of coherent memory; 0 where the call was a wrong one.
    pub count: usize,
    /// Who made one of them, or the wrong call.
    pub caller: &'static Location<'static>,
}

impl fmt::Display for StillGiven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return write!(
                f,
                "the device cannot be left from here, as was asked at {}",
                self.caller
            );
        }
        write!(
            f,
            "the device still has {} mappings, one of them made at {}",
            self.count, self.caller
        )
    }
}

impl core::error::Error for StillGiven {}
