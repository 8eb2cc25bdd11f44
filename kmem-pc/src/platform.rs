//! The contract with the memory manager.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use kmem::platform::{
    Caching, Clock, Context, Cpus, CrossCall, DirectMap, Hooks, Level, Misuse, MisuseKind,
    NotCalled, PageMap, PageMapError, Sleep, TemporaryMap, Unflushed, WakeReason,
};
use kmem::{CpuId, NodeMask, Order, Pfn, PhysAddr, VirtAddr};

use crate::cpu::{self, Cpu};
use crate::log::Log;
use crate::paging::{self, LARGE, NotMapped, PAGE};
use crate::{clock, crash, direct, smp, task, temporary};

/// A PC.
pub struct Pc {
    /// The addresses that its manager may map at.
    mappings: Range<usize>,
    /// Where the direct map ends.
    limit: AtomicU64,
    /// Whether its manager has the CPUs' slots for what is seen for a time. One manager at most does.
    has_slots: bool,
    /// The manager's messages.
    pub log: Log,
    /// Its reports of misuse.
    pub misuses: Log,
    /// How often somebody has said that misuses are made on purpose, and not yet that they are over.
    expecting: AtomicU32,
}

impl Pc {
    /// A PC of whose memory nothing is known yet. Each manager has addresses for mappings of its own.
    pub const fn new(mappings: Range<usize>) -> Pc {
        Pc {
            mappings,
            limit: AtomicU64::new(0),
            has_slots: false,
            log: Log::new(),
            misuses: Log::new(),
            expecting: AtomicU32::new(0),
        }
    }

    /// The PC of the manager that may have high memory.
    pub const fn with_slots(mut self) -> Pc {
        self.has_slots = true;
        self
    }

    /// Says where the direct map ends. Once, before the manager boots.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    /// Says that wrong frees and wrong calls are made on purpose from now on, or no more. Calls nest.
    /// Otherwise the first one ends the machine.
    pub fn expect_misuses(&self, expected: bool) {
        // Relaxed: whoever makes them was started after this call, or makes them itself.
        if expected {
            self.expecting.fetch_add(1, Relaxed);
        } else {
            self.expecting.fetch_sub(1, Relaxed);
        }
    }
}

// SAFETY: a task leaves its CPU only where it sleeps or yields, which pinned ones do not; `gs` belongs
// to the processor.
unsafe impl Cpus for Pc {
    #[inline]
    fn pin(&self) {
        Cpu::pin();
    }

    #[inline]
    fn unpin(&self) {
        Cpu::unpin();
    }

    #[inline]
    fn current(&self) -> CpuId {
        Cpu::id()
    }

    fn cross_call(&self) -> Option<&dyn CrossCall> {
        Some(self)
    }
}

// SAFETY: an interrupt of that CPU runs it, once, and it is waited for.
unsafe impl CrossCall for Pc {
    fn call_on(&self, cpu: CpuId, work: &(dyn Fn() + Sync)) -> Result<(), NotCalled> {
        smp::call_on(cpu, work)
    }
}

impl Sleep for Pc {
    fn wait(&self, key: usize, ready: &(dyn Fn() -> bool + Sync), nanoseconds: u64) -> WakeReason {
        task::wait(key, ready, nanoseconds)
    }

    fn wake(&self, key: usize) {
        task::wake(key);
    }
}

// SAFETY: the processor's interrupt flag; NMI handlers say that they are ones.
unsafe impl Context for Pc {
    type Saved = bool;

    #[inline]
    fn mask(&self) -> bool {
        cpu::mask()
    }

    #[inline]
    fn restore(&self, saved: bool) {
        cpu::restore(saved);
    }

    #[inline]
    fn in_atomic(&self) -> bool {
        !cpu::are_unmasked() || Cpu::current().is_pinned()
    }

    #[inline]
    fn in_nmi(&self) -> bool {
        Cpu::current().in_nmi()
    }

    fn allowed_nodes(&self) -> NodeMask {
        task::nodes()
    }

    fn sleep(&self) -> Option<&dyn Sleep> {
        // Before there are tasks nothing can wait.
        task::current().map(|_| self as &dyn Sleep)
    }
}

// SAFETY: the tables of `paging` map all RAM below the limit there, and nobody changes that.
unsafe impl DirectMap for Pc {
    #[inline]
    fn base(&self) -> VirtAddr {
        VirtAddr::new(direct::BASE)
    }

    #[inline]
    fn limit(&self) -> PhysAddr {
        PhysAddr::new(self.limit.load(Relaxed))
    }

    fn temporary_map(&self) -> Option<&dyn TemporaryMap> {
        self.has_slots.then_some(self as &dyn TemporaryMap)
    }

    fn page_map(&self) -> Option<&dyn PageMap> {
        Some(self)
    }
}

// SAFETY: each CPU has a page of addresses for each slot, and only code that is pinned there uses it.
unsafe impl TemporaryMap for Pc {
    fn map(&self, frame: Pfn, slot: usize) -> VirtAddr {
        Cpu::pin();
        temporary::map(frame, slot)
    }

    unsafe fn unmap(&self, _: VirtAddr, slot: usize) {
        temporary::unmap(slot);
        Cpu::unpin();
    }
}

// SAFETY: the range is used for nothing else, and entries lead where they are asked to.
unsafe impl PageMap for Pc {
    fn range(&self) -> Range<VirtAddr> {
        VirtAddr::new(self.mappings.start)..VirtAddr::new(self.mappings.end)
    }

    fn large_order(&self) -> Option<Order> {
        Order::new((LARGE / PAGE).ilog2())
    }

    unsafe fn map(
        &self,
        address: VirtAddr,
        first: Pfn,
        count: usize,
        caching: Caching,
    ) -> Result<(), PageMapError> {
        let rights = match caching {
            Caching::Cached => paging::DATA,
            // What combines writes is a matter of tables that this kernel does not set up: to treat it as
            // registers is right, and slower.
            Caching::Uncached | Caching::WriteCombined => paging::DEVICE,
        };
        let (mut at, end) = (address.get(), pages(address, count).end);
        while at < end {
            let physical = first.number() * PAGE + (at - address.get()) as u64;
            let large = (at as u64 | physical).is_multiple_of(LARGE) && end - at >= LARGE as usize;
            let mut size = if large { LARGE } else { PAGE };
            // SAFETY: the caller has the frames, and nothing is mapped there.
            let mut mapped = unsafe { paging::map(at, physical, size, rights) };
            if let Err(NotMapped::Divided) = mapped {
                size = PAGE;
                // SAFETY: as above.
                mapped = unsafe { paging::map(at, physical, size, rights) };
            }
            if let Err(error) = mapped {
                assert!(!matches!(error, NotMapped::Occupied), "a page is mapped at {at:#x}");
                // SAFETY: nobody knows of the mapping yet. Nothing has used it, so that no CPU has anything
                // to forget.
                unsafe { paging::unmap(address.get()..at) };
                return Err(PageMapError::NoTables);
            }
            at += size as usize;
        }
        Ok(())
    }

    unsafe fn unmap(&self, address: VirtAddr, count: usize) -> Unflushed {
        let gone = pages(address, count);
        // SAFETY: the caller's promise.
        unsafe { paging::unmap(gone.clone()) };
        Unflushed::new(VirtAddr::new(gone.start)..VirtAddr::new(gone.end))
    }

    fn flush(&self, gone: Unflushed) {
        paging::forget(gone.pages().start.get()..gone.pages().end.get());
    }
}

/// The addresses of pages.
fn pages(address: VirtAddr, count: usize) -> Range<usize> {
    address.get()..address.get() + count * PAGE as usize
}

impl Clock for Pc {
    fn nanoseconds(&self) -> u64 {
        clock::nanoseconds()
    }
}

impl Hooks for Pc {
    fn log(&self, _: Level, message: fmt::Arguments<'_>) {
        self.log.write(message);
    }

    fn misuse(&self, report: &Misuse<'_>) {
        self.misuses.write(format_args!("{report}"));
        self.log.write(format_args!("{report}"));
        // Whoever meets a fault says what becomes of it: see `crash::fault`.
        let is_fault = matches!(report.kind, MisuseKind::Unmapped | MisuseKind::StackOverflow);
        if !is_fault && self.expecting.load(Relaxed) == 0 {
            crash::wrong_free(self, report);
        }
    }

    fn now(&self) -> u64 {
        clock::nanoseconds()
    }
}
