//! A device that reads and writes memory by itself.

use alloc::format;
use alloc::string::String;

use edu::Edu;
use kmem::dma::{Direction, DmaError};
use kmem::io::Registers;
use kmem::platform::DirectMap;
use kmem::{GFP_KERNEL, Gfp, Mm, Order, Page, PhysAddr, Platform, Reclaim, VirtAddr};

use super::mistakes::print_report;
use super::{Command, print, usage};
use crate::{Failure, OnPurpose, Shell, Sink, System};

pub(super) const fn dma<S: System>() -> Command<S> {
    Command {
        name: "dma",
        usage: "dma [SIZE]",
        about: "have a device copy from RAM to other RAM, and be refused what it cannot use\n\
                The device has 28 address lines and a buffer of its own; at most 4095 bytes pass\n\
                through it. Memory that it does not reach is copied to where it does. Memory of\n\
                vmalloc is contiguous as addresses only, and none for a device.",
        example: "dma 3000",
        run: run_dma,
    }
}

fn run_dma<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let size = match arguments {
        [] => 3000,
        // No size is none that the buffer takes, either.
        [bytes] => super::size(bytes).unwrap_or(0),
        _ => return Err(usage(&dma::<S>())),
    };
    if !(1..=edu::BUFFER_SIZE).contains(&size) {
        let (given, most) = (arguments.first().map_or("", String::as_str), edu::BUFFER_SIZE);
        let message = format!("'{given}' does not fit the device's buffer: give 1 to {most} bytes");
        return Err(Failure::Usage(message));
    }
    let system = shell.system;
    let mut shown = Ok(());
    system.with_device(&mut |registers| {
        shown = show(system, registers, size, out);
        Ok(())
    })?;
    shown
}

fn show<S: System>(
    system: &S,
    registers: &dyn Registers,
    size: usize,
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let mm = system.mm();
    let edu = Edu::new(registers).map_err(text)?;
    let version = edu.version().map_err(text)?;
    let last = edu.dma().mask().last();
    print(
        out,
        format_args!(
            "edu {}.{}, which reaches addresses up to {last:#x}\n",
            version >> 8,
            version & 0xff
        ),
    )?;
    let all = PhysAddr::new(0)..mm.platform().limit();
    let within = all.start..all.end.min(PhysAddr::new(last + 1));
    copy(mm, &edu, within, size, out)?;
    if all.end.get() > last + 1 {
        // Where a machine has so much address space and no memory in it there is nothing to show.
        let _ = copy_beyond(mm, &edu, PhysAddr::new(last + 1)..all.end, size, out)?;
    }
    refusal(system, &edu, out)?;
    mm.dma_detach(edu.dma()).map_err(|error| Failure::Failed(format!("{error}")))
}

fn text(error: impl core::fmt::Display) -> String {
    format!("{error}")
}

/// Pages somewhere, given back by themselves.
struct Run<'m, P: Platform, R: Reclaim> {
    mm: &'m Mm<P, R>,
    first: Page,
    count: u64,
    address: VirtAddr,
    size: usize,
}

impl<'m, P: Platform, R: Reclaim> Run<'m, P, R> {
    fn new(
        mm: &'m Mm<P, R>,
        within: core::ops::Range<PhysAddr>,
        size: usize,
    ) -> Result<Self, String> {
        let count = (size as u64).div_ceil(1 << P::PAGE_SHIFT);
        let gfp = GFP_KERNEL | Gfp::NOWARN | Gfp::ZERO;
        let first = mm.alloc_contig_pages(count, Order::ZERO, within, gfp).map_err(text)?;
        let address = mm.page_address(first).ok_or("memory without an address")?;
        Ok(Run { mm, first, count, address, size })
    }

    fn phys(&self) -> u64 {
        self.mm.page_to_phys(self.first).get()
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the pages are this value's, have so many bytes, and were cleared.
        unsafe { core::slice::from_raw_parts_mut(self.address.as_ptr(), self.size) }
    }
}

impl<P: Platform, R: Reclaim> Drop for Run<'_, P, R> {
    fn drop(&mut self) {
        // SAFETY: the pages are this value's.
        unsafe { self.mm.free_contig_pages(self.first, self.count) };
    }
}

/// Has the device copy from one place within its reach to another.
fn copy<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    edu: &Edu<'_, dyn Registers + '_>,
    within: core::ops::Range<PhysAddr>,
    size: usize,
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let (mut from, mut into) = (Run::new(mm, within.clone(), size)?, Run::new(mm, within, size)?);
    let (phys, target) = (from.phys(), into.phys());
    through(mm, edu, &mut from, &mut into)?;
    print(
        out,
        format_args!("{size} bytes at {phys:#x} -> device -> {target:#x}: compared, and equal\n"),
    )
}

/// The same with memory beyond its reach, if there is some; answers whether there is.
fn copy_beyond<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    edu: &Edu<'_, dyn Registers + '_>,
    beyond: core::ops::Range<PhysAddr>,
    size: usize,
    out: &mut dyn Sink,
) -> Result<bool, Failure> {
    let Ok(mut from) = Run::new(mm, beyond.clone(), size) else { return Ok(false) };
    let Ok(mut into) = Run::new(mm, beyond, size) else { return Ok(false) };
    let (phys, target) = (from.phys(), into.phys());
    through(mm, edu, &mut from, &mut into)?;
    // SAFETY: the device is not told.
    let mapped = unsafe { mm.dma_mapped(edu.dma(), into.bytes(), Direction::ToDevice) };
    let told = mapped.map_err(text)?.address();
    print(
        out,
        format_args!(
            "{size} bytes at {phys:#x} -> device -> {target:#x}: beyond its reach, copied by way of \
             {told}; equal\n"
        ),
    )?;
    Ok(true)
}

fn through<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    edu: &Edu<'_, dyn Registers + '_>,
    from: &mut Run<'_, P, R>,
    into: &mut Run<'_, P, R>,
) -> Result<(), Failure> {
    let mut state = from.phys() | 1;
    for byte in from.bytes() {
        // Some numbers that others have not.
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    // SAFETY: the device ends what it begins, or the machine is no good.
    unsafe {
        edu.write(mm, from.bytes(), 0).map_err(text)?;
        edu.read(mm, into.bytes(), 0).map_err(text)?;
    }
    if from.bytes() == into.bytes() {
        return Ok(());
    }
    Err(Failure::Failed("what came back from the device is not what it was given".into()))
}

/// Asks for what a device cannot use.
fn refusal<S: System>(
    system: &S,
    edu: &Edu<'_, dyn Registers + '_>,
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let mm = system.mm();
    let _on_purpose = OnPurpose::new(system);
    let memory = mm.vmalloc(1).map_err(text)?;
    // SAFETY: nothing is mapped: the manager refuses it, or it is unmapped below before it is freed.
    let given = unsafe { mm.dma_map_single(edu.dma(), memory.as_ptr(), 1, Direction::ToDevice) };
    if let Ok(address) = given {
        // SAFETY: the device was not told of it.
        unsafe { mm.dma_unmap_single(edu.dma(), address, 1, Direction::ToDevice) };
    }
    // SAFETY: it is this function's, and nothing uses it.
    unsafe { mm.vfree(memory.as_ptr()) };
    match given {
        Err(error @ DmaError::NotForDma(_)) => {
            let report = system.last_misuse().unwrap_or_default();
            print(out, format_args!("vmalloc: {error}\n"))?;
            print_report(system, out, &report)
        }
        _ => Err(Failure::Failed("memory of vmalloc was given to a device".into())),
    }
}
