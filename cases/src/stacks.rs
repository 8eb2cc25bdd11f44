//! G12: kernel stacks.

use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use kmem::boot::{StackBacking, StackSetup};
use kmem::platform::StackOwner;
use kmem::{AllocError, CpuId, GFP_ATOMIC, GFP_KERNEL, Gfp, KernelStack, Order, VirtAddr};

use crate::elsewhere::{in_interrupt, on_cpu};
use crate::failure::{at_least, at_most, check, equal, some};
use crate::hold::Hoard;
use crate::nested::Ram;
use crate::pages::anywhere;
use crate::pressure::EVERYTHING;
use crate::text::Text;
use crate::{Case, Facts, Failure, FreeOnDemand, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "a kernel stack has a few pages, from one on, and work really runs on it",
                &["A261", "A262", "A264"],
                anywhere,
                sizes,
            )
            .objects(),
            Case::new(
                "where stacks have one page each CPU's interrupt stack costs one page more",
                &["A263"],
                anywhere,
                interrupt_stacks,
            ),
            Case::new(
                "an interrupt handler runs on the interrupt stack of its CPU, which no other has",
                &["A263"],
                stacks_of_interrupts,
                on_interrupt_stacks,
            ),
            Case::new(
                "without a guard page a stack's overflow destroys thread_info, and a look finds it",
                &["A266"],
                anywhere,
                silent_overflow,
            )
            .objects()
            .reports(3),
            Case::new(
                "an overflow meets the guard page, is reported with its task, and ends it alone",
                &["A266"],
                anywhere,
                guarded_overflow,
            )
            .objects()
            .reports(2),
            Case::new(
                "a touch of the page behind an area is reported with the area, and ends its task",
                &[],
                anywhere,
                behind_an_area,
            )
            .objects()
            .reports(2),
            Case::new(
                "in splintered memory stacks of two pages fail in a block, and not when mapped",
                &["A267"],
                anywhere,
                splintered,
            )
            .objects(),
        ]
    }
}

type Stack<'m, M> = KernelStack<'m, <M as Machine>::P, FreeOnDemand>;

/// The orders of a stack that the texts and today's kernels have.
const ORDERS: [u32; 3] = [0, 1, 2];

const BACKINGS: [StackBacking; 2] = [StackBacking::Pages, StackBacking::Mapped];

fn setup(order: u32, backing: StackBacking) -> StackSetup {
    StackSetup::new(Order::new(order).unwrap_or(Order::ZERO), backing).measured(true)
}

/// Has the machine as it was: no stacks kept, no areas that wait.
fn settle<M: Machine>(machine: &M) {
    machine.mm().drain_stacks();
    machine.mm().vm_unmap_aliases();
}

/// How deep a function calls itself, with some bytes of its own each time; answers an address in the
/// deepest call's frame. Ends where it is told to, or above an address.
#[inline(never)]
fn deeper(depth: usize, limit: usize) -> usize {
    let room = black_box([depth; 8]);
    let here = black_box(&room).as_ptr().addr();
    let deepest = if here > limit { deeper(depth + 1, limit) } else { here };
    black_box(room[7]);
    deepest
}

fn sizes<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, page_bytes) = (machine.mm(), machine.facts().page_bytes() as usize);
    for (order, backing) in ORDERS.into_iter().flat_map(|o| BACKINGS.map(|b| (o, b))) {
        let before = mm.stack_info();
        let stack = mm.alloc_stack_of(setup(order, backing), StackOwner::new(order, "sized"))?;
        let used = mm.stack_info();
        equal(used.pages as u64 - before.pages as u64, 1 << order, "it has so many pages")?;
        let (base, top) = (stack.base().get(), stack.top().get());
        at_least(stack.usable() as u64, (page_bytes << order) as u64 - 64, "nearly all are free")?;
        check(base < top && top <= base + (page_bytes << order), "they are its memory")?;
        equal(some(stack.most_used(), "it is measured")? as u64, 0, "nobody has used it")?;

        // A kilobyte is left to what is called below, and to what the compiler saves.
        let (limit, reached) = (base + 1024, AtomicUsize::new(0));
        let ended = machine.run_on_stack(&stack, &|| {
            reached.store(deeper(0, limit), Relaxed);
        });
        check(ended, "work on it comes to its end")?;
        let reached = reached.into_inner();
        check((base..top).contains(&reached), "what it had of its own was on the stack")?;
        let most = some(stack.most_used(), "it is measured")?;
        at_least(most as u64, (top - reached) as u64, "and shows in what was used at most")?;
        at_least(stack.usable() as u64, most as u64, "which is no more than there is")?;
        check(stack.check(), "nothing was overwritten")?;
        drop(stack);
        equal(mm.stack_info().pages as u64, before.pages as u64, "it is given back")?;
    }
    // The machine's own: two pages by tradition, four today; it does not grow.
    let own = mm.stack_info().setup;
    let stack = mm.alloc_stack(StackOwner::new(1, "own"))?;
    equal(stack.pages() as u64, own.order().pages(), "the machine's stacks are of its size")?;
    check((1..=4).contains(&stack.pages()), "which is 1 to 4 pages")?;
    let traditional = page_bytes << StackSetup::CLASSIC.order().get();
    equal(traditional as u64, 2 * page_bytes as u64, "two pages are the tradition")?;
    let today = page_bytes << StackSetup::MODERN.order().get();
    equal(today as u64, 4 * page_bytes as u64, "and four are what there is today")?;
    drop(stack);
    settle(machine);
    Ok(())
}

fn stacks_of_interrupts(facts: &Facts) -> Result<(), &'static str> {
    if facts.interrupt_stacks { Ok(()) } else { Err("handlers on the manager's interrupt stacks") }
}

/// In a machine that has just booted: the one around it has had its interrupt stacks since then.
fn interrupt_stacks<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (ram, page_bytes) = (Ram::take(machine)?, machine.facts().page_bytes());
    let mut inside = ram.machine();
    inside.setup = inside.setup.cpus(machine.facts().cpus).stacks(StackSetup::SMALL);
    inside.open("")?;
    inside.boot()?;
    let mm = &inside.mm;
    let cpus = || (0..machine.facts().cpus).filter_map(CpuId::new);
    let (before, free) = (mm.stack_info().pages, mm.free_page_count());
    equal(before as u64, 0, "nobody has a stack at boot")?;
    let mut made: u64 = 0;
    for cpu in cpus() {
        let stack = mm.interrupt_stack(cpu)?;
        made += 1;
        equal(free - mm.free_page_count(), made, "a page that was free goes to each CPU's")?;
        at_most((stack.end.get() - stack.start.get()) as u64, page_bytes, "and is all of it")?;
        equal((mm.stack_info().pages - before) as u64, made, "a CPU's costs one page")?;
        let same = mm.interrupt_stack(cpu)?;
        check(stack == same, "which it keeps")?;
        for other in cpus().filter(|other| other.get() < cpu.get()) {
            let other = mm.interrupt_stack(other)?;
            check(stack.end <= other.start || other.end <= stack.start, "and has alone")?;
        }
    }
    equal(made, machine.facts().cpus.into(), "that is one page for each CPU")?;
    for cpu in cpus() {
        // SAFETY: no handler runs on it: they run on the stacks of the machine around this one.
        unsafe { mm.free_interrupt_stack(cpu) };
    }
    equal(mm.stack_info().pages as u64, before as u64, "they are given back")?;
    equal(mm.free_page_count(), free, "and their pages are free")?;
    equal(inside.platform().misuses().0, 0, "nothing of this is a mistake")
}

fn on_interrupt_stacks<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let cpus = || (0..machine.facts().cpus).filter_map(CpuId::new);
    let (before, pages) = (mm.stack_info(), mm.stack_info().interrupts.order().pages());
    at_least(before.pages as u64, u64::from(machine.facts().cpus) * pages, "they are counted")?;
    // Where a variable of the running code lies.
    let here = || {
        let variable = black_box(0_u64);
        Ok(core::ptr::from_ref(black_box(&variable)).addr())
    };
    for cpu in cpus() {
        let stack = mm.interrupt_stack(cpu)?;
        let bytes = (stack.end.get() - stack.start.get()) as u64;
        at_most(bytes, pages * machine.facts().page_bytes(), "it has as many pages as it is to")?;
        for _ in 0..10 {
            let handlers = VirtAddr::new(in_interrupt(machine, cpu, here)?);
            check(stack.contains(&handlers), "a handler has its variables on it")?;
            let tasks = VirtAddr::new(on_cpu(machine, cpu, here)?);
            check(!stack.contains(&tasks), "and a task has not")?;
        }
        check(mm.interrupt_stack(cpu)? == stack, "it stays the CPU's")?;
        for other in cpus().filter(|other| other.get() < cpu.get()) {
            let other = mm.interrupt_stack(other)?;
            check(stack.end <= other.start || other.end <= stack.start, "which has it alone")?;
        }
    }
    equal(mm.stack_info().made, before.made, "none was made for this: they were there")
}

fn silent_overflow<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, owner) = (machine.mm(), StackOwner::new(66, "silent"));
    let stack = mm.alloc_stack_of(setup(1, StackBacking::Pages), owner)?;
    let (base, lowest) = (stack.base().get(), stack.top().get() - stack.usable());
    // SAFETY: what is written is the stack's own memory, as code would write it that uses a word more.
    let overwrite = |from: usize, to: usize| unsafe {
        VirtAddr::new(from).as_ptr::<u8>().write_bytes(0x11, to - from);
    };
    let ended = machine.run_on_stack(&stack, &|| overwrite(lowest - size_of::<usize>(), lowest));
    check(ended, "a word more than there is, is no fault")?;
    let found = |words| -> Result<(), Failure> {
        let mut text = Text::new();
        machine.last_misuse(&mut text)?;
        check(text.contains("kernel stack overflow"), "a look finds it")?;
        check(text.contains("task 66 (silent)"), "and says whose stack it is")?;
        check(text.contains(words), "and what was overwritten")
    };
    check(!stack.check(), "the stack is not as it was")?;
    found("its canary is overwritten")?;
    check(machine.run_on_stack(&stack, &|| overwrite(base, lowest)), "nor is all of it")?;
    check(!stack.check(), "the stack is not as it was")?;
    found("its canary and thread_info are overwritten")?;
    // And once more when it is given back.
    drop(stack);
    found("its canary and thread_info are overwritten")
}

/// What is reported of a touch has these words.
fn reported<M: Machine>(machine: &M, before: u64, words: &[&str]) -> Result<(), Failure> {
    equal(machine.misuses() - before, 1, "it is reported, once")?;
    let mut text = Text::new();
    machine.last_misuse(&mut text)?;
    for words in words {
        check(text.contains(words), "with what it was and whose")?;
    }
    Ok(())
}

fn guarded_overflow<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let stack =
        mm.alloc_stack_of(setup(2, StackBacking::Mapped), StackOwner::new(99, "deep-diver"))?;
    check(stack.is_guarded(), "nothing is mapped below it")?;
    let (reports, overflows) = (machine.misuses(), mm.stack_info().overflows);
    // What the task has goes with it.
    let pages = mm.free_page_count();
    stack.kmalloc(100, GFP_KERNEL)?;
    stack.alloc_pages(GFP_KERNEL, 1)?;
    equal(stack.managed() as u64, 2, "the task has two pieces of memory")?;
    let ended = machine.run_on_stack(&stack, &|| {
        black_box(deeper(0, 0));
    });
    check(!ended, "a task that uses more than there is, is ended")?;
    reported(machine, reports, &["kernel stack overflow", "task 99 (deep-diver)", "4 pages"])?;
    equal(mm.stack_info().overflows - overflows, 1, "and counted")?;
    at_least(some(stack.most_used(), "it is measured")? as u64, 3000, "all of it was used")?;
    check(mm.verify().is_ok(), "the manager is sound")?;
    // The canary is the lowest word, and gone as well, unless what ran there left that one out. Here it is
    // made certain, and found when the stack is given back.
    // SAFETY: the stack's own memory, which nobody uses.
    unsafe { stack.base().as_ptr::<u8>().write_bytes(0x22, size_of::<usize>()) };
    drop(stack);
    settle(machine);
    at_least(mm.free_page_count(), pages - 1, "what the task had is free again")?;
    // The machine goes on, and so does the next task on the same memory.
    let stack = mm.alloc_stack_of(setup(2, StackBacking::Mapped), StackOwner::new(100, "next"))?;
    check(machine.run_on_stack(&stack, &|| {}), "the next task runs")?;
    drop(stack);
    settle(machine);
    Ok(())
}

fn behind_an_area<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, page_bytes) = (machine.mm(), machine.facts().page_bytes() as usize);
    let stack = mm.alloc_stack_of(setup(2, StackBacking::Mapped), StackOwner::new(5, "far"))?;
    let area = mm.vmalloc(3 * page_bytes)?;
    let touch = |offset: usize| {
        // SAFETY: none: nothing is mapped there, and the fault is what is wanted.
        unsafe { area.as_ptr().wrapping_add(offset).write_volatile(1) };
    };
    let reports = machine.misuses();
    check(machine.run_on_stack(&stack, &|| touch(3 * page_bytes - 1)), "the last byte is good")?;
    check(!machine.run_on_stack(&stack, &|| touch(3 * page_bytes)), "the next is not")?;
    reported(
        machine,
        reports,
        &["touch of an address that nothing is mapped at", "3 pages", "stacks.rs"],
    )?;
    check(
        !machine.run_on_stack(&stack, &|| touch(4 * page_bytes - 1)),
        "nor is any of the page behind",
    )?;
    // SAFETY: the case's own.
    unsafe { mm.vfree(area.as_ptr()) };
    drop(stack);
    settle(machine);
    Ok(())
}

/// How many stacks each kind is tried for.
const FORKS: usize = 8;

fn splintered<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let two = |backing| mm.alloc_stack_of(setup(1, backing), StackOwner::new(267, "fork"));
    // Pages for page tables, and objects for areas, are there from here on.
    let stacks = hold::<M>(|| two(StackBacking::Mapped));
    equal(stacks.iter().flatten().count() as u64, FORKS as u64, "a fresh machine has room")?;
    drop(stacks);
    settle(machine);
    let mut held = Hoard::new(machine);
    held.fill(EVERYTHING, 0);
    held.free_if(|page| page.pfn().number().is_multiple_of(2));
    mm.drain_all_pages();
    let quiet = GFP_ATOMIC | Gfp::NOWARN;
    check(mm.alloc_pages(quiet, 1).is_err(), "no two free pages are neighbours")?;
    at_least(mm.free_page_count(), 64, "and many are free")?;
    let blocks = hold::<M>(|| two(StackBacking::Pages));
    equal(blocks.iter().flatten().count() as u64, 0, "no stack is to be had in a block")?;
    check(matches!(two(StackBacking::Pages), Err(AllocError::NoMemory { .. })), "and that is why")?;
    let mapped = hold::<M>(|| two(StackBacking::Mapped));
    equal(mapped.iter().flatten().count() as u64, FORKS as u64, "every mapped one is")?;
    let single = mm.alloc_stack_of(setup(0, StackBacking::Pages), StackOwner::new(262, "small"));
    check(single.is_ok(), "and so is one of a single page")?;
    drop((mapped, single));
    held.clear();
    settle(machine);
    Ok(())
}

/// As many stacks as are tried, those that were to be had.
fn hold<'m, M: Machine>(
    mut make: impl FnMut() -> Result<Stack<'m, M>, AllocError>,
) -> [Option<Stack<'m, M>>; FORKS]
where
    M::P: 'm,
{
    core::array::from_fn(|_| make().ok())
}
