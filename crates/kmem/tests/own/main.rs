//! Values that own their memory.

mod boxes;
mod caches;
#[cfg(feature = "allocator-api2")]
mod collections;
#[path = "../common/mod.rs"]
mod common;
mod failure;
mod lists;
mod text;

use std::cell::Cell;

use common::{CPU, Machine, Rig, lists};
use kmem::boot::{Classes, SlabDebug};
use kmem::platform::MisuseKind;
use kmem::*;

const MIB: u64 = 1 << 20;

/// 16 MiB and a CPU, with a machine's sizes of kmalloc.
fn boot(setup: Setup) -> Machine {
    let mm = Mm::new(Rig::new(16 << 20));
    let map = MemoryMap::new().ram(0..16 * MIB, NodeId::ZERO);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup) }.unwrap();
    mm
}

/// The 2.0 kernels' sizes: none is a power of two.
fn odd_sizes() -> Classes {
    Classes::new(&[20, 52, 116, 244, 500, 1012, 2036, 4052, 8180, 16372]).unwrap()
}

/// Machines with every kind of sizes, and with every cache debugged: what lies around objects and in
/// free ones is checked. Without lists, so that what is free is free at once.
fn machines() -> impl Iterator<Item = Machine> {
    let sizes = [Classes::FINE, Classes::LINUX, Classes::TEXTS, odd_sizes()];
    let debugged = SlabDebug::parse("PZU").unwrap();
    let plain = sizes.clone().map(|sizes| Setup::new().kmalloc_sizes(sizes));
    let debugged = sizes.map(|sizes| Setup::new().kmalloc_sizes(sizes).slab_debug(debugged));
    plain.into_iter().chain(debugged).map(|setup| boot(setup.pagesets(false)))
}

/// All caches shrunk, everything verified and nothing reported: the free lists.
#[track_caller]
fn settled(mm: &Machine) -> Vec<([u64; Order::COUNT], u64)> {
    mm.shrink_caches();
    mm.verify().unwrap();
    assert_eq!(kinds(mm), []);
    lists(mm)
}

fn kinds(mm: &Machine) -> Vec<MisuseKind> {
    mm.platform().take_reports().into_iter().map(|report| report.kind).collect()
}

/// Runs `work` where sleeping is forbidden.
fn atomic<T>(mm: &Machine, work: impl FnOnce() -> T) -> T {
    use kmem::platform::Context;
    let saved = mm.platform().mask();
    let result = work();
    mm.platform().restore(saved);
    assert!(!CPU.with(|cpu| cpu.in_atomic()));
    result
}

/// A value that counts how many of its kind there are.
#[derive(Debug)]
struct Counted<'c>(&'c Cell<i64>, u64);

impl<'c> Counted<'c> {
    fn new(count: &'c Cell<i64>, number: u64) -> Self {
        count.set(count.get() + 1);
        Counted(count, number)
    }
}

impl Clone for Counted<'_> {
    fn clone(&self) -> Self {
        Counted::new(self.0, self.1)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        assert!(self.0.get() >= 0, "dropped twice");
    }
}

impl PartialEq for Counted<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}
