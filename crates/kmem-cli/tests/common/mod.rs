//! Running the `kmem` command.

#![allow(dead_code, reason = "each test file uses some of it")]

pub mod mounted;
pub mod session;
pub mod tmux;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What the command said and how it ended.
pub struct Run {
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// Runs `kmem` with these arguments.
pub fn kmem(arguments: &[&str]) -> Run {
    kmem_with(arguments, b"")
}

/// Runs `kmem` with these arguments and this on standard input.
pub fn kmem_with(arguments: &[&str], input: &[u8]) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kmem"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Run {
        status: status.code().expect("ended by a signal"),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// Runs `kmem` with these arguments while nobody reads its standard output.
pub fn kmem_unread(arguments: &[&str]) -> Run {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut kmem = Command::new(env!("CARGO_BIN_EXE_kmem"));
    let kmem = kmem.args(arguments).stdin(Stdio::null()).stdout(writer);
    let Output { status, stderr, .. } =
        kmem.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let status = status.code().expect("ended by a signal");
    Run { status, out: String::new(), err: String::from_utf8(stderr).unwrap() }
}

/// Runs commands on a small machine.
pub fn tiny(commands: &str) -> Run {
    kmem(&["boot", "--machine", "tiny", "-c", commands])
}

impl Run {
    /// Fails unless the command ended well and had nothing to complain about.
    #[track_caller]
    pub fn well(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// Fails unless the command ended with this status and one line that contains `needle`.
    #[track_caller]
    pub fn complains(self, status: i32, needle: &str) {
        assert_eq!(self.status, status, "{needle:?}: {}", self.err);
        assert_eq!(self.err.lines().count(), 1, "{needle:?}: {}", self.err);
        assert!(self.err.contains(needle), "{needle:?}: {}", self.err);
    }
}

/// A folder of its own that goes away with this.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kmem-cli-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// The path of a file in it, as text.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Makes a file of `bytes` bytes that no page repeats, and answers its path.
    pub fn file(&self, name: &str, bytes: usize) -> String {
        let mut x = bytes as u64;
        let content: Vec<u8> = std::iter::repeat_with(|| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (x >> 56) as u8
        })
        .take(bytes)
        .collect();
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
