//! scullv: quanta that are contiguous as addresses only.

mod common;

use common::*;
use kmem::{CpuId, GFP_ATOMIC, Gfp};
use kmem_host::{Description, Machine};
use scull::{Areas, Mode, Pages};

/// A313: each quantum is an area of 2^order pages, given back with vfree.
#[test]
fn quanta_are_areas_of_the_order() {
    on_tiny(|mm| {
        for order in [0, 3, 4, 7] {
            let module = load::<Areas>(mm, order);
            let before = mm.vmalloc_info();
            let mut file = module.open(0, Mode::Write).unwrap();
            file.write_all(&vec![1; (PAGE << order) * 10]).unwrap();
            let now = mm.vmalloc_info();
            assert_eq!((now.areas - before.areas, now.used - before.used), (10, 10 << order));
            drop(file);
            module.open(0, Mode::Write).unwrap();
            mm.vm_unmap_aliases();
            assert_eq!(mm.vmalloc_info().used, before.used);
        }
    });
}

/// A314: on memory in which no block of 16 pages is free, scullv writes and scullp cannot.
#[test]
fn splintered_memory_is_as_good_as_any() {
    on_tiny(|mm| {
        let (areas, pages) = (load::<Areas>(mm, 4), load::<Pages>(mm, 4));
        let mut taken = Vec::new();
        while let Ok(page) = mm.alloc_page(GFP_ATOMIC | Gfp::MEMALLOC | Gfp::NOWARN) {
            taken.push(page);
        }
        taken.sort_by_key(|page| page.pfn());
        let (given, kept): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|page| page.pfn().number() % 2 == 0);
        give_back(mm, given);
        let data = pattern(1 << 20, 7);
        let refused = pages.open(0, Mode::Write).unwrap().write_all(&data);
        assert!(refused.is_err());
        areas.open(0, Mode::Write).unwrap().write_all(&data).unwrap();
        assert!(read_all(&areas, 0) == data);
        drop((areas, pages));
        give_back(mm, kept);
    });
}

/// A313, A317: the published driver holds 500 quanta of 64 KB and no more in a quantum set; what lies beyond is in
/// the next.
#[test]
fn a_file_of_40_mb_is_what_was_written() {
    let machine = Machine::<12>::boot(&Description::preset("default").unwrap()).unwrap();
    machine.run_on(CpuId::BOOT, || {
        let module = load::<Areas>(machine.mm(), 4);
        let data = pattern(40 << 20, 1);
        module.open(0, Mode::Write).unwrap().write_all(&data).unwrap();
        assert_eq!(module.size(0).unwrap(), 40 << 20);
        assert!(read_all(&module, 0) == data);
    });
    let shutdown = machine.shutdown();
    assert!(shutdown.is_clean(), "{shutdown}");
}
