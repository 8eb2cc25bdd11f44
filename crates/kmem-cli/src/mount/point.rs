//! The folder that the machine's files are mounted on.

use std::ffi::CString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use super::table;
use crate::console;
use crate::exit::Exit;

/// The kernel's door to FUSE.
const DEVICE: &str = "/dev/fuse";

/// As many dead mounts of one folder are taken away.
const MOST_DEAD: u32 = 64;

/// A folder that is there, is empty, and is nobody else's to mount on while this is there.
pub struct Point {
    path: PathBuf,
    /// Of the folder below the mount, with a lock that goes with it, however this process ends.
    _lock: File,
}

/// The mount that this process has, to be detached from wherever it ends.
static MOUNTED: Mutex<Option<Mounted>> = Mutex::new(None);

struct Mounted {
    path: PathBuf,
    /// Its number in the host's table.
    id: u64,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Point {
    /// Looks whether a folder can be mounted on, and takes away what a run that was killed has left there.
    ///
    /// # Errors
    ///
    /// It cannot: what is missing, in one line.
    pub fn claim(folder: &Path) -> Result<Self, Exit> {
        let shown = console::printable(&folder.display().to_string());
        let bad = |what: &str| Exit::BadInput(format!("cannot mount on {shown}: {what}"));
        let failed = |what: &str| Exit::Failed(format!("cannot mount on {shown}: {what}"));
        // Whoever serves what is mounted there may have been stopped, and would say nothing.
        let asked = folder.to_owned();
        let path =
            in_time(move || absolute(&asked)).unwrap_or_else(|| Err(ErrorKind::TimedOut.into()));
        let path = path.map_err(|error| match error.kind() {
            ErrorKind::NotFound => bad("there is no such folder: make it first"),
            ErrorKind::TimedOut => failed(
                "what is mounted there does not answer: end the program that serves it first",
            ),
            _ => bad(&error.to_string()),
        })?;
        let in_use = || failed("another machine's files are mounted there: end that one first");
        let table = |error: io::Error| failed(&format!("cannot read the table of mounts: {error}"));
        let machines = || {
            let mount = table::at(&path).map_err(table)?;
            Ok::<_, Exit>(mount.is_some_and(|mount| mount.is_machines()))
        };
        for _ in 0..MOST_DEAD {
            let asked = path.clone();
            match in_time(move || is_dead(&asked)) {
                Some(true) => {}
                Some(false) => break,
                None => return Err(in_use()),
            }
            if !machines()? {
                return Err(failed(
                    "a dead mount of another kind is there: take it away with `umount`",
                ));
            }
            detach_from(&path, libc::MNT_DETACH).map_err(|error| {
                failed(&format!("a run that was killed has left a mount there: {error}"))
            })?;
        }
        if machines()? {
            return Err(in_use());
        }
        let metadata = path.metadata().map_err(|error| bad(&error.to_string()))?;
        if !metadata.is_dir() {
            return Err(bad("it is no folder"));
        }
        let lock = File::open(&path).map_err(|error| failed(&error.to_string()))?;
        // SAFETY: the descriptor is open; the call touches no memory of this process.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(failed("another kmem has it"));
        }
        // The other may have mounted between the two looks; it still has the lock if it comes later.
        if machines()? {
            return Err(in_use());
        }
        if path.read_dir().is_ok_and(|mut names| names.next().is_some()) {
            return Err(bad(
                "it is not empty: what is in it could not be seen; give an empty folder",
            ));
        }
        match OpenOptions::new().read(true).write(true).open(DEVICE) {
            Ok(_) => Ok(Point { path, _lock: lock }),
            Err(error) => Err(failed(&match error.kind() {
                ErrorKind::NotFound => format!(
                    "there is no {DEVICE}: load the module fuse (`modprobe fuse`), or give this container \
                     the device"
                ),
                ErrorKind::PermissionDenied => {
                    format!("{DEVICE} cannot be opened: {error}; run as root")
                }
                _ => format!("{DEVICE} cannot be opened: {error}"),
            })),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that the mount is there, for [`detach`].
    pub fn note_mounted(&self) {
        // Without the table nobody knows the number, and 0 is no mount's.
        let id = table::at(&self.path).ok().flatten().map_or(0, |mount| mount.id);
        let mounted = Mounted { path: self.path.clone(), id };
        *MOUNTED.lock().unwrap_or_else(PoisonError::into_inner) = Some(mounted);
    }
}

impl Drop for Point {
    /// However the process goes on, nobody serves the files any more.
    fn drop(&mut self) {
        detach();
    }
}

/// The path from the root, without links. What is mounted there may be dead.
fn absolute(folder: &Path) -> io::Result<PathBuf> {
    match folder.canonicalize() {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            // The folder that it is in is alive.
            let whole = std::path::absolute(folder)?;
            match (whole.parent(), whole.file_name()) {
                (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
                _ => Err(error),
            }
        }
        path => path,
    }
}

/// How long an answer of a file system is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What `ask` answers, if it does so in time.
fn in_time<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, answer) = mpsc::channel();
    // Nobody waits for an answer that comes too late.
    let asking = thread::Builder::new().spawn(move || drop(send.send(ask()))).ok()?;
    let answer = answer.recv_timeout(PATIENCE).ok()?;
    // There are no other threads when this goes on.
    asking.join().ok()?;
    Some(answer)
}

/// Whether whoever served the mount has gone.
fn is_dead(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
}

/// Takes this process's mount, if it has one, out of the host's tree, whoever uses it, and fails all that
/// is asked of it from then on. Nothing of the machine is needed for it, and it may be called from anywhere
/// and more than once.
pub fn detach() {
    let mounted = MOUNTED.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Mounted { path, id }) = mounted else { return };
    // A folder above may have got another name.
    let path = table::path_of(id).ok().flatten().unwrap_or(path);
    // Somebody else may have unmounted it, and mounted something of theirs. No other machine's files are
    // there: this process has the folder.
    let ours = |mount: &table::Entry| mount.id == id && mount.is_machines();
    match table::all_at(&path).unwrap_or_default().as_slice() {
        [.., last] if ours(last) => {
            if let Err(error) = detach_from(&path, libc::MNT_DETACH | libc::MNT_FORCE) {
                // The next run on that folder finds it.
                let path = path.display();
                console::machine_message(&format!("a dead mount stays at {path}: {error}"));
            }
        }
        [below @ .., _] if below.iter().any(ours) => console::machine_message(&format!(
            "something else is mounted over {}: the machine's dead mount stays below it until both are \
             taken away with `umount`",
            path.display()
        )),
        _ => {}
    }
}

fn detach_from(path: &Path, how: i32) -> io::Result<()> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a string with its end.
    if unsafe { libc::umount2(text.as_ptr(), how | libc::UMOUNT_NOFOLLOW) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // Who may not unmount had a helper to mount, and has it to unmount.
    let helper = || Command::new("fusermount3").args(["-u", "-q", "-z", "--"]).arg(path).status();
    if error.kind() == ErrorKind::PermissionDenied && helper().is_ok_and(|status| status.success())
    {
        return Ok(());
    }
    Err(error)
}
