//! Memory that devices read and write by themselves: what a device reaches, what it has been given, and
//! the slots that stand in for memory that it does not reach (A228, A246).
//!
//! # What it is
//!
//! A device is told physical addresses, and often has fewer address lines than the machine has memory: its
//! [`DmaMask`] says how many. It knows nothing of page tables, so that memory which is contiguous as
//! addresses only is none for it (A228), and what it is given must be contiguous as frames.
//!
//! There are two ways to share memory with it:
//!
//! ```text
//!   coherent    both use it at any time          descriptors, rings      dma_alloc_coherent
//!   streaming   one of both uses it at a time    a buffer that is sent   dma_map_single, dma_map_page
//! ```
//!
//! Coherent memory is allocated within the mask. Memory for streaming is the driver's own, wherever it
//! lies: where the device does not reach it, *slots* below the mask stand in, and the contents are copied
//! when the buffer changes hands.
//!
//! ```text
//!                     mask
//!     slots            |              the driver's buffer
//!   |#|#|.|.|#|.|.|    |              [============]
//!      ^  the device reads and writes here   | map: copied to the slots
//!      +-------------------------------------+ unmap: copied back, if the device wrote
//! ```
//!
//! # The parts
//!
//! * `device.rs`: masks, directions, [`DmaDevice`]: what a driver keeps of its device.
//! * `records.rs`: what the device has been given, found by address, so that giving back what was not
//!   given, twice, or as something else is noticed.
//! * `slots.rs`: which slots are taken.
//!
//! # Invariants
//!
//! * A slot is taken by one mapping at most, and free again only when the mapping's record is gone.
//! * A record's memory is brought by whoever makes it and given back to whoever takes it out.
//! * What is handed out as an address for a device ends within the device's mask.
//!
//! # Locking
//!
//! Records and slots are pure. A device has one spin lock over both (`DmaLevel`), so that devices do not
//! wait for each other. It is held while a chain or some hundred bits are looked at; nothing is copied or
//! allocated with it.
//!
//! # What differs from Linux
//!
//! Slots belong to a device and not to the machine, and are taken from its mask's own memory when they
//! are first wanted: a mask smaller than that of others gets slots of its own, and a machine whose devices
//! reach everything has none. What has been mapped is always known, where Linux knows it in kernels for
//! debugging: the price is an object of kmalloc's and a lock for each mapping. Devices see physical
//! addresses, there is no translation between them and memory, and what a CPU has in its caches a device
//! sees: machines where that is not so need more than this.

mod device;
mod records;
mod slots;
#[cfg(test)]
mod tests;

pub use device::{Direction, DmaAddr, DmaDevice, DmaError, DmaMask, MAPPING_ERROR, StillGiven};
pub(crate) use device::{Pool, State};
pub(crate) use records::{Found, Node, Record, What};
pub(crate) use slots::{SLOT, Slots};
