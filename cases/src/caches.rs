//! G9: caches.

use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kmem::gfp::GfpError;
use kmem::slab::{Ctor, CtorFlags};
use kmem::{
    AllocError, CacheError, CacheFlags, CacheId, CacheInfo, CpuId, GFP_ATOMIC, GFP_KERNEL,
    GFP_NOWAIT, Gfp, NodeId, ZoneKind, report,
};

use crate::elsewhere::{in_interrupt, last_cpu};
use crate::failure::{at_least, check, equal, some};
use crate::objects::{Held, Memory, Own, address, slab_of, wrong};
use crate::pages::anywhere;
use crate::pressure::press;
use crate::text::{Lines, Text};
use crate::zones::dma;
use crate::{Case, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "one call gives the pages of every cache's empty slabs back",
                &["A168", "A192", "A216"],
                anywhere,
                shrink_all,
            )
            .objects(),
            Case::new(
                "a cache has the name, size and alignment that it was made with",
                &["A187", "A188", "A190", "A191", "A200"],
                anywhere,
                as_it_was_made,
            )
            .objects(),
            Case::new(
                "caches are neither made nor destroyed where sleeping is forbidden",
                &["A188", "A210"],
                anywhere,
                atomic_context,
            )
            .objects()
            .reports(2),
            Case::new(
                "SLAB_HWCACHE_ALIGN puts objects at cache lines, and costs memory",
                &["A193"],
                anywhere,
                lines_of_the_cache,
            )
            .objects(),
            Case::new(
                "SLAB_CACHE_DMA puts slabs into ZONE_DMA, and no other flag does",
                &["A194"],
                dma,
                dma_caches,
            )
            .objects(),
            Case::new(
                "SLAB_PANIC lets a caller go without a look at the result",
                &["A197"],
                anywhere,
                panic_flag,
            )
            .objects(),
            Case::new(
                "a constructor runs for a slab's objects when it is made, a destructor when it goes",
                &["A200", "A201", "A202", "A203", "A204", "A205"],
                anywhere,
                constructors,
            )
            .objects(),
            Case::new(
                "flags of an allocation matter only where the cache must grow",
                &["A206"],
                anywhere,
                flags_matter_for_growth,
            )
            .objects(),
            Case::new(
                "an object that is freed to another cache, or twice, is refused",
                &["A207", "A148"],
                anywhere,
                wrong_frees,
            )
            .objects()
            .reports(9),
            Case::new(
                "a cache with objects in use is not destroyed, says which they are, and works on",
                &["A208", "A209", "A210"],
                anywhere,
                destroy_refused,
            )
            .objects()
            .reports(2),
            Case::new(
                "task_struct: a cache for good, filled at fork and emptied at exit",
                &["A211", "A197", "A193"],
                anywhere,
                task_struct,
            )
            .objects(),
            Case::new(
                "/proc/slabinfo has a line for each cache, with its figures",
                &["A213", "A190", "A323"],
                anywhere,
                slabinfo,
            )
            .objects(),
        ]
    }
}

fn shrink_all<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    mm.shrink_caches();
    let one = Own::new(machine, "one", 100, CacheFlags::NONE)?;
    let two = Own::new(machine, "two", 900, CacheFlags::RECLAIM_ACCOUNT)?;
    let kept = Own::new(machine, "kept", 900, CacheFlags::NO_REAP)?;
    for cache in [&one, &two, &kept] {
        let mut held = Held::of(cache);
        held.fill(400, GFP_KERNEL)?;
        held.finish()?;
    }
    let pages = |cache: &Own<'_, M>| -> Result<u64, Failure> {
        let info = cache.info()?;
        equal(info.active, 0, "all objects are back")?;
        Ok(info.slabs.slabs() * info.order.pages())
    };
    let (all, left_alone) = (pages(&one)? + pages(&two)?, pages(&kept)?);
    at_least(all, 2, "a free gives no pages back")?;
    let free = mm.free_page_count();
    at_least(mm.shrink_caches(), all, "one call has the pages of all caches")?;
    at_least(mm.free_page_count(), free + all, "and they are free")?;
    equal(pages(&one)? + pages(&two)?, 0, "an empty slab is left to nobody")?;
    equal(pages(&kept)?, left_alone, "but to a cache that is not to be shrunk")?;
    equal(mm.kmem_cache_shrink(kept.id), left_alone, "unless it is named")
}

fn as_it_was_made<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    for (align, wanted) in [(0, 8), (8, 8), (32, 32), (256, 256)] {
        let id = mm.kmem_cache_create("dentry", 24, align, CacheFlags::NONE, None, None)?;
        let cache = Own { machine, id, name: "dentry" };
        equal(cache.info()?.size as u64, 24, "it has the size asked for")?;
        let mut held = Held::of(&cache);
        held.fill(50, GFP_KERNEL)?;
        held.each(|object| check(object.is_multiple_of(wanted), "objects are aligned as asked"))?;
        held.finish()?;
    }
    let make = |name, size, align, dtor: Option<Ctor>| {
        mm.kmem_cache_create(name, size, align, CacheFlags::NONE, None, dtor)
    };
    let refused = [
        (make("odd", 8, 12, None), CacheError::Align(12)),
        (make("nothing", 0, 0, None), CacheError::Size { size: 0, align: 8 }),
        (make("dtor-only", 8, 0, Some(destruct)), CacheError::DtorWithoutCtor),
    ];
    let named = make("two words", 8, 0, None);
    check(matches!(named, Err(CacheError::Name(_))), "a name is one word")?;
    for (found, wanted) in refused {
        check(found == Err(wanted), "what cannot be is an error, and no panic")?;
    }
    let first = Own::new(machine, "inode_cache", 400, CacheFlags::NOTRACK)?;
    let second = make("inode_cache", 8, 0, None);
    check(matches!(second, Err(CacheError::NameTaken(_))), "a name is one cache's")?;
    drop(first);
    Ok(())
}

fn atomic_context<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let cache = Own::new(machine, "task", 100, CacheFlags::NONE)?;
    in_interrupt(machine, CpuId::BOOT, || {
        let made = mm.kmem_cache_create("handler", 100, 0, CacheFlags::NONE, None, None);
        check(made == Err(CacheError::Atomic), "a handler makes no cache")?;
        // SAFETY: it is refused, and nobody uses it.
        let destroyed = unsafe { mm.kmem_cache_destroy(cache.id) };
        check(destroyed == Err(CacheError::Atomic), "and destroys none")?;
        // It uses one.
        let object = cache.take(GFP_ATOMIC)?;
        // SAFETY: just taken.
        unsafe { cache.free(object) };
        Ok(())
    })
}

fn lines_of_the_cache<M: Machine>(machine: &M) -> Result<(), Failure> {
    const LINE: usize = 64;
    for size in [40, 65, 100, 130, 260] {
        let dense = Own::new(machine, "dense", size, CacheFlags::NONE)?.info()?;
        let cache = Own::new(machine, "aligned", size, CacheFlags::HWCACHE_ALIGN)?;
        let mut held = Held::of(&cache);
        held.fill(80, GFP_KERNEL)?;
        held.each(|object| check(object.is_multiple_of(LINE), "an object begins at a line"))?;
        held.finish()?;
        let aligned = cache.info()?;
        let per_page =
            |info: &CacheInfo| u64::from(info.objects_per_slab) * 1000 / info.order.pages();
        at_least(per_page(&dense), per_page(&aligned) + 1, "which costs memory")?;
    }
    Ok(())
}

fn dma_caches<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let zone = |object: usize| {
        let (page, _) = slab_of(machine, object)?;
        Ok::<ZoneKind, Failure>(some(mm.page_zone(page), "a zone")?.kind())
    };
    let cache = Own::new(machine, "for-dma", 500, CacheFlags::CACHE_DMA)?;
    let plain = Own::new(machine, "not-for-dma", 500, CacheFlags::NONE)?;
    for gfp in [GFP_KERNEL, GFP_KERNEL | Gfp::DMA] {
        let mut held = Held::of(&cache);
        held.fill(100, gfp)?;
        held.each(|object| check(zone(object)? == ZoneKind::Dma, "devices reach its slabs"))?;
        held.finish()?;
    }
    let mut held = Held::of(&plain);
    held.fill(100, GFP_KERNEL)?;
    let lowest = mm.zonelist(NodeId::ZERO, GFP_KERNEL).next().map(|zone| zone.kind());
    held.each(|object| check(Some(zone(object)?) == lowest, "others lie elsewhere"))?;
    held.finish()?;
    let refused = mm.kmem_cache_alloc(plain.id, GFP_KERNEL | Gfp::DMA);
    let error = AllocError::BadFlags(GfpError::NotForObjects(Gfp::DMA));
    check(refused == Err(error), "it is the cache that is for DMA, and not the request")
}

fn panic_flag<M: Machine>(machine: &M) -> Result<(), Failure> {
    // That it panics where it fails cannot be shown here: a kernel's panic is its end.
    let cache = Own::new(machine, "must-be", 100, CacheFlags::PANIC)?;
    check(cache.info()?.flags.contains(CacheFlags::PANIC), "a cache keeps its flags")?;
    let object = cache.take(GFP_KERNEL)?;
    // SAFETY: just taken.
    unsafe { cache.free(object) };
    Ok(())
}

/// What constructors and destructors have seen. They know their object only, so there is one of this,
/// for one case at a time.
struct Seen {
    busy: AtomicBool,
    constructed: AtomicU64,
    destructed: AtomicU64,
    atomic: AtomicU64,
    wrong: AtomicU64,
}

static SEEN: Seen = Seen {
    busy: AtomicBool::new(false),
    constructed: AtomicU64::new(0),
    destructed: AtomicU64::new(0),
    atomic: AtomicU64::new(0),
    wrong: AtomicU64::new(0),
};

/// What a constructed object begins with.
const MARK: u64 = 0x0b5e_55ed_d065_0001;

fn construct(object: NonNull<u8>, _: CacheId, flags: CtorFlags) {
    if !flags.contains(CtorFlags::CONSTRUCTOR) {
        SEEN.wrong.fetch_add(1, Ordering::Relaxed);
    }
    if flags.contains(CtorFlags::ATOMIC) {
        SEEN.atomic.fetch_add(1, Ordering::Relaxed);
    }
    SEEN.constructed.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the object is being made, and has a word.
    unsafe { object.cast::<u64>().write(MARK) };
}

fn destruct(object: NonNull<u8>, _: CacheId, flags: CtorFlags) {
    // SAFETY: the object is nobody's any more, and has a word.
    let found = unsafe { object.cast::<u64>().read() };
    if flags.contains(CtorFlags::CONSTRUCTOR) || found != MARK {
        SEEN.wrong.fetch_add(1, Ordering::Relaxed);
    }
    SEEN.destructed.fetch_add(1, Ordering::Relaxed);
}

/// The right to look at [`SEEN`].
struct Turn;

impl Turn {
    fn wait() -> Turn {
        // Acquire pairs with the Release below: the counts are this turn's.
        while SEEN.busy.swap(true, Ordering::Acquire) {
            core::hint::spin_loop();
        }
        for count in [&SEEN.constructed, &SEEN.destructed, &SEEN.atomic, &SEEN.wrong] {
            count.store(0, Ordering::Relaxed);
        }
        Turn
    }

    fn counts(&self) -> (u64, u64) {
        (SEEN.constructed.load(Ordering::Relaxed), SEEN.destructed.load(Ordering::Relaxed))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        SEEN.busy.store(false, Ordering::Release);
    }
}

fn constructors<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let turn = Turn::wait();
    for size in [8, 100, 3000] {
        let (flags, begun) = (CacheFlags::NONE, turn.counts());
        let id =
            mm.kmem_cache_create("constructed", size, 0, flags, Some(construct), Some(destruct))?;
        let cache = Own { machine, id, name: "constructed" };
        let made = || turn.counts().0 - begun.0;
        equal(made(), 0, "without a slab there is no object to construct")?;
        let each = u64::from(cache.info()?.objects_per_slab);
        let first = cache.take(GFP_KERNEL)?;
        equal(made() % each, 0, "all objects of a slab are constructed at once")?;
        at_least(made(), 1, "before one is handed out")?;
        equal(SEEN.atomic.load(Ordering::Relaxed), 0, "where sleeping is allowed, they may")?;
        let before = made();
        // SAFETY: just taken, and as it was constructed.
        let mark = unsafe { first.cast::<u64>().read() };
        check(mark == MARK, "an object is handed out as it was constructed")?;
        // SAFETY: as above.
        unsafe { cache.free(first) };
        for _ in 0..10 {
            let object = cache.take(GFP_KERNEL)?;
            // SAFETY: just taken, and as it was constructed.
            unsafe { cache.free(object) };
        }
        equal(made(), before, "an allocation constructs nothing")?;
        let zeroed = mm.kmem_cache_alloc(id, GFP_KERNEL | Gfp::ZERO);
        check(zeroed.is_err(), "what was constructed is not cleared")?;
        equal(turn.counts().1, begun.1, "and a free destructs nothing")?;
        mm.kmem_cache_shrink(id);
        equal(turn.counts().1 - begun.1, made(), "all are destructed before their pages go")?;

        // A slab that is made in a handler: its constructor must not sleep.
        in_interrupt(machine, CpuId::BOOT, || {
            let object = cache.take(GFP_ATOMIC)?;
            // SAFETY: just taken, and as it was constructed.
            unsafe { cache.free(object) };
            Ok(())
        })?;
        let atomic = SEEN.atomic.swap(0, Ordering::Relaxed);
        equal(atomic, made() - before, "a constructor is told that it must not sleep")?;
        at_least(atomic, each, "as that slab's was")?;
        drop(cache);
        let (constructed, destructed) = turn.counts();
        equal(destructed, constructed, "with the cache all are destructed that were constructed")?;
    }
    equal(SEEN.wrong.load(Ordering::Relaxed), 0, "each call said rightly what it was for")
}

fn flags_matter_for_growth<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let cache = Own::new(machine, "at-hand", 100, CacheFlags::NONE)?;
    let mut held = Held::of(&cache);
    held.fill(1, GFP_KERNEL)?;
    let info = cache.info()?;
    // What other caches keep and nobody uses would be had back.
    mm.shrink_caches();
    let pressed = press(machine, Gfp::NONE);
    mm.reclaim().answer_from(0);
    let free = info.objects() - info.active;
    at_least(free, 1, "a slab has more than one object")?;
    // No flag would get a page: none is needed.
    for number in 0..free {
        held.fill(1, [GFP_NOWAIT, GFP_KERNEL, GFP_ATOMIC][number as usize % 3])?;
    }
    equal(mm.reclaim().calls(), 0, "nothing was reclaimed for them")?;
    let nowait = mm.kmem_cache_alloc(cache.id, GFP_NOWAIT | Gfp::NOWARN);
    check(matches!(nowait, Err(AllocError::NoMemory { .. })), "the next needs a page")?;
    equal(mm.reclaim().calls(), 0, "which GFP_NOWAIT does not reclaim for")?;
    let kernel = mm.kmem_cache_alloc(cache.id, GFP_KERNEL | Gfp::NORETRY | Gfp::NOWARN);
    check(kernel.is_err(), "neither has GFP_KERNEL where nothing can be reclaimed")?;
    at_least(mm.reclaim().calls(), 1, "but it tries")?;
    // The reserve is for handlers.
    let atomic = mm.kmem_cache_alloc(cache.id, GFP_ATOMIC | Gfp::NOWARN)?;
    // SAFETY: just taken.
    unsafe { cache.free(atomic) };
    drop(pressed);
    held.finish()
}

fn wrong_frees<M: Machine>(machine: &M) -> Result<(), Failure> {
    const FILE: &str = "caches.rs:";
    const OTHERS: &str = "another cache's";
    let mm = machine.mm();
    let dogs = Own::new(machine, "dogs", 100, CacheFlags::NONE)?;
    let cats = Own::new(machine, "cats", 100, CacheFlags::NONE)?;
    let (dog, cat) = (dogs.take(GFP_KERNEL)?, cats.take(GFP_KERNEL)?);
    let memory = Memory::new(machine, 100, GFP_KERNEL)?;
    let small = some(NonNull::new(memory.pointer()), "memory")?;
    // SAFETY: so many bytes are this case's.
    unsafe {
        dog.write_bytes(1, 100);
        cat.write_bytes(2, 100);
    }
    // SAFETY: the manager refuses these.
    unsafe {
        wrong(machine, OTHERS, FILE, || dogs.free(cat))?;
        wrong(machine, OTHERS, FILE, || cats.free(dog))?;
        wrong(machine, OTHERS, FILE, || dogs.free(small))?;
        wrong(machine, OTHERS, FILE, || mm.kfree(dog.as_ptr()))?;
        wrong(machine, "inside an object", FILE, || dogs.free(dog.add(8)))?;
        wrong(machine, "inside an object", FILE, || dogs.free(dog.add(99)))?;
    }
    for (object, byte) in [(dog, 1), (cat, 2)] {
        // SAFETY: the object is still this case's.
        let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), 100) };
        check(bytes.iter().all(|found| *found == byte), "the objects are unharmed")?;
    }
    // A right free is one in the object's own slab.
    let before = dogs.info()?.active;
    // SAFETY: taken above.
    unsafe { dogs.free(dog) };
    equal(dogs.info()?.active, before - 1, "a free is counted in the object's own cache")?;
    // SAFETY: the manager refuses it: nothing was taken since.
    wrong(machine, "double free", FILE, || unsafe { dogs.free(dog) })?;
    let other = cats.take(GFP_KERNEL)?;
    wrong(machine, "double free", FILE, || {
        let object = address(dog);
        machine.run_on(last_cpu(machine), &|| {
            let object = core::ptr::with_exposed_provenance_mut(object);
            // SAFETY: as above: no other object of this cache was taken.
            unsafe { mm.kmem_cache_free(dogs.id, object) };
        });
    })?;
    check(other != cat && other != dog, "no object is handed out twice")?;
    // SAFETY: taken above.
    unsafe {
        cats.free(cat);
        cats.free(other);
    }
    let gone = dogs.id;
    drop(dogs);
    wrong(machine, "has been destroyed", FILE, || {
        // SAFETY: the manager refuses it: the cache is gone.
        unsafe { mm.kmem_cache_free(gone, dog.as_ptr()) }
    })
}

fn destroy_refused<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let cache = Own::new(machine, "leaky", 100, CacheFlags::NONE)?;
    let mut held = Held::of(&cache);
    held.fill(40, GFP_KERNEL)?;
    for left in [40, 3, 1] {
        let mut number = 0;
        held.free_if(|_| {
            number += 1;
            number > left
        });
        let lines = machine.log_lines();
        // SAFETY: nobody uses it meanwhile.
        let refused = unsafe { mm.kmem_cache_destroy(cache.id) };
        check(refused == Err(CacheError::InUse(left)), "it is refused, with their number")?;
        let named = left.min(8);
        equal(machine.log_lines() - lines, 1 + named, "the log names the first of them")?;
        let mut text = Text::new();
        machine.last_log_line(&mut text)?;
        check(text.contains("leaky"), "and their cache")?;
        // It is as it was.
        equal(cache.info()?.active, left, "the objects are still in use")?;
        held.fill(5, GFP_KERNEL)?;
    }
    held.finish()?;
    // SAFETY: as above.
    check(unsafe { mm.kmem_cache_destroy(cache.id) } == Ok(()), "without objects it goes")?;
    // SAFETY: it is refused.
    let again = unsafe { mm.kmem_cache_destroy(cache.id) };
    check(again == Err(CacheError::NoSuchCache), "once")?;
    for _ in 0..2 {
        let object = mm.kmem_cache_alloc(cache.id, GFP_KERNEL);
        check(object == Err(AllocError::NoSuchCache), "it has no objects any more")?;
    }
    core::mem::forget(cache);
    Ok(())
}

/// Something of a task's size.
#[repr(C)]
struct Task {
    pid: u64,
    rest: [u64; 200],
}

fn task_struct<M: Machine>(machine: &M) -> Result<(), Failure> {
    const LINE: usize = 64;
    let mm = machine.mm();
    let size = size_of::<Task>();
    let id = mm.kmem_cache_create("task_struct", size, LINE, CacheFlags::PANIC, None, None)?;
    let cache = Own { machine, id, name: "task_struct" };
    // Each CPU forks and exits, all at once; a task may exit on another CPU than it was forked on.
    let forked = AtomicU64::new(0);
    let wrong = AtomicU64::new(0);
    machine.concurrently(&|cpu| {
        let mut children = Held::of(&cache);
        for round in 0..200u64 {
            let Ok(task) = cache.take(GFP_KERNEL) else {
                wrong.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let pid = u64::from(cpu.get()) << 32 | round;
            let task = task.cast::<Task>();
            if !address(task.cast()).is_multiple_of(LINE) {
                wrong.fetch_add(1, Ordering::Relaxed);
            }
            // SAFETY: just taken, with the bytes of a task, aligned to a line.
            let found = unsafe {
                task.write(Task { pid, rest: [pid; 200] });
                task.read()
            };
            if found.pid != pid || found.rest.iter().any(|word| *word != pid) {
                wrong.fetch_add(1, Ordering::Relaxed);
            }
            children.push(task.cast());
            forked.fetch_add(1, Ordering::Relaxed);
            if round % 3 == 0 {
                children.free_if(|_| true);
            }
        }
        if !children.intact {
            wrong.fetch_add(1, Ordering::Relaxed);
        }
    });
    equal(wrong.load(Ordering::Relaxed), 0, "each task has a structure of its own, at a line")?;
    let info = cache.info()?;
    equal(info.active, 0, "with its exit a task's structure is free")?;
    equal(info.allocated, forked.load(Ordering::Relaxed), "there was one for each fork")?;
    // The text never destroys it. It is there when there is no task, and for the next fork.
    mm.shrink_caches();
    let task = cache.take(GFP_KERNEL)?;
    // SAFETY: just taken.
    unsafe { cache.free(task) };
    Ok(())
}

fn slabinfo<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let cache = Own::new(machine, "blkdev_requests", 300, CacheFlags::NONE)?;
    let mut held = Held::of(&cache);
    held.fill(70, GFP_KERNEL)?;
    let info = cache.info()?;
    let wanted =
        [70, info.objects(), info.stride as u64, info.objects_per_slab.into(), info.order.pages()];
    let found = Cell::new(0);
    let mut lines = Lines::new(|number, line| {
        let mut words = line.split_whitespace();
        match number {
            0 => check(line == "slabinfo - version: 2.1", "the version comes first"),
            1 => {
                let columns =
                    "# name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> :";
                let same = columns.split(' ').all(|column| words.next() == Some(column));
                check(same, "then the columns")
            }
            _ => {
                let name = some(words.next(), "a cache's name")?;
                let ours = name == "blkdev_requests";
                found.set(found.get() + u64::from(ours));
                for wanted in wanted {
                    let figure = words.next().and_then(|word| word.parse().ok());
                    let figure = some(figure, "a figure for each column")?;
                    if ours {
                        equal(figure, wanted, "which is the cache's")?;
                    }
                }
                check(words.any(|word| word == "slabdata"), "and how many slabs it has")
            }
        }
    });
    report::slabinfo(mm, &mut lines)?;
    equal(lines.finish()?, 2 + mm.caches().count() as u64, "a line for each cache")?;
    equal(found.get(), 1, "ours is among them, under its name")?;
    held.finish()
}
