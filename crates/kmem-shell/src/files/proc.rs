//! The files in `/proc`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use kmem::report;

use super::Text;
use crate::{Shell, Source, System};

/// Writes a file's text, or answers that there is no such file now.
fn write<S: System>(shell: &Shell<'_, S>, name: &str, out: &mut String) -> Option<fmt::Result> {
    let mm = shell.system.mm();
    Some(match name {
        "buddyinfo" => report::buddyinfo(mm, out),
        "iomem" => report::iomem(mm, out),
        "meminfo" => report::meminfo(mm, out),
        "modules" => shell.modules.write(out),
        "pagetypeinfo" => report::pagetypeinfo(mm, out),
        "scullpmem" => shell.modules.scullp()?.write_mem(out),
        "slabinfo" => report::slabinfo(mm, out),
        "vmstat" => report::vmstat(mm, out),
        "zoneinfo" => report::zoneinfo(mm, out),
        _ => return None,
    })
}

const NAMES: [&str; 9] = [
    "buddyinfo",
    "iomem",
    "meminfo",
    "modules",
    "pagetypeinfo",
    "scullpmem",
    "slabinfo",
    "vmstat",
    "zoneinfo",
];

/// The names in `/proc`.
pub(super) fn names<S: System>(shell: &Shell<'_, S>) -> Vec<String> {
    let there = |name: &&str| *name != "scullpmem" || shell.modules.scullp().is_some();
    NAMES.into_iter().filter(there).map(String::from).collect()
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
        None if name == "scullpmem" => {
            Err(format!("/proc/{name} needs the module scullp: `insmod scullp` first"))
        }
        None => Err(format!("there is no /proc/{name}; `ls /proc` lists what there is")),
    }
}
