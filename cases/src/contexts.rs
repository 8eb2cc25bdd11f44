//! G7d: where a call may be made.

use kmem::{AllocError, CpuId, GFP_ATOMIC, GFP_DMA, GFP_KERNEL, GFP_NOIO, GFP_NOWAIT, Gfp};

use crate::elsewhere::{in_interrupt, last_cpu, without_preemption};
use crate::failure::{at_least, check, equal, some};
use crate::hold::Block;
use crate::pages::anywhere;
use crate::pressure::press;
use crate::text::Text;
use crate::zones::dma;
use crate::{Case, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "interrupt handlers allocate with GFP_ATOMIC, on every CPU, idle or not",
                &["A119"],
                anywhere,
                interrupts,
            ),
            Case::new(
                "interrupt handlers allocate for DMA with GFP_DMA|GFP_ATOMIC",
                &["A126"],
                dma,
                interrupts_for_dma,
            ),
            Case::new(
                "a call that may sleep is reported in an interrupt handler, with its site",
                &["A135"],
                anywhere,
                sleeping_in_interrupt,
            )
            .reports(3),
            Case::new(
                "and in a task that must not sleep; it then goes on without sleeping",
                &["A135"],
                anywhere,
                sleeping_in_atomic_task,
            )
            .reports(2),
            Case::new(
                "__GFP_NOFAIL in atomic context is reported, and may fail",
                &["A108", "A135"],
                anywhere,
                no_fail_in_atomic,
            )
            .reports(1),
        ]
    }
}

fn interrupts<M: Machine>(machine: &M) -> Result<(), Failure> {
    for cpu in [CpuId::BOOT, last_cpu(machine)] {
        for gfp in [GFP_ATOMIC, GFP_NOWAIT] {
            in_interrupt(machine, cpu, || {
                for order in [0, 1, 4] {
                    let mut blocks = [const { None }; 8];
                    for place in &mut blocks {
                        *place = Some(Block::new(machine, gfp, order)?);
                    }
                    let frames = blocks.iter().flatten().map(Block::frame);
                    let distinct =
                        |frame| frames.clone().filter(|other| *other == frame).count() == 1;
                    check(frames.clone().all(distinct), "each block is handed out once")?;
                }
                Ok(())
            })?;
        }
    }
    // Also when memory is low: from the reserve, and never by reclaim.
    let _pressed = press(machine, Gfp::NONE);
    machine.mm().reclaim().answer_from(0);
    in_interrupt(machine, CpuId::BOOT, || {
        Block::new(machine, GFP_ATOMIC, 0)?.free();
        let nothing = machine.mm().alloc_page(GFP_NOWAIT);
        check(nothing.is_err(), "GFP_NOWAIT has no reserve")
    })?;
    equal(machine.mm().reclaim().calls(), 0, "a handler never reclaims")
}

fn interrupts_for_dma<M: Machine>(machine: &M) -> Result<(), Failure> {
    let limit = machine.facts().dma_limit.unwrap_or(0);
    in_interrupt(machine, last_cpu(machine), || {
        for order in [0, 2, 4] {
            let block = Block::new(machine, GFP_DMA | GFP_ATOMIC, order)?;
            let end = machine.mm().page_to_phys(block.page()).get()
                + (machine.facts().page_bytes() << order);
            check(end <= limit, "the device reaches the block")?;
        }
        Ok(())
    })
}

/// Makes a call that is reported: once, for the flags, with this file as its site.
fn reported<M: Machine>(
    machine: &M,
    flags: &str,
    call: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let reports = machine.misuses();
    call()?;
    equal(machine.misuses() - reports, 1, "a call that may sleep is reported, once")?;
    let mut text = Text::new();
    machine.last_misuse(&mut text)?;
    check(text.contains("may sleep in atomic context"), "the report says what is wrong")?;
    check(text.contains(flags), "with which flags")?;
    check(text.contains("contexts.rs:"), "and where the call was made")
}

fn sleeping_in_interrupt<M: Machine>(machine: &M) -> Result<(), Failure> {
    // Plenty of memory: it would not have slept this time. The call is wrong all the same.
    for order in [0, 4] {
        reported(machine, "GFP_KERNEL", || {
            in_interrupt(machine, CpuId::BOOT, || {
                Block::new(machine, GFP_KERNEL, order).map(Block::free)
            })
        })?;
    }
    reported(machine, "GFP_NOIO", || {
        in_interrupt(machine, last_cpu(machine), || {
            Block::new(machine, GFP_NOIO, 0).map(Block::free)
        })
    })?;
    let reports = machine.misuses();
    in_interrupt(machine, CpuId::BOOT, || Block::new(machine, GFP_ATOMIC, 0).map(Block::free))?;
    Block::new(machine, GFP_KERNEL, 0)?.free();
    equal(machine.misuses(), reports, "the right flags for the place are not reported")
}

fn sleeping_in_atomic_task<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let spare = Block::new(machine, GFP_KERNEL, 0)?;
    reported(machine, "GFP_KERNEL", || {
        without_preemption(machine, || Block::new(machine, GFP_KERNEL, 0).map(Block::free))
    })?;
    let pressed = press(machine, Gfp::NONE);
    spare.supply()?;
    mm.reclaim().answer_from(0);
    reported(machine, "GFP_KERNEL", || {
        without_preemption(machine, || {
            let result = mm.alloc_page(GFP_KERNEL | Gfp::NOWARN);
            check(matches!(result, Err(AllocError::NoMemory { .. })), "it does not wait for memory")
        })
    })?;
    equal(mm.reclaim().calls(), 0, "nor call reclaim")?;
    Block::new(machine, GFP_KERNEL, 0)?.free();
    at_least(mm.reclaim().calls(), 1, "which a task that may sleep does")?;
    drop(pressed);
    Ok(())
}

fn no_fail_in_atomic<M: Machine>(machine: &M) -> Result<(), Failure> {
    let pressed = press(machine, Gfp::NONE);
    machine.mm().reclaim().answer_from(u64::MAX);
    reported(machine, "__GFP_NOFAIL", || {
        in_interrupt(machine, CpuId::BOOT, || {
            let result = machine.mm().alloc_page(GFP_KERNEL | Gfp::NOFAIL | Gfp::NOWARN);
            some(result.err(), "a handler is not kept waiting for ever").map(|_| ())
        })
    })?;
    drop(pressed);
    Ok(())
}
