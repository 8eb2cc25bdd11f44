//! `kmem conformance`: the acceptance cases, on every machine that they say something about.

mod machine;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cases::{Case, Outcome};
use kmem_host::Description;
use machine::Hosted;
use serde_json::json;

use crate::exit::Exit;

/// Run the acceptance cases, each on a machine that has just booted
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  kmem conformance\n  kmem conformance --machine numa2\n  \
                        kmem conformance --machine default/64k --json\n\n\
                        A case that needs what a machine does not have is skipped there.")]
pub struct Args {
    /// One JSON object a line: machine, case, ids, outcome, detail
    #[arg(long)]
    json: bool,
    /// Only on this machine
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Only cases whose name holds this text, or that prove this statement
    #[arg(long, value_name = "TEXT|ID")]
    case: Option<String>,
}

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

pub fn run(args: &Args) -> Result<(), Exit> {
    let wanted = |variant: &Variant| args.machine.as_ref().is_none_or(|name| name == variant.name);
    let chosen: Vec<_> = variants().filter(wanted).collect();
    if chosen.is_empty() {
        let names: Vec<_> = variants().map(|variant| variant.name).collect();
        let name = args.machine.as_deref().unwrap_or_default();
        let line = format!("there is no machine '{name}': there are {}", names.join(", "));
        return Err(Exit::BadInput(line));
    }
    let mut tally = Tally { json: args.json, passed: 0, failed: 0, skipped: 0 };
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
        let wanted = |text: &String| case.name.contains(text) || case.ids.contains(&text.as_str());
        if !args.case.as_ref().is_none_or(wanted) {
            continue;
        }
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
    json: bool,
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
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
        if self.json {
            print(&json!({
                "machine": machine,
                "case": case,
                "ids": ids,
                "outcome": outcome,
                "detail": detail,
            }))
        } else if detail.is_empty() {
            print(&format_args!("{outcome:<8}{machine:<16}{case} ({})", ids.join(" ")))
        } else {
            print(&format_args!("{outcome:<8}{machine:<16}{case} ({}): {detail}", ids.join(" ")))
        }
    }

    fn finish(self) -> Result<(), Exit> {
        let Tally { json, passed, failed, skipped } = self;
        let line = format!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed > 0 {
            return Err(Exit::Failed(line));
        }
        if json { Ok(()) } else { print(&line) }
    }
}

fn print(line: &dyn std::fmt::Display) -> Result<(), Exit> {
    writeln!(std::io::stdout(), "{line}").map_err(Exit::not_printed)
}
