//! G10: ioremap, and where addresses lie.

use core::ops::Range;

use kmem::io::{IoError, IoremapError};
use kmem::platform::DirectMap;
use kmem::{AllocError, AreaInfo, CpuId, GFP_KERNEL, PhysAddr, VirtAddr};

use crate::elsewhere::{in_interrupt, without_preemption};
use crate::failure::{at_least, at_most, check, equal, some};
use crate::objects::{Memory, wrong};
use crate::pages::anywhere;
use crate::{Case, Facts, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "ioremap maps a device where there is no RAM, and takes no page for it",
                &["A240", "A241"],
                a_device,
                no_pages,
            )
            .objects(),
            Case::new(
                "ioremap maps whole pages, and answers the address within them",
                &["A242"],
                a_device,
                whole_pages,
            )
            .objects(),
            Case::new(
                "a device's registers are read and written by calls, which look at the offset",
                &["A243"],
                a_device,
                accessors,
            )
            .objects(),
            Case::new(
                "ioremap refuses RAM, what no frame number says, and code that must not sleep",
                &["A240"],
                a_device,
                refusals,
            )
            .objects()
            .reports(2),
            Case::new(
                "a wrong iounmap is found at the call, and changes nothing",
                &["A240"],
                a_device,
                wrong_unmaps,
            )
            .objects()
            .reports(6),
            Case::new(
                "kmalloc's and pages' addresses are their frames' plus an offset, a mapping's are not",
                &["A245"],
                anywhere,
                one_to_one,
            )
            .objects(),
        ]
    }
}

/// The machine has a device.
pub(crate) fn a_device(facts: &Facts) -> Result<(), &'static str> {
    if facts.has_device { Ok(()) } else { Err("a device") }
}

impl From<IoremapError> for Failure {
    #[track_caller]
    fn from(error: IoremapError) -> Self {
        match error {
            IoremapError::Alloc(error) => error.into(),
            _ => Failure::new("a device can be mapped"),
        }
    }
}

impl From<IoError> for Failure {
    #[track_caller]
    fn from(_: IoError) -> Self {
        Failure::new("a register can be accessed")
    }
}

fn window<M: Machine>(machine: &M) -> Result<Range<PhysAddr>, Failure> {
    some(machine.device_window(), "a machine with a device says where it is")
}

fn size_of_window(window: &Range<PhysAddr>) -> usize {
    (window.end.get() - window.start.get()) as usize
}

/// The area that an address lies in the first page of.
fn area<M: Machine>(machine: &M, at: *mut u8) -> Result<AreaInfo, Failure> {
    let page = machine.facts().page_bytes() as usize;
    let start = at.addr() / page * page;
    let found = machine.mm().vm_area_from(VirtAddr::new(start));
    let found = some(found, "a mapping is among the areas")?;
    equal(found.start.get() as u64, start as u64, "and begins where it was mapped")?;
    Ok(found)
}

fn no_pages<M: Machine>(machine: &M) -> Result<(), Failure> {
    const TIMES: usize = 8;
    let mm = machine.mm();
    let window = window(machine)?;
    let page = machine.facts().page_bytes();
    for at in (window.start.get()..window.end.get()).step_by(page as usize) {
        let frame = some(PhysAddr::new(at).frame(machine.facts().page_shift), "a frame")?;
        let zone = mm.pfn_to_page(frame).and_then(|found| mm.page_zone(found));
        check(zone.is_none(), "a device's addresses are not RAM")?;
    }
    let size = size_of_window(&window);
    let before = mm.free_page_count();
    let mut held = [const { None }; TIMES];
    for place in &mut held {
        // SAFETY: the window is a device's, to which nothing is written.
        *place = Some(unsafe { mm.iomem(window.start, size) }?);
    }
    let mapped = (TIMES * size) as u64 / page;
    let taken = before.saturating_sub(mm.free_page_count());
    at_least(mapped, 64, "many pages are mapped")?;
    // The words that are kept of each may want a new slab, and no more.
    at_most(taken, 2, "and none is allocated for them")?;
    for io in held.iter().flatten() {
        let info = area(machine, io.start().as_ptr())?;
        equal(info.physical.get(), window.start.get(), "the area is of the device")?;
        equal(info.pages as u64, size as u64 / page, "of all of it")?;
        check(mm.is_vmalloc_addr(io.start().as_ptr()), "among the addresses for mappings")?;
    }
    let areas = mm.vmalloc_info().areas;
    drop(held);
    equal(mm.vmalloc_info().areas as u64, (areas - TIMES) as u64, "iounmap undoes it at once")
}

fn whole_pages<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let (window, page) = (window(machine)?, machine.facts().page_bytes());
    let at = |offset: u64| PhysAddr::new(window.start.get() + offset);
    for (offset, size, pages) in [
        (0, 1, 1),
        (0, page as usize, 1),
        (0, page as usize + 1, 2),
        (0x123, 5, 1),
        (page - 1, 1, 1),
        (page - 1, 2, 2),
        (page + 1, 2 * page as usize, 3),
    ] {
        let registers = mm.ioremap(at(offset), size)?;
        let address = registers.as_ptr().addr() as u64;
        let info = area(machine, registers.as_ptr());
        // SAFETY: mapped above, and nothing uses it.
        unsafe { mm.iounmap(registers) };
        let info = info?;
        equal(address % page, offset % page, "the offset in the page is added to the answer")?;
        equal(info.pages as u64, pages, "whole pages are mapped")?;
        equal(info.physical.get() % page, 0, "from the first byte of one on")?;
        equal(info.physical.get(), at(offset).get() / page * page, "which the address is in")?;
    }
    // The register behind the identification, by a mapping that begins there.
    // SAFETY: the window is a device's, to which nothing is written.
    let (whole, part) = unsafe { (mm.iomem(at(0), 8)?, mm.iomem(at(4), 4)?) };
    equal(part.readl(0)?.into(), whole.readl(4)?.into(), "both lead to the same register")?;
    check(part.readl(4).is_err(), "and the smaller one ends before the next")?;
    // The rules of 2.0.
    let refused = mm.vremap(at(4), 4);
    check(matches!(refused, Err(IoremapError::Unaligned(_))), "2.0 refuses an unaligned start")?;
    let registers = mm.vremap(at(0), 1)?;
    let pages = area(machine, registers.as_ptr()).map(|info| info.pages);
    // SAFETY: mapped above, and nothing uses it.
    unsafe { mm.iounmap(registers) };
    equal(pages? as u64, 1, "and rounds the size as well")
}

fn accessors<M: Machine>(machine: &M) -> Result<(), Failure> {
    const ID: usize = 0;
    let window = window(machine)?;
    // SAFETY: the window is a device's, and what is written tells it of no memory.
    let io = unsafe { machine.mm().iomem(window.start, 0x100) }?;
    equal((io.readl(ID)? & 0xffff).into(), 0xed, "the device's identification is read")?;
    equal(io.readl_relaxed(ID)?.into(), io.readl(ID)?.into(), "also without order")?;
    check(io.readl(0x100).is_err() && io.readl(0xfe).is_err(), "what is outside is refused")?;
    check(io.readl(2).is_err() && io.writel(0, 2).is_err(), "so is what is not aligned")?;
    let far = io.writeq(0, usize::MAX - 7);
    check(matches!(far, Err(IoError::Outside { width: 8, .. })), "however far outside")?;
    drop(io);
    machine.with_device(&mut |registers| {
        for value in [0, 1, 0x1234_5678, u32::MAX] {
            registers.write32(value, 4)?;
            let found = registers.read32(4)?;
            equal(found.into(), (!value).into(), "the device inverts what is written to it")?;
        }
        registers.write32(12, 8)?;
        while registers.read32(0x20)? & 1 != 0 {
            core::hint::spin_loop();
        }
        equal(registers.read32(8)?.into(), 479_001_600, "and computes the factorial of 12")
    })
}

fn refusals<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let (window, page) = (window(machine)?, machine.facts().page_bytes());
    let ram = mm.pages(GFP_KERNEL, 0)?;
    let phys = mm.page_to_phys(ram.page());
    let refused = mm.ioremap(phys, 8);
    check(refused == Err(IoremapError::Ram(phys)), "RAM is refused, and the page is named")?;
    // A range that begins before RAM and ends in it; or in it and ends behind it.
    let before = PhysAddr::new(phys.get().saturating_sub(page));
    let refused = mm.ioremap(before, 2 * page as usize);
    check(matches!(refused, Err(IoremapError::Ram(_))), "also where it lies in the middle")?;
    let highest = PhysAddr::new(u64::MAX - 8);
    for size in [8, 9, 10, usize::MAX] {
        let refused = mm.ioremap(highest, size);
        check(matches!(refused, Err(IoremapError::TooHigh { .. })), "the end of addresses")?;
    }
    let none = mm.ioremap(window.start, 0);
    check(none == Err(IoremapError::Alloc(AllocError::ZeroSize)), "nothing is refused")?;
    let atomic = || Ok(mm.ioremap(window.start, 8));
    for found in [in_interrupt(machine, CpuId::BOOT, atomic)?, without_preemption(machine, atomic)?]
    {
        check(found == Err(IoremapError::Alloc(AllocError::Atomic)), "where sleep is forbidden")?;
    }
    Ok(())
}

fn wrong_unmaps<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let (window, page) = (window(machine)?, machine.facts().page_bytes() as usize);
    let registers = mm.ioremap(window.start, 3 * page)?;
    let memory = mm.vmalloc(page)?;
    let unmap = |at: *mut u8| {
        if let Some(at) = kmem::io::IoPtr::from_ptr(at) {
            // SAFETY: the manager refuses it.
            unsafe { mm.iounmap(at) }
        }
    };
    let inside = registers.as_ptr().wrapping_add(page);
    wrong(machine, "inside an area", "ioremap.rs:", || unmap(inside))?;
    wrong(machine, "of another kind", "ioremap.rs:", || unmap(memory.as_ptr()))?;
    let ram = mm.pages(GFP_KERNEL, 0)?;
    wrong(machine, "no area", "ioremap.rs:", || unmap(ram.address().as_ptr()))?;
    // The other calls do not take it either.
    wrong(machine, "of another kind", "ioremap.rs:", || {
        // SAFETY: the manager refuses it.
        unsafe { mm.vfree(registers.as_ptr()) }
    })?;
    wrong(machine, "of another kind", "ioremap.rs:", || {
        // SAFETY: the manager refuses it.
        unsafe { mm.vunmap(registers.as_ptr()) }
    })?;
    // SAFETY: both are this function's, and nothing uses them.
    unsafe {
        mm.vfree(memory.as_ptr());
        mm.iounmap(registers);
    }
    mm.vm_unmap_aliases();
    wrong(machine, "no area", "ioremap.rs:", || unmap(registers.as_ptr()))
}

fn one_to_one<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let platform = mm.platform();
    let (base, page) = (platform.base().get(), machine.facts().page_bytes() as usize);
    let object = Memory::new(machine, 100, GFP_KERNEL)?;
    let pages = mm.pages(GFP_KERNEL, 1)?;
    for address in [object.address(), pages.address().get(), pages.address().get() + page] {
        let phys = some(platform.virt_to_phys(VirtAddr::new(address)), "a frame is behind it")?;
        equal(address.wrapping_sub(base) as u64, phys.get(), "at the same offset for all")?;
        check(!mm.is_vmalloc_addr(VirtAddr::new(address).as_ptr()), "it is not a mapping's")?;
    }
    let mapped = mm.vmalloc(2 * page)?;
    // SAFETY: the window is a device's, to which nothing is written.
    let registers = machine.device_window().map(|window| unsafe { mm.iomem(window.start, 8) });
    let registers = registers.transpose()?;
    let registers = registers.as_ref().map(|io| io.start().as_ptr());
    let mut found = Ok(());
    for address in [Some(mapped.as_ptr()), registers].into_iter().flatten() {
        let is_mapping = mm.is_vmalloc_addr(address);
        let phys = platform.virt_to_phys(VirtAddr::from_ptr(address));
        found = found
            .and(check(is_mapping, "what is mapped has addresses of another range"))
            .and(check(phys.is_none(), "where the offset says nothing of the frame"));
    }
    // SAFETY: allocated above, and nothing uses it.
    unsafe { mm.vfree(mapped.as_ptr()) };
    found
}
