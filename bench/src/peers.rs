//! The page allocators that are measured, kmem among them, behind one small trait.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bitmap_allocator::{BitAlloc, BitAlloc16M};
use buddy_system_allocator::FrameAllocator;
use kmem::{GFP_KERNEL, Mm, Page, Platform, Reclaim};
use spin::Mutex;

/// Hands out blocks of `2^order` pages.
pub trait PageAllocator {
    /// A block.
    type Block: Copy;

    /// A block, if there is one.
    fn alloc(&mut self, order: u32) -> Option<Self::Block>;

    /// Takes a block back.
    ///
    /// # Safety
    ///
    /// The block came from `alloc` of this allocator with the same order, and has not been given
    /// back since.
    unsafe fn free(&mut self, block: Self::Block, order: u32);

    /// Forgets what earlier rows left behind, so that a row alone and in company measures the same.
    fn settle(&mut self) {}
}

/// kmem, on whichever platform.
pub struct Kmem<'m, P, R>(pub &'m Mm<P, R>);

impl<P: Platform, R: Reclaim> PageAllocator for Kmem<'_, P, R> {
    type Block = Page;

    #[inline(always)]
    fn alloc(&mut self, order: u32) -> Option<Page> {
        self.0.alloc_pages(GFP_KERNEL, order).ok()
    }

    #[inline(always)]
    unsafe fn free(&mut self, page: Page, order: u32) {
        // SAFETY: the same contract.
        unsafe { self.0.__free_pages(page, order) }
    }

    fn settle(&mut self) {
        self.0.drain_local_pages();
    }
}

/// buddy_system_allocator's frames: a tree a size. A kernel must put it behind a lock.
pub struct Buddy(Mutex<FrameAllocator<33>>);

impl Buddy {
    /// With so many frames, all free.
    pub fn new(frames: usize) -> Self {
        let mut allocator = FrameAllocator::new();
        allocator.add_frame(0, frames);
        Buddy(Mutex::new(allocator))
    }

    /// Bytes a page that it holds while every other page is free: one entry of a tree for each,
    /// the most that it can need.
    pub fn metadata_a_page(frames: usize) -> f64 {
        let mut buddy = Buddy::new(frames);
        let held: Vec<_> = (0..frames).filter_map(|_| buddy.alloc(0)).collect();
        let before = HEAP_BYTES.load(Relaxed);
        for frame in held.iter().filter(|frame| **frame % 2 == 0) {
            // SAFETY: it was allocated above, and each is met once.
            unsafe { buddy.free(*frame, 0) };
        }
        let trees = HEAP_BYTES.load(Relaxed) - before;
        (trees + size_of::<FrameAllocator<33>>()) as f64 / frames as f64
    }
}

impl PageAllocator for Buddy {
    type Block = usize;

    #[inline(always)]
    fn alloc(&mut self, order: u32) -> Option<usize> {
        self.0.lock().alloc(1 << order)
    }

    #[inline(always)]
    unsafe fn free(&mut self, frame: usize, order: u32) {
        self.0.lock().dealloc(frame, 1 << order);
    }
}

/// bitmap-allocator's tree of bits for 16 Mi frames. A kernel must put it behind a lock.
pub struct Bitmap(Mutex<Box<BitAlloc16M>>);

impl Bitmap {
    /// With so many frames, all free.
    pub fn new(frames: usize) -> Self {
        let mut allocator = Box::new(BitAlloc16M::DEFAULT);
        allocator.insert(0..frames);
        Bitmap(Mutex::new(allocator))
    }

    /// Bytes a page of those that it can manage; it is as large however few there are.
    pub fn metadata_a_page() -> f64 {
        size_of::<BitAlloc16M>() as f64 / BitAlloc16M::CAP as f64
    }
}

impl PageAllocator for Bitmap {
    type Block = usize;

    #[inline(always)]
    fn alloc(&mut self, order: u32) -> Option<usize> {
        let mut bits = self.0.lock();
        if order == 0 {
            bits.alloc()
        } else {
            bits.alloc_contiguous(None, 1 << order, order as usize)
        }
    }

    #[inline(always)]
    unsafe fn free(&mut self, frame: usize, order: u32) {
        let mut bits = self.0.lock();
        let known = if order == 0 {
            bits.dealloc(frame)
        } else {
            bits.dealloc_contiguous(frame, 1 << order)
        };
        black_box(known);
    }
}

/// The least that a CPU's own list can cost: an array, with nothing locked or checked.
pub struct Array(Vec<u32>);

impl Array {
    /// With so many frames, all free.
    pub fn new(frames: u32) -> Self {
        Array((0..frames).rev().collect())
    }
}

impl PageAllocator for Array {
    type Block = u32;

    #[inline(always)]
    fn alloc(&mut self, _: u32) -> Option<u32> {
        self.0.pop()
    }

    #[inline(always)]
    unsafe fn free(&mut self, frame: u32, _: u32) {
        self.0.push(frame);
    }
}

/// The system's heap, which also counts what is in use: what a peer keeps there is its metadata.
pub struct CountingHeap;

static HEAP_BYTES: AtomicUsize = AtomicUsize::new(0);

/// What is read is how far the count grows while one thread runs, so it needs no locked instruction,
/// which peers would pay for: that rows of two threads lose a count now and then changes nothing.
fn count(bytes: usize) {
    HEAP_BYTES.store(HEAP_BYTES.load(Relaxed).wrapping_add(bytes), Relaxed);
}

// SAFETY: every call is the system's.
unsafe impl GlobalAlloc for CountingHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size().wrapping_neg());
        // SAFETY: the same contract.
        unsafe { System.dealloc(block, layout) }
    }
}
