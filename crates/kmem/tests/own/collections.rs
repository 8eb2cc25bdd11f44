//! Other crates' collections over kmalloc.

use std::alloc::Layout;

use allocator_api2::alloc::Allocator;
use allocator_api2::vec::Vec as ApiVec;
use hashbrown::HashMap;

use super::common::Rng;
use super::{machines, settled};
use kmem::*;

#[test]
fn collections_live_in_kmallocs_memory() {
    for mm in machines() {
        let before = settled(&mm);
        let kmalloc = Kmalloc::new_in(GFP_KERNEL, &mm);
        let mut rng = Rng::new();
        let mut map = HashMap::new_in(kmalloc);
        let mut model = std::collections::HashMap::new();
        for step in 0..5000u64 {
            let key = rng.below(700);
            if rng.percent(60) {
                map.try_reserve(1).unwrap();
                let mut list = ApiVec::new_in(kmalloc);
                list.extend(0..key as u32);
                let boxed = allocator_api2::boxed::Box::new_in(step, kmalloc);
                map.insert(key, (list, boxed));
                model.insert(key, step);
            } else {
                let removed = map.remove(&key).map(|(list, step)| (list.len() as u64, *step));
                assert_eq!(removed, model.remove(&key).map(|step| (key, step)));
            }
        }
        map.shrink_to_fit();
        assert_eq!(map.len(), model.len());
        assert!(mm.free_page_count() < before[0].1, "it is there that they live");
        drop(map);
        assert_eq!(settled(&mm), before);
    }
}

/// Every call of the trait, over random layouts: contents and alignment.
#[test]
fn an_allocator_keeps_contents_and_alignment() {
    for mm in machines() {
        let before = settled(&mm);
        let kmalloc = Kmalloc::new_in(GFP_KERNEL | Gfp::NOWARN, &mm);
        let mut rng = Rng::new();
        let layout = |rng: &mut Rng| {
            let most = if rng.percent(80) { 600 } else { 40_000 };
            let size = rng.below(most) as usize;
            Layout::from_size_align(size, 1 << rng.below(10)).unwrap()
        };
        for _ in 0..3000 {
            let mut old = layout(&mut rng);
            let zeroed = rng.percent(30);
            let memory = if zeroed { kmalloc.allocate_zeroed(old) } else { kmalloc.allocate(old) };
            let mut memory = memory.unwrap().cast::<u8>();
            let fill = if zeroed { 0 } else { rng.next() as u8 };
            if !zeroed {
                // SAFETY: so many bytes were allocated.
                unsafe { memory.write_bytes(fill, old.size()) };
            }
            for _ in 0..rng.below(5) {
                let new = layout(&mut rng);
                let grows = new.size() >= old.size();
                // SAFETY: it is allocated with `old`, and the sizes are as each call wants it.
                let moved = unsafe {
                    match (grows, fill) {
                        (true, 0) => kmalloc.grow_zeroed(memory, old, new),
                        (true, _) => kmalloc.grow(memory, old, new),
                        (false, _) => kmalloc.shrink(memory, old, new),
                    }
                };
                memory = moved.unwrap().cast();
                assert!(memory.addr().get().is_multiple_of(new.align()));
                let kept = if grows && fill != 0 { old.size() } else { new.size() };
                // SAFETY: so many bytes are there, and were written.
                let bytes = unsafe { std::slice::from_raw_parts(memory.as_ptr(), kept) };
                assert!(bytes.iter().all(|byte| *byte == fill), "contents changed");
                // SAFETY: so many bytes are there.
                unsafe { memory.write_bytes(fill, new.size()) };
                old = new;
            }
            // SAFETY: it is the test's, and allocated with this layout.
            unsafe { kmalloc.deallocate(memory, old) };
        }
        assert_eq!(settled(&mm), before);
    }
}
