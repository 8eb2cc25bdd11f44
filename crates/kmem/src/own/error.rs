//! Errors that give back what could not be put somewhere.

use core::error::Error;
use core::fmt;

use crate::AllocError;

/// There was no memory for a value, which is given back.
pub struct PushError<T> {
    /// The value.
    pub value: T,
    /// Why there was no memory.
    pub error: AllocError,
}

/// Why a value was not inserted.
pub enum InsertError<T> {
    /// There was no memory.
    Push(PushError<T>),
    /// There is no such place.
    OutOfBounds {
        /// The value.
        value: T,
        /// The place asked for.
        index: usize,
        /// How many elements there are.
        len: usize,
    },
}

impl<T> InsertError<T> {
    /// The value, taken back.
    pub fn into_value(self) -> T {
        match self {
            InsertError::Push(PushError { value, .. }) | InsertError::OutOfBounds { value, .. } => {
                value
            }
        }
    }
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> fmt::Display for InsertError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InsertError::Push(error) => error.fmt(f),
            InsertError::OutOfBounds { index, len, .. } => {
                write!(f, "no place {index} among {len} elements: insert at {len} at most")
            }
        }
    }
}

impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for InsertError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InsertError::Push(error) => f.debug_tuple("Push").field(error).finish(),
            InsertError::OutOfBounds { index, len, .. } => f
                .debug_struct("OutOfBounds")
                .field("index", index)
                .field("len", len)
                .finish_non_exhaustive(),
        }
    }
}

impl<T> Error for PushError<T> {}
impl<T> Error for InsertError<T> {}

/// Drops the value.
impl<T> From<PushError<T>> for AllocError {
    fn from(error: PushError<T>) -> AllocError {
        error.error
    }
}

/// Why text was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// There was no memory.
    Alloc(AllocError),
    /// What was to be written said that it cannot be.
    Format,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Alloc(error) => error.fmt(f),
            WriteError::Format => f.write_str("a value refused to be formatted"),
        }
    }
}

impl Error for WriteError {}

impl From<AllocError> for WriteError {
    fn from(error: AllocError) -> WriteError {
        WriteError::Alloc(error)
    }
}
