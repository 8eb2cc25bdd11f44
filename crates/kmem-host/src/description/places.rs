//! Where in a text the values of a machine stand, for messages.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use super::DescriptionError;

/// A place in a text. Both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character of it.
    pub column: usize,
}

impl Place {
    /// Of a byte of the text.
    pub(super) fn of(text: &str, byte: usize) -> Place {
        // A span may end behind the text; it begins at a character.
        let before = text.get(..byte).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Place { line, column: before[start..].chars().count() + 1 }
    }
}

/// Where the values of a description were read, and in which file. What was set otherwise has no place.
///
/// It says nothing about the machine: any two are equal, so that a machine is the same whichever file it
/// was read from.
#[derive(Clone, Debug, Default)]
pub struct Places {
    file: Option<String>,
    /// By key as people write it: `cpus`, `node.1` for the table, `node.1.ram`, and `node.1.ram[2]` for an
    /// item of a list.
    of: BTreeMap<String, Place>,
}

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Places {}

impl Places {
    /// The name of an item of a list.
    fn item(key: &str, index: usize) -> String {
        format!("{key}[{index}]")
    }

    /// Notes where the value of a key is, and where the items of it are if it is a list.
    pub(super) fn note(
        &mut self,
        text: &str,
        key: &str,
        span: Range<usize>,
        items: &[Range<usize>],
    ) {
        self.of.insert(key.into(), Place::of(text, span.start));
        for (index, span) in items.iter().enumerate() {
            self.of.insert(Self::item(key, index), Place::of(text, span.start));
        }
    }

    /// The values were read from this file.
    pub(super) fn name_file(&mut self, file: String) {
        self.file = Some(file);
    }

    /// The file.
    pub(super) fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// A key was given another value: it, and what is in it, have no place any more. Nor has its table, which
    /// stands for keys that it lacks.
    pub(super) fn forget(&mut self, key: &str) {
        if let Some((table, _)) = key.rsplit_once('.') {
            self.of.remove(table);
        }
        let inside = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.of.retain(|name, _| !name.strip_prefix(key).is_some_and(inside));
    }

    /// An error about the value of a key, or about an item of it, with its place if it has one.
    pub(super) fn locate(
        &self,
        key: &str,
        item: Option<usize>,
        error: DescriptionError,
    ) -> DescriptionError {
        let item = item.map(|index| Self::item(key, index));
        // A node that lacks a key still has its table.
        let table = key.rsplit_once('.').map_or(key, |(table, _)| table);
        let place = item
            .as_deref()
            .and_then(|item| self.of.get(item))
            .or_else(|| self.of.get(key))
            .or_else(|| self.of.get(table));
        match place {
            Some(place) => {
                let (file, place) = (self.file.clone(), Some(*place));
                DescriptionError::At { file, place, error: Box::new(error) }
            }
            None => error,
        }
    }

    /// An error about what the file does not say at all.
    pub(super) fn of_file(&self, error: DescriptionError) -> DescriptionError {
        match &self.file {
            Some(file) => {
                let error = Box::new(error);
                DescriptionError::At { file: Some(file.clone()), place: None, error }
            }
            None => error,
        }
    }
}

/// What stands before an error: `machine.toml:7:12: `, or `line 7, column 12: ` of a text without a name.
pub(super) fn write_place(
    f: &mut fmt::Formatter<'_>,
    file: Option<&str>,
    place: Option<Place>,
) -> fmt::Result {
    match (file, place) {
        (Some(file), Some(Place { line, column })) => write!(f, "{file}:{line}:{column}: "),
        (Some(file), None) => write!(f, "{file}: "),
        (None, Some(Place { line, column })) => write!(f, "line {line}, column {column}: "),
        (None, None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_are_counted_from_one() {
        let text = "a\nüb\n";
        for (byte, line, column) in
            [(0, 1, 1), (1, 1, 2), (2, 2, 1), (4, 2, 2), (6, 3, 1), (99, 3, 1)]
        {
            assert_eq!(Place::of(text, byte), Place { line, column }, "{byte}");
        }
    }

    #[test]
    fn a_key_is_forgotten_with_what_is_in_it() {
        let mut places = Places::default();
        for key in ["cpus", "node.1", "node.1.ram", "node.10.ram"] {
            places.note("x", key, 0..1, std::slice::from_ref(&(0..1)));
        }
        places.forget("node.1");
        let kept: Vec<_> = places.of.keys().map(String::as_str).collect();
        assert_eq!(kept, ["cpus", "cpus[0]", "node.10.ram", "node.10.ram[0]"]);
        places.note("x", "node.10", 0..1, &[]);
        places.forget("node.10.movable");
        let kept: Vec<_> = places.of.keys().map(String::as_str).collect();
        assert_eq!(kept, ["cpus", "cpus[0]", "node.10.ram", "node.10.ram[0]"]);
    }
}
