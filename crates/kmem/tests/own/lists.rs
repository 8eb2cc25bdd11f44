//! Lists.

use std::cell::Cell;

use super::common::Rng;
use super::{Counted, Machine, boot, kinds, machines, settled};
use kmem::*;

/// Every call of a list, beside Rust's own, with values that count themselves.
#[test]
fn a_list_does_what_rusts_own_does() {
    for mm in machines() {
        let (before, count) = (settled(&mm), Cell::new(0));
        let mut rng = Rng::new();
        let mut list = KVec::new_in(&mm);
        let mut model: Vec<Counted<'_>> = Vec::new();
        for step in 0..6000 {
            one_call(&mut rng, Counted::new(&count, step), &mut list, &mut model);
            assert_eq!(list, model[..], "step {step}");
            assert!(list.capacity() >= list.len());
            assert_eq!(count.get(), 2 * model.len() as i64, "step {step}");
        }
        drop((list, model));
        assert_eq!(count.get(), 0);
        assert_eq!(settled(&mm), before);
    }
}

/// A call of a list, chosen by chance, beside the same of Rust's own.
fn one_call<'c>(
    rng: &mut Rng,
    value: Counted<'c>,
    list: &mut KVec<Counted<'c>, &Machine>,
    model: &mut Vec<Counted<'c>>,
) {
    let take = |list: &mut KVec<_, _>| {
        let handle = list.handle();
        std::mem::replace(list, KVec::new_in(handle))
    };
    let step = value.1;
    let at = rng.below(model.len() as u64 + 3) as usize;
    match rng.below(16) {
        0..4 => {
            model.push(value.clone());
            list.push(value, GFP_KERNEL).unwrap();
        }
        4 | 5 => match list.insert(at, value.clone(), GFP_ATOMIC) {
            Ok(()) => model.insert(at, value),
            Err(error) => {
                assert!(at > model.len());
                assert_eq!(error.into_value(), value);
            }
        },
        6 => assert_eq!(list.remove(at), (at < model.len()).then(|| model.remove(at))),
        7 => {
            let expected = (at < model.len()).then(|| model.swap_remove(at));
            assert_eq!(list.swap_remove(at), expected);
        }
        8 => assert_eq!(list.pop(), model.pop()),
        9 => {
            let values = vec![value; at % 30];
            list.extend_from_slice(&values, GFP_KERNEL).unwrap();
            model.extend_from_slice(&values);
        }
        10 => {
            let values = (0..step % 20).map(|number| Counted::new(value.0, number));
            list.try_extend(values.clone(), GFP_KERNEL).unwrap();
            model.extend(values);
        }
        11 => {
            let keep = |kept: &Counted<'_>| kept.1 % 5 != step % 5;
            list.retain(|value| keep(value));
            model.retain(keep);
        }
        12 => {
            let end = rng.below(model.len() as u64 + 3) as usize;
            let range = at..end;
            let Some(mut drain) = list.drain(range.clone()) else {
                assert!(at > end || end > model.len());
                return;
            };
            let mut expected = model.drain(range);
            assert_eq!(drain.as_slice(), expected.as_slice());
            match rng.below(3) {
                0 => assert!(drain.by_ref().eq(expected.by_ref())),
                1 => {
                    assert_eq!(drain.next(), expected.next());
                    assert_eq!(drain.next_back(), expected.next_back());
                    assert_eq!(drain.len(), expected.len());
                }
                _ => {}
            }
        }
        13 => {
            list.truncate(at + model.len() / 2);
            model.truncate(at + model.len() / 2);
        }
        14 => {
            list.resize(at, value.clone(), GFP_KERNEL).unwrap();
            model.resize(at, value);
        }
        _ => match rng.below(5) {
            0 => list.shrink_to_fit(GFP_KERNEL),
            1 => *list = KVec::from(take(list).into_boxed_slice()),
            2 => *list = list.try_clone(GFP_KERNEL).unwrap(),
            3 => list.try_reserve_exact(at, GFP_KERNEL).unwrap(),
            _ => {
                let mut rest = take(list).into_iter();
                let mut expected = std::mem::take(model).into_iter();
                assert_eq!(rest.next_back(), expected.next_back());
                assert_eq!(rest.next(), expected.next());
                assert_eq!(rest.as_slice(), expected.as_slice());
            }
        },
    }
}

/// A153
#[test]
fn a_list_uses_all_of_its_size_class() {
    for mm in machines() {
        for count in [1, 3, 7, 40, 100, 1000, 5000, 20_000, 100_000] {
            let bytes: KVec<u8, _> = KVec::with_capacity_in(count, GFP_KERNEL, &mm).unwrap();
            assert_eq!(bytes.capacity(), mm.kmalloc_size_roundup(count));
            let triples: KVec<[u8; 3], _> = KVec::with_capacity_in(count, GFP_KERNEL, &mm).unwrap();
            assert_eq!(triples.capacity(), mm.kmalloc_size_roundup(3 * count) / 3);
        }
        // Twice as much each time: few moves.
        let (mut list, mut moves, mut at) = (KVec::new_in(&mm), 0, std::ptr::null());
        for number in 0..100_000u32 {
            list.push(number, GFP_KERNEL).unwrap();
            if list.as_ptr() != at {
                (at, moves) = (list.as_ptr(), moves + 1);
            }
        }
        assert!(list.iter().copied().eq(0..100_000));
        assert!(moves <= 20, "{moves}");
        list.truncate(10);
        list.shrink_to_fit(GFP_KERNEL);
        assert!(list.capacity() <= mm.kmalloc_size_roundup(40), "{}", list.capacity());
        assert_eq!(list, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        list.clear();
        list.shrink_to_fit(GFP_KERNEL);
        assert_eq!(list.capacity(), 0);
    }
}

#[test]
fn where_twice_as_much_is_too_much_a_list_takes_what_it_needs() {
    let mm = boot(Setup::new().largest_order(Order::new(8).unwrap()));
    // 1 MiB is the largest block; a list of 700 KiB cannot double.
    let mut list = KVec::with_capacity_in(700 << 10, GFP_KERNEL, &mm).unwrap();
    list.resize(700 << 10, 1u8, GFP_KERNEL).unwrap();
    list.push(2, GFP_KERNEL).unwrap();
    assert_eq!(list.capacity(), (700 << 10) + 4096);
    list.resize(1 << 20, 3, GFP_KERNEL).unwrap();
    let full = list.push(4, GFP_KERNEL).unwrap_err();
    assert_eq!((full.value, list.len()), (4, 1 << 20));
    assert!(matches!(AllocError::from(full), AllocError::OrderTooLarge { order: 9, .. }));
}

#[test]
fn an_attempt_for_twice_as_much_is_nobodys_business() {
    let mm = boot(Setup::new().min_free_kbytes(0).pagesets(false));
    let mut list = KVec::with_capacity_in(1536 << 10, GFP_KERNEL, &mm).unwrap();
    list.resize(1536 << 10, 1u8, GFP_KERNEL).unwrap();
    // A block of 2 MiB is all there is: the list needs 1.5 and a page, and twice as much is 3.
    let block = mm.pages(GFP_KERNEL, 9).unwrap();
    let all: Vec<_> = (0..=10)
        .rev()
        .flat_map(|order| {
            std::iter::from_fn(|| mm.pages(GFP_ATOMIC | Gfp::NOWARN, order).ok())
                .collect::<Vec<_>>()
        })
        .collect();
    drop(block);
    mm.platform().take_lines();
    list.push(2, GFP_KERNEL).unwrap();
    assert_eq!(list.capacity(), (1536 << 10) + 4096);
    assert_eq!(mm.platform().take_lines(), [""; 0]);
    list.resize(list.capacity(), 2, GFP_KERNEL).unwrap();
    let full = list.push(3, GFP_KERNEL).unwrap_err();
    assert!(matches!(full.error, AllocError::NoMemory { .. }), "{full}");
    assert_ne!(mm.platform().take_lines(), [""; 0], "what was needed is");
    drop(all);
}

#[test]
fn sizes_beyond_all_bounds_are_errors() {
    let mm = boot(Setup::new());
    let mut list = KVec::new_in(&mm);
    list.push(5u64, GFP_KERNEL).unwrap();
    for more in [1 << 30, usize::MAX / 8, usize::MAX - 1, usize::MAX] {
        for error in [
            list.try_reserve(more, GFP_KERNEL).unwrap_err(),
            list.try_reserve_exact(more, GFP_KERNEL).unwrap_err(),
            KBox::<[u64], _>::new_zeroed_slice_in(more, GFP_KERNEL, &mm).unwrap_err(),
        ] {
            assert!(matches!(error, AllocError::OrderTooLarge { .. }), "{error}");
        }
    }
    assert_eq!(list, [5]);
    let mut nothings = KVec::new_in(&mm);
    nothings.push((), GFP_KERNEL).unwrap();
    assert!(nothings.try_reserve(usize::MAX, GFP_KERNEL).is_err());
    nothings.try_reserve(usize::MAX - 1, GFP_KERNEL).unwrap();
    assert_eq!((nothings.len(), nothings.pop(), nothings.pop()), (1, Some(()), None));
    nothings.shrink_to_fit(GFP_KERNEL);
    use std::ops::Bound::{Excluded, Included, Unbounded};
    for (start, end) in [
        (Included(0), Included(usize::MAX)),
        (Excluded(usize::MAX), Unbounded),
        (Included(1), Excluded(0)),
        (Included(2), Unbounded),
        (Unbounded, Excluded(2)),
    ] {
        assert!(list.drain((start, end)).is_none());
    }
    let error = list.insert(3, 1, GFP_KERNEL).unwrap_err();
    assert_eq!(error.to_string(), "no place 3 among 1 elements: insert at 1 at most");
    assert_eq!(list, [5]);
    assert_eq!(kinds(&mm), []);
}

#[test]
fn a_drain_that_is_forgotten_loses_values_and_nothing_else() {
    let mm = boot(Setup::new());
    let count = Cell::new(0);
    let mut list = KVec::new_in(&mm);
    list.try_extend((0..10).map(|number| Counted::new(&count, number)), GFP_KERNEL).unwrap();
    std::mem::forget(list.drain(3..5));
    assert_eq!(list.len(), 3);
    list.push(Counted::new(&count, 99), GFP_KERNEL).unwrap();
    assert_eq!(list.iter().map(|value| value.1).collect::<Vec<_>>(), [0, 1, 2, 99]);
    drop(list);
    assert_eq!(count.get(), 7, "those that the drain had or would have put back");
}

#[test]
fn a_panic_while_values_are_chosen_drops_nothing_twice() {
    let mm = boot(Setup::new());
    let count = Cell::new(0);
    let mut list = KVec::new_in(&mm);
    list.try_extend((0..10).map(|number| Counted::new(&count, number)), GFP_KERNEL).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        list.retain(|value| if value.1 == 5 { panic!("chosen") } else { value.1 % 2 == 0 });
    }));
    assert!(panicked.is_err());
    assert_eq!(list.len(), 0);
    drop(list);
    assert!((0..10).contains(&count.get()));
    assert_eq!(kinds(&mm), []);
}

/// A value whose drop counts, and panics where it is told to.
struct Touchy<'c> {
    drops: &'c Cell<u32>,
    panics: bool,
}

impl Drop for Touchy<'_> {
    fn drop(&mut self) {
        self.drops.set(self.drops.get() + 1);
        if self.panics {
            panic!("dropped");
        }
    }
}

#[test]
fn a_panic_of_a_values_drop_drops_nothing_twice() {
    let mm = boot(Setup::new());
    let drops = [const { Cell::new(0) }; 8];
    let mut list = KVec::new_in(&mm);
    let values = drops.iter().enumerate();
    let values = values.map(|(number, drops)| Touchy { drops, panics: number == 5 });
    list.try_extend(values, GFP_KERNEL).unwrap();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| list.truncate(3)));
    assert!(panicked.is_err());
    assert_eq!(list.len(), 3, "what was to go is the list's no more");
    drop(list);
    assert_eq!(drops.each_ref().map(Cell::get), [1; 8]);
    mm.shrink_caches();
    assert_eq!(kinds(&mm), []);
}
