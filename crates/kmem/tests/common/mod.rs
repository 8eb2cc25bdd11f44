//! What the tests of the whole manager share: a platform that records and interrupts.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

mod mapped;
mod rig;
mod rng;

use kmem::{Mm, Order, Page, Platform, Reclaim};

pub use mapped::{MapRig, WINDOW};
pub use rig::{CPU, Point, Report, Rig, Scope};
pub use rng::Rng;

/// A machine on a [`Rig`].
pub type Machine<R = kmem::NoReclaim, const SHIFT: u32 = 12, const TRACE: bool = false> =
    Mm<Rig<SHIFT, TRACE>, R>;

/// Does something as another CPU.
pub fn as_cpu<T>(number: u32, work: impl FnOnce() -> T) -> T {
    let before = CPU.with(|cpu| cpu.number.replace(number));
    let result = work();
    CPU.with(|cpu| cpu.number.set(before));
    result
}

/// How many free blocks each zone has of each order, and how many free pages.
pub fn lists<P: Platform, R: Reclaim>(mm: &Mm<P, R>) -> Vec<([u64; Order::COUNT], u64)> {
    let zones = mm.zones().iter();
    zones
        .map(|zone| {
            let blocks = |order| mm.free_blocks(zone, Order::new(order as u32).unwrap());
            (std::array::from_fn(blocks), zone.free_pages())
        })
        .collect()
}

/// Drains all lists, verifies everything, and answers the free lists.
#[track_caller]
pub fn settle<P: Platform, R: Reclaim>(mm: &Mm<P, R>) -> Vec<([u64; Order::COUNT], u64)> {
    mm.drain_all_pages();
    if let Err(corruption) = mm.verify() {
        panic!("{corruption}");
    }
    assert_eq!(mm.listed_pages(), 0, "pages are left on a cpu's lists");
    lists(mm)
}

/// Frees a block.
pub fn free<P: Platform, R: Reclaim>(mm: &Mm<P, R>, page: Page, order: u32) {
    // SAFETY: the tests free what they hold, or mean the wrong call and look at no memory after it.
    unsafe { mm.__free_pages(page, order) }
}

/// The frames of a block, as numbers.
pub fn frames(page: Page, order: u32) -> std::ops::Range<u64> {
    let first = page.pfn().number();
    first..first + (1 << order)
}
