//! The texts' calls under their names and with their results, and a kernel's own types, over a manager
//! in a static.

mod common;

use std::collections::HashSet;
use std::ptr::null_mut;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};

use common::{CPU, Machine, Rig};
use kmem::dma::{Direction, DmaDevice, DmaMask};
use kmem::platform::MisuseKind;
use kmem::slab::CtorFlags;
use kmem::*;

mod mm {
    pub static MM: std::sync::LazyLock<super::Machine> = std::sync::LazyLock::new(super::boot);
    kmem::texts_names!(MM);
    // A `LazyLock` leads to one value.
    kmem::kernel_types!(unsafe MM: super::Machine);
}

fn boot() -> Machine {
    let mm = Mm::new(Rig::new(16 << 20));
    // SAFETY: the RAM is this manager's alone.
    unsafe { mm.boot(&MemoryMap::new().ram(0..16 << 20, NodeId::ZERO), &Setup::new()) }.unwrap();
    mm
}

/// The machine has one CPU: a test at a time is it.
fn on_the_cpu() -> MutexGuard<'static, ()> {
    static CPU0: Mutex<()> = Mutex::new(());
    CPU.with(|cpu| cpu.number.set(0));
    CPU0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn kinds() -> Vec<MisuseKind> {
    mm::MM.platform().take_reports().into_iter().map(|report| report.kind).collect()
}

/// A065, A145, A146, A147, A149, A156
#[test]
fn kmalloc_answers_memory_or_null() {
    let _cpu = on_the_cpu();
    let memory = mm::kmalloc(100, GFP_KERNEL);
    assert!(!memory.is_null() && mm::ksize(memory) >= 100);
    // SAFETY: so many bytes were allocated.
    unsafe { memory.write_bytes(7, 100) };
    // SAFETY: it is the test's own.
    let memory = unsafe { mm::krealloc(memory, 5000, GFP_KERNEL) };
    // SAFETY: so many bytes were allocated, and a hundred written.
    assert!(unsafe { std::slice::from_raw_parts(memory, 100) }.iter().all(|byte| *byte == 7));
    // SAFETY: as above; there is no such memory.
    assert_eq!(unsafe { mm::krealloc(memory, usize::MAX, GFP_KERNEL) }, null_mut());
    let others = [
        mm::kzalloc(300, GFP_ATOMIC),
        mm::kcalloc(10, 30, GFP_KERNEL),
        mm::kmalloc_node(300, GFP_KERNEL, -1),
        mm::kmalloc_node(300, GFP_KERNEL, 0),
        mm::kmalloc(4 << 20, GFP_KERNEL),
    ];
    assert_eq!(others.iter().collect::<HashSet<_>>().len(), 5);
    for zeros in &others[..2] {
        // SAFETY: so many bytes of zeros.
        let zeros = unsafe { std::slice::from_raw_parts(*zeros, 300) };
        assert!(zeros.iter().all(|byte| *byte == 0));
    }
    for memory in others.into_iter().chain([memory]) {
        assert!(!memory.is_null());
        // SAFETY: it is the test's own.
        unsafe { mm::kfree(memory) };
    }
    assert_eq!(kinds(), []);
    // SAFETY: null is no memory, and nothing is done.
    unsafe { mm::kfree(std::ptr::null()) };
    assert_eq!(kinds(), []);
    let nulls = [
        mm::kmalloc(0, GFP_KERNEL),
        mm::kmalloc((4 << 20) + 1, GFP_KERNEL),
        mm::kzalloc(usize::MAX, GFP_KERNEL),
        mm::kcalloc(usize::MAX / 2, 3, GFP_KERNEL),
        mm::kmalloc_node(8, GFP_KERNEL, 5),
        mm::kmalloc_node(8, GFP_KERNEL, i32::MAX),
        mm::kmalloc(8, Gfp::NOFAIL),
    ];
    assert_eq!(nulls, [null_mut(); 7]);
    // SAFETY: wrong on purpose: it has been freed.
    unsafe { mm::kfree(memory) };
    assert_eq!(kinds().len(), 1);
}

static CONSTRUCTED: AtomicU32 = AtomicU32::new(0);

fn ctor(_: std::ptr::NonNull<u8>, _: CacheId, flags: CtorFlags) {
    assert!(flags.contains(CtorFlags::CONSTRUCTOR));
    CONSTRUCTED.fetch_add(1, SeqCst);
}

fn dtor(_: std::ptr::NonNull<u8>, _: CacheId, flags: CtorFlags) {
    assert!(!flags.contains(CtorFlags::CONSTRUCTOR));
    CONSTRUCTED.fetch_sub(1, SeqCst);
}

/// A187, A191, A206, A207, A208
#[test]
fn caches_are_made_used_and_destroyed_under_the_texts_names() {
    let _cpu = on_the_cpu();
    let flags = CacheFlags::HWCACHE_ALIGN;
    let dogs = mm::kmem_cache_create("dog", 40, 0, flags, Some(ctor), Some(dtor)).unwrap();
    let taken = mm::kmem_cache_create("dog", 40, 0, flags, None, None);
    assert_eq!(taken, None);
    assert_eq!(mm::kmem_cache_create("cat", 40, 0, flags, None, Some(dtor)), None);
    let held: Vec<*mut u8> = (0..300).map(|_| mm::kmem_cache_alloc(dogs, GFP_KERNEL)).collect();
    assert!(held.iter().all(|dog| !dog.is_null()));
    assert!(CONSTRUCTED.load(SeqCst) >= 300);
    // SAFETY: nobody else uses the cache.
    assert_ne!(unsafe { mm::kmem_cache_destroy(dogs) }, 0, "objects are in use");
    for dog in held {
        // SAFETY: it is the test's own.
        unsafe { mm::kmem_cache_free(dogs, dog) };
    }
    assert!(mm::kmem_cache_shrink(dogs) > 0);
    // SAFETY: nobody else uses the cache.
    assert_eq!(unsafe { mm::kmem_cache_destroy(dogs) }, 0);
    assert_eq!(CONSTRUCTED.load(SeqCst), 0);
    // SAFETY: as above.
    assert_ne!(unsafe { mm::kmem_cache_destroy(dogs) }, 0, "it is destroyed already");
    assert_eq!(kinds(), []);
    assert_eq!(mm::kmem_cache_alloc(dogs, GFP_KERNEL), null_mut());
    assert_eq!(kinds(), [MisuseKind::StaleCache]);
}

#[test]
fn a_kernels_own_types_need_no_handle() {
    let _cpu = on_the_cpu();
    let boxed = mm::KBox::new(5u64, GFP_KERNEL).unwrap();
    assert_eq!(size_of_val(&boxed), size_of::<usize>());
    assert_eq!(size_of::<mm::KVec<u8>>(), 3 * size_of::<usize>());
    let mut list: mm::KVec<mm::KBox<u64>> = mm::KVec::with_capacity(1, GFP_KERNEL).unwrap();
    list.push(boxed, GFP_KERNEL).unwrap();
    let slice: mm::KBox<[mm::KBox<u64>]> = list.into_boxed_slice();
    assert_eq!(*slice[0], 5);
    let zeros = mm::KBox::<[u8]>::new_zeroed_slice(9000, GFP_KERNEL).unwrap();
    assert_eq!(zeros.len(), 9000);
    let pinned = mm::KBox::pin([1, 2], GFP_KERNEL).unwrap();
    assert_eq!(pinned[1], 2);
    let mut text = mm::KString::from_str("scull", GFP_KERNEL).unwrap();
    text.write(GFP_KERNEL, format_args!("{}", 0)).unwrap();
    assert_eq!(text, "scull0");
    static CACHE: LazyLock<mm::Cache<[u8; 70]>> =
        LazyLock::new(|| mm::Cache::new("static", CacheOptions::new()).unwrap());
    let mut object = CACHE.alloc([1; 70], GFP_KERNEL).unwrap();
    object[69] = 2;
    assert_eq!(object.iter().map(|byte| u32::from(*byte)).sum::<u32>(), 71);
    assert_eq!(kinds(), []);
}

/// A228
#[test]
fn devices_are_given_memory_under_the_usual_names() {
    let _cpu = on_the_cpu();
    let device = DmaDevice::new("dev", DmaMask::ALL);
    let mut told = 0;
    let ring = mm::dma_alloc_coherent(&device, 100, &mut told, GFP_KERNEL);
    assert!(!ring.is_null() && told != 0);
    // SAFETY: so many bytes are the test's.
    assert!(unsafe { std::slice::from_raw_parts(ring, 100) }.iter().all(|byte| *byte == 0));
    let buffer = mm::kmalloc(64, GFP_KERNEL);
    let way = Direction::ToDevice;
    // SAFETY: the buffer stays, and no device is told of it.
    let address = unsafe { mm::dma_map_single(&device, buffer, 64, way) };
    assert!(!mm::dma_mapping_error(&device, address));
    // SAFETY: refused; taken back; given back; the test's own.
    unsafe {
        let none = mm::dma_map_single(&device, null_mut(), 64, way);
        assert!(mm::dma_mapping_error(&device, none));
        assert_eq!(kinds(), [MisuseKind::NotForDma]);
        mm::dma_unmap_single(&device, address, 63, way);
        assert_eq!(kinds(), [MisuseKind::GivenOtherwise]);
        mm::dma_unmap_single(&device, address, 64, way);
        mm::dma_unmap_page(&device, address, 64, way);
        assert_eq!(kinds(), [MisuseKind::NotGiven]);
        mm::dma_free_coherent(&device, 100, ring, told);
        mm::dma_free_coherent(&device, 100, null_mut(), told);
        mm::kfree(buffer);
        // This platform has no page tables.
        assert_eq!(mm::ioremap(1 << 40, 8), null_mut());
        mm::iounmap(null_mut());
    }
    assert_eq!(kinds(), []);
}
