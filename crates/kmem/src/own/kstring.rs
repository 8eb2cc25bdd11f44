//! Text in memory that grows.

use core::borrow::Borrow;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::{Deref, DerefMut};
use core::str::Utf8Error;

use super::{Handle, KVec, WriteError};
use crate::{AllocError, Gfp};

/// Text in memory from kmalloc.
///
/// It is `String` for a kernel: each call that may grow it takes [`Gfp`] flags and can fail, and then
/// leaves it as it was. Context as for [`KVec`].
///
/// ```
/// # use kmem::{Mm, Setup, MemoryMap, NodeId};
/// # let mut ram = vec![0; 9 << 20];
/// # // SAFETY: one thread.
/// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
/// # // SAFETY: the RAM is there, and nobody else uses it.
/// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
/// use kmem::{GFP_KERNEL, KString};
///
/// let mut name = KString::from_str_in("scull", GFP_KERNEL, &mm)?;
/// name.push('p', GFP_KERNEL)?;
/// name.write(GFP_KERNEL, format_args!("{}", 0))?;
/// assert_eq!(name, "scullp0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
///
/// The bytes are UTF-8.
pub struct KString<H: Handle> {
    bytes: KVec<u8, H>,
}

impl<H: Handle> KString<H> {
    /// An empty text, which has no memory.
    pub const fn new_in(handle: H) -> Self {
        KString { bytes: KVec::new_in(handle) }
    }

    /// [`KString::new_in`] of the kernel's only manager.
    pub fn new() -> Self
    where
        H: Default,
    {
        Self::new_in(H::default())
    }

    /// An empty text with room for so many bytes.
    ///
    /// # Errors
    ///
    /// As [`KVec::with_capacity_in`].
    #[track_caller]
    pub fn with_capacity_in(capacity: usize, gfp: Gfp, handle: H) -> Result<Self, AllocError> {
        Ok(KString { bytes: KVec::with_capacity_in(capacity, gfp, handle)? })
    }

    /// A copy of a text.
    ///
    /// # Errors
    ///
    /// As [`KVec::with_capacity_in`].
    #[track_caller]
    pub fn from_str_in(text: &str, gfp: Gfp, handle: H) -> Result<Self, AllocError> {
        let mut copy = Self::with_capacity_in(text.len(), gfp, handle)?;
        copy.push_str(text, gfp)?;
        Ok(copy)
    }

    /// [`KString::from_str_in`] of the kernel's only manager.
    ///
    /// # Errors
    ///
    /// As there.
    #[track_caller]
    pub fn from_str(text: &str, gfp: Gfp) -> Result<Self, AllocError>
    where
        H: Default,
    {
        Self::from_str_in(text, gfp, H::default())
    }

    /// The bytes as text.
    ///
    /// # Errors
    ///
    /// The bytes, and where they are no UTF-8.
    pub fn from_utf8(bytes: KVec<u8, H>) -> Result<Self, (KVec<u8, H>, Utf8Error)> {
        match core::str::from_utf8(&bytes) {
            Ok(_) => Ok(KString { bytes }),
            Err(error) => Err((bytes, error)),
        }
    }

    /// The bytes.
    pub fn into_bytes(self) -> KVec<u8, H> {
        self.bytes
    }

    /// The text.
    #[inline]
    pub fn as_str(&self) -> &str {
        // SAFETY: by the invariant they are UTF-8.
        unsafe { core::str::from_utf8_unchecked(&self.bytes) }
    }

    /// The text, to be changed.
    #[inline]
    pub fn as_mut_str(&mut self) -> &mut str {
        // SAFETY: by the invariant they are UTF-8, and a `str` lets nobody make them anything else.
        unsafe { core::str::from_utf8_unchecked_mut(&mut self.bytes) }
    }

    /// For how many bytes there is room.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Makes room for so many bytes more, and a reserve.
    ///
    /// # Errors
    ///
    /// As [`KVec::try_reserve`].
    #[track_caller]
    pub fn try_reserve(&mut self, additional: usize, gfp: Gfp) -> Result<(), AllocError> {
        self.bytes.try_reserve(additional, gfp)
    }

    /// Puts a character at the end.
    ///
    /// # Errors
    ///
    /// As [`KVec::try_reserve`]; the text is as it was.
    #[track_caller]
    pub fn push(&mut self, character: char, gfp: Gfp) -> Result<(), AllocError> {
        self.push_str(character.encode_utf8(&mut [0; 4]), gfp)
    }

    /// Puts text at the end.
    ///
    /// # Errors
    ///
    /// As [`KVec::try_reserve`]; the text is as it was.
    #[track_caller]
    pub fn push_str(&mut self, text: &str, gfp: Gfp) -> Result<(), AllocError> {
        self.bytes.extend_from_slice(text.as_bytes(), gfp)
    }

    /// Takes the last character.
    pub fn pop(&mut self) -> Option<char> {
        let last = self.chars().next_back()?;
        self.bytes.truncate(self.bytes.len() - last.len_utf8());
        Some(last)
    }

    /// Cuts the text off behind `len` bytes. Answers whether it did: not inside a character. A text
    /// that is no longer than that stays.
    pub fn truncate(&mut self, len: usize) -> bool {
        if len >= self.len() {
            return true;
        }
        let can = self.is_char_boundary(len);
        if can {
            self.bytes.truncate(len);
        }
        can
    }

    /// Makes the text empty. Its memory stays.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Puts formatted text at the end.
    ///
    /// # Errors
    ///
    /// [`WriteError::Alloc`], as [`KVec::try_reserve`]; [`WriteError::Format`] where a value refuses to
    /// be formatted. The text is as it was.
    #[track_caller]
    pub fn write(&mut self, gfp: Gfp, text: fmt::Arguments<'_>) -> Result<(), WriteError> {
        let before = self.len();
        let mut writer = self.writer(gfp);
        let written = fmt::write(&mut writer, text).map_err(|_| WriteError::Format);
        let result = writer.finish().map_err(WriteError::from).and(written);
        if result.is_err() {
            self.bytes.truncate(before);
        }
        result
    }

    /// A [`fmt::Write`] that puts text at the end, for code that takes one. It says afterwards why it
    /// failed, which `fmt::Error` cannot.
    pub fn writer(&mut self, gfp: Gfp) -> Writer<'_, H> {
        Writer { text: self, gfp, result: Ok(()) }
    }

    /// A copy, with memory of its own.
    ///
    /// # Errors
    ///
    /// As [`KVec::with_capacity_in`].
    #[track_caller]
    pub fn try_clone(&self, gfp: Gfp) -> Result<Self, AllocError> {
        Self::from_str_in(self, gfp, self.bytes.handle())
    }
}

/// Puts text at the end of a [`KString`]. See [`KString::writer`].
pub struct Writer<'t, H: Handle> {
    text: &'t mut KString<H>,
    gfp: Gfp,
    result: Result<(), AllocError>,
}

impl<H: Handle> Writer<'_, H> {
    /// The first error.
    ///
    /// # Errors
    ///
    /// As [`KVec::try_reserve`]. What was written before it is there, and nothing that was written
    /// after it.
    pub fn finish(self) -> Result<(), AllocError> {
        self.result
    }
}

impl<H: Handle> fmt::Write for Writer<'_, H> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.result.is_ok() {
            self.result = self.text.push_str(part, self.gfp);
        }
        self.result.map_err(|_| fmt::Error)
    }
}

impl<H: Handle> Deref for KString<H> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl<H: Handle> DerefMut for KString<H> {
    #[inline]
    fn deref_mut(&mut self) -> &mut str {
        self.as_mut_str()
    }
}

impl<H: Handle + Default> Default for KString<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: Handle> AsRef<str> for KString<H> {
    fn as_ref(&self) -> &str {
        self
    }
}

impl<H: Handle> AsRef<[u8]> for KString<H> {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl<H: Handle> Borrow<str> for KString<H> {
    fn borrow(&self) -> &str {
        self
    }
}

impl<H: Handle> fmt::Debug for KString<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<H: Handle> fmt::Display for KString<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl<H: Handle, I: Handle> PartialEq<KString<I>> for KString<H> {
    fn eq(&self, other: &KString<I>) -> bool {
        self.as_str() == other.as_str()
    }
}

impl<H: Handle> PartialEq<str> for KString<H> {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl<H: Handle> PartialEq<&str> for KString<H> {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl<H: Handle> Eq for KString<H> {}

impl<H: Handle> PartialOrd for KString<H> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<H: Handle> Ord for KString<H> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.as_str().cmp(other)
    }
}

impl<H: Handle> Hash for KString<H> {
    fn hash<S: Hasher>(&self, state: &mut S) {
        self.as_str().hash(state);
    }
}
