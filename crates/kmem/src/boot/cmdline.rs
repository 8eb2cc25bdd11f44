//! What a kernel's command line says about memory: `mem=126M bigphysarea=512`.

#![forbid(unsafe_code)]

use core::fmt;

/// What a command line says about memory. Words that are not about that are others'.
///
/// ```
/// use kmem::boot::CommandLine;
///
/// let line = CommandLine::parse("root=/dev/hda1 mem=126M bigphysarea=512 quiet")?;
/// assert_eq!(line.mem, Some(126 << 20));
/// assert_eq!(line.bigphysarea, Some(512));
/// # Ok::<(), kmem::boot::CommandLineError<'static>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// `mem=126M`: RAM from this address on is left alone, in bytes (A257).
    pub mem: Option<u64>,
    /// `bigphysarea=512`: so many pages are reserved for drivers that want large blocks (A256).
    pub bigphysarea: Option<u64>,
}

/// A word of a command line is about memory and makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLineError<'a> {
    /// The word.
    pub word: &'a str,
    /// What it should be like.
    pub allowed: &'static str,
}

impl fmt::Display for CommandLineError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' on the command line makes no sense: give {}", self.word, self.allowed)
    }
}

impl core::error::Error for CommandLineError<'_> {}

impl CommandLine {
    /// Reads a command line: words with blanks between them. Of a word that is there twice the later
    /// one counts.
    ///
    /// # Errors
    ///
    /// The first word about memory that makes no sense.
    pub fn parse(text: &str) -> Result<CommandLine, CommandLineError<'_>> {
        let mut line = CommandLine::default();
        for word in text.split_whitespace() {
            let wrong = |allowed| CommandLineError { word, allowed };
            match word.split_once('=') {
                Some(("mem", value)) => {
                    let bytes = size(value).filter(|bytes| *bytes > 0);
                    line.mem = Some(bytes.ok_or_else(|| wrong("a size above 0 such as mem=126M"))?);
                }
                Some(("bigphysarea", value)) => {
                    let pages = number(value);
                    let allowed = "a number of pages such as bigphysarea=512";
                    line.bigphysarea = Some(pages.ok_or_else(|| wrong(allowed))?);
                }
                _ => {}
            }
        }
        Ok(line)
    }
}

/// A number of bytes, or of KiB, MiB or GiB with a letter behind it.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits)?.checked_mul(1 << shift)
}

/// A decimal number, or a hexadecimal one behind `0x`.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // A sign is no digit.
    if !digits.starts_with(|first: char| first.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mem(text: &str) -> Option<u64> {
        CommandLine::parse(text).ok()?.mem
    }

    /// A256, A257
    #[test]
    fn sizes_have_letters_and_either_base() {
        assert_eq!(mem("mem=126M"), Some(126 << 20));
        assert_eq!(mem("mem=126m"), Some(126 << 20));
        assert_eq!(mem("mem=4194304K"), Some(4 << 30));
        assert_eq!(mem("mem=64k"), Some(64 << 10));
        assert_eq!(mem("mem=3G"), Some(3 << 30));
        assert_eq!(mem("mem=0x7e00000"), Some(126 << 20));
        assert_eq!(mem("mem=0X7EM"), Some(126 << 20));
        assert_eq!(mem("mem=132120576"), Some(126 << 20));
        let pages = |text| CommandLine::parse(text).map(|line| line.bigphysarea);
        assert_eq!(pages("bigphysarea=0x200"), Ok(Some(512)));
        assert_eq!(pages("bigphysarea=0"), Ok(Some(0)));
    }

    #[test]
    fn words_that_are_not_about_memory_are_others() {
        let others = "  ro\tmem root=mem=1 memory=5M -- xmem=1 bigphysarea mem_sleep=deep ";
        assert_eq!(CommandLine::parse(others), Ok(CommandLine::default()));
        assert_eq!(mem("mem=1M quiet mem=2M"), Some(2 << 20), "the later one counts");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_word() {
        let wrong = [
            "mem=",
            "mem=M",
            "mem=0",
            "mem=0x",
            "mem=-1",
            "mem=+1",
            "mem=1T",
            "mem=1MM",
            "mem=1é",
            "mem=é",
            "mem=17179869184G",
            "mem=0x0x1",
            "mem=nopentium",
            "mem=18446744073709551616",
            "bigphysarea=",
            "bigphysarea=4M",
            "bigphysarea=-4",
            "bigphysarea=many",
        ];
        for word in wrong {
            let mut line = std::string::String::from("ro ");
            line.push_str(word);
            let error = CommandLine::parse(&line).unwrap_err();
            assert_eq!(error.word, word);
            assert!(std::format!("{error}").contains(word));
        }
    }
}
