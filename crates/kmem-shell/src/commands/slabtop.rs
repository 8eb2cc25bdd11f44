//! `slabtop`: all caches as a table, sorted by what matters most.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;

use kmem::CacheInfo;
use kmem::platform::DirectMap;

use super::{Command, print, usage};
use crate::{Count, Failure, Shell, Sink, System};

pub(super) const fn slabtop<S: System>() -> Command<S> {
    Command {
        name: "slabtop",
        usage: "slabtop [size|active|objects|slabs|object|waste|name]",
        about: "show the caches that have memory, largest first, or by another key\n\
                size: bytes in memory; active: objects in use; objects: all of them; slabs: how many;\n\
                object: bytes of one; waste: bytes in memory that are in no object in use; name.\n\
                In use is what callers hold, and what the manager does: its own tables (magazines,\n\
                records of slabs) are objects of kmalloc's caches. What CPUs keep at hand is not.",
        example: "slabtop active",
        run: run_slabtop,
    }
}

/// A line of the table.
struct Row {
    info: CacheInfo,
    objects: u64,
    /// Bytes in memory.
    bytes: u64,
    /// Of these, what is in no object in use.
    waste: u64,
}

impl Row {
    fn of(info: CacheInfo, page_bytes: u64) -> Row {
        let bytes = info.slabs.slabs() * info.order.pages() * page_bytes;
        let waste = bytes.saturating_sub(info.active * info.size as u64);
        Row { info, objects: info.objects(), bytes, waste }
    }
}

/// A key: its name, and what it is of a row.
type Key = (&'static str, fn(&Row) -> u64);

const KEYS: [Key; 6] = [
    ("size", |row| row.bytes),
    ("active", |row| row.info.active),
    ("objects", |row| row.objects),
    ("slabs", |row| row.info.slabs.slabs()),
    ("object", |row| row.info.stride as u64),
    ("waste", |row| row.waste),
];

fn run_slabtop<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let key = match arguments {
        [] => "size",
        [key] => key.as_str(),
        _ => return Err(usage(&slabtop::<S>())),
    };
    let page_bytes = 1 << <S::Platform as DirectMap>::PAGE_SHIFT;
    let mut rows: Vec<Row> =
        shell.system.mm().caches().map(|info| Row::of(info, page_bytes)).collect();
    match KEYS.iter().find(|(name, _)| *name == key) {
        // Equal ones stay as they were made.
        Some((_, value)) => rows.sort_by_key(|row| Reverse(value(row))),
        None if key == "name" => {
            rows.sort_by(|a, b| a.info.name.as_str().cmp(b.info.name.as_str()))
        }
        None => return Err(usage(&slabtop::<S>())),
    }
    write(&rows, key == "waste", out)
}

/// Writes the summary and the table, as slabtop(1) does.
fn write(rows: &[Row], waste: bool, out: &mut dyn Sink) -> Result<(), Failure> {
    let sum = |of: &dyn Fn(&Row) -> u64| rows.iter().map(of).sum::<u64>();
    let shared =
        |active: u64, total: u64| format!("{active} / {total} ({})", percent(active, total));
    let (active, objects) = (sum(&|row| row.info.active), sum(&|row| row.objects));
    let slabs = |row: &Row| row.info.slabs.full + row.info.slabs.partial;
    let (used, all) = (sum(&slabs), sum(&|row| row.info.slabs.slabs()));
    let caches = rows.iter().filter(|row| row.info.active > 0).count() as u64;
    let (busy, bytes) =
        (sum(&|row| row.info.active * row.info.stride as u64), sum(&|row| row.bytes));
    let sizes = || rows.iter().map(|row| row.info.stride as u64);
    let mean = sum(&|row| row.objects * row.info.stride as u64).checked_div(objects).unwrap_or(0);
    let (least, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
    let head = |what: &str| format!("{what:<35}");
    print(
        out,
        format_args!(
            " {}: {}\n {}: {}\n {}: {}\n {}: {} / {} ({})\n {}: {} / {} / {}\n\n",
            head("Active / Total Objects (% used)"),
            shared(active, objects),
            head("Active / Total Slabs (% used)"),
            shared(used, all),
            head("Active / Total Caches (% used)"),
            shared(caches, rows.len() as u64),
            head("Active / Total Size (% used)"),
            kibibytes(busy),
            kibibytes(bytes),
            percent(busy, bytes),
            head("Minimum / Average / Maximum Object"),
            kibibytes(least),
            kibibytes(mean),
            kibibytes(most),
        ),
    )?;
    let waste_head = if waste { format!("{:>9} ", "WASTE") } else { String::new() };
    print(
        out,
        format_args!(
            "{:>6} {:>6} {:>4} {:>8} {:>6} {:>8} {:>10} {waste_head}NAME\n",
            "OBJS", "ACTIVE", "USE", "OBJ SIZE", "SLABS", "OBJ/SLAB", "CACHE SIZE"
        ),
    )?;
    let idle = |row: &&Row| row.info.slabs.slabs() == 0;
    rows.iter().filter(|row| !idle(row)).try_for_each(|row| {
        let Row { info, objects, bytes, .. } = row;
        let usage = (info.active * 100).checked_div(*objects).unwrap_or(0);
        let wasted = if waste { format!("{:>8}K ", row.waste >> 10) } else { String::new() };
        print(
            out,
            format_args!(
                "{objects:>6} {:>6} {usage:>3}% {:>8} {:>6} {:>8} {:>9}K {wasted}{}\n",
                info.active,
                kibibytes(info.stride as u64),
                info.slabs.slabs(),
                info.objects_per_slab,
                bytes >> 10,
                info.name
            ),
        )
    })?;
    match rows.iter().filter(idle).count() {
        0 => Ok(()),
        idle => {
            print(out, format_args!("{} without memory not shown\n", Count(idle as u64, "cache")))
        }
    }
}

/// Bytes in KiB, to the hundredth.
fn kibibytes(bytes: u64) -> String {
    let hundredths = (bytes * 100 + 512) >> 10;
    format!("{}.{:02}K", hundredths / 100, hundredths % 100)
}

/// A part of a whole, to the tenth of a percent.
fn percent(part: u64, whole: u64) -> String {
    let tenths = (part * 1000).checked_div(whole).unwrap_or(0);
    format!("{}.{}%", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_as_people_expect() {
        assert_eq!(
            [0, 8, 96, 1024, 1536, 131_072].map(kibibytes),
            ["0.00K", "0.01K", "0.09K", "1.00K", "1.50K", "128.00K"]
        );
        assert_eq!(
            (percent(1, 3), percent(5, 5), percent(0, 0)),
            ("33.3%".into(), "100.0%".into(), "0.0%".into())
        );
    }
}
