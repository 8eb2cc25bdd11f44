//! The acceptance cases: runs them on the hosted machines and reads one JSON object a line.

use std::collections::BTreeSet;
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

pub fn run(ws: &Workspace) -> Result<Cases> {
    let mut command = ws.cargo(["run", "--quiet", "--release", "--package", "kmem-cli", "--"]);
    command.args(["conformance", "--json"]);
    let mut text = String::new();
    let succeeded = lines(&mut command, Read::Output, |line| {
        text.push_str(line);
        text.push('\n');
    })?;
    let cases = parse(&text).with_context(|| format!("output of {}", shown(&command)))?;
    // A failing case has already said so in its line, and is better told by its name.
    if !succeeded && cases.tally().failed == 0 {
        bail!("{} failed", shown(&command));
    }
    Ok(cases)
}

pub fn read(file: &Path) -> Result<Cases> {
    parse(&workspace::read(file)?).with_context(|| file.display().to_string())
}

fn parse(text: &str) -> Result<Cases> {
    let cases = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| serde_json::from_str(line).with_context(|| format!("line {}", at + 1)))
        .collect::<Result<Vec<Case>>>()?;
    if cases.is_empty() {
        bail!("no case ran");
    }
    Ok(Cases(cases))
}

impl Cases {
    pub fn names(&self) -> usize {
        self.0.iter().map(|c| &c.case).collect::<BTreeSet<_>>().len()
    }

    pub fn machines(&self) -> usize {
        self.0.iter().map(|c| &c.machine).collect::<BTreeSet<_>>().len()
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
        let cases = parse(LINES).unwrap();
        assert_eq!((cases.names(), cases.machines()), (2, 2));
        assert_eq!(cases.tally(), Tally { passed: 2, failed: 1 });
        let evidence = cases.evidence();
        assert_eq!(evidence.len(), 2);
        assert!(
            evidence
                .iter()
                .all(|e| { e.name == "zones_split" && e.machine.as_deref() == Some("lkd-i386") })
        );
        let failure = cases.all_passed().unwrap_err().to_string();
        assert_eq!(failure, "case wrong_order failed on tiny: found 1, asked 2");
    }

    #[test]
    fn nonsense_and_silence_are_errors() {
        assert!(parse("").is_err());
        assert!(parse("not json").is_err());
        let bad_id = LINES.replace("A062", "62");
        assert!(format!("{:#}", parse(&bad_id).unwrap_err()).starts_with("line 4: `62`"));
        assert!(parse(&LINES.replace("skipped", "perhaps")).is_err());
    }
}
