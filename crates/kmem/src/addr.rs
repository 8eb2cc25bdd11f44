//! Addresses and frame numbers.
//!
//! A *page frame* is the smallest thing the manager hands out (A001). Its number, the [`Pfn`], is
//! the physical address divided by the page size. The page size is a constant of the platform
//! (A002), so conversions take the *page shift*, its base-two logarithm.

use core::fmt;
use core::ops::Range;

/// The number of a page frame.
///
/// # Invariants
///
/// The number is at most [`Pfn::MAX`]: links between descriptors are 32 bits wide and one value is
/// kept for "no frame". At 4 KiB pages that is 16 TiB of physical address space, at 64 KiB 256 TiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Pfn(u32);

impl Pfn {
    /// The largest frame number.
    pub const MAX: Pfn = Pfn(u32::MAX - 1);

    /// The frame with this number, or `None` where it is larger than [`Pfn::MAX`].
    #[inline]
    pub const fn new(number: u64) -> Option<Pfn> {
        if number <= Self::MAX.0 as u64 { Some(Pfn(number as u32)) } else { None }
    }

    /// The frame with this number, for numbers that came out of a `Pfn`.
    #[inline]
    pub(crate) const fn from_raw(number: u32) -> Pfn {
        debug_assert!(number <= Self::MAX.0);
        Pfn(number)
    }

    /// The number.
    #[inline]
    pub const fn number(self) -> u64 {
        self.0 as u64
    }

    /// The number in the width of the links.
    #[inline]
    pub(crate) const fn raw(self) -> u32 {
        self.0
    }

    /// The physical address of the frame's first byte.
    #[inline]
    pub const fn start(self, page_shift: u32) -> PhysAddr {
        PhysAddr((self.0 as u64) << page_shift)
    }

    /// The frame `count` further on, or `None` past [`Pfn::MAX`].
    #[inline]
    pub const fn checked_add(self, count: u64) -> Option<Pfn> {
        match (self.0 as u64).checked_add(count) {
            Some(n) => Pfn::new(n),
            None => None,
        }
    }

    /// Whether the number is a multiple of `2^order`.
    #[inline]
    pub const fn is_aligned(self, order: crate::Order) -> bool {
        self.0 & (order.pages() as u32 - 1) == 0
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}", self.0)
    }
}

impl fmt::Display for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A half-open range of frames, as numbers: `start..end`.
pub type PfnRange = Range<u64>;

/// A physical address in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// The address `bytes` from the start of physical memory.
    #[inline]
    pub const fn new(bytes: u64) -> PhysAddr {
        PhysAddr(bytes)
    }

    /// The address as a number of bytes.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The frame that holds this address, or `None` where its number is larger than [`Pfn::MAX`].
    #[inline]
    pub const fn frame(self, page_shift: u32) -> Option<Pfn> {
        Pfn::new(self.0 >> page_shift)
    }

    /// Whether the address is the first byte of a frame.
    #[inline]
    pub const fn is_page_aligned(self, page_shift: u32) -> bool {
        self.0 & ((1 << page_shift) - 1) == 0
    }
}

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "phys {:#x}", self.0)
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// An address as the kernel's own code uses it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct VirtAddr(usize);

impl VirtAddr {
    /// The address with this value.
    #[inline]
    pub const fn new(address: usize) -> VirtAddr {
        VirtAddr(address)
    }

    /// The address of what a pointer points to. The pointer's provenance is exposed, so that
    /// [`VirtAddr::as_ptr`] of this address may be dereferenced.
    #[inline]
    pub fn from_ptr<T>(pointer: *const T) -> VirtAddr {
        VirtAddr(pointer.expose_provenance())
    }

    /// The address as a number.
    #[inline]
    pub const fn get(self) -> usize {
        self.0
    }

    /// The address as a pointer. What may be read or written through it is for whoever handed the
    /// address out to say.
    #[inline]
    pub fn as_ptr<T>(self) -> *mut T {
        core::ptr::with_exposed_provenance_mut(self.0)
    }
}

impl fmt::Debug for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virt {:#x}", self.0)
    }
}

impl fmt::Display for VirtAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
