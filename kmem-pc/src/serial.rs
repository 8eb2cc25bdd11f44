//! The console: the first serial line.

use core::fmt;

use crate::port;

const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
/// The line takes another byte.
const READY: u8 = 1 << 5;
/// A byte has arrived.
const ARRIVED: u8 = 1;

/// The serial line. Whoever writes waits until the line has taken each byte.
pub struct Serial;

impl Serial {
    /// Writes bytes as they are.
    pub fn write(&self, bytes: &[u8]) {
        for byte in bytes {
            // SAFETY: the serial line touches no memory.
            unsafe {
                while port::read8(LINE_STATUS) & READY == 0 {
                    core::hint::spin_loop();
                }
                port::write8(COM1, *byte);
            }
        }
    }

    /// Writes text: a line ends with a carriage return too.
    pub fn write_text(&self, text: &[u8]) {
        for part in text.split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(line) => {
                    self.write(line);
                    self.write(b"\r\n");
                }
                None => self.write(part),
            }
        }
    }

    /// The byte that arrived, if one has.
    pub fn read(&self) -> Option<u8> {
        // SAFETY: as above.
        unsafe { (port::read8(LINE_STATUS) & ARRIVED != 0).then(|| port::read8(COM1)) }
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_text(text.as_bytes());
        Ok(())
    }
}
