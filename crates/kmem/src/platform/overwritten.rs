//! Bytes that somebody wrote whose they were not, and who had the memory.

use core::fmt;
use core::panic::Location;

use crate::{CpuId, VirtAddr};

/// Where bytes were overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Before the object.
    LeftZone,
    /// Behind the object.
    RightZone,
    /// Behind what was asked for, in an object of kmalloc's that is larger.
    Slack,
    /// In the object, while it was free.
    Freed,
}

/// A call that allocated or freed an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Where the call was made.
    pub site: &'static Location<'static>,
    /// The CPU that made it.
    pub cpu: CpuId,
    /// When, as [`Hooks::now`](super::Hooks::now) tells it.
    pub time: u64,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on cpu {} at {} ns", self.site, self.cpu, self.time)
    }
}

/// Bytes that somebody wrote whose they were not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overwritten {
    /// The object that they belong to.
    pub object: VirtAddr,
    /// The number of its cache.
    pub cache: u16,
    /// Which part of it.
    pub place: Where,
    /// The first of them, in bytes from the object's start.
    pub offset: i32,
    /// From the first to the last, in bytes.
    pub length: u32,
    /// What the first one was.
    pub expected: u8,
    /// What the first ones are now, as many as `length`, at most 8.
    pub found: [u8; 8],
    /// Who allocated the object last, where the cache keeps that.
    pub allocated: Option<Caller>,
    /// Who freed it last.
    pub freed: Option<Caller>,
}

impl fmt::Display for Overwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Overwritten { object, cache, offset, length, expected, .. } = self;
        let place = match self.place {
            Where::LeftZone => "the red zone before",
            Where::RightZone => "the red zone behind",
            Where::Slack => "what was not asked for of",
            Where::Freed => "the free bytes of",
        };
        let bytes = if *length == 1 { "byte" } else { "bytes" };
        write!(f, "{length} {bytes} from offset {offset} on, in {place} the object of ")?;
        write!(f, "cache {cache} at {object}: expected {expected:02x}, found")?;
        for byte in self.found.iter().take(*length as usize) {
            write!(f, " {byte:02x}")?;
        }
        if let Some(caller) = self.allocated {
            write!(f, "; allocated at {caller}")?;
        }
        if let Some(caller) = self.freed {
            write!(f, "; freed at {caller}")?;
        }
        Ok(())
    }
}
