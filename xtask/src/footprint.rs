//! `cargo xtask footprint`: what the kernel of `kmem-pc` takes, and of that the memory manager.
//!
//! Each machine's time passes with its instructions, one a nanosecond, so that a step of boot is told
//! by its instructions and is the same on every host.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSymbol};
use serde::Deserialize;

use crate::pc::{self, Pc};
use crate::ui;
use crate::workspace::Workspace;

const PAGE: &str = "docs/footprint.md";

/// What the kernel's command `footprint --json` says.
#[derive(Debug, Deserialize)]
struct Said {
    cpus: u64,
    pages: u64,
    image: Vec<(String, u64)>,
    #[serde(rename = "static")]
    fixed: u64,
    metadata: u64,
    boot: Vec<(String, u64)>,
}

/// A figure: what it is, how much, and in what unit.
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
}

/// Measures and prints; writes the page where that is asked for.
pub fn run(ws: &Workspace, write: bool) -> Result<()> {
    let page = render(&measure(ws)?);
    print!("{page}");
    if write {
        std::fs::write(ws.root.join(PAGE), &page)
            .with_context(|| format!("cannot write {PAGE}"))?;
        ui::note(&format!("wrote {PAGE}"));
    }
    Ok(())
}

/// How far a figure of the page may be from what is measured before the page is out of date.
const TOLERANCE: f64 = 1.25;

/// Fails where the committed page has other figures than are measured, or figures that are off by more
/// than a quarter.
pub fn check(ws: &Workspace) -> Result<String> {
    let (page, figures) = (ws.read(PAGE)?, measure(ws)?);
    let committed = read(&page);
    for Figure { what, value, .. } in &figures {
        let Some((_, was)) = committed.iter().find(|(name, _)| name == what) else {
            bail!("{PAGE} has no row `{what}`: run `cargo xtask footprint --write` and commit it");
        };
        let ratio = value / was;
        if !(1.0 / TOLERANCE..TOLERANCE).contains(&ratio) {
            bail!(
                "{PAGE}: {what} is {value:.1} and no longer {was}: run `cargo xtask footprint --write` \
                 and commit it"
            );
        }
    }
    Ok(format!("{} figures are within a quarter of {PAGE}", figures.len()))
}

fn measure(ws: &Workspace) -> Result<Vec<Figure>> {
    // Two machines that differ in CPUs alone, and two that differ in memory alone.
    let [one, four, more] =
        [(1, 64), (4, 64), (4, 512)].map(|(cpus, memory)| machine(cpus, memory));
    let [one, four, more] = [ask(ws, &one)?, ask(ws, &four)?, ask(ws, &more)?];
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    let mut figures = Vec::new();
    let mut add =
        |what: &str, value: f64, unit| figures.push(Figure { what: what.into(), value, unit });
    for (name, bytes) in &more.image {
        add(&format!("image, {name}"), kib(*bytes), "KiB");
    }
    add("of the code, kmem", kib(code_of(&pc::kernel(ws)?, "kmem")?), "KiB");
    let fifty = pc::kernel_of_fifty_lines(ws)?;
    add("of the code of a kernel of fifty lines, kmem", kib(code_of(&fifty, "kmem")?), "KiB");
    add("of the data, `Mm`", kib(more.fixed), "KiB");
    let (bytes, pages) = (more.metadata - four.metadata, more.pages - four.pages);
    add("taken at boot for each page", bytes as f64 / pages as f64, "bytes");
    let (bytes, cpus) = (four.metadata.saturating_sub(one.metadata), four.cpus - one.cpus);
    add("taken at boot for each further CPU", bytes as f64 / cpus as f64, "bytes");
    add("taken at boot, 4 CPUs and 64 MiB", kib(four.metadata), "KiB");
    add("taken at boot, 4 CPUs and 512 MiB", kib(more.metadata), "KiB");
    for (name, instructions) in &more.boot {
        add(&format!("boot, {name}"), *instructions as f64 / 1000.0, "thousand instructions");
    }
    Ok(figures)
}

fn machine(cpus: u32, memory: u64) -> Pc {
    Pc {
        commands: Some("footprint --json".into()),
        cpus,
        memory,
        instruction_clock: true,
        ..Pc::small()
    }
}

fn ask(ws: &Workspace, machine: &Pc) -> Result<Said> {
    let mut said = None;
    let code = pc::run_lines(ws, machine, |line| {
        if line.starts_with('{') {
            said = Some(serde_json::from_str(line));
        }
    })?;
    let said = said.with_context(|| format!("{}: it said nothing", machine.shown()))?;
    if code != 0 {
        bail!("{} ended with status {code}", machine.shown());
    }
    said.with_context(|| machine.shown())
}

/// How many bytes the functions of a crate have in an image. What was inlined counts for the caller.
fn code_of(image: &Path, name: &str) -> Result<u64> {
    let bytes = std::fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| image.display().to_string())?;
    let functions = file.symbols().filter(|symbol| symbol.kind() == object::SymbolKind::Text);
    // The name of a crate comes first, behind its length.
    let prefix = format!("_ZN{}{name}", name.len());
    let is_its =
        |symbol: &object::Symbol<'_, '_>| symbol.name().is_ok_and(|name| name.starts_with(&prefix));
    Ok(functions.filter(is_its).map(|symbol| symbol.size()).sum())
}

const INTRODUCTION: &str = "\
# Footprint

Written by `cargo xtask footprint --write`, which boots three PCs in QEMU and asks each. The kernel is that of
`kmem-pc`, with the shell, the sample devices and the acceptance cases in it: a kernel that adopts kmem has of the
image what it calls of kmem's functions, and `Mm`.

The machines have one node each: 1 CPU and 64 MiB, 4 CPUs and 64 MiB, 4 CPUs and 512 MiB. Rows of the image and of
boot are of the last; what a page and what a further CPU takes is the difference of two of them. At the prompt of a
PC, `footprint` shows that machine's own: the bytes a page that it says are all that was taken at boot, the CPUs'
share in it, over all pages.

A step of boot is counted in instructions of the emulated processor, a million a millisecond of the machine's time,
which is the same on every host. `clock` waits for ten milliseconds of that time; `CPUs` starts one CPU after the
other, and waits for each some milliseconds.

| what | figure | unit |
| --- | ---: | --- |
";

fn render(figures: &[Figure]) -> String {
    let mut page = INTRODUCTION.to_owned();
    for Figure { what, value, unit } in figures {
        let _ = writeln!(page, "| {what} | {value:.1} | {unit} |");
    }
    page
}

/// The rows of a page: what, and how much.
fn read(page: &str) -> Vec<(String, f64)> {
    page.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            Some((cells.next()?.to_owned(), cells.next()?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let figures = [
            Figure { what: "of the data, `Mm`".into(), value: 58.57, unit: "KiB" },
            Figure { what: "boot, manager".into(), value: 1234.0, unit: "thousand instructions" },
        ];
        let rows = read(&render(&figures));
        assert_eq!(rows, [("of the data, `Mm`".into(), 58.6), ("boot, manager".into(), 1234.0)]);
    }
}
