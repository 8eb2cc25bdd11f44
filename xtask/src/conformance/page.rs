//! The page itself: a table a group, every statement, and a last line that counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Result, bail};

use super::answers::{Answer, Answers};
use super::evidence::{self, Proofs};
use crate::acceptance::{Group, Id, Kind, shortened};

const INTRODUCTION: &str = "\
# Conformance

Written by `cargo xtask conformance` from the cases and tests that passed when it ran, never by hand.
The statements are those of [acceptance.md](acceptance.md), shortened; the kinds are explained there.

- **case** NAME (MACHINES): an acceptance case, and the machines on which it passed. Hosted ones run inside a
  Linux process: presets, which `cargo run --release -- machines` explains; default/SIZE is one with pages of
  another size, default/zones one with odd zones. PCs boot in QEMU: pc/CPUS-NODES-MEMORY, where memory lies
  on both sides of 16 MiB (low); below 16 MiB and from 4 GiB on (apart); on both sides of 16 MiB and of 4 GiB
  (high); or the same with more than 4 GiB, as PCs have it (large). With hole a piece of RAM is left out. One
  more, pc/4-2-low-ticks, runs a single case, in which the timers send millions of interrupts;
- **test** NAME: a test that needs a host or looks inside;
- a link: the place in the documentation that says it;
- **open**: nothing shows it yet. A behaviour (B) is closed by a case or a test and by nothing else.
";

/// Characters of a statement that are shown.
const SHOWN: usize = 100;

/// The page; `machines` are those that all cases were run on.
pub fn render(
    groups: &[Group],
    proofs: &BTreeMap<Id, Proofs>,
    machines: &BTreeSet<&str>,
    answers: &Answers,
) -> Result<String> {
    refuse_unknown(groups, proofs.keys().chain(answers.keys()))?;
    let mut page = INTRODUCTION.to_owned();
    for (family, members) in families(machines) {
        let _ = write!(page, "\nAll {family}: {}.\n", listed(&members));
    }
    let (mut behaviours, mut others) = (Count::default(), Count::default());
    for group in groups {
        let _ = write!(
            page,
            "\n## {}\n\n| | kind | statement | shown by |\n| --- | --- | --- | --- |\n",
            group.title
        );
        for statement in &group.statements {
            let proofs = proofs.get(&statement.id);
            let cell = Cell::of(statement.kind, proofs, machines, answers.get(&statement.id));
            let behaviour = statement.kind == Kind::Behaviour;
            let count = if behaviour { &mut behaviours } else { &mut others };
            count.rows += 1;
            count.open += usize::from(cell.open);
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} |",
                statement.id,
                statement.kind.letter(),
                shortened(&statement.text, SHOWN),
                cell.text
            );
        }
    }
    let _ = write!(
        page,
        "\nopen rows of other kinds: {} of {}\n\nopen B rows: {} of {}\n",
        others.open, others.rows, behaviours.open, behaviours.rows
    );
    Ok(page)
}

#[derive(Default)]
struct Count {
    rows: usize,
    open: usize,
}

/// The last column of a row.
struct Cell {
    text: String,
    open: bool,
}

impl Cell {
    fn of(
        kind: Kind,
        proofs: Option<&Proofs>,
        machines: &BTreeSet<&str>,
        answer: Option<&Answer>,
    ) -> Self {
        let proofs = proofs.into_iter().flatten();
        let mut parts: Vec<String> = proofs.map(|shown| proof(shown, machines)).collect();
        // A reason or a page can explain a behaviour, but cannot show that it is there.
        let open = parts.is_empty() && (kind == Kind::Behaviour || answer.is_none());
        parts.extend(answer.map(answered));
        let text = match (open, parts.join("<br>")) {
            (false, text) => text,
            (true, text) if text.is_empty() => "**open**".to_owned(),
            (true, text) => format!("**open**: {text}"),
        };
        Self { text, open }
    }
}

fn proof(
    ((kind, name), on): (&(evidence::Kind, String), &BTreeSet<String>),
    machines: &BTreeSet<&str>,
) -> String {
    let kind = match kind {
        evidence::Kind::Case => "case",
        evidence::Kind::Test => "test",
    };
    let name = name.replace('|', "\\|");
    if on.is_empty() {
        return format!("{kind} `{name}`");
    }
    let on: BTreeSet<&str> = on.iter().map(String::as_str).collect();
    let mut place = if on.is_superset(machines) {
        vec!["all machines".to_owned()]
    } else {
        places(&on, machines)
    };
    // Machines that ran some cases only.
    place.extend(on.difference(machines).map(|name| (*name).to_owned()));
    format!("{kind} `{name}` ({})", place.join("; "))
}

/// The machines of a family that something is shown on, for each family with one.
fn places(on: &BTreeSet<&str>, machines: &BTreeSet<&str>) -> Vec<String> {
    let mut places = Vec::new();
    for (family, members) in families(machines) {
        let here: BTreeSet<&str> = members.intersection(on).copied().collect();
        let others: BTreeSet<&str> = members.difference(on).copied().collect();
        // Whichever is the shorter list.
        places.extend(match (here.len(), others.len()) {
            (0, _) => None,
            (_, 0) => Some(format!("all {family}")),
            (count, left) if left < count => Some(format!("all {family} but {}", listed(&others))),
            _ => Some(listed(&here)),
        });
    }
    places
}

/// The kinds of machine there are, and which of these are of each.
fn families<'m>(machines: &BTreeSet<&'m str>) -> Vec<(&'static str, BTreeSet<&'m str>)> {
    let (pcs, hosted): (BTreeSet<&str>, BTreeSet<&str>) =
        machines.iter().partition(|name| name.starts_with("pc/"));
    let families = [("hosted machines", hosted), ("PCs", pcs)];
    families.into_iter().filter(|(_, members)| !members.is_empty()).collect()
}

fn listed(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}

fn answered(answer: &Answer) -> String {
    match answer {
        // The page lies in docs/ too.
        Answer::Place(place) => match place.strip_prefix("docs/") {
            Some(beside) => format!("[{place}]({beside})"),
            None => format!("[{place}](../{place})"),
        },
        Answer::Reason(reason) => reason.replace('|', "\\|"),
    }
}

fn refuse_unknown<'i>(groups: &[Group], ids: impl Iterator<Item = &'i Id>) -> Result<()> {
    let known: BTreeSet<Id> = groups.iter().flat_map(|g| &g.statements).map(|s| s.id).collect();
    let unknown: BTreeSet<String> =
        ids.filter(|id| !known.contains(id)).map(Id::to_string).collect();
    if !unknown.is_empty() {
        let unknown: Vec<String> = unknown.into_iter().collect();
        bail!("no such statement in the acceptance list: {}", unknown.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::answers::parse as answers;
    use super::super::evidence::{Evidence, by_statement};
    use super::*;
    use crate::acceptance::parse as statements;

    const LIST: &str = "\
## G1 Pages
- **A001** B [LV] A frame. Check: it
- **A002** B [LV] Sizes.
- **A003** D [LV] Guidance.
## G2 Zones
- **A004** H [LV] Old.
- **A005** B [LV] WAIT|IO.
";

    fn evidence(id: &str, kind: evidence::Kind, name: &str, machine: Option<&str>) -> Evidence {
        let id = Id::all_in(id).next().unwrap();
        Evidence { id, kind, name: name.to_owned(), machine: machine.map(str::to_owned) }
    }

    #[test]
    fn every_statement_has_a_row_and_open_ones_are_counted() {
        let proofs = by_statement([
            evidence("A001", evidence::Kind::Case, "frames", Some("tiny")),
            evidence("A001", evidence::Kind::Test, "kmem::frames", None),
        ]);
        let answers = answers("[A003]\nplace = 'docs/a.md'\n[A005]\nreason = 'later'").unwrap();
        let machines = ["tiny", "default"].into();
        let page = render(&statements(LIST).unwrap(), &proofs, &machines, &answers).unwrap();
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| A")).collect();
        assert_eq!(
            rows,
            [
                "| A001 | B | A frame. | case `frames` (tiny)<br>test `kmem::frames` |",
                "| A002 | B | Sizes. | **open** |",
                "| A003 | D | Guidance. | [docs/a.md](a.md) |",
                "| A004 | H | Old. | **open** |",
                "| A005 | B | WAIT\\|IO. | **open**: later |",
            ]
        );
        assert!(page.contains("\nAll hosted machines: default, tiny.\n"));
        assert!(page.contains("\nopen rows of other kinds: 1 of 2\n"));
        assert!(page.ends_with("\nopen B rows: 2 of 3\n"));
    }

    #[test]
    fn the_shorter_list_of_machines_is_shown() {
        let machines = ["a", "b", "c", "d", "pc/x", "pc/y", "pc/z"].into();
        for (on, shown) in [
            (&["a", "b", "c", "d", "pc/x", "pc/y", "pc/z"][..], "all machines"),
            (&["a", "b", "c", "d"], "all hosted machines"),
            (&["a", "c", "d", "pc/x", "pc/z"], "all hosted machines but b; all PCs but pc/y"),
            (&["a", "d", "pc/x", "pc/y", "pc/z"], "a, d; all PCs"),
            (&["b", "pc/y"], "b; pc/y"),
            (&["pc/y"], "pc/y"),
            (&["a", "b", "c", "d", "pc/x", "pc/y", "pc/z", "pc/one"], "all machines; pc/one"),
            (&["pc/x", "pc/y", "pc/z", "pc/one"], "all PCs; pc/one"),
        ] {
            let case = (evidence::Kind::Case, "x".to_owned());
            let on = on.iter().map(|machine| (*machine).to_owned()).collect();
            assert_eq!(proof((&case, &on), &machines), format!("case `x` ({shown})"));
        }
    }

    #[test]
    fn evidence_for_an_unknown_statement_is_refused() {
        let proofs = by_statement([evidence("A006", evidence::Kind::Case, "x", None)]);
        let error = render(&statements(LIST).unwrap(), &proofs, &BTreeSet::new(), &Answers::new());
        let error = error.unwrap_err();
        assert_eq!(error.to_string(), "no such statement in the acceptance list: A006");
    }
}
