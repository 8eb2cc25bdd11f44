//! What the build and the tests need beside Rust itself, and how it comes onto the machine.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::ui::{self, BadInput};
use crate::workspace::{Workspace, run};

struct Program {
    name: &'static str,
    /// The Debian packages that make it work, without recommended ones.
    packages: &'static [&'static str],
}

const PROGRAMS: &[Program] = &[
    // Links every program and test; the C library's start files are in a package of their own.
    Program { name: "cc", packages: &["gcc", "libc6-dev"] },
    // Reads the symbols of the freestanding build.
    Program { name: "nm", packages: &["binutils"] },
    // The tests of what is seen at a terminal.
    Program { name: "tmux", packages: &["tmux"] },
];

/// What a PC is booted with.
const PC: &[Program] = &[Program { name: "qemu-system-x86_64", packages: &["qemu-system-x86"] }];

/// Parts of the Rust toolchain that a minimal installation lacks: the cargo command, the component.
const COMPONENTS: &[(&str, &str)] = &[("fmt", "rustfmt"), ("clippy", "clippy")];

/// Installs what is missing where it may, else says what to run.
pub fn check(ws: &Workspace) -> Result<()> {
    install(PROGRAMS)?;
    check_pc()?;
    let components: Vec<&str> = COMPONENTS
        .iter()
        .filter(|(command, _)| {
            !ws.cargo([command, "--version"]).output().is_ok_and(|o| o.status.success())
        })
        .map(|&(_, component)| component)
        .collect();
    if !components.is_empty() {
        let advice = format!("missing: run `rustup component add {}`", components.join(" "));
        return Err(BadInput(advice).into());
    }
    Ok(())
}

/// The same for what a PC is booted with.
pub fn check_pc() -> Result<()> {
    install(PC)
}

fn install(programs: &[Program]) -> Result<()> {
    let missing = missing_packages(programs, on_path);
    if missing.is_empty() {
        return Ok(());
    }
    if !(is_root() && Path::new("/etc/debian_version").exists() && on_path("apt-get")) {
        return Err(BadInput(apt_advice(&missing)).into());
    }
    ui::note(&format!("installing {}", missing.join(" ")));
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], &*missing].concat())
}

fn missing_packages(programs: &[Program], present: impl Fn(&str) -> bool) -> Vec<&'static str> {
    programs.iter().filter(|p| !present(p.name)).flat_map(|p| p.packages).copied().collect()
}

fn apt_advice(packages: &[&str]) -> String {
    format!("missing: run `sudo apt-get update && sudo apt-get install -y {}`", packages.join(" "))
}

fn apt(args: &[&str]) -> Result<()> {
    run(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args))
        .context("set-up")
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The owner of our entry in /proc is our effective user.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_packages_of_missing_programs_only() {
        assert_eq!(missing_packages(PROGRAMS, |_| true), Vec::<&str>::new());
        assert_eq!(missing_packages(PROGRAMS, |name| name != "cc"), ["gcc", "libc6-dev"]);
    }

    #[test]
    fn advice_is_a_line_to_run() {
        assert_eq!(
            apt_advice(&["gcc", "libc6-dev"]),
            "missing: run `sudo apt-get update && sudo apt-get install -y gcc libc6-dev`"
        );
    }
}
