//! Per-CPU page lists: the front of the page allocator (A084).
//!
//! # What they are
//!
//! For each CPU and zone, a *page set*: one array for each small order and migrate type. A block is
//! taken from and put on the *hot* end, so that the block freed last, whose contents are likely in
//! the CPU's cache, is allocated first; `__GFP_COLD` takes from, and `free_cold_page` puts on, the
//! *cold* end (A054, A085, A105). When an array is empty a *batch* comes from the zone's free areas
//! under one taking of the lock; when it is at its *high* mark a batch goes back, from the cold end.
//!
//! ```text
//!             cold end                      hot end
//!   order 0   [ 81 | 1f | 20 | 7c | .. | 05 | 3a ]     256 slots, a ring of frame numbers
//!   order 1   [ 40 | 66 ]                               64
//!   order 2   [ ]                                       32
//!   order 3   [ 98 ]                                    32       ... for each of 3 migrate types
//! ```
//!
//! # Invariants
//!
//! * A ring holds `len` frame numbers from `cold` on; `len <= high <= slots`.
//! * Every entry was put there by this CPU, and the descriptor's mark said so when it was put. It
//!   may have changed since: another CPU may have freed the same block at the same moment. Whoever
//!   takes an entry looks at the mark.
//!
//! # Locking
//!
//! The rings are pure (`&mut self`). The CPU's [`CpuSection`](crate::sync::CpuSection) is around
//! them: pages of one CPU are touched by that CPU, pinned, with no lock and no interrupt masked.
//!
//! Linux: `struct per_cpu_pages`. There they are linked lists under a per-CPU spin lock, whose size
//! adapts; here arrays of fixed size. Pages on them count as free memory of the manager (A086), not
//! as free pages of the zone, there as here.

mod area;
mod ring;
#[cfg(test)]
mod tests;
mod tune;

pub(crate) use area::{CpuArea, SetSlot};
pub(crate) use ring::{PageSet, RingGroup};
pub(crate) use tune::{PCP_LARGEST, PcpSize};
