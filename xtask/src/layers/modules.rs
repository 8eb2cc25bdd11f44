//! The order of the modules inside kmem.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Violation;
use super::imports::{self, Import, Imports};
use super::list::List;
use crate::workspace::{Workspace, read};

const SOURCES: &str = "crates/kmem/src";

/// What was looked at, and what was found.
#[derive(Debug, Default)]
pub struct Looked {
    pub files: usize,
    pub imports: usize,
    pub violations: Vec<Violation>,
}

pub fn check(ws: &Workspace, list: &List) -> Result<Looked> {
    let folder = ws.root.join(SOURCES);
    let mut looked = Looked::default();
    let there = top_level(&folder)?;
    for (line, name) in list.absent_modules(&there) {
        let what = format!("{name} is no module of {SOURCES}: take it out");
        looked.violations.push(Violation::absent(line, what));
    }
    for name in &there {
        if list.place(name).is_none() {
            looked.violations.push(Violation {
                file: format!("{SOURCES}/{name}"),
                line: 1,
                what: "is in no layer: give it a place in the list".to_owned(),
            });
        }
    }
    let mut files = Vec::new();
    collect(&folder.join("lib.rs"), &folder, &[], &mut files)?;
    let root = read(&folder.join("lib.rs"))?;
    let judge = Judge::new(list, &root, files.iter().map(|file| (&file.module[..], &file.found)))?;
    for SourceFile { path, module, found } in &files {
        looked.files += 1;
        looked.imports += found.imports.len();
        for import in &found.imports {
            if let Some(what) = judge.against(module, import) {
                let file = ws.relative(path).display().to_string();
                looked.violations.push(Violation { file, line: import.line, what });
            }
        }
    }
    Ok(looked)
}

/// The modules that lie in the folder, by their files: `gfp.rs` and `gfp/` are both `gfp`.
fn top_level(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let module = name.strip_suffix(".rs").unwrap_or(&name);
        if module != "lib" {
            names.push(module.to_owned());
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

struct SourceFile {
    path: PathBuf,
    module: Vec<String>,
    found: Imports,
}

/// Reads a file and those that its `mod` lines name.
fn collect(
    path: &Path,
    folder: &Path,
    module: &[String],
    files: &mut Vec<SourceFile>,
) -> Result<()> {
    let source = read(path)?;
    let found = imports::read(&source, module).with_context(|| path.display().to_string())?;
    let inner = found.modules.iter().map(|declared| {
        let below: PathBuf = folder.join(declared.path[module.len()..].iter().collect::<PathBuf>());
        let file = match &declared.file {
            Some(named) => path.with_file_name(named),
            None => Some(below.join("mod.rs"))
                .filter(|file| file.is_file())
                .unwrap_or_else(|| below.with_extension("rs")),
        };
        (file, below, declared.path.clone())
    });
    let inner: Vec<_> = inner.collect();
    files.push(SourceFile { path: path.to_owned(), module: module.to_vec(), found });
    for (file, below, module) in inner {
        collect(&file, &below, &module, files)?;
    }
    Ok(())
}

/// Where a name of the crate's root has its home.
enum Home {
    Module(String),
    /// Another crate.
    Outside,
}

/// Decides whether an import runs against the order.
struct Judge<'l> {
    list: &'l List,
    names: HashMap<String, Home>,
}

impl<'l> Judge<'l> {
    /// `root` is the text of lib.rs; `files` are all files with their modules.
    fn new<'f>(
        list: &'l List,
        root: &str,
        files: impl Iterator<Item = (&'f [String], &'f Imports)>,
    ) -> Result<Self> {
        let mut names = HashMap::new();
        for (name, path) in imports::brought_in(root)? {
            let first = &path[0];
            let home = match list.place(first) {
                Some(_) => Home::Module(first.clone()),
                None => Home::Outside,
            };
            names.insert(name, home);
        }
        for (module, found) in files {
            if let Some(module) = module.first() {
                let exported = found.macros.iter().cloned();
                names.extend(exported.map(|name| (name, Home::Module(module.clone()))));
            }
        }
        Ok(Self { list, names })
    }

    /// What is wrong with an import of `module`, if anything is.
    fn against(&self, module: &[String], import: &Import) -> Option<String> {
        // lib.rs sees all; a module without a place has been reported as such.
        let from = self.list.place(module.first()?)?;
        let written = || format!("crate::{}", import.path.join("::"));
        let first = match import.path.first().map(String::as_str) {
            None | Some("*") => {
                return Some("takes the whole crate: name what it needs".to_owned());
            }
            Some(first) => first,
        };
        let home = match (self.list.place(first), self.names.get(first)) {
            (Some(_), _) => first,
            (None, Some(Home::Module(home))) => home,
            (None, Some(Home::Outside)) => return None,
            (None, None) => {
                return Some(format!(
                    "{} knows {}, which is no module and no name that lib.rs re-exports: \
                     name its module",
                    self.list.layer(from),
                    written()
                ));
            }
        };
        let to = self.list.place(home)?;
        (to > from).then(|| {
            let (from, to) = (self.list.layer(from), self.list.layer(to));
            format!("{from} may not know {to}, which stands above it ({})", written())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "[kmem]\nwords: gfp order\npage: page\nbuddy: buddy\nmm: mm\n";
    const ROOT: &str = "
mod order; pub mod gfp; pub mod page; pub mod buddy; pub mod mm;
pub use order::Order; pub use mm::{Mm as Manager, Pages}; pub use bitflags::bitflags;
pub struct Face;
";

    /// What is wrong with `source` as the file of `module`; `mm` exports the macro `trace`.
    fn wrong(module: &str, source: &str) -> Vec<String> {
        let list = List::parse(LIST).unwrap();
        let module: Vec<String> = module.split("::").map(str::to_owned).collect();
        let mm = imports::read("#[macro_export] macro_rules! trace { () => {} }", &[]).unwrap();
        let of_mm = ["mm".to_owned()];
        let judge = Judge::new(&list, ROOT, [(&of_mm[..], &mm)].into_iter()).unwrap();
        let found = imports::read(source, &module).unwrap();
        found.imports.iter().filter_map(|import| judge.against(&module, import)).collect()
    }

    #[test]
    fn lower_layers_and_the_own_layer_are_allowed() {
        let source = "use crate::{Order, page::Memmap, bitflags}; use super::list; use core::fmt;";
        assert_eq!(wrong("buddy::areas", source), Vec::<String>::new());
        assert_eq!(wrong("gfp", "use crate::order::Order;"), Vec::<String>::new());
    }

    #[test]
    fn higher_layers_are_refused() {
        let message = "buddy may not know mm, which stands above it (crate::mm::slow::path)";
        assert_eq!(wrong("buddy", "use crate::mm::slow::path;"), [message]);
        assert_eq!(wrong("buddy::list", "fn f() { super::super::mm::slow::path() }"), [message]);
        assert_eq!(wrong("gfp", "use crate::{order::Order, buddy::{Areas, list}};").len(), 2);
    }

    #[test]
    fn a_re_exported_name_counts_as_its_home() {
        assert_eq!(
            wrong("page", "fn f(mm: &crate::Manager) { crate::trace!(); }"),
            [
                "page may not know mm, which stands above it (crate::Manager)",
                "page may not know mm, which stands above it (crate::trace)"
            ]
        );
    }

    #[test]
    fn the_face_is_not_looked_at_from_within() {
        assert_eq!(wrong("mm", "use crate::Face;").len(), 1);
        assert_eq!(wrong("mm", "use crate::*;").len(), 1);
        assert_eq!(wrong("mm", "use super::*;").len(), 1);
        assert_eq!(wrong("mm", "use crate as all;").len(), 1);
    }
}
