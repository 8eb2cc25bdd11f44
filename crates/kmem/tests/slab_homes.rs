//! Machines with a node that has CPUs and no RAM.

mod common;

use std::ptr::NonNull;

use common::{Machine, Rig, Rng, as_cpu, settle};
use kmem::*;

const MIB: u64 = 1 << 20;
const NODES: u32 = 3;

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

/// A CPU on each of three nodes, of which one has no RAM.
fn machine(empty: u32) -> Machine {
    let mm = Mm::new(Rig::new(48 << 20));
    let with_ram: Vec<u32> = (0..NODES).filter(|node| *node != empty).collect();
    let map = MemoryMap::new()
        .ram(0..24 * MIB, node(with_ram[0]))
        .ram(24 * MIB..48 * MIB, node(with_ram[1]));
    let setup = (0..NODES).fold(Setup::new().cpus(NODES), |setup, number| {
        setup.cpu_node(CpuId::new(number).unwrap(), node(number))
    });
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup) }.unwrap();
    mm
}

/// Its CPUs use the RAM of the nearest node as their own: pages and objects, taken by one CPU and freed by
/// another, are all had back when the CPUs go.
///
/// A044, A088, A175
#[test]
fn cpus_of_a_node_without_ram_use_the_nearest() {
    for empty in 0..NODES {
        let mut rng = Rng::new();
        let mm = machine(empty);
        let before = settle(&mm);
        (1..NODES).for_each(|cpu| mm.cpu_online(CpuId::new(cpu).unwrap()).unwrap());
        let none = Err(AllocError::NoSuchNode(node(empty)));
        assert_eq!(mm.kmalloc_node(100, GFP_KERNEL, Some(node(empty))), none);

        let id = mm.kmem_cache_create("dogs", 200, 0, CacheFlags::NONE, None, None).unwrap();
        let mut held: Vec<(NonNull<u8>, Option<CacheId>)> = Vec::new();
        for step in 0..6000 {
            as_cpu(rng.below(u64::from(NODES)) as u32, || {
                if rng.below(5) < if step < 3000 { 3 } else { 2 } {
                    let cache = (rng.below(2) == 0).then_some(id);
                    let object = match cache {
                        Some(id) => mm.kmem_cache_alloc(id, GFP_KERNEL),
                        None => mm.kmalloc(1 << rng.below(13), GFP_KERNEL),
                    };
                    held.push((object.unwrap(), cache));
                } else if !held.is_empty() {
                    let (object, cache) = held.swap_remove(rng.below(held.len() as u64) as usize);
                    // SAFETY: it is held, and nothing uses it.
                    unsafe {
                        match cache {
                            Some(id) => mm.kmem_cache_free(id, object.as_ptr()),
                            None => mm.kfree(object.as_ptr()),
                        }
                    }
                }
            });
        }
        for (object, cache) in held {
            as_cpu(rng.below(u64::from(NODES)) as u32, || {
                // SAFETY: as above.
                unsafe {
                    match cache {
                        Some(id) => mm.kmem_cache_free(id, object.as_ptr()),
                        None => mm.kfree(object.as_ptr()),
                    }
                }
            });
        }
        // SAFETY: all of its objects are free, and nobody uses it.
        unsafe { mm.kmem_cache_destroy(id) }.unwrap();
        for cpu in 0..NODES {
            // SAFETY: no CPU does anything meanwhile.
            unsafe { mm.cpu_offline(CpuId::new(cpu).unwrap()) }.unwrap();
        }
        while mm.shrink_caches() > 0 {}
        assert_eq!(settle(&mm), before, "node {empty} has no ram");
        assert_eq!(mm.platform().take_reports(), []);
    }
}
