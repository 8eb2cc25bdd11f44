//! `cargo xtask test`: all that CI checks, step by step, up to the first failure.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::suites::{self, Ran};
use crate::ui::{self, Steps};
use crate::workspace::{ALL_FEATURES, Workspace, run as run_command};
use crate::{conformance, footprint, freestanding, layers, pc, setup};

/// The steps that mean something alone: conformance is about the tests that ran before it.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Step {
    Rustfmt,
    Clippy,
    Documentation,
    Layers,
    Tests,
    Freestanding,
    Pc,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Step::Rustfmt => "rustfmt",
            Step::Clippy => "clippy",
            Step::Documentation => "documentation",
            Step::Layers => "layers",
            Step::Tests => "tests",
            Step::Freestanding => "freestanding",
            Step::Pc => "pc",
        }
    }
}

/// Runs the steps and ends standard output with `N passed, N failed`, over every test that ran
/// and every conformance case. A step that fails without a failed test counts as one failure.
pub fn run(ws: &Workspace, only: Option<Step>) -> ExitCode {
    let mut ran = Ran::default();
    let result = steps(ws, only.map(Step::name), &mut ran);
    let mut tally = ran.tally;
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tally.failed = tally.failed.max(1);
            ui::report(&error)
        }
    };
    println!("{tally}");
    code
}

fn steps(ws: &Workspace, only: Option<&str>, ran: &mut Ran) -> Result<()> {
    let mut steps = Steps::new(9, only);
    steps.step("set-up", "programs that the build and the tests need", || setup::check(ws))?;
    steps.step("rustfmt", "every source file is formatted", || {
        run_command(&mut ws.cargo(["fmt", "--all", "--", "--check"]))?;
        run_command(&mut pc::cargo(ws, &["fmt", "--all", "--", "--check"]))
    })?;
    steps.step("clippy", "no warning in any target", || {
        run_command(&mut ws.cargo(clippy(&["--workspace"])))?;
        run_command(&mut ws.cargo(clippy(&["--package", "kmem", "--features", ALL_FEATURES])))?;
        let kernel =
            ["clippy", "--quiet", "--release", "--bins", "--examples", "--", "-D", "warnings"];
        run_command(&mut pc::cargo(ws, &kernel))
    })?;
    steps.step("documentation", "no warning and no dead link in any page", || {
        run_command(&mut documentation(ws, &["--workspace"]))?;
        run_command(&mut documentation(ws, &["--package", "kmem", "--features", ALL_FEATURES]))?;
        let kernel = ["doc", "--quiet", "--no-deps", "--document-private-items"];
        run_command(pc::cargo(ws, &kernel).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    steps.step("layers", "no import runs against the order", || {
        layers::check(ws).map(|summary| ui::note(&summary))
    })?;
    steps.step("tests", "unit tests, integration tests, doctests, model checks", || {
        suites::run_all(ws, ran)
    })?;
    steps.step("freestanding", "kmem needs neither std nor alloc", || freestanding::check(ws))?;
    steps.step(
        "pc",
        "a PC at work, its ways to end, the kernel of fifty lines, docs/footprint.md",
        || {
            let shown = pc::shown::check(ws)?;
            let failed = shown.failed;
            ran.tally.add(shown);
            if failed > 0 {
                bail!("{failed} of what is shown on a PC failed");
            }
            footprint::check(ws).map(|summary| ui::note(&summary))
        },
    )?;
    steps.step("conformance", "the cases, and docs/conformance.md", || {
        let cases = conformance::run_cases(ws, None)?;
        ran.tally.add(cases.tally());
        conformance::check(ws, &cases, ran).map(|summary| ui::note(&summary))
    })
}

fn documentation(ws: &Workspace, packages: &[&str]) -> Command {
    let mut doc = ws.cargo([&["doc", "--quiet", "--no-deps"], packages].concat());
    doc.env("RUSTDOCFLAGS", "-D warnings");
    doc
}

fn clippy<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    [&["clippy", "--quiet", "--all-targets"], packages, &["--", "-D", "warnings"]].concat()
}
