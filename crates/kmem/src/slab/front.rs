//! What the common paths need to know of a cache.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::cpu::CpuCache;
use super::geometry::{Division, Geometry};
use super::state::ObjectState;
use crate::CpuId;
use crate::page::SlabView;

/// What the common paths need to know of a cache: one line of the processor's cache.
///
/// # Invariants
///
/// Written while `generation` is even by whoever made it so. A free that is wrong may read it at that
/// moment, and then finds that something does not fit; so all of it are atomics.
///
/// `cells` points to one cell for each CPU that there can be: null, or a [`CpuCache`] that lives until
/// nobody uses the cache or that CPU any more.
#[repr(C, align(64))]
pub(crate) struct Front {
    /// Odd while there is a cache here. It rises with each change, so no two caches in one place have
    /// the same.
    generation: AtomicU32,
    /// A slab's size in bytes, less one: slabs lie at multiples of their size.
    slab_mask: AtomicU32,
    inverse: AtomicU32,
    shift: AtomicU32,
    objects: AtomicU32,
    cells: NonNull<AtomicPtr<CpuCache>>,
}

const _: () = assert!(size_of::<Front>() == 64);

/// How many managers there have been.
static MANAGERS: AtomicU32 = AtomicU32::new(0);

impl Front {
    /// The generation of all places of a new manager: far from those of others, so that none of
    /// theirs knows a handle that is not its own.
    pub(crate) fn first_generation() -> u32 {
        // The golden ratio of all values there are, made even: multiples of it keep their distance.
        MANAGERS.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b2)
    }

    /// For a place without a cache, whose generation is an even one.
    ///
    /// # Safety
    ///
    /// `cells` points to a null cell for each CPU, for as long as the place is used, reached through
    /// it only.
    pub(crate) const unsafe fn new(cells: NonNull<AtomicPtr<CpuCache>>, generation: u32) -> Front {
        Front {
            generation: AtomicU32::new(generation),
            slab_mask: AtomicU32::new(0),
            inverse: AtomicU32::new(0),
            shift: AtomicU32::new(0),
            objects: AtomicU32::new(0),
            cells,
        }
    }

    /// Says how objects lie, in a place whose generation is even.
    pub(crate) fn describe(&self, geometry: &Geometry, page_shift: u32) {
        let Division { inverse, shift } = geometry.division();
        let relaxed = Ordering::Relaxed;
        self.slab_mask.store(geometry.bytes(page_shift) - 1, relaxed);
        self.inverse.store(inverse, relaxed);
        self.shift.store(shift, relaxed);
        self.objects.store(geometry.objects, relaxed);
    }

    /// The generation, which is odd while there is a cache.
    #[inline(always)]
    pub(crate) fn generation(&self) -> &AtomicU32 {
        &self.generation
    }

    /// The byte of the object that begins at a physical address in a slab of the cache; `None` where
    /// none does.
    #[inline(always)]
    pub(crate) fn object(&self, physical: u64, view: SlabView) -> Option<NonNull<ObjectState>> {
        let relaxed = Ordering::Relaxed;
        let place = physical as u32 & self.slab_mask.load(relaxed);
        let division =
            Division { inverse: self.inverse.load(relaxed), shift: self.shift.load(relaxed) };
        let index = division.exact(place.wrapping_sub(view.colour));
        if index >= self.objects.load(relaxed) {
            return None;
        }
        let record = NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(view.record))?;
        // SAFETY: a frame that is marked as a slab's has the address of its record, which begins with
        // a byte for each object of its cache's geometry, until it is no slab's any more.
        Some(unsafe { record.add(index as usize) }.cast())
    }

    /// Where it is written what a CPU has of the cache, for a CPU that there can be.
    ///
    /// # Safety
    ///
    /// There are cells for the CPU.
    #[inline(always)]
    pub(crate) unsafe fn cell(&self, cpu: CpuId) -> &AtomicPtr<CpuCache> {
        // SAFETY: the caller's promise.
        unsafe { self.cells.add(cpu.index()).as_ref() }
    }
}
