//! Wrong frees and references: each is reported once, says what was passed and what is there, and
//! changes nothing.

mod common;

use common::{CPU, Machine, Point, Rig, Rng, Scope, frames, lists, settle};
use kmem::platform::{DirectMap, MisuseKind, Passed, There};
use kmem::*;

const MIB: u64 = 1 << 20;
/// One past the last frame of RAM.
const FRAMES: u64 = (12 * MIB) >> 12;

/// RAM from 1 to 12 MiB with a hole at 5, a reserved MiB at 6 and a kernel image at 8. The direct
/// map reaches 32 MiB.
fn machine() -> Machine {
    let mm = Mm::new(Rig::new(32 << 20));
    let map = MemoryMap::new()
        .ram(MIB..5 * MIB, NodeId::ZERO)
        .ram(6 * MIB..12 * MIB, NodeId::ZERO)
        .reserved(6 * MIB..7 * MIB, "firmware")
        .kernel(8 * MIB..9 * MIB, "Kernel image");
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &Setup::new().cpus(2)).unwrap() };
    mm.cpu_online(CpuId::new(1).unwrap()).unwrap();
    mm
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum By {
    Page,
    Address,
}

const WAYS: [By; 2] = [By::Page, By::Address];

fn address(mm: &Machine, page: Page) -> VirtAddr {
    mm.page_address(page).unwrap()
}

fn page_at(mm: &Machine, frame: u64) -> Page {
    mm.pfn_to_page(Pfn::new(frame).unwrap()).unwrap()
}

fn order(order: u32) -> Order {
    Order::new(order).unwrap()
}

fn free_by(mm: &Machine, by: By, page: Page, order: u32) {
    match by {
        By::Page => common::free(mm, page, order),
        // SAFETY: wrong on purpose; the test looks at no memory of it.
        By::Address => unsafe { mm.free_pages(address(mm, page), order) },
    }
}

fn passed(mm: &Machine, by: By, page: Page, order: u32) -> Passed {
    match by {
        By::Page => Passed::Page(page.pfn(), order),
        By::Address => Passed::Address(address(mm, page), order),
    }
}

/// Makes a wrong call and checks that it is reported like this and changes nothing.
#[track_caller]
fn caught(mm: &Machine, kind: MisuseKind, passed: Passed, there: There, call: impl FnOnce()) {
    let look = || {
        let counters = mm.counters();
        let moved = (counters.allocated, counters.freed, mm.listed_pages());
        let owners: Vec<Owner> =
            (0..FRAMES).map(|frame| mm.owner(Pfn::new(frame).unwrap())).collect();
        (lists(mm), mm.free_page_count(), moved, owners)
    };
    let before = look();
    assert_eq!(mm.platform().take_reports(), [], "reported before the wrong call");
    let misuses = mm.counters().misuses;
    call();
    let reports = mm.platform().take_reports();
    assert_eq!(reports.len(), 1, "{reports:#?}");
    assert_eq!((reports[0].kind, reports[0].passed, reports[0].there), (kind, passed, there));
    assert!(
        reports[0].line.contains("tests/"),
        "without the place of the call: {}",
        reports[0].line
    );
    assert_eq!(mm.counters().misuses, misuses + 1);
    let after = look();
    assert!(before == after, "the wrong call changed something: {}", reports[0].line);
    mm.verify().unwrap();
}

/// Ordinary work on both CPUs, which must meet nothing unusual: no block twice, no report.
#[track_caller]
fn works_on(mm: &Machine) {
    let mut rng = Rng::new();
    let mut held: Vec<(Page, u32)> = Vec::new();
    let mut taken = std::collections::HashSet::new();
    for step in 0..2000 {
        CPU.with(|cpu| cpu.number.set(step & 1));
        if rng.percent(60) {
            let order = rng.order(6);
            if let Ok(page) = mm.alloc_pages(GFP_KERNEL | Gfp::NOWARN, order) {
                for frame in frames(page, order) {
                    assert!(taken.insert(frame), "frame {frame:#x} was handed out twice");
                }
                held.push((page, order));
            }
        } else if !held.is_empty() {
            let (page, order) = held.swap_remove(rng.below(held.len() as u64) as usize);
            frames(page, order).for_each(|frame| assert!(taken.remove(&frame)));
            common::free(mm, page, order);
        }
    }
    held.iter().for_each(|(page, order)| common::free(mm, *page, *order));
    for number in [1, 0] {
        CPU.with(|cpu| cpu.number.set(number));
        mm.drain_local_pages();
    }
    assert_eq!(mm.platform().take_reports(), []);
    mm.verify().unwrap();
}

/// The free block that a frame lies in.
fn free_block(mm: &Machine, page: Page) -> There {
    match mm.memmap().unwrap().head(page.pfn()) {
        Some((head, page::Block::Free(order))) => There::Free { head, order },
        other => panic!("{page:?} is not free: {other:?}"),
    }
}

fn used(page: Page, of: u32) -> There {
    There::Block { head: page.pfn(), order: order(of) }
}

/// A062, A063
#[test]
fn a_block_on_a_cpus_list_is_not_freed_again() {
    let mm = machine();
    let before = settle(&mm);
    for by in WAYS {
        for size in 0..=3 {
            let page = mm.alloc_pages(GFP_KERNEL, size).unwrap();
            common::free(&mm, page, size);
            let there = There::PerCpu { head: page.pfn(), order: order(size), cpu: CpuId::BOOT };
            let passed = passed(&mm, by, page, size);
            caught(&mm, MisuseKind::DoubleFree, passed, there, || free_by(&mm, by, page, size));
        }
    }
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// A062, A063
#[test]
fn a_block_in_the_free_areas_is_not_freed_again() {
    let mm = machine();
    let before = settle(&mm);
    for by in WAYS {
        for size in 0..=9 {
            let page = mm.alloc_pages(GFP_KERNEL, size).unwrap();
            // The neighbours stay in use, so that the block does not merge.
            let rest: Vec<_> = (0..3).map(|_| mm.alloc_pages(GFP_ATOMIC, size)).collect();
            common::free(&mm, page, size);
            mm.drain_all_pages();
            let (there, passed) = (free_block(&mm, page), passed(&mm, by, page, size));
            caught(&mm, MisuseKind::DoubleFree, passed, there, || free_by(&mm, by, page, size));
            rest.iter().flatten().for_each(|page| common::free(&mm, *page, size));
        }
    }
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// A062, A063
#[test]
fn a_block_that_has_merged_is_not_freed_again() {
    let mm = machine();
    let before = settle(&mm);
    for by in WAYS {
        for size in 0..=8 {
            let whole = mm.alloc_pages(GFP_KERNEL, size + 1).unwrap();
            let upper = page_at(&mm, whole.pfn().number() + (1 << size));
            common::free(&mm, whole, size + 1);
            mm.drain_all_pages();
            for page in [whole, upper] {
                let (there, passed) = (free_block(&mm, page), passed(&mm, by, page, size));
                assert!(matches!(there, There::Free { order, .. } if order.get() > size));
                caught(&mm, MisuseKind::DoubleFree, passed, there, || free_by(&mm, by, page, size));
            }
        }
    }
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// Inside a free block no order is right.
///
/// A063
#[test]
fn a_page_inside_a_free_block_is_not_freed() {
    let mm = machine();
    let before = settle(&mm);
    for by in WAYS {
        for size in [0, 1, 3, 4, 9] {
            let block = mm.alloc_pages(GFP_KERNEL, 6).unwrap();
            let inside = page_at(&mm, block.pfn().number() + 5);
            common::free(&mm, block, 6);
            let (there, passed) = (free_block(&mm, inside), passed(&mm, by, inside, size));
            caught(&mm, MisuseKind::DoubleFree, passed, there, || free_by(&mm, by, inside, size));
        }
    }
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// Frames of another manager, below and above all RAM and in a hole.
///
/// A063
#[test]
fn foreign_memory_is_not_freed() {
    let mm = machine();
    let before = settle(&mm);
    let other: Machine = Mm::new(Rig::new(32 << 20));
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { other.boot(&MemoryMap::new().ram(0..32 * MIB, NodeId::ZERO), &Setup::new()).unwrap() };
    for frame in [0, 255, 5 * 256, 6 * 256 - 1, 12 * 256, 20 * 256, 32 * 256 - 1] {
        let page = page_at(&other, frame);
        for size in [0, 3, 4, 10] {
            let passed = Passed::Page(page.pfn(), size);
            let kind = MisuseKind::Foreign;
            caught(&mm, kind, passed, There::Nothing, || common::free(&mm, page, size));
            let base = mm.platform().base().get();
            let at = VirtAddr::new(base + ((frame as usize) << 12));
            let passed = Passed::Address(at, size);
            // SAFETY: wrong on purpose, for this and the next.
            caught(&mm, kind, passed, There::Nothing, || unsafe { mm.free_pages(at, size) });
        }
    }
    let base = mm.platform().base().get();
    for outside in [0, 4096, base - 4096, base + (32 << 20), usize::MAX & !4095] {
        let at = VirtAddr::new(outside);
        let passed = Passed::Address(at, 0);
        // SAFETY: as above.
        caught(&mm, MisuseKind::Foreign, passed, There::Nothing, || unsafe { mm.free_page(at) });
    }
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// A063
#[test]
fn a_misaligned_address_is_not_freed() {
    let mm = machine();
    let before = settle(&mm);
    for size in [0, 2, 5] {
        let page = mm.alloc_pages(GFP_KERNEL, size).unwrap();
        let start = address(&mm, page).get();
        for offset in [1, 8, 2048, 4095, (4096 << size) - 1] {
            let at = VirtAddr::new(start + offset);
            let passed = Passed::Address(at, size);
            let there = used(page, size);
            // SAFETY: wrong on purpose.
            let call = || unsafe { mm.free_pages(at, size) };
            caught(&mm, MisuseKind::Misaligned, passed, there, call);
        }
        common::free(&mm, page, size);
    }
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// A063
#[test]
fn a_page_inside_a_used_block_is_not_freed() {
    let mm = machine();
    let before = settle(&mm);
    for by in WAYS {
        for size in 1..=8 {
            let block = mm.alloc_pages(GFP_KERNEL, size).unwrap();
            for inside in [1, (1 << size) / 2, (1 << size) - 1] {
                let page = page_at(&mm, block.pfn().number() + inside);
                for wrong in [0, 1, size] {
                    let passed = passed(&mm, by, page, wrong);
                    let call = || free_by(&mm, by, page, wrong);
                    caught(&mm, MisuseKind::Interior, passed, used(block, size), call);
                }
            }
            common::free(&mm, block, size);
        }
    }
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// Firmware's memory, the kernel image and the manager's own tables.
///
/// A063, A012
#[test]
fn reserved_frames_are_not_freed() {
    let mm = machine();
    let before = settle(&mm);
    let frames = (MIB >> 12..FRAMES).map(|frame| Pfn::new(frame).unwrap());
    let of = |owner: Owner| {
        let found: Vec<Pfn> = frames.clone().filter(|pfn| mm.owner(*pfn) == owner).collect();
        assert!(found.len() > 3, "{owner:?}");
        [found[0], found[found.len() / 2], found[found.len() - 1]]
    };
    for owner in [Owner::Reserved, Owner::KernelImage, Owner::Metadata] {
        for pfn in of(owner) {
            let page = mm.pfn_to_page(pfn).unwrap();
            for by in WAYS {
                for size in [0, 1, 4, 10] {
                    let passed = passed(&mm, by, page, size);
                    let call = || free_by(&mm, by, page, size);
                    caught(&mm, MisuseKind::Reserved, passed, There::Reserved, call);
                }
            }
            let passed = Passed::Page(pfn, 0);
            caught(&mm, MisuseKind::NoReference, passed, There::Reserved, || mm.get_page(page));
            // SAFETY: wrong on purpose.
            let put = || unsafe { mm.put_page(page) };
            caught(&mm, MisuseKind::Reserved, passed, There::Reserved, put);
        }
    }
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// Smaller, larger, larger than the machine's largest, and no order at all.
///
/// A062, A083
#[test]
fn the_wrong_order_is_found_at_the_call() {
    let mm = machine();
    let before = settle(&mm);
    for by in WAYS {
        for size in 0..=9 {
            let page = mm.alloc_pages(GFP_KERNEL, size).unwrap();
            let wrong = (0..=16).chain([31, 32, 64, 255, u32::MAX]).filter(|order| *order != size);
            for wrong in wrong {
                let passed = passed(&mm, by, page, wrong);
                let call = || free_by(&mm, by, page, wrong);
                caught(&mm, MisuseKind::WrongOrder, passed, used(page, size), call);
            }
            free_by(&mm, by, page, size);
        }
    }
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// A113, A063
#[test]
fn a_tail_of_a_compound_page_is_not_freed() {
    let mm = machine();
    let before = settle(&mm);
    for by in WAYS {
        for size in 1..=7 {
            let head = mm.alloc_pages(GFP_KERNEL | Gfp::COMP, size).unwrap();
            for tail in [1, (1 << size) - 1] {
                let tail = page_at(&mm, head.pfn().number() + tail);
                for wrong in [0, size] {
                    let passed = passed(&mm, by, tail, wrong);
                    let call = || free_by(&mm, by, tail, wrong);
                    caught(&mm, MisuseKind::CompoundTail, passed, used(head, size), call);
                }
            }
            let wrong = passed(&mm, by, head, size - 1);
            let call = || free_by(&mm, by, head, size - 1);
            caught(&mm, MisuseKind::WrongOrder, wrong, used(head, size), call);
            free_by(&mm, by, head, size);
        }
    }
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// A008, A063
#[test]
fn a_free_page_gets_no_reference() {
    let mm = machine();
    let before = settle(&mm);
    for size in [0, 1, 3, 4, 9] {
        let page = mm.alloc_pages(GFP_KERNEL, size).unwrap();
        common::free(&mm, page, size);
        for drain in [false, true] {
            if drain {
                mm.drain_all_pages();
            }
            let there = if drain || size > 3 {
                free_block(&mm, page)
            } else {
                There::PerCpu { head: page.pfn(), order: order(size), cpu: CpuId::BOOT }
            };
            let bare = Passed::Page(page.pfn(), 0);
            caught(&mm, MisuseKind::NoReference, bare, there, || mm.get_page(page));
            assert_eq!(mm.page_count(page), 0);
            let size = if drain || size > 3 { 0 } else { size };
            let passed = Passed::Page(page.pfn(), size);
            // SAFETY: wrong on purpose.
            let put = || unsafe { mm.put_page(page) };
            caught(&mm, MisuseKind::DoubleFree, passed, there, put);
        }
    }
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// A page inside a block that is not compound has no count of its own.
///
/// A008, A016
#[test]
fn a_page_inside_a_block_gets_no_reference() {
    let mm = machine();
    let before = settle(&mm);
    let block = mm.alloc_pages(GFP_KERNEL, 3).unwrap();
    let inside = page_at(&mm, block.pfn().number() + 3);
    let passed = Passed::Page(inside.pfn(), 0);
    caught(&mm, MisuseKind::NoReference, passed, used(block, 3), || mm.get_page(inside));
    // SAFETY: wrong on purpose.
    let put = || unsafe { mm.put_page(inside) };
    caught(&mm, MisuseKind::Interior, passed, used(block, 3), put);
    common::free(&mm, block, 3);
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// A block with a reference besides the caller's is not freed by the caller, and by one free too
/// many it is found.
///
/// A007, A008, A062
#[test]
fn one_free_more_than_references_is_found() {
    let mm = machine();
    let before = settle(&mm);
    for size in [0, 3, 4] {
        let page = mm.alloc_pages(GFP_KERNEL, size).unwrap();
        mm.get_page(page);
        mm.get_page(page);
        for left in [2, 1, 0] {
            common::free(&mm, page, size);
            assert_eq!(mm.page_count(page), left);
        }
        mm.drain_all_pages();
        let passed = Passed::Page(page.pfn(), size);
        let there = free_block(&mm, page);
        let call = || common::free(&mm, page, size);
        caught(&mm, MisuseKind::DoubleFree, passed, there, call);
    }
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// A block can be split that is used and not compound, by its own order.
///
/// A016, A062
#[test]
fn only_a_used_block_is_split() {
    let mm = machine();
    let before = settle(&mm);
    let block = mm.alloc_pages(GFP_KERNEL, 3).unwrap();
    let split = |kind, page: Page, size: u32, there| {
        let passed = Passed::Page(page.pfn(), size);
        caught(&mm, kind, passed, there, || mm.split_page(page, size));
    };
    split(MisuseKind::WrongOrder, block, 2, used(block, 3));
    split(MisuseKind::WrongOrder, block, 4, used(block, 3));
    split(MisuseKind::Interior, page_at(&mm, block.pfn().number() + 4), 2, used(block, 3));
    common::free(&mm, block, 3);
    let there = There::PerCpu { head: block.pfn(), order: order(3), cpu: CpuId::BOOT };
    split(MisuseKind::DoubleFree, block, 3, there);
    let compound = mm.alloc_pages(GFP_KERNEL | Gfp::COMP, 2).unwrap();
    split(MisuseKind::CompoundTail, compound, 2, used(compound, 2));
    common::free(&mm, compound, 2);
    // Whoever has the other reference would hold pages that are freed one by one.
    let shared = mm.alloc_pages(GFP_KERNEL, 2).unwrap();
    mm.get_page(shared);
    split(MisuseKind::Shared, shared, 2, used(shared, 2));
    assert_eq!(mm.page_count(shared), 2);
    common::free(&mm, shared, 2);
    mm.split_page(shared, 2);
    frames(shared, 2).for_each(|frame| common::free(&mm, page_at(&mm, frame), 0));
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// The calls that free many pages report each of them.
///
/// A062
#[test]
fn each_page_of_a_run_is_reported() {
    let mm = machine();
    let before = settle(&mm);
    let address = mm.alloc_pages_exact(5 * 4096 - 1, GFP_KERNEL).unwrap();
    let within = PhysAddr::new(0)..PhysAddr::new(12 * MIB);
    let run = mm.alloc_contig_pages(7, Order::ZERO, within, GFP_KERNEL).unwrap();
    // SAFETY: the first two are right, the others wrong on purpose.
    unsafe {
        mm.free_pages_exact(address, 5 * 4096 - 1);
        mm.free_contig_pages(run, 7);
        assert_eq!(mm.platform().take_reports(), []);
        mm.free_pages_exact(address, 5 * 4096 - 1);
        assert_eq!(mm.platform().take_reports().len(), 5);
        mm.free_contig_pages(run, 7);
    }
    let reports = mm.platform().take_reports();
    assert_eq!(reports.len(), 7);
    assert!(reports.iter().all(|report| report.kind == MisuseKind::DoubleFree), "{reports:#?}");
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// A page of a run that somebody else refers to stays theirs when the run is freed.
///
/// A008, A016
#[test]
fn a_shared_page_of_a_run_outlives_the_run() {
    let mm = machine();
    let before = settle(&mm);
    let within = PhysAddr::new(MIB)..PhysAddr::new(12 * MIB);
    let run = mm.alloc_contig_pages(5, Order::ZERO, within, GFP_KERNEL).unwrap();
    let shared = page_at(&mm, run.pfn().number() + 2);
    mm.get_page(shared);
    // SAFETY: the test's own.
    unsafe { mm.free_contig_pages(run, 5) };
    assert_eq!(mm.page_count(shared), 1);
    assert_eq!(mm.owner(shared.pfn()), Owner::Kernel);
    // SAFETY: the reference was taken above.
    unsafe { mm.put_page(shared) };
    assert_eq!(mm.page_count(shared), 0);
    assert_eq!(mm.platform().take_reports(), []);
    assert_eq!(settle(&mm), before);
}

/// A count that is far too large frees what is there and ends at the first frame that is none.
///
/// A062, A063
#[test]
fn a_run_of_a_wrong_length_ends_where_memory_does() {
    let mm = machine();
    let before = settle(&mm);
    let within = PhysAddr::new(11 * MIB)..PhysAddr::new(12 * MIB);
    let alloc = || mm.alloc_contig_pages(3, Order::ZERO, within.clone(), GFP_KERNEL).unwrap();
    for (call, name) in [(0, "free_contig_pages"), (1, "free_pages_exact")] {
        let run = alloc();
        if call == 0 {
            // SAFETY: the first three pages are right, the others wrong on purpose.
            unsafe { mm.free_contig_pages(run, u64::MAX) };
        } else {
            // SAFETY: as above.
            unsafe { mm.free_pages_exact(address(&mm, run), usize::MAX) };
        }
        let reports = mm.platform().take_reports();
        let (last, others) = reports.split_last().unwrap();
        assert_eq!((last.kind, last.there), (MisuseKind::Foreign, There::Nothing), "{name}");
        assert_eq!(last.passed, Passed::Page(Pfn::new(FRAMES).unwrap(), 0), "{name}");
        assert!(others.len() as u64 <= FRAMES - run.pfn().number() - 3, "{name}");
        let known = [MisuseKind::DoubleFree, MisuseKind::Interior, MisuseKind::Reserved];
        assert!(others.iter().all(|report| known.contains(&report.kind)), "{name}: {others:#?}");
        assert!(last.line.contains("tests/wrong_free.rs"), "{}", last.line);
        assert_eq!(settle(&mm), before, "{name}");
    }
    // Neither the first byte of a page nor memory of this manager.
    let run = alloc();
    for wrong in [address(&mm, run).get() + 8, usize::MAX - 4095] {
        // SAFETY: wrong on purpose.
        unsafe { mm.free_pages_exact(VirtAddr::new(wrong), 3 << 12) };
        assert_eq!(mm.platform().take_reports().len(), 1);
    }
    // SAFETY: the test's own, and not used.
    unsafe { mm.free_contig_pages(run, 3) };
    works_on(&mm);
    assert_eq!(settle(&mm), before);
}

/// Before boot nothing is this manager's.
///
/// A063
#[test]
fn a_free_before_boot_is_reported() {
    let booted = machine();
    let page = booted.alloc_page(GFP_KERNEL).unwrap();
    let mm: Machine = Mm::new(Rig::new(1 << 20));
    common::free(&mm, page, 0);
    // SAFETY: wrong on purpose.
    unsafe { mm.free_page(mm.platform().base()) };
    // SAFETY: as above.
    unsafe { mm.put_page(page) };
    mm.get_page(page);
    let kinds: Vec<_> = mm.platform().take_reports().iter().map(|report| report.kind).collect();
    use MisuseKind::{Foreign, NoReference};
    assert_eq!(kinds, [Foreign, Foreign, Foreign, NoReference]);
}

/// A block that an NMI handler freed while the zone was locked is free already, although it is not
/// on a list yet.
///
/// A062
#[test]
fn a_block_that_was_put_aside_is_not_freed_again() {
    for size in [0, 2, 4, 6] {
        let mm: &'static Machine<NoReclaim, 12, true> =
            Box::leak(Box::new(Mm::new(Rig::new(8 << 20))));
        // SAFETY: the RAM is this test's, for this manager alone.
        unsafe { mm.boot(&MemoryMap::new().ram(0..8 * MIB, NodeId::ZERO), &Setup::new()).unwrap() };
        let before = settle(mm);
        let held = mm.alloc_pages(GFP_KERNEL, size).unwrap();
        CPU.with(|cpu| {
            cpu.arm_once(Scope::Nmi, Some(Point::Trace), 0, move |_| {
                common::free(mm, held, size);
                assert_eq!(mm.platform().take_reports(), []);
                common::free(mm, held, size);
            });
            // Takes the lock, and what is traced under it lets the handler in.
            let other = mm.alloc_pages(GFP_KERNEL, 7).unwrap();
            assert!(!cpu.disarm());
            common::free(mm, other, 7);
        });
        let reports = mm.platform().take_reports();
        assert_eq!(reports.len(), 1, "{reports:#?}");
        assert_eq!(reports[0].kind, MisuseKind::DoubleFree);
        assert_eq!(settle(mm), before);
    }
}
