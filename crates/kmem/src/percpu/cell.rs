//! A value that the code of one CPU changes in place.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use crate::sync::{CpuSection, Entered};

/// A value for a per-CPU variable that is changed in place, by the CPU whose copy it is (A284).
///
/// The guard of [`get_cpu_var`](crate::Mm::get_cpu_var) lends it: `guard.borrow_mut()`. That answers
/// `None` while it is lent already: to code that this one interrupted, or to a caller further out.
/// Nothing else reaches the value, so it need be no atomic and no `Sync`.
///
/// Cost of a loan: a load and two stores; no locked instruction.
///
/// ```
/// # use kmem::{Mm, Setup, MemoryMap, NodeId};
/// # let mut ram = vec![0; 9 << 20];
/// # // SAFETY: one thread.
/// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
/// # // SAFETY: the RAM is there, and nobody else uses it.
/// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
/// use kmem::{CpuCell, GFP_KERNEL, PerCpu};
///
/// let lists = PerCpu::new_in(|_cpu| CpuCell::new([0u32; 4]), GFP_KERNEL, &mm)?;
/// let own = mm.get_cpu_var(&lists);
/// own.borrow_mut().expect("nobody else is at it")[2] += 1;
/// mm.put_cpu_var(own);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
///
/// `value` is reached through a [`CpuRefMut`] or a `&mut` of the cell. A `CpuRefMut` is inside
/// `section`, on the CPU that the copy belongs to.
pub struct CpuCell<T> {
    section: CpuSection,
    value: UnsafeCell<T>,
}

// SAFETY: a shared cell gives access through `borrow` alone, to one CPU, at most once at a time; the
// value may have been made on another.
unsafe impl<T: Send> Sync for CpuCell<T> {}

impl<T> CpuCell<T> {
    /// A cell with a value.
    pub const fn new(value: T) -> CpuCell<T> {
        CpuCell { section: CpuSection::new(), value: UnsafeCell::new(value) }
    }

    /// The value of a cell that nobody else has.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The value of a cell that nobody else has.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// Lends the value, if it is not lent.
    ///
    /// # Safety
    ///
    /// The cell is a copy of the CPU that runs this, pinned until the loan ends, and nobody borrows it
    /// on another CPU.
    #[inline]
    pub(crate) unsafe fn borrow(&self) -> Option<CpuRefMut<'_, T>> {
        // SAFETY: as the caller says.
        let entered = unsafe { self.section.enter() }?;
        let value = NonNull::new(self.value.get())?;
        Some(CpuRefMut { value, entered, lent: PhantomData })
    }
}

impl<T> fmt::Debug for CpuCell<T> {
    /// Without the value: it is the CPU's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuCell").finish_non_exhaustive()
    }
}

/// The value of a [`CpuCell`], lent until this is dropped. It stays on its CPU: it is neither `Send` nor
/// `Sync`.
pub struct CpuRefMut<'c, T> {
    // A pointer, since the loan ends while this is dropped and not after.
    value: NonNull<T>,
    entered: Entered<'c>,
    lent: PhantomData<&'c mut T>,
}

impl<T> Deref for CpuRefMut<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: by the cell's invariant this is the only one that reaches the value.
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for CpuRefMut<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { self.value.as_mut() }
    }
}

impl<T> CpuRefMut<'_, T> {
    /// Whether it is this cell that was lent.
    pub fn is_of(&self, cell: &CpuCell<T>) -> bool {
        self.entered.is_of(&cell.section)
    }
}
