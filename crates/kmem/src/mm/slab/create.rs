//! Making and destroying caches.

use core::fmt;
use core::panic::Location;

use super::super::Mm;
use super::super::tables::Tables;
use crate::platform::{Level, Misuse, MisuseKind, Passed, Platform, There};
use crate::reclaim::Reclaim;
use crate::slab::{
    Cache, CacheId, CacheName, Ctor, Debug, Geometry, Kind, Magazine, Shared, TRACK,
};
use crate::{CacheFlags, CpuId, GFP_KERNEL};

/// A line of the processor's cache, in bytes.
const LINE: usize = 64;

/// What objects are aligned to where nobody says more: what a pointer needs.
const SMALLEST_ALIGN: usize = 8;

/// How many objects at most a refused destruction names in the log.
const NAMED: u32 = 8;

/// Why a cache was not made, or not destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheError {
    /// The manager has not been booted.
    NotBooted,
    /// The call was made where sleeping is forbidden (A188, A210).
    Atomic,
    /// The name is empty, longer than so many bytes, or has blanks or control characters.
    Name(usize),
    /// A cache has that name already.
    NameTaken(CacheName),
    /// Objects of that size and alignment do not fit into a slab.
    Size {
        /// The size asked for, in bytes.
        size: usize,
        /// The alignment, in bytes.
        align: usize,
    },
    /// The alignment is not a power of two.
    Align(usize),
    /// The direct map does not begin at a multiple of the alignment: what is aligned in memory is not
    /// where it is seen.
    MapAlign(usize),
    /// A destructor without a constructor (A200).
    DtorWithoutCtor,
    /// All places for caches are taken.
    TooMany(u32),
    /// The cache has been destroyed, or there never was one.
    NoSuchCache,
    /// It is kmalloc's own.
    Kmalloc,
    /// So many objects are still in use (A208).
    InUse(u64),
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheError::NotBooted => f.write_str("the manager is not booted"),
            CacheError::Atomic => f.write_str("caches are made and destroyed where one may sleep"),
            CacheError::Name(most) => write!(
                f,
                "a cache's name has 1 to {most} bytes, without blanks or control characters"
            ),
            CacheError::NameTaken(name) => write!(f, "there is a cache {name} already"),
            CacheError::Size { size, align } => {
                write!(f, "no slab of this machine holds an object of {size} bytes at {align}")
            }
            CacheError::Align(align) => write!(f, "alignment {align} is not a power of two"),
            CacheError::MapAlign(align) => {
                write!(f, "the direct map does not begin at a multiple of the alignment, {align}")
            }
            CacheError::DtorWithoutCtor => f.write_str("a destructor needs a constructor"),
            CacheError::TooMany(most) => {
                write!(f, "all {most} places for caches are taken: see Setup::caches")
            }
            CacheError::NoSuchCache => f.write_str("there is no such cache any more"),
            CacheError::Kmalloc => f.write_str("the caches of kmalloc stay"),
            CacheError::InUse(1) => f.write_str("an object of the cache is in use"),
            CacheError::InUse(objects) => write!(f, "{objects} of the cache's objects are in use"),
        }
    }
}

impl core::error::Error for CacheError {}

/// What somebody asks of a cache.
struct Wanted<'n> {
    name: &'n str,
    size: usize,
    align: usize,
    flags: CacheFlags,
    ctor: Option<Ctor>,
    dtor: Option<Ctor>,
}

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Makes a cache for objects of `size` bytes at multiples of `align` (0: what a pointer needs)
    /// (A187, A191).
    ///
    /// `ctor` is called for each object when a slab is made; `dtor`, which needs a `ctor`, when its
    /// pages go (A200 to A203). No memory is taken before the first object is.
    ///
    /// # Errors
    ///
    /// See [`CacheError`].
    ///
    /// # Panics
    ///
    /// With [`CacheFlags::PANIC`], where there is an error (A197).
    ///
    /// # Context
    ///
    /// May sleep (A188). Cost: a walk over all caches.
    #[track_caller]
    pub fn kmem_cache_create(
        &self,
        name: &str,
        size: usize,
        align: usize,
        flags: CacheFlags,
        ctor: Option<Ctor>,
        dtor: Option<Ctor>,
    ) -> Result<CacheId, CacheError> {
        let wanted = Wanted { name, size, align, flags, ctor, dtor };
        match self.create(wanted, Location::caller()) {
            Err(error) if flags.contains(CacheFlags::PANIC) => {
                panic!("kmem: cache {name}: {error}")
            }
            made => made,
        }
    }

    fn create(
        &self,
        wanted: Wanted<'_>,
        site: &'static Location<'static>,
    ) -> Result<CacheId, CacheError> {
        let Wanted { name, size, align, flags, ctor, dtor } = wanted;
        let tables = self.tables().ok_or(CacheError::NotBooted)?;
        self.cache_may_sleep(site)?;
        let most = tables.cache_name_limit;
        let name = CacheName::new(name).filter(|_| name.len() <= most);
        let name = name.ok_or(CacheError::Name(most))?;
        if dtor.is_some() && ctor.is_none() {
            return Err(CacheError::DtorWithoutCtor);
        }
        let align = alignment(size, align, flags)?;
        let mut flags = flags | tables.slab_debug.flags_for(name.as_str());
        if ctor.is_some() {
            // What it writes stays.
            flags = flags.without(CacheFlags::POISON);
        }
        let kind = self.kind(tables, name, size, align, flags, false).filter(|_| size > 0);
        let kind = kind.ok_or(CacheError::Size { size, align })?;
        // Objects lie at multiples of it in memory; they are seen there if the direct map does.
        if !self.platform.base().get().is_multiple_of(align) {
            return Err(CacheError::MapAlign(align));
        }
        self.open_cache(tables, Kind { ctor, dtor, ..kind })
    }

    /// Makes the caches of kmalloc. At boot.
    ///
    /// There are as many places at least ([`Setup::caches`](crate::Setup::caches)), in order, and the
    /// largest class is one that a slab holds: none fails.
    pub(in crate::mm) fn create_kmalloc_caches(&self, tables: &Tables) {
        let classes = || tables.classes.sizes();
        let plain = classes().map(|size| (size, CacheFlags::NONE));
        let dma = classes().map(|size| (size, CacheFlags::CACHE_DMA));
        let all = plain.chain(dma.filter(|_| tables.dma_classes));
        for (number, (size, flags)) in all.enumerate() {
            let prefix = if flags == CacheFlags::NONE { "kmalloc" } else { "dma-kmalloc" };
            let Some(name) = CacheName::of_size(prefix, size) else { return };
            // Powers of two lie at multiples of themselves; others at what divides them, but at what
            // a pointer needs at least.
            let align = 1 << size.trailing_zeros().max(SMALLEST_ALIGN.trailing_zeros());
            let flags = flags | tables.slab_debug.flags_for(name.as_str());
            let Some(kind) = self.kind(tables, name, size, align, flags, true) else { return };
            if tables.caches()[number].claim() {
                self.open_at(tables, number, kind);
            }
        }
    }

    /// What a cache is like whose objects have such a size and alignment; `None` where no slab holds
    /// one. It is debugged as its flags say, if a slab holds an object with what that takes.
    fn kind(
        &self,
        tables: &Tables,
        name: CacheName,
        size: usize,
        align: usize,
        flags: CacheFlags,
        has_slack: bool,
    ) -> Option<Kind> {
        let plain = Geometry::new(size, align, P::PAGE_SHIFT, tables.largest)?;
        let size = size as u32;
        let debugged = Debug::new(flags, size, align as u32, has_slack).and_then(|debug| {
            let (stride, align) = (debug.stride() as usize, align);
            let with = Geometry::with_tracks(stride, align, TRACK, P::PAGE_SHIFT, tables.largest);
            if with.is_none() {
                let message =
                    format_args!("cache {name}: its objects are too large to be debugged");
                self.platform.log(Level::Warning, message);
            }
            Some((debug, with?))
        });
        let (debug, geometry) = debugged.map_or((None, plain), |(debug, with)| (Some(debug), with));
        let flags = if debug.is_some() { flags } else { flags.without(CacheFlags::DEBUG) };
        Some(Kind { number: 0, name, size, flags, geometry, debug, ctor: None, dtor: None })
    }

    /// Puts a cache in the first free place.
    fn open_cache(&self, tables: &Tables, kind: Kind) -> Result<CacheId, CacheError> {
        // Of two that make caches of one name at one moment each may miss the other: names are for
        // people, and nothing depends on them.
        let named = |cache: &Cache| cache.pin().is_some_and(|cache| cache.kind().name == kind.name);
        if tables.caches().iter().any(named) {
            return Err(CacheError::NameTaken(kind.name));
        }
        let mut places = tables.caches().iter().enumerate();
        let (number, _) = places
            .find(|(_, cache)| cache.claim())
            .ok_or(CacheError::TooMany(tables.cache_count))?;
        Ok(self.open_at(tables, number, kind))
    }

    /// Puts a cache in a place that the caller has claimed.
    fn open_at(&self, tables: &Tables, number: usize, mut kind: Kind) -> CacheId {
        let cache = &tables.caches()[number];
        kind.number = number as u16;
        let of = self.shared(tables, &kind);
        for node in cache.nodes() {
            node.reset(of, Magazine::NONE);
        }
        // SAFETY: the place is claimed, and its nodes were just made for such slabs.
        let generation = unsafe { cache.open(kind, P::PAGE_SHIFT) };
        CacheId { number: number as u16, generation }
    }

    /// Destroys a cache none of whose objects is in use (A208).
    ///
    /// # Errors
    ///
    /// [`CacheError::InUse`] where objects are: the first of them are named in the log, and the cache
    /// is as it was. A module that meets this has a leak (A209). [`CacheError::NoSuchCache`] for a
    /// cache that has been destroyed before.
    ///
    /// # Safety
    ///
    /// Nobody else uses the cache while the call lasts (A210).
    ///
    /// # Context
    ///
    /// May sleep. Cost: all slabs of the cache.
    #[track_caller]
    pub unsafe fn kmem_cache_destroy(&self, id: CacheId) -> Result<(), CacheError> {
        let tables = self.tables().ok_or(CacheError::NotBooted)?;
        self.cache_may_sleep(Location::caller())?;
        let cache = tables.cache(id).ok_or(CacheError::NoSuchCache)?;
        let kind = *cache.kind().ok_or(CacheError::NoSuchCache)?;
        if usize::from(id.number) < tables.kmalloc_caches() {
            return Err(CacheError::Kmalloc);
        }
        cache.close(|| self.platform.relax());
        let of = self.shared(tables, &kind);
        let in_use = self.empty_closed(tables, cache, id, &kind);
        // What CPUs have of it is empty. Where the cache stays they are given that anew.
        self.free_cpu_caches(tables, cache);
        if in_use > 0 {
            self.name_leaks(cache, &kind, of, in_use);
            cache.reopen(id.generation);
            return Err(CacheError::InUse(in_use));
        }
        for slabs in cache.nodes() {
            self.free_magazine(tables, slabs.reset(of, Magazine::NONE));
        }
        cache.release();
        Ok(())
    }

    /// Gives everything that CPUs and depots have of a closed cache back to its slabs, and the slabs
    /// that have all of their objects. Answers how many objects are with callers.
    #[track_caller]
    fn empty_closed(&self, tables: &Tables, cache: &Cache, id: CacheId, kind: &Kind) -> u64 {
        for cpu in (0..tables.cpus).filter_map(CpuId::new) {
            let Some(own) = tables.cpu_cache(cpu, cache) else { continue };
            // SAFETY: the cache is closed, so its CPUs leave it alone, and nobody uses it.
            let Some(mut entered) = (unsafe { own.section.enter() }) else { continue };
            self.flush_all(tables, cache, kind, own, &mut entered);
        }
        let of = self.shared(tables, kind);
        for slabs in cache.nodes() {
            let depot = self.empty_depot(slabs, of);
            self.free_magazine(tables, depot);
        }
        self.retire(tables, cache, kind, u64::MAX);
        // Nobody uses the cache, and what CPUs have of it is empty: nobody is waited for.
        self.free_departed(tables, cache, id, kind, u64::MAX);
        let mut in_use = 0;
        for slabs in cache.nodes() {
            // What is left has an object that its slab does not have, or that was freed twice at one
            // moment and is with somebody all the same.
            let (counts, held) = (slabs.counts(of).unwrap_or_default().0, slabs.held(of));
            in_use += held.max(counts.slabs() * u64::from(of.geometry.objects) - counts.free);
        }
        in_use
    }

    /// Says in the log which objects are in the way of a destruction.
    fn name_leaks(&self, cache: &Cache, kind: &Kind, of: Shared<'_, P>, in_use: u64) {
        let log = |message: fmt::Arguments<'_>| self.platform.log(Level::Error, message);
        log(format_args!("cache {} is not destroyed, objects in use: {in_use}", kind.name));
        let mut left = NAMED;
        for slabs in cache.nodes() {
            slabs.each_held(of, |object| {
                if left > 0 {
                    left -= 1;
                    log(format_args!("cache {}: the object at {object:#x} is in use", kind.name));
                }
            });
        }
    }

    /// A call that may sleep, made where that is forbidden, is reported and refused.
    fn cache_may_sleep(&self, site: &'static Location<'static>) -> Result<(), CacheError> {
        if !self.platform.in_atomic() {
            return Ok(());
        }
        self.report(&Misuse {
            kind: MisuseKind::SleepInAtomic,
            passed: Passed::Flags(GFP_KERNEL),
            there: There::AtomicContext,
            site,
        });
        Err(CacheError::Atomic)
    }
}

/// The alignment of a cache's objects.
fn alignment(size: usize, align: usize, flags: CacheFlags) -> Result<usize, CacheError> {
    if align != 0 && !align.is_power_of_two() {
        return Err(CacheError::Align(align));
    }
    let mut line = SMALLEST_ALIGN;
    if flags.contains(CacheFlags::HWCACHE_ALIGN) {
        // Two, four or eight small objects to a line, none of which crosses it (A193).
        line = LINE;
        while line > SMALLEST_ALIGN && size <= line / 2 {
            line /= 2;
        }
    }
    Ok(align.max(line))
}
