//! What is typed at the serial line, and the key that ends a command: Ctrl-C.
//!
//! While a command runs nobody waits for keys. A command that takes long asks ([`is_asked`]), and so the keys
//! are looked at now and then: Ctrl-C is for the command, the others wait until somebody reads them.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64};

use crate::clock;
use crate::lock::Lock;
use crate::serial::Serial;

pub const CTRL_C: u8 = 3;

/// How far apart the looks are, in nanoseconds: a look at a port of a virtual machine takes microseconds.
const PERIOD: u64 = 5_000_000;

/// Keys that wait at most, some lines. Others stay where they are, and their sender waits.
const MOST: usize = 1024;

/// Keys that came while a command ran. An array: a command may have taken all memory.
static AHEAD: Lock<Ahead> = Lock::new(Ahead { keys: [0; MOST], count: 0, read: 0 });

/// Whether a command runs that may be asked to stop, whether it was, and when to look next. All three are
/// hints from one CPU to others, which need see nothing else.
static RUNS: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU64 = AtomicU64::new(0);

struct Ahead {
    keys: [u8; MOST],
    count: usize,
    /// How many of them have been read.
    read: usize,
}

impl Ahead {
    fn take(&mut self) -> Option<u8> {
        let key = *self.keys[..self.count].get(self.read)?;
        self.read += 1;
        if self.read == self.count {
            (self.read, self.count) = (0, 0);
        }
        Some(key)
    }

    fn has_room(&self) -> bool {
        self.count < MOST
    }

    fn put(&mut self, key: u8) {
        if let Some(place) = self.keys.get_mut(self.count) {
            *place = key;
            self.count += 1;
        }
    }
}

/// The next key, if one was typed.
pub fn next() -> Option<u8> {
    AHEAD.lock().take().or_else(|| Serial.read())
}

/// Runs a command that Ctrl-C asks to stop.
pub fn interruptible<T>(command: impl FnOnce() -> T) -> T {
    ASKED.store(false, Relaxed);
    RUNS.store(true, Relaxed);
    let result = command();
    RUNS.store(false, Relaxed);
    result
}

/// Whether the command that runs is to stop.
pub fn is_asked() -> bool {
    if !RUNS.load(Relaxed) || ASKED.load(Relaxed) {
        return ASKED.load(Relaxed);
    }
    let now = clock::nanoseconds();
    if now < NEXT.load(Relaxed) {
        return false;
    }
    NEXT.store(now + PERIOD, Relaxed);
    let mut ahead = AHEAD.lock();
    while ahead.has_room()
        && let Some(key) = Serial.read()
    {
        if key == CTRL_C {
            // What was typed before it is not wanted any more either.
            (ahead.read, ahead.count) = (0, 0);
            ASKED.store(true, Relaxed);
        } else {
            ahead.put(key);
        }
    }
    ASKED.load(Relaxed)
}
