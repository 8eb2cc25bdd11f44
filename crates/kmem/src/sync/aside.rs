//! Frames put aside by code that may not wait for a lock.

use super::atomic::{AtomicBool, AtomicU32, Ordering};

/// No frame.
const EMPTY: u32 = u32::MAX;

/// Frames put aside by code that may not wait for a lock: an NMI handler whose CPU may hold it.
///
/// It names frames and keeps no list of them: whoever takes the lock next looks at each frame that is
/// named, and at what its descriptor says. So a frame may be named twice or in vain, and no field of
/// a descriptor is needed, which somebody else may be writing because of a wrong call. Where more are
/// put aside than have a place, of which there are `SLOTS`, all frames are to be looked at.
pub struct Aside<const SLOTS: usize> {
    pending: AtomicBool,
    overflowed: AtomicBool,
    slots: [AtomicU32; SLOTS],
}

impl<const SLOTS: usize> Aside<SLOTS> {
    /// Nothing put aside.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Aside {
            pending: AtomicBool::new(false),
            overflowed: AtomicBool::new(false),
            slots: [const { AtomicU32::new(EMPTY) }; SLOTS],
        }
    }

    /// Nothing put aside.
    #[cfg(loom)]
    pub fn new() -> Self {
        Aside {
            pending: AtomicBool::new(false),
            overflowed: AtomicBool::new(false),
            slots: core::array::from_fn(|_| AtomicU32::new(EMPTY)),
        }
    }

    /// Names a frame. Any context.
    pub fn put(&self, frame: u32) {
        // Release, here and below, pairs with the Acquire in `take`: who finds the name sees what was
        // written to the frame's descriptor.
        let placed = self.slots.iter().any(|slot| {
            slot.compare_exchange(EMPTY, frame, Ordering::Release, Ordering::Relaxed).is_ok()
        });
        // Not stores: those would hide from `take` what others said before, whose frames it then
        // might not find.
        if !placed {
            self.overflowed.swap(true, Ordering::Release);
        }
        self.pending.swap(true, Ordering::Release);
    }

    /// Whether there may be something. A plain read, for paths that look often.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.pending.load(Ordering::Relaxed)
    }

    /// Passes each frame that is named to `look`, and answers whether all others are to be looked at
    /// too. By one at a time, under the lock.
    #[must_use]
    pub fn take(&self, mut look: impl FnMut(u32)) -> bool {
        // Before the looks: a frame that is named after them says so again.
        self.pending.swap(false, Ordering::Acquire);
        for slot in &self.slots {
            let frame = slot.swap(EMPTY, Ordering::Acquire);
            if frame != EMPTY {
                look(frame);
            }
        }
        self.overflowed.swap(false, Ordering::Acquire)
    }
}

impl<const SLOTS: usize> Default for Aside<SLOTS> {
    fn default() -> Self {
        Self::new()
    }
}
