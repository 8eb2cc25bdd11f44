//! G1: page frames and their descriptors.

use core::mem::size_of;

use kmem::boot::StackBacking;
use kmem::page::{Block as Part, Descriptor, PageFlags};
use kmem::platform::DirectMap;
use kmem::{GFP_HIGHUSER, GFP_KERNEL, Gfp, Owner, Page, Pfn, VirtAddr};

use crate::failure::{at_least, at_most, check, equal, some};
use crate::hold::Block;
use crate::{Case, Facts, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "memory is handed out in whole frames, each to one holder",
                &["A001", "A068"],
                anywhere,
                whole_frames,
            ),
            Case::new(
                "a page has the size that the machine was described with",
                &["A002"],
                anywhere,
                page_size,
            ),
            Case::new(
                "1 GiB in pages of 4 KiB is 262,144 frames",
                &["A003"],
                one_gibibyte,
                frames_of_one_gibibyte,
            ),
            Case::new(
                "every frame of RAM has one descriptor, whether it is allocated or not",
                &["A004"],
                anywhere,
                one_descriptor_a_frame,
            ),
            Case::new(
                "a descriptor keeps each of its fields, and states apart from each other",
                &["A005", "A006"],
                anywhere,
                fields,
            ),
            Case::new(
                "page_count is 0 for a free page and counts the references of one in use",
                &["A007"],
                anywhere,
                count,
            ),
            Case::new(
                "page cache, private data and mapped pages are told apart",
                &["A009"],
                anywhere,
                three_uses,
            ),
            Case::new(
                "a page of the direct map has an address, and every way back leads to it",
                &["A010", "A014", "A015", "A016"],
                anywhere,
                addresses,
            ),
            Case::new("a page of high memory has no address", &["A010"], high_memory, no_address),
            Case::new("every frame has an owner, and all are counted", &["A012"], anywhere, owners),
            Case::new(
                "the manager says what it costs: at most 32 bytes a frame and little else",
                &["A013"],
                anywhere,
                cost,
            ),
            Case::new(
                "frames of a slab are marked and counted until the mark is taken away",
                &["A018"],
                anywhere,
                slab_marks,
            ),
        ]
    }
}

pub(crate) fn anywhere(_: &Facts) -> Result<(), &'static str> {
    Ok(())
}

pub(crate) fn high_memory(facts: &Facts) -> Result<(), &'static str> {
    if facts.has_highmem() { Ok(()) } else { Err("RAM above the direct map") }
}

fn one_gibibyte(facts: &Facts) -> Result<(), &'static str> {
    if facts.end == 1 << 30 && facts.page_shift == 12 && facts.nodes == 1 {
        Ok(())
    } else {
        Err("1 GiB in pages of 4 KiB")
    }
}

fn whole_frames<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let page = machine.facts().page_bytes() as usize;
    for (size, pages) in [
        (1, 1),
        (page - 1, 1),
        (page, 1),
        (page + 1, 2),
        (3 * page, 3),
        (5 * page, 5),
        (7 * page - 1, 7),
        (16 * page, 16),
    ] {
        let free = mm.free_page_count();
        let address = mm.alloc_pages_exact(size, GFP_KERNEL)?;
        equal(free - mm.free_page_count(), pages, "a size takes as many frames as hold it")?;
        equal((address.get() % page) as u64, 0, "memory starts with a frame")?;
        let first = some(mm.virt_to_page(address), "the address leads to a frame")?;
        let mut others = [const { None }; 4];
        for place in &mut others {
            let other = Block::new(machine, GFP_KERNEL, 0)?;
            let frame = other.frame();
            let inside = frame >= first.pfn().number() && frame < first.pfn().number() + pages;
            check(!inside, "a frame has one holder")?;
            *place = Some(other);
        }
        drop(others);
        // SAFETY: allocated above with this size.
        unsafe { mm.free_pages_exact(address, size) };
        equal(mm.free_page_count(), free, "what was taken is given back")?;
    }
    Ok(())
}

fn page_size<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let facts = machine.facts();
    equal(<M::P as DirectMap>::PAGE_SHIFT.into(), facts.page_shift.into(), "the page shift")?;
    let mut pair = mm.pages(GFP_KERNEL, 1)?;
    equal(pair.bytes().len() as u64, 2 * facts.page_bytes(), "two pages have so many bytes")?;
    let first = pair.page();
    let second = some(mm.pfn_to_page(next(first)?), "a block's second page")?;
    let distance = mm.page_to_phys(second).get() - mm.page_to_phys(first).get();
    equal(distance, facts.page_bytes(), "neighbours are a page apart")?;
    equal(mm.page_to_phys(first).get(), first.pfn().number() << facts.page_shift, "an address")?;
    // The first and the last byte of each are this block's to write.
    let page = facts.page_bytes() as usize;
    for at in [0, page - 1, page, 2 * page - 1] {
        pair.bytes_mut()[at] = at as u8 ^ 0x5a;
    }
    for at in [0, page - 1, page, 2 * page - 1] {
        equal(pair.bytes()[at].into(), (at as u8 ^ 0x5a).into(), "a byte keeps what was written")?;
    }
    Ok(())
}

fn next(page: Page) -> Result<Pfn, Failure> {
    some(page.pfn().checked_add(1), "a next frame")
}

fn frames_of_one_gibibyte<M: Machine>(machine: &M) -> Result<(), Failure> {
    let memmap = some(machine.mm().memmap(), "the machine is booted")?;
    let descriptors: u64 = memmap.extents().iter().map(|extent| extent.frames()).sum();
    equal(descriptors, 262_144, "1 GiB has so many descriptors")?;
    let all =
        (0..262_144).all(|frame| Pfn::new(frame).is_some_and(|pfn| memmap.get(pfn).is_some()));
    check(all, "each frame of the GiB has one")?;
    let after = some(Pfn::new(262_144), "a frame")?;
    check(memmap.get(after).is_none(), "the frame after the GiB has none")
}

fn one_descriptor_a_frame<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let held = Block::new(machine, GFP_KERNEL, 2)?;
    let frames = some(mm.frames(), "the machine is booted")?;
    let memmap = some(mm.memmap(), "the machine is booted")?;
    for (range, _) in frames.ram() {
        for pfn in range.filter_map(Pfn::new) {
            let part = memmap.get(pfn).map_or(Part::Hole, Descriptor::block);
            check(part != Part::Hole, "a frame of RAM has a descriptor that says so")?;
        }
    }
    let mut described = 0;
    for extent in memmap.extents() {
        for pfn in extent.range().filter_map(Pfn::new) {
            let part = memmap.get(pfn).map_or(Part::Hole, Descriptor::block);
            described += u64::from(part != Part::Hole);
        }
    }
    equal(described, frames.ram_pages(), "there are as many such descriptors as frames of RAM")?;
    // Each is one of its own: what is written in one is in no other.
    let (a, b) = (held.page(), some(mm.pfn_to_page(next(held.page())?), "a second page")?);
    let b = some(mm.descriptor(b), "a descriptor")?;
    let before = b.map_count();
    mm.set_page_map_count(a, before + 7);
    equal(b.map_count().into(), before.into(), "neighbours have descriptors of their own")?;
    mm.set_page_map_count(a, 0);
    Ok(())
}

fn fields<M: Machine>(machine: &M) -> Result<(), Failure> {
    // What a holder may set.
    const FLAGS: [PageFlags; 11] = [
        PageFlags::Locked,
        PageFlags::Dirty,
        PageFlags::Uptodate,
        PageFlags::Referenced,
        PageFlags::Lru,
        PageFlags::Active,
        PageFlags::Writeback,
        PageFlags::SwapCache,
        PageFlags::Unevictable,
        PageFlags::Reclaim,
        PageFlags::User,
    ];
    let mm = machine.mm();
    let block = Block::new(machine, GFP_KERNEL, 0)?;
    let page = block.page();
    let descriptor = some(mm.descriptor(page), "a page has a descriptor")?;
    equal(8 * size_of_val(&descriptor.flags()) as u64, 32, "there is room for 32 states")?;
    equal(descriptor.flags().into(), 0, "a page is handed out without states")?;
    for (index, flag) in FLAGS.into_iter().enumerate() {
        check(!mm.set_page_flag(page, flag), "a state is not there before it is set")?;
        check(mm.set_page_flag(page, flag), "a state is there after it is set")?;
        equal(descriptor.flags().count_ones().into(), index as u64 + 1, "each has its own bit")?;
    }
    for (index, flag) in FLAGS.into_iter().enumerate() {
        let cleared = descriptor.has(flag) && mm.clear_page_flag(page, flag);
        check(cleared, "a state is there until cleared")?;
        let left = FLAGS.len() - index - 1;
        equal(descriptor.flags().count_ones().into(), left as u64, "clearing leaves the others")?;
    }

    equal(descriptor.count().into(), 1, "the use count of a page that is held")?;
    mm.set_page_map_count(page, 3);
    mm.set_page_private(page, Some(0x0123_4567_89ab_cdef));
    equal(descriptor.private().unwrap_or(0), 0x0123_4567_89ab_cdef, "private keeps 64 bits")?;
    mm.set_page_mapping(page, Some((0xfeed_0001, 0xbeef_0002)));
    check(descriptor.mapping() == Some((0xfeed_0001, 0xbeef_0002)), "mapping and index are kept")?;
    check(descriptor.private().is_none(), "a page of the cache is not private data")?;
    equal(descriptor.map_count().into(), 3, "the map count is kept beside them")?;
    equal(descriptor.count().into(), 1, "so is the use count")?;
    mm.set_page_mapping(page, None);
    mm.set_page_map_count(page, 0);
    check(descriptor.mapping().is_none(), "mapping and index can be taken away")?;
    check(mm.page_address(block.page()).is_some(), "a page knows its virtual address")?;

    // What a holder leaves behind is not the next holder's.
    mm.set_page_flag(page, PageFlags::Dirty);
    block.free();
    equal(descriptor.flags().into(), 0, "a page loses its states when it is freed")
}

fn count<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    for order in [0, 4] {
        let block = Block::new(machine, GFP_KERNEL, order)?;
        let page = block.page();
        equal(mm.page_count(page).into(), 1, "a page in use has a positive count")?;
        mm.get_page(page);
        equal(mm.page_count(page).into(), 2, "another reference is counted")?;
        let free = mm.free_page_count();
        block.free();
        equal(mm.page_count(page).into(), 1, "freeing drops the holder's reference")?;
        equal(mm.free_page_count(), free, "the page stays while there is another")?;
        // SAFETY: the reference was taken above.
        unsafe { mm.put_page(page) };
        equal(mm.page_count(page).into(), 0, "a free page has a count of 0")?;
        equal(mm.free_page_count(), free + (1 << order), "the last reference frees the block")?;
    }
    mm.drain_all_pages();
    let block = Block::new(machine, GFP_KERNEL, 0)?;
    let page = block.page();
    block.free();
    mm.drain_all_pages();
    equal(mm.page_count(page).into(), 0, "also in the zone's free areas")
}

fn three_uses<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let block = Block::new(machine, GFP_KERNEL, 0)?;
    let (page, pfn) = (block.page(), block.page().pfn());
    check(mm.owner(pfn) == Owner::Kernel, "a page that nobody says more of is the kernel's")?;
    mm.set_page_private(page, Some(9));
    check(mm.owner(pfn) == Owner::Private, "private data is seen")?;
    mm.set_page_mapping(page, Some((3, 4)));
    let cached = Owner::PageCache { mapping: 3, index: 4 };
    check(mm.owner(pfn) == cached, "page cache is seen, and which")?;
    mm.set_page_mapping(page, None);
    mm.set_page_map_count(page, 2);
    check(mm.owner(pfn) == Owner::User { mappings: 2 }, "a mapped page is seen")?;
    mm.set_page_map_count(page, 0);
    check(mm.owner(pfn) == Owner::Kernel, "each can be undone")
}

fn addresses<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let page_bytes = machine.facts().page_bytes() as usize;
    let base = mm.platform().base().get();
    let block = Block::new(machine, GFP_KERNEL, 3)?;
    let first = block.page();
    let start = some(mm.page_address(first), "a page of the direct map has an address")?;
    for index in 0..8 {
        let pfn = some(first.pfn().checked_add(index as u64), "a frame")?;
        let page = some(mm.pfn_to_page(pfn), "a page for the frame")?;
        check(mm.page_to_pfn(page) == pfn, "frame to page to frame is the same")?;
        let address = some(mm.page_address(page), "an address for the page")?;
        equal(
            address.get() as u64,
            (start.get() + index * page_bytes) as u64,
            "addresses of a block follow from the first",
        )?;
        let physical = mm.page_to_phys(page).get() as usize;
        equal(address.get() as u64, base.wrapping_add(physical) as u64, "one-to-one, shifted")?;
        for byte in [0, 1, page_bytes - 1] {
            let back = mm.virt_to_page(VirtAddr::new(address.get() + byte));
            check(back == Some(page), "every byte of a page leads back to it")?;
        }
    }
    Ok(())
}

fn no_address<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let block = Block::new(machine, GFP_HIGHUSER, 0)?;
    let address = mm.page_to_phys(block.page());
    let limit = mm.platform().limit();
    check(address >= limit, "GFP_HIGHUSER prefers high memory")?;
    check(mm.page_address(block.page()).is_none(), "it is seen nowhere in the direct map")?;
    // The address that it would have, were the direct map longer, is nobody's.
    let beyond = mm.platform().base().get().wrapping_add(address.get() as usize);
    check(mm.virt_to_page(VirtAddr::new(beyond)).is_none(), "and no address leads to it")
}

fn owners<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let page_bytes = machine.facts().page_bytes();
    let frames = some(mm.frames(), "the machine is booted")?;
    let memmap = some(mm.memmap(), "the machine is booted")?;
    let block = Block::new(machine, GFP_KERNEL, 3)?;
    let inside = some(block.page().pfn().checked_add(5), "a frame")?;
    check(mm.owner(inside) == Owner::Kernel, "a frame inside a block has the block's owner")?;

    let (mut free, mut kernel, mut image, mut metadata, mut others, mut holes) = (0, 0, 0, 0, 0, 0);
    let (mut slabs, mut areas) = (0, 0);
    for extent in memmap.extents() {
        for pfn in extent.range().filter_map(Pfn::new) {
            match mm.owner(pfn) {
                Owner::Free | Owner::FreeOnLists(_) => free += 1,
                Owner::Kernel => kernel += 1,
                Owner::KernelImage => image += 1,
                Owner::Metadata => metadata += 1,
                Owner::Reserved | Owner::Late => others += 1,
                Owner::Hole => holes += 1,
                Owner::Slab => slabs += 1,
                Owner::Vmalloc => areas += 1,
                _ => return Err(Failure::new("nobody else has a frame after boot")),
            }
        }
    }
    let described: u64 = memmap.extents().iter().map(|extent| extent.frames()).sum();
    equal(free, mm.free_page_count(), "frames that are free")?;
    // A machine whose handlers run on the manager's interrupt stacks has them since boot.
    let stacks = mm.stack_info();
    let (in_blocks, mapped) = match stacks.interrupts.backing() {
        StackBacking::Pages => (stacks.pages as u64, 0),
        StackBacking::Mapped => (0, stacks.pages as u64),
    };
    equal(kernel, 8 + in_blocks, "frames that the case holds")?;
    equal(areas, mapped, "frames of mapped stacks")?;
    let counters = mm.counters();
    equal(slabs, counters.slab_reclaimable + counters.slab_unreclaimable, "frames of slabs")?;
    equal(metadata * page_bytes, mm.metadata_bytes(), "frames of the manager's tables")?;
    equal(holes, described - frames.ram_pages(), "frames that are no RAM")?;
    let class = |wanted: kmem::boot::map::ReservedClass| -> u64 {
        let reserved = frames.reserved_in_ram().filter(|(reserved, _)| reserved.class == wanted);
        reserved.map(|(reserved, _)| reserved.range.end - reserved.range.start).sum()
    };
    equal(image, class(kmem::boot::map::ReservedClass::Kernel), "frames of the kernel image")?;
    equal(
        free + kernel + image + metadata + slabs + areas + others,
        frames.ram_pages(),
        "every frame of RAM has an owner",
    )
}

fn cost<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let memmap = some(mm.memmap(), "the machine is booted")?;
    let described: u64 = memmap.extents().iter().map(|extent| extent.frames()).sum();
    let descriptors = described * size_of::<Descriptor>() as u64;
    at_most(size_of::<Descriptor>() as u64, 32, "bytes of a descriptor")?;
    // The text's example at this manager's size: 4 GiB in pages of 8 KiB cost 16 MiB, not 20.
    let example = (4u64 << 30 >> 13) * size_of::<Descriptor>() as u64;
    equal(example, 16 << 20, "bytes of descriptors for 4 GiB in pages of 8 KiB")?;
    let bytes = mm.metadata_bytes();
    at_least(bytes, descriptors, "the cost that is reported includes the descriptors")?;
    // Beside them: a byte for each page block, and tables for zones, nodes and CPUs.
    let facts = machine.facts();
    let rest = u64::from(facts.cpus) * (128 << 10) + (256 << 10) + 8 * facts.page_bytes();
    at_most(bytes, descriptors + descriptors / 64 + rest, "and little else")?;
    let managed = mm.managed_pages() * facts.page_bytes();
    at_most(managed + bytes, facts.ram, "it is paid from the machine's RAM")
}

fn slab_marks<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let counted = || {
        let counters = mm.counters();
        (counters.slab_reclaimable, counters.slab_unreclaimable)
    };
    let before = counted();
    let plain = Block::new(machine, GFP_KERNEL, 2)?;
    let shrinkable = Block::new(machine, GFP_KERNEL | Gfp::RECLAIMABLE, 1)?;
    mm.set_page_slab(plain.page(), false);
    check(counted() == (before.0, before.1 + 4), "the pages of a slab are counted")?;
    mm.set_page_slab(shrinkable.page(), true);
    check(counted() == (before.0 + 2, before.1 + 4), "those of a shrinkable cache apart")?;
    mm.set_page_slab(plain.page(), false);
    check(counted() == (before.0 + 2, before.1 + 4), "a slab is counted once")?;
    for index in 0..4 {
        let pfn = some(plain.page().pfn().checked_add(index), "a frame")?;
        check(mm.owner(pfn) == Owner::Slab, "every frame of a slab is seen to be one")?;
    }
    mm.clear_page_slab(plain.page());
    mm.clear_page_slab(shrinkable.page());
    check(counted() == before, "the counts are back where they were")?;
    check(mm.owner(plain.page().pfn()) == Owner::Kernel, "and so is the mark")?;
    Ok(())
}
