//! Why something could not be done with a file.

use alloc::string::String;
use core::fmt;

use scull::ScullError;

/// Why something could not be done with a file: a number for programs and a line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    number: i32,
    message: String,
}

/// No such file or directory.
pub(super) const ENOENT: i32 = 2;
/// It could not be read or written.
pub(super) const EIO: i32 = 5;
/// The file is not open for that.
pub(super) const EBADF: i32 = 9;
/// Permission denied.
pub(super) const EACCES: i32 = 13;
/// It is no directory.
pub(super) const ENOTDIR: i32 = 20;
/// It is a directory.
pub(super) const EISDIR: i32 = 21;
/// It makes no sense.
pub(super) const EINVAL: i32 = 22;
/// It has no such controls.
pub(super) const ENOTTY: i32 = 25;

impl FileError {
    pub(super) fn new(number: i32, message: String) -> Self {
        FileError { number, message }
    }

    /// Of a device's driver; `place` says where.
    pub(super) fn of(error: &ScullError, place: fmt::Arguments<'_>) -> Self {
        FileError::new(error.errno().number(), alloc::format!("{place}: {error}"))
    }

    /// Linux's error number, such as 12 for ENOMEM.
    pub fn number(&self) -> i32 {
        self.number
    }

    /// What was asked for, what was found, and what to do, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for FileError {}

impl From<FileError> for String {
    fn from(error: FileError) -> String {
        error.message
    }
}
