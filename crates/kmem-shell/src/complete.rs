//! What a word that is being typed may become, and what a command still wants.
//!
//! What may stand where is read from the commands' own usage, which `help` shows: `insmod MODULE
//! [PARAMETER=VALUE]...` wants a module first and parameters of it from then on. So a command that is written
//! down is completed.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kmem::Gfp;

use crate::commands::all;
use crate::files::{self, kinds};
use crate::{Shell, System};

/// What may stand in place of the word before the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Where the word begins, in bytes of the line.
    pub start: usize,
    /// What it may become, sorted, as it is typed. What more can follow without a blank ends in `/`, `=` or
    /// `|`.
    pub words: Vec<String>,
}

/// The line up to the cursor, cut into words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cut {
    /// The words of the last command, without the one that is being typed.
    words: Vec<String>,
    /// That one, without quotes.
    typed: String,
    /// Where it begins.
    start: usize,
    /// Whether it names the file that the output goes to.
    is_output: bool,
    /// Whether it is in quotes.
    is_quoted: bool,
}

/// Cuts a line as [`parse`](crate::parse) does, but for what is not finished.
fn cut(line: &str) -> Cut {
    let mut cut = Cut { start: line.len(), ..Cut::default() };
    let (mut inside, mut quote) = (false, None);
    let mut characters = line.char_indices();
    while let Some((at, c)) = characters.next() {
        let separates = quote.is_none() && (c.is_whitespace() || matches!(c, ';' | '>'));
        if separates {
            if core::mem::take(&mut inside) {
                cut.words.push(core::mem::take(&mut cut.typed));
            }
            match c {
                ';' | '\n' => (cut.words, cut.is_output) = (Vec::new(), false),
                '>' => cut.is_output = true,
                _ => {}
            }
            cut.start = line.len();
            continue;
        }
        if !core::mem::replace(&mut inside, true) {
            cut.start = at;
        }
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None | Some('"'), '\\') => cut.typed.extend(characters.next().map(|(_, c)| c)),
            (_, c) => cut.typed.push(c),
        }
    }
    cut.is_quoted = quote.is_some();
    cut
}

/// A word as it is typed: what separates words is kept by a `\`.
fn escaped(word: &str) -> String {
    let mut text = String::with_capacity(word.len());
    for c in word.chars() {
        if c.is_whitespace() || "\\'\";>|&<#".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

impl<S: System> Shell<'_, S> {
    /// What the word that ends at the end of `line` may become. Nothing where nobody can tell: of a number, or
    /// within quotes.
    pub fn complete(&self, line: &str) -> Completion {
        let Cut { mut words, typed, start, is_output, is_quoted } = cut(line);
        if words.first().is_some_and(|first| first == "time") {
            words.remove(0);
        }
        let mut found = match words.split_first() {
            _ if is_quoted => Vec::new(),
            _ if is_output => self.paths(&typed),
            None => all::<S>().map(|command| command.name.to_string()).collect(),
            Some((name, before)) => self.arguments(name, before, &typed),
        };
        found.retain(|word| word.starts_with(&typed));
        found.sort();
        found.dedup();
        // The sign `|` joins flags, and needs no mark: it is none at the start of a word.
        let mark = |word: &String| if word.contains("GFP_") { word.clone() } else { escaped(word) };
        Completion { start, words: found.iter().map(mark).collect() }
    }

    /// What the command that begins the last one of `line` wants after what has been typed, as its usage says
    /// it; empty where that is not known, or nothing.
    pub fn wants(&self, line: &str) -> String {
        let Cut { words, typed, .. } = cut(line);
        let Some((name, before)) = words.split_first().filter(|_| typed.is_empty()) else {
            return String::new();
        };
        let wanted = wanted::<S>(name).collect::<Vec<_>>();
        wanted.get(before.len()..).unwrap_or_default().join(" ")
    }

    /// What a command may be given after some arguments.
    fn arguments(&self, name: &str, before: &[String], typed: &str) -> Vec<String> {
        let wanted: Vec<_> = wanted::<S>(name).collect();
        let repeated = wanted.last().filter(|last| last.ends_with("..."));
        let Some(place) = wanted.get(before.len()).or(repeated) else { return Vec::new() };
        let place = place.trim_end_matches("...").trim_matches(['[', ']']);
        let loaded = self.tree.modules.kinds();
        let loaded = || loaded.iter().map(|kind| kind.name);
        match (place, name) {
            ("FILE" | "FROM" | "TO" | "PATH" | "DEVICE", _) => self.paths(typed),
            ("MODULE", "insmod") => {
                let kinds = kinds::<S>().map(|kind| kind.name);
                kinds.filter(|kind| loaded().all(|name| name != *kind)).map(String::from).collect()
            }
            ("MODULE", _) => loaded().map(String::from).collect(),
            ("PARAMETER=VALUE", _) => {
                let kind = kinds::<S>().find(|kind| before.first().is_some_and(|m| m == kind.name));
                let names = kind.map(|kind| kind.defaults.named(kind).map(|(name, _)| name));
                names.into_iter().flatten().map(|name| format!("{name}=")).collect()
            }
            ("COMMAND", _) => all::<S>().map(|command| command.name.to_string()).collect(),
            ("FLAGS", _) => flags(typed),
            ("ARGUMENT", "cache") if before.len() == 1 => {
                self.objects.cache_names().map(String::from).collect()
            }
            (choice, _) if choice.contains('|') => {
                let is_literal = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
                choice.split('|').filter(is_literal).map(String::from).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The files in the directory that a path has come to.
    fn paths(&self, typed: &str) -> Vec<String> {
        let (directory, _) = typed
            .rsplit_once('/')
            .map_or(("", typed), |(directory, name)| (&typed[..=directory.len()], name));
        let list = |path: &str| files::list(self, if path.is_empty() { "." } else { path });
        let own = ["dev", "proc", "sys"].map(String::from);
        let mut names = list(directory).unwrap_or_default();
        if directory == "/" {
            names.extend(own);
        }
        let begun = &typed[directory.len()..];
        names.retain(|name| {
            name.starts_with(begun) && (!begun.is_empty() || !name.starts_with('.'))
        });
        names
            .into_iter()
            .map(|name| {
                let path = format!("{directory}{name}");
                // A file lists itself.
                let is_directory = list(&path).is_ok_and(|names| names != [path.as_str()]);
                if is_directory { format!("{path}/") } else { path }
            })
            .collect()
    }
}

/// The words that a command's usage has after the name.
fn wanted<S: System>(name: &str) -> impl Iterator<Item = &'static str> {
    let command = all::<S>().find(|command| command.name == name);
    command.into_iter().flat_map(|command| command.usage.split_whitespace().skip(1))
}

/// The flags that may come last in a word of flags.
fn flags(typed: &str) -> Vec<String> {
    let joined = typed.rfind('|').map_or(0, |at| at + 1);
    let (before, begun) = typed.split_at(joined);
    Gfp::names()
        .filter(|name| name.starts_with(begun))
        .map(|name| format!("{before}{name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn words(cut: &Cut) -> Vec<&str> {
        cut.words.iter().map(String::as_str).collect()
    }

    #[test]
    fn the_word_before_the_cursor_is_what_is_typed() {
        for (line, before, typed, start) in [
            ("", vec![], "", 0),
            ("in", vec![], "in", 0),
            ("insmod ", vec!["insmod"], "", 7),
            ("ls; insmod scu", vec!["insmod"], "scu", 11),
            ("cp /etc/a\\ b /de", vec!["cp", "/etc/a b"], "/de", 13),
            ("cp 'a b' \"c d\" x", vec!["cp", "a b", "c d"], "x", 15),
        ] {
            let cut = cut(line);
            assert_eq!(
                (words(&cut), cut.typed.as_str(), cut.start),
                (before, typed, start),
                "{line}"
            );
            assert!(!cut.is_output && !cut.is_quoted, "{line}");
        }
    }

    #[test]
    fn the_file_of_an_output_and_an_open_quote_are_told() {
        for (line, is_output, is_quoted) in [
            ("cat a > /d", true, false),
            ("cat a >", true, false),
            ("cat a > b; l", false, false),
            ("cat 'a", false, true),
            ("cat 'a' \"b", false, true),
        ] {
            let cut = cut(line);
            assert_eq!((cut.is_output, cut.is_quoted), (is_output, is_quoted), "{line}");
        }
    }

    #[test]
    fn what_is_completed_is_read_as_the_same_word() {
        for word in ["plain", "a b", "it's", "x;y>z", "#remark", "a\\b", "ü|&<\""] {
            let parsed = crate::parse(&format!("cat {}", escaped(word))).unwrap();
            assert_eq!(parsed[0].words[1], word);
        }
    }

    #[test]
    fn flags_are_joined() {
        assert_eq!(flags("GFP_AT"), ["GFP_ATOMIC"]);
        assert_eq!(flags("GFP_KERNEL|__GFP_NOW"), ["GFP_KERNEL|__GFP_NOWARN"]);
        assert!(flags("").len() > 20);
    }
}
