//! G3: wrong frees are found at the call, reported, and change nothing.

use kmem::platform::DirectMap;
use kmem::{GFP_KERNEL, Gfp, Owner, VirtAddr};

use crate::failure::{check, equal, some};
use crate::hold::Block;
use crate::pages::anywhere;
use crate::text::Text;
use crate::{Case, Failure, Machine, Snapshot};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "a free with another order than the block's is found at once",
                &["A062"],
                anywhere,
                wrong_order,
            )
            .reports(16),
            Case::new(
                "a block that is free already is not freed again",
                &["A063"],
                anywhere,
                double_free,
            )
            .reports(16),
            Case::new(
                "a page inside a block, or a tail of a compound one, is not freed",
                &["A063"],
                anywhere,
                inside_a_block,
            )
            .reports(8),
            Case::new(
                "addresses that are no block's first byte are not freed",
                &["A063"],
                anywhere,
                wrong_address,
            )
            .reports(6),
            Case::new("a reserved frame is not freed", &["A063"], anywhere, reserved_frame)
                .reports(2),
            Case::new(
                "a reference that nobody has is neither taken nor dropped",
                &["A063", "A007"],
                anywhere,
                no_reference,
            )
            .reports(2),
        ]
    }
}

/// Makes a wrong call: it is reported once, in words that hold `words`, with this file as its site,
/// and as many pages are free as before.
#[track_caller]
fn wrong<M: Machine>(machine: &M, words: &str, call: impl FnOnce()) -> Result<(), Failure> {
    let (reports, free) = (machine.misuses(), machine.mm().free_page_count());
    call();
    equal(machine.misuses() - reports, 1, "a wrong call is reported, once")?;
    equal(machine.mm().free_page_count(), free, "and changes nothing")?;
    let mut text = Text::new();
    machine.last_misuse(&mut text)?;
    check(text.contains(words), "the report says what is wrong")?;
    check(text.contains("frees.rs:"), "and where the call was made")
}

fn wrong_order<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let before = Snapshot::take(machine);
    for (order, others) in [(0, [1, 2, 5]), (1, [0, 2, 3]), (3, [0, 2, 4]), (4, [0, 3, 5])] {
        let block = Block::new(machine, GFP_KERNEL, order)?;
        let page = block.page();
        let address = some(mm.page_address(page), "an address")?;
        for wrong_order in others {
            wrong(machine, "wrong order", || {
                // SAFETY: the manager refuses it: the block has another order.
                unsafe { mm.__free_pages(page, wrong_order) }
            })?;
            check(mm.owner(page.pfn()) == Owner::Kernel, "the block is still its holder's")?;
        }
        wrong(machine, "wrong order", || {
            // SAFETY: the manager refuses it: no block has such an order.
            unsafe { mm.free_pages(address, 40) }
        })?;
        block.free();
    }
    before.same(&Snapshot::take(machine))
}

fn double_free<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let before = Snapshot::take(machine);
    for order in [0, 2, 4, 5] {
        let page = mm.alloc_pages(GFP_KERNEL, order)?;
        let address = some(mm.page_address(page), "an address")?;
        // SAFETY: just allocated.
        unsafe { mm.__free_pages(page, order) };
        for _ in 0..2 {
            wrong(machine, "double free", || {
                // SAFETY: the manager refuses it: nothing has been allocated since the first free.
                unsafe { mm.__free_pages(page, order) }
            })?;
            // From the CPU's lists to the zone, where the block merges with others.
            mm.drain_all_pages();
        }
        wrong(machine, "double free", || {
            // SAFETY: as above.
            unsafe { mm.free_pages(address, order) }
        })?;
        wrong(machine, "double free", || {
            // SAFETY: as above; the order is wrong, too.
            unsafe { mm.__free_pages(page, order + 1) }
        })?;
    }
    before.same(&Snapshot::take(machine))?;
    // The block is handed out once.
    let (one, two) = (Block::new(machine, GFP_KERNEL, 0)?, Block::new(machine, GFP_KERNEL, 0)?);
    check(one.page() != two.page(), "what was freed twice is not handed out twice")
}

fn inside_a_block<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    for (flags, words) in [(Gfp::NONE, "inside a block"), (Gfp::COMP, "tail of a compound")] {
        let block = Block::new(machine, GFP_KERNEL | flags, 3)?;
        for index in [1, 3, 4, 7] {
            let pfn = some(block.page().pfn().checked_add(index), "a frame")?;
            let inside = some(mm.pfn_to_page(pfn), "a page")?;
            wrong(machine, words, || {
                // SAFETY: the manager refuses it: the page is not the first of its block.
                unsafe { mm.__free_pages(inside, 0) }
            })?;
        }
        equal(mm.page_count(block.page()).into(), 1, "the block is still its holder's")?;
    }
    Ok(())
}

fn wrong_address<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let page_bytes = machine.facts().page_bytes() as usize;
    let pages = mm.pages(GFP_KERNEL, 1)?;
    let address = pages.address().get();
    for offset in [1, 8, page_bytes - 1, page_bytes + 1] {
        wrong(machine, "misaligned", || {
            // SAFETY: the manager refuses it: the address is inside a page.
            unsafe { mm.free_pages(VirtAddr::new(address + offset), 1) }
        })?;
    }
    // Below where physical address 0 is seen.
    let below = mm.platform().base().get().wrapping_sub(page_bytes);
    for foreign in [below, below - 16 * page_bytes] {
        wrong(machine, "not this manager's", || {
            // SAFETY: the manager refuses it: no page of it is seen there.
            unsafe { mm.free_page(VirtAddr::new(foreign)) }
        })?;
    }
    drop(pages);
    Ok(())
}

fn reserved_frame<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let frames = some(mm.frames(), "the machine is booted")?;
    let metadata = kmem::boot::map::ReservedClass::Metadata;
    let mut tables = frames.reserved_in_ram().filter(|(reserved, _)| reserved.class == metadata);
    let (reserved, _) = some(tables.next(), "the manager has tables")?;
    let pfn = some(kmem::Pfn::new(reserved.range.start), "their first frame")?;
    let page = some(mm.pfn_to_page(pfn), "which has a descriptor")?;
    let address = some(mm.page_address(page), "and an address")?;
    wrong(machine, "free of a reserved page", || {
        // SAFETY: the manager refuses it: the frame was never handed out.
        unsafe { mm.__free_page(page) }
    })?;
    wrong(machine, "free of a reserved page", || {
        // SAFETY: as above.
        unsafe { mm.free_page(address) }
    })?;
    check(mm.owner(pfn) == Owner::Metadata, "the frame is still the manager's")
}

fn no_reference<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let block = Block::new(machine, GFP_KERNEL, 0)?;
    let page = block.page();
    block.free();
    wrong(machine, "no reference", || mm.get_page(page))?;
    equal(mm.page_count(page).into(), 0, "a free page has no reference to share")?;
    wrong(machine, "double free", || {
        // SAFETY: the manager refuses it: the page is free.
        unsafe { mm.put_page(page) }
    })
}
