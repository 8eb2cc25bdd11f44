//! Single steps: after every instruction of an allocation or a free the processor traps, and the handler
//! allocates, frees, and looks at the contents of what it holds.
//!
//! An emulated machine takes interrupts between blocks of instructions only, so timers alone would leave
//! most instructions untried. Where the stepped code lets interrupts in, the handler is an interrupt's;
//! where it has masked them, only an NMI could arrive there, and the handler is an NMI's.

use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use cases::{Failure, at_least, check};
use kmem::{AllocError, CacheFlags, CacheId, GFP_ATOMIC, GFP_KERNEL, Gfp, Page};

use super::note;
use super::ring::{self, Place};
use crate::MM;
use crate::cpu::{Cpu, INTERRUPTS};
use crate::machine::Machine;
use crate::trap::ON_STEP;

/// Traps after each instruction, where it is set.
const TRAP: u64 = 1 << 8;

/// How many instructions were stepped with interrupts let in, and how many with them masked.
static OPEN: AtomicU64 = AtomicU64::new(0);
static MASKED: AtomicU64 = AtomicU64::new(0);

/// An instruction was executed with the trap flag set.
fn stepped(flags: u64) {
    let cpu = Cpu::current();
    if flags & INTERRUPTS != 0 {
        OPEN.fetch_add(1, Relaxed);
        // SAFETY: the trap flag is clear in handlers, and interrupts are masked.
        cpu.interrupted(|| unsafe { ring::turn(Place::Step, GFP_ATOMIC) });
    } else {
        MASKED.fetch_add(1, Relaxed);
        // SAFETY: as above, and no NMI is sent meanwhile.
        cpu.interrupted_by_nmi(|| unsafe { ring::turn(Place::Nmi, GFP_ATOMIC) });
    }
}

/// Runs something with a trap after each instruction, which a handler is told with the flags.
pub(super) fn step<T>(handler: fn(u64), work: impl FnOnce() -> T) -> T {
    ON_STEP.set(handler);
    // SAFETY: the handler of single steps knows of it. The flags are changed by way of the stack.
    unsafe { asm!("pushfq", "or qword ptr [rsp], {trap}", "popfq", trap = const TRAP) };
    let done = work();
    // SAFETY: as above.
    unsafe { asm!("pushfq", "and qword ptr [rsp], {rest}", "popfq", rest = const !(TRAP as i32)) };
    ON_STEP.clear();
    done
}

/// What is stepped; a cache is there for it.
type Work = fn(CacheId) -> Result<(), AllocError>;

/// All of it, and what each is called.
const WORK: &[(&str, Work)] = &[
    ("a page", |_| pages(0)),
    ("a page, the CPU's lists empty", |_| {
        MM.drain_local_pages();
        pages(0)
    }),
    ("8 pages", |_| pages(3)),
    ("1024 pages", |_| pages(10)),
    ("16 pages in bulk", |_| bulk()),
    ("8 bytes", |_| objects(8, 1)),
    ("64 bytes", |_| objects(64, 1)),
    ("more of 64 bytes than a CPU keeps", |_| objects(64, 150)),
    ("4 KiB", |_| objects(4096, 10)),
    ("128 KiB", |_| objects(128 << 10, 1)),
    ("memory that grows", |_| grown()),
    ("an object of a cache", |cache| cached(cache, 1)),
    ("more than a CPU keeps of a cache", |cache| cached(cache, 150)),
    ("a cache that is shrunk", |cache| {
        let _ = MM.kmem_cache_shrink(cache);
        cached(cache, 40)
    }),
    ("a cache of its own", |_| own_cache()),
];

/// How many things are held at once.
const MOST: usize = 160;

fn pages(order: u32) -> Result<(), AllocError> {
    let page = MM.alloc_pages(GFP_KERNEL, order)?;
    // SAFETY: it was just allocated.
    unsafe { MM.__free_pages(page, order) };
    Ok(())
}

fn bulk() -> Result<(), AllocError> {
    let mut pages = [None; 16];
    MM.alloc_pages_bulk(GFP_KERNEL, &mut pages);
    for page in pages.into_iter().flatten() {
        // SAFETY: as above.
        unsafe { MM.__free_page(page) };
    }
    Ok(())
}

fn objects(size: usize, count: usize) -> Result<(), AllocError> {
    let mut held = [None; MOST];
    for place in held.iter_mut().take(count) {
        *place = Some(MM.kmalloc(size, GFP_KERNEL)?);
    }
    for object in held.into_iter().flatten() {
        // SAFETY: as above.
        unsafe { MM.kfree(object.as_ptr()) };
    }
    Ok(())
}

fn grown() -> Result<(), AllocError> {
    let mut memory = MM.kmalloc(24, GFP_KERNEL)?;
    for size in [100, 1000, 10_000] {
        // SAFETY: it is this function's, and is used by its new name only.
        memory = unsafe { MM.krealloc(memory.as_ptr(), size, GFP_KERNEL)? };
    }
    // SAFETY: as above.
    unsafe { MM.kfree(memory.as_ptr()) };
    Ok(())
}

fn cached(cache: CacheId, count: usize) -> Result<(), AllocError> {
    let mut held = [None; MOST];
    for place in held.iter_mut().take(count) {
        *place = Some(MM.kmem_cache_alloc(cache, GFP_KERNEL)?);
    }
    for object in held.into_iter().flatten() {
        // SAFETY: as above.
        unsafe { MM.kmem_cache_free(cache, object.as_ptr()) };
    }
    Ok(())
}

fn own_cache() -> Result<(), AllocError> {
    let cache = MM.kmem_cache_create("stepped-too", 300, 0, CacheFlags::NONE, None, None);
    let cache = cache.map_err(|_| AllocError::NoSuchCache)?;
    cached(cache, 20)?;
    // SAFETY: its objects are free, and nobody knows it.
    unsafe { MM.kmem_cache_destroy(cache) }.map_err(|_| AllocError::NoSuchCache)
}

pub(super) fn at_every_instruction(_: &Machine) -> Result<(), Failure> {
    let cache = MM.kmem_cache_create("stepped", 200, 0, CacheFlags::NONE, None, None);
    let cache = cache.map_err(|_| Failure::new("a cache can be made"))?;
    OPEN.store(0, Relaxed);
    MASKED.store(0, Relaxed);
    // SAFETY: nobody is at a ring before this and after it, and nobody else sends an NMI.
    let done = unsafe {
        ring::begin()?;
        for (name, work) in WORK {
            let before = OPEN.load(Relaxed) + MASKED.load(Relaxed);
            // The first time much is cold, and the second time nothing is.
            for _ in 0..2 {
                step(stepped, || work(cache))?;
            }
            let steps = OPEN.load(Relaxed) + MASKED.load(Relaxed) - before;
            note(format_args!("{steps} instructions: {name}"));
        }
        without_memory()?;
        ring::end()?
    };
    // SAFETY: its objects are free, and nobody else knows it.
    let destroyed = unsafe { MM.kmem_cache_destroy(cache) };
    check(destroyed.is_ok(), "all objects of the cache are free")?;
    let (open, masked) = (OPEN.load(Relaxed), MASKED.load(Relaxed));
    at_least(open, 10_000, "so many instructions let interrupts in")?;
    at_least(masked, 100, "so many instructions masked them")?;
    note(format_args!(
        "{open} instructions with an interrupt and {masked} with an NMI after them, {} refused",
        done.refused
    ));
    Ok(())
}

/// A request that finds nothing, stepped.
fn without_memory() -> Result<(), Failure> {
    let gfp = GFP_ATOMIC | Gfp::NOWARN;
    let mut held: Vec<(Page, u32)> = Vec::new();
    for order in (0..=10).rev() {
        while let Ok(page) = MM.alloc_pages(gfp, order) {
            held.push((page, order));
        }
    }
    let (page, memory) = step(stepped, || (MM.alloc_pages(gfp, 0), MM.kmalloc(64 << 10, gfp)));
    for (page, order) in held {
        // SAFETY: it was allocated so.
        unsafe { MM.__free_pages(page, order) };
    }
    // The handlers hold what they had before, and may have given one page back.
    if let Ok(page) = page {
        // SAFETY: as above.
        unsafe { MM.__free_page(page) };
    }
    check(memory.is_err(), "there is no memory")
}
