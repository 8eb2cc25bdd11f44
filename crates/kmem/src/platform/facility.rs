//! Facilities that a platform may have: each is a trait of its own.

use core::fmt;

use crate::{CpuId, Order, Pfn, VirtAddr};

/// Making another CPU run something: an inter-processor interrupt.
///
/// # Safety
///
/// `work` must run with the given CPU current and pinned, at most once, and not after `call_on` has
/// returned.
pub unsafe trait CrossCall {
    /// Runs `work` on `cpu` and waits until it has ended.
    ///
    /// *Before:* the caller may sleep or at least has interrupts unmasked and holds no lock that an
    /// interrupt handler takes, so that two CPUs that call each other both get their answer.
    /// `work` does not sleep.
    ///
    /// *After:* `work` has run on that CPU, as an interrupt handler there (or plainly, where `cpu`
    /// is the caller's own); or it has not run and never will, and the error says so.
    fn call_on(&self, cpu: CpuId, work: &(dyn Fn() + Sync)) -> Result<(), NotCalled>;
}

/// Why [`CrossCall::call_on`] did not run the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCalled {
    /// The CPU is not running.
    Offline,
    /// There is no CPU with that number.
    NoSuchCpu,
}

impl fmt::Display for NotCalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotCalled::Offline => "the cpu is offline",
            NotCalled::NoSuchCpu => "there is no cpu with that number",
        })
    }
}

/// How many slots for temporary mappings each CPU has, numbered from 0: one for each type of the
/// texts, sixteen that nest, and the manager's own two.
pub const TEMPORARY_SLOTS: usize = 20 + 16 + 2;

/// Reaching a frame outside the direct map for a short time, on one CPU.
///
/// Each CPU has [`TEMPORARY_SLOTS`] places where a frame can be seen. Which of them is free is for
/// the manager to know; the platform writes the entry of the page table.
///
/// # Safety
///
/// Between `map` and `unmap` the page at the address that `map` returned is the frame, readable and
/// writable, for the CPU that called. What is done with one slot changes no other.
pub unsafe trait TemporaryMap {
    /// Maps one frame in a slot of this CPU and returns the address of its first byte.
    ///
    /// *Before:* the frame is RAM, `slot` is below [`TEMPORARY_SLOTS`], and nothing is mapped in it
    /// on this CPU. The caller stays on this CPU during the call. Any context, NMI handlers included,
    /// also in the middle of a call for another slot.
    ///
    /// *After:* the address is aligned to a page, the same one for each mapping in that slot of that
    /// CPU, and good on this CPU until `unmap`; the code is pinned, and must not sleep, until then.
    fn map(&self, frame: Pfn, slot: usize) -> VirtAddr;

    /// Ends the mapping in a slot of this CPU: in any order. Whether the address faults from then on
    /// or shows the frame until the slot is used again is up to the platform. Contexts as for `map`.
    ///
    /// # Safety
    ///
    /// `address` came from the latest `map` with this slot on this CPU, which has not been ended, and
    /// nothing is read or written through it afterwards.
    unsafe fn unmap(&self, address: VirtAddr, slot: usize);
}

/// How the processor may treat what is behind a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// RAM.
    Cached,
    /// Registers of a device: each access happens, once, in the order of the program.
    Uncached,
    /// A device's buffer: writes may be joined and come later, reads are as of registers.
    WriteCombined,
}

/// Building and removing page table entries in the range that the platform keeps for mappings.
///
/// # Safety
///
/// After `map`, page `i` at `address` is frame `first + i`, until `unmap` of it. Nothing else is
/// placed in the range.
pub unsafe trait PageMap {
    /// The addresses that mappings may be placed at: page-aligned, half open (A226).
    fn range(&self) -> core::ops::Range<VirtAddr>;

    /// The order of the blocks that one entry can map where frames and address are both aligned to
    /// them, if there are such: 9 on a processor with pages of 4 KiB and 2 MiB.
    fn large_order(&self) -> Option<Order> {
        None
    }

    /// Maps `count` frames from `first` on at `address`.
    ///
    /// *Before:* `address` is page-aligned and the pages from it on lie in [`PageMap::range`] and
    /// are not mapped. Any context but NMI. *After:* all are mapped, or, on an error, none is.
    ///
    /// # Safety
    ///
    /// The frames belong to the caller until they are unmapped and flushed.
    unsafe fn map(
        &self,
        address: VirtAddr,
        first: Pfn,
        count: usize,
        caching: Caching,
    ) -> Result<(), PageMapError>;

    /// Removes the mappings of `count` pages from `address` on, those that there are. Other CPUs may
    /// still reach the frames until [`PageMap::flush`] has been given the answer.
    ///
    /// *Before:* the pages lie in [`PageMap::range`]. Of a block that one entry maps
    /// ([`PageMap::large_order`]) all pages are among them or none. Any context but NMI.
    ///
    /// # Safety
    ///
    /// Nothing uses the pages any more.
    unsafe fn unmap(&self, address: VirtAddr, count: usize) -> Unflushed;

    /// Makes every CPU forget translations of these pages.
    ///
    /// *Before:* the caller may sleep, or at least has interrupts unmasked and holds no lock that an
    /// interrupt handler takes. *After:* no CPU reaches what was unmapped.
    fn flush(&self, pages: Unflushed);
}

/// Pages that are mapped no more and that CPUs may still reach: their frames are not to be given
/// back before [`PageMap::flush`] has had it.
#[must_use = "CPUs may still reach the frames: flush the pages before the frames are given back"]
#[derive(Debug, PartialEq, Eq)]
pub struct Unflushed {
    pages: core::ops::Range<VirtAddr>,
}

impl Unflushed {
    /// The pages at these addresses. For implementations of [`PageMap::unmap`].
    pub const fn new(pages: core::ops::Range<VirtAddr>) -> Unflushed {
        Unflushed { pages }
    }

    /// The addresses.
    pub fn pages(&self) -> core::ops::Range<VirtAddr> {
        self.pages.clone()
    }

    /// Both, and what lies between them: one flush of more pages instead of two.
    pub fn and(self, other: Unflushed) -> Unflushed {
        let (start, end) = (self.pages.start, self.pages.end);
        Unflushed { pages: start.min(other.pages.start)..end.max(other.pages.end) }
    }
}

/// The page tables of a user's address space, as far as memory of the kernel is mapped there.
///
/// # Safety
///
/// After `map`, the page at `address` is the frame, until `unmap` of it. Nothing else is placed in the
/// range.
pub unsafe trait UserMap {
    /// The addresses that pages may be mapped at: page-aligned, half open.
    fn range(&self) -> core::ops::Range<VirtAddr>;

    /// Maps one frame at `address`, to be read, and written where `writable` says so.
    ///
    /// *Before:* `address` is page-aligned and in [`UserMap::range`]. The caller may sleep.
    ///
    /// # Errors
    ///
    /// See [`PageMapError`]; [`PageMapError::Occupied`] where a page is mapped there. Nothing is mapped
    /// then.
    ///
    /// # Safety
    ///
    /// The frame stays in use until it is unmapped, and whoever has it lets the user see it and, where it
    /// is writable, change it at any time.
    unsafe fn map(&self, address: VirtAddr, frame: Pfn, writable: bool)
    -> Result<(), PageMapError>;

    /// Removes the mapping at `address`, has every CPU forget it, and answers the frame; `None` where
    /// nothing was mapped.
    ///
    /// *Before:* as [`UserMap::map`].
    fn unmap(&self, address: VirtAddr) -> Option<Pfn>;
}

/// Why a mapping could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageMapError {
    /// No memory for page tables.
    NoTables,
    /// The platform's limit on the number of separate mappings is reached.
    TooManyMappings,
    /// A page is mapped there, or the address is not one that pages are mapped at.
    Occupied,
}

impl fmt::Display for PageMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PageMapError::NoTables => "no memory for page tables",
            PageMapError::TooManyMappings => "the limit on separate mappings is reached",
            PageMapError::Occupied => "no page may be mapped at that address",
        })
    }
}

/// A clock that does not run backwards.
pub trait Clock {
    /// Nanoseconds since some moment before boot. Any context.
    fn nanoseconds(&self) -> u64;
}

/// Why [`Sleep::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    /// Somebody called [`Sleep::wake`] with the same key, or nothing in particular happened.
    Woken,
    /// The time was over.
    TimedOut,
}

/// How a task waits for something and is woken.
pub trait Sleep {
    /// Lets other tasks have this CPU until [`Sleep::wake`] is called with `key` or `nanoseconds`
    /// have passed. May return early: the caller looks at its condition again.
    ///
    /// *Before:* the caller may sleep. `ready` is looked at after the task is on the list of those
    /// that wait, so that a wake between the caller's own look and the wait is not lost; the task
    /// does not wait if it is true.
    fn wait(&self, key: usize, ready: &(dyn Fn() -> bool + Sync), nanoseconds: u64) -> WakeReason;

    /// Wakes every task that waits with `key`. Any context but NMI; does not sleep.
    fn wake(&self, key: usize);
}
