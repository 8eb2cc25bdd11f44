//! What people see: errors, messages, sizes. Colours are for terminals only.

use std::io::{self, IsTerminal, Write, stdout};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use ratatui::crossterm::terminal;

/// For what is typed.
pub const COMMAND: Style = Style::new().bold();
/// For what explains.
pub const REMARK: Style = AnsiColor::Cyan.on_default();
/// For what went well.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// For what did not.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// For the machine's own messages.
pub const FAINT: Style = Style::new().dimmed();

/// What is said where standard output takes nothing.
pub fn cannot_print(error: &io::Error) -> String {
    format!("cannot write to standard output: {error}")
}

/// Prints one line about an error to standard error.
pub fn error(line: &str) {
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(anstream::stderr(), "{BAD}kmem:{BAD:#} {}", printable(line));
}

/// Prints the last line of a machine that panicked to standard error.
pub fn kernel_panic(line: &str) {
    let _ = writeln!(anstream::stderr(), "{BAD}kernel panic:{BAD:#} {}", printable(line));
}

/// Prints one line that the machine logged to standard error.
pub fn machine_message(line: &str) {
    let _ = writeln!(anstream::stderr(), "{FAINT}{}{FAINT:#}", printable(line));
}

/// How many characters of a message are shown. The list of all keys of a machine takes half of it.
const LONGEST_MESSAGE: usize = 600;

/// A message as one line that does nothing to a terminal but show itself.
///
/// Messages quote what people gave: control characters in it are escaped, and so are those that are
/// not seen or turn the writing around. Of one that is too long the middle is left out, as its end
/// says what to do.
pub fn printable(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for c in message.chars() {
        match c {
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => {
                line.extend(c.escape_unicode());
            }
            '\u{feff}' => line.extend(c.escape_unicode()),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    let cut = |from: usize| line.char_indices().nth(from).map_or(line.len(), |(at, _)| at);
    match line.chars().count() {
        0..=LONGEST_MESSAGE => line,
        count => {
            let half = LONGEST_MESSAGE / 2;
            format!("{} ... {}", &line[..cut(half)], &line[cut(count - half)..])
        }
    }
}

/// How wide texts are where nobody says how wide a terminal is, and at most: longer lines are hard to read.
const WIDEST: usize = 100;

/// How many characters of a text go beside each other on standard output.
pub fn width() -> usize {
    let terminal = if stdout().is_terminal() { terminal::size().ok() } else { None };
    // Some terminals say that they have no column at all.
    let width = terminal.map_or(0, |(columns, _)| usize::from(columns));
    if width == 0 { WIDEST } else { width.clamp(40, WIDEST) }
}

/// A text in lines of `width` characters, unless a word is longer. Something of `indent` characters stands before
/// the first; the others begin with as many blanks.
pub fn folded(text: &str, indent: usize, width: usize) -> String {
    let mut lines = String::new();
    let mut column = indent;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > indent && column + 1 + length > width {
            lines.push('\n');
            lines.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if column > indent {
            lines.push(' ');
            column += 1;
        }
        lines += word;
        column += length;
    }
    lines
}

/// Rows as one JSON document, an array: each row is a line, which can be read as soon as it is there.
pub struct JsonRows {
    begun: bool,
}

impl JsonRows {
    /// Before the first.
    pub fn new() -> Self {
        JsonRows { begun: false }
    }

    /// A row, with what goes before it.
    pub fn row(&mut self, row: &serde_json::Value) -> String {
        match std::mem::replace(&mut self.begun, true) {
            false => format!("[\n{row}\n"),
            true => format!(",{row}\n"),
        }
    }

    /// What goes after the last.
    pub fn end(&self) -> &'static str {
        if self.begun { "]\n" } else { "[]\n" }
    }
}

/// A time as people read it.
pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// An amount of memory as people read it, to a tenth: `64 MiB`.
pub fn size(bytes: u64) -> String {
    let (mut tenths, mut unit) = (bytes.saturating_mul(10), "bytes");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        // Half a unit less than 1024 is called one of the next: 1 GiB with a small hole is 1 GiB.
        if tenths < 10_235 {
            break;
        }
        (tenths, unit) = (tenths / 1024 + tenths % 1024 / 512, larger);
    }
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::{JsonRows, LONGEST_MESSAGE, folded, printable, size};

    #[test]
    fn rows_are_one_document_however_many_there_are() {
        for count in 0..3 {
            let mut rows = JsonRows::new();
            let mut text: String =
                (0..count).map(|n| rows.row(&serde_json::json!({ "n": n }))).collect();
            assert!(text.is_empty() || text.ends_with('\n'), "a row is all there: {text}");
            text += rows.end();
            let read: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
            assert_eq!(read.len(), count, "{text}");
        }
    }

    #[test]
    fn sentences_are_folded_and_lose_no_word() {
        let sentence = ["word"; 60].join(" ");
        let lines = folded(&sentence, 8, 100);
        assert_eq!(lines.split_whitespace().collect::<Vec<_>>().join(" "), sentence);
        assert!(lines.lines().count() > 3);
        for (index, line) in lines.lines().enumerate() {
            let shown = line.len() + if index == 0 { 8 } else { 0 };
            assert!(shown <= 100 && (index == 0 || line.starts_with("        word")), "{line}");
        }
        assert_eq!(folded("one", 8, 100), "one");
        assert_eq!(folded("aa\nbb  cc", 0, 5), "aa bb\ncc");
        assert_eq!(folded("longer-than-that a", 0, 5), "longer-than-that\na");
    }

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        let plain = "no 'ü' at C:\\ \"x\": give `y`";
        assert_eq!(printable(plain), plain);
        assert_eq!(printable("a\nb\r\x1b[2J\u{9b}\0"), "a\\nb\\r\\u{1b}[2J\\u{9b}\\u{0}");
        assert_eq!(printable("\u{202e}x\u{feff}"), "\\u{202e}x\\u{feff}");
    }

    #[test]
    fn a_long_message_keeps_its_start_and_its_end() {
        let whole = "ü".repeat(LONGEST_MESSAGE);
        assert_eq!(printable(&whole), whole);
        let cut = printable(&format!("start {} end", "ü".repeat(1 << 20)));
        assert!(cut.starts_with("start ü") && cut.contains("ü ... ü") && cut.ends_with("ü end"));
        assert_eq!(cut.chars().count(), LONGEST_MESSAGE + " ... ".len());
    }

    #[test]
    fn sizes_are_rounded_to_a_tenth() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(64 << 20), "64 MiB");
        assert_eq!(size((1 << 30) - (384 << 10)), "1 GiB");
        assert_eq!(size((128 << 20) - (384 << 10)), "127.6 MiB");
        assert_eq!(size(3 << 39), "1.5 TiB");
        assert_eq!(size(u64::MAX), "1677721.6 TiB");
    }
}
