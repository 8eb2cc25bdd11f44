//! The acceptance cases: runs them on the hosted machines and reads one JSON object a line.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::evidence::{Evidence, Kind};
use crate::acceptance::Id;
use crate::suites::Tally;
use crate::workspace::{self, Read, Workspace, lines, shown};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Passed,
    Failed,
    /// The machine has not what the case is about, such as high memory.
    Skipped,
}

/// One case on one machine.
#[derive(Debug, Deserialize)]
struct Case {
    machine: String,
    case: String,
    ids: Vec<Id>,
    outcome: Outcome,
    #[serde(default)]
    detail: String,
}

/// What every case said on every machine.
#[derive(Debug)]
pub struct Cases(Vec<Case>);

/// Runs the cases and shows each as it ends, so that one that hangs is found by the one before it.
pub fn run(ws: &Workspace) -> Result<Cases> {
    let mut command = ws.cargo(["run", "--quiet", "--release", "--package", "kmem-cli", "--"]);
    command.args(["conformance", "--json"]);
    let mut cases = Vec::new();
    let mut number = 0;
    let succeeded = lines(&mut command, Read::Output, |line| {
        number += 1;
        let case = parse(number, line).transpose();
        if let Some(Ok(case)) = &case {
            println!("{case}");
        }
        cases.extend(case);
    })?;
    let cases = collect(cases).with_context(|| format!("output of {}", shown(&command)))?;
    // A failing case has already said so in its line, and is better told by its name.
    if !succeeded && cases.tally().failed == 0 {
        bail!("{} failed", shown(&command));
    }
    Ok(cases)
}

pub fn read(file: &Path) -> Result<Cases> {
    all(&workspace::read(file)?).with_context(|| file.display().to_string())
}

fn all(text: &str) -> Result<Cases> {
    collect((1..).zip(text.lines()).filter_map(|(number, line)| parse(number, line).transpose()))
}

fn parse(number: usize, line: &str) -> Result<Option<Case>> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    serde_json::from_str(line).map(Some).with_context(|| format!("line {number}"))
}

fn collect(cases: impl IntoIterator<Item = Result<Case>>) -> Result<Cases> {
    let cases = cases.into_iter().collect::<Result<Vec<Case>>>()?;
    if cases.is_empty() {
        bail!("no case ran");
    }
    Ok(Cases(cases))
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        };
        write!(f, "case {} on {} ... {verdict}", self.case, self.machine)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ", {}", self.detail) }
    }
}

impl Cases {
    pub fn names(&self) -> usize {
        self.0.iter().map(|c| &c.case).collect::<BTreeSet<_>>().len()
    }

    /// All machines of the run.
    pub fn machines(&self) -> BTreeSet<&str> {
        self.0.iter().map(|c| c.machine.as_str()).collect()
    }

    /// Counts what really ran: a skipped case is neither.
    pub fn tally(&self) -> Tally {
        let count = |outcome| self.0.iter().filter(|c| c.outcome == outcome).count();
        Tally { passed: count(Outcome::Passed), failed: count(Outcome::Failed) }
    }

    pub fn all_passed(&self) -> Result<()> {
        let failed: Vec<String> = self
            .0
            .iter()
            .filter(|c| c.outcome == Outcome::Failed)
            .map(|c| format!("case {} failed on {}: {}", c.case, c.machine, c.detail))
            .collect();
        if !failed.is_empty() {
            bail!("{}", failed.join("\n  "));
        }
        Ok(())
    }

    /// What passed. A case that failed on one machine proves nothing by passing on another.
    pub fn evidence(&self) -> Vec<Evidence> {
        let failed: BTreeSet<&str> = self
            .0
            .iter()
            .filter(|c| c.outcome == Outcome::Failed)
            .map(|c| c.case.as_str())
            .collect();
        self.0
            .iter()
            .filter(|c| c.outcome == Outcome::Passed && !failed.contains(c.case.as_str()))
            .flat_map(|c| {
                c.ids.iter().map(|&id| Evidence {
                    id,
                    kind: Kind::Case,
                    name: c.case.clone(),
                    machine: Some(c.machine.clone()),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = r#"
{"machine":"tiny","case":"zones_split","ids":["A020","A034"],"outcome":"skipped","detail":"64 MiB"}
{"machine":"lkd-i386","case":"zones_split","ids":["A020","A034"],"outcome":"passed","detail":""}
{"machine":"tiny","case":"wrong_order","ids":["A062"],"outcome":"failed","detail":"found 1, asked 2"}
{"machine":"lkd-i386","case":"wrong_order","ids":["A062"],"outcome":"passed","detail":""}
"#;

    #[test]
    fn only_cases_that_passed_everywhere_they_ran_are_evidence() {
        let cases = all(LINES).unwrap();
        assert_eq!(cases.names(), 2);
        assert_eq!(cases.machines(), ["lkd-i386", "tiny"].into());
        assert_eq!(cases.tally(), Tally { passed: 2, failed: 1 });
        let evidence = cases.evidence();
        assert_eq!(evidence.len(), 2);
        assert!(
            evidence
                .iter()
                .all(|e| { e.name == "zones_split" && e.machine.as_deref() == Some("lkd-i386") })
        );
        assert_eq!(cases.0[0].to_string(), "case zones_split on tiny ... skipped, 64 MiB");
        let failure = cases.all_passed().unwrap_err().to_string();
        assert_eq!(failure, "case wrong_order failed on tiny: found 1, asked 2");
    }

    #[test]
    fn nonsense_and_silence_are_errors() {
        assert!(all("").is_err());
        assert!(all("not json").is_err());
        let bad_id = LINES.replace("A062", "62");
        assert!(format!("{:#}", all(&bad_id).unwrap_err()).starts_with("line 4: `62`"));
        assert!(all(&LINES.replace("skipped", "perhaps")).is_err());
    }
}
