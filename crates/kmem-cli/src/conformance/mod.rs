//! `kmem conformance`: the acceptance cases, on every machine that they say something about.

mod machine;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cases::{Case, Outcome};
use kmem::spelling::nearest;
use kmem_host::Description;
use machine::Hosted;
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

/// A machine that cases are run on: a preset, and what is different about it.
struct Variant {
    name: &'static str,
    preset: &'static str,
    settings: &'static [&'static str],
}

/// Besides the presets themselves: the other page sizes (A002), zones that no preset has, one Movable and one
/// that ends inside a block of the largest order, and memory that the command line takes out (A256, A257).
const VARIANTS: [Variant; 5] = [
    Variant { name: "default/8k", preset: "default", settings: &["page_shift=13"] },
    Variant { name: "default/16k", preset: "default", settings: &["page_shift=14"] },
    Variant { name: "default/64k", preset: "default", settings: &["page_shift=16"] },
    Variant {
        name: "default/zones",
        preset: "default",
        settings: &["node.0.movable=256M", "dma_limit=18M"],
    },
    Variant {
        name: "default/mem",
        preset: "default",
        settings: &["dma_limit=256M", "command_line=mem=1000M bigphysarea=2000"],
    },
];

fn variants() -> impl Iterator<Item = Variant> {
    let presets = Description::preset_names();
    presets.map(|name| Variant { name, preset: name, settings: &[] }).chain(VARIANTS)
}

impl Variant {
    fn describe(&self) -> Result<Description, Exit> {
        let failed = |error| Exit::Failed(format!("{}: {error}", self.name));
        let mut description = Description::preset(self.preset).map_err(failed)?;
        for setting in self.settings {
            description.set(setting).map_err(failed)?;
        }
        Ok(description)
    }
}

impl Args {
    fn wants<M: cases::Machine>(&self, case: &Case<M>) -> bool {
        let named = |text: &String| case.name.contains(text) || case.ids.contains(&text.as_str());
        self.case.as_ref().is_none_or(named)
    }
}

pub fn run(args: &Args) -> Result<(), Exit> {
    let wanted = |variant: &Variant| args.machine.as_ref().is_none_or(|name| name == variant.name);
    let chosen: Vec<_> = variants().filter(wanted).collect();
    if chosen.is_empty() {
        let names: Vec<_> = variants().map(|variant| variant.name).collect();
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
    let per_machine = cases::table::<Hosted<12>>().filter(|case| args.wants(case)).count();
    let mut tally = Tally {
        json: args.json.then(JsonRows::new),
        progress: Progress::default(),
        total: (per_machine * chosen.len()) as u64,
        passed: 0,
        failed: 0,
        skipped: 0,
    };
    for variant in &chosen {
        let description = variant.describe()?;
        match description.page_shift {
            12 => on::<12>(variant, &description, args, &mut tally)?,
            13 => on::<13>(variant, &description, args, &mut tally)?,
            14 => on::<14>(variant, &description, args, &mut tally)?,
            16 => on::<16>(variant, &description, args, &mut tally)?,
            other => return Err(Exit::Failed(format!("page_shift {other} is not built in"))),
        }
    }
    if tally.passed + tally.failed + tally.skipped == 0 {
        return Err(Exit::BadInput(no_case(args.case.as_deref().unwrap_or_default())));
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

/// Runs the cases on one machine, booting it anew for each.
fn on<const SHIFT: u32>(
    variant: &Variant,
    description: &Description,
    args: &Args,
    tally: &mut Tally,
) -> Result<(), Exit> {
    for case in cases::table::<Hosted<SHIFT>>() {
        if !args.wants(case) {
            continue;
        }
        tally.show();
        let (outcome, detail) = match (case.needs)(&machine::facts(variant.name, description)) {
            Err(needed) => ("skipped", format!("needs {needed}")),
            Ok(()) => match judge::<SHIFT>(variant, description, case) {
                Ok(()) => ("passed", String::new()),
                Err(reason) => ("failed", reason),
            },
        };
        tally.add(variant.name, case.name, case.ids, outcome, &detail)?;
    }
    Ok(())
}

fn judge<const SHIFT: u32>(
    variant: &Variant,
    description: &Description,
    case: &Case<Hosted<SHIFT>>,
) -> Result<(), String> {
    let hosted = Hosted::<SHIFT>::boot(variant.name, description)
        .map_err(|error| format!("the machine does not boot: {error}"))?;
    let run = AssertUnwindSafe(|| hosted.run(|| cases::run(case, &hosted)));
    match catch_unwind(run) {
        Ok(Outcome::Passed) => Ok(()),
        Ok(Outcome::Failed(failure)) => Err(failure.to_string()),
        Ok(Outcome::Skipped(needed)) => Err(format!("skipped although chosen: needs {needed}")),
        Err(payload) => {
            let message = payload.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| payload.downcast_ref::<&str>().copied());
            Err(format!("it panicked: {}", message.unwrap_or("without a message")))
        }
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

    fn add(
        &mut self,
        machine: &str,
        case: &str,
        ids: &[&str],
        outcome: &str,
        detail: &str,
    ) -> Result<(), Exit> {
        match outcome {
            "passed" => self.passed += 1,
            "failed" => self.failed += 1,
            _ => self.skipped += 1,
        }
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
