//! A run of QEMU: its output as it comes, a bound on its time, and an end of it whatever happens to us.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::workspace::shown;

/// How a run ended.
pub enum End {
    /// By itself.
    Ended(ExitStatus),
    /// Its time was over.
    TimedOut,
    /// By a signal to this process.
    Signalled(u8),
}

/// How often is looked whether a run is to end.
const LOOK: Duration = Duration::from_millis(20);

/// How long QEMU may take to give the terminal back, once it is asked to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs QEMU, for at most so long, and passes what it writes to `each`, as it comes. Where `each`
/// fails QEMU is ended. Where QEMU's standard input is piped, it gets ours. One machine at a time:
/// signals are for the one that runs.
///
/// # Errors
///
/// QEMU cannot be started, or what `each` answered.
pub fn run(
    qemu: &mut Command,
    bound: Option<Duration>,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<End> {
    let signals = Signals::get()?;
    signals.idle.store(false, Relaxed);
    let end = run_watched(qemu, bound, signals, &mut each);
    signals.idle.store(true, Relaxed);
    end
}

fn run_watched(
    qemu: &mut Command,
    bound: Option<Duration>,
    signals: &Signals,
    each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<End> {
    qemu.stdout(Stdio::piped());
    // SAFETY: one system call, which is allowed between fork and exec.
    unsafe {
        // Whatever ends this process, QEMU does not go on without it.
        qemu.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let mut child = qemu.spawn().with_context(|| format!("cannot start {}", shown(qemu)))?;
    if let Some(mut input) = child.stdin.take() {
        // Nobody waits for it: its reads end when our input does. That QEMU has ended is seen elsewhere.
        std::thread::spawn(move || feed(&mut io::stdin().lock(), &mut input));
    }
    let output = child.stdout.take();
    let unread = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // It sees to the end of QEMU, which is the end of the output.
        let watch = scope.spawn(|| watch(&mut child, bound, signals, &unread));
        let read = output.map_or(Ok(()), |mut output| pass(&mut output, each));
        unread.store(read.is_err(), Relaxed);
        let end = watch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        read.context("what the machine writes cannot be passed on")?;
        Ok(end)
    })
}

/// What ends the input of a console, on a line of its own: Ctrl-D.
const END_OF_INPUT: u8 = 4;

/// Passes input on as it comes, and behind it its end.
fn feed(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut last = b'\n';
    pass(from, &mut |bytes| {
        last = bytes.last().copied().unwrap_or(last);
        to.write_all(bytes)
    })?;
    if !matches!(last, b'\r' | b'\n') {
        to.write_all(b"\n")?;
    }
    to.write_all(&[END_OF_INPUT])
}

fn pass(output: &mut dyn Read, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => each(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits for the end of QEMU, or ends it: when its time is over, at a signal, or when nobody reads
/// any more.
fn watch(
    child: &mut Child,
    bound: Option<Duration>,
    signals: &Signals,
    unread: &AtomicBool,
) -> io::Result<End> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            // A terminal's signals go to both of us: it was QEMU that was sooner.
            std::thread::sleep(LOOK);
            return Ok(signals.end().unwrap_or(End::Ended(status)));
        }
        let over = bound.is_some_and(|bound| begun.elapsed() > bound).then_some(End::TimedOut);
        if let Some(end) = signals.end().or(over) {
            stop(child)?;
            return Ok(end);
        }
        if unread.load(Relaxed) {
            return stop(child).map(End::Ended);
        }
        std::thread::sleep(LOOK);
    }
}

/// Has QEMU end, and makes it where it does not: a terminal that it changed is as before only when it
/// ends by itself.
fn stop(child: &mut Child) -> io::Result<ExitStatus> {
    // It may have ended just now; then this finds nothing.
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let asked = Instant::now();
    while asked.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(LOOK);
    }
    child.kill()?;
    child.wait()
}

/// Signals that ask this process to end. While a machine runs they end that first.
struct Signals {
    /// Which one came; 0: none did.
    came: Arc<AtomicUsize>,
    /// No machine runs: they do what they do to any program.
    idle: Arc<AtomicBool>,
}

impl Signals {
    /// Those of this process.
    fn get() -> io::Result<&'static Signals> {
        static SIGNALS: LazyLock<io::Result<Signals>> = LazyLock::new(Signals::register);
        SIGNALS.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }

    fn register() -> io::Result<Signals> {
        let signals = Signals { came: Arc::default(), idle: Arc::new(AtomicBool::new(true)) };
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            flag::register_conditional_default(signal, signals.idle.clone())?;
            flag::register_usize(signal, signals.came.clone(), signal as usize)?;
        }
        Ok(signals)
    }

    fn end(&self) -> Option<End> {
        let signal = u8::try_from(self.came.load(Relaxed)).ok();
        signal.filter(|signal| *signal != 0).map(End::Signalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdin(Stdio::null());
        shell
    }

    #[test]
    fn output_is_passed_on_up_to_the_end() {
        let mut all = Vec::new();
        let end = run(&mut shell("printf 'one\\ntwo'; exit 33"), None, |bytes| {
            all.extend_from_slice(bytes);
            Ok(())
        });
        assert!(matches!(end, Ok(End::Ended(status)) if status.code() == Some(33)));
        assert_eq!(all, b"one\ntwo");
    }

    #[test]
    fn input_is_passed_on_and_ends_on_a_line_of_its_own() {
        for (input, fed) in [
            ("", "\x04"),
            ("echo x\n", "echo x\n\x04"),
            ("echo x\r\n", "echo x\r\n\x04"),
            ("echo x\necho y", "echo x\necho y\n\x04"),
        ] {
            let mut all = Vec::new();
            feed(&mut input.as_bytes(), &mut all).unwrap();
            assert_eq!(all, fed.as_bytes(), "{input:?}");
        }
    }

    #[test]
    fn what_hangs_is_ended() {
        // It writes, and then nothing but its end ends it.
        let mut hangs = Command::new("sleep");
        hangs.arg("1000");
        let end = run(&mut hangs, Some(Duration::from_millis(50)), |_| Ok(()));
        assert!(matches!(end, Ok(End::TimedOut)));
    }

    #[test]
    fn what_nobody_reads_is_ended() {
        let broken = |_: &[u8]| Err(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(run(&mut shell("echo one; exec sleep 1000"), None, broken).is_err());
    }
}
