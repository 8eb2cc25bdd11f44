//! The slab layer's and kmalloc's entry points.
//!
//! # The way of an allocation
//!
//! ```text
//!   kmem_cache_alloc, kmalloc ──> the CPU's magazine (alloc.rs)     no lock, nothing masked
//!                                   │ empty                          └─> refill: a batch from the depot,
//!                                   v                                    or from slabs, under one lock
//!                                 the node's slabs                   partial ones, then empty ones
//!                                   │ none
//!                                   v
//!                                 a new slab (grow.rs)               the one place that may sleep
//! ```
//!
//! # The way of a free
//!
//! `kfree` and `kmem_cache_free` (free.rs) find the slab by the page's descriptor, the object by
//! where it lies in the slab, and what it is by its byte: held by somebody, then it goes to the
//! CPU's magazine; anything else is a wrong free, which is reported and changes nothing.
//!
//! # Caches come and go
//!
//! A cache is a place in a table that boot carves, and a handle says for which cache in that place it
//! was made (create.rs). What a CPU has of a cache comes when the CPU needs it (cpu.rs).

mod alloc;
mod bulk;
mod cpu;
mod create;
mod debug;
mod free;
mod grow;
mod kmalloc;
mod look;
mod shrink;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_edges;

pub use create::CacheError;
pub use debug::Owned;
pub use look::CacheInfo;
