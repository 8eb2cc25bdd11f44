//! A line at a time from the serial line, as a person types it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::keys::{self, CTRL_C};
use crate::serial::Serial;
use crate::{clock, task};

/// How long the console sleeps when nothing has arrived, in nanoseconds: shorter than people notice.
const PAUSE: u64 = 5_000_000;

/// How long it looks again and again before that.
const AWAKE: u64 = 1_000_000;

/// How many lines are remembered.
const REMEMBERED: usize = 50;

/// Lines longer than this take no more.
const LONGEST: usize = 4000;

const CTRL_D: u8 = 4;
const BELL: u8 = 7;
const CTRL_U: u8 = 21;
const ESCAPE: u8 = 27;

/// The console: what it shows before a line, and the lines so far.
pub struct Console {
    prompt: &'static str,
    /// Whether what arrives is shown: somebody types it.
    echo: bool,
    lines: Vec<String>,
}

impl Console {
    /// A console at which somebody types, or one that is sent lines.
    pub fn new(prompt: &'static str, typed: bool) -> Console {
        Console { prompt, echo: typed, lines: Vec::new() }
    }

    /// Reads a line and shows it as it is typed. `None` where its sender ends the session (Ctrl-D).
    ///
    /// The keys up and down bring earlier lines back, Ctrl-U and Ctrl-C begin anew.
    pub fn read_line(&mut self) -> Option<String> {
        let (mut line, mut at) = (Vec::new(), self.lines.len());
        self.show(self.prompt.as_bytes());
        loop {
            match next() {
                b'\r' | b'\n' => {
                    self.show(b"\r\n");
                    return Some(self.remember(line));
                }
                CTRL_D if line.is_empty() => {
                    self.show(b"\r\n");
                    return None;
                }
                CTRL_C | CTRL_U => {
                    line.clear();
                    self.show(b"\r\n");
                    self.show(self.prompt.as_bytes());
                }
                8 | 127 => {
                    // A character may have several bytes.
                    while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
                    self.show_anew(&line);
                }
                ESCAPE => {
                    match key() {
                        Some(b'A') => at = at.saturating_sub(1),
                        Some(b'B') => at = (at + 1).min(self.lines.len()),
                        _ => continue,
                    }
                    line = self.lines.get(at).map_or(Vec::new(), |line| line.clone().into());
                    self.show_anew(&line);
                }
                byte @ (b' '..=b'~' | 0x80..) if line.len() < LONGEST => {
                    line.push(byte);
                    self.show(&[byte]);
                }
                byte if byte >= b' ' => self.show(&[BELL]),
                _ => {}
            }
        }
    }

    fn remember(&mut self, line: Vec<u8>) -> String {
        let line = String::from_utf8_lossy(&line).into_owned();
        if !line.is_empty() && self.lines.last() != Some(&line) {
            if self.lines.len() == REMEMBERED {
                self.lines.remove(0);
            }
            self.lines.push(line.clone());
        }
        line
    }

    fn show(&self, bytes: &[u8]) {
        if self.echo {
            Serial.write(bytes);
        }
    }

    /// Shows a line instead of what is there.
    fn show_anew(&self, line: &[u8]) {
        // To the beginning, and nothing behind it.
        self.show(b"\r\x1b[K");
        self.show(self.prompt.as_bytes());
        self.show(line);
    }
}

/// The next byte, which is waited for: first awake, since bytes that are sent come close together.
fn next() -> u8 {
    let begun = clock::nanoseconds();
    loop {
        match keys::next() {
            Some(byte) => return byte,
            None if clock::nanoseconds() - begun < AWAKE => core::hint::spin_loop(),
            None => task::sleep(PAUSE),
        }
    }
}

/// The letter of a key that sends several bytes: `ESC [ 1 ; 5 A`. The rest is passed over.
fn key() -> Option<u8> {
    if next() != b'[' {
        return None;
    }
    loop {
        let byte = next();
        if (b'@'..=b'~').contains(&byte) {
            return Some(byte);
        }
    }
}
