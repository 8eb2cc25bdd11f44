//! G3: the page allocator's calls. What is wrong with a free is in `frees.rs`.

use kmem::platform::DirectMap;
use kmem::{
    AllocError, GFP_HIGHUSER, GFP_KERNEL, GFP_USER, Gfp, Order, PhysAddr, VirtAddr, get_order,
};

use crate::failure::{at_least, at_most, check, equal, no_memory, some};
use crate::hold::{Block, Hoard};
use crate::pages::anywhere;
use crate::pressure::{ANYWHERE, EVERYTHING, ORDINARY};
use crate::zones::dma;
use crate::{Case, Facts, Failure, Machine, Snapshot};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "alloc_pages gives 2^order contiguous frames, alloc_page one",
                &["A042", "A043", "A055", "A056", "A059"],
                anywhere,
                contiguous,
            ),
            Case::new(
                "the address calls give the address of the first byte, the others the page",
                &["A046", "A047", "A051", "A052", "A053"],
                anywhere,
                addresses_and_pages,
            ),
            Case::new(
                "get_zeroed_page and __GFP_ZERO clear; the others leave what was there",
                &["A048", "A049"],
                anywhere,
                zeroing,
            ),
            Case::new(
                "what goes to user space holds nothing of its last user, in high memory too",
                &["A075"],
                anywhere,
                user_pages_are_clean,
            ),
            Case::new(
                "__get_dma_pages gives pages that a device with few address lines reaches",
                &["A050", "A034"],
                dma,
                dma_pages,
            ),
            Case::new("get_order rounds up", &["A057"], anywhere, orders_of_sizes),
            Case::new(
                "the largest order is a setting; above it a call fails at once",
                &["A058", "A083"],
                anywhere,
                largest_order,
            ),
            Case::new(
                "a block fails where half of memory is free and no two neighbours are",
                &["A060"],
                anywhere,
                checkerboard,
            ),
            Case::new(
                "every call says by its result that there is no memory",
                &["A065", "A066"],
                anywhere,
                failure_values,
            ),
            Case::new(
                "the text's example: eight pages, freed with their order, or -ENOMEM",
                &["A067"],
                anywhere,
                worked_example,
            ),
            Case::new(
                "address calls never give high memory; asked for it, they say so and go on",
                &["A073", "A074"],
                anywhere,
                no_address_of_high_memory,
            )
            .reports(4),
        ]
    }
}

fn contiguous<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let page_bytes = machine.facts().page_bytes();
    for order in 0..=mm.largest_order().get() {
        let free = mm.free_page_count();
        let block = Block::new(machine, GFP_KERNEL, order)?;
        let pages = 1 << order;
        equal(free - mm.free_page_count(), pages, "an order is so many pages")?;
        equal(block.frame() % pages, 0, "a block is aligned to its size")?;
        let start = some(mm.page_address(block.page()), "its first byte has an address")?;
        // Both ends of every page can be written, and no two pages are the same memory.
        let word = |page: u64, at: u64| {
            VirtAddr::new(start.get() + (page * page_bytes + at) as usize).as_ptr::<u64>()
        };
        for page in 0..pages {
            // SAFETY: within the block, which is ours; addresses are aligned for a word.
            unsafe {
                word(page, 0).write(page);
                word(page, page_bytes - 8).write(!page);
            }
        }
        for page in 0..pages {
            // SAFETY: written above.
            let kept = unsafe {
                word(page, 0).read() == page && word(page, page_bytes - 8).read() == !page
            };
            check(kept, "2^order pages are contiguous and each its own")?;
        }
        block.free();
        equal(mm.free_page_count(), free, "and so many come back")?;
    }
    let free = mm.free_page_count();
    let page = mm.alloc_page(GFP_KERNEL)?;
    equal(free - mm.free_page_count(), 1, "alloc_page gives one page")?;
    // SAFETY: just allocated.
    unsafe { mm.__free_page(page) };
    Ok(())
}

fn addresses_and_pages<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let page_bytes = machine.facts().page_bytes();
    let before = mm.free_page_count();
    let four = mm.__get_free_pages(GFP_KERNEL, 2)?;
    let one = mm.__get_free_page(GFP_KERNEL)?;
    equal(before - mm.free_page_count(), 5, "2^order pages, and one")?;
    equal(four.get() as u64 % (4 * page_bytes), 0, "an address is that of the first byte")?;
    let page = some(mm.virt_to_page(four), "an address leads to its page")?;
    check(mm.page_address(page) == Some(four), "which leads to the address")?;
    // SAFETY: allocated above with these orders.
    unsafe {
        mm.free_pages(four, 2);
        mm.free_page(one);
    }
    equal(mm.free_page_count(), before, "free_pages and free_page take addresses")?;
    let (four, one) = (mm.alloc_pages(GFP_KERNEL, 2)?, mm.alloc_page(GFP_KERNEL)?);
    // SAFETY: allocated above with these orders.
    unsafe {
        mm.__free_pages(four, 2);
        mm.__free_page(one);
    }
    equal(mm.free_page_count(), before, "__free_pages and __free_page take pages")?;
    // Either family frees what the other has allocated: they differ in what they name it by.
    let address = mm.__get_free_pages(GFP_KERNEL, 3)?;
    let page = some(mm.virt_to_page(address), "an address leads to its page")?;
    // SAFETY: allocated above with this order.
    unsafe { mm.__free_pages(page, 3) };
    equal(mm.free_page_count(), before, "both name the same block")
}

/// Writes a byte to all of a block and frees it, so that the next holder finds it.
fn soil<M: Machine>(machine: &M, order: u32) -> Result<u64, Failure> {
    let mut pages = machine.mm().pages(GFP_KERNEL, order)?;
    pages.bytes_mut().fill(0xa5);
    Ok(pages.page().pfn().number())
}

fn zeroing<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let (mut soiled, mut cleared) = (0, 0);
    for order in [0, 0, 1, 3, 4, 5] {
        let frame = soil(machine, order)?;
        let pages = mm.pages(GFP_KERNEL, order)?;
        // Undefined, so only the page that is known to have been soiled says anything.
        if pages.page().pfn().number() == frame {
            soiled += 1;
            check(pages.bytes().iter().all(|byte| *byte == 0xa5), "contents are left alone")?;
        }
        drop(pages);
        let frame = soil(machine, order)?;
        let pages = mm.pages(GFP_KERNEL | Gfp::ZERO, order)?;
        cleared += u32::from(pages.page().pfn().number() == frame);
        check(pages.bytes().iter().all(|byte| *byte == 0), "__GFP_ZERO clears every byte")?;
    }
    at_least(soiled, 1, "freed pages are handed out again")?;
    at_least(cleared.into(), 1, "freed pages are handed out again, cleared")?;
    soil(machine, 0)?;
    let address = mm.get_zeroed_page(GFP_KERNEL)?;
    // SAFETY: the page is ours and was cleared.
    let bytes = unsafe {
        core::slice::from_raw_parts(address.as_ptr::<u8>(), 1 << <M::P as DirectMap>::PAGE_SHIFT)
    };
    let zero = bytes.iter().all(|byte| *byte == 0);
    // SAFETY: allocated above.
    unsafe { mm.free_page(address) };
    check(zero, "get_zeroed_page clears every byte")
}

fn user_pages_are_clean<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let bytes = machine.facts().page_bytes() as usize;
    // Each zone that user pages may come from: a page of it is soiled, freed, and asked for again.
    for user in [GFP_USER, GFP_HIGHUSER] {
        let touch = |block: &Block<'_, M>, see: &mut dyn FnMut(*mut u8)| {
            for frame in 0..1u64 << block.order() {
                let Some(pfn) = block.page().pfn().checked_add(frame) else { continue };
                let page = mm.pfn_to_page(pfn);
                if let Some(address) = page.and_then(|page| mm.kmap_local_page(page).ok()) {
                    see(address.as_ptr());
                    // SAFETY: mapped above; `see` keeps no pointer.
                    unsafe { mm.kunmap_local(address) };
                }
            }
        };
        for order in [0, 2, 4] {
            let block = Block::new(machine, user, order)?;
            let frame = block.frame();
            // SAFETY: the page is ours, and `touch` passes pages that are mapped.
            touch(&block, &mut |page| unsafe { page.write_bytes(0xee, bytes) });
            block.free();
            let block = Block::new(machine, user | Gfp::ZERO, order)?;
            equal(block.frame(), frame, "the block that was freed last is handed out again")?;
            let (mut seen, mut clean) = (0, true);
            touch(&block, &mut |page| {
                seen += 1;
                // SAFETY: the page is ours and was written by its last user at least.
                let page = unsafe { core::slice::from_raw_parts(page, bytes) };
                clean &= page.iter().all(|byte| *byte == 0);
            });
            equal(seen, 1 << order, "every page can be seen")?;
            check(clean, "a cleared page shows nothing of its last user")?;
        }
    }
    Ok(())
}

fn dma_pages<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let limit = machine.facts().dma_limit.unwrap_or(0);
    for order in 0..4 {
        let address = mm.__get_dma_pages(GFP_KERNEL, order)?;
        let physical = some(mm.platform().virt_to_phys(address), "a physical address")?.get();
        let bytes = machine.facts().page_bytes() << order;
        at_most(physical + bytes, limit, "all of a DMA block lies where the device reaches")?;
        // SAFETY: allocated above with this order.
        unsafe { mm.free_pages(address, order) };
    }
    Ok(())
}

fn orders_of_sizes<M: Machine>(machine: &M) -> Result<(), Failure> {
    for (size, order) in [(1, 0), (4096, 0), (4097, 1), (8192, 1), (8193, 2), (1 << 20, 8)] {
        equal(get_order(size, 12).into(), order, "the order of a size with pages of 4 KiB")?;
    }
    let shift = machine.facts().page_shift;
    for order in 0..=machine.facts().largest_order {
        let size = 1usize << (shift + order);
        equal(get_order(size, shift).into(), order.into(), "a power of two is its own order")?;
        equal(get_order(size + 1, shift).into(), u64::from(order) + 1, "a byte more is the next")?;
        equal(get_order(size - 1, shift).into(), order.into(), "a byte less is rounded up")?;
    }
    Ok(())
}

fn largest_order<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let largest = machine.facts().largest_order;
    equal(mm.largest_order().get().into(), largest.into(), "the largest order is as described")?;
    Block::new(machine, GFP_KERNEL, largest)?.free();
    let before = Snapshot::take(machine);
    for order in [largest + 1, Order::LIMIT.get() + 1, 31, 32, 64, u32::MAX] {
        let wanted = AllocError::OrderTooLarge { order, largest: mm.largest_order() };
        check(mm.alloc_pages(GFP_KERNEL, order) == Err(wanted), "a larger order is refused")?;
        let by_address = mm.__get_free_pages(GFP_KERNEL | Gfp::NOFAIL, order);
        check(by_address == Err(wanted), "also where the call must not fail otherwise")?;
    }
    before.same(&Snapshot::take(machine))
}

fn checkerboard<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let all = mm.free_page_count();
    let mut held = Hoard::new(machine);
    held.fill(EVERYTHING | ANYWHERE, 0);
    equal(mm.free_page_count(), 0, "every page can be taken")?;
    equal(held.pages(), all, "and each is one that was free")?;
    held.free_if(|page| page.pfn().number() % 2 == 0);
    mm.drain_all_pages();
    at_least(mm.free_page_count(), all / 2 - all / 8, "half of all pages are free")?;
    for order in 1..=mm.largest_order().get() {
        let request = mm.alloc_pages(EVERYTHING | ANYWHERE, order);
        no_memory(request, order, "no two of them are neighbours, so a block fails")?;
    }
    Block::new(machine, EVERYTHING | ANYWHERE, 0)?.free();
    // One more page makes a pair.
    let odd = held.pop().map(|block| block.frame() % 2);
    equal(odd.unwrap_or(0), 1, "pages with odd numbers are held")?;
    mm.drain_all_pages();
    Block::new(machine, EVERYTHING | ANYWHERE, 1)?.free();
    Ok(())
}

fn failure_values<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let mut held = Hoard::new(machine);
    held.fill(EVERYTHING, 0);
    let gfp = ORDINARY;
    no_memory(mm.alloc_page(gfp), 0, "alloc_page says so")?;
    no_memory(mm.alloc_pages(gfp, 2), 2, "alloc_pages says so")?;
    no_memory(mm.alloc_pages_node(mm.zones().first().map(|z| z.node()), gfp, 1), 1, "on a node")?;
    no_memory(mm.__get_free_page(gfp), 0, "__get_free_page says so")?;
    no_memory(mm.__get_free_pages(gfp, 3), 3, "__get_free_pages says so")?;
    no_memory(mm.get_zeroed_page(gfp), 0, "get_zeroed_page says so")?;
    no_memory(mm.__get_dma_pages(gfp, 1), 1, "__get_dma_pages says so")?;
    no_memory(mm.alloc_pages_exact(1, gfp), 0, "alloc_pages_exact says so")?;
    no_memory(mm.pages(gfp, 4), 4, "pages says so")?;
    let mut out = [None; 8];
    equal(mm.alloc_pages_bulk(gfp, &mut out) as u64, 0, "alloc_pages_bulk says so")?;
    check(out.iter().all(Option::is_none), "and gives none")?;
    let anywhere = PhysAddr::new(0)..PhysAddr::new(machine.facts().end);
    no_memory(mm.alloc_contig_pages(1, Order::ZERO, anywhere, gfp), 0, "alloc_contig_pages, too")?;
    held.clear();
    Block::new(machine, gfp, 0)?.free();
    Ok(())
}

fn worked_example<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let example = |flags: Gfp| -> Result<VirtAddr, scull::Errno> {
        mm.__get_free_pages(GFP_KERNEL | flags, 3).map_err(|_| scull::Errno::Enomem)
    };
    let free = mm.free_page_count();
    let address = example(Gfp::NONE).map_err(|_| Failure::new("eight pages can be had"))?;
    equal(free - mm.free_page_count(), 8, "order 3 is eight pages")?;
    let bytes = machine.facts().page_bytes() as usize;
    for page in 0..8 {
        let at = VirtAddr::new(address.get() + page * bytes);
        let first = some(mm.virt_to_page(address), "the first page")?.pfn().number();
        let found = some(mm.virt_to_page(at), "each page")?.pfn().number();
        equal(found, first + page as u64, "they are contiguous")?;
    }
    // SAFETY: allocated above with this order.
    unsafe { mm.free_pages(address, 3) };
    equal(mm.free_page_count(), free, "freed with the same order, all come back")?;
    let mut held = Hoard::new(machine);
    held.fill(EVERYTHING, 0);
    check(example(Gfp::NOWARN) == Err(scull::Errno::Enomem), "a failure is -ENOMEM")
}

fn no_address_of_high_memory<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let facts: Facts = machine.facts();
    let limit = mm.platform().limit();
    let is_mapped = |address: VirtAddr| {
        let physical = mm.platform().virt_to_phys(address);
        check(physical.is_some_and(|at| at < limit), "an address call gives a mapped address")
    };
    let before = machine.misuses();
    let address = mm.__get_free_pages(GFP_HIGHUSER, 1)?;
    is_mapped(address)?;
    equal(machine.misuses() - before, 1, "the flag is reported")?;
    // SAFETY: allocated above with this order.
    unsafe { mm.free_pages(address, 1) };
    let address = mm.get_zeroed_page(GFP_HIGHUSER)?;
    is_mapped(address)?;
    // SAFETY: allocated above.
    unsafe { mm.free_page(address) };
    let address = mm.alloc_pages_exact(1, GFP_HIGHUSER)?;
    is_mapped(address)?;
    // SAFETY: allocated above with this size.
    unsafe { mm.free_pages_exact(address, 1) };
    is_mapped(mm.pages(GFP_HIGHUSER, 0)?.address())?;
    equal(machine.misuses() - before, 4, "each time")?;
    let block = Block::new(machine, GFP_HIGHUSER, 0)?;
    equal(machine.misuses() - before, 4, "alloc_pages may be asked for it")?;
    let high = mm.page_to_phys(block.page()) >= limit;
    check(high == facts.has_highmem(), "and gives it where there is any")
}
