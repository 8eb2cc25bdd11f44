//! kmalloc: memory of any size.

use core::panic::Location;
use core::ptr::NonNull;

use super::super::Mm;
use super::super::tables::Tables;
use super::free::{address_of, cache_for};
use crate::gfp::GfpError;
use crate::page::{Descriptor, Page, PageFlags};
use crate::platform::{MisuseKind, Passed, Platform, There};
use crate::reclaim::Reclaim;
use crate::slab::State;
use crate::{AllocError, Gfp, NodeId, VirtAddr, get_order};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Allocates at least `size` bytes, physically contiguous (A145, A149, A150). The contents are
    /// what the last user left, or zeros with [`Gfp::ZERO`] (A151). Given back with [`Mm::kfree`].
    ///
    /// The memory is aligned to the largest power of two that divides its size class, at least to 8
    /// bytes; for a size that is a power of two, to that size.
    ///
    /// # Errors
    ///
    /// [`AllocError::ZeroSize`] for 0 bytes; [`AllocError::NoMemory`] where there is none;
    /// [`AllocError::OrderTooLarge`] above the largest block of pages (A156);
    /// [`AllocError::BadFlags`] for flags that contradict each other or ask for high memory.
    ///
    /// # Context
    ///
    /// As [`Mm::alloc_pages`].
    ///
    /// # Cost
    ///
    /// As [`Mm::kmem_cache_alloc`]; above the largest size class, as [`Mm::alloc_pages_exact`].
    ///
    /// # Example
    ///
    /// ```
    /// # use kmem::{Mm, Setup, MemoryMap, GFP_KERNEL, NodeId};
    /// # let mut ram = vec![0; 17 << 20];
    /// # // SAFETY: one thread.
    /// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
    /// # // SAFETY: the RAM is there, and nobody else uses it.
    /// # unsafe { mm.boot(&MemoryMap::new().ram(0..16 << 20, NodeId::ZERO), &Setup::new()) }?;
    /// let dog = mm.kmalloc(100, GFP_KERNEL)?;
    /// assert!(mm.ksize(dog.as_ptr()) >= 100);
    /// // SAFETY: it is ours, and nothing uses it any more.
    /// unsafe { mm.kfree(dog.as_ptr()) };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    #[track_caller]
    pub fn kmalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        match self.kmalloc_at_hand(size, gfp) {
            Some(object) => {
                self.trace_kmalloc(Ok(object), size, gfp, None, Location::caller());
                Ok(object)
            }
            None => self.kmalloc_slow(size, gfp, None, Location::caller()),
        }
    }

    // A call whose answer is one register: a `Result` goes by memory, and to wait for that is a fifth
    // of what an allocation costs.
    #[inline(never)]
    fn kmalloc_at_hand(&self, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        let tables = self.tables()?;
        let class = tables.classes.at_hand(size)?;
        if !self.is_plain_for_objects(gfp) || gfp.intersects(Gfp::ZERO | Gfp::DMA) {
            return None;
        }
        self.take_at_hand(tables, tables.kmalloc_cache(class))
    }

    /// Allocates on a node, or, where that is out of memory, on another. Otherwise as
    /// [`Mm::kmalloc`].
    #[track_caller]
    pub fn kmalloc_node(
        &self,
        size: usize,
        gfp: Gfp,
        node: Option<NodeId>,
    ) -> Result<NonNull<u8>, AllocError> {
        match node {
            None => self.kmalloc(size, gfp),
            Some(_) => self.kmalloc_slow(size, gfp, node, Location::caller()),
        }
    }

    /// Allocates memory of zeros. Otherwise as [`Mm::kmalloc`].
    #[inline]
    #[track_caller]
    pub fn kzalloc(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        let gfp = gfp - Gfp::ZERO;
        let Some(memory) = self.kmalloc_at_hand(size, gfp) else {
            return self.kmalloc_slow(size, gfp | Gfp::ZERO, None, Location::caller());
        };
        // All of it: krealloc may make it larger in place.
        let got = self.tables().and_then(|tables| tables.classes.size_at_hand(size));
        // SAFETY: so many bytes were just allocated.
        unsafe { memory.write_bytes(0, got.unwrap_or(size)) };
        self.trace_kmalloc(Ok(memory), size, gfp | Gfp::ZERO, None, Location::caller());
        Ok(memory)
    }

    /// Allocates zeros for `count` elements of `size` bytes. Otherwise as [`Mm::kmalloc`].
    ///
    /// # Errors
    ///
    /// As [`Mm::kmalloc`]; a product that does not fit `usize` is more than there is.
    #[inline]
    #[track_caller]
    pub fn kcalloc(&self, count: usize, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        self.kzalloc(count.saturating_mul(size), gfp)
    }

    /// Makes memory larger or smaller: in place where its size class allows, else elsewhere with the
    /// contents copied. `null` is as nothing: the call allocates. What is new is cleared with
    /// [`Gfp::ZERO`], if the memory was allocated with it, too.
    ///
    /// # Errors
    ///
    /// As [`Mm::kmalloc`], for 0 bytes too; the memory then is as it was.
    /// [`AllocError::NotAllocated`], and a report, for what is not in use or kmalloc did not hand out.
    ///
    /// # Safety
    ///
    /// The memory is the caller's; where the call succeeds, nothing uses it by its old address.
    #[track_caller]
    pub unsafe fn krealloc(
        &self,
        memory: *mut u8,
        size: usize,
        gfp: Gfp,
    ) -> Result<NonNull<u8>, AllocError> {
        let Some(old) = NonNull::new(memory) else { return self.kmalloc(size, gfp) };
        let held = self.ksize(memory);
        if held == 0 {
            return Err(AllocError::NotAllocated);
        }
        // In place, unless half of it or more would lie idle; where what was not asked for is looked
        // at, only if nothing changes.
        let fits = size > held / 2 && size <= held;
        if size == held || fits && !self.has_slack(old) {
            return Ok(old);
        }
        let new = self.kmalloc(size, gfp)?;
        // SAFETY: both have so many bytes, and they are two.
        unsafe { new.copy_from_nonoverlapping(old, held.min(size)) };
        // SAFETY: the caller's promise.
        unsafe { self.kfree(memory) };
        Ok(new)
    }

    /// Whether what was not asked for of an object of kmalloc's is not its caller's.
    fn has_slack(&self, memory: NonNull<u8>) -> bool {
        let address = memory.as_ptr().expose_provenance();
        let found = self.tables().map(|tables| self.find_object(tables, address));
        let debug = found.and_then(|found| found.ok()?.kind().debug);
        debug.is_some_and(|debug| debug.has_slack())
    }

    /// How many bytes a request for `size` is given (A153). 0 for a size that there is not.
    pub fn kmalloc_size_roundup(&self, size: usize) -> usize {
        let Some(tables) = self.tables() else { return 0 };
        match tables.classes.class(size).and_then(|class| tables.classes.size(class)) {
            _ if size == 0 => 0,
            Some(class) => class,
            None if get_order(size, P::PAGE_SHIFT) > tables.largest.get() => 0,
            None => size.next_multiple_of(1 << P::PAGE_SHIFT),
        }
    }

    /// How many bytes memory has that kmalloc handed out: all of them may be used (A153). Where the
    /// cache has red zones, those that were asked for. 0, and a
    /// report, for anything else. Any context.
    #[track_caller]
    pub fn ksize(&self, memory: *const u8) -> usize {
        let (Some(address), Some(tables)) = (address_of(memory), self.tables()) else { return 0 };
        let mut kind = MisuseKind::NoObject;
        if let Ok(found) = self.find_object(tables, address) {
            if cache_for(tables, found.number(), None).is_none() {
                kind = MisuseKind::WrongCache;
            } else if found.seen.state == State::HELD {
                return found.seen.asked.unwrap_or(found.kind().size as usize);
            }
        }
        if let Some((_, size)) = self.large(tables, address) {
            return size.next_multiple_of(1 << P::PAGE_SHIFT);
        }
        let there = self.object_there(VirtAddr::new(address)).unwrap_or(There::Nothing);
        self.report(&crate::platform::Misuse {
            kind,
            passed: Passed::Object(VirtAddr::new(address)),
            there,
            site: Location::caller(),
        });
        0
    }

    /// Gives back what kmalloc and its sisters handed out (A146). Null is no memory, and nothing is
    /// done (A147).
    ///
    /// Wrong frees are found as by [`Mm::kmem_cache_free`] (A148).
    ///
    /// # Safety
    ///
    /// As [`Mm::kmem_cache_free`]; so are context and cost.
    #[inline]
    #[track_caller]
    pub unsafe fn kfree(&self, memory: *const u8) {
        match address_of(memory) {
            Some(address) => self.free_object(address, None, Location::caller()),
            None => self.trace_null_free(Location::caller()),
        }
    }

    #[cold]
    #[inline(never)]
    fn kmalloc_slow(
        &self,
        size: usize,
        gfp: Gfp,
        node: Option<NodeId>,
        site: &'static Location<'static>,
    ) -> Result<NonNull<u8>, AllocError> {
        let tables = self.tables().ok_or(AllocError::NotBooted)?;
        gfp.check()?;
        let refused = gfp.intersection(Gfp::HIGHMEM | Gfp::MOVABLE | Gfp::DMA32);
        if !refused.is_empty() {
            return Err(GfpError::NotForObjects(refused).into());
        }
        if size == 0 {
            return Err(AllocError::ZeroSize);
        }
        let answer = match tables.classes.class(size) {
            None => self.large_memory(size, gfp),
            Some(class) => {
                let dma = gfp.contains(Gfp::DMA) && tables.dma_classes;
                let first = if dma { tables.classes.sizes().count() } else { 0 };
                self.object_slow(tables, (first + class) as u16, gfp, node, size, site)
            }
        };
        self.trace_kmalloc(answer.as_ref().copied(), size, gfp, node, site);
        answer
    }

    /// Memory above the largest size class: as many pages as it takes.
    #[track_caller]
    pub(super) fn large_memory(&self, size: usize, gfp: Gfp) -> Result<NonNull<u8>, AllocError> {
        let address = self.alloc_pages_exact(size, gfp)?;
        if let Some(page) = self.virt_to_page(address)
            && let Some(descriptor) = self.descriptor(page)
        {
            descriptor.set_private(Some(size as u64));
            // All of them: none is freed by itself.
            self.each_large_page(page, size, |descriptor| {
                descriptor.set(PageFlags::Large);
            });
        }
        NonNull::new(address.as_ptr()).ok_or(AllocError::NotBooted)
    }

    fn each_large_page(&self, first: Page, size: usize, mut call: impl FnMut(&Descriptor)) {
        let pages = size.div_ceil(1 << P::PAGE_SHIFT) as u64;
        let all = (0..pages).filter_map(|page| first.pfn().checked_add(page));
        all.filter_map(|pfn| self.descriptor(Page::of(pfn))).for_each(&mut call);
    }

    /// The first page, and the size, of memory above the largest size class that begins there.
    pub(super) fn large(&self, tables: &Tables, address: usize) -> Option<(Page, usize)> {
        let phys = self.platform.virt_to_phys(VirtAddr::new(address))?;
        if !phys.is_page_aligned(P::PAGE_SHIFT) {
            return None;
        }
        let pfn = phys.frame(P::PAGE_SHIFT)?;
        let descriptor = tables.memmap.get(pfn).filter(|there| there.has(PageFlags::Large))?;
        Some((Page::of(pfn), descriptor.private()? as usize))
    }

    /// Frees memory above the largest size class, that of a caller or the slab layer's own. `false` where
    /// it is none.
    pub(super) fn free_large_memory(
        &self,
        tables: &Tables,
        address: usize,
        site: Option<&'static Location<'static>>,
    ) -> bool {
        let Some((page, _)) = self.large(tables, address) else { return false };
        let descriptor = tables.memmap.at(page.pfn());
        // Of two who free it at one moment, the one that takes the flag away frees it: as much as is
        // there then.
        let freed = descriptor.clear(PageFlags::Large);
        if freed {
            if let Some(site) = site {
                self.trace_object_free(address, None, site);
            }
            let size = descriptor.private().unwrap_or(0) as usize;
            descriptor.set_private(None);
            self.each_large_page(page, size, |descriptor| {
                descriptor.clear(PageFlags::Large);
            });
            // SAFETY: it was allocated as that.
            unsafe { self.free_pages_exact(VirtAddr::new(address), size) };
        }
        freed
    }
}
