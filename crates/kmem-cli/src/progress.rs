//! How far something long is: a bar on standard error, where that is a terminal.
//!
//! It shows what is done of how much, how fast, and how long it will take. What is over in a moment shows
//! none, and at the end it is gone.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::console::printable;

/// What is over before this shows no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// How often what does not tell is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The bar of what is being done, if that takes long.
pub struct Progress {
    /// Whether there is anybody to show it to.
    shows: bool,
    running: Mutex<Option<Running>>,
}

struct Running {
    what: String,
    total: u64,
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl Default for Progress {
    fn default() -> Self {
        Progress { shows: stderr().is_terminal(), running: Mutex::default() }
    }
}

impl Progress {
    /// Shows that `done` of `total` is done. `what` says what is counted; without a total there is no end to
    /// tell of.
    pub fn show(&self, what: &str, done: u64, total: Option<u64>) {
        if !self.shows {
            return;
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let now = running.get_or_insert_with(|| Running {
            what: what.to_owned(),
            total: total.unwrap_or(0),
            begun: Instant::now(),
            bar: None,
        });
        if now.bar.is_none() && now.begun.elapsed() < PATIENCE {
            return;
        }
        let Running { what, total, begun, bar } = now;
        let bar = bar.get_or_insert_with(|| bar_of(what, *total).with_elapsed(begun.elapsed()));
        // Several CPUs tell their own view; the farthest counts.
        if done > bar.position() {
            bar.set_position(done);
        }
    }

    /// Prints something on standard output, which may be the same terminal, above the bar.
    pub fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.as_ref().and_then(|running| running.bar.as_ref()) {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Takes the bar off the screen: what it was about is over.
    pub fn clear(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(bar) = running.and_then(|running| running.bar) {
            bar.finish_and_clear();
        }
    }
}

/// The bar of `total` pieces. Bytes are shown as sizes.
fn bar_of(what: &str, total: u64) -> ProgressBar {
    let bytes = what == "bytes";
    let template = match (bytes, total) {
        (true, 0) => "{spinner} {bytes} {bytes_per_sec}, {elapsed}",
        (false, 0) => "{spinner} {human_pos} {msg} {per_sec}, {elapsed}",
        (true, _) => "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        (false, _) => "{wide_bar} {human_pos} of {human_len} {msg}, {per_sec}, {eta} left",
    };
    // A mistake in a template above shows another bar.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = if total == 0 { ProgressBar::no_length() } else { ProgressBar::new(total) };
    bar.with_style(style).with_message(printable(what))
}

/// Runs `work`, which writes about `total` bytes of memory that the process did not have before, and shows how
/// many of them it has by now.
pub fn while_writing<T>(total: u64, work: impl FnOnce() -> T) -> T {
    let progress = Progress::default();
    if !progress.shows {
        return work();
    }
    let before = resident();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let looker = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let written = resident().saturating_sub(before);
                progress.show("bytes", written.min(total), Some(total));
                thread::park_timeout(LOOK);
            }
            progress.clear();
        });
        let result = work();
        over.store(true, Ordering::Relaxed);
        looker.thread().unpark();
        result
    })
}

/// The bytes of memory that the process has; 0 where the system does not say.
fn resident() -> u64 {
    // SAFETY: it reads a constant of the system.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
    let read = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = read.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A template with a mistake would be a plain bar.
    #[test]
    fn bars_tell_what_is_done_and_what_is_left() {
        for what in ["bytes", "pages"] {
            for total in [0, 1 << 20] {
                let bar = bar_of(what, total);
                bar.set_position(1 << 19);
                assert_eq!(bar.length(), (total > 0).then_some(total));
                assert_eq!(bar.message(), what);
            }
        }
    }

    #[test]
    fn memory_that_is_written_is_seen() {
        let before = resident();
        let memory = vec![1u8; 64 << 20];
        let grown = resident().saturating_sub(before);
        // Other tests run meanwhile, and may give some back.
        assert!(grown > 32 << 20, "{grown} of {}", memory.len());
    }

    #[test]
    fn what_is_told_to_nobody_is_no_bar() {
        let progress = Progress { shows: false, running: Mutex::default() };
        progress.show("pages", 1, Some(2));
        assert!(progress.running.lock().unwrap().is_none());
        let progress = Progress { shows: true, running: Mutex::default() };
        progress.show("pages", 1, Some(2));
        // Nothing is drawn before it has taken a while.
        assert!(progress.running.lock().unwrap().as_ref().is_some_and(|now| now.bar.is_none()));
        assert_eq!(progress.above(|| 7), 7);
        progress.clear();
        assert!(progress.running.lock().unwrap().is_none());
    }
}
