//! Lines of text that handlers may write: the machine's log, and its reports of misuse.

use std::fmt::{self, Write};

use crate::ring::Ring;

/// Bytes of a line; longer ones are cut. Reports of misuse take about 150.
const WIDTH: usize = 496;
/// Lines that are kept until they are read.
const LINES: usize = 1024;

/// The lines of a machine that nobody has read yet.
pub(crate) struct Journal(Ring<Line>);

impl Journal {
    pub(crate) fn new() -> Journal {
        Journal(Ring::new(LINES))
    }

    /// Adds a line. Any context.
    pub(crate) fn write(&self, line: Line) {
        self.0.write(line);
    }

    /// Takes the lines out. Not for handlers.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.0.take(|line| lines.push(line.as_str().to_owned()));
        lines
    }

    /// How many lines have been written, those included that there was no room for.
    pub(crate) fn written(&self) -> u64 {
        self.0.written()
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
}
