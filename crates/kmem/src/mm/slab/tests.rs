//! What a race of two CPUs for an object leaves behind, made by hand: the race itself is the
//! integration tests'.

use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;
use std::vec::Vec;

use super::super::Mm;
use super::super::tests::{Cpu, boot};
use super::free::{Found, held_object};
use crate::platform::MisuseKind;
use crate::slab::{At, Entry, Lists, State};
use crate::{
    CacheError, CacheFlags, CacheId, CpuId, GFP_ATOMIC, GFP_KERNEL, Gfp, NodeId, Order, VirtAddr,
};

/// A cache on a machine with two CPUs, and one of its objects' byte.
fn dogs(mm: &Mm<Cpu<'_>>) -> CacheId {
    mm.kmem_cache_create("dogs", 100, 0, CacheFlags::NONE, None, None).unwrap()
}

fn free_dog(mm: &Mm<Cpu<'_>>, dogs: CacheId, dog: NonNull<u8>) {
    // SAFETY: right, or wrong on purpose; nothing uses the object.
    unsafe { mm.kmem_cache_free(dogs, dog.as_ptr()) };
}

/// Where an object lies, whose slab stays.
pub(super) fn at<'m>(mm: &'m Mm<Cpu<'_>>, object: NonNull<u8>) -> At<'m> {
    let found = found(mm, object);
    let of = mm.shared(mm.tables().unwrap(), found.kind());
    of.look(object.addr().get()).unwrap()
}

/// What a CPU has seen that looked before another one freed the object: it is held.
fn seen_held(mm: &Mm<Cpu<'_>>, dog: NonNull<u8>) {
    at(mm, dog).state.set(State::HELD);
}

/// An object that two CPUs freed at one moment is in both their magazines; the entry that is not good
/// is found wherever it goes from there, and the object is handed out for the other alone.
#[test]
fn an_object_in_two_magazines_is_handed_out_once() {
    type Leave = for<'r> fn(&Mm<Cpu<'r>>, CacheId) -> Option<NonNull<u8>>;
    let ways: [Leave; 3] = [
        |mm, dogs| mm.kmem_cache_alloc(dogs, GFP_KERNEL).ok(),
        |mm, dogs| {
            mm.kmem_cache_shrink(dogs);
            None
        },
        |mm, dogs| {
            // More than the magazine holds, even when it was given more slots: the coldest go to the
            // depot.
            let held: Vec<_> = (0..300)
                .map(|_| mm.as_cpu(0, || mm.kmem_cache_alloc_node(dogs, GFP_KERNEL, None).unwrap()))
                .collect();
            held.into_iter().for_each(|dog| free_dog(mm, dogs, dog));
            None
        },
    ];
    for (way, leave) in ways.into_iter().enumerate() {
        let mut ram = std::vec![0; 17 << 20];
        let mm = boot(&mut ram);
        let dogs = dogs(&mm);
        // Each has a magazine.
        for cpu in [1, 0] {
            mm.as_cpu(cpu, || free_dog(&mm, dogs, mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap()));
        }
        let dog = mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap();
        mm.as_cpu(1, || free_dog(&mm, dogs, dog));
        seen_held(&mm, dog);
        free_dog(&mm, dogs, dog);
        assert_eq!(mm.reports(), [], "way {way}");
        // The byte says CPU 0: the entry of CPU 1 is not good. In the last way CPU 0 has it in use.
        let own = (way == 2).then(|| mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap());
        assert!(own.is_none_or(|own| own == dog));
        let other = mm.as_cpu(1, || leave(&mm, dogs));
        assert_eq!(mm.reports(), [MisuseKind::ConcurrentFree], "way {way}");
        assert_ne!(other, Some(dog), "way {way}");
        // Enough to have all that there are.
        let more = (own.is_none()).then(|| {
            (0..60).map(|_| mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap()).collect::<Vec<_>>()
        });
        let own: Vec<_> = own.into_iter().chain(more.into_iter().flatten()).collect();
        assert_eq!(own.iter().filter(|own| **own == dog).count(), 1, "way {way}");
        own.into_iter().for_each(|own| free_dog(&mm, dogs, own));
        assert_eq!(mm.reports(), [], "way {way}");
    }
}

/// An object that went to the depot, and was freed once more by a CPU that had looked before, is not
/// handed out for the depot's entry.
#[test]
fn an_object_in_the_depot_that_is_freed_again_is_handed_out_once() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let dogs = dogs(&mm);
    let dog = mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap();
    let others: Vec<_> = (0..5).map(|_| mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap()).collect();
    mm.as_cpu(1, || free_dog(&mm, dogs, mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap()));
    free_dog(&mm, dogs, dog);
    let tables = mm.tables().unwrap();
    let found = mm.find_object(tables, dog.addr().get()).ok().unwrap();
    mm.make_depot(tables, &found.cache, found.kind(), NodeId::ZERO);
    mm.drain_local_caches(tables, 0..tables.caches().len());
    let state = at(&mm, dog).state;
    assert!(state.get() == State::DEPOT);
    seen_held(&mm, dog);
    mm.as_cpu(1, || free_dog(&mm, dogs, dog));
    assert_eq!(mm.reports(), []);
    let own: Vec<_> = (0..60).map(|_| mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap()).collect();
    assert!(!own.contains(&dog), "handed out for the depot's entry");
    assert_eq!(mm.reports(), [MisuseKind::ConcurrentFree]);
    assert_eq!(mm.as_cpu(1, || mm.kmem_cache_alloc(dogs, GFP_KERNEL)), Ok(dog));
    own.into_iter().chain(others).chain([dog]).for_each(|dog| free_dog(&mm, dogs, dog));
    assert_eq!(mm.reports(), []);
}

/// Under the node's lock a slab takes an object back that is held, and no other.
#[test]
fn a_slab_takes_no_object_that_is_in_a_magazine() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let dogs = dogs(&mm);
    let dog = mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap();
    let tables = mm.tables().unwrap();
    let found = mm.find_object(tables, dog.addr().get()).ok().unwrap();
    let of = mm.shared(tables, found.kind());
    let slabs = &found.cache.nodes()[0];
    let give = || {
        let (address, wrong) = (dog.addr().get(), |wrong| panic!("{wrong}"));
        slabs.give(of, NodeId::ZERO, address, None, true, wrong)
    };
    at(&mm, dog).state.set(State::of(CpuId::new(1).unwrap()).unwrap());
    assert!(!give());
    at(&mm, dog).state.set(State::HELD);
    assert!(give());
    assert!(at(&mm, dog).state.get() == State::FREE);
    assert!(!give());
}

/// A free that comes so late that the object is in its slab again: the slab does not hand it out too.
#[test]
fn an_object_that_is_freed_late_is_not_taken_from_its_slab() {
    for through_magazine in [true, false] {
        let mut ram = std::vec![0; 17 << 20];
        let mm = boot(&mut ram);
        let dogs = dogs(&mm);
        let (kept, dog) =
            (mm.kmem_cache_alloc(dogs, GFP_KERNEL), mm.kmem_cache_alloc(dogs, GFP_KERNEL));
        let (kept, dog) = (kept.unwrap(), dog.unwrap());
        mm.as_cpu(1, || free_dog(&mm, dogs, mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap()));
        free_dog(&mm, dogs, dog);
        for cpu in [1, 0, 1] {
            mm.as_cpu(cpu, || mm.kmem_cache_shrink(dogs));
        }
        seen_held(&mm, dog);
        mm.as_cpu(1, || free_dog(&mm, dogs, dog));
        // CPU 1 has handed it out already, or not yet.
        let early =
            mm.as_cpu(1, || through_magazine.then(|| mm.kmem_cache_alloc(dogs, GFP_KERNEL)));
        assert!(early.is_none_or(|early| early == Ok(dog)));
        let own: Vec<_> = (0..60).map(|_| mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap()).collect();
        assert!(!own.contains(&dog), "handed out twice");
        assert_eq!(mm.reports()[0], MisuseKind::ConcurrentFree);
        if through_magazine {
            free_dog(&mm, dogs, dog);
            assert_eq!(mm.reports(), [], "its holder frees it as ever");
        }
        own.into_iter().chain([kept]).for_each(|dog| free_dog(&mm, dogs, dog));
        assert_eq!(mm.reports(), []);
    }
}

/// A cache whose CPUs have magazines that are empty, and one of its objects, which is the only one.
fn one_dog(mm: &Mm<Cpu<'_>>) -> (CacheId, NonNull<u8>) {
    let dogs = dogs(mm);
    for cpu in [1, 0] {
        mm.as_cpu(cpu, || free_dog(mm, dogs, mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap()));
    }
    let dog = mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap();
    for cpu in [1, 0] {
        mm.as_cpu(cpu, || mm.drain_local_caches(mm.tables().unwrap(), 0..100));
    }
    (dogs, dog)
}

/// Somebody who takes all pages and fills them.
struct Others(Vec<VirtAddr>, u8);

impl Others {
    fn take(mm: &Mm<Cpu<'_>>, fill: u8) -> Others {
        let page = || mm.__get_free_page(GFP_ATOMIC | Gfp::NOWARN).ok();
        let pages: Vec<_> = core::iter::from_fn(page).collect();
        for page in &pages {
            // SAFETY: the page is ours.
            unsafe { page.as_ptr::<u8>().write_bytes(fill, 4096) };
        }
        Others(pages, fill)
    }

    /// Looks that nobody else has written to them, and gives them back.
    fn leave(self, mm: &Mm<Cpu<'_>>) {
        for page in self.0 {
            // SAFETY: the page is ours.
            let bytes = unsafe { core::slice::from_raw_parts(page.as_ptr::<u8>(), 4096) };
            assert!(bytes.iter().all(|byte| *byte == self.1), "somebody wrote to {page}");
            // SAFETY: as above, and nothing uses it any more.
            unsafe { mm.free_page(page) };
        }
    }
}

fn found<'m>(mm: &'m Mm<Cpu<'_>>, dog: NonNull<u8>) -> Found<'m> {
    mm.find_object(mm.tables().unwrap(), dog.addr().get()).ok().unwrap()
}

/// What CPU 1 knows that looks at an object in its section, before it puts it into its magazine; then
/// `meanwhile`, and then it does.
fn free_late(mm: &Mm<Cpu<'_>>, dog: NonNull<u8>, meanwhile: impl FnOnce()) {
    let tables = mm.tables().unwrap();
    let cache = &tables.caches()[usize::from(found(mm, dog).number())];
    mm.as_cpu(1, || {
        let put = mm.with_own(tables, cache, |own, entered| {
            let address = dog.addr().get();
            let (page, physical) = mm.page_at::<true>(tables, address).ok().unwrap();
            let (state, _) = held_object(cache, page.slab_word(), page, physical).unwrap();
            mm.as_cpu(0, meanwhile);
            let entry = Entry { object: address, state };
            assert!(own.own(entered).push(entry));
            entry.set(own.state);
        });
        assert!(put.is_some());
    });
}

/// A CPU has looked at an object. Another one frees it, and its slab is the last thing that memory can
/// be had from. Only when the first CPU has been by the pages go.
///
/// A148, A186
#[test]
fn a_slab_stays_while_a_cpu_is_about_to_write_to_it() {
    for can_call in [false, true] {
        // What says where an object is, and a byte that says nothing.
        for fill in [0, 1, 2, 3, 4, 5, 0xa5] {
            let mut ram = std::vec![0; 17 << 20];
            let mm = boot(&mut ram);
            mm.platform.can_call.store(can_call, Relaxed);
            let (dogs, dog) = one_dog(&mm);
            free_late(&mm, dog, || {
                free_dog(&mm, dogs, dog);
                assert_eq!(mm.kmem_cache_shrink(dogs), 0, "a CPU is in its section");
                Others::take(&mm, fill).leave(&mm);
            });
            // The CPU has an entry, and the object is free: where it can be called it is gone now.
            let others = Others::take(&mm, fill);
            let given = mm.kmem_cache_shrink(dogs);
            assert_eq!(given > 0, can_call);
            let last = Others::take(&mm, fill);
            assert_eq!(last.0.is_empty(), !can_call);
            mm.as_cpu(1, || {
                let own = mm.kmem_cache_alloc(dogs, GFP_ATOMIC | Gfp::NOWARN);
                assert!(own.is_err() || !can_call);
                own.into_iter().for_each(|own| free_dog(&mm, dogs, own));
            });
            others.leave(&mm);
            last.leave(&mm);
            assert_eq!(mm.reports(), [MisuseKind::ConcurrentFree]);
            for cpu in [1, 0] {
                mm.as_cpu(cpu, || mm.drain_local_caches(mm.tables().unwrap(), 0..100));
            }
            mm.kmem_cache_shrink(dogs);
            // SAFETY: nobody uses it.
            assert_eq!(unsafe { mm.kmem_cache_destroy(dogs) }, Ok(()));
        }
    }
}

/// An object of a slab that is leaving was handed out once more, for an entry that was not good and
/// that nobody had drained yet: the slab stays, and its holder frees the object.
#[test]
fn a_slab_does_not_go_while_an_object_of_it_is_held() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let (dogs, dog) = one_dog(&mm);
    let tables = mm.tables().unwrap();
    free_late(&mm, dog, || {
        free_dog(&mm, dogs, dog);
        assert_eq!(mm.kmem_cache_shrink(dogs), 0);
    });
    mm.as_cpu(1, || {
        let found = found(&mm, dog);
        // It has not seen yet that it is asked to drain.
        assert!(
            tables.cpu_cache(CpuId::new(1).unwrap(), &found.cache).unwrap().section.take_request()
        );
        assert_eq!(mm.kmem_cache_alloc(dogs, GFP_KERNEL), Ok(dog));
        mm.drain_local_caches(tables, 0..100);
    });
    assert_eq!(mm.kmem_cache_shrink(dogs), 0, "its holder writes to it");
    // SAFETY: it was just handed out.
    unsafe { dog.write_bytes(0x11, 100) };
    mm.as_cpu(1, || free_dog(&mm, dogs, dog));
    mm.platform.can_call.store(true, Relaxed);
    assert_eq!(mm.kmem_cache_shrink(dogs), 1);
    assert_eq!(mm.reports(), [MisuseKind::ConcurrentFree]);
}

/// Objects of a slab that is leaving go to the slab, and neither to a magazine nor to the depot, whose
/// CPUs may have acknowledged its departure already.
#[test]
fn objects_of_a_slab_that_is_leaving_go_nowhere_else() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let (dogs, dog) = one_dog(&mm);
    let byte = at(&mm, dog).state;
    free_late(&mm, dog, || {
        free_dog(&mm, dogs, dog);
        mm.kmem_cache_shrink(dogs);
    });
    // A free of a CPU that has acknowledged it.
    seen_held(&mm, dog);
    free_dog(&mm, dogs, dog);
    assert!(byte.get() == State::FREE);
    assert_eq!(mm.reports(), [MisuseKind::ConcurrentFree]);
    // What is in the magazine of the other, which drains: there is a depot that has room.
    byte.set(State::of(CpuId::new(1).unwrap()).unwrap());
    let tables = mm.tables().unwrap();
    {
        let found = found(&mm, dog);
        mm.make_depot(tables, &found.cache, found.kind(), NodeId::ZERO);
    }
    mm.as_cpu(1, || mm.drain_local_caches(tables, 0..100));
    assert!(byte.get() == State::FREE);
    assert_eq!(mm.reports(), [MisuseKind::ConcurrentFree]);
    assert_eq!(mm.kmem_cache_shrink(dogs), 1);
}

/// An entry of the depot whose object its slab has goes before the slab does.
#[test]
fn a_depot_has_no_entry_of_a_slab_that_is_leaving() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let (dogs, dog) = one_dog(&mm);
    let tables = mm.tables().unwrap();
    let found = found(&mm, dog);
    mm.make_depot(tables, &found.cache, found.kind(), NodeId::ZERO);
    free_dog(&mm, dogs, dog);
    mm.drain_local_caches(tables, 0..100);
    assert!(at(&mm, dog).state.get() == State::DEPOT);
    // Another CPU had looked before, and it went to the slab.
    let (of, slabs) = (mm.shared(tables, found.kind()), &found.cache.nodes()[0]);
    at(&mm, dog).state.set(State::HELD);
    let wrong = |wrong| panic!("{wrong}");
    assert!(slabs.give(of, NodeId::ZERO, dog.addr().get(), None, false, wrong));
    let in_depot = || slabs.counts(of).unwrap().1;
    assert!(in_depot() > 0);
    let mut strays = Vec::new();
    let retired = slabs.retire(of, found.cache.departures(), 1, |entry| strays.push(entry.object));
    assert_eq!((retired, strays, in_depot()), (1, std::vec![dog.addr().get()], 0));
}

/// Of a late free of an object that its slab has nothing is left: the slab hands it out as ever.
#[test]
fn an_object_that_was_freed_late_is_not_lost() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let (dogs, dog) = one_dog(&mm);
    free_late(&mm, dog, || {
        free_dog(&mm, dogs, dog);
        // Not a shrink, which would have the slab leave.
        mm.drain_local_caches(mm.tables().unwrap(), 0..100);
        let (found, tables) = (found(&mm, dog), mm.tables().unwrap());
        let depot = mm.empty_depot(&found.cache.nodes()[0], mm.shared(tables, found.kind()));
        mm.free_magazine(tables, depot);
    });
    mm.as_cpu(1, || mm.drain_local_caches(mm.tables().unwrap(), 0..100));
    assert_eq!(mm.reports(), [MisuseKind::ConcurrentFree]);
    let objects = mm.caches().find(|cache| cache.name.as_str() == "dogs").unwrap().objects();
    let all: Vec<_> =
        (0..objects).map(|_| mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap()).collect();
    assert_eq!(mm.caches().find(|cache| cache.name.as_str() == "dogs").unwrap().objects(), objects);
    assert!(all.contains(&dog));
    all.into_iter().for_each(|dog| free_dog(&mm, dogs, dog));
    assert_eq!(mm.reports(), []);
}

/// A CPU acknowledges a departure when its magazines are empty, and not when it could not empty them;
/// one that comes to have magazines later has seen it.
#[test]
fn departures_are_acknowledged_by_empty_magazines() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let tables = mm.tables().unwrap();
    let dogs = dogs(&mm);
    // The second one fills the magazine.
    let other = mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap();
    let dog = mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap();
    let found = found(&mm, dog);
    let (of, slabs) = (mm.shared(tables, found.kind()), &found.cache.nodes()[0]);
    found.cache.departures().announce();
    let own = |cpu| tables.cpu_cache(CpuId::new(cpu).unwrap(), &found.cache).unwrap();
    let before = own(0).acknowledged();
    slabs.alone(of, || {
        mm.platform.nmi.store(true, Relaxed);
        mm.drain_local_caches(tables, 0..100);
        mm.platform.nmi.store(false, Relaxed);
    });
    assert_eq!((own(0).acknowledged(), own(0).section.is_requested()), (before, true));
    mm.drain_local_caches(tables, 0..100);
    assert_eq!((own(0).acknowledged(), own(0).section.is_requested()), (before + 1, false));
    mm.as_cpu(1, || free_dog(&mm, dogs, mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap()));
    assert_eq!(own(1).acknowledged(), before + 1);
    [other, dog].into_iter().for_each(|dog| free_dog(&mm, dogs, dog));
}

/// Of two frees at one moment the later one was of an object that its slab had by then; the entry was
/// handed out. That is one holder, and a slab that has all of its objects.
fn held_although_in_its_slab(mm: &Mm<Cpu<'_>>) -> (CacheId, NonNull<u8>) {
    let (dogs, dog) = one_dog(mm);
    let tables = mm.tables().unwrap();
    free_late(mm, dog, || {
        free_dog(mm, dogs, dog);
        mm.drain_local_caches(tables, 0..100);
        let found = found(mm, dog);
        let depot = mm.empty_depot(&found.cache.nodes()[0], mm.shared(tables, found.kind()));
        mm.free_magazine(tables, depot);
    });
    mm.as_cpu(1, || assert_eq!(mm.kmem_cache_alloc(dogs, GFP_KERNEL), Ok(dog)));
    (dogs, dog)
}

/// A148, A208
#[test]
fn a_cache_is_not_destroyed_while_an_object_of_it_is_held_that_its_slab_has() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let (dogs, dog) = held_although_in_its_slab(&mm);
    // SAFETY: nobody uses the cache meanwhile.
    let destroy = || unsafe { mm.kmem_cache_destroy(dogs) };
    assert_eq!(destroy(), Err(CacheError::InUse(1)));
    free_dog(&mm, dogs, dog);
    assert_eq!(destroy(), Ok(()));
    let reports = mm.reports();
    assert!(reports.iter().all(|kind| *kind == MisuseKind::ConcurrentFree), "{reports:?}");
    mm.verify().unwrap();
}

/// Its holder frees the object while somebody looks whether the slab can go.
///
/// A148, A186
#[test]
fn a_slab_that_cannot_go_is_one_all_the_time() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let (_, dog) = held_although_in_its_slab(&mm);
    let tables = mm.tables().unwrap();
    for cpu in [1, 0] {
        mm.as_cpu(cpu, || mm.drain_local_caches(tables, 0..100));
    }
    let found = found(&mm, dog);
    let (map, head) = (&tables.memmap, at(&mm, dog).head);
    let mut lists = Lists::new(found.kind().geometry.objects, Order::ZERO);
    // SAFETY: the slab is the cache's; its own lists are not used meanwhile.
    unsafe { lists.add(map, head) };
    assert!(lists.retire(map));
    assert_eq!(lists.depart(map, || panic!("it was none for a moment")), None);
    assert!(map.at(head).is_slab() && lists.leaving_since().is_none());
}
