//! Whose a kernel stack is, in the words of reports.

use core::fmt;

/// How long the name of a stack's owner may be, in bytes.
const NAME: usize = 16;

/// Whose a kernel stack is: a number and a short name, as a kernel gives its tasks.
///
/// ```
/// # use kmem::platform::StackOwner;
/// let owner = StackOwner::new(12, "init");
/// assert_eq!((owner.number(), owner.name()), (12, "init"));
/// assert_eq!(owner.to_string(), "task 12 (init)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct StackOwner {
    number: u32,
    /// Zeros follow a name that is shorter.
    name: [u8; NAME],
}

impl StackOwner {
    /// An owner. Of a name that is longer than 16 bytes the first are taken.
    pub const fn new(number: u32, name: &str) -> StackOwner {
        let (from, mut kept, mut index) = (name.as_bytes(), [0; NAME], 0);
        while index < NAME && index < from.len() {
            kept[index] = from[index];
            index += 1;
        }
        StackOwner { number, name: kept }
    }

    /// The number.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The name, as far as it is text.
    pub fn name(&self) -> &str {
        let bytes = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        match core::str::from_utf8(bytes) {
            Ok(name) => name,
            // A name that was cut inside of a character.
            Err(error) => bytes
                .get(..error.valid_up_to())
                .and_then(|bytes| core::str::from_utf8(bytes).ok())
                .unwrap_or_default(),
        }
    }
}

impl fmt::Display for StackOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} ({})", self.number, self.name())
    }
}

/// What of a stack's lowest words is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackHarm {
    /// The canary: the last word that code which uses too much overwrites before it leaves the stack's free
    /// part.
    pub canary: bool,
    /// What the stack says of its owner (`thread_info`, A266).
    pub thread_info: bool,
}

impl fmt::Display for StackHarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.canary, self.thread_info) {
            (true, true) => "its canary and thread_info are overwritten",
            (true, false) => "its canary is overwritten",
            (false, true) => "its thread_info is overwritten",
            (false, false) => "it is intact",
        })
    }
}
