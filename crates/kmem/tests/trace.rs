//! What the manager tells of its work: all of it, once, and in an order that makes sense.

mod common;

use std::collections::HashMap;
use std::ptr::NonNull;

use common::{CPU, Machine, Point, Rig, Rng, Scope, as_cpu};
use kmem::platform::Event;
use kmem::*;

type Traced = Machine<NoReclaim, 12, true>;

/// A machine of two CPUs that lives for ever, so that handlers can have it.
fn machine() -> &'static Traced {
    let mm = Box::leak(Box::new(Mm::new(Rig::new(16 << 20))));
    let map = MemoryMap::new().ram(0..16 << 20, NodeId::ZERO);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &Setup::new().cpus(2)).unwrap() };
    mm.cpu_online(CpuId::new(1).unwrap()).unwrap();
    mm.platform().keeps_events.set(true);
    mm
}

/// Follows events, and fails where one cannot be.
#[derive(Default)]
struct Replay {
    frames: HashMap<u64, ()>,
    objects: HashMap<usize, Option<CacheName>>,
    percpu: HashMap<(usize, usize), ()>,
    chunks: HashMap<usize, ()>,
    pages_allocated: u64,
    pages_freed: u64,
    of_caches: HashMap<String, (u64, u64)>,
    null_frees: u64,
}

impl Replay {
    fn of(events: &[Event]) -> Replay {
        let mut replay = Replay::default();
        for (number, event) in events.iter().enumerate() {
            assert!(replay.follow(event), "event {number} cannot be: {event}");
        }
        replay
    }

    fn follow(&mut self, event: &Event) -> bool {
        match *event {
            Event::PageAlloc { first: Some(first), order, .. } => {
                self.pages_allocated += order.pages();
                let start = first.pfn.number();
                (start..start + order.pages()).all(|frame| self.frames.insert(frame, ()).is_none())
            }
            Event::PageFree { first, order } => {
                self.pages_freed += order.pages();
                let start = first.pfn.number();
                (start..start + order.pages()).all(|frame| self.frames.remove(&frame).is_some())
            }
            Event::Kmalloc { memory: Some(memory), asked, got, .. } => {
                asked <= got && self.objects.insert(memory.get(), None).is_none()
            }
            Event::Kfree { memory: Some(memory), .. } => {
                self.objects.remove(&memory.get()) == Some(None)
            }
            Event::Kfree { memory: None, .. } => {
                self.null_frees += 1;
                true
            }
            Event::CacheAlloc { object: Some(object), cache, asked, got, .. } => {
                self.of_caches.entry(cache.to_string()).or_default().0 += 1;
                asked <= got && self.objects.insert(object.get(), Some(cache)).is_none()
            }
            Event::CacheFree { object, cache, .. } => {
                self.of_caches.entry(cache.to_string()).or_default().1 += 1;
                self.objects.remove(&object.get()) == Some(Some(cache))
            }
            Event::PerCpuAlloc { place, size, got, .. } => {
                let is_in = self.chunks.contains_key(&place.base.get());
                let place = (place.base.get(), place.offset);
                is_in && 2 * size <= got && self.percpu.insert(place, ()).is_none()
            }
            Event::PerCpuFree { place } => {
                self.percpu.remove(&(place.base.get(), place.offset)).is_some()
            }
            Event::PerCpuChunk { base } => self.chunks.insert(base.get(), ()).is_none(),
            Event::PerCpuChunkGone { base } => self.chunks.remove(&base.get()).is_some(),
            _ => true,
        }
    }
}

/// Somebody who allocates and frees at random.
struct Worker {
    mm: &'static Traced,
    cache: CacheId,
    rng: Rng,
    gfp: Gfp,
    objects: Vec<(NonNull<u8>, bool)>,
    pages: Vec<(Page, u32)>,
    percpu: Vec<NonNull<u8>>,
}

impl Worker {
    fn new(mm: &'static Traced, cache: CacheId, gfp: Gfp) -> Worker {
        let (objects, pages, percpu) = (Vec::new(), Vec::new(), Vec::new());
        Worker { mm, cache, rng: Rng::new(), gfp: gfp | Gfp::NOWARN, objects, pages, percpu }
    }

    fn step(&mut self) {
        let (mm, gfp) = (self.mm, self.gfp);
        match self.rng.below(12) {
            0 | 1 => {
                let size = 1 + self.rng.below(300) as usize;
                self.objects.extend(mm.kmalloc(size, gfp).ok().map(|object| (object, false)));
            }
            2 => {
                let size = 1 + self.rng.below(20_000) as usize;
                self.objects.extend(mm.kzalloc(size, gfp).ok().map(|object| (object, false)));
            }
            3 | 4 => {
                let object = mm.kmem_cache_alloc(self.cache, gfp).ok();
                self.objects.extend(object.map(|object| (object, true)));
            }
            5 => {
                let order = self.rng.order(5);
                self.pages.extend(mm.alloc_pages(gfp, order).ok().map(|page| (page, order)));
            }
            6 if gfp.may_sleep() => {
                let object = mm.__alloc_percpu_gfp(1 + self.rng.below(100) as usize, 8, gfp);
                self.percpu.extend(object.ok());
            }
            7 if gfp.may_sleep() => self.many(),
            _ => self.free_one(),
        }
        if self.objects.len() > 200 {
            self.free_one();
        }
    }

    /// Calls with many objects, and those that answer nothing new.
    fn many(&mut self) {
        let (mm, gfp) = (self.mm, self.gfp);
        let mut burst = [None; 24];
        if mm.kmem_cache_alloc_bulk(self.cache, gfp, &mut burst).is_ok() {
            let burst = burst.map(|object| object.unwrap());
            // SAFETY: they are ours.
            unsafe { mm.kmem_cache_free_bulk(self.cache, &burst) };
        }
        // SAFETY: null is no memory.
        unsafe { mm.kfree(std::ptr::null()) };
        let at = self.objects.iter().position(|(_, of_cache)| !of_cache);
        if let Some(at) = at {
            let (object, _) = self.objects.swap_remove(at);
            let size = 1 + self.rng.below(9000) as usize;
            // SAFETY: it is ours, and its old address is forgotten.
            let new = unsafe { mm.krealloc(object.as_ptr(), size, gfp) };
            self.objects.push((new.unwrap_or(object), false));
        }
        assert_eq!(mm.kmalloc(0, gfp), Err(AllocError::ZeroSize));
        if let Ok(page) =
            mm.alloc_contig_pages(3, Order::ZERO, PhysAddr::new(0)..PhysAddr::new(16 << 20), gfp)
        {
            // SAFETY: they are ours.
            unsafe { mm.free_contig_pages(page, 3) };
        }
    }

    fn free_one(&mut self) {
        let mm = self.mm;
        match self.rng.below(3) {
            0 if !self.pages.is_empty() => {
                let (page, order) =
                    self.pages.swap_remove(self.rng.below(self.pages.len() as u64) as usize);
                common::free(mm, page, order);
            }
            1 if !self.percpu.is_empty() => {
                let object =
                    self.percpu.swap_remove(self.rng.below(self.percpu.len() as u64) as usize);
                // SAFETY: it is ours.
                unsafe { mm.free_percpu(object.as_ptr()) };
            }
            _ if !self.objects.is_empty() => {
                let at = self.rng.below(self.objects.len() as u64) as usize;
                let (object, of_cache) = self.objects.swap_remove(at);
                // SAFETY: it is ours.
                unsafe {
                    match of_cache {
                        true => mm.kmem_cache_free(self.cache, object.as_ptr()),
                        false => mm.kfree(object.as_ptr()),
                    }
                }
            }
            _ => {}
        }
    }

    fn free_all(&mut self) {
        while !(self.objects.is_empty() && self.pages.is_empty() && self.percpu.is_empty()) {
            self.free_one();
        }
    }
}

/// Works at random for a while, and gives everything back.
fn work(mm: &'static Traced, cache: CacheId) {
    let mut task = Worker::new(mm, cache, GFP_KERNEL);
    // More than a CPU keeps.
    task.pages.extend((0..800).filter_map(|_| Some((mm.alloc_page(GFP_KERNEL).ok()?, 0))));
    task.objects.extend((0..800).filter_map(|_| Some((mm.kmalloc(64, GFP_KERNEL).ok()?, false))));
    task.free_all();
    for step in 0..3_000 {
        task.step();
        if step % 1000 == 999 {
            mm.drain_all_pages();
        }
    }
    task.free_all();
}

/// Has work done, and follows what was told of it.
fn follow(work: impl FnOnce(&'static Traced, CacheId)) {
    let mm = machine();
    let cache = mm.kmem_cache_create("traced", 100, 0, CacheFlags::NONE, None, None).unwrap();
    let before = mm.counters();
    mm.platform().take_events();
    work(mm, cache);
    let after = mm.counters();
    let replay = Replay::of(&mm.platform().take_events());
    // What a chunk is kept in is memory of kmalloc's.
    assert_eq!(replay.objects.len(), replay.chunks.len());
    assert!(replay.percpu.is_empty() && replay.null_frees > 0);
    let info = mm.caches().find(|info| info.name.as_str() == "traced").unwrap();
    assert_eq!(replay.of_caches["traced"], (info.allocated, info.freed));
    assert!(info.allocated > 1000);
    // Other pages that are not back are those of slabs, and what the slab layer has for itself.
    assert_eq!(replay.pages_freed, after.freed - before.freed);
    assert_eq!(replay.pages_allocated - replay.pages_freed, replay.frames.len() as u64);
}

#[test]
fn what_is_told_can_be_followed_and_is_what_was_counted() {
    follow(work);
}

#[test]
fn it_can_be_followed_when_handlers_work_at_every_event() {
    for (scope, every) in [(Scope::Interrupt, 0), (Scope::Interrupt, 2), (Scope::Nmi, 1)] {
        follow(|mm, cache| {
            let mut other = Worker::new(mm, cache, GFP_ATOMIC);
            CPU.with(|cpu| {
                cpu.arm_every(scope, Some(Point::Trace), every, move |_| {
                    // At its end nothing is to be left.
                    (0..4).for_each(|_| other.step());
                    other.free_all();
                });
            });
            work(mm, cache);
            assert!(CPU.with(|cpu| cpu.disarm()));
        });
    }
}

#[test]
fn it_can_be_followed_when_another_cpu_works_meanwhile() {
    follow(|mm, cache| {
        std::thread::scope(|scope| {
            scope.spawn(|| as_cpu(1, || work(mm, cache)));
            work(mm, cache);
        });
    });
}

#[test]
fn wrong_calls_are_no_events() {
    let mm = machine();
    let cache = mm.kmem_cache_create("traced", 100, 0, CacheFlags::NONE, None, None).unwrap();
    let object = mm.kmem_cache_alloc(cache, GFP_KERNEL).unwrap();
    let small = mm.kmalloc(64, GFP_KERNEL).unwrap();
    let large = mm.kmalloc(100_000, GFP_KERNEL).unwrap();
    let percpu = mm.alloc_percpu::<u64>().unwrap();
    let page = mm.alloc_page(GFP_KERNEL).unwrap();
    mm.platform().take_events();
    let freed_wrongly = || {
        // SAFETY: wrong calls are the subject; they change nothing.
        unsafe {
            mm.kfree(object.as_ptr());
            mm.kmem_cache_free(cache, small.as_ptr());
            mm.kfree(small.as_ptr().wrapping_add(8));
            mm.kfree(large.as_ptr().wrapping_add(4096));
            mm.free_percpu(percpu.as_ptr().cast::<u8>().wrapping_add(4));
            mm.__free_pages(page, 1);
        }
    };
    freed_wrongly();
    assert_eq!(mm.platform().take_reports().len(), 6);
    assert_eq!(mm.platform().take_events(), []);
    // SAFETY: once each, as they were allocated.
    unsafe {
        mm.kmem_cache_free(cache, object.as_ptr());
        mm.kfree(small.as_ptr());
        mm.kfree(large.as_ptr());
        mm.free_percpu(percpu.as_ptr());
        mm.__free_page(page);
    }
    let named = |name| move |event: &&Event| event.name() == name;
    let events = mm.platform().take_events();
    for (name, count) in [("kfree", 2), ("kmem_cache_free", 1), ("percpu_free_percpu", 1)] {
        assert_eq!(events.iter().filter(named(name)).count(), count, "{name}");
    }
    // Once more: they are free, which is no event either.
    // SAFETY: as above.
    unsafe {
        mm.kfree(small.as_ptr());
        mm.kfree(large.as_ptr());
        mm.kmem_cache_free(cache, object.as_ptr());
        mm.__free_page(page);
    }
    assert_eq!(mm.platform().take_reports().len(), 4);
    assert_eq!(mm.platform().take_events(), []);
}

#[test]
fn what_there_is_no_memory_for_is_an_event_without_an_address() {
    let mm = machine();
    let gfp = GFP_NOWAIT | Gfp::NOWARN;
    let mut held: Vec<_> = std::iter::from_fn(|| mm.kmalloc(3000, gfp).ok()).collect();
    assert!(matches!(mm.kmalloc(3000, gfp), Err(AllocError::NoMemory { .. })));
    let events = mm.platform().take_events();
    let failed = |event: &&Event| matches!(event, Event::Kmalloc { memory: None, asked: 3000, .. });
    assert_eq!(events.iter().filter(failed).count(), 2);
    assert!(events.iter().any(|event| matches!(event, Event::PageAlloc { first: None, .. })));
    // SAFETY: they are ours.
    held.drain(..).for_each(|memory| unsafe { mm.kfree(memory.as_ptr()) });
    Replay::of(&[events, mm.platform().take_events()].concat());
}

#[test]
fn an_event_says_whose_call_it_was() {
    let mm = machine();
    let line = line!() + 1;
    let memory = mm.kmalloc(100, GFP_KERNEL).unwrap();
    // SAFETY: it is ours.
    unsafe { mm.kfree(memory.as_ptr()) };
    let sites: Vec<String> = mm
        .platform()
        .take_events()
        .iter()
        .filter_map(|event| match event {
            Event::Kmalloc { site, .. } | Event::Kfree { site, .. } => Some(site.to_string()),
            _ => None,
        })
        .collect();
    let here = |line: u32| format!("{}:{line}+0x0/0x0", file!());
    assert_eq!(sites, [here(line), here(line + 2)]);
}
