//! Areas on page tables that are kept in a book: what is unmapped is forgotten by all CPUs before anything of
//! it is used again, and what waits is given up where something runs out.

mod common;

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use common::{CPU, MapRig, Point, Scope, WINDOW, as_cpu, lists};
use kmem::platform::MisuseKind;
use kmem::*;

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;

type Mem = Mm<MapRig>;

/// A machine with 15 MiB around a hole of one, of which the direct map has half, and two CPUs.
fn boot() -> Mem {
    let mm = Mm::new(MapRig::new(true));
    let map = MemoryMap::new().ram(0..12 * MIB, NodeId::ZERO).ram(13 * MIB..16 * MIB, NodeId::ZERO);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &Setup::new().kmap_slots(4).cpus(2)) }.unwrap();
    mm.cpu_online(CpuId::new(1).unwrap()).unwrap();
    mm
}

/// All that nobody uses given back, what CPUs have of caches too.
#[track_caller]
fn settled(mm: &Mem) -> Vec<([u64; Order::COUNT], u64)> {
    mm.vm_unmap_aliases();
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

fn free(mm: &Mem, memory: NonNull<u8>) {
    // SAFETY: the tests' own, which nothing uses.
    unsafe { mm.vfree(memory.as_ptr()) };
}

/// How many pages are mapped, and how many are not any more and some CPU may see yet.
fn mapped(mm: &Mem) -> (usize, usize) {
    let book = mm.platform().book.lock().unwrap();
    (book.mapped.len(), book.stale.len())
}

/// A222, A240: what is given back is unmapped, forgotten by all CPUs, and only then used again.
#[test]
fn all_cpus_forget_what_is_unmapped() {
    let mm = boot();
    let areas = [3, 1, 5].map(|pages| mm.vmalloc(pages * PAGE).unwrap());
    assert_eq!(mapped(&mm), (9, 0));
    areas.into_iter().for_each(|memory| free(&mm, memory));
    assert_eq!(mapped(&mm), (9, 0));
    assert_eq!(mm.vm_unmap_aliases(), 9);
    assert_eq!(mapped(&mm), (0, 0));
    assert_eq!(mm.platform().flushes.load(SeqCst), 1, "all of them at once");
    let pages = [(); 3].map(|()| mm.alloc_page(GFP_KERNEL).unwrap());
    for _ in 0..2 {
        let seen = mm.vmap(&pages).unwrap();
        assert_eq!(mapped(&mm), (3, 0));
        // SAFETY: mapped above.
        unsafe { mm.vunmap(seen.as_ptr()) };
        assert_eq!(mapped(&mm), (0, 0));
        let registers = mm.ioremap(PhysAddr::new(64 * MIB), 2 * PAGE).unwrap();
        // SAFETY: mapped above.
        unsafe { mm.iounmap(registers) };
        assert_eq!(mapped(&mm), (0, 0));
    }
    // SAFETY: the test's own.
    pages.into_iter().for_each(|page| unsafe { mm.__free_page(page) });
    assert_eq!(mm.platform().rig.take_reports(), []);
}

/// A221, A222: an area that waits to be unmapped has what a new one wants.
#[test]
fn where_mappings_run_out_what_waits_is_unmapped_first() {
    let mm = boot();
    let waits = mm.vmalloc(3 * PAGE).unwrap();
    free(&mm, waits);
    let free_before = lists(&mm);
    // No more than nothing can be mapped, until something is unmapped.
    mm.platform().left.store(0, SeqCst);
    mm.platform().refill.store(true, SeqCst);
    let area = mm.vmalloc(2 * PAGE).unwrap();
    assert_eq!((mapped(&mm), mm.vmalloc_info().waiting), ((2, 0), 0));
    // And where nothing waits it is an error that changes nothing.
    mm.platform().left.store(0, SeqCst);
    mm.platform().refill.store(false, SeqCst);
    let pages = mm.free_page_count();
    assert_eq!(mm.vmalloc(4 * PAGE), Err(AllocError::NoPageTables));
    assert_eq!((mapped(&mm), mm.free_page_count()), ((2, 0), pages));
    assert_eq!(mm.vmalloc_info().areas, 1);
    free(&mm, area);
    mm.vm_unmap_aliases();
    assert_ne!(lists(&mm), free_before, "what waited then is free now");
}

/// A231: the code that an NMI interrupted may have the lock.
#[test]
fn nmi_handlers_give_no_area_back() {
    let mm: &'static Mem = Box::leak(Box::new(boot()));
    let area = mm.vmalloc(2 * PAGE).unwrap();
    let address = area.as_ptr().expose_provenance();
    CPU.with(|cpu| {
        cpu.arm_once(Scope::Nmi, Some(Point::Pin), 0, move |_| {
            let memory = std::ptr::with_exposed_provenance_mut::<u8>(address);
            // SAFETY: it is refused.
            unsafe {
                mm.vfree(memory);
                mm.kvfree(memory);
            }
        });
    });
    mm.drain_local_pages();
    let reports = mm.platform().rig.take_reports();
    assert!(reports.iter().all(|report| report.kind == MisuseKind::InNmi), "{reports:#?}");
    assert_eq!((reports.len(), mm.vmalloc_info().used), (2, 2));
    free(mm, area);
    assert_eq!(mm.vmalloc_info().used, 0);
    assert_eq!(mm.platform().rig.take_reports(), []);
}

/// A072, A221: where not all can be mapped nothing is, and what is kept of many pages is freed.
#[test]
fn a_mapping_that_fails_leaves_nothing() {
    let mm = boot();
    let before = settled(&mm);
    let page = mm.alloc_page(GFP_KERNEL).unwrap();
    // One page more often than there are addresses: as many runs.
    let too_many = vec![page; WINDOW.len() >> 12];
    let refused = mm.vmap(&too_many);
    assert_eq!(refused, Err(AllocError::NoAddresses { pages: too_many.len() }));
    for left in 0..4 {
        mm.platform().left.store(left, SeqCst);
        assert_eq!(mm.vmap(&[page; 8]), Err(AllocError::NoPageTables), "{left}");
        assert_eq!((mapped(&mm), mm.vmalloc_info().areas), ((0, 0), 0), "{left}");
    }
    mm.platform().left.store(u64::MAX, SeqCst);
    // What is no page of RAM is not mapped, whoever names it.
    let hole = mm.pfn_to_page(Pfn::new((12 * MIB) >> 12).unwrap()).unwrap();
    assert_eq!(mm.vmap(&[page, hole]), Err(AllocError::NotAllocated));
    let registers = mm.ioremap(PhysAddr::new(64 * MIB), PAGE).unwrap();
    assert_eq!(mm.vmalloc_to_page(registers.as_ptr()), None);
    // SAFETY: the test's own.
    unsafe {
        mm.iounmap(registers);
        mm.__free_page(page);
    }
    assert_eq!(settled(&mm), before);
    assert_eq!(mm.platform().rig.take_reports(), []);
}

/// A266: a task that strays is not ended in the midst of this.
#[test]
fn what_is_being_mapped_or_unmapped_must_be_finished() {
    let mm: &'static Mem = Box::leak(Box::new(boot()));
    let seen = Arc::new(AtomicU32::new(0));
    let look = || -> Option<Box<dyn FnMut() + Send>> {
        let seen = Arc::clone(&seen);
        Some(Box::new(move || _ = seen.fetch_add(u32::from(mm.is_inside()), SeqCst)))
    };
    let expect = |count: u32| {
        assert_eq!((seen.swap(0, SeqCst), mm.is_inside()), (count, false));
    };
    *mm.platform().meanwhile.lock().unwrap() = look();
    let area = mm.vmalloc(PAGE).unwrap();
    expect(1);
    free(mm, area);
    *mm.platform().in_flush.lock().unwrap() = look();
    mm.vm_unmap_aliases();
    expect(1);
    let page = mm.alloc_page(GFP_KERNEL).unwrap();
    let mapped = mm.vmap(&[page]).unwrap();
    *mm.platform().in_flush.lock().unwrap() = look();
    // SAFETY: the test's own.
    unsafe {
        mm.vunmap(mapped.as_ptr());
        mm.__free_page(page);
    }
    expect(1);
}

/// A222: memory that another CPU is about to give back is there when the call returns.
#[test]
fn who_wants_all_unmapped_waits_for_those_who_are_at_it() {
    let mm: &'static Mem = Box::leak(Box::new(boot()));
    free(mm, mm.vmalloc(3 * PAGE).unwrap());
    let [is_flushing, has_waited, is_back] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
    let (flushing, waited, back) =
        (Arc::clone(&is_flushing), Arc::clone(&has_waited), Arc::clone(&is_back));
    *mm.platform().in_flush.lock().unwrap() = Some(Box::new(move || {
        flushing.store(true, SeqCst);
        while !waited.load(SeqCst) && !back.load(SeqCst) {
            std::thread::yield_now();
        }
    }));
    std::thread::scope(|scope| {
        let is_done = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_done);
        let other = scope.spawn(move || {
            as_cpu(1, || assert_eq!(mm.vm_unmap_aliases(), 3));
            done.store(true, SeqCst);
        });
        while !is_flushing.load(SeqCst) && !other.is_finished() {
            std::thread::yield_now();
        }
        let waited = Arc::clone(&has_waited);
        CPU.with(|cpu| {
            cpu.arm_once(Scope::Interrupt, Some(Point::Relax), 2, move |_| {
                waited.store(true, SeqCst);
                // How often this CPU looks before it gives up is no matter of the test's.
                while !is_done.load(SeqCst) {
                    std::thread::yield_now();
                }
            });
        });
        assert_eq!(mm.vm_unmap_aliases(), 0);
        let (mapped, areas) = (mapped(mm), mm.vmalloc_info().areas);
        is_back.store(true, SeqCst);
        CPU.with(|cpu| cpu.disarm());
        assert!(has_waited.load(SeqCst));
        assert_eq!((mapped, areas), ((0, 0), 0));
    });
}

/// Counts how often it is asked, and has nothing.
#[derive(Default)]
struct Asked(AtomicU32);

impl Reclaim for Asked {
    fn reclaim(&self, _: &dyn PageSource, _: &ReclaimRequest) -> u64 {
        self.0.fetch_add(1, SeqCst);
        0
    }

    fn wake_background(&self, _: &ReclaimRequest) {}
}

/// A220, A221: nobody's memory is reclaimed for large blocks where small ones do as well.
#[test]
fn single_pages_are_taken_before_anything_is_reclaimed() {
    let mm = Mm::with_reclaim(MapRig::new(true), Asked::default());
    let map = MemoryMap::new().ram(0..16 * MIB, NodeId::ZERO);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &Setup::new().kmap_slots(4)) }.unwrap();
    let gfp = GFP_ATOMIC | Gfp::HIGHMEM | Gfp::MEMALLOC | Gfp::NOWARN;
    let mut pages: Vec<Page> = std::iter::from_fn(|| mm.alloc_page(gfp).ok()).collect();
    pages.sort_by_key(|page| page.pfn());
    let (given, kept) = pages.into_iter().partition::<Vec<_>, _>(|page| {
        let number = page.pfn().number();
        number.is_multiple_of(2)
    });
    // SAFETY: the test's own.
    given.into_iter().for_each(|page| unsafe { mm.__free_page(page) });
    let area = mm.vmalloc(8 * PAGE).unwrap();
    assert_eq!(mm.reclaim().0.load(SeqCst), 0);
    // SAFETY: the test's own.
    unsafe { mm.vfree(area.as_ptr()) };
    // SAFETY: the test's own.
    kept.into_iter().for_each(|page| unsafe { mm.__free_page(page) });
    mm.vm_unmap_aliases();
    mm.drain_all_pages();
    mm.verify().unwrap();
}
