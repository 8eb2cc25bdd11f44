//! The calls of the page allocator, one by one, as the texts tell of them.

mod common;

use common::{Machine, Rig, as_cpu, frames, lists, settle};
use kmem::platform::Context;
use kmem::*;

const MIB: u64 = 1 << 20;

fn machine() -> Machine {
    let mm = Mm::new(Rig::new(32 << 20));
    let setup = Setup::new().cpus(2).dma_limit(PhysAddr::new(16 * MIB));
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&MemoryMap::new().ram(0..32 * MIB, NodeId::ZERO), &setup).unwrap() };
    mm.cpu_online(CpuId::new(1).unwrap()).unwrap();
    mm
}

#[allow(clippy::mut_from_ref, reason = "the memory is the test's, not the manager's")]
fn bytes(mm: &Machine, page: Page, order: u32) -> &mut [u8] {
    let start = mm.platform().frame(page.pfn().number());
    // SAFETY: the tests hold the block, and make one slice of it at a time.
    unsafe { std::slice::from_raw_parts_mut(start, 4096 << order) }
}

/// A042, A055, A056, A059, A067
#[test]
fn an_order_is_so_many_pages_side_by_side() {
    let mm = machine();
    let before = settle(&mm);
    for order in 0..=10 {
        let free = mm.free_page_count();
        let page = mm.alloc_pages(GFP_KERNEL, order).unwrap();
        assert_eq!(free - mm.free_page_count(), 1 << order);
        assert!(page.pfn().is_aligned(Order::new(order).unwrap()));
        bytes(&mm, page, order).fill(order as u8);
        for frame in frames(page, order) {
            assert_eq!(mm.owner(Pfn::new(frame).unwrap()), Owner::Kernel);
        }
        common::free(&mm, page, order);
        assert_eq!(mm.free_page_count(), free);
    }
    // Order 5 is 32 pages of 4 KiB: 128 KiB.
    let pages = mm.pages(GFP_KERNEL, 5).unwrap();
    assert_eq!(pages.bytes().len(), 128 << 10);
    drop(pages);
    assert_eq!(settle(&mm), before);
}

/// A043, A047, A051, A052, A053
#[test]
fn each_form_of_a_call_is_undone_by_each_form_of_free() {
    let mm = machine();
    let before = settle(&mm);
    for way in 0..6 {
        let page = mm.alloc_page(GFP_KERNEL).unwrap();
        let address = mm.__get_free_page(GFP_KERNEL).unwrap();
        let block = mm.__get_free_pages(GFP_KERNEL, 3).unwrap();
        let held = [page, mm.virt_to_page(address).unwrap()];
        assert_eq!(mm.page_address(held[1]), Some(address));
        assert!(mm.page_to_phys(held[1]).is_page_aligned(12));
        // SAFETY: each block is freed once, in one way or another.
        unsafe {
            for page in held {
                match way {
                    0 => mm.__free_page(page),
                    1 => mm.__free_pages(page, 0),
                    2 => mm.free_page(mm.page_address(page).unwrap()),
                    3 => mm.free_pages(mm.page_address(page).unwrap(), 0),
                    4 => mm.free_hot_page(page),
                    _ => mm.free_cold_page(page),
                }
            }
            if way % 2 == 0 {
                mm.free_pages(block, 3);
            } else {
                mm.__free_pages(mm.virt_to_page(block).unwrap(), 3);
            }
        }
    }
    assert_eq!(mm.platform().take_reports(), []);
    assert_eq!(settle(&mm), before);
}

/// A page that was written comes back as it is from `__get_free_page`, and cleared from
/// `get_zeroed_page`.
///
/// A047, A048, A049
#[test]
fn only_a_zeroed_page_is_cleared() {
    let mm = machine();
    let dirty = |order: u32| {
        let page = mm.alloc_pages(GFP_KERNEL, order).unwrap();
        bytes(&mm, page, order).fill(0xa5);
        common::free(&mm, page, order);
        page
    };
    let page = dirty(0);
    let again = mm.__get_free_page(GFP_KERNEL).unwrap();
    assert_eq!(mm.virt_to_page(again), Some(page));
    assert!(bytes(&mm, page, 0).iter().all(|byte| *byte == 0xa5));
    common::free(&mm, page, 0);
    let zeroed = mm.get_zeroed_page(GFP_KERNEL).unwrap();
    assert_eq!(mm.virt_to_page(zeroed), Some(page));
    assert!(bytes(&mm, page, 0).iter().all(|byte| *byte == 0));
    common::free(&mm, page, 0);
    for order in [0, 1, 3, 4, 9] {
        let page = dirty(order);
        let again = mm.alloc_pages(GFP_KERNEL | Gfp::ZERO, order).unwrap();
        assert_eq!(page, again, "the block freed last is the next");
        assert!(bytes(&mm, again, order).iter().all(|byte| *byte == 0), "order {order}");
        common::free(&mm, again, order);
    }
}

/// A054, A085, A105
#[test]
fn hot_pages_are_used_again_first_and_cold_ones_last() {
    let mm = machine();
    let pages: Vec<Page> = (0..8).map(|_| mm.alloc_page(GFP_KERNEL).unwrap()).collect();
    mm.drain_local_pages();
    // SAFETY: each page is freed once.
    unsafe {
        mm.free_cold_page(pages[0]);
        mm.free_hot_page(pages[1]);
        mm.free_hot_page(pages[2]);
        mm.free_cold_page(pages[3]);
    }
    let next = |gfp| mm.alloc_page(gfp).unwrap();
    assert_eq!(next(GFP_KERNEL), pages[2]);
    assert_eq!(next(GFP_KERNEL | Gfp::COLD), pages[3]);
    assert_eq!(next(GFP_KERNEL), pages[1]);
    assert_eq!(next(GFP_KERNEL), pages[0]);
    pages.into_iter().for_each(|page| common::free(&mm, page, 0));
    mm.verify().unwrap();
}

/// A057
#[test]
fn the_order_of_a_size() {
    for (size, order) in
        [(0, 0), (1, 0), (4096, 0), (4097, 1), (8192, 1), (8193, 2), (128 << 10, 5)]
    {
        assert_eq!(get_order(size, 12), order, "{size}");
    }
    let mm = machine();
    for size in [1, 4096, 4097, 100_000] {
        let order = get_order(size, 12);
        let pages = mm.pages(GFP_KERNEL, order).unwrap();
        assert!(pages.size() >= size && (order == 0 || pages.size() / 2 < size));
    }
}

/// A058, A083
#[test]
fn the_largest_order_is_a_setting_and_more_is_refused() {
    for largest in [0, 5, 9, 10, 11] {
        let mm: Machine = Mm::new(Rig::new(32 << 20));
        let setup = Setup::new().largest_order(Order::new(largest).unwrap());
        // SAFETY: the RAM is this test's, for this manager alone.
        unsafe { mm.boot(&MemoryMap::new().ram(0..32 * MIB, NodeId::ZERO), &setup).unwrap() };
        let before = settle(&mm);
        assert_eq!(mm.largest_order().get(), largest);
        let page = mm.alloc_pages(GFP_KERNEL, largest).unwrap();
        let refused = mm.alloc_pages(GFP_KERNEL, largest + 1).unwrap_err();
        assert!(matches!(refused, AllocError::OrderTooLarge { .. }), "{refused}");
        assert!(refused.to_string().contains(&format!("order {}", largest + 1)), "{refused}");
        common::free(&mm, page, largest);
        assert_eq!(settle(&mm), before);
    }
}

/// The memory that a request for whole pages takes is the pages and nothing else.
///
/// A068, A001
#[test]
fn whole_pages_waste_nothing() {
    let mm = machine();
    let free = mm.free_page_count();
    for pages in 1..40 {
        let address = mm.alloc_pages_exact(pages << 12, GFP_KERNEL).unwrap();
        assert_eq!(free - mm.free_page_count(), pages as u64);
        // SAFETY: the test holds them.
        unsafe { mm.free_pages_exact(address, pages << 12) };
    }
    assert_eq!(mm.free_page_count(), free);
}

/// A065
#[test]
fn a_failure_is_an_error_of_both_kinds_of_call() {
    let mm = machine();
    let held: Vec<Page> =
        std::iter::from_fn(|| mm.alloc_page(GFP_ATOMIC | Gfp::NOWARN).ok()).collect();
    let no_memory = |error| matches!(error, AllocError::NoMemory { .. });
    assert!(no_memory(mm.alloc_pages(GFP_ATOMIC, 0).unwrap_err()));
    assert!(no_memory(mm.__get_free_pages(GFP_ATOMIC, 0).unwrap_err()));
    assert!(no_memory(mm.get_zeroed_page(GFP_ATOMIC).unwrap_err()));
    // Each says which call it was, once.
    let lines = mm.platform().take_lines();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.contains("tests/calls.rs")), "{lines:#?}");
    held.into_iter().for_each(|page| common::free(&mm, page, 0));
    mm.verify().unwrap();
}

/// One taking of a zone's lock moves a batch; what is freed and allocated after that stays on the
/// list.
///
/// A084
#[test]
fn single_pages_move_in_batches() {
    let mm = machine();
    mm.drain_all_pages();
    let zone = mm.zones().iter().find(|zone| zone.name() == "Normal").unwrap();
    let set = || mm.pagesets(zone).find(|set| set.cpu == CpuId::BOOT).unwrap();
    let (high, batch) = (u64::from(set().high), u64::from(set().batch));
    assert!(batch > 1 && high >= 2 * batch);
    let free = zone.free_pages();
    let first = mm.alloc_page(GFP_KERNEL).unwrap();
    let moved = free - zone.free_pages();
    assert!(1 < moved && moved <= batch, "{moved} of {batch}");
    assert_eq!(set().count, moved - 1);
    let free = zone.free_pages();
    for _ in 0..1000 {
        let page = mm.alloc_page(GFP_KERNEL).unwrap();
        common::free(&mm, page, 0);
    }
    assert_eq!(zone.free_pages(), free, "pages moved although the list had some");
    common::free(&mm, first, 0);

    // Into a full list: it never holds more than its mark, and gives a batch back at once.
    let pages: Vec<Page> = (0..high + 1).map(|_| mm.alloc_page(GFP_KERNEL).unwrap()).collect();
    mm.drain_local_pages();
    let free = zone.free_pages();
    for page in pages {
        let before = zone.free_pages();
        common::free(&mm, page, 0);
        assert!([0, batch].contains(&(zone.free_pages() - before)));
        assert!(set().count <= high);
    }
    assert!(zone.free_pages() > free, "the list never gave anything back");
    mm.drain_all_pages();
    assert_eq!(set().count, 0);
    mm.verify().unwrap();
}

/// Pages on a CPU's lists are free memory, and none is lost when the CPU goes.
///
/// A086
#[test]
fn lists_are_drained_and_survive_their_cpu() {
    let mm = machine();
    let before = settle(&mm);
    let free = mm.free_page_count();
    let one = CpuId::new(1).unwrap();
    let fill = |number| {
        as_cpu(number, || {
            for order in 0..=3 {
                let pages: Vec<Page> =
                    (0..9).map(|_| mm.alloc_pages(GFP_KERNEL, order).unwrap()).collect();
                pages.into_iter().for_each(|page| common::free(&mm, page, order));
            }
        });
    };
    fill(0);
    fill(1);
    assert!(mm.listed_pages() > 0);
    assert_eq!(mm.free_page_count(), free);

    // Another CPU's lists are drained at its next call.
    mm.drain_all_pages();
    let left = mm.listed_pages();
    assert!(left > 0, "the other cpu has done nothing yet");
    let zone = mm.zones().iter().rfind(|zone| zone.is_populated()).unwrap();
    let batch = u64::from(mm.pagesets(zone).next().unwrap().batch);
    as_cpu(1, || {
        let page = mm.alloc_pages(GFP_KERNEL, 0).unwrap();
        common::free(&mm, page, 0);
    });
    assert_eq!(mm.listed_pages(), batch, "what the call itself fetched");
    as_cpu(1, || mm.drain_local_pages());
    assert_eq!(mm.listed_pages(), 0);
    assert_eq!(lists(&mm), before);

    // Where CPUs can be called, they are, from where that can be waited for.
    mm.platform().can_call.set(true);
    fill(1);
    let on_the_other = mm.listed_pages();
    let saved = mm.platform().mask();
    mm.drain_all_pages();
    mm.platform().restore(saved);
    assert_eq!(mm.listed_pages(), on_the_other, "the other cpu was not called from here");
    mm.drain_all_pages();
    assert_eq!(mm.listed_pages(), 0);
    assert_eq!(lists(&mm), before);
    mm.platform().can_call.set(false);

    fill(1);
    // SAFETY: that CPU does nothing meanwhile.
    unsafe { mm.cpu_offline(one) }.unwrap();
    // SAFETY: that CPU does nothing meanwhile.
    assert_eq!(unsafe { mm.cpu_offline(one) }, Err(CpuError::Offline(one)));
    assert_eq!(mm.listed_pages(), 0);
    assert_eq!(settle(&mm), before);
    // A CPU without lists can use the allocator all the same.
    fill(1);
    assert_eq!(mm.listed_pages(), 0);
    mm.cpu_online(one).unwrap();
    assert_eq!(mm.cpu_online(one), Err(CpuError::Online(one)));
    fill(1);
    assert!(mm.listed_pages() > 0);
    as_cpu(1, || mm.drain_local_pages());
    assert_eq!(settle(&mm), before);
}

/// A zone has a list for each order, and its blocks add up to its free pages.
///
/// A078
#[test]
fn the_free_lists_add_up() {
    let mm = machine();
    let held: Vec<(Page, u32)> = (0..=10)
        .map(|order| (mm.alloc_pages(GFP_KERNEL | Gfp::DMA, order % 8).unwrap(), order % 8))
        .collect();
    mm.drain_all_pages();
    for (blocks, free) in lists(&mm) {
        let pages: u64 = blocks.iter().enumerate().map(|(order, count)| count << order).sum();
        assert_eq!(pages, free);
    }
    for (page, order) in held {
        assert!(page.pfn().start(12).get() < 16 * MIB, "outside DMA");
        common::free(&mm, page, order);
    }
}

/// Nothing is served before boot, and a failed boot leaves the manager as it was.
///
/// A065
#[test]
fn before_boot_every_call_is_refused() {
    let mm: Machine = Mm::new(Rig::new(4 << 20));
    for _ in 0..2 {
        assert_eq!(mm.alloc_pages(GFP_KERNEL, 0), Err(AllocError::NotBooted));
        assert_eq!(mm.alloc_pages(GFP_ATOMIC, 9), Err(AllocError::NotBooted));
        assert_eq!(mm.__get_free_page(GFP_ATOMIC), Err(AllocError::NotBooted));
        assert_eq!(mm.alloc_pages_exact(4096, GFP_KERNEL), Err(AllocError::NotBooted));
        let all = PhysAddr::new(0)..PhysAddr::new(1 << 30);
        let run = mm.alloc_contig_pages(1, Order::ZERO, all, GFP_KERNEL);
        assert_eq!(run, Err(AllocError::NotBooted));
        assert_eq!(mm.alloc_pages_bulk(GFP_KERNEL, &mut [None; 3]), 0);
        assert!(mm.pages(GFP_KERNEL, 0).is_err());
        mm.drain_local_pages();
        mm.drain_all_pages();
        assert_eq!(mm.free_page_count(), 0);
        mm.verify().unwrap();
        // The tables do not fit into what is left.
        let map = MemoryMap::new().ram(0..4 * MIB, NodeId::ZERO).reserved(0..4 * MIB, "all");
        // SAFETY: the RAM is this test's, for this manager alone.
        assert!(unsafe { mm.boot(&map, &Setup::new()) }.is_err());
    }
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&MemoryMap::new().ram(0..4 * MIB, NodeId::ZERO), &Setup::new()).unwrap() };
    let page = mm.alloc_page(GFP_KERNEL).unwrap();
    common::free(&mm, page, 0);
    // SAFETY: the RAM is this test's, for this manager alone.
    let again = unsafe { mm.boot(&MemoryMap::new().ram(0..4 * MIB, NodeId::ZERO), &Setup::new()) };
    assert_eq!(again, Err(BootError::Again));
    mm.verify().unwrap();
}

/// Where a zone that devices need reaches above the direct map, a call for an address gets one or
/// fails, and keeps nothing.
///
/// A010, A073
#[test]
fn an_address_is_of_the_direct_map_or_none() {
    let mm: Machine = Mm::new(Rig::with_direct(32 << 20, 16 << 20));
    let setup = Setup::new().dma32_limit(PhysAddr::new(24 * MIB));
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&MemoryMap::new().ram(0..32 * MIB, NodeId::ZERO), &setup).unwrap() };
    let before = settle(&mm);
    for order in [0, 2, 5, 9] {
        for gfp in [GFP_KERNEL | GFP_DMA32, GFP_ATOMIC | GFP_DMA32, GFP_KERNEL] {
            let free = mm.free_page_count();
            // All there are: those of the direct map, then none.
            let held: Vec<VirtAddr> =
                std::iter::from_fn(|| mm.__get_free_pages(gfp | Gfp::NOWARN, order).ok()).collect();
            assert!(held.iter().all(|address| mm.virt_to_page(*address).is_some()));
            let taken = (held.len() as u64) << order;
            assert_eq!(free - mm.free_page_count(), taken, "order {order}, {gfp}");
            for address in held {
                // SAFETY: the block was allocated above.
                unsafe { mm.free_pages(address, order) };
            }
        }
    }
    assert_eq!(settle(&mm), before);
}
