//! G5: the CPUs' own page lists.

use kmem::{CpuId, GFP_KERNEL, Gfp, PagesetInfo, Zone};

use crate::elsewhere::{last_cpu, on_cpu};
use crate::failure::{at_least, at_most, check, equal, some};
use crate::hold::{Block, Hoard};
use crate::pressure::{ORDINARY, preferred};
use crate::{Case, Facts, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "single pages come from the CPU's list; it is filled and drained by the batch",
                &["A084"],
                with_lists,
                batches,
            ),
            Case::new(
                "pages freed hot are allocated first, pages freed cold last",
                &["A054", "A085"],
                with_lists,
                hot_and_cold,
            ),
            Case::new(
                "__GFP_COLD takes the page that is least likely in the CPU's cache",
                &["A105"],
                with_lists,
                cold_requests,
            ),
            Case::new(
                "pages on lists count as free, and draining leaves none there",
                &["A086"],
                with_lists,
                draining,
            ),
            Case::new(
                "a CPU that goes away takes no page with it",
                &["A086"],
                with_lists_of_two,
                a_cpu_goes,
            ),
            Case::new(
                "pages on another CPU's list are had back before a request fails",
                &["A086"],
                with_lists_of_two,
                pressure_drains,
            ),
        ]
    }
}

fn with_lists(facts: &Facts) -> Result<(), &'static str> {
    if facts.pagesets { Ok(()) } else { Err("per-CPU page lists") }
}

fn with_lists_of_two(facts: &Facts) -> Result<(), &'static str> {
    if facts.pagesets && facts.cpus > 1 { Ok(()) } else { Err("page lists of two CPUs") }
}

/// A CPU's page set for a zone.
fn set_of<M: Machine>(machine: &M, zone: &Zone, cpu: CpuId) -> Result<PagesetInfo, Failure> {
    let mut sets = machine.mm().pagesets(zone);
    some(sets.find(|set| set.cpu == cpu), "a CPU has a page set for each zone")
}

/// The zone that single pages for the kernel come from on the boot CPU.
fn zone_of<M: Machine>(machine: &M) -> Result<&Zone, Failure> {
    some(preferred(machine, GFP_KERNEL), "there is a zone for the kernel")
}

fn batches<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    mm.drain_all_pages();
    let zone = zone_of(machine)?;
    let set = set_of(machine, zone, CpuId::BOOT)?;
    let (high, batch) = (u64::from(set.high), u64::from(set.batch));
    at_least(batch, 2, "a batch is several pages")?;
    equal(set.count, 0, "a drained list is empty")?;
    let listed = || Ok::<u64, Failure>(set_of(machine, zone, CpuId::BOOT)?.count);

    // The zone's count of free pages changes only under its lock: where it does not change, the
    // lock was not needed.
    let mut held = Hoard::new(machine);
    let start = zone.free_pages();
    for taken in 0..high + batch {
        let before = zone.free_pages();
        held.push(Block::new(machine, GFP_KERNEL, 0)?);
        let moved = before - zone.free_pages();
        let wanted = if taken % batch == 0 { batch } else { 0 };
        equal(moved, wanted, "a batch leaves the zone when the list is empty, else nothing")?;
        equal(listed()?, batch - 1 - taken % batch, "the rest of the batch is on the list")?;
    }
    let mut on_list = listed()?;
    while let Some(block) = held.pop() {
        let before = zone.free_pages();
        block.free();
        let moved = zone.free_pages() - before;
        let wanted = if on_list == high { batch } else { 0 };
        equal(moved, wanted, "a batch goes to the zone when the list is full, else nothing")?;
        on_list = on_list + 1 - moved;
        equal(listed()?, on_list, "a page that is freed goes to the list")?;
    }
    at_least(start - zone.free_pages(), 1, "pages are still on the list")?;
    mm.drain_all_pages();
    equal(zone.free_pages(), start, "until it is drained")
}

/// Eight pages with the list's state known: they are freed in order, the first with `first`, and
/// the frames are answered, the first freed first.
fn eight_freed<M: Machine>(
    machine: &M,
    first: impl FnOnce(kmem::Page),
) -> Result<[u64; 8], Failure> {
    let mut pages = [None; 8];
    equal(machine.mm().alloc_pages_bulk(GFP_KERNEL, &mut pages) as u64, 8, "eight pages")?;
    let mut frames = [0; 8];
    for (page, frame) in pages.into_iter().flatten().zip(&mut frames) {
        *frame = page.pfn().number();
    }
    let mut pages = pages.into_iter().flatten();
    if let Some(page) = pages.next() {
        first(page);
    }
    for page in pages {
        // SAFETY: allocated above.
        unsafe { machine.mm().free_hot_page(page) };
    }
    Ok(frames)
}

fn hot_and_cold<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    mm.drain_all_pages();
    // SAFETY: the page is the caller's to free.
    let frames = eight_freed(machine, |page| unsafe { mm.free_cold_page(page) })?;
    let count = set_of(machine, zone_of(machine)?, CpuId::BOOT)?.count;
    let mut held = Hoard::new(machine);
    for (taken, frame) in frames.iter().skip(1).rev().enumerate() {
        let block = Block::new(machine, GFP_KERNEL, 0)?;
        equal(block.frame(), *frame, "the page that was freed hot last is allocated first")?;
        held.push(block);
        check(taken < 7, "seven pages were freed hot")?;
    }
    for _ in held.pages()..count {
        let block = Block::new(machine, GFP_KERNEL, 0)?;
        let last = held.pages() + 1 == count;
        let cold = block.frame() == frames[0];
        check(cold == last, "the page that was freed cold is the last of the list")?;
        held.push(block);
    }
    Ok(())
}

fn cold_requests<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    mm.drain_all_pages();
    // SAFETY: the page is the caller's to free.
    let frames = eight_freed(machine, |page| unsafe { mm.free_cold_page(page) })?;
    let cold = Block::new(machine, GFP_KERNEL | Gfp::COLD, 0)?;
    equal(cold.frame(), frames[0], "a cold request gets the coldest page")?;
    let hot = Block::new(machine, GFP_KERNEL, 0)?;
    equal(hot.frame(), frames[7], "and leaves the hottest to others")
}

/// Puts pages on a CPU's lists.
fn fill_list<M: Machine>(machine: &M, cpu: CpuId) -> Result<(), Failure> {
    on_cpu(machine, cpu, || {
        for order in 0..3 {
            let blocks = [(); 4].map(|()| Block::new(machine, GFP_KERNEL, order));
            for block in blocks {
                block?.free();
            }
        }
        Ok(())
    })
}

fn draining<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    mm.drain_all_pages();
    let free = mm.free_page_count();
    for cpu in (0..machine.facts().cpus).filter_map(CpuId::new) {
        fill_list(machine, cpu)?;
    }
    let in_zones = || mm.zones().iter().map(Zone::free_pages).sum::<u64>();
    let listed = mm.listed_pages();
    at_least(listed, machine.facts().cpus.into(), "there are pages on every CPU's lists")?;
    equal(in_zones() + listed, free, "pages are in a zone or on a list")?;
    equal(mm.free_page_count(), free, "and free in both cases")?;
    mm.drain_local_pages();
    let own: u64 = mm
        .zones()
        .iter()
        .filter_map(|zone| set_of(machine, zone, CpuId::BOOT).ok())
        .map(|set| set.count)
        .sum();
    equal(own, 0, "draining the CPU's own lists leaves none there")?;
    if machine.facts().cpus > 1 {
        at_least(mm.listed_pages(), 1, "and leaves the others' alone")?;
    }
    mm.drain_all_pages();
    equal(mm.listed_pages(), 0, "draining all lists leaves none anywhere")?;
    equal(in_zones(), free, "and loses none")
}

fn a_cpu_goes<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let cpu = last_cpu(machine);
    mm.drain_all_pages();
    let free = mm.free_page_count();
    fill_list(machine, cpu)?;
    at_least(mm.listed_pages(), 1, "the CPU's lists hold pages")?;
    machine.offline(cpu)?;
    check(!mm.is_online(cpu), "the CPU is gone")?;
    equal(mm.listed_pages(), 0, "and its lists with it")?;
    equal(mm.free_page_count(), free, "but none of its pages")?;
    mm.drain_all_pages();
    machine.online(cpu)?;
    fill_list(machine, cpu)?;
    at_least(mm.listed_pages(), 1, "when it comes back it has lists again")?;
    equal(mm.free_page_count(), free, "and as many pages are free")
}

fn pressure_drains<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let cpu = last_cpu(machine);
    mm.drain_all_pages();
    fill_list(machine, cpu)?;
    let listed = mm.listed_pages();
    at_least(listed, 1, "the other CPU's lists hold pages")?;
    let mut held = Hoard::new(machine);
    while let Ok(page) = mm.alloc_page(ORDINARY) {
        // SAFETY: just allocated.
        held.push(unsafe { Block::own(machine, page, 0) });
    }
    let left: u64 = mm
        .zones()
        .iter()
        .filter_map(|zone| set_of(machine, zone, cpu).ok())
        .map(|set| set.count)
        .sum();
    at_most(left, 0, "when a request fails, nothing is left on the other CPU's lists")
}
