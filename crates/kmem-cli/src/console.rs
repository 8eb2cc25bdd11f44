//! What people see: errors, messages, progress. Colours and progress are for terminals only.

use std::io::{self, IsTerminal, Write, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};

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

/// A bar on standard error that shows how far a long command is.
#[derive(Default)]
pub struct Progress {
    bar: Mutex<Option<ProgressBar>>,
}

impl Progress {
    /// Shows that `done` of `total` is done.
    pub fn show(&self, what: &str, done: u64, total: u64) {
        if !stderr().is_terminal() {
            return;
        }
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {percent}% {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style).with_message(what.to_owned())
        });
        // Several CPUs tell their own view; the farthest counts.
        if done > bar.position() {
            bar.set_position(done);
        }
    }

    /// Takes the bar off the screen.
    pub fn clear(&self) {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows on standard error, while `work` runs, what the process is busy with.
pub fn busy<T>(what: &str, work: impl FnOnce() -> T) -> T {
    if !stderr().is_terminal() {
        return work();
    }
    let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let spinner = ProgressBar::new_spinner().with_style(style).with_message(printable(what));
    spinner.enable_steady_tick(Duration::from_millis(100));
    let result = work();
    spinner.finish_and_clear();
    result
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
    use super::{LONGEST_MESSAGE, printable, size};

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
