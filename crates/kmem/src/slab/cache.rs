//! One cache: what its objects are like, and where what it has of memory is.

use core::cell::UnsafeCell;
use core::fmt;
use core::num::NonZeroU32;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::debug::Debug;
use super::front::Front;
use super::geometry::Geometry;
use super::leaving::Departures;
use super::node::NodeSlabs;
use crate::{CacheFlags, CacheName};

/// A cache, as its users name it.
///
/// It says which cache it was made for, so that a handle of one that has been destroyed is found out.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheId {
    pub(crate) number: u16,
    pub(crate) generation: NonZeroU32,
}

impl fmt::Debug for CacheId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cache {}", self.number)
    }
}

/// Why a constructor or destructor is called (A204, A205).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CtorFlags(u32);

impl CtorFlags {
    /// The object is being constructed; otherwise it is being destroyed.
    pub const CONSTRUCTOR: CtorFlags = CtorFlags(1);
    /// The call must not sleep.
    pub const ATOMIC: CtorFlags = CtorFlags(2);

    /// Whether all flags of `other` are set.
    pub const fn contains(self, other: CtorFlags) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) const fn with(self, other: CtorFlags) -> CtorFlags {
        CtorFlags(self.0 | other.0)
    }

    pub(crate) const NONE: CtorFlags = CtorFlags(0);
}

/// A constructor or destructor: the object, its cache, and why.
///
/// A constructor is called once for each object when a slab is made, and not when an object is handed
/// out; a destructor, once for each when the slab's pages go (A201 to A203). An object is freed as it
/// was constructed.
///
/// A destructor runs where memory is sought, or where the last CPU comes by that a slab waited for: in
/// the midst of any call that allocates or frees. [`CtorFlags::ATOMIC`] says where it must not sleep.
/// It does not shrink caches: that would call it again.
pub type Ctor = fn(NonNull<u8>, CacheId, CtorFlags);

/// What the objects of a cache are like.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    /// The number of the cache: its place.
    pub(crate) number: u16,
    pub(crate) name: CacheName,
    /// The size that was asked for, in bytes.
    pub(crate) size: u32,
    pub(crate) flags: CacheFlags,
    pub(crate) geometry: Geometry,
    /// How it is debugged, if it is.
    pub(crate) debug: Option<Debug>,
    pub(crate) ctor: Option<Ctor>,
    pub(crate) dtor: Option<Ctor>,
}

/// A place in the table of caches.
///
/// # Invariants
///
/// `kind` and the nodes are written by whoever has the place, which is neither vacant nor pinned then, and
/// read while the front's generation is odd, by who has pinned the cache, or by who made it.
#[repr(C, align(64))]
pub(crate) struct Cache {
    front: Front,
    /// How many look at the cache who do not use it: reports, and what shrinks all caches. It is not
    /// destroyed meanwhile.
    pins: AtomicU32,
    kind: UnsafeCell<Option<Kind>>,
    nodes: NonNull<NodeSlabs>,
    node_count: u32,
    /// Slabs made so far: each gets the next colour.
    colour: AtomicU32,
    departures: Departures,
    /// Objects that went to, and came from, callers without a magazine.
    allocated: AtomicU64,
    freed: AtomicU64,
}

// SAFETY: `kind` changes only where the invariant says that nobody reads it; the rest is atomics and
// values that do not change.
unsafe impl Sync for Cache {}
// SAFETY: as above.
unsafe impl Send for Cache {}

impl Cache {
    /// A place without a cache.
    ///
    /// # Safety
    ///
    /// `nodes` points to `node_count` nodes for as long as the place is used, reached through it only.
    pub(crate) const unsafe fn new(
        front: Front,
        nodes: NonNull<NodeSlabs>,
        node_count: u32,
    ) -> Cache {
        Cache {
            front,
            pins: AtomicU32::new(CLAIMED | VACANT),
            kind: UnsafeCell::new(None),
            nodes,
            node_count,
            colour: AtomicU32::new(0),
            departures: Departures::new(),
            allocated: AtomicU64::new(0),
            freed: AtomicU64::new(0),
        }
    }

    /// What the common paths need to know.
    #[inline(always)]
    pub(crate) fn front(&self) -> &Front {
        &self.front
    }

    /// The generation of the cache that is here, if one is.
    #[inline]
    pub(crate) fn generation(&self) -> Option<NonZeroU32> {
        // Acquire pairs with the Release in `open`: what the cache is like is seen.
        let generation = self.front.generation().load(Ordering::Acquire);
        NonZeroU32::new(generation).filter(|_| !generation.is_multiple_of(2))
    }

    /// Whether the cache of a handle with this generation is here. Handles have odd ones.
    #[inline(always)]
    pub(crate) fn is_of_generation(&self, generation: NonZeroU32) -> bool {
        // Acquire as in `generation`.
        self.front.generation().load(Ordering::Acquire) == generation.get()
    }

    /// What the cache is like that is here.
    #[inline]
    pub(crate) fn kind(&self) -> Option<&Kind> {
        self.generation()?;
        // SAFETY: by the invariant nobody writes it while the generation is odd.
        unsafe { (*self.kind.get()).as_ref() }
    }

    /// Takes a place without a cache, for whoever is to make one: nobody else gets it until it is
    /// released again.
    pub(crate) fn claim(&self) -> bool {
        // Acquire pairs with the Release in `release`: what the last cache here did is over.
        self.pins.fetch_and(!VACANT, Ordering::Acquire) & VACANT != 0
    }

    /// Gives up a place that this has, by `claim` or by `close`.
    pub(crate) fn release(&self) {
        self.pins.fetch_or(VACANT, Ordering::Release);
    }

    /// Says what the cache is like in a place that was claimed. Answers its generation.
    ///
    /// # Safety
    ///
    /// The caller has claimed the place, and its nodes are as `kind` says.
    pub(crate) unsafe fn open(&self, kind: Kind, page_shift: u32) -> NonZeroU32 {
        self.front.describe(&kind.geometry, page_shift);
        // SAFETY: the place is claimed and its generation even: nobody reads it.
        unsafe { *self.kind.get() = Some(kind) };
        // It is odd, so it is not 0.
        let generation = NonZeroU32::MIN | self.front.generation().load(Ordering::Relaxed);
        self.allocated.store(0, Ordering::Relaxed);
        self.freed.store(0, Ordering::Relaxed);
        // Release pairs with the Acquire in `generation`.
        self.front.generation().store(generation.get(), Ordering::Release);
        // Not a store: somebody may have counted already who looked here in vain.
        self.pins.fetch_and(!CLAIMED, Ordering::SeqCst);
        generation
    }

    /// Ends a cache that nobody uses: waits for those who look at it, and claims the place.
    pub(crate) fn close(&self, wait: impl Fn()) {
        let generation = self.front.generation().load(Ordering::Relaxed);
        self.front.generation().store(generation.wrapping_add(1), Ordering::SeqCst);
        // From here on nobody pins it who has not yet, and nobody else gets the place: it is not vacant.
        // SeqCst, with the same in `pin`: either that one sees the mark, or this the pin.
        self.pins.fetch_or(CLAIMED, Ordering::SeqCst);
        while self.pins.load(Ordering::SeqCst) != CLAIMED {
            wait();
        }
    }

    /// Undoes [`Cache::close`]: the cache is as it was, under the same handle.
    pub(crate) fn reopen(&self, generation: NonZeroU32) {
        // Release pairs with the Acquire in `generation`.
        self.front.generation().store(generation.get(), Ordering::Release);
        self.pins.fetch_and(!CLAIMED, Ordering::SeqCst);
    }

    /// Keeps the cache that is here from being destroyed while it is looked at, and what it is like from
    /// being changed.
    pub(crate) fn pin(&self) -> Option<PinnedCache<'_>> {
        let before = self.pins.fetch_add(1, Ordering::SeqCst);
        let pinned = PinnedCache { cache: self };
        let live = !self.front.generation().load(Ordering::SeqCst).is_multiple_of(2);
        (before < VACANT && live).then_some(pinned)
    }

    /// The nodes.
    #[inline]
    pub(crate) fn nodes(&self) -> &[NodeSlabs] {
        // SAFETY: by the promise made to `new` there are so many.
        unsafe { core::slice::from_raw_parts(self.nodes.as_ptr(), self.node_count as usize) }
    }

    /// The departures of its slabs.
    pub(crate) fn departures(&self) -> &Departures {
        &self.departures
    }

    /// The number of the next slab, for its colour.
    pub(crate) fn next_colour(&self) -> u32 {
        self.colour.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts an object handed out, or given back, beside the magazines.
    pub(crate) fn count_allocated(&self) {
        self.allocated.fetch_add(1, Ordering::Relaxed);
    }

    /// See [`Cache::count_allocated`].
    pub(crate) fn count_freed(&self) {
        self.freed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what went through a magazine that goes.
    pub(crate) fn count_all(&self, allocated: u64, freed: u64) {
        self.allocated.fetch_add(allocated, Ordering::Relaxed);
        self.freed.fetch_add(freed, Ordering::Relaxed);
    }

    /// What was counted beside the magazines: handed out, and given back.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.allocated.load(Ordering::Relaxed), self.freed.load(Ordering::Relaxed))
    }
}

/// Among the pins: there is no cache here, or one that is being made or destroyed by one CPU.
const CLAIMED: u32 = 1 << 31;

/// Among the pins, with [`CLAIMED`]: nobody has the place. What is below counts who looks.
const VACANT: u32 = 1 << 30;

/// A cache that is not destroyed while this lives.
pub(crate) struct PinnedCache<'a> {
    cache: &'a Cache,
}

impl PinnedCache<'_> {
    /// What the cache is like.
    pub(crate) fn kind(&self) -> &Kind {
        // SAFETY: who is to write it waits until nobody has pinned the cache, and it was live when
        // this pinned it.
        match unsafe { (*self.cache.kind.get()).as_ref() } {
            Some(kind) => kind,
            None => unreachable!("kmem: a cache is live, and nobody has said what it is like"),
        }
    }
}

impl core::ops::Deref for PinnedCache<'_> {
    type Target = Cache;
    fn deref(&self) -> &Cache {
        self.cache
    }
}

impl Drop for PinnedCache<'_> {
    fn drop(&mut self) {
        self.cache.pins.fetch_sub(1, Ordering::SeqCst);
    }
}
