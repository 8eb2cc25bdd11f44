//! The proof that `kmem` needs neither std nor alloc.
//!
//! A generated crate links kmem into a static library with a panic handler of its own and no
//! allocator. For such a final product rustc refuses a graph that contains `alloc` ("no global
//! memory allocator found") or `std` (two panic handlers), even where nothing of them is used.
//! What rustc cannot see is a symbol that is declared by hand, so the undefined symbols of the
//! result are read as well. The target is the host's: nothing is downloaded.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{ALL_FEATURES, Read, Workspace, lines, run, shown};

const SOURCE: &str = "\
#![no_std]
#![no_main]
extern crate kmem;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
";

/// The C functions that rustc's generated code calls on every target, and a kernel supplies.
const RUNTIME: &[&str] = &["memcpy", "memmove", "memset", "memcmp", "bcmp", "strlen"];

/// Builds kmem with and without its features and checks what each build asks of others.
pub fn check(ws: &Workspace) -> Result<()> {
    let folder = ws.target.join("freestanding");
    write_crate(ws, &folder)?;
    for features in [&[][..], &["--features", ALL_FEATURES]] {
        let mut build = ws.cargo([&["build", "--quiet"], features].concat());
        build.current_dir(&folder).env("CARGO_TARGET_DIR", folder.join("target"));
        run(&mut build).context("kmem does not build without std and alloc")?;
        let foreign = foreign_symbols(&folder.join("target/debug/libfreestanding.a"))?;
        if !foreign.is_empty() {
            bail!(
                "kmem asks for symbols that a kernel does not have: {} (in {})",
                foreign.join(", "),
                shown(&build)
            );
        }
    }
    Ok(())
}

fn write_crate(ws: &Workspace, folder: &Path) -> Result<()> {
    let kmem = ws.root.join("crates/kmem");
    let manifest = format!(
        "[package]\nname = \"freestanding\"\nedition = \"2024\"\n\n\
         [lib]\npath = \"lib.rs\"\ncrate-type = [\"staticlib\"]\n\n\
         [dependencies]\nkmem = {{ path = {kmem:?} }}\n\n\
         [features]\nx86_64 = [\"kmem/x86_64\"]\n\
         allocator-api2 = [\"kmem/allocator-api2\"]\n\n\
         [profile.dev]\npanic = \"abort\"\n\n\
         [workspace]\n"
    );
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("Cargo.toml"), manifest)?;
    std::fs::write(folder.join("lib.rs"), SOURCE)?;
    // The workspace's own versions, and no look at a registry for newer ones.
    let lock = ws.root.join("Cargo.lock");
    std::fs::copy(&lock, folder.join("Cargo.lock"))
        .with_context(|| format!("cannot copy {}", lock.display()))?;
    Ok(())
}

fn foreign_symbols(library: &Path) -> Result<Vec<String>> {
    let mut nm = Command::new("nm");
    // Rust's own core carries members that nm does not know; it says so and reads on.
    nm.arg("--undefined-only").arg(library).stderr(std::process::Stdio::null());
    let (mut ours, mut foreign) = (false, Vec::new());
    lines(&mut nm, Read::Output, |line| {
        ours |= line.starts_with("kmem-");
        if let Some(symbol) = line.trim_start().strip_prefix("U ")
            && let Some(name) = foreign_name(symbol)
        {
            foreign.push(name);
        }
    })?;
    if !ours {
        bail!("{} showed no object file of kmem", shown(&nm));
    }
    foreign.sort();
    foreign.dedup();
    Ok(foreign)
}

/// The readable name of a symbol that neither `core` nor a kernel supplies.
fn foreign_name(symbol: &str) -> Option<String> {
    let Ok(path) = rustc_demangle::try_demangle(symbol) else {
        // `__udivti3` and its like are compiler_builtins'; `__rust_alloc` and its like are not.
        let builtin = symbol.starts_with("__") && !symbol.starts_with("__r");
        return (!builtin && !RUNTIME.contains(&symbol)).then(|| symbol.to_owned());
    };
    let path = format!("{path:#}");
    (names_crate(&path, "std") || names_crate(&path, "alloc") || path.contains("__rust_"))
        .then_some(path)
}

/// Whether a path in `name` begins with the crate: `<alloc::x::Y as core::z>` does,
/// `core::alloc::Layout` does not.
fn names_crate(name: &str, krate: &str) -> bool {
    name.match_indices(&format!("{krate}::")).any(|(at, _)| {
        let before = name[..at].chars().next_back();
        !before.is_some_and(|c| c == ':' || c == '_' || c.is_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::foreign_name;

    #[test]
    fn core_and_the_runtime_are_not_foreign() {
        for symbol in [
            "memcpy",
            "__udivti3",
            "_ZN4core5alloc6layout6Layout12is_size_alig17h6e457dd70d758b4cE",
            "_ZN4core9panicking5panic17h6e457dd70d758b4cE",
            "_ZN4kmem5buddy5alloc17h6e457dd70d758b4cE",
        ] {
            assert_eq!(foreign_name(symbol), None, "{symbol}");
        }
    }

    #[test]
    fn allocators_std_and_libc_are_foreign() {
        for symbol in [
            "malloc",
            "__rust_alloc",
            "_RNvCsdBezzDwma51_7___rustc12___rust_alloc",
            "_ZN5alloc5alloc18handle_alloc_error17h6e457dd70d758b4cE",
            "_ZN3std2io5stdio6_print17h6e457dd70d758b4cE",
            "_ZN5alloc7raw_vec19RawVec$LT$T$C$A$GT$8grow_one17h6e457dd70d758b4cE",
        ] {
            assert!(foreign_name(symbol).is_some(), "{symbol}");
        }
    }
}
