//! Caches and kmalloc.

mod common;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ptr::NonNull;

use common::{CPU, Machine, Rig, Rng, as_cpu, lists};
use kmem::boot::Classes;
use kmem::gfp::GfpError;
use kmem::platform::{Context, DirectMap, MisuseKind, There};
use kmem::slab::CtorFlags;
use kmem::*;

const MIB: u64 = 1 << 20;

fn machine() -> Machine {
    boot(Setup::new())
}

/// 32 MiB, the lower 8 of them ZONE_DMA, and two CPUs.
fn boot(setup: Setup) -> Machine {
    let mm = Mm::new(Rig::new(32 << 20));
    let map = MemoryMap::new().ram(0..32 * MIB, NodeId::ZERO).reserved(0..4096, "firmware");
    let setup = setup.cpus(2).dma_limit(PhysAddr::new(8 * MIB));
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup) }.unwrap();
    mm.cpu_online(CpuId::new(1).unwrap()).unwrap();
    mm
}

/// All caches shrunk by both CPUs and all lists drained: how many free blocks there are of each
/// order.
#[track_caller]
fn settled(mm: &Machine) -> Vec<([u64; Order::COUNT], u64)> {
    for cpu in [0, 1, 0, 1] {
        as_cpu(cpu, || mm.shrink_caches());
    }
    for cpu in [0, 1] {
        as_cpu(cpu, || mm.drain_local_pages());
    }
    mm.verify().unwrap();
    assert_eq!(mm.listed_pages(), 0);
    lists(mm)
}

fn kinds(mm: &Machine) -> Vec<MisuseKind> {
    mm.platform().take_reports().into_iter().map(|report| report.kind).collect()
}

fn cache(mm: &Machine, name: &str, size: usize, flags: CacheFlags) -> CacheId {
    mm.kmem_cache_create(name, size, 0, flags, None, None).unwrap()
}

fn take(mm: &Machine, id: CacheId) -> NonNull<u8> {
    mm.kmem_cache_alloc(id, GFP_KERNEL).unwrap()
}

fn free(mm: &Machine, id: CacheId, object: NonNull<u8>) {
    // SAFETY: the tests free what they hold, or mean the wrong call and look at no memory after it.
    unsafe { mm.kmem_cache_free(id, object.as_ptr()) }
}

fn kfree(mm: &Machine, memory: *const u8) {
    // SAFETY: as above.
    unsafe { mm.kfree(memory) }
}

fn destroy(mm: &Machine, id: CacheId) -> Result<(), CacheError> {
    // SAFETY: nothing else uses it.
    unsafe { mm.kmem_cache_destroy(id) }
}

/// A145, A146, A149, A150, A151, A152, A158
#[test]
fn kmalloc_gives_what_was_asked_for_and_kfree_takes_it() {
    for classes in [Classes::FINE, Classes::LINUX, Classes::TEXTS] {
        let mm = boot(Setup::new().kmalloc_sizes(classes));
        let before = mm.free_page_count();
        let mut rng = Rng::new();
        let mut held: HashMap<usize, (usize, u8)> = HashMap::new();
        for step in 0..30_000 {
            CPU.with(|cpu| cpu.number.set(step / 7 % 2));
            if rng.percent(55) && held.len() < 400 {
                let size = match rng.below(10) {
                    0 => 1 + rng.below(200_000) as usize,
                    1..4 => 1 + rng.below(9000) as usize,
                    _ => 1 + rng.below(300) as usize,
                };
                let gfp = rng.pick(&[GFP_KERNEL, GFP_ATOMIC, GFP_KERNEL | Gfp::DMA]);
                let Ok(memory) = mm.kmalloc(size, gfp | Gfp::NOWARN) else { continue };
                let got = mm.ksize(memory.as_ptr());
                assert!(got >= size && got == mm.kmalloc_size_roundup(size), "{size} {got}");
                // A power of two lies at its multiples.
                let natural = if size.is_power_of_two() { size.min(4096) } else { 8 };
                assert!(memory.addr().get().is_multiple_of(natural), "{size} at {memory:p}");
                let phys = mm.platform().virt_to_phys(VirtAddr::from_ptr(memory.as_ptr())).unwrap();
                assert!(!gfp.contains(Gfp::DMA) || phys < PhysAddr::new(8 * MIB));
                // One frame behind the other, to the last byte.
                for offset in (0..got).step_by(4096).chain([got - 1]) {
                    let at = VirtAddr::from_ptr(memory.as_ptr().wrapping_add(offset));
                    let expected = PhysAddr::new(phys.get() + offset as u64);
                    assert_eq!(mm.platform().virt_to_phys(at), Some(expected));
                }
                let fill = step as u8;
                // SAFETY: so many bytes were allocated.
                unsafe { memory.write_bytes(fill, got) };
                let clash = held.insert(memory.addr().get(), (got, fill));
                assert_eq!(clash, None, "handed out twice");
            } else if !held.is_empty() {
                let address = *held.keys().nth(rng.below(held.len() as u64) as usize).unwrap();
                let (size, fill) = held.remove(&address).unwrap();
                let memory: *mut u8 = std::ptr::with_exposed_provenance_mut(address);
                // SAFETY: it is held, with so many bytes.
                let bytes = unsafe { std::slice::from_raw_parts(memory, size) };
                assert!(bytes.iter().all(|byte| *byte == fill), "contents changed");
                kfree(&mm, memory);
            }
        }
        for address in held.into_keys() {
            kfree(&mm, std::ptr::with_exposed_provenance(address));
        }
        assert_eq!(kinds(&mm), []);
        CPU.with(|cpu| cpu.number.set(0));
        settled(&mm);
        // What is left: what the CPUs have of caches, which stays.
        assert!(before - mm.free_page_count() < 250, "{}", before - mm.free_page_count());
    }
}

/// A147, A151, A153, A156
#[test]
fn kmalloc_at_its_edges() {
    let mm = machine();
    kfree(&mm, std::ptr::null());
    assert_eq!(mm.kmalloc(0, GFP_KERNEL), Err(AllocError::ZeroSize));
    assert_eq!(mm.kmalloc_size_roundup(0), 0);
    let most = 4 << 20;
    let large = mm.kmalloc(most, GFP_KERNEL).unwrap();
    assert_eq!(mm.ksize(large.as_ptr()), most);
    for more in [most + 1, 1 << 40, usize::MAX] {
        assert!(matches!(mm.kmalloc(more, GFP_KERNEL), Err(AllocError::OrderTooLarge { .. })));
        assert_eq!(mm.kmalloc_size_roundup(more), 0);
        assert!(mm.kcalloc(more, 2, GFP_KERNEL).is_err());
    }
    kfree(&mm, large.as_ptr());
    for flags in [Gfp::HIGHMEM, Gfp::MOVABLE, Gfp::DMA32] {
        let refused = Err(AllocError::BadFlags(GfpError::NotForObjects(flags)));
        assert_eq!(mm.kmalloc(64, GFP_KERNEL | flags), refused);
    }

    // Old contents stay, unless zeros are asked for.
    let old = mm.kmalloc(200, GFP_KERNEL).unwrap();
    // SAFETY: so many bytes were allocated.
    unsafe { old.write_bytes(0xee, 200) };
    kfree(&mm, old.as_ptr());
    let zeros = [
        mm.kzalloc(200, GFP_KERNEL).unwrap(),
        mm.kmalloc(200, GFP_KERNEL | Gfp::ZERO).unwrap(),
        mm.kcalloc(25, 8, GFP_KERNEL).unwrap(),
    ];
    assert_eq!(zeros[0], old, "the object that was freed last is used first");
    for zeros in zeros {
        // SAFETY: so many bytes were allocated, and cleared.
        let bytes = unsafe { std::slice::from_raw_parts(zeros.as_ptr(), 200) };
        assert!(bytes.iter().all(|byte| *byte == 0));
        kfree(&mm, zeros.as_ptr());
    }

    // Larger and smaller, in place or not, with the contents.
    // SAFETY: nothing uses the memory by its old address.
    let resize = |memory, size| unsafe { mm.krealloc(memory, size, GFP_KERNEL) };
    let mut memory = resize(std::ptr::null_mut(), 10).unwrap();
    // SAFETY: so many bytes were allocated.
    unsafe { memory.write_bytes(7, 10) };
    for size in [16, 100, 5000, 300_000, 100_000, 64, 10] {
        memory = resize(memory.as_ptr(), size).unwrap();
        assert!(mm.ksize(memory.as_ptr()) >= size);
        // SAFETY: so many bytes are left of what was written.
        let bytes = unsafe { std::slice::from_raw_parts(memory.as_ptr(), size.min(10)) };
        assert!(bytes.iter().all(|byte| *byte == 7), "{size}");
    }
    kfree(&mm, memory.as_ptr());
    assert_eq!(kinds(&mm), []);
    assert_eq!(resize(memory.as_ptr().wrapping_add(1), 10), Err(AllocError::NotAllocated));
    assert_eq!(kinds(&mm), [MisuseKind::NoObject]);
}

/// A171, A178, A187, A190, A193, A194, A199, A206, A207, A208, A217
#[test]
fn a_cache_comes_works_and_goes() {
    let mm = machine();
    let before = settled(&mm);
    let sizes = [1, 8, 24, 56, 100, 192, 700, 1500, 4000, 4096, 9000, 65536];
    let flags = [
        CacheFlags::NONE,
        CacheFlags::HWCACHE_ALIGN,
        CacheFlags::CACHE_DMA,
        CacheFlags::RECLAIM_ACCOUNT | CacheFlags::NO_REAP | CacheFlags::NOTRACK,
        CacheFlags::DEBUG,
        CacheFlags::RED_ZONE | CacheFlags::HWCACHE_ALIGN,
        CacheFlags::QUARANTINE | CacheFlags::CACHE_DMA,
    ];
    for (size, flags) in sizes.iter().flat_map(|size| flags.map(|flags| (*size, flags))) {
        let id = cache(&mm, "inode_cache", size, flags);
        let mut seen = HashSet::new();
        let mut held = Vec::new();
        for count in 0..if size > 9000 { 40 } else { 150 } {
            let gfp = if flags.contains(CacheFlags::CACHE_DMA) {
                GFP_KERNEL | Gfp::DMA
            } else {
                GFP_KERNEL
            };
            let object = as_cpu(count / 11 % 2, || mm.kmem_cache_alloc(id, gfp)).unwrap();
            let address = object.addr().get();
            assert!(seen.insert(address), "handed out twice");
            let line = if size > 32 { 64 } else { size.next_power_of_two().max(8) };
            let align = if flags.contains(CacheFlags::HWCACHE_ALIGN) { line } else { 8 };
            assert!(address.is_multiple_of(align), "{size} {flags} at {address:#x}");
            let page = mm.virt_to_page(VirtAddr::from_ptr(object.as_ptr())).unwrap();
            assert_eq!(mm.owner(page.pfn()), Owner::Slab);
            let dma = mm.page_zone(page).unwrap().kind() == ZoneKind::Dma;
            assert_eq!(dma, flags.contains(CacheFlags::CACHE_DMA), "{size} {flags}");
            // SAFETY: so many bytes are the test's.
            unsafe { object.write_bytes(count as u8, size) };
            held.push(object);
        }
        let counters = mm.counters();
        let account = flags.contains(CacheFlags::RECLAIM_ACCOUNT);
        assert_eq!(counters.slab_reclaimable > 0, account);
        for (count, object) in held.iter().enumerate() {
            // SAFETY: the test's own bytes.
            let bytes = unsafe { std::slice::from_raw_parts(object.as_ptr(), size) };
            assert!(bytes.iter().all(|byte| *byte == count as u8), "{size}: overwritten");
        }
        // It is not destroyed, but as good as ever, while objects are out.
        let last = held.pop().unwrap();
        held.into_iter().for_each(|object| as_cpu(1, || free(&mm, id, object)));
        assert_eq!(destroy(&mm, id), Err(CacheError::InUse(1)));
        let lines = mm.platform().take_lines().join("\n");
        assert!(lines.contains("inode_cache") && lines.contains(&format!("{last:p}")), "{lines}");
        let again = take_any(&mm, id, flags);
        assert_ne!(again, last);
        free(&mm, id, again);
        free(&mm, id, last);
        assert_eq!(destroy(&mm, id), Ok(()));
        assert_eq!(kinds(&mm), []);
        // Its handle is good for nothing any more, although the next cache lies in its place.
        assert_eq!(destroy(&mm, id), Err(CacheError::NoSuchCache));
        assert_eq!(mm.kmem_cache_alloc(id, GFP_KERNEL), Err(AllocError::NoSuchCache));
        free(&mm, id, last);
        assert_eq!(kinds(&mm), [MisuseKind::StaleCache; 2]);
    }
    let after = settled(&mm);
    let pages = |lists: &[([u64; Order::COUNT], u64)]| lists.iter().map(|zone| zone.1).sum::<u64>();
    // Kmalloc's caches keep what the CPUs have of them.
    assert!(pages(&before) - pages(&after) < 60, "{} pages", pages(&before) - pages(&after));
}

fn take_any(mm: &Machine, id: CacheId, flags: CacheFlags) -> NonNull<u8> {
    let dma = if flags.contains(CacheFlags::CACHE_DMA) { Gfp::DMA } else { Gfp::NONE };
    mm.kmem_cache_alloc(id, GFP_KERNEL | dma).unwrap()
}

thread_local! {
    static MADE: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

const MARK: u64 = 0x0123_4567_89ab_cdef;

fn construct(object: NonNull<u8>, _: CacheId, flags: CtorFlags) {
    assert!(flags.contains(CtorFlags::CONSTRUCTOR));
    MADE.with(|made| made.set((made.get().0 + 1, made.get().1)));
    // SAFETY: the object is being made, and has eight bytes.
    unsafe { object.cast::<u64>().write_unaligned(MARK) };
}

fn destruct(object: NonNull<u8>, _: CacheId, flags: CtorFlags) {
    assert!(!flags.contains(CtorFlags::CONSTRUCTOR));
    MADE.with(|made| made.set((made.get().0, made.get().1 + 1)));
    // SAFETY: the object is going, and was made by `construct`.
    assert_eq!(unsafe { object.cast::<u64>().read_unaligned() }, MARK);
}

/// A200, A201, A202, A203, A204, A205
#[test]
fn objects_are_constructed_with_their_slab_and_destructed_with_it() {
    let mm = machine();
    let made = || MADE.with(Cell::get);
    let no_ctor = mm.kmem_cache_create("x", 64, 0, CacheFlags::NONE, None, Some(destruct));
    assert_eq!(no_ctor, Err(CacheError::DtorWithoutCtor));
    for size in [8, 100, 3000] {
        MADE.with(|made| made.set((0, 0)));
        let create = mm.kmem_cache_create(
            "ctor",
            size,
            0,
            CacheFlags::NONE,
            Some(construct),
            Some(destruct),
        );
        let id = create.unwrap();
        assert_eq!(made(), (0, 0), "no slab, no object");
        let first = take(&mm, id);
        let (many, _) = made();
        assert!(many > 1, "all of a slab's at once");
        free(&mm, id, first);
        let held: Vec<_> = (0..3 * many).map(|_| take(&mm, id)).collect();
        for object in &held {
            // SAFETY: the test's own.
            assert_eq!(unsafe { object.cast::<u64>().read_unaligned() }, MARK);
        }
        let refused = mm.kmem_cache_alloc(id, GFP_KERNEL | Gfp::ZERO);
        assert_eq!(refused, Err(AllocError::BadFlags(GfpError::NotForObjects(Gfp::ZERO))));
        let (constructed, destructed) = made();
        assert_eq!((constructed % many, destructed), (0, 0));
        held.into_iter().for_each(|object| free(&mm, id, object));
        assert_eq!(made(), (constructed, 0), "a free destructs nothing");
        assert!(mm.kmem_cache_shrink(id) > 0);
        assert_eq!(made(), (constructed, constructed));
        free(&mm, id, take(&mm, id));
        destroy(&mm, id).unwrap();
        assert_eq!(made().0, made().1);
    }
}

/// A172, A174
#[test]
fn the_object_freed_last_is_used_next() {
    let mm = machine();
    let id = cache(&mm, "dogs", 100, CacheFlags::NONE);
    let held: Vec<_> = (0..20).map(|_| take(&mm, id)).collect();
    for object in &held {
        free(&mm, id, *object);
    }
    for object in held.iter().rev() {
        assert_eq!(take(&mm, id), *object);
    }
    held.into_iter().for_each(|object| free(&mm, id, object));
    destroy(&mm, id).unwrap();
}

/// Pages are asked for when no slab has a free object, and go when the cache is shrunk: not before.
///
/// A180, A184, A185, A186
#[test]
fn pages_come_when_they_must_and_go_when_they_are_sought() {
    let mm = machine();
    let id = cache(&mm, "pages", 900, CacheFlags::NONE);
    let info = || mm.caches().find(|cache| cache.name.as_str() == "pages").unwrap();
    let each = info().objects_per_slab;
    let mut held: Vec<_> = (0..10 * each).map(|_| take(&mm, id)).collect();
    let slabs = info().slabs.slabs();
    // A magazine is filled ahead by at most what it holds.
    assert!((10..=10 + 64 / u64::from(each)).contains(&slabs), "{slabs}");
    for _ in 0..3 {
        held.drain(..).for_each(|object| free(&mm, id, object));
        assert_eq!(info().slabs.slabs(), slabs, "a free gives no pages back");
        held.extend((0..10 * each).map(|_| take(&mm, id)));
        assert_eq!(info().slabs.slabs(), slabs, "nor does an allocation ask for more");
    }
    // One object of each slab keeps it.
    let mut seen = HashSet::new();
    let (kept, others): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|object| seen.insert(object.addr().get() & !4095));
    others.into_iter().for_each(|object| free(&mm, id, object));
    mm.kmem_cache_shrink(id);
    assert_eq!(info().slabs.slabs(), seen.len() as u64);
    assert_eq!((info().slabs.empty, info().slabs.partial), (0, seen.len() as u64));
    kept.into_iter().for_each(|object| free(&mm, id, object));
    let pages = mm.kmem_cache_shrink(id);
    assert_eq!((info().slabs.slabs(), pages), (0, seen.len() as u64));
    // What is not to be shrunk is left alone by those who seek memory.
    let kept = cache(&mm, "kept", 900, CacheFlags::NO_REAP);
    for id in [id, kept] {
        free(&mm, id, take(&mm, id));
    }
    mm.shrink_caches();
    let slabs = |name| mm.caches().find(|cache| cache.name.as_str() == name).unwrap().slabs.slabs();
    assert_eq!((slabs("pages"), slabs("kept")), (0, 1));
    destroy(&mm, kept).unwrap();
    destroy(&mm, id).unwrap();
}

/// Where memory runs out, what caches keep and nobody uses is had back before a request fails.
///
/// A168, A186, A216
#[test]
fn empty_slabs_are_had_back_before_a_request_fails() {
    let mm = machine();
    let id = cache(&mm, "hoard", 2000, CacheFlags::NONE);
    let held: Vec<_> = (0..4000).map(|_| take(&mm, id)).collect();
    held.into_iter().for_each(|object| free(&mm, id, object));
    let before = mm.free_page_count();
    let mut pages = Vec::new();
    while let Ok(page) = mm.alloc_page(GFP_KERNEL | Gfp::NOWARN) {
        pages.push(page);
    }
    assert!(pages.len() as u64 > before + 1500, "{} of {before}", pages.len());
    // SAFETY: the test's own.
    pages.into_iter().for_each(|page| unsafe { mm.__free_page(page) });
    destroy(&mm, id).unwrap();
}

/// A176
#[test]
fn slabs_begin_at_different_colours() {
    let mm = machine();
    // 5 objects of 700 bytes leave some hundred in a page.
    let id = cache(&mm, "coloured", 700, CacheFlags::NONE);
    let held: Vec<_> = (0..200).map(|_| take(&mm, id)).collect();
    let first: HashSet<usize> =
        held.iter().map(|object| object.addr().get() % 4096 % 700).collect();
    assert!(first.len() > 3, "{first:?}");
    assert!(first.iter().all(|colour| colour.is_multiple_of(4)));
    held.into_iter().for_each(|object| free(&mm, id, object));
    destroy(&mm, id).unwrap();
}

/// A188, A189, A191, A197, A210
#[test]
fn caches_that_cannot_be_are_refused() {
    let mm = machine();
    let make = |name: &str, size, align| {
        mm.kmem_cache_create(name, size, align, CacheFlags::NONE, None, None)
    };
    for name in ["", "two words", "tab\t", &"x".repeat(32)] {
        assert_eq!(make(name, 8, 0), Err(CacheError::Name(31)), "{name:?}");
    }
    assert!(matches!(make("kmalloc-64", 8, 0), Err(CacheError::NameTaken(_))));
    assert_eq!(make("x", 8, 3), Err(CacheError::Align(3)));
    for (size, align) in [(0, 8), (usize::MAX, 8), (1 << 20, 0), (8, 1 << 30)] {
        assert!(matches!(make("x", size, align), Err(CacheError::Size { .. })), "{size} {align}");
    }
    let saved = mm.platform().mask();
    assert_eq!(make("x", 8, 0), Err(CacheError::Atomic));
    let id = {
        mm.platform().restore(saved);
        make("x", 8, 0).unwrap()
    };
    let saved = mm.platform().mask();
    assert_eq!(destroy(&mm, id), Err(CacheError::Atomic));
    mm.platform().restore(saved);
    assert_eq!(kinds(&mm), [MisuseKind::SleepInAtomic; 2]);
    let many: Vec<CacheId> =
        (0..).map_while(|number| make(&format!("c{number}"), 8, 0).ok()).collect();
    assert!(matches!(make("one-more", 8, 0), Err(CacheError::TooMany(256))));
    many.into_iter().for_each(|id| destroy(&mm, id).unwrap());
    destroy(&mm, id).unwrap();
    assert!(make("one-more", 8, 0).is_ok());
    let mm: Machine = Mm::new(Rig::new(1 << 20));
    let early = mm.kmem_cache_create("x", 8, 0, CacheFlags::NONE, None, None);
    assert_eq!(early, Err(CacheError::NotBooted));
    assert_eq!(mm.kmalloc(8, GFP_KERNEL), Err(AllocError::NotBooted));
}

/// What is wrong with a free is found at the call, and changes nothing.
///
/// A148, A207
#[test]
fn wrong_frees_of_objects_are_found_and_harm_nothing() {
    let mm = machine();
    let (dogs, cats) =
        (cache(&mm, "dogs", 100, CacheFlags::NONE), cache(&mm, "cats", 100, CacheFlags::NONE));
    let (dog, cat) = (take(&mm, dogs), take(&mm, cats));
    let (small, large) =
        (mm.kmalloc(40, GFP_KERNEL).unwrap(), mm.kmalloc(150_000, GFP_KERNEL).unwrap());
    let page = mm.__get_free_pages(GFP_KERNEL, 2).unwrap();
    let stack = [0u8; 64];
    let free_page: *mut u8 = {
        let page = mm.__get_free_page(GFP_KERNEL).unwrap();
        // SAFETY: just allocated.
        unsafe { mm.free_page(page) };
        page.as_ptr()
    };
    let reserved: *mut u8 = mm.platform().base().as_ptr();
    let at = |memory: NonNull<u8>, offset: usize| memory.as_ptr().wrapping_add(offset);
    use MisuseKind::*;
    type Wrong<'a> = (&'a str, *mut u8, MisuseKind);
    let everywhere: [Wrong<'_>; 8] = [
        ("inside an object", at(dog, 8), InsideObject),
        ("inside memory", at(small, 1), InsideObject),
        ("inside large memory", at(large, 4096), NoObject),
        ("in large memory's first page", at(large, 8), NoObject),
        ("a page", page.as_ptr(), NoObject),
        ("the stack", stack.as_ptr().cast_mut(), Foreign),
        ("a free page", free_page, DoubleFree),
        ("a reserved page", reserved, Reserved),
    ];
    let mut calls = 0;
    let mut wrong = |what: &str, kind: MisuseKind, call: &dyn Fn()| {
        let look = || (mm.free_page_count(), mm.counters().freed, mm.counters().allocated);
        let before = look();
        call();
        let reports = mm.platform().take_reports();
        assert_eq!(reports.len(), 1, "{what}: {reports:#?}");
        assert_eq!(reports[0].kind, kind, "{what}: {}", reports[0].line);
        assert!(reports[0].line.contains("tests/slab.rs"), "{what}: {}", reports[0].line);
        assert_eq!(look(), before, "{what} changed something");
        calls += 1;
    };
    for (what, memory, kind) in everywhere {
        wrong(what, kind, &|| kfree(&mm, memory));
        // SAFETY: wrong on purpose.
        wrong(what, kind, &|| unsafe { mm.kmem_cache_free(dogs, memory) });
    }
    wrong("another cache's", WrongCache, &|| free(&mm, dogs, cat));
    wrong("kmalloc's", WrongCache, &|| free(&mm, dogs, small));
    wrong("kmalloc's large", NoObject, &|| free(&mm, dogs, large));
    wrong("not kmalloc's", WrongCache, &|| kfree(&mm, dog.as_ptr()));
    // SAFETY: wrong on purpose.
    wrong("a slab's page", Slab, &|| unsafe {
        mm.free_pages(VirtAddr::new(dog.addr().get() & !4095), 0);
    });
    // SAFETY: wrong on purpose.
    wrong("a page of large memory", Slab, &|| unsafe {
        mm.free_page(VirtAddr::from_ptr(large.as_ptr()));
    });
    for (object, id) in [(dog, Some(dogs)), (cat, Some(cats)), (small, None), (large, None)] {
        let call = || match id {
            Some(id) => free(&mm, id, object),
            None => kfree(&mm, object.as_ptr()),
        };
        call();
        assert_eq!(kinds(&mm), []);
        let kind = DoubleFree;
        wrong("twice, from the magazine", kind, &call);
        as_cpu(1, || wrong("twice, by another cpu", kind, &call));
        settled(&mm);
        if id.is_some()
            || mm.owner(mm.virt_to_page(VirtAddr::from_ptr(object.as_ptr())).unwrap().pfn())
                == Owner::Slab
        {
            wrong("twice, from its slab", kind, &call);
        }
    }
    assert!(calls > 25);
    let dog_info = mm.caches().find(|cache| cache.name.as_str() == "dogs").unwrap();
    assert_eq!((dog_info.active, dog_info.size, dog_info.allocated), (0, 100, 1));
    // SAFETY: the test's own.
    unsafe { mm.free_pages(page, 2) };
    // All goes on as ever: no object is handed out twice.
    let held: Vec<_> = (0..500).map(|_| take(&mm, dogs)).collect();
    assert_eq!(held.iter().collect::<HashSet<_>>().len(), 500);
    held.into_iter().for_each(|object| free(&mm, dogs, object));
    assert_eq!(kinds(&mm), []);
    destroy(&mm, dogs).unwrap();
    destroy(&mm, cats).unwrap();
    let _ = There::Nothing;
}

/// A reclaimer asks the caches for so many pages, and is given about as many and not all.
///
/// A168, A192, A216
#[test]
fn caches_give_back_as_much_as_they_are_asked_for() {
    let mm = machine();
    let ids = ["first", "second", "kept"].map(|name| {
        let flags = if name == "kept" { CacheFlags::NO_REAP } else { CacheFlags::NONE };
        let id = cache(&mm, name, 1000, flags);
        let held: Vec<_> = (0..400).map(|_| take(&mm, id)).collect();
        held.into_iter().for_each(|object| free(&mm, id, object));
        id
    });
    let caches = PageSource::caches(&mm);
    let before = caches.count();
    assert!((200..240).contains(&before), "{before}");
    let free_pages = mm.free_page_count();
    let given = caches.shrink(10);
    assert!((10..=110).contains(&given), "{given}");
    assert_eq!(mm.free_page_count(), free_pages + given);
    let left = caches.count();
    assert!(left <= before - given + 5, "{left} of {before}");
    let rest = caches.shrink(u64::MAX);
    assert!(rest + 5 >= left, "{rest} of {left}");
    assert_eq!(caches.count(), 0);
    let kept = mm.caches().find(|cache| cache.name.as_str() == "kept").unwrap();
    assert_eq!(kept.slabs.slabs(), 100);
    ids.into_iter().for_each(|id| destroy(&mm, id).unwrap());
}

/// A189: the kernels of the second edition had names of 19 bytes at most.
#[test]
fn names_are_as_long_as_the_machine_says() {
    let make = |mm: &Machine, name: &str| {
        mm.kmem_cache_create(name, 8, 0, CacheFlags::NONE, None, None).map(|_| ())
    };
    let old = boot(Setup::new().cache_name_limit(19));
    assert_eq!(make(&old, "nineteen_bytes_long"), Ok(()));
    assert_eq!(make(&old, "as_many_as_20_bytes_"), Err(CacheError::Name(19)));
    let new = machine();
    assert_eq!(make(&new, "as_many_as_20_bytes_"), Ok(()));
    assert_eq!(make(&new, &"n".repeat(31)), Ok(()));
    assert_eq!(make(&new, &"n".repeat(32)), Err(CacheError::Name(31)));
}

/// krealloc and ksize are for what kmalloc handed out and somebody has.
///
/// A148, A153
#[test]
fn what_is_free_or_a_caches_is_not_made_larger() {
    let mm = machine();
    let dogs = cache(&mm, "dog", 100, CacheFlags::NONE);
    let (dog, freed) = (take(&mm, dogs), mm.kmalloc(100, GFP_KERNEL).unwrap());
    kfree(&mm, freed.as_ptr());
    let active = || mm.caches().map(|cache| cache.active).sum::<u64>();
    let before = active();
    for (object, kind) in [(dog, MisuseKind::WrongCache), (freed, MisuseKind::NoObject)] {
        assert_eq!(mm.ksize(object.as_ptr()), 0);
        assert_eq!(kinds(&mm), [kind]);
        for size in [50, 100, 104, 5000] {
            // SAFETY: wrong on purpose; nothing uses the memory.
            let result = unsafe { mm.krealloc(object.as_ptr(), size, GFP_KERNEL) };
            assert_eq!(result, Err(AllocError::NotAllocated), "{size}");
            assert_eq!(kinds(&mm), [kind], "{size}");
        }
    }
    assert_eq!(active(), before);
    free(&mm, dogs, dog);
    assert_eq!(kinds(&mm), []);
}

/// All of a size class is cleared, so that what is asked for later of it is, too.
///
/// A151
#[test]
fn memory_of_zeros_grows_by_zeros() {
    let mm = machine();
    let zeroed = GFP_KERNEL | Gfp::ZERO;
    type Alloc = fn(&Machine) -> NonNull<u8>;
    let calls: [Alloc; 3] = [
        |mm| mm.kzalloc(90, GFP_KERNEL).unwrap(),
        |mm| mm.kmalloc(90, GFP_KERNEL | Gfp::ZERO).unwrap(),
        |mm| mm.kcalloc(9, 10, GFP_KERNEL).unwrap(),
    ];
    for call in calls {
        // Whatever is at hand has been written.
        let used: Vec<_> = (0..200).map(|_| mm.kmalloc(96, GFP_KERNEL).unwrap()).collect();
        for memory in used {
            // SAFETY: the test's own bytes.
            unsafe { memory.write_bytes(0xee, 96) };
            kfree(&mm, memory.as_ptr());
        }
        let memory = call(&mm);
        // SAFETY: the test's own memory.
        let larger = unsafe { mm.krealloc(memory.as_ptr(), 96, zeroed) }.unwrap();
        assert_eq!(larger, memory, "in place");
        // SAFETY: the test's own bytes.
        assert_eq!(unsafe { std::slice::from_raw_parts(larger.as_ptr(), 96) }, [0; 96]);
        kfree(&mm, larger.as_ptr());
    }
}

/// An address inside an object is told with the object that it lies in.
#[test]
fn a_free_inside_an_object_names_the_object() {
    let mm = machine();
    let memory = mm.kmalloc(64, GFP_KERNEL).unwrap();
    for offset in [1, 8, 63] {
        kfree(&mm, memory.as_ptr().wrapping_add(offset));
        let [report] = &mm.platform().take_reports()[..] else { panic!() };
        assert_eq!(report.kind, MisuseKind::InsideObject);
        let There::Object { object, free, .. } = report.there else { panic!("{}", report.line) };
        assert_eq!((object.get(), free), (memory.addr().get(), false));
    }
    kfree(&mm, memory.as_ptr());
}

/// The pages of memory above the size classes are freed together.
#[test]
fn a_page_of_large_memory_is_not_freed_by_itself() {
    let mm = machine();
    let memory = mm.kmalloc(300_000, GFP_KERNEL).unwrap();
    let first = mm.virt_to_page(VirtAddr::from_ptr(memory.as_ptr())).unwrap();
    let free_pages = mm.free_page_count();
    for at in [0, 1, 2, 73] {
        let page = mm.pfn_to_page(first.pfn().checked_add(at).unwrap()).unwrap();
        // SAFETY: wrong on purpose; nothing uses the memory.
        unsafe { mm.__free_page(page) };
        assert_eq!(kinds(&mm), [MisuseKind::Slab], "page {at}");
        // SAFETY: as above.
        unsafe { mm.put_page(page) };
        assert_eq!(kinds(&mm), [MisuseKind::Slab], "page {at}");
    }
    assert_eq!(mm.free_page_count(), free_pages);
    kfree(&mm, memory.as_ptr());
    assert_eq!((kinds(&mm), mm.free_page_count()), (vec![], free_pages + 74));
}

/// Whatever the sizes, memory is aligned for what has a pointer in it.
#[test]
fn odd_sizes_are_aligned_to_eight() {
    let sizes = [20, 52, 116, 244, 500, 1012, 2036, 4052, 8180, 16372];
    let mm = boot(Setup::new().kmalloc_sizes(Classes::new(&sizes).unwrap()));
    let mut held = Vec::new();
    for size in (1..400).chain([1000, 1001, 4000, 16000]) {
        let memory = mm.kmalloc(size, GFP_KERNEL).unwrap();
        assert!(memory.addr().get().is_multiple_of(8), "{size}");
        held.push(memory);
    }
    // Enough to have magazines grow.
    for _ in 0..3 {
        let many: Vec<_> = (0..500).map(|_| mm.kmalloc(20, GFP_KERNEL).unwrap()).collect();
        many.into_iter().for_each(|memory| kfree(&mm, memory.as_ptr()));
    }
    held.into_iter().for_each(|memory| kfree(&mm, memory.as_ptr()));
    assert_eq!(kinds(&mm), []);
}

/// What the descriptors of the slab layer's pages say is its own: whoever changed it could have a free
/// write anywhere.
#[test]
fn descriptors_of_objects_pages_are_not_for_their_holders() {
    let mm = machine();
    // In a slab of one page, in one of several, and above the classes.
    for size in [100, 40_000, 300_000] {
        let memory = mm.kmalloc(size, GFP_KERNEL).unwrap();
        let first = VirtAddr::from_ptr(memory.as_ptr());
        let page = mm.virt_to_page(VirtAddr::new(first.get() & !4095)).unwrap();
        let refused = |call: &dyn Fn(kmem::Page)| {
            call(page);
            assert_eq!(kinds(&mm), [MisuseKind::ManagersState], "{size}");
        };
        refused(&|page| mm.set_page_private(page, Some(64)));
        refused(&|page| mm.set_page_mapping(page, Some((1, 2))));
        refused(&|page| mm.set_page_map_count(page, 5));
        refused(&|page| mm.set_page_slab(page, true));
        refused(&|page| mm.clear_page_slab(page));
        refused(&|page| {
            mm.set_page_flag(page, kmem::page::PageFlags::Dirty);
        });
        assert!(mm.ksize(memory.as_ptr()) >= size);
        kfree(&mm, memory.as_ptr());
        assert_eq!(kinds(&mm), []);
    }
}

/// A191
#[test]
fn an_alignment_that_the_direct_map_does_not_have_is_refused() {
    const HALF: usize = 1 << 16;
    let mut ram = vec![0; (9 << 20) + 4 * HALF];
    let start = ram.as_ptr().addr();
    let odd = start.next_multiple_of(2 * HALF) + HALF - start;
    // SAFETY: one thread.
    let mm = Mm::new(unsafe { kmem::platform::desk::Desk::<12>::new(&mut ram[odd..]) });
    let map = MemoryMap::new().ram(0..8 << 20, NodeId::ZERO);
    // SAFETY: the RAM is this test's.
    unsafe { mm.boot(&map, &Setup::new()) }.unwrap();
    assert!(mm.platform().base().get() % (2 * HALF) == HALF);
    let make = |align| mm.kmem_cache_create("x", 8, align, CacheFlags::NONE, None, None);
    assert_eq!(make(2 * HALF), Err(CacheError::MapAlign(2 * HALF)));
    let id = make(HALF).unwrap();
    let object = mm.kmem_cache_alloc(id, GFP_KERNEL).unwrap();
    assert!(object.addr().get().is_multiple_of(HALF));
}

/// A175: a magazine comes with a CPU's first request, and goes with the CPU.
#[test]
fn a_cache_says_how_many_cpus_have_a_magazine_for_it() {
    let mm = machine();
    assert!(mm.has_pagesets());
    let dogs = cache(&mm, "dogs", 100, CacheFlags::NONE);
    let cpus = |mm: &Machine| mm.caches().find(|info| info.name.as_str() == "dogs").unwrap().cpus;
    for (cpu, before) in [(0, 0), (1, 1), (0, 2)] {
        assert_eq!(cpus(&mm), before);
        as_cpu(cpu, || free(&mm, dogs, take(&mm, dogs)));
    }
    settled(&mm);
    assert_eq!(cpus(&mm), 2, "what is shrunk keeps its magazines");
    // SAFETY: nothing runs as that CPU.
    unsafe { mm.cpu_offline(CpuId::new(1).unwrap()) }.unwrap();
    assert_eq!(cpus(&mm), 1);

    let mm = boot(Setup::new().pagesets(false));
    let dogs = cache(&mm, "dogs", 100, CacheFlags::NONE);
    free(&mm, dogs, take(&mm, dogs));
    assert!(!mm.has_pagesets() && cpus(&mm) == 0);
}
