//! `kmem conformance`: the acceptance cases, on every machine that they say something about.

use std::io::Write;

use kmem::spelling::nearest;
use kmem_cases::{Judged, Outcome, count, variants};
use serde_json::json;

use crate::console::JsonRows;
use crate::exit::Exit;
use crate::progress::Progress;

/// Run the acceptance cases, each on a machine that has just booted
///
/// A case shows that the memory manager does what docs/acceptance.md states, and names the statements that
/// it shows. Without options all cases run, on all presets and on some machines more: other page sizes,
/// other zones, memory that the command line takes out. That takes some minutes. A case that needs what a
/// machine does not have is skipped there.
#[derive(clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// Print one JSON document for programs instead: see `--help` for its form
    #[arg(long)]
    json: bool,
    /// Only on this machine: a preset, or one such as default/64k
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Only cases whose name holds this text, or that prove this statement
    #[arg(long, value_name = "TEXT|ID")]
    case: Option<String>,
}

const AFTER_HELP: &str = "\
Examples:
  kmem conformance
  kmem conformance --machine numa2
  kmem conformance --machine tiny --case A062
  kmem conformance --machine default/64k --json

JSON:
  An array of objects, each on a line of its own, printed when its case has ended.
  machine   what it ran on
  case      its name
  ids       the statements that it shows, an array such as [\"A062\"]
  outcome   \"passed\", \"failed\" or \"skipped\"
  detail    why it failed, or what it needs; empty for one that passed

Exit status:
  0  no case failed
  1  some failed, or could not be printed
  2  there is no such machine or case";

pub fn run(args: &Args) -> Result<(), Exit> {
    let chosen: Vec<_> = variants()
        .filter(|variant| args.machine.as_ref().is_none_or(|name| name == variant.name()))
        .collect();
    if chosen.is_empty() {
        let names: Vec<_> = variants().map(|variant| variant.name()).collect();
        let name = args.machine.as_deref().unwrap_or_default();
        let meant = match nearest(name, names.iter().copied()) {
            Some(near) => format!(", did you mean '{near}'? There are "),
            None => ": there are ".into(),
        };
        return Err(Exit::BadInput(format!(
            "there is no machine '{name}'{meant}{}",
            names.join(", ")
        )));
    }
    let only = args.case.as_deref();
    let each = count(only);
    if each == 0 {
        return Err(Exit::BadInput(no_case(only.unwrap_or_default())));
    }
    let mut tally = Tally {
        json: args.json.then(JsonRows::new),
        progress: Progress::default(),
        total: each * chosen.len() as u64,
        passed: 0,
        failed: 0,
        skipped: 0,
    };
    for variant in &chosen {
        let (name, mut printed) = (variant.name(), Ok(()));
        tally.show();
        let ran = variant.run(only, |judged| {
            // What cannot be printed ends the run with the machine.
            if printed.is_ok() {
                printed = tally.add(name, &judged);
                tally.show();
            }
            printed.is_ok()
        });
        ran.map_err(|error| Exit::Failed(format!("{name}: {error}")))?;
        printed?;
    }
    tally.finish()
}

/// Why no case was chosen. Statements are known by the cases that prove them: whether there is one
/// that no case claims is not known here.
fn no_case(text: &str) -> String {
    let digits = text.strip_prefix('A').unwrap_or_default();
    if digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("no case claims {text}: docs/conformance.md says what else shows a statement")
    } else {
        format!("there is no case '{text}': give a part of a name, or an ID such as A062")
    }
}

/// What has been printed so far, in numbers.
struct Tally {
    /// The document, where it is one.
    json: Option<JsonRows>,
    progress: Progress,
    /// How many cases there are to run.
    total: u64,
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// Shows how far it is.
    fn show(&self) {
        let done = self.passed + self.failed + self.skipped;
        self.progress.show("cases", done, Some(self.total));
    }

    fn add(&mut self, machine: &str, judged: &Judged) -> Result<(), Exit> {
        let Judged { case, ids, outcome, detail } = judged;
        let (outcome, count) = match outcome {
            Outcome::Passed => ("passed", &mut self.passed),
            Outcome::Failed => ("failed", &mut self.failed),
            Outcome::Skipped => ("skipped", &mut self.skipped),
        };
        *count += 1;
        let line = match &mut self.json {
            Some(document) => document.row(&json!({
                "machine": machine,
                "case": case,
                "ids": ids,
                "outcome": outcome,
                "detail": detail,
            })),
            None => {
                let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
                format!("{outcome:<8}{machine:<16}{case} ({}){detail}\n", ids.join(" "))
            }
        };
        self.progress.above(|| print(&line))
    }

    fn finish(self) -> Result<(), Exit> {
        let Tally { json, progress, total: _, passed, failed, skipped } = self;
        progress.clear();
        let line = format!("{passed} passed, {failed} failed, {skipped} skipped");
        if let Some(document) = &json {
            print(document.end())?;
        }
        if failed > 0 {
            return Err(Exit::Failed(line));
        }
        if json.is_some() { Ok(()) } else { print(&format!("{line}\n")) }
    }
}

fn print(text: &str) -> Result<(), Exit> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Exit::not_printed)
}
