//! Collections of the `alloc` crate, through the adaptor for the global allocator.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cases::{Failure, Machine as _, check, equal};
use kmem::CpuId;

use crate::heap::HEAP;
use crate::machine::Machine;
use crate::{smp, task};

/// How often it is looked at, and how long the others are let work in between.
const LOOKS: u32 = 50;
const PAUSE_NANOSECONDS: u64 = 2_000_000;

pub(super) fn live(machine: &Machine) -> Result<(), Failure> {
    let fine = AtomicU64::new(0);
    machine.concurrently(&|cpu| {
        if (0..20).all(|round| round_trip(cpu, round)) {
            fine.fetch_add(1, Relaxed);
        }
    });
    let cpus = smp::online().count() as u64;
    equal(fine.load(Relaxed), cpus, "on so many CPUs all that was put in is there")?;
    // The idle loops of the other CPUs give the stacks of the tasks back at this moment, and what is looked
    // at while it changes looks unsound. What is unsound stays so.
    let is_sound = (0..LOOKS).any(|_| {
        let is_sound = HEAP.verify().is_ok();
        if !is_sound {
            task::sleep(PAUSE_NANOSECONDS);
        }
        is_sound
    });
    check(is_sound, "the heap is sound")
}

/// Fills collections, looks at what is in them and where that is, and drops them.
fn round_trip(cpu: CpuId, round: u64) -> bool {
    let seed = u64::from(cpu.get()) << 32 | round << 16;
    let numbers: Vec<u64> = (0..3000).map(|index| seed + index).collect();
    let mut names = BTreeMap::new();
    for number in numbers.iter().rev().step_by(3) {
        names.insert(*number, format!("number {number} of {cpu:?}"));
    }
    let boxed: Vec<Box<[u64; 40]>> =
        numbers.iter().step_by(100).map(|n| Box::new([*n; 40])).collect();
    let is_ours = |address: *const u64| {
        HEAP.virt_to_page(kmem::VirtAddr::from_ptr(address.cast_mut().cast::<u8>())).is_some()
    };
    let in_order = names.keys().zip(names.keys().skip(1)).all(|(one, next)| one < next);
    let named = |(number, name): (&u64, &String)| *name == format!("number {number} of {cpu:?}");
    numbers.iter().zip(0..).all(|(number, index)| *number == seed + index)
        && in_order
        && names.iter().all(named)
        && boxed.iter().zip(numbers.iter().step_by(100)).all(|(one, n)| **one == [*n; 40])
        && is_ours(numbers.as_ptr())
        && boxed.iter().all(|one| is_ours(one.as_ptr()))
}
