//! G11: memory that is allocated before there is a page allocator, and what is set aside there.

use core::fmt::Write;
use core::ptr::NonNull;

use kmem::boot::memblock::{MemblockError, Wanted};
use kmem::boot::{BootMemError, CarveoutError};
use kmem::platform::MisuseKind;
use kmem::{AllocError, CpuId, GFP_KERNEL, Gfp, NodeId, Owner, Pfn, PhysAddr, report};
use scull::Allocator;

use crate::elsewhere::{in_interrupt, without_preemption};
use crate::failure::{at_least, check, equal};
use crate::nested::{LARGEST_ORDER, Nested, Ram};
use crate::pages::anywhere;
use crate::text::{Lines, Text};
use crate::{Case, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "the four calls of boot time give cleared memory on either side of MAX_DMA_ADDRESS",
                &["A247", "A248", "A249"],
                anywhere,
                four_calls,
            ),
            Case::new(
                "their successors take alignment, limits, a side and a node, reserve, free and dump",
                &["A247", "A249"],
                anywhere,
                successors,
            ),
            Case::new(
                "after boot the calls of boot time are refused, and reported",
                &["A250"],
                anywhere,
                after_boot,
            ),
            Case::new(
                "boot-time memory is of any size, contiguous, below what devices reach",
                &["A251", "A254"],
                anywhere,
                any_size,
            ),
            Case::new(
                "boot-time memory is given back at boot, or later, or never on a machine of 2.4",
                &["A252"],
                anywhere,
                given_back,
            ),
            Case::new(
                "the pool of free pages is what boot-time allocations have left",
                &["A253"],
                anywhere,
                pool,
            ),
            Case::new(
                "an init function of the older scheme raises the lower bound, and keeps the gap",
                &["A255"],
                anywhere,
                older_scheme,
            ),
            Case::new(
                "bigphysarea= sets pages aside at the start of memory, for blocks at run time",
                &["A256"],
                anywhere,
                bigphysarea,
            ),
            Case::new(
                "RAM above mem= is left alone, and the module allocator hands it out, not to ISA",
                &["A257", "A258", "A320"],
                anywhere,
                above_mem,
            ),
        ]
    }
}

/// What a call of boot time gave.
#[track_caller]
fn given<T>(memory: Result<T, BootMemError>) -> Result<T, Failure> {
    memory.map_err(|_| Failure::new("there is memory at boot"))
}

#[track_caller]
fn no_room<T>(refused: Result<T, BootMemError>) -> Result<(), Failure> {
    let no_room = matches!(refused, Err(BootMemError::Memory(MemblockError::NoRoom(_))));
    check(no_room, "where there is no such memory the call says so")
}

/// Whether so many bytes are zero.
#[track_caller]
fn cleared(memory: NonNull<u8>, bytes: usize) -> Result<(), Failure> {
    // SAFETY: so many bytes were just allocated and cleared.
    let memory = unsafe { core::slice::from_raw_parts(memory.as_ptr(), bytes) };
    check(memory.iter().all(|byte| *byte == 0), "boot-time memory is cleared")
}

fn four_calls<M: Machine>(machine: &M) -> Result<(), Failure> {
    let ram = Ram::take(machine)?;
    let nested = ram.machine();
    let early = nested.boot.alloc_bootmem(nested.platform(), 1);
    check(early == Err(BootMemError::NotOpen), "before there is a map there is no memory")?;
    nested.open("")?;
    let (boot, on, page) = (&nested.boot, nested.platform(), machine.facts().page_bytes());
    let at = |memory: NonNull<u8>| ram.physical(memory.as_ptr());
    for size in [1, 100, 5000, 3 * page as usize + 1] {
        let normal = given(boot.alloc_bootmem(on, size))?;
        let low = given(boot.alloc_bootmem_low(on, size))?;
        let pages = given(boot.alloc_bootmem_pages(on, size))?;
        let low_pages = given(boot.alloc_bootmem_low_pages(on, size))?;
        for memory in [normal, low, pages, low_pages] {
            cleared(memory, size)?;
        }
        for memory in [normal, pages] {
            at_least(at(memory), ram.middle(), "normal memory lies above MAX_DMA_ADDRESS")?;
        }
        for memory in [low, low_pages] {
            let end = at(memory) + size as u64;
            at_least(ram.middle(), end, "low memory lies below MAX_DMA_ADDRESS")?;
        }
        for memory in [pages, low_pages] {
            equal(at(memory) % page, 0, "the _pages calls give whole pages")?;
        }
    }
    // Bytes are the grain of the others, and nobody else has a byte of a page of these.
    let [one, other] = [given(boot.alloc_bootmem(on, 100))?, given(boot.alloc_bootmem(on, 100))?];
    check(at(one) / page == at(other) / page, "two small ones share a page")?;
    check(!at(other).is_multiple_of(page), "the second begins inside of it")?;
    let pages = given(boot.alloc_bootmem_pages(on, 1))?;
    let next = Wanted { within: at(pages)..at(pages) + page, ..Wanted::new(1, 1) };
    no_room(boot.memblock_alloc(on, "case", &next))?;
    // Above the limit as long as there is some, then below it; low memory never above it.
    let mut seen_below = false;
    while let Ok(memory) = boot.alloc_bootmem_pages(on, 4 * page as usize) {
        let below = at(memory) < ram.middle();
        check(below || !seen_below, "memory above the limit goes first")?;
        seen_below |= below;
    }
    check(seen_below, "where there is none above, memory below the limit is as good")?;
    no_room(boot.alloc_bootmem_low_pages(on, 4 * page as usize))?;
    // SAFETY: it is the case's.
    given(unsafe { boot.free_bootmem(on, pages, page as usize) })?;
    no_room(boot.alloc_bootmem_low_pages(on, 4 * page as usize))?;
    equal(on.misuses().0, 0, "nothing of this is a mistake")
}

fn successors<M: Machine>(machine: &M) -> Result<(), Failure> {
    let ram = Ram::take(machine)?;
    let nested = ram.machine();
    nested.open("")?;
    let (boot, on) = (&nested.boot, nested.platform());
    let (start, end) = (ram.range.start, ram.range.end);
    let wanted = Wanted { within: start + 1..end, ..Wanted::new(1000, 0x300) };
    let memory = given(boot.memblock_alloc(on, "aligned", &wanted))?;
    let expected = (start + 1).next_multiple_of(0x300);
    equal(ram.physical(memory.as_ptr()), expected, "the lowest multiple within the limits")?;
    cleared(memory, 1000)?;
    let top = Wanted { top_down: true, ..Wanted::new(10, 1) };
    let top = given(boot.memblock_phys_alloc(on, "top", &top))?;
    equal(top.get(), end - 10, "or the highest")?;
    let on_node = Wanted { prefer: NodeId::new(3), ..Wanted::new(64, 64) };
    let memory = given(boot.memblock_alloc(on, "node", &on_node))?;
    cleared(memory, 64)?;
    let (from, to) = (PhysAddr::new(start + 8192), PhysAddr::new(start + 9000));
    given(boot.memblock_reserve(on, "ring", from..to))?;
    let inside = Wanted { within: from.get()..to.get(), ..Wanted::new(1, 1) };
    no_room(boot.memblock_alloc(on, "case", &inside))?;
    // SAFETY: nobody uses it.
    given(unsafe { boot.memblock_free(on, PhysAddr::new(start + 8200)..to) })?;
    given(boot.memblock_phys_alloc(on, "case", &inside))?;
    let mut names = 0;
    let mut lines = Lines::new(|_, line| {
        names += u64::from(["aligned", "top", "node", "ring"].iter().any(|n| line.ends_with(n)));
        Ok(())
    });
    boot.memblock_dump(&mut lines)?;
    lines.finish()?;
    equal(names, 4, "the dump has each range under its name")?;
    nested.boot()?;
    check(nested.mm.verify().is_ok(), "the manager is sound")?;
    equal(on.misuses().0, 0, "nothing of this is a mistake")
}

fn after_boot<M: Machine>(machine: &M) -> Result<(), Failure> {
    let ram = Ram::take(machine)?;
    let nested = ram.machine();
    nested.open("")?;
    let (boot, on) = (&nested.boot, nested.platform());
    let kept = given(boot.alloc_bootmem(on, 100))?;
    nested.boot()?;
    check(boot.is_handed_over(), "the page allocator has the memory")?;
    let free = nested.mm.free_page_count();
    let over = |refused: bool, reports: u64| {
        check(refused, "a call after boot is refused")?;
        equal(on.misuses().0, reports, "and reported")?;
        check(on.misuses().1 == Some(MisuseKind::BootIsOver), "as what it is")
    };
    let is_over = |error: Option<BootMemError>| error == Some(BootMemError::HandedOver);
    over(is_over(boot.alloc_bootmem(on, 100).err()), 1)?;
    over(is_over(boot.alloc_bootmem_low(on, 100).err()), 2)?;
    over(is_over(boot.alloc_bootmem_pages(on, 100).err()), 3)?;
    over(is_over(boot.alloc_bootmem_low_pages(on, 100).err()), 4)?;
    over(is_over(boot.memblock_alloc(on, "late", &Wanted::new(1, 1)).err()), 5)?;
    // SAFETY: it is refused.
    over(is_over(unsafe { boot.free_bootmem(on, kept, 100) }.err()), 6)?;
    over(is_over(boot.older_scheme(on, "late", |start, _| start).err()), 7)?;
    // SAFETY: it is refused.
    let again = unsafe { nested.mm.boot_from(boot, &nested.setup) };
    over(again.is_err(), 8)?;
    equal(nested.mm.free_page_count(), free, "nothing has changed")
}

fn any_size<M: Machine>(machine: &M) -> Result<(), Failure> {
    let ram = Ram::take(machine)?;
    let nested = ram.machine();
    nested.open("")?;
    let (boot, on, page) = (&nested.boot, nested.platform(), machine.facts().page_bytes());
    // More than a third of all memory, and a byte over so many pages that are no power of two.
    let pages = (ram.range.end - ram.range.start) / page * 2 / 5;
    let pages = pages | 1;
    let size = (pages * page) as usize + 1;
    let buffer = given(boot.alloc_bootmem_low(on, size))?;
    cleared(buffer, size)?;
    for at in (0..size).step_by(1000).chain([size - 1]) {
        // SAFETY: it is a byte of the buffer.
        unsafe { buffer.as_ptr().add(at).write(at as u8) };
    }
    let physical = ram.physical(buffer.as_ptr());
    check(!pages.is_power_of_two(), "the size is no power of two")?;
    at_least(ram.middle(), physical + size as u64, "devices reach its first byte and its last")?;
    nested.boot()?;
    let order = pages.ilog2() + 1;
    let refused = nested.mm.alloc_pages(GFP_KERNEL, order);
    check(matches!(refused, Err(AllocError::OrderTooLarge { .. })), "no order has so many pages")?;
    at_least(order.into(), u64::from(LARGEST_ORDER) + 1, "that is the page allocator's limit")?;
    // The manager does not hand out a byte of it.
    let mut got = 0;
    while let Ok(page) = nested.mm.alloc_page(GFP_KERNEL | Gfp::ZERO | Gfp::NOWARN | Gfp::MEMALLOC)
    {
        let _ = page;
        got += 1;
    }
    at_least(got, 1, "the page allocator has the rest")?;
    let same = (0..size).step_by(1000).chain([size - 1]).all(|at| {
        // SAFETY: as above; physical addresses that follow one another are seen so.
        unsafe { ram.pointer(physical + at as u64).read() == at as u8 }
    });
    check(same, "the buffer is contiguous, and its owner's alone")
}

fn given_back<M: Machine>(machine: &M) -> Result<(), Failure> {
    let page = machine.facts().page_bytes();
    let mut free = [0; 3];
    for (keep, free) in [false, true].into_iter().zip(&mut free) {
        let ram = Ram::take(machine)?;
        let mut nested = ram.machine();
        nested.setup = nested.setup.keep_boot_memory(keep);
        nested.open("")?;
        let (boot, on) = (&nested.boot, nested.platform());
        let size = 6 * page as usize;
        let before = given(boot.alloc_bootmem_pages(on, size))?;
        // SAFETY: it is the case's.
        given(unsafe { boot.free_bootmem(on, before, size) })?;
        let buffer = given(boot.alloc_bootmem_pages(on, size))?;
        check(buffer == before, "what was freed is allocated again")?;
        // SAFETY: wrong on purpose: the second half lies behind it.
        let wrong = unsafe { boot.free_bootmem(on, buffer, 2 * size) };
        check(wrong.is_err() && on.misuses() == (1, Some(MisuseKind::DoubleFree)), "not more")?;
        // SAFETY: it is the case's: the last two pages.
        given(unsafe { boot.free_bootmem(on, buffer.add(4 * page as usize), 2 * page as usize) })?;
        nested.boot()?;
        let managed = nested.mm.managed_pages();
        let physical = PhysAddr::new(ram.physical(buffer.as_ptr()));
        let range = physical..PhysAddr::new(physical.get() + 4 * page);
        // SAFETY: the case does not use it any more.
        let released = unsafe { nested.mm.release_late(range) };
        if keep {
            check(released.is_err(), "a machine of 2.4 never has it back")?;
        } else {
            check(released == Ok(4), "today's has it back when nobody needs it any more")?;
        }
        equal(nested.mm.managed_pages(), managed + 4 * u64::from(!keep), "as the pool shows")?;
        check(nested.mm.verify().is_ok(), "every structure is sound")?;
        *free = nested.mm.managed_pages();
    }
    equal(free[0], free[1] + 4, "the two differ by the pages of the buffer")
}

fn pool<M: Machine>(machine: &M) -> Result<(), Failure> {
    let ram = Ram::take(machine)?;
    let page = machine.facts().page_bytes();
    let (mut managed, mut free) = ([0; 2], [0; 2]);
    for taken in [false, true] {
        let nested = ram.machine();
        nested.open("")?;
        let (boot, on) = (&nested.boot, nested.platform());
        if taken {
            given(boot.alloc_bootmem_pages(on, 7 * page as usize))?;
            given(boot.alloc_bootmem_low_pages(on, 4 * page as usize + 1))?;
            given(boot.memblock_alloc(on, "a ring", &Wanted::new(page, page)))?;
        }
        nested.boot()?;
        let frames = nested.mm.frames();
        let counts = frames.map_or((0, 0), |frames| (frames.ram_pages(), frames.reserved_pages()));
        let size = ram.range.end - ram.range.start;
        equal(counts.0, size / page, "every frame of the RAM is known")?;
        managed[usize::from(taken)] = nested.mm.managed_pages();
        free[usize::from(taken)] = nested.mm.free_page_count();
        equal(counts.0, nested.mm.managed_pages() + counts.1, "frames are managed or reserved")?;
        let mut names = (0, 0);
        let mut lines = Lines::new(|_, line| {
            names.0 += u64::from(line.starts_with("  ") && line.ends_with(" : bootmem"));
            names.1 += u64::from(line.starts_with("  ") && line.ends_with(" : a ring"));
            Ok(())
        });
        report::iomem(&nested.mm, &mut lines)?;
        lines.finish()?;
        let wanted = if taken { (2, 1) } else { (0, 0) };
        check(names == wanted, "/proc/iomem has them by their names, in System RAM")?;
    }
    equal(managed[0] - managed[1], 7 + 5 + 1, "what was allocated at boot is not in the pool")?;
    equal(free[0] - free[1], 7 + 5 + 1, "nor free")
}

fn older_scheme<M: Machine>(machine: &M) -> Result<(), Failure> {
    let ram = Ram::take(machine)?;
    let nested = ram.machine();
    nested.open("")?;
    let (boot, on, page) = (&nested.boot, nested.platform(), machine.facts().page_bytes());
    // Two drivers, one after the other, and one that finds its device missing.
    let steal =
        |pages: u64| move |start: PhysAddr, _: PhysAddr| PhysAddr::new(start.get() + pages * page);
    let first = given(boot.older_scheme(on, "frame grabber", steal(5)))?;
    let second = given(boot.older_scheme(on, "sound card", steal(3)))?;
    let none = given(boot.older_scheme(on, "no device", steal(0)))?;
    let lowest = ram.range.start.max(1 << 20);
    equal(first.start.get(), lowest, "the free memory area begins with the first megabytes")?;
    equal(first.end.get(), lowest + 5 * page, "the first has what is below its answer")?;
    check(second.start == first.end && none.start == second.end, "the next begins there")?;
    check(none.is_empty(), "who answers the bound it was given has nothing")?;
    let refused = boot.older_scheme(on, "backwards", |start, _| PhysAddr::new(start.get() - 1));
    check(matches!(refused, Err(BootMemError::BadBound { .. })), "a bound is not lowered")?;
    let refused = boot.older_scheme(on, "beyond", |_, end| PhysAddr::new(end.get() + 1));
    check(matches!(refused, Err(BootMemError::BadBound { .. })), "nor raised beyond the area")?;
    // SAFETY: it is refused.
    let freed = unsafe { boot.memblock_free(on, first.clone()) };
    check(freed.is_err() && on.misuses().1 == Some(MisuseKind::Reserved), "it is kept for ever")?;
    nested.boot()?;
    // SAFETY: it is refused.
    check(unsafe { nested.mm.release_late(first.clone()) }.is_err(), "after boot as well")?;
    for frame in first.start.get() / page..second.end.get() / page {
        let owner = Pfn::new(frame).map(|pfn| nested.mm.owner(pfn));
        check(owner == Some(Owner::Reserved), "no frame of the gap is in the pool")?;
    }
    Ok(())
}

/// Allocates from the area inside.
fn area<M: Machine>(
    nested: &Nested<'_, M>,
    pages: u64,
    align: u64,
) -> Result<NonNull<u8>, Failure> {
    let got = nested.mm.bigphysarea_alloc_pages(pages, align, Gfp::ZERO);
    got.map_err(|_| Failure::new("the area has so many pages"))
}

fn bigphysarea<M: Machine>(machine: &M) -> Result<(), Failure> {
    let ram = Ram::take(machine)?;
    let page = machine.facts().page_bytes();
    let nested = ram.machine();
    nested.open("ro bigphysarea=100")?;
    nested.boot()?;
    let (mm, on) = (&nested.mm, nested.platform());
    let start = mm.bigphysarea_frames().ok().flatten().map_or(0, |frames| frames.start * page);
    equal(start, ram.range.start.max(1 << 20), "it is taken from the start of memory")?;
    let managed = mm.free_page_count();
    let at = |memory: NonNull<u8>| (ram.physical(memory.as_ptr()) - start) / page;
    // First fit, any number of pages.
    let bytes = mm.bigphysarea_alloc(2 * page as usize + 1);
    let bytes = bytes.map_err(|_| Failure::new("the area has three pages"))?;
    equal(at(bytes), 0, "the lowest pages go first")?;
    let middle = area(&nested, 33, 1)?;
    cleared(middle, 33 * page as usize)?;
    equal(at(middle), 3, "bytes are rounded up to pages")?;
    let aligned = area(&nested, 1, 16)?;
    equal(ram.physical(aligned.as_ptr()) % (16 * page), 0, "pages are aligned as asked for")?;
    let none = mm.bigphysarea_alloc_pages(100, 1, Gfp::NONE);
    check(matches!(none, Err(CarveoutError::NoRoom { pages: 100, .. })), "it has an end")?;
    let zero = mm.bigphysarea_alloc(0);
    check(zero == Err(CarveoutError::ZeroSize), "no bytes are no request")?;
    let for_dma = mm.bigphysarea_alloc_pages(1, 1, Gfp::DMA);
    let for_dma = for_dma.map_err(|_| Failure::new("devices reach all of it"))?;
    let mut text = Text::new();
    report::bigphysarea(mm, &mut text)?;
    check(text.contains("pages: 100\n") && text.contains("in 4 blocks\n"), "/proc has a file")?;
    // Wrong frees are reported and change nothing.
    let wrong = |memory: NonNull<u8>, kind: MisuseKind, reports: u64| {
        // SAFETY: wrong on purpose.
        unsafe { mm.bigphysarea_free(memory) };
        check(on.misuses() == (reports, Some(kind)), "a wrong free is reported as what it is")
    };
    let plus = |pages: u64| {
        let pointer = NonNull::new(ram.pointer(start + pages * page));
        pointer.ok_or(Failure::new("memory has an address"))
    };
    wrong(plus(4)?, MisuseKind::Interior, 1)?;
    wrong(plus(99)?, MisuseKind::DoubleFree, 2)?;
    wrong(plus(100)?, MisuseKind::Foreign, 3)?;
    // SAFETY: a byte of the first page.
    wrong(unsafe { bytes.add(1) }, MisuseKind::Misaligned, 4)?;
    // SAFETY: it is the case's.
    unsafe { mm.bigphysarea_free_pages(middle) };
    wrong(middle, MisuseKind::DoubleFree, 5)?;
    // From where nobody may sleep, and in an interrupt handler.
    let take = || {
        let memory = area(&nested, 20, 1)?;
        // SAFETY: it was just allocated.
        unsafe { mm.bigphysarea_free(memory) };
        Ok(at(memory))
    };
    equal(in_interrupt(machine, CpuId::BOOT, take)?, 3, "an interrupt handler gets pages")?;
    equal(without_preemption(machine, take)?, 3, "and who may not sleep")?;
    // All of it can be had, again and again.
    for memory in [bytes, aligned, for_dma] {
        // SAFETY: it is the case's.
        unsafe { mm.bigphysarea_free(memory) };
    }
    let all = area(&nested, 100, 1)?;
    equal(at(all), 0, "once all is free it is one piece")?;
    equal(mm.free_page_count(), managed, "nothing of this is the page allocator's")?;
    equal(on.misuses().0, 5, "nothing else was a mistake")
}

fn above_mem<M: Machine>(machine: &M) -> Result<(), Failure> {
    let ram = Ram::take(machine)?;
    let page = machine.facts().page_bytes();
    let nested = ram.machine();
    // The upper quarter is left alone.
    let limit = ram.middle() + (ram.middle() - ram.range.start) / 2;
    let mut line = Text::new();
    write!(line, "quiet mem={:#x}", limit)?;
    nested.open(line.as_str())?;
    nested.boot()?;
    let (mm, on) = (&nested.mm, nested.platform());
    equal(mm.frames().map_or(0, |f| f.span().end) * page, limit, "managed RAM ends at mem=")?;
    let above = mm.unmanaged_ram().next().map(|range| range.start * page..range.end * page);
    check(above == Some(limit..ram.range.end), "what lies above is remembered")?;
    let pfn = Pfn::new(ram.range.end / page - 1);
    check(pfn.and_then(|pfn| mm.pfn_to_page(pfn)).is_none(), "and has no descriptors")?;
    let mut found = 0;
    let mut lines = Lines::new(|_, line| {
        found += u64::from(!line.starts_with(' ') && line.ends_with(" : RAM above mem="));
        Ok(())
    });
    report::iomem(mm, &mut lines)?;
    lines.finish()?;
    equal(found, 1, "/proc/iomem has it")?;
    let untouched = (limit..ram.range.end).step_by(512).all(|at| {
        // SAFETY: it is the case's.
        unsafe { ram.pointer(at).read() == Ram::<M>::DIRT }
    });
    check(untouched, "the manager does not touch it")?;
    let free = mm.free_page_count();

    // SAFETY: nobody else uses it.
    let loaded = unsafe { Allocator::load(mm, PhysAddr::new(ram.middle())) };
    let allocator = loaded.map_err(|_| Failure::new("the module is loaded"))?;
    let got = |kilobytes: u64| {
        let memory = allocator.allocate_dma(kilobytes, GFP_KERNEL);
        memory.map_err(|_| Failure::new("the module has so much memory"))
    };
    let at = |memory: NonNull<u8>| ram.physical(memory.as_ptr());
    let pages = allocator.usage().map_or(0, |usage| usage.pages);
    let one = got(page >> 10)?;
    let other = got((3 * page + 1) >> 10)?;
    equal(at(one), limit, "its memory begins at mem=")?;
    at_least(at(other), limit + page, "buffers are apart")?;
    // SAFETY: it is the case's.
    unsafe { one.write_bytes(1, page as usize) };
    let refused = allocator.allocate_dma(1, Gfp::DMA);
    check(
        matches!(refused, Err(CarveoutError::NotForDma { .. })),
        "the ISA bus does not reach it",
    )?;
    let refused = allocator.allocate_dma(1 << 20, GFP_KERNEL);
    check(matches!(refused, Err(CarveoutError::NoRoom { .. })), "it has an end")?;
    // SAFETY: they are the case's; the third call is wrong on purpose.
    unsafe {
        allocator.free_dma(one);
        allocator.free_dma(other);
        allocator.free_dma(one);
    }
    check(on.misuses() == (1, Some(MisuseKind::DoubleFree)), "a wrong free is reported")?;
    let all = got((pages * page) >> 10)?;
    let end = at(all) + pages * page;
    at_least(ram.range.end, end, "all of it is RAM that the machine has")?;
    // SAFETY: it is the case's.
    unsafe { all.write_bytes(2, (pages * page) as usize) };
    // Where the bus reaches, it is served.
    let refused = allocator.unload();
    let allocator = refused.err().ok_or(Failure::new("a module in use is not unloaded"))?;
    // SAFETY: it is the case's.
    unsafe { allocator.free_dma(all) };
    check(allocator.unload().is_ok(), "the module is unloaded")?;
    // SAFETY: as above: the other was unloaded.
    let loaded = unsafe { Allocator::load(mm, PhysAddr::new(limit + 2 * page)) };
    let allocator = loaded.map_err(|_| Failure::new("the module is loaded again"))?;
    let reached = allocator.allocate_dma(page >> 9, Gfp::DMA);
    check(reached.is_ok_and(|memory| at(memory) == limit), "what the bus reaches it may have")?;
    let refused = allocator.allocate_dma(page >> 10, Gfp::DMA);
    check(matches!(refused, Err(CarveoutError::NotForDma { .. })), "and not a page more")?;
    equal(allocator.usage().map_or(0, |usage| usage.used), 2, "what was refused is not held")?;
    equal(mm.free_page_count(), free, "nothing of this is the manager's")?;
    check(mm.verify().is_ok(), "and its structures are sound")
}
