//! `kmem map`: a machine's physical memory as a picture.
//!
//! | where | what is in it |
//! | --- | --- |
//! | `picture.rs` | where which rectangle and which text is |
//! | `svg.rs`, `png.rs` | the picture as a file |
//! | `terminal.rs` | the same as coloured text |

mod picture;
mod png;
mod svg;
pub mod terminal;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use clap::ValueHint;
use kmem_shell::Shell;
use serde_json::{Map, Value, json};

use crate::choice::Choice;
use crate::exit::Exit;
use crate::hosted::{self, Hosted, Visit};
use crate::look::runs::{Memory, Owner};
use crate::look::{Mounted, Texts};
use crate::{console, signals};

/// Draw who has which part of a machine's physical memory
///
/// Of a machine that is mounted (`kmem boot --mount DIR`), or of one that is booted for it, runs the
/// commands and is drawn before it ends. Without --output it is drawn as coloured text.
#[derive(clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// The folder that a machine is mounted on
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["machine", "mem", "cpus", "nodes", "set", "commands"])]
    folder: Option<PathBuf>,
    #[command(flatten)]
    machine: Choice,
    /// Run these commands before it is drawn, separated by `;`
    #[arg(short, value_name = "COMMANDS")]
    commands: Option<String>,
    /// Write a picture: .svg or .png
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Print one JSON document for programs instead: see `--help` for its form
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  kmem map --machine numa2 -c 'insmod scullp; cp /etc/services /dev/scullp0'
  kmem map --output memory.svg -c 'stress 10000'
  kmem map /mnt --output memory.png          # of the machine that is mounted on /mnt

Notes:
  A cell is filled by the share of its pages that each owner has, what is free at the top.
  docs/looking.md says how to read it.

JSON:
  One object, after what the commands print.
  machine, page_bytes, ram_pages
          the machine's name or folder, and numbers
  owners  an array: owner, pages, bytes; of all owners, those that have nothing too
  zones   an array, by addresses: node, zone, first_pfn, last_pfn, ram_pages, and pages: an object
          of how many pages each owner has there

Exit status:
  0  it was drawn
  1  it cannot be read or written, or a command failed
  2  the input makes no sense
  3  at the end memory was missing or corrupted
  4  the machine's kernel panicked";

/// What a picture is written as.
#[derive(Clone, Copy)]
enum Format {
    Svg,
    Png,
}

impl Format {
    fn of(path: &Path) -> Result<Format, Exit> {
        match path.extension().and_then(|end| end.to_str()) {
            Some(end) if end.eq_ignore_ascii_case("svg") => Ok(Format::Svg),
            Some(end) if end.eq_ignore_ascii_case("png") => Ok(Format::Png),
            _ => Err(Exit::BadInput(format!(
                "{} is no picture's name: end it in .svg or .png",
                path.display()
            ))),
        }
    }
}

pub fn run(args: &Args) -> Result<(), Exit> {
    // What makes no sense is said before a machine works for it.
    if let Some(path) = &args.output {
        Format::of(path)?;
    }
    if let Some(folder) = &args.folder {
        let machine = Mounted::find(folder)?;
        let name = folder.display().to_string();
        if !machine.has("pageruns") {
            return Err(Exit::BadInput(format!(
                "{name} has no proc/pageruns: Linux's own memory has no map; give the folder of a machine \
                 (`kmem boot --mount DIR`)"
            )));
        }
        return show(args, &machine.read("pageruns").map_err(Exit::Failed)?, &name);
    }
    let description = args.machine.describe()?;
    signals::watch()
        .map_err(|error| Exit::Failed(format!("cannot start a thread for signals: {error}")))?;
    let name = description.name.clone();
    let commands = args.commands.as_deref().unwrap_or_default();
    let mut text = String::new();
    // It is drawn when the machine has ended: what was lost is said by then.
    let ended = hosted::boot(&description, None, Read { commands, text: &mut text });
    if !text.is_empty() {
        show(args, &text, &name)?;
    }
    ended
}

/// Runs commands, and reads which frames who has then.
struct Read<'a> {
    commands: &'a str,
    text: &'a mut String,
}

impl Visit for Read<'_> {
    fn visit<const SHIFT: u32, const TRACE: bool>(
        self,
        machine: &Hosted<SHIFT, TRACE>,
    ) -> Result<(), Exit> {
        let mut shell = Shell::new(machine);
        let ran = machine.run(|| shell.run(self.commands));
        machine.settle();
        let read =
            machine.run(|| shell.tree().text("/proc/pageruns").map(|text| *self.text = text));
        let finished = machine.run(|| shell.finish());
        ran.map_err(|error| machine.exit_of(error))?;
        read.map_err(|error| Exit::Failed(error.to_string()))?;
        finished.map_err(|error| Exit::Lost(error.to_string()))
    }
}

/// Writes what was asked for.
fn show(args: &Args, text: &str, name: &str) -> Result<(), Exit> {
    let memory = Memory::parse(text).map_err(Exit::Failed)?;
    let name = console::printable(name);
    if let Some(path) = &args.output {
        let picture = picture::draw(&memory, &name);
        let file = match Format::of(path)? {
            Format::Svg => Ok(svg::svg(&picture).into_bytes()),
            Format::Png => png::png(&picture),
        };
        let written = file.and_then(|file| write_whole(path, &file));
        written.map_err(|what| Exit::Failed(format!("cannot write {}: {what}", path.display())))?;
    }
    let out = match (args.json, &args.output) {
        (true, _) => format!("{:#}\n", summary(&memory, &name)),
        (false, None) => terminal::text(&memory, &name),
        (false, Some(_)) => return Ok(()),
    };
    let mut stream = anstream::stdout();
    let written = stream.write_all(out.as_bytes()).and_then(|()| stdout().flush());
    written.map_err(Exit::not_printed)
}

/// Writes a file as a whole: one that is cut off is no picture, and the one that was there is better.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let write = |path: &Path| std::fs::write(path, bytes).map_err(|error| error.to_string());
    // A link stays one, and what is no file of a disk is written to as it is.
    let path = path.canonicalize().unwrap_or_else(|_| path.into());
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return write(&path);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let written = write(&beside)
        .and_then(|()| std::fs::rename(&beside, &path).map_err(|error| error.to_string()));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Classes and sums.
fn summary(memory: &Memory, name: &str) -> Value {
    let sums = memory.sums();
    let owner = |owner: Owner| {
        let pages = sums[owner as usize];
        json!({
            "owner": owner.label(),
            "pages": pages,
            "bytes": pages.saturating_mul(memory.page),
        })
    };
    let zone = |(index, zone): (usize, &crate::look::runs::Zone)| {
        let mut pages = Map::new();
        for run in memory.runs.iter().filter(|run| run.zone == index) {
            let sum = pages.entry(run.owner.label()).or_insert(json!(0));
            let length = run.frames.end - run.frames.start;
            *sum = json!(sum.as_u64().unwrap_or(0) + length);
        }
        json!({
            "node": zone.node,
            "zone": zone.name,
            "first_pfn": zone.frames.start,
            "last_pfn": zone.frames.end - 1,
            "ram_pages": zone.ram,
            "pages": pages,
        })
    };
    json!({
        "machine": name,
        "page_bytes": memory.page,
        "ram_pages": memory.ram(),
        "owners": Owner::ALL.map(owner),
        "zones": memory.zones.iter().enumerate().map(zone).collect::<Vec<_>>(),
    })
}
