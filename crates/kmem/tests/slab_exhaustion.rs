//! Every call of the slab layer with 0, 1, 2 ... pages left, until it succeeds: a failure is an error
//! and leaves everything as it was.

mod common;

use std::ptr::NonNull;

use common::{Machine, Rig, lists};
use kmem::boot::SlabDebug;
use kmem::slab::Ctor;
use kmem::*;

const MIB: u64 = 1 << 20;

/// A small machine with one CPU: no other CPU keeps anything.
fn machine(rules: &str) -> Machine {
    let mm = Mm::new(Rig::new(4 << 20));
    let map = MemoryMap::new().ram(0..4 * MIB, NodeId::ZERO).reserved(0..4096, "firmware");
    let setup = Setup::new().slab_debug(SlabDebug::parse(rules).unwrap());
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup) }.unwrap();
    mm
}

/// All that nobody uses given back, the CPU's own of caches too.
fn settled(mm: &Machine) -> Vec<([u64; Order::COUNT], u64)> {
    // SAFETY: this is the CPU, and it does nothing else.
    unsafe { mm.cpu_offline(CpuId::BOOT) }.unwrap();
    mm.shrink_caches();
    mm.verify().unwrap();
    let free = lists(mm);
    mm.cpu_online(CpuId::BOOT).unwrap();
    free
}

/// Takes all pages but so many.
fn take_all_but(mm: &Machine, left: usize) -> Vec<Page> {
    let mut pages = Vec::new();
    while let Ok(page) = mm.alloc_page(GFP_ATOMIC | Gfp::MEMALLOC | Gfp::NOWARN) {
        pages.push(page);
    }
    for _ in 0..left.min(pages.len()) {
        // SAFETY: the test's own.
        unsafe { mm.__free_page(pages.pop().unwrap()) };
    }
    pages
}

/// Does something that takes memory. What it has got it gives back, unless it succeeds: then it
/// answers how to.
type Call = fn(&Machine) -> Result<Undo, AllocError>;

/// Gives back what a call has got.
type Undo = Box<dyn FnOnce(&Machine)>;

const GFP: Gfp = GFP_ATOMIC.union(Gfp::MEMALLOC).union(Gfp::NOWARN);

fn freed(memory: NonNull<u8>) -> Undo {
    // SAFETY: it was allocated for this alone.
    Box::new(move |mm| unsafe { mm.kfree(memory.as_ptr()) })
}

fn of_cache(
    mm: &Machine,
    size: usize,
    flags: CacheFlags,
    ctor: Option<Ctor>,
) -> Result<Undo, AllocError> {
    let id = mm.kmem_cache_create("tried", size, 0, flags, ctor, ctor).unwrap();
    let end = move |mm: &Machine| {
        // SAFETY: nobody uses it any more.
        unsafe { mm.kmem_cache_destroy(id) }.unwrap();
    };
    let mut objects = [None; 5];
    match mm.kmem_cache_alloc_bulk(id, GFP, &mut objects) {
        Ok(()) => Ok(Box::new(move |mm| {
            let objects = objects.map(|object| object.unwrap());
            // SAFETY: the test's own.
            unsafe { mm.kmem_cache_free_bulk(id, &objects) };
            end(mm);
        })),
        Err(error) => {
            assert_eq!(objects, [None; 5], "some of them were handed out");
            end(mm);
            Err(error)
        }
    }
}

const CALLS: [(&str, Call); 14] = [
    ("kmalloc of a small size", |mm| mm.kmalloc(24, GFP).map(freed)),
    ("kmalloc of a page", |mm| mm.kmalloc(4096, GFP).map(freed)),
    ("kmalloc of some pages", |mm| mm.kmalloc(20_000, GFP).map(freed)),
    ("kmalloc above the sizes", |mm| mm.kmalloc(100_000, GFP).map(freed)),
    ("kmalloc_node", |mm| mm.kmalloc_node(700, GFP, Some(NodeId::ZERO)).map(freed)),
    ("kzalloc", |mm| mm.kzalloc(3000, GFP).map(freed)),
    ("kcalloc", |mm| mm.kcalloc(30, 100, GFP).map(freed)),
    ("krealloc", |mm| {
        let old = mm.kmalloc(50, GFP)?;
        // SAFETY: the test's own bytes.
        unsafe { old.write_bytes(7, 50) };
        // SAFETY: the test's own memory.
        match unsafe { mm.krealloc(old.as_ptr(), 9000, GFP) } {
            Ok(new) => {
                // SAFETY: the test's own bytes.
                assert_eq!(unsafe { std::slice::from_raw_parts(new.as_ptr(), 50) }, [7; 50]);
                Ok(freed(new))
            }
            Err(error) => {
                // SAFETY: as above: it is as it was.
                assert_eq!(unsafe { std::slice::from_raw_parts(old.as_ptr(), 50) }, [7; 50]);
                freed(old)(mm);
                Err(error)
            }
        }
    }),
    ("a cache", |mm| of_cache(mm, 300, CacheFlags::NONE, None)),
    ("a cache with its records elsewhere", |mm| of_cache(mm, 1024, CacheFlags::NONE, None)),
    ("a cache of slabs of several pages", |mm| of_cache(mm, 5000, CacheFlags::NONE, None)),
    ("a cache with a constructor", |mm| of_cache(mm, 300, CacheFlags::NONE, Some(|_, _, _| ()))),
    ("a cache that is debugged", |mm| of_cache(mm, 300, CacheFlags::DEBUG, None)),
    ("a cache with a quarantine", |mm| of_cache(mm, 2000, CacheFlags::QUARANTINE, None)),
];

/// A143, A206: no call panics, hangs or loses anything when memory is out, wherever that is.
#[test]
fn every_call_can_fail_anywhere() {
    for rules in ["", "PZUQ"] {
        let mm = machine(rules);
        let before = settled(&mm);
        for (name, call) in CALLS {
            let mut failures = 0;
            for left in 0.. {
                assert!(left < 200, "{name}: fails with {left} pages left");
                let taken = take_all_but(&mm, left);
                let result = call(&mm);
                let done = result.is_ok();
                match result {
                    Ok(undo) => undo(&mm),
                    Err(AllocError::NoMemory { .. }) => failures += 1,
                    Err(error) => panic!("{name} with {left} pages left: {error}"),
                }
                for page in taken {
                    // SAFETY: the test's own.
                    unsafe { mm.__free_page(page) };
                }
                assert_eq!(settled(&mm), before, "{name} with {left} pages left, {rules:?}");
                assert_eq!(mm.platform().take_reports().len(), 0, "{name}, {left} left");
                if done {
                    break;
                }
            }
            assert!(failures > 0, "{name} never failed");
        }
    }
}
