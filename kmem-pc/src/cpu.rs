//! What each CPU has of its own, and how it finds that: behind `gs`.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use kmem::CpuId;

/// How many CPUs there can be.
pub const CPUS: usize = 16;

/// What a CPU has of its own. It alone writes it, and with plain stores: interrupts on it leave the
/// counts as they find them.
#[repr(C, align(64))]
pub struct Cpu {
    /// Its address, so that `gs` can be turned into a reference.
    this: UnsafeCell<*const Cpu>,
    number: AtomicU32,
    /// How often the running code is pinned.
    pins: AtomicU32,
    /// How many interrupt handlers are running.
    interrupts: AtomicU32,
    /// How many NMI handlers are running.
    nmis: AtomicU32,
}

// SAFETY: `this` is written once, before anybody else knows the value; the rest are atomics.
unsafe impl Sync for Cpu {}

impl Cpu {
    /// A CPU that has not begun.
    pub const fn new() -> Cpu {
        Cpu {
            this: UnsafeCell::new(core::ptr::null()),
            number: AtomicU32::new(0),
            pins: AtomicU32::new(0),
            interrupts: AtomicU32::new(0),
            nmis: AtomicU32::new(0),
        }
    }

    /// Makes this the running CPU's.
    pub fn begin(&'static self, number: u32) {
        self.number.store(number, Relaxed);
        // SAFETY: nobody else knows the value yet.
        unsafe { *self.this.get() = self };
        // The base of `gs`.
        // SAFETY: nothing uses `gs` but this file.
        unsafe { write_msr(0xc000_0101, core::ptr::from_ref(self).addr() as u64) };
    }

    /// The CPU that runs this code, which may be another one a moment later unless it is pinned.
    #[inline]
    pub fn current() -> &'static Cpu {
        let this: *const Cpu;
        // SAFETY: `begin` was called: `gs` is the base of a `Cpu`, whose first field is its address.
        unsafe {
            asm!("mov {}, gs:[0]", out(reg) this, options(nostack, preserves_flags, readonly));
            &*this
        }
    }

    /// Its number.
    #[inline]
    pub fn id() -> CpuId {
        let number: u32;
        // SAFETY: as in `current`.
        unsafe {
            asm!("mov {:e}, gs:[8]", out(reg) number, options(nostack, preserves_flags, readonly));
        }
        CpuId::new(number).unwrap_or(CpuId::BOOT)
    }

    /// Keeps the running task on this CPU: tasks are taken off where they ask for it, and pinned ones
    /// must not.
    #[inline]
    pub fn pin() {
        // SAFETY: as in `current`. One instruction: the code cannot be moved between look and store.
        unsafe { asm!("inc dword ptr gs:[12]", options(nostack)) };
    }

    /// Undoes one [`Cpu::pin`].
    #[inline]
    pub fn unpin() {
        // SAFETY: as above.
        unsafe { asm!("dec dword ptr gs:[12]", options(nostack)) };
    }

    /// Whether the running code must not sleep, interrupts being let in.
    pub fn is_pinned(&self) -> bool {
        self.pins.load(Relaxed) > 0 || self.interrupts.load(Relaxed) > 0 || self.in_nmi()
    }

    /// Whether the running code is an interrupt's handler.
    pub fn in_interrupt(&self) -> bool {
        self.interrupts.load(Relaxed) > 0
    }

    /// Whether the running code is an NMI handler.
    #[inline]
    pub fn in_nmi(&self) -> bool {
        self.nmis.load(Relaxed) > 0
    }

    /// Runs the handler of an interrupt.
    pub fn interrupted<T>(&self, handler: impl FnOnce() -> T) -> T {
        counted(&self.interrupts, handler)
    }

    /// Runs the handler of an NMI.
    pub fn interrupted_by_nmi<T>(&self, handler: impl FnOnce() -> T) -> T {
        counted(&self.nmis, handler)
    }
}

fn counted<T>(count: &AtomicU32, handler: impl FnOnce() -> T) -> T {
    count.store(count.load(Relaxed) + 1, Relaxed);
    let done = handler();
    count.store(count.load(Relaxed) - 1, Relaxed);
    done
}

/// Masks interrupts; answers whether they were let in.
#[inline]
pub fn mask() -> bool {
    let were = are_unmasked();
    // SAFETY: interrupts that wait harm nobody. Not `nomem`: what is done masked stays inside.
    unsafe { asm!("cli", options(nostack)) };
    were
}

/// Lets interrupts in again, if they were.
#[inline]
pub fn restore(were: bool) {
    if were {
        // SAFETY: they were let in before: there are handlers.
        unsafe { asm!("sti", options(nostack)) };
    }
}

/// Waits for an interrupt that is not masked: an NMI.
pub fn halt_masked() {
    // SAFETY: nothing is waited for.
    unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
}

/// The flag of the processor's that lets interrupts in.
pub const INTERRUPTS: u64 = 1 << 9;

/// Whether interrupts are let in.
#[inline]
pub fn are_unmasked() -> bool {
    let flags: u64;
    // SAFETY: reads the flags by way of the stack.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
    flags & INTERRUPTS != 0
}

/// Writes a register of this processor's.
///
/// # Safety
///
/// What the register does is sound at this moment.
pub unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// Reads a register of this processor's, which there is.
pub fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}
