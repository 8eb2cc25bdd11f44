//! What people see: errors, messages, progress. Colours and progress are for terminals only.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr};
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

/// Prints one line about an error to standard error.
pub fn error(line: &str) {
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(anstream::stderr(), "{BAD}kmem:{BAD:#} {line}");
}

/// Prints one line that the machine logged to standard error.
pub fn machine_message(line: impl Display) {
    let _ = writeln!(anstream::stderr(), "{FAINT}{line}{FAINT:#}");
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
    use super::size;

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
