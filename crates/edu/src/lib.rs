//! A driver of `edu`, the device that QEMU has for teaching: it inverts numbers, computes factorials, and
//! copies between memory and a buffer of 4 KiB by itself.
//!
//! It is what a driver needs of kmem in the smallest form: registers that are mapped
//! ([`Mm::iomem`](kmem::Mm::iomem)), and memory that a device of few address lines is given
//! ([`DmaDevice`]). The device has 28 of them, and drops the bits above without a word: that it uses
//! nobody else's memory is the mask's merit.
//!
//! ```text
//!   driver          kmem                          device
//!   write ───────> dma_map_single ── address ──> reads memory ──┐
//!                                                           buffer, 4 KiB at 0x40000
//!   read  <─────── dma_unmap_single <─────────── writes memory ─┘
//! ```
//!
//! The driver knows [`kmem`] and nothing else. Where its registers are is for whoever starts it: on a PC
//! they are mapped, and beside a model of the device they are that.
//!
//! One user at a time: the device has one set of registers. [`Edu::write`] and its sisters wait for the
//! device by looking at its registers, in any context that may take a tenth of a second, which is what
//! QEMU's takes for a transfer.

#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

use core::fmt;

use kmem::dma::{Direction, DmaAddr, DmaDevice, DmaError, DmaMask};
use kmem::io::{IoError, Registers};
use kmem::{Mm, Platform, Reclaim};

/// Identification of the device: the version above, the kind below.
const ID: usize = 0x00;
/// What is written is read inverted.
const LIVENESS: usize = 0x04;
/// A number is written, its factorial is read.
const FACTORIAL: usize = 0x08;
const STATUS: usize = 0x20;
const SOURCE: usize = 0x80;
const TARGET: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;

/// In the status: at work on a factorial.
const COMPUTING: u32 = 1;
/// In the command: go, and it stays set until the transfer is done.
const RUN: u32 = 1;
/// In the command: to memory, and not from it.
const TO_MEMORY: u32 = 2;

/// Where the device has its buffer, in its own addresses.
const BUFFER: u64 = 0x40000;

/// How many bytes a transfer may have, and how far it may reach into the device's buffer: the last one of
/// its 4096 cannot be used, since QEMU 7.2 takes a transfer that ends with the buffer for one that ends
/// behind it.
pub const BUFFER_SIZE: usize = 4095;

/// How many bytes its registers take, from its first physical address on.
pub const REGISTERS: usize = 0x100;

/// How many address lines the device has.
pub const ADDRESS_LINES: u32 = 28;

/// How often a register is looked at before the device is given up. QEMU's takes a tenth of a second for a
/// transfer, in which a register can be read some hundred thousand times.
const PATIENCE: u32 = 200_000_000;

/// The device.
pub struct Edu<'r, G: Registers + ?Sized> {
    registers: &'r G,
    dma: DmaDevice,
}

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From memory into the device's buffer.
    IntoDevice,
    /// From the device's buffer into memory.
    IntoMemory,
}

impl<'r, G: Registers + ?Sized> Edu<'r, G> {
    /// The device with these registers, if it is one and answers.
    ///
    /// # Errors
    ///
    /// [`EduError::NotEdu`]; [`EduError::Dead`] where what was written does not come back inverted.
    pub fn new(registers: &'r G) -> Result<Self, EduError> {
        let found = registers.read32(ID)?;
        if found & 0xffff != 0x00ed {
            return Err(EduError::NotEdu { found });
        }
        let dma = DmaDevice::new("edu", DmaMask::bits(ADDRESS_LINES));
        let edu = Edu { registers, dma };
        for value in [0, 0x1234_5678, u32::MAX] {
            if edu.inverted(value)? != !value {
                return Err(EduError::Dead);
            }
        }
        Ok(edu)
    }

    /// The version of the device: 1.0 is 0x100.
    ///
    /// # Errors
    ///
    /// Its registers are fewer than the device has.
    pub fn version(&self) -> Result<u32, EduError> {
        Ok(self.registers.read32(ID)? >> 16)
    }

    /// What the device has been given, for calls of the manager.
    pub fn dma(&self) -> &DmaDevice {
        &self.dma
    }

    /// What the device answers to a number: its inverse.
    ///
    /// # Errors
    ///
    /// As [`Edu::version`].
    pub fn inverted(&self, value: u32) -> Result<u32, EduError> {
        self.registers.write32(value, LIVENESS)?;
        Ok(self.registers.read32(LIVENESS)?)
    }

    /// Has the device compute a factorial, modulo `2^32`, and waits for it.
    ///
    /// # Errors
    ///
    /// [`EduError::TimedOut`].
    pub fn factorial(&self, of: u32) -> Result<u32, EduError> {
        self.registers.write32(of, FACTORIAL)?;
        self.wait(STATUS, COMPUTING)?;
        Ok(self.registers.read32(FACTORIAL)?)
    }

    /// Copies a buffer into the device's, `offset` bytes behind its start, and waits for it.
    ///
    /// # Errors
    ///
    /// [`EduError::Buffer`]; [`EduError::Dma`] where the memory cannot be given to the device;
    /// [`EduError::TimedOut`].
    ///
    /// # Safety
    ///
    /// After [`EduError::TimedOut`] nobody uses the buffer before the device is reset: it may be at it still.
    pub unsafe fn write<P: Platform, R: Reclaim>(
        &self,
        mm: &Mm<P, R>,
        from: &mut [u8],
        offset: usize,
    ) -> Result<(), EduError> {
        let size = check(offset, from.len())?;
        // SAFETY: the device has done with the buffer after the transfer, or it is as the caller promises.
        let mapped = unsafe { mm.dma_mapped(&self.dma, from, Direction::ToDevice) }?;
        // SAFETY: the device reads what it was given, which nobody writes meanwhile.
        unsafe { self.transfer(Way::IntoDevice, mapped.address(), size, offset) }
    }

    /// Copies out of the device's buffer, from `offset` bytes behind its start on, and waits for it.
    ///
    /// # Errors
    ///
    /// As [`Edu::write`].
    ///
    /// # Safety
    ///
    /// As [`Edu::write`].
    pub unsafe fn read<P: Platform, R: Reclaim>(
        &self,
        mm: &Mm<P, R>,
        into: &mut [u8],
        offset: usize,
    ) -> Result<(), EduError> {
        let size = check(offset, into.len())?;
        // SAFETY: the device has done with the buffer after the transfer, or it is as the caller promises.
        let mapped = unsafe { mm.dma_mapped(&self.dma, into, Direction::FromDevice) }?;
        // SAFETY: the device writes what it was given, which nobody uses meanwhile.
        unsafe { self.transfer(Way::IntoMemory, mapped.address(), size, offset) }
    }

    /// Has the device copy, and waits for it.
    ///
    /// # Errors
    ///
    /// [`EduError::Buffer`]; [`EduError::BeyondMask`] where the device does not reach the memory: it would
    /// use other memory, and say nothing. [`EduError::TimedOut`].
    ///
    /// # Safety
    ///
    /// The memory was given to this device, for this way at least, and nobody uses it meanwhile; also not
    /// after an error, before the device is reset.
    pub unsafe fn transfer(
        &self,
        way: Way,
        memory: DmaAddr,
        size: usize,
        offset: usize,
    ) -> Result<(), EduError> {
        check(offset, size)?;
        if !self.dma.mask().reaches(memory.get(), size as u64) {
            return Err(EduError::BeyondMask { address: memory, size });
        }
        let buffer = BUFFER + offset as u64;
        let (source, target, direction) = match way {
            Way::IntoDevice => (memory.get(), buffer, 0),
            Way::IntoMemory => (buffer, memory.get(), TO_MEMORY),
        };
        self.registers.write64(source, SOURCE)?;
        self.registers.write64(target, TARGET)?;
        self.registers.write64(size as u64, COUNT)?;
        // The last one: it comes after all that was written to memory, and starts the device.
        self.registers.write32(RUN | direction, COMMAND)?;
        self.wait(COMMAND, RUN)
    }

    /// Waits until a bit of a register is clear.
    fn wait(&self, register: usize, bit: u32) -> Result<(), EduError> {
        for _ in 0..PATIENCE {
            if self.registers.read32(register)? & bit == 0 {
                return Ok(());
            }
            core::hint::spin_loop();
        }
        Err(EduError::TimedOut)
    }
}

/// Answers the size where so many bytes fit into the device's buffer.
fn check(offset: usize, size: usize) -> Result<usize, EduError> {
    match offset.checked_add(size) {
        Some(end) if end <= BUFFER_SIZE && size > 0 => Ok(size),
        _ => Err(EduError::Buffer { offset, size }),
    }
}

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EduError {
    /// The registers are those of another device.
    NotEdu {
        /// What they identify themselves as.
        found: u32,
    },
    /// The device does not answer.
    Dead,
    /// So much does not lie in the device's buffer, or it is nothing.
    Buffer {
        /// From where on, in bytes.
        offset: usize,
        /// How many bytes.
        size: usize,
    },
    /// The device does not reach the memory.
    BeyondMask {
        /// Its first address.
        address: DmaAddr,
        /// How many bytes.
        size: usize,
    },
    /// The device did not end what it was told to do.
    TimedOut,
    /// The memory could not be given to the device.
    Dma(DmaError),
    /// A register is not there.
    Io(IoError),
}

impl From<DmaError> for EduError {
    fn from(error: DmaError) -> Self {
        EduError::Dma(error)
    }
}

impl From<IoError> for EduError {
    fn from(error: IoError) -> Self {
        EduError::Io(error)
    }
}

impl fmt::Display for EduError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EduError::NotEdu { found } => {
                write!(f, "a device that calls itself {found:#x}: edu ends with ed")
            }
            EduError::Dead => f.write_str("the device does not answer"),
            EduError::Buffer { offset, size } => write!(
                f,
                "{size} bytes at offset {offset} of the device's buffer: it takes 1 to {BUFFER_SIZE}"
            ),
            EduError::BeyondMask { address, size } => write!(
                f,
                "{size} bytes at {address}, and the device reaches {ADDRESS_LINES} bits: map the \
                 memory first"
            ),
            EduError::TimedOut => f.write_str("the device did not end what it was told to do"),
            EduError::Dma(error) => error.fmt(f),
            EduError::Io(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for EduError {}
