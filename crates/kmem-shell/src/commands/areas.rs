//! Areas of vmalloc by hand, and a device's memory in a user's address space.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec;

use kmem::platform::DirectMap;
use kmem::{Mm, Platform, Reclaim, VirtAddr};

use super::objects::{address, pointer};
use super::{Command, exactly, print, size};
use crate::files::{Scull, device_of};
use crate::{Count, Failure, OnPurpose, Shell, Sink, System};

/// What the user of a shell holds of vmalloc: the addresses of areas that are theirs alone.
pub(crate) struct Areas(BTreeSet<usize>);

impl Areas {
    pub(crate) const fn new() -> Self {
        Areas(BTreeSet::new())
    }

    /// Gives all back.
    pub(crate) fn free_all<P: Platform, R: Reclaim>(&mut self, mm: &Mm<P, R>) {
        for address in core::mem::take(&mut self.0) {
            // SAFETY: the area is the user's alone, and it is off the list.
            unsafe { mm.vfree(pointer(address)) };
        }
    }
}

pub(super) const fn vmalloc<S: System>() -> Command<S> {
    Command {
        name: "vmalloc",
        usage: "vmalloc SIZE",
        about: "allocate memory that is contiguous as addresses, and hold it by its address\n\
                /proc/vmallocinfo shows it.",
        example: "vmalloc 300K",
        run: run_vmalloc,
    }
}

fn run_vmalloc<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let [bytes] = exactly(&vmalloc::<S>(), arguments)?;
    let bytes = size(bytes)?;
    let mm = shell.system.mm();
    let memory = mm.vmalloc(bytes).map_err(|error| format!("{error}"))?;
    let at = memory.as_ptr().expose_provenance();
    shell.areas.0.insert(at);
    let Some(area) = mm.vm_area_from(VirtAddr::new(at)) else {
        return Err(format!("no area is at {at:#x}, where one was just made").into());
    };
    let (pages, runs) = (Count(area.pages as u64, "page"), Count(area.runs as u64, "run"));
    print(out, format_args!("{at:#x}: {pages} in {runs} of frames\n"))
}

pub(super) const fn vfree<S: System>() -> Command<S> {
    Command {
        name: "vfree",
        usage: "vfree ADDRESS",
        about: "give back what vmalloc gave out at an address\n\
                An address that vmalloc did not give out is reported, and nothing changes.",
        example: "vfree 0x7f0000000000",
        run: run_vfree,
    }
}

fn run_vfree<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    _: &mut dyn Sink,
) -> Result<(), Failure> {
    let [at] = exactly(&vfree::<S>(), arguments)?;
    let at = address(at)?;
    if at == 0 {
        // As the call has it: null is no area.
        return Ok(());
    }
    let mm = shell.system.mm();
    if shell.areas.0.remove(&at) {
        // SAFETY: the area is the user's alone, and it is off the list.
        unsafe { mm.vfree(pointer(at)) };
        return Ok(());
    }
    let there = mm.vm_area_from(VirtAddr::new(at)).filter(|area| area.start.get() == at);
    if there.is_some_and(|area| !area.is_going) {
        return Err(Failure::Failed(format!("the area at {at:#x} is not yours")));
    }
    let on_purpose = OnPurpose::new(shell.system);
    // SAFETY: no area in use begins there: it is reported, and changes nothing.
    unsafe { mm.vfree(pointer(at)) };
    drop(on_purpose);
    let report = shell.system.last_misuse();
    Err(Failure::Failed(report.unwrap_or_else(|| "it was not reported".into())))
}

pub(super) const fn mmap<S: System>() -> Command<S> {
    Command {
        name: "mmap",
        usage: "mmap DEVICE",
        about: "map a device's memory into a user's address space, and compare both sides\n\
                The first 4096 pages of it, where there are more: each is a mapping of the machine's.\n\
                The user sees the device's own pages, one by one: scullp with order=0 and scullv have\n\
                some. What the user writes there is then what the device holds.",
        example: "mmap /dev/scullv0",
        run: run_mmap,
    }
}

/// How many pages are mapped at most: a hosted machine may have some ten thousand mappings.
const MOST_MAPPED: u64 = 4096;

fn run_mmap<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let [path] = exactly(&mmap::<S>(), arguments)?;
    let Scull { module, number } = device_of(shell, path).map_err(Failure::Failed)?;
    let failed = |error| Failure::Failed(format!("{path}: {error}"));
    let page = 1usize << S::Platform::PAGE_SHIFT;
    let mut buffer = vec![0; page];
    let size = module.size(number).map_err(failed)?;
    let pages = size.div_ceil(page as u64).min(MOST_MAPPED) as usize;
    if pages == 0 {
        // One that cannot be mapped whatever it holds says that: to write to it would not help.
        module.with_mapped(number, shell.system.user(), 1, &mut |_, _| ()).map_err(failed)?;
        return Err(Failure::Failed(format!("{path} holds nothing: write to it first")));
    }
    let (mut at, mut there, mut same) = (VirtAddr::new(0), 0, true);
    let mut compare = |start: VirtAddr, mapped: usize| {
        (at, there) = (start, mapped);
        if mapped < pages {
            return;
        }
        for index in 0..pages {
            let mut seen = vec![0; page];
            for (offset, byte) in seen.iter_mut().enumerate() {
                // SAFETY: the page is mapped there, and bytes of it may change at any time.
                *byte = unsafe { start.as_ptr::<u8>().add(index * page + offset).read_volatile() };
            }
            let mut done = 0;
            while done < page {
                let position = (index * page + done) as u64;
                match module.read(number, position, &mut buffer[done..]) {
                    Ok(count) if count > 0 => done += count,
                    _ => break,
                }
            }
            same &= seen[..done] == buffer[..done];
        }
    };
    module.with_mapped(number, shell.system.user(), pages, &mut compare).map_err(failed)?;
    if there < pages {
        let holes = Count((pages - there) as u64, "page");
        return Err(Failure::Failed(format!("{path} has holes: {holes} of {pages} are not there")));
    }
    if !same {
        return Err(Failure::Failed(format!("{path}: the user sees other bytes than the device")));
    }
    let pages = Count(pages as u64, "page");
    print(
        out,
        format_args!("{pages} of {path} at {at} in a user's address space: the same bytes\n"),
    )
}
