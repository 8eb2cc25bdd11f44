//! The structures beside naive models.

use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::vec::Vec;

use super::kept::AT_HAND;
use super::{CpuStacks, Memory, RecordAt};
use crate::platform::{StackHarm, StackOwner};

const BYTES: usize = 4096;

#[repr(C, align(4096))]
struct Page([u8; BYTES]);

fn next(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 8) as usize
}

fn with(record: RecordAt, test: impl FnOnce(Memory, *mut u8)) {
    let mut page = std::boxed::Box::new(Page([0xcc; BYTES]));
    let base = NonNull::from(&mut *page).cast::<u8>();
    // SAFETY: the page is the test's, aligned, and lives until it has ended.
    test(unsafe { Memory::new(base, BYTES, record) }, base.as_ptr());
}

// A266
#[test]
fn the_parts_of_a_stack_are_where_the_drawing_has_them() {
    for record in [RecordAt::Base, RecordAt::Top] {
        with(record, |stack, base| {
            stack.prepare(StackOwner::new(7, "seven"), true, false);
            let top = stack.top().as_ptr().addr();
            assert!(top.is_multiple_of(16));
            let usable = top - stack.usable()..top;
            assert!(base.addr() < usable.start && usable.end <= base.addr() + BYTES);
            assert!(stack.usable() > BYTES - 64);
            // All of the free part may be written.
            for at in usable {
                // SAFETY: inside of the page.
                unsafe { base.add(at - base.addr()).write(0xee) };
            }
            assert_eq!(stack.harm(StackOwner::new(7, "seven")), None);
            assert_eq!(stack.most_used(), stack.usable());
        });
    }
}

// A266
#[test]
fn every_byte_outside_of_the_free_part_is_missed_when_it_changes() {
    let owner = StackOwner::new(3, "abcdefghijklmnop");
    for record in [RecordAt::Base, RecordAt::Top] {
        with(record, |stack, base| {
            stack.prepare(owner, false, false);
            let free = {
                let top = stack.top().as_ptr().addr() - base.addr();
                top - stack.usable()..top
            };
            let mut unnoticed = 0;
            for offset in (0..BYTES).filter(|offset| !free.contains(offset)) {
                // SAFETY: inside of the page.
                let byte = unsafe { &mut *base.add(offset) };
                *byte ^= 0x81;
                unnoticed += usize::from(stack.harm(owner).is_none());
                *byte ^= 0x81;
            }
            // The record is padded to a multiple of 16 bytes.
            assert_eq!(unnoticed, 32 - size_of::<usize>() - size_of::<StackOwner>());
            assert_eq!(stack.harm(owner), None);
        });
    }
}

// A266
#[test]
fn an_overflow_destroys_the_canary_first_and_thread_info_only_where_it_is_below() {
    let owner = StackOwner::new(1, "one");
    for (record, below) in [(RecordAt::Base, true), (RecordAt::Top, false)] {
        with(record, |stack, base| {
            stack.prepare(owner, false, false);
            let lowest = stack.top().as_ptr().addr() - stack.usable() - base.addr();
            let mut found = Vec::new();
            for offset in (0..lowest).rev() {
                // SAFETY: inside of the page.
                unsafe { base.add(offset).write(0) };
                if let Some(harm) = stack.harm(owner).filter(|harm| found.last() != Some(harm)) {
                    found.push(harm);
                }
            }
            let canary = StackHarm { canary: true, thread_info: false };
            let both = StackHarm { canary: true, thread_info: true };
            assert_eq!(found, if below { std::vec![canary, both] } else { std::vec![canary] });
            assert_eq!(stack.owner(), (!below).then_some(owner));
        });
    }
}

#[test]
fn the_most_that_was_used_is_what_a_model_says() {
    for run in 1..200u64 {
        let mut seed = run.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        std::println!("seed {run}");
        let record = if run % 2 == 0 { RecordAt::Base } else { RecordAt::Top };
        with(record, |stack, base| {
            let owner = StackOwner::new(run as u32, "model");
            stack.prepare(owner, true, false);
            assert_eq!(stack.most_used(), 0);
            let top = stack.top().as_ptr().addr() - base.addr();
            for _ in 0..10 {
                let mut most = 0;
                for _ in 0..next(&mut seed) % 8 {
                    let used = next(&mut seed) % stack.usable() + 1;
                    // SAFETY: inside of the free part.
                    unsafe { base.add(top - used).write(1) };
                    most = most.max(used.next_multiple_of(size_of::<usize>()));
                    assert_eq!(stack.most_used(), most);
                }
                // The next holder begins at nothing again.
                stack.prepare(owner, true, true);
                assert_eq!(stack.most_used(), 0);
            }
        });
    }
}

#[test]
fn a_copy_of_a_stack_is_none() {
    let owner = StackOwner::new(1, "one");
    with(RecordAt::Base, |stack, base| {
        stack.prepare(owner, true, false);
        with(RecordAt::Base, |copy, to| {
            // SAFETY: two pages.
            unsafe { to.copy_from_nonoverlapping(base, BYTES) };
            assert_eq!(copy.harm(owner), Some(StackHarm { canary: true, thread_info: true }));
        });
    });
}

#[test]
fn kept_stacks_are_handed_out_once_as_in_a_model() {
    for run in 1..100u64 {
        let mut seed = run.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        std::println!("seed {run}");
        let kept = CpuStacks::new();
        let mut model = BTreeSet::new();
        for step in 1..500usize {
            let stack = NonNull::new(core::ptr::without_provenance_mut::<u8>(step << 12)).unwrap();
            if next(&mut seed).is_multiple_of(2) {
                let has_room = model.len() < AT_HAND;
                assert_eq!(kept.put(stack), if has_room { Ok(()) } else { Err(stack) });
                if has_room {
                    model.insert(stack);
                }
            } else {
                match kept.take() {
                    Some(stack) => assert!(model.remove(&stack)),
                    None => assert!(model.is_empty()),
                }
            }
            assert_eq!(kept.count(), model.len());
        }
    }
}

#[test]
fn no_kept_stack_is_handed_out_twice_when_cpus_take_each_others() {
    const CPUS: usize = 4;
    const EACH: usize = 20_000;
    let (kept, start) = ([const { CpuStacks::new() }; CPUS], std::sync::Barrier::new(CPUS));
    let held: Vec<usize> = std::thread::scope(|scope| {
        let work = |own: usize| {
            let (kept, start) = (&kept, &start);
            move || {
                let mut held = std::vec![own + 1];
                let mut seed = own as u64 + 1;
                start.wait();
                for _ in 0..EACH {
                    let kept = &kept[next(&mut seed) % CPUS];
                    if let Some(stack) = held.pop() {
                        let stack = core::ptr::without_provenance_mut::<u8>(stack << 12);
                        let stack = NonNull::new(stack).unwrap();
                        held.extend(kept.put(stack).err().map(|s| s.as_ptr().addr() >> 12));
                    }
                    held.extend(kept.take().map(|stack| stack.as_ptr().addr() >> 12));
                }
                held
            }
        };
        let threads: Vec<_> = (0..CPUS).map(|own| scope.spawn(work(own))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let left = kept.iter().flat_map(|kept| std::iter::from_fn(|| kept.take()));
    let mut all: Vec<usize> = left.map(|stack| stack.as_ptr().addr() >> 12).chain(held).collect();
    all.sort_unstable();
    assert_eq!(all, (1..=CPUS).collect::<Vec<_>>());
}

// A263
#[test]
fn of_two_interrupt_stacks_the_first_stays() {
    let stacks = CpuStacks::new();
    let [one, two] = [1usize, 2]
        .map(|page| NonNull::new(core::ptr::without_provenance_mut::<u8>(page << 12)).unwrap());
    assert_eq!((stacks.interrupt(), stacks.take_interrupt()), (None, None));
    assert_eq!((stacks.set_interrupt(one), stacks.set_interrupt(two)), (Ok(()), Err(one)));
    assert_eq!((stacks.interrupt(), stacks.count()), (Some(one), 0));
    assert_eq!((stacks.take_interrupt(), stacks.interrupt()), (Some(one), None));
}
