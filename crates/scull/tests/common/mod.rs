//! What the tests of all kinds of modules share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;

use kmem::{CpuId, GFP_KERNEL, Gfp, Mm, NoReclaim, Page};
use kmem_host::{Description, Host, Machine};
use scull::{Mode, Module, Parameters, Source};

pub const PAGE: usize = 4096;

pub type TestMm = Mm<Host<12>, NoReclaim>;
pub type Loaded<'m, S> = Module<'m, S, Host<12>, NoReclaim>;

/// Runs `work` as a task on a new machine, and fails if any page or object was lost.
pub fn on_tiny(work: impl FnOnce(&TestMm)) {
    let machine = boot();
    machine.run_on(CpuId::BOOT, || {
        let mm = machine.mm();
        warm(&machine);
        let before = settled(mm);
        work(mm);
        assert_eq!(settled(mm), before);
        mm.verify().unwrap();
    });
    assert_eq!(machine.misuses(), [""; 0]);
}

pub fn boot() -> Arc<Machine<12, NoReclaim>> {
    Machine::boot(&Description::preset("tiny").unwrap()).unwrap()
}

/// Every CPU uses every size of kmalloc once: what it keeps of them from then on is no loss.
pub fn warm(machine: &Machine<12, NoReclaim>) {
    let mm = machine.mm();
    for cpu in machine.online_cpus() {
        machine.run_on(cpu, || {
            for cache in mm.caches() {
                let memory = mm.kmalloc(cache.size, GFP_KERNEL).unwrap();
                // SAFETY: just allocated, and nothing uses it.
                unsafe { mm.kfree(memory.as_ptr()) };
            }
        });
    }
}

/// How many free blocks each zone has of each order, and how many objects of each cache are in use.
pub type Settled = (Vec<Vec<u64>>, Vec<(String, u64)>);

/// Unmaps what waits for that, shrinks all caches, drains all lists, and looks.
pub fn settled(mm: &TestMm) -> Settled {
    mm.vm_unmap_aliases();
    // A slab that goes gives its record back, which may have been the last of another slab.
    while mm.shrink_caches() > 0 {}
    mm.drain_all_pages();
    let orders = 0..=mm.largest_order().get();
    let zones = mm.zones().iter().map(|zone| {
        let orders = orders.clone().filter_map(kmem::Order::new);
        orders.map(|order| mm.free_blocks(zone, order)).collect()
    });
    let caches = mm.caches().map(|cache| (cache.name.to_string(), cache.active));
    (zones.collect(), caches.collect())
}

/// How many pages all slabs have.
pub fn slab_pages(mm: &TestMm) -> u64 {
    mm.caches().map(|cache| cache.slabs.slabs() << cache.order.get()).sum()
}

/// Loads a module with a size of quanta, in bytes or as an order.
pub fn load<S: Source>(mm: &TestMm, size: u64) -> Loaded<'_, S> {
    Module::load(mm, Parameters { size, ..S::KIND.defaults }).unwrap()
}

/// Bytes that no page repeats.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut x = seed;
    let next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub fn read_all<S: Source>(module: &Loaded<'_, S>, device: u64) -> Vec<u8> {
    let mut file = module.open(device, Mode::Read).unwrap();
    let (mut all, mut buffer) = (Vec::new(), [0; 1000]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return all,
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Takes pages until there are none left for `GFP_KERNEL`.
pub fn take_all(mm: &TestMm) -> Vec<Page> {
    mm.shrink_caches();
    std::iter::from_fn(|| mm.alloc_page(GFP_KERNEL | Gfp::NOWARN).ok()).collect()
}

pub fn give_back(mm: &TestMm, pages: impl IntoIterator<Item = Page>) {
    for page in pages {
        // SAFETY: the pages came from `take_all`, and nothing uses them.
        unsafe { mm.__free_page(page) };
    }
}

/// Writes to all of the memory that is free, so that what is handed out next is not clear by chance.
pub fn soil(mm: &TestMm) {
    let pages = take_all(mm);
    for page in &pages {
        let address = mm.page_address(*page).unwrap();
        // SAFETY: the page is this test's.
        unsafe { address.as_ptr::<u8>().write_bytes(0xff, PAGE) };
    }
    give_back(mm, pages);
}
