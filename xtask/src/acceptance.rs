//! docs/acceptance.md: the statements that the project answers to.

use std::fmt;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The number of a statement: `A062`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Id(u16);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "A{:03}", self.0)
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is not an identifier such as A062"))
    }
}

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('A')?;
        let well_formed = digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit());
        well_formed.then(|| digits.parse().ok().map(Self))?
    }

    /// Every identifier that stands as a word of its own in `text`, in order.
    pub fn all_in(text: &str) -> impl Iterator<Item = Self> {
        text.split(|c: char| c != '_' && !c.is_alphanumeric()).filter_map(Self::parse)
    }
}

/// What a statement needs in the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Behaviour,
    Figure,
    CInterface,
    Documentation,
    History,
}

impl Kind {
    fn parse(letter: &str) -> Option<Self> {
        Some(match letter {
            "B" => Self::Behaviour,
            "M" => Self::Figure,
            "C" => Self::CInterface,
            "D" => Self::Documentation,
            "H" => Self::History,
            _ => return None,
        })
    }

    pub const fn letter(self) -> char {
        match self {
            Self::Behaviour => 'B',
            Self::Figure => 'M',
            Self::CInterface => 'C',
            Self::Documentation => 'D',
            Self::History => 'H',
        }
    }
}

/// One statement of the list.
#[derive(Debug)]
pub struct Statement {
    pub id: Id,
    pub kind: Kind,
    pub text: String,
}

/// A heading of the list with its statements.
#[derive(Debug)]
pub struct Group {
    /// `G3 Page allocator calls`
    pub title: String,
    pub statements: Vec<Statement>,
}

/// Reads the list: headings `## G…` and rows `- **A001** B [tags] text`.
pub fn parse(source: &str) -> Result<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    let mut last = Id(0);
    for (index, line) in source.lines().enumerate() {
        if let Some(title) = line.strip_prefix("## G") {
            groups.push(Group { title: format!("G{title}"), statements: Vec::new() });
        } else if line.starts_with("- **A") {
            let at = || format!("acceptance list, line {}", index + 1);
            let statement = row(line)
                .with_context(|| format!("{}: not `- **A001** KIND [tags] text`", at()))?;
            if statement.id.0 != last.0 + 1 {
                bail!("{}: {} follows {last}", at(), statement.id);
            }
            last = statement.id;
            let group = groups.last_mut().with_context(|| format!("{}: no group", at()))?;
            group.statements.push(statement);
        }
    }
    Ok(groups)
}

fn row(line: &str) -> Option<Statement> {
    let (id, rest) = line.strip_prefix("- **")?.split_once("** ")?;
    let (kind, rest) = rest.split_once(" [")?;
    let (_tags, text) = rest.split_once("] ")?;
    Some(Statement { id: Id::parse(id)?, kind: Kind::parse(kind)?, text: text.to_owned() })
}

/// The statement in at most `limit` characters of one table cell: without the remarks on how to
/// check it and on later kernels, and cut at a word.
pub fn shortened(text: &str, limit: usize) -> String {
    let remark =
        [" Check:", " Now:", " Now ", " Types:"].iter().filter_map(|word| text.find(word)).min();
    let mut text = text[..remark.unwrap_or(text.len())].trim().to_owned();
    if text.chars().count() > limit {
        let end = text.char_indices().nth(limit - 1).map_or(text.len(), |(at, _)| at);
        let mut cut = text[..end].rfind(' ').unwrap_or(end);
        // A code span that the cut would leave open goes as a whole.
        if text[..cut].matches('`').count() % 2 == 1 {
            cut = text[..cut].rfind('`').unwrap_or(cut);
        }
        text.truncate(cut);
        text = format!("{}…", text.trim_end_matches([' ', ',', ';', ':', '(']));
    }
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real() -> Vec<Group> {
        parse(include_str!("../../docs/acceptance.md")).expect("the project's own list parses")
    }

    #[test]
    fn the_list_has_336_statements_of_five_kinds() {
        let groups = real();
        let count =
            |kind| groups.iter().flat_map(|g| &g.statements).filter(|s| s.kind == kind).count();
        assert_eq!(count(Kind::Behaviour), 257);
        assert_eq!(count(Kind::Figure), 7);
        assert_eq!(count(Kind::CInterface), 1);
        assert_eq!(count(Kind::Documentation), 60);
        assert_eq!(count(Kind::History), 11);
        assert_eq!(groups.iter().map(|g| g.statements.len()).sum::<usize>(), 336);
    }

    #[test]
    fn the_groups_run_from_g1_to_g18() {
        let groups = real();
        assert_eq!(groups.len(), 22, "18 groups, and G7 has four parts more");
        assert_eq!(groups[0].title, "G1 Pages and struct page");
        assert_eq!(groups[21].title, "G18 Choosing a method (LV closing section)");
        assert!(groups.iter().all(|g| !g.statements.is_empty()));
    }

    #[test]
    fn a_gap_and_a_malformed_row_are_refused() {
        let gap = parse("## G1 x\n- **A002** B [LV] text\n").unwrap_err();
        assert_eq!(gap.to_string(), "acceptance list, line 2: A002 follows A000");
        assert!(parse("## G1 x\n- **A001** Z [LV] text\n").is_err());
        assert!(parse("- **A001** B [LV] text\n").is_err());
    }

    #[test]
    fn identifiers_are_found_as_whole_words() {
        let found: Vec<String> = Id::all_in("A062, (A063); A0631 xA064 A06 A065_x A066.")
            .map(|id| id.to_string())
            .collect();
        assert_eq!(found, ["A062", "A063", "A066"]);
    }

    #[test]
    fn shortening_cuts_remarks_words_and_open_code_spans() {
        assert_eq!(shortened("WAIT|IO only. Check: it", 99), "WAIT\\|IO only.");
        assert_eq!(shortened("one two three", 9), "one two…");
        assert_eq!(shortened("say `a b c d e f` now", 12), "say…");
        for group in real() {
            for statement in group.statements {
                let short = shortened(&statement.text, 100);
                assert!(short.replace("\\|", "|").chars().count() <= 100, "{short}");
                assert_eq!(short.matches('`').count() % 2, 0, "{short}");
                assert!(!short.is_empty());
            }
        }
    }
}
