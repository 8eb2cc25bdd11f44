//! The acceptance cases on hosted machines.
//!
//! A crate of its own, since it takes long to build: every case is there for every page size. Who runs the
//! cases chooses a [`Variant`] of a machine, and is told of each case what came of it.
//!
//! ```
//! let tiny = kmem_cases::variants().find(|variant| variant.name() == "tiny").unwrap();
//! let mut held = 0;
//! tiny.run(Some("A062"), |judged| {
//!     assert_ne!(judged.outcome, kmem_cases::Outcome::Failed, "{}: {}", judged.case, judged.detail);
//!     held += 1;
//!     true
//! })?;
//! assert!(held > 0);
//! # Ok::<(), kmem_host::HostError>(())
//! ```

mod machine;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cases::Case;
use kmem_host::{Description, HostError};
use machine::Hosted;

/// A machine that cases are run on: a preset, and what is different about it.
pub struct Variant {
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

/// All machines that there are cases for.
pub fn variants() -> impl Iterator<Item = Variant> {
    let presets = Description::preset_names();
    presets.map(|name| Variant { name, preset: name, settings: &[] }).chain(VARIANTS)
}

fn is_wanted<const SHIFT: u32>(case: &Case<Hosted<SHIFT>>, only: Option<&str>) -> bool {
    only.is_none_or(|text| case.name.contains(text) || case.ids.contains(&text))
}

/// How many cases [`Variant::run`] tells of: as many on each machine.
pub fn count(only: Option<&str>) -> u64 {
    cases::table::<Hosted<12>>().filter(|case| is_wanted(case, only)).count() as u64
}

/// What came of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It held.
    Passed,
    /// It did not.
    Failed,
    /// The machine does not have what it needs.
    Skipped,
}

/// A case on a machine, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What the case is called.
    pub case: &'static str,
    /// The statements that it proves.
    pub ids: &'static [&'static str],
    /// What came of it.
    pub outcome: Outcome,
    /// What did not hold, or what the machine lacks; empty where it passed.
    pub detail: String,
}

impl Variant {
    /// What it is called: the preset, and after a `/` what is different.
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn describe(&self) -> Result<Description, HostError> {
        let mut description = Description::preset(self.preset)?;
        for setting in self.settings {
            description.set(setting)?;
        }
        Ok(description)
    }

    /// Runs the cases whose name holds a text, or that prove the statement of this name; all where none is
    /// given. Each has a machine that has just booted, and `tell` is told of each when it has run; it answers
    /// whether the next one is to run.
    ///
    /// # Errors
    ///
    /// The machine makes no sense; none of those that there are does.
    pub fn run(
        &self,
        only: Option<&str>,
        tell: impl FnMut(Judged) -> bool,
    ) -> Result<(), HostError> {
        let description = self.describe()?;
        match description.page_shift {
            12 => self.run_on::<12>(&description, only, tell),
            13 => self.run_on::<13>(&description, only, tell),
            14 => self.run_on::<14>(&description, only, tell),
            16 => self.run_on::<16>(&description, only, tell),
            described => return Err(HostError::PageShift { described, built: 12 }),
        }
        Ok(())
    }

    fn run_on<const SHIFT: u32>(
        &self,
        description: &Description,
        only: Option<&str>,
        mut tell: impl FnMut(Judged) -> bool,
    ) {
        for case in cases::table::<Hosted<SHIFT>>().filter(|case| is_wanted(case, only)) {
            let (outcome, detail) = match (case.needs)(&machine::facts(self.name, description)) {
                Err(needed) => (Outcome::Skipped, format!("needs {needed}")),
                Ok(()) => match self.judge(description, case) {
                    Ok(()) => (Outcome::Passed, String::new()),
                    Err(reason) => (Outcome::Failed, reason),
                },
            };
            if !tell(Judged { case: case.name, ids: case.ids, outcome, detail }) {
                return;
            }
        }
    }

    fn judge<const SHIFT: u32>(
        &self,
        description: &Description,
        case: &Case<Hosted<SHIFT>>,
    ) -> Result<(), String> {
        let hosted = Hosted::<SHIFT>::boot(self.name, description)
            .map_err(|error| format!("the machine does not boot: {error}"))?;
        let run = AssertUnwindSafe(|| hosted.run(|| cases::run(case, &hosted)));
        match catch_unwind(run) {
            Ok(cases::Outcome::Passed) => Ok(()),
            Ok(cases::Outcome::Failed(failure)) => Err(failure.to_string()),
            Ok(cases::Outcome::Skipped(needed)) => {
                Err(format!("skipped although chosen: needs {needed}"))
            }
            Err(payload) => {
                let message = payload.downcast_ref::<String>().map(String::as_str);
                let message = message.or_else(|| payload.downcast_ref::<&str>().copied());
                Err(format!("it panicked: {}", message.unwrap_or("without a message")))
            }
        }
    }
}
