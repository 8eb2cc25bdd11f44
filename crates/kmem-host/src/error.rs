//! Why a machine could not be booted or changed.

use std::fmt;

use kmem::boot::BootMemError;
use kmem::{BootError, CpuError, CpuId};
use rustix::io::Errno;

use crate::description::{DescriptionError, Footprint};

/// Why a machine could not be booted or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostError {
    /// The description is wrong.
    Description(DescriptionError),
    /// The machine was described with another page size than the program asked for.
    PageShift {
        /// What is described.
        described: u32,
        /// What the program is built for.
        built: u32,
    },
    /// The machine's metadata does not fit the host's memory.
    HostMemory {
        /// The machine.
        name: String,
        /// What it takes.
        footprint: Footprint,
        /// What the host has, in bytes.
        available: u64,
    },
    /// The machine's metadata does not fit the part of its own memory that is mapped directly.
    LowMemory {
        /// The machine.
        name: String,
        /// What it takes.
        footprint: Footprint,
    },
    /// The host did not give what a machine needs.
    Resource {
        /// What it did not give.
        what: &'static str,
        /// What it said.
        reason: Errno,
    },
    /// The manager did not boot.
    Boot(BootError),
    /// The manager did not take or give up a CPU.
    Cpu(CpuError),
    /// The machine has no such CPU.
    NoSuchCpu {
        /// The CPU.
        cpu: CpuId,
    },
    /// The CPU is offline already.
    Offline {
        /// The CPU.
        cpu: CpuId,
    },
    /// No other CPU is online.
    LastCpu {
        /// The CPU.
        cpu: CpuId,
    },
    /// The caller runs on that CPU and may run on no other.
    OwnCpu {
        /// The CPU.
        cpu: CpuId,
    },
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Description(error) => error.fmt(f),
            HostError::PageShift { described, built } => write!(
                f,
                "page_shift = {described} is not allowed: this machine is built for {built}"
            ),
            HostError::HostMemory { name, footprint, available } => write!(
                f,
                "machine {name} does not fit: it needs {} KiB for {} page descriptors and tables, \
                 and the host has {} KiB available: describe less ram or larger pages",
                footprint.metadata >> 10,
                footprint.frames,
                available >> 10
            ),
            HostError::LowMemory { name, footprint } => write!(
                f,
                "machine {name} does not fit: it needs {} KiB for {} page descriptors and tables, \
                 and has {} KiB of unreserved low memory: describe less that is reserved, a higher \
                 direct_map_limit, fewer cpus or larger pages",
                footprint.metadata >> 10,
                footprint.frames,
                footprint.low_memory >> 10
            ),
            HostError::Resource { what, reason } => {
                write!(f, "the host does not give {what}: {reason}")
            }
            HostError::Boot(error) => error.fmt(f),
            HostError::Cpu(error) => error.fmt(f),
            HostError::NoSuchCpu { cpu } => write!(f, "the machine has no {cpu:?}"),
            HostError::Offline { cpu } => write!(f, "{cpu:?} is offline already"),
            HostError::LastCpu { cpu } => {
                write!(f, "{cpu:?} is the last one online: bring another one in first")
            }
            HostError::OwnCpu { cpu } => {
                write!(f, "the caller may run on {cpu:?} alone: call from another cpu")
            }
        }
    }
}

impl std::error::Error for HostError {}

impl From<DescriptionError> for HostError {
    fn from(error: DescriptionError) -> Self {
        HostError::Description(error)
    }
}

impl From<BootError> for HostError {
    fn from(error: BootError) -> Self {
        HostError::Boot(error)
    }
}

impl From<BootMemError> for HostError {
    fn from(error: BootMemError) -> Self {
        HostError::Boot(error.into())
    }
}

impl From<CpuError> for HostError {
    fn from(error: CpuError) -> Self {
        HostError::Cpu(error)
    }
}

/// Refuses a machine whose metadata does not fit the host, or the machine itself.
pub(crate) fn check_fit(footprint: &Footprint, name: &str) -> Result<(), HostError> {
    check_fit_in(footprint, name, available_memory().unwrap_or(u64::MAX))
}

fn check_fit_in(footprint: &Footprint, name: &str, available: u64) -> Result<(), HostError> {
    let (name, footprint) = (name.to_owned(), *footprint);
    if footprint.metadata > footprint.low_memory {
        return Err(HostError::LowMemory { name, footprint });
    }
    if footprint.metadata > available {
        return Err(HostError::HostMemory { name, footprint, available });
    }
    Ok(())
}

/// What the host could give without swapping, in bytes, where it says so.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::description::Description;

    #[test]
    fn a_machine_that_does_not_fit_is_refused_with_numbers() {
        let mut pae = Description::preset("pae").unwrap();
        pae.mem(200 << 30).unwrap();
        let error = check_fit_in(&pae.footprint(), "pae", u64::MAX).unwrap_err().to_string();
        assert!(error.contains("pae") && error.contains("low memory"), "{error}");

        let x86_64 = Description::preset("x86_64").unwrap();
        let footprint = x86_64.footprint();
        let error = check_fit_in(&footprint, "x86_64", 64 << 20).unwrap_err().to_string();
        assert!(error.contains("65536 KiB available"), "{error}");
        assert_eq!(check_fit_in(&footprint, "x86_64", footprint.metadata), Ok(()));
    }

    #[test]
    fn the_host_says_how_much_memory_it_has() {
        assert!(available_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
