//! High memory: RAM that the direct map does not reach, and the ways to see it (A272).
//!
//! # What it is
//!
//! A 32-bit kernel has a GiB of addresses for itself. What RAM does not fit there is handed out as
//! pages without an address; whoever wants to read or write such a page has it mapped, in one of three
//! ways:
//!
//! ```text
//!                 where                      seen by     lasts until          ends
//!   kmap          slots of the kernel's      all CPUs    kunmap               in any order
//!                 page tables, counted                   may wait for a slot
//!   kmap_atomic   a slot a type, each CPU    one CPU     kunmap_atomic, or    in any order
//!                 has its own                            the next in the slot
//!   kmap_local    a stack of slots, each     one CPU     kunmap_local         last begun, first
//!                 CPU has its own                                             ended
//! ```
//!
//! A page of the direct map goes through none of them: its address is arithmetic.
//!
//! # Permanent mappings
//!
//! ```text
//!   frame ──hash──► bucket ──► slot ──► slot        of a mapped frame: found in constant time
//!
//!   free  ─ acquire ─► being mapped ─ publish ─► used ◄─┐
//!     ^                                           │     │ acquire: it is still mapped
//!     │                                   release v     │
//!     └── finish ── retiring ◄── retire ── idle ────────┘
//!                       (without the lock: unmap, one flush for all of them)
//! ```
//!
//! Ending a mapping leaves it in the page tables, *idle*: whoever maps the page again has it at once.
//! To make all CPUs forget a translation costs an interrupt on each, so that is done for all idle
//! slots together, when no slot is free (`PermanentMaps`). When none is idle either, `kmap` waits
//! until somebody ends a mapping.
//!
//! # Temporary mappings
//!
//! A CPU's slots are its own, so nothing is locked (`CpuSlots`). A slot is noted as taken before it
//! is used, and what interrupts ends before what was interrupted goes on: a handler that arrives in the
//! middle takes the next slot and has given it back.
//!
//! # Invariants
//!
//! * A frame has at most one permanent mapping that can be found; `users` of it have not ended theirs.
//! * A slot is free, being mapped, used, idle or retiring. Free ones are in no CPU's buffers.
//! * Slots below [`KM_TYPE_NR`] are those of the types, then come [`NESTED`] that nest, then the
//!   manager's two: `OWN_SLOT` is used with interrupts masked alone, `OWN_SLOT_IN_NMI` in NMI
//!   handlers.
//!
//! # Locking
//!
//! The permanent mappings have a spin lock (level 5), held for a look into the table. Page tables are
//! changed and CPUs flushed without it.
//!
//! Linux: `mm/highmem.c`, whose pool of permanent mappings this is, with a hash in place of a search for
//! a free slot and lists in place of a scan; the types are those of the texts' kernels, the stack is
//! today's. There a thread keeps its nested mappings when it leaves its CPU; here it stays on it.

mod permanent;
mod temporary;
#[cfg(test)]
mod tests;
mod types;

use core::fmt;
use core::ops::Range;
use core::sync::atomic::AtomicU32;

use crate::platform::{PageMapError, TEMPORARY_SLOTS};
use crate::sync::{KmapLevel, SpinLock};
use crate::{Pfn, VirtAddr};

pub use permanent::KmapInfo;
pub(crate) use permanent::{Acquired, PermanentMaps, Slot};
pub(crate) use temporary::{CpuSlots, Ended, Typed};
pub use types::*;

/// How deep the mappings of [`Mm::kmap_local_page`](crate::Mm::kmap_local_page) nest on a CPU, those
/// of handlers included: four for each of a task, a softirq, an interrupt and an NMI.
pub const NESTED: usize = 16;

/// The manager's own slot for code that has interrupts masked.
pub(crate) const OWN_SLOT: usize = KM_TYPE_NR + NESTED;

/// The manager's own slot for NMI handlers.
pub(crate) const OWN_SLOT_IN_NMI: usize = OWN_SLOT + 1;

const _: () = assert!(OWN_SLOT_IN_NMI + 1 == TEMPORARY_SLOTS);

/// What a machine with high memory has for mapping it.
pub(crate) struct HighMem {
    /// The permanent mappings.
    pub(crate) maps: SpinLock<KmapLevel, PermanentMaps<'static>>,
    /// Where their slots are seen.
    pub(crate) window: Range<VirtAddr>,
    /// Changed, under the lock, when a slot may be had again and somebody waits for one.
    pub(crate) freed: AtomicU32,
}

/// Which addresses of the range for mappings the permanent ones have: the last. Never more than a
/// quarter of the range, so that a small one has room for others.
pub(crate) fn window(range: Range<VirtAddr>, page_shift: u32, slots: u32) -> Range<VirtAddr> {
    let pages = range.end.get().saturating_sub(range.start.get()) >> page_shift;
    let slots = (slots as usize).min(pages / 4);
    VirtAddr::new(range.end.get() - (slots << page_shift))..range.end
}

/// Why a page could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KmapError {
    /// The manager has not been booted.
    NotBooted,
    /// The page is free, or no RAM. It was reported.
    NotInUse(Pfn),
    /// The call may sleep and was made where sleeping is forbidden (A269). It was reported.
    AtomicContext,
    /// The machine has no slots for permanent mappings.
    NoSlots,
    /// The page has as many mappings as can be counted.
    TooManyUsers(Pfn),
    /// As many temporary mappings as nest on a CPU ([`NESTED`]) have not been ended.
    TooDeep,
    /// The code that was interrupted was changing the slot of this type. It was reported.
    SlotBusy(KmType),
    /// The machine was described without the CPU that called.
    NoSuchCpu,
    /// The platform could not map the page.
    PageMap(PageMapError),
}

impl fmt::Display for KmapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KmapError::NotBooted => {
                f.write_str("the manager is not booted: call boot with a memory map first")
            }
            KmapError::NotInUse(pfn) => {
                write!(f, "{pfn:?} is not in use: map pages that are allocated")
            }
            KmapError::AtomicContext => f.write_str(
                "kmap of high memory may sleep and was called where that is forbidden: use \
                 kmap_local_page",
            ),
            KmapError::NoSlots => f.write_str(
                "there are no slots for permanent mappings: see Setup::kmap_slots and PageMap",
            ),
            KmapError::TooManyUsers(pfn) => {
                write!(f, "{pfn:?} has more mappings than can be counted: end some")
            }
            KmapError::TooDeep => {
                write!(f, "{NESTED} nested mappings have not been ended on this cpu: end some")
            }
            KmapError::SlotBusy(slot) => {
                write!(f, "slot {slot:?} was being changed when this code interrupted: use another")
            }
            KmapError::NoSuchCpu => {
                f.write_str("the machine was described without this cpu: see Setup::cpus")
            }
            KmapError::PageMap(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for KmapError {}
