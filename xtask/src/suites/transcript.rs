//! Reads what `cargo test` writes.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use super::{Ran, Root, file_name};

/// How many tests or cases passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
}

impl Tally {
    pub const fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// The output of one `cargo test`, read line by line.
pub struct Transcript {
    roots: HashMap<String, Root>,
    /// The program whose lines come now; none in doctests, which have no source file.
    current: Option<Root>,
    tally: Tally,
    passed: Vec<(Root, String)>,
}

impl Transcript {
    /// `roots` gives the source of each test program by its file name.
    pub fn new(roots: HashMap<String, Root>) -> Self {
        Self { roots, current: None, tally: Tally::default(), passed: Vec::new() }
    }

    pub fn line(&mut self, line: &str) {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("Running ") {
            // Running unittests src/lib.rs (target/debug/deps/kmem-0123456789abcdef)
            let program = rest.strip_suffix(')').and_then(|rest| rest.rsplit_once(" ("));
            if let Some((_, program)) = program {
                self.current = self.roots.get(&file_name(Path::new(program))).cloned();
            }
        } else if line.starts_with("Doc-tests ") {
            self.current = None;
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.tally.add(tally(counts));
        } else if let Some((name, "ok")) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
            && let Some(root) = &self.current
        {
            let name = name.strip_suffix(" - should panic").unwrap_or(name);
            self.passed.push((root.clone(), name.to_owned()));
        }
    }

    /// Hands over what was read, and returns how many tests failed.
    pub fn add_to(self, ran: &mut Ran) -> usize {
        ran.tally.add(self.tally);
        ran.passed.extend(self.passed);
        self.tally.failed
    }
}

/// `ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`
fn tally(counts: &str) -> Tally {
    let count = |what: &str| {
        counts
            .split([';', '.'])
            .filter_map(|part| part.trim().strip_suffix(what)?.trim().parse::<usize>().ok())
            .sum()
    };
    Tally { passed: count(" passed"), failed: count(" failed") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
   Compiling kmem v0.1.0 (/r/crates/kmem)
    Finished `test` profile [optimized + debuginfo] target(s) in 2.00s
     Running unittests src/lib.rs (target/debug/deps/kmem-11)

running 4 tests
test order::tests::splits ... ok
test order::tests::refuses - should panic ... ok
test order::tests::slow ... ignored, takes an hour
test order::tests::merges ... FAILED

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

     Running tests/cli.rs (target/debug/deps/cli-22)

running 1 test
test boots ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s

   Doc-tests kmem

running 1 test
test crates/kmem/src/order.rs - order::Order (line 12) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s
";

    fn root(target: &str) -> Root {
        Root { file: format!("/r/{target}.rs").into(), target: target.to_owned() }
    }

    #[test]
    fn tests_that_passed_are_kept_with_their_program_and_all_are_counted() {
        let roots = [("kmem-11", "kmem"), ("cli-22", "cli")];
        let mut transcript =
            Transcript::new(roots.map(|(program, name)| (program.to_owned(), root(name))).into());
        OUTPUT.lines().for_each(|line| transcript.line(line));
        let mut ran = Ran::default();
        assert_eq!(transcript.add_to(&mut ran), 1);
        assert_eq!(ran.tally, Tally { passed: 4, failed: 1 });
        assert_eq!(
            ran.passed,
            [
                (root("kmem"), "order::tests::splits".to_owned()),
                (root("kmem"), "order::tests::refuses".to_owned()),
                (root("cli"), "boots".to_owned()),
            ]
        );
        assert_eq!(ran.tally.to_string(), "4 passed, 1 failed");
    }

    #[test]
    fn a_program_of_unknown_source_gives_counts_but_no_evidence() {
        let mut transcript = Transcript::new(HashMap::new());
        OUTPUT.lines().for_each(|line| transcript.line(line));
        let mut ran = Ran::default();
        transcript.add_to(&mut ran);
        assert_eq!(ran.tally, Tally { passed: 4, failed: 1 });
        assert!(ran.passed.is_empty());
    }
}
