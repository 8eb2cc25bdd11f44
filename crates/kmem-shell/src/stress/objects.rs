//! One CPU's share of the work with objects: kmalloc and caches.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kmem::boot::LARGEST_OBJECT;
use kmem::{
    AllocError, CacheError, CacheFlags, CacheId, CacheInfo, CpuId, GFP_KERNEL, Gfp, Mm, NodeId,
    Platform, Reclaim,
};

use super::object::{Object, ObjectCache, construct, destruct};
use super::random::Random;
use super::{Problem, Shared};

/// The largest request, as a power of two: beyond the largest object, so that pages serve it.
const LARGEST: u32 = LARGEST_OBJECT.ilog2() + 1;

/// The largest of most requests: where memory is low, larger ones are refused more often than not,
/// after all that can be tried.
const COMMON: u32 = 13;

/// At most this much of its share of pages a worker holds as objects, and at most so many bytes:
/// most are small, and a list of millions would be the larger part.
const PART: u64 = 4;
const MOST_BYTES: u64 = 16 << 20;

/// How many objects go to another worker, or of a cache that comes and goes, at once.
const MANY: u64 = 48;

/// What is asked for, to begin with.
const FLAGS: [Gfp; 7] =
    [Gfp::KERNEL, Gfp::KERNEL, Gfp::ATOMIC, Gfp::NOWAIT, Gfp::NOIO, Gfp::NOFS, Gfp::USER];

/// The objects that a worker holds.
pub(super) struct Objects<'a, P, R> {
    mm: &'a Mm<P, R>,
    shared: &'a Shared,
    cpu: CpuId,
    held: Vec<Object>,
    /// How many bytes are held, and how many the worker wants to hold.
    bytes: u64,
    wanted: u64,
    /// How many caches it has made.
    caches: u64,
}

/// Has kmalloc make what it keeps for itself on this CPU: a magazine for each size. It comes with the
/// first request of a size, and stays, whether there is memory for the request or not.
pub(super) fn warm_up<P: Platform, R: Reclaim>(mm: &Mm<P, R>) {
    for size in classes(mm) {
        // It may have memory given back that other sizes keep: all of them together may be more than there is.
        for gfp in [GFP_KERNEL, GFP_KERNEL | Gfp::DMA] {
            if let Ok(memory) = mm.kmalloc(size, gfp | Gfp::NOWARN | Gfp::NORETRY) {
                // SAFETY: just allocated.
                unsafe { mm.kfree(memory.as_ptr()) };
            }
        }
    }
}

/// The caches of kmalloc's for which CPUs have magazines once they have used them: none of one that is
/// debugged, nor on a machine where CPUs have no lists of pages, either.
pub(super) fn with_magazines<P: Platform, R: Reclaim>(mm: &Mm<P, R>) -> Vec<CacheInfo> {
    let names: Vec<String> = classes(mm)
        .flat_map(|size| ["kmalloc", "dma-kmalloc"].map(|prefix| name(prefix, size)))
        .collect();
    let is_kmalloc = |cache: &CacheInfo| names.iter().any(|name| name == cache.name.as_str());
    mm.caches()
        .filter(|cache| mm.has_pagesets() && !cache.flags.is_debugging() && is_kmalloc(cache))
        .collect()
}

/// The name of a cache of kmalloc's.
fn name(prefix: &str, size: usize) -> String {
    match size.is_multiple_of(1 << 10) {
        true => format!("{prefix}-{}k", size >> 10),
        false => format!("{prefix}-{size}"),
    }
}

/// The sizes of kmalloc's objects.
fn classes<P: Platform, R: Reclaim>(mm: &Mm<P, R>) -> impl Iterator<Item = usize> {
    let next = |size: usize| {
        let size = mm.kmalloc_size_roundup(size + 1);
        (1..=LARGEST_OBJECT).contains(&size).then_some(size)
    };
    core::iter::successors(next(0), move |size| next(*size))
}

/// Makes the caches that all CPUs and the interrupt handlers share.
pub(super) fn make_caches<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
) -> Result<Vec<ObjectCache>, CacheError> {
    let kinds = [
        (24, CacheFlags::NONE, false),
        (100, CacheFlags::HWCACHE_ALIGN, false),
        (700, CacheFlags::RECLAIM_ACCOUNT, true),
        (3000, CacheFlags::NO_REAP, false),
    ];
    let mut made = Vec::new();
    for (size, flags, constructed) in kinds {
        match create(mm, &format!("stress-{size}"), size, 0, flags, constructed) {
            Ok(id) => made.push(ObjectCache { id, size, constructed }),
            Err(error) => {
                // SAFETY: nobody has used them.
                unsafe { destroy_caches(mm, &made) }?;
                return Err(error);
            }
        }
    }
    Ok(made)
}

fn create<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    name: &str,
    size: usize,
    align: usize,
    flags: CacheFlags,
    constructed: bool,
) -> Result<CacheId, CacheError> {
    let (ctor, dtor) =
        if constructed { (Some(construct as _), Some(destruct as _)) } else { (None, None) };
    mm.kmem_cache_create(name, size, align, flags, ctor, dtor)
}

/// Destroys caches none of whose objects is in use.
///
/// # Safety
///
/// Nobody uses them.
pub(super) unsafe fn destroy_caches<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    caches: &[ObjectCache],
) -> Result<(), CacheError> {
    // SAFETY: the caller's promise.
    caches.iter().try_for_each(|cache| unsafe { mm.kmem_cache_destroy(cache.id) })
}

/// The size of a request to kmalloc.
fn any_size(random: &mut Random) -> usize {
    let largest = if random.one_in(4) { LARGEST } else { COMMON };
    size(random, largest)
}

/// A size from 1 byte to 2^`largest`, each doubling as likely as another.
pub(super) fn size(random: &mut Random, largest: u32) -> usize {
    let least = 1 << random.below(u64::from(largest));
    least + random.below(least as u64) as usize
}

impl<'a, P: Platform, R: Reclaim> Objects<'a, P, R> {
    pub(super) fn new(mm: &'a Mm<P, R>, shared: &'a Shared, cpu: CpuId) -> Self {
        let mut new = Objects { mm, shared, cpu, held: Vec::new(), bytes: 0, wanted: 0, caches: 0 };
        new.wanted = new.share();
        new
    }

    fn share(&self) -> u64 {
        ((self.shared.share << P::PAGE_SHIFT) / PART).min(MOST_BYTES)
    }

    /// Changes how much is to be held.
    pub(super) fn change_mood(&mut self, random: &mut Random) {
        self.wanted = random.below(self.share() + 1);
    }

    /// One allocation or one free, and now and then something else.
    pub(super) fn step(&mut self, random: &mut Random) {
        let grow = self.bytes < self.wanted;
        // Three of four steps lead to where the worker wants to be.
        if grow != random.one_in(4) || self.held.is_empty() {
            if self.allocate(random).is_err() {
                self.shared.counts.refused();
            }
        } else {
            let object = self.take_out(random);
            self.free(random, object);
        }
        if random.one_in(16)
            && let Some(object) = self.shared.objects.take(random.any())
        {
            self.shared.counts.freed_elsewhere();
            self.free(random, object);
        }
        match random.below(1 << 13) {
            0 => self.come_and_go(random),
            1 => self.free_wrongly(random),
            2..16 => self.hand_over(random),
            16..24 => self.take_over(),
            24 if random.one_in(8) => _ = self.mm.shrink_caches(),
            25..28 => _ = self.mm.kmem_cache_shrink(self.shared.any_cache(random).id),
            28..512 => self.resize(random),
            _ => {}
        }
    }

    /// Gives all back.
    pub(super) fn finish(&mut self) {
        while let Some(object) = self.held.pop() {
            self.free_now(object);
        }
    }

    fn take_out(&mut self, random: &mut Random) -> Object {
        let index = random.below(self.held.len() as u64) as usize;
        let object = self.held.swap_remove(index);
        self.bytes -= object.size as u64;
        object
    }

    fn keep(&mut self, object: Object) {
        self.bytes += object.size as u64;
        self.held.push(object);
    }

    /// Frees an object, or leaves it for others to free.
    fn free(&mut self, random: &mut Random, object: Object) {
        let mut left = Some(object);
        if random.one_in(8) && !self.shared.stopped() {
            left = self.shared.objects.post(random.any(), object).err();
        }
        if let Some(object) = left {
            self.free_now(object);
        }
    }

    fn free_now(&self, object: Object) {
        // SAFETY: the object was this worker's, or was left for whoever takes it.
        if let Err(problem) = unsafe { object.free(self.mm) } {
            self.shared.fail(problem);
        }
    }

    fn allocate(&mut self, random: &mut Random) -> Result<(), AllocError> {
        let mut gfp = self.flags(random);
        let object = match random.below(16) {
            0..7 => {
                let cache = self.shared.any_cache(random);
                if cache.constructed {
                    gfp -= Gfp::ZERO;
                }
                Object::of_cache(self.mm, cache, gfp, random)?
            }
            way => {
                if way == 7 {
                    gfp |= Gfp::DMA;
                }
                let node = NodeId::new(random.below(kmem::MAX_NODES as u64) as u32);
                let node = node.filter(|node| way < 10 && self.mm.nodes().contains(*node));
                Object::kmalloc(self.mm, any_size(random), gfp, node, random)?
            }
        };
        self.begin(object, gfp);
        Ok(())
    }

    /// Stamps an object that was just taken, and keeps it.
    fn begin(&mut self, object: Object, gfp: Gfp) {
        self.shared.counts.took_object();
        // SAFETY: it was just taken.
        if let Err(problem) = unsafe { object.begin(gfp) } {
            self.shared.fail(problem);
        }
        self.keep(object);
    }

    /// Running out is part of the scenario, so it is nothing to warn of, and one try is enough.
    fn flags(&self, random: &mut Random) -> Gfp {
        let gfp = FLAGS[random.below(FLAGS.len() as u64) as usize];
        let gfp = gfp | Gfp::NOWARN | Gfp::NORETRY;
        if random.one_in(16) { gfp | Gfp::ZERO } else { gfp }
    }

    /// Makes one of kmalloc's larger or smaller.
    fn resize(&mut self, random: &mut Random) {
        if self.held.is_empty() {
            return;
        }
        let mut object = self.take_out(random);
        if object.cache.is_none() {
            let gfp = self.flags(random) - Gfp::ZERO;
            // SAFETY: it is this worker's.
            if let Err(problem) = unsafe { object.resize(self.mm, any_size(random), gfp) } {
                self.shared.fail(problem);
            }
        }
        self.keep(object);
    }

    /// Leaves many objects for another worker, who finds all of them at once.
    fn hand_over(&mut self, random: &mut Random) {
        for _ in 0..MANY.min(self.held.len() as u64) {
            let object = self.take_out(random);
            if let Err(object) = self.shared.objects.post(random.any(), object) {
                self.keep(object);
            }
        }
    }

    /// Frees all that others have left.
    fn take_over(&self) {
        for object in self.shared.objects.take_all() {
            self.shared.counts.freed_elsewhere();
            self.free_now(object);
        }
    }

    /// Frees an object that is held as it must not be freed. It is reported, and the object stays.
    fn free_wrongly(&mut self, random: &mut Random) {
        if self.held.is_empty() {
            return;
        }
        let object = self.held[random.below(self.held.len() as u64) as usize];
        let other = |cache: &&ObjectCache| object.cache.is_none_or(|own| own.id != cache.id);
        let inside = random.below(object.size as u64) as usize;
        self.shared.counts.made_wrong_free();
        // SAFETY: each is refused: the object is of another cache, or the address is inside it.
        unsafe {
            match (random.below(3), object.cache) {
                (0, Some(_)) => self.mm.kfree(object.address()),
                (1, Some(own)) if inside > 0 => {
                    self.mm.kmem_cache_free(own.id, object.address().add(inside));
                }
                (1, None) if inside > 0 => self.mm.kfree(object.address().add(inside)),
                _ => {
                    // There are several, so one is another.
                    if let Some(cache) = self.shared.caches.iter().find(other) {
                        self.mm.kmem_cache_free(cache.id, object.address());
                    }
                }
            }
        }
    }

    /// Looks whether something was written beside a cache's objects, or into free ones.
    fn validate(&self, id: CacheId) {
        match self.mm.kmem_cache_validate(id) {
            Ok(found) if found.wrong + found.records == 0 => {}
            Ok(found) => self.shared.fail(Problem::Overwritten(found.wrong + found.records)),
            Err(error) => self.shared.fail(Problem::Cache(error)),
        }
    }

    /// A cache of this worker's alone, from its making to its end. One of its objects is freed twice.
    fn come_and_go(&mut self, random: &mut Random) {
        let size = size(random, COMMON);
        let constructed = size >= size_of::<u64>() && random.one_in(2);
        let align = if random.one_in(2) { 0 } else { 1 << random.below(8) };
        let flags = [
            CacheFlags::NONE,
            CacheFlags::HWCACHE_ALIGN,
            CacheFlags::RECLAIM_ACCOUNT,
            CacheFlags::NO_REAP,
            CacheFlags::RED_ZONE | CacheFlags::STORE_USER,
            CacheFlags::DEBUG,
        ];
        // A constructor's contents are not poison's.
        let kinds = if constructed { 4 } else { flags.len() as u64 };
        let flags = flags[random.below(kinds) as usize];
        let name = format!("stress-{}-{}", self.cpu.get(), self.caches);
        self.caches += 1;
        let id = match create(self.mm, &name, size, align, flags, constructed) {
            Ok(id) => id,
            // The machine has many CPUs for its places.
            Err(CacheError::TooMany(_)) => return self.shared.counts.refused(),
            Err(error) => return self.shared.fail(Problem::Cache(error)),
        };
        let cache = ObjectCache { id, size, constructed };
        let (count, gfp) = (1 + random.below(MANY) as usize, GFP_KERNEL | Gfp::NOWARN);
        let taken: Vec<Object> = if random.one_in(2) {
            Object::bulk(self.mm, cache, count, gfp, random).unwrap_or_default()
        } else {
            let one = |_| Object::of_cache(self.mm, cache, gfp, random).ok();
            (0..count).map_while(one).collect()
        };
        if taken.len() < count {
            self.shared.counts.refused();
        }
        for object in &taken {
            self.shared.counts.took_object();
            let address = object.address().addr();
            if align > 0 && !address.is_multiple_of(align) {
                self.shared.fail(Problem::UnalignedObject { address, align });
            }
            // SAFETY: it was just taken.
            if let Err(problem) = unsafe { object.begin(gfp) } {
                self.shared.fail(problem);
            }
        }
        self.validate(id);
        let (twice, others) = taken.split_at(taken.len().min(1));
        let (single, many) = others.split_at(random.below(others.len() as u64 + 1) as usize);
        for object in single.iter().chain(twice) {
            self.free_now(*object);
        }
        // SAFETY: they are this worker's.
        if let Err(problem) = unsafe { Object::free_bulk(self.mm, cache, many) } {
            self.shared.fail(problem);
        }
        for object in twice.iter().filter(|_| !self.shared.stopped()) {
            self.shared.counts.made_wrong_free();
            // SAFETY: it is refused, whatever is there by now: nobody else takes objects of this
            // cache, and an object of another is not freed to this one.
            unsafe { self.mm.kmem_cache_free(id, object.address()) };
        }
        self.validate(id);
        // SAFETY: nobody else knows the cache.
        if let Err(error) = unsafe { self.mm.kmem_cache_destroy(id) }
            && !self.shared.stopped()
        {
            self.shared.fail(Problem::Cache(error));
        }
        self.shared.counts.made_cache();
    }
}
