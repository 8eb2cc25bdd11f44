//! Allocating and freeing by hand, and taking all there is.

use alloc::format;
use alloc::string::String;

use kmem::{Gfp, Mm, NodeId, Order, Page, Platform, Reclaim};

use super::{Command, exactly, print, usage, word};
use crate::memory::with_page;
use crate::{Count, Failure, Shell, Sink, System, go_on};

/// A block that the shell's user holds.
pub(crate) struct Held {
    id: u64,
    page: Page,
    order: u32,
}

impl Held {
    pub(crate) fn free<P: Platform, R: Reclaim>(self, mm: &Mm<P, R>) {
        // SAFETY: the block came from `alloc_pages` with this order, and the list had it alone.
        unsafe { mm.__free_pages(self.page, self.order) };
    }
}

pub(super) const fn alloc_pages<S: System>() -> Command<S> {
    Command {
        name: "alloc_pages",
        usage: "alloc_pages FLAGS ORDER [NODE]",
        about: "allocate 2^ORDER pages and hold them under an ID",
        example: "alloc_pages 'GFP_KERNEL|__GFP_ZERO' 3",
        run: run_alloc_pages,
    }
}

fn run_alloc_pages<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let (flags, order, node) = match arguments {
        [flags, order] => (flags, order, None),
        [flags, order, node] => (flags, order, Some(node)),
        _ => return Err(usage(&alloc_pages::<S>())),
    };
    let gfp = gfp(flags)?;
    let order = word(order, "order: give a whole number")?;
    let mm = shell.system.mm();
    let page = match node {
        None => mm.alloc_pages(gfp, order),
        Some(node) => mm.alloc_pages_node(Some(self::node(node)?), gfp, order),
    };
    let page = page.map_err(|error| format!("{error}"))?;
    let id = shell.next_id;
    shell.next_id += 1;
    shell.held.push(Held { id, page, order });
    let zone = mm.page_zone(page).ok_or_else(|| format!("{} is in no zone", page.pfn()))?;
    let (pfn, node, name) = (page.pfn(), zone.node().get(), zone.name());
    print(out, format_args!("id {id}: pfn {pfn}, order {order}, Node {node}, zone {name}"))?;
    match mm.page_address(page) {
        Some(address) => print(out, format_args!(", address {address}\n")),
        None => print(out, format_args!(", no address (high memory)\n")),
    }
}

pub(super) const fn free<S: System>() -> Command<S> {
    Command {
        name: "free",
        usage: "free ID",
        about: "give back what alloc_pages gave out under an ID",
        example: "free 1",
        run: run_free,
    }
}

fn run_free<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    _: &mut dyn Sink,
) -> Result<(), Failure> {
    let [id] = exactly(&free::<S>(), arguments).map_err(|failure| {
        // Another free(1) says how much memory there is.
        let hint = "`cat /proc/meminfo` shows how much is free";
        Failure::Usage(format!("{}; {hint}", failure.message()))
    })?;
    let id: u64 = word(id, "ID: alloc_pages shows it")?;
    match shell.held.iter().position(|held| held.id == id) {
        Some(index) => {
            shell.held.swap_remove(index).free(shell.system.mm());
            Ok(())
        }
        None if (1..shell.next_id).contains(&id) => {
            Err(Failure::Failed(format!("id {id} was freed already")))
        }
        None => Err(Failure::Failed(format!("there is no id {id}; alloc_pages gives them out"))),
    }
}

pub(super) const fn fill<S: System>() -> Command<S> {
    Command {
        name: "fill",
        usage: "fill [FLAGS [ORDER]]",
        about: "allocate until there is no more, GFP_KERNEL and order 0 if not given",
        example: "fill GFP_ATOMIC 3",
        run: run_fill,
    }
}

fn run_fill<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let (flags, order) = match arguments {
        [] => (Gfp::KERNEL, 0),
        [flags] => (gfp(flags)?, 0),
        [flags, order] => (gfp(flags)?, word(order, "order: give a whole number")?),
        _ => return Err(usage(&fill::<S>())),
    };
    let mm = shell.system.mm();
    let largest = mm.largest_order().get();
    if order > largest {
        return Err(Failure::Usage(format!("order {order} is above the largest, {largest}")));
    }
    let system = shell.system;
    let total = mm.free_page_count();
    let blocks = shell.fill.take(mm, flags, order, &|blocks| {
        tell(system, blocks << order, total);
        go_on(system)
    })?;
    let (blocks, pages) = (Count(blocks, "block"), Count(blocks << order, "page"));
    let free = mm.free_page_count();
    print(out, format_args!("took {blocks} of order {order}, {pages}; {free} left\n"))
}

pub(super) const fn drain<S: System>() -> Command<S> {
    Command {
        name: "drain",
        usage: "drain",
        about: "give back what fill took, and empty the CPUs' lists of free pages\n\
                Areas of vmalloc that were freed and wait to be unmapped, and the stacks that CPUs keep,\n\
                are given back as well.",
        example: "drain",
        run: run_drain,
    }
}

fn run_drain<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let [] = exactly(&drain::<S>(), arguments)?;
    let mm = shell.system.mm();
    mm.drain_stacks();
    mm.vm_unmap_aliases();
    // First, as some of what `fill` took goes to those lists when it is freed.
    let listed = drain_lists(mm);
    // What is in use by now is mostly what `fill` holds.
    let (system, used) = (shell.system, mm.managed_pages().saturating_sub(mm.free_page_count()));
    let filled = shell.fill.drain(mm, &|pages| tell(system, pages, used))?;
    drain_lists(mm);
    if filled > 0 {
        print(out, format_args!("gave back {} that fill held; ", Count(filled, "page")))?;
    }
    let free = Count(mm.free_page_count(), "page");
    print(out, format_args!("{listed} left the CPUs' lists; {free} free\n"))
}

/// After how many pages the progress is told: they take some milliseconds.
const TOLD: u64 = 1 << 14;

fn tell<S: System>(system: &S, pages: u64, total: u64) {
    if pages.is_multiple_of(TOLD) && pages > 0 {
        system.progress("pages", pages, total);
    }
}

/// Empties the per-CPU lists, and answers how many pages left them.
fn drain_lists<P: Platform, R: Reclaim>(mm: &Mm<P, R>) -> Count {
    let before = mm.listed_pages();
    mm.drain_all_pages();
    Count(before.saturating_sub(mm.listed_pages()), "page")
}

/// The blocks that `fill` took.
///
/// They are a list through their own first words, so that taking all memory needs no other.
///
/// # Invariants
///
/// The blocks from `first` on were allocated and are this list's alone. The first three words of
/// each are the number of the next block's first frame, the block's order, and a check over both.
pub(crate) struct Fill {
    first: u64,
}

/// Ends the list: larger than any frame's number.
const END: u64 = u64::MAX;

/// What a block's head must hold.
fn check(pfn: u64, next: u64, order: u64) -> u64 {
    (pfn ^ next.rotate_left(21) ^ order.rotate_left(42)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Fill {
    pub(crate) const fn new() -> Self {
        Fill { first: END }
    }

    /// Allocates until that fails, and answers how many blocks it got. `go_on` is told how many there are.
    fn take<P: Platform, R: Reclaim>(
        &mut self,
        mm: &Mm<P, R>,
        gfp: Gfp,
        order: u32,
        go_on: &dyn Fn(u64) -> Result<(), String>,
    ) -> Result<u64, Failure> {
        let mut blocks = 0;
        loop {
            go_on(blocks)?;
            let page = match mm.alloc_pages(gfp, order) {
                Ok(page) => page,
                Err(kmem::AllocError::NoMemory { .. }) => return Ok(blocks),
                Err(error) => return Err(Failure::Failed(format!("{error}"))),
            };
            let pfn = page.pfn().number();
            let head = [self.first, u64::from(order), check(pfn, self.first, u64::from(order))];
            // SAFETY: the page was allocated just now.
            let mapped = unsafe { with_page(mm, page, |bytes| write_head(bytes, head)) };
            if mapped.is_none() {
                // SAFETY: the page was allocated just now.
                unsafe { mm.__free_pages(page, order) };
                return Err(Failure::Failed(format!("{pfn:#x} cannot be mapped")));
            }
            self.first = pfn;
            blocks += 1;
        }
    }

    /// Gives all back and answers how many pages that were. `tell` is told how many there were so far.
    pub(crate) fn drain<P: Platform, R: Reclaim>(
        &mut self,
        mm: &Mm<P, R>,
        tell: &dyn Fn(u64),
    ) -> Result<u64, String> {
        let mut pages = 0;
        while self.first != END {
            let pfn = self.first;
            let page = kmem::Pfn::new(pfn).and_then(|pfn| mm.pfn_to_page(pfn));
            // SAFETY: by the invariant the page is this list's.
            let head =
                page.and_then(|page| unsafe { with_page(mm, page, |bytes| read_head(bytes)) });
            let (Some(page), Some([next, order, sum])) = (page, head) else {
                self.first = END;
                return Err(format!("page {pfn:#x}, which fill took, is not there any more"));
            };
            let largest = u64::from(Order::LIMIT.get());
            if sum != check(pfn, next, order) || order > largest {
                self.first = END;
                return Err(format!("page {pfn:#x}, which fill took, was overwritten by others"));
            }
            self.first = next;
            // SAFETY: by the invariant the block is ours, and it is off the list.
            unsafe { mm.__free_pages(page, order as u32) };
            pages += 1 << order;
            tell(pages);
        }
        Ok(pages)
    }
}

fn write_head(bytes: &mut [u8], head: [u64; 3]) {
    for (place, word) in bytes.chunks_exact_mut(8).zip(head) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
}

fn read_head(bytes: &[u8]) -> [u64; 3] {
    let mut head = [0; 3];
    for (word, place) in head.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_ne_bytes(place.try_into().unwrap_or_default());
    }
    head
}

/// Reads flags; what they mean together is for the allocation to judge.
pub(super) fn gfp(text: &str) -> Result<Gfp, Failure> {
    let flags: Gfp = text.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    // The shell is the one that could free what such a request waits for.
    if flags.contains(Gfp::NOFAIL) {
        return Err(Failure::Usage("__GFP_NOFAIL may wait for ever: leave it out".into()));
    }
    Ok(flags)
}

fn node(text: &str) -> Result<NodeId, Failure> {
    let number = word(text, "node: give a whole number")?;
    NodeId::new(number).ok_or_else(|| Failure::Usage(format!("there is no node {number}")))
}
