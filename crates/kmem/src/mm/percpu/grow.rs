//! Chunks come and go.

use core::ptr::NonNull;

use super::super::Mm;
use super::super::tables::Tables;
use crate::page::{Page, PageFlags};
use crate::percpu::{Chunk, Memory, Wanted};
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{AllocError, CpuId, Gfp, Order, VirtAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Makes a chunk and takes what is wanted from it. Two CPUs that do so at one moment make two: the
    /// next requests fill both.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(super) fn grow_percpu(
        &self,
        tables: &Tables,
        wanted: Wanted,
        gfp: Gfp,
    ) -> Result<Memory, AllocError> {
        // What is zeroed is each object. A page by itself is no compound page.
        let gfp = gfp - (Gfp::ZERO | Gfp::COMP);
        let page_bytes = 1 << P::PAGE_SHIFT;
        let room = self.kmalloc(Chunk::bytes(tables.cpus, page_bytes), gfp)?;
        // The pages are linked through their first words until all of them are there, the last CPU's
        // first: so the boot CPU's heads the list.
        let mut last: Option<NonNull<u8>> = None;
        for cpu in (0..tables.cpus).rev().filter_map(CpuId::new) {
            let node = tables.several_nodes.then(|| tables.node_of(cpu));
            let page = match self.alloc_pages_node(node, gfp, 0) {
                Ok(page) => self.page_address(page).and_then(|at| NonNull::new(at.as_ptr())),
                Err(error) => {
                    self.ungrow_percpu(room, last);
                    return Err(error);
                }
            };
            let Some(page) = page else {
                // No zone that such a request sees is outside the direct map.
                self.ungrow_percpu(room, last);
                return Err(AllocError::NoMemory { order: Order::ZERO, gfp });
            };
            // SAFETY: the page was just allocated, and has room for a word.
            unsafe { page.cast::<Option<NonNull<u8>>>().write(last) };
            last = Some(page);
        }
        let mut at = last;
        let base = |_: CpuId| {
            let page = at.unwrap_or(NonNull::dangling());
            // SAFETY: there are as many pages as CPUs, each with the next CPU's.
            at = at.and_then(|page| unsafe { page.cast::<Option<NonNull<u8>>>().read() });
            page
        };
        // SAFETY: the memory was just allocated, and kmalloc aligns to 8 bytes.
        let chunk = unsafe { Chunk::init(room, tables.cpus, page_bytes, base) };
        // SAFETY: just made.
        for page in unsafe { Chunk::bases(chunk) } {
            if let Some(descriptor) = self.percpu_descriptor(*page) {
                descriptor.set_private(Some(chunk.as_ptr().expose_provenance() as u64));
                descriptor.set(PageFlags::PerCpu);
            }
        }
        // SAFETY: just made.
        self.trace_chunk(unsafe { Chunk::bases(chunk) }.first(), true);
        let mut chunks = self.percpu.lock(&self.platform);
        // SAFETY: just made; it is freed when it is taken out.
        unsafe { chunks.insert(chunk) };
        // A request that a page cannot meet was refused before.
        chunks.alloc(wanted).ok_or(AllocError::NoMemory { order: Order::ZERO, gfp })
    }

    /// Gives back what there is of a chunk that came to nothing.
    fn ungrow_percpu(&self, room: NonNull<u8>, mut last: Option<NonNull<u8>>) {
        while let Some(page) = last {
            // SAFETY: each page has the next CPU's; all were allocated, and nobody knows them.
            unsafe {
                last = page.cast::<Option<NonNull<u8>>>().read();
                self.free_page(VirtAddr::from_ptr(page.as_ptr()));
            }
        }
        // SAFETY: it was allocated for the chunk.
        unsafe { self.kfree(room.as_ptr()) };
    }

    /// The descriptor of a page of a chunk.
    fn percpu_descriptor(&self, page: NonNull<u8>) -> Option<&crate::page::Descriptor> {
        let page = self.virt_to_page(VirtAddr::from_ptr(page.as_ptr()))?;
        self.descriptor(page)
    }

    /// Takes the marks off the pages of a chunk: from here on no free finds it. Under the lock.
    pub(super) fn unmark_percpu(&self, chunk: NonNull<Chunk>) {
        // SAFETY: it was taken off the lists, and is there.
        for page in unsafe { Chunk::bases(chunk) } {
            if let Some(descriptor) = self.percpu_descriptor(*page) {
                descriptor.clear(PageFlags::PerCpu);
                descriptor.set_private(None);
            }
        }
    }

    /// Gives a chunk's pages and itself back; answers how many pages. It is off the lists, and its pages
    /// are not marked any more. Without the lock.
    #[cold]
    #[inline(never)]
    pub(super) fn free_chunk(&self, chunk: NonNull<Chunk>) -> u64 {
        // SAFETY: nobody else has it.
        let bases = unsafe { Chunk::bases(chunk) };
        let count = bases.len() as u64;
        self.trace_chunk(bases.first(), false);
        for page in bases {
            // SAFETY: the chunk's own, and no object is in it.
            unsafe { self.free_page(VirtAddr::from_ptr(page.as_ptr())) };
        }
        // SAFETY: it lies at the start of memory of kmalloc's, and its bases are not used any more.
        unsafe { self.kfree(chunk.cast().as_ptr()) };
        count
    }

    /// Gives back the chunk that is kept for the next request, if there is one; answers how many pages.
    pub(in crate::mm) fn shrink_percpu(&self) -> u64 {
        if self.platform.in_nmi() {
            return 0;
        }
        let empty = {
            let mut chunks = self.percpu.lock(&self.platform);
            let empty = chunks.take_empty();
            if let Some(chunk) = empty {
                self.unmark_percpu(chunk);
            }
            empty
        };
        empty.map_or(0, |chunk| self.free_chunk(chunk))
    }

    /// The chunk whose page this is, if it is one's. Under the lock, or by the holder of an object there.
    pub(super) fn chunk_of(&self, page: Page) -> Option<NonNull<Chunk>> {
        let descriptor = self.descriptor(page)?;
        if !descriptor.has(PageFlags::PerCpu) {
            return None;
        }
        NonNull::new(core::ptr::with_exposed_provenance_mut(descriptor.private()? as usize))
    }
}
