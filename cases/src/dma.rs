//! G10: memory for devices.

use core::slice;

use edu::{Edu, EduError, Way};
use kmem::dma::{Direction, DmaAddr, DmaDevice, DmaError, DmaMask};
use kmem::io::Registers;
use kmem::mm::Coherent;
use kmem::platform::{DirectMap, Platform};
use kmem::reclaim::Reclaim;
use kmem::{AllocError, CpuId, GFP_ATOMIC, GFP_KERNEL, Gfp, Mm, Order, Page, PhysAddr, VirtAddr};

use crate::elsewhere::{in_interrupt, last_cpu};
use crate::failure::{at_most, check, equal, some};
use crate::hold::Hoard;
use crate::ioremap::a_device;
use crate::objects::{Memory, wrong};
use crate::pages::anywhere;
use crate::pressure::{ANYWHERE, EVERYTHING};
use crate::{Case, Facts, Failure, FreeOnDemand, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "what is contiguous as addresses only is refused for a device",
                &["A228"],
                a_device,
                not_for_devices,
            )
            .objects()
            .reports(9),
            Case::new(
                "a device copies from RAM to other RAM, by frames that lie side by side",
                &["A228", "A246"],
                a_device,
                through_the_device,
            )
            .objects(),
            Case::new(
                "memory that a device does not reach is copied where it does",
                &["A228"],
                a_device_that_does_not_reach_all,
                bounced,
            )
            .objects(),
            Case::new(
                "high memory is given to a device by page, and copied where it does not reach",
                &["A228"],
                high_memory,
                high_pages,
            )
            .objects(),
            Case::new(
                "coherent memory lies within the mask, is cleared, and is refused where none does",
                &["A228"],
                anywhere,
                coherent,
            )
            .objects(),
            Case::new(
                "an interrupt handler gives memory to a device, and another CPU takes it back",
                &["A228"],
                anywhere,
                in_handlers,
            )
            .objects(),
            Case::new(
                "memory that is taken back wrongly from a device is noticed, and stays given",
                &["A228"],
                anywhere,
                wrongly_back,
            )
            .objects()
            .reports(10),
        ]
    }
}

/// The first address that 28 lines do not reach.
const BEYOND: u64 = 1 << edu::ADDRESS_LINES;

/// How much is to be found on either side of it.
const SOME: u64 = 16 << 20;

fn a_device_that_does_not_reach_all(facts: &Facts) -> Result<(), &'static str> {
    a_device(facts)?;
    // On the machines that there are, RAM that begins there or before goes on to the end, or to the end of
    // the direct map.
    let end = facts.direct_limit.unwrap_or(facts.end).min(facts.end);
    if end >= BEYOND + SOME { Ok(()) } else { Err("RAM that 28 address lines do not reach") }
}

fn high_memory(facts: &Facts) -> Result<(), &'static str> {
    a_device(facts)?;
    let beyond = facts.direct_limit.is_some_and(|limit| limit >= BEYOND);
    if facts.has_highmem() && beyond { Ok(()) } else { Err("high memory, behind 28 address lines") }
}

impl From<DmaError> for Failure {
    #[track_caller]
    fn from(error: DmaError) -> Self {
        match error {
            DmaError::Alloc(error) | DmaError::NoMemory { why: error, .. } => error.into(),
            _ => Failure::new("a device is given memory"),
        }
    }
}

impl From<EduError> for Failure {
    #[track_caller]
    fn from(error: EduError) -> Self {
        match error {
            EduError::Dma(error) => error.into(),
            EduError::Io(error) => error.into(),
            _ => Failure::new("the device does what it is told"),
        }
    }
}

type Manager<M> = Mm<<M as Machine>::P, FreeOnDemand>;

/// Pages at physical addresses of one's choice, given back by themselves.
struct Run<'m, M: Machine> {
    mm: &'m Manager<M>,
    first: Page,
    count: u64,
    memory: VirtAddr,
    bytes: usize,
}

impl<'m, M: Machine> Run<'m, M> {
    /// Pages of the direct map for so many bytes, from an address on.
    #[track_caller]
    fn above(machine: &'m M, start: u64, bytes: usize) -> Result<Self, Failure> {
        let mm = machine.mm();
        let within = PhysAddr::new(start)..mm.platform().limit();
        let count = (bytes as u64).div_ceil(machine.facts().page_bytes());
        let first = mm.alloc_contig_pages(count, Order::ZERO, within, GFP_KERNEL)?;
        let memory = some(mm.page_address(first), "memory of the direct map has an address")?;
        Ok(Run { mm, first, count, memory, bytes })
    }

    fn pointer(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    fn phys(&self) -> u64 {
        self.mm.page_to_phys(self.first).get()
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the pages are this value's, and have so many bytes.
        unsafe { slice::from_raw_parts_mut(self.pointer(), self.bytes) }
    }
}

impl<M: Machine> Drop for Run<'_, M> {
    fn drop(&mut self) {
        // SAFETY: the pages are this value's.
        unsafe { self.mm.free_contig_pages(self.first, self.count) };
    }
}

/// Bytes of which few others have the same.
fn stamp(bytes: &mut [u8], seed: u32) {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    for byte in bytes {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        *byte = state as u8;
    }
}

fn not_for_devices<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, page) = (machine.mm(), machine.facts().page_bytes() as usize);
    let device = DmaDevice::new("case", DmaMask::ALL);
    let area = mm.vmalloc(3 * page)?;
    let window = some(machine.device_window(), "a device")?;
    // SAFETY: the window is a device's, to which nothing is written.
    let registers = unsafe { mm.iomem(window.start, 0x100) }?;
    let freed = mm.pages(GFP_KERNEL, 0)?.address().as_ptr::<u8>();
    let stack = [0u8; 64];
    let below = mm.platform().base().get().wrapping_sub(page);
    let foreign = core::ptr::with_exposed_provenance_mut::<u8>(below);
    let end = mm.platform().base().get().wrapping_add(mm.platform().limit().get() as usize);
    let over_the_end = core::ptr::with_exposed_provenance_mut::<u8>(end.wrapping_sub(1));
    for memory in [
        area.as_ptr(),
        area.as_ptr().wrapping_add(page + 100),
        registers.start().as_ptr(),
        core::ptr::null_mut(),
        foreign,
        over_the_end,
        freed,
        stack.as_ptr().cast_mut(),
    ] {
        let mut found = None;
        wrong(machine, "no device can be told of", "dma.rs:", || {
            // SAFETY: the manager refuses it: nothing is mapped.
            let refused =
                unsafe { mm.dma_map_single(&device, memory, 64, Direction::Bidirectional) };
            found = Some(refused);
        })?;
        let refused = Err(DmaError::NotForDma(VirtAddr::new(memory.addr())));
        check(found == Some(refused), "and the call says so")?;
    }
    // A page that is no RAM, by its number: so many bytes behind a page of RAM that they end in the device.
    let frame = some(window.start.frame(machine.facts().page_shift), "a frame")?;
    let ram = mm.pages(GFP_KERNEL, 0)?;
    let size = (frame.number() + 1 - ram.page().pfn().number()) as usize * page;
    let mut found = None;
    wrong(machine, "no device can be told of", "dma.rs:", || {
        // SAFETY: the manager refuses it: nothing is mapped.
        let refused = unsafe { mm.dma_map_page(&device, ram.page(), 0, size, Direction::ToDevice) };
        found = Some(refused);
    })?;
    check(matches!(found, Some(Err(DmaError::NotInUse(_)))), "which is not in use")?;
    drop(ram);
    // SAFETY: allocated above, and nothing uses it.
    unsafe { mm.vfree(area.as_ptr()) };
    equal(mm.dma_given(&device) as u64, 0, "the device has nothing")?;
    // What kmalloc and the page allocator give is for devices.
    let mut object = Memory::new(machine, 100, GFP_KERNEL)?;
    let phys = mm.platform().virt_to_phys(VirtAddr::new(object.address()));
    // SAFETY: no device is told of it.
    let told = unsafe { mm.dma_mapped(&device, object.bytes(), Direction::ToDevice) }?.address();
    equal(told.get(), some(phys, "a frame")?.get(), "a device is told the physical address")?;
    check(mm.dma_detach(&device).is_ok(), "and has nothing in the end")
}

/// Has the device copy a buffer into its own.
fn write<P: Platform, R: Reclaim>(
    edu: &Edu<'_, dyn Registers + '_>,
    mm: &Mm<P, R>,
    from: &mut [u8],
    offset: usize,
) -> Result<(), EduError> {
    // SAFETY: the machines' devices end what they begin.
    unsafe { edu.write(mm, from, offset) }
}

/// Has the device copy out of its buffer.
fn read<P: Platform, R: Reclaim>(
    edu: &Edu<'_, dyn Registers + '_>,
    mm: &Mm<P, R>,
    into: &mut [u8],
    offset: usize,
) -> Result<(), EduError> {
    // SAFETY: the machines' devices end what they begin.
    unsafe { edu.read(mm, into, offset) }
}

fn through_the_device<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    machine.with_device(&mut |registers| {
        let edu = Edu::new(registers)?;
        // Across the end of a page: side by side as frames, too.
        let mut from = Memory::new(machine, edu::BUFFER_SIZE, GFP_KERNEL | Gfp::DMA)?;
        let mut into = Memory::new(machine, edu::BUFFER_SIZE, GFP_KERNEL | Gfp::DMA)?;
        for (size, offset) in [(edu::BUFFER_SIZE, 0), (1000, 3000)] {
            stamp(from.bytes(), size as u32);
            into.bytes().fill(0);
            write(&edu, mm, &mut from.bytes()[..size], offset)?;
            read(&edu, mm, &mut into.bytes()[..size], offset)?;
            let same = from.bytes()[..size] == into.bytes()[..size];
            check(same, "what left one place of RAM is in the other")?;
            check(into.bytes()[size..].iter().all(|byte| *byte == 0), "and nowhere else")?;
        }
        let (taken, _) = mm.dma_slots_taken(edu.dma());
        equal(taken as u64, 0, "nothing stood in between")?;
        // The device sees what is written to coherent memory, and the CPU what the device writes.
        // SAFETY: the device has forgotten it after each transfer.
        let ring = unsafe { mm.dma_box(edu.dma(), 256, GFP_KERNEL) }?;
        ring.writeq(0x0123_4567_89ab_cdef, 8)?;
        // SAFETY: the memory is the device's as well, and nobody else's.
        unsafe {
            edu.transfer(Way::IntoDevice, ring.address(), 16, 0)?;
            ring.memset_io(0, 0, 256)?;
            edu.transfer(Way::IntoMemory, ring.address(), 16, 0)?;
        }
        equal(ring.readq(8)?, 0x0123_4567_89ab_cdef, "coherent memory is shared")?;
        drop(ring);
        // SAFETY: it is refused.
        let more = unsafe { edu.write(mm, &mut from.bytes()[..8], edu::BUFFER_SIZE - 7) };
        check(matches!(more, Err(EduError::Buffer { .. })), "its buffer has an end")?;
        check(mm.dma_detach(edu.dma()).is_ok(), "the device has nothing in the end")
    })
}

fn bounced<M: Machine>(machine: &M) -> Result<(), Failure> {
    const SIZE: usize = 3000;
    let mm = machine.mm();
    let mut from = Run::above(machine, BEYOND, SIZE)?;
    let mut into = Run::above(machine, BEYOND, SIZE)?;
    check(from.phys() >= BEYOND && into.phys() >= BEYOND, "the memory is beyond the device")?;
    machine.with_device(&mut |registers| {
        let edu = Edu::new(registers)?;
        // The engine would take another address and say nothing: the driver's mask is what protects.
        // SAFETY: the driver refuses it: nothing is moved.
        let refused = unsafe { edu.transfer(Way::IntoMemory, DmaAddr::new(into.phys()), SIZE, 0) };
        check(matches!(refused, Err(EduError::BeyondMask { .. })), "a driver looks at the mask")?;
        stamp(from.bytes(), 7);
        into.bytes().fill(0xee);
        write(&edu, mm, from.bytes(), 0)?;
        // Less than was mapped is written: the rest is as it was.
        // SAFETY: the device has done with it after the transfer.
        let mapped = unsafe { mm.dma_mapped(edu.dma(), into.bytes(), Direction::FromDevice) }?;
        let told = mapped.address();
        check(edu.dma().mask().reaches(told.get(), SIZE as u64), "the device reaches the slots")?;
        let (taken, slot) = mm.dma_slots_taken(edu.dma());
        equal(taken as u64, SIZE.div_ceil(slot) as u64, "as many as hold it are taken")?;
        // SAFETY: the device has the memory.
        unsafe { edu.transfer(Way::IntoMemory, told, SIZE - 500, 0)? };
        drop(mapped);
        let (moved, rest) = into.bytes().split_at(SIZE - 500);
        check(*moved == from.bytes()[..SIZE - 500], "what the device wrote is copied back")?;
        check(rest.iter().all(|byte| *byte == 0xee), "and what it did not write is as it was")?;
        // For a while with the CPU, and then again with the device.
        stamp(from.bytes(), 8);
        write(&edu, mm, from.bytes(), 0)?;
        // SAFETY: the device has done with it after each transfer.
        let mut mapped =
            unsafe { mm.dma_mapped(edu.dma(), into.bytes(), Direction::Bidirectional) }?;
        // SAFETY: the device has the memory.
        unsafe { edu.transfer(Way::IntoMemory, mapped.address(), SIZE, 0)? };
        let seen = mapped.with_cpu(|bytes| {
            let seen = *bytes == *from.bytes();
            bytes.fill(0x11);
            seen
        });
        // SAFETY: as above.
        unsafe { edu.transfer(Way::IntoDevice, mapped.address(), SIZE, 0)? };
        drop(mapped);
        check(seen, "the CPU sees what the device wrote, while it is mapped")?;
        read(&edu, mm, from.bytes(), 0)?;
        check(from.bytes().iter().all(|byte| *byte == 0x11), "and the device what the CPU wrote")?;
        // Slots are not for everything.
        let whole = edu.dma().slot_bytes();
        let mut large = Run::above(machine, BEYOND, whole + 1)?;
        // SAFETY: here and below the device is not told.
        let refused = unsafe { mm.dma_mapped(edu.dma(), large.bytes(), Direction::ToDevice) };
        check(matches!(refused, Err(DmaError::TooLarge { .. })), "more than all slots is refused")?;
        drop(refused);
        let large = &mut large.bytes()[..whole];
        // SAFETY: as above.
        let held = unsafe { mm.dma_mapped(edu.dma(), large, Direction::ToDevice) }?;
        // SAFETY: as above.
        let refused = unsafe { mm.dma_mapped(edu.dma(), from.bytes(), Direction::ToDevice) };
        check(matches!(refused, Err(DmaError::NoSlots { .. })), "and what is left is nothing")?;
        drop((refused, held));
        equal(mm.dma_slots_taken(edu.dma()).0 as u64, 0, "all slots are free in the end")?;
        check(mm.dma_detach(edu.dma()).is_ok(), "and go with the device")
    })
}

fn high_pages<M: Machine>(machine: &M) -> Result<(), Failure> {
    const SIZE: usize = 2000;
    const OFFSET: usize = 1000;
    let mm = machine.mm();
    let high = mm.alloc_page(GFP_KERNEL | Gfp::HIGHMEM)?;
    let free = || {
        // SAFETY: allocated above, and nothing uses it.
        unsafe { mm.__free_page(high) }
    };
    let tried = machine.with_device(&mut |registers| {
        let edu = Edu::new(registers)?;
        check(mm.page_address(high).is_none(), "high memory has no address")?;
        check(mm.page_to_phys(high).get() >= BEYOND, "and is beyond the device")?;
        let mut from = Memory::new(machine, SIZE, GFP_KERNEL | Gfp::DMA)?;
        let mut into = Memory::new(machine, SIZE, GFP_KERNEL | Gfp::DMA)?;
        stamp(from.bytes(), 3);
        write(&edu, mm, &mut from.bytes()[..SIZE], 0)?;
        let map = |way| {
            // SAFETY: the page is this case's, and is used by nobody but the device.
            unsafe { mm.dma_map_page(edu.dma(), high, OFFSET, SIZE, way) }
        };
        let unmap = |at, way| {
            // SAFETY: the device has done with it.
            unsafe { mm.dma_unmap_page(edu.dma(), at, SIZE, way) }
        };
        // From the device into high memory, and from there into the device.
        let told = map(Direction::FromDevice)?;
        check(edu.dma().mask().reaches(told.get(), SIZE as u64), "the device reaches the slots")?;
        // SAFETY: the device has the memory.
        let moved = unsafe { edu.transfer(Way::IntoMemory, told, SIZE, 0) };
        unmap(told, Direction::FromDevice);
        moved?;
        write(&edu, mm, &mut into.bytes()[..SIZE], 0)?;
        let told = map(Direction::ToDevice)?;
        // SAFETY: as above.
        let moved = unsafe { edu.transfer(Way::IntoDevice, told, SIZE, 0) };
        unmap(told, Direction::ToDevice);
        moved?;
        read(&edu, mm, &mut into.bytes()[..SIZE], 0)?;
        let same = from.bytes()[..SIZE] == into.bytes()[..SIZE];
        check(same, "what went through high memory is as it was")?;
        check(mm.dma_detach(edu.dma()).is_ok(), "the device has nothing in the end")
    });
    free();
    tried
}

fn coherent<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, facts) = (machine.mm(), machine.facts());
    let page = facts.page_bytes();
    // Masks that end with zones, within them, and nowhere.
    for bits in [64, 32, 28, 26, 24, 23] {
        let device = DmaDevice::new("case", DmaMask::ALL).coherent_mask(DmaMask::bits(bits));
        for size in [1, page as usize, 3 * page as usize + 1] {
            let given = mm.dma_alloc_coherent(&device, size, GFP_KERNEL)?;
            let pages = (size as u64).div_ceil(page);
            let phys = mm.platform().virt_to_phys(VirtAddr::from_ptr(given.memory.as_ptr()));
            let found = check_coherent(bits, given, pages * page, phys);
            // SAFETY: allocated above, and used by nobody.
            unsafe { mm.dma_free_coherent(&device, size, given) };
            found?;
        }
        check(mm.dma_detach(&device).is_ok(), "the device has nothing in the end")?;
    }
    // Pages that no device with so few lines reaches: no machine has RAM there that is free.
    let blind = DmaDevice::new("blind", DmaMask::bits(machine.facts().page_shift - 1));
    let refused = mm.dma_alloc_coherent(&blind, 1, GFP_KERNEL | Gfp::NOWARN);
    check(matches!(refused, Err(DmaError::NoMemory { .. })), "where nothing is, it is told so")?;
    let none = mm.dma_alloc_coherent(&blind, 0, GFP_KERNEL);
    check(none == Err(DmaError::ZeroSize), "nothing is refused")?;
    // And where all that it reaches is taken.
    let mut held = Hoard::new(machine);
    for order in (0..=mm.largest_order().get()).rev() {
        held.fill(EVERYTHING | ANYWHERE, order);
    }
    mm.reclaim().answer_from(0);
    let device = DmaDevice::new("case", DmaMask::ALL);
    let refused = mm.dma_alloc_coherent(&device, 1, GFP_ATOMIC | Gfp::NOWARN);
    drop(held);
    let told = matches!(refused, Err(DmaError::NoMemory { why: AllocError::NoMemory { .. }, .. }));
    check(told, "or is taken")?;
    equal(mm.dma_given(&device) as u64, 0, "and the device has nothing")
}

fn check_coherent(
    bits: u32,
    given: Coherent,
    bytes: u64,
    phys: Option<PhysAddr>,
) -> Result<(), Failure> {
    let (start, mask) = (given.address.get(), DmaMask::bits(bits));
    check(mask.reaches(start, bytes), "coherent memory lies within the mask")?;
    equal(some(phys, "a frame")?.get(), start, "the device is told its frame")?;
    // SAFETY: so many bytes were allocated, and no device knows of them.
    let memory = unsafe { slice::from_raw_parts_mut(given.memory.as_ptr(), bytes as usize) };
    let cleared = memory.iter().all(|byte| *byte == 0);
    // Whoever is given it next must find it cleared again.
    memory.fill(0xff);
    check(cleared, "it is cleared")
}

fn in_handlers<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let mut buffer = Memory::new(machine, 600, GFP_KERNEL)?;
    stamp(buffer.bytes(), 5);
    let (memory, size) = (buffer.address(), 600);
    let frame = some(mm.platform().virt_to_phys(VirtAddr::new(memory)), "a frame")?.get();
    // A device that reaches the buffer, and one that does so only by slots: as long as there is memory
    // below.
    let below = DmaMask::bits(u64::BITS - 1 - frame.leading_zeros().min(u64::BITS - 1));
    let near = DmaDevice::new("near", DmaMask::ALL);
    let far = DmaDevice::new("far", below).slots(1);
    for (device, is_far) in [(&near, false), (&far, true)] {
        let told = in_interrupt(machine, CpuId::BOOT, || {
            let memory = VirtAddr::new(memory).as_ptr::<u8>();
            // SAFETY: the buffer stays, and nobody uses it.
            Ok(unsafe { mm.dma_map_single(device, memory, size, Direction::Bidirectional) }?)
        })?;
        check(device.mask().reaches(told.get(), size as u64), "the device reaches it")?;
        check(is_far == (told.get() != frame), "by slots if need be")?;
        let given = in_interrupt(machine, last_cpu(machine), || {
            // SAFETY: no device knows of it.
            unsafe { mm.dma_unmap_single(device, told, size, Direction::Bidirectional) };
            Ok(mm.dma_given(device))
        })?;
        equal(given as u64, 0, "a handler elsewhere takes it back")?;
        check(mm.dma_detach(device).is_ok(), "and nothing is left")?;
    }
    let mut copy = [0; 600];
    stamp(&mut copy, 5);
    check(buffer.bytes()[..600] == copy, "the buffer is as it was")
}

fn wrongly_back<M: Machine>(machine: &M) -> Result<(), Failure> {
    const NOT_GIVEN: &str = "has it not";
    const OTHERWISE: &str = "as something else";
    let mm = machine.mm();
    let mut buffer = Memory::new(machine, 512, GFP_KERNEL)?;
    let memory = buffer.bytes().as_ptr();
    let device = DmaDevice::new("case", DmaMask::ALL);
    let other = DmaDevice::new("other", DmaMask::ALL);
    // SAFETY: the buffer stays, and no device is told of it.
    let told = unsafe { mm.dma_map_single(&device, memory, 512, Direction::ToDevice) }?;
    let next = some(told.checked_add(1), "an address")?;
    let unmap = |device: &DmaDevice, at, size, way| {
        // SAFETY: the manager refuses it where it is wrong; no device has been told of it.
        unsafe { mm.dma_unmap_single(device, at, size, way) }
    };
    for (words, device, at, size, way) in [
        (NOT_GIVEN, &other, told, 512, Direction::ToDevice),
        (NOT_GIVEN, &device, next, 511, Direction::ToDevice),
        (OTHERWISE, &device, told, 511, Direction::ToDevice),
        (OTHERWISE, &device, told, 512, Direction::FromDevice),
    ] {
        wrong(machine, words, "dma.rs:", || unmap(device, at, size, way))?;
    }
    wrong(machine, OTHERWISE, "dma.rs:", || {
        // SAFETY: the manager refuses it.
        unsafe {
            mm.dma_sync_single_for_cpu(&device, told, (500, 13), Direction::ToDevice);
        }
    })?;
    let memory = some(core::ptr::NonNull::new(memory.cast_mut()), "an address")?;
    wrong(machine, OTHERWISE, "dma.rs:", || {
        let given = Coherent { memory, address: told };
        // SAFETY: the manager refuses it.
        unsafe { mm.dma_free_coherent(&device, 512, given) }
    })?;
    wrong(machine, "still has memory", "dma.rs:", || {
        // Looked at below.
        let _ = mm.dma_detach(&device);
    })?;
    equal(mm.dma_given(&device) as u64, 1, "the device has it all the while")?;
    unmap(&device, told, 512, Direction::ToDevice);
    wrong(machine, NOT_GIVEN, "dma.rs:", || unmap(&device, told, 512, Direction::ToDevice))?;
    // Coherent memory, with another size, and twice.
    let given = mm.dma_alloc_coherent(&device, 100, GFP_KERNEL)?;
    wrong(machine, OTHERWISE, "dma.rs:", || {
        // SAFETY: the manager refuses it.
        unsafe { mm.dma_free_coherent(&device, 101, given) }
    })?;
    // SAFETY: allocated above, and no device knows of it.
    unsafe { mm.dma_free_coherent(&device, 100, given) };
    wrong(machine, NOT_GIVEN, "dma.rs:", || {
        // SAFETY: the manager refuses it.
        unsafe { mm.dma_free_coherent(&device, 100, given) }
    })?;
    let left = (mm.dma_given(&device) + mm.dma_given(&other)) as u64;
    at_most(left, 0, "the devices have nothing")
}
