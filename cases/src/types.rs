//! G7c: the type flags.

use kmem::{
    AllocError, GFP_ATOMIC, GFP_BUFFER, GFP_DMA, GFP_HIGHUSER, GFP_HIGHUSER_MOVABLE, GFP_KERNEL,
    GFP_NOFS, GFP_NOIO, GFP_NOWAIT, GFP_USER, Gfp,
};

use crate::failure::{at_least, check, equal, no_memory, some};
use crate::hold::Block;
use crate::pages::anywhere;
use crate::pressure::{left_for, press};
use crate::{Case, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "the type flags are composed as the table says, and as today",
                &["A119", "A120", "A121", "A122", "A123", "A124", "A125", "A126"],
                anywhere,
                compositions,
            ),
            Case::new(
                "GFP_NOIO, GFP_NOFS, GFP_KERNEL and GFP_USER wait, and permit what they say",
                &["A121", "A122", "A123", "A124"],
                anywhere,
                what_waits,
            ),
            Case::new(
                "GFP_ATOMIC and GFP_NOWAIT never wait; GFP_NOWAIT fails sooner",
                &["A119", "A120"],
                anywhere,
                what_does_not_wait,
            ),
            Case::new(
                "GFP_BUFFER may sleep, flushes nothing itself, and goes deeper into the reserve",
                &["A127"],
                anywhere,
                buffer,
            ),
        ]
    }
}

fn compositions<M: Machine>(_: &M) -> Result<(), Failure> {
    let kswapd = Gfp::KSWAPD_RECLAIM;
    for (composed, parts) in [
        (GFP_ATOMIC, Gfp::HIGH | kswapd),
        (GFP_NOWAIT, kswapd | Gfp::NOWARN),
        (GFP_NOIO, Gfp::WAIT),
        (GFP_NOFS, Gfp::WAIT | Gfp::IO),
        (GFP_KERNEL, Gfp::WAIT | Gfp::IO | Gfp::FS),
        (GFP_USER, Gfp::WAIT | Gfp::IO | Gfp::FS | Gfp::HARDWALL),
        (GFP_HIGHUSER, GFP_USER | Gfp::HIGHMEM),
        (GFP_HIGHUSER_MOVABLE, GFP_HIGHUSER | Gfp::MOVABLE),
        (GFP_DMA, Gfp::DMA),
    ] {
        check(composed == parts, "a type flag is the sum of its parts")?;
        check(composed.check().is_ok(), "and a sound mask")?;
    }
    for priority in [GFP_ATOMIC, GFP_KERNEL] {
        check((GFP_DMA | priority).check().is_ok(), "GFP_DMA is joined with a priority")?;
    }
    Ok(())
}

fn what_waits<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let spare = Block::new(machine, GFP_KERNEL, 0)?;
    let _pressed = press(machine, Gfp::NONE);
    for (gfp, io, fs) in [
        (GFP_NOIO, false, false),
        (GFP_NOFS, true, false),
        (GFP_KERNEL, true, true),
        (GFP_USER, true, true),
    ] {
        mm.reclaim().answer_from(u64::MAX);
        no_memory(mm.alloc_page(gfp | Gfp::NOWARN), 0, "without reclaim there is nothing")?;
        let request = some(mm.reclaim().request(0), "the caller waits for reclaim")?;
        check(request.gfp.may_io() == io, "I/O as the type flag permits")?;
        check(request.gfp.may_fs() == fs, "filesystem calls as the type flag permits")?;
        at_least(mm.reclaim().wakes(), 1, "background reclaim is woken, too")?;
    }
    spare.supply()?;
    mm.reclaim().answer_from(1);
    Block::new(machine, GFP_KERNEL, 0)?.free();
    equal(mm.reclaim().calls(), 2, "what reclaim frees meets the request")
}

fn what_does_not_wait<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let spare = Block::new(machine, GFP_KERNEL, 3)?;
    let _pressed = press(machine, Gfp::NONE);
    spare.supply()?;
    mm.reclaim().answer_from(0);
    no_memory(mm.alloc_page(GFP_NOWAIT), 0, "GFP_NOWAIT fails where ordinary requests would")?;
    at_least(mm.reclaim().wakes(), 1, "though background reclaim is woken")?;
    let mut held = crate::hold::Hoard::new(machine);
    at_least(held.fill(GFP_ATOMIC | Gfp::NOWARN, 0), 1, "GFP_ATOMIC has the emergency pools")?;
    let lines = machine.log_lines();
    let failed = mm.alloc_page(GFP_ATOMIC);
    check(matches!(failed, Err(AllocError::NoMemory { .. })), "until those are used up")?;
    equal(machine.log_lines() - lines, 1, "its failure is logged, unlike GFP_NOWAIT's")?;
    equal(mm.reclaim().calls(), 0, "neither ever waits for reclaim, though it has memory")?;
    drop(held);
    if let Some((page, order)) = mm.reclaim().withdraw() {
        // SAFETY: the block was handed to the reclaimer and not freed by it.
        drop(unsafe { Block::own(machine, page, order) });
    }
    Ok(())
}

fn buffer<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let spare = Block::new(machine, GFP_KERNEL, 0)?;
    let _pressed = press(machine, Gfp::NONE);
    let quiet = GFP_BUFFER | Gfp::NOWARN;
    at_least(left_for(machine, quiet), 1, "it goes deeper into the reserve than GFP_NOIO")?;
    equal(left_for(machine, GFP_NOIO | Gfp::NOWARN), 0, "which has nothing left")?;
    let mut held = crate::hold::Hoard::new(machine);
    held.fill(quiet, 0);
    mm.reclaim().answer_from(u64::MAX);
    no_memory(mm.alloc_page(quiet), 0, "then there is nothing left for it")?;
    let request = some(mm.reclaim().request(0), "it sleeps: reclaim is asked")?;
    check(!request.gfp.may_io(), "and flushes no dirty page on its behalf")?;
    at_least(mm.reclaim().wakes(), 1, "the background, which may, is woken")?;
    spare.supply()?;
    mm.reclaim().answer_from(0);
    Block::new(machine, GFP_BUFFER, 0)?.free();
    Ok(())
}
