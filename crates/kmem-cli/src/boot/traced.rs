//! A machine that is traced: `kmem boot --trace FILE`.
//!
//! The file is to be whole however the process ends: [`finish`] is called at its end, before a signal or the
//! machine's kernel panic ends it. For a bug that aborts, and after SIGKILL, there is what the writer wrote
//! some milliseconds before.

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use kmem_host::Description;
use kmem_host::trace::{TraceFile, Written};

use crate::console;
use crate::exit::Exit;

/// A trace that is being written, and what its file is called.
pub struct Trace {
    pub file: TraceFile,
    name: String,
}

/// The trace of this process: one machine is traced.
static TRACE: OnceLock<Trace> = OnceLock::new();

/// Whether its end has been told of.
static TOLD: AtomicBool = AtomicBool::new(false);

/// Begins the trace of a machine.
pub fn start(path: &Path, description: &Description) -> Result<&'static Trace, Exit> {
    let name = path.display().to_string();
    if name == "-" {
        return Err(Exit::BadInput(
            "--trace - is not allowed: give a file, such as trace.txt, or /dev/stdout".into(),
        ));
    }
    let cannot = |error| Exit::BadInput(format!("cannot write the trace {name}: {error}"));
    let file = File::create(path).map_err(cannot)?;
    let file = TraceFile::start(file, description.cpus).map_err(cannot)?;
    Ok(TRACE.get_or_init(|| Trace { file, name }))
}

/// Writes out what has been recorded, where there is a trace, and says how much it is: the machine has ended,
/// or the process is about to end.
pub fn finish() -> Result<(), Exit> {
    let Some(Trace { file, name }) = TRACE.get() else { return Ok(()) };
    let Written { events, lost } = file
        .finish()
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
