//! The files in `/proc`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use kmem::report;

use super::Text;
use super::modules::kinds;
use crate::{Shell, Source, System};

/// Writes a file's text, or answers that there is no such file now.
fn write<S: System>(shell: &Shell<'_, S>, name: &str, out: &mut String) -> Option<fmt::Result> {
    let mm = shell.system.mm();
    Some(match name {
        "allocinfo" => report::allocinfo(mm, out),
        BIGPHYSAREA if has_bigphysarea(shell) => report::bigphysarea(mm, out),
        "buddyinfo" => report::buddyinfo(mm, out),
        "iomem" => report::iomem(mm, out),
        "meminfo" => report::meminfo(mm, out),
        "modules" => shell.modules.write(out),
        "pagemap-text" => report::pagemap_text(mm, out),
        "pagetypeinfo" => report::pagetypeinfo(mm, out),
        "slabinfo" => report::slabinfo(mm, out),
        "vmallocinfo" => report::vmallocinfo(mm, out),
        "vmstat" => report::vmstat(mm, out),
        "zoneinfo" => report::zoneinfo(mm, out),
        name => shell.modules.find(name.strip_suffix(MEM)?)?.write_mem(out),
    })
}

/// What a module's file is called after its name: `scullpmem`.
const MEM: &str = "mem";

/// The file that only machines have which set such memory aside.
const BIGPHYSAREA: &str = "bigphysarea";

fn has_bigphysarea<S: System>(shell: &Shell<'_, S>) -> bool {
    shell.system.mm().bigphysarea_frames().is_ok_and(|frames| frames.is_some())
}

const NAMES: [&str; 11] = [
    "allocinfo",
    "buddyinfo",
    "iomem",
    "meminfo",
    "modules",
    "pagemap-text",
    "pagetypeinfo",
    "slabinfo",
    "vmallocinfo",
    "vmstat",
    "zoneinfo",
];

/// The names in `/proc`.
pub(super) fn names<S: System>(shell: &Shell<'_, S>) -> Vec<String> {
    let modules = shell.modules.iter().map(|module| format!("{}{MEM}", module.kind().name));
    let mut names: Vec<_> = NAMES.map(String::from).into_iter().chain(modules).collect();
    names.extend(has_bigphysarea(shell).then(|| BIGPHYSAREA.into()));
    names.sort();
    names
}

/// The text as it is now: what changes later is not in it.
pub(super) fn open<'m, S: System>(
    shell: &Shell<'m, S>,
    name: &str,
) -> Result<Box<dyn Source + 'm>, String> {
    let mut text = String::new();
    match write(shell, name, &mut text) {
        Some(Ok(())) => Ok(Box::new(Text { text, at: 0 })),
        Some(Err(fmt::Error)) => Err(format!("/proc/{name} could not be written")),
        None if kinds::<S>().any(|kind| name.strip_suffix(MEM) == Some(kind.name)) => {
            let module = name.trim_end_matches(MEM);
            Err(format!("/proc/{name} needs the module {module}: `insmod {module}` first"))
        }
        None if name == BIGPHYSAREA => {
            Err("/proc/bigphysarea needs bigphysarea=512 or so on the command line".into())
        }
        None => Err(format!("there is no /proc/{name}; `ls /proc` lists what there is")),
    }
}
