//! The text form of flags, both ways.
//!
//! Writing takes names greedily from one table, type flags first and the larger before the smaller;
//! reading accepts every name of that table and of a second one with the older names.

use core::fmt;
use core::str::FromStr;

use super::{Gfp, GfpError};
use crate::spelling;

/// A flag or combination and what the texts call it.
struct Name {
    /// With its prefix: `GFP_KERNEL`, `__GFP_IO`.
    full: &'static str,
    flags: Gfp,
}

impl Name {
    const fn new(full: &'static str, flags: Gfp) -> Name {
        Name { full, flags }
    }

    /// Without its prefix, as a person types it.
    fn short(&self) -> &'static str {
        without_prefix(self.full)
    }

    fn is(&self, word: &str) -> bool {
        word.eq_ignore_ascii_case(self.full) || word.eq_ignore_ascii_case(self.short())
    }
}

/// The names that are written. A name is written when all its flags are still to be written, so a
/// combination stands before every other that it contains, and single flags stand last.
static NAMES: [Name; 30] = [
    Name::new("GFP_HIGHUSER_MOVABLE", Gfp::HIGHUSER_MOVABLE),
    Name::new("GFP_HIGHUSER", Gfp::HIGHUSER),
    Name::new("GFP_USER", Gfp::USER),
    Name::new("GFP_KERNEL", Gfp::KERNEL),
    Name::new("GFP_NOFS", Gfp::NOFS),
    Name::new("GFP_BUFFER", Gfp::BUFFER),
    Name::new("GFP_ATOMIC", Gfp::ATOMIC),
    Name::new("GFP_NOIO", Gfp::NOIO),
    Name::new("GFP_NOWAIT", Gfp::NOWAIT),
    Name::new("GFP_DMA", Gfp::DMA),
    Name::new("GFP_DMA32", Gfp::DMA32),
    Name::new("__GFP_HIGHMEM", Gfp::HIGHMEM),
    Name::new("__GFP_MOVABLE", Gfp::MOVABLE),
    Name::new("__GFP_RECLAIMABLE", Gfp::RECLAIMABLE),
    Name::new("__GFP_HIGH", Gfp::HIGH),
    Name::new("__GFP_IO", Gfp::IO),
    Name::new("__GFP_FS", Gfp::FS),
    Name::new("__GFP_ZERO", Gfp::ZERO),
    Name::new("__GFP_DIRECT_RECLAIM", Gfp::DIRECT_RECLAIM),
    Name::new("__GFP_KSWAPD_RECLAIM", Gfp::KSWAPD_RECLAIM),
    Name::new("__GFP_NOWARN", Gfp::NOWARN),
    Name::new("__GFP_HARDWALL", Gfp::HARDWALL),
    Name::new("__GFP_RETRY_MAYFAIL", Gfp::RETRY_MAYFAIL),
    Name::new("__GFP_NOFAIL", Gfp::NOFAIL),
    Name::new("__GFP_NORETRY", Gfp::NORETRY),
    Name::new("__GFP_MEMALLOC", Gfp::MEMALLOC),
    Name::new("__GFP_NOMEMALLOC", Gfp::NOMEMALLOC),
    Name::new("__GFP_THISNODE", Gfp::THISNODE),
    Name::new("__GFP_COMP", Gfp::COMP),
    Name::new("__GFP_COLD", Gfp::COLD),
];

/// The names that are read but not written.
static OLDER_NAMES: [Name; 4] = [
    Name::new("__GFP_DMA", Gfp::DMA),
    Name::new("__GFP_DMA32", Gfp::DMA32),
    Name::new("__GFP_WAIT", Gfp::WAIT),
    Name::new("__GFP_REPEAT", Gfp::REPEAT),
];

fn names() -> impl Iterator<Item = &'static Name> {
    NAMES.iter().chain(&OLDER_NAMES)
}

impl Gfp {
    /// The names that flags and combinations are written with, each with its prefix: for what completes a word
    /// that a person types.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|name| name.full)
    }
}

fn without_prefix(name: &str) -> &str {
    const PREFIX: &str = "GFP_";
    let name = name.trim_start_matches('_');
    match name.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => name,
    }
}

impl fmt::Display for Gfp {
    /// Writes the largest type flag, then what is left, joined by `|`; `0` for no flag.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("0");
        }
        let mut left = *self;
        for name in NAMES.iter() {
            if left.contains(name.flags) {
                f.write_str(name.full)?;
                left -= name.flags;
                if left.is_empty() {
                    break;
                }
                f.write_str("|")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Gfp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gfp({self})")
    }
}

impl FromStr for Gfp {
    type Err = ParseGfpError;

    /// Reads words joined by `|`, with blanks around them or not. A word is a flag's name, with its
    /// prefix or without, in upper or lower case; bits as [`Gfp::bits`] gives them, in hexadecimal
    /// with `0x`; or `0` or `none` for no flag.
    ///
    /// # Errors
    ///
    /// The first word that is not understood, else what [`Gfp::check`] finds.
    fn from_str(text: &str) -> Result<Gfp, ParseGfpError> {
        let mut flags = Gfp::NONE;
        let mut start = 0;
        for part in text.split('|') {
            let word = part.trim_start();
            let position = start + part.len() - word.len();
            flags |= parse_word(word.trim_end(), position)?;
            start += part.len() + 1;
        }
        flags.check()?;
        Ok(flags)
    }
}

fn parse_word(word: &str, position: usize) -> Result<Gfp, ParseGfpError> {
    if word.is_empty() {
        return Err(ParseGfpError::NoWord { position });
    }
    if word.starts_with(|first: char| first.is_ascii_digit()) {
        return parse_number(word)
            .ok_or(ParseGfpError::BadNumber { word: Word::new(word), position })
            .and_then(|bits| Ok(Gfp::known(bits)?));
    }
    if word.eq_ignore_ascii_case("none") {
        return Ok(Gfp::NONE);
    }
    names().find(|name| name.is(word)).map(|name| name.flags).ok_or_else(|| {
        ParseGfpError::UnknownWord { word: Word::new(word), position, nearest: nearest(word) }
    })
}

fn parse_number(word: &str) -> Option<u32> {
    if word == "0" {
        return Some(0);
    }
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"))?;
    // `from_str_radix` would take a sign.
    let unsigned = digits.starts_with(|first: char| first.is_ascii_hexdigit());
    if unsigned { u32::from_str_radix(digits, 16).ok() } else { None }
}

/// The known name that `word` is likely to be a slip of.
fn nearest(word: &str) -> Option<&'static str> {
    let near = spelling::nearest(without_prefix(word), names().map(Name::short))?;
    names().find(|name| name.short() == near).map(|name| name.full)
}

/// Why a text is no mask. Positions count bytes from the start of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseGfpError {
    /// Nothing stands where a flag should.
    NoWord {
        /// Where the flag should be.
        position: usize,
    },
    /// No flag has this name.
    UnknownWord {
        /// The word.
        word: Word,
        /// Where it starts.
        position: usize,
        /// The known name that is most like it, if one is.
        nearest: Option<&'static str>,
    },
    /// A word that starts with a digit but is neither `0` nor hexadecimal of 32 bits.
    BadNumber {
        /// The word.
        word: Word,
        /// Where it starts.
        position: usize,
    },
    /// Every word is understood but the mask is refused.
    Refused(GfpError),
}

impl From<GfpError> for ParseGfpError {
    fn from(error: GfpError) -> Self {
        ParseGfpError::Refused(error)
    }
}

impl fmt::Display for ParseGfpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseGfpError::NoWord { position } => write!(
                f,
                "no gfp flag at byte {position}: write flags such as GFP_KERNEL|__GFP_ZERO, or 0"
            ),
            ParseGfpError::UnknownWord { word, position, nearest } => {
                write!(f, "unknown gfp flag \"{word}\" at byte {position}: ")?;
                match nearest {
                    Some(name) => write!(f, "did you mean {name}?"),
                    None => f.write_str("write flags such as GFP_KERNEL|__GFP_ZERO"),
                }
            }
            ParseGfpError::BadNumber { word, position } => write!(
                f,
                "bad gfp bits \"{word}\" at byte {position}: write hexadecimal such as {:#x}",
                Gfp::KERNEL.bits()
            ),
            ParseGfpError::Refused(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ParseGfpError {}

/// A copy of a word that was not understood, so that an error outlives the text; a long word is
/// cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Word {
    bytes: [u8; Self::CAPACITY],
    len: u8,
    cut: bool,
}

impl Word {
    /// With it the whole is 32 bytes.
    const CAPACITY: usize = spelling::LONGEST;

    fn new(word: &str) -> Word {
        let fits = |end: &usize| word.is_char_boundary(*end);
        let kept = &word[..(0..=Self::CAPACITY.min(word.len())).rev().find(fits).unwrap_or(0)];
        let mut bytes = [0; Self::CAPACITY];
        bytes[..kept.len()].copy_from_slice(kept.as_bytes());
        Word { bytes, len: kept.len() as u8, cut: kept.len() < word.len() }
    }

    /// The word, or its beginning if it was long.
    pub fn as_str(&self) -> &str {
        // The bytes were copied from whole characters: the fallback is never taken.
        str::from_utf8(&self.bytes[..self.len as usize]).unwrap_or_default()
    }
}

impl fmt::Display for Word {
    /// Writes the word with control characters escaped, and `...` where it was cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_str().escape_debug())?;
        f.write_str(if self.cut { "..." } else { "" })
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
