//! The files in `/proc`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use kmem::{Mm, report};

use super::error::{ENOENT, FileError};
use super::modules::{Loaded, Modules, kinds};
use super::tree::Node;
use crate::System;
use crate::commands::did_you_mean;

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
}

/// The reports that every machine has, by name.
fn reports<S: System>() -> [(&'static str, Report<S>); 10] {
    [
        ("allocinfo", |mm, out| report::allocinfo(mm, out)),
        ("buddyinfo", |mm, out| report::buddyinfo(mm, out)),
        ("iomem", |mm, out| report::iomem(mm, out)),
        ("meminfo", |mm, out| report::meminfo(mm, out)),
        ("pagemap-text", |mm, out| report::pagemap_text(mm, out)),
        ("pagetypeinfo", |mm, out| report::pagetypeinfo(mm, out)),
        ("slabinfo", |mm, out| report::slabinfo(mm, out)),
        ("vmallocinfo", |mm, out| report::vmallocinfo(mm, out)),
        ("vmstat", |mm, out| report::vmstat(mm, out)),
        ("zoneinfo", |mm, out| report::zoneinfo(mm, out)),
    ]
}

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
    names.push(MODULES.into());
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
    let report = reports::<S>().into_iter().find(|(report, _)| *report == name);
    let proc = if let Some((_, report)) = report {
        Proc::Report(report)
    } else if name == MODULES {
        Proc::Modules
    } else if name == BIGPHYSAREA && has_bigphysarea(system) {
        Proc::Report(report::bigphysarea)
    } else if let Some(module) = name.strip_suffix(MEM).and_then(|name| modules.find(name)) {
        Proc::Mem(module)
    } else {
        return Err(FileError::new(ENOENT, missing(system, modules, name)));
    };
    Ok(Node::Proc(proc))
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
        }
    }
}
