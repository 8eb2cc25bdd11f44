//! The acceptance cases: runs them on the hosted machines and on PCs, and reads one JSON object a line.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::evidence::{Evidence, Kind};
use crate::acceptance::Id;
use crate::pc::{self, Pc};
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

/// Runs the cases on the hosted machines and on the PCs.
pub fn run(ws: &Workspace) -> Result<Cases> {
    let hosted = run_hosted(ws)?;
    let mut all = hosted.0;
    let table: BTreeSet<String> = all.iter().map(|case| case.case.clone()).collect();
    let machines = pc::list::machines();
    let mut own: Option<BTreeSet<String>> = None;
    for machine in &machines {
        let cases = run_pc(ws, machine)?;
        let ran: BTreeSet<String> = cases.iter().map(|case| case.case.clone()).collect();
        if pc::list::runs_all(machine) {
            complete(&table, own.get_or_insert_with(|| &ran - &table), &ran)
                .with_context(|| machine.shown())?;
        } else if ran.is_empty() {
            bail!("{}: no case ran", machine.shown());
        }
        all.extend(cases);
    }
    collect(all.into_iter().map(Ok))
}

/// Fails unless a PC ran every case of the table, and those of its own that the first one ran.
fn complete(
    table: &BTreeSet<String>,
    own: &BTreeSet<String>,
    ran: &BTreeSet<String>,
) -> Result<()> {
    let wanted: BTreeSet<_> = table.union(own).collect();
    if let Some(missing) = wanted.iter().find(|name| !ran.contains(**name)) {
        bail!("it did not run the case {missing}");
    }
    if let Some(more) = ran.iter().find(|name| !wanted.contains(name)) {
        bail!("it ran the case {more}, which no other machine did");
    }
    if own.is_empty() {
        bail!("it has no case of its own");
    }
    Ok(())
}

/// Runs the cases of a PC, one boot for all of them.
fn run_pc(ws: &Workspace, machine: &Pc) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    let mut number = 0;
    let mut counted = None;
    let code = pc::run_lines(ws, machine, |line| {
        number += 1;
        // What the kernel says besides is for people.
        let Some(text) = line.starts_with('{').then_some(line) else {
            println!("{line}");
            counted = counted.or(count(line));
            return;
        };
        let case = parse(number, text).transpose();
        if let Some(Ok(case)) = &case {
            println!("{case}");
        }
        cases.extend(case);
    })?;
    let cases = cases.into_iter().collect::<Result<Vec<Case>>>();
    let cases = cases.with_context(|| format!("output of {}", machine.shown()))?;
    let failed = cases.iter().any(|case| case.outcome == Outcome::Failed);
    // One that ended before its last case shows it by its status, by what it did not run, or by this.
    if !failed && counted != Some(cases.len()) {
        bail!("{}: {} cases ran, and it counted {counted:?}", machine.shown(), cases.len());
    }
    if code != 0 && !failed {
        bail!("{} ended with status {code}", machine.shown());
    }
    Ok(cases)
}

/// How many cases a PC's last line says that there were: `3 passed, 0 failed, 2 skipped`.
fn count(line: &str) -> Option<usize> {
    let parts = line.split(", ").zip(["passed", "failed", "skipped"]);
    let numbers = parts.map(|(part, word)| part.strip_suffix(word)?.trim_end().parse().ok());
    let numbers: Vec<usize> = numbers.collect::<Option<_>>()?;
    (numbers.len() == 3).then(|| numbers.iter().sum())
}

/// Runs the cases and shows each as it ends, so that one that hangs is found by the one before it.
fn run_hosted(ws: &Workspace) -> Result<Cases> {
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
    // The command's array has an object a line; a PC writes the objects alone.
    let object = line.trim().trim_start_matches(['[', ',']).trim_end_matches(']');
    if object.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(object).map(Some).with_context(|| format!("line {number}"))
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

    /// The machines that the cases were run on, and not just one or another of them.
    pub fn machines(&self) -> BTreeSet<&str> {
        let all: BTreeSet<&str> = self.0.iter().map(|c| c.machine.as_str()).collect();
        let count = |machine: &str| self.0.iter().filter(|c| c.machine == machine).count();
        let most = all.iter().map(|machine| count(machine)).max().unwrap_or(0);
        all.into_iter().filter(|machine| count(machine) * 2 > most).collect()
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
        let one = r#"{"machine":"one","case":"zones_split","ids":[],"outcome":"passed"}"#;
        let more = all(&format!("{LINES}{one}\n")).unwrap();
        assert_eq!(more.machines(), ["lkd-i386", "tiny"].into(), "one ran a case only");
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

    /// The command's document, and what a PC writes.
    #[test]
    fn objects_are_read_a_line_each_with_an_array_around_them_or_without() {
        let array = format!("[\n{}\n]\n", LINES.trim().replace('\n', "\n,"));
        assert!(serde_json::from_str::<Vec<Case>>(&array).is_ok(), "{array}");
        let (array, lines) = (all(&array).unwrap(), all(LINES).unwrap());
        assert_eq!(array.0.len(), lines.0.len());
        assert_eq!(array.tally(), lines.tally());
        assert!(all("[]\n").is_err(), "no case ran");
    }

    #[test]
    fn a_count_is_read() {
        assert_eq!(count("3 passed, 0 failed, 2 skipped"), Some(5));
        assert_eq!(count("3 passed, 0 failed"), None);
        assert_eq!(count("  50003 NMIs, 44270 of masked code"), None);
    }

    #[test]
    fn what_ran_on_a_pc_is_compared_with_the_table() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (table, own) = (set(&["a", "b"]), set(&["own"]));
        assert!(complete(&table, &own, &set(&["own", "b", "a"])).is_ok());
        for wrong in [&["a", "own"][..], &["a", "b"], &["a", "b", "own", "more"], &[]] {
            assert!(complete(&table, &own, &set(wrong)).is_err(), "{wrong:?}");
        }
        assert!(complete(&table, &set(&[]), &table).is_err());
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
