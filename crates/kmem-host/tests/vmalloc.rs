//! Memory that is contiguous as addresses only, with real mappings behind it.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use kmem::platform::DirectMap;
use kmem::{
    AllocError, AreaInfo, CpuId, GFP_ATOMIC, GFP_KERNEL, Gfp, NodeId, Page, Touch, VirtAddr,
};
use kmem_host::{Description, Machine};

const PAGE: usize = 4096;

fn boot(preset: &str) -> Arc<Machine> {
    Machine::boot(&Description::preset(preset).unwrap()).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a test as a task, and looks that the machine is in order afterwards.
fn on(preset: &str, test: impl FnOnce(&Machine)) {
    let machine = boot(preset);
    machine.run_on(CpuId::BOOT, || test(&machine));
    let shutdown = machine.shutdown();
    assert!(shutdown.is_clean(), "{shutdown}");
}

fn free(machine: &Machine, memory: NonNull<u8>) {
    // SAFETY: the tests' own areas, each once.
    unsafe { machine.mm().vfree(memory.as_ptr()) };
}

/// What a test writes to page `index` of an area.
fn stamp(memory: NonNull<u8>, index: usize) -> u64 {
    (memory.as_ptr().addr() as u64) << 20 ^ index as u64
}

fn write(memory: NonNull<u8>, pages: usize) {
    for index in 0..pages {
        // SAFETY: the area has so many pages.
        unsafe { memory.byte_add(index * PAGE).cast::<u64>().write(stamp(memory, index)) };
    }
}

fn is_intact(memory: NonNull<u8>, pages: usize) -> bool {
    // SAFETY: as above.
    (0..pages).all(|index| unsafe {
        memory.byte_add(index * PAGE).cast::<u64>().read() == stamp(memory, index)
    })
}

/// The areas, as a report goes through them.
fn areas(machine: &Machine) -> Vec<AreaInfo> {
    let mut at = VirtAddr::new(0);
    std::iter::from_fn(|| {
        let area = machine.mm().vm_area_from(at)?;
        at = VirtAddr::new(area.start.get() + 1);
        Some(area)
    })
    .collect()
}

/// Takes all pages and gives every second one back, so that no two free ones are neighbours.
fn splinter(machine: &Machine) -> Vec<Page> {
    let mm = machine.mm();
    let mut taken = Vec::new();
    while let Ok(page) = mm.alloc_page(GFP_ATOMIC | Gfp::MEMALLOC | Gfp::NOWARN) {
        taken.push(page);
    }
    taken.sort_by_key(|page| page.pfn());
    let (given, kept) =
        taken.into_iter().partition::<Vec<_>, _>(|page| page.pfn().number() % 2 == 0);
    for page in given {
        // SAFETY: the test's own.
        unsafe { mm.__free_page(page) };
    }
    mm.drain_all_pages();
    kept
}

#[test]
// A220, A223, A226, A237, A245
fn an_area_is_memory_in_the_range_for_mappings_rounded_up_to_pages() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let memory = mm.vmalloc(16 * PAGE - 5).unwrap();
        write(memory, 16);
        assert!(is_intact(memory, 16));
        let range = mm.vmalloc_info().range;
        assert!(range.contains(&VirtAddr::from_ptr(memory.as_ptr())));
        assert!(mm.is_vmalloc_addr(memory.as_ptr()));
        assert_eq!(mm.virt_to_page(VirtAddr::from_ptr(memory.as_ptr())), None);
        let object = mm.kmalloc(100, GFP_KERNEL).unwrap();
        assert!(!mm.is_vmalloc_addr(object.as_ptr()));
        // SAFETY: the test's own.
        unsafe { mm.kfree(object.as_ptr()) };
        let area = areas(machine)[0];
        assert_eq!((area.pages, area.start.get()), (16, memory.as_ptr().addr()));
        assert!(area.caller.file().ends_with("tests/vmalloc.rs"));
        free(machine, memory);
    });
}

#[test]
// A221, A229
fn every_page_of_an_area_is_a_frame_that_the_direct_map_shows_too() {
    on("numa2", |machine| {
        let mm = machine.mm();
        for pages in [1, 2, 7, 64, 100] {
            let memory = mm.vmalloc(pages * PAGE).unwrap();
            write(memory, pages);
            let mut frames = BTreeMap::new();
            for index in 0..pages {
                // SAFETY: inside the area.
                let at = unsafe { memory.byte_add(index * PAGE) };
                let page = mm.vmalloc_to_page(at.as_ptr()).unwrap();
                let direct = mm.page_address(page).unwrap();
                // SAFETY: the frame is the area's.
                assert_eq!(unsafe { direct.as_ptr::<u64>().read() }, stamp(memory, index));
                assert_eq!(frames.insert(page.pfn(), index), None);
            }
            let guard = memory.as_ptr().wrapping_add(pages * PAGE);
            assert_eq!(mm.vmalloc_to_page(guard), None);
            free(machine, memory);
            assert_eq!(mm.vmalloc_to_page(memory.as_ptr()), None);
        }
    });
}

#[test]
// A221, A314
fn an_area_may_be_larger_than_the_largest_free_block() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let kept = splinter(machine);
        let refused = mm.alloc_pages(GFP_KERNEL | Gfp::NOWARN, 4);
        assert!(matches!(refused, Err(AllocError::NoMemory { .. })), "{refused:?}");
        let memory = mm.vzalloc(100 * PAGE).unwrap();
        // SAFETY: the area has so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(memory.as_ptr(), 100 * PAGE) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        write(memory, 100);
        assert!(is_intact(memory, 100));
        assert_eq!(areas(machine).iter().map(|area| area.runs).max(), Some(100));
        free(machine, memory);
        for page in kept {
            // SAFETY: the test's own.
            unsafe { mm.__free_page(page) };
        }
    });
}

#[test]
// A224
fn more_than_the_ram_is_refused_at_once_and_changes_nothing() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let (free, ram) = (mm.free_page_count(), mm.managed_pages() as usize);
        let counted = mm.counters();
        let refused = mm.vmalloc((ram + 1) * PAGE);
        assert_eq!(refused, Err(AllocError::MoreThanRam { pages: ram + 1, ram: ram as u64 }));
        let refused = mm.vmalloc(usize::MAX).unwrap_err().to_string();
        assert!(refused.contains("were asked for"), "{refused}");
        assert_eq!((mm.free_page_count(), mm.counters()), (free, counted));
        assert_eq!(mm.vmalloc(0), Err(AllocError::ZeroSize));
        assert_eq!(machine.take_log(), Vec::<String>::new());
        // What there is RAM for, and no memory, fails too, is said, and gives all back.
        let refused = mm.vmalloc(ram * PAGE);
        assert!(matches!(refused, Err(AllocError::NoMemory { .. })), "{refused:?}");
        assert!(machine.take_log().iter().any(|line| line.contains("vmalloc allocation failure")));
        mm.shrink_caches();
        mm.drain_all_pages();
        assert_eq!(mm.free_page_count(), free);
    });
}

#[test]
// A231
fn vmalloc_in_an_interrupt_is_refused_and_vfree_is_put_off() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let memory = mm.vmalloc(20 * PAGE).unwrap();
        let (before, waiting) = (mm.free_page_count(), mm.vmalloc_info().waiting);
        let off = machine.preempt_disable();
        assert_eq!(mm.vmalloc(PAGE), Err(AllocError::Atomic));
        free(machine, memory);
        assert_eq!(mm.vm_unmap_aliases(), 0);
        assert_eq!(mm.vmalloc_info().waiting, waiting + 20);
        assert_eq!(mm.free_page_count(), before);
        drop(off);
        let misuses = machine.misuses();
        assert_eq!(misuses.len(), 1);
        assert!(misuses[0].contains("may sleep in atomic context"), "{misuses:?}");
        assert!(misuses[0].contains("tests/vmalloc.rs:"), "{misuses:?}");
        assert_eq!(mm.vm_unmap_aliases(), 20);
        assert_eq!(mm.vmalloc_info().waiting, 0);
        assert!(mm.free_page_count() >= before + 20);
    });
}

#[test]
// A222, A231
fn freed_areas_wait_to_be_unmapped_and_no_more_than_the_bound_says() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let bound = mm.vmalloc_info().bound;
        assert!(bound >= 1 && (bound as u64) < mm.managed_pages() / 32);
        let changes = machine.host().mapping_changes();
        let mut most = 0;
        let held: Vec<_> = (0..200).map(|_| mm.vmalloc(8 * PAGE).unwrap()).collect();
        for memory in held {
            free(machine, memory);
            most = most.max(mm.vmalloc_info().waiting);
            assert!(mm.vmalloc_info().waiting <= bound);
            // An old address is of an area that waits, or of none.
            match mm.explain_touch(VirtAddr::from_ptr(memory.as_ptr())) {
                Some(Touch::Freed(area, 0)) => assert_eq!(area.pages, 8),
                Some(Touch::NoArea(_)) => assert_eq!(mm.vmalloc_info().waiting, 0),
                other => panic!("{other:?}"),
            }
        }
        assert!(most > bound / 2, "areas do not wait: {most} of {bound}");
        mm.vm_unmap_aliases();
        assert_eq!(areas(machine), []);
        // Each page was mapped once and unmapped once, with the pages between areas that lie side by
        // side and are unmapped together.
        let changes = machine.host().mapping_changes() - changes;
        assert!((200 * 16..=200 * 17).contains(&changes), "{changes}");
    });
}

#[test]
// A222
fn the_area_that_was_freed_last_is_used_again_as_it_is() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let first = mm.vmalloc(6 * PAGE).unwrap();
        let page = mm.vmalloc_to_page(first.as_ptr());
        let changes = machine.host().mapping_changes();
        for _ in 0..10 {
            free(machine, first);
            assert_eq!(mm.vmalloc_info().waiting, 6);
            assert_eq!(mm.vmalloc(6 * PAGE), Ok(first));
            assert_eq!((mm.vmalloc_info().waiting, mm.vmalloc_info().used), (0, 6));
        }
        assert_eq!(mm.vmalloc_to_page(first.as_ptr()), page);
        assert_eq!(machine.host().mapping_changes(), changes);
        write(first, 6);
        free(machine, first);
        // Of another size, or where its frames may not be had, it is left alone.
        let others = [mm.vmalloc(5 * PAGE), mm.vmalloc_32(6 * PAGE)].map(Result::unwrap);
        assert!(!others.contains(&first));
        let (cleared, line) = (mm.vzalloc(6 * PAGE).unwrap(), line!());
        assert_eq!(cleared, first);
        let caller = mm.vm_area_from(VirtAddr::from_ptr(first.as_ptr())).unwrap().caller;
        assert_eq!(caller.line(), line, "it is whose it is now");
        // SAFETY: the area has so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(cleared.as_ptr(), 6 * PAGE) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        others.into_iter().chain([cleared]).for_each(|memory| free(machine, memory));
    });
    // What lies on another node is no match.
    on("numa2", |machine| {
        let mm = machine.mm();
        let node = |number| Some(NodeId::new(number).unwrap());
        let far = mm.vmalloc_node(PAGE, node(1)).unwrap();
        free(machine, far);
        let near = mm.vmalloc(PAGE).unwrap();
        assert_ne!(near, far);
        free(machine, near);
        assert_eq!(mm.vmalloc_node(PAGE, node(0)), Ok(near));
        assert_eq!(mm.vm_area_nodes(VirtAddr::from_ptr(near.as_ptr()))[0], 1);
        free(machine, near);
    });
}

#[test]
// A072, A222
fn what_others_still_have_of_an_area_is_not_handed_out_again() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let users = kmem::platform::UserMap::range(machine.host()).start;
        let shown = mm.vmalloc(2 * PAGE).unwrap();
        // SAFETY: the test is its own user.
        unsafe { mm.remap_vmalloc_range(machine.host(), users, shown.as_ptr(), true) }.unwrap();
        free(machine, shown);
        let next = mm.vzalloc(2 * PAGE).unwrap();
        // SAFETY: the user has it mapped still.
        unsafe { users.as_ptr::<u64>().write(99) };
        // SAFETY: the area is this test's.
        assert_eq!(unsafe { next.cast::<u64>().read() }, 0);
        assert_eq!(mm.vm_remove_pages(machine.host(), users, 2), 2);
        // A state of a page is somebody's, too.
        let page = mm.vmalloc_to_page(next.as_ptr()).unwrap();
        mm.set_page_private(page, Some(7));
        free(machine, next);
        let last = mm.vmalloc(2 * PAGE).unwrap();
        assert_ne!(last, next);
        // And so is a reference.
        let page = mm.vmalloc_to_page(last.as_ptr()).unwrap();
        mm.get_page(page);
        free(machine, last);
        let after = mm.vmalloc(2 * PAGE).unwrap();
        assert_ne!(after, last);
        free(machine, after);
        mm.vm_unmap_aliases();
        assert_eq!(mm.page_count(page), 1);
        // SAFETY: the reference is the test's.
        unsafe { mm.put_page(page) };
        mm.vm_unmap_aliases();
        // A middle of an area, one that was freed, and pages of others are no area to be shown.
        let [area, above, gone] = [3, 1, 2].map(|pages| mm.vmalloc(pages * PAGE).unwrap());
        assert!(area < above);
        let own = mm.alloc_page(GFP_KERNEL).unwrap();
        let seen = mm.vmap(&[own]).unwrap().as_ptr();
        free(machine, gone);
        let inside = area.as_ptr();
        for wrong in [inside.wrapping_add(PAGE), inside.wrapping_add(1), gone.as_ptr(), seen] {
            // SAFETY: nothing is mapped.
            let refused = unsafe { mm.remap_vmalloc_range(machine.host(), users, wrong, true) };
            assert_eq!(refused, Err(AllocError::NotAllocated));
        }
        // All of an area is mapped, or nothing.
        let third = VirtAddr::new(users.get() + 2 * PAGE);
        // SAFETY: the page is clear of others, and the test is its own user.
        unsafe { mm.vm_insert_page(machine.host(), third, own, true) }.unwrap();
        // SAFETY: as above.
        let refused = unsafe { mm.remap_vmalloc_range(machine.host(), users, inside, true) };
        assert_eq!(refused, Err(AllocError::Occupied));
        assert_eq!(mm.vm_remove_pages(machine.host(), users, 3), 1);
        for page in 0..3 {
            let page = mm.vmalloc_to_page(inside.wrapping_add(page * PAGE)).unwrap();
            let mapped = mm.descriptor(page).unwrap().map_count();
            assert_eq!((mm.page_count(page), mapped), (1, 0));
        }
        // SAFETY: the test's own.
        unsafe {
            mm.vunmap(seen);
            mm.__free_page(own);
        }
        [area, above].into_iter().for_each(|memory| free(machine, memory));
        assert_eq!(machine.misuse_count(), 0);
    });
}

#[test]
// A261
fn a_stack_that_was_freed_is_no_area() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let setup = kmem::boot::StackSetup::MODERN;
        let owner = kmem::platform::StackOwner::new(1, "test");
        let stacks: Vec<_> = (0..6).map(|_| mm.alloc_stack_of(setup, owner).unwrap()).collect();
        let pages = stacks[0].pages();
        drop(stacks);
        let areas: Vec<_> = (0..6).map(|_| mm.vzalloc(pages * PAGE).unwrap()).collect();
        areas.iter().for_each(|memory| write(*memory, pages));
        assert!(areas.iter().all(|memory| is_intact(*memory, pages)));
        areas.into_iter().for_each(|memory| free(machine, memory));
        let stack = mm.alloc_stack_of(setup, owner).unwrap();
        assert!(stack.is_guarded() && stack.check());
        assert_eq!(machine.misuse_count(), 0);
    });
}

#[test]
// A062, A222
fn wrong_frees_of_areas_are_reported_and_change_nothing() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let memory = mm.vmalloc(4 * PAGE).unwrap();
        write(memory, 4);
        let page = mm.vmalloc_to_page(memory.as_ptr()).unwrap();
        let tail = mm.vmalloc_to_page(memory.as_ptr().wrapping_add(PAGE)).unwrap();
        let mapped = mm.vmap(&[page, page]).unwrap();
        let object = mm.kmalloc(64, GFP_KERNEL).unwrap();
        let gone = mm.vmalloc(PAGE).unwrap();
        free(machine, gone);
        let outside = mm.vmalloc_info().range.end.as_ptr::<u8>().wrapping_sub(PAGE);
        // SAFETY: each is reported, and changes nothing.
        unsafe {
            mm.vfree(memory.as_ptr().wrapping_add(PAGE));
            mm.vfree(memory.as_ptr().wrapping_add(4 * PAGE));
            mm.vfree(memory.as_ptr().wrapping_add(8));
            mm.vfree(gone.as_ptr());
            mm.vfree(outside);
            mm.vfree(object.as_ptr());
            mm.vfree(mapped.as_ptr());
            mm.vunmap(memory.as_ptr());
            mm.vm_unmap_ram(mapped.as_ptr(), 2);
            mm.kfree(memory.as_ptr());
            mm.__free_pages(page, 2);
            mm.__free_page(tail);
            mm.free_page(VirtAddr::from_ptr(memory.as_ptr()));
        }
        let found: Vec<String> = machine.misuses();
        let kinds: Vec<&str> =
            found.iter().map(|line| line.split_once(": passed").unwrap().0).collect();
        let inside = "free of an address inside an area of mapped pages";
        let none = "free of what is no area of mapped pages";
        let other = "free of an area of another kind";
        assert_eq!(
            kinds,
            [
                inside,
                inside,
                inside,
                "double free",
                none,
                none,
                other,
                other,
                other,
                "free of memory that is not this manager's",
                "free of a page that belongs to a vmalloc area",
                "free of the tail of a compound page",
                "free of memory that is not this manager's",
            ],
            "{found:#?}"
        );
        // Whatever the call is about, the report says which area the address is in.
        for report in [0, 1, 2, 7, 9, 12].map(|index| &found[index]) {
            assert!(report.contains("an area of 4 pages at"), "{report}");
        }
        assert!(is_intact(memory, 4));
        assert!(found.iter().all(|line| line.contains("tests/vmalloc.rs:")), "{found:#?}");
        // SAFETY: the test's own, the mapping before the area.
        unsafe {
            mm.vunmap(mapped.as_ptr());
            mm.kfree(object.as_ptr());
        }
        free(machine, memory);
        // SAFETY: null is nothing.
        unsafe {
            mm.vfree(std::ptr::null());
            mm.vunmap(std::ptr::null());
            mm.kvfree(std::ptr::null());
        }
        assert_eq!(machine.misuse_count(), found.len() as u64);
    });
}

#[test]
// A013, A072
fn a_page_that_somebody_refers_to_outlives_the_area() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let memory = mm.vmalloc(8 * PAGE).unwrap();
        write(memory, 8);
        let fifth = mm.vmalloc_to_page(memory.as_ptr().wrapping_add(5 * PAGE)).unwrap();
        mm.get_page(fifth);
        free(machine, memory);
        mm.vm_unmap_aliases();
        let direct = mm.page_address(fifth).unwrap().as_ptr::<u64>();
        // SAFETY: the reference keeps the page.
        assert_eq!(unsafe { direct.read() }, stamp(memory, 5));
        assert_eq!(mm.page_count(fifth), 1);
        // SAFETY: the reference is the test's.
        unsafe { mm.put_page(fifth) };
    });
}

#[test]
// A072
fn vmap_shows_pages_of_others_in_any_order_and_as_often_as_wanted() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let pages: Vec<Page> = (0..6).map(|_| mm.alloc_page(GFP_KERNEL).unwrap()).collect();
        let order = [5, 0, 3, 3, 1, 2, 4];
        let shown: Vec<Page> = order.iter().map(|index| pages[*index]).collect();
        for (index, page) in pages.iter().enumerate() {
            // SAFETY: the test's own.
            unsafe { mm.page_address(*page).unwrap().as_ptr::<usize>().write(index) };
        }
        let mapped = mm.vmap(&shown).unwrap();
        let short = mm.vm_map_ram(&shown).unwrap();
        for (at, index) in order.iter().enumerate() {
            for start in [mapped, short] {
                // SAFETY: so many pages are mapped.
                assert_eq!(unsafe { start.byte_add(at * PAGE).cast::<usize>().read() }, *index);
                let there = start.as_ptr().wrapping_add(at * PAGE);
                assert_eq!(mm.vmalloc_to_page(there), Some(shown[at]));
            }
        }
        assert_eq!(mm.vmap(&[]), Err(AllocError::ZeroSize));
        // SAFETY: the test's own; the wrong number is reported.
        unsafe {
            mm.vm_unmap_ram(short.as_ptr(), order.len() - 1);
            assert_eq!(machine.misuse_count(), 1);
            mm.vm_unmap_ram(short.as_ptr(), order.len());
            mm.vunmap(mapped.as_ptr());
            for page in pages {
                mm.__free_page(page);
            }
        }
        assert_eq!(areas(machine), []);
    });
}

#[test]
// A239
fn vmalloc_32_gives_frames_below_4_gib() {
    for preset in ["x86_64", "pae", "tiny"] {
        on(preset, |machine| {
            let mm = machine.mm();
            let memory = mm.vmalloc_32(40 * PAGE).unwrap();
            for index in 0..40 {
                let page = mm.vmalloc_to_page(memory.as_ptr().wrapping_add(index * PAGE)).unwrap();
                assert!(mm.page_to_phys(page).get() < 1 << 32);
            }
            free(machine, memory);
        });
    }
}

#[test]
// A043, A220
fn a_node_may_be_named() {
    on("numa2", |machine| {
        let mm = machine.mm();
        for node in [0, 1].map(|number| NodeId::new(number).unwrap()) {
            let memory = mm.vzalloc_node(33 * PAGE, Some(node)).unwrap();
            let nodes = mm.vm_area_nodes(VirtAddr::from_ptr(memory.as_ptr()));
            assert_eq!(nodes[node.index()], 33);
            free(machine, memory);
        }
        let nowhere = NodeId::new(7).unwrap();
        assert_eq!(mm.vmalloc_node(PAGE, Some(nowhere)), Err(AllocError::NoSuchNode(nowhere)));
    });
}

#[test]
// A116, A272
fn areas_use_high_memory_where_there_is_some() {
    on("lkd-i386", |machine| {
        let mm = machine.mm();
        let memory = mm.vzalloc(64 * PAGE).unwrap();
        write(memory, 64);
        let page = mm.vmalloc_to_page(memory.as_ptr()).unwrap();
        assert!(mm.page_to_phys(page) >= machine.host().limit());
        assert_eq!(mm.page_address(page), None);
        assert!(is_intact(memory, 64));
        free(machine, memory);
    });
}

#[test]
// A331, A333
fn kvmalloc_takes_a_block_if_there_is_one_and_else_an_area() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let block = mm.kvmalloc(64 * PAGE, GFP_KERNEL).unwrap();
        assert!(!mm.is_vmalloc_addr(block.as_ptr()));
        // SAFETY: the test's own.
        unsafe { mm.kvfree(block.as_ptr()) };
        mm.shrink_caches();
        let kept = splinter(machine);
        // What is there is not clear.
        let dirty = mm.vmalloc(128 * PAGE).unwrap();
        // SAFETY: the area has so many bytes.
        unsafe { dirty.write_bytes(0xff, 128 * PAGE) };
        free(machine, dirty);
        mm.vm_unmap_aliases();
        let area = mm.kvzalloc(64 * PAGE, GFP_KERNEL).unwrap();
        assert!(mm.is_vmalloc_addr(area.as_ptr()));
        // SAFETY: the area has so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(area.as_ptr(), 64 * PAGE) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        let atomic = mm.kvmalloc(64 * PAGE, GFP_ATOMIC | Gfp::NOWARN);
        assert!(atomic.is_err());
        // SAFETY: the test's own.
        unsafe {
            mm.kvfree(area.as_ptr());
            for page in kept {
                mm.__free_page(page);
            }
        }
        assert_eq!(machine.misuse_count(), 0);
    });
}

#[test]
// A137, A216
fn memory_of_freed_areas_is_had_back_when_it_is_wanted() {
    on("tiny", |machine| {
        let mm = machine.mm();
        let memory = mm.vmalloc(mm.vmalloc_info().bound * PAGE).unwrap();
        free(machine, memory);
        let waiting = mm.vmalloc_info().waiting;
        assert!(waiting > 0);
        let mut taken = Vec::new();
        while let Ok(page) = mm.alloc_page(GFP_KERNEL | Gfp::NOWARN) {
            taken.push(page);
        }
        assert_eq!(mm.vmalloc_info().waiting, 0);
        for page in taken {
            // SAFETY: the test's own.
            unsafe { mm.__free_page(page) };
        }
    });
}

#[test]
fn addresses_run_out_without_harm() {
    let mut description = Description::preset("tiny").unwrap();
    description.set("mapping_area=1M").unwrap();
    let machine = Machine::<12>::boot(&description).unwrap();
    machine.run_on(CpuId::BOOT, || {
        let mm = machine.mm();
        let mut held = Vec::new();
        let refused = loop {
            match mm.vmalloc(3 * PAGE) {
                Ok(memory) => held.push(memory),
                Err(error) => break error,
            }
        };
        // 1 MiB in pages, and each area has one page more.
        assert_eq!((held.len(), refused), (64, AllocError::NoAddresses { pages: 3 }));
        for memory in held.drain(..).step_by(2) {
            free(&machine, memory);
        }
        // What waits to be unmapped is found where nothing else is left: as it is, or its addresses.
        let again = mm.vmalloc(3 * PAGE).unwrap();
        free(&machine, again);
        let other = mm.vmalloc(2 * PAGE).unwrap();
        assert_eq!(mm.vmalloc_info().waiting, 0);
        free(&machine, other);
        let left: Vec<AreaInfo> =
            areas(&machine).into_iter().filter(|area| !area.is_going).collect();
        for area in left {
            free(&machine, NonNull::new(area.start.as_ptr()).unwrap());
        }
    });
    assert!(machine.shutdown().is_clean());
}

#[test]
// A220, A222
fn a_million_mixed_operations_on_all_cpus_leave_nothing_behind() {
    const EACH: u64 = 1_000_000;
    let machine = boot("default");
    let count = machine.all_cpus().count() as u64;
    let done = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = machine
        .all_cpus()
        .map(|cpu| {
            let (inner, done) = (Arc::clone(&machine), Arc::clone(&done));
            machine.spawn(Some(cpu), format!("cpu {cpu}"), move || {
                let mut seed = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(u64::from(cpu.get()) + 1);
                let mut next = move |below: u64| {
                    seed ^= seed << 13;
                    seed ^= seed >> 7;
                    seed ^= seed << 17;
                    seed % below
                };
                let mut held: Vec<(NonNull<u8>, usize)> = Vec::new();
                for _ in 0..EACH / count {
                    let mm = inner.mm();
                    done.fetch_add(1, Relaxed);
                    match next(8) {
                        0 | 1 if held.len() < 40 => {
                            let most = if next(16) == 0 { 600 } else { 9 };
                            let pages = 1 + next(most) as usize;
                            if let Ok(memory) = mm.vmalloc(pages * PAGE) {
                                write(memory, pages);
                                held.push((memory, pages));
                            }
                        }
                        0..=2 if !held.is_empty() => {
                            let (memory, pages) =
                                held.swap_remove(next(held.len() as u64) as usize);
                            assert!(is_intact(memory, pages));
                            free(&inner, memory);
                        }
                        3..=5 if !held.is_empty() => {
                            let (memory, pages) = held[next(held.len() as u64) as usize];
                            let index = next(pages as u64) as usize;
                            let at = memory.as_ptr().wrapping_add(index * PAGE);
                            let page = mm.vmalloc_to_page(at).unwrap();
                            let there = mm.page_address(page).unwrap().as_ptr::<u64>();
                            // SAFETY: the frame is the area's, which is this task's.
                            assert_eq!(unsafe { there.read() }, stamp(memory, index));
                        }
                        6 if next(8) == 0 => {
                            let page = mm.alloc_page(GFP_KERNEL).unwrap();
                            let mapped = mm.vmap(&[page, page]).unwrap();
                            // SAFETY: two pages are mapped, and they are one.
                            unsafe {
                                mapped.cast::<u64>().write(7);
                                assert_eq!(mapped.byte_add(PAGE).cast::<u64>().read(), 7);
                                mm.vunmap(mapped.as_ptr());
                                mm.__free_page(page);
                            }
                        }
                        7 if next(64) == 0 => {
                            mm.vm_unmap_aliases();
                        }
                        _ => {
                            let memory =
                                mm.kvmalloc(1 + next(20_000) as usize, GFP_KERNEL).unwrap();
                            // SAFETY: this task's own.
                            unsafe { mm.kvfree(memory.as_ptr()) };
                        }
                    }
                }
                held.into_iter().for_each(|(memory, pages)| {
                    assert!(is_intact(memory, pages));
                    free(&inner, memory);
                });
            })
        })
        .collect();
    tasks.into_iter().for_each(|task| task.join());
    assert_eq!(done.load(Relaxed), EACH / count * count);
    assert_eq!(machine.misuse_count(), 0);
    machine.run_on(CpuId::BOOT, || {
        machine.mm().vm_unmap_aliases();
        assert_eq!(areas(&machine), []);
    });
    let shutdown = machine.shutdown();
    assert!(shutdown.is_clean(), "{shutdown}");
}
