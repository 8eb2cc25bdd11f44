//! Tasks on kernel stacks: of blocks and mapped, what they may use, and what becomes of those that use more.

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use kmem::boot::{StackBacking, StackSetup};
use kmem::platform::{DirectMap, StackOwner};
use kmem::{
    AllocError, CpuId, GFP_ATOMIC, GFP_KERNEL, Gfp, NodeMask, Order, Page, Touch, VirtAddr,
};
use kmem_host::{Broken, Description, Machine, NotRun};

const PAGE: usize = 4096;
const OWNER: StackOwner = StackOwner::new(7, "tested");

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

fn boot(preset: &str) -> Arc<Machine> {
    Machine::boot(&Description::preset(preset).unwrap()).unwrap_or_else(|error| panic!("{error}"))
}

fn on(preset: &str, test: impl FnOnce(&Machine)) {
    let machine = boot(preset);
    machine.run_on(CpuId::BOOT, || test(&machine));
    let shutdown = machine.shutdown();
    assert!(shutdown.is_clean(), "{shutdown}");
}

fn of(order: u32, backing: StackBacking) -> StackSetup {
    StackSetup::new(Order::new(order).unwrap(), backing).measured(true)
}

/// Uses so many bytes of the stack at least, and answers the lowest address that was used.
#[inline(never)]
fn deeper(bytes: usize, from: usize) -> usize {
    let room = black_box([bytes; 8]);
    let here = black_box(&room).as_ptr().addr();
    let lowest = if from.saturating_sub(here) < bytes { deeper(bytes, from) } else { here };
    black_box(room[7]);
    lowest
}

fn use_up() {
    let here = 0u8;
    black_box(deeper(usize::MAX, (&raw const here).addr()));
}

#[test]
// A261, A262, A264
fn tasks_run_on_stacks_of_one_two_and_four_pages() {
    for (order, backing) in
        (0..3).flat_map(|order| [(order, StackBacking::Pages), (order, StackBacking::Mapped)])
    {
        let mut description = Description::preset("tiny").unwrap();
        description.set(&format!("stack_pages={}", 1 << order)).unwrap();
        description.set(&format!("stack_guard={}", backing == StackBacking::Mapped)).unwrap();
        let machine: Arc<Machine> = Machine::boot(&description).unwrap();
        let task = machine.spawn_on_stack(Some(cpu(1)), "worker", move |stack| {
            assert_eq!((stack.pages(), stack.setup()), (1 << order, of(order, backing)));
            let used = stack.usable() - 1500;
            let lowest = deeper(used, stack.top().get());
            assert!((stack.base().get()..stack.top().get()).contains(&lowest));
            assert!(stack.most_used().unwrap() >= used);
            assert_eq!(stack.owner().name(), "worker");
            stack.top().get() - lowest
        });
        assert!(task.join().unwrap() >= (PAGE << order) - 1600);
        let shutdown = machine.shutdown();
        assert!(shutdown.is_clean() && shutdown.misuse_count == 0, "{shutdown}");
    }
}

#[test]
// A266
fn a_task_that_overflows_is_ended_with_what_it_had_and_joiners_are_told() {
    let machine = boot("tiny");
    let free = machine.mm().free_page_count();
    for round in 0..20 {
        let task = machine.spawn_on_stack(Some(cpu(round % 2)), "deep", |stack| {
            stack.kmalloc(3000, GFP_KERNEL).unwrap();
            stack.alloc_pages(GFP_KERNEL, 3).unwrap();
            stack.vmalloc(5 * PAGE).unwrap();
            use_up();
        });
        assert_eq!(task.join(), Err(NotRun::Broken(Broken)));
    }
    // Every CPU is free for the next ones.
    for number in 0..2 {
        machine.run_on(cpu(number), || assert_eq!(machine.current(), Some(cpu(number))));
    }
    let misuses = machine.misuses();
    let of_touch = |line: &&String| line.contains("kernel stack overflow: passed");
    assert!(misuses.iter().filter(of_touch).count() >= 20);
    assert!(misuses.iter().all(|line| line.contains("(deep)")), "{misuses:?}");
    let shutdown = machine.shutdown();
    assert!(shutdown.is_clean(), "{shutdown}");
    assert_eq!(machine.mm().free_page_count(), free);
}

#[test]
fn what_a_task_changed_of_its_thread_is_put_back_when_it_is_ended() {
    on("tiny", |machine| {
        let stack = machine.mm().alloc_stack_of(of(2, StackBacking::Mapped), OWNER).unwrap();
        let ended = machine.run_on_stack(&stack, || {
            machine.with_allowed_nodes(NodeMask::NONE, || {
                machine.with_memalloc(|| machine.run_on(cpu(1), use_up));
            });
        });
        assert_eq!(ended, Err(Broken));
        assert_eq!(machine.current(), Some(CpuId::BOOT));
        let page = machine.mm().alloc_page(GFP_KERNEL | Gfp::HARDWALL).unwrap();
        // SAFETY: the test's own.
        unsafe { machine.mm().__free_page(page) };
        // Reserves are for those that free memory: not for this task any more.
        let held = take_all(machine, GFP_KERNEL | Gfp::NORETRY | Gfp::NOWARN);
        assert!(machine.mm().free_page_count() > 0);
        give_back(machine, held);
        // The CPU that it was on is free.
        machine.run_on(cpu(1), || ());
    });
}

#[test]
fn calls_on_stacks_nest_and_the_innermost_is_ended() {
    on("tiny", |machine| {
        let make = || machine.mm().alloc_stack_of(of(2, StackBacking::Mapped), OWNER).unwrap();
        let (outer, inner) = (make(), make());
        let answer = machine.run_on_stack(&outer, || {
            let first = machine.run_on_stack(&inner, use_up);
            let second = machine.run_on_stack(&inner, || 5);
            (first, second)
        });
        assert_eq!(answer, Ok((Err(Broken), Ok(5))));
        assert_eq!(machine.run_on_stack(&outer, use_up), Err(Broken));
    });
}

#[test]
fn a_panic_comes_through_from_a_kernel_stack() {
    let machine = boot("tiny");
    let panicked = std::thread::scope(|scope| {
        let work = || {
            machine.run_on(CpuId::BOOT, || {
                // A panic's message takes more room than a kernel's stack has.
                let setup = of(6, StackBacking::Mapped);
                let stack = machine.mm().alloc_stack_of(setup, OWNER).unwrap();
                machine.run_on_stack(&stack, || std::panic::resume_unwind(Box::new(17u32)))
            })
        };
        scope.spawn(work).join()
    });
    let payload = panicked.map(|answer: Result<(), Broken>| answer).unwrap_err();
    assert_eq!(payload.downcast_ref::<u32>(), Some(&17));
    assert!(machine.shutdown().is_clean());
}

#[test]
// A263
fn interrupts_arrive_while_a_task_runs_on_a_page() {
    let machine = boot("tiny");
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let storm = machine.interrupt_storm(Duration::from_micros(20), move || {
        // More than the page has: it is not the task's stack that this is on.
        let here = 0u8;
        black_box(deeper(2 * PAGE, (&raw const here).addr()));
        counter.fetch_add(1, Relaxed);
    });
    let tasks: Vec<_> = (0..2)
        .map(|number| {
            let (other, seen) = (Arc::clone(&machine), Arc::clone(&seen));
            machine.spawn(Some(cpu(number)), "small", move || {
                let setup = of(0, StackBacking::Pages);
                let stack = other.mm().alloc_stack_of(setup, OWNER).unwrap();
                let done = other.run_on_stack(&stack, || {
                    let until = seen.load(Relaxed) + 200;
                    while seen.load(Relaxed) < until {
                        black_box(deeper(1000, stack.top().get()));
                    }
                });
                assert!(stack.check());
                assert_eq!(done, Ok(()));
            })
        })
        .collect();
    tasks.into_iter().for_each(kmem_host::Task::join);
    drop(storm);
    let shutdown = machine.shutdown();
    assert!(shutdown.is_clean() && shutdown.misuse_count == 0, "{shutdown}");
}

fn take_all(machine: &Machine, gfp: Gfp) -> Vec<Page> {
    std::iter::from_fn(|| machine.mm().alloc_page(gfp).ok()).collect()
}

fn give_back(machine: &Machine, pages: Vec<Page>) {
    for page in pages {
        // SAFETY: the test's own.
        unsafe { machine.mm().__free_page(page) };
    }
}

#[test]
fn a_cpu_keeps_two_mapped_stacks_and_gives_them_up_when_memory_is_low() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let make = |number| mm.alloc_stack(StackOwner::new(number, "kept")).unwrap();
        let stacks = [make(1), make(2), make(3)];
        let bases = stacks.each_ref().map(|stack| stack.base());
        drop(stacks);
        let info = mm.stack_info();
        assert_eq!((info.used, info.kept, info.made, info.reused), (0, 2, 3, 0));
        // What is kept is what the next ones get, with nothing of the last holder to be seen.
        let again = [make(4), make(5)];
        assert!(again.iter().all(|stack| bases.contains(&stack.base())));
        assert!(again.iter().all(|stack| stack.check() && stack.most_used() == Some(0)));
        assert_eq!((mm.stack_info().kept, mm.stack_info().reused), (0, 2));
        drop(again);
        // Of another kind none is kept.
        drop(mm.alloc_stack_of(of(0, StackBacking::Mapped), OWNER).unwrap());
        assert_eq!(mm.stack_info().kept, 2);
        let held = take_all(machine, GFP_KERNEL | Gfp::NOWARN);
        assert_eq!(mm.stack_info().kept, 0);
        give_back(machine, held);
    });
}

#[test]
// A266
fn a_touch_below_a_stack_that_was_given_back_names_nobody() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let stack = mm.alloc_stack(OWNER).unwrap();
        let below = VirtAddr::new(stack.base().get() - 8);
        let text = || mm.explain_touch(below).unwrap().to_string();
        assert!(
            text().starts_with("8 bytes below the kernel stack of task 7 (tested), 4 pages at")
        );
        drop(stack);
        // A CPU keeps it for the next task.
        assert_eq!(mm.stack_info().kept, 1);
        assert!(text().starts_with("8 bytes below the kernel stack of nobody, 4 pages at"));
        // Given back, and not unmapped yet.
        assert_eq!(mm.drain_stacks(), 4);
        let touch = mm.report_touch(below);
        assert!(matches!(touch, Some(Touch::BelowFreed(area, 8)) if area.is_going), "{touch:?}");
        assert!(text().starts_with("8 bytes below the freed area at"), "{}", text());
        let report = machine.misuses().pop().unwrap();
        assert!(report.starts_with("touch of an address that nothing is mapped at"), "{report}");
        assert!(report.contains("a freed area of 4 pages") && !report.contains("tested"));
        assert_eq!(mm.stack_info().overflows, 0);
        mm.vm_unmap_aliases();
        assert_eq!(mm.explain_touch(below), Some(Touch::NoArea(below)));
    });
}

#[test]
// A266
fn a_stack_is_kept_only_where_it_is_as_good_as_new() {
    on("tiny", |machine| {
        let mm = machine.mm();
        // What its last task used is painted again.
        let stack = mm.alloc_stack(OWNER).unwrap();
        let base = stack.base();
        let top = stack.top().get();
        assert_eq!(machine.run_on_stack(&stack, || deeper(5000, top)).map(drop), Ok(()));
        assert!(stack.most_used().unwrap() >= 5000);
        drop(stack);
        let stack = mm.alloc_stack(OWNER).unwrap();
        assert_eq!((stack.base(), stack.most_used()), (base, Some(0)));
        // One that was overwritten may be so again.
        // SAFETY: the canary is no part of what code uses.
        unsafe { base.as_ptr::<usize>().write(0) };
        drop(stack);
        assert_eq!((mm.stack_info().kept, machine.misuse_count()), (0, 1));
        // A page below, met on the way over the canary, has been reported with it.
        let stack = mm.alloc_stack(OWNER).unwrap();
        // SAFETY: as above.
        unsafe { stack.base().as_ptr::<usize>().write(0) };
        let touch = mm.report_touch(VirtAddr::new(stack.base().get() - 1));
        assert!(matches!(touch, Some(Touch::StackOverflow(_, Some(OWNER), 1))), "{touch:?}");
        assert!(stack.check());
        assert_eq!((mm.stack_info().overflows, machine.misuse_count()), (2, 2));
        // What is in use is nobody's fault.
        assert_eq!(mm.report_touch(stack.base()), None);
        assert_eq!(machine.misuse_count(), 2);
    });
    // A CPU that has gone keeps none: nobody would give it back.
    let machine = boot("tiny");
    machine.run_on(cpu(1), || {
        let mm = machine.mm();
        // SAFETY: it is this CPU, which does nothing else meanwhile.
        unsafe { mm.cpu_offline(cpu(1)) }.unwrap();
        drop(mm.alloc_stack(OWNER).unwrap());
        assert_eq!(mm.stack_info().kept, 0);
        mm.cpu_online(cpu(1)).unwrap();
    });
    assert!(machine.shutdown().is_clean());
}

#[test]
fn stacks_of_a_cpu_that_goes_are_given_back() {
    let machine = boot("tiny");
    machine.run_on(cpu(1), || drop(machine.mm().alloc_stack(OWNER).unwrap()));
    assert_eq!(machine.mm().stack_info().kept, 1);
    machine.offline(cpu(1)).unwrap();
    assert_eq!(machine.mm().stack_info().kept, 0);
    machine.online(cpu(1)).unwrap();
    assert!(machine.shutdown().is_clean());
}

#[test]
// A267
fn mapped_stacks_are_made_of_single_pages() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let mut taken = take_all(machine, GFP_ATOMIC | Gfp::MEMALLOC | Gfp::NOWARN);
        taken.sort_by_key(|page| page.pfn());
        let (given, kept) =
            taken.into_iter().partition::<Vec<_>, _>(|page| page.pfn().number() % 2 == 0);
        give_back(machine, given);
        mm.drain_all_pages();
        let refused = mm.alloc_stack_of(of(1, StackBacking::Pages), OWNER).unwrap_err();
        assert!(matches!(refused, AllocError::NoMemory { .. }), "{refused:?}");
        let stacks: Vec<_> = (0..100).map(|_| mm.alloc_stack(OWNER).unwrap()).collect();
        for stack in &stacks {
            assert_eq!(machine.run_on_stack(stack, || 1), Ok(1));
            let frame = mm.vmalloc_to_page(stack.base().as_ptr()).unwrap();
            assert!(mm.page_address(frame).is_some());
        }
        drop(stacks);
        give_back(machine, kept);
    });
}

#[test]
fn a_stack_is_no_area_of_vmalloc_and_its_pages_are_no_ones_to_free() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let stack = mm.alloc_stack(OWNER).unwrap();
        let base = stack.base().get();
        let before = machine.misuse_count();
        for at in [base, base - PAGE, base + PAGE, base + 4 * PAGE] {
            // SAFETY: it is refused.
            unsafe { mm.vfree(VirtAddr::new(at).as_ptr()) };
        }
        let page = mm.vmalloc_to_page(stack.base().as_ptr()).unwrap();
        assert_eq!(mm.vmalloc_to_page(VirtAddr::new(base - 1).as_ptr()), None);
        // SAFETY: it is refused.
        unsafe { mm.__free_page(page) };
        assert_eq!(machine.misuse_count() - before, 5);
        assert!(stack.check());
        let info = mm.vm_area_from(VirtAddr::new(base - PAGE)).unwrap();
        assert_eq!((info.start, info.pages, info.kind.name()), (stack.base(), 4, "stack"));
        assert!(info.physical.get() < mm.platform().limit().get());
        let touch = mm.explain_touch(VirtAddr::new(base - 8)).unwrap().to_string();
        assert!(touch.starts_with("8 bytes below the kernel stack of task 7 (tested), 4 pages at"));
    });
}

/// The variable that has a process of this test do what ends it.
const FATAL: &str = "KMEM_TEST_FATAL";

/// What ends the process, by name.
const FATAL_TOUCHES: [(&str, fn()); 4] = [
    ("masked", overflow_masked),
    ("without pre-emption", overflow_without_preemption),
    ("in a handler", overflow_in_a_handler),
    ("on a stack of the host's", touch_on_a_stack_of_the_hosts),
];

#[test]
fn where_a_task_cannot_be_left_the_machine_says_so_and_stops() {
    use std::os::unix::process::ExitStatusExt;
    if let Ok(wanted) = std::env::var(FATAL) {
        FATAL_TOUCHES.iter().filter(|(name, _)| *name == wanted).for_each(|(_, touch)| touch());
        // Not the end that is waited for.
        std::process::exit(0);
    }
    for (name, _) in FATAL_TOUCHES {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("where_a_task_cannot_be_left_the_machine_says_so_and_stops")
            .env(FATAL, name)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.signal(), Some(6), "{name}: {said}");
        assert!(said.contains("the machine stops"), "{name}: {said}");
        assert!(said.contains("bytes behind the end of the area at"), "{name}: {said}");
    }
}

/// Touches the page behind an area on a kernel stack, within something.
fn touch(within: impl Fn(&Machine, &dyn Fn())) {
    let machine = boot("tiny");
    machine.run_on(CpuId::BOOT, || {
        let area = machine.mm().vmalloc(PAGE).unwrap();
        let touch = || {
            // SAFETY: none: the fault is what is wanted.
            unsafe { area.as_ptr().wrapping_add(PAGE).write_volatile(1) };
        };
        let stack = machine.mm().alloc_stack_of(of(6, StackBacking::Mapped), OWNER).unwrap();
        let _ = machine.run_on_stack(&stack, || within(&machine, &touch));
    });
}

fn overflow_masked() {
    use kmem::platform::Context;
    touch(|machine, touch| {
        let saved = machine.host().mask();
        touch();
        machine.host().restore(saved);
    });
}

fn overflow_without_preemption() {
    touch(|machine, touch| {
        let _guard = machine.preempt_disable();
        touch();
    });
}

fn overflow_in_a_handler() {
    let machine = boot("tiny");
    machine.run_on(CpuId::BOOT, || {
        let area = machine.mm().vmalloc(PAGE).unwrap().as_ptr().addr();
        let stack = machine.mm().alloc_stack_of(of(6, StackBacking::Mapped), OWNER).unwrap();
        let _ = machine.run_on_stack(&stack, || {
            let handler = move || {
                // SAFETY: none: the fault is what is wanted.
                unsafe { VirtAddr::new(area + PAGE).as_ptr::<u8>().write_volatile(1) };
            };
            machine.interrupt(CpuId::BOOT, handler).unwrap();
            machine.sleep(Duration::from_secs(60));
        });
    });
}

/// Without a stack of the machine's there is nowhere to go back to.
fn touch_on_a_stack_of_the_hosts() {
    let machine = boot("tiny");
    machine.run_on(CpuId::BOOT, || {
        let area = machine.mm().vmalloc(PAGE).unwrap();
        // SAFETY: none: the fault is what is wanted.
        unsafe { area.as_ptr().wrapping_add(PAGE).write_volatile(1) };
    });
}
