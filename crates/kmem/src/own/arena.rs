//! Memory for before there is a manager.

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

/// A piece of memory that is handed out from its start on, without a lock: any context.
///
/// ```text
///   +-------+--+-----------+------+---------------------------------+
///   | piece |  | piece     | last |                                 |
///   +-------+--+-----------+------+---------------------------------+
///            ^ padding            ^ used                            ^ N
/// ```
///
/// # Invariants
///
/// Pieces do not overlap, and lie below `used`.
///
/// The orderings are relaxed: `used` only says which bytes are whose, and nothing is read through it.
/// Whoever passes a piece on to another CPU orders its contents as for any memory.
#[repr(C, align(64))]
pub(super) struct Arena<const N: usize> {
    bytes: UnsafeCell<[MaybeUninit<u8>; N]>,
    used: AtomicUsize,
    /// Bytes of pieces that were given back and were not the last.
    kept: AtomicUsize,
}

// SAFETY: bytes are reached by who has the piece, and by the invariant one has it.
unsafe impl<const N: usize> Sync for Arena<N> {}

impl<const N: usize> Arena<N> {
    pub(super) const fn new() -> Self {
        Arena {
            bytes: UnsafeCell::new([MaybeUninit::uninit(); N]),
            used: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
        }
    }

    fn start(&self) -> *mut u8 {
        self.bytes.get().cast()
    }

    /// Bytes handed out so far, with what lies between them and what was given back and kept.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that were given back and cannot be handed out again.
    pub(super) fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Where a piece begins, in bytes from the start; `None` where it is none of the arena's.
    pub(super) fn offset(&self, piece: *const u8) -> Option<usize> {
        let offset = piece.addr().wrapping_sub(self.start().addr());
        (offset < N).then_some(offset)
    }

    /// Hands out a piece; its size is not 0.
    pub(super) fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        let base = self.start().addr();
        let end_of = |used: usize| {
            let first = base.checked_add(used)?.checked_next_multiple_of(layout.align())? - base;
            let end = first.checked_add(layout.size())?;
            (end <= N).then_some((first, end))
        };
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let (first, end) = end_of(used)?;
            match self.used.compare_exchange_weak(used, end, Ordering::Relaxed, Ordering::Relaxed) {
                // SAFETY: within the arena.
                Ok(_) => return NonNull::new(unsafe { self.start().add(first) }),
                Err(now) => used = now,
            }
        }
    }

    /// Takes a piece of `size` bytes back: to be handed out again where it is the last, else not.
    pub(super) fn give(&self, offset: usize, size: usize) {
        if !self.resize_last(offset, size, 0) {
            self.kept.fetch_add(size, Ordering::Relaxed);
        }
    }

    /// Makes the last piece larger or smaller. `false` where it is not the last, or there is no room.
    pub(super) fn resize_last(&self, offset: usize, old: usize, new: usize) -> bool {
        let Some(end) = offset.checked_add(new).filter(|end| *end <= N) else { return false };
        // If `used` is where this piece ends, no piece lies behind it.
        let last = offset + old;
        self.used.compare_exchange(last, end, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
