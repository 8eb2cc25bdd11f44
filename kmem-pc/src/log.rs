//! The manager's messages, kept until somebody reads them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cpu;

/// Bytes of a line; what is longer is cut.
const WIDTH: usize = 500;

/// How many lines are kept.
const LINES: usize = 64;

#[derive(Clone, Copy)]
struct Line {
    /// Which line it is, counted from 0.
    number: u64,
    text: [u8; WIDTH],
    length: usize,
}

impl Line {
    const EMPTY: Line = Line { number: u64::MAX, text: [0; WIDTH], length: 0 };

    fn as_str(&self) -> &str {
        let text = &self.text[..self.length];
        // Cut where a character begins.
        core::str::from_utf8(text).unwrap_or_else(|error| {
            core::str::from_utf8(&text[..error.valid_up_to()]).unwrap_or("")
        })
    }
}

impl Line {
    /// What there is instead of a line that was dropped, or has made room for a later one.
    const LOST: Line = {
        let mut line = Line::EMPTY;
        let text = b"(a line that was lost)";
        let (room, _) = line.text.split_at_mut(text.len());
        room.copy_from_slice(text);
        line.length = text.len();
        line
    };
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.text[self.length..];
        let count = room.len().min(text.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}

/// The latest lines, and how many there have been.
pub struct Log {
    lines: spin::Mutex<[Line; LINES]>,
    written: AtomicU64,
    /// How many have been taken.
    taken: AtomicU64,
}

impl Log {
    /// Without a line.
    pub const fn new() -> Log {
        Log {
            lines: spin::Mutex::new([Line::EMPTY; LINES]),
            written: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        }
    }

    /// Keeps a line. Any context: an NMI handler that finds the log in use counts its line and drops it.
    pub fn write(&self, message: fmt::Arguments<'_>) {
        let mut line = Line::EMPTY;
        let _ = line.write_fmt(message);
        let were = cpu::mask();
        let lines = if cpu::Cpu::current().in_nmi() {
            self.lines.try_lock()
        } else {
            Some(self.lines.lock())
        };
        let number = self.written.fetch_add(1, Relaxed);
        if let Some(mut lines) = lines {
            line.number = number;
            lines[number as usize % LINES] = line;
        }
        cpu::restore(were);
    }

    /// How many lines there have been.
    pub fn count(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// The latest line.
    pub fn last(&self, to: &mut dyn Write) -> fmt::Result {
        let line = self.count().checked_sub(1).map(|number| self.get(number));
        line.map_or(Ok(()), |line| to.write_str(line.as_str()))
    }

    /// The lines that nobody has taken, as far as they are kept.
    pub fn take(&self) -> Vec<String> {
        let until = self.count();
        let from = self.taken.swap(until, Relaxed).max(until.saturating_sub(LINES as u64));
        (from..until).map(|number| String::from(self.get(number).as_str())).collect()
    }

    fn get(&self, number: u64) -> Line {
        let were = cpu::mask();
        let line = self.lines.lock()[number as usize % LINES];
        cpu::restore(were);
        if line.number == number { line } else { Line::LOST }
    }
}
