//! Finds the test functions that carry identifiers in the comment above them.
//!
//! Read as tokens and not as a syntax tree, because tests inside a macro such as `proptest!` are
//! nothing but tokens to a parser of Rust.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

use crate::acceptance::Id;
use crate::workspace::read;

/// The identifiers of each test of the program whose source begins in `root`, by the test's path.
pub fn identified_tests(root: &Path) -> Result<HashMap<String, Vec<Id>>> {
    let mut tests = HashMap::new();
    // The root's modules are beside it, as those of a `mod.rs` are.
    let folder = root.parent().context("a source file without a folder")?;
    scan_file(root, folder, "", &mut tests)?;
    Ok(tests)
}

fn scan_file(
    file: &Path,
    folder: &Path,
    path: &str,
    tests: &mut HashMap<String, Vec<Id>>,
) -> Result<()> {
    let source = read(file)?;
    let found = scan(&source).with_context(|| file.display().to_string())?;
    for test in found.tests {
        tests.insert(joined(path, &test.path), test.ids);
    }
    for module in found.modules {
        let inner: PathBuf = module.path.split("::").collect();
        let below = folder.join(inner);
        let candidates = match module.file {
            // Relative to the file itself, whatever the module's name.
            Some(named) => vec![file.with_file_name(named)],
            None => vec![below.with_extension("rs"), below.join("mod.rs")],
        };
        // A module for another configuration may well have no file.
        if let Some(next) = candidates.iter().find(|candidate| candidate.is_file()) {
            scan_file(next, &below, &joined(path, &module.path), tests)?;
        }
    }
    Ok(())
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}::{name}") }
}

#[derive(Debug, Default)]
struct Found {
    tests: Vec<Test>,
    modules: Vec<Module>,
}

#[derive(Debug)]
struct Test {
    path: String,
    ids: Vec<Id>,
}

/// `mod name;`
#[derive(Debug)]
struct Module {
    path: String,
    /// The value of `#[path = "…"]`.
    file: Option<String>,
}

fn scan(source: &str) -> Result<Found> {
    let tokens = TokenStream::from_str(source).map_err(|error| anyhow!("not Rust: {error}"))?;
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Found::default();
    walk(tokens, "", &lines, &mut found);
    Ok(found)
}

/// What stands before an item: its attributes and where they begin.
#[derive(Default)]
struct Head {
    first_line: Option<usize>,
    is_test: bool,
    file: Option<String>,
}

fn walk(tokens: TokenStream, path: &str, lines: &[&str], found: &mut Found) {
    let mut head = Head::default();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(hash) if hash.as_char() == '#' => {
                let _inner = tokens
                    .next_if(|next| matches!(next, TokenTree::Punct(p) if p.as_char() == '!'));
                if let Some(TokenTree::Group(attribute)) = tokens.next() {
                    head.first_line.get_or_insert(hash.span().start().line);
                    attribute_into(&attribute, &mut head);
                }
            }
            TokenTree::Ident(word) if word == "fn" => {
                if let (true, Some(TokenTree::Ident(name))) = (head.is_test, tokens.peek()) {
                    let line = word.span().start().line;
                    let region = comment_above(lines, head.first_line.unwrap_or(line))..line;
                    let ids = region.flat_map(|at| comment_of(lines[at - 1])).collect();
                    found.tests.push(Test { path: joined(path, &name.to_string()), ids });
                }
                head = Head::default();
            }
            TokenTree::Ident(word) if word == "mod" => {
                let Some(TokenTree::Ident(name)) = tokens.next() else { continue };
                let path = joined(path, &name.to_string());
                match tokens.next() {
                    Some(TokenTree::Group(body)) => walk(body.stream(), &path, lines, found),
                    _ => found.modules.push(Module { path, file: head.file.take() }),
                }
                head = Head::default();
            }
            // `pub`, `pub(crate)`, `async`, `unsafe`: still before the item's keyword.
            TokenTree::Ident(_) => {}
            TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis => {}
            TokenTree::Group(group) => {
                walk(group.stream(), path, lines, found);
                head = Head::default();
            }
            TokenTree::Punct(punct) if punct.spacing() == Spacing::Joint => {}
            TokenTree::Punct(_) | TokenTree::Literal(_) => head = Head::default(),
        }
    }
}

fn attribute_into(attribute: &Group, head: &mut Head) {
    let tokens: Vec<TokenTree> = attribute.stream().into_iter().collect();
    match &tokens[..] {
        [TokenTree::Ident(word)] if word == "test" => head.is_test = true,
        [TokenTree::Ident(word), _, TokenTree::Literal(file)] if word == "path" => {
            head.file = Some(file.to_string().trim_matches('"').to_owned());
        }
        _ => {}
    }
}

/// The first line of the block of comments that ends just above `line`. Lines count from 1.
fn comment_above(lines: &[&str], line: usize) -> usize {
    let comments = lines[..line - 1]
        .iter()
        .rev()
        .take_while(|above| above.trim_start().starts_with("//"))
        .count();
    line - comments
}

/// The identifiers in the comment part of a line. (A string that holds `//` before a test's name is
/// nothing that occurs.)
fn comment_of(line: &str) -> Vec<Id> {
    line.split_once("//").map_or_else(Vec::new, |(_, comment)| Id::all_in(comment).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(source: &str) -> Vec<(String, Vec<String>)> {
        let found = scan(source).unwrap();
        found
            .tests
            .into_iter()
            .map(|test| (test.path, test.ids.iter().map(Id::to_string).collect()))
            .collect()
    }

    fn one(path: &str, ids: &[&str]) -> (String, Vec<String>) {
        (path.to_owned(), ids.iter().map(|&id| id.to_owned()).collect())
    }

    #[test]
    fn doc_comments_and_leading_comments_count() {
        let source = "
/// A062: wrong order.
#[test]
fn doc() {}

// A063,
// A064
#[test]
#[should_panic]
fn plain() { let x = 3; }

#[test] // A065
/// A066
fn between() { /* A067 */ }
";
        assert_eq!(
            ids(source),
            [
                one("doc", &["A062"]),
                one("plain", &["A063", "A064"]),
                one("between", &["A065", "A066"])
            ]
        );
    }

    #[test]
    fn comments_elsewhere_do_not_count() {
        let source = "
//! A001
use x; // A002

#[test]
fn bare() {
    // A003
}
/// A004
fn helper() {}
// A005

#[test]
fn after_a_gap() {}
";
        assert_eq!(ids(source), [one("bare", &[]), one("after_a_gap", &[])]);
    }

    #[test]
    fn modules_give_the_path() {
        let source = "
#[cfg(test)]
mod tests {
    mod inner {
        /// A010
        #[test]
        pub(crate) fn deep() {}
    }
    /// A011
    #[test]
    fn shallow() {}
}
mod other;
#[path = \"else.rs\"]
mod named;
";
        assert_eq!(
            ids(source),
            [one("tests::inner::deep", &["A010"]), one("tests::shallow", &["A011"])]
        );
        let modules = scan(source).unwrap().modules;
        assert_eq!(modules[0].path, "other");
        assert_eq!(modules[1].file.as_deref(), Some("else.rs"));
    }

    #[test]
    fn tests_inside_a_macro_are_found() {
        let source = "
proptest! {
    #![proptest_config(Config::default())]

    /// A079
    #[test]
    fn merges(order in 0..10u8) { prop_assert!(true); }
}
";
        assert_eq!(ids(source), [one("merges", &["A079"])]);
    }

    #[test]
    fn files_are_followed_from_the_root() {
        let folder = std::env::temp_dir().join(format!("xtask-scan-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let file = folder.join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        };
        write("lib.rs", "mod buddy; mod absent;");
        write("buddy/mod.rs", "mod list; #[cfg(test)] mod tests;");
        write("buddy/list.rs", "mod deep { mod deeper; }");
        write("buddy/tests.rs", "/// A079\n#[test] fn merges() {}");
        write("buddy/list/deep/deeper.rs", "/// A078\n#[test] fn lists() {}");
        let tests = identified_tests(&folder.join("lib.rs")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(tests.len(), 2);
        assert_eq!(tests["buddy::tests::merges"], Id::all_in("A079").collect::<Vec<_>>());
        assert_eq!(
            tests["buddy::list::deep::deeper::lists"],
            Id::all_in("A078").collect::<Vec<_>>()
        );
    }
}
