//! Machines: every preset boots, memory is what the description says, and the end is checked.

use std::sync::Arc;

use kmem::platform::{Caching, DirectMap, PageMap, TEMPORARY_SLOTS, TemporaryMap};
use kmem::{CpuId, GFP_HIGHUSER, GFP_KERNEL, PhysAddr, ZoneKind};
use kmem_host::{Description, HostError, Machine};

const CPU0: CpuId = CpuId::BOOT;

fn preset(name: &str) -> Description {
    Description::preset(name).unwrap_or_else(|error| panic!("{error}"))
}

fn boot<const SHIFT: u32>(description: &Description) -> Arc<Machine<SHIFT>> {
    Machine::boot(description).unwrap_or_else(|error| panic!("{}: {error}", description.name))
}

/// Allocates and frees a little, and expects the machine to be left in order.
fn use_and_shut_down<const SHIFT: u32>(description: &Description) {
    let machine = boot::<SHIFT>(description);
    for cpu in machine.all_cpus() {
        machine.run_on(cpu, || {
            let mut pages = machine.mm().pages(GFP_KERNEL, 1).unwrap();
            assert_eq!(pages.bytes_mut().len(), 2 << SHIFT);
            pages.bytes_mut().fill(0xa5);
        });
    }
    let end = machine.shutdown();
    assert!(end.is_clean() && end.misuses.is_empty(), "{}: {end}", description.name);
}

#[test]
fn every_preset_boots_and_is_left_in_order() {
    for description in Description::presets() {
        use_and_shut_down::<12>(&description);
    }
}

/// A002: the page size is a constant of the machine.
#[test]
fn machines_boot_with_every_page_size() {
    for name in ["tiny", "default", "numa2", "holes"] {
        let with = |shift: u32| {
            let mut description = preset(name);
            description.set(&format!("page_shift={shift}")).unwrap();
            description
        };
        use_and_shut_down::<13>(&with(13));
        use_and_shut_down::<14>(&with(14));
        use_and_shut_down::<16>(&with(16));
    }
}

/// A020, A021, A035: zones lie where the machines of the texts have them.
#[test]
fn presets_have_the_zones_of_the_texts() {
    let zones = |name: &str| -> Vec<(ZoneKind, u64)> {
        let machine = boot::<12>(&preset(name));
        let zones = machine.mm().zones().iter().filter(|zone| zone.is_populated());
        zones.map(|zone| (zone.kind(), zone.start_pfn() << 12)).collect()
    };
    const M: u64 = 1 << 20;
    assert_eq!(
        zones("lkd-i386"),
        [(ZoneKind::Dma, 0), (ZoneKind::Normal, 16 * M), (ZoneKind::HighMem, 896 * M)]
    );
    assert_eq!(zones("pae"), zones("lkd-i386"));
    assert_eq!(zones("ldd2-i386"), [(ZoneKind::Dma, 0), (ZoneKind::Normal, 16 * M)]);
    assert_eq!(
        zones("x86_64"),
        [(ZoneKind::Dma, 0), (ZoneKind::Dma32, 16 * M), (ZoneKind::Normal, 4096 * M)]
    );
    assert_eq!(zones("tiny"), [(ZoneKind::Normal, 0)]);
}

#[test]
fn a_machine_for_another_page_size_or_without_room_is_refused() {
    let error = Machine::<14>::boot(&preset("tiny")).map(drop).unwrap_err();
    assert_eq!(error, HostError::PageShift { described: 12, built: 14 });
    assert!(error.to_string().contains("page_shift = 12"));

    let mut pae = preset("pae");
    pae.mem(256 << 30).unwrap();
    let error = Machine::<12>::boot(&pae).map(drop).unwrap_err().to_string();
    assert!(error.contains("pae does not fit") && error.contains("low memory"), "{error}");

    let mut wrong = preset("tiny");
    wrong.set("kernel=1G-2G").unwrap();
    let error = Machine::<12>::boot(&wrong).map(drop).unwrap_err().to_string();
    assert!(error.contains("kernel = 1G-2G"), "{error}");
}

/// Half of the metadata that the host would need for 8 GiB is what 64 GB in all take here: nothing
/// is touched but the tables.
#[test]
fn memory_that_is_not_touched_costs_nothing() {
    let machine = boot::<12>(&preset("x86_64"));
    let metadata = machine.description().footprint().metadata;
    assert!(machine.host().touched_bytes() <= metadata, "{}", machine.host().touched_bytes());
    assert_eq!(machine.host().mapping_changes(), 0);
}

#[test]
fn a_frame_above_the_direct_map_is_reached_by_temporary_mappings() {
    let machine = boot::<12>(&preset("lkd-i386"));
    let host = machine.host();
    machine.run_on(CPU0, || {
        let high = |_| {
            let page = machine.mm().alloc_pages(GFP_HIGHUSER, 0).unwrap();
            assert!(page.pfn().start(12) >= host.limit(), "{page:?} is low memory");
            page
        };
        let pages: Vec<_> = (0..4).map(high).collect();
        assert_eq!(machine.mm().page_address(pages[0]), None);
        let addresses: Vec<_> = pages
            .iter()
            .enumerate()
            .map(|(slot, page)| TemporaryMap::map(host, page.pfn(), slot))
            .collect();
        for (number, address) in addresses.iter().enumerate() {
            // SAFETY: the frame is this test's, and mapped.
            unsafe { address.as_ptr::<u64>().write(number as u64) };
        }
        // In the order in which they began.
        for (slot, address) in addresses.iter().enumerate() {
            // SAFETY: mapped in that slot.
            unsafe { TemporaryMap::unmap(host, *address, slot) };
        }
        for (number, page) in pages.into_iter().enumerate() {
            let address = TemporaryMap::map(host, page.pfn(), TEMPORARY_SLOTS - 1);
            // SAFETY: the frame is this test's, and mapped until it is unmapped and freed.
            unsafe {
                assert_eq!(address.as_ptr::<u64>().read(), number as u64);
                TemporaryMap::unmap(host, address, TEMPORARY_SLOTS - 1);
                machine.mm().__free_page(page);
            }
        }
    });
    assert!(machine.shutdown().is_clean());
    assert!(boot::<12>(&preset("tiny")).host().temporary_map().is_none());
}

#[test]
fn scattered_frames_are_mapped_next_to_each_other() {
    let machine = boot::<14>(&{
        let mut description = preset("default");
        description.set("page_shift=14").unwrap();
        description
    });
    let host = machine.host();
    machine.run_on(CPU0, || {
        let pages: Vec<_> =
            (0..5).map(|_| machine.mm().alloc_pages(GFP_KERNEL, 0).unwrap()).collect();
        let start = PageMap::range(host).start;
        let at = |index: usize| kmem::VirtAddr::new(start.get() + (index << 14));
        for (index, page) in pages.iter().rev().enumerate() {
            // SAFETY: the frames are this test's.
            unsafe { PageMap::map(host, at(index), page.pfn(), 1, Caching::Cached).unwrap() };
        }
        // SAFETY: five pages are mapped in a row.
        let bytes = unsafe { std::slice::from_raw_parts_mut(at(0).as_ptr::<u8>(), 5 << 14) };
        bytes.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index >> 14) as u8);
        for (index, page) in pages.into_iter().rev().enumerate() {
            let direct = machine.mm().page_address(page).unwrap();
            // SAFETY: the page is this test's, and the mapping is not used any more.
            unsafe {
                assert_eq!(direct.as_ptr::<u8>().add(5000).read(), index as u8);
                PageMap::flush(host, PageMap::unmap(host, at(index), 1));
                machine.mm().__free_page(page);
            }
        }
    });
    assert_eq!(host.mapping_changes(), 10);
    assert!(machine.shutdown().is_clean());
}

#[test]
fn shutdown_finds_what_was_not_freed_and_what_was_freed_wrongly() {
    let machine = boot::<12>(&preset("default"));
    let page = machine.run_on(CPU0, || machine.mm().alloc_pages(GFP_KERNEL, 3).unwrap());
    let end = machine.shutdown();
    assert!(!end.is_clean());
    assert_eq!(end.lost_pages, 8);
    assert!(end.to_string().contains("8 pages of 4096 bytes are lost"), "{end}");

    machine.run_on(CPU0, || {
        // SAFETY: the block was allocated with this order; the second free is the mistake under
        // test, which the manager catches.
        unsafe {
            machine.mm().__free_pages(page, 3);
            machine.mm().__free_pages(page, 3);
        }
    });
    let end = machine.shutdown();
    assert!(end.is_clean(), "{end}");
    assert_eq!((end.misuse_count, end.misuses.len()), (1, 1));
    assert!(end.misuses[0].contains("double free"), "{}", end.misuses[0]);
    assert_eq!(machine.misuses(), end.misuses);
}

#[test]
fn late_memory_that_is_released_is_not_lost() {
    let machine = boot::<12>(&preset("holes"));
    let before = machine.mm().managed_pages();
    let late = machine.description().late[0].clone();
    let range = PhysAddr::new(late.start)..PhysAddr::new(late.end);
    // SAFETY: nobody uses the range.
    let released = machine.run_on(CPU0, || unsafe { machine.mm().release_late(range) }).unwrap();
    assert_eq!(released, (late.end - late.start) >> 12);
    assert_eq!(machine.mm().managed_pages(), before + released);
    assert!(machine.shutdown().is_clean());
}

#[test]
fn messages_are_kept_until_they_are_taken() {
    use kmem::platform::{Hooks, Level};
    let machine = boot::<12>(&preset("tiny"));
    machine.take_log();
    machine.host().log(Level::Info, format_args!("{} CPUs", 2));
    machine.host().log(Level::Warning, format_args!("low"));
    assert_eq!(machine.take_log(), ["2 CPUs", "warning: low"]);
    assert!(machine.take_log().is_empty());
}

/// A062
#[test]
fn a_report_of_misuse_is_kept_apart_and_among_the_messages() {
    let machine = boot::<12>(&preset("tiny"));
    machine.take_log();
    machine.run_on(CPU0, || {
        let page = machine.mm().alloc_pages(GFP_KERNEL, 0).unwrap();
        // SAFETY: the page is this test's; the second free is the mistake under test, which the
        // manager catches.
        unsafe {
            machine.mm().__free_page(page);
            machine.mm().__free_page(page);
        }
    });
    let misuses = machine.misuses();
    assert_eq!(misuses.len(), 1);
    assert_eq!(machine.take_log(), [format!("error: {}", misuses[0])]);
    assert_eq!((machine.misuse_count(), machine.misuses()), (1, misuses));
}
