//! scullc: quanta from a slab cache of its own.

mod common;

use common::*;
use kmem::{CacheError, CacheFlags, CacheInfo, GFP_KERNEL};
use scull::{Errno, Mode, Module, ScullError, SlabCache, Source};

fn cache(mm: &TestMm) -> Option<CacheInfo> {
    mm.caches().find(|cache| cache.name.as_str() == "scullc")
}

/// A304, A307
#[test]
fn the_cache_is_there_while_the_module_is() {
    on_tiny(|mm| {
        assert_eq!(cache(mm), None);
        let module = load::<SlabCache>(mm, 4000);
        let made = cache(mm).unwrap();
        assert_eq!((made.size, made.flags), (4000, CacheFlags::HWCACHE_ALIGN));
        // Lines of the processor's cache have 64 bytes.
        assert_eq!((made.stride, made.stride % 64), (4032, 0));
        // One cache for all devices: so many objects as there are quanta.
        for device in 0..4 {
            module.open(device, Mode::Write).unwrap().write_all(&[1; 10_000]).unwrap();
        }
        assert_eq!(cache(mm).unwrap().active, 4 * 3);
        drop(module.open(2, Mode::Write).unwrap());
        assert_eq!(cache(mm).unwrap().active, 3 * 3);
        drop(module);
        assert_eq!(cache(mm), None);
    });
}

/// A305
#[test]
fn the_quantum_is_set_at_load_time_alone() {
    on_tiny(|mm| {
        for quantum in [100, 4000, 30_000] {
            let module = load::<SlabCache>(mm, quantum);
            assert_eq!(cache(mm).unwrap().size as u64, quantum);
            let error = module.set_size(5000).unwrap_err();
            assert_eq!(error.errno(), Errno::Eacces);
            assert!(error.to_string().contains("quantum is set when scullc is loaded"), "{error}");
            assert_eq!(module.parameters().size, quantum);
            drop(module.open(0, Mode::Write).unwrap());
            let mut file = module.open(0, Mode::Write).unwrap();
            assert_eq!(file.write(&[1; 40_000]).unwrap() as u64, quantum);
        }
    });
}

/// A306
#[test]
fn without_its_cache_the_module_is_not_loaded() {
    on_tiny(|mm| {
        let load = |size| {
            let parameters = scull::Parameters { size, ..SlabCache::KIND.defaults };
            Module::<SlabCache, _, _>::load(mm, parameters).map(drop)
        };
        let taken = mm.kmem_cache_create("scullc", 8, 0, CacheFlags::NONE, None, None).unwrap();
        let error = load(4000).unwrap_err();
        assert!(matches!(error, ScullError::NoCache(CacheError::NameTaken(_))), "{error}");
        assert_eq!((error.errno(), error.errno().number()), (Errno::Enomem, 12));
        // SAFETY: nobody uses it.
        unsafe { mm.kmem_cache_destroy(taken) }.unwrap();
        // A slab does not hold everything that a block of pages does.
        let error = load(3 << 20).unwrap_err();
        assert!(matches!(error, ScullError::NoCache(CacheError::Size { .. })), "{error}");
        // All places for caches are taken.
        let mut others = Vec::new();
        let full = loop {
            let name = format!("other-{}", others.len());
            match mm.kmem_cache_create(&name, 8, 0, CacheFlags::NONE, None, None) {
                Ok(id) => others.push(id),
                Err(error) => break error,
            }
        };
        assert!(matches!(full, CacheError::TooMany(_)), "{full}");
        let error = load(4000).unwrap_err();
        assert_eq!(error.errno(), Errno::Enomem);
        for id in others {
            // SAFETY: nobody uses it.
            unsafe { mm.kmem_cache_destroy(id) }.unwrap();
        }
        load(4000).unwrap();
    });
}

/// A307: a table of devices that cannot be had takes the cache with it.
#[test]
fn a_load_that_fails_leaves_no_cache() {
    on_tiny(|mm| {
        let parameters = scull::Parameters { devices: 256, ..SlabCache::KIND.defaults };
        let pages = take_all(mm);
        let error = Module::<SlabCache, _, _>::load(mm, parameters).err().unwrap();
        assert!(matches!(error, ScullError::NoMemory(_)), "{error}");
        assert_eq!(cache(mm), None);
        give_back(mm, pages);
        Module::<SlabCache, _, _>::load(mm, parameters).map(drop).unwrap();
        mm.alloc_page(GFP_KERNEL).map(|page| give_back(mm, [page])).unwrap();
    });
}
