//! Checks that matter when two do something at one moment, or when memory is not as it was left: such
//! moments made by hand.

use core::mem::MaybeUninit;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Instant;
use std::vec::Vec;

use super::super::Mm;
use super::super::tests::{Cpu, boot};
use super::free::Found;
use super::tests::at;
use crate::page::{PageFlags, SlabView};
use crate::platform::MisuseKind;
use crate::slab::{Entry, Magazine, NodeSlabs, Record, Shared, State, TRACK};
use crate::{CacheFlags, CacheId, CpuError, CpuId, GFP_ATOMIC, NodeId};

fn dogs(mm: &Mm<Cpu<'_>>, flags: CacheFlags) -> CacheId {
    mm.kmem_cache_create("dogs", 100, 0, flags, None, None).unwrap()
}

fn take(mm: &Mm<Cpu<'_>>, id: CacheId) -> NonNull<u8> {
    mm.kmem_cache_alloc(id, GFP_ATOMIC).unwrap()
}

fn free(mm: &Mm<Cpu<'_>>, id: CacheId, object: NonNull<u8>) {
    // SAFETY: right, or wrong on purpose; nothing uses the object.
    unsafe { mm.kmem_cache_free(id, object.as_ptr()) };
}

fn free_all(mm: &Mm<Cpu<'_>>, id: CacheId, objects: impl IntoIterator<Item = NonNull<u8>>) {
    objects.into_iter().for_each(|object| free(mm, id, object));
}

fn found<'m>(mm: &'m Mm<Cpu<'_>>, object: NonNull<u8>) -> Found<'m> {
    mm.find_object(mm.tables().unwrap(), object.addr().get()).ok().unwrap()
}

fn destroy(mm: &Mm<Cpu<'_>>, id: CacheId) {
    // SAFETY: nobody uses it.
    assert_eq!(unsafe { mm.kmem_cache_destroy(id) }, Ok(()));
    assert_eq!(mm.reports(), []);
    mm.verify().unwrap();
}

fn in_nmi<T>(mm: &Mm<Cpu<'_>>, work: impl FnOnce() -> T) -> T {
    mm.platform.nmi.store(true, Relaxed);
    let result = work();
    mm.platform.nmi.store(false, Relaxed);
    result
}

/// How many objects the own magazine of this CPU has, and room for.
fn magazine(mm: &Mm<Cpu<'_>>, id: CacheId) -> (u32, u32) {
    let tables = mm.tables().unwrap();
    let look = mm.with_own(tables, tables.cache(id).unwrap(), |own, entered| {
        let own = own.own(entered);
        (own.len(), own.high())
    });
    look.unwrap()
}

/// What an operation on the cache of an object needs, and the cache's slabs.
fn node<'m, 'r>(mm: &'m Mm<Cpu<'r>>, found: &'m Found<'m>) -> (Shared<'m, Cpu<'r>>, &'m NodeSlabs) {
    (mm.shared(mm.tables().unwrap(), found.kind()), &found.cache.nodes()[0])
}

/// An entry that is not good is not among many objects that are taken at once.
///
/// A148, A206
#[test]
fn many_objects_taken_at_once_are_looked_at_each() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let id = dogs(&mm, CacheFlags::NONE);
    for cpu in [1, 0] {
        mm.as_cpu(cpu, || free(&mm, id, take(&mm, id)));
    }
    let dog = take(&mm, id);
    mm.as_cpu(1, || {
        let other = take(&mm, id);
        free_all(&mm, id, [dog, other]);
    });
    // CPU 0 had looked before.
    at(&mm, dog).state.set(State::HELD);
    free(&mm, id, dog);
    assert_eq!(mm.reports(), []);
    let mut burst = [None; 8];
    mm.as_cpu(1, || mm.kmem_cache_alloc_bulk(id, GFP_ATOMIC, &mut burst)).unwrap();
    assert!(!burst.contains(&Some(dog)), "handed out for the entry that is not good");
    assert_eq!(mm.reports(), [MisuseKind::ConcurrentFree]);
    assert_eq!(take(&mm, id), dog);
    free_all(&mm, id, burst.into_iter().flatten().chain([dog]));
    destroy(&mm, id);
}

/// A slab that was named in vain, and is gone since: its memory is somebody else's.
///
/// A148, A186
#[test]
fn a_slab_that_is_gone_is_not_looked_through() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let id = dogs(&mm, CacheFlags::NONE);
    let dog = take(&mm, id);
    let (found, at) = (found(&mm, dog), at(&mm, dog));
    let descriptor = mm.tables().unwrap().memmap.at(at.head);
    let (slab, (of, slabs)) = (descriptor.slab(), node(&mm, &found));
    // As a slab that departs, and as one of another cache.
    for departs in [true, false] {
        let goes = || match departs {
            true => _ = descriptor.clear(PageFlags::Objects),
            false => descriptor.set_slab(SlabView { cache: slab.cache + 1, ..slab }),
        };
        let comes_back = || match departs {
            true => _ = descriptor.set(PageFlags::Objects),
            false => descriptor.set_slab(slab),
        };
        slabs.alone(of, || {
            // Not to the magazine.
            let give = || slabs.give(of, NodeId::ZERO, dog.addr().get(), None, true, |_| ());
            assert!(in_nmi(&mm, give));
            assert!(at.state.get() == State::ASIDE);
            goes();
        });
        let free_objects = slabs.counts(of).unwrap().0.free;
        assert!(at.state.get() == State::ASIDE, "a byte of somebody else's was written");
        comes_back();
        assert_eq!(slabs.counts(of).unwrap().0.free, free_objects);
        at.state.set(State::HELD);
    }
    drop(found);
    free(&mm, id, dog);
    destroy(&mm, id);
}

/// Of two depots that CPUs make at one moment the node keeps the first with what is in it, unless the
/// other has more room.
///
/// A174
#[test]
fn a_depot_gives_way_to_a_larger_one_alone() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let id = dogs(&mm, CacheFlags::NONE);
    let objects: Vec<_> = (0..3).map(|_| take(&mm, id)).collect();
    let found = found(&mm, objects[0]);
    let (of, slabs) = node(&mm, &found);
    free_all(&mm, id, objects);
    mm.drain_local_caches(mm.tables().unwrap(), usize::from(id.number)..usize::from(id.number) + 1);
    let (room, held) = (slabs.depot_room(of).unwrap(), slabs.counts(of).unwrap().1);
    assert!(room > 3 && held >= 3, "{held} of {room}");
    let mut slots = Vec::<MaybeUninit<Entry>>::with_capacity(2 * room as usize);
    let slots = NonNull::new(slots.as_mut_ptr()).unwrap().cast::<Entry>();
    for count in [2, room] {
        // SAFETY: there is room for so many, and nobody else uses it.
        let left = slabs.set_depot(of, unsafe { Magazine::new(slots, count) });
        assert_eq!((left.slots(), left.len(), left.high()), (Some(slots), 0, count));
        assert_eq!((slabs.depot_room(of), slabs.counts(of).unwrap().1), (Some(room), held));
    }
    // SAFETY: as above.
    let first = slabs.set_depot(of, unsafe { Magazine::new(slots, 2 * room) });
    assert_eq!((first.len(), first.high()), (0, room));
    assert_eq!((slabs.depot_room(of), slabs.counts(of).unwrap().1), (Some(2 * room), held));
    // What is in it goes back before its slots do.
    assert_eq!(mm.empty_depot(slabs, of).slots(), Some(slots));
    mm.free_magazine(mm.tables().unwrap(), first);
    drop(found);
    destroy(&mm, id);
}

/// Of two that want to make a cache in a place at one moment one gets it, though the other may have
/// seen it free.
///
/// A187
#[test]
fn a_place_for_a_cache_is_claimed_by_one() {
    const ROUNDS: u32 = 30_000;
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let id = dogs(&mm, CacheFlags::NONE);
    let (tables, number) = (mm.tables().unwrap(), usize::from(id.number));
    let kind = *tables.caches()[number].kind().unwrap();
    destroy(&mm, id);
    let (place, line) = (&tables.caches()[number], &AtomicU32::new(0));
    let (clock, moment) = (Instant::now(), &AtomicU64::new(0));
    let (taken, twice) = (&AtomicU32::new(0), &AtomicU32::new(0));
    let meet = move |stop: u32| {
        line.fetch_add(1, SeqCst);
        let mut spins = 0;
        while line.load(SeqCst) < 2 * stop {
            spins += 1;
            // Seldom: who yields often shares a processor with the other, and never races.
            if spins % 20_000 == 0 {
                std::thread::yield_now();
            }
        }
    };
    std::thread::scope(|scope| {
        for number in 0..2 {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    if number == 0 {
                        moment.store(clock.elapsed().as_nanos() as u64 + 700, SeqCst);
                    }
                    meet(2 * round + 1);
                    // Whoever comes last to a meeting leaves it first: both wait for a moment, and
                    // then each in turn for up to a hundred cycles more.
                    while clock.elapsed().as_nanos() < moment.load(SeqCst).into() {}
                    let held_up = if round % 2 == number { round / 2 % 128 } else { 0 };
                    (0..held_up).for_each(|turn| _ = core::hint::black_box(turn));
                    let claimed = place.claim();
                    if claimed {
                        // SAFETY: claimed, as far as this knows; nobody uses the nodes.
                        unsafe { place.open(kind, 12) };
                        taken.fetch_add(1, SeqCst);
                    }
                    meet(2 * round + 2);
                    // The other one waits for this round's end; where both have it one ends it.
                    let claims = if claimed { taken.swap(0, SeqCst) } else { 0 };
                    if claims > 0 {
                        twice.fetch_add(claims - 1, SeqCst);
                        place.close(core::hint::spin_loop);
                        place.release();
                    }
                }
            });
        }
    });
    assert_eq!(twice.load(SeqCst), 0, "of {ROUNDS} times");
    let again = dogs(&mm, CacheFlags::NONE);
    assert!(again.number == id.number && again != id);
    destroy(&mm, again);
}

/// A CPU that is at its magazines after all, while somebody takes it out, keeps them with what is in
/// them.
///
/// A086
#[test]
fn a_cpu_that_is_at_its_magazines_keeps_them() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let id = dogs(&mm, CacheFlags::NONE);
    let (tables, one) = (mm.tables().unwrap(), CpuId::new(1).unwrap());
    let cache = tables.cache(id).unwrap();
    mm.as_cpu(1, || {
        let dog = take(&mm, id);
        free(&mm, id, dog);
        let before = magazine(&mm, id);
        let offline = mm.with_own(tables, cache, |_, _| {
            // SAFETY: wrong on purpose; the CPU waits.
            mm.as_cpu(0, || unsafe { mm.cpu_offline(one) })
        });
        assert_eq!((offline, mm.is_online(one)), (Some(Err(CpuError::Busy(one))), true));
        assert_eq!(magazine(&mm, id), before);
        assert_eq!(take(&mm, id), dog);
        free(&mm, id, dog);
    });
    // SAFETY: it does nothing now.
    unsafe { mm.cpu_offline(one) }.unwrap();
    assert!(tables.cpu_cache(one, cache).is_none());
    destroy(&mm, id);
}

/// An NMI handler gives its CPU no more slots: that takes memory.
///
/// A119, A174
#[test]
fn an_nmi_handler_gives_no_slots() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let id = dogs(&mm, CacheFlags::NONE);
    let mut objects: Vec<_> = (0..300).map(|_| take(&mm, id)).collect();
    let fill = |objects: &mut Vec<_>| {
        while let (len, high) = magazine(&mm, id)
            && len < high
        {
            free(&mm, id, objects.pop().unwrap());
        }
        magazine(&mm, id).1
    };
    let room = fill(&mut objects);
    // So that a handler would get the memory: it is in a slab.
    let slots = mm.kmalloc(2 * room as usize * size_of::<Entry>(), GFP_ATOMIC).unwrap();
    mm.free_internal(mm.tables().unwrap(), slots.as_ptr().expose_provenance());
    in_nmi(&mm, || free(&mm, id, objects.pop().unwrap()));
    let (len, high) = magazine(&mm, id);
    assert!(len < room && high == room, "{len} of {high}, and {room} before");
    // Others do.
    assert_eq!(fill(&mut objects), room);
    free(&mm, id, objects.pop().unwrap());
    assert_eq!(magazine(&mm, id), (room + 1, 2 * room));
    free_all(&mm, id, objects);
    destroy(&mm, id);
}

/// A magazine that could not be emptied stays.
///
/// A119, A186
#[test]
fn a_magazine_with_objects_keeps_its_slots() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let id = dogs(&mm, CacheFlags::NONE);
    let objects: Vec<_> = (0..200).map(|_| take(&mm, id)).collect();
    let (dog, (_, room)) = (objects[0], magazine(&mm, id));
    let found = found(&mm, dog);
    let (of, slabs) = node(&mm, &found);
    free_all(&mm, id, objects);
    let before = magazine(&mm, id);
    assert!(before.0 > room && before.1 > room, "{before:?}");
    let which = usize::from(id.number)..usize::from(id.number) + 1;
    let drain = || mm.drain_local_caches(mm.tables().unwrap(), which.clone());
    // The handler does not get the lock.
    slabs.alone(of, || in_nmi(&mm, drain)).unwrap();
    assert_eq!(magazine(&mm, id), before);
    drain();
    assert_eq!(magazine(&mm, id), (0, room));
    drop(found);
    destroy(&mm, id);
}

/// Somebody has written over who had an object: nobody is said to have had it.
///
/// A162
#[test]
fn an_owner_that_was_overwritten_is_not_believed() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let id = dogs(&mm, CacheFlags::STORE_USER);
    let dogs = [take(&mm, id), take(&mm, id)];
    let owned = || {
        let mut owned = Vec::new();
        mm.each_owned(|one| owned.push(one.object.get()));
        owned.sort();
        owned
    };
    let mut both = dogs.map(|dog| dog.addr().get());
    both.sort();
    assert_eq!(owned(), both);
    {
        let (found, at) = (found(&mm, dogs[0]), at(&mm, dogs[0]));
        let slab = mm.tables().unwrap().memmap.at(at.head).slab();
        let tracks = Record::bytes(found.kind().geometry.objects);
        let track = slab.record + (tracks + at.object * TRACK) as usize;
        let site = core::ptr::with_exposed_provenance_mut::<usize>(track);
        let other = core::ptr::from_ref(Location::caller()).expose_provenance();
        // SAFETY: a track begins with the place where the object was allocated.
        unsafe {
            assert!(*site != 0 && *site != other);
            *site = other;
        }
    }
    assert_eq!(owned(), [dogs[1].addr().get()]);
    free_all(&mm, id, dogs);
    destroy(&mm, id);
}

/// A place whose cache ends is nobody else's before the one that ends it is done with it.
///
/// A187, A208
#[test]
fn a_place_whose_cache_ends_is_not_claimed_meanwhile() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let id = dogs(&mm, CacheFlags::NONE);
    let place = mm.tables().unwrap().cache(id).unwrap();
    let pinned = core::cell::RefCell::new(place.pin());
    place.close(|| {
        // Whoever looked at it is done, and another CPU makes a cache before this one looks again.
        pinned.borrow_mut().take();
        assert!(!place.claim(), "somebody else has the place that is about to be emptied");
    });
    place.release();
}
