//! Memory for devices: one device and two managers, NMI handlers, where the direct map ends.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{CPU, Machine, Point, Rig, Scope, as_cpu, lists};
use kmem::dma::{Direction, DmaAddr, DmaDevice, DmaError, DmaMask, StillGiven};
use kmem::mm::Coherent;
use kmem::platform::MisuseKind;
use kmem::*;

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;
const BOTH: Direction = Direction::Bidirectional;

/// 32 MiB, of which devices with 24 address lines reach the first half.
fn machine() -> Machine {
    let mm = Mm::new(Rig::new(32 << 20));
    let ram = MemoryMap::new().ram(0..32 * MIB, NodeId::ZERO);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&ram, &Setup::new().cpus(2)) }.unwrap();
    mm
}

fn kinds(mm: &Machine) -> Vec<MisuseKind> {
    mm.platform().take_reports().into_iter().map(|report| report.kind).collect()
}

/// All that nobody uses given back, what CPUs have of caches too.
#[track_caller]
fn settled(mm: &Machine) -> Vec<([u64; Order::COUNT], u64)> {
    let online: Vec<_> = mm.online_cpus().collect();
    for cpu in &online {
        // SAFETY: the test's one thread is all CPUs, and does nothing else.
        as_cpu(cpu.get(), || unsafe { mm.cpu_offline(*cpu) }).unwrap();
    }
    while mm.shrink_caches() > 0 {}
    mm.verify().unwrap();
    let free = lists(mm);
    online.into_iter().for_each(|cpu| mm.cpu_online(cpu).unwrap());
    free
}

/// A page in the upper half, and where it is seen.
fn high_page(mm: &Machine) -> (Page, *mut u8) {
    let within = PhysAddr::new(16 * MIB)..PhysAddr::new(32 * MIB);
    let page = mm.alloc_contig_pages(1, Order::ZERO, within, GFP_KERNEL).unwrap();
    (page, mm.page_address(page).unwrap().as_ptr())
}

fn free_page(mm: &Machine, page: Page) {
    // SAFETY: the test's own.
    unsafe { mm.__free_page(page) };
}

fn map(mm: &Machine, device: &DmaDevice, memory: *const u8) -> Result<DmaAddr, DmaError> {
    // SAFETY: the memory is the test's, and no device is told of it.
    unsafe { mm.dma_map_single(device, memory, 100, BOTH) }
}

fn unmap(mm: &Machine, device: &DmaDevice, told: DmaAddr) {
    // SAFETY: no device has been told, or it is refused.
    unsafe { mm.dma_unmap_single(device, told, 100, BOTH) };
}

/// Every call that gives a device something or takes it back, of a manager that may not; none does anything.
fn every_call(mm: &Machine, device: &DmaDevice, told: DmaAddr, page: Page, refused: DmaError) {
    let memory = mm.page_address(page).unwrap().as_ptr::<u8>();
    assert_eq!(map(mm, device, memory), Err(refused));
    // SAFETY: as in `map`.
    let mapped = unsafe { mm.dma_map_page(device, page, 0, 100, BOTH) };
    assert_eq!(mapped, Err(refused));
    assert_eq!(mm.dma_alloc_coherent(device, 100, GFP_ATOMIC), Err(refused));
    unmap(mm, device, told);
    let given = Coherent { memory: std::ptr::NonNull::new(memory).unwrap(), address: told };
    // SAFETY: all of these are refused.
    unsafe {
        mm.dma_unmap_page(device, told, 100, BOTH);
        mm.dma_sync_single_for_cpu(device, told, (0, 100), BOTH);
        mm.dma_sync_single_for_device(device, told, (0, 100), BOTH);
        mm.dma_free_coherent(device, 100, given);
    }
    assert!(matches!(mm.dma_detach(device), Err(StillGiven { count: 0, .. })));
}

/// How many of these report.
const CALLS: usize = 9;

/// A228: what a device has is kept note of in the memory of one manager, and others find that out.
#[test]
fn a_device_that_has_memory_of_one_manager_is_refused_by_others() {
    let (one, two) = (machine(), machine());
    let near = DmaDevice::new("near", DmaMask::ALL);
    let far = DmaDevice::new("far", DmaMask::bits(24)).slots(1);
    let ((own, memory), (others, foreign)) = (high_page(&one), high_page(&two));
    for device in [&near, &far] {
        let told = map(&one, device, memory).unwrap();
        let before = (settled(&one), settled(&two));
        every_call(&two, device, told, others, DmaError::OthersDevice);
        let reports = two.platform().take_reports();
        assert_eq!(reports.len(), CALLS, "{reports:#?}");
        for report in reports {
            assert_eq!(report.kind, MisuseKind::OthersDevice);
            assert!(report.line.contains("tests/dma.rs:"), "{}", report.line);
        }
        assert_eq!((settled(&one), settled(&two)), before);
        assert_eq!((one.dma_given(device), kinds(&one)), (1, vec![]));
        unmap(&one, device, told);
        // Its slots are the first one's until it is detached.
        let is_free = map(&two, device, foreign).map(|told| unmap(&two, device, told)).is_ok();
        assert_eq!(is_free, device.slot_bytes() > 2048, "{device:?}");
        one.dma_detach(device).unwrap();
        let told = map(&two, device, foreign).unwrap();
        assert_eq!(map(&one, device, memory), Err(DmaError::OthersDevice));
        unmap(&two, device, told);
        two.dma_detach(device).unwrap();
        assert_eq!(kinds(&one), [MisuseKind::OthersDevice]);
        kinds(&two);
    }
    free_page(&one, own);
    free_page(&two, others);
}

/// A228: the code that an NMI interrupted may have the device's lock.
#[test]
fn nmi_handlers_neither_give_a_device_memory_nor_take_it_back() {
    static FAR: DmaDevice = DmaDevice::new("far", DmaMask::bits(24)).slots(1);
    let mm: &'static Machine = Box::leak(Box::new(machine()));
    let (page, memory) = high_page(mm);
    let told = map(mm, &FAR, memory).unwrap();
    let before = settled(mm);
    CPU.with(|cpu| {
        cpu.arm_once(Scope::Nmi, Some(Point::Pin), 0, move |_| {
            every_call(mm, &FAR, told, page, DmaError::Alloc(AllocError::Atomic));
        });
    });
    mm.drain_local_pages();
    assert_eq!(kinds(mm), [MisuseKind::InNmi; CALLS]);
    assert_eq!((settled(mm), mm.dma_given(&FAR)), (before, 1));
    unmap(mm, &FAR, told);
    mm.dma_detach(&FAR).unwrap();
    free_page(mm, page);
    assert_eq!(kinds(mm), []);
}

/// A228, A272: a buffer that begins in the direct map and ends behind it is none, though all of its frames
/// are in use.
#[test]
fn a_buffer_ends_within_the_direct_map() {
    let mm: Machine = Mm::new(Rig::with_direct(32 << 20, 16 << 20));
    let page = PAGE as u64;
    let across = 16 * MIB - page..16 * MIB + page;
    let ram = MemoryMap::new().ram(0..32 * MIB, NodeId::ZERO).reserved(across, "across");
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&ram, &Setup::new()) }.unwrap();
    let device = DmaDevice::new("all", DmaMask::ALL);
    let memory = mm.platform().frame((16 * MIB - page) >> 12);
    for (size, is_fine) in [(PAGE, true), (PAGE + 1, false), (2 * PAGE, false)] {
        // SAFETY: nobody uses it, and no device is told.
        let told = unsafe { mm.dma_map_single(&device, memory, size, BOTH) };
        assert_eq!(told.is_ok(), is_fine, "{size}: {told:?}");
        if let Ok(told) = told {
            // SAFETY: as above.
            unsafe { mm.dma_unmap_single(&device, told, size, BOTH) };
        }
    }
    assert_eq!(kinds(&mm), [MisuseKind::NotForDma; 2]);
}

/// A228: what the driver says of coherent memory is compared with what was allocated.
#[test]
fn coherent_memory_is_given_back_where_it_was_seen() {
    let mm = machine();
    let device = DmaDevice::new("all", DmaMask::ALL);
    let given = mm.dma_alloc_coherent(&device, PAGE, GFP_KERNEL).unwrap();
    let elsewhere = Coherent { memory: given.memory.map_addr(|at| at | 8), ..given };
    let other = mm.dma_alloc_coherent(&device, PAGE, GFP_KERNEL).unwrap();
    for wrong in [elsewhere, Coherent { memory: other.memory, ..given }] {
        // SAFETY: it is refused.
        unsafe { mm.dma_free_coherent(&device, PAGE, wrong) };
        assert_eq!(kinds(&mm), [MisuseKind::GivenOtherwise]);
    }
    for given in [given, other] {
        // SAFETY: no device was told.
        unsafe { mm.dma_free_coherent(&device, PAGE, given) };
    }
    mm.dma_detach(&device).unwrap();
    assert_eq!(kinds(&mm), []);
}

/// A228: another CPU maps as well, or leaves the device, anywhere in the midst of a mapping. No slot is lost,
/// none is freed that is used, and one lot of slots is what the device has.
#[test]
fn another_cpu_maps_or_leaves_the_device_in_the_midst_of_a_mapping() {
    let mm: &'static Machine = Box::leak(Box::new(machine()));
    mm.cpu_online(CpuId::new(1).unwrap()).unwrap();
    let ((one, first), (two, second)) = (high_page(mm), high_page(mm));
    let second = second.expose_provenance();
    let before = settled(mm);
    for does_leave in [false, true] {
        let (mut done, mut refused) = (0, 0);
        for at in 0.. {
            let far = DmaDevice::new("far", DmaMask::bits(24)).slots(2);
            let far: &'static DmaDevice = Box::leak(Box::new(far));
            // For one that leaves there are slots.
            let told = if does_leave { map(mm, far, first).ok() } else { None };
            told.into_iter().for_each(|told| unmap(mm, far, told));
            let outcome = Rc::new(Cell::new(None));
            let seen = Rc::clone(&outcome);
            CPU.with(|cpu| {
                cpu.arm_once(Scope::OtherCpu(1), None, at, move |_| {
                    if does_leave {
                        seen.set(Some(mm.dma_detach(far).map_err(|left| left.count)));
                    } else {
                        let memory = std::ptr::with_exposed_provenance(second);
                        unmap(mm, far, map(mm, far, memory).unwrap());
                        seen.set(Some(Ok(())));
                    }
                });
            });
            let told = map(mm, far, first).unwrap();
            let is_beyond = CPU.with(|cpu| cpu.disarm());
            assert_eq!((mm.dma_given(far), mm.dma_slots_taken(far).0), (1, 1), "at {at}");
            match outcome.get() {
                Some(Ok(())) => done += 1,
                Some(Err(count)) => {
                    assert_eq!(count, 1, "at {at}");
                    refused += 1;
                }
                None => {}
            }
            unmap(mm, far, told);
            mm.dma_detach(far).unwrap();
            let told_of = kinds(mm);
            assert!(told_of.iter().all(|kind| *kind == MisuseKind::StillGiven), "{told_of:?}");
            assert_eq!(settled(mm), before, "at {at}");
            if is_beyond {
                break;
            }
        }
        assert!(done > 0 && (refused > 0) == does_leave, "{done} {refused}");
    }
    free_page(mm, one);
    free_page(mm, two);
}
