//! Memory that runs out: every call of every type that may take memory, with so few pages left that it
//! fails after none, one, two ... of its allocations, until it succeeds.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

use super::common::{Rig, lists};
use super::{Counted, Machine, kinds};
use kmem::*;

const BYTES: u64 = 4 << 20;
const GFP: Gfp = GFP_KERNEL.union(Gfp::NOWARN);

fn boot() -> Machine {
    let mm = Mm::new(Rig::new(BYTES as usize));
    // No reserves and no lists: how many pages are left is how many can be had.
    let setup = Setup::new().min_free_kbytes(0).pagesets(false);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&MemoryMap::new().ram(0..BYTES, NodeId::ZERO), &setup) }.unwrap();
    mm
}

/// A machine whose memory is about to run out.
struct Scene<'m> {
    mm: &'m Machine,
    left: usize,
    taken: RefCell<Vec<Page>>,
    objects: RefCell<Vec<NonNull<u8>>>,
    values: Cell<i64>,
}

impl<'m> Scene<'m> {
    /// Takes all memory, what is left in slabs included, but for some pages, which lie side by side.
    fn squeeze(&self) {
        self.mm.shrink_caches();
        let all = GFP | Gfp::MEMALLOC;
        let mut pages: Vec<Page> = std::iter::from_fn(|| self.mm.alloc_page(all).ok()).collect();
        pages.sort();
        // What slabs have left over.
        let sizes: Vec<usize> = self.mm.caches().map(|cache| cache.size).collect();
        let objects =
            sizes.iter().flat_map(|size| std::iter::from_fn(|| self.mm.kmalloc(*size, all).ok()));
        self.objects.borrow_mut().extend(objects);
        let kept = pages.split_off(self.left.min(pages.len()));
        pages.into_iter().for_each(|page| super::common::free(self.mm, page, 0));
        *self.taken.borrow_mut() = kept;
    }

    fn value(&self, number: u64) -> Counted<'_> {
        Counted::new(&self.values, number)
    }

    /// A list of so many numbers, and no room for more.
    fn numbers(&self, count: u64) -> KVec<Counted<'_>, &'m Machine> {
        let mut list = KVec::new_in(self.mm);
        list.try_extend((0..count).map(|number| self.value(number)), GFP_KERNEL).unwrap();
        let room = list.capacity() - list.len();
        list.try_extend((0..room as u64).map(|more| self.value(count + more)), GFP).unwrap();
        list
    }
}

fn is_numbers(list: &[Counted<'_>], count: usize) {
    assert_eq!(list.len(), count);
    assert!(list.iter().map(|value| value.1).eq(0..count as u64));
}

/// A call: makes what it needs, has memory squeezed, calls, and looks that a failure changed nothing.
/// Answers whether it succeeded.
type Call = (&'static str, fn(&Scene<'_>) -> bool);

const CALLS: &[Call] = &[
    ("KBox::new", |scene| {
        scene.squeeze();
        KBox::new_in((scene.value(1), [0u8; 3000]), GFP, scene.mm).is_ok()
    }),
    ("KBox::try_clone", |scene| {
        let boxed = KBox::new_in((scene.value(1), [7u8; 3000]), GFP, scene.mm).unwrap();
        scene.squeeze();
        let copy = boxed.try_clone(GFP);
        assert_eq!((boxed.0.1, boxed.1), (1, [7; 3000]));
        copy.is_ok()
    }),
    ("KBox::new_zeroed_slice", |scene| {
        scene.squeeze();
        KBox::<[u64], _>::new_zeroed_slice_in(5000, GFP, scene.mm).is_ok()
    }),
    ("KBox::from_slice", |scene| {
        let values = vec![scene.value(1); 1000];
        scene.squeeze();
        KBox::from_slice_in(&values, GFP, scene.mm).is_ok()
    }),
    ("boxes in boxes", |scene| {
        scene.squeeze();
        let inner = KBox::new_in([scene.value(1), scene.value(2)], GFP, scene.mm);
        let outer = inner.and_then(|inner| KBox::new_in((inner, [0; 900]), GFP, scene.mm));
        outer.and_then(|outer| KBox::new_in([[0u8; 1500]; 5], GFP, scene.mm).map(|_| outer)).is_ok()
    }),
    ("KVec::push", |scene| {
        scene.squeeze();
        let mut list = KVec::new_in(scene.mm);
        for number in 0..3000 {
            let capacity = list.capacity();
            if let Err(full) = list.push(scene.value(number), GFP) {
                assert_eq!(full.value.1, number);
                is_numbers(&list, number as usize);
                assert_eq!(list.capacity(), capacity);
                return false;
            }
        }
        true
    }),
    ("KVec::insert", |scene| {
        let mut list = scene.numbers(300);
        let count = list.len();
        scene.squeeze();
        let inserted = list.insert(5, scene.value(77), GFP);
        match inserted {
            Ok(()) => assert_eq!((list[5].1, list[6].1), (77, 5)),
            Err(error) => {
                assert_eq!(error.into_value().1, 77);
                is_numbers(&list, count);
                return false;
            }
        }
        true
    }),
    ("KVec::extend_from_slice", |scene| {
        let mut list = scene.numbers(300);
        let (count, more) = (list.len(), vec![scene.value(5); 2000]);
        scene.squeeze();
        let extended = list.extend_from_slice(&more, GFP).is_ok();
        is_numbers(&list[..count], count);
        assert_eq!(list.len(), if extended { count + more.len() } else { count });
        extended
    }),
    ("KVec::try_extend", |scene| {
        let mut list = scene.numbers(10);
        let count = list.len();
        scene.squeeze();
        // It does not know how many there will be: it grows again and again.
        let more = (0..4000).filter(|number| number % 2 == 0).map(|number| scene.value(number));
        let extended = list.try_extend(more, GFP).is_ok();
        is_numbers(&list[..count], count);
        assert_eq!(list.len(), if extended { count + 2000 } else { count });
        extended
    }),
    ("KVec::resize", |scene| {
        let mut list = scene.numbers(300);
        let count = list.len();
        scene.squeeze();
        let resized = list.resize(3000, scene.value(5), GFP).is_ok();
        is_numbers(&list[..count], count);
        assert_eq!(list.len(), if resized { 3000 } else { count });
        resized
    }),
    ("KVec::try_reserve", |scene| {
        let mut list = scene.numbers(300);
        let (count, capacity) = (list.len(), list.capacity());
        scene.squeeze();
        let reserved = list.try_reserve(1000, GFP).is_ok();
        is_numbers(&list, count);
        assert!(if reserved {
            list.capacity() >= count + 1000
        } else {
            list.capacity() == capacity
        });
        reserved
    }),
    ("KVec::try_clone", |scene| {
        let list = scene.numbers(1000);
        scene.squeeze();
        let copy = list.try_clone(GFP);
        is_numbers(&list, list.len());
        copy.map(|copy| assert_eq!(copy, list)).is_ok()
    }),
    ("KVec::shrink_to_fit", |scene| {
        let mut list = scene.numbers(3000);
        list.truncate(100);
        let at = list.as_ptr();
        scene.squeeze();
        list.shrink_to_fit(GFP);
        is_numbers(&list, 100);
        // Without smaller memory it stays.
        list.as_ptr() != at
    }),
    ("KString::push_str", |scene| {
        let mut text = KString::from_str_in("as it was", GFP, scene.mm).unwrap();
        scene.squeeze();
        for count in 0..3000 {
            if text.push_str("äöü", GFP).is_err() {
                assert_eq!(text.len(), 9 + 6 * count);
                assert!(
                    text.starts_with("as it was") && text[9..].chars().all(|c| "äöü".contains(c))
                );
                return false;
            }
        }
        true
    }),
    ("KString::write", |scene| {
        let mut text = KString::from_str_in("as it was", GFP, scene.mm).unwrap();
        scene.squeeze();
        let (pad, wide) = ("", 9000);
        let written = text.write(GFP, format_args!("{} {pad:>100} {pad:>2000} {pad:>wide$}", 5));
        if let Err(error) = written {
            assert!(matches!(error, WriteError::Alloc(AllocError::NoMemory { .. })), "{error}");
            assert_eq!(text, "as it was");
        }
        written.is_ok()
    }),
    ("KString::try_clone", |scene| {
        let text = KString::from_str_in(&"long ".repeat(900), GFP, scene.mm).unwrap();
        scene.squeeze();
        text.try_clone(GFP).map(|copy| assert_eq!(copy, text)).is_ok()
    }),
    ("Cache::alloc", |scene| {
        let cache = Cache::new_in("dog", CacheOptions::new(), scene.mm).unwrap();
        scene.squeeze();
        let mut held = Vec::new();
        for number in 0..40 {
            let object = (scene.value(number), [0u8; 1000]);
            let object = match number % 2 {
                0 => cache.alloc(object, GFP),
                _ => cache.alloc_with(|| object, GFP),
            };
            match object {
                Ok(object) => held.push(object),
                Err(_) => return false,
            }
        }
        true
    }),
    ("ConstructedCache::alloc", |scene| {
        let cache = ConstructedCache::<Block, _>::new_in("b", CacheOptions::new(), scene.mm);
        let cache = cache.unwrap();
        scene.squeeze();
        let mut held = Vec::new();
        for _ in 0..20 {
            match cache.alloc(GFP) {
                Ok(object) => held.push(object),
                Err(_) => return false,
            }
        }
        true
    }),
    #[cfg(feature = "allocator-api2")]
    ("Kmalloc", |scene| {
        use allocator_api2::vec::Vec as ApiVec;
        let mut list = ApiVec::new_in(Kmalloc::new_in(GFP, scene.mm));
        scene.squeeze();
        for number in 0..3000 {
            if list.try_reserve(1).is_err() {
                is_numbers(&list, number as usize);
                return false;
            }
            list.push(scene.value(number));
        }
        true
    }),
];

struct Block(#[expect(dead_code)] [u8; 1000]);

impl Construct for Block {
    fn construct() -> Block {
        Block([1; 1000])
    }

    fn reset(&mut self) {}
}

/// A302
#[test]
fn a_call_that_finds_no_memory_changes_nothing_and_loses_nothing() {
    for (name, call) in CALLS {
        let mm = boot();
        // What a first use leaves for good.
        let run = |left| {
            let scene = Scene {
                mm: &mm,
                left,
                taken: RefCell::default(),
                objects: RefCell::default(),
                values: Cell::new(0),
            };
            let succeeded = call(&scene);
            assert_eq!(scene.values.get(), 0, "{name}: values are lost");
            let taken = scene.taken.take();
            taken.into_iter().for_each(|page| super::common::free(&mm, page, 0));
            for object in scene.objects.take() {
                // SAFETY: it was taken by `squeeze`.
                unsafe { mm.kfree(object.as_ptr()) };
            }
            mm.shrink_caches();
            mm.verify().unwrap();
            assert_eq!(kinds(&mm), [], "{name}");
            succeeded
        };
        assert!(run(usize::MAX), "{name}: with all memory there is");
        let before = lists(&mm);
        let mut failures = 0;
        let enough = (0..1000).find(|left| {
            let succeeded = run(*left);
            assert_eq!(lists(&mm), before, "{name}: with {left} pages memory is lost");
            failures += u32::from(!succeeded);
            succeeded
        });
        assert!(enough.is_some_and(|enough| enough > 0) && failures > 0, "{name}: {enough:?}");
    }
}
