//! Who called: the return addresses on a stack.
//!
//! Every function keeps its caller's frame pointer and, above it, where it returns to; the entry code of
//! interrupts leaves the same shape. So the frames are a list that begins in `rbp`. It is read with
//! [`probe`], which a broken stack does no harm to.

use core::arch::asm;

use crate::probe;

/// How many calls are told apart.
const MOST: usize = 32;

/// How many frames are looked at: a broken list may lead in a circle. A stack of some 100 KiB has a few
/// thousand.
const FRAMES: usize = 1 << 16;

/// Where the running function's frame is.
#[inline(always)]
pub fn here() -> usize {
    let frame;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    frame
}

/// A call, and how often it was made in a row: a function that calls itself.
pub struct Call {
    /// The last byte of the call's instruction: where it returns to may be of the next line, or of the
    /// next function.
    pub address: usize,
    /// How often.
    pub times: usize,
}

/// The calls that led to the function with a frame, innermost first.
pub fn calls(frame: usize) -> impl Iterator<Item = Call> {
    let mut addresses = addresses(frame).peekable();
    let calls = core::iter::from_fn(move || {
        let address = addresses.next()?;
        let again = core::iter::from_fn(|| addresses.next_if_eq(&address));
        Some(Call { address, times: 1 + again.count() })
    });
    calls.take(MOST)
}

fn addresses(mut frame: usize) -> impl Iterator<Item = usize> {
    let addresses = core::iter::from_fn(move || {
        // The first frame of a stack has none above it.
        if frame == 0 || !frame.is_multiple_of(8) {
            return None;
        }
        let (next, back) = (probe::read(frame)?, probe::read(frame.wrapping_add(8))?);
        frame = next as usize;
        (back as usize).checked_sub(1)
    });
    addresses.take(FRAMES)
}
