//! The areas in lock step with a naive model, and a million of them.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

use super::areas::{Area, Areas, Place, Request};
use super::tree::Node;

const PAGE: usize = 16;

fn next(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed as usize
}

/// Memory for an area, which [`give_back`] takes.
fn place<T>() -> Place<T> {
    let place = Box::leak(Box::<Node<Area<T>>>::new_uninit());
    core::ptr::NonNull::from(place).cast()
}

/// # Safety
///
/// It came from [`place`], and no area is in it.
unsafe fn give_back<T>(place: Place<T>) {
    // SAFETY: the caller's promise; a place that is not in use has nothing to drop.
    drop(unsafe { Box::from_raw(place.as_ptr().cast::<core::mem::MaybeUninit<Node<Area<T>>>>()) });
}

/// Where the lowest room is, tried area by area.
fn lowest(
    used: &BTreeMap<usize, usize>,
    range: &core::ops::Range<usize>,
    wanted: Request,
) -> Option<usize> {
    let mut at = range.start;
    for (start, size) in used.iter().map(|(start, size)| (*start, *size)).chain([(range.end, 0)]) {
        let aligned = at.next_multiple_of(wanted.align);
        if aligned + wanted.size <= start {
            return Some(aligned);
        }
        at = start + size;
    }
    None
}

#[test]
// A220, A226
fn areas_are_found_as_a_search_one_by_one_finds_them() {
    for run in 1..60u64 {
        let mut seed = run.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        std::println!("seed {run}");
        let range = 0x1000..0x1000 + 200 * PAGE;
        let mut areas = Areas::<usize>::new(range.clone());
        let mut used = BTreeMap::new();
        for step in 0..3000 {
            if next(&mut seed) % 5 < 3 {
                let size = PAGE * (1 + next(&mut seed) % 12);
                let request = Request { size, align: PAGE << (next(&mut seed) % 5) };
                let memory = place();
                // SAFETY: it is given back when the area is.
                let got = unsafe { areas.alloc(request, memory, step) };
                let model = lowest(&used, &range, request);
                match got {
                    Ok(start) if request.align == PAGE => assert_eq!(Some(start), model),
                    // Of gaps that fit only as they lie, few are tried before a larger one is taken.
                    Ok(start) => {
                        assert!(start.is_multiple_of(request.align) && model.is_some());
                        assert!(range.start <= start && start + size <= range.end);
                        let below = used.range(..start + size).next_back();
                        assert!(below.is_none_or(|(at, size)| at + size <= start));
                    }
                    Err(data) => {
                        assert_eq!((data, model), (step, None));
                        // SAFETY: no area was made.
                        unsafe { give_back(memory) };
                    }
                }
                if let Ok(start) = got {
                    used.insert(start, size);
                }
            } else if let Some(start) =
                used.keys().nth(next(&mut seed) % used.len().max(1)).copied()
            {
                let (area, memory) = areas.free(start).unwrap();
                assert_eq!(area.range(), start..start + used.remove(&start).unwrap());
                // SAFETY: the area is gone.
                unsafe { give_back(memory) };
            }
            let address = range.start + next(&mut seed) % (range.end - range.start);
            let found = areas.find_area(address).map(Area::range);
            let model =
                used.range(..=address).next_back().map(|(start, size)| *start..start + size);
            assert_eq!(found, model.filter(|area| area.contains(&address)));
            let above = areas.at_or_above(address).map(|area| area.range().start);
            assert_eq!(above, used.range(address..).next().map(|(start, _)| *start));
            assert_eq!(areas.len(), used.len());
        }
        for start in used.into_keys().collect::<Vec<_>>() {
            let (_, memory) = areas.free(start).unwrap();
            // SAFETY: the area is gone.
            unsafe { give_back(memory) };
        }
        // All of it is one gap again.
        let memory = place();
        let whole = Request { size: range.end - range.start, align: PAGE };
        // SAFETY: it is given back below.
        assert_eq!(unsafe { areas.alloc(whole, memory, 0) }.ok(), Some(range.start));
        assert!(areas.free(range.start).is_some());
        // SAFETY: the area is gone.
        unsafe { give_back(memory) };
    }
}

#[test]
fn among_a_million_areas_a_search_looks_at_few() {
    const COUNT: usize = 1_000_000;
    let mut areas = Areas::<()>::new(PAGE..PAGE << 40);
    let mut nodes: Vec<core::mem::MaybeUninit<Node<Area<()>>>> = Vec::with_capacity(COUNT);
    for _ in 0..COUNT {
        nodes.push(core::mem::MaybeUninit::uninit());
    }
    for node in &mut nodes {
        let request = Request { size: 2 * PAGE, align: PAGE };
        // SAFETY: the nodes live as long as the areas.
        unsafe { areas.alloc(request, core::ptr::NonNull::from(node).cast(), ()) }.unwrap();
    }
    // An AVL tree of so many nodes has at most 1.44 times the logarithm of levels.
    assert!(areas.levels() <= 29, "{} levels", areas.levels());
    // Every third one goes: a gap of two pages fits there, one of three behind the last only.
    for index in (0..COUNT).step_by(3) {
        assert!(areas.free(PAGE + index * 2 * PAGE).is_some());
    }
    let mut more = [const { core::mem::MaybeUninit::<Node<Area<()>>>::uninit() }; 2];
    let [small, large] = &mut more;
    // SAFETY: as above.
    unsafe {
        let small = core::ptr::NonNull::from(small).cast();
        let start = areas.alloc(Request { size: PAGE, align: PAGE }, small, ());
        assert_eq!(start, Ok(PAGE));
        let large = core::ptr::NonNull::from(large).cast();
        let start = areas.alloc(Request { size: 3 * PAGE, align: PAGE }, large, ());
        // The last of a million is the one with an index that three divides.
        assert_eq!(start, Ok(PAGE + (COUNT - 1) * 2 * PAGE));
    }
    assert!(areas.levels() <= 29);
}
