//! G7a and G7b: what each modifier changes.

use kmem::page::MigrateType;
use kmem::{
    AllocError, GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, GFP_USER, Gfp, GfpError, NodeMask, Page, Zone,
};

use crate::elsewhere::with_allowed_nodes;
use crate::failure::{at_least, check, equal, no_memory, some};
use crate::hold::{Block, Hoard};
use crate::pages::anywhere;
use crate::pressure::{EVERYTHING, ORDINARY, left_for, press};
use crate::text::Text;
use crate::{Case, Facts, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "__GFP_WAIT lets reclaim run, in the caller and in the background",
                &["A101"],
                anywhere,
                wait,
            ),
            Case::new(
                "__GFP_HIGH, __GFP_MEMALLOC and __GFP_NOMEMALLOC say how deep the reserve may go",
                &["A102", "A110"],
                anywhere,
                reserves,
            ),
            Case::new(
                "__GFP_IO and __GFP_FS reach the reclaimer as they were given",
                &["A103", "A104"],
                anywhere,
                io_and_fs,
            ),
            Case::new(
                "a failure is logged, but not with __GFP_NOWARN",
                &["A106"],
                anywhere,
                warnings,
            ),
            Case::new(
                "__GFP_NORETRY tries once, __GFP_REPEAT often, and both may fail",
                &["A107", "A109"],
                anywhere,
                retries,
            ),
            Case::new(
                "__GFP_NOFAIL tries until there is memory, and is refused where it cannot wait",
                &["A108"],
                anywhere,
                no_fail,
            ),
            Case::new(
                "__GFP_HARDWALL keeps to the nodes that the task is allowed",
                &["A111"],
                two_nodes,
                hardwall,
            ),
            Case::new(
                "reclaimable, movable and unmovable pages are kept in page blocks of their own",
                &["A112", "A117"],
                anywhere,
                grouping,
            ),
            Case::new("__GFP_COMP makes a block one compound page", &["A113"], anywhere, compound),
        ]
    }
}

fn two_nodes(facts: &Facts) -> Result<(), &'static str> {
    if facts.nodes > 1 { Ok(()) } else { Err("two nodes") }
}

/// Asks once, with nothing to be had, and answers how often reclaim was called and woken.
fn asked<M: Machine>(machine: &M, gfp: Gfp) -> Result<(u64, u64), Failure> {
    let reclaim = machine.mm().reclaim();
    reclaim.answer_from(u64::MAX);
    no_memory(machine.mm().alloc_page(gfp), 0, "there is no memory for the request")?;
    Ok((reclaim.calls(), reclaim.wakes()))
}

fn wait<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let spare = Block::new(machine, GFP_KERNEL, 0)?;
    let _pressed = press(machine, Gfp::NONE);
    let once = Gfp::NORETRY | Gfp::NOWARN;
    let both = asked(machine, Gfp::WAIT | once)?;
    check(both.0 == 1 && both.1 > 0, "both kinds of reclaim run")?;
    let direct = asked(machine, Gfp::DIRECT_RECLAIM | once)?;
    check(direct == (1, 0), "__GFP_DIRECT_RECLAIM: the caller frees memory itself")?;
    let background = asked(machine, Gfp::KSWAPD_RECLAIM | once)?;
    check(background.0 == 0 && background.1 > 0, "__GFP_KSWAPD_RECLAIM: the background is woken")?;
    equal(
        mm.reclaim().last_wake().into(),
        (Gfp::KSWAPD_RECLAIM | once).bits().into(),
        "and told for what",
    )?;
    check(asked(machine, once)? == (0, 0), "neither flag: nothing is freed")?;

    // What reclaim frees meets the request that waited for it, and no other.
    spare.supply()?;
    mm.reclaim().answer_from(0);
    no_memory(mm.alloc_page(GFP_NOWAIT), 0, "who may not wait gets nothing")?;
    Block::new(machine, Gfp::DIRECT_RECLAIM | once, 0)?.free();
    equal(mm.reclaim().calls(), 1, "who waits gets what was freed")
}

/// How many pages requests of the kernel's zones get that must leave `mark` of a zone's min.
fn above<M: Machine>(machine: &M, gfp: Gfp, mark: impl Fn(u64) -> Option<u64>) -> u64 {
    let node = kmem::NodeId::ZERO;
    let left = |zone: &Zone| {
        let floor = mark(zone.watermarks().min)
            .map_or(0, |mark| mark + zone.lowmem_reserve(gfp.highest_zone()));
        zone.free_pages().saturating_sub(floor)
    };
    machine.mm().zonelist(node, gfp).map(left).sum()
}

fn reserves<M: Machine>(machine: &M) -> Result<(), Failure> {
    let whole = machine.facts().whole_reserve_for_atomic;
    let _pressed = press(machine, Gfp::NONE);
    let half = |min: u64| if whole { None } else { Some(min - min / 2) };
    let three_eighths = |min: u64| {
        let half = min - min / 2;
        if whole { None } else { Some(half - half / 4) }
    };
    equal(left_for(machine, ORDINARY), 0, "an ordinary request leaves the reserve alone")?;

    let high = above(machine, GFP_KERNEL, half);
    at_least(high, 1, "there is a reserve")?;
    equal(left_for(machine, ORDINARY | Gfp::HIGH), high, "__GFP_HIGH: half of it")?;
    let atomic = above(machine, GFP_ATOMIC, three_eighths);
    equal(left_for(machine, GFP_ATOMIC | Gfp::NOWARN), atomic, "who cannot wait, too: more")?;
    at_least(atomic, high, "who cannot wait gets at least as much")?;
    let all = above(machine, GFP_KERNEL, |_| None);
    equal(left_for(machine, EVERYTHING), all, "__GFP_MEMALLOC: all of it")?;
    at_least(all, atomic, "which is the most")?;

    for flags in [Gfp::HIGH, Gfp::MEMALLOC, Gfp::HIGH | Gfp::MEMALLOC] {
        let quiet = flags | Gfp::NOMEMALLOC | Gfp::NOWARN;
        equal(left_for(machine, quiet), 0, "__GFP_NOMEMALLOC: none of it, whatever else is set")?;
    }
    Ok(())
}

fn io_and_fs<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let _pressed = press(machine, Gfp::NONE);
    for (flags, io, fs) in
        [(Gfp::NONE, false, false), (Gfp::IO, true, false), (Gfp::IO | Gfp::FS, true, true)]
    {
        for wait in [Gfp::WAIT, Gfp::DIRECT_RECLAIM] {
            asked(machine, wait | flags | Gfp::NOWARN)?;
            for call in 0..2 {
                let request = some(mm.reclaim().request(call), "reclaim is asked, and again")?;
                check(request.gfp.may_io() == io, "it may start I/O with __GFP_IO alone")?;
                check(request.gfp.may_fs() == fs, "and call filesystems with __GFP_FS alone")?;
                equal(request.attempt.into(), call as u64, "it knows which attempt this is")?;
                equal(request.order.get().into(), 0, "and for what order")?;
            }
        }
    }
    let impossible = Gfp::WAIT | Gfp::FS;
    let refused = Err(AllocError::BadFlags(GfpError::FsWithoutIo(Gfp::FS)));
    check(mm.alloc_page(impossible) == refused, "filesystem calls without I/O make no sense")
}

fn warnings<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let _pressed = press(machine, Gfp::NONE);
    for order in [0, 3] {
        let lines = machine.log_lines();
        no_memory(mm.alloc_pages(GFP_KERNEL, order), order, "there is no memory")?;
        equal(machine.log_lines() - lines, 1, "a failure is logged, in a line")?;
        let mut text = Text::new();
        machine.last_log_line(&mut text)?;
        check(text.contains("page allocation failure"), "which says what failed")?;
        check(text.contains("GFP_KERNEL") && text.contains("order"), "and what was asked for")?;
        check(text.contains("modifiers.rs:"), "and where")?;
        let lines = machine.log_lines();
        no_memory(mm.alloc_pages(GFP_KERNEL | Gfp::NOWARN, order), order, "the same, quietly")?;
        equal(machine.log_lines(), lines, "nothing is logged with __GFP_NOWARN")?;
    }
    Ok(())
}

fn retries<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let reclaim = mm.reclaim();
    let spare = Block::new(machine, GFP_KERNEL, 0)?;
    let _pressed = press(machine, Gfp::NONE);
    let plain = GFP_KERNEL | Gfp::NOWARN;
    let calls = |flags| Ok::<u64, Failure>(asked(machine, plain | flags)?.0);
    let (once, some_calls, many) = (calls(Gfp::NORETRY)?, calls(Gfp::NONE)?, calls(Gfp::REPEAT)?);
    equal(once, 1, "__GFP_NORETRY does not try again")?;
    at_least(some_calls, once + 1, "an ordinary request does")?;
    at_least(many, some_calls + 1, "__GFP_REPEAT more often, and fails in the end")?;

    // Memory that comes late: too late for all but who is patient.
    spare.supply()?;
    reclaim.answer_from(some_calls + 2);
    no_memory(mm.alloc_page(plain | Gfp::NORETRY), 0, "too late with __GFP_NORETRY")?;
    reclaim.answer_from(some_calls + 2);
    no_memory(mm.alloc_page(plain), 0, "too late for an ordinary request")?;
    reclaim.answer_from(some_calls + 2);
    Block::new(machine, plain | Gfp::REPEAT, 0)?.free();
    equal(reclaim.calls(), some_calls + 3, "__GFP_REPEAT waits for it")
}

fn no_fail<M: Machine>(machine: &M) -> Result<(), Failure> {
    /// Later than any request that may fail waits.
    const LATE: u64 = 40;
    let mm = machine.mm();
    let spare = Block::new(machine, GFP_KERNEL, 2)?;
    let _pressed = press(machine, Gfp::NONE);
    spare.supply()?;
    mm.reclaim().answer_from(LATE);
    no_memory(mm.alloc_page(GFP_KERNEL | Gfp::REPEAT | Gfp::NOWARN), 0, "others give up")?;
    mm.reclaim().answer_from(LATE);
    let lines = machine.log_lines();
    let block = Block::new(machine, GFP_KERNEL | Gfp::NOFAIL, 0)?;
    equal(mm.reclaim().calls(), LATE + 1, "__GFP_NOFAIL tries until memory comes")?;
    equal(machine.log_lines(), lines, "which is no failure")?;
    block.free();
    let refused = Err(AllocError::BadFlags(GfpError::NofailWithoutReclaim(Gfp::NOFAIL)));
    for cannot_wait in [GFP_ATOMIC, GFP_NOWAIT, Gfp::NONE] {
        let result = mm.alloc_page(cannot_wait | Gfp::NOFAIL);
        check(result == refused, "who cannot wait cannot be promised memory")?;
    }
    Ok(())
}

fn hardwall<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let node_of = |page: Page| some(mm.page_zone(page).map(Zone::node), "a page has a zone");
    let own = node_of(Block::new(machine, GFP_KERNEL, 0)?.page())?;
    let mut zones = mm.zones().iter().filter(|zone| zone.is_populated());
    let other = some(zones.find(|zone| zone.node() != own), "there is another node")?.node();
    let left_on = |node| {
        let zones = mm.zones().iter().filter(move |zone| zone.node() == node);
        zones.map(Zone::free_pages).sum::<u64>()
    };
    with_allowed_nodes(machine, NodeMask::of(other), || {
        for order in [0, 4] {
            let block = Block::new(machine, GFP_USER, order)?;
            check(node_of(block.page())? == other, "GFP_USER keeps to the nodes that are allowed")?;
            let block = Block::new(machine, GFP_KERNEL, order)?;
            check(node_of(block.page())? == own, "GFP_KERNEL does not ask")?;
        }
        mm.drain_all_pages();
        let untouched = left_on(own);
        let mut held = Hoard::new(machine);
        held.fill(GFP_USER | Gfp::NORETRY | Gfp::NOWARN, 0);
        held.each(|page, _| check(node_of(page)? == other, "never on another, to the last page"))?;
        equal(left_on(own), untouched, "the other node keeps all it has")?;
        at_least(untouched, 1024, "which is much")?;
        let block = Block::new(machine, GFP_KERNEL, 0)?;
        check(node_of(block.page())? == own, "and gives it to others")
    })?;
    with_allowed_nodes(machine, NodeMask::ALL, || {
        let block = Block::new(machine, GFP_USER, 0)?;
        check(node_of(block.page())? == own, "with all nodes allowed the nearest serves")
    })
}

fn grouping<M: Machine>(machine: &M) -> Result<(), Failure> {
    const EACH: usize = 100;
    let mm = machine.mm();
    let memmap = some(mm.memmap(), "the machine is booted")?;
    let kinds = [
        (Gfp::NONE, MigrateType::Unmovable),
        (Gfp::MOVABLE, MigrateType::Movable),
        (Gfp::RECLAIMABLE, MigrateType::Reclaimable),
    ];
    let mut held = kinds.map(|_| Hoard::new(machine));
    // In turn, so that nothing but the grouping keeps them apart.
    for _ in 0..EACH {
        for ((flag, _), hoard) in kinds.iter().zip(&mut held) {
            hoard.push(Block::new(machine, GFP_KERNEL | *flag, 0)?);
        }
    }
    for ((_, kind), hoard) in kinds.iter().zip(&held) {
        equal(hoard.pages(), EACH as u64, "each kind has its pages")?;
        hoard.each(|page, _| {
            check(memmap.migrate_type(page.pfn()) == *kind, "a page is among those of its kind")
        })?;
    }
    let of_type = |kind| mm.zones().iter().map(|zone| mm.page_blocks(zone, kind)).sum::<u64>();
    for (_, kind) in kinds {
        at_least(of_type(kind), 1, "each kind has page blocks")?;
    }
    Ok(())
}

fn compound<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    for order in [1, 3, 5] {
        let page_at = |block: &Block<'_, M>, index| -> Result<Page, Failure> {
            let pfn = some(block.page().pfn().checked_add(index), "a frame")?;
            some(mm.pfn_to_page(pfn), "a page")
        };
        let block = Block::new(machine, GFP_KERNEL | Gfp::COMP, order)?;
        equal(
            mm.compound_order(block.page()).get().into(),
            order.into(),
            "the head has its order",
        )?;
        for index in 0..1 << order {
            let page = page_at(&block, index)?;
            check(mm.compound_head(page) == block.page(), "every page knows the first")?;
            equal(mm.page_count(page).into(), 1, "and shares its count")?;
        }
        // A reference to any page keeps the whole block.
        let last = page_at(&block, (1 << order) - 1)?;
        let head = block.page();
        mm.get_page(last);
        equal(mm.page_count(head).into(), 2, "a reference to a tail is one to the block")?;
        let free = mm.free_page_count();
        block.free();
        equal(mm.free_page_count(), free, "the block stays while a tail is referred to")?;
        // SAFETY: the reference was taken above.
        unsafe { mm.put_page(last) };
        equal(mm.free_page_count(), free + (1 << order), "and goes as a whole")?;

        let block = Block::new(machine, GFP_KERNEL, order)?;
        equal(
            mm.compound_order(block.page()).get().into(),
            0,
            "without the flag there is no head",
        )?;
        let second = page_at(&block, 1)?;
        check(mm.compound_head(second) == second, "and no page knows another")?;
    }
    Ok(())
}
