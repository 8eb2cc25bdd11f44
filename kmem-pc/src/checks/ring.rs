//! What code in one context of a CPU holds, and what it does there: it gives back the oldest of what it
//! has, after looking at its contents, and takes something new.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cases::{Failure, check, equal};
use kmem::{CacheFlags, CacheId, GFP_KERNEL, Gfp, VirtAddr};

use crate::MM;
use crate::cpu::{CPUS, Cpu};
use crate::{smp, task};

/// Where code runs that holds something. Code of one place is never interrupted by code of the same.
#[derive(Clone, Copy)]
pub enum Place {
    /// A task.
    Task,
    /// A handler of the timer's interrupts.
    Timer,
    /// A handler of single steps, while interrupts were let in.
    Step,
    /// A handler of NMIs, or of single steps while interrupts were masked.
    Nmi,
}

const PLACES: usize = 4;

/// How many things a ring holds.
const LENGTH: usize = 13;

/// Sizes that are asked of kmalloc, in bytes: of slabs that hold many, some and one, and beyond slabs.
const SIZES: [usize; 8] = [8, 32, 64, 192, 1024, 2048, 4096, 16384];

/// The size of the cache's objects.
const OBJECT: usize = 120;

/// Where the words of a stamp are, in bytes from one to the next: a cache line.
const STRIDE: usize = 64;

#[derive(Clone, Copy)]
enum Kind {
    Pages(u32),
    Kmalloc,
    Object(CacheId),
}

#[derive(Clone, Copy)]
struct Held {
    kind: Kind,
    memory: NonNull<u8>,
    size: usize,
    stamp: u64,
}

struct Ring {
    held: [Option<Held>; LENGTH],
    turn: usize,
}

/// The rings of a CPU.
///
/// # Invariants
///
/// A ring is its CPU's, at the place that it is for: nothing interrupts the code that is at it and comes
/// to it as well. Where no CPU is at any, the task that runs a case may be at all of them.
struct Rings([UnsafeCell<Ring>; PLACES]);

// SAFETY: see the invariants.
unsafe impl Sync for Rings {}

static RINGS: [Rings; CPUS] =
    [const { Rings([const { UnsafeCell::new(Ring { held: [None; LENGTH], turn: 0 }) }; PLACES]) };
        CPUS];

/// What has been done since [`begin`], by all. Relaxed: the counts order nothing.
static TURNS: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);
static DAMAGED: AtomicU64 = AtomicU64::new(0);

/// The cache that objects are taken from.
///
/// # Invariants
///
/// It is written when nobody is at a ring.
struct Cache(UnsafeCell<Option<CacheId>>);

// SAFETY: see the invariants.
unsafe impl Sync for Cache {}

static CACHE: Cache = Cache(UnsafeCell::new(None));

impl Cache {
    fn get(&self) -> Option<CacheId> {
        // SAFETY: whoever asks is at a ring, or nobody is.
        unsafe { *self.0.get() }
    }

    /// # Safety
    ///
    /// Nobody is at a ring.
    unsafe fn set(&self, cache: Option<CacheId>) {
        // SAFETY: the caller's promise.
        unsafe { *self.0.get() = cache };
    }
}

/// What was done.
pub struct Done {
    /// How often something was taken, or was to be taken.
    pub turns: u64,
    /// How often there was nothing to be had.
    pub refused: u64,
}

/// Makes the cache, and forgets the counts.
///
/// # Errors
///
/// The cache cannot be made.
///
/// # Safety
///
/// Nobody is at a ring.
pub unsafe fn begin() -> Result<(), Failure> {
    for count in [&TURNS, &REFUSED, &DAMAGED] {
        count.store(0, Relaxed);
    }
    let cache = MM.kmem_cache_create("rings", OBJECT, 0, CacheFlags::NONE, None, None);
    let cache = cache.map_err(|_| Failure::new("a cache can be made"))?;
    // SAFETY: the caller's promise.
    unsafe { CACHE.set(Some(cache)) };
    Ok(())
}

/// A turn at the running CPU's ring for a place: the oldest thing is looked at and given back, and another
/// is taken.
///
/// # Safety
///
/// The code runs at that place, between [`begin`] and [`end`], and stays on its CPU.
pub unsafe fn turn(place: Place, gfp: Gfp) {
    // SAFETY: the caller's promise, and the invariants of the rings.
    let ring = unsafe { &mut *RINGS[Cpu::id().index()].0[place as usize].get() };
    let number = TURNS.fetch_add(1, Relaxed);
    ring.turn += 1;
    let turn = ring.turn;
    let held = &mut ring.held[turn % LENGTH];
    if let Some(held) = held.take() {
        held.give_back();
    }
    *held = take(turn, number, gfp | Gfp::NOWARN);
    if held.is_none() {
        REFUSED.fetch_add(1, Relaxed);
    }
}

/// Gives all back that the rings hold, and destroys the cache.
///
/// # Errors
///
/// Something did not have the contents that its holder wrote, or the cache still has objects.
///
/// # Safety
///
/// A task calls it, and nobody is at a ring.
pub unsafe fn end() -> Result<Done, Failure> {
    for ring in RINGS.iter().flat_map(|rings| &rings.0) {
        // SAFETY: nobody is at a ring.
        let ring = unsafe { &mut *ring.get() };
        ring.held.iter_mut().filter_map(Option::take).for_each(Held::give_back);
    }
    if let Some(cache) = CACHE.get() {
        // SAFETY: all of its objects were given back, and nobody uses it.
        let destroyed = unsafe {
            CACHE.set(None);
            MM.kmem_cache_destroy(cache)
        };
        check(destroyed.is_ok(), "the cache can be destroyed: all of its objects are back")?;
    }
    equal(DAMAGED.load(Relaxed), 0, "all that was held kept its contents")?;
    Ok(Done { turns: TURNS.load(Relaxed), refused: REFUSED.load(Relaxed) })
}

/// Takes something; what it is depends on the turn.
fn take(turn: usize, number: u64, gfp: Gfp) -> Option<Held> {
    let (kind, memory, size) = match turn % 8 {
        0 | 1 => {
            let order = if turn.is_multiple_of(32) { 3 } else { turn as u32 % 2 };
            let address = MM.__get_free_pages(gfp, order).ok()?;
            (Kind::Pages(order), NonNull::new(address.as_ptr())?, 4096 << order)
        }
        2..5 => {
            let cache = CACHE.get()?;
            (Kind::Object(cache), MM.kmem_cache_alloc(cache, gfp).ok()?, OBJECT)
        }
        _ => {
            let size = SIZES[turn / 8 % SIZES.len()];
            (Kind::Kmalloc, MM.kmalloc(size, gfp).ok()?, size)
        }
    };
    let held = Held { kind, memory, size, stamp: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
    // SAFETY: the memory was just taken, and has so many bytes.
    held.words().for_each(|(word, value)| unsafe { word.write(value) });
    Some(held)
}

impl Held {
    /// The words of the stamp, and what each is.
    fn words(&self) -> impl Iterator<Item = (NonNull<u64>, u64)> + use<> {
        let Held { memory, size, stamp, .. } = *self;
        // SAFETY: the offsets are below the size of the memory.
        let at = move |offset| unsafe { memory.add(offset).cast() };
        (0..size).step_by(STRIDE).map(move |offset| (at(offset), stamp ^ offset as u64))
    }

    /// Looks at its contents and gives it back.
    fn give_back(self) {
        // SAFETY: it is held: it has so many bytes, and nobody else writes them.
        if !self.words().all(|(word, value)| unsafe { word.read() } == value) {
            DAMAGED.fetch_add(1, Relaxed);
        }
        let memory = self.memory.as_ptr();
        // SAFETY: it was taken so, and is not used any more.
        unsafe {
            match self.kind {
                Kind::Pages(order) => MM.free_pages(VirtAddr::from_ptr(memory), order),
                Kind::Kmalloc => MM.kfree(memory),
                Kind::Object(cache) => MM.kmem_cache_free(cache, memory),
            }
        }
    }
}

/// Has all other CPUs do turns as tasks for as long as the calling task does `meanwhile`.
///
/// # Errors
///
/// There is no memory for a task.
///
/// # Safety
///
/// Between [`begin`] and [`end`].
pub unsafe fn load(meanwhile: impl FnOnce()) -> Result<(), Failure> {
    // SAFETY: a task, which does not leave its CPU here; the caller's promise.
    let turns = || unsafe { turn(Place::Task, GFP_KERNEL) };
    let others = smp::online().filter(|cpu| *cpu != Cpu::id());
    task::while_others(others, &turns, meanwhile)
        .map_err(|_| Failure::new("there are stacks for tasks"))
}
