//! Memory by other addresses: areas and a user's; what guards them; a device; and each CPU's own.

use kmem_shell::System;

use super::guide::Guide;
use crate::exit::Exit;

/// scullv, its areas, and a user that sees them.
pub fn areas(guide: &mut Guide<'_>, file: &str) -> Result<(), Exit> {
    guide.remark(
        "The driver scullv has its pieces from vmalloc: 16 pages in a row each, whose frames may \
         lie\nanywhere. Behind each lies a page that nothing is mapped at. /proc/vmallocinfo lists them.",
    )?;
    guide.command("insmod scullv")?;
    guide.command(&format!("cp {file} /dev/scullv0"))?;
    guide.command(&format!("cmp {file} /dev/scullv0"))?;
    guide.held("what is in scullv is what went in")?;
    guide
        .remark("A user maps the device's memory: the same frames, page by page, and no copies.")?;
    guide.command("mmap /dev/scullv0")?;
    guide.held("the user sees what the device holds")?;
    guide.command("rmmod scullv")
}

/// What lies behind an area and below a stack, and what becomes of a task that goes there.
pub fn guards(guide: &mut Guide<'_>) -> Result<(), Exit> {
    let reports = guide.machine.misuses();
    guide.remark(
        "A task writes behind an area, where nothing is mapped: a real fault. The report says which area \
         and\nwhose. The task is ended, and the machine goes on.",
    )?;
    guide.command("overflow area")?;
    guide.check("the touch was reported", guide.machine.misuses() == reports + 1)?;
    guide.remark(
        "Another task calls itself until its kernel stack is used up. It meets the page below the stack, \
         and\nnot somebody else's memory.",
    )?;
    guide.command("overflow stack")?;
    guide.check("the overflow was reported", guide.machine.misuses() == reports + 2)
}

/// A device that uses memory by itself.
pub fn device(guide: &mut Guide<'_>) -> Result<(), Exit> {
    guide.remark(
        "A device with 28 address lines copies memory by itself. It gets memory that it reaches, or a copy \
         in\nit; what it could not find is refused, since it would silently go to other memory.",
    )?;
    guide.command("dma 3000")?;
    guide.held("what the device copied is equal, and what it cannot use was refused")
}

/// Data of which each CPU has its own.
pub fn percpu(guide: &mut Guide<'_>) -> Result<(), Exit> {
    guide.remark(
        "Data of which each CPU has its own needs no lock. Tasks count on all CPUs, and so do the interrupt\n\
         handlers that come in between.",
    )?;
    guide.command("percpu 100000")?;
    guide.held("nothing that was counted is lost")
}
