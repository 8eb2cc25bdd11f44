//! G10: memory that is contiguous as addresses only.

use core::ptr::NonNull;

use kmem::platform::DirectMap;
use kmem::{AllocError, AreaInfo, CpuId, GFP_ATOMIC, GFP_KERNEL, Gfp, Mm, Page, VirtAddr};

use crate::elsewhere::{in_interrupt, last_cpu};
use crate::failure::{at_least, at_most, check, equal, no_memory, some};
use crate::hold::{Block, Hoard};
use crate::pages::anywhere;
use crate::pressure::press;
use crate::{Case, Facts, Failure, FreeOnDemand, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "vmalloc gives whole pages in a row, at addresses that are kept for mappings",
                &["A220", "A223", "A226", "A237"],
                anywhere,
                in_a_row,
            )
            .objects(),
            Case::new(
                "each page of an area is a frame of its own, which the direct map does not show there",
                &["A221", "A245"],
                anywhere,
                frames,
            )
            .objects(),
            Case::new(
                "an area may be larger than the largest block",
                &["A221"],
                anywhere,
                larger_than_a_block,
            )
            .objects(),
            Case::new(
                "an area is had where no two free pages are neighbours",
                &["A221", "A229", "A167"],
                small,
                splintered,
            )
            .objects(),
            Case::new("the frames of an area stay, whatever is reclaimed", &["A229"], anywhere, stay)
                .objects(),
            Case::new(
                "vfree gives all back; a wrong one is reported and changes nothing",
                &["A222"],
                anywhere,
                frees,
            )
            .objects()
            .reports(9),
            Case::new(
                "more than the RAM is refused at once, without a side effect",
                &["A224"],
                anywhere,
                more_than_ram,
            )
            .objects(),
            Case::new(
                "vmalloc in an interrupt handler is refused with its site, and vfree put off",
                &["A231"],
                anywhere,
                interrupts,
            )
            .objects()
            .reports(2),
            Case::new(
                "vmalloc_32 gives frames that 32 bits of address reach",
                &["A239"],
                anywhere,
                below_4_gib,
            )
            .objects(),
            Case::new(
                "what is freed on one CPU is seen by none afterwards, and its frames come back",
                &["A222", "A231"],
                anywhere,
                everywhere,
            )
            .objects(),
        ]
    }
}

/// An area that a case has, and gives back by itself.
pub(crate) struct Area<'m, M: Machine> {
    mm: &'m Mm<M::P, FreeOnDemand>,
    at: NonNull<u8>,
    pages: usize,
}

// SAFETY: the memory is the value's, whose callers see to who writes when.
unsafe impl<M: Machine> Sync for Area<'_, M> {}

impl<'m, M: Machine> Area<'m, M> {
    #[track_caller]
    pub(crate) fn new(machine: &'m M, pages: usize) -> Result<Self, Failure> {
        let at = machine.mm().vmalloc(pages << M::P::PAGE_SHIFT)?;
        Ok(Area { mm: machine.mm(), at, pages })
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        self.at.as_ptr()
    }

    /// The address of a page of it.
    fn page(&self, index: usize) -> *mut u8 {
        self.at.as_ptr().wrapping_add(index << M::P::PAGE_SHIFT)
    }

    /// Writes a word to each page that no other has.
    pub(crate) fn write(&self) {
        for index in 0..self.pages {
            // SAFETY: the area has so many pages.
            unsafe { self.page(index).cast::<u64>().write(self.word(index)) };
        }
    }

    /// Whether all of them are there.
    pub(crate) fn is_intact(&self) -> bool {
        // SAFETY: as above.
        (0..self.pages)
            .all(|index| unsafe { self.page(index).cast::<u64>().read() == self.word(index) })
    }

    fn word(&self, index: usize) -> u64 {
        self.page(index).addr() as u64 ^ 0x5555_aaaa_0000_0000
    }

    /// The frame of a page of it.
    #[track_caller]
    fn frame(&self, index: usize) -> Result<Page, Failure> {
        some(self.mm.vmalloc_to_page(self.page(index)), "each page of an area has a frame")
    }
}

impl<M: Machine> Drop for Area<'_, M> {
    fn drop(&mut self) {
        // SAFETY: the area is this value's.
        unsafe { self.mm.vfree(self.pointer()) };
    }
}

/// What a machine says of an area.
fn info<M: Machine>(machine: &M, area: &Area<'_, M>) -> Result<AreaInfo, Failure> {
    let there = machine.mm().vm_area_from(VirtAddr::from_ptr(area.pointer()));
    some(there, "an area is among all")
}

fn in_a_row<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let page = 1usize << M::P::PAGE_SHIFT;
    let range = mm.vmalloc_info().range;
    check(range.start < range.end, "there are addresses for mappings")?;
    for bytes in [1, page - 1, page, page + 1, 16 * page, 37 * page + 5] {
        let pages = bytes.div_ceil(page);
        let memory = mm.vmalloc(bytes)?;
        let area: Area<'_, M> = Area { mm, at: memory, pages };
        area.write();
        check(area.is_intact(), "each page keeps what is written to it")?;
        let there = info(machine, &area)?;
        equal(there.pages as u64, pages as u64, "a size is rounded up to pages")?;
        let (first, last) = (VirtAddr::from_ptr(area.pointer()), area.page(pages - 1));
        check(range.contains(&first), "an area begins in the range for mappings")?;
        check(range.contains(&VirtAddr::from_ptr(last)), "and ends there")?;
        check(mm.is_vmalloc_addr(last), "its addresses are told from others")?;
        check(
            mm.vmalloc_to_page(area.page(pages)).is_none(),
            "behind it is a page without a frame",
        )?;
    }
    let zeros = mm.vzalloc(3 * page)?;
    let area: Area<'_, M> = Area { mm, at: zeros, pages: 3 };
    // SAFETY: the area has so many bytes.
    let bytes = unsafe { core::slice::from_raw_parts(area.pointer(), 3 * page) };
    check(bytes.iter().all(|byte| *byte == 0), "vzalloc's memory is clear")
}

fn frames<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let area = Area::new(machine, 21)?;
    area.write();
    for index in 0..21 {
        let frame = area.frame(index)?;
        for other in 0..index {
            check(area.frame(other)? != frame, "no two pages of an area are one frame")?;
        }
        if let Some(direct) = mm.page_address(frame) {
            check(direct.get() != area.page(index).addr(), "an area's addresses are its own")?;
            // SAFETY: the frame is the area's.
            let seen = unsafe { direct.as_ptr::<u64>().read() };
            equal(seen, area.word(index), "the direct map shows the same frame")?;
        }
    }
    let inside = VirtAddr::from_ptr(area.page(3));
    check(mm.virt_to_page(inside).is_none(), "an area's address is none of the direct map")?;
    let object = crate::objects::Memory::new(machine, 100, GFP_KERNEL)?;
    check(!mm.is_vmalloc_addr(object.pointer()), "and kmalloc's none for mappings")
}

fn larger_than_a_block<M: Machine>(machine: &M) -> Result<(), Failure> {
    let largest = machine.mm().largest_order().pages() as usize;
    // Most of a small machine's memory is not to be had at once.
    let pages = largest + 3;
    at_most(pages as u64, machine.mm().free_page_count() / 2, "the machine is large enough")?;
    let area = Area::new(machine, pages)?;
    area.write();
    check(area.is_intact(), "each page keeps what is written to it")?;
    at_least(info(machine, &area)?.runs as u64, 2, "no block is so large")
}

/// Enough pages to take them one by one.
pub(crate) fn small(facts: &Facts) -> Result<(), &'static str> {
    if facts.ram >> facts.page_shift <= 1 << 16 { Ok(()) } else { Err("at most 65536 pages") }
}

/// Takes all pages, and gives those back that have an even number.
fn splinter<M: Machine>(machine: &M) -> Result<Hoard<'_, M>, Failure> {
    const ALL: Gfp = GFP_ATOMIC.union(Gfp::MEMALLOC).union(Gfp::NOWARN);
    let (mut even, mut odd) = (Hoard::new(machine), Hoard::new(machine));
    while let Ok(page) = machine.mm().alloc_page(ALL) {
        // SAFETY: just allocated.
        let block = unsafe { Block::own(machine, page, 0) };
        if block.frame().is_multiple_of(2) { even.push(block) } else { odd.push(block) }
    }
    even.clear();
    machine.mm().drain_all_pages();
    Ok(odd)
}

fn splintered<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let _held = splinter(machine)?;
    let refused = mm.alloc_pages(GFP_KERNEL | Gfp::NORETRY | Gfp::NOWARN, 1);
    no_memory(refused, 1, "no two free pages are neighbours")?;
    let bytes = 2 * machine.facts().page_bytes() as usize;
    let refused = mm.kmalloc(bytes, GFP_KERNEL | Gfp::NORETRY | Gfp::NOWARN);
    no_memory(refused, 1, "which kmalloc needs")?;
    let pages = 200.min(mm.free_page_count() as usize / 4);
    let area = Area::new(machine, pages)?;
    area.write();
    check(area.is_intact(), "each page keeps what is written to it")?;
    equal(info(machine, &area)?.runs as u64, pages as u64, "each page is a run of its own")
}

fn stay<M: Machine>(machine: &M) -> Result<(), Failure> {
    let area = Area::new(machine, 9)?;
    area.write();
    let first = area.frame(0)?;
    let pressed = press(machine, Gfp::NONE);
    // What is asked for now is sought wherever something can be freed.
    let none = machine.mm().alloc_pages(GFP_KERNEL | Gfp::NOWARN, 3);
    if let Ok(page) = none {
        // SAFETY: just allocated.
        unsafe { machine.mm().__free_pages(page, 3) };
    }
    drop(pressed);
    check(area.frame(0)? == first && area.is_intact(), "an area's frames are not taken from it")
}

fn frees<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let area = Area::new(machine, 4)?;
    area.write();
    let head = area.frame(0)?;
    let mapped = mm.vmap(&[head])?;
    let object = crate::objects::Memory::new(machine, 100, GFP_KERNEL)?;
    let end = mm.vmalloc_info().range.end;
    // SAFETY: each is reported, and changes nothing.
    unsafe {
        mm.vfree(area.page(1));
        mm.vfree(area.pointer().wrapping_add(1));
        mm.vfree(area.page(4));
        mm.vfree(end.as_ptr::<u8>().wrapping_sub(8));
        mm.vfree(object.pointer());
        mm.vfree(mapped.as_ptr());
        mm.vunmap(area.pointer());
        mm.kfree(area.pointer());
        mm.__free_page(head);
        mm.vfree(core::ptr::null());
    }
    check(area.is_intact() && area.frame(0)? == head, "wrong frees change nothing")?;
    // SAFETY: the mapping is this case's.
    unsafe { mm.vunmap(mapped.as_ptr()) };
    let used = mm.vmalloc_info().used;
    drop(area);
    equal(mm.vmalloc_info().used as u64, used as u64 - 4, "a right one gives the pages back")
}

fn more_than_ram<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let (free, lines) = (mm.free_page_count(), machine.log_lines());
    let counters = mm.counters();
    let pages = mm.managed_pages() as usize + 1;
    let refused = mm.vmalloc(pages << M::P::PAGE_SHIFT);
    check(
        matches!(refused, Err(AllocError::MoreThanRam { pages: asked, .. }) if asked == pages),
        "a page more than the RAM is refused as such",
    )?;
    check(mm.vmalloc(usize::MAX).is_err(), "and so is everything above")?;
    check(mm.counters() == counters, "nothing was tried")?;
    equal(mm.free_page_count(), free, "nothing was taken")?;
    equal(machine.log_lines(), lines, "and nothing said")
}

fn interrupts<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    for cpu in [CpuId::BOOT, last_cpu(machine)] {
        let area = Area::new(machine, 5)?;
        area.write();
        let waiting = mm.vmalloc_info().waiting;
        in_interrupt(machine, cpu, || {
            check(
                mm.vmalloc(1) == Err(AllocError::Atomic),
                "vmalloc is not for interrupt handlers",
            )?;
            // SAFETY: the area is this case's, and is forgotten below.
            unsafe { mm.vfree(area.pointer()) };
            Ok(())
        })?;
        core::mem::forget(area);
        equal(
            mm.vmalloc_info().waiting as u64,
            waiting as u64 + 5,
            "the area waits to be unmapped",
        )?;
        at_least(mm.vm_unmap_aliases(), 5, "and is unmapped where one may sleep")?;
        equal(mm.vmalloc_info().waiting as u64, 0, "none waits then")?;
        if machine.facts().cpus == 1 {
            return in_interrupt(machine, cpu, || {
                check(mm.vmalloc(1) == Err(AllocError::Atomic), "nor is it ever")
            });
        }
    }
    Ok(())
}

fn below_4_gib<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let pages = 40;
    let memory = mm.vmalloc_32(pages << M::P::PAGE_SHIFT)?;
    let area: Area<'_, M> = Area { mm, at: memory, pages };
    area.write();
    for index in 0..pages {
        let end = mm.page_to_phys(area.frame(index)?).get() + machine.facts().page_bytes();
        at_most(end, 1 << 32, "a frame ends below 4 GiB")?;
    }
    check(area.is_intact(), "each page keeps what is written to it")
}

fn everywhere<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let page = 1usize << M::P::PAGE_SHIFT;
    for round in 0..20 {
        // What others gave back lies below, and would be free when this is.
        mm.vm_unmap_aliases();
        let area = Area::new(machine, 3)?;
        area.write();
        let there = core::sync::atomic::AtomicU64::new(0);
        machine.concurrently(&|_| {
            if area.is_intact() {
                there.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            }
        });
        let all = u64::from(machine.facts().cpus);
        equal(there.into_inner(), all, "every CPU sees an area")?;
        // Freed by a CPU and forgotten by all: what is mapped there next has other contents, and a CPU
        // that remembered the old frames would see the old words.
        let (start, frame) = (area.pointer(), area.frame(0)?);
        drop(area);
        mm.vm_unmap_aliases();
        equal(mm.page_count(frame).into(), 0, "nobody refers to the frame any more")?;
        let next = mm.vmalloc(3 * page + (round % 2) * page)?;
        let next: Area<'_, M> = Area { mm, at: next, pages: 3 };
        equal(next.pointer().addr() as u64, start.addr() as u64, "the addresses are used again")?;
        // SAFETY: the area has so many bytes.
        unsafe { next.pointer().write_bytes(0x11, 3 * page) };
        let old = core::sync::atomic::AtomicU64::new(0);
        machine.concurrently(&|_| {
            // SAFETY: as above; nobody writes meanwhile.
            let words = unsafe { core::slice::from_raw_parts(next.pointer(), 3 * page) };
            if words.iter().any(|byte| *byte != 0x11) {
                old.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            }
        });
        equal(old.into_inner(), 0, "no CPU sees what was there before")?;
    }
    Ok(())
}
