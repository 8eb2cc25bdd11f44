//! Texts without a heap: a line that is kept, and a text that is read line by line as it is written.

use core::fmt;

use crate::Failure;

/// A short text. What does not fit is an error.
pub(crate) struct Text {
    bytes: [u8; 512],
    length: usize,
}

impl Text {
    pub(crate) const fn new() -> Text {
        Text { bytes: [0; 512], length: 0 }
    }

    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    pub(crate) fn contains(&self, part: &str) -> bool {
        self.as_str().contains(part)
    }

    fn clear(&mut self) {
        self.length = 0;
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        let place = self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Reads a text line by line while it is written: the number of each line from 0, and the line.
pub(crate) struct Lines<F> {
    line: Text,
    number: u64,
    read: F,
    failure: Option<Failure>,
}

impl<F: FnMut(u64, &str) -> Result<(), Failure>> Lines<F> {
    pub(crate) const fn new(read: F) -> Self {
        Lines { line: Text::new(), number: 0, read, failure: None }
    }

    /// The first failure; otherwise how many lines there were. A last line without its end fails.
    pub(crate) fn finish(self) -> Result<u64, Failure> {
        match self.failure {
            Some(failure) => Err(failure),
            None if self.line.length != 0 => Err(Failure::new("a text ends with a line end")),
            None => Ok(self.number),
        }
    }
}

impl<F: FnMut(u64, &str) -> Result<(), Failure>> fmt::Write for Lines<F> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            self.line.write_str(part.trim_end_matches('\n'))?;
            if part.ends_with('\n') {
                if self.failure.is_none() {
                    self.failure = (self.read)(self.number, self.line.as_str()).err();
                }
                self.line.clear();
                self.number += 1;
            }
        }
        Ok(())
    }
}
