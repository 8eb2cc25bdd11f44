//! G13: high memory, and the ways to see it.

use core::sync::atomic::Ordering::{Acquire, Release};
use core::sync::atomic::{AtomicBool, AtomicU64};

use kmem::highmem::{KM_IRQ0, KM_IRQ1, KM_TYPE_NR, KM_USER0, KM_USER1, KmType, KmapError, NESTED};
use kmem::platform::{Context, Cpus, DirectMap};
use kmem::{CpuId, GFP_ATOMIC, GFP_HIGHUSER, GFP_KERNEL, Gfp, Page, VirtAddr};

use crate::elsewhere::{in_interrupt, last_cpu, on_cpu, without_preemption};
use crate::failure::{at_least, check, equal, some};
use crate::hold::{Block, Hoard};
use crate::pages::{anywhere, high_memory};
use crate::{Case, Facts, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "a page of the direct map has one address however it is mapped",
                &["A269", "A273", "A277"],
                anywhere,
                low_pages,
            ),
            Case::new(
                "kmap gives a page of high memory an address that all CPUs see, until the last kunmap",
                &["A269", "A272", "A277"],
                high_memory,
                permanent,
            ),
            Case::new(
                "kmap waits where every slot is taken, and goes on after a kunmap",
                &["A270"],
                two_cpus_with_high_memory,
                exhaustion,
            ),
            Case::new(
                "permanent mappings lie where the kernel maps pages, outside of the direct map",
                &["A271"],
                high_memory,
                placement,
            ),
            Case::new(
                "kmap of high memory is reported and refused where sleeping is forbidden",
                &["A269"],
                high_memory,
                atomic_context,
            )
            .reports(2),
            Case::new(
                "kmap_atomic works in interrupts, in slots that each CPU has of its own, and \
                 forbids sleeping meanwhile",
                &["A273", "A275"],
                high_memory,
                atomic,
            ),
            Case::new(
                "each of the twenty types has a slot of its own",
                &["A274", "A273"],
                high_memory,
                all_types,
            ),
            Case::new(
                "a mapping in a slot that is in use takes its place and is reported",
                &["A276"],
                high_memory,
                overwritten,
            )
            .reports(2),
            Case::new(
                "kmap_local_page nests in any context and ends in the opposite order",
                &["A269", "A274"],
                high_memory,
                nested,
            ),
            Case::new(
                "mappings that end wrongly are reported",
                &["A270", "A275"],
                high_memory,
                wrong_ends,
            )
            .reports(8),
            Case::new(
                "what is written through one mapping is read through all others, on all CPUs and in \
                 interrupts",
                &["A269", "A270", "A273"],
                high_memory,
                load,
            ),
        ]
    }
}

fn two_cpus_with_high_memory(facts: &Facts) -> Result<(), &'static str> {
    if facts.has_highmem() && facts.cpus >= 2 {
        Ok(())
    } else {
        Err("RAM above the direct map, and two CPUs")
    }
}

/// A page of high memory.
#[track_caller]
fn high<M: Machine>(machine: &M) -> Result<Block<'_, M>, Failure> {
    let block = Block::new(machine, GFP_HIGHUSER, 0)?;
    let address = machine.mm().page_to_phys(block.page());
    check(address >= machine.mm().platform().limit(), "a page of high memory")?;
    Ok(block)
}

/// A word that tells pages, and places in them, apart.
fn word(page: Page, round: u64, index: usize) -> u64 {
    let seed = page.pfn().number() << 32 | round << 12 | index as u64;
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Writes a page from one end to the other through an address.
///
/// # Safety
///
/// The page is mapped there and the caller's.
unsafe fn write<M: Machine>(machine: &M, address: VirtAddr, page: Page, round: u64) {
    for index in 0..machine.facts().page_bytes() as usize / 8 {
        // SAFETY: the caller's promise.
        unsafe { address.as_ptr::<u64>().add(index).write_volatile(word(page, round, index)) };
    }
}

/// Whether a page has what [`write`] wrote.
///
/// # Safety
///
/// The page is mapped there.
unsafe fn is_written<M: Machine>(machine: &M, address: VirtAddr, page: Page, round: u64) -> bool {
    (0..machine.facts().page_bytes() as usize / 8).all(|index| {
        // SAFETY: the caller's promise.
        let found = unsafe { address.as_ptr::<u64>().add(index).read_volatile() };
        found == word(page, round, index)
    })
}

fn low_pages<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let block = Block::new(machine, GFP_KERNEL, 0)?;
    let page = block.page();
    let address = some(mm.page_address(page), "a page of the direct map has an address")?;
    let before = mm.kmap_info();
    check(mm.kmap(page)? == address, "kmap answers it")?;
    check(mm.kmap(page)? == address, "as often as it is asked")?;
    check(mm.kmap_local_page(page)? == address, "so does kmap_local_page")?;
    check(mm.kmap_atomic(page, KM_USER0)? == address, "so does kmap_atomic")?;
    check(mm.kmap_info() == before && mm.temporary_mappings() == 0, "no slot is taken")?;
    // SAFETY: each was mapped above; the direct map stays.
    unsafe {
        mm.kunmap_atomic(address, KM_USER0);
        mm.kunmap_local(address);
        mm.kunmap(page);
        mm.kunmap(page);
    }
    check(mm.page_address(page) == Some(address), "it is mapped for good")?;
    let in_handler = in_interrupt(machine, CpuId::BOOT, || Ok(mm.kmap(page)?))?;
    check(in_handler == address, "kmap of such a page need not sleep")?;
    check(!mm.platform().in_atomic(), "nothing is left of it")
}

fn permanent<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let block = high(machine)?;
    let page = block.page();
    let used = mm.kmap_info().used;
    check(mm.page_address(page).is_none(), "high memory has no address until it is mapped")?;
    let address = mm.kmap(page)?;
    check(mm.page_address(page) == Some(address), "then it has that one")?;
    check(mm.kmap_to_page(address) == Some(page), "which leads back to it")?;
    check(mm.kmap(page)? == address, "a page has one permanent mapping")?;
    equal(mm.kmap_info().used.into(), u64::from(used) + 1, "which takes one slot")?;
    // SAFETY: the page is ours and mapped.
    unsafe { write(machine, address, page, 1) };
    on_cpu(machine, last_cpu(machine), || {
        // SAFETY: as above; the boot CPU waits.
        let seen = unsafe { is_written(machine, address, page, 1) };
        check(seen, "another CPU reads what was written")?;
        // SAFETY: as above.
        unsafe { write(machine, address, page, 2) };
        Ok(())
    })?;
    // SAFETY: as above.
    check(unsafe { is_written(machine, address, page, 2) }, "and the other way round")?;
    // SAFETY: one of two mappings.
    unsafe { mm.kunmap(page) };
    check(mm.page_address(page) == Some(address), "a mapping lasts until the last kunmap")?;
    // SAFETY: the other one.
    unsafe { mm.kunmap(page) };
    check(mm.page_address(page).is_none(), "then the page has no address any more")?;
    check(mm.kmap_to_page(address).is_none(), "and nothing is mapped there")?;
    equal(mm.kmap_info().used.into(), used.into(), "and the slot can be had")?;
    // SAFETY: the page is ours.
    let mut bytes = unsafe { mm.kmap_bytes(page) }?;
    equal(bytes.len() as u64, machine.facts().page_bytes(), "all of the page is mapped")?;
    let first = word(page, 2, 0).to_ne_bytes();
    check(bytes.starts_with(&first), "the page has kept its contents")?;
    bytes.fill(0x5a);
    drop(bytes);
    check(mm.page_address(page).is_none(), "a mapping that is a value ends by itself")
}

fn exhaustion<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let slots = u64::from(mm.kmap_info().slots);
    at_least(slots, 1, "there are slots")?;
    let mut held = Hoard::new(machine);
    let mapped = AtomicU64::new(0);
    let result = exhaust(machine, &mut held, slots, &mapped);
    // Those that were mapped, and are still.
    let mut left = mapped.load(Acquire);
    let _ = held.each(|page, _| {
        if left > 0 && mm.page_address(page).is_some() {
            // SAFETY: mapped once by this case.
            unsafe { mm.kunmap(page) };
            left -= 1;
        }
        Ok(())
    });
    result?;
    equal(mm.kmap_info().used.into(), 0, "every slot is given back")
}

fn exhaust<'m, M: Machine>(
    machine: &'m M,
    held: &mut Hoard<'m, M>,
    slots: u64,
    mapped: &AtomicU64,
) -> Result<(), Failure> {
    let mm = machine.mm();
    // Twice as many pages one after the other: slots are used again.
    for round in 0..2 * slots {
        let block = high(machine)?;
        let page = block.page();
        held.push(block);
        let address = mm.kmap(page)?;
        // SAFETY: the page is ours and mapped.
        unsafe { address.as_ptr::<u64>().write_volatile(word(page, 0, 0)) };
        if round < slots {
            // SAFETY: mapped above.
            unsafe { mm.kunmap(page) };
        } else {
            mapped.fetch_add(1, Release);
        }
    }
    let info = mm.kmap_info();
    equal(info.used.into(), slots, "as many pages are mapped as there are slots")?;
    let mut different = 0;
    held.each(|page, _| {
        let Some(address) = mm.page_address(page) else { return Ok(()) };
        // SAFETY: mapped, and ours.
        let found = unsafe { address.as_ptr::<u64>().read_volatile() };
        different += u64::from(found != word(page, 0, 0));
        Ok(())
    })?;
    equal(different, 0, "each slot shows its own page")?;
    // One page more, by a task of another CPU, while this one holds all slots.
    let one_more = high(machine)?;
    let (last, page) = (last_cpu(machine), one_more.page());
    let (went_on, waited, wrong) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
    let mut victim = None;
    held.each(|page, _| {
        victim = victim.or(mm.page_address(page).map(|_| page));
        Ok(())
    })?;
    let victim = some(victim, "a page that is mapped")?;
    machine.concurrently(&|cpu| {
        if cpu == last {
            match mm.kmap(page) {
                Ok(address) => {
                    // SAFETY: the page is ours and mapped.
                    unsafe { address.as_ptr::<u64>().write_volatile(7) };
                    went_on.store(true, Release);
                    // SAFETY: mapped above.
                    unsafe { mm.kunmap(page) };
                }
                Err(_) => {
                    wrong.store(true, Release);
                    went_on.store(true, Release);
                }
            }
        } else if cpu == CpuId::BOOT {
            while mm.kmap_info().waiting == 0 && !went_on.load(Acquire) {
                mm.platform().relax();
            }
            waited.store(!went_on.load(Acquire), Release);
            // SAFETY: mapped once by this case.
            unsafe { mm.kunmap(victim) };
            mapped.fetch_sub(1, Release);
        }
    });
    check(waited.load(Acquire), "kmap waits while every slot is taken")?;
    check(went_on.load(Acquire) && !wrong.load(Acquire), "and has one after a kunmap")?;
    equal(mm.kmap_info().waiting.into(), 0, "nobody waits any more")
}

fn placement<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let (window, block) = (mm.kmap_window(), high(machine)?);
    let range = some(mm.platform().page_map(), "the machine maps pages")?.range();
    check(window.start >= range.start && window.end == range.end, "they end where the range does")?;
    let bytes = (window.end.get() - window.start.get()) as u64;
    let slots = u64::from(mm.kmap_info().slots);
    equal(bytes, slots * machine.facts().page_bytes(), "a page for each slot")?;
    let address = mm.kmap(block.page())?;
    let (inside, direct) =
        (window.contains(&address), mm.platform().virt_to_phys(address).is_some());
    let known = mm.virt_to_page(address).is_some();
    // SAFETY: mapped above.
    unsafe { mm.kunmap(block.page()) };
    check(inside, "a permanent mapping lies there")?;
    check(!direct && !known, "and is no address of the direct map")
}

fn atomic_context<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let block = high(machine)?;
    let refused = |result| check(result == Err(KmapError::AtomicContext), "kmap is refused");
    in_interrupt(machine, CpuId::BOOT, || refused(mm.kmap(block.page())))?;
    without_preemption(machine, || refused(mm.kmap(block.page())))?;
    check(mm.page_address(block.page()).is_none(), "nothing was mapped")
}

fn atomic<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let (block, other) = (high(machine)?, high(machine)?);
    let (page, other) = (block.page(), other.page());
    check(!mm.platform().in_atomic(), "a task may sleep")?;
    let address = mm.kmap_atomic(page, KM_USER0)?;
    let atomic = mm.platform().in_atomic();
    // SAFETY: the page is ours and mapped.
    unsafe { write(machine, address, page, 1) };
    let apart = in_interrupt(machine, CpuId::BOOT, || {
        let inner = mm.kmap_atomic(other, KM_IRQ0)?;
        // SAFETY: the page is the case's and mapped here.
        unsafe {
            write(machine, inner, other, 2);
            let good = is_written(machine, inner, other, 2);
            mm.kunmap_atomic(inner, KM_IRQ0);
            check(good, "a handler writes and reads its page")?;
        }
        Ok(inner != address)
    });
    // SAFETY: as above.
    let kept = unsafe { is_written(machine, address, page, 1) };
    // SAFETY: mapped above, and used no more.
    unsafe { mm.kunmap_atomic(address, KM_USER0) };
    check(apart?, "another type is another slot")?;
    check(atomic, "sleeping is forbidden until kunmap_atomic")?;
    check(kept, "a handler's mappings leave those of what it interrupted alone")?;
    check(!mm.platform().in_atomic(), "then it is allowed again")?;
    check(mm.page_address(page).is_none(), "a temporary mapping is no address of the page")?;
    // The same type on every CPU at once.
    let last = last_cpu(machine);
    let there = on_cpu(machine, last, || {
        let there = mm.kmap_atomic(page, KM_USER0)?;
        // SAFETY: the page is the case's and mapped; unmapped after its last use.
        let seen = unsafe {
            let seen = is_written(machine, there, page, 1);
            mm.kunmap_atomic(there, KM_USER0);
            seen
        };
        check(seen, "another CPU sees the page")?;
        Ok(there)
    })?;
    check(last == CpuId::BOOT || there != address, "in a slot of its own")?;
    let again = mm.kmap_atomic(other, KM_USER0)?;
    // SAFETY: as above.
    let seen = unsafe {
        let seen = is_written(machine, again, other, 2);
        mm.kunmap_atomic(again, KM_USER0);
        seen
    };
    check(seen && again == address, "a slot shows what was mapped in it last")
}

fn all_types<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    equal(KM_TYPE_NR as u64, 20, "there are twenty")?;
    equal(KmType::ALL.len() as u64, 20, "all of which can be named")?;
    let mut pages = [const { None }; KM_TYPE_NR];
    for place in &mut pages {
        *place = Some(high(machine)?);
    }
    let page = |slot: KmType| pages[slot as usize].as_ref().map(Block::page);
    let mut addresses = [VirtAddr::new(0); KM_TYPE_NR];
    for slot in KmType::ALL {
        let page = some(page(slot), "a page")?;
        let Ok(address) = mm.kmap_atomic(page, slot) else { continue };
        // SAFETY: the page is ours and mapped.
        unsafe { write(machine, address, page, slot as u64) };
        addresses[slot as usize] = address;
    }
    let live = mm.temporary_mappings();
    let (mut good, mut apart) = (true, true);
    // Not in the order in which they began, nor in the opposite one.
    for number in (0..KM_TYPE_NR).map(|number| number * 7 % KM_TYPE_NR) {
        let (slot, address) = (KmType::ALL[number], addresses[number]);
        apart &= addresses.iter().filter(|other| **other == address).count() == 1;
        let Some(page) = page(slot) else { continue };
        // SAFETY: the page is ours and mapped, and unmapped after its last use.
        unsafe {
            good &= is_written(machine, address, page, slot as u64);
            mm.kunmap_atomic(address, slot);
        }
    }
    equal(live.into(), KM_TYPE_NR as u64, "all can be mapped at once")?;
    check(apart, "each at an address of its own")?;
    check(good, "each shows its own page")?;
    check(!mm.platform().in_atomic(), "when all have ended, the task may sleep")
}

fn overwritten<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let (first, second) = (high(machine)?, high(machine)?);
    for (block, round) in [(&first, 1), (&second, 2)] {
        // SAFETY: the page is ours.
        let mapped = unsafe { mm.kmap_bytes(block.page()) }?;
        // SAFETY: as above; it is mapped.
        unsafe { write(machine, mapped.address(), block.page(), round) };
    }
    let before = machine.misuses();
    let address = mm.kmap_atomic(first.page(), KM_USER1)?;
    let over = mm.kmap_atomic(second.page(), KM_USER1);
    let reported = machine.misuses() - before;
    // SAFETY: whatever became of the first, this page is mapped now.
    let shown = over.is_ok_and(|over| unsafe { is_written(machine, over, second.page(), 2) });
    // SAFETY: mapped above.
    unsafe { mm.kunmap_atomic(address, KM_USER1) };
    check(over == Ok(address), "the next mapping in a slot is at the same address")?;
    check(shown, "and shows its own page")?;
    equal(reported, 1, "that the last one had not ended is reported")?;
    check(mm.temporary_mappings() == 0 && !mm.platform().in_atomic(), "one end ends it")?;
    let before = machine.misuses();
    // SAFETY: a mistake, which is found: that mapping is gone.
    unsafe { mm.kunmap_atomic(address, KM_USER1) };
    equal(machine.misuses() - before, 1, "the end of what was overwritten is reported, too")?;
    // SAFETY: the page is ours.
    let mapped = unsafe { mm.kmap_bytes(first.page()) }?;
    // SAFETY: as above; it is mapped.
    let kept = unsafe { is_written(machine, mapped.address(), first.page(), 1) };
    check(kept, "the page that was overwritten in the slot has its contents")
}

fn nested<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let mut pages = [const { None }; NESTED];
    for place in &mut pages {
        *place = Some(high(machine)?);
    }
    let mut addresses = [VirtAddr::new(0); NESTED];
    let one = |index: usize| some(pages[index].as_ref().map(Block::page), "a page");
    let (mut good, mut in_handlers) = (true, Ok(()));
    for (index, address) in addresses.iter_mut().enumerate() {
        let Ok(mapped) = mm.kmap_local_page(one(index)?) else { break };
        *address = mapped;
        // SAFETY: the page is ours and mapped.
        unsafe { write(machine, mapped, one(index)?, 3) };
        if index + 1 < NESTED {
            // The page that comes next: nobody else has it mapped yet.
            let page = one(index + 1)?;
            in_handlers = in_handlers.and(in_interrupt(machine, CpuId::BOOT, || {
                // SAFETY: the page is the case's.
                let bytes = unsafe { mm.kmap_local(page) }?;
                // SAFETY: mapped.
                unsafe { write(machine, bytes.address(), page, 9) };
                // SAFETY: mapped.
                let kept = unsafe { is_written(machine, bytes.address(), page, 9) };
                check(kept && bytes.address() != mapped, "a handler has the next slot")
            }));
        }
    }
    let live = mm.temporary_mappings();
    let too_deep = mm.kmap_local_page(one(0)?);
    let cleared = mm.alloc_page(GFP_ATOMIC | Gfp::HIGHMEM | Gfp::ZERO);
    for (index, address) in addresses.iter().enumerate().rev().filter(|(_, a)| a.get() != 0) {
        // SAFETY: the page is ours and mapped, and unmapped after its last use.
        unsafe {
            good &= is_written(machine, *address, one(index)?, 3);
            mm.kunmap_local(*address);
        }
    }
    if let Ok(page) = cleared {
        // SAFETY: just allocated.
        drop(unsafe { Block::own(machine, page, 0) });
    }
    in_handlers?;
    equal(live.into(), NESTED as u64, "as many as there are slots nest")?;
    check(too_deep == Err(KmapError::TooDeep), "one more is refused")?;
    check(cleared.is_ok(), "pages can be cleared all the same")?;
    check(good, "each shows its own page")?;
    check(mm.temporary_mappings() == 0 && !mm.platform().in_atomic(), "all have ended")
}

fn wrong_ends<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let (block, other) = (high(machine)?, high(machine)?);
    let page = block.page();
    let mut reports = machine.misuses();
    let mut said = |count: u64, what| {
        let before = core::mem::replace(&mut reports, machine.misuses());
        equal(machine.misuses() - before, count, what)
    };
    // SAFETY: a mistake that is found; nothing is mapped.
    unsafe { mm.kunmap(page) };
    said(1, "kunmap of a page that is not mapped is reported")?;
    let address = mm.kmap(page)?;
    // SAFETY: the first is right.
    unsafe {
        mm.kunmap(page);
        mm.kunmap(page);
    }
    said(1, "kunmap once too often is reported")?;
    // SAFETY: as above.
    unsafe { mm.kunmap_local(address) };
    said(1, "so is the end of a temporary mapping that there is not")?;
    let address = mm.kmap_atomic(page, KM_USER0)?;
    // SAFETY: the last is right.
    unsafe {
        mm.kunmap_atomic(address, KM_IRQ1);
        mm.kunmap_atomic(VirtAddr::new(address.get() + 8), KM_USER0);
        mm.kunmap_local(address);
        mm.kunmap_atomic(address, KM_USER0);
    }
    said(3, "another type, address or kind is reported and ends nothing")?;
    let outer = mm.kmap_local_page(page)?;
    let inner = mm.kmap_local_page(other.page());
    // SAFETY: in the wrong order.
    unsafe {
        mm.kunmap_local(outer);
        if let Ok(inner) = inner {
            mm.kunmap_local(inner);
        }
    }
    said(1, "an end out of order is reported")?;
    check(mm.temporary_mappings() == 0 && !mm.platform().in_atomic(), "and all have ended")?;
    let gone = other.page();
    other.free();
    let refused = mm.kmap_local_page(gone);
    said(1, "so is a mapping of a page that is free")?;
    check(refused == Err(KmapError::NotInUse(gone.pfn())), "which is refused")
}

/// How many pages every CPU has, how often each is written.
const PAGES: usize = 24;
const ROUNDS: u64 = 40;

fn load<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let good = AtomicU64::new(0);
    let cpus = u64::from(machine.facts().cpus);
    let work = |cpu: CpuId| -> Result<(), Failure> {
        let mut pages = [const { None }; PAGES];
        for place in &mut pages {
            *place = Some(high(machine)?);
        }
        let page = |index: usize| some(pages[index % PAGES].as_ref().map(Block::page), "a page");
        for round in 0..ROUNDS {
            for index in 0..PAGES {
                let (here, next) = (page(index)?, page(index + 1)?);
                let address = mm.kmap(here)?;
                // SAFETY: the page is this CPU's alone, and mapped.
                unsafe { write(machine, address, here, round) };
                // SAFETY: as above.
                check(unsafe { is_written(machine, address, here, round) }, "at once")?;
                let seen = mm.kmap_local_page(here)?;
                let to = mm.kmap_atomic(next, KM_USER0)?;
                // SAFETY: as above.
                let same = unsafe {
                    let same = is_written(machine, seen, here, round);
                    write(machine, to, next, round);
                    let same = same && is_written(machine, to, next, round);
                    mm.kunmap_atomic(to, KM_USER0);
                    mm.kunmap_local(seen);
                    mm.kunmap(here);
                    same
                };
                check(same, "through any mapping")?;
                if index % 8 == 0 {
                    in_interrupt(machine, cpu, || {
                        // SAFETY: as above: what the handler interrupts waits for it.
                        unsafe {
                            mm.copy_highpage(here, next)?;
                            let bytes = mm.kmap_local(here)?;
                            let copied = is_written(machine, bytes.address(), next, round);
                            check(copied, "a handler copies a page")?;
                        }
                        Ok(())
                    })?;
                }
            }
        }
        good.fetch_add(1, Release);
        Ok(())
    };
    let failure = Answers::new();
    machine.concurrently(&|cpu| failure.note(work(cpu)));
    failure.first()?;
    equal(good.load(Acquire), cpus, "every CPU has read what it wrote")?;
    equal(mm.kmap_info().used.into(), 0, "and has ended its mappings")
}

/// The first failure of several tasks.
struct Answers {
    taken: AtomicBool,
    failure: core::cell::UnsafeCell<Option<Failure>>,
}

// SAFETY: whoever takes the place first writes it, once; it is read by value when nobody else has it.
unsafe impl Sync for Answers {}

impl Answers {
    fn new() -> Answers {
        Answers { taken: AtomicBool::new(false), failure: core::cell::UnsafeCell::new(None) }
    }

    fn note(&self, result: Result<(), Failure>) {
        if let Err(failure) = result
            && !self.taken.swap(true, Release)
        {
            // SAFETY: this call alone took the place.
            unsafe { *self.failure.get() = Some(failure) };
        }
    }

    fn first(self) -> Result<(), Failure> {
        self.failure.into_inner().map_or(Ok(()), Err)
    }
}
