//! The allocators of objects that are measured, kmem among them, behind one small trait.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{NonNull, null_mut};

use buddy_system_allocator::LockedHeap;
use kmem::{CacheId, GFP_KERNEL, Mm, Platform, Reclaim};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use spinning_top::RawSpinlock;
use talc::TalcLock;
use talc::source::Manual;

/// Hands out objects.
pub trait Heap {
    /// An object of so many bytes, if there is room.
    fn alloc(&self, size: usize) -> Option<NonNull<u8>>;

    /// Takes an object back.
    ///
    /// # Safety
    ///
    /// The object came from `alloc` of this heap with the same size, has not been given back since,
    /// and nothing uses it.
    unsafe fn free(&self, object: NonNull<u8>, size: usize);

    /// Forgets what earlier rows left behind, so that a row alone and in company measures the same.
    fn settle(&self) {}
}

/// kmem's kmalloc, on whichever platform.
pub struct Kmalloc<'m, P, R>(pub &'m Mm<P, R>);

impl<P: Platform, R: Reclaim> Heap for Kmalloc<'_, P, R> {
    #[inline(always)]
    fn alloc(&self, size: usize) -> Option<NonNull<u8>> {
        self.0.kmalloc(size, GFP_KERNEL).ok()
    }

    #[inline(always)]
    unsafe fn free(&self, object: NonNull<u8>, _: usize) {
        // SAFETY: the same contract.
        unsafe { self.0.kfree(object.as_ptr()) }
    }

    fn settle(&self) {
        settle(self.0);
    }
}

/// A cache of kmem's for objects of one kind.
pub struct Dedicated<'m, P, R>(pub &'m Mm<P, R>, pub CacheId);

impl<P: Platform, R: Reclaim> Heap for Dedicated<'_, P, R> {
    #[inline(always)]
    fn alloc(&self, _: usize) -> Option<NonNull<u8>> {
        self.0.kmem_cache_alloc(self.1, GFP_KERNEL).ok()
    }

    #[inline(always)]
    unsafe fn free(&self, object: NonNull<u8>, _: usize) {
        // SAFETY: the same contract.
        unsafe { self.0.kmem_cache_free(self.1, object.as_ptr()) }
    }

    fn settle(&self) {
        settle(self.0);
    }
}

/// Gives back what caches and CPUs' lists of pages hold in reserve.
pub fn settle<P: Platform, R: Reclaim>(mm: &Mm<P, R>) {
    // The record of a slab that goes is an object of another cache, and may leave a slab of that empty.
    while mm.shrink_caches() > 0 {}
    mm.drain_all_pages();
}

/// A peer: an allocator of whole programs.
pub struct Global<A>(pub A);

/// What the C library promises: 16 bytes, but for objects that are smaller.
#[inline(always)]
fn layout(size: usize) -> Layout {
    let align = if size >= 16 { 16 } else { 8 };
    // SAFETY: the alignment is a power of two, and the rows' sizes are far below `isize::MAX`.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

impl<A: GlobalAlloc> Heap for Global<A> {
    #[inline(always)]
    fn alloc(&self, size: usize) -> Option<NonNull<u8>> {
        // SAFETY: no row asks for 0 bytes.
        NonNull::new(unsafe { self.0.alloc(layout(size)) })
    }

    #[inline(always)]
    unsafe fn free(&self, object: NonNull<u8>, size: usize) {
        // SAFETY: the same contract.
        unsafe { self.0.dealloc(object.as_ptr(), layout(size)) }
    }
}

/// mimalloc, where it was built.
#[cfg(feature = "c-peers")]
pub type Mimalloc = Global<mimalloc::MiMalloc>;
/// snmalloc, where it was built.
#[cfg(feature = "c-peers")]
pub type Snmalloc = Global<snmalloc_rs::SnMalloc>;
/// talc behind a spin lock.
pub type Talc = Global<TalcLock<RawSpinlock, Manual>>;
/// buddy_system_allocator's heap, which has a spin lock.
pub type BuddyHeap = Global<LockedHeap<32>>;

/// Memory of the heaps that need some given to them.
const HEAP: usize = 1 << 30;

/// mimalloc, which takes its memory from the host.
#[cfg(feature = "c-peers")]
pub fn mimalloc() -> Mimalloc {
    Global(mimalloc::MiMalloc)
}

/// snmalloc, which takes its memory from the host.
#[cfg(feature = "c-peers")]
pub fn snmalloc() -> Snmalloc {
    Global(snmalloc_rs::SnMalloc)
}

/// talc with 1 GiB.
pub fn talc() -> Result<Talc, Errno> {
    let heap = TalcLock::new(Manual);
    let memory = memory()?;
    // SAFETY: the memory is the heap's alone, for as long as the program runs.
    let claimed = unsafe { heap.lock().claim(memory, HEAP) };
    claimed.map(|_| Global(heap)).ok_or(Errno::INVAL)
}

/// buddy_system_allocator with 1 GiB.
pub fn buddy() -> Result<BuddyHeap, Errno> {
    let heap = LockedHeap::empty();
    let memory = memory()?.expose_provenance();
    // SAFETY: the memory is the heap's alone, for as long as the program runs.
    unsafe { heap.lock().init(memory, HEAP) };
    Ok(Global(heap))
}

/// Memory that the host hands out page by page, when it is first touched; aligned to its size, so that
/// a heap of powers of two has one block of it. It is kept until the program ends.
fn memory() -> Result<*mut u8, Errno> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping, wherever there is room.
    let start = unsafe { mmap_anonymous(null_mut(), 2 * HEAP, access, flags)? }.cast::<u8>();
    Ok(start.wrapping_add(start.align_offset(HEAP)))
}
