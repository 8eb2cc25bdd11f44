//! Mappings that are made and removed while the machine runs: the range for page mappings, and the
//! few pages a CPU has for temporary ones.
//!
//! A host process may have only so many separate mappings (`vm.max_map_count`), and a process at
//! its limit can do nothing any more, not even allocate: so they are counted here, for all machines
//! of the process together, and refused well below it. A byte a page says where runs begin, which is
//! enough to know how many there are after any change.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};

use kmem::platform::{PageMapError, TEMPORARY_SLOTS};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::cpu::VirtualCpu;
use crate::local;
use crate::memory::{Memory, Reservation, unmap};

/// A page that nothing is mapped at.
const FREE: u8 = 0;
/// The first page of a run that was mapped in one piece.
const FIRST: u8 = 1;
/// A page of a run that is not its first.
const NEXT: u8 = 2;

/// Runs that exist in this process.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// How many runs there may be in this process: a run and the gap behind it are two of the host's
/// mappings, and a quarter is left to everything else that the process does.
fn most_runs() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        /// What Linux has unless it was changed.
        const USUAL: usize = 65530;
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
        text.trim().parse().unwrap_or(USUAL) / 8 * 3
    })
}

/// Room for one mapping more in this process, which is given back unless it is kept.
pub(crate) struct Room(());

impl Room {
    /// `None` where there are as many as there may be.
    pub(crate) fn take() -> Option<Room> {
        let more = |runs: usize| (runs < most_runs()).then_some(runs + 1);
        RUNS.fetch_update(Relaxed, Relaxed, more).ok().map(|_| Room(()))
    }

    /// The mapping is made: [`Room::give_back`] is called when it is gone.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }

    /// A mapping is gone.
    pub(crate) fn give_back() {
        RUNS.fetch_sub(1, Relaxed);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        Room::give_back();
    }
}

/// The range that mappings are placed in.
pub(crate) struct Mappings {
    range: Reservation,
    page_shift: u32,
    /// What each page is.
    pages: PageStates,
    /// Guards the states and the count. Taken with interrupts masked.
    lock: AtomicBool,
    most: usize,
    /// Runs of this range.
    runs: AtomicUsize,
    /// How many pages' mappings have been made or removed.
    changes: AtomicU64,
}

impl Mappings {
    pub(crate) fn new(size: u64, page_shift: u32) -> Result<Mappings, Errno> {
        Mappings::with_most(size, page_shift, most_runs())
    }

    fn with_most(size: u64, page_shift: u32, most: usize) -> Result<Mappings, Errno> {
        // Address 0 of the range is a page boundary of the machine, whose pages may be large.
        let range = Reservation::new(size, 1 << 21)?;
        let pages = PageStates::new((size >> page_shift) as usize)?;
        Ok(Mappings {
            range,
            page_shift,
            pages,
            lock: AtomicBool::new(false),
            most,
            runs: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
        })
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.range.start()..self.range.end()
    }

    /// How many pages' mappings have been made or removed: the writes to a page table (A161).
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// Which pages of the range these are.
    fn indices(&self, address: usize, count: usize) -> Range<usize> {
        let first = (address - self.range.start()) >> self.page_shift;
        first..first + count
    }

    /// Maps `count` frames from physical address `from` on.
    ///
    /// # Safety
    ///
    /// See [`kmem::platform::PageMap::map`].
    pub(crate) unsafe fn map(
        &self,
        memory: &Memory,
        address: usize,
        from: u64,
        count: usize,
    ) -> Result<(), PageMapError> {
        if count == 0 {
            return Ok(());
        }
        let size = count << self.page_shift;
        let _locked = Locked::new(&self.lock);
        let pages = &self.pages.all()[self.indices(address, count)];
        assert!(pages.iter().all(|page| page.load(Relaxed) == FREE), "a page is mapped already");
        if RUNS.load(Relaxed) >= self.most {
            return Err(PageMapError::TooManyMappings);
        }
        // SAFETY: the range is this value's reservation, and nothing is mapped there.
        unsafe { memory.map(address, from, size) }.map_err(|error| match error {
            Errno::NOMEM => PageMapError::TooManyMappings,
            _ => PageMapError::NoTables,
        })?;
        self.add_runs(1);
        pages[0].store(FIRST, Relaxed);
        pages[1..].iter().for_each(|page| page.store(NEXT, Relaxed));
        self.changes.fetch_add(count as u64, Relaxed);
        Ok(())
    }

    /// Removes the mappings of `count` pages.
    ///
    /// # Safety
    ///
    /// See [`kmem::platform::PageMap::unmap`].
    pub(crate) unsafe fn unmap(&self, address: usize, count: usize) {
        if count == 0 {
            return;
        }
        let _locked = Locked::new(&self.lock);
        // SAFETY: the range is this value's reservation, and the caller has done with it.
        if let Err(error) = unsafe { unmap(address, count << self.page_shift) } {
            // Cutting a run takes two mappings more, for which room is kept.
            panic!("cannot unmap at {address:#x}, pages: {count}: {error}");
        }
        let Range { start, end } = self.indices(address, count);
        let pages = self.pages.all();
        let gone =
            pages[start..end].iter().filter(|page| page.swap(FREE, Relaxed) == FIRST).count();
        // The rest of a run that was cut is a run of its own.
        let cut = pages
            .get(end)
            .is_some_and(|page| page.compare_exchange(NEXT, FIRST, Relaxed, Relaxed).is_ok());
        self.add_runs(isize::from(cut) - gone as isize);
        self.changes.fetch_add(count as u64, Relaxed);
    }

    fn add_runs(&self, count: isize) {
        // Wrapping around adds a negative number.
        self.runs.fetch_add(count as usize, Relaxed);
        RUNS.fetch_add(count as usize, Relaxed);
    }
}

impl Drop for Mappings {
    fn drop(&mut self) {
        RUNS.fetch_sub(*self.runs.get_mut(), Relaxed);
    }
}

/// Holds a spin lock with interrupts masked.
struct Locked<'l> {
    lock: &'l AtomicBool,
    saved: local::Saved,
}

impl<'l> Locked<'l> {
    fn new(lock: &'l AtomicBool) -> Locked<'l> {
        let saved = local::mask();
        while lock.swap(true, Acquire) {
            local::relax();
        }
        Locked { lock, saved }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.lock.store(false, Release);
        local::restore(self.saved);
    }
}

/// One byte for each page of a range: memory that costs nothing where nothing is mapped.
struct PageStates {
    bytes: NonNull<AtomicU8>,
    count: usize,
}

// SAFETY: the bytes are atomics in a mapping of this value's own.
unsafe impl Send for PageStates {}
// SAFETY: as above.
unsafe impl Sync for PageStates {}

impl PageStates {
    fn new(count: usize) -> Result<PageStates, Errno> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping wherever there is room changes nothing that is there.
        let start =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), count, access, flags)? };
        let bytes = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(PageStates { bytes, count })
    }

    fn all(&self) -> &[AtomicU8] {
        // SAFETY: the mapping has `count` bytes, zeroed at first, and lives as long as this value.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.count) }
    }
}

impl Drop for PageStates {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows it any more. An error leaves
        // address space unused, nothing worse.
        let _ = unsafe { rustix::mm::munmap(self.bytes.as_ptr().cast(), self.count) };
    }
}

/// The pages that CPUs map frames at for a short time. Behind each is one that nothing is mapped at.
pub(crate) struct TemporaryMappings {
    pages: Reservation,
    page_shift: u32,
}

impl TemporaryMappings {
    pub(crate) fn new(cpus: usize, page_shift: u32) -> Result<TemporaryMappings, Errno> {
        let size = ((cpus * TEMPORARY_SLOTS * 2) as u64) << page_shift;
        Ok(TemporaryMappings { pages: Reservation::new(size, 1 << 21)?, page_shift })
    }

    fn address(&self, cpu: &VirtualCpu, slot: usize) -> usize {
        assert!(slot < TEMPORARY_SLOTS, "slot {slot}: a cpu has {TEMPORARY_SLOTS}");
        let page = (cpu.id().index() * TEMPORARY_SLOTS + slot) * 2;
        self.pages.start() + (page << self.page_shift)
    }

    /// Maps the frame at physical address `from` in a slot of `cpu`, which the running thread holds.
    ///
    /// # Panics
    ///
    /// There is no such slot, or the host refuses.
    pub(crate) fn map(&self, memory: &Memory, cpu: &VirtualCpu, from: u64, slot: usize) -> usize {
        let address = self.address(cpu, slot);
        // SAFETY: the page is this CPU's slot, in which nothing is mapped.
        if let Err(error) = unsafe { memory.map(address, from, 1 << self.page_shift) } {
            panic!("cannot map the frame at {from:#x}: {error}");
        }
        address
    }

    /// Ends the mapping in a slot of `cpu`: to touch the page is a fault from then on.
    ///
    /// # Safety
    ///
    /// See [`kmem::platform::TemporaryMap::unmap`].
    pub(crate) unsafe fn unmap(&self, cpu: &VirtualCpu, address: usize, slot: usize) {
        assert_eq!(address, self.address(cpu, slot), "the address of another slot, or cpu");
        // SAFETY: the page is this CPU's slot, and the caller has done with it.
        if let Err(error) = unsafe { unmap(address, 1 << self.page_shift) } {
            panic!("cannot unmap the page at {address:#x}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tests that count share a counter: one at a time.
    static COUNTING: std::sync::Mutex<()> = std::sync::Mutex::new(());

    #[test]
    fn runs_are_counted_however_they_are_cut_and_refused_at_the_limit() {
        let _alone = COUNTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let memory = Memory::new(std::slice::from_ref(&(0..1 << 20)), 1 << 20).unwrap();
        let mappings = Mappings::with_most(1 << 24, 12, RUNS.load(Relaxed) + 3).unwrap();
        let at = |page: usize| mappings.range().start + (page << 12);
        let runs = || mappings.runs.load(Relaxed);
        // SAFETY: the frames are nobody's, and nothing but this test uses the mappings.
        unsafe {
            mappings.map(&memory, at(0), 0, 8).unwrap();
            mappings.map(&memory, at(8), 0, 8).unwrap();
            assert_eq!(runs(), 2);
            // From the middle: one run becomes two.
            mappings.unmap(at(2), 2);
            assert_eq!(runs(), 3);
            let refused = mappings.map(&memory, at(20), 0, 1);
            assert_eq!(refused, Err(PageMapError::TooManyMappings));
            // Across both: the rests of the first stay, and what is behind it.
            mappings.unmap(at(5), 5);
            assert_eq!(runs(), 3);
            mappings.unmap(at(4), 1);
            assert_eq!(runs(), 2);
            mappings.map(&memory, at(4), 0x4000, 1).unwrap();
            mappings.unmap(at(0), 2);
            mappings.unmap(at(10), 6);
            mappings.unmap(at(4), 1);
            assert_eq!(runs(), 0);
            assert_eq!(mappings.changes(), 8 + 8 + 1 + 2 + 5 + 1 + 2 + 6 + 1);
        }
    }

    #[test]
    fn a_mapped_page_is_the_frame_and_no_other() {
        let _alone = COUNTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let memory = Memory::new(std::slice::from_ref(&(0..1 << 20)), 1 << 20).unwrap();
        let mappings = Mappings::new(1 << 24, 14).unwrap();
        let start = mappings.range().start;
        // SAFETY: the frames are nobody's, and nothing but this test uses the mappings.
        unsafe {
            mappings.map(&memory, start, 0x8000, 2).unwrap();
            std::ptr::with_exposed_provenance_mut::<u32>(start + 0x4000).write(99);
            let direct = std::ptr::with_exposed_provenance::<u32>(memory.base() + 0xc000);
            assert_eq!(direct.read(), 99);
            mappings.unmap(start, 2);
        }
    }
}
