//! Where a CPU sees for a time what the direct map does not reach: slots, a page each.
//!
//! ```text
//!   WINDOW   | CPU 0: slot 0, 1, ... 63 | CPU 1: slot 0, 1, ... 63 | ... | CPU 15 |
//!   ENTRIES  | an entry for each of these pages, side by side: the two last tables themselves
//! ```
//!
//! The entries lie in the image, so whoever writes one needs no way through tables, no lock and no memory. A
//! call is a store, and the end of one another store: any context, NMI handlers included.
//!
//! # Why the own CPU alone forgets
//!
//! An address belongs to one CPU, and the code that uses it is pinned there until the mapping has ended. What
//! another CPU may know of it, having looked ahead by a guess of its own, is never used: no code that runs there
//! has the address. So `invlpg` on this CPU is enough, at the end of a mapping. At its beginning there is
//! nothing to forget: a processor does not remember that nothing was mapped. The slots of `kmap`, which all
//! CPUs use, are mapped and forgotten as areas are: see `paging::forget`.

use core::ops::Range;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicU64, compiler_fence};

use kmem::platform::TEMPORARY_SLOTS;
use kmem::{Pfn, VirtAddr};

use crate::cpu::{CPUS, Cpu};
use crate::direct;
use crate::paging::{self, LARGE, PAGE};

/// The pages that each CPU has.
const OF_A_CPU: usize = 64;

const _: () = assert!(TEMPORARY_SLOTS <= OF_A_CPU);

const COUNT: usize = CPUS * OF_A_CPU;

/// Where the slots are.
pub const WINDOW: Range<usize> = 0xffff_d800_0000_0000..0xffff_d800_0000_0000 + COUNT * 4096;

/// Whole tables: their entries fill them.
#[repr(C, align(4096))]
struct Entries([AtomicU64; COUNT]);

static ENTRIES: Entries = Entries([const { AtomicU64::new(0) }; COUNT]);

const _: () = assert!(size_of::<Entries>().is_multiple_of(PAGE as usize));

/// Has the kernel's tables lead to the entries. By the boot CPU, once.
///
/// # Panics
///
/// There is no table above them.
pub fn begin() {
    let first = direct::of_image(&raw const ENTRIES);
    for (address, table) in WINDOW.step_by(LARGE as usize).zip((first..).step_by(PAGE as usize)) {
        // SAFETY: the addresses are this file's, which writes the entries.
        let used = unsafe { paging::use_table(address, table) };
        used.unwrap_or_else(|_| panic!("there is no table for what is seen for a time"));
    }
}

/// The entry and the address of a slot of this CPU, on which the code stays.
fn of(slot: usize) -> (&'static AtomicU64, usize) {
    let index = Cpu::id().index() * OF_A_CPU + slot;
    (&ENTRIES.0[index], WINDOW.start + index * PAGE as usize)
}

/// Has a frame seen in a slot of this CPU that has none; answers where. Pinned.
pub fn map(frame: Pfn, slot: usize) -> VirtAddr {
    let (entry, address) = of(slot);
    // Relaxed: a processor sees its own stores when it looks the address up.
    entry.store(paging::entry_of(frame.number() * PAGE, paging::DATA), Relaxed);
    // What is done with the frame stays behind the store: the compiler does not know that it is about that.
    compiler_fence(SeqCst);
    VirtAddr::new(address)
}

/// Has nothing seen in a slot of this CPU. Pinned.
pub fn unmap(slot: usize) {
    let (entry, address) = of(slot);
    // As above, the other way round.
    compiler_fence(SeqCst);
    entry.store(0, Relaxed);
    paging::forget_page(address);
}
