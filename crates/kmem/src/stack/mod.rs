//! Kernel stacks: the memory of one, and those that a CPU keeps at hand (A261 to A268).
//!
//! # What it is
//!
//! Every task has a stack of its own that does not grow: a few pages, from which it is made and to which it
//! goes back. Code that uses more than there is writes below it. What is there says what becomes of that:
//!
//! ```text
//!   a block of pages (classic)                mapped pages (modern)
//!
//!     top ──> +-----------------+               top ──> +-----------------+
//!             |  used           |                       |  thread_info    |
//!             |       |         |                       +-----------------+
//!             |       v         |                       |  used           |
//!             |                 |                       |       |         |
//!             |  painted        |                       |       v         |
//!             |                 |                       |  painted        |
//!             +-----------------+                       +-----------------+
//!             |  canary         |                       |  canary         |
//!             +-----------------+               base ─> +-----------------+
//!             |  thread_info    |                       |  nothing        |  a touch is a fault
//!    base ──> +-----------------+                       +-----------------+
//!             |  somebody else's|
//! ```
//!
//! In a block the owner's record (`thread_info`) is the first that is lost, after the canary, and then the
//! memory of whoever is below: in silence (A266). What was overwritten is found when somebody looks
//! ([`Memory::harm`]), and at the latest when the stack is given back. Below mapped pages there is nothing:
//! the overflow is a fault at the moment it happens, and the record is out of its way, at the other end.
//!
//! # How much was used
//!
//! Where stacks are measured the free part is *painted* with a pattern. The lowest word that is not paint
//! any more says how far down the stack was used. Code that skips words (an array that it never writes)
//! hides what lies below it, so the answer is a lower bound.
//!
//! # Kept at hand
//!
//! To map pages and to have all CPUs forget them is dear beside a task's start. So each CPU keeps two
//! mapped stacks that were given back ([`CpuStacks`]). A place is a word that is exchanged: whoever gets the
//! stack out of it has it, be it the CPU, an interrupt on it, or another CPU that collects what is kept.
//!
//! # Locking
//!
//! None. A stack's memory is its holder's; the places of [`CpuStacks`] are atomics.
//!
//! # What differs from Linux
//!
//! Size, backing and measuring are matters of run time. The mapped stack's record lies at its upper end and
//! not in another object, so that a stack says itself whose it is. A canary depends on its address: a copy
//! of one elsewhere is none.

mod kept;
mod memory;
#[cfg(test)]
mod tests;

pub(crate) use kept::CpuStacks;
pub(crate) use memory::{Memory, RecordAt, owner_before, restore_canary};
