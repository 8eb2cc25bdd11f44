//! A machine whose files are mounted, for as long as a test needs it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::Folder;

/// Longer than anything here takes, on a machine that does other things too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this host lets a test mount; says why where it does not.
pub fn can_mount() -> bool {
    let opened = File::options().read(true).write(true).open("/dev/fuse");
    if let Err(error) = &opened {
        println!("skipped: /dev/fuse cannot be opened: {error}");
    }
    opened.is_ok()
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "this did not come: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether something is mounted on a folder, without asking whoever serves it.
pub fn is_mount_point(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// `kmem boot --mount` on a folder of its own. Dropping it ends all.
pub struct Mounted {
    pub child: Child,
    pub folder: Folder,
    /// The mounted folder.
    pub root: PathBuf,
}

impl Mounted {
    /// Boots with these arguments beside `--mount`, with an open pipe as standard input.
    pub fn boot(arguments: &[&str]) -> Self {
        Mounted::boot_in(Folder::new(), arguments, Stdio::piped())
    }

    /// The same, whose commands are `commands` and `serve`.
    pub fn serving(commands: &str) -> Self {
        Mounted::boot(&["-c", &format!("{commands}; serve")]).with_modules(commands)
    }

    pub fn boot_in(folder: Folder, arguments: &[&str], input: Stdio) -> Self {
        let mut mounted = Mounted::start_in(folder, arguments, input);
        until("the mount", || {
            assert_eq!(mounted.child.try_wait().unwrap(), None, "{}", mounted.said());
            is_mount_point(&mounted.root)
        });
        mounted
    }

    pub fn start_in(folder: Folder, arguments: &[&str], input: Stdio) -> Self {
        let root = PathBuf::from(folder.path("root"));
        let _ = std::fs::create_dir(&root);
        let child = Command::new(env!("CARGO_BIN_EXE_kmem"))
            .arg("boot")
            .arg("--mount")
            .arg(&root)
            .args(arguments)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Mounted { child, folder, root }
    }

    /// Waits until the modules that some commands load have their files.
    fn with_modules(self, commands: &str) -> Self {
        for command in commands.split(';') {
            if let Some(module) = command.trim().strip_prefix("insmod ") {
                let name = module.split(' ').next().unwrap();
                until(command, || self.at(&format!("proc/{name}mem")).exists());
            }
        }
        self
    }

    /// A file of the machine's.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The same, as text.
    pub fn text(&self, path: &str) -> String {
        self.at(path).to_str().unwrap().to_owned()
    }

    /// Gives it a line of commands.
    pub fn enter(&mut self, line: &str) {
        writeln!(self.child.stdin.as_ref().unwrap(), "{line}").unwrap();
    }

    /// Runs a line of the host's shell in the mounted folder, and answers what it printed.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let (status, out, err) = self.try_sh(line);
        assert_eq!((status, err.as_str()), (0, ""), "{line}: {out}");
        out
    }

    /// The same, with the status and the errors.
    pub fn try_sh(&self, line: &str) -> (i32, String, String) {
        let output = Command::new("bash")
            .args(["-c", line])
            .current_dir(&self.root)
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is this test's child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        until("the end of kmem", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }

    /// What it has said on both streams. It has ended, or this waits for that.
    pub fn said(&mut self) -> String {
        let mut text = String::new();
        if let Some(out) = &mut self.child.stdout {
            out.read_to_string(&mut text).unwrap();
        }
        if let Some(err) = &mut self.child.stderr {
            err.read_to_string(&mut text).unwrap();
        }
        text
    }

    /// Ends it by a signal where it waits, and fails unless memory was complete and the folder is free.
    #[track_caller]
    pub fn end_well(mut self, signal: i32) {
        self.signal(signal);
        let status = self.wait();
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{}", self.said());
        assert!(!is_mount_point(&self.root));
        assert_eq!(std::fs::read_dir(&self.root).unwrap().count(), 0);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let path = std::ffi::CString::new(self.root.to_str().unwrap()).unwrap();
        for _ in 0..8 {
            if !is_mount_point(&self.root) {
                break;
            }
            // SAFETY: the path is a string with its end.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}
