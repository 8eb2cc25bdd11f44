//! What people see: progress and errors on standard error, coloured only on a terminal.

use std::process::ExitCode;
use std::time::Instant;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};

const NAME: Style = AnsiColor::Cyan.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// A mistake of the caller or of the set-up, as against a check that failed: exit status 2.
#[derive(Debug)]
pub struct BadInput(pub String);

impl std::fmt::Display for BadInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadInput {}

/// Says what failed, in one line where its causes have one each, and gives the exit status.
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("{BAD}error{BAD:#}: {error:#}");
    ExitCode::from(if error.is::<BadInput>() { 2 } else { 1 })
}

/// One line that is no result but helps to follow.
pub fn note(text: &str) {
    eprintln!("      {text}");
}

/// Numbers, names and times the steps of a long run.
pub struct Steps<'o> {
    total: usize,
    done: usize,
    only: Option<&'o str>,
}

impl<'o> Steps<'o> {
    /// So many steps, of which only the one with a name is run where one is given.
    pub const fn new(total: usize, only: Option<&'o str>) -> Self {
        Self { total, done: 0, only }
    }

    /// Names the step, runs it, and says how long it took. An error carries the step's name.
    pub fn step(
        &mut self,
        name: &str,
        what: &str,
        body: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.done += 1;
        if self.only.is_some_and(|only| only != name) {
            return Ok(());
        }
        let (number, total) = (self.done, self.total);
        eprintln!("{NAME}[{number}/{total}] {name}{NAME:#}: {what}");
        let begun = Instant::now();
        let result = body();
        let seconds = begun.elapsed().as_secs_f64();
        let (style, verdict) = if result.is_ok() { (GOOD, "ok") } else { (BAD, "failed") };
        eprintln!("      {style}{verdict}{style:#} {name}, {seconds:.1} s");
        result.with_context(|| format!("step {number}/{total}, {name}"))
    }
}
