//! High memory: wrong calls, failures and what comes in between, on page tables that are kept in a book.

mod common;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use common::{CPU, MapRig, Point, Scope, WINDOW, as_cpu, free, settle};
use kmem::highmem::*;
use kmem::platform::{Context, DirectMap, MisuseKind, PageMapError, Passed, There};
use kmem::*;

const MIB: u64 = 1 << 20;
type Mem = Mm<MapRig>;

fn boot(setup: Setup) -> &'static Mem {
    boot_on(MapRig::new(true), setup)
}

/// A machine with RAM from 0 to 15 MiB but for one of them, a hole, and two CPUs.
fn boot_on(rig: MapRig, setup: Setup) -> &'static Mem {
    let mm: &Mem = Box::leak(Box::new(Mm::new(rig)));
    let map = MemoryMap::new()
        .ram(0..12 * MIB, NodeId::ZERO)
        .ram(13 * MIB..15 * MIB, NodeId::ZERO)
        .reserved(14 * MIB..15 * MIB, "firmware");
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup.cpus(2)).unwrap() };
    mm.cpu_online(CpuId::new(1).unwrap()).unwrap();
    mm
}

fn high(mm: &Mem) -> Page {
    let page = mm.alloc_page(GFP_HIGHUSER).unwrap();
    assert!(mm.page_to_phys(page) >= mm.platform().limit());
    page
}

fn kinds(mm: &Mem) -> Vec<MisuseKind> {
    mm.platform().rig.take_reports().into_iter().map(|report| report.kind).collect()
}

/// Ends a mapping.
fn kunmap(mm: &Mem, page: Page) {
    // SAFETY: the tests end what they mapped, or mean the wrong call; nothing is touched.
    unsafe { mm.kunmap(page) }
}

fn kunmap_local(mm: &Mem, address: VirtAddr) {
    // SAFETY: as above.
    unsafe { mm.kunmap_local(address) }
}

fn kunmap_atomic(mm: &Mem, address: VirtAddr, slot: KmType) {
    // SAFETY: as above.
    unsafe { mm.kunmap_atomic(address, slot) }
}

fn page_at(mm: &Mem, address: u64) -> Page {
    mm.pfn_to_page(Pfn::new(address >> 12).unwrap()).unwrap()
}

/// Runs `work` as an interrupt or NMI handler that arrives now.
fn in_handler(mm: &'static Mem, scope: Scope, mut work: impl FnMut() + 'static) {
    CPU.with(|cpu| {
        cpu.arm_once(scope, Some(Point::InAtomic), 0, move |_| work());
        mm.platform().in_atomic();
        assert!(!cpu.disarm(), "the handler did not run");
    });
}

// A269, A270, A273, A275, A276
#[test]
fn a_wrong_call_is_reported_once_and_changes_nothing() {
    let mm = boot(Setup::new());
    let (page, other) = (high(mm), high(mm));
    let gone = high(mm);
    free(mm, gone, 0);
    let address = mm.kmap(page).unwrap();
    let nested = mm.kmap_local_page(page).unwrap();
    let typed = mm.kmap_atomic(page, KM_USER0).unwrap();
    CPU.with(|cpu| assert!(cpu.in_atomic()));
    let look = || (mm.kmap_info(), mm.temporary_mappings(), mm.page_address(page));
    let before = look();
    let hole = page_at(mm, 12 * MIB + 4096);
    let nowhere = VirtAddr::new(WINDOW.end + 4096);
    type Wrong<'a> = (&'a str, MisuseKind, Box<dyn Fn() + 'a>);
    use MisuseKind::{MapNotInUse, NotMapped, SleepInAtomic};
    let not_in_use = |result: Result<VirtAddr, KmapError>, page: Page| {
        assert_eq!(result, Err(KmapError::NotInUse(page.pfn())));
    };
    let wrong: [Wrong<'_>; 12] = [
        (
            "kmap where sleeping is forbidden",
            SleepInAtomic,
            Box::new(|| assert_eq!(mm.kmap(other), Err(KmapError::AtomicContext))),
        ),
        (
            "kmap_local_page of a free page",
            MapNotInUse,
            Box::new(|| not_in_use(mm.kmap_local_page(gone), gone)),
        ),
        (
            "kmap_local_page of a hole",
            MapNotInUse,
            Box::new(|| not_in_use(mm.kmap_local_page(hole), hole)),
        ),
        (
            "kmap_atomic of a free page",
            MapNotInUse,
            Box::new(|| not_in_use(mm.kmap_atomic(gone, KM_USER1), gone)),
        ),
        ("kunmap of what is not mapped", NotMapped, Box::new(|| kunmap(mm, other))),
        ("kunmap of a free page", NotMapped, Box::new(|| kunmap(mm, gone))),
        (
            "kunmap_atomic with another type",
            NotMapped,
            Box::new(|| kunmap_atomic(mm, typed, KM_USER1)),
        ),
        (
            "kunmap_atomic with another address",
            NotMapped,
            Box::new(|| kunmap_atomic(mm, nowhere, KM_USER0)),
        ),
        (
            "kunmap_atomic on another cpu",
            NotMapped,
            Box::new(|| as_cpu(1, || kunmap_atomic(mm, typed, KM_USER0))),
        ),
        ("kunmap_local of nothing", NotMapped, Box::new(|| kunmap_local(mm, nowhere))),
        ("kunmap_local of a permanent mapping", NotMapped, Box::new(|| kunmap_local(mm, address))),
        (
            "kunmap_local on another cpu",
            NotMapped,
            Box::new(|| as_cpu(1, || kunmap_local(mm, nested))),
        ),
    ];
    for (what, kind, call) in wrong {
        call();
        assert_eq!(kinds(mm), [kind], "{what}");
        assert_eq!(look(), before, "{what}");
    }
    // A report says what is there.
    as_cpu(1, || kunmap_atomic(mm, typed, KM_USER0));
    let report = mm.platform().rig.take_reports().remove(0);
    assert_eq!(report.passed, Passed::Mapping(typed, Some(KM_USER0 as u8)));
    let there = There::Mapping { address: typed, frame: page.pfn(), cpu: CpuId::BOOT };
    assert_eq!(report.there, there);
    assert!(report.line.starts_with("end of a mapping that there is not: passed address 0x"));
    // And the right calls work.
    kunmap_atomic(mm, typed, KM_USER0);
    kunmap_local(mm, nested);
    CPU.with(|cpu| assert!(!cpu.in_atomic()));
    assert_eq!(mm.kmap(gone), Err(KmapError::NotInUse(gone.pfn())));
    assert_eq!(kinds(mm), [MapNotInUse]);
    kunmap(mm, page);
    assert_eq!((kinds(mm), mm.kmap_info().used, mm.temporary_mappings()), (vec![], 0, 0));
    // Who reserved a frame may map it.
    let reserved = page_at(mm, 14 * MIB);
    let address = mm.kmap(reserved).unwrap();
    assert_eq!(mm.platform().frame_at(address), Some(reserved.pfn().number()));
    kunmap(mm, reserved);
    [page, other].into_iter().for_each(|page| free(mm, page, 0));
    settle(mm);
}

// A273
#[test]
fn a_temporary_mapping_pins_wherever_the_page_is() {
    let mm = boot(Setup::new());
    for page in [high(mm), mm.alloc_page(GFP_KERNEL).unwrap()] {
        let address = mm.kmap_atomic(page, KM_USER0).unwrap();
        CPU.with(|cpu| assert!(cpu.in_atomic()));
        kunmap_atomic(mm, address, KM_USER0);
        CPU.with(|cpu| assert!(!cpu.in_atomic()));
        free(mm, page, 0);
    }
    assert_eq!(kinds(mm), []);
}

// A276
#[test]
fn a_slot_that_is_in_use_is_taken_over_and_reported() {
    let mm = boot(Setup::new());
    let (first, second) = (high(mm), high(mm));
    let old = mm.kmap_atomic(first, KM_USER0).unwrap();
    let new = mm.kmap_atomic(second, KM_USER0).unwrap();
    let report = mm.platform().rig.take_reports().remove(0);
    assert_eq!(
        (report.kind, report.passed),
        (MisuseKind::SlotInUse, Passed::Page(second.pfn(), 0))
    );
    assert_eq!(report.there, There::Mapping { address: old, frame: first.pfn(), cpu: CpuId::BOOT });
    assert_eq!(mm.temporary_mappings(), 1);
    kunmap_atomic(mm, new, KM_USER0);
    CPU.with(|cpu| assert!(!cpu.in_atomic()));
    kunmap_atomic(mm, old, KM_USER0);
    assert_eq!(kinds(mm), [MisuseKind::NotMapped]);
    [first, second].into_iter().for_each(|page| free(mm, page, 0));
}

// A273, A276
#[test]
fn a_slot_that_the_interrupted_code_is_changing_is_refused() {
    let mm = boot(Setup::new());
    let (page, other) = (high(mm), high(mm));
    let (mut mapped, mut busy) = (0, 0);
    for at in 0.. {
        let outcome = Rc::new(Cell::new(None));
        let seen = Rc::clone(&outcome);
        CPU.with(|cpu| {
            cpu.arm_once(Scope::Interrupt, None, at, move |_| {
                // In the slot of the task, which is wrong of a handler. One that is in use it would take.
                if mm.temporary_mappings() > 0 {
                    return;
                }
                let mapped = mm.kmap_atomic(other, KM_USER0);
                seen.set(Some(mapped));
                if let Ok(address) = mapped {
                    kunmap_atomic(mm, address, KM_USER0);
                }
            });
        });
        let address = mm.kmap_atomic(page, KM_USER0).unwrap();
        kunmap_atomic(mm, address, KM_USER0);
        let is_beyond = CPU.with(|cpu| cpu.disarm());
        match outcome.get() {
            Some(Ok(_)) => mapped += 1,
            Some(Err(error)) => {
                assert_eq!(error, KmapError::SlotBusy(KM_USER0), "at {at}");
                busy += 1;
            }
            None => {}
        }
        assert_eq!(mm.temporary_mappings(), 0, "at {at}");
        kinds(mm);
        if is_beyond {
            break;
        }
    }
    assert!(mapped > 0 && busy > 0, "{mapped} {busy}");
    [page, other].into_iter().for_each(|page| free(mm, page, 0));
}

// A269
#[test]
fn nested_mappings_that_end_out_of_order_are_reported_and_end() {
    let mm = boot(Setup::new());
    let pages = [high(mm), high(mm), high(mm)];
    let [a, b, c] = pages.map(|page| mm.kmap_local_page(page).unwrap());
    kunmap_local(mm, a);
    let report = mm.platform().rig.take_reports().remove(0);
    assert_eq!(report.kind, MisuseKind::MapOrder);
    assert_eq!(
        report.there,
        There::Mapping { address: c, frame: pages[2].pfn(), cpu: CpuId::BOOT }
    );
    kunmap_local(mm, c);
    assert_eq!(mm.temporary_mappings(), 1);
    kunmap_local(mm, b);
    assert_eq!((mm.temporary_mappings(), kinds(mm)), (0, vec![]));
    CPU.with(|cpu| assert!(!cpu.in_atomic()));
    // All slots are there again.
    let all: Vec<VirtAddr> = (0..NESTED).map(|_| mm.kmap_local_page(pages[0]).unwrap()).collect();
    assert_eq!(mm.kmap_local_page(pages[0]), Err(KmapError::TooDeep));
    all.into_iter().rev().for_each(|address| kunmap_local(mm, address));
    pages.into_iter().for_each(|page| free(mm, page, 0));
    settle(mm);
}

// A270
#[test]
fn idle_slots_are_flushed_together_when_none_is_free() {
    let mm = boot(Setup::new().kmap_slots(4));
    let rig = mm.platform();
    assert_eq!(mm.kmap_info(), KmapInfo { slots: 4, free: 4, ..KmapInfo::default() });
    assert_eq!(mm.kmap_window().end.get(), WINDOW.end);
    let pages: Vec<Page> = (0..24).map(|_| high(mm)).collect();
    for page in &pages {
        let address = mm.kmap(*page).unwrap();
        assert_eq!(rig.frame_at(address), Some(page.pfn().number()));
        assert_eq!(mm.page_address(*page), Some(address));
        kunmap(mm, *page);
        assert_eq!(mm.page_address(*page), None);
        // It is still there: to map it again writes no table.
        let before = rig.left.load(SeqCst);
        assert_eq!(mm.kmap(*page), Ok(address));
        kunmap(mm, *page);
        assert_eq!(rig.left.load(SeqCst), before);
    }
    // Four at a time: after every fourth.
    assert_eq!(rig.flushes.load(SeqCst), 24 / 4 - 1);
    // One that stays mapped stays where it is.
    let stays = mm.kmap(pages[0]).unwrap();
    for page in &pages[1..] {
        assert_ne!(mm.kmap(*page).unwrap(), stays);
        kunmap(mm, *page);
    }
    assert_eq!(rig.frame_at(stays), Some(pages[0].pfn().number()));
    kunmap(mm, pages[0]);
    pages.into_iter().for_each(|page| free(mm, page, 0));
    assert!(kinds(mm).is_empty());
}

/// A platform without a way to sleep: the one that waits spins.
// A270
#[test]
fn kmap_waits_for_a_kunmap_where_all_slots_are_taken() {
    let mm = boot(Setup::new().kmap_slots(2));
    let pages = [high(mm), high(mm), high(mm)];
    let first = mm.kmap(pages[0]).unwrap();
    mm.kmap(pages[1]).unwrap();
    let went_on = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            CPU.with(|cpu| cpu.number.set(1));
            assert_eq!(mm.kmap(pages[2]), Ok(first));
            went_on.store(true, SeqCst);
        });
        while mm.kmap_info().waiting == 0 {
            std::thread::yield_now();
        }
        assert!(!went_on.load(SeqCst));
        kunmap(mm, pages[0]);
    });
    assert_eq!(mm.platform().frame_at(first), Some(pages[2].pfn().number()));
    assert_eq!((mm.kmap_info().waiting, mm.kmap_info().used), (0, 2));
    kunmap(mm, pages[1]);
    kunmap(mm, pages[2]);
}

// A269
#[test]
fn a_mapping_that_the_platform_cannot_make_loses_no_slot() {
    let mm = boot(Setup::new().kmap_slots(3));
    let pages: Vec<Page> = (0..6).map(|_| high(mm)).collect();
    for succeed in 0..12 {
        mm.platform().left.store(succeed, SeqCst);
        let (mut failed, mut done) = (0, 0);
        for page in &pages {
            match mm.kmap(*page) {
                Ok(_) => {
                    done += 1;
                    kunmap(mm, *page);
                }
                Err(KmapError::PageMap(PageMapError::NoTables)) => failed += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(done + failed == 6 && done >= succeed.min(6));
        let info = mm.kmap_info();
        assert_eq!((info.used, info.idle + info.free), (0, 3), "after {succeed}");
    }
    mm.platform().left.store(u64::MAX, SeqCst);
    let all: Vec<_> = pages[..3].iter().map(|page| mm.kmap(*page).unwrap()).collect();
    assert_eq!((mm.kmap_info().used, all.len()), (3, 3));
    pages[..3].iter().for_each(|page| kunmap(mm, *page));
    assert!(kinds(mm).is_empty());
}

/// Two CPUs map one page at one moment: it has one mapping, and no slot is lost.
// A269
#[test]
fn a_page_that_two_cpus_map_at_once_has_one_mapping() {
    let mm = boot(Setup::new().kmap_slots(2));
    let (page, other) = (high(mm), high(mm));
    let there = std::sync::Arc::new(Mutex::new(None));
    let tell = std::sync::Arc::clone(&there);
    *mm.platform().meanwhile.lock().unwrap() = Some(Box::new(move || {
        *tell.lock().unwrap() = Some(as_cpu(1, || mm.kmap(page).unwrap()));
    }));
    let here = mm.kmap(page).unwrap();
    assert_eq!(*there.lock().unwrap(), Some(here));
    assert_eq!(mm.kmap_info(), KmapInfo { slots: 2, used: 1, idle: 1, ..KmapInfo::default() });
    // The second mapping, which nobody has, goes when a slot is wanted.
    let elsewhere = mm.kmap(other).unwrap();
    assert_ne!(elsewhere, here);
    kunmap(mm, page);
    assert_eq!(mm.page_address(page), Some(here));
    kunmap(mm, page);
    assert_eq!(mm.page_address(page), None);
    kunmap(mm, other);
    assert!(kinds(mm).is_empty());
}

/// A handler at every point of every call, which maps in all ways that it may.
// A273
#[test]
fn handlers_map_pages_in_the_middle_of_every_call() {
    let mm = boot(Setup::new().kmap_slots(2));
    let pages = [high(mm), high(mm), high(mm)];
    let theirs = high(mm);
    let calls = || {
        for page in pages {
            let address = mm.kmap(page).unwrap();
            assert_eq!(mm.platform().frame_at(address), Some(page.pfn().number()));
            kunmap(mm, page);
        }
        let outer = mm.kmap_local_page(pages[0]).unwrap();
        let inner = mm.kmap_local_page(pages[1]).unwrap();
        let typed = mm.kmap_atomic(pages[2], KM_USER0).unwrap();
        kunmap_local(mm, inner);
        kunmap_local(mm, outer);
        kunmap_atomic(mm, typed, KM_USER0);
        // SAFETY: the pages are the test's.
        unsafe {
            mm.clear_highpage(pages[0]).unwrap();
            mm.copy_highpage(pages[1], pages[0]).unwrap();
        }
    };
    for (scope, slot) in [(Scope::Interrupt, KM_IRQ0), (Scope::Nmi, KM_NMI)] {
        let mut runs = 0;
        loop {
            CPU.with(|cpu| {
                cpu.arm_once(scope, None, runs, move |_| {
                    let local = mm.kmap_local_page(theirs).unwrap();
                    let typed = mm.kmap_atomic(theirs, slot).unwrap();
                    assert!(mm.page_address(theirs).is_none());
                    kunmap_atomic(mm, typed, slot);
                    kunmap_local(mm, local);
                    if scope == Scope::Interrupt {
                        // kunmap works in interrupts: of what a task has mapped.
                        mm.kmap_info();
                    }
                });
            });
            calls();
            assert_eq!((mm.temporary_mappings(), mm.kmap_info().used), (0, 0));
            CPU.with(|cpu| assert!(!cpu.in_atomic()));
            if CPU.with(|cpu| cpu.disarm()) {
                break;
            }
            runs += 1;
        }
        assert!(runs > 50, "{runs} points");
    }
    assert!(kinds(mm).is_empty());
    pages.into_iter().chain([theirs]).for_each(|page| free(mm, page, 0));
    settle(mm);
}

// A269
#[test]
fn kunmap_in_an_interrupt_works_and_in_an_nmi_is_reported() {
    let mm = boot(Setup::new());
    let page = high(mm);
    mm.kmap(page).unwrap();
    in_handler(mm, Scope::Nmi, move || kunmap(mm, page));
    assert_eq!(kinds(mm), [MisuseKind::SleepInAtomic]);
    assert!(mm.page_address(page).is_some());
    in_handler(mm, Scope::Interrupt, move || kunmap(mm, page));
    assert_eq!((kinds(mm), mm.page_address(page)), (vec![], None));
    free(mm, page, 0);
}

// A273
#[test]
fn pages_are_cleared_when_all_nested_slots_are_taken_and_on_cpus_without_any() {
    let mm = boot(Setup::new());
    let (page, dirty) = (high(mm), high(mm));
    let all: Vec<_> = (0..NESTED).map(|_| mm.kmap_local_page(page).unwrap()).collect();
    let soil = |page: Page| {
        // SAFETY: the page is the test's.
        unsafe { mm.platform().rig.frame(page.pfn().number()).write_bytes(0xee, 4096) };
        free(mm, page, 0);
    };
    let zeroed = move || {
        let page = mm.alloc_page(GFP_ATOMIC | Gfp::HIGHMEM | Gfp::ZERO).unwrap();
        let at = mm.platform().rig.frame(page.pfn().number());
        // SAFETY: the page is the test's.
        let bytes = unsafe { std::slice::from_raw_parts(at, 4096) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        page
    };
    soil(dirty);
    soil(zeroed());
    // In the midst of clearing, too: whoever comes in has a slot of its own, or waits.
    for scope in [Scope::Interrupt, Scope::Nmi] {
        for at in 0.. {
            CPU.with(|cpu| cpu.arm_once(scope, None, at, move |_| free(mm, zeroed(), 0)));
            soil(zeroed());
            if CPU.with(|cpu| cpu.disarm()) {
                break;
            }
        }
    }
    in_handler(mm, Scope::Nmi, move || free(mm, zeroed(), 0));
    all.into_iter().rev().for_each(|address| kunmap_local(mm, address));
    as_cpu(7, || {
        assert_eq!(mm.kmap_local_page(page), Err(KmapError::NoSuchCpu));
        assert_eq!(mm.kmap_atomic(page, KM_USER0), Err(KmapError::NoSuchCpu));
        soil(high(mm));
        free(mm, zeroed(), 0);
    });
    free(mm, page, 0);
    assert!(kinds(mm).is_empty());
    settle(mm);
}

// A269
#[test]
fn what_a_machine_does_not_have_is_an_error() {
    let mm = boot(Setup::new().kmap_slots(0));
    let page = high(mm);
    assert_eq!(mm.kmap(page), Err(KmapError::NoSlots));
    let bare = boot_on(MapRig::new(false), Setup::new());
    assert_eq!(bare.kmap(high(bare)), Err(KmapError::NoSlots));
    assert!(bare.kmap_window().is_empty() && bare.kmap_info() == KmapInfo::default());
    let local = bare.kmap_local_page(high(bare)).unwrap();
    kunmap_local(bare, local);
    let new: Mem = Mm::new(MapRig::new(true));
    assert_eq!(new.kmap(page), Err(KmapError::NotBooted));
    assert_eq!(new.kmap_atomic(page, KM_USER0), Err(KmapError::NotBooted));
    assert_eq!(new.kmap_local_page(page), Err(KmapError::NotBooted));
    let map = MemoryMap::new().ram(0..8 * MIB, NodeId::ZERO);
    // SAFETY: nobody else uses the RAM.
    let refused = unsafe { new.boot(&map, &Setup::new().kmap_slots(1 << 15 | 1)) };
    assert_eq!(refused, Err(BootError::Setup(SetupError::KmapSlots(1 << 15 | 1))));
    // Each error has a line of its own.
    let errors = [
        KmapError::NotBooted,
        KmapError::NotInUse(page.pfn()),
        KmapError::AtomicContext,
        KmapError::NoSlots,
        KmapError::TooManyUsers(page.pfn()),
        KmapError::TooDeep,
        KmapError::SlotBusy(KM_IRQ0),
        KmapError::NoSuchCpu,
        KmapError::PageMap(PageMapError::NoTables),
    ];
    let lines: BTreeSet<String> = errors.iter().map(|error| error.to_string()).collect();
    assert_eq!(lines.len(), errors.len());
    assert!(lines.iter().all(|line| !line.ends_with('.') && !line.starts_with(char::is_uppercase)));
}

/// Mappings that are values end when they are dropped, and have the page's bytes.
// A270
#[test]
fn values_end_their_mappings() {
    let mm = boot_on(MapRig::new(true), Setup::new());
    let (page, other) = (high(mm), high(mm));
    // SAFETY: the pages are the test's.
    unsafe {
        let mut bytes = mm.kmap_local(page).unwrap();
        bytes.fill(9);
        assert_eq!((bytes.len(), mm.temporary_mappings()), (4096, 1));
        drop(bytes);
        mm.copy_highpage(other, page).unwrap();
        assert!(mm.with_page(other, |bytes| bytes.iter().all(|byte| *byte == 9)).unwrap());
        mm.clear_highpage(other).unwrap();
        assert!(mm.with_page(other, |bytes| bytes.iter().all(|byte| *byte == 0)).unwrap());
        assert_eq!(mm.temporary_mappings(), 0);
        // Its bytes are nowhere on this rig, so they are not looked at.
        let guard = mm.kmap_bytes(page).unwrap();
        assert_eq!((Some(guard.address()), guard.page()), (mm.page_address(page), page));
        assert_eq!(mm.kmap_to_page(guard.address()), Some(page));
        drop(guard);
        assert_eq!(mm.kmap_info().used, 0);
    }
    // Low pages: no slot, and the same calls.
    let low = mm.alloc_page(GFP_KERNEL).unwrap();
    // SAFETY: as above.
    unsafe {
        let mut bytes = mm.kmap_bytes(low).unwrap();
        bytes.fill(1);
        assert_eq!(Some(bytes.address()), mm.page_address(low));
        assert_eq!(mm.kmap_to_page(bytes.address()), Some(low));
        drop(bytes);
        mm.copy_highpage(page, low).unwrap();
        assert!(mm.with_page(page, |bytes| bytes.iter().all(|byte| *byte == 1)).unwrap());
    }
    assert_eq!((mm.kmap_info().idle, mm.temporary_mappings()), (1, 0));
    assert!(kinds(mm).is_empty());
}
