//! `kmem trace`: what a trace file comes to.
//!
//! | where | what is in it |
//! | --- | --- |
//! | `line.rs` | a line of the file |
//! | `tally.rs` | allocations and frees, matched and counted |
//! | `print.rs` | the summary, for people and for programs |

mod line;
mod print;
mod tally;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};

use clap::ValueHint;
use kmem_host::description::parse_size;

use crate::exit::Exit;
use crate::progress::Progress;
use line::Line;
use tally::Tally;

/// Sum up a trace of memory events
///
/// Reads what `kmem boot --trace` writes, and what Linux has in /sys/kernel/tracing/trace and
/// trace_pipe where its events of memory are switched on. Counts events, callers and blocks of pages,
/// and says what was still allocated at the end.
#[derive(clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// The trace; `-` for standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: String,
    /// Print one JSON document for programs instead: see `--help` for its form
    #[arg(long)]
    json: bool,
    /// How many callers to print; all of them with --json
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// How large the pages are that the trace tells of: 4K, 64K
    #[arg(long, value_name = "SIZE", default_value = "4K")]
    page: String,
}

const AFTER_HELP: &str = "\
Examples:
  kmem boot --trace events.txt -c 'stress 10000'; kmem trace events.txt
  zstdcat old.trace.zst | kmem trace -

Notes:
  Kinds of memory are counted apart: an object of a cache lies in pages that are counted as pages.
  An allocation where something is live ends what was there (\"reused\"): some frees are no event.

JSON:
  One object.
  file, events, microseconds, cpus, lost, not_understood, unreadable
             the file, and numbers: of events and CPUs, of events that were lost, of lines that are
             none, of events without a field that they need
  by_event   an object: how many there were of each event
  memory     an object for each of pages, objects, areas, percpu: allocations, bytes, bytes_asked,
             live, live_bytes, peak_bytes, freed, freed_unseen, freed_null, reused, failed
  orders     an object for each order of blocks: allocations, bytes, live, live_bytes
  callers    an array: caller, memory, allocations, bytes, live, live_bytes; most bytes live first

Exit status:
  0  all went well
  1  the file cannot be read
  2  it is no trace";

/// A longer line is no line of a trace.
const LONGEST_LINE: u64 = 64 << 10;

/// After how many lines the progress is told: they take some milliseconds.
const LINES_TOLD: u64 = 1 << 13;

/// What a file was.
struct Summary {
    tally: Tally,
    /// Events, and when the first and the last were, in microseconds.
    events: u64,
    first: u64,
    last: u64,
    /// CPUs that something was told of, or as many as the header says.
    cpus: u64,
    lost: u64,
    /// Lines that are of no form.
    unknown: u64,
}

pub fn run(args: &Args) -> Result<(), Exit> {
    let Some(page) = parse_size(&args.page).filter(|page| page.is_power_of_two()) else {
        return Err(Exit::BadInput(format!(
            "--page '{}' is no size of a page: give one such as 4K or 64K",
            args.page
        )));
    };
    let name = if args.file == "-" { "standard input" } else { args.file.as_str() };
    let cannot =
        |error: std::io::Error| Exit::Failed(format!("cannot read the trace {name}: {error}"));
    let summary = match args.file.as_str() {
        "-" => read(stdin().lock(), name, page, None)?,
        path => {
            let file = File::open(path).map_err(cannot)?;
            let status = file.metadata().map_err(cannot)?;
            let size = status.is_file().then(|| status.len());
            read(BufReader::with_capacity(1 << 20, file), name, page, size)?
        }
    };
    if args.json { print::json(name, &summary) } else { print::text(name, &summary, args.top) }
}

/// Reads all of it; `size` is how many bytes that is, where it is known.
fn read(mut from: impl BufRead, name: &str, page: u64, size: Option<u64>) -> Result<Summary, Exit> {
    let progress = Progress::default();
    let mut done = 0;
    let mut summary = Summary {
        tally: Tally::new(page),
        events: 0,
        first: u64::MAX,
        last: 0,
        cpus: 0,
        lost: 0,
        unknown: 0,
    };
    let mut bytes = Vec::new();
    for number in 1u64.. {
        bytes.clear();
        let read = from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes);
        let length =
            read.map_err(|error| Exit::Failed(format!("cannot read the trace {name}: {error}")))?;
        if length == 0 {
            break;
        }
        done += length as u64;
        if number.is_multiple_of(LINES_TOLD) {
            progress.show("bytes", done, size);
        }
        if length as u64 == LONGEST_LINE && bytes.last() != Some(&b'\n') {
            return Err(Exit::BadInput(format!(
                "{name}:{number}: the line is longer than {LONGEST_LINE} bytes: give a trace"
            )));
        }
        // A task may be called anything.
        match Line::parse(&String::from_utf8_lossy(&bytes)) {
            Some(Line::Event(event)) => {
                summary.events += 1;
                summary.first = summary.first.min(event.time);
                summary.last = summary.last.max(event.time);
                summary.cpus = summary.cpus.max(u64::from(event.cpu) + 1);
                summary.tally.add(&event);
            }
            Some(Line::Lost(count)) => summary.lost = summary.lost.saturating_add(count),
            Some(Line::Cpus(cpus)) => summary.cpus = summary.cpus.max(cpus),
            Some(Line::Remark) => {}
            None => summary.unknown += 1,
        }
    }
    progress.clear();
    if summary.events == 0 && summary.unknown > 0 {
        return Err(Exit::BadInput(format!(
            "{name} is no trace: none of its lines is an event such as `task-1 [000] ..... 1.000000: \
             kfree: ...`"
        )));
    }
    Ok(summary)
}
