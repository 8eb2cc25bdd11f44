//! A stack that anybody pushes onto and one empties.

use super::atomic::{AtomicU32, Ordering};

/// Frames put aside by code that may not wait for a lock: an NMI handler whose CPU may hold it.
///
/// The links are kept by the caller, in the frames' descriptors. Frames are only pushed singly and
/// taken all at once, so a compare-exchange on the top cannot be fooled by a frame that went and
/// came back.
pub struct FrameStack {
    top: AtomicU32,
}

impl FrameStack {
    /// The link of the last frame.
    pub const END: u32 = u32::MAX;

    /// An empty stack.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        FrameStack { top: AtomicU32::new(Self::END) }
    }

    /// An empty stack.
    #[cfg(loom)]
    pub fn new() -> Self {
        FrameStack { top: AtomicU32::new(Self::END) }
    }

    /// Pushes a frame. `set_next` writes the frame's link; it may be called more than once.
    pub fn push(&self, frame: u32, set_next: impl Fn(u32)) {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            set_next(top);
            // Release pairs with the Acquire in `take_all`: who takes the frame sees its link.
            match self.top.compare_exchange_weak(top, frame, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Whether the stack is empty. A plain read, for paths that look often.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.top.load(Ordering::Relaxed) == Self::END
    }

    /// Takes all frames: the first one, whose link leads to the next, up to [`FrameStack::END`].
    pub fn take_all(&self) -> u32 {
        self.top.swap(Self::END, Ordering::Acquire)
    }
}

impl Default for FrameStack {
    fn default() -> Self {
        Self::new()
    }
}
