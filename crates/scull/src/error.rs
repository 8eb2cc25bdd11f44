//! What can fail, and the number that Linux has for it.

use core::fmt;

use kmem::{AllocError, CacheError};

/// The error numbers that the drivers' calls give, by Linux's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// No memory.
    Enomem,
    /// No such device.
    Enodev,
    /// A parameter makes no sense.
    Einval,
    /// The file is not open for that.
    Ebadf,
    /// The offset is too large.
    Efbig,
    /// No space left on the device.
    Enospc,
    /// Permission denied.
    Eacces,
    /// Bad address.
    Efault,
    /// The device is busy.
    Ebusy,
    /// No such control of the device.
    Enotty,
}

impl Errno {
    /// Linux's name: `ENOMEM`.
    pub const fn name(self) -> &'static str {
        match self {
            Errno::Enomem => "ENOMEM",
            Errno::Enodev => "ENODEV",
            Errno::Einval => "EINVAL",
            Errno::Ebadf => "EBADF",
            Errno::Efbig => "EFBIG",
            Errno::Enospc => "ENOSPC",
            Errno::Eacces => "EACCES",
            Errno::Efault => "EFAULT",
            Errno::Ebusy => "EBUSY",
            Errno::Enotty => "ENOTTY",
        }
    }

    /// Linux's number, the same on all its architectures.
    pub const fn number(self) -> i32 {
        match self {
            Errno::Enomem => 12,
            Errno::Enodev => 19,
            Errno::Einval => 22,
            Errno::Ebadf => 9,
            Errno::Efbig => 27,
            Errno::Enospc => 28,
            Errno::Eacces => 13,
            Errno::Efault => 14,
            Errno::Ebusy => 16,
            Errno::Enotty => 25,
        }
    }
}

/// Why a call of a driver failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScullError {
    /// There is no memory. What the device held before the call is as it was.
    NoMemory(AllocError),
    /// The cache that quanta were to come from cannot be made (A306).
    NoCache(CacheError),
    /// The device may not hold so much (A165). It is as it was.
    OverQuota {
        /// The bytes that it holds.
        held: u64,
        /// The bytes that the call would have added.
        needed: u64,
        /// The bytes that it may hold.
        quota: u64,
    },
    /// There is no device with that number.
    NoSuchDevice {
        /// The number that was asked for.
        device: u64,
        /// How many devices there are, from 0 on.
        devices: u64,
    },
    /// The parameter is set when the module is loaded, and not afterwards (A305).
    ReadOnly {
        /// The module.
        module: &'static str,
        /// The parameter.
        name: &'static str,
    },
    /// A parameter is out of its range.
    BadParameter {
        /// The parameter.
        name: &'static str,
        /// The value that was given.
        value: u64,
        /// The smallest value.
        smallest: u64,
        /// The largest value.
        largest: u64,
    },
    /// The file is not open for reading, or not for writing.
    NotOpenFor(&'static str),
    /// The device's memory is no whole pages with references of their own: it cannot be mapped (A312).
    NotMappable {
        /// The module.
        module: &'static str,
    },
    /// A page of a mapping was touched where the device holds nothing: beyond its end, or in a hole.
    NothingThere {
        /// The position, in bytes.
        position: u64,
    },
    /// The device's memory is mapped by so many, and stays until they have let go.
    Mapped {
        /// How many mappings there are.
        mappings: u32,
    },
    /// A device has no such control: see [`ioctl`](crate::ioctl).
    NoSuchCommand {
        /// The number that was asked for.
        command: u32,
    },
    /// The position lies beyond what can be counted.
    TooFar {
        /// The position, in bytes.
        position: u64,
    },
}

impl ScullError {
    /// The error number that a driver of Linux would return.
    pub const fn errno(&self) -> Errno {
        match self {
            ScullError::NoMemory(_) | ScullError::NoCache(_) => Errno::Enomem,
            ScullError::OverQuota { .. } => Errno::Enospc,
            ScullError::ReadOnly { .. } => Errno::Eacces,
            ScullError::NoSuchDevice { .. } => Errno::Enodev,
            ScullError::BadParameter { .. } => Errno::Einval,
            ScullError::NotOpenFor(_) => Errno::Ebadf,
            ScullError::NotMappable { .. } => Errno::Enodev,
            ScullError::NothingThere { .. } => Errno::Efault,
            ScullError::Mapped { .. } => Errno::Ebusy,
            ScullError::NoSuchCommand { .. } => Errno::Enotty,
            ScullError::TooFar { .. } => Errno::Efbig,
        }
    }
}

impl fmt::Display for ScullError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScullError::NoMemory(error) => error.fmt(f)?,
            ScullError::NoCache(error) => write!(f, "the cache cannot be made: {error}")?,
            ScullError::OverQuota { held, needed, quota } => {
                let bytes = if *quota == 1 { "byte" } else { "bytes" };
                write!(f, "over the device's quota of {quota} {bytes}: ")?;
                write!(f, "it holds {held} and needs {needed} more")?
            }
            ScullError::ReadOnly { module, name } => {
                write!(f, "{name} is set when {module} is loaded, not later")?
            }
            ScullError::NoSuchDevice { device, devices } => {
                let last = devices.saturating_sub(1);
                write!(f, "there is no device {device}: the last is {last}")?
            }
            ScullError::BadParameter { name, value, smallest, largest } => {
                write!(f, "{name}={value} is out of range: give {smallest} to {largest}")?
            }
            ScullError::NotOpenFor(what) => write!(f, "the file is not open for {what}")?,
            ScullError::NotMappable { module } => write!(
                f,
                "the memory of {module} cannot be mapped: load scullp with order=0, or scullv"
            )?,
            ScullError::NothingThere { position } => {
                write!(f, "the device holds nothing at position {position}: write there first")?
            }
            ScullError::Mapped { mappings: 1 } => f.write_str("the device's memory is mapped")?,
            ScullError::Mapped { mappings } => {
                write!(f, "the device's memory is mapped {mappings} times")?
            }
            ScullError::NoSuchCommand { command } => {
                write!(f, "a device has no control {command:#x}: give one of those of magic 'k'")?
            }
            ScullError::TooFar { position } => {
                write!(f, "position {position} is beyond what a device can hold")?
            }
        }
        write!(f, " ({})", self.errno().name())
    }
}

impl core::error::Error for ScullError {}

impl From<AllocError> for ScullError {
    fn from(error: AllocError) -> Self {
        ScullError::NoMemory(error)
    }
}
