//! Lines of text that handlers may write: the machine's log, and its reports of misuse.
//!
//! A bounded ring of lines. A writer claims a place by a compare-exchange, writes, and marks the
//! place full; it never waits, so a handler may write while the code that it interrupted is half-way
//! through a line. The reader takes lines in order and stops at one that is not full yet. When there
//! is no room the line is dropped and counted.

use std::cell::UnsafeCell;
use std::fmt::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Bytes of a line; longer ones are cut. Reports of misuse take about 150.
const WIDTH: usize = 496;
/// Lines that are kept until they are read.
const LINES: u64 = 1024;

struct Place {
    /// Twice the round this place is in, plus one while it is full: which writer or reader is next.
    state: AtomicU64,
    line: UnsafeCell<Line>,
}

/// The ring.
pub(crate) struct Journal {
    places: Box<[Place]>,
    /// How many places have been claimed.
    claimed: AtomicU64,
    /// How many lines there was no room for.
    dropped: AtomicU64,
    /// How many lines have been read. One reader at a time.
    read: Mutex<u64>,
}

// SAFETY: a place's line is written by the one writer that claimed its turn and read by the one
// reader after that; `state` hands it from the one to the other.
unsafe impl Sync for Journal {}
// SAFETY: as above.
unsafe impl Send for Journal {}

impl Journal {
    pub(crate) fn new() -> Journal {
        let place = |_| Place { state: AtomicU64::new(0), line: UnsafeCell::new(Line::default()) };
        Journal {
            places: (0..LINES).map(place).collect(),
            claimed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            read: Mutex::new(0),
        }
    }

    /// Adds a line. Any context.
    pub(crate) fn write(&self, line: Line) {
        let mut turn = self.claimed.load(Relaxed);
        loop {
            let place = &self.places[(turn % LINES) as usize];
            let round = turn / LINES * 2;
            // Pairs with the reader's release: it has read what was here.
            match place.state.load(Acquire).cmp(&round) {
                // Full of a line from the round before.
                std::cmp::Ordering::Less => {
                    self.dropped.fetch_add(1, Relaxed);
                    return;
                }
                std::cmp::Ordering::Equal => {
                    match self.claimed.compare_exchange_weak(turn, turn + 1, Relaxed, Relaxed) {
                        Ok(_) => {
                            // SAFETY: the place is empty and this writer alone has the turn.
                            unsafe { *place.line.get() = line };
                            place.state.store(round + 1, Release);
                            return;
                        }
                        Err(now) => turn = now,
                    }
                }
                // Another writer has this turn.
                std::cmp::Ordering::Greater => turn = self.claimed.load(Relaxed),
            }
        }
    }

    /// Takes the lines out. Not for handlers.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut read = self.read.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut lines = Vec::new();
        loop {
            let place = &self.places[(*read % LINES) as usize];
            let round = *read / LINES * 2;
            // Pairs with the writer's release: the line is complete.
            if place.state.load(Acquire) != round + 1 {
                return lines;
            }
            // SAFETY: the place is full and this is the one reader.
            lines.push(unsafe { (*place.line.get()).as_str().to_owned() });
            place.state.store(round + 2, Release);
            *read += 1;
        }
    }

    /// How many lines have been written, those included that there was no room for.
    pub(crate) fn written(&self) -> u64 {
        self.claimed.load(Relaxed) + self.dropped.load(Relaxed)
    }

    /// How many lines there was no room for.
    #[cfg(test)]
    fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// A line of text without a heap.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    bytes: [u8; WIDTH],
    length: usize,
}

impl Default for Line {
    fn default() -> Line {
        Line { bytes: [0; WIDTH], length: 0 }
    }
}

impl Line {
    /// Formats a line.
    pub(crate) fn new(text: fmt::Arguments<'_>) -> Line {
        let mut line = Line::default();
        // An error says that it was cut.
        let _ = line.write_fmt(text);
        line
    }

    pub(crate) fn as_str(&self) -> &str {
        // Whole characters were put in, so nothing is lost here.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut end = text.len().min(WIDTH - self.length);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[self.length..self.length + end].copy_from_slice(&text.as_bytes()[..end]);
        self.length += end;
        if end == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_in_order_and_are_cut_at_whole_characters() {
        let journal = Journal::new();
        journal.write(Line::new(format_args!("one {}", 1)));
        journal.write(Line::new(format_args!("{}", "é".repeat(WIDTH))));
        let lines = journal.take();
        assert_eq!(lines[0], "one 1");
        assert_eq!(lines[1], "é".repeat(WIDTH / 2));
        assert!(journal.take().is_empty());
    }

    #[test]
    fn a_full_journal_counts_what_it_drops_and_is_good_again_once_read() {
        let journal = Journal::new();
        for round in 0..3 {
            for number in 0..LINES + 5 {
                journal.write(Line::new(format_args!("{number}")));
            }
            assert_eq!(journal.dropped(), 5 * (round + 1));
            let lines = journal.take();
            assert_eq!(lines.len() as u64, LINES);
            assert_eq!(lines.last().map(String::as_str), Some("1023"));
        }
        assert_eq!(journal.written(), 3 * (LINES + 5));
    }

    #[test]
    fn lines_of_many_writers_come_out_whole() {
        let journal = Journal::new();
        let mut lines = Vec::new();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let journal = &journal;
                scope.spawn(move || {
                    for number in 0..5_000 {
                        journal.write(Line::new(format_args!("{writer} {number} {writer}")));
                    }
                });
            }
            while journal.written() < 20_000 {
                lines.extend(journal.take());
            }
        });
        lines.extend(journal.take());
        assert_eq!(lines.len() as u64 + journal.dropped(), 20_000);
        for line in lines {
            let parts: Vec<_> = line.split(' ').collect();
            assert!(parts.len() == 3 && parts[0] == parts[2], "{line}");
        }
    }
}
