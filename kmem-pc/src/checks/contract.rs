//! The contract between the manager and this machine.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use cases::{Failure, Machine as _, check, equal};
use kmem::platform::conformance::{self, Violation};
use kmem::platform::{Caching, PageMap};
use kmem::{GFP_KERNEL, PhysAddr, VirtAddr};

use super::note;
use crate::apic::ON_NUDGE;
use crate::cpu::Cpu;
use crate::machine::Machine;
use crate::paging::PAGE;
use crate::{MM, apic, paging, probe, smp, task};

/// What an interrupt that a check raised is to call: the check's own function, which is one.
static HANDLER: spin::Once<&'static (dyn Fn() + Sync)> = spin::Once::new();

fn arrived((): ()) {
    if let Some(handler) = HANDLER.get() {
        handler();
    }
}

/// The suites that come with the manager for every platform, on each CPU.
pub(super) fn kept(_: &Machine) -> Result<(), Failure> {
    ON_NUDGE.set(arrived);
    let violated = spin::Mutex::new(None);
    for cpu in smp::online() {
        let ran = task::run_on(cpu.get(), &|| {
            if let Err(violation) = check_here() {
                *violated.lock() = Some(violation);
            }
        });
        check(ran.is_ok(), "there is a stack for a task")?;
    }
    ON_NUDGE.clear();
    match violated.into_inner() {
        None => Ok(()),
        Some(violation) => {
            note(format_args!("{violation}"));
            Err(Failure::new("the platform keeps its contract"))
        }
    }
}

/// On the running CPU.
fn check_here() -> Result<(), Violation> {
    let out_of_memory = Violation { of: "Mm", what: "there are eight pages" };
    let pages = MM.pages(GFP_KERNEL, 3).map_err(|_| out_of_memory)?;
    let start = paging::physical(pages.address());
    let scratch = PhysAddr::new(start)..PhysAddr::new(start + 8 * PAGE);
    let platform = MM.platform();
    let raise = |handler| {
        HANDLER.call_once(|| handler);
        apic::send(apic::id(), apic::NUDGE);
    };
    // SAFETY: the pages are this function's.
    unsafe { conformance::check(platform, scratch.clone()) }?;
    conformance::check_clock(platform)?;
    conformance::check_interrupts(platform, &raise)?;
    conformance::check_page_map(platform, scratch, unused())
}

/// Where the manager maps nothing: it takes the lowest addresses, and for `kmap` the highest.
fn unused() -> VirtAddr {
    let range = MM.platform().range();
    VirtAddr::new(range.start.get() + (range.end.get() - range.start.get()) / 2)
}

/// How many pages are mapped.
const PAGES: usize = 20;

/// A page that one CPU maps is seen by all, and by none when it is unmapped and forgotten.
pub(super) fn seen_by_all(machine: &Machine) -> Result<(), Failure> {
    let platform = MM.platform();
    let pages: Vec<_> = (0..PAGES).map(|_| MM.pages(GFP_KERNEL, 0)).collect::<Result<_, _>>()?;
    let first = unused();
    let address = |index: usize| first.get() + index * PAGE as usize;
    for (index, page) in pages.iter().enumerate() {
        let at = VirtAddr::new(address(index));
        // SAFETY: the page is this function's, which maps it once.
        let mapped = unsafe { platform.map(at, page.page().pfn(), 1, Caching::Cached) };
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
    let gone = unsafe { platform.unmap(first, PAGES) };
    platform.flush(gone);
    let own = Cpu::id();
    check(probe::read(address(0)).is_none(), "the CPU that unmapped a page does not see it")?;
    equal(look(), 0, "nor does any other")?;
    check(own == Cpu::id(), "a task stays on its CPU")
}
