//! The sample devices of *Linux Device Drivers*: memory that behaves like a file.
//!
//! A scull device keeps what is written to it, grows with it and forgets it when it is opened for
//! writing anew. The devices differ in where their memory comes from; that is their point:
//!
//! | device | a quantum is | |
//! | --- | --- | --- |
//! | [`Scullp`] | `2^order` pages from `__get_free_pages` | here |
//! | scull, scullc, scullv | from `kmalloc`, a slab cache, `vmalloc` | when kmem has them |
//!
//! ```text
//!  device ──► item ──► item ──► ...        a list; each item has a quantum set
//!              │         │
//!              ▼         ▼
//!           quantum set: an array of `qset` places
//!              │ │ │
//!              ▼ ▼ ▼
//!           quantum quantum quantum        cleared, 2^order pages each
//! ```
//!
//! The drivers know [`kmem`] and nothing else, so they run wherever it does. They are the samples
//! that the texts make of them: one user at a time is what they are for, and nothing limits how
//! much a device takes (A319). Running out of memory is an error and harms nothing.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `error.rs` | what can fail, and its errno |
//! | `lock.rs` | a lock whose holder may sleep |
//! | `memory.rs` | where the drivers' own small structures come from |
//! | `store.rs` | the list of quantum sets |
//! | `scullp.rs` | the module: devices, open files, `/proc/scullpmem` |

#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

mod error;
mod lock;
mod memory;
mod scullp;
mod store;

pub use error::{Errno, ScullError};
pub use scullp::{File, Mode, Parameters, Scullp};
