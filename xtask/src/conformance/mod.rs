//! `cargo xtask conformance`: what the project does of docs/acceptance.md, and how one knows.
//!
//! The page is made from the cases and tests that passed in this very run, and from
//! docs/conformance.toml for the statements that no program can prove.

mod answers;
mod cases;
mod evidence;
mod page;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::acceptance::{self, Group};
use crate::suites::{self, Ran};
use crate::ui;
use crate::workspace::Workspace;

pub use cases::Cases;

const STATEMENTS: &str = "docs/acceptance.md";
const ANSWERS: &str = "docs/conformance.toml";
const PAGE: &str = "docs/conformance.md";

/// Runs all tests and cases, then writes the page, or compares it where `only_check`.
pub fn run(ws: &Workspace, only_check: bool, cases_from: Option<&Path>) -> Result<()> {
    let mut ran = Ran::default();
    suites::run_all(ws, &mut ran)?;
    let cases = run_cases(ws, cases_from)?;
    let summary = if only_check { check(ws, &cases, &ran)? } else { write(ws, &cases, &ran)? };
    println!("{summary}");
    Ok(())
}

/// Runs the acceptance cases, or reads their lines from a file.
pub fn run_cases(ws: &Workspace, from: Option<&Path>) -> Result<Cases> {
    let cases = match from {
        Some(file) => cases::read(file)?,
        None => cases::run(ws)?,
    };
    ui::note(&format!("{} cases on {} machines", cases.names(), cases.machines().len()));
    Ok(cases)
}

/// Fails where a case failed or the committed page is not what was found. Returns the last line.
pub fn check(ws: &Workspace, cases: &Cases, ran: &Ran) -> Result<String> {
    let page = found(ws, cases, ran)?;
    cases.all_passed()?;
    let committed = ws.read(PAGE).context("run `cargo xtask conformance` and commit the page")?;
    if let Some((line, was, is)) = difference(&committed, &page) {
        bail!(
            "{PAGE}:{line} is not what was found: run `cargo xtask conformance` and commit it\n  \
             committed: {was}\n  found:     {is}"
        );
    }
    Ok(last_line(&page))
}

fn write(ws: &Workspace, cases: &Cases, ran: &Ran) -> Result<String> {
    let page = found(ws, cases, ran)?;
    std::fs::write(ws.root.join(PAGE), &page).with_context(|| format!("cannot write {PAGE}"))?;
    ui::note(&format!("wrote {PAGE}"));
    cases.all_passed()?;
    Ok(last_line(&page))
}

fn found(ws: &Workspace, cases: &Cases, ran: &Ran) -> Result<String> {
    let groups: Vec<Group> = acceptance::parse(&ws.read(STATEMENTS)?)?;
    let answers = answers::parse(&ws.read(ANSWERS)?).with_context(|| ANSWERS.to_owned())?;
    answers::check_places(&answers, |path| ws.read(path)).with_context(|| ANSWERS.to_owned())?;
    let mut evidence = cases.evidence();
    evidence.extend(evidence::of_tests(ran)?);
    page::render(&groups, &evidence::by_statement(evidence), &cases.machines(), &answers)
}

/// The first line in which two texts differ: its number and both lines.
fn difference<'t>(was: &'t str, is: &'t str) -> Option<(usize, &'t str, &'t str)> {
    let (mut was, mut is) = (was.lines(), is.lines());
    for number in 1.. {
        match (was.next(), is.next()) {
            (None, None) => break,
            (left, right) if left == right => {}
            (left, right) => {
                return Some((number, left.unwrap_or("(end)"), right.unwrap_or("(end)")));
            }
        }
    }
    None
}

fn last_line(page: &str) -> String {
    page.lines().last().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn the_first_difference_is_found() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(difference("a\nb\n", "a\nc\n"), Some((2, "b", "c")));
        assert_eq!(difference("a\n", "a\nb\n"), Some((2, "(end)", "b")));
        assert_eq!(difference("a\nb\n", ""), Some((1, "a", "(end)")));
    }
}
