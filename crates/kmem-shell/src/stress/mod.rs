//! Random work on all CPUs and in interrupts, and a check that nothing came of it.
//!
//! Each CPU runs a [`worker`] that allocates blocks in all the ways there are, writes a [`stamp`]
//! into each, and frees them in random order after having read the stamp again. A block that two
//! holders were given, or that the manager itself wrote to, has a stamp that is not its holder's.
//! Some blocks go through a [`mailbox`](held::Mailbox) to be freed by another CPU or by an
//! [`interrupt`] handler, which allocates as well.
//!
//! How much a worker wants to hold changes all the time, between nothing and more than its share,
//! so that memory runs out now and then.
//!
//! At the end all is freed and the free lists must be as they were.

mod held;
mod interrupt;
mod random;
mod stamp;
mod worker;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kmem::CpuId;
use spin::Mutex;

use crate::{Count, FreeLists, System};
use held::{Held, Mailbox};
use stamp::Damage;

/// At most this much memory is held at once: a machine may be described with more RAM than the
/// host has.
const MOST_BYTES: u64 = 256 << 20;

/// What the workers and the interrupt handlers share.
struct Shared {
    seed: u64,
    /// How many operations are to be done, and how many have been begun.
    operations: u64,
    begun: AtomicU64,
    /// How many pages each worker holds at most.
    share: u64,
    mailbox: Mailbox,
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
        }
    }
}

/// What was done, for people. Relaxed throughout: the counts order nothing, and are read after the
/// workers have ended.
#[derive(Default)]
struct Counts {
    blocks: AtomicU64,
    pages: AtomicU64,
    refused: AtomicU64,
    elsewhere: AtomicU64,
}

impl Counts {
    fn allocated(&self, pages: u64) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.pages.fetch_add(pages, Ordering::Relaxed);
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
    refused: u64,
    elsewhere: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { operations, cpus, interrupts, blocks, pages, refused, elsewhere } = self;
        write!(
            f,
            "{} on {}, {}\n\
             {} ({}) allocated, stamped, verified and freed, {elsewhere} after changing hands\n\
             {} refused for want of memory\n\
             free lists as before",
            Count(*operations, "operation"),
            Count(*cpus as u64, "CPU"),
            Count(*interrupts, "interrupt"),
            Count(*blocks, "block"),
            Count(*pages, "page"),
            Count(*refused, "request"),
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
    let cpus = mm.online_cpus().count();
    let page_bytes = 1u64 << <S::Platform as kmem::platform::DirectMap>::PAGE_SHIFT;
    let misuses = system.misuses();
    let before = FreeLists::take(mm);
    // A tenth more than there is, so that it runs out when all are greedy at once.
    let pages = (before.pages() + before.pages() / 10).min(MOST_BYTES / page_bytes);
    let shared = Arc::new(Shared {
        seed,
        operations,
        begun: AtomicU64::new(0),
        share: pages / cpus.max(1) as u64,
        mailbox: Mailbox::new(),
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

    let counts = &shared.counts;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for held in shared.mailbox.take_all() {
        // SAFETY: the mailbox had the block alone, and now this does.
        unsafe { free_verified(mm, &shared, held) };
    }
    if let Some(problem) = shared.failure.lock().take() {
        return Err(format!("{problem}"));
    }
    let misuses = system.misuses() - misuses;
    if misuses > 0 {
        let last = system.last_misuse().unwrap_or_default();
        let misuses = Count(misuses, "report");
        return Err(format!("{misuses} of wrong frees where none was made; {last}"));
    }
    let after = FreeLists::take(mm);
    if let Some(difference) = before.difference(&after) {
        return Err(format!("the free lists are not as before: {difference}"));
    }
    mm.verify().map_err(|corruption| format!("memory is corrupted: {corruption}"))?;
    Ok(Report {
        operations: count(&shared.begun).min(operations),
        cpus,
        interrupts: handled,
        blocks: count(&counts.blocks),
        pages: count(&counts.pages),
        refused: count(&counts.refused),
        elsewhere: count(&counts.elsewhere),
    })
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
