//! The file, and the thread that writes it.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Record, Recorder, text};

/// How long the writer sleeps where there was nothing to do, and where there was.
const IDLE: Duration = Duration::from_millis(10);
const BUSY: Duration = Duration::from_millis(1);

/// How full a ring is, in hundredths, when the writer does not sleep at all.
const FULL: u64 = 20;

/// What a trace file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Events in the file.
    pub events: u64,
    /// Events that found no place.
    pub lost: u64,
}

/// A trace that is being written.
///
/// A regular file has a header, whose counts are right at any time; anything else (a pipe, a terminal) has
/// none, as what Linux's `trace_pipe` says has none.
///
/// Dropping it ends the trace as [`TraceFile::finish`] does.
pub struct TraceFile {
    recorder: Arc<Recorder>,
    end: Arc<End>,
    /// The writer; `None` when it has ended.
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// How the writer is told to end, and says how it went.
#[derive(Default)]
struct End {
    is_wanted: AtomicBool,
    result: Mutex<Option<Result<Written, WriteError>>>,
    told: Condvar,
}

/// Why a trace is not all there: what the system says of the file.
#[derive(Clone, Debug)]
pub struct WriteError(Arc<io::Error>);

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for WriteError {}

impl TraceFile {
    /// Begins a trace of a machine with so many CPUs in a file, which is empty and open for writing.
    ///
    /// # Errors
    ///
    /// The file takes nothing, or the host has no thread to give.
    pub fn start(file: File, cpus: u32) -> io::Result<TraceFile> {
        let recorder = Arc::new(Recorder::new(cpus));
        let end = Arc::new(End::default());
        let has_header = file.metadata()?.is_file();
        let mut writer = Writer {
            recorder: Arc::clone(&recorder),
            file,
            has_header,
            waiting: Vec::new(),
            out: String::new(),
            events: 0,
        };
        writer.begin()?;
        let told = Arc::clone(&end);
        let writer = std::thread::Builder::new().name("trace".into()).spawn(move || {
            let result = writer.run(&told.is_wanted).map_err(|error| WriteError(Arc::new(error)));
            writer.recorder.is_read.store(false, Relaxed);
            *told.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            told.told.notify_all();
        })?;
        recorder.is_read.store(true, Relaxed);
        Ok(TraceFile { recorder, end, writer: Mutex::new(Some(writer)) })
    }

    /// What a machine writes to that is traced by this.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Writes what has been recorded so far, and ends the trace: what comes later is lost. May be called
    /// again, and by several threads; not by handlers. The machine may still run.
    ///
    /// # Errors
    ///
    /// The file did not take all of it.
    pub fn finish(&self) -> Result<Written, WriteError> {
        let result = self.end_writer();
        let ended = self.end.told.wait_while(result, |result| result.is_none());
        let ended = ended.unwrap_or_else(PoisonError::into_inner);
        ended.clone().unwrap_or_else(|| Err(WriteError(Arc::new(ErrorKind::TimedOut.into()))))
    }

    /// [`TraceFile::finish`] that does not wait for longer than `limit`: a pipe takes nothing while its reader
    /// does not read.
    ///
    /// # Errors
    ///
    /// Those of [`TraceFile::finish`], and [`ErrorKind::TimedOut`].
    pub fn finish_within(&self, limit: Duration) -> Result<Written, WriteError> {
        let result = self.end_writer();
        let ended = self.end.told.wait_timeout_while(result, limit, |result| result.is_none());
        let (ended, _) = ended.unwrap_or_else(PoisonError::into_inner);
        ended.clone().unwrap_or_else(|| Err(WriteError(Arc::new(ErrorKind::TimedOut.into()))))
    }

    /// Tells the writer to end. Answers where it says how it went.
    fn end_writer(&self) -> MutexGuard<'_, Option<Result<Written, WriteError>>> {
        self.end.is_wanted.store(true, Relaxed);
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            writer.thread().unpark();
        }
        self.end.result.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

/// The thread's own.
struct Writer {
    recorder: Arc<Recorder>,
    file: File,
    has_header: bool,
    /// Records that are not certain to be next, in the order of time.
    waiting: Vec<Record>,
    /// Text that is on its way to the file.
    out: String,
    /// Events in the file.
    events: u64,
}

impl Writer {
    fn begin(&mut self) -> io::Result<()> {
        if self.has_header {
            self.file.write_all(self.header().as_bytes())?;
        }
        Ok(())
    }

    fn header(&self) -> String {
        let written = self.events + self.recorder.lost();
        text::header(self.events, written, self.recorder.cpus.len())
    }

    /// Writes until the end is wanted.
    fn run(&mut self, end_is_wanted: &AtomicBool) -> io::Result<Written> {
        loop {
            // Before the rings are emptied: what was there then is written.
            let is_last = end_is_wanted.load(Relaxed);
            let wrote = self.write_out(is_last)?;
            if is_last {
                return Ok(Written { events: self.events, lost: self.recorder.lost() });
            }
            if self.recorder.percent() < FULL {
                std::thread::park_timeout(if wrote { BUSY } else { IDLE });
            }
        }
    }

    /// Empties the rings, and writes what is certain to be next; all of it at the end. Answers whether there
    /// was anything.
    fn write_out(&mut self, is_last: bool) -> io::Result<bool> {
        let complete = self.recorder.take(&mut self.waiting);
        // Each ring is nearly in order already, which this kind of sorting makes use of; it leaves events of
        // one moment as their CPU told of them.
        self.waiting.sort_by_key(|record| record.time);
        let next = match is_last {
            true => self.waiting.len(),
            false => self.waiting.partition_point(|record| record.time < complete),
        };
        self.out.clear();
        for record in self.waiting.drain(..next) {
            // A text takes all that is written to it.
            let _ = text::line(&mut self.out, &record);
        }
        if is_last {
            for (cpu, lost) in self.recorder.lost_at_end() {
                let _ = text::lost_line(&mut self.out, cpu, lost);
            }
        }
        if self.out.is_empty() {
            return Ok(false);
        }
        let text = self.out.as_bytes();
        let (arrived, result) = write_most(&mut self.file, text);
        // Of a file that took a part the last line may be cut off.
        let whole =
            text[..arrived].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = text[..whole].iter().filter(|byte| **byte == b'\n').count();
        // Behind the events there may be lines on those that were lost.
        self.events += lines.min(next) as u64;
        if self.has_header {
            if whole < arrived {
                let length = self.file.metadata()?.len();
                self.file.set_len(length - (arrived - whole) as u64)?;
            }
            // It takes no more room, so that there is some even where there was none for the lines.
            self.file.write_all_at(self.header().as_bytes(), 0)?;
        }
        result.map(|()| true)
    }
}

/// Writes as much as the file takes, and answers how many bytes that is, and why it is not all.
fn write_most(file: &mut impl io::Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut arrived = 0;
    while arrived < bytes.len() {
        match file.write(&bytes[arrived..]) {
            Ok(0) => return (arrived, Err(ErrorKind::WriteZero.into())),
            Ok(count) => arrived += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (arrived, Err(error)),
        }
    }
    (arrived, Ok(()))
}
