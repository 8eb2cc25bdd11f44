//! Where commands come from.

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, stdin};
use std::ops::ControlFlow;
use std::path::Path;

use crate::exit::Exit;
use crate::interrupt::interruptible;

/// Where commands come from.
pub enum Input {
    /// The command line: all of it is one text.
    Text(String),
    /// A file, or standard input that is no terminal: it may have no end, so it is read by lines.
    Lines { name: String, reader: Box<dyn BufRead>, is_standard: bool },
}

/// A longer line is no line of commands.
const LONGEST_LINE: usize = 64 << 10;

impl Input {
    /// The commands of a file.
    pub fn script(path: &Path) -> Result<Self, Exit> {
        let name = path.display().to_string();
        let file = File::open(path).and_then(|file| match file.metadata()?.is_dir() {
            // It opens, and then cannot be read: say so before anything is done.
            true => Err(ErrorKind::IsADirectory.into()),
            false => Ok(file),
        });
        match file {
            Ok(file) => {
                let reader = Box::new(BufReader::new(file));
                Ok(Input::Lines { name, reader, is_standard: false })
            }
            Err(error) => Err(Exit::BadInput(format!("cannot read the script {name}: {error}"))),
        }
    }

    /// The commands on standard input.
    pub fn standard() -> Self {
        let reader = Box::new(stdin().lock());
        Input::Lines { name: "standard input".into(), reader, is_standard: true }
    }

    /// Whether it is standard input.
    pub fn is_standard(&self) -> bool {
        matches!(self, Input::Lines { is_standard: true, .. })
    }

    /// Hands each piece of the input to `work`, until one fails or ends the run.
    pub fn each(
        self,
        mut work: impl FnMut(&str) -> Result<ControlFlow<()>, Exit>,
    ) -> Result<(), Exit> {
        match self {
            Input::Text(text) => interruptible(|| work(&text)).map(drop),
            Input::Lines { name, mut reader, .. } => {
                for number in 1u64.. {
                    let line = next_line(&mut *reader).map_err(Exit::BadInput);
                    // Some editors begin a text of UTF-8 with this mark, which is not seen.
                    let line = line.map(|line| match line {
                        Some(line) if number == 1 => {
                            Some(line.strip_prefix('\u{feff}').map_or(line.clone(), String::from))
                        }
                        line => line,
                    });
                    let worked = line.and_then(|line| {
                        line.map(|line| interruptible(|| work(&line))).transpose()
                    });
                    match worked.map_err(|exit| exit.at(&format!("{name}:{number}")))? {
                        Some(ControlFlow::Continue(())) => {}
                        Some(ControlFlow::Break(())) | None => break,
                    }
                }
                Ok(())
            }
        }
    }
}

/// The next line of a text, without its end; `None` after the last.
fn next_line(reader: &mut dyn BufRead) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    // One more for the line end.
    let mut part = reader.take(LONGEST_LINE as u64 + 1);
    match part.read_until(b'\n', &mut line) {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(format!("cannot be read: {error}")),
    }
    if line.pop_if(|last| *last == b'\n').is_none() && line.len() > LONGEST_LINE {
        return Err(format!(
            "the line is longer than {LONGEST_LINE} bytes: give a text of commands"
        ));
    }
    let not_text = |what: &str| format!("{what} in the line: give a text of commands");
    let line = String::from_utf8(line).map_err(|_| not_text("not UTF-8"))?;
    match line.chars().find(|c| c.is_control() && !c.is_whitespace()) {
        Some(c) => Err(not_text(&format!("the control character {c:?}"))),
        None => Ok(Some(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_by_lines() {
        let longest = "x".repeat(LONGEST_LINE);
        for end in ["", "\n"] {
            let text = format!("a\tb\r\n\nü\n{longest}{end}");
            let mut reader = text.as_bytes();
            for line in ["a\tb\r", "", "ü", &longest] {
                assert_eq!(next_line(&mut reader).unwrap().unwrap(), line);
            }
            assert_eq!(next_line(&mut reader), Ok(None));
        }
    }

    #[test]
    fn what_is_no_text_is_refused_and_not_read_to_its_end() {
        for (bytes, needle) in [
            (&b"ls \xff\n"[..], "not UTF-8"),
            (b"ls \0\n", "'\\0'"),
            (b"\x1b[31mls\n", "'\\u{1b}'"),
        ] {
            let error = next_line(&mut &*bytes).unwrap_err();
            assert!(error.contains(needle), "{error}");
        }
        // These have no end.
        for byte in [0, b'x'] {
            let error = next_line(&mut BufReader::new(std::io::repeat(byte))).unwrap_err();
            assert!(error.contains("longer than 65536 bytes"), "{error}");
        }
    }
}
