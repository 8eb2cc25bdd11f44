//! Caches, CPUs and slabs that come and go while others are at them.

mod common;

use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use common::{CPU, Machine, Rig, Scope, as_cpu};
use kmem::slab::CtorFlags;
use kmem::*;

const MIB: u64 = 1 << 20;

fn machine(setup: Setup, cpus: u32) -> &'static Machine {
    let mm = Mm::new(Rig::new(8 << 20));
    let map = MemoryMap::new().ram(0..8 * MIB, NodeId::ZERO);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup.cpus(cpus)) }.unwrap();
    (1..cpus).for_each(|number| mm.cpu_online(cpu(number)).unwrap());
    Box::leak(Box::new(mm))
}

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

fn dogs(mm: &Machine) -> CacheId {
    mm.kmem_cache_create("dogs", 100, 0, CacheFlags::NONE, None, None).unwrap()
}

fn take(mm: &Machine, id: CacheId) -> NonNull<u8> {
    mm.kmem_cache_alloc(id, GFP_ATOMIC).unwrap()
}

fn free(mm: &Machine, id: CacheId, object: NonNull<u8>) {
    // SAFETY: nothing uses the object.
    unsafe { mm.kmem_cache_free(id, object.as_ptr()) };
}

fn destroy(mm: &Machine, id: CacheId) -> Result<(), CacheError> {
    // SAFETY: nobody uses the cache meanwhile.
    unsafe { mm.kmem_cache_destroy(id) }
}

fn offline(mm: &Machine, number: u32) -> Result<(), CpuError> {
    // SAFETY: that CPU does nothing, or it is this one.
    unsafe { mm.cpu_offline(cpu(number)) }
}

fn slabs(mm: &Machine) -> u64 {
    mm.caches().find(|cache| cache.name.as_str() == "dogs").unwrap().slabs.slabs()
}

/// Many objects come and go on this CPU.
fn come_and_go(mm: &Machine, id: CacheId) {
    let all: Vec<_> = (0..400).map(|_| take(mm, id)).collect();
    all.into_iter().for_each(|object| free(mm, id, object));
}

/// Where CPUs can be called, nothing holds up the slabs of a cache without objects in use.
fn all_slabs_go(mm: &Machine, id: CacheId) -> bool {
    mm.platform().can_call.set(true);
    come_and_go(mm, id);
    mm.kmem_cache_shrink(id);
    slabs(mm) == 0
}

/// Two make and destroy caches of their own while a third walks over all that there are.
///
/// A187, A208
#[test]
fn caches_come_and_go_at_one_moment() {
    let mm = machine(Setup::new().pagesets(false), 3);
    let done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            CPU.with(|own| own.number.set(2));
            while !done.load(SeqCst) {
                mm.shrink_caches();
            }
        });
        let makers = [0, 1].map(|number| {
            scope.spawn(move || {
                CPU.with(|own| own.number.set(number));
                let (name, size) = (format!("own{number}"), 100 + 400 * number as usize);
                for _ in 0..3_000 {
                    let id = mm.kmem_cache_create(&name, size, 0, CacheFlags::NONE, None, None);
                    let id = id.unwrap();
                    let object = take(mm, id);
                    assert_eq!(destroy(mm, id), Err(CacheError::InUse(1)));
                    free(mm, id, object);
                    assert_eq!(destroy(mm, id), Ok(()));
                }
            })
        });
        let made = makers.map(|maker| maker.join());
        done.store(true, SeqCst);
        assert!(made.iter().all(Result::is_ok));
    });
    assert_eq!(mm.platform().take_reports(), []);
    mm.verify().unwrap();
}

/// A task is about to give its CPU magazines, and finds itself on another when the first is gone.
///
/// A086, A186
#[test]
fn a_cpu_that_goes_while_it_is_given_magazines_has_none() {
    for place in 0.. {
        let mm = machine(Setup::new(), 2);
        let id = dogs(mm);
        free(mm, id, take(mm, id));
        mm.kmem_cache_shrink(id);
        let goes = move |_| {
            if !CPU.with(|cpu| cpu.was_atomic.get()) {
                offline(mm, 1).unwrap();
            }
        };
        let (object, ended) = as_cpu(1, || {
            CPU.with(|own| {
                own.arm_once(Scope::OtherCpu(0), None, place, goes);
                (take(mm, id), own.disarm())
            })
        });
        free(mm, id, object);
        assert!(all_slabs_go(mm, id), "at place {place}");
        if ended {
            assert!(place > 10, "{place}");
            break;
        }
    }
}

/// An interrupt handler takes its CPU out while that is at its magazines: it is told that it is busy.
///
/// A086, A186
#[test]
fn a_cpu_that_is_at_its_magazines_does_not_go() {
    let mut busy = 0;
    for place in 0.. {
        let mm = machine(Setup::new(), 2);
        let id = dogs(mm);
        let answer: &'static Mutex<Option<Result<(), CpuError>>> = Box::leak(Box::default());
        let (object, ended) = as_cpu(1, || {
            free(mm, id, take(mm, id));
            mm.kmem_cache_shrink(id);
            CPU.with(|own| {
                own.arm_once(Scope::Interrupt, None, place, move |_| {
                    *answer.lock().unwrap() = Some(offline(mm, 1));
                });
                (take(mm, id), own.disarm())
            })
        });
        free(mm, id, object);
        match *answer.lock().unwrap() {
            Some(Err(error)) => {
                assert_eq!((error, mm.is_online(cpu(1))), (CpuError::Busy(cpu(1)), true));
                busy += 1;
            }
            Some(Ok(())) => assert!(!mm.is_online(cpu(1))),
            None => assert!(ended),
        }
        assert!(all_slabs_go(mm, id), "at place {place}");
        if ended {
            break;
        }
    }
    assert!(busy > 0);
}

/// A CPU goes while a destruction that is refused has closed the cache.
///
/// A086, A208
#[test]
fn a_cpu_that_goes_while_a_destruction_is_refused_has_no_magazines() {
    for place in 0.. {
        let mm = machine(Setup::new(), 3);
        let id = dogs(mm);
        as_cpu(1, || free(mm, id, take(mm, id)));
        let held = take(mm, id);
        let ended = CPU.with(|own| {
            own.arm_once(Scope::OtherCpu(2), None, place, move |_| {
                if !CPU.with(|cpu| cpu.was_atomic.get()) {
                    offline(mm, 1).unwrap();
                }
            });
            assert_eq!(destroy(mm, id), Err(CacheError::InUse(1)));
            own.disarm()
        });
        free(mm, id, held);
        assert!(all_slabs_go(mm, id), "at place {place}");
        if ended {
            assert!(place > 10, "{place}");
            break;
        }
    }
}

static UNTOLD: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

fn count(_: NonNull<u8>, _: CacheId, flags: CtorFlags) {
    let atomic = CPU.with(|cpu| cpu.in_atomic());
    UNTOLD.fetch_add(u64::from(atomic != flags.contains(CtorFlags::ATOMIC)), SeqCst);
    CALLS.fetch_add(1, SeqCst);
}

/// A202, A204
#[test]
fn destructors_are_told_where_they_must_not_sleep() {
    let mm = machine(Setup::new(), 2);
    let made =
        mm.kmem_cache_create("dogs", 100, 0, CacheFlags::NONE, Some(|_, _, _| ()), Some(count));
    let id = made.unwrap();
    as_cpu(1, || free(mm, id, take(mm, id)));
    come_and_go(mm, id);
    mm.kmem_cache_shrink(id);
    assert_eq!(CALLS.load(SeqCst), 0, "CPU 1 has not been by");
    // It comes by, in an interrupt handler.
    as_cpu(1, || {
        CPU.with(|own| {
            own.arm_once(Scope::Interrupt, None, 0, move |_| free(mm, id, take(mm, id)));
            mm.drain_local_pages();
            assert!(!own.disarm());
        });
    });
    let in_interrupt = CALLS.load(SeqCst);
    assert!(in_interrupt > 100);
    assert!(all_slabs_go(mm, id));
    assert!(CALLS.load(SeqCst) > in_interrupt);
    assert_eq!(UNTOLD.load(SeqCst), 0);
}

/// The last CPU that slabs waited for goes, or comes by in an NMI handler, which frees nothing itself.
///
/// A163, A186
#[test]
fn slabs_go_with_the_last_cpu_that_they_waited_for() {
    for goes in [false, true] {
        let mm = machine(Setup::new(), 2);
        let id = dogs(mm);
        as_cpu(1, || free(mm, id, take(mm, id)));
        come_and_go(mm, id);
        mm.kmem_cache_shrink(id);
        let before = slabs(mm);
        assert!(before > 5);
        if goes {
            offline(mm, 1).unwrap();
        } else {
            as_cpu(1, || {
                CPU.with(|own| {
                    own.arm_once(Scope::Nmi, None, 0, move |_| free(mm, id, take(mm, id)));
                    mm.drain_local_pages();
                    assert!(!own.disarm());
                });
                free(mm, id, take(mm, id));
            });
        }
        let after = slabs(mm);
        assert!(after <= 2, "{after} of {before}");
    }
}

/// An NMI handler frees objects while another CPU looks at all of them: nothing is wrong with any.
///
/// A163
#[test]
fn what_an_nmi_handler_frees_is_not_reported() {
    let mm = machine(Setup::new(), 2);
    let flags = CacheFlags::RED_ZONE | CacheFlags::POISON;
    let id = mm.kmem_cache_create("dogs", 1024, 0, flags, None, None).unwrap();
    let done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            CPU.with(|own| own.number.set(1));
            while !done.load(SeqCst) {
                assert_eq!(mm.kmem_cache_validate(id).unwrap().wrong, 0);
            }
        });
        for _ in 0..20_000 {
            let object = take(mm, id);
            CPU.with(|own| {
                own.arm_once(Scope::Nmi, None, 0, move |_| free(mm, id, object));
                mm.drain_local_pages();
                assert!(!own.disarm());
            });
        }
        done.store(true, SeqCst);
    });
    assert_eq!(mm.platform().take_reports(), []);
}

/// Somebody asks how large an object is whose slab goes meanwhile, and whose page's next holder keeps
/// bits of its own with it.
///
/// A153
#[test]
fn ksize_of_what_is_none_any_more_looks_at_nothing_else() {
    let mm = machine(Setup::new().pagesets(false), 2);
    let (done, which) = (&AtomicBool::new(false), &AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            CPU.with(|own| own.number.set(1));
            while !done.load(SeqCst) {
                let object: *const u8 =
                    std::ptr::with_exposed_provenance(which.load(SeqCst) as usize);
                let size = mm.ksize(object);
                assert!(size == 0 || size == 2048, "{size}");
            }
        });
        for _ in 0..5_000 {
            let object = mm.kmalloc(2048, GFP_ATOMIC).unwrap();
            which.store(object.as_ptr().expose_provenance() as u64, SeqCst);
            // SAFETY: the test's own.
            unsafe { mm.kfree(object.as_ptr()) };
            mm.shrink_caches();
            let pages: Vec<_> = (0..8).map(|_| mm.alloc_pages(GFP_ATOMIC, 0).unwrap()).collect();
            pages.iter().for_each(|page| mm.set_page_private(*page, Some(0x1234_5678_9000)));
            for page in pages {
                mm.set_page_private(page, None);
                // SAFETY: as above.
                unsafe { mm.__free_pages(page, 0) };
            }
        }
        done.store(true, SeqCst);
    });
}
