//! Writing to what may not take anything yet.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

/// How long a terminal is left to show what it has.
const PAUSE: Duration = Duration::from_millis(1);

/// Waits until all is taken. QEMU makes the terminal that it reads from non-blocking, and that is the
/// one that we write to: without this, much output at once would be an error.
pub struct Patient<W>(pub W);

impl<W: Write> Patient<W> {
    fn until_done<T>(&mut self, mut act: impl FnMut(&mut W) -> io::Result<T>) -> io::Result<T> {
        loop {
            match act(&mut self.0) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl<W: Write> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.until_done(|out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.until_done(W::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes one byte in three tries.
    #[derive(Default)]
    struct Busy {
        tries: usize,
        taken: Vec<u8>,
    }

    impl Busy {
        fn try_it(&mut self) -> io::Result<()> {
            self.tries += 1;
            match self.tries % 3 {
                1 => Err(ErrorKind::WouldBlock.into()),
                2 => Err(ErrorKind::Interrupted.into()),
                _ => Ok(()),
            }
        }
    }

    impl Write for Busy {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.try_it()?;
            self.taken.extend(bytes.first());
            Ok(bytes.len().min(1))
        }

        fn flush(&mut self) -> io::Result<()> {
            self.try_it()
        }
    }

    #[test]
    fn what_is_busy_gets_everything_in_the_end() {
        let mut out = Patient(Busy::default());
        out.write_all(b"many lines").unwrap();
        out.flush().unwrap();
        assert_eq!(out.0.taken, b"many lines");
    }

    #[test]
    fn what_is_closed_is_an_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(Patient(Closed).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
