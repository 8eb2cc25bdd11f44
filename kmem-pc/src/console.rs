//! A line at a time from the serial line, as a person types it.

use alloc::string::String;

use crate::serial::Serial;
use crate::task;

/// How long the console sleeps when nothing has arrived, in nanoseconds: shorter than people notice.
const PAUSE: u64 = 5_000_000;

/// Reads a line and shows it as it is typed. `None` where its sender ends the session (Ctrl-D).
pub fn read_line(prompt: &str) -> Option<String> {
    Serial.write(prompt.as_bytes());
    let mut line = String::new();
    loop {
        let Some(byte) = Serial.read() else {
            task::sleep(PAUSE);
            continue;
        };
        match byte {
            b'\r' | b'\n' => {
                Serial.write(b"\r\n");
                return Some(line);
            }
            // Ctrl-D ends, Ctrl-C and Ctrl-U begin anew.
            4 if line.is_empty() => return None,
            3 | 21 => {
                Serial.write(b"\r\n");
                Serial.write(prompt.as_bytes());
                line.clear();
            }
            8 | 127 if line.pop().is_some() => Serial.write(b"\x08 \x08"),
            b' '..=b'~' => {
                line.push(char::from(byte));
                Serial.write(&[byte]);
            }
            _ => {}
        }
    }
}
