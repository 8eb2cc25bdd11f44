//! G2 and G7d: what happens as memory runs low.

use core::sync::atomic::{AtomicU64, Ordering};

use kmem::{GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, Gfp, NodeId, Zone};

use crate::buddy::Random;
use crate::failure::{at_least, at_most, check, equal, no_memory, some};
use crate::hold::{Block, Hoard};
use crate::pages::anywhere;
use crate::pressure::{EVERYTHING, ORDINARY, is_down_to_min, left_for, preferred, press};
use crate::{Case, Facts, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "below the low mark background reclaim is woken, at the min mark the caller reclaims",
                &["A026"],
                anywhere,
                three_marks,
            ),
            Case::new(
                "under the same pressure GFP_KERNEL gets most, then GFP_ATOMIC, then GFP_NOWAIT",
                &["A138"],
                anywhere,
                success_by_priority,
            ),
            Case::new(
                "some pages are kept for atomic requests when others find none",
                &["A139"],
                anywhere,
                kept_for_atomic,
            ),
            Case::new(
                "in the second edition's kernels GFP_ATOMIC may take the very last page",
                &["A140"],
                whole_reserve,
                the_last_page,
            ),
            Case::new(
                "today GFP_ATOMIC leaves part of the reserve to those who free memory",
                &["A140"],
                part_of_reserve,
                a_lower_mark,
            ),
            Case::new(
                "GFP_KERNEL succeeds until every zone that it may use is down to its min mark",
                &["A144", "A041"],
                anywhere,
                succeeds_until_insufficient,
            ),
            Case::new(
                "GFP_KERNEL on all CPUs at once never fails while there is memory",
                &["A144"],
                anywhere,
                succeeds_on_all_cpus,
            ),
        ]
    }
}

fn whole_reserve(facts: &Facts) -> Result<(), &'static str> {
    if facts.whole_reserve_for_atomic { Ok(()) } else { Err("the whole reserve for GFP_ATOMIC") }
}

fn part_of_reserve(facts: &Facts) -> Result<(), &'static str> {
    if facts.whole_reserve_for_atomic {
        Err("a part of the reserve for GFP_ATOMIC")
    } else {
        Ok(())
    }
}

fn three_marks<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let highest = GFP_KERNEL.highest_zone();
    let zone = some(preferred(machine, GFP_KERNEL), "there is a zone for the kernel")?;
    let marks = zone.watermarks();
    check(0 < marks.min && marks.min < marks.low && marks.low < marks.high, "min, low, high")?;
    at_most(marks.high, zone.managed_pages() / 2, "which are a small part of the zone")?;

    let reclaim = mm.reclaim();
    reclaim.answer_from(u64::MAX);
    let mut held = Hoard::new(machine);
    while reclaim.wakes() == 0 {
        equal(reclaim.calls(), 0, "above its low mark a zone serves without any reclaim")?;
        held.push(Block::new(machine, ORDINARY, 0)?);
    }
    // The request that woke it has found every zone at its low mark.
    for zone in mm.zonelist(NodeId::ZERO, GFP_KERNEL) {
        let low = zone.watermarks().low + zone.lowmem_reserve(highest);
        at_most(zone.free_pages(), low, "background reclaim is woken at the low marks")?;
    }
    at_least(zone.free_pages(), marks.min, "well above min")?;
    equal(reclaim.calls(), 0, "the caller has not had to reclaim")?;
    let woken_at = held.pages();
    while let Ok(page) = mm.alloc_page(ORDINARY) {
        // SAFETY: just allocated.
        held.push(unsafe { Block::own(machine, page, 0) });
        equal(reclaim.calls(), 0, "above min the caller does not reclaim")?;
    }
    at_least(held.pages(), woken_at + 1, "there is memory between the marks")?;
    at_least(reclaim.calls(), 1, "at the min marks it does")?;
    for zone in mm.zonelist(NodeId::ZERO, GFP_KERNEL) {
        check(is_down_to_min(zone, highest), "and every zone is down to its own")?;
    }
    Ok(())
}

fn success_by_priority<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    // What reclaim has to give: blocks of a size that makes more than the reserve, all together.
    let order = mm.largest_order().get().min(6);
    let mut supply = [const { None }; 64];
    for place in &mut supply {
        *place = Some(Block::new(machine, GFP_KERNEL, order)?);
    }
    let pressed = press(machine, Gfp::NONE);
    let nowait = left_for(machine, GFP_NOWAIT);
    let atomic = left_for(machine, GFP_ATOMIC | Gfp::NOWARN);
    for block in supply.into_iter().flatten() {
        block.supply()?;
    }
    mm.reclaim().answer_from(0);
    let mut held = Hoard::new(machine);
    held.fill(GFP_KERNEL | Gfp::NOWARN, 0);
    let kernel = held.pages();
    equal(kernel, 64 << order, "GFP_KERNEL gets all that reclaim frees")?;
    at_least(kernel, atomic, "success(GFP_KERNEL) is at least success(GFP_ATOMIC)")?;
    at_least(atomic, nowait + 1, "success(GFP_ATOMIC) is above success(GFP_NOWAIT)")?;
    equal(nowait, 0, "GFP_NOWAIT gets none")?;
    drop((held, pressed));
    Ok(())
}

fn kept_for_atomic<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let mut held = Hoard::new(machine);
    held.fill(ORDINARY, 0);
    no_memory(mm.alloc_page(ORDINARY), 0, "ordinary requests find none")?;
    at_least(mm.free_page_count(), 1, "there are free pages")?;
    let mut urgent = Hoard::new(machine);
    urgent.push(Block::new(machine, GFP_ATOMIC, 0)?);
    no_memory(mm.alloc_page(ORDINARY), 0, "ordinary requests still find none")?;
    urgent.fill(GFP_ATOMIC | Gfp::NOWARN, 0);
    at_least(urgent.pages(), 8, "atomic requests find several")
}

fn the_last_page<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let _pressed = press(machine, Gfp::NONE);
    let left = mm.free_page_count();
    let mut held = Hoard::new(machine);
    equal(held.fill(GFP_ATOMIC | Gfp::NOWARN, 0), left, "GFP_ATOMIC gets every free page")?;
    equal(mm.free_page_count(), 0, "the last one, too")?;
    no_memory(mm.alloc_page(GFP_ATOMIC | Gfp::NOWARN), 0, "and fails when none is left")?;
    let last = some(held.pop(), "a page that was the last")?;
    last.free();
    no_memory(mm.alloc_page(ORDINARY), 0, "an ordinary request does not get it")?;
    Block::new(machine, GFP_ATOMIC, 0)?.free();
    Ok(())
}

fn a_lower_mark<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let _pressed = press(machine, Gfp::NONE);
    let mut held = Hoard::new(machine);
    held.fill(GFP_ATOMIC | Gfp::NOWARN, 0);
    let zone = some(preferred(machine, GFP_KERNEL), "there is a zone for the kernel")?;
    let min = zone.watermarks().min;
    at_least(zone.free_pages(), min / 4, "GFP_ATOMIC leaves part of the reserve")?;
    at_most(zone.free_pages(), min / 2, "and takes more than half of it")?;
    no_memory(mm.alloc_page(GFP_ATOMIC | Gfp::NOWARN), 0, "it fails with that still there")?;
    Block::new(machine, EVERYTHING, 0)?.free();
    Ok(())
}

fn succeeds_until_insufficient<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let lines = machine.log_lines();
    let highest = GFP_KERNEL.highest_zone();
    let mut held = Hoard::new(machine);
    while let Ok(page) = mm.alloc_page(GFP_KERNEL) {
        // SAFETY: just allocated.
        held.push(unsafe { Block::own(machine, page, 0) });
    }
    equal(machine.log_lines() - lines, 1, "one request has failed")?;
    let mut given = 0;
    for zone in mm.zonelist(NodeId::ZERO, GFP_KERNEL) {
        check(is_down_to_min(zone, highest), "every zone that it may use is down to its min")?;
        given += zone.managed_pages() - zone.free_pages();
    }
    at_least(held.pages(), given * 9 / 10, "what is gone from them was given to the caller")?;
    held.each(|page, _| {
        let kind = some(mm.page_zone(page), "a page has a zone")?.kind();
        check(kind <= highest, "and none came from a zone that the flags forbid")
    })?;
    let forbidden = |zone: &&Zone| zone.kind() > highest;
    for zone in mm.zones().iter().filter(forbidden) {
        equal(zone.free_pages(), zone.managed_pages(), "forbidden zones are untouched")?;
    }
    Ok(())
}

fn succeeds_on_all_cpus<M: Machine>(machine: &M) -> Result<(), Failure> {
    const STEPS: u64 = 4_000;
    let (failures, done) = (AtomicU64::new(0), AtomicU64::new(0));
    machine.concurrently(&|cpu| {
        let mut random = Random::new();
        let mut held: [Option<Block<'_, M>>; 16] = [const { None }; 16];
        for _ in 0..STEPS + u64::from(cpu.get()) {
            let slot = random.below(16) as usize;
            let order = random.below(4) as u32;
            held[slot] = match held[slot].take() {
                Some(_) => None,
                None => Block::new(machine, GFP_KERNEL, order)
                    .map_err(|_| failures.fetch_add(1, Ordering::Relaxed))
                    .ok(),
            };
        }
        done.fetch_add(1, Ordering::Relaxed);
    });
    equal(done.load(Ordering::Relaxed), machine.facts().cpus.into(), "every CPU has worked")?;
    equal(failures.load(Ordering::Relaxed), 0, "no request fails while there is memory")
}
