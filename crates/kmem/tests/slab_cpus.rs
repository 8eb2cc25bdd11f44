//! Objects that several CPUs, interrupts and NMIs allocate and free at once.

mod common;

use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use common::{CPU, Machine, Rig, Rng, Scope};
use kmem::platform::MisuseKind;
use kmem::*;

const MIB: u64 = 1 << 20;
const CPUS: u32 = 3;

fn machine(setup: Setup) -> Machine {
    let mm = Mm::new(Rig::new(48 << 20));
    let one = NodeId::new(1).unwrap();
    let map = MemoryMap::new().ram(0..24 * MIB, NodeId::ZERO).ram(24 * MIB..48 * MIB, one);
    let setup = setup.cpus(CPUS).cpu_node(CpuId::new(2).unwrap(), one);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup) }.unwrap();
    (1..CPUS).for_each(|cpu| mm.cpu_online(CpuId::new(cpu).unwrap()).unwrap());
    mm
}

/// An object with a stamp in its first and last bytes.
struct Held {
    object: NonNull<u8>,
    size: usize,
    stamp: u8,
    cache: Option<CacheId>,
}

// SAFETY: whoever has it has the object.
unsafe impl Send for Held {}

impl Held {
    fn take(
        mm: &Machine,
        cache: Option<(CacheId, usize)>,
        size: usize,
        gfp: Gfp,
        stamp: u8,
    ) -> Option<Held> {
        let (object, size) = match cache {
            Some((id, size)) => (mm.kmem_cache_alloc(id, gfp | Gfp::NOWARN).ok()?, size),
            None => (mm.kmalloc(size, gfp | Gfp::NOWARN).ok()?, size),
        };
        // SAFETY: so many bytes are ours.
        unsafe { object.write_bytes(stamp, size) };
        Some(Held { object, size, stamp, cache: cache.map(|(id, _)| id) })
    }

    fn free(self, mm: &Machine) {
        // SAFETY: they are ours.
        let bytes = unsafe { std::slice::from_raw_parts(self.object.as_ptr(), self.size) };
        assert!(bytes.iter().all(|byte| *byte == self.stamp), "somebody else has written");
        match self.cache {
            // SAFETY: as above.
            Some(id) => unsafe { mm.kmem_cache_free(id, self.object.as_ptr()) },
            // SAFETY: as above.
            None => unsafe { mm.kfree(self.object.as_ptr()) },
        }
    }
}

/// Allocates and frees at random; a part of what it has goes to other CPUs, and theirs comes here.
fn work(
    mm: &Machine,
    cpu: u32,
    caches: &[(CacheId, usize)],
    exchange: &Mutex<Vec<Held>>,
    steps: u32,
) {
    CPU.with(|own| own.number.set(cpu));
    let mut rng = Rng::new();
    let mut held: Vec<Held> = Vec::new();
    for step in 0..steps {
        let size = if rng.percent(95) { 1 + rng.below(600) } else { 1 + rng.below(20_000) };
        match rng.below(10) {
            0..5 if held.len() < 300 => {
                let cache = if rng.percent(50) { None } else { Some(rng.pick(caches)) };
                let gfp = rng.pick(&[GFP_KERNEL, GFP_ATOMIC]);
                held.extend(Held::take(mm, cache, size as usize, gfp, (step ^ cpu) as u8));
            }
            5 if !held.is_empty() => {
                let one = held.swap_remove(rng.below(held.len() as u64) as usize);
                exchange.lock().unwrap().push(one);
            }
            6 => {
                let other = exchange.lock().unwrap().pop();
                other.into_iter().for_each(|one| one.free(mm));
            }
            7 if step % 512 == 0 => {
                mm.shrink_caches();
            }
            _ => {
                if !held.is_empty() {
                    held.swap_remove(rng.below(held.len() as u64) as usize).free(mm);
                }
            }
        }
    }
    held.into_iter().for_each(|one| one.free(mm));
    mm.drain_local_pages();
}

fn caches(mm: &Machine) -> Vec<(CacheId, usize)> {
    let sizes = [24, 100, 700, 3000];
    sizes
        .map(|size| {
            let name = format!("objects-{size}");
            (mm.kmem_cache_create(&name, size, 0, CacheFlags::NONE, None, None).unwrap(), size)
        })
        .into()
}

/// Nothing is in use: every cache can be destroyed, and kmalloc's have no object with a caller.
fn all_is_free(mm: &Machine, caches: Vec<(CacheId, usize)>) {
    for (id, size) in caches {
        // SAFETY: nobody uses it any more.
        assert_eq!(unsafe { mm.kmem_cache_destroy(id) }, Ok(()), "objects of {size} bytes");
    }
    // Kmalloc's own users are magazines, depots and records: with the CPUs they go.
    for cpu in 1..CPUS {
        // SAFETY: nothing runs as that CPU.
        unsafe { mm.cpu_offline(CpuId::new(cpu).unwrap()) }.unwrap();
    }
    mm.shrink_caches();
    mm.verify().unwrap();
}

/// A148, A174, A175
#[test]
fn cpus_share_caches() {
    for setup in [Setup::new(), Setup::new().pagesets(false)] {
        let mm = machine(setup);
        let (caches, exchange) = (caches(&mm), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for cpu in 0..CPUS {
                let (mm, caches, exchange) = (&mm, &caches[..], &exchange);
                scope.spawn(move || work(mm, cpu, caches, exchange, 60_000));
            }
        });
        CPU.with(|cpu| cpu.number.set(0));
        exchange.into_inner().unwrap().into_iter().for_each(|one| one.free(&mm));
        assert_eq!(mm.platform().take_reports(), []);
        all_is_free(&mm, caches);
    }
}

/// An interrupt, or an NMI, at every so many calls of the manager: it allocates and frees itself, and
/// frees what the interrupted code had and the other way round. No deadlock, nothing lost.
///
/// A132, A148, A163, A174
#[test]
fn interrupts_and_nmis_use_caches_at_every_place() {
    for scope in [Scope::Interrupt, Scope::Nmi] {
        for every in [1, 2, 3, 7, 50] {
            let mm: &'static Machine = Box::leak(Box::new(machine(Setup::new())));
            let caches: &'static [(CacheId, usize)] = Box::leak(caches(mm).into_boxed_slice());
            let exchange: &'static Mutex<Vec<Held>> = Box::leak(Box::default());
            let came: &'static AtomicUsize = Box::leak(Box::default());
            CPU.with(|cpu| {
                let mut rng = Rng::new();
                cpu.arm_every(scope, None, every, move |_| {
                    let count = came.fetch_add(1, SeqCst);
                    let cache = rng.pick(&[None, Some(caches[1]), Some(caches[2])]);
                    let size = 1 + rng.below(300) as usize;
                    // The lock is free: an interrupt handler does not meet the code that it interrupts.
                    let mut exchange = exchange.try_lock().unwrap();
                    if !count.is_multiple_of(3) {
                        exchange.extend(Held::take(mm, cache, size, GFP_ATOMIC, count as u8));
                    } else if let Some(one) = exchange.pop() {
                        drop(exchange);
                        one.free(mm);
                    }
                });
            });
            let mut rng = Rng::new();
            let mut held = Vec::new();
            for step in 0..3000u32 {
                let cache = rng.pick(&[None, Some(caches[0]), Some(caches[1]), Some(caches[2])]);
                if rng.percent(50) {
                    let size = 1 + rng.below(300) as usize;
                    held.extend(Held::take(mm, cache, size, GFP_ATOMIC, step as u8));
                } else if !held.is_empty() {
                    let one: Held = held.swap_remove(rng.below(held.len() as u64) as usize);
                    one.free(mm);
                }
            }
            CPU.with(|cpu| cpu.disarm());
            assert!(came.load(SeqCst) > 100);
            held.into_iter().for_each(|one| one.free(mm));
            exchange.lock().unwrap().drain(..).for_each(|one| one.free(mm));
            assert_eq!(mm.platform().take_reports(), [], "{scope:?} {every}");
            all_is_free(mm, caches.to_vec());
        }
    }
}

/// Two CPUs free one object at one moment: one of them is told, now or when it takes the object, and
/// no two get it.
///
/// A148, A207
#[test]
fn an_object_freed_twice_at_one_moment_is_handed_out_once() {
    let mm = machine(Setup::new());
    let id = mm.kmem_cache_create("twice", 64, 0, CacheFlags::NONE, None, None).unwrap();
    let (mm, line) = (&mm, &AtomicUsize::new(0));
    let shared = &AtomicUsize::new(0);
    let taken = &Mutex::new(Vec::new());
    let rounds = 2000;
    let meet = |stop: usize| {
        line.fetch_add(1, SeqCst);
        while line.load(SeqCst) < 2 * stop {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        for cpu in 0..2u32 {
            scope.spawn(move || {
                CPU.with(|own| own.number.set(cpu));
                for round in 0..rounds {
                    if cpu == 0 {
                        let object = mm.kmem_cache_alloc(id, GFP_KERNEL).unwrap();
                        shared.store(object.as_ptr().expose_provenance(), SeqCst);
                    }
                    meet(4 * round + 1);
                    let object = std::ptr::with_exposed_provenance_mut(shared.load(SeqCst));
                    // SAFETY: wrong on purpose for one of the two; nothing uses the object.
                    unsafe { mm.kmem_cache_free(id, object) };
                    meet(4 * round + 2);
                    let mine: Vec<usize> = (0..3)
                        .map(|_| mm.kmem_cache_alloc(id, GFP_KERNEL).unwrap().addr().get())
                        .collect();
                    taken.lock().unwrap().extend(mine.iter().copied());
                    meet(4 * round + 3);
                    if cpu == 0 {
                        let mut taken = taken.lock().unwrap();
                        let all: HashSet<usize> = taken.drain(..).collect();
                        assert_eq!(all.len(), 6, "round {round}: an object was handed out twice");
                    }
                    for object in mine {
                        // SAFETY: the thread's own.
                        unsafe {
                            mm.kmem_cache_free(id, std::ptr::with_exposed_provenance_mut(object))
                        };
                    }
                    meet(4 * round + 4);
                }
                mm.kmem_cache_shrink(id);
            });
        }
    });
    CPU.with(|cpu| cpu.number.set(0));
    mm.kmem_cache_shrink(id);
    let reports = mm.platform().take_reports();
    let expected = [MisuseKind::DoubleFree, MisuseKind::ConcurrentFree];
    assert!(reports.iter().all(|report| expected.contains(&report.kind)), "{reports:#?}");
    assert_eq!(reports.len(), rounds);
    // SAFETY: nobody uses it any more.
    assert_eq!(unsafe { mm.kmem_cache_destroy(id) }, Ok(()));
}
