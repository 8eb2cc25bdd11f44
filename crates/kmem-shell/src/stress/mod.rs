//! Random work on all CPUs and in interrupts, and a check that nothing came of it.
//!
//! Each CPU runs a [`worker`] that allocates blocks in all the ways there are, writes a [`stamp`]
//! into each, and frees them in random order after having read the stamp again. A block that two
//! holders were given, or that the manager itself wrote to, has a stamp that is not its holder's.
//! Some blocks go through a [`mailbox`] to be freed by another CPU or by an [`interrupt`] handler,
//! which allocates as well.
//!
//! Half of the steps are about [`objects`]: kmalloc's of all sizes, and those of caches that all share
//! and of caches that a worker makes, uses and destroys. Now and then an object is freed wrongly, in a
//! way that must be found: there are to be as many reports as there were wrong frees.
//!
//! How much a worker wants to hold changes all the time, between nothing and more than its share,
//! so that memory runs out now and then.
//!
//! At the end all is freed, and the free lists must be as they were: what kmalloc keeps for itself on
//! each CPU is made before the first look at them.

mod held;
mod interrupt;
mod mailbox;
mod object;
mod objects;
mod random;
mod stamp;
mod worker;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kmem::{CacheError, CpuId};
use spin::Mutex;

use crate::{Count, FreeLists, OnPurpose, System, go_on};
use held::Held;
use mailbox::Mailbox;
use object::{Object, ObjectCache};
use random::Random;
use stamp::Damage;

/// At most this much memory is held at once: a machine may be described with more RAM than the
/// host has.
const MOST_BYTES: u64 = 256 << 20;

/// After how many rounds in which no CPU got anything that it keeps there are no more: what one lacks
/// another may have had for a moment only.
const IN_VAIN: u32 = 2;

/// What the workers and the interrupt handlers share.
struct Shared {
    seed: u64,
    /// How many operations are to be done, and how many have been begun.
    operations: u64,
    begun: AtomicU64,
    /// How many pages each worker holds at most.
    share: u64,
    mailbox: Mailbox<Held>,
    /// The same for objects, and the caches that all take some from.
    objects: Mailbox<Object>,
    caches: Vec<ObjectCache>,
    counts: Counts,
    /// Tells all to stop.
    failed: AtomicBool,
    failure: Mutex<Option<Problem>>,
}

/// What went wrong. Made in interrupt handlers too, so it needs no memory.
#[derive(Clone, Copy)]
enum Problem {
    /// A page does not hold what its holder wrote.
    Damaged(Damage),
    /// A page that was asked for cleared is not.
    NotCleared { pfn: u64, offset: usize },
    /// A frame that was handed out has no descriptor or no address.
    Unreachable { pfn: u64 },
    /// A page's reference count is not what was made of it.
    Count { pfn: u64, expected: u32, found: u32 },
    /// A block was handed out that the flags rule out.
    WrongZone { pfn: u64, zone: &'static str },
    /// The block does not lie at a multiple of its size.
    Unaligned { pfn: u64, pages: u64 },
    /// An object does not hold what its holder wrote.
    ObjectDamaged { address: usize, offset: usize, expected: u8, found: u8 },
    /// An object that was asked for cleared is not.
    ObjectNotCleared { address: usize, offset: usize },
    /// An object of a cache with a constructor is not as that one made it.
    NotConstructed { address: usize },
    /// The object does not lie at a multiple of what its cache was made with.
    UnalignedObject { address: usize, align: usize },
    /// So many free objects, or places beside objects, or records of slabs were overwritten.
    Overwritten(u64),
    /// A cache could not be made or destroyed.
    Cache(CacheError),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Damaged(damage) => damage.fmt(f),
            Problem::NotCleared { pfn, offset } => {
                write!(f, "page {pfn:#x} was asked for cleared, and byte {offset} of it is not 0")
            }
            Problem::Unreachable { pfn } => {
                write!(f, "page {pfn:#x} was handed out and cannot be reached")
            }
            Problem::Count { pfn, expected, found } => {
                let expected = Count(u64::from(*expected), "reference");
                write!(f, "page {pfn:#x} should have {expected} and has {found}")
            }
            Problem::WrongZone { pfn, zone } => {
                write!(f, "page {pfn:#x} of zone {zone} was handed out where flags forbid it")
            }
            Problem::Unaligned { pfn, pages } => {
                let pages = Count(*pages, "page");
                write!(f, "a block of {pages} was handed out at {pfn:#x}, no multiple of it")
            }
            Problem::ObjectDamaged { address, offset, expected, found } => write!(
                f,
                "the object at {address:#x} was changed while it was held: {found:#04x} at byte \
                 {offset} where its holder wrote {expected:#04x}"
            ),
            Problem::ObjectNotCleared { address, offset } => write!(
                f,
                "the object at {address:#x} was asked for cleared, and byte {offset} of it is not 0"
            ),
            Problem::NotConstructed { address } => {
                write!(f, "the object at {address:#x} is not as its constructor made it")
            }
            Problem::UnalignedObject { address, align } => {
                write!(f, "the object at {address:#x} should lie at a multiple of {align}")
            }
            Problem::Overwritten(places) => {
                let places = Count(*places, "place");
                write!(f, "{places} of a cache were overwritten that nobody holds")
            }
            Problem::Cache(error) => write!(f, "a cache of its own: {error}"),
        }
    }
}

/// What was done, for people. Relaxed throughout: the counts order nothing, and are read after the
/// workers have ended.
#[derive(Default)]
struct Counts {
    blocks: AtomicU64,
    pages: AtomicU64,
    objects: AtomicU64,
    caches: AtomicU64,
    wrong_frees: AtomicU64,
    refused: AtomicU64,
    elsewhere: AtomicU64,
}

impl Counts {
    fn allocated(&self, pages: u64) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.pages.fetch_add(pages, Ordering::Relaxed);
    }

    fn took_object(&self) {
        self.objects.fetch_add(1, Ordering::Relaxed);
    }

    fn made_cache(&self) {
        self.caches.fetch_add(1, Ordering::Relaxed);
    }

    fn made_wrong_free(&self) {
        self.wrong_frees.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn freed_elsewhere(&self) {
        self.elsewhere.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Keeps the first problem and tells all to stop.
    fn fail(&self, problem: Problem) {
        // Relaxed: the flag only ends the work sooner; the problem itself is behind the lock.
        // Whoever sets it first is alone in taking the lock before the workers have ended, so an
        // interrupt handler never waits for it.
        if !self.failed.swap(true, Ordering::Relaxed) {
            *self.failure.lock() = Some(problem);
        }
    }

    /// One of the caches that all share.
    fn any_cache(&self, random: &mut Random) -> ObjectCache {
        self.caches[random.below(self.caches.len() as u64) as usize]
    }

    fn stopped(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

/// What a run came to.
pub(crate) struct Report {
    operations: u64,
    cpus: usize,
    interrupts: u64,
    blocks: u64,
    pages: u64,
    objects: u64,
    caches: u64,
    wrong_frees: u64,
    refused: u64,
    elsewhere: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { operations, cpus, interrupts, blocks, pages, elsewhere, .. } = self;
        write!(
            f,
            "{} on {}, {}\n\
             {} ({}) and {}, stamped, verified and freed\n\
             {elsewhere} of them freed by another CPU or an interrupt; {} made and destroyed\n\
             {} made, each found; {} refused, memory being out\n\
             free lists as before",
            Count(*operations, "operation"),
            Count(*cpus as u64, "CPU"),
            Count(*interrupts, "interrupt"),
            Count(*blocks, "block"),
            Count(*pages, "page"),
            Count(self.objects, "object"),
            Count(self.caches, "cache"),
            Count(self.wrong_frees, "wrong free"),
            Count(self.refused, "request"),
        )
    }
}

/// Does about `operations` allocations and frees.
///
/// # Errors
///
/// What is wrong, in one line.
pub(crate) fn run<S: System>(system: &S, operations: u64, seed: u64) -> Result<Report, String> {
    let mm = system.mm();
    let _on_purpose = OnPurpose::passed_over(system);
    let cpus = mm.online_cpus().count();
    let page_bytes = 1u64 << <S::Platform as kmem::platform::DirectMap>::PAGE_SHIFT;
    let (misuses, unconstructed) = (system.misuses(), object::unconstructed());
    warm_up(system)?;
    let before = FreeLists::take(mm);
    let caches = objects::make_caches(mm).map_err(|error| format!("{error}"))?;
    // A tenth more than there is, so that it runs out when all are greedy at once.
    let pages = (before.pages() + before.pages() / 10).min(MOST_BYTES / page_bytes);
    let shared = Arc::new(Shared {
        seed,
        operations,
        begun: AtomicU64::new(0),
        share: pages / cpus.max(1) as u64,
        mailbox: Mailbox::new(),
        objects: Mailbox::new(),
        caches,
        counts: Counts::default(),
        failed: AtomicBool::new(false),
        failure: Mutex::new(None),
    });

    let interrupts = {
        let shared = shared.clone();
        system.interrupts(Arc::new(move |system: &S, cpu: CpuId| {
            interrupt::handle(system.mm(), &shared, cpu);
        }))?
    };
    let work = {
        let shared = shared.clone();
        system.on_each_cpu(Arc::new(move |system: &S, cpu: CpuId| {
            worker::run(system, &shared, cpu);
        }))
    };
    let handled = interrupts.handled();
    drop(interrupts);
    work?;

    for held in shared.mailbox.take_all() {
        // SAFETY: the mailbox had the block alone, and now this does.
        unsafe { free_verified(mm, &shared, held) };
    }
    for object in shared.objects.take_all() {
        // SAFETY: as for blocks.
        if let Err(problem) = unsafe { object.free(mm) } {
            shared.fail(problem);
        }
    }
    if let Some(problem) = shared.failure.lock().take() {
        return Err(format!("{problem}"));
    }
    let counts = &shared.counts;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (made, found) = (count(&counts.wrong_frees), system.misuses() - misuses);
    if found != made {
        let last = system.last_misuse().unwrap_or_default();
        let (made, found) = (Count(made, "wrong free"), Count(found, "report"));
        return Err(format!("{found} of {made}; the latest is: {last}"));
    }
    // SAFETY: the workers have ended, no more interrupts arrive, and all objects are freed.
    let destroyed = unsafe { objects::destroy_caches(mm, &shared.caches) };
    destroyed.map_err(|error| format!("a cache that all share: {error}"))?;
    let unconstructed = object::unconstructed() - unconstructed;
    if unconstructed > 0 {
        let objects = Count(unconstructed, "object");
        return Err(format!("destructors found {objects} other than constructors made them"));
    }
    let after = FreeLists::take(mm);
    if let Some(difference) = before.difference(&after) {
        let others = match system.has_others() {
            true => "; or a program has used the machine's files meanwhile, which counts as well",
            false => "",
        };
        return Err(format!("the free lists are not as before: {difference}{others}"));
    }
    mm.verify().map_err(|corruption| format!("memory is corrupted: {corruption}"))?;
    // What was done up to here was in order.
    go_on(system)?;
    Ok(Report {
        operations: count(&shared.begun).min(operations),
        cpus,
        interrupts: handled,
        blocks: count(&counts.blocks),
        pages: count(&counts.pages),
        objects: count(&counts.objects),
        caches: count(&counts.caches),
        wrong_frees: made,
        refused: count(&counts.refused),
        elsewhere: count(&counts.elsewhere),
    })
}

/// Has every CPU have all that it keeps for itself and does not give up, so that it is there before the
/// free lists are looked at.
///
/// # Errors
///
/// There is not enough memory for that.
fn warm_up<S: System>(system: &S) -> Result<(), String> {
    let mm = system.mm();
    let online = mm.online_cpus().count() as u32;
    let (mut had, mut in_vain) = (0, 0);
    loop {
        system.on_each_cpu(Arc::new(|system: &S, _| objects::warm_up(system.mm())))?;
        let caches = objects::with_magazines(mm);
        let Some(cold) = caches.iter().find(|cache| cache.cpus < online) else { return Ok(()) };
        // What the CPUs have of other sizes may have been in the way: as long as more come, all do.
        let have = caches.iter().map(|cache| cache.cpus).sum::<u32>();
        FreeLists::take(mm);
        in_vain = if have > had { 0 } else { in_vain + 1 };
        if in_vain == IN_VAIN {
            let (warm, cpus) = (cold.cpus, Count(online.into(), "CPU"));
            let free = Count(mm.free_page_count(), "page");
            return Err(format!(
                "too little memory to begin with: {warm} of {cpus} have what they keep of {}, and with \
                 {free} free there is none for the others: `drain`, free some, or boot with more memory \
                 or fewer CPUs",
                cold.name
            ));
        }
        had = have;
    }
}

/// Reads a block's stamp and frees the block. One whose stamp is wrong is kept: two may hold it.
///
/// # Safety
///
/// The block is the caller's alone.
unsafe fn free_verified<P: kmem::Platform, R: kmem::Reclaim>(
    mm: &kmem::Mm<P, R>,
    shared: &Shared,
    held: Held,
) {
    // SAFETY: the block is the caller's.
    match unsafe { stamp::verify(mm, &held) } {
        // SAFETY: the block is the caller's, and what it was made with is in `held`.
        Ok(()) => unsafe { held.free(mm) },
        Err(problem) => shared.fail(problem),
    }
}
