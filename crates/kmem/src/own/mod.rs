//! Values that own their memory: boxes, lists and text from kmalloc, typed caches, and Rust's own
//! collections over kmalloc.
//!
//! # What there is
//!
//! ```text
//!   KBox  KVec  KString     Cache  ConstructedCache     Kmalloc            GlobalKmalloc
//!   one   many  text        objects of one type         allocator-api2     #[global_allocator]
//!     |     |     |           |      |                     |                 |     |
//!     +-----+-----+----- kmalloc_layout ------------------ | ----------------+   arena
//!                             |      |                     |                     before boot
//!                        kmem_cache_alloc           kmalloc_layout
//!
//!   each has a Handle: which manager. Nothing where the kernel has one in a static, else &Mm.
//! ```
//!
//! # Everything can fail
//!
//! A call that may take memory has [`Gfp`](crate::Gfp) flags, because only the caller knows where it is
//! called, and answers a `Result`. One that fails leaves the value as it was. Only
//! [`GlobalKmalloc`], and collections of other crates, have calls that end the kernel: Rust's
//! collections want that.
//!
//! # Which manager
//!
//! Rust's own way is a parameter with a default, `Box<T, A = Global>`. There is no default here: a
//! library that brings its own manager as a value has no global one. So the types take a [`Handle`]
//! everywhere, and a kernel that has one manager in a `static` says so once, with
//! [`kernel_types!`](crate::kernel_types), and has `mm::KBox<T>` with `mm::KBox::new(value, GFP_KERNEL)`
//! from then on. Where there are several managers, as in tests, it is
//! `KBox::new_in(value, GFP_KERNEL, &mm)`. There is one set of types, so code that is generic over the
//! handle serves both.
//!
//! # Typed caches
//!
//! An object of a [`Cache`] is a `T` after it was written, and not before: no call hands out what the
//! last user left. The constructors of the texts are another contract: objects are values while they are
//! free. [`ConstructedCache`] has it soundly because a user is lent `&mut T` and is never given the
//! `T`: whatever the user does, a value goes back. What the texts ask of the user, to free objects as
//! they were constructed, is [`Construct::reset`], and to forget something there is a bug but no
//! undefined behaviour. A cache's number is not handed out, since safe calls with it could come while
//! the cache is destroyed.
//!
//! Linux: the Rust side of the kernel has boxes and vectors of these names, whose allocator is a type
//! and not a value. Here two managers can be side by side.

#[cfg(feature = "allocator-api2")]
mod allocator;
mod arena;
mod cache;
mod constructed;
mod error;
mod global;
mod handle;
mod kbox;
mod kstring;
mod kvec;
mod layout;
mod percpu;
mod zeroable;

#[cfg(feature = "allocator-api2")]
pub use allocator::Kmalloc;
pub use cache::{Cache, CacheBox, CacheOptions, DestroyError};
pub use constructed::{Construct, Constructed, ConstructedCache};
pub use error::{InsertError, PushError, WriteError};
pub use global::GlobalKmalloc;
pub use handle::Handle;
pub use kbox::KBox;
pub use kstring::{KString, Writer};
pub use kvec::{Drain, IntoIter, KVec};
pub use percpu::{PerCpu, PerCpuCounter};
pub use zeroable::Zeroable;
