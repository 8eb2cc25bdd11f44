//! Caches that are debugged: what is overwritten is found, and who had it is known.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::ptr::NonNull;

use common::{CPU, Machine, Rig, Rng};
use kmem::boot::SlabDebug;
use kmem::platform::{Caller, MisuseKind, Overwritten, There, Where};
use kmem::*;

const MIB: u64 = 1 << 20;

/// 32 MiB and two CPUs, with some caches debugged.
fn machine(rules: &str) -> Machine {
    let mm = Mm::new(Rig::new(32 << 20));
    let map = MemoryMap::new().ram(0..32 * MIB, NodeId::ZERO).reserved(0..4096, "firmware");
    let setup = Setup::new().cpus(2).slab_debug(SlabDebug::parse(rules).unwrap());
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup) }.unwrap();
    mm.cpu_online(CpuId::new(1).unwrap()).unwrap();
    mm
}

fn dogs(mm: &Machine, flags: CacheFlags) -> CacheId {
    mm.kmem_cache_create("dog", 100, 0, flags, None, None).unwrap()
}

#[track_caller]
fn take(mm: &Machine, id: CacheId) -> NonNull<u8> {
    mm.kmem_cache_alloc(id, GFP_KERNEL).unwrap()
}

#[track_caller]
fn free(mm: &Machine, id: CacheId, object: NonNull<u8>) {
    // SAFETY: right, or wrong on purpose.
    unsafe { mm.kmem_cache_free(id, object.as_ptr()) };
}

/// Writes bytes where they are not the test's: memory of the machine, that nobody else uses.
fn scribble(object: NonNull<u8>, offset: isize, bytes: &[u8]) {
    for (at, byte) in bytes.iter().enumerate() {
        // SAFETY: within the slab, whose bytes nobody else reads or writes meanwhile.
        unsafe { object.offset(offset + at as isize).write(*byte) };
    }
}

fn bytes(object: NonNull<u8>, size: usize) -> &'static [u8] {
    // SAFETY: the test's own object, with so many bytes.
    unsafe { std::slice::from_raw_parts(object.as_ptr(), size) }
}

/// What was reported as overwritten, and the calls where that came to light; nothing else was.
#[track_caller]
fn overwritten_at(mm: &Machine) -> (Vec<Overwritten>, Vec<String>) {
    let of = |report: common::Report| match report.there {
        There::Overwritten(bytes) => {
            assert_eq!(report.kind, MisuseKind::Overwritten, "{}", report.line);
            (bytes, report.line.rsplit(", at ").next().unwrap().to_string())
        }
        _ => panic!("{}", report.line),
    };
    mm.platform().take_reports().into_iter().map(of).unzip()
}

fn overwritten(mm: &Machine) -> Vec<Overwritten> {
    overwritten_at(mm).0
}

fn here(owner: Option<Caller>, line: u32) -> bool {
    owner.is_some_and(|owner| {
        owner.site.file().ends_with("slab_debug.rs") && owner.site.line() == line
    })
}

/// A195, A196: the corruptions that Linux's own tests of its allocator make, and more. Each is found
/// where the object changes hands next, and by a look at all of them; object, offset, bytes and owner
/// are said; and it is found once.
#[test]
fn every_corruption_is_found_and_described() {
    /// The place, the first byte's offset, whether the object is free, and what is written.
    const WAYS: [(Where, isize, bool, &[u8]); 10] = [
        (Where::RightZone, 100, false, &[0x12]),
        (Where::RightZone, 107, false, &[0x12]),
        (Where::LeftZone, -1, false, &[0]),
        (Where::LeftZone, -8, false, &[1, 2, 3, 4, 5, 6, 7, 8]),
        // Where a list of free objects would have its links: in the middle, and at the start.
        (Where::Freed, 48, true, &[0x80, 0x24, 0, 0, 0, 0xff, 0xff, 0xff]),
        (Where::Freed, 0, true, &[0x78]),
        (Where::Freed, 50, true, &[0x9a]),
        (Where::Freed, 99, true, &[0x9a]),
        (Where::RightZone, 100, true, &[0xab]),
        (Where::LeftZone, -3, true, &[0xab, 0xcd]),
    ];
    let all = CacheFlags::POISON | CacheFlags::RED_ZONE | CacheFlags::STORE_USER;
    for flags in [all, all | CacheFlags::QUARANTINE, all | CacheFlags::HWCACHE_ALIGN] {
        for (place, offset, is_free, written) in WAYS {
            for validate in [true, false] {
                let mm = machine("");
                let id = dogs(&mm, flags);
                let (object, allocated) = (take(&mm, id), line!());
                let neighbour = take(&mm, id);
                let mut freed = None;
                if is_free {
                    free(&mm, id, object);
                    freed = Some(line!() - 1);
                }
                scribble(object, offset, written);
                if validate {
                    let found = mm.kmem_cache_validate(id).unwrap();
                    assert_eq!((found.wrong, found.records), (1, 0));
                } else if is_free {
                    // It is handed out, or leaves the quarantine.
                    mm.kmem_cache_shrink(id);
                    let again = std::iter::repeat_with(|| take(&mm, id)).take(60);
                    again.collect::<Vec<_>>().into_iter().for_each(|dog| free(&mm, id, dog));
                } else {
                    free(&mm, id, object);
                }
                let (found, sites) = overwritten_at(&mm);
                let [found] = found[..] else { panic!("{place:?} {offset}: {found:#?}") };
                assert_eq!(found.object.get(), object.addr().get());
                assert_eq!((found.place, found.offset as isize), (place, offset));
                assert_eq!(found.length as usize, written.len());
                assert_eq!(found.found[..written.len()], *written);
                let expected = match (place, is_free) {
                    (Where::Freed, _) if offset == 99 => 0xa5,
                    (Where::Freed, _) => 0x6b,
                    (_, true) => 0xbb,
                    (_, false) => 0xcc,
                };
                assert_eq!(found.expected, expected);
                assert!(here(found.allocated, allocated), "{found:?}");
                assert!(freed.is_none_or(|line| here(found.freed, line)), "{found:?}");
                assert!(sites.iter().all(|site| site.contains("slab_debug.rs")), "{sites:?}");
                let line = found.to_string();
                assert!(line.contains(&format!("offset {offset} ")), "{line}");
                assert!(line.contains("slab_debug.rs"), "{line}");
                // It was put right.
                assert_eq!(mm.kmem_cache_validate(id).unwrap().wrong, 0);
                free(&mm, id, neighbour);
                assert_eq!(overwritten(&mm), []);
            }
        }
    }
}

/// What an object has beyond what was asked for is not its holder's.
#[test]
fn a_write_behind_what_was_asked_of_kmalloc_is_found() {
    let mm = machine("PZU,kmalloc-*");
    for (asked, class) in [(57, 64), (1, 8), (130, 144), (1030, 1152)] {
        let memory = mm.kmalloc(asked, GFP_KERNEL).unwrap();
        assert_eq!(mm.ksize(memory.as_ptr()), asked);
        assert_eq!(mm.kmalloc_size_roundup(asked), class);
        scribble(memory, asked as isize, &[0]);
        // SAFETY: the test's own.
        unsafe { mm.kfree(memory.as_ptr()) };
        let found = overwritten(&mm);
        let [found] = found[..] else { panic!("{asked}: {found:#?}") };
        let expected = (Where::Slack, asked as i32, 1, 0xcc);
        assert_eq!((found.place, found.offset, found.length, found.expected), expected);
        // All of the class, where all was asked for.
        let memory = mm.kmalloc(class, GFP_KERNEL).unwrap();
        scribble(memory, 0, &vec![0; class]);
        // SAFETY: as above.
        unsafe { mm.kfree(memory.as_ptr()) };
        assert_eq!(overwritten(&mm), []);
    }
    // What krealloc takes away is not the caller's any more.
    let memory = mm.kmalloc(100, GFP_KERNEL).unwrap();
    // SAFETY: the test's own.
    let smaller = unsafe { mm.krealloc(memory.as_ptr(), 80, GFP_KERNEL) }.unwrap();
    assert_eq!(mm.ksize(smaller.as_ptr()), 80);
    scribble(smaller, 90, &[1]);
    // SAFETY: the test's own.
    unsafe { mm.kfree(smaller.as_ptr()) };
    // It lies behind all of the smaller class.
    assert_eq!(overwritten(&mm).len(), 1);
    // krealloc tells what is the caller's now.
    let memory = mm.kmalloc(57, GFP_KERNEL).unwrap();
    scribble(memory, 0, &[7; 57]);
    // SAFETY: the test's own.
    let larger = unsafe { mm.krealloc(memory.as_ptr(), 64, GFP_KERNEL) }.unwrap();
    assert_eq!(bytes(larger, 57), [7; 57]);
    scribble(larger, 0, &[8; 64]);
    // SAFETY: the test's own.
    unsafe { mm.kfree(larger.as_ptr()) };
    assert_eq!(overwritten(&mm), []);
}

/// A195: an object that was just handed out shows that nobody has written it, a free one that it is
/// free; what a constructor wrote stays.
#[test]
fn objects_are_poisoned_but_for_those_that_are_constructed() {
    let mm = machine("");
    let id = dogs(&mm, CacheFlags::POISON);
    let object = take(&mm, id);
    assert_eq!(bytes(object, 100), [0xa5; 100]);
    free(&mm, id, object);
    // SAFETY: memory of the machine, which nobody writes now.
    assert_eq!((unsafe { object.read() }, unsafe { object.add(99).read() }), (0x6b, 0xa5));
    let zeroed = mm.kmem_cache_alloc(id, GFP_KERNEL | Gfp::ZERO).unwrap();
    assert_eq!(bytes(zeroed, 100), [0; 100]);
    let ctor: kmem::slab::Ctor = |object, _, _| scribble(object, 0, &[3; 100]);
    let flags = CacheFlags::POISON | CacheFlags::RED_ZONE;
    let cats = mm.kmem_cache_create("cat", 100, 0, flags, Some(ctor), None).unwrap();
    let cat = take(&mm, cats);
    assert_eq!(bytes(cat, 100), [3; 100]);
    free(&mm, cats, cat);
    let all: Vec<_> = (0..60).map(|_| take(&mm, cats)).collect();
    assert!(all.iter().all(|cat| bytes(*cat, 100) == [3; 100]));
    // Its zones are zones.
    scribble(all[7], 100, &[9]);
    assert_eq!(mm.kmem_cache_validate(cats).unwrap().wrong, 1);
    assert_eq!(overwritten(&mm)[0].object.get(), all[7].addr().get());
}

/// A freed object is not used again soon, so a second free, and a late write, find it free.
#[test]
fn the_quarantine_keeps_objects_out_of_use() {
    let mm = machine("");
    let id = dogs(&mm, CacheFlags::QUARANTINE | CacheFlags::POISON);
    let object = take(&mm, id);
    free(&mm, id, object);
    for round in 0..127 {
        let other = take(&mm, id);
        assert_ne!(other, object, "used again after {round} frees");
        free(&mm, id, other);
    }
    free(&mm, id, object);
    let reports = mm.platform().take_reports();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].kind, MisuseKind::DoubleFree);
    scribble(object, 50, &[1]);
    let again = (0..600).any(|_| {
        let other = take(&mm, id);
        free(&mm, id, other);
        other == object
    });
    assert!(again, "lost");
    // It was found when it left the quarantine.
    assert_eq!(overwritten(&mm).len(), 1);
}

/// A double free says who freed the object first, and who had allocated it.
#[test]
fn a_double_free_is_told_with_the_owners() {
    let mm = machine("");
    let id = dogs(&mm, CacheFlags::STORE_USER);
    let (object, allocated) = (take(&mm, id), line!());
    free(&mm, id, object);
    let freed = line!() - 1;
    mm.platform().take_lines();
    free(&mm, id, object);
    assert_eq!(mm.platform().take_reports()[0].kind, MisuseKind::DoubleFree);
    let lines = mm.platform().take_lines();
    let has = |what: &str, line: u32| {
        let site = format!("slab_debug.rs:{line}:");
        lines.iter().any(|text| text.contains(what) && text.contains(&site))
    };
    assert!(has("was allocated", allocated) && has("was freed", freed), "{lines:#?}");
}

/// A162: what is still out is told by who allocated it, how much, and of which cache.
#[test]
fn what_was_not_freed_is_told_by_caller() {
    let mm = machine("U");
    let id = dogs(&mm, CacheFlags::NONE);
    let kept: Vec<_> = (0..3).map(|_| take(&mm, id)).collect();
    let (kept_at, memory) = (line!() - 1, mm.kmalloc(1000, GFP_KERNEL).unwrap());
    (0..40).for_each(|_| free(&mm, id, take(&mm, id)));
    let mut by_line: BTreeMap<(String, u32), Vec<u32>> = BTreeMap::new();
    mm.each_owned(|owned| {
        assert!(owned.caller.site.file().ends_with("slab_debug.rs"), "{owned:?}");
        let key = (owned.cache.to_string(), owned.caller.site.line());
        by_line.entry(key).or_default().push(owned.asked);
    });
    let expected = BTreeMap::from([
        (("dog".to_string(), kept_at), vec![100; 3]),
        (("kmalloc-1k".to_string(), kept_at + 1), vec![1000]),
    ]);
    assert_eq!(by_line, expected);
    kept.into_iter().for_each(|dog| free(&mm, id, dog));
    // SAFETY: the test's own.
    unsafe { mm.kfree(memory.as_ptr()) };
    mm.each_owned(|owned| panic!("{owned:?}"));
}

/// Random work on a machine where all caches are debugged, kmalloc's included: nothing is found that
/// is not there, and objects keep what their holders wrote.
#[test]
fn a_machine_with_all_caches_debugged_works() {
    for rules in ["PZUQ", "Z", "Q", "PU;Q,kmalloc-*"] {
        let mm = machine(rules);
        let mut rng = Rng::new();
        let caches: Vec<(CacheId, usize)> = [8, 40, 100, 600, 3000]
            .map(|size| {
                let name = format!("size-{size}");
                (mm.kmem_cache_create(&name, size, 0, CacheFlags::NONE, None, None).unwrap(), size)
            })
            .to_vec();
        let mut held: HashMap<usize, (usize, Option<CacheId>, u8)> = HashMap::new();
        for step in 0..20_000u32 {
            CPU.with(|cpu| cpu.number.set(rng.below(2) as u32));
            if rng.below(2) == 0 && held.len() < 2000 {
                let (object, size, id) = if rng.below(2) == 0 {
                    let most = 1 << (1 + rng.below(13));
                    let size = 1 + rng.below(most) as usize;
                    (mm.kmalloc(size, GFP_KERNEL).unwrap(), size, None)
                } else {
                    let (id, size) = caches[rng.below(caches.len() as u64) as usize];
                    (take(&mm, id), size, Some(id))
                };
                scribble(object, 0, &vec![step as u8; size]);
                assert!(held.insert(object.addr().get(), (size, id, step as u8)).is_none());
            } else if let Some(address) = held.keys().next().copied() {
                let (size, id, value) = held.remove(&address).unwrap();
                let object = std::ptr::with_exposed_provenance_mut::<u8>(address);
                let object = NonNull::new(object).unwrap();
                assert!(bytes(object, size).iter().all(|byte| *byte == value), "{rules}");
                match id {
                    Some(id) => free(&mm, id, object),
                    // SAFETY: the test's own.
                    None => unsafe { mm.kfree(object.as_ptr()) },
                }
            }
            if step % 4000 == 0 {
                for (id, _) in &caches {
                    assert_eq!(mm.kmem_cache_validate(*id).unwrap().wrong, 0);
                }
                mm.shrink_caches();
            }
        }
        for (address, (_, id, _)) in held {
            let object = NonNull::new(std::ptr::with_exposed_provenance_mut(address)).unwrap();
            match id {
                Some(id) => free(&mm, id, object),
                // SAFETY: the test's own.
                None => unsafe { mm.kfree(object.as_ptr()) },
            }
        }
        CPU.with(|cpu| cpu.number.set(0));
        for (id, _) in caches {
            // SAFETY: nobody uses it any more.
            unsafe { mm.kmem_cache_destroy(id) }.unwrap();
        }
        assert_eq!(overwritten(&mm), []);
        mm.shrink_caches();
        let left = mm.caches().map(|cache| cache.active).sum::<u64>();
        // What the slab layer has for itself.
        assert!(left < 40, "{left} objects are out");
    }
}
