//! Mapping a device's registers and memory.

use core::fmt;
use core::ops::Deref;
use core::panic::Location;

use super::super::Mm;
use crate::io::{IoError, IoPtr, IoRange, IoremapError, Registers};
use crate::page::Block;
use crate::platform::{Caching, Platform};
use crate::reclaim::{NoReclaim, Reclaim};
use crate::vmalloc::{AreaKind, Mapping, Runs};
use crate::{GFP_KERNEL, Pfn, PhysAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Has the `size` bytes of a device at a physical address seen, as registers, and answers where
    /// (A240, A241). Undone with [`Mm::iounmap`]; [`Mm::iomem`] is the same as a value that does that by
    /// itself.
    ///
    /// Page tables are built, and no page is allocated. What is mapped are whole pages: where the address
    /// is not the first of a page the answer is as far behind one (A242). The answer is for
    /// [`IoPtr::range`] and its calls: not memory that may be dereferenced (A243), nor that a device can be
    /// told of (A228).
    ///
    /// # Errors
    ///
    /// [`IoremapError::Ram`] where any of it is RAM of this manager, whose caching must not differ between
    /// two mappings; [`IoremapError::TooHigh`]; [`IoremapError::Alloc`] as [`Mm::vmalloc`] fails, without
    /// the pages.
    ///
    /// # Context
    ///
    /// May sleep: a task's. Elsewhere it is reported as misuse and refused.
    ///
    /// # Cost
    ///
    /// A search of the areas in use, and the platform's page tables.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # use kmem::{Mm, PhysAddr, platform::desk::Desk};
    /// # fn example(mm: &Mm<Desk<'_>>) -> Result<(), Box<dyn std::error::Error>> {
    /// // SAFETY: the device is there by its description, and is told of no memory.
    /// let registers = unsafe { mm.iomem(PhysAddr::new(0xfebf_1000), 0x100) }?;
    /// registers.writel(1, 0x20)?;
    /// while registers.readl(0x24)? & 1 != 0 {}
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn ioremap(&self, start: PhysAddr, size: usize) -> Result<IoPtr, IoremapError> {
        self.ioremap_as(start, size, Caching::Uncached, Location::caller())
    }

    /// [`Mm::ioremap`] of a device's memory: a frame buffer, whose writes may be joined and come later.
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::ioremap`].
    #[track_caller]
    pub fn ioremap_wc(&self, start: PhysAddr, size: usize) -> Result<IoPtr, IoremapError> {
        self.ioremap_as(start, size, Caching::WriteCombined, Location::caller())
    }

    /// [`Mm::ioremap`] by the rules of kernel 2.0, where it had this name: an address that is not the first
    /// of a page is refused (A242, A244). Undone with [`Mm::iounmap`], which 2.0 had not.
    ///
    /// # Errors
    ///
    /// [`IoremapError::Unaligned`]; otherwise as [`Mm::ioremap`]. So are context and cost.
    #[track_caller]
    pub fn vremap(&self, start: PhysAddr, size: usize) -> Result<IoPtr, IoremapError> {
        if !start.is_page_aligned(P::PAGE_SHIFT) {
            return Err(IoremapError::Unaligned(start));
        }
        self.ioremap_as(start, size, Caching::Uncached, Location::caller())
    }

    /// [`Mm::ioremap`] as a value that unmaps itself when it is dropped.
    ///
    /// # Errors, context and cost
    ///
    /// As [`Mm::ioremap`]. To drop it may sleep as well.
    ///
    /// # Safety
    ///
    /// A device's registers or memory lie there, and nothing else that anybody uses: that none of it is
    /// this manager's RAM is looked at, but RAM above `mem=`, another manager's, and what is at an address
    /// by mistake cannot be told from a device. And whoever has the value, whose calls are safe, writes
    /// nothing there that makes the device use memory that it has not been given.
    #[track_caller]
    pub unsafe fn iomem(
        &self,
        start: PhysAddr,
        size: usize,
    ) -> Result<IoMem<'_, P, R>, IoremapError> {
        let at = self.ioremap_as(start, size, Caching::Uncached, Location::caller())?;
        // SAFETY: so many bytes were just mapped there, and stay until this is dropped. To use them does no
        // harm by the caller's promise.
        Ok(IoMem { mm: self, range: unsafe { at.range(size) } })
    }

    /// Undoes [`Mm::ioremap`] and its sisters (A240). When it returns no CPU reaches the device by these
    /// addresses.
    ///
    /// Any address in the first page of the mapping does. One where none begins, one of another kind and
    /// one that has been unmapped are reported as misuse, and nothing changes.
    ///
    /// # Safety
    ///
    /// Nothing uses the mapping any more, and it is the caller's: what the checks cannot tell is one that
    /// was unmapped before and whose addresses are another device's since.
    ///
    /// # Context
    ///
    /// May sleep: elsewhere it is reported as misuse, and the device stays mapped. Cost: the platform's
    /// unmapping, and a flush.
    #[track_caller]
    pub unsafe fn iounmap(&self, registers: IoPtr) {
        let page = registers.as_ptr().expose_provenance() & !((1 << P::PAGE_SHIFT) - 1);
        let is_wanted = |mapping: &Mapping| mapping.kind == AreaKind::Ioremap;
        self.take_apart(page, is_wanted, Location::caller());
    }

    fn ioremap_as(
        &self,
        start: PhysAddr,
        size: usize,
        caching: Caching,
        caller: &'static Location<'static>,
    ) -> Result<IoPtr, IoremapError> {
        let map = self.mapper(size, caller)?;
        let too_high = IoremapError::TooHigh { start, size };
        let last = start.get().checked_add(size as u64 - 1).map(PhysAddr::new).ok_or(too_high)?;
        let (Some(first), Some(last)) = (start.frame(P::PAGE_SHIFT), last.frame(P::PAGE_SHIFT))
        else {
            return Err(too_high);
        };
        if let Some(ram) = self.first_ram(first, last) {
            return Err(IoremapError::Ram(ram.start(P::PAGE_SHIFT)));
        }
        let pages = (last.number() - first.number() + 1) as usize;
        let runs = Runs::one(first);
        let kind = AreaKind::Ioremap;
        let mapping = Mapping { kind, is_going: false, next_going: None, pages, runs, caller };
        let address = self.place(map, mapping, caching, GFP_KERNEL)?;
        let offset = start.get() as usize & ((1 << P::PAGE_SHIFT) - 1);
        // SAFETY: the offset is within the first page that was mapped.
        Ok(IoPtr::new(unsafe { address.add(offset) }))
    }

    /// The first frame from one to another, both included, that is RAM.
    fn first_ram(&self, first: Pfn, last: Pfn) -> Option<Pfn> {
        let memmap = self.memmap()?;
        memmap.extents().iter().find_map(|extent| {
            let (start, end) = (extent.range().start, extent.range().end);
            let both = start.max(first.number())..end.min(last.number() + 1);
            both.filter_map(Pfn::new).find(|pfn| {
                extent.descriptor(*pfn).is_some_and(|descriptor| descriptor.block() != Block::Hole)
            })
        })
    }
}

/// A device's registers, which are unmapped when this is dropped. Read and written with the calls of
/// [`IoRange`].
///
/// # Invariants
///
/// The range is a mapping of `ioremap` that belongs to this value.
pub struct IoMem<'m, P: Platform, R: Reclaim = NoReclaim> {
    mm: &'m Mm<P, R>,
    range: IoRange,
}

impl<P: Platform, R: Reclaim> Deref for IoMem<'_, P, R> {
    type Target = IoRange;

    fn deref(&self) -> &IoRange {
        &self.range
    }
}

impl<P: Platform, R: Reclaim> Registers for IoMem<'_, P, R> {
    fn read32(&self, offset: usize) -> Result<u32, IoError> {
        self.range.read32(offset)
    }

    fn write32(&self, value: u32, offset: usize) -> Result<(), IoError> {
        self.range.write32(value, offset)
    }

    fn write64(&self, value: u64, offset: usize) -> Result<(), IoError> {
        self.range.write64(value, offset)
    }
}

impl<P: Platform, R: Reclaim> Drop for IoMem<'_, P, R> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nothing borrows it any more.
        unsafe { self.mm.iounmap(self.range.start()) };
    }
}

impl<P: Platform, R: Reclaim> fmt::Debug for IoMem<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.range.fmt(f)
    }
}
