//! Typed caches.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::{Counted, Machine, atomic, boot, kinds, settled};
use kmem::platform::MisuseKind;
use kmem::*;

fn info(mm: &Machine, name: &str) -> Option<CacheInfo> {
    mm.caches().find(|cache| cache.name.as_str() == name)
}

/// A190, A206, A207
#[test]
fn objects_are_values_and_go_back_to_their_cache() {
    let mm = boot(Setup::new());
    let count = Cell::new(0);
    let dogs = Cache::new_in("dog", CacheOptions::new(), &mm).unwrap();
    for round in 0..3 {
        let held: Vec<_> = (0..500)
            .map(|number| match number % 3 {
                0 => dogs.alloc(Counted::new(&count, number), GFP_KERNEL).unwrap(),
                1 => dogs.alloc_with(|| Counted::new(&count, number), GFP_ATOMIC).unwrap(),
                _ => {
                    let room = dogs.alloc_uninit(GFP_KERNEL).unwrap();
                    CacheBox::write(room, Counted::new(&count, number))
                }
            })
            .collect();
        let places: HashSet<_> = held.iter().map(|dog| std::ptr::from_ref(&**dog)).collect();
        assert_eq!((places.len(), count.get()), (500, 500));
        assert!(held.iter().map(|dog| dog.1).eq(0..500));
        assert_eq!(info(&mm, "dog").unwrap().active, 500);
        if round == 1 {
            let numbers: u64 = held.into_iter().map(|dog| CacheBox::into_inner(dog).1).sum();
            assert_eq!(numbers, 499 * 500 / 2);
        } else {
            drop(held);
        }
        assert_eq!((count.get(), info(&mm, "dog").unwrap().active), (0, 0));
    }
    assert!(dogs.shrink() > 0);
    dogs.destroy().unwrap();
    assert_eq!(info(&mm, "dog"), None);
    assert_eq!(kinds(&mm), []);
}

/// A191, A193
#[test]
fn options_say_how_objects_lie() {
    let mm = boot(Setup::new());
    #[repr(align(128))]
    struct Wide(#[expect(dead_code)] [u8; 300]);
    let wide = Cache::new_in("wide", CacheOptions::new().align(16), &mm).unwrap();
    // Many at once: the slabs that they lie in differ in colour.
    let held: Vec<_> = (0..100).map(|_| wide.alloc(Wide([1; 300]), GFP_KERNEL).unwrap()).collect();
    assert!(held.iter().all(|held| std::ptr::from_ref(&**held).addr().is_multiple_of(128)));
    drop(held);
    let lines = CacheOptions::new().flags(CacheFlags::HWCACHE_ALIGN);
    let lines = Cache::new_in("line", lines, &mm).unwrap();
    let apart = Cache::new_in("apart", CacheOptions::new().align(512), &mm).unwrap();
    let nothings = Cache::new_in("nothing", CacheOptions::new(), &mm).unwrap();
    for _ in 0..100 {
        let held = lines.alloc([0u8; 70], GFP_KERNEL).unwrap();
        assert!(held.as_ptr().addr().is_multiple_of(64));
        std::mem::forget(apart.alloc(5u16, GFP_KERNEL).unwrap());
        let (one, two) = (nothings.alloc((), GFP_KERNEL), nothings.alloc((), GFP_KERNEL));
        assert!(!std::ptr::eq(&*one.unwrap(), &*two.unwrap()));
    }
    assert_eq!(info(&mm, "apart").unwrap().stride, 512);
    let crooked = Cache::<u8, _>::new_in("crooked", CacheOptions::new().align(48), &mm);
    assert_eq!(crooked.unwrap_err(), CacheError::Align(48));
    let taken = Cache::<u8, _>::new_in("wide", CacheOptions::new(), &mm);
    assert!(matches!(taken.unwrap_err(), CacheError::NameTaken(_)));
    std::mem::forget(apart);
}

/// A208, A209
#[test]
fn a_leaked_object_keeps_its_cache_and_the_log_says_so() {
    let mm = boot(Setup::new());
    let dogs = Cache::new_in("dog", CacheOptions::new(), &mm).unwrap();
    std::mem::forget(dogs.alloc([7u64; 6], GFP_KERNEL).unwrap());
    mm.platform().take_lines();
    let refused = dogs.destroy().unwrap_err();
    assert_eq!(refused.error, CacheError::InUse(1));
    let dogs = refused.cache;
    assert!(mm.platform().take_lines().iter().any(|line| line.contains("dog")));
    // It is usable, and still has the object.
    let dog = dogs.alloc([8; 6], GFP_KERNEL).unwrap();
    assert_eq!(info(&mm, "dog").unwrap().active, 2);
    drop(dog);
    drop(dogs);
    let lines = mm.platform().take_lines();
    assert!(lines.last().unwrap().contains("an object of the cache is in use"), "{lines:?}");
    assert_eq!(info(&mm, "dog").unwrap().active, 1);
    assert_eq!(kinds(&mm), []);
}

/// A210
#[test]
fn a_cache_is_not_destroyed_where_sleeping_is_forbidden() {
    let mm = boot(Setup::new());
    let dogs: Cache<u32, _> = Cache::new_in("dog", CacheOptions::new(), &mm).unwrap();
    let refused = atomic(&mm, || dogs.destroy()).unwrap_err();
    assert_eq!(refused.error, CacheError::Atomic);
    assert_eq!(kinds(&mm), [MisuseKind::SleepInAtomic]);
    refused.cache.destroy().unwrap();
    let cats: Cache<u32, _> = Cache::new_in("cat", CacheOptions::new(), &mm).unwrap();
    mm.platform().take_lines();
    atomic(&mm, || drop(cats));
    assert!(info(&mm, "cat").is_some());
    assert!(mm.platform().take_lines().last().unwrap().contains("is not destroyed"));
    assert_eq!(kinds(&mm), [MisuseKind::SleepInAtomic]);
}

static MADE: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
static RESET: AtomicU64 = AtomicU64::new(0);

/// What it has once it was constructed is memory of its own.
struct Table {
    costly: Vec<u32>,
    uses: u32,
}

impl Construct for Table {
    fn construct() -> Table {
        MADE.fetch_add(1, SeqCst);
        Table { costly: (0..100).collect(), uses: 0 }
    }

    fn reset(&mut self) {
        RESET.fetch_add(1, SeqCst);
        self.uses = 0;
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, SeqCst);
        assert_eq!(self.costly.len(), 100);
    }
}

/// A201 to A203
#[test]
fn constructed_objects_are_made_once_lent_and_dropped_at_the_end() {
    let mm = boot(Setup::new());
    let tables = ConstructedCache::<Table, _>::new_in("table", CacheOptions::new(), &mm).unwrap();
    assert_eq!(MADE.load(SeqCst), 0);
    let mut taken = 0;
    for round in 0..5 {
        let mut held: Vec<_> = (0..200).map(|_| tables.alloc(GFP_KERNEL).unwrap()).collect();
        taken += held.len() as u64;
        for table in &mut held {
            assert_eq!((table.costly[99], table.uses), (99, 0));
            table.uses += 1;
            // Another value in its place is one just as well.
            **table = Table { costly: table.costly.clone(), uses: 5 };
        }
        drop(held);
        assert_eq!(RESET.load(SeqCst), taken);
        if round == 2 {
            assert!(tables.shrink() > 0);
        }
    }
    assert!(MADE.load(SeqCst) >= 200 && MADE.load(SeqCst) < taken);
    drop(tables);
    // Those made by hand were dropped when they were replaced; all others by the cache.
    assert_eq!(DROPPED.load(SeqCst), MADE.load(SeqCst) + taken);
    assert_eq!(kinds(&mm), []);
    settled(&mm);
}
