//! The numbers by which Linux knows files, and files that are open.

use std::collections::HashMap;

/// The files that Linux was told of, by number. One that was seen once keeps its number: there are as many
/// names as modules can have devices.
pub struct Paths {
    /// By number, from 1 on.
    paths: Vec<String>,
    numbers: HashMap<String, u64>,
}

/// The number of the root.
pub const ROOT: u64 = 1;

impl Paths {
    pub fn new() -> Self {
        let mut paths = Paths { paths: Vec::new(), numbers: HashMap::new() };
        paths.number("/");
        paths
    }

    /// The number of a path that leads to something.
    pub fn number(&mut self, path: &str) -> u64 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        self.paths.push(path.into());
        let number = self.paths.len() as u64;
        self.numbers.insert(path.into(), number);
        number
    }

    pub fn path(&self, number: u64) -> Option<&str> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.paths.get(index).map(String::as_str)
    }
}

/// The path of a name in a directory.
pub fn join(directory: &str, name: &str) -> String {
    let slash = if directory.ends_with('/') { "" } else { "/" };
    format!("{directory}{slash}{name}")
}

/// What is open, by number.
pub struct Open<T> {
    things: HashMap<u64, T>,
    next: u64,
}

impl<T: Clone> Open<T> {
    pub fn new() -> Self {
        Open { things: HashMap::new(), next: 1 }
    }

    pub fn add(&mut self, thing: T) -> u64 {
        let number = self.next;
        self.next += 1;
        self.things.insert(number, thing);
        number
    }

    pub fn get(&self, number: u64) -> Option<T> {
        self.things.get(&number).cloned()
    }

    pub fn remove(&mut self, number: u64) -> Option<T> {
        self.things.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_number_and_a_number_one_path() {
        let mut paths = Paths::new();
        assert_eq!(paths.path(ROOT), Some("/"));
        let dev = paths.number("/dev");
        let zero = paths.number(&join("/dev", "zero"));
        assert_eq!([paths.number("/"), paths.number(&join("/", "dev"))], [ROOT, dev]);
        assert_eq!(paths.number("/dev/zero"), zero);
        assert_eq!([paths.path(dev), paths.path(zero)], [Some("/dev"), Some("/dev/zero")]);
        for none in [0, zero + 1, u64::MAX] {
            assert_eq!(paths.path(none), None);
        }
    }

    #[test]
    fn what_was_closed_has_a_number_that_nothing_gets_again() {
        let mut open = Open::new();
        let [one, two] = ["one", "two"].map(|thing| open.add(thing));
        assert_eq!(open.remove(one), Some("one"));
        assert_eq!([open.get(one), open.remove(one), open.get(two)], [None, None, Some("two")]);
        assert!(![one, two].contains(&open.add("three")));
    }
}
