//! `footprint`: what the kernel and its memory manager take.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kmem_shell::{Command, Failure, Shell, Sink};
use serde_json::json;

use super::{print, usage};
use crate::machine::Machine;
use crate::platform::Pc;
use crate::{MM, boot, paging, smp};

pub(super) const COMMAND: Command<Machine> = Command {
    name: "footprint",
    usage: "footprint [--json]",
    about: "show what the kernel and its manager take, and how long each step of boot took",
    example: "footprint",
    run,
};

fn run(_: &mut Shell<'_, Machine>, words: &[String], out: &mut dyn Sink) -> Result<(), Failure> {
    let as_json = match words {
        [] => false,
        [word] if word == "--json" => true,
        _ => return Err(usage(&COMMAND)),
    };
    let parts = paging::parts_of_image();
    let pages = MM.frames().map_or(0, |frames| frames.ram_pages());
    // What the platform has in it is the machine's own.
    let (fixed, metadata) = (size_of_val(&MM) - size_of::<Pc>(), MM.metadata_bytes());
    let steps: Vec<_> = boot::steps().collect();
    if as_json {
        let line = json!({
            "cpus": smp::online().count(),
            "pages": pages,
            "image": parts.iter().map(|(name, part)| json!([name, part.len()])).collect::<Vec<_>>(),
            "static": fixed,
            "metadata": metadata,
            "boot": steps,
        });
        return print(out, format_args!("{line}\n"));
    }
    for (name, part) in parts {
        print(out, format_args!("image, {name:<20}{:>10}\n", kib(part.len() as u64)))?;
    }
    print(out, format_args!("manager, static data       {:>10}\n", kib(fixed as u64)))?;
    print(out, format_args!("manager, taken at boot     {:>10}", kib(metadata)))?;
    let hundredths = metadata * 100 / pages.max(1);
    print(out, format_args!("  {}.{:02} bytes a page\n", hundredths / 100, hundredths % 100))?;
    for (name, took) in steps {
        print(out, format_args!("boot, {name:<21}{:>10} us\n", took / 1000))?;
    }
    Ok(())
}

fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}
