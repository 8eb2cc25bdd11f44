//! What an interrupt handler does: it takes what it can get without waiting.

use core::sync::atomic::{AtomicU64, Ordering};

use kmem::{CpuId, GFP_ATOMIC, Gfp, Mm, Page, Platform, Reclaim};

use super::held::{Held, Kind};
use super::object::Object;
use super::random::Random;
use super::{Shared, free_verified, objects, stamp};

/// Larger blocks would keep the interrupted code waiting for too long.
const LARGEST_ORDER: u32 = 3;

/// How many single pages a bulk request asks for.
const BULK: usize = 4;

/// Makes each interrupt's numbers its own.
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);

/// The largest request for an object, as a power of two: with the contents looked at, it is as much
/// work as a block.
const LARGEST_OBJECT: u32 = 13;

/// Frees what workers left in the mailboxes, and leaves new blocks and objects there.
pub(super) fn handle<P: Platform, R: Reclaim>(mm: &Mm<P, R>, shared: &Shared, cpu: CpuId) {
    if shared.stopped() {
        return;
    }
    let number = INTERRUPTS.fetch_add(1, Ordering::Relaxed);
    let mut random = Random::new(shared.seed ^ u64::from(cpu.get()) << 56 ^ number << 8);
    objects(mm, shared, &mut random);
    if let Some(held) = shared.mailbox.take(random.any()) {
        if held.pages <= 1 << LARGEST_ORDER && held.kind != Kind::Contiguous {
            shared.counts.freed_elsewhere();
            // SAFETY: the mailbox had the block alone, and now this does.
            unsafe { free_verified(mm, shared, held) };
        } else if let Err(held) = shared.mailbox.post(random.any(), held) {
            // SAFETY: as above.
            unsafe { free_verified(mm, shared, held) };
        }
    }
    let mut blocks = [None; BULK];
    let count = allocate(mm, &mut random, &mut blocks);
    if count == 0 {
        shared.counts.refused();
    }
    for held in blocks.into_iter().flatten() {
        shared.counts.allocated(u64::from(held.pages));
        // SAFETY: the block was allocated just now.
        if let Err(problem) = unsafe { stamp::write(mm, &held) } {
            shared.fail(problem);
        } else if let Err(held) = shared.mailbox.post(random.any(), held) {
            // SAFETY: the mailbox did not take it.
            unsafe { free_verified(mm, shared, held) };
        }
    }
}

/// Frees an object that was left, and leaves another (A163).
fn objects<P: Platform, R: Reclaim>(mm: &Mm<P, R>, shared: &Shared, random: &mut Random) {
    let free = |object: Object| {
        // SAFETY: the mailbox had the object alone, or did not take it.
        if let Err(problem) = unsafe { object.free(mm) } {
            shared.fail(problem);
        }
    };
    if let Some(object) = shared.objects.take(random.any()) {
        shared.counts.freed_elsewhere();
        free(object);
    }
    let gfp = GFP_ATOMIC | Gfp::NOWARN;
    let taken = if random.one_in(2) {
        Object::of_cache(mm, shared.any_cache(random), gfp, random)
    } else {
        Object::kmalloc(mm, objects::size(random, LARGEST_OBJECT), gfp, None, random)
    };
    let Ok(object) = taken else { return shared.counts.refused() };
    shared.counts.took_object();
    // SAFETY: it was just taken.
    if let Err(problem) = unsafe { object.begin(gfp) } {
        shared.fail(problem);
    } else if let Err(object) = shared.objects.post(random.any(), object) {
        free(object);
    }
}

/// Allocates in one of the ways there are, and answers how many blocks it got.
fn allocate<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    random: &mut Random,
    blocks: &mut [Option<Held>; BULK],
) -> usize {
    let gfp = GFP_ATOMIC | Gfp::NOWARN;
    let order = random.halving(LARGEST_ORDER);
    let salt = random.below(Held::SALTS) as u16;
    let held = |page: Page, pages, kind| Some(Held { pfn: page.pfn(), pages, kind, salt });
    let by_address = |address| mm.virt_to_page(address);
    match random.below(8) {
        0 => {
            let mut pages = [None; BULK];
            mm.alloc_pages_bulk(gfp, &mut pages);
            *blocks = pages.map(|page| held(page?, 1, Kind::Pages));
        }
        1 | 2 => {
            let address = mm.__get_free_pages(gfp, order).ok();
            blocks[0] =
                address.and_then(by_address).and_then(|p| held(p, 1 << order, Kind::Address));
        }
        3 => {
            let pages = 1 + random.below(1 << LARGEST_ORDER) as u32;
            let bytes = Held::exact_bytes(pages, salt, P::PAGE_SHIFT);
            let address = mm.alloc_pages_exact(bytes, gfp).ok();
            blocks[0] = address.and_then(by_address).and_then(|p| held(p, pages, Kind::Exact));
        }
        way => {
            let compound = way == 4;
            let gfp = if compound { gfp | Gfp::COMP } else { gfp };
            let kind = if compound { Kind::Compound } else { Kind::Pages };
            let page = mm.alloc_pages(gfp, order).ok();
            blocks[0] = page.and_then(|page| held(page, 1 << order, kind));
        }
    }
    blocks.iter().flatten().count()
}
