//! Boxes, and memory with an alignment.

use std::alloc::Layout;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::ptr::NonNull;

use super::common::{Rig, Rng};
use super::{Counted, Machine, boot, kinds, machines, odd_sizes, settled};
use kmem::*;

/// A149
#[test]
fn memory_has_the_alignment_that_was_asked_for_whatever_the_sizes() {
    for mm in machines() {
        let before = settled(&mm);
        let mut rng = Rng::new();
        let mut held: BTreeMap<usize, (NonNull<u8>, usize, u8)> = BTreeMap::new();
        for step in 0..20_000u32 {
            if rng.percent(55) && held.len() < 300 {
                let align = 1 << rng.below(17);
                let most = if rng.percent(90) { 1500 } else { 70_000 };
                let size = 1 + rng.below(most) as usize;
                // As Rust's own types have it, and as they never do.
                let size = if rng.percent(50) { size.next_multiple_of(align) } else { size };
                let layout = Layout::from_size_align(size, align).unwrap();
                let gfp = GFP_KERNEL | Gfp::NOWARN;
                let Ok(memory) = mm.kmalloc_layout(layout, gfp) else { continue };
                assert!(memory.addr().get().is_multiple_of(align), "{layout:?} at {memory:p}");
                assert!(mm.ksize(memory.as_ptr()) >= size);
                // SAFETY: so many bytes were allocated.
                unsafe { memory.write_bytes(step as u8, size) };
                held.insert(memory.addr().get(), (memory, size, step as u8));
            } else if !held.is_empty() {
                let at = rng.below(held.len() as u64) as usize;
                let address = *held.keys().nth(at).unwrap();
                let (memory, size, fill) = held.remove(&address).unwrap();
                // SAFETY: it is held, with so many bytes.
                let bytes = unsafe { std::slice::from_raw_parts(memory.as_ptr(), size) };
                assert!(bytes.iter().all(|byte| *byte == fill), "contents changed");
                // SAFETY: it is the test's own.
                unsafe { mm.kfree(memory.as_ptr()) };
            }
        }
        for (memory, ..) in held.into_values() {
            // SAFETY: it is the test's own.
            unsafe { mm.kfree(memory.as_ptr()) };
        }
        assert_eq!(settled(&mm), before);
    }
}

#[test]
fn an_alignment_that_the_direct_map_does_not_have_is_refused() {
    let mm = boot(Setup::new());
    // The test's RAM lies at a multiple of 64 KiB, and rarely at one of 4 MiB.
    for shift in 17..=22 {
        let layout = Layout::from_size_align(1, 1 << shift).unwrap();
        match mm.kmalloc_layout(layout, GFP_KERNEL) {
            Ok(memory) => {
                assert!(memory.addr().get().is_multiple_of(1 << shift));
                // SAFETY: it is the test's own.
                unsafe { mm.kfree(memory.as_ptr()) };
            }
            Err(error) => assert!(matches!(error, AllocError::NoMemory { .. }), "{error}"),
        }
    }
    for shift in 23..usize::BITS - 1 {
        let layout = Layout::from_size_align(1, 1 << shift).unwrap();
        let error = mm.kmalloc_layout(layout, GFP_KERNEL).unwrap_err();
        assert!(matches!(error, AllocError::OrderTooLarge { .. }), "{error}");
    }
    let empty = mm.kmalloc_layout(Layout::new::<()>(), GFP_KERNEL);
    assert_eq!(empty, Err(AllocError::ZeroSize));
    assert_eq!(kinds(&mm), []);
}

#[test]
fn a_box_has_its_value_and_drops_it_once() {
    for mm in machines() {
        let (before, count) = (settled(&mm), Cell::new(0));
        let one = KBox::new_in(Counted::new(&count, 1), GFP_KERNEL, &mm).unwrap();
        let mut other = one.try_clone(GFP_KERNEL).unwrap();
        assert_eq!((&one, count.get()), (&other, 2));
        other.1 = 2;
        assert_ne!(one, other);
        assert_eq!(KBox::into_inner(other).1, 2);
        assert_eq!(count.get(), 1);
        let (pointer, handle) = KBox::into_raw(one);
        // SAFETY: the box gave it up.
        let again = unsafe { KBox::from_raw(pointer, handle) };
        let named: &Machine = KBox::handle(&again);
        assert!(std::ptr::eq(named, &mm));
        drop(again);
        assert_eq!(count.get(), 0);
        assert_eq!(settled(&mm), before);
    }
}

#[test]
fn values_without_bytes_take_no_memory_and_are_dropped() {
    thread_local!(static DROPPED: Cell<u32> = const { Cell::new(0) });
    #[derive(Clone)]
    struct Nothing;
    impl Drop for Nothing {
        fn drop(&mut self) {
            DROPPED.set(DROPPED.get() + 1);
        }
    }
    // Not even booted.
    let mm: Mm<Rig> = Mm::new(Rig::new(1 << 16));
    drop(KBox::new_in(Nothing, GFP_KERNEL, &mm).unwrap());
    assert_eq!(DROPPED.get(), 1);
    drop(KBox::from_slice_in(&[Nothing, Nothing], GFP_KERNEL, &mm).unwrap());
    assert_eq!(DROPPED.get(), 5);
    let none = KBox::<[u64], _>::new_zeroed_slice_in(0, GFP_KERNEL, &mm).unwrap();
    assert_eq!(*none, []);
    assert_eq!(KBox::new_in(1u8, GFP_KERNEL, &mm).unwrap_err(), AllocError::NotBooted);
    assert_eq!(kinds(&mm), []);
}

#[test]
fn over_aligned_values_lie_where_they_must() {
    #[derive(Clone, Debug, PartialEq)]
    #[repr(align(256))]
    struct Wide([u8; 300]);
    for mm in machines() {
        let before = settled(&mm);
        let boxes: Vec<_> = (0..50)
            .map(|number| KBox::new_in(Wide([number; 300]), GFP_KERNEL, &mm).unwrap())
            .collect();
        let mut list = KVec::new_in(&mm);
        for (number, wide) in boxes.iter().enumerate() {
            assert!(std::ptr::from_ref(&**wide).addr().is_multiple_of(256));
            assert_eq!(**wide, Wide([number as u8; 300]));
            list.push(KBox::try_clone(wide, GFP_KERNEL).unwrap(), GFP_KERNEL).unwrap();
            list.push(KBox::new_in(Wide([0; 300]), GFP_KERNEL, &mm).unwrap(), GFP_KERNEL).unwrap();
        }
        let mut wides = KVec::new_in(&mm);
        wides.try_extend(list.into_iter().map(KBox::into_inner), GFP_KERNEL).unwrap();
        assert!(wides.as_ptr().addr().is_multiple_of(256));
        assert!(wides.iter().step_by(2).eq(boxes.iter().map(|wide| &**wide)));
        drop((boxes, wides));
        assert_eq!(settled(&mm), before);
    }
}

#[test]
fn zeroed_memory_is_a_value_of_zeros() {
    for mm in machines() {
        let before = settled(&mm);
        // What the last user left is not 0.
        let dirty: Vec<_> =
            (0..20).map(|_| KBox::new_in([0xa5u8; 4000], GFP_KERNEL, &mm).unwrap()).collect();
        drop(dirty);
        for _ in 0..20 {
            let page = KBox::<[u32; 1000], _>::new_zeroed_in(GFP_KERNEL, &mm).unwrap();
            assert_eq!(*page, [0; 1000]);
            let words = KBox::<[Option<NonNull<u8>>], _>::new_zeroed_slice_in(500, GFP_KERNEL, &mm);
            assert!(words.unwrap().iter().all(|word| word.is_none()));
        }
        assert_eq!(settled(&mm), before);
    }
}

#[test]
fn memory_first_and_the_value_later() {
    let mm = boot(Setup::new().kmalloc_sizes(odd_sizes()));
    let room = KBox::<MaybeUninit<_>, _>::new_uninit_in(GFP_KERNEL, &mm).unwrap();
    // SAFETY: it need not be initialised.
    let room = unsafe { room.assume_init() };
    let written: KBox<String, _> = KBox::write(room, "written".to_owned());
    assert_eq!(KBox::into_inner(written), "written");
    let mut rooms = KBox::<[u16], _>::new_uninit_slice_in(3, GFP_ATOMIC, &mm).unwrap();
    for (number, room) in rooms.iter_mut().enumerate() {
        room.write(number as u16);
    }
    // SAFETY: all have been written.
    assert_eq!(*unsafe { rooms.assume_init() }, [0, 1, 2]);
    let made = KBox::try_new_with_in(|| Ok::<_, AllocError>([7; 9]), GFP_KERNEL, &mm);
    assert_eq!(*made.unwrap(), [7; 9]);
    let refused = KBox::try_new_with_in(|| Err::<u8, _>(AllocError::NotAllocated), GFP_KERNEL, &mm);
    assert_eq!(refused, Err(AllocError::NotAllocated));
    assert_eq!(kinds(&mm), []);
}

#[test]
fn a_box_of_a_trait_object_frees_what_it_is() {
    let mm = boot(Setup::new().pagesets(false));
    let (before, count) = (settled(&mm), Cell::new(0));
    let (pointer, handle) =
        KBox::into_raw(KBox::new_in([Counted::new(&count, 5)], GFP_KERNEL, &mm).unwrap());
    let pointer: NonNull<dyn std::fmt::Debug> = pointer;
    // SAFETY: the box gave it up.
    let shown = unsafe { KBox::from_raw(pointer, handle) };
    assert!(format!("{shown:?}").contains('5'));
    drop(shown);
    assert_eq!(count.get(), 0);
    assert_eq!(settled(&mm), before);
}

#[test]
fn a_leaked_value_stays() {
    let mm = boot(Setup::new());
    let value = KBox::leak(KBox::new_in([1u64; 5], GFP_KERNEL, &mm).unwrap());
    value[4] = 2;
    let others: Vec<_> =
        (0..200).map(|_| KBox::new_in([9u64; 5], GFP_KERNEL, &mm).unwrap()).collect();
    assert_eq!(*value, [1, 1, 1, 1, 2]);
    drop(others);
    // SAFETY: nobody else has it.
    drop(unsafe { KBox::from_raw(NonNull::from(value), &mm) });
    assert_eq!(kinds(&mm), []);
}

#[test]
fn boxes_go_where_their_values_and_managers_may() {
    fn send_sync<T: Send + Sync>() {}
    fn send<T: Send>() {}
    send_sync::<KBox<u32, &Mm<Rig>>>();
    send_sync::<KVec<u32, &Mm<Rig>>>();
    send_sync::<KString<&Mm<Rig>>>();
    send_sync::<CacheBox<'_, u32, &Mm<Rig>>>();
    send_sync::<Cache<std::rc::Rc<u8>, &Mm<Rig>>>();
    send::<KBox<Cell<u32>, &Mm<Rig>>>();
    fn unpin<T: Unpin>() {}
    unpin::<KBox<std::marker::PhantomPinned, &Mm<Rig>>>();
    let mm: &'static Machine = Box::leak(Box::new(boot(Setup::new())));
    let pinned: Pin<KBox<_, _>> = KBox::pin_in([3; 4], GFP_KERNEL, mm).unwrap();
    assert_eq!(*pinned, [3; 4]);
}
