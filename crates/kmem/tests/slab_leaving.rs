//! Slabs that go while CPUs free one of their objects twice at one moment: what is somebody else's
//! memory then is neither written to nor handed out.

mod common;

use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use common::{CPU, Machine, Rig, Rng, Scope, as_cpu};
use kmem::platform::MisuseKind;
use kmem::*;

const MIB: u64 = 1 << 20;

fn machine(cpus: u32) -> &'static Machine {
    let mm = Mm::new(Rig::new(4 << 20));
    let map = MemoryMap::new().ram(0..4 * MIB, NodeId::ZERO);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &Setup::new().cpus(cpus)) }.unwrap();
    (1..cpus).for_each(|cpu| mm.cpu_online(CpuId::new(cpu).unwrap()).unwrap());
    Box::leak(Box::new(mm))
}

fn take(mm: &Machine, id: CacheId) -> Option<NonNull<u8>> {
    mm.kmem_cache_alloc(id, GFP_KERNEL | Gfp::NOWARN).ok()
}

fn free(mm: &Machine, id: CacheId, object: NonNull<u8>) {
    // SAFETY: right, or wrong on purpose; nothing uses the object.
    unsafe { mm.kmem_cache_free(id, object.as_ptr()) };
}

/// Each CPU comes to the cache, and the pages that can go do.
fn all_come_by(mm: &Machine, id: CacheId) {
    for cpu in [2, 1, 0, 1, 2] {
        as_cpu(cpu, || {
            free(mm, id, take(mm, id).unwrap());
            mm.kmem_cache_shrink(id);
        });
    }
}

/// Pages of somebody else, who has filled them.
struct Others(Vec<VirtAddr>, u8);

impl Others {
    /// Takes all pages that there are, or so many.
    fn take(mm: &Machine, most: usize, fill: u8) -> Others {
        let page = || mm.__get_free_page(GFP_ATOMIC | Gfp::NOWARN).ok();
        let pages: Vec<_> = std::iter::from_fn(page).take(most).collect();
        for page in &pages {
            // SAFETY: the page is ours.
            unsafe { page.as_ptr::<u8>().write_bytes(fill, 4096) };
        }
        Others(pages, fill)
    }

    fn has(&self, object: NonNull<u8>) -> bool {
        self.0.iter().any(|page| page.get() == object.addr().get() & !4095)
    }

    /// Looks that nobody else has written to them.
    fn look(&self) {
        for page in &self.0 {
            // SAFETY: the page is ours.
            let bytes = unsafe { std::slice::from_raw_parts(page.as_ptr::<u8>(), 4096) };
            let changed = bytes.iter().position(|byte| *byte != self.1);
            assert_eq!(changed, None, "somebody else wrote to the page at {page}");
        }
    }

    fn give_back(self, mm: &Machine) {
        // SAFETY: ours, and nothing uses them any more.
        self.0.into_iter().for_each(|page| unsafe { mm.free_page(page) });
    }
}

/// What CPU 1 does when it overtakes CPU 0, which frees the object.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Overtaken {
    /// Frees it too.
    Frees,
    /// Frees it, shrinks the cache, and has somebody take all pages.
    FreesAndShrinks,
}

/// One scenario: CPU 0 frees an object and is overtaken at a place. Answers whether it was.
fn overtake(mm: &'static Machine, size: usize, what: Overtaken, place: u64, fill: u8) -> bool {
    let id = mm.kmem_cache_create("dogs", size, 0, CacheFlags::NONE, None, None).unwrap();
    all_come_by(mm, id);
    let dog = take(mm, id).unwrap();
    mm.kmem_cache_shrink(id);
    let early: &'static std::sync::Mutex<Option<Others>> = Box::leak(Box::default());
    let overtaken = CPU.with(|cpu| {
        cpu.arm_once(Scope::OtherCpu(1), None, place, move |_| {
            free(mm, id, dog);
            if what == Overtaken::FreesAndShrinks {
                mm.kmem_cache_shrink(id);
                *early.lock().unwrap() = Some(Others::take(mm, usize::MAX, fill));
            }
        });
        free(mm, id, dog);
        !cpu.disarm()
    });
    mm.kmem_cache_shrink(id);
    let early = early.lock().unwrap().take();
    let others = Others::take(mm, usize::MAX, fill);
    let look = || early.iter().chain([&others]).for_each(Others::look);
    look();
    let mut objects = HashSet::new();
    for cpu in [2, 1, 0] {
        as_cpu(cpu, || {
            while let Some(object) = take(mm, id) {
                assert!(objects.insert(object), "handed out twice at place {place}");
                assert!(
                    !early.iter().chain([&others]).any(|others| others.has(object)),
                    "an object in a page of somebody else at place {place}"
                );
            }
        });
    }
    look();
    early.into_iter().chain([others]).for_each(|others| others.give_back(mm));
    objects.into_iter().for_each(|object| free(mm, id, object));
    let reports = mm.platform().take_reports();
    use MisuseKind::{ConcurrentFree, DoubleFree, NoObject};
    // The last where the page is somebody else's before CPU 0 looks.
    let expected = [ConcurrentFree, DoubleFree, NoObject];
    assert!(reports.iter().all(|report| expected.contains(&report.kind)), "{reports:#?}");
    assert_eq!(!reports.is_empty(), overtaken, "{what:?} at place {place}: {reports:#?}");
    all_come_by(mm, id);
    // SAFETY: nobody uses it any more.
    assert_eq!(unsafe { mm.kmem_cache_destroy(id) }, Ok(()), "{what:?} at place {place}");
    overtaken
}

/// A148, A186, A207
#[test]
fn a_slab_does_not_go_while_a_cpu_may_have_an_entry_of_it() {
    // Where CPUs can be called they are; otherwise they come by.
    for can_call in [false, true] {
        for (size, what) in [
            (100, Overtaken::Frees),
            (100, Overtaken::FreesAndShrinks),
            (3000, Overtaken::FreesAndShrinks),
        ] {
            let mm = machine(3);
            mm.platform().can_call.set(can_call);
            overtake(mm, size, what, 1000, 0);
            mm.drain_all_pages();
            let settled = || {
                mm.shrink_caches();
                (0..3).for_each(|cpu| as_cpu(cpu, || mm.drain_local_pages()));
                mm.free_page_count()
            };
            let before = settled();
            // The bytes that mean something, and one that does not.
            for fill in [0, 1, 2, 3, 4, 5, 6, 0xa5] {
                let places = (0..).take_while(|place| overtake(mm, size, what, *place, fill));
                assert!(places.count() >= 4);
            }
            assert_eq!(settled(), before, "pages were lost: {size} {what:?}");
            mm.verify().unwrap();
        }
    }
}

/// Two CPUs free one object at one moment, again and again, while a third gives the slabs back and has
/// somebody take the pages.
///
/// A148, A207
#[test]
fn slabs_go_while_objects_are_freed_twice() {
    let mm = machine(3);
    let id = mm.kmem_cache_create("twice", 700, 0, CacheFlags::NONE, None, None).unwrap();
    let (line, shared, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let (line, shared, done) = (&line, &shared, &done);
    let meet = |stop: usize| {
        line.fetch_add(1, SeqCst);
        while line.load(SeqCst) < 2 * stop {
            std::thread::yield_now();
        }
    };
    let rounds = 3000;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            CPU.with(|own| own.number.set(2));
            let mut rng = Rng::new();
            while !done.load(SeqCst) {
                mm.kmem_cache_shrink(id);
                let others = Others::take(mm, 64, rng.below(8) as u8);
                (0..rng.below(3)).for_each(|_| std::thread::yield_now());
                others.look();
                others.give_back(mm);
            }
        });
        let workers = [0, 1].map(|cpu| {
            scope.spawn(move || {
                CPU.with(|own| own.number.set(cpu));
                for round in 0..rounds {
                    if cpu == 0 {
                        let object = take(mm, id).unwrap();
                        shared.store(object.as_ptr().expose_provenance(), SeqCst);
                    }
                    meet(2 * round + 1);
                    let object = std::ptr::with_exposed_provenance_mut(shared.load(SeqCst));
                    free(mm, id, NonNull::new(object).unwrap());
                    if round % 7 == 0 {
                        mm.kmem_cache_shrink(id);
                    }
                    meet(2 * round + 2);
                }
            })
        });
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, SeqCst);
    });
    CPU.with(|cpu| cpu.number.set(0));
    all_come_by(mm, id);
    assert_eq!(mm.platform().take_reports().len(), rounds);
    // SAFETY: nobody uses it any more.
    assert_eq!(unsafe { mm.kmem_cache_destroy(id) }, Ok(()));
    mm.verify().unwrap();
}

/// A slab that waits for a CPU which does not come by serves requests that would need a new one.
///
/// A184, A186
#[test]
fn a_slab_that_is_leaving_is_taken_back_into_use() {
    let mm = machine(2);
    let id = mm.kmem_cache_create("dogs", 100, 0, CacheFlags::NONE, None, None).unwrap();
    as_cpu(1, || free(mm, id, take(mm, id).unwrap()));
    let dogs: Vec<_> = (0..400).map(|_| take(mm, id).unwrap()).collect();
    dogs.into_iter().for_each(|dog| free(mm, id, dog));
    let before = mm.free_page_count();
    assert_eq!(mm.kmem_cache_shrink(id), 0, "CPU 1 has not been by");
    let info = || mm.caches().find(|cache| cache.name.as_str() == "dogs").unwrap();
    let slabs = info().slabs;
    assert!(slabs.empty >= 10, "{slabs:?}");
    let others = Others::take(mm, usize::MAX, 0);
    let dogs: Vec<_> = (0..400).map(|_| take(mm, id).unwrap()).collect();
    assert_eq!(HashSet::<_>::from_iter(&dogs).len(), 400);
    assert_eq!(info().slabs.slabs(), slabs.slabs());
    others.give_back(mm);
    dogs.into_iter().for_each(|dog| free(mm, id, dog));
    assert_eq!(mm.kmem_cache_shrink(id), 0);
    // It comes by: the pages go then, and not before.
    assert_eq!(info().slabs.slabs(), slabs.slabs());
    as_cpu(1, || free(mm, id, take(mm, id).unwrap()));
    let left = info().slabs.slabs();
    assert!(left <= 2, "{left}");
    mm.drain_all_pages();
    assert!(mm.free_page_count() >= before + (slabs.slabs() - left) / 2);
    // SAFETY: nobody uses it any more.
    assert_eq!(unsafe { mm.kmem_cache_destroy(id) }, Ok(()));
    assert_eq!(mm.platform().take_reports(), []);
}

/// Where CPUs can be called a shrink gives all pages back at once.
///
/// A186
#[test]
fn cpus_that_can_be_called_hold_no_slab_back() {
    let mm = machine(2);
    mm.platform().can_call.set(true);
    let id = mm.kmem_cache_create("dogs", 100, 0, CacheFlags::NONE, None, None).unwrap();
    as_cpu(1, || free(mm, id, take(mm, id).unwrap()));
    let dogs: Vec<_> = (0..400).map(|_| take(mm, id).unwrap()).collect();
    dogs.into_iter().for_each(|dog| free(mm, id, dog));
    let slabs = || mm.caches().find(|cache| cache.name.as_str() == "dogs").unwrap().slabs.slabs();
    let before = slabs();
    assert_eq!(mm.kmem_cache_shrink(id), before);
    assert_eq!(slabs(), 0);
}
