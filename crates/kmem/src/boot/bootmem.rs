//! [`BootMem`]: memory for code that runs before the page allocator does.
//!
//! ```text
//!            open                      Mm::boot_from
//!   closed ────────> open, allocating ───────────────> handed over: every call is refused
//!                      │        ^
//!                      └─ busy ─┘   one call at a time
//! ```
//!
//! Boot is a matter of one CPU, so there is no lock: whoever enters says that it is busy, and what comes
//! in between (an interrupt handler, or another CPU that was started too early) is refused, and not left
//! waiting for the code that it interrupted.
//!
//! What is allocated here is not the page allocator's: it makes the pool of free pages out of what is
//! left (A253). Afterwards a call is refused and reported (A250), and what is to be given back then goes
//! by [`Mm::release_late`](crate::Mm::release_late), whole pages only.
//!
//! It is the way of getting memory that is least likely to fail, since nobody has had any yet, and the
//! least flexible: how much is taken is fixed when the kernel is built or booted, and nobody else has it
//! when it is not used (A259). A loadable module cannot use it, nor the older scheme: it comes after both
//! (A260). What it can use is what was set aside for it: `bigphysarea`, or RAM above `mem=`.
//!
//! Linux: `bootmem` from 2.3.23 on, `memblock` since; `memblock_free_late` for what is given back after.
//! There a call that comes too late warns, and gets memory of the page allocator's.

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::Range;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

use super::memblock::{Memblock, MemblockError, Wanted};
use super::{Carveout, CommandLine, MapError, MemoryMap, Setup};
use crate::PhysAddr;
use crate::platform::{Misuse, MisuseKind, Passed, Platform, There};

/// `open` has not been called.
const CLOSED: u8 = 0;
/// Allocating.
const OPEN: u8 = 1;
/// Somebody is at work.
const BUSY: u8 = 2;
/// The page allocator has the rest.
const OVER: u8 = 3;

/// What the texts' calls align to, in bytes: a line of the processor's cache.
const LINE: u64 = 64;

/// Where a PC's memory proper begins. Below it are the firmware's tables, and little else.
const FIRST_MEGABYTE: u64 = 1 << 20;

/// What `/proc/iomem` calls what the texts' calls allocate.
const BOOTMEM: &str = "bootmem";

/// What it calls the carveout that the command line asks for.
const BIGPHYSAREA: &str = "bigphysarea";

/// Why a boot-time call was refused. Nothing has changed then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootMemError {
    /// [`BootMem::open`] has not been called: there is no memory yet.
    NotOpen,
    /// It was called before, or the command line was applied before.
    Again,
    /// The memory was handed over to the page allocator (A250).
    HandedOver,
    /// The call came in the middle of another one.
    Busy,
    /// The memory map makes no sense.
    Map(MapError),
    /// There is no such memory.
    Memory(MemblockError),
    /// `mem=` on the command line cannot be done.
    Mem {
        /// What it says, in bytes.
        limit: u64,
        /// Why.
        error: MemblockError,
    },
    /// As many pages as `bigphysarea=` on the command line says are not free in one piece.
    Bigphysarea {
        /// What it says.
        pages: u64,
        /// How many there are, beside what notes who has them.
        most: u64,
    },
    /// An initialization function answered a lower bound that is not within the bounds it was given.
    BadBound {
        /// The bounds.
        bounds: Range<PhysAddr>,
        /// What it answered.
        answer: PhysAddr,
    },
}

impl fmt::Display for BootMemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootMemError::NotOpen => {
                f.write_str("no boot-time memory yet: open it with a map first")
            }
            BootMemError::Again => f.write_str("this is done once, and has been done"),
            BootMemError::HandedOver => f.write_str(
                "boot is over, and the page allocator has the memory: use alloc_pages or kmalloc",
            ),
            BootMemError::Busy => f.write_str("another boot-time call is under way: call after it"),
            BootMemError::Map(error) => error.fmt(f),
            BootMemError::Memory(error) => error.fmt(f),
            BootMemError::Mem { limit, error } => write!(f, "mem={limit}: {error}"),
            BootMemError::Bigphysarea { pages, most } => write!(
                f,
                "bigphysarea={pages} asks for so many pages in one piece, and {most} are free there: give \
                 no more than that, or leave it out"
            ),
            BootMemError::BadBound { bounds, answer } => write!(
                f,
                "an initialization function answered the lower bound {answer}: answer one from {} \
                 to {}",
                bounds.start, bounds.end
            ),
        }
    }
}

impl core::error::Error for BootMemError {}

impl From<MemblockError> for BootMemError {
    fn from(error: MemblockError) -> Self {
        BootMemError::Memory(error)
    }
}

impl From<MapError> for BootMemError {
    fn from(error: MapError) -> Self {
        BootMemError::Map(error)
    }
}

/// Memory for code that runs before the page allocator does: see the [module](self) for when.
///
/// A kernel has one in a `static`, beside its [`Mm`](crate::Mm). Its calls take the platform, since
/// memory is seen through its direct map, and wrong calls are reported to its hooks.
///
/// ```
/// use kmem::boot::BootMem;
/// use kmem::{GFP_KERNEL, MemoryMap, Mm, NodeId, Setup};
/// # let mut ram = vec![0; 17 << 20];
/// # // SAFETY: one thread.
/// # let my_kernel = unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) };
/// // In a kernel: static BOOT: BootMem = BootMem::new();
/// let (boot, mm) = (BootMem::new(), Mm::new(my_kernel));
/// let map = MemoryMap::new().ram(0..16 << 20, NodeId::ZERO);
/// // SAFETY: the RAM is there, and nobody else uses it.
/// unsafe { boot.open(&map, &Setup::new()) }?;
/// // 5 MiB in one piece: no order of the page allocator has so many.
/// let buffer = boot.alloc_bootmem_pages(mm.platform(), 5 << 20)?;
/// // SAFETY: as above.
/// unsafe { mm.boot_from(&boot, &Setup::new()) }?;
/// assert!(boot.alloc_bootmem(mm.platform(), 64).is_err(), "boot is over");
/// # let _ = buffer;
/// # assert_eq!(mm.platform().misuses(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
///
/// `inner` is used only by whoever changed `stage` from `CLOSED` or `OPEN` to `BUSY`, until it changes
/// it again. Free ranges of `inner.blocks` are RAM that nobody uses.
pub struct BootMem {
    stage: AtomicU8,
    inner: UnsafeCell<Inner>,
}

struct Inner {
    blocks: Memblock,
    /// `MAX_DMA_ADDRESS`: where the memory that all devices reach ends. The end of all addresses where
    /// a machine has no such limit.
    dma_end: u64,
    /// What `bigphysarea=` has taken.
    bigphysarea: Option<Range<u64>>,
}

// SAFETY: by the invariant one caller at a time reaches `inner`.
unsafe impl Sync for BootMem {}

/// The right to use what is inside, until it is dropped.
struct Entered<'b> {
    boot: &'b BootMem,
    /// The stage afterwards.
    next: u8,
}

impl Entered<'_> {
    fn inner(&mut self) -> &mut Inner {
        // SAFETY: by the invariant this value's maker has it alone, and this value is borrowed.
        unsafe { &mut *self.boot.inner.get() }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        // Release pairs with the Acquire in `enter`.
        self.boot.stage.store(self.next, Ordering::Release);
    }
}

/// The memory on its way to the page allocator. Dropped, it is open as it was.
pub(crate) struct Taken<'b> {
    entered: Entered<'b>,
}

impl Taken<'_> {
    /// The map to boot with.
    pub(crate) fn map(&mut self) -> &MemoryMap {
        self.entered.inner().blocks.map()
    }

    /// The page allocator has it now; answers what is set aside for `bigphysarea`.
    pub(crate) fn hand_over(mut self) -> Option<Range<PhysAddr>> {
        self.entered.next = OVER;
        let range = self.entered.inner().bigphysarea.clone()?;
        Some(PhysAddr::new(range.start)..PhysAddr::new(range.end))
    }
}

impl BootMem {
    /// One without memory.
    pub const fn new() -> BootMem {
        let inner = Inner { blocks: Memblock::new(), dma_end: u64::MAX, bigphysarea: None };
        BootMem { stage: AtomicU8::new(CLOSED), inner: UnsafeCell::new(inner) }
    }

    /// Takes over the RAM of a memory map: calls get memory from now on, as far as the boot loader has
    /// mapped it. Of `setup` only the limit of zone DMA counts here.
    ///
    /// # Errors
    ///
    /// [`BootMemError::Map`], and [`BootMemError::Again`] where it was opened before.
    ///
    /// # Context
    ///
    /// Any, once. Cost: quadratic in the regions of the map.
    ///
    /// # Safety
    ///
    /// As for [`Mm::boot`](crate::Mm::boot): all RAM of the map is there, and nobody uses it but for
    /// what the map calls reserved or late.
    pub unsafe fn open(&self, map: &MemoryMap, setup: &Setup) -> Result<(), BootMemError> {
        let mut entered = self.change(CLOSED).map_err(|stage| match stage {
            BUSY => BootMemError::Busy,
            _ => BootMemError::Again,
        })?;
        let inner = entered.inner();
        inner.blocks.load(map)?;
        inner.dma_end = setup.dma.map_or(u64::MAX, PhysAddr::get);
        entered.next = OPEN;
        Ok(())
    }

    /// Does what the command line says: `mem=` first, then `bigphysarea=`, which is taken from the start
    /// of memory, above the first megabyte and where all devices reach it, as long as there is room
    /// (A256, A257).
    ///
    /// # Errors
    ///
    /// [`BootMemError::Mem`] and [`BootMemError::Bigphysarea`] where there is no such memory: what comes
    /// first has been done then. [`BootMemError::Memory`] where the table is full,
    /// [`BootMemError::Again`] for a second `bigphysarea=`, and the stage's errors: see
    /// [`BootMemError`].
    ///
    /// # Context
    ///
    /// Any, before the hand-over.
    #[track_caller]
    pub fn apply<P: Platform>(&self, platform: &P, line: &CommandLine) -> Result<(), BootMemError> {
        let mut entered =
            self.enter(platform, Passed::Size(line.bigphysarea.unwrap_or(0) as usize))?;
        let inner = entered.inner();
        if let Some(limit) = line.mem {
            let limited = inner.blocks.limit_ram(limit, P::PAGE_SHIFT);
            limited.map_err(|error| BootMemError::Mem { limit, error })?;
        }
        if let Some(pages) = line.bigphysarea.filter(|pages| *pages > 0) {
            if inner.bigphysarea.is_some() {
                return Err(BootMemError::Again);
            }
            let all = Carveout::pages_to_reserve(pages, P::PAGE_SHIFT);
            let size = all.saturating_mul(1 << P::PAGE_SHIFT);
            let direct = platform.limit().get();
            let places =
                [FIRST_MEGABYTE..inner.dma_end.min(direct), FIRST_MEGABYTE..direct, 0..direct];
            let wanted = Wanted { for_ever: true, ..Wanted::new(size, 1 << P::PAGE_SHIFT) };
            let start = inner.first_of(platform, BIGPHYSAREA, &wanted, places);
            let start = start.map_err(|error| match error {
                MemblockError::NoRoom(_) => {
                    let most = inner.longest_run(platform, 0..direct);
                    let most = Carveout::pages_of_reserved(most, P::PAGE_SHIFT);
                    BootMemError::Bigphysarea { pages, most }
                }
                error => BootMemError::Memory(error),
            })?;
            inner.bigphysarea = Some(start..start + size);
        }
        Ok(())
    }

    /// Allocates zeroed memory above `MAX_DMA_ADDRESS`, the limit of zone DMA, or below it where there
    /// is none above (A247, A248). `size` is in bytes, anything from 1 on (A251); the memory is
    /// contiguous and begins with a line of the cache, not with a page (A249).
    ///
    /// # Errors
    ///
    /// [`BootMemError::Memory`] where there is no such memory, and the stage's errors: see
    /// [`BootMemError`]. A call after the hand-over is reported (A250).
    ///
    /// # Context
    ///
    /// Boot: before the hand-over, one call at a time. Cost: the number of ranges squared, and the
    /// zeros.
    #[track_caller]
    pub fn alloc_bootmem<P: Platform>(
        &self,
        platform: &P,
        size: usize,
    ) -> Result<NonNull<u8>, BootMemError> {
        self.alloc_text(platform, size, LINE, false)
    }

    /// As [`BootMem::alloc_bootmem`], below `MAX_DMA_ADDRESS` (A248): for devices that reach nothing
    /// else (A254). Where a machine has no such limit, all memory that is seen in the direct map is.
    ///
    /// # Errors
    ///
    /// As [`BootMem::alloc_bootmem`].
    ///
    /// # Context
    ///
    /// As [`BootMem::alloc_bootmem`].
    #[track_caller]
    pub fn alloc_bootmem_low<P: Platform>(
        &self,
        platform: &P,
        size: usize,
    ) -> Result<NonNull<u8>, BootMemError> {
        self.alloc_text(platform, size, LINE, true)
    }

    /// As [`BootMem::alloc_bootmem`], whole pages: the memory begins with a page, and nobody else has
    /// bytes of its last one (A249). Any number of pages, not a power of two (A251).
    ///
    /// # Errors
    ///
    /// As [`BootMem::alloc_bootmem`].
    ///
    /// # Context
    ///
    /// As [`BootMem::alloc_bootmem`].
    #[track_caller]
    pub fn alloc_bootmem_pages<P: Platform>(
        &self,
        platform: &P,
        size: usize,
    ) -> Result<NonNull<u8>, BootMemError> {
        self.alloc_text(platform, size, 1 << P::PAGE_SHIFT, false)
    }

    /// As [`BootMem::alloc_bootmem_low`], whole pages (A248, A249).
    ///
    /// # Errors
    ///
    /// As [`BootMem::alloc_bootmem`].
    ///
    /// # Context
    ///
    /// As [`BootMem::alloc_bootmem`].
    #[track_caller]
    pub fn alloc_bootmem_low_pages<P: Platform>(
        &self,
        platform: &P,
        size: usize,
    ) -> Result<NonNull<u8>, BootMemError> {
        self.alloc_text(platform, size, 1 << P::PAGE_SHIFT, true)
    }

    /// The four calls of the texts: `grain` is what begins with the memory, and for pages what it is
    /// made of.
    #[track_caller]
    fn alloc_text<P: Platform>(
        &self,
        platform: &P,
        size: usize,
        grain: u64,
        low: bool,
    ) -> Result<NonNull<u8>, BootMemError> {
        let mut entered = self.enter(platform, Passed::Size(size))?;
        let inner = entered.inner();
        let bytes = match size as u64 {
            bytes if grain == LINE => bytes,
            // Too large to be rounded is too large to be had.
            bytes => bytes.checked_next_multiple_of(grain).unwrap_or(u64::MAX),
        };
        let direct = platform.limit().get();
        let dma = inner.dma_end.min(direct);
        let (above, below) = (dma..direct, 0..dma);
        let places = if low { [0..0, below] } else { [above, below] };
        let start = inner.first_of(platform, BOOTMEM, &Wanted::new(bytes, grain), places)?;
        drop(entered);
        zero(platform, start, bytes)
    }

    /// Allocates zeroed memory that is seen in the direct map, with an alignment, limits and a node to
    /// the caller's wish (A247). `name` is what `/proc/iomem` calls it.
    ///
    /// # Errors
    ///
    /// As [`BootMem::alloc_bootmem`].
    ///
    /// # Context
    ///
    /// As [`BootMem::alloc_bootmem`].
    #[track_caller]
    pub fn memblock_alloc<P: Platform>(
        &self,
        platform: &P,
        name: &'static str,
        wanted: &Wanted,
    ) -> Result<NonNull<u8>, BootMemError> {
        let end = wanted.within.end.min(platform.limit().get());
        let wanted = Wanted { within: wanted.within.start..end, ..wanted.clone() };
        let start = self.memblock_phys_alloc(platform, name, &wanted)?;
        zero(platform, start.get(), wanted.size)
    }

    /// As [`BootMem::memblock_alloc`], anywhere that the boot loader has mapped, by its physical
    /// address; the content is not touched.
    ///
    /// # Errors
    ///
    /// As [`BootMem::alloc_bootmem`].
    ///
    /// # Context
    ///
    /// As [`BootMem::alloc_bootmem`].
    #[track_caller]
    pub fn memblock_phys_alloc<P: Platform>(
        &self,
        platform: &P,
        name: &'static str,
        wanted: &Wanted,
    ) -> Result<PhysAddr, BootMemError> {
        let mut entered = self.enter(platform, Passed::Size(wanted.size as usize))?;
        let places = core::iter::once(wanted.within.clone());
        Ok(PhysAddr::new(entered.inner().first_of(platform, name, wanted, places)?))
    }

    /// Reserves memory at an address, in RAM or outside it: see [`Memblock::reserve`].
    ///
    /// # Errors
    ///
    /// As [`BootMem::alloc_bootmem`].
    ///
    /// # Context
    ///
    /// As [`BootMem::alloc_bootmem`].
    #[track_caller]
    pub fn memblock_reserve<P: Platform>(
        &self,
        platform: &P,
        name: &'static str,
        range: Range<PhysAddr>,
    ) -> Result<(), BootMemError> {
        let mut entered = self.enter(platform, passed(&range))?;
        Ok(entered.inner().blocks.reserve(range.start.get()..range.end.get(), name)?)
    }

    /// Gives memory back, all or a part of what was allocated or reserved (A252). A machine may be
    /// described so that this ends with boot: [`Setup::keep_boot_memory`].
    ///
    /// # Errors
    ///
    /// [`BootMemError::Memory`] where a byte is not allocated: then nothing is freed, and the call is
    /// reported. The stage's errors: see [`BootMemError`]. After the hand-over it is
    /// [`Mm::release_late`](crate::Mm::release_late) that releases.
    ///
    /// # Context
    ///
    /// As [`BootMem::alloc_bootmem`].
    ///
    /// # Safety
    ///
    /// The memory is the caller's, and nothing uses it after the call.
    #[track_caller]
    pub unsafe fn memblock_free<P: Platform>(
        &self,
        platform: &P,
        range: Range<PhysAddr>,
    ) -> Result<(), BootMemError> {
        let passed = passed(&range);
        let mut entered = self.enter(platform, passed)?;
        let blocks = &mut entered.inner().blocks;
        let freed = blocks.free(range.start.get()..range.end.get());
        if let Err(MemblockError::NotAllocated { at }) = freed {
            let (kind, there) = what_is_at(blocks, at);
            platform.misuse(&Misuse { kind, passed, there, site: Location::caller() });
        }
        Ok(freed?)
    }

    /// Gives back what [`BootMem::alloc_bootmem`] and its sisters gave, or a part of it: `size` bytes
    /// from there on, which for the `_pages` calls is what was asked for rounded up to pages.
    ///
    /// # Errors
    ///
    /// As [`BootMem::memblock_free`].
    ///
    /// # Context
    ///
    /// As [`BootMem::alloc_bootmem`].
    ///
    /// # Safety
    ///
    /// As for [`BootMem::memblock_free`].
    #[track_caller]
    pub unsafe fn free_bootmem<P: Platform>(
        &self,
        platform: &P,
        memory: NonNull<u8>,
        size: usize,
    ) -> Result<(), BootMemError> {
        let address = crate::VirtAddr::from_ptr(memory.as_ptr());
        // What the direct map does not have is no memory: nothing is allocated at the end of addresses.
        let start = platform.virt_to_phys(address).map_or(u64::MAX - 1, PhysAddr::get);
        let end = start.saturating_add(size as u64);
        // SAFETY: the caller's promise.
        unsafe { self.memblock_free(platform, PhysAddr::new(start)..PhysAddr::new(end)) }
    }

    /// The scheme before 2.3.23 (A255): an initialization function is told the bounds of the free memory
    /// area, and answers a lower bound that is as high or higher. What is between is its own for ever.
    /// The area is the first one above the first megabyte, or else the first there is; its memory holds
    /// whatever was there. Answers what was taken.
    ///
    /// # Errors
    ///
    /// [`BootMemError::BadBound`], [`BootMemError::Memory`] where there is no free memory or `init` has
    /// allocated it in another way meanwhile, and the stage's errors: see [`BootMemError`].
    ///
    /// # Context
    ///
    /// As [`BootMem::alloc_bootmem`]. `init` may make such calls.
    #[track_caller]
    pub fn older_scheme<P: Platform>(
        &self,
        platform: &P,
        name: &'static str,
        init: impl FnOnce(PhysAddr, PhysAddr) -> PhysAddr,
    ) -> Result<Range<PhysAddr>, BootMemError> {
        let mut entered = self.enter(platform, Passed::Size(0))?;
        let area = entered.inner().free_area(platform)?;
        drop(entered);
        let bounds = PhysAddr::new(area.start)..PhysAddr::new(area.end);
        let answer = init(bounds.start, bounds.end);
        if answer < bounds.start || answer > bounds.end {
            return Err(BootMemError::BadBound { bounds, answer });
        }
        let taken = bounds.start..answer;
        if answer > bounds.start {
            let within = area.start..answer.get();
            let size = within.end - within.start;
            let wanted = Wanted { within, for_ever: true, ..Wanted::new(size, 1) };
            let mut entered = self.enter(platform, passed(&taken))?;
            entered.inner().blocks.alloc(name, &wanted)?;
        }
        Ok(taken)
    }

    /// Writes what there is, range by range: see [`Memblock::dump`].
    ///
    /// # Errors
    ///
    /// Those of `out`, and an error where the memory is not open.
    ///
    /// # Context
    ///
    /// As [`BootMem::alloc_bootmem`].
    pub fn memblock_dump(&self, out: &mut (impl fmt::Write + ?Sized)) -> fmt::Result {
        let mut entered = self.change(OPEN).map_err(|_| fmt::Error)?;
        entered.inner().blocks.dump(out)
    }

    /// Whether the memory has been handed over to the page allocator.
    pub fn is_handed_over(&self) -> bool {
        self.stage.load(Ordering::Acquire) == OVER
    }

    /// Takes everything, for the page allocator.
    #[track_caller]
    pub(crate) fn take<P: Platform>(&self, platform: &P) -> Result<Taken<'_>, BootMemError> {
        Ok(Taken { entered: self.enter(platform, Passed::Size(0))? })
    }

    /// Enters while it is open; a call after the hand-over is reported.
    #[track_caller]
    fn enter<P: Platform>(
        &self,
        platform: &P,
        passed: Passed,
    ) -> Result<Entered<'_>, BootMemError> {
        self.change(OPEN).map_err(|stage| match stage {
            CLOSED => BootMemError::NotOpen,
            OVER => {
                let (kind, there) = (MisuseKind::BootIsOver, There::HandedOver);
                platform.misuse(&Misuse { kind, passed, there, site: Location::caller() });
                BootMemError::HandedOver
            }
            _ => BootMemError::Busy,
        })
    }

    /// Enters from a stage; answers the stage that it is in instead.
    fn change(&self, from: u8) -> Result<Entered<'_>, u8> {
        // Acquire pairs with the Release in `Entered::drop`: what the last caller did is seen.
        self.stage.compare_exchange(from, BUSY, Ordering::Acquire, Ordering::Acquire)?;
        Ok(Entered { boot: self, next: from })
    }
}

impl Default for BootMem {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    /// Allocates in the first of some places that has room. The page whose address says "none" is left
    /// out, where the direct map has one.
    fn first_of<P: Platform>(
        &mut self,
        platform: &P,
        name: &'static str,
        wanted: &Wanted,
        places: impl IntoIterator<Item = Range<u64>>,
    ) -> Result<u64, MemblockError> {
        let around = |place: Range<u64>| {
            let [below, above] = around_null(platform, place);
            if wanted.top_down { [above, below] } else { [below, above] }
        };
        let mut error = MemblockError::NoRoom(wanted.clone());
        for within in places.into_iter().flat_map(around).filter(|within| !within.is_empty()) {
            match self.blocks.alloc(name, &Wanted { within, ..wanted.clone() }) {
                Err(MemblockError::NoRoom(wanted)) => error = MemblockError::NoRoom(wanted),
                other => return other,
            }
        }
        Err(if wanted.size == 0 { MemblockError::Empty } else { error })
    }

    /// How many whole pages the longest free piece of some places has.
    fn longest_run<P: Platform>(&self, platform: &P, place: Range<u64>) -> u64 {
        let page = 1 << P::PAGE_SHIFT;
        let pages = |range: Range<u64>| {
            let first = range.start.checked_next_multiple_of(page).unwrap_or(u64::MAX);
            range.end.saturating_sub(first) >> P::PAGE_SHIFT
        };
        let parts = around_null(platform, place).into_iter().filter(|part| !part.is_empty());
        parts.flat_map(|part| self.blocks.usable_ranges(part)).map(pages).max().unwrap_or(0)
    }

    /// The free memory area: what the older scheme hands round.
    fn free_area<P: Platform>(&self, platform: &P) -> Result<Range<u64>, MemblockError> {
        let direct = platform.limit().get();
        let area = |from: u64| self.blocks.usable_ranges(from..direct).next();
        let none = || MemblockError::NoRoom(Wanted::new(1, 1));
        area(FIRST_MEGABYTE).or_else(|| area(0)).ok_or_else(none)
    }
}

/// A place without the page whose address would be null, which is no address of memory: what lies below
/// that page, and above it.
fn around_null<P: Platform>(platform: &P, place: Range<u64>) -> [Range<u64>; 2] {
    let null = platform.base().get().wrapping_neg() as u64;
    if !place.contains(&null) {
        return [place, 0..0];
    }
    [place.start..null, null + (1 << P::PAGE_SHIFT)..place.end]
}

fn passed(range: &Range<PhysAddr>) -> Passed {
    Passed::Bytes(range.start, range.end.get().saturating_sub(range.start.get()))
}

/// What a wrong free met.
fn what_is_at(blocks: &Memblock, at: u64) -> (MisuseKind, There) {
    if blocks.reserved().any(|reserved| reserved.range.contains(&at)) {
        (MisuseKind::Reserved, There::Reserved)
    } else if blocks.memory().any(|(ram, _)| ram.contains(&at)) {
        (MisuseKind::DoubleFree, There::Unused)
    } else {
        (MisuseKind::Foreign, There::Nothing)
    }
}

/// Zeroes what was just allocated; answers where it is seen.
fn zero<P: Platform>(platform: &P, start: u64, bytes: u64) -> Result<NonNull<u8>, BootMemError> {
    let seen = platform.phys_to_virt(PhysAddr::new(start));
    let Some(memory) = seen.and_then(|seen| NonNull::new(seen.as_ptr::<u8>())) else {
        // Only places in the direct map were looked at.
        return Err(MemblockError::NoRoom(Wanted::new(bytes, 1)).into());
    };
    // SAFETY: the bytes are RAM that `open`'s caller vouched for, mapped, and just allocated.
    unsafe { memory.write_bytes(0, bytes as usize) };
    Ok(memory)
}
