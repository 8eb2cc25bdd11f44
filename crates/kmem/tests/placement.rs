//! Where memory comes from: which zone and node, for runs of frames and for CPUs without lists.

mod common;

use common::{CPU, Machine, Point, Rig, Scope, as_cpu, settle};
use kmem::gfp::GfpError;
use kmem::platform::MisuseKind;
use kmem::*;

const MIB: u64 = 1 << 20;
const ALL: std::ops::Range<PhysAddr> = PhysAddr::new(0)..PhysAddr::new(64 * MIB);

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

/// Two nodes with 16 MiB each, the lower 8 of the first ZONE_DMA; CPU 1 is on the second.
fn two_nodes() -> Machine {
    let mm = Mm::new(Rig::new(32 << 20));
    let map = MemoryMap::new().ram(0..16 * MIB, node(0)).ram(16 * MIB..32 * MIB, node(1));
    let setup = Setup::new().cpus(2).cpu_node(cpu(1), node(1)).dma_limit(PhysAddr::new(8 * MIB));
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup) }.unwrap();
    mm
}

fn zone_of(mm: &Machine, page: Page) -> (NodeId, ZoneKind) {
    let zone = mm.page_zone(page).unwrap();
    (zone.node(), zone.kind())
}

/// The node of a CPU is known before the CPU has lists, and while it has none.
///
/// A045, A089
#[test]
fn a_cpu_without_lists_gets_memory_of_its_node() {
    let mm = two_nodes();
    let local_of = |number| {
        as_cpu(number, || {
            [0, 3, 5].map(|order| {
                let page = mm.alloc_pages_node(None, GFP_KERNEL, order).unwrap();
                common::free(&mm, page, order);
                let run = mm.alloc_contig_pages(3, Order::ZERO, ALL, GFP_KERNEL).unwrap();
                // SAFETY: the test's own, and not used.
                unsafe { mm.free_contig_pages(run, 3) };
                assert_eq!(zone_of(&mm, run).0, node(number), "a run");
                zone_of(&mm, page).0
            })
        })
    };
    assert!(!mm.is_online(cpu(1)));
    assert_eq!(local_of(1), [node(1); 3]);
    mm.cpu_online(cpu(1)).unwrap();
    assert_eq!(local_of(1), [node(1); 3]);
    // SAFETY: nothing runs as that CPU.
    unsafe { mm.cpu_offline(cpu(1)) }.unwrap();
    assert_eq!(local_of(1), [node(1); 3]);
    assert_eq!(local_of(0), [node(0); 3]);
    let counters = mm.counters();
    assert_eq!((counters.numa_miss, counters.numa_foreign), (0, 0));
    assert_eq!(counters.numa_other, 0, "all of it was local");
}

/// A run of frames comes from the zone that any request with its flags would look at first.
///
/// A036, A044, A093, A111
#[test]
fn a_run_leaves_low_memory_for_those_who_need_it() {
    let mm = two_nodes();
    let before = settle(&mm);
    let run = |gfp| mm.alloc_contig_pages(5, Order::ZERO, ALL, gfp);
    let of = |gfp| {
        let page = run(gfp).unwrap();
        // SAFETY: the test's own, and not used.
        unsafe { mm.free_contig_pages(page, 5) };
        zone_of(&mm, page)
    };
    assert_eq!(of(GFP_KERNEL), (node(0), ZoneKind::Normal));
    assert_eq!(of(GFP_KERNEL | Gfp::DMA), (node(0), ZoneKind::Dma));
    assert_eq!(as_cpu(1, || of(GFP_KERNEL)), (node(1), ZoneKind::Normal));
    // Only there, or only where the task may.
    let this = as_cpu(1, || of(GFP_KERNEL | Gfp::THISNODE));
    assert_eq!(this, (node(1), ZoneKind::Normal));
    CPU.with(|cpu| cpu.nodes.set(NodeMask::of(node(1))));
    assert_eq!(of(GFP_KERNEL | Gfp::HARDWALL), (node(1), ZoneKind::Normal));
    assert_eq!(of(GFP_KERNEL), (node(0), ZoneKind::Normal));
    let neither = run(GFP_KERNEL | Gfp::HARDWALL | Gfp::THISNODE | Gfp::NOWARN);
    assert!(matches!(neither, Err(AllocError::NoMemory { .. })), "{neither:?}");
    CPU.with(|cpu| cpu.nodes.set(NodeMask::ALL));

    // A range that ends below: what is there, whichever zone it is.
    let low = PhysAddr::new(0)..PhysAddr::new(4 * MIB);
    let page = mm.alloc_contig_pages(5, Order::ZERO, low, GFP_KERNEL).unwrap();
    assert_eq!(zone_of(&mm, page), (node(0), ZoneKind::Dma));
    // SAFETY: the test's own, and not used.
    unsafe { mm.free_contig_pages(page, 5) };
    assert_eq!(settle(&mm), before);
}

/// A run of frames leaves what is kept back, as any request.
///
/// A026, A139
#[test]
fn a_run_leaves_the_reserve() {
    let mm: Machine = Mm::new(Rig::new(16 << 20));
    let setup = Setup::new().min_free_kbytes(1024);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&MemoryMap::new().ram(0..16 * MIB, NodeId::ZERO), &setup) }.unwrap();
    let zone = &mm.zones()[0];
    let (free, min) = (zone.free_pages(), zone.watermarks().min);
    assert_eq!(min, 256);
    let taken = |gfp: Gfp| {
        let most = (1..=free).rev().find(|count| {
            let run = mm.alloc_contig_pages(*count, Order::ZERO, ALL, gfp | Gfp::NOWARN);
            // SAFETY: the test's own, and not used.
            run.map(|run| unsafe { mm.free_contig_pages(run, *count) }).is_ok()
        });
        free - most.unwrap()
    };
    assert_eq!(taken(GFP_KERNEL | Gfp::MEMALLOC), 0, "the free memory is one run");
    assert_eq!(taken(GFP_KERNEL), min);
    assert_eq!(taken(GFP_ATOMIC), min * 3 / 8);
}

/// What a run of frames cannot be is refused, and what it cannot be here is reported.
///
/// A065, A135
#[test]
fn a_run_is_refused_what_it_cannot_be() {
    let mm = two_nodes();
    let run = |count, gfp| mm.alloc_contig_pages(count, Order::ZERO, ALL, gfp);
    for flag in [Gfp::COMP, Gfp::NOFAIL] {
        let refused = Err(AllocError::BadFlags(GfpError::NotForRuns(flag)));
        assert_eq!(run(2, GFP_KERNEL | flag), refused);
    }
    assert_eq!(run(0, GFP_KERNEL), Err(AllocError::ZeroSize));
    assert!(matches!(run(2, GFP_KERNEL | Gfp::DMA | Gfp::HIGHMEM), Err(AllocError::BadFlags(_))));
    let failures = mm.counters().failures;
    for count in [1 << 20, u64::MAX] {
        assert!(matches!(run(count, GFP_KERNEL), Err(AllocError::NoMemory { .. })));
    }
    assert_eq!(mm.counters().failures, failures + 2);
    assert_eq!(mm.platform().take_lines().len(), 2);

    // Called with interrupts masked, as a request that may sleep.
    use kmem::platform::Context;
    let saved = mm.platform().mask();
    let page = run(2, GFP_KERNEL).unwrap();
    mm.platform().restore(saved);
    let reports = mm.platform().take_reports();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].kind, MisuseKind::SleepInAtomic);
    assert!(reports[0].line.contains("tests/placement.rs"), "{}", reports[0].line);
    // SAFETY: the test's own, and not used.
    unsafe { mm.free_contig_pages(page, 2) };
}

/// A CPU that is at its lists keeps them: an interrupt handler that takes it out is told so.
///
/// A086
#[test]
fn a_cpu_at_its_lists_is_not_taken_out() {
    let mm: &'static Machine = Box::leak(Box::new(two_nodes()));
    let free = mm.free_page_count();
    CPU.with(|cpu| {
        // A refill takes the zone's lock while the CPU is at its lists.
        cpu.arm_once(Scope::Interrupt, Some(Point::Restore), 0, |_| {
            // SAFETY: the CPU is this one, and the code below it is inside the manager: wrong, and
            // found to be.
            assert_eq!(unsafe { mm.cpu_offline(CpuId::BOOT) }, Err(CpuError::Busy(CpuId::BOOT)));
        });
        let page = mm.alloc_page(GFP_KERNEL).unwrap();
        assert!(!cpu.disarm(), "no interrupt came");
        assert!(mm.is_online(CpuId::BOOT));
        common::free(mm, page, 0);
    });
    assert_eq!(mm.free_page_count(), free);
    // SAFETY: the CPU does nothing else.
    unsafe { mm.cpu_offline(CpuId::BOOT) }.unwrap();
    assert_eq!((mm.free_page_count(), mm.listed_pages()), (free, 0));
    mm.verify().unwrap();
}
