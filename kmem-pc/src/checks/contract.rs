//! The contract between the manager and this machine.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use cases::{Failure, Machine as _, check, equal};
use kmem::platform::{PageMap, conformance};
use kmem::{GFP_KERNEL, PhysAddr};

use super::note;
use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::paging::PAGE;
use crate::{MM, apic, paging, probe, smp};

/// What an interrupt that a check raised is to call.
static RAISED: AtomicPtr<&'static (dyn Fn() + Sync)> = AtomicPtr::new(core::ptr::null_mut());

/// An interrupt arrived that somebody may have raised.
pub fn arrived() {
    // Acquire pairs with the Release in `kept`. SAFETY: what was put there stays.
    if let Some(handler) = unsafe { RAISED.load(Ordering::Acquire).as_ref() } {
        handler();
    }
}

/// The suites that come with the manager for every platform.
pub(super) fn kept(_: &Machine) -> Result<(), Failure> {
    let pages = MM.pages(GFP_KERNEL, 3)?;
    let start = paging::physical(pages.address());
    let scratch = PhysAddr::new(start)..PhysAddr::new(start + 8 * PAGE);
    let platform = MM.platform();
    let raise = |handler| {
        static HANDLER: spin::Once<&'static (dyn Fn() + Sync)> = spin::Once::new();
        let handler = HANDLER.call_once(|| handler);
        RAISED.store(core::ptr::from_ref(handler).cast_mut(), Ordering::Release);
        apic::send(apic::id(), apic::NUDGE);
    };
    // SAFETY: the pages are this function's.
    let checked = unsafe { conformance::check(platform, scratch.clone()) }
        .and_then(|()| conformance::check_clock(platform))
        .and_then(|()| conformance::check_interrupts(platform, &raise))
        .and_then(|()| conformance::check_page_map(platform, scratch));
    RAISED.store(core::ptr::null_mut(), Ordering::Release);
    if let Err(violation) = checked {
        note(format_args!("{violation}"));
        return Err(Failure::new("the platform keeps its contract"));
    }
    Ok(())
}

/// How many pages are mapped.
const PAGES: usize = 20;

/// A page that one CPU maps is seen by all, and by none when it is unmapped and forgotten.
pub(super) fn seen_by_all(machine: &Machine) -> Result<(), Failure> {
    let platform = MM.platform();
    let pages: Vec<_> = (0..PAGES).map(|_| MM.pages(GFP_KERNEL, 0)).collect::<Result<_, _>>()?;
    let first = platform.range().start;
    let address = |index: usize| first.get() + index * PAGE as usize;
    for (index, page) in pages.iter().enumerate() {
        let at = kmem::VirtAddr::new(address(index));
        // SAFETY: the page is this function's, which maps it once.
        let mapped = unsafe { platform.map(at, page.page().pfn(), 1) };
        check(mapped.is_ok(), "a page can be mapped")?;
    }
    let seen = AtomicU64::new(0);
    let look = || {
        machine.concurrently(&|_| {
            let there = (0..PAGES).filter_map(|index| probe::read(address(index))).count();
            seen.fetch_add(there as u64, Ordering::Relaxed);
        });
        seen.swap(0, Ordering::Relaxed)
    };
    let cpus = smp::online().count() as u64;
    equal(look(), cpus * PAGES as u64, "all CPUs see all pages")?;
    // SAFETY: nobody uses the addresses.
    unsafe { platform.unmap(first, PAGES) };
    platform.flush(first, PAGES);
    let own = Cpu::id();
    check(probe::read(address(0)).is_none(), "the CPU that unmapped a page does not see it")?;
    equal(look(), 0, "nor does any other")?;
    check(own == Cpu::id(), "a task stays on its CPU")
}
