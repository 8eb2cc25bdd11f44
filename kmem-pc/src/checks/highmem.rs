//! High memory: that nothing reaches it but mappings, and that these are made in any context.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cases::{Facts, Failure, at_least, check, equal};
use kmem::highmem::{KM_IRQ0, KM_NMI, KM_USER0, KmType, KmapError};
use kmem::platform::DirectMap;
use kmem::{GFP_HIGHUSER, Gfp, Page, Pfn};

use super::note;
use super::steps::step;
use crate::cpu::{Cpu, INTERRUPTS};
use crate::machine::Machine;
use crate::paging::PAGE;
use crate::{MM, direct, probe};

pub(super) fn there_is_some(facts: &Facts) -> Result<(), &'static str> {
    if facts.has_highmem() { Ok(()) } else { Err("RAM above the direct map") }
}

/// How many frames lie between two that are looked at.
const STRIDE: usize = 64;

/// A page of high memory.
fn high(gfp: Gfp) -> Result<Page, Failure> {
    let page = MM.alloc_page(GFP_HIGHUSER | gfp)?;
    if MM.page_to_phys(page) < MM.platform().limit() {
        // SAFETY: it was just allocated.
        unsafe { MM.__free_page(page) };
        return Err(Failure::new("a page of high memory"));
    }
    Ok(page)
}

/// Reads high memory where the direct map would have it, which is a fault each time, and a page of it in a
/// slot, before, while and after it is mapped there.
pub(super) fn out_of_reach(_: &Machine) -> Result<(), Failure> {
    let frames = MM.frames().ok_or(Failure::new("the manager is booted"))?;
    let limit = MM.platform().limit().get();
    let seen = |address: u64| probe::read(direct::BASE + address as usize).is_some();
    check(seen(limit - PAGE), "the direct map reaches up to its end")?;
    let mut looked: u64 = 0;
    for (range, _) in frames.ram() {
        let last = range.end - 1;
        for number in range.step_by(STRIDE).chain([last]).filter(|number| number * PAGE >= limit) {
            check(!seen(number * PAGE), "and to no frame behind it")?;
            looked += 1;
        }
    }
    at_least(looked, 100, "so many frames were looked at")?;
    let page = high(Gfp::NONE)?;
    let mapped = MM.kmap_atomic(page, KM_USER0).map(|address| {
        // SAFETY: the page is this function's, and is mapped until `kunmap_atomic`.
        unsafe {
            address.as_ptr::<u64>().write_volatile(page.pfn().number());
            let there = probe::read(address.get());
            MM.kunmap_atomic(address, KM_USER0);
            (there, probe::read(address.get()))
        }
    });
    // SAFETY: as above.
    unsafe { MM.__free_page(page) };
    let (during, after) = mapped?;
    check(during == Some(page.pfn().number()), "a page is seen where it is mapped")?;
    check(after.is_none(), "and not any more when that has ended")?;
    note(format_args!("{looked} frames of high memory, and none of them in reach"));
    Ok(())
}

/// The page that the handlers of single steps map, and what they have come to.
static PAGE_OF_HANDLERS: AtomicU64 = AtomicU64::new(0);
static OPEN: AtomicU64 = AtomicU64::new(0);
static MASKED: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);

/// Adds 1 to the first word of a page of high memory, and answers what it was.
fn count(page: Page, slot: KmType) -> Result<u64, KmapError> {
    let address = MM.kmap_atomic(page, slot)?;
    let word = address.as_ptr::<u64>();
    // SAFETY: the page is the check's, and is mapped until `kunmap_atomic`.
    unsafe {
        let was = word.read_volatile();
        word.write_volatile(was + 1);
        MM.kunmap_atomic(address, slot);
        Ok(was)
    }
}

/// An instruction was executed with the trap flag set: as [`step`] wants it.
fn stepped(flags: u64) {
    let (cpu, page) = (Cpu::current(), Pfn::new(PAGE_OF_HANDLERS.load(Relaxed)));
    let turn = |slot| {
        let before = OPEN.load(Relaxed) + MASKED.load(Relaxed);
        let was = page.and_then(|pfn| MM.pfn_to_page(pfn)).map(|page| count(page, slot));
        WRONG.fetch_add(u64::from(was != Some(Ok(before))), Relaxed);
    };
    if flags & INTERRUPTS != 0 {
        cpu.interrupted(|| turn(KM_IRQ0));
        OPEN.fetch_add(1, Relaxed);
    } else {
        cpu.interrupted_by_nmi(|| turn(KM_NMI));
        MASKED.fetch_add(1, Relaxed);
    }
}

/// How often each way to see a page is stepped.
const ROUNDS: u64 = 20;

/// Maps a page in each of the ways there are, with a handler after each instruction that maps another one.
pub(super) fn at_every_instruction(_: &Machine) -> Result<(), Failure> {
    let (own, handlers) = (high(Gfp::ZERO)?, high(Gfp::ZERO)?);
    PAGE_OF_HANDLERS.store(handlers.pfn().number(), Relaxed);
    [&OPEN, &MASKED, &WRONG].iter().for_each(|count| count.store(0, Relaxed));
    let done = step(stepped, || -> Result<(), Failure> {
        for _ in 0..ROUNDS {
            count(own, KM_USER0)?;
            let address = MM.kmap_local_page(own)?;
            // SAFETY: the page is this function's, and is mapped until `kunmap_local`.
            unsafe {
                let word = address.as_ptr::<u64>();
                word.write_volatile(word.read_volatile() + 1);
                MM.kunmap_local(address);
            }
            let address = MM.kmap(own)?;
            // SAFETY: as above, until `kunmap`.
            unsafe {
                let word = address.as_ptr::<u64>();
                word.write_volatile(word.read_volatile() + 1);
                MM.kunmap(own);
            }
        }
        Ok(())
    });
    let (turns, steps) = (count(own, KM_USER0)?, OPEN.load(Relaxed) + MASKED.load(Relaxed));
    let handled = count(handlers, KM_USER0)?;
    // SAFETY: allocated above, and mapped no more.
    unsafe {
        MM.__free_page(own);
        MM.__free_page(handlers);
    }
    done?;
    equal(WRONG.load(Relaxed), 0, "each handler finds what the last one left in its page")?;
    equal(handled, steps, "and all of them have written it")?;
    equal(turns, 3 * ROUNDS, "what they interrupted has kept its page")?;
    at_least(OPEN.load(Relaxed), 1000, "so many instructions let interrupts in")?;
    at_least(MASKED.load(Relaxed), 100, "so many instructions masked them")?;
    let (open, masked) = (OPEN.load(Relaxed), MASKED.load(Relaxed));
    note(format_args!("{open} instructions with an interrupt and {masked} with an NMI after them"));
    Ok(())
}
