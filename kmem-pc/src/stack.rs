//! Stacks: each with nothing mapped below it, so that whoever uses more than there is meets a fault and
//! not somebody else's memory.
//!
//! ```text
//!   place 0                                place 1
//!   |       nothing      |    stack    |   |          nothing          | stack |
//! ```
//!
//! A place keeps its pages when its stack is given back, for the next one.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use kmem::GFP_KERNEL;

use crate::heap::HEAP;
use crate::paging::{self, PAGE};
use crate::{interrupt, probe};

/// Where the places are.
pub const BASE: usize = 0xffff_d000_0000_0000;

/// The size of a task's stack: acceptance cases keep long lists on theirs.
const TASK: usize = 256 << 10;

/// The size of a place: at least as much is unmapped as is mapped, since code may go down by much at once.
const PLACE: usize = 2 * TASK;

/// How many places there are of each kind: first those of interrupts, then those of tasks.
const OF_A_KIND: u32 = 128;
const PLACES: u32 = 2 * OF_A_KIND;

/// What a stack is for, which says how large it is.
#[derive(Clone, Copy)]
pub enum For {
    /// Handlers of interrupts.
    Interrupts,
    /// A task, or a CPU's idle loop.
    Tasks,
}

/// The places that are in use, a bit each.
static USED: [AtomicU64; PLACES as usize / 64] =
    [const { AtomicU64::new(0) }; PLACES as usize / 64];

/// There is no memory for a stack, or there are too many.
#[derive(Debug)]
pub struct NoStack;

impl fmt::Display for NoStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no memory for a stack, or {OF_A_KIND} are in use")
    }
}

/// A stack. When it goes its place is free for another.
pub struct Stack {
    place: u32,
}

impl Stack {
    /// A stack that nobody uses.
    ///
    /// # Errors
    ///
    /// See [`NoStack`].
    pub fn new(purpose: For) -> Result<Stack, NoStack> {
        const WORDS: usize = OF_A_KIND as usize / 64;
        let first = match purpose {
            For::Interrupts => 0,
            For::Tasks => WORDS,
        };
        let took = (first..first + WORDS).find_map(|word| {
            let free = |used: u64| (used != u64::MAX).then_some(used | (used + 1));
            // Acquire pairs with the Release where a stack goes: its last user is done.
            let took = USED[word].fetch_update(Ordering::Acquire, Ordering::Relaxed, free);
            took.ok().map(|used| word as u32 * u64::BITS + used.trailing_ones())
        });
        let stack = Stack { place: took.ok_or(NoStack)? };
        stack.map()?;
        Ok(stack)
    }

    /// Gives the place its pages, those that it has not.
    fn map(&self) -> Result<(), NoStack> {
        for address in (self.top() - bytes_of(self.place)..self.top()).step_by(PAGE as usize) {
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
        let (word, bit) = (self.place / u64::BITS, self.place % u64::BITS);
        USED[word as usize].fetch_and(!(1 << bit), Ordering::Release);
    }
}

/// How many bytes the stack of a place has.
fn bytes_of(place: u32) -> usize {
    if place < OF_A_KIND { interrupt::STACK } else { TASK }
}

/// The place that an address is in, and whether it is below the place's stack.
fn find(address: usize) -> Option<(u32, bool)> {
    let offset = address.checked_sub(BASE)?;
    let place = u32::try_from(offset / PLACE).ok().filter(|place| *place < PLACES)?;
    Some((place, offset % PLACE < PLACE - bytes_of(place)))
}

/// The number of the stack below which an address is: whoever uses it has used up that stack.
pub fn guarded_by(address: usize) -> Option<u32> {
    find(address).and_then(|(place, is_below)| is_below.then_some(place))
}

/// The number of the stack that an address is in.
pub fn holding(address: usize) -> Option<u32> {
    find(address).and_then(|(place, is_below)| (!is_below).then_some(place))
}
