//! How far something long is: a bar on standard error, where that is a terminal.
//!
//! It shows what is done of how much, how fast, and how long it will take. What is over in a moment shows
//! none, and at the end it is gone.

use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

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
    begun: Instant,
    /// Hidden at first, but it sees how fast things go.
    bar: ProgressBar,
    shown: bool,
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
            begun: Instant::now(),
            bar: bar_of(what, total),
            shown: false,
        });
        if !now.shown && now.begun.elapsed() >= PATIENCE {
            now.bar.set_draw_target(ProgressDrawTarget::stderr());
            now.shown = true;
        }
        // Several CPUs tell their own view; the farthest counts.
        if done > now.bar.position() {
            now.bar.set_position(done);
        }
    }

    /// Prints something on standard output, which may be the same terminal, above the bar.
    pub fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.as_ref() {
            Some(running) => running.bar.suspend(print),
            None => print(),
        }
    }

    /// Takes the bar off the screen: what it was about is over.
    pub fn clear(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            running.bar.finish_and_clear();
        }
    }
}

/// The bar of `total` pieces, not shown yet. Bytes are shown as sizes.
fn bar_of(what: &str, total: Option<u64>) -> ProgressBar {
    let bytes = what == "bytes";
    let template = match (bytes, total) {
        (true, None) => "{spinner} {bytes}, {bytes_per_sec}, {elapsed}",
        (false, None) => "{spinner} {human_pos} {msg}, {rate}/s, {elapsed}",
        (true, Some(_)) => "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        (false, Some(_)) => "{wide_bar} {human_pos} of {human_len} {msg}, {rate}/s, {eta} left",
    };
    let whole = |state: &ProgressState, out: &mut dyn Write| {
        // A bar takes all that is written to it.
        let _ = write!(out, "{}", HumanCount(state.per_sec() as u64));
    };
    // A mistake in a template above shows another bar.
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("rate", whole);
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
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
    use std::sync::Arc;

    use indicatif::TermLike;

    use super::*;

    /// A terminal of one line, which keeps what is written to it.
    #[derive(Clone, Debug, Default)]
    struct Screen(Arc<Mutex<String>>);

    impl Screen {
        fn line(&self) -> String {
            self.0.lock().unwrap().trim().to_owned()
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            100
        }

        fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> std::io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> std::io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> std::io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }

        fn flush(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bars_tell_what_is_done_and_what_is_left() {
        for what in ["bytes", "pages"] {
            for total in [None, Some(1 << 20)] {
                let screen = Screen::default();
                let bar = bar_of(what, total);
                bar.set_draw_target(ProgressDrawTarget::term_like(Box::new(screen.clone())));
                bar.set_position(1 << 19);
                bar.tick();
                let line = screen.line();
                let parts: &[&str] = match (what, total) {
                    ("bytes", None) => &["512.00 KiB, ", "/s, "],
                    ("bytes", _) => &["512.00 KiB of 1.00 MiB, ", "/s, ", " left"],
                    (_, None) => &["524,288 pages, ", "/s, "],
                    (_, Some(_)) => &["524,288 of 1,048,576 pages, ", "/s, ", " left"],
                };
                for part in parts {
                    assert!(line.contains(part), "'{part}' is not in: {line}");
                }
                bar.finish_and_clear();
                assert_eq!(screen.line(), "", "it goes");
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
        assert!(progress.running.lock().unwrap().as_ref().is_some_and(|now| !now.shown));
        assert_eq!(progress.above(|| 7), 7);
        progress.clear();
        assert!(progress.running.lock().unwrap().is_none());
    }
}
