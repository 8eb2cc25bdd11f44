//! Per-CPU data's entry points.
//!
//! # The way of an allocation
//!
//! ```text
//!   alloc_percpu ──> the chunks (alloc.rs)          one lock, one search; then zeros for each CPU
//!                      │ none has room
//!                      v
//!                    a new chunk (grow.rs)          a page for each CPU: the one place that may sleep
//! ```
//!
//! A free finds the chunk by the page's descriptor and the object in the chunk's map, so anything that
//! is not an object's first byte is a wrong free, reported with what is there (free.rs).
//!
//! # The way to a copy
//!
//! `get_cpu_var` pins and adds (access.rs): no lock, no search. `task.rs` has the form that cannot be
//! held across a sleep, by the borrow checker's word.

mod access;
mod alloc;
mod free;
mod grow;
mod raw;
mod statics;
mod task;

pub use access::{CpuGuard, CpuVar, ThisCpu};
pub(crate) use alloc::Allocated;
pub use alloc::PerCpuCounts;
pub use raw::CpuPtr;
pub use statics::SetupPerCpuError;
pub use task::{InAtomic, Task};
