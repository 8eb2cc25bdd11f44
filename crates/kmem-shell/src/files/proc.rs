//! The files in `/proc`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use kmem::page::{Block, Place};
use kmem::{Mm, Pfn, report};

use super::error::{ENOENT, FileError};
use super::modules::{Loaded, Modules, kinds};
use super::tree::Node;
use crate::commands::did_you_mean;
use crate::{Age, System};

/// What a module's file is called after its name: `scullpmem`.
const MEM: &str = "mem";

/// The file that only machines have which set such memory aside.
const BIGPHYSAREA: &str = "bigphysarea";

/// The manager of a system's machine.
type MmOf<S> = Mm<<S as System>::Platform, <S as System>::Reclaim>;

/// What writes a report.
type Report<S> = fn(&MmOf<S>, &mut String) -> fmt::Result;

/// A file in `/proc`.
pub(crate) enum Proc<'m, S: System> {
    /// A report of the manager's.
    Report(Report<S>),
    /// The list of modules.
    Modules,
    /// What the devices of a module have.
    Mem(Loaded<'m>),
    /// What is known of a frame.
    Page(Pfn),
}

/// The reports that every machine has, by name.
fn reports<S: System>() -> [(&'static str, Report<S>); 11] {
    [
        ("allocinfo", |mm, out| report::allocinfo(mm, out)),
        ("buddyinfo", |mm, out| report::buddyinfo(mm, out)),
        ("iomem", |mm, out| report::iomem(mm, out)),
        ("meminfo", |mm, out| report::meminfo(mm, out)),
        ("pagemap-text", |mm, out| report::pagemap_text(mm, out)),
        ("pageruns", |mm, out| report::pageruns(mm, out)),
        ("pagetypeinfo", |mm, out| report::pagetypeinfo(mm, out)),
        ("slabinfo", |mm, out| report::slabinfo(mm, out)),
        ("vmallocinfo", |mm, out| report::vmallocinfo(mm, out)),
        ("vmstat", |mm, out| report::vmstat(mm, out)),
        ("zoneinfo", |mm, out| report::zoneinfo(mm, out)),
    ]
}

/// The directory that has a file for each frame. It lists none: there are millions.
const PAGES: &str = "pages";

/// The list of modules.
const MODULES: &str = "modules";

fn has_bigphysarea<S: System>(system: &S) -> bool {
    system.mm().bigphysarea_frames().is_ok_and(|frames| frames.is_some())
}

/// The names in `/proc`.
pub(super) fn names<S: System>(system: &S, modules: &Modules<'_>) -> Vec<String> {
    let mems = modules.kinds().into_iter().map(|kind| format!("{}{MEM}", kind.name));
    let reports = reports::<S>().map(|(name, _)| String::from(name));
    let mut names: Vec<_> = reports.into_iter().chain(mems).collect();
    names.extend([MODULES, PAGES].map(String::from));
    names.extend(has_bigphysarea(system).then(|| BIGPHYSAREA.into()));
    names.sort();
    names
}

/// What has that name in `/proc` now.
pub(super) fn find<'m, S: System>(
    system: &S,
    modules: &Modules<'m>,
    name: &str,
) -> Result<Node<'m, S>, FileError> {
    if name == PAGES {
        return Ok(Node::Directory(Vec::new()));
    }
    let report = reports::<S>().into_iter().find(|(report, _)| *report == name);
    let proc = if let Some((_, report)) = report {
        Proc::Report(report)
    } else if name == MODULES {
        Proc::Modules
    } else if name == BIGPHYSAREA && has_bigphysarea(system) {
        Proc::Report(report::bigphysarea)
    } else if let Some(module) = name.strip_suffix(MEM).and_then(|name| modules.find(name)) {
        Proc::Mem(module)
    } else if let Some(frame) = name.strip_prefix(PAGES).and_then(|name| name.strip_prefix('/')) {
        let pfn = parse_frame(frame).and_then(|frame| known(system, frame));
        Proc::Page(pfn.map_err(|what| FileError::new(ENOENT, format!("/proc/{name}: {what}")))?)
    } else {
        return Err(FileError::new(ENOENT, missing(system, modules, name)));
    };
    Ok(Node::Proc(proc))
}

/// Reads a frame's number, in decimal or, after `0x`, in hexadecimal.
pub(crate) fn parse_frame(text: &str) -> Result<u64, String> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((text, 10), |digits| (digits, 16));
    // A sign is read as a number's too.
    let is_digits = digits.chars().all(|digit| digit.is_digit(radix));
    let number = u64::from_str_radix(digits, radix).ok().filter(|_| is_digits);
    number.ok_or_else(|| {
        format!("'{text}' is no frame: give a frame's number, such as 4660 or 0x1234")
    })
}

/// The frame of that number, if the manager knows anything of it.
pub(crate) fn known<S: System>(system: &S, frame: u64) -> Result<Pfn, String> {
    let mm = system.mm();
    let pfn = Pfn::new(frame).filter(|pfn| mm.pfn_to_page(*pfn).is_some());
    pfn.ok_or_else(|| match mm.zones().iter().map(|z| z.start_pfn() + z.spanned_pages()).max() {
        Some(end) => format!("there is no frame {frame}: RAM ends with frame {}", end - 1),
        None => "the machine has not booted".into(),
    })
}

/// Writes what is known of a frame.
pub(crate) fn write_page<S: System>(system: &S, pfn: Pfn, out: &mut String) -> fmt::Result {
    let mm = system.mm();
    report::page(mm, pfn, out)?;
    let head = mm.memmap().and_then(|memmap| Some((memmap, memmap.head(pfn)?)));
    let Some((memmap, (head, Block::Used(_) | Block::Compound(_)))) = head else { return Ok(()) };
    if memmap.get(head).is_none_or(|first| first.place() != Place::Held) {
        return Ok(());
    }
    out.push_str("age:         ");
    match system.block_age(head) {
        Age::Known(time) => {
            let (seconds, rest) = (time / 1_000_000_000, time % 1_000_000_000 / 1000);
            writeln!(out, "{seconds}.{rest:06} s")
        }
        Age::Unknown => {
            writeln!(out, "not known: it was not handed out by itself, or before the trace")
        }
        Age::NotKept => {
            let advice = "a hosted one does with `kmem boot --trace FILE`";
            writeln!(out, "not known: this machine keeps no times; {advice}")
        }
    }
}

fn missing<S: System>(system: &S, modules: &Modules<'_>, name: &str) -> String {
    let module = name.strip_suffix(MEM).unwrap_or_default();
    if kinds::<S>().any(|kind| kind.name == module) {
        format!("/proc/{name} needs the module {module}: `insmod {module}` first")
    } else if name == BIGPHYSAREA {
        "/proc/bigphysarea needs bigphysarea=512 or so on the command line".into()
    } else {
        let names = names(system, modules);
        let meant = did_you_mean(name, names.iter().map(String::as_str));
        format!("there is no /proc/{name}{meant}; `ls /proc` lists what there is")
    }
}

impl<S: System> Proc<'_, S> {
    /// Writes the text as it is now.
    pub(super) fn write(&self, system: &S, modules: &Modules<'_>, out: &mut String) -> fmt::Result {
        match self {
            Proc::Report(report) => report(system.mm(), out),
            Proc::Modules => modules.write(out),
            Proc::Mem(module) => module.write_mem(out),
            Proc::Page(pfn) => write_page(system, *pfn, out),
        }
    }
}
