//! Pages of the kernel that a user sees: G3 and G16, as far as they are about that.

use kmem::platform::DirectMap;
use kmem::{AllocError, GFP_KERNEL, Gfp, Page, VirtAddr};
use scull::{Areas, Kmalloc, Mode, Pages, ScullError, SlabCache, Source};

use crate::areas::Area;
use crate::devices::load;
use crate::failure::{check, equal, some};
use crate::hold::Block;
use crate::objects::Memory;
use crate::pages::anywhere;
use crate::{Case, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "pages are mapped into a user's address space one by one, and stay while they are",
                &["A072"],
                anywhere,
                one_by_one,
            )
            .objects(),
            Case::new(
                "an area of vmalloc is mapped page by page, and outlives vfree where a user has it",
                &["A072", "A313"],
                anywhere,
                an_area,
            )
            .objects(),
            Case::new(
                "what is no page of its own is not mapped",
                &["A072"],
                anywhere,
                refused,
            )
            .objects()
            .reports(4),
            Case::new(
                "scullp and scullv are mapped, and both sides see one memory; scull and scullc are not",
                &["A312", "A313"],
                anywhere,
                devices,
            )
            .objects(),
        ]
    }
}

/// A user's address.
fn address<M: Machine>(machine: &M, page: usize) -> VirtAddr {
    VirtAddr::new(machine.user().range().start.get() + (page << M::P::PAGE_SHIFT))
}

fn one_by_one<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let user = machine.user();
    let blocks = [(); 4].map(|()| Block::new(machine, GFP_KERNEL | Gfp::ZERO, 0));
    let mut pages = [None; 4];
    for (index, block) in blocks.into_iter().enumerate() {
        let page = block?.into_page();
        pages[index] = Some(page);
        // SAFETY: the page is clear, and this case's.
        unsafe { mm.vm_insert_page(user, address(machine, 3 - index), page, true) }?;
        equal(mm.page_count(page).into(), 2, "the user has a reference")?;
        let there = some(mm.descriptor(page), "a page has a descriptor")?;
        equal(there.map_count().into(), 1, "and is counted as mapped")?;
    }
    for (index, page) in pages.into_iter().flatten().enumerate() {
        let direct = some(mm.page_address(page), "the kernel sees its own page")?.as_ptr::<u64>();
        let seen = address(machine, 3 - index).as_ptr::<u64>();
        // SAFETY: the frame is this case's, and is mapped there.
        unsafe {
            equal(seen.read_volatile(), 0, "a user gets zeros")?;
            seen.write_volatile(100 + index as u64);
            equal(
                direct.read_volatile(),
                100 + index as u64,
                "the kernel sees what the user writes",
            )?;
            direct.add(1).write_volatile(7);
            equal(seen.add(1).read_volatile(), 7, "and the user what the kernel does")?;
        }
        // SAFETY: the page is this case's; the user's reference keeps it.
        unsafe { mm.__free_page(page) };
        equal(mm.page_count(page).into(), 1, "it is in use for as long as the user sees it")?;
    }
    let first = some(pages[0], "a page is there")?;
    // SAFETY: nothing is mapped: it is refused.
    let taken = unsafe { mm.vm_insert_page(user, address(machine, 1), first, true) };
    check(taken == Err(AllocError::Occupied), "an address has one page")?;
    let before = mm.free_page_count();
    equal(mm.vm_remove_pages(user, address(machine, 0), 10) as u64, 4, "four were mapped")?;
    equal(mm.vm_remove_pages(user, address(machine, 0), 10) as u64, 0, "and are no more")?;
    equal(mm.free_page_count(), before + 4, "the last reference frees")
}

fn an_area<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, user) = (machine.mm(), machine.user());
    let area = Area::new(machine, 5)?;
    area.write();
    let memory = area.pointer();
    // SAFETY: the case is its own user.
    let mapped = unsafe { mm.remap_vmalloc_range(user, address(machine, 0), memory, true) }?;
    equal(mapped as u64, 5, "each page of the area is mapped")?;
    for index in 0..5 {
        let seen = address(machine, index).as_ptr::<u64>();
        let own = memory.wrapping_add(index << M::P::PAGE_SHIFT).cast::<u64>();
        // SAFETY: both are mapped to the area's frame.
        unsafe { equal(seen.read_volatile(), own.read_volatile(), "both sides see one frame")? };
    }
    // SAFETY: as above.
    let last = unsafe { address(machine, 4).as_ptr::<u64>().read_volatile() };
    drop(area);
    mm.vm_unmap_aliases();
    // SAFETY: the user's reference keeps the frame.
    let still = unsafe { address(machine, 4).as_ptr::<u64>().read_volatile() };
    equal(still, last, "the user's pages stay when the kernel has freed the area")?;
    equal(mm.vm_remove_pages(user, address(machine, 0), 5) as u64, 5, "all of them were mapped")
}

fn refused<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, user) = (machine.mm(), machine.user());
    let tried = |page: Page| {
        // SAFETY: nothing is mapped: it is refused.
        unsafe { mm.vm_insert_page(user, address(machine, 0), page, true) }
    };
    let not =
        |done: Result<(), AllocError>, what| check(done == Err(AllocError::NotAllocated), what);
    let object = Memory::new(machine, 64, GFP_KERNEL)?;
    let slab = some(mm.virt_to_page(VirtAddr::from_ptr(object.pointer())), "an object has a page")?;
    not(tried(slab), "what lies beside an object is not the user's")?;
    let block = Block::new(machine, GFP_KERNEL, 2)?;
    let second = block.page().pfn().checked_add(1).and_then(|pfn| mm.pfn_to_page(pfn));
    not(tried(some(second, "a block has a second page")?), "nor is a page without references")?;
    let first = block.page();
    block.free();
    mm.drain_all_pages();
    not(tried(first), "a free page is nobody's")?;
    let compound = Block::new(machine, GFP_KERNEL | Gfp::COMP, 2)?;
    let second = compound.page().pfn().checked_add(1).and_then(|pfn| mm.pfn_to_page(pfn));
    tried(some(second, "a block has a second page")?)?;
    equal(
        mm.vm_remove_pages(user, address(machine, 0), 1) as u64,
        1,
        "a compound block's page is",
    )?;
    machine.without_preemption(&|| {
        let _ = tried(compound.page());
    });
    equal(mm.vm_remove_pages(user, address(machine, 0), 1) as u64, 0, "and not in atomic context")
}

fn devices<M: Machine>(machine: &M) -> Result<(), Failure> {
    device::<M, Pages>(machine, 0)?;
    device::<M, Areas>(machine, 2)?;
    let no = |refused| {
        check(matches!(refused, Some(ScullError::NotMappable { .. })), "it cannot be mapped")
    };
    no(load::<M, Kmalloc>(machine, 4000, 10)?
        .mmap(0, machine.user(), address(machine, 0), 1, 0)
        .err())?;
    no(load::<M, SlabCache>(machine, 4000, 10)?
        .mmap(0, machine.user(), address(machine, 0), 1, 0)
        .err())?;
    no(load::<M, Pages>(machine, 1, 10)?.mmap(0, machine.user(), address(machine, 0), 1, 0).err())
}

fn device<M: Machine, S: Source>(machine: &M, size: u64) -> Result<(), Failure> {
    let module = load::<M, S>(machine, size, 10)?;
    let page = machine.facts().page_bytes();
    let mut file = module.open(0, Mode::ReadWrite)?;
    for index in 0..6 {
        file.seek(index * page);
        file.write_all(&[index as u8 + 1; 9])?;
    }
    let mapped = module.mmap(0, machine.user(), address(machine, 2), 6, 0)?;
    equal(mapped.populate()? as u64, 6, "each page that was written is mapped")?;
    for index in 0..6 {
        let seen = address(machine, 2 + index).as_ptr::<u8>();
        // SAFETY: the page is mapped, and the case is its user.
        unsafe {
            equal(
                seen.add(8).read_volatile().into(),
                index as u64 + 1,
                "the user reads the device",
            )?;
            equal(seen.add(9).read_volatile().into(), 0, "of which nothing was anybody else's")?;
            seen.write_volatile(0xee);
        }
        let mut byte = [0];
        file.seek(index as u64 * page);
        file.read(&mut byte)?;
        equal(byte[0].into(), 0xee, "the device reads what the user wrote")?;
    }
    let trimmed = module.open(0, Mode::Write).err();
    check(
        matches!(trimmed, Some(ScullError::Mapped { mappings: 1 })),
        "it is not trimmed meanwhile",
    )?;
    drop(mapped);
    module.open(0, Mode::Write)?;
    Ok(())
}
