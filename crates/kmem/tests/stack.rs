//! Kernel stacks of blocks of pages, and what goes with a task. Mapped ones need page tables: the hosted
//! machine's tests have them.

mod common;

use common::{CPU, Machine, Point, Rig, Scope, lists, settle};
use kmem::boot::{StackBacking, StackSetup};
use kmem::platform::{DirectMap, MisuseKind, StackHarm, StackOwner, There};
use kmem::*;

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;

fn machine() -> Machine {
    let mm = Mm::new(Rig::new(4 << 20));
    let map = MemoryMap::new().ram(0..4 * MIB, NodeId::ZERO).reserved(0..4096, "firmware");
    let setup = Setup::new().cpus(2).stacks(StackSetup::CLASSIC.measured(true));
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup) }.unwrap();
    mm
}

fn of(order: u32) -> StackSetup {
    StackSetup::new(Order::new(order).unwrap(), StackBacking::Pages)
}

const OWNER: StackOwner = StackOwner::new(42, "answer");

/// All that nobody uses given back, the CPU's own of caches too.
fn settled(mm: &Machine) -> Vec<([u64; Order::COUNT], u64)> {
    // SAFETY: this is the CPU, and it does nothing else.
    unsafe { mm.cpu_offline(CpuId::BOOT) }.unwrap();
    mm.shrink_caches();
    let free = settle(mm);
    mm.cpu_online(CpuId::BOOT).unwrap();
    free
}

// A261, A262, A264
#[test]
fn a_stack_is_a_block_in_a_row_and_goes_back_when_it_is_dropped() {
    let mm = machine();
    let before = settled(&mm);
    for order in 0..=6 {
        let stack = mm.alloc_stack_of(of(order), OWNER).unwrap();
        assert_eq!((stack.pages(), stack.owner()), (1 << order, OWNER));
        let base = stack.base().get();
        let physical = base - mm.platform().base().get();
        assert!(physical.is_multiple_of(PAGE << order), "a block is aligned to its size");
        assert_eq!(stack.top().get(), base + (PAGE << order));
        assert!(stack.usable() >= (PAGE << order) - 64 && !stack.is_guarded());
        assert_eq!(stack.most_used(), None);
        assert_eq!(mm.stack_info().pages, 1 << order);
        assert!(stack.check());
    }
    let own = mm.alloc_stack(OWNER).unwrap();
    assert_eq!((own.pages(), own.setup()), (2, StackSetup::CLASSIC.measured(true)));
    assert_eq!(own.most_used(), Some(0));
    drop(own);
    let info = mm.stack_info();
    assert_eq!((info.used, info.pages, info.kept, info.made, info.reused), (0, 0, 0, 8, 0));
    assert_eq!(settled(&mm), before);
    assert_eq!(mm.platform().take_reports(), []);
}

#[test]
fn too_large_a_stack_is_refused() {
    let mm = machine();
    let refused = mm.alloc_stack_of(of(7), OWNER).unwrap_err();
    assert!(matches!(refused, AllocError::OrderTooLarge { order: 7, .. }), "{refused:?}");
    let mm = Mm::new(Rig::<12, false>::new(4 << 20));
    let map = MemoryMap::new().ram(0..4 * MIB, NodeId::ZERO);
    // SAFETY: it is refused.
    let error = unsafe { mm.boot(&map, &Setup::new().stacks(of(7))) }.unwrap_err();
    assert!(error.to_string().contains("kernel stacks of order 7: the largest is 6"), "{error}");
}

#[test]
fn a_mapped_stack_needs_a_platform_that_maps() {
    let mm = machine();
    let before = settled(&mm);
    let refused = mm.alloc_stack_of(StackSetup::MODERN, OWNER).unwrap_err();
    assert_eq!(refused, AllocError::NoPageMap);
    assert_eq!(settled(&mm), before);
    let unbooted: Machine = Mm::new(Rig::new(1 << 20));
    assert_eq!(unbooted.alloc_stack(OWNER).unwrap_err(), AllocError::NotBooted);
    assert_eq!(unbooted.interrupt_stack(CpuId::BOOT).unwrap_err(), AllocError::NotBooted);
}

#[test]
fn a_stack_is_not_made_where_nobody_may_sleep() {
    let mm = machine();
    CPU.with(|cpu| {
        cpu.arm_once(Scope::Interrupt, Some(Point::Pin), 0, {
            let mm = &raw const mm;
            move |_| {
                // SAFETY: the manager outlives the handler.
                let refused = unsafe { &*mm }.alloc_stack(OWNER).unwrap_err();
                assert_eq!(refused, AllocError::Atomic);
            }
        });
        mm.drain_local_pages();
        assert!(!cpu.disarm());
    });
    let reports = mm.platform().take_reports();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].kind, MisuseKind::SleepInAtomic);
    assert!(reports[0].line.contains("tests/stack.rs"), "{}", reports[0].line);
}

// A266
#[test]
fn an_overflow_is_found_when_somebody_looks_and_when_the_stack_goes() {
    let mm = machine();
    let before = settled(&mm);
    let stack = mm.alloc_stack(OWNER).unwrap();
    let lowest = stack.top().get() - stack.usable();
    assert!(stack.check());
    // SAFETY: the test's own memory.
    unsafe { VirtAddr::new(lowest - 8).as_ptr::<u64>().write(7) };
    assert!(!stack.check());
    let reports = mm.platform().take_reports();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].kind, MisuseKind::StackOverflow);
    let harm = Some(StackHarm { canary: true, thread_info: false });
    let there = There::Stack { start: stack.base(), pages: 2, owner: Some(OWNER), harm };
    assert_eq!(reports[0].there, there);
    for words in
        ["kernel stack overflow", "task 42 (answer)", "its canary is overwritten", "stack.rs"]
    {
        assert!(reports[0].line.contains(words), "{}", reports[0].line);
    }
    // SAFETY: the test's own memory.
    unsafe { stack.base().as_ptr::<u8>().write_bytes(0, 16) };
    drop(stack);
    let reports = mm.platform().take_reports();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].line.contains("its canary and thread_info"), "{}", reports[0].line);
    assert_eq!(mm.stack_info().overflows, 2);
    assert_eq!(settled(&mm), before);
}

// A263
#[test]
fn a_cpu_has_one_interrupt_stack_of_a_page() {
    let mm = machine();
    let before = settled(&mm);
    let cpus = [0, 1].map(|cpu| CpuId::new(cpu).unwrap());
    let [one, two] = cpus.map(|cpu| mm.interrupt_stack(cpu).unwrap());
    let info = mm.stack_info();
    assert_eq!((info.used, info.pages), (2, 2));
    // Asked for again, also where none could be made, it is the one that there is.
    let pinned = mm.get_cpu();
    assert_eq!(mm.interrupt_stack(cpus[0]).unwrap(), one);
    drop(pinned);
    assert_eq!(mm.stack_info(), info);
    assert!(one.end <= two.start || two.end <= one.start);
    assert!(one.end.get() - one.start.get() <= PAGE);
    for cpu in [cpus[0], cpus[1], cpus[1]] {
        // SAFETY: nobody uses them. Where there is none nothing is done.
        unsafe { mm.free_interrupt_stack(cpu) };
    }
    assert_eq!(mm.stack_info().pages, 0);
    assert_eq!(settled(&mm), before);
    assert_eq!(mm.platform().take_reports(), []);
}

// A263
#[test]
fn an_interrupt_stack_has_as_many_pages_as_the_setup_says() {
    let booted = |order| {
        let mm = Mm::new(Rig::new(4 << 20));
        let map = MemoryMap::new().ram(0..4 * MIB, NodeId::ZERO).reserved(0..4096, "firmware");
        let order = Order::new(order).unwrap();
        let setup = Setup::new().stacks(StackSetup::SMALL).interrupt_stacks(order);
        // SAFETY: the RAM is this test's, for this manager alone.
        let result = unsafe { mm.boot(&map, &setup) };
        result.map(|()| mm)
    };
    for order in 0..=6 {
        let mm = booted(order).unwrap();
        assert_eq!((mm.stack_info().setup.order().get(), mm.stack_info().pages), (0, 0));
        assert_eq!(mm.stack_info().interrupts, of(order));
        let before = settled(&mm);
        let stack = mm.interrupt_stack(CpuId::BOOT).unwrap();
        let bytes = stack.end.get() - stack.start.get();
        assert!(bytes <= PAGE << order && bytes >= (PAGE << order) - 64, "{bytes}");
        assert_eq!(mm.stack_info().pages, 1 << order);
        // SAFETY: the test's own, from end to end; then nobody uses it.
        unsafe {
            stack.start.as_ptr::<u8>().add(64).write_bytes(0x33, bytes - 64);
            mm.free_interrupt_stack(CpuId::BOOT);
        }
        assert_eq!(settled(&mm), before);
        assert_eq!(mm.platform().take_reports(), []);
    }
    let refused = booted(7).map(drop).unwrap_err().to_string();
    assert!(refused.contains("kernel stacks of order 7"), "{refused}");
}

#[test]
fn what_a_task_has_goes_with_it_unless_it_gave_it_back() {
    let mm = machine();
    let before = settled(&mm);
    let stack = mm.alloc_stack(OWNER).unwrap();
    let objects: Vec<_> =
        (1..20).map(|index| stack.kmalloc(index * 50, GFP_KERNEL).unwrap()).collect();
    let blocks: Vec<_> =
        (0..4).map(|order| stack.alloc_pages(GFP_KERNEL, order).unwrap()).collect();
    assert_eq!(stack.managed(), 23);
    // SAFETY: the test's own, each once: the first, the last and one between.
    unsafe {
        stack.free(objects[0].as_ptr());
        stack.free_pages(blocks[3]);
        stack.free(objects[7].as_ptr());
        stack.free(core::ptr::null());
    }
    assert_eq!(stack.managed(), 20);
    assert_eq!(mm.platform().take_reports(), []);
    drop(stack);
    assert_eq!(settled(&mm), before);
    assert_eq!(mm.platform().take_reports(), []);
}

#[test]
fn what_is_none_of_the_tasks_is_reported_and_stays() {
    let mm = machine();
    let before = settled(&mm);
    let (stack, other) = (mm.alloc_stack(OWNER).unwrap(), mm.alloc_stack(OWNER).unwrap());
    let own = stack.kmalloc(64, GFP_KERNEL).unwrap();
    let kept = stack.kmalloc(32, GFP_KERNEL).unwrap();
    let others = other.kmalloc(64, GFP_KERNEL).unwrap();
    let plain = mm.kmalloc(64, GFP_KERNEL).unwrap();
    let page = mm.alloc_page(GFP_KERNEL).unwrap();
    // SAFETY: all but the first are refused.
    unsafe {
        stack.free(own.as_ptr());
        stack.free(own.as_ptr());
        stack.free(others.as_ptr());
        stack.free(plain.as_ptr());
        stack.free(own.as_ptr().wrapping_add(8));
        stack.free_pages(page);
    }
    assert_eq!((stack.managed(), other.managed()), (1, 1));
    // SAFETY: the test's own, and the latest.
    unsafe { stack.free(kept.as_ptr()) };
    assert_eq!(stack.managed(), 0);
    let reports = mm.platform().take_reports();
    assert_eq!(reports.len(), 5);
    for report in reports {
        assert_eq!(report.kind, MisuseKind::NotManaged, "{}", report.line);
        assert!(report.line.contains("tests/stack.rs"), "{}", report.line);
    }
    // SAFETY: the test's own.
    unsafe {
        mm.kfree(plain.as_ptr());
        mm.__free_page(page);
    }
    drop((stack, other));
    assert_eq!(settled(&mm), before);
    assert_eq!(mm.platform().take_reports(), []);
}

/// Takes all pages but so many.
fn take_all_but(mm: &Machine, left: usize) -> Vec<Page> {
    let mut pages = Vec::new();
    while let Ok(page) = mm.alloc_page(GFP_ATOMIC | Gfp::MEMALLOC | Gfp::NOWARN) {
        pages.push(page);
    }
    for _ in 0..left.min(pages.len()) {
        // SAFETY: the test's own.
        unsafe { mm.__free_page(pages.pop().unwrap()) };
    }
    pages
}

// A267
#[test]
fn every_call_fails_cleanly_with_too_few_pages_and_in_the_end_succeeds() {
    type Call = for<'m> fn(&KernelStack<'m, Rig>) -> Result<(), AllocError>;
    let calls: [(&str, Call); 5] = [
        ("a stack of one page", |own| own.mm().alloc_stack_of(of(0), OWNER).map(drop)),
        ("a stack of two", |own| own.mm().alloc_stack_of(of(1), OWNER).map(drop)),
        ("an interrupt stack", |own| {
            own.mm().interrupt_stack(CpuId::BOOT)?;
            // SAFETY: nobody uses it.
            unsafe { own.mm().free_interrupt_stack(CpuId::BOOT) };
            Ok(())
        }),
        ("a managed object", |own| own.kmalloc(3000, GFP_KERNEL | Gfp::NOWARN).map(drop)),
        ("a managed block", |own| own.alloc_pages(GFP_KERNEL | Gfp::NOWARN, 1).map(drop)),
    ];
    for (what, call) in calls {
        let mm = machine();
        let before = settled(&mm);
        let (mut failures, mut left) = (0, 0);
        loop {
            let own = mm.alloc_stack(OWNER).unwrap();
            let held = take_all_but(&mm, left);
            let managed = own.managed();
            let done = call(&own);
            if done.is_err() {
                assert_eq!(own.managed(), managed, "{what}, with {left} pages left");
                failures += 1;
            }
            for page in held {
                // SAFETY: the test's own.
                unsafe { mm.__free_page(page) };
            }
            drop(own);
            assert_eq!(settled(&mm), before, "{what}, with {left} pages left");
            if done.is_ok() {
                break;
            }
            left += 1;
            assert!(left < 1000, "{what} never succeeds");
        }
        assert!(failures > 0, "{what} needs no memory");
        assert_eq!(mm.platform().take_reports(), []);
    }
}

#[test]
fn interrupts_that_allocate_find_nothing_half_done() {
    let mm = machine();
    let before = settled(&mm);
    CPU.with(|cpu| {
        cpu.arm_every(Scope::Interrupt, None, 3, {
            let mm = &raw const mm;
            move |_| {
                // SAFETY: the manager outlives the handler.
                let mm = unsafe { &*mm };
                if let Ok(object) = mm.kmalloc(100, GFP_ATOMIC) {
                    // SAFETY: just allocated.
                    unsafe { mm.kfree(object.as_ptr()) };
                }
            }
        });
        for round in 0..200 {
            let stack = mm.alloc_stack(StackOwner::new(round, "round")).unwrap();
            let object = stack.kmalloc(200, GFP_KERNEL).unwrap();
            stack.alloc_pages(GFP_KERNEL, 1).unwrap();
            // SAFETY: the test's own.
            unsafe { stack.free(object.as_ptr()) };
            assert_eq!(stack.managed(), 1);
            assert!(stack.check());
        }
        assert!(cpu.disarm());
    });
    assert_eq!(settled(&mm), before);
    assert_eq!(lists(&mm), before);
    assert_eq!(mm.platform().take_reports(), []);
}

#[test]
fn whoever_interrupts_the_manager_is_told_whether_its_cpu_is_inside() {
    let mm = machine();
    let seen = std::rc::Rc::new(std::cell::Cell::new((0, 0)));
    let at = |what: fn(&Machine)| {
        seen.set((0, 0));
        CPU.with(|cpu| {
            cpu.arm_every(Scope::Interrupt, None, 0, {
                let (mm, seen) = (&raw const mm, seen.clone());
                move |_| {
                    // SAFETY: the manager outlives the handler.
                    let is_inside = unsafe { &*mm }.is_inside();
                    let (inside, outside) = seen.get();
                    let now = (inside + u32::from(is_inside), outside + u32::from(!is_inside));
                    seen.set(now);
                }
            });
            what(&mm);
            assert!(cpu.disarm());
        });
        assert!(!mm.is_inside());
        seen.get()
    };
    // The page lists are refilled, and magazines, in the sections of both.
    let (inside, outside) = at(|mm| {
        let pages: Vec<_> = (0..100).map(|_| mm.alloc_page(GFP_KERNEL).unwrap()).collect();
        pages.into_iter().for_each(|page| common::free(mm, page, 0));
    });
    assert!(inside > 0 && outside > 0, "{inside} {outside}");
    // The objects' slabs are there after some rounds: no page is allocated in the last.
    let objects = |mm: &Machine| {
        let objects: Vec<_> = (0..300).map(|_| mm.kmalloc(64, GFP_KERNEL).unwrap()).collect();
        for object in objects {
            // SAFETY: the test's own.
            unsafe { mm.kfree(object.as_ptr()) };
        }
    };
    (0..4).for_each(|_| objects(&mm));
    let made = mm.free_page_count();
    let (inside, outside) = at(objects);
    assert_eq!(mm.free_page_count(), made);
    assert!(inside > 0 && outside > 0, "{inside} {outside}");
}

#[test]
fn code_runs_on_a_stack_once_at_a_time() {
    let mm = machine();
    let stack = mm.alloc_stack(OWNER).unwrap();
    for _ in 0..2 {
        assert!(stack.enter());
        assert!(!stack.enter() && !stack.enter());
        stack.leave();
    }
}
