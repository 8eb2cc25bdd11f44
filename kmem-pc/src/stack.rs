//! Stacks: each with nothing mapped below it, so that whoever uses more than there is meets a fault and
//! not somebody else's memory.
//!
//! ```text
//!   place 0                               place 1
//!   |      nothing      |  256 KiB  |     |      nothing      |  256 KiB  |
//! ```
//!
//! A place keeps its pages when its stack is given back, for the next one.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use kmem::GFP_KERNEL;

use crate::heap::HEAP;
use crate::paging::{self, PAGE};
use crate::probe;

/// Where the places are.
pub const BASE: usize = 0xffff_d000_0000_0000;

/// The size of a place: as much is unmapped as is mapped, since code may go down by much at once.
const PLACE: usize = 2 * SIZE;

/// The size of a stack: acceptance cases keep long lists on theirs.
const SIZE: usize = 256 << 10;

/// How many places there are.
const PLACES: u32 = u64::BITS;

/// The places that are in use, and those that have their pages; a bit each.
static USED: AtomicU64 = AtomicU64::new(0);
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// There is no memory for a stack, or there are too many.
#[derive(Debug)]
pub struct NoStack;

impl fmt::Display for NoStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no memory for a stack, or {PLACES} are in use")
    }
}

/// A stack. Its memory is given back when it goes.
pub struct Stack {
    place: u32,
}

impl Stack {
    /// A stack that nobody uses.
    ///
    /// # Errors
    ///
    /// See [`NoStack`].
    pub fn new() -> Result<Stack, NoStack> {
        // Acquire pairs with the Release where a stack goes: its last user is done.
        let took = USED.fetch_update(Ordering::Acquire, Ordering::Relaxed, |used| {
            (used != u64::MAX).then(|| used | used + 1)
        });
        let place = took.map_err(|_| NoStack)?.trailing_ones();
        let stack = Stack { place };
        if MAPPED.load(Ordering::Relaxed) & 1 << place == 0 {
            stack.map()?;
            MAPPED.fetch_or(1 << place, Ordering::Relaxed);
        }
        Ok(stack)
    }

    /// Gives the place its pages, those that it has not.
    fn map(&self) -> Result<(), NoStack> {
        for address in (self.top() - SIZE..self.top()).step_by(PAGE as usize) {
            if probe::read(address).is_some() {
                continue;
            }
            let page = HEAP.__get_free_pages(GFP_KERNEL, 0).map_err(|_| NoStack)?;
            // SAFETY: the place is this stack's alone, and so is the page.
            let mapped =
                unsafe { paging::map(address, paging::physical(page), PAGE, paging::DATA) };
            if mapped.is_err() {
                // SAFETY: it was just allocated.
                unsafe { HEAP.free_pages(page, 0) };
                return Err(NoStack);
            }
        }
        Ok(())
    }

    /// The first address behind it.
    pub fn top(&self) -> usize {
        BASE + (self.place as usize + 1) * PLACE
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        USED.fetch_and(!(1 << self.place), Ordering::Release);
    }
}

/// The number of the stack below which an address is: whoever uses it has used up that stack.
pub fn guarded_by(address: usize) -> Option<u32> {
    let place = address.checked_sub(BASE)? / PLACE;
    let is_below = (address - BASE) % PLACE < PLACE - SIZE;
    (place < PLACES as usize && is_below).then_some(place as u32)
}

/// The number of the stack that an address is in.
pub fn holding(address: usize) -> Option<u32> {
    let place = address.checked_sub(BASE)? / PLACE;
    (place < PLACES as usize && guarded_by(address).is_none()).then_some(place as u32)
}
