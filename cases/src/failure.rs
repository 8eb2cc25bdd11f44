//! Why a case failed.

use core::fmt;
use core::panic::Location;

use kmem::{AllocError, KmapError};

/// Why a case failed: what should have been, what was found, and where the case looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    what: &'static str,
    detail: Detail,
    at: &'static Location<'static>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    None,
    Numbers { found: u64, wanted: u64 },
    Alloc(AllocError),
    Kmap(KmapError),
}

impl Failure {
    /// A failure; `what` is what should have been.
    #[track_caller]
    pub const fn new(what: &'static str) -> Failure {
        Failure { what, detail: Detail::None, at: Location::caller() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not so: {}", self.what)?;
        match self.detail {
            Detail::None => {}
            Detail::Numbers { found, wanted } => write!(f, ": found {found}, wanted {wanted}")?,
            Detail::Alloc(error) => write!(f, ": {error}")?,
            Detail::Kmap(error) => write!(f, ": {error}")?,
        }
        write!(f, " ({})", self.at)
    }
}

impl core::error::Error for Failure {}

impl From<AllocError> for Failure {
    #[track_caller]
    fn from(error: AllocError) -> Self {
        Failure {
            what: "an allocation succeeds",
            detail: Detail::Alloc(error),
            at: Location::caller(),
        }
    }
}

impl From<KmapError> for Failure {
    #[track_caller]
    fn from(error: KmapError) -> Self {
        Failure {
            what: "a page can be mapped",
            detail: Detail::Kmap(error),
            at: Location::caller(),
        }
    }
}

impl From<fmt::Error> for Failure {
    #[track_caller]
    fn from(_: fmt::Error) -> Self {
        Failure::new("a text fits its place")
    }
}

/// Fails unless `holds`.
///
/// # Errors
///
/// `what` is not so.
#[track_caller]
pub fn check(holds: bool, what: &'static str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::new(what)) }
}

/// Fails unless both numbers are the same.
///
/// # Errors
///
/// `what` is not so, and both numbers.
#[track_caller]
pub fn equal(found: u64, wanted: u64, what: &'static str) -> Result<(), Failure> {
    numbers(found == wanted, found, wanted, what)
}

/// Fails unless the first number is not above the second.
#[track_caller]
pub(crate) fn at_most(found: u64, most: u64, what: &'static str) -> Result<(), Failure> {
    numbers(found <= most, found, most, what)
}

/// Fails unless the first number is not below the second.
///
/// # Errors
///
/// `what` is not so, and both numbers.
#[track_caller]
pub fn at_least(found: u64, least: u64, what: &'static str) -> Result<(), Failure> {
    numbers(found >= least, found, least, what)
}

#[track_caller]
fn numbers(holds: bool, found: u64, wanted: u64, what: &'static str) -> Result<(), Failure> {
    if holds {
        return Ok(());
    }
    Err(Failure { what, detail: Detail::Numbers { found, wanted }, at: Location::caller() })
}

/// What an optional value holds.
#[track_caller]
pub(crate) fn some<T>(value: Option<T>, what: &'static str) -> Result<T, Failure> {
    match value {
        Some(value) => Ok(value),
        None => Err(Failure::new(what)),
    }
}

/// Fails unless the allocation failed for want of memory, with this order and these flags.
#[track_caller]
pub(crate) fn no_memory<T>(
    result: Result<T, AllocError>,
    order: u32,
    what: &'static str,
) -> Result<(), Failure> {
    match result {
        Err(AllocError::NoMemory { order: failed, .. }) if failed.get() == order => Ok(()),
        Err(error) => Err(Failure { what, detail: Detail::Alloc(error), at: Location::caller() }),
        Ok(_) => Err(Failure::new(what)),
    }
}
