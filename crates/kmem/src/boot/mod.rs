//! From the boot loader's memory map to zones: what happens once.
//!
//! ```text
//!   MemoryMap  --normalise-->  Normalised  --carve tables-->  free ranges
//!   (bytes, any order,         (frames, sorted,              (what the page
//!    overlaps, holes)           disjoint, extents)            allocator gets)
//! ```
//!
//! * [`map`]: the boot loader's description, and its sorted form in frames.
//! * [`early`]: carving the manager's own tables out of it, before there is an allocator.
//! * [`memblock`]: the map kept in order, and bytes allocated out of it by others than the manager.
//! * [`BootMem`]: that, as kernels call it before there is a page allocator, and not any more after.
//! * [`Carveout`]: memory set aside at boot, handed out in blocks of any number of pages at run time.
//! * [`CommandLine`]: `mem=` and `bigphysarea=`.
//! * [`Setup`]: what else a machine is: limits of zones, largest order, CPUs, nodes.
//! * [`Classes`]: the sizes that kmalloc has on it.
//! * [`SlabDebug`]: which of its caches are debugged.
//! * [`StackSetup`]: what its kernel stacks are like.
//!
//! Everything here is pure and costs nothing for holes: loops run over regions, never over frames.
//! `mm/` puts the parts together and writes the tables.
//!
//! Linux: `memblock`, `free_area_init`, the e820 code.

pub mod bootmem;
pub mod carveout;
mod classes;
mod cmdline;
pub mod early;
pub mod map;
pub mod memblock;
mod setup;
mod slab_debug;
mod stack;

pub use bootmem::{BootMem, BootMemError};
pub use carveout::{Carveout, CarveoutError};
#[cfg(test)]
pub(crate) use classes::LARGEST_RECORD;
pub(crate) use classes::SMALL_OBJECT;
pub use classes::{Classes, ClassesError, LARGEST_OBJECT, MAX_CLASSES};
pub use cmdline::{CommandLine, CommandLineError};
pub use map::{MapError, MemoryMap};
pub use setup::{Setup, SetupError};
pub use slab_debug::{SlabDebug, SlabDebugError};
pub(crate) use stack::LARGEST_STACK;
pub use stack::{StackBacking, StackSetup};
