//! What caches are called.

use core::fmt;

/// The longest name of a cache, in bytes.
const NAME: usize = 31;

/// The name of a cache (A190).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CacheName {
    bytes: [u8; NAME],
    len: u8,
}

impl CacheName {
    /// The longest name, in bytes.
    pub const LONGEST: usize = NAME;

    /// A name of 1 to 31 bytes, without blanks and control characters: it is a word of a report.
    pub const fn new(name: &str) -> Option<CacheName> {
        let from = name.as_bytes();
        if from.is_empty() || from.len() > NAME {
            return None;
        }
        let mut bytes = [0; NAME];
        let mut at = 0;
        while at < from.len() {
            if from[at] <= b' ' || from[at] == 0x7f {
                return None;
            }
            bytes[at] = from[at];
            at += 1;
        }
        Some(CacheName { bytes, len: from.len() as u8 })
    }

    /// The name of a cache for objects of a size: `kmalloc-96`, `kmalloc-4k`.
    pub(crate) fn of_size(prefix: &str, size: usize) -> Option<CacheName> {
        use fmt::Write;
        struct Text([u8; NAME], usize);
        impl Write for Text {
            fn write_str(&mut self, part: &str) -> fmt::Result {
                let end = self.1 + part.len();
                self.0.get_mut(self.1..end).ok_or(fmt::Error)?.copy_from_slice(part.as_bytes());
                self.1 = end;
                Ok(())
            }
        }
        let mut text = Text([0; NAME], 0);
        let written = if size.is_multiple_of(1 << 10) {
            write!(text, "{prefix}-{}k", size >> 10)
        } else {
            write!(text, "{prefix}-{size}")
        };
        written.ok()?;
        CacheName::new(core::str::from_utf8(&text.0[..text.1]).ok()?)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        // Bytes of a str, all of them: never an error.
        core::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or("?")
    }
}

impl fmt::Display for CacheName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for CacheName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
