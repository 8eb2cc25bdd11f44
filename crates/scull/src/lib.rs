//! The sample devices of *Linux Device Drivers*: memory that behaves like a file.
//!
//! A scull device keeps what is written to it, grows with it and forgets it when it is opened for
//! writing anew. The devices differ in where their memory comes from; that is their point:
//!
//! | module | a quantum is |
//! | --- | --- |
//! | [`Scull`] | from kmalloc: 4000 bytes, or another number (A303) |
//! | [`Scullc`] | an object of the slab cache `scullc` (A304) |
//! | [`Scullp`] | `2^order` pages from `__get_free_pages` (A310) |
//! | [`Scullv`] | the same from `vmalloc` (A313) |
//!
//! ```text
//!  device ──► item ──► item ──► ...        a list; each item has a quantum set
//!              │         │
//!              ▼         ▼
//!           quantum set: an array of `qset` places
//!              │ │ │
//!              ▼ ▼ ▼
//!           quantum quantum quantum        cleared, all of one size
//! ```
//!
//! Items, sets and the table of devices come from kmalloc in all of them.
//!
//! The drivers know [`kmem`] and nothing else, so they run wherever it does. They are the samples
//! that the texts make of them: one user at a time is what they are for, and unless a quota is set
//! nothing limits how much a device takes (A165, A319). Running out of memory is an error and harms
//! nothing.
//!
//! Beside them stands [`Allocator`], the sample module that hands out RAM above `mem=` (A320).
//!
//! | file | what is in it |
//! | --- | --- |
//! | `allocator.rs` | the module `allocator` |
//! | `error.rs` | what can fail, and its errno |
//! | `lock.rs` | a lock whose holder may sleep |
//! | `memory.rs` | where the drivers' own small structures come from |
//! | `source/` | where quanta come from: a file a kind of module |
//! | `parameters.rs` | what is set when a module is loaded |
//! | `quota.rs` | how much a device may hold |
//! | `store.rs` | the list of quantum sets |
//! | `module.rs` | the module: devices, open files, its file in `/proc` |
//! | `mapped.rs` | a device's memory in a user's address space |
//! | `driver.rs` | modules of all kinds behind one face |
//! | `ioctl.rs` | the controls of a device, by number |

#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

mod allocator;
mod driver;
mod error;
pub mod ioctl;
mod lock;
mod mapped;
mod memory;
mod module;
mod parameters;
mod quota;
mod source;
mod store;

pub use allocator::{Allocator, ISA_LIMIT};
pub use driver::Driver;
/// The folder of this crate's source, as [`Location::file`](core::panic::Location::file) begins for
/// the calls that it makes.
pub const SOURCE: &str = {
    // The name of this file is taken off.
    let name = file!();
    name.split_at(name.len() - "lib.rs".len()).0
};

pub use error::{Errno, ScullError};
pub use mapped::Mapped;
pub use module::{File, Mode, Module};
pub use parameters::Parameters;
pub use source::{Areas, Kind, Kmalloc, Pages, SlabCache, Source};

/// scull: quanta from kmalloc (A303).
pub type Scull<'m, P, R> = Module<'m, Kmalloc, P, R>;

/// scullc: quanta from a slab cache of its own (A304).
pub type Scullc<'m, P, R> = Module<'m, SlabCache, P, R>;

/// scullp: quanta that are whole pages (A310).
pub type Scullp<'m, P, R> = Module<'m, Pages, P, R>;

/// scullv: quanta that are contiguous as addresses only (A313).
pub type Scullv<'m, P, R> = Module<'m, Areas, P, R>;
