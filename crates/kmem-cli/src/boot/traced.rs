//! A machine that is traced: `kmem boot --trace FILE`.
//!
//! The file is to be whole however the process ends: [`finish`] is called at its end, before a signal or the
//! machine's kernel panic ends it. For a bug that aborts, and after SIGKILL, there is what the writer wrote
//! some milliseconds before.

use std::fs::{File, Metadata};
use std::io::{stderr, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use kmem_host::Description;
use kmem_host::trace::{TraceFile, WriteError, Written};

use crate::console;
use crate::exit::Exit;

/// A trace that is being written, and what its file is called.
pub struct Trace {
    pub file: TraceFile,
    name: String,
}

/// The trace of this process: one machine is traced.
static TRACE: OnceLock<Trace> = OnceLock::new();

/// For how long a process that a signal ends waits for the trace to be written out.
const SOON: Duration = Duration::from_millis(500);

/// Whether its end has been told of.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Begins the trace of a machine.
pub fn start(path: &Path, description: &Description) -> Result<&'static Trace, Exit> {
    let name = path.display().to_string();
    if name == "-" {
        return Err(Exit::BadInput(
            "--trace - is not allowed: give a file, such as trace.txt".into(),
        ));
    }
    if is_output(path) {
        return Err(Exit::BadInput(format!(
            "cannot write the trace {name}: the output goes to that file; give another one"
        )));
    }
    let cannot = |error| Exit::BadInput(format!("cannot write the trace {name}: {error}"));
    let file = File::create(path).map_err(cannot)?;
    let file = TraceFile::start(file, description.cpus).map_err(cannot)?;
    Ok(TRACE.get_or_init(|| Trace { file, name }))
}

/// Whether standard output or standard error is this file of a disk: each would write over the other.
fn is_output(path: &Path) -> bool {
    let identity =
        |metadata: Metadata| metadata.is_file().then(|| (metadata.dev(), metadata.ino()));
    let of = |output: BorrowedFd<'_>| {
        let file = output.try_clone_to_owned().map(File::from);
        file.and_then(|file| file.metadata()).ok().and_then(identity)
    };
    let file = std::fs::metadata(path).ok().and_then(identity);
    file.is_some() && [of(stdout().as_fd()), of(stderr().as_fd())].contains(&file)
}

/// Writes out what has been recorded, where there is a trace, and says how much it is: the machine has ended.
pub fn finish() -> Result<(), Exit> {
    finish_by(TraceFile::finish)
}

/// The same where the process is about to end, whoever does not read what is written.
pub fn finish_soon() -> Result<(), Exit> {
    finish_by(|file| file.finish_within(SOON))
}

fn finish_by(finish: impl FnOnce(&TraceFile) -> Result<Written, WriteError>) -> Result<(), Exit> {
    let Some(Trace { file, name }) = TRACE.get() else { return Ok(()) };
    let Written { events, lost } = finish(file)
        .map_err(|error| Exit::Failed(format!("cannot write the trace {name}: {error}")))?;
    if !TOLD.swap(true, Relaxed) {
        console::machine_message(&match lost {
            0 => format!("{name}: {events} events"),
            _ => format!("{name}: {events} events, and {lost} were lost: the buffers were full"),
        });
    }
    Ok(())
}

/// [`finish`] after what the machine came to.
pub fn finish_after(ended: Result<(), Exit>) -> Result<(), Exit> {
    match (finish(), ended) {
        (Ok(()), ended) => ended,
        (Err(exit), Ok(())) => Err(exit),
        (Err(unwritten), Err(exit)) => {
            unwritten.tell();
            Err(exit)
        }
    }
}
