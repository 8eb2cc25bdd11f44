//! What shows that a statement holds: an acceptance case or a test that passed in this run.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Result;

use crate::acceptance::Id;
use crate::suites::{Ran, Root, identified_tests};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Case,
    Test,
}

/// That `name` passed and proves `id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub id: Id,
    pub kind: Kind,
    pub name: String,
    /// Where a case ran. A test makes its own machine, or needs none.
    pub machine: Option<String>,
}

/// All evidence for one statement: what passed, and on which machines.
pub type Proofs = BTreeMap<(Kind, String), BTreeSet<String>>;

/// Merges the sources: one entry a case or test, however often it ran.
pub fn by_statement(evidence: impl IntoIterator<Item = Evidence>) -> BTreeMap<Id, Proofs> {
    let mut proofs: BTreeMap<Id, Proofs> = BTreeMap::new();
    for Evidence { id, kind, name, machine } in evidence {
        proofs.entry(id).or_default().entry((kind, name)).or_default().extend(machine);
    }
    proofs
}

/// The tests that passed and carry identifiers in the comment above them.
pub fn of_tests(ran: &Ran) -> Result<Vec<Evidence>> {
    let mut sources: HashMap<&Root, HashMap<String, Vec<Id>>> = HashMap::new();
    for (root, _) in &ran.passed {
        if !sources.contains_key(root) {
            sources.insert(root, identified_tests(&root.file)?);
        }
    }
    let carried = ran.passed.iter().flat_map(|(root, test)| {
        let ids = sources[root].get(test).map_or(&[][..], Vec::as_slice);
        ids.iter().map(move |&id| Evidence {
            id,
            kind: Kind::Test,
            name: format!("{}::{test}", root.target),
            machine: None,
        })
    });
    Ok(carried.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Id {
        Id::all_in(text).next().unwrap()
    }

    fn case(ids: &str, name: &str, machine: &str) -> Evidence {
        let machine = Some(machine.to_owned());
        Evidence { id: id(ids), kind: Kind::Case, name: name.to_owned(), machine }
    }

    #[test]
    fn machines_and_repeated_runs_merge_into_one_proof() {
        let test = Evidence {
            id: id("A062"),
            kind: Kind::Test,
            name: "kmem::frees".to_owned(),
            machine: None,
        };
        let proofs = by_statement([
            test.clone(),
            case("A062", "wrong_order", "tiny"),
            case("A062", "wrong_order", "numa2"),
            case("A063", "foreign", "tiny"),
            case("A062", "wrong_order", "tiny"),
            test,
        ]);
        assert_eq!(proofs.len(), 2);
        let wrong_order = &proofs[&id("A062")];
        assert_eq!(wrong_order.len(), 2);
        let machines: Vec<&String> =
            wrong_order[&(Kind::Case, "wrong_order".to_owned())].iter().collect();
        assert_eq!(machines, ["numa2", "tiny"]);
        assert!(wrong_order[&(Kind::Test, "kmem::frees".to_owned())].is_empty());
    }

    #[test]
    fn a_test_is_evidence_only_where_it_passed() {
        let file = std::env::temp_dir().join(format!("xtask-evidence-{}.rs", std::process::id()));
        std::fs::write(
            &file,
            "/// A001\n#[test] fn ran() {}\n/// A002\n#[test] fn did_not() {}\n#[test] fn bare() {}",
        )
        .unwrap();
        let root = Root { file: file.clone(), target: "kmem".to_owned() };
        let ran = Ran {
            passed: vec![(root.clone(), "ran".to_owned()), (root, "bare".to_owned())],
            ..Ran::default()
        };
        let evidence = of_tests(&ran).unwrap();
        std::fs::remove_file(file).unwrap();
        assert_eq!(evidence.len(), 1);
        assert_eq!((evidence[0].id, evidence[0].name.as_str()), (id("A001"), "kmem::ran"));
    }
}
