//! A carveout: memory set aside at boot, of which drivers get blocks at run time.
//!
//! The page allocator's blocks are powers of two and end at the largest order; a driver that wants 3 MiB
//! in one piece must have it before there is a page allocator. A carveout is how several drivers share
//! what one reservation took: any number of pages, first fit.
//!
//! ```text
//!   pages   [ used 3 ][ free 2 ][ used 1 ][      free 9      ][ the table ]
//!   table    7 . .      4 .       3         18 . . . . . . . .
//! ```
//!
//! The table has an entry for each page. That of a run's first page says how long the run is and whether
//! it is in use; the others say nothing. So a walk from run to run sees all there is, and needs no memory
//! but the table, which lies at the carveout's end: a call cannot fail for want of it.
//!
//! A frame of a carveout is none of the page allocator's: it has no use count and is not freed with
//! `__free_pages`, which reports it as reserved.
//!
//! `bigphysarea` is a carveout (A256), and so is what the sample module `allocator` hands out of the
//! RAM above `mem=` (A320).
//!
//! # Locking
//!
//! A lock of its own ([`CarveoutLevel`]), held for one walk.
//!
//! Linux: outside of it, the `bigphysarea` patch; inside, reserved memory with a driver of its own, and
//! CMA, which lends such memory to movable pages meanwhile.

mod runs;
#[cfg(test)]
mod tests;

use core::fmt;
use core::ops::Range;
use core::panic::Location;
use core::ptr::NonNull;

use crate::platform::{Misuse, MisuseKind, Passed, Platform, There};
use crate::sync::{CarveoutLevel, SpinGuard, SpinLock};
use crate::{Pfn, PhysAddr, VirtAddr};
use runs::{NotFreed, Runs};

/// Why a carveout refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarveoutError {
    /// Nothing was set aside, or the range has no whole page beside its table.
    Nothing,
    /// It has memory already.
    Again,
    /// The range, or a part of it, is not in the direct map.
    Unmapped,
    /// 0 pages were asked for, or an alignment of 0.
    ZeroSize,
    /// No run of free pages is long enough.
    NoRoom {
        /// How many pages were asked for.
        pages: u64,
        /// The longest run that is free.
        longest: u64,
    },
    /// The caller is an NMI handler, and somebody else is at work.
    Busy,
    /// The flags contradict each other.
    BadFlags(crate::GfpError),
    /// Memory for DMA was asked for that devices with few address lines reach, and this is not (A258).
    NotForDma {
        /// Where it ends.
        end: PhysAddr,
        /// What those devices reach.
        limit: PhysAddr,
    },
    /// The block is free already.
    Free {
        /// Its page.
        page: Pfn,
    },
    /// The page lies in a block and is not its first.
    Inside {
        /// The block's first page.
        first: Pfn,
        /// How many it has.
        pages: u64,
    },
    /// The address is not that of a page of it.
    Foreign,
}

impl fmt::Display for CarveoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CarveoutError::Nothing => f.write_str("no memory was set aside at boot: ask for some"),
            CarveoutError::Again => f.write_str("the memory is handed out already"),
            CarveoutError::Unmapped => f.write_str("the memory lies outside of the direct map"),
            CarveoutError::ZeroSize => f.write_str("a size or an alignment of 0 was asked for"),
            CarveoutError::NoRoom { pages, longest } => {
                write!(f, "no {pages} free pages in one piece: the longest piece has {longest}")
            }
            CarveoutError::Busy => f.write_str("an nmi handler cannot wait: call from elsewhere"),
            CarveoutError::BadFlags(error) => error.fmt(f),
            CarveoutError::NotForDma { end, limit } => {
                write!(f, "the memory ends at {end}, and such devices reach {limit}")
            }
            CarveoutError::Free { page } => write!(f, "{page:?} is free already"),
            CarveoutError::Inside { first, pages } => {
                write!(f, "the page lies inside the block of {pages} pages at {first:?}")
            }
            CarveoutError::Foreign => f.write_str("no page of this memory is there"),
        }
    }
}

impl core::error::Error for CarveoutError {}

/// How full a carveout is, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// All that can be handed out.
    pub pages: u64,
    /// What is handed out.
    pub used: u64,
    /// The longest run that is free.
    pub longest: u64,
    /// How many blocks are handed out.
    pub blocks: u64,
}

/// Memory set aside, and who has which pages of it: see the [module](self). A `const fn` makes one,
/// without memory: every request is then refused, so that a driver may try it and do without (A321).
pub struct Carveout {
    memory: SpinLock<CarveoutLevel, Option<Memory>>,
}

/// # Invariants
///
/// `table` points to `pages` entries of a [`Runs`] that are reached through the lock alone.
struct Memory {
    first: Pfn,
    pages: u32,
    table: NonNull<u32>,
}

// SAFETY: the table is the carveout's own, wherever it is used.
unsafe impl Send for Memory {}

impl Memory {
    fn runs(&mut self) -> Runs<'_> {
        // SAFETY: by the invariant; the lock's holder has the only reference.
        let table =
            unsafe { core::slice::from_raw_parts_mut(self.table.as_ptr(), self.pages as usize) };
        Runs::over(table)
    }
}

/// So many entries of the table are in one page.
const fn per_page(page_shift: u32) -> u64 {
    (1 << page_shift) / size_of::<u32>() as u64
}

impl Carveout {
    /// One without memory.
    #[cfg(not(loom))]
    pub const fn new() -> Carveout {
        Carveout { memory: SpinLock::new(None) }
    }

    /// How many pages are to be set aside so that `pages` can be handed out.
    pub const fn pages_to_reserve(pages: u64, page_shift: u32) -> u64 {
        pages.saturating_add(pages.div_ceil(per_page(page_shift)))
    }

    /// How many pages can be handed out where so many are set aside: the other way round.
    pub const fn pages_of_reserved(reserved: u64, page_shift: u32) -> u64 {
        reserved - reserved.div_ceil(per_page(page_shift) + 1)
    }

    /// Hands out the whole pages of a range from now on. Once.
    ///
    /// # Errors
    ///
    /// [`CarveoutError::Again`], [`CarveoutError::Nothing`] where the range has not two whole pages,
    /// and [`CarveoutError::Unmapped`] where the direct map does not have all of them.
    ///
    /// # Context
    ///
    /// Any but NMI. Cost: a write.
    ///
    /// # Safety
    ///
    /// The range is RAM that nobody else uses from now on.
    pub unsafe fn begin<P: Platform>(
        &self,
        platform: &P,
        range: Range<PhysAddr>,
    ) -> Result<(), CarveoutError> {
        let page = 1u64 << P::PAGE_SHIFT;
        let (start, end) = (range.start.get().div_ceil(page), range.end.get() / page);
        let total = end.saturating_sub(start);
        // Each page of the table serves so many others, and lies behind them.
        let pages = total - total.div_ceil(per_page(P::PAGE_SHIFT) + 1);
        let (Some(first), Ok(pages)) = (Pfn::new(start), u32::try_from(pages)) else {
            return Err(CarveoutError::Unmapped);
        };
        if pages == 0 || pages > Runs::LONGEST {
            return Err(CarveoutError::Nothing);
        }
        if end > platform.limit().get() >> P::PAGE_SHIFT {
            return Err(CarveoutError::Unmapped);
        }
        let table = PhysAddr::new((start + u64::from(pages)) << P::PAGE_SHIFT);
        let table = platform.phys_to_virt(table).and_then(|table| NonNull::new(table.as_ptr()));
        let table: NonNull<u32> = table.ok_or(CarveoutError::Unmapped)?;
        let mut memory = self.memory.lock(platform);
        if memory.is_some() {
            return Err(CarveoutError::Again);
        }
        for entry in 0..pages as usize {
            // SAFETY: the table's pages lie behind the others in the range, which is the carveout's.
            unsafe { table.add(entry).write(0) };
        }
        let mut new = Memory { first, pages, table };
        new.runs().clear();
        *memory = Some(new);
        Ok(())
    }

    /// Allocates `pages` pages in one piece, the first frame's number a multiple of `align`: the lowest
    /// place that fits. Their content is whatever was there.
    ///
    /// # Errors
    ///
    /// [`CarveoutError::Nothing`], [`CarveoutError::ZeroSize`], [`CarveoutError::NoRoom`]; and
    /// [`CarveoutError::Busy`] in an NMI handler.
    ///
    /// # Context
    ///
    /// Any. Cost: a step for each run in front of the place.
    pub fn alloc<P: Platform>(
        &self,
        platform: &P,
        pages: u64,
        align: u64,
    ) -> Result<Pfn, CarveoutError> {
        if pages == 0 || align == 0 {
            return Err(CarveoutError::ZeroSize);
        }
        let mut memory = self.lock(platform)?;
        let memory = memory.as_mut().ok_or(CarveoutError::Nothing)?;
        let first = memory.first.number();
        let mut runs = memory.runs();
        let found = u32::try_from(pages).ok().and_then(|pages| runs.alloc(pages, align, first));
        match found.and_then(|at| Pfn::new(first + u64::from(at))) {
            Some(pfn) => Ok(pfn),
            None => Err(CarveoutError::NoRoom { pages, longest: runs.usage().longest }),
        }
    }

    /// Gives a block back, by its first page. Answers how many pages it had.
    ///
    /// # Errors
    ///
    /// [`CarveoutError::Free`], [`CarveoutError::Inside`] and [`CarveoutError::Foreign`] say what is
    /// there where no block begins: nothing changes then. [`CarveoutError::Busy`] in an NMI handler.
    ///
    /// # Context
    ///
    /// Any. Cost: a step for each run in front of the block.
    ///
    /// # Safety
    ///
    /// The block is the caller's, and nothing uses it after the call.
    pub unsafe fn free<P: Platform>(&self, platform: &P, page: Pfn) -> Result<u64, CarveoutError> {
        let mut memory = self.lock(platform)?;
        let memory = memory.as_mut().ok_or(CarveoutError::Foreign)?;
        let first = memory.first.number();
        let at = page.number().checked_sub(first).and_then(|at| u32::try_from(at).ok());
        let at = at.filter(|at| *at < memory.pages).ok_or(CarveoutError::Foreign)?;
        match memory.runs().free(at) {
            Ok(pages) => Ok(pages.into()),
            Err(NotFreed::Free) => Err(CarveoutError::Free { page }),
            Err(NotFreed::Inside { start, pages }) => {
                let first = Pfn::new(first + u64::from(start)).unwrap_or(page);
                Err(CarveoutError::Inside { first, pages: pages.into() })
            }
        }
    }

    /// As [`Carveout::alloc`]; answers where the pages are seen.
    ///
    /// # Errors
    ///
    /// As [`Carveout::alloc`].
    ///
    /// # Context
    ///
    /// As [`Carveout::alloc`].
    pub fn alloc_memory<P: Platform>(
        &self,
        platform: &P,
        pages: u64,
        align: u64,
    ) -> Result<NonNull<u8>, CarveoutError> {
        let first = self.alloc(platform, pages, align)?;
        let seen = platform.phys_to_virt(first.start(P::PAGE_SHIFT));
        // All of it is in the direct map, and the page whose address says "none" is nobody's to set aside.
        seen.and_then(|seen| NonNull::new(seen.as_ptr())).ok_or(CarveoutError::Unmapped)
    }

    /// As [`Carveout::free`], by the address that [`Carveout::alloc_memory`] gave.
    ///
    /// # Errors
    ///
    /// What is to be reported where no block begins there: nothing changes then.
    ///
    /// # Context
    ///
    /// As [`Carveout::free`].
    ///
    /// # Safety
    ///
    /// As for [`Carveout::free`].
    #[track_caller]
    pub unsafe fn free_memory<P: Platform>(
        &self,
        platform: &P,
        memory: NonNull<u8>,
    ) -> Result<u64, Misuse<'static>> {
        let address = VirtAddr::from_ptr(memory.as_ptr());
        let wrong = |kind, there| Misuse {
            kind,
            passed: Passed::Object(address),
            there,
            site: Location::caller(),
        };
        let physical = platform.virt_to_phys(address);
        let physical = physical.ok_or(wrong(MisuseKind::Foreign, There::Nothing))?;
        let page = Some(physical).filter(|physical| physical.is_page_aligned(P::PAGE_SHIFT));
        let page = page.and_then(|page| page.frame(P::PAGE_SHIFT));
        let page = page.ok_or(wrong(MisuseKind::Misaligned, There::Nothing))?;
        // SAFETY: the caller's promise.
        unsafe { self.free(platform, page) }.map_err(|error| match error {
            CarveoutError::Free { .. } => wrong(MisuseKind::DoubleFree, There::Unused),
            CarveoutError::Inside { first, pages } => {
                wrong(MisuseKind::Interior, There::Pages { first, count: pages })
            }
            // An NMI handler would have had to wait.
            CarveoutError::Busy => wrong(MisuseKind::SleepInAtomic, There::AtomicContext),
            _ => wrong(MisuseKind::Foreign, There::Nothing),
        })
    }

    /// How full it is; all zero where it has no memory.
    ///
    /// # Errors
    ///
    /// [`CarveoutError::Busy`] in an NMI handler.
    ///
    /// # Context
    ///
    /// Any. Cost: a step for each run.
    pub fn usage<P: Platform>(&self, platform: &P) -> Result<Usage, CarveoutError> {
        let mut memory = self.lock(platform)?;
        Ok(memory.as_mut().map_or(Usage::default(), |memory| memory.runs().usage()))
    }

    /// The frames that it hands out, if it has some.
    ///
    /// # Errors
    ///
    /// [`CarveoutError::Busy`] in an NMI handler.
    ///
    /// # Context
    ///
    /// Any.
    pub fn frames<P: Platform>(
        &self,
        platform: &P,
    ) -> Result<Option<crate::PfnRange>, CarveoutError> {
        let memory = self.lock(platform)?;
        Ok(memory
            .as_ref()
            .map(|memory| memory.first.number()..memory.first.number() + u64::from(memory.pages)))
    }

    fn lock<'a, P: Platform>(
        &'a self,
        platform: &'a P,
    ) -> Result<SpinGuard<'a, CarveoutLevel, Option<Memory>, P>, CarveoutError> {
        if platform.in_nmi() {
            self.memory.try_lock(platform).ok_or(CarveoutError::Busy)
        } else {
            Ok(self.memory.lock(platform))
        }
    }
}

impl Default for Carveout {
    fn default() -> Self {
        Self::new()
    }
}
