//! docs/conformance.toml: what answers a statement that no program can prove.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::acceptance::Id;

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// A file of the repository, perhaps with `#heading`, that says it and names the identifier.
    Place(String),
    /// One line.
    Reason(String),
}

pub type Answers = BTreeMap<Id, Answer>;

/// Reads tables such as `[A008]` with either `place = "docs/…"` or `reason = "…"`.
pub fn parse(text: &str) -> Result<Answers> {
    let tables: BTreeMap<String, Answer> = toml::from_str(text)?;
    let mut answers = Answers::new();
    for (id, answer) in tables {
        let id = Id::try_from(id).map_err(anyhow::Error::msg)?;
        let (Answer::Place(line) | Answer::Reason(line)) = &answer;
        if line.trim().is_empty() || line.contains('\n') {
            bail!("{id}: a place or reason is one line");
        }
        answers.insert(id, answer);
    }
    Ok(answers)
}

/// Checks that each place exists and names its statement. `read` gives a file's text.
pub fn check_places(answers: &Answers, read: impl Fn(&str) -> Result<String>) -> Result<()> {
    for (id, answer) in answers {
        if let Answer::Place(place) = answer {
            let file = file_of(place);
            let text = read(file).map_err(|error| error.context(format!("{id}")))?;
            if !Id::all_in(&text).any(|named| named == *id) {
                bail!("{id}: {file} does not name {id}");
            }
        }
    }
    Ok(())
}

fn file_of(place: &str) -> &str {
    place.split_once('#').map_or(place, |(file, _)| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_reasons_are_read() {
        let answers = parse("[A008]\nplace = 'docs/a.md#count'\n[A169]\nreason = 'old'\n").unwrap();
        let read: Vec<_> = answers.values().collect();
        assert_eq!(
            read,
            [&Answer::Place("docs/a.md#count".to_owned()), &Answer::Reason("old".to_owned())]
        );
    }

    #[test]
    fn mistakes_are_refused() {
        for wrong in [
            "[A8]\nplace = 'x'",
            "[A008]\n",
            "[A008]\nplace = 'x'\nreason = 'y'",
            "[A008]\nplaces = 'x'",
            "[A008]\nreason = ' '",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_place_must_exist_and_name_the_statement() {
        let answers = parse("[A008]\nplace = 'docs/a.md#count'").unwrap();
        let check = |text: Option<&str>| {
            check_places(&answers, |file| {
                assert_eq!(file, "docs/a.md");
                text.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("no such file"))
            })
        };
        assert!(check(Some("Read it through `page_count` (A008).")).is_ok());
        assert_eq!(
            check(Some("A009")).unwrap_err().to_string(),
            "A008: docs/a.md does not name A008"
        );
        assert_eq!(format!("{:#}", check(None).unwrap_err()), "A008: no such file");
    }
}
