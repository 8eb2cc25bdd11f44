//! Variables: what has a copy for each CPU.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use super::chunk::Memory;
use crate::CpuId;

/// Where the copies of a variable are, for code that knows which CPU it is.
///
/// # Invariants
///
/// Copies of manager `owner` for `cpus` CPUs: `image` is that of the boot CPU, and those of the others
/// are where `memory` says. All of them live as long as the variable is borrowed.
pub struct Copies<T> {
    pub(crate) owner: usize,
    pub(crate) cpus: u32,
    pub(crate) image: NonNull<T>,
    pub(crate) memory: Option<Memory>,
}

/// A copy, and whether it is that of the CPU that was named and of nobody else.
pub(crate) struct Copy<T> {
    pub(crate) value: NonNull<T>,
    pub(crate) own: bool,
}

impl<T> Copies<T> {
    /// The copy of a CPU of a manager. Where there is none, because the variable is not set up, or by
    /// another manager, the boot CPU's.
    #[inline]
    pub(crate) fn of(&self, owner: usize, cpu: CpuId) -> Copy<T> {
        if owner != self.owner || cpu.get() >= self.cpus {
            return Copy { value: self.image, own: false };
        }
        match self.memory {
            Some(memory) if cpu != CpuId::BOOT => {
                // SAFETY: by the invariant the CPU has a copy there.
                let copy = unsafe { memory.copy(cpu) };
                Copy { value: copy.cast(), own: true }
            }
            _ => Copy { value: self.image, own: true },
        }
    }

    /// Whether nobody has set the variable up.
    #[inline]
    pub(crate) fn is_unset(&self) -> bool {
        self.owner == UNSET
    }
}

/// A per-CPU variable: a [`StaticPerCpu`], or a [`PerCpu`](crate::PerCpu) that was allocated.
///
/// # Safety
///
/// For the manager's own types.
pub unsafe trait PerCpuVar {
    /// What each copy is. `Sync`: interrupt handlers, and code that looks at other CPUs' copies, have
    /// it at the same time.
    type Value: Sync;

    /// Where the copies are.
    #[doc(hidden)]
    fn copies(&self) -> Copies<Self::Value>;
}

/// Nobody has set the variable up. No manager has its tables at these addresses.
const UNSET: usize = 1;
/// Somebody does.
const CHANGING: usize = 2;

/// A static variable with a copy for each CPU: see [`define_per_cpu!`](crate::define_per_cpu) (A283).
///
/// The value in the `static` is the boot CPU's copy, always; before the variable is set up it is all
/// there is. [`Mm::setup_per_cpu`](crate::Mm::setup_per_cpu) makes those of the other CPUs.
///
/// # Invariants
///
/// While `owner` is a manager's, `cpus`, `bases` and `offset` say where the other CPUs' copies are, each
/// a value. They are written while it is `CHANGING`, by the one who made it so.
#[repr(C)]
pub struct StaticPerCpu<T> {
    image: Line<T>,
    owner: AtomicUsize,
    bases: AtomicPtr<NonNull<u8>>,
    offset: AtomicUsize,
    cpus: AtomicU32,
    make: fn() -> T,
}

/// A value with a line of the processor's cache, or more, to itself: the boot CPU writes it, and what
/// lies beside it in the image may be anybody's. Two lines, since processors fetch them in pairs.
#[repr(C, align(128))]
struct Line<T>(T);

impl<T: Sync> StaticPerCpu<T> {
    /// A variable. `make` answers the value that other CPUs begin with.
    #[doc(hidden)]
    pub const fn new(value: T, make: fn() -> T) -> StaticPerCpu<T> {
        StaticPerCpu {
            image: Line(value),
            owner: AtomicUsize::new(UNSET),
            bases: AtomicPtr::new(core::ptr::null_mut()),
            offset: AtomicUsize::new(0),
            cpus: AtomicU32::new(0),
            make,
        }
    }

    fn memory(&self) -> Option<Memory> {
        let bases = NonNull::new(self.bases.load(Ordering::Relaxed))?;
        Some(Memory { bases, offset: self.offset.load(Ordering::Relaxed) })
    }
}

// SAFETY: by the type's invariant.
unsafe impl<T: Sync> PerCpuVar for StaticPerCpu<T> {
    type Value = T;

    #[inline]
    fn copies(&self) -> Copies<T> {
        // Acquire pairs with the Release in `install`: where the copies are is seen, and what is there.
        let owner = self.owner.load(Ordering::Acquire);
        let (cpus, memory) = (self.cpus.load(Ordering::Relaxed), self.memory());
        Copies { owner, cpus, image: NonNull::from(&self.image.0), memory }
    }
}

/// A static per-CPU variable of whatever type, for lists of them.
///
/// # Safety
///
/// For [`StaticPerCpu`].
pub unsafe trait PerCpuStatic: Sync {
    /// Size and alignment of a copy.
    #[doc(hidden)]
    fn layout(&self) -> Layout;

    /// The right to set the variable up, if nobody has.
    #[doc(hidden)]
    fn claim(&self) -> Option<Claim>;

    /// The right to undo what this manager has set up.
    #[doc(hidden)]
    fn reclaim(&self, owner: usize) -> Option<Claim>;

    /// Makes the copies in memory that was allocated for them, and says where they are.
    ///
    /// # Safety
    ///
    /// The memory has room for a copy for each of so many CPUs and is the variable's from here on.
    #[doc(hidden)]
    unsafe fn install(&self, claim: Claim, owner: usize, cpus: u32, memory: Memory);

    /// Ends the copies, and answers where they were.
    ///
    /// # Safety
    ///
    /// Nobody uses them any more.
    #[doc(hidden)]
    unsafe fn uninstall(&self, claim: Claim) -> Option<Memory>;

    /// Gives a claim back that came to nothing.
    #[doc(hidden)]
    fn abandon(&self, claim: Claim);
}

/// The right to change where the copies of a variable are.
#[must_use]
pub struct Claim(());

// SAFETY: this is it.
unsafe impl<T: Sync + Send> PerCpuStatic for StaticPerCpu<T> {
    fn layout(&self) -> Layout {
        Layout::new::<T>()
    }

    fn claim(&self) -> Option<Claim> {
        let (from, to) = (UNSET, CHANGING);
        // Acquire pairs with the Release in `abandon` and `uninstall`.
        let claimed = self.owner.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed);
        claimed.ok().map(|_| Claim(()))
    }

    fn reclaim(&self, owner: usize) -> Option<Claim> {
        // Acquire pairs with the Release in `install`.
        let claimed =
            self.owner.compare_exchange(owner, CHANGING, Ordering::Acquire, Ordering::Relaxed);
        claimed.ok().map(|_| Claim(()))
    }

    unsafe fn install(&self, _: Claim, owner: usize, cpus: u32, memory: Memory) {
        for cpu in (1..cpus).filter_map(CpuId::new) {
            // SAFETY: there is room for one, by the caller's promise.
            unsafe { memory.copy(cpu).cast::<T>().write((self.make)()) };
        }
        self.bases.store(memory.bases.as_ptr(), Ordering::Relaxed);
        self.offset.store(memory.offset, Ordering::Relaxed);
        self.cpus.store(cpus, Ordering::Relaxed);
        // Release pairs with the Acquire in `copies`.
        self.owner.store(owner, Ordering::Release);
    }

    unsafe fn uninstall(&self, claim: Claim) -> Option<Memory> {
        let memory = self.memory()?;
        for cpu in (1..self.cpus.load(Ordering::Relaxed)).filter_map(CpuId::new) {
            // SAFETY: `install` made it, and nobody uses it any more.
            unsafe { memory.copy(cpu).cast::<T>().drop_in_place() };
        }
        self.bases.store(core::ptr::null_mut(), Ordering::Relaxed);
        self.cpus.store(0, Ordering::Relaxed);
        self.abandon(claim);
        Some(memory)
    }

    fn abandon(&self, _: Claim) {
        // Release pairs with the Acquire in `claim`.
        self.owner.store(UNSET, Ordering::Release);
    }
}

/// Defines static per-CPU variables (A283).
///
/// Each is a `static` of type [`StaticPerCpu`]; the value is what every CPU begins with. The boot CPU may
/// use it at once. The others have copies from [`Mm::setup_per_cpu`](crate::Mm::setup_per_cpu) on, which
/// a kernel calls at boot, and a module when it comes (A286).
///
/// There is no counterpart to `DECLARE_PER_CPU`, which is for a file that uses what another defines: here
/// that is a path, or a `use` of it, and `pub` says who may.
///
/// ```
/// # use kmem::{Mm, Setup, MemoryMap, NodeId};
/// # let mut ram = vec![0; 9 << 20];
/// # // SAFETY: one thread.
/// # let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram) });
/// # // SAFETY: the RAM is there, and nobody else uses it.
/// # unsafe { mm.boot(&MemoryMap::new().ram(0..8 << 20, NodeId::ZERO), &Setup::new()) }?;
/// use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use kmem::{CpuCell, CpuId, define_per_cpu};
///
/// define_per_cpu! {
///     /// How often somebody came by.
///     static VISITS: AtomicU32 = AtomicU32::new(0);
///     static LAST: CpuCell<[u8; 4]> = CpuCell::new([0; 4]);
/// }
///
/// mm.setup_per_cpu(&[&VISITS, &LAST])?;
/// mm.this_cpu_inc(&VISITS);
/// let last = mm.get_cpu_var(&LAST);
/// last.borrow_mut().expect("nobody else is at it")[0] = 7;
/// mm.put_cpu_var(last);
/// let of_cpu_0 = mm.per_cpu(&VISITS, CpuId::BOOT).expect("there is such a cpu");
/// assert_eq!(of_cpu_0.load(Relaxed), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[macro_export]
macro_rules! define_per_cpu {
    ($($(#[$meta:meta])* $vis:vis static $name:ident: $type:ty = $value:expr;)*) => {
        $(
            $(#[$meta])*
            $vis static $name: $crate::StaticPerCpu<$type> =
                $crate::StaticPerCpu::new($value, || $value);
        )*
    };
}
