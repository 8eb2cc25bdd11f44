//! One suite for all platforms: whether a platform keeps its half of the contract.
//!
//! A port calls [`check`] early in its boot or in its tests, before it trusts the manager to it, and
//! the check of each facility that it has. What cannot be seen from inside one CPU in a short time
//! (that nothing else ever runs with the same CPU number) remains the port's promise.
//!
//! ```
//! use kmem::platform::{conformance, desk::Desk};
//! use kmem::PhysAddr;
//!
//! let mut ram = vec![0; 1 << 20];
//! // SAFETY: one thread.
//! let desk = unsafe { Desk::<12>::new(&mut ram) };
//! // SAFETY: nobody uses the RAM.
//! unsafe { conformance::check(&desk, PhysAddr::new(0)..PhysAddr::new(8 << 12)) }?;
//! # Ok::<(), conformance::Violation>(())
//! ```

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use super::{Caching, Clock, Context, CrossCall, DirectMap, NotCalled, PageMap, Platform, Sleep};
use super::{TEMPORARY_SLOTS, TemporaryMap, WakeReason};
use crate::{CpuId, MAX_CPUS, Pfn, PhysAddr, VirtAddr};

/// A promise that the platform did not keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The trait and method.
    pub of: &'static str,
    /// What was expected and not found.
    pub what: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.of, self.what)
    }
}

impl core::error::Error for Violation {}

type Outcome = Result<(), Violation>;

fn expect(holds: bool, of: &'static str, what: &'static str) -> Outcome {
    if holds { Ok(()) } else { Err(Violation { of, what }) }
}

/// Checks the four base traits, and the facilities that they offer.
///
/// `scratch` is RAM that the direct map reaches and that may be overwritten: at least four pages.
///
/// # Errors
///
/// The first promise that is not kept.
///
/// # Context
///
/// A task that may sleep.
///
/// # Safety
///
/// `scratch` is RAM that nobody uses; its contents are lost.
pub unsafe fn check<P: Platform>(platform: &P, scratch: Range<PhysAddr>) -> Outcome {
    check_cpus(platform)?;
    check_context(platform)?;
    check_direct_map(platform, scratch.clone())?;
    if let Some(map) = platform.temporary_map() {
        check_temporary_map(platform, map, scratch)?;
    }
    if let Some(call) = platform.cross_call() {
        check_cross_call(platform, call)?;
    }
    if let Some(sleep) = platform.sleep() {
        check_sleep(sleep)?;
    }
    Ok(())
}

fn check_cpus<P: Platform>(platform: &P) -> Outcome {
    let of = "Cpus";
    platform.pin();
    let first = platform.current();
    platform.pin();
    let mut constant = true;
    for _ in 0..10_000 {
        constant &= platform.current() == first;
    }
    platform.unpin();
    // Still pinned once: unpinning the inner one must not let go.
    for _ in 0..10_000 {
        constant &= platform.current() == first;
    }
    platform.unpin();
    platform.relax();
    expect(constant, of, "current() changed while the code was pinned")?;
    expect(first.index() < MAX_CPUS, of, "current() is not below MAX_CPUS")
}

fn check_context<P: Platform>(platform: &P) -> Outcome {
    let of = "Context";
    let before = platform.in_atomic();
    expect(!before, of, "in_atomic() is true for a task that may sleep")?;
    expect(!platform.in_nmi(), of, "in_nmi() is true for a task")?;
    let outer = platform.mask();
    let masked = platform.in_atomic();
    let inner = platform.mask();
    platform.restore(inner);
    let still = platform.in_atomic();
    platform.restore(outer);
    expect(masked, of, "in_atomic() is false with interrupts masked")?;
    expect(still, of, "restore() of an inner mask() undid the outer one")?;
    expect(platform.in_atomic() == before, of, "restore() did not put the state back")
}

fn check_direct_map<P: Platform>(platform: &P, scratch: Range<PhysAddr>) -> Outcome {
    let of = "DirectMap";
    let page = 1u64 << P::PAGE_SHIFT;
    expect((10..=21).contains(&P::PAGE_SHIFT), of, "PAGE_SHIFT is not a page size")?;
    let aligned = platform.base().get().is_multiple_of(page as usize);
    expect(aligned, of, "base() is not aligned to a page")?;
    let limit = platform.limit();
    expect(limit.get() > 0, of, "limit() is 0")?;
    expect(platform.phys_to_virt(limit).is_none(), of, "phys_to_virt() reaches beyond limit()")?;
    for phys in [scratch.start, PhysAddr::new(scratch.end.get() - 1)] {
        let virt = platform.phys_to_virt(phys);
        let virt = virt.ok_or(Violation { of, what: "the scratch RAM is not reached" })?;
        let back = platform.virt_to_phys(virt);
        expect(back == Some(phys), of, "virt_to_phys() does not undo phys_to_virt()")?;
    }
    // Memory, and not the same memory twice: each page gets its own mark before any is read.
    let pages = (scratch.end.get() - scratch.start.get()) / page;
    expect(pages >= 4, of, "the scratch RAM has fewer than four pages")?;
    let at = |index: u64| {
        platform
            .phys_to_virt(PhysAddr::new(scratch.start.get() + index * page))
            .map_or(core::ptr::null_mut(), |virt| virt.as_ptr::<u64>())
    };
    for index in 0..pages {
        // SAFETY: the caller lends this RAM, and the platform says that this reaches it.
        unsafe { at(index).write_volatile(mark(index)) };
    }
    for index in 0..pages {
        // SAFETY: as above.
        let found = unsafe { at(index).read_volatile() };
        expect(found == mark(index), of, "a page of the direct map does not keep what is written")?;
    }
    Ok(())
}

/// A value that tells pages apart.
fn mark(index: u64) -> u64 {
    (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn check_temporary_map<P: Platform>(
    platform: &P,
    map: &dyn TemporaryMap,
    scratch: Range<PhysAddr>,
) -> Outcome {
    let of = "TemporaryMap";
    let frame = |index: u64| Pfn::new((scratch.start.get() >> P::PAGE_SHIFT) + index);
    let (Some(first), Some(second)) = (frame(0), frame(1)) else {
        return expect(false, of, "the scratch RAM has no frames");
    };
    // Each frame in slots of its own and in one after another; ended in the order in which they began.
    let last = TEMPORARY_SLOTS - 1;
    let outer = map.map(first, 0);
    let inner = map.map(second, last);
    let apart = outer != inner;
    // SAFETY: both frames are lent by the caller and mapped.
    unsafe {
        outer.as_ptr::<u64>().write_volatile(mark(99));
        inner.as_ptr::<u64>().write_volatile(mark(101));
    }
    let pinned = platform.in_atomic();
    // SAFETY: not used any more.
    unsafe { map.unmap(outer, 0) };
    let still = platform.in_atomic();
    // SAFETY: mapped above, and lent by the caller.
    let kept = unsafe { inner.as_ptr::<u64>().read_volatile() } == mark(101);
    // The same slot shows another frame at the same address: a translation that is not forgotten
    // shows.
    let again = map.map(second, 0);
    // SAFETY: as above.
    let renewed = unsafe { again.as_ptr::<u64>().read_volatile() } == mark(101);
    // SAFETY: not used any more.
    unsafe { map.unmap(again, 0) };
    let once_more = map.map(first, 0);
    // SAFETY: as above; not used any more after it is unmapped.
    unsafe {
        once_more.as_ptr::<u64>().write_volatile(mark(100));
        map.unmap(once_more, 0);
        map.unmap(inner, last);
    }
    let aligned = [outer, inner].iter().all(|at| at.get().is_multiple_of(1 << P::PAGE_SHIFT));
    expect(aligned, of, "an address is not aligned to a page")?;
    expect(apart, of, "two mappings at once have one address")?;
    expect(outer == again && again == once_more, of, "the address of a slot changes")?;
    expect(pinned && still, of, "in_atomic() is false while a frame is mapped for a time")?;
    expect(!platform.in_atomic(), of, "in_atomic() is true after the last mapping has ended")?;
    expect(kept, of, "the end of a mapping in one slot changes another")?;
    expect(renewed, of, "a slot shows the frame that was mapped there before")?;
    for (pfn, value) in [(first, mark(100)), (second, mark(101))] {
        let virt = platform.phys_to_virt(pfn.start(P::PAGE_SHIFT));
        let virt = virt.ok_or(Violation { of, what: "the scratch RAM is not reached" })?;
        // SAFETY: the frame is lent by the caller and in the direct map.
        let seen = unsafe { virt.as_ptr::<u64>().read_volatile() };
        expect(seen == value, of, "what was written through a mapping is not in the frame")?;
    }
    Ok(())
}

fn check_cross_call<P: Platform>(platform: &P, call: &dyn CrossCall) -> Outcome {
    let of = "CrossCall";
    let mut reached = 0;
    for cpu in (0..MAX_CPUS as u32).filter_map(CpuId::new) {
        let runs = AtomicU32::new(0);
        let there = AtomicBool::new(false);
        let atomic = AtomicBool::new(false);
        let called = call.call_on(cpu, &|| {
            runs.fetch_add(1, SeqCst);
            there.store(platform.current() == cpu, SeqCst);
            atomic.store(platform.in_atomic(), SeqCst);
        });
        match called {
            Ok(()) => {
                reached += 1;
                expect(runs.load(SeqCst) == 1, of, "the work did not run once before the return")?;
                expect(there.load(SeqCst), of, "the work did not run on the CPU that was asked")?;
                expect(atomic.load(SeqCst), of, "in_atomic() is false in a cross call")?;
            }
            Err(NotCalled::NoSuchCpu | NotCalled::Offline) => {
                expect(runs.load(SeqCst) == 0, of, "the work ran although an error was returned")?;
            }
        }
    }
    expect(reached > 0, of, "no CPU could be called, not even this one")
}

fn check_sleep(sleep: &dyn Sleep) -> Outcome {
    let of = "Sleep";
    let ready = sleep.wait(1, &|| true, u64::MAX);
    expect(ready == WakeReason::Woken, of, "wait() did not see that it need not wait")?;
    // A wait that nobody wakes ends by itself; it may end early some of the time, never always.
    let mut timed_out = false;
    for _ in 0..100 {
        timed_out |= sleep.wait(2, &|| false, 100_000) == WakeReason::TimedOut;
    }
    sleep.wake(2);
    expect(timed_out, of, "wait() never ended by its time")
}

/// Checks a clock.
///
/// # Errors
///
/// The first promise that is not kept.
pub fn check_clock(clock: &dyn Clock) -> Outcome {
    let mut last = clock.nanoseconds();
    let first = last;
    for _ in 0..100_000 {
        let now = clock.nanoseconds();
        expect(now >= last, "Clock", "the clock ran backwards")?;
        last = now;
    }
    expect(last > first, "Clock", "the clock stands still")
}

/// Checks that interrupts are kept back while they are masked, and arrive afterwards.
///
/// `raise` makes the calling CPU be interrupted soon by a handler that calls the function it is
/// given; it need not wait for that.
///
/// # Errors
///
/// The first promise that is not kept.
pub fn check_interrupts<C: Context + super::Cpus>(
    context: &C,
    raise: &dyn Fn(&'static (dyn Fn() + Sync)),
) -> Outcome {
    static ARRIVED: AtomicU32 = AtomicU32::new(0);
    let of = "Context";
    let before = ARRIVED.load(SeqCst);
    let saved = context.mask();
    raise(&|| {
        ARRIVED.fetch_add(1, SeqCst);
    });
    for _ in 0..10_000 {
        context.relax();
    }
    let early = ARRIVED.load(SeqCst) != before;
    context.restore(saved);
    expect(!early, of, "an interrupt arrived while interrupts were masked")?;
    for _ in 0..1_000_000 {
        if ARRIVED.load(SeqCst) != before {
            return Ok(());
        }
        context.relax();
    }
    expect(false, of, "an interrupt that came while they were masked was lost")
}

/// Checks page mapping on two pages from `at` on, which lie in its range: nothing is mapped there, and the
/// manager maps nothing there meanwhile. It takes the lowest addresses, and for `kmap` the highest.
///
/// `scratch` is RAM that the direct map reaches and that may be overwritten: at least four pages.
///
/// # Errors
///
/// The first promise that is not kept.
pub fn check_page_map<M: PageMap + DirectMap>(
    platform: &M,
    scratch: Range<PhysAddr>,
    at: VirtAddr,
) -> Outcome {
    let of = "PageMap";
    let page = 1usize << M::PAGE_SHIFT;
    let range = platform.range();
    let room = range.end.get().saturating_sub(range.start.get());
    expect(room >= 4 * page, of, "range() has fewer than four pages")?;
    let end = VirtAddr::new(at.get().wrapping_add(2 * page));
    expect(range.start <= at && end <= range.end, of, "range() has not the pages to be used")?;
    let first = scratch.start.frame(M::PAGE_SHIFT);
    let first = first.ok_or(Violation { of, what: "the scratch RAM has no frames" })?;
    // The same place for different frames in turn: a translation that is not forgotten shows.
    for round in 0..3u64 {
        let frame = first.checked_add(round % 2);
        let frame = frame.ok_or(Violation { of, what: "the scratch RAM has no frames" })?;
        // SAFETY: the frames are lent by the caller, and the pages are not mapped.
        let mapped = unsafe { platform.map(at, frame, 2, Caching::Cached) };
        expect(mapped.is_ok(), of, "map() of two pages failed")?;
        for index in 0..2u64 {
            let virt = VirtAddr::new(at.get() + index as usize * page);
            let phys = PhysAddr::new((frame.number() + index) << M::PAGE_SHIFT);
            let value = mark(1000 + round * 10 + index);
            // SAFETY: just mapped to a frame that the caller lends.
            unsafe { virt.as_ptr::<u64>().write_volatile(value) };
            let direct = platform.phys_to_virt(phys);
            let direct = direct.ok_or(Violation { of, what: "the scratch RAM is not reached" })?;
            // SAFETY: the frame is lent by the caller and in the direct map.
            let seen = unsafe { direct.as_ptr::<u64>().read_volatile() };
            expect(seen == value, of, "a mapped page is not the frame it was mapped to")?;
        }
        // SAFETY: mapped above, and not used any more.
        let gone = unsafe { platform.unmap(at, 2) };
        expect(gone.pages() == (at..end), of, "unmap() answers other pages")?;
        platform.flush(gone);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::desk::Desk;
    use std::vec;

    #[test]
    fn the_desk_keeps_the_contract() {
        let mut ram = vec![0; 1 << 20];
        // SAFETY: one thread.
        let desk = unsafe { Desk::<12>::new(&mut ram) };
        // SAFETY: nobody uses the RAM.
        let checked = unsafe { check(&desk, PhysAddr::new(0)..PhysAddr::new(8 << 12)) };
        assert_eq!(checked, Ok(()));
    }

    #[test]
    fn scratch_ram_that_is_not_reached_is_found() {
        let mut ram = vec![0; 1 << 20];
        // SAFETY: one thread.
        let desk = unsafe { Desk::<12>::new(&mut ram) };
        let outside = PhysAddr::new(1 << 30)..PhysAddr::new((1 << 30) + (8 << 12));
        // SAFETY: as above.
        assert_eq!(unsafe { check(&desk, outside) }.unwrap_err().of, "DirectMap");
    }
}
