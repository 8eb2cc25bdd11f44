//! `cargo xtask layers`: the order of the code, and what runs against it.

mod crates;
mod imports;
mod list;
mod modules;

use std::fmt;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use list::List;

const LIST: &str = "docs/layers.txt";

/// One thing that runs against the order, with the place to look at.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    what: String,
}

impl Violation {
    /// A name of the list that nothing in the tree has.
    fn absent(line: usize, what: String) -> Self {
        Self { file: LIST.to_owned(), line, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Checks the modules of kmem and the crates of the workspace; says how much it looked at.
pub fn check(ws: &Workspace) -> Result<String> {
    let list = List::parse(&ws.read(LIST)?).with_context(|| LIST.to_owned())?;
    let modules = modules::check(ws, &list)?;
    let crates = crates::check(ws, &list)?;
    let mut violations = modules.violations;
    violations.extend(crates.violations);
    if !violations.is_empty() {
        let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
        bail!("{} against the order of {LIST}:\n  {}", lines.len(), lines.join("\n  "));
    }
    Ok(format!(
        "{} imports in {} files of kmem, {} crates",
        modules.imports, modules.files, crates.crates
    ))
}
