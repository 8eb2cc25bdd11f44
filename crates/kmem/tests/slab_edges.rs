//! Small promises of the slab layer, each of which one comparison keeps.

mod common;

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use common::{CPU, Machine, Rig, Scope, as_cpu};
use kmem::boot::SlabDebug;
use kmem::platform::{MisuseKind, Passed};
use kmem::*;

const MIB: u64 = 1 << 20;
const GFP: Gfp = GFP_ATOMIC.union(Gfp::NOWARN);

fn boot(map: &MemoryMap, setup: &Setup) -> Machine {
    let mm = Mm::new(Rig::new(16 << 20));
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(map, setup) }.unwrap();
    mm
}

/// 16 MiB; CPU 1 is not online.
fn machine(setup: Setup) -> Machine {
    boot(&MemoryMap::new().ram(0..16 * MIB, NodeId::ZERO), &setup)
}

/// 16 MiB and two CPUs.
fn two_cpus(setup: Setup) -> Machine {
    let mm = machine(setup.cpus(2));
    mm.cpu_online(CpuId::new(1).unwrap()).unwrap();
    mm
}

fn dogs(mm: &Machine, flags: CacheFlags) -> CacheId {
    mm.kmem_cache_create("dogs", 100, 0, flags, None, None).unwrap()
}

fn take(mm: &Machine, id: CacheId) -> NonNull<u8> {
    mm.kmem_cache_alloc(id, GFP).unwrap()
}

fn free(mm: &Machine, id: CacheId, object: NonNull<u8>) {
    // SAFETY: the test's, and nothing uses it; or wrong on purpose.
    unsafe { mm.kmem_cache_free(id, object.as_ptr()) };
}

/// Takes so many objects, and then gives them all back.
fn use_many(mm: &Machine, id: CacheId, count: usize) {
    let objects: Vec<_> = (0..count).map(|_| take(mm, id)).collect();
    objects.into_iter().for_each(|object| free(mm, id, object));
}

fn destroy(mm: &Machine, id: CacheId) {
    // SAFETY: nobody uses it.
    assert_eq!(unsafe { mm.kmem_cache_destroy(id) }, Ok(()));
    mm.verify().unwrap();
}

fn info(mm: &Machine) -> CacheInfo {
    mm.caches().find(|cache| cache.name.as_str() == "dogs").unwrap()
}

/// What there is of all of kmalloc's caches, summed up.
fn kmallocs(mm: &Machine, of: impl Fn(CacheInfo) -> u64) -> u64 {
    let caches = mm.caches().filter(|cache| cache.name.as_str().starts_with("kmalloc-"));
    caches.map(of).sum()
}

fn kinds(mm: &Machine) -> Vec<MisuseKind> {
    mm.platform().take_reports().into_iter().map(|report| report.kind).collect()
}

/// A CPU that was asked to give back what it has does so before it takes many objects of it at once.
///
/// A186
#[test]
fn a_cpu_that_takes_many_objects_gives_back_first_what_was_asked_for() {
    let mm = two_cpus(Setup::new());
    let id = dogs(&mm, CacheFlags::NONE);
    use_many(&mm, id, 400);
    as_cpu(1, || assert_eq!(mm.kmem_cache_shrink(id), 0, "CPU 0 has not been by"));
    let before = info(&mm);
    assert!(before.slabs.empty >= 5 && before.at_hand >= 2, "{before:?}");
    let mut burst = [None; 2];
    mm.kmem_cache_alloc_bulk(id, GFP, &mut burst).unwrap();
    let after = info(&mm);
    assert!(after.slabs.slabs() + before.slabs.empty <= before.slabs.slabs(), "{after:?}");
    burst.into_iter().flatten().for_each(|object| free(&mm, id, object));
    destroy(&mm, id);
    assert_eq!(kinds(&mm), []);
}

/// Of many objects that are given back at once those of another node go home: this CPU gets its own
/// node's.
///
/// A175
#[test]
fn many_objects_of_another_node_go_home() {
    let one = NodeId::new(1).unwrap();
    let map = MemoryMap::new().ram(0..8 * MIB, NodeId::ZERO).ram(8 * MIB..16 * MIB, one);
    let mm = boot(&map, &Setup::new());
    let id = dogs(&mm, CacheFlags::NONE);
    let node_of = |object: NonNull<u8>| {
        let page = mm.virt_to_page(VirtAddr::from_ptr(object.as_ptr())).unwrap();
        mm.page_zone(page).unwrap().node()
    };
    use_many(&mm, id, 1);
    let near = take(&mm, id);
    let far = [(); 3].map(|()| mm.kmem_cache_alloc_node(id, GFP, Some(one)).unwrap());
    assert!(node_of(near) == NodeId::ZERO && far.iter().all(|object| node_of(*object) == one));
    // SAFETY: the test's, and nothing uses them.
    unsafe { mm.kmem_cache_free_bulk(id, &[near, far[0], far[1], far[2]]) };
    let own: Vec<_> = (0..40).map(|_| take(&mm, id)).collect();
    assert_eq!(own.iter().filter(|object| node_of(**object) != NodeId::ZERO).count(), 0);
    assert!(own.contains(&near));
    // SAFETY: as above.
    unsafe { mm.kmem_cache_free_bulk(id, &own) };
    destroy(&mm, id);
    assert_eq!(kinds(&mm), []);
}

/// What the slab layer had of a debugged kmalloc for itself is not kept from use, though what callers
/// free is.
///
/// A168, A195
#[test]
fn memory_of_the_slab_layer_is_not_quarantined() {
    let mm = two_cpus(Setup::new().slab_debug(SlabDebug::parse("PQ,kmalloc-*").unwrap()));
    // Each class has a quarantine then.
    let sizes: Vec<_> = mm.caches().map(|cache| cache.size).collect();
    for size in sizes {
        let memory = mm.kmalloc(size, GFP).unwrap();
        // SAFETY: the test's, and nothing uses it.
        unsafe { mm.kfree(memory.as_ptr()) };
    }
    let quarantined = || kmallocs(&mm, |cache| cache.at_hand);
    let in_use = || kmallocs(&mm, |cache| cache.active);
    let (before, records) = (quarantined(), in_use());
    assert!(before >= 5, "{before}");
    let id = dogs(&mm, CacheFlags::NONE);
    for cpu in [0, 1] {
        as_cpu(cpu, || use_many(&mm, id, 300));
    }
    assert!(in_use() > records);
    destroy(&mm, id);
    assert_eq!((in_use(), quarantined()), (records, before));
    assert_eq!(kinds(&mm), []);
}

/// A CPU that is not online keeps no objects: nobody could ask it for them.
///
/// A086, A186
#[test]
fn a_cpu_that_is_not_online_keeps_no_objects() {
    let mm = machine(Setup::new().cpus(2));
    let id = dogs(&mm, CacheFlags::NONE);
    as_cpu(1, || use_many(&mm, id, 50));
    assert_eq!(info(&mm).at_hand, 0);
    assert!(mm.kmem_cache_shrink(id) > 0);
    assert_eq!(info(&mm).slabs.slabs(), 0);
    destroy(&mm, id);
    assert_eq!(kinds(&mm), []);
}

/// An interrupt gives its CPU magazines of a cache while the CPU does that itself: those that come
/// second are memory again.
///
/// A174
#[test]
fn magazines_that_come_second_are_freed() {
    let mm: &'static Machine = Box::leak(Box::new(two_cpus(Setup::new())));
    let in_use = || kmallocs(mm, |cache| cache.active);
    let once = |place| {
        let id = dogs(mm, CacheFlags::NONE);
        let came = CPU.with(|cpu| {
            cpu.arm_once(Scope::Interrupt, None, place, move |_| use_many(mm, id, 1));
            use_many(mm, id, 1);
            !cpu.disarm()
        });
        destroy(mm, id);
        assert_eq!(in_use(), 0, "an interrupt at place {place}");
        came
    };
    let places = (0..).take_while(|place| once(*place)).count();
    assert!(places > 30, "{places}");
    assert_eq!(kinds(mm), []);
}

/// A CPU that goes leaves nothing behind of the slots that it was given.
///
/// A086
#[test]
fn the_slots_of_a_cpu_that_goes_are_freed() {
    let mm = two_cpus(Setup::new());
    // The records of slabs are smaller.
    let in_use = || kmallocs(&mm, |cache| if cache.size < 512 { 0 } else { cache.active });
    let id = dogs(&mm, CacheFlags::NONE);
    use_many(&mm, id, 1);
    let one_cpu = in_use();
    as_cpu(1, || use_many(&mm, id, 1));
    let two_cpus = in_use();
    as_cpu(1, || use_many(&mm, id, 400));
    assert!(two_cpus > one_cpu && in_use() > two_cpus, "it was given no slots");
    // SAFETY: that CPU does nothing meanwhile.
    unsafe { mm.cpu_offline(CpuId::new(1).unwrap()) }.unwrap();
    assert_eq!(in_use(), one_cpu);
    destroy(&mm, id);
    assert_eq!(in_use(), 0);
    assert_eq!(kinds(&mm), []);
}

/// A node that there is not is said to be none, though others have free objects.
///
/// A175
#[test]
fn objects_of_a_node_that_there_is_not_are_refused() {
    let mm = machine(Setup::new());
    let id = dogs(&mm, CacheFlags::NONE);
    let objects: Vec<_> = (0..3).map(|_| take(&mm, id)).collect();
    assert!(info(&mm).slabs.free > 0);
    let memory = mm.kmalloc(100, GFP).unwrap();
    for node in [1, 7] {
        let node = NodeId::new(node).unwrap();
        let none = Err(AllocError::NoSuchNode(node));
        assert_eq!(mm.kmem_cache_alloc_node(id, GFP, Some(node)), none);
        assert_eq!(mm.kmalloc_node(100, GFP, Some(node)), none);
    }
    // SAFETY: the test's, and nothing uses it.
    unsafe { mm.kfree(memory.as_ptr()) };
    objects.into_iter().for_each(|object| free(&mm, id, object));
    destroy(&mm, id);
    assert_eq!(kinds(&mm), []);
}

/// What is to be had of the caches is counted without those that are not shrunk.
///
/// A168, A192
#[test]
fn caches_that_are_not_shrunk_are_not_counted() {
    for flags in [CacheFlags::NONE, CacheFlags::NO_REAP] {
        // Without magazines nothing of kmalloc's is taken for them.
        let mm = machine(Setup::new().pagesets(false));
        let id = dogs(&mm, flags);
        let before = mm.count();
        use_many(&mm, id, 400);
        let slabs = info(&mm).slabs.slabs();
        assert!(slabs >= 10);
        let reaped = if flags == CacheFlags::NONE { slabs } else { 0 };
        assert_eq!(mm.count(), before + reaped);
        assert_eq!(mm.shrink_caches(), reaped);
        destroy(&mm, id);
    }
}

/// A handle of one manager's cache is none of another's, which has a cache at the same place.
///
/// A206, A207, A208
#[test]
fn a_cache_of_another_manager_is_refused() {
    let (mm, other) = (machine(Setup::new()), machine(Setup::new()));
    let (own, stranger) = (dogs(&mm, CacheFlags::NONE), dogs(&other, CacheFlags::NONE));
    assert_eq!(format!("{own:?}"), format!("{stranger:?}"), "they are at one place");
    assert_ne!(own, stranger);
    // The one at hand is not handed out for it either.
    use_many(&mm, own, 2);
    let dog = take(&mm, own);
    let stale = || {
        let reports = mm.platform().take_reports();
        reports.iter().map(|report| report.kind).eq([MisuseKind::StaleCache])
    };
    assert_eq!(mm.kmem_cache_alloc(stranger, GFP), Err(AllocError::NoSuchCache));
    assert!(stale());
    let mut burst = [None; 3];
    let refused = mm.kmem_cache_alloc_bulk(stranger, GFP, &mut burst);
    assert_eq!((refused, burst), (Err(AllocError::NoSuchCache), [None; 3]));
    assert!(stale());
    free(&mm, stranger, dog);
    assert!(stale());
    // SAFETY: wrong on purpose.
    unsafe { mm.kmem_cache_free_bulk(stranger, &[dog]) };
    assert!(stale());
    assert_eq!(mm.kmem_cache_shrink(stranger), 0);
    assert_eq!(mm.kmem_cache_validate(stranger), Err(CacheError::NoSuchCache));
    // SAFETY: as above.
    assert_eq!(unsafe { mm.kmem_cache_destroy(stranger) }, Err(CacheError::NoSuchCache));
    assert_eq!(info(&mm).active, 1, "nothing has changed");
    free(&mm, own, dog);
    destroy(&mm, own);
    destroy(&other, stranger);
    assert_eq!((kinds(&mm), kinds(&other)), (vec![], vec![]));
}

/// Two CPUs free memory of several pages at one moment: one of them frees it, and the other is told,
/// once.
///
/// A148, A156
#[test]
fn large_memory_that_is_freed_twice_at_one_moment_is_freed_once() {
    const ROUNDS: u32 = 3000;
    let mm = &two_cpus(Setup::new());
    let size = 20 << 12;
    let free_pages = || {
        mm.drain_all_pages();
        (0..2).for_each(|cpu| as_cpu(cpu, || mm.drain_local_pages()));
        mm.free_page_count()
    };
    let large = || mm.kmalloc(size, GFP).unwrap();
    // SAFETY: the test's, and nothing uses it.
    unsafe { mm.kfree(large().as_ptr()) };
    let before = free_pages();
    let (line, shared) = (AtomicU32::new(0), AtomicUsize::new(0));
    let meet = |stop: u32| {
        line.fetch_add(1, SeqCst);
        let mut spins = 0;
        while line.load(SeqCst) < 2 * stop {
            spins += 1;
            // Seldom: who yields often shares a processor with the other, and never races.
            if spins % 500_000 == 0 {
                std::thread::yield_now();
            }
        }
    };
    let (clock, moment) = (Instant::now(), AtomicU64::new(0));
    let (meet, shared, moment) = (&meet, &shared, &moment);
    let wrong: Vec<_> = std::thread::scope(|scope| {
        let workers = [0, 1].map(|cpu| {
            scope.spawn(move || {
                CPU.with(|own| own.number.set(cpu));
                let mut wrong = Vec::new();
                for round in 0..ROUNDS {
                    if cpu == 0 {
                        let memory = mm.kmalloc(size, GFP);
                        let address = memory.map_or(0, |at| at.as_ptr().expose_provenance());
                        shared.store(address, SeqCst);
                        moment.store(clock.elapsed().as_nanos() as u64 + 700, SeqCst);
                    }
                    meet(2 * round + 1);
                    let address = shared.load(SeqCst);
                    // Whoever comes last to a meeting leaves it first: both wait for a moment, and
                    // then each in turn for up to a hundred cycles more.
                    while clock.elapsed().as_nanos() < moment.load(SeqCst).into() {}
                    let held_up = if round % 2 == cpu { round / 2 % 128 } else { 0 };
                    (0..held_up).for_each(|turn| _ = std::hint::black_box(turn));
                    // SAFETY: wrong on purpose; nothing uses it.
                    unsafe { mm.kfree(std::ptr::with_exposed_provenance(address)) };
                    meet(2 * round + 2);
                    if cpu == 0 {
                        // Not asserted here, where the other one would wait for ever.
                        let reports = mm.platform().take_reports();
                        let passed = reports.iter().map(|report| report.passed);
                        if !passed.eq([Passed::Object(VirtAddr::new(address))]) {
                            wrong.push((round, reports));
                        }
                    }
                }
                wrong
            })
        });
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "in {} rounds, at first {:#?}", wrong.len(), wrong[0]);
    assert_eq!(free_pages(), before);
    mm.verify().unwrap();
}
