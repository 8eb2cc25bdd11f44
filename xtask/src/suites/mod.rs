//! The project's tests: how they are run, and what their output says.

mod scan;
mod transcript;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

pub use scan::identified_tests;
pub use transcript::Tally;
use transcript::Transcript;

use crate::ui;
use crate::workspace::{ALL_FEATURES, Read, Workspace, lines, shown};

/// The file that a test program is built from, and the name of its target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    pub file: PathBuf,
    pub target: String,
}

/// What ran so far.
#[derive(Default)]
pub struct Ran {
    pub tally: Tally,
    /// Every test that passed: its program and its path in it, `buddy::tests::splits`.
    pub passed: Vec<(Root, String)>,
}

/// Runs every suite of the workspace up to the first that fails; `ran` also keeps what ran before.
pub fn run_all(ws: &Workspace, ran: &mut Ran) -> Result<()> {
    programs(ws, &["--workspace", "--all-targets"], ran, |_| ())?;
    doctests(ws, &["--workspace"], ran)?;
    let x86_64 = ["--package", "kmem", "--features", ALL_FEATURES];
    programs(ws, &[&x86_64[..], &["--all-targets"]].concat(), ran, |_| ())?;
    doctests(ws, &x86_64, ran)?;
    if ws.root.join("crates/kmem/src/models.rs").exists() {
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
        let models = ["--package", "kmem", "--release", "--lib"];
        programs(ws, &models, ran, |cargo| {
            // A folder of its own: other flags would rebuild everything in the common one.
            cargo
                .env("RUSTFLAGS", format!("{flags} --cfg loom"))
                .env("CARGO_TARGET_DIR", ws.target.join("loom"));
        })?;
    }
    Ok(())
}

fn doctests(ws: &Workspace, packages: &[&str], ran: &mut Ran) -> Result<()> {
    let mut test = ws.cargo([&["test", "--doc"], packages].concat());
    stream(&mut test, HashMap::new(), ran)
}

/// Builds the test programs, which tells the source of each, and then runs them.
fn programs(
    ws: &Workspace,
    args: &[&str],
    ran: &mut Ran,
    set: impl Fn(&mut Command),
) -> Result<()> {
    let mut build = ws.cargo([&["test"], args].concat());
    build.args(["--no-run", "--message-format=json-render-diagnostics"]);
    set(&mut build);
    let mut roots = HashMap::new();
    let mut wrong = None;
    let built = lines(&mut build, Read::Output, |line| match artifact(line) {
        Ok(Some((program, root))) => {
            roots.insert(program, root);
        }
        Ok(None) => {}
        Err(error) => wrong = Some(error),
    })?;
    if !built {
        bail!("{} failed", shown(&build));
    }
    if let Some(error) = wrong {
        return Err(error).with_context(|| format!("output of {}", shown(&build)));
    }
    let mut test = ws.cargo([&["test"], args].concat());
    set(&mut test);
    stream(&mut test, roots, ran)
}

/// Shows a test run's output as it comes and adds what it says to `ran`.
fn stream(test: &mut Command, roots: HashMap<String, Root>, ran: &mut Ran) -> Result<()> {
    ui::note(&shown(test));
    let mut transcript = Transcript::new(roots);
    let succeeded = lines(test, Read::Both, |line| {
        println!("{line}");
        transcript.line(&anstream::adapter::strip_str(line).to_string());
    })?;
    let failed = transcript.add_to(ran);
    if !succeeded || failed > 0 {
        bail!("{} failed", shown(test));
    }
    Ok(())
}

/// The file name and source of a test program, from one line of cargo's JSON messages.
fn artifact(line: &str) -> Result<Option<(String, Root)>> {
    #[derive(Deserialize)]
    struct Message {
        target: Option<Target>,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
        src_path: PathBuf,
    }
    let message: Message = serde_json::from_str(line)?;
    let (Some(target), Some(program)) = (message.target, message.executable) else {
        return Ok(None);
    };
    let root = Root { file: target.src_path, target: target.name };
    Ok(Some((file_name(&program), root)))
}

/// The last part of a path: cargo's programs carry a hash there, so it tells them apart.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_with_a_program_names_its_source() {
        let line = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"cpus",
            "src_path":"/r/crates/kmem/tests/cpus.rs"},"executable":"/r/target/debug/deps/cpus-1f"}"#;
        let root = Root { file: "/r/crates/kmem/tests/cpus.rs".into(), target: "cpus".into() };
        assert_eq!(artifact(line).unwrap(), Some(("cpus-1f".to_owned(), root)));
    }

    #[test]
    fn other_messages_are_passed_over_and_nonsense_is_refused() {
        assert_eq!(artifact(r#"{"reason":"build-finished","success":true}"#).unwrap(), None);
        let library = r#"{"target":{"name":"kmem","src_path":"/r/lib.rs"},"executable":null}"#;
        assert_eq!(artifact(library).unwrap(), None);
        assert!(artifact("not json").is_err());
    }
}
