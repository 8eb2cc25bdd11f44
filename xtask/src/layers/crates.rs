//! The order of the crates: which crate of the workspace may depend on which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::Violation;
use super::list::List;
use crate::workspace::{Workspace, read};

/// What was looked at, and what was found.
#[derive(Debug, Default)]
pub struct Looked {
    pub crates: usize,
    pub violations: Vec<Violation>,
}

pub fn check(ws: &Workspace, list: &List) -> Result<Looked> {
    let mut manifests = BTreeMap::new();
    for path in members(&ws.root)? {
        let source = read(&path)?;
        let table: Table = source.parse().with_context(|| path.display().to_string())?;
        let name = table.get("package").and_then(|p| p.get("name")).and_then(Value::as_str);
        let name = name.with_context(|| format!("{} names no package", path.display()))?;
        manifests.insert(name.to_owned(), (path, source, table));
    }
    let mut looked = Looked::default();
    let members: Vec<&str> = manifests.keys().map(String::as_str).collect();
    for (line, name) in list.absent_crates(&members) {
        let what = format!("{name} is no crate of the workspace: take it out");
        looked.violations.push(Violation::absent(line, what));
    }
    for (name, (path, source, table)) in &manifests {
        looked.crates += 1;
        let file = ws.relative(path).display().to_string();
        for (dependency, what) in against(name, table, &members, list) {
            looked.violations.push(Violation {
                file: file.clone(),
                line: line_of(source, &dependency),
                what,
            });
        }
    }
    Ok(looked)
}

/// The manifests of the workspace's packages, as the root manifest's `members` lists them.
fn members(root: &Path) -> Result<Vec<PathBuf>> {
    let table: Table = read(&root.join("Cargo.toml"))?.parse()?;
    let patterns = table
        .get("workspace")
        .and_then(|workspace| workspace.get("members"))
        .and_then(Value::as_array)
        .context("Cargo.toml has no workspace.members")?;
    let mut folders = Vec::new();
    for pattern in patterns.iter().filter_map(Value::as_str) {
        match pattern.strip_suffix("/*") {
            Some(parent) => {
                for entry in std::fs::read_dir(root.join(parent)).context("workspace.members")? {
                    folders.push(entry?.path());
                }
            }
            None => folders.push(root.join(pattern)),
        }
    }
    let manifests = folders.into_iter().map(|folder| folder.join("Cargo.toml"));
    Ok(manifests.filter(|manifest| manifest.is_file()).collect())
}

/// Each dependency on a member that the list does not allow, and why.
fn against(name: &str, manifest: &Table, members: &[&str], list: &List) -> Vec<(String, String)> {
    let Some(known) = list.known_to(name) else {
        return vec![("name".to_owned(), format!("crate {name} is not in the list"))];
    };
    dependencies(manifest)
        .into_iter()
        .filter(|(_, package)| members.contains(&package.as_str()) && !known.contains(package))
        .map(|(key, package)| (key, format!("{name} may not know {package}")))
        .collect()
}

/// What is built into the crate: the key in the manifest and the package's name. Not what only its
/// tests use.
fn dependencies(manifest: &Table) -> Vec<(String, String)> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let tables = targets.into_iter().flatten().filter_map(|(_, target)| target.as_table());
    std::iter::once(manifest)
        .chain(tables)
        .flat_map(|table| ["dependencies", "build-dependencies"].map(|kind| table.get(kind)))
        .filter_map(|dependencies| dependencies?.as_table())
        .flatten()
        .map(|(key, value)| {
            let package = value.get("package").and_then(Value::as_str).unwrap_or(key);
            (key.clone(), package.to_owned())
        })
        .collect()
}

/// The line on which a key begins; the first where it is written in a way of its own.
fn line_of(source: &str, key: &str) -> usize {
    let begins = |line: &str| {
        line.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '.', '=']))
    };
    source.lines().position(begins).map_or(1, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "[crates]\nkmem:\nscull: kmem\nkmem-host: kmem\nkmem-shell: kmem scull\n";
    const MEMBERS: &[&str] = &["kmem", "scull", "kmem-host", "kmem-shell"];

    fn wrong(name: &str, manifest: &str) -> Vec<String> {
        let list = List::parse(LIST).unwrap();
        let table: Table = manifest.parse().unwrap();
        against(name, &table, MEMBERS, &list).into_iter().map(|(_, what)| what).collect()
    }

    #[test]
    fn what_the_list_allows_and_other_crates_pass() {
        let manifest = "[dependencies]\nkmem.workspace = true\nscull = { path = '../scull' }
spin = '0.10'\n[dev-dependencies]\nkmem-host.workspace = true\n";
        assert_eq!(wrong("kmem-shell", manifest), Vec::<String>::new());
    }

    #[test]
    fn any_other_member_is_refused_under_any_heading() {
        for manifest in [
            "[dependencies]\nkmem-host.workspace = true",
            "[build-dependencies]\nkmem-host.workspace = true",
            "[target.'cfg(unix)'.dependencies]\nkmem-host.workspace = true",
            "[dependencies]\nhost = { package = 'kmem-host', path = '..' }",
        ] {
            assert_eq!(wrong("scull", manifest), ["scull may not know kmem-host"], "{manifest}");
        }
        assert_eq!(wrong("fresh", ""), ["crate fresh is not in the list"]);
    }

    #[test]
    fn the_line_is_that_of_the_key() {
        let source = "[dependencies]\nkmem-host.workspace = true\nkmem = { path = 'x' }\n";
        assert_eq!(line_of(source, "kmem"), 3);
        assert_eq!(line_of(source, "kmem-host"), 2);
        assert_eq!(line_of(source, "absent"), 1);
    }
}
