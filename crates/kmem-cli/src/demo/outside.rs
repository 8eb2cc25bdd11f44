//! What is shown from outside: other machines, each a process of its own as when it is typed, and the host's
//! programs on a machine's files.

use std::env;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::guide::{Guide, say};
use super::sample::Sample;
use crate::console::{COMMAND, printable};
use crate::exit::Exit;

/// High memory, on a machine that has some.
pub fn high_memory(guide: &mut Guide<'_>) -> Result<(), Exit> {
    guide.remark(
        "Another machine: a 32-bit PC with 2 GiB, of which the kernel sees 896 MB at all times. A page of \
         the\nrest has no address until it is mapped.",
    )?;
    kmem(&["boot", "--machine", "lkd-i386", "-c", "kmap"])?;
    guide.held("what was written by one address was read by another")
}

/// A machine with two nodes.
pub fn nodes(guide: &mut Guide<'_>) -> Result<(), Exit> {
    guide.remark(
        "A machine with two nodes: memory is near to some CPUs and far from others. What is asked of \
         node 1\ncomes from there, and elsewhere from the CPU's own.",
    )?;
    kmem(&[
        "boot",
        "--machine",
        "numa2",
        "-c",
        "alloc_pages GFP_KERNEL 3 1; alloc_pages GFP_KERNEL 3",
    ])?;
    guide.held("both were served")
}

/// What is set apart before there is a page allocator.
pub fn boot_time(guide: &mut Guide<'_>) -> Result<(), Exit> {
    guide.remark(
        "Memory that lies side by side is easiest to get at boot, before anybody else has some. Here 8 MiB\n\
         are set apart for drivers, and the RAM above 512 MiB is left to whoever knows of it.",
    )?;
    kmem(&[
        "boot",
        "--set",
        "command_line=mem=512M bigphysarea=2048",
        "-c",
        "cat /proc/iomem /proc/bigphysarea",
    ])?;
    guide.held("the machine runs in what is left")
}

/// Which call is the one to take.
pub fn advice(guide: &mut Guide<'_>) -> Result<(), Exit> {
    guide.remark(
        "Which call gets what a driver needs, and why; the letters are statements of the texts.",
    )?;
    kmem(&["advise", "--size", "300k", "--context", "interrupt"])?;
    guide.held("there is a call for that")
}

/// A trace, written and read.
pub fn trace(guide: &mut Guide<'_>, sample: &Sample) -> Result<(), Exit> {
    guide.remark(
        "A machine writes down all that its memory manager does, in the form of Linux's traces. The \
         summary\nsays who asked for how much, and what was still live at the end.",
    )?;
    let events = sample.place("events").display().to_string();
    kmem(&[
        "boot",
        "--machine",
        "tiny",
        "--trace",
        &events,
        "-c",
        "insmod scullc; echo x > /dev/scullc0",
    ])?;
    kmem(&["trace", "--top", "3", &events])?;
    guide.held("the trace was written, and is one")
}

/// The host's programs, on files of a machine.
pub fn files(guide: &mut Guide<'_>, sample: &Sample) -> Result<(), Exit> {
    guide.remark(
        "A machine's devices and texts are real files as well: a machine in the background serves them, and\n\
         any program of the host uses them.",
    )?;
    let folder = sample.place("machine");
    let root = folder.display().to_string();
    std::fs::create_dir(&folder)
        .map_err(|error| Exit::Failed(format!("cannot make {root}: {error}")))?;
    let words = ["boot", "--mount", &root, "-c", "insmod scull; serve"];
    say(format_args!("{COMMAND}$ kmem {} &{COMMAND:#}", line(&words)))?;
    let mut serving = Serving::start(&words)?;
    let device = folder.join("dev/scull0");
    if let Err(why) = serving.wait_for(&device)? {
        return say(format_args!("{why}\n(Not on this host: so much for this stop.)"));
    }
    let path = |path: &Path| path.display().to_string();
    let (file, device) = (path(&sample.file), path(&device));
    let meminfo = path(&folder.join("proc/meminfo"));
    for words in [&["cp", &file, &device][..], &["cmp", &file, &device], &["head", "-3", &meminfo]]
    {
        let line = line(words);
        say(format_args!("{COMMAND}$ {line}{COMMAND:#}"))?;
        ended_well(&line, Command::new(words[0]).args(&words[1..]).status())?;
    }
    serving.end()?;
    guide.held("what cp wrote, cmp has read; and the machine ended in order")
}

/// Runs this command with other arguments, as if they had been typed.
fn kmem(words: &[&str]) -> Result<(), Exit> {
    let line = format!("kmem {}", line(words));
    say(format_args!("{COMMAND}$ {line}{COMMAND:#}"))?;
    let mut command = this()?;
    command.args(words).stdin(Stdio::null()).stdout(Stdio::inherit()).stderr(Stdio::piped());
    let output = command.output();
    // What it tells people beside its output is part of what there is to see.
    if let Ok(output) = &output {
        let told = String::from_utf8_lossy(&output.stderr);
        told.lines().try_for_each(|line| say(format_args!("{line}")))?;
    }
    ended_well(&line, output.map(|output| output.status))
}

/// This program.
fn this() -> Result<Command, Exit> {
    let path = env::current_exe();
    path.map(Command::new)
        .map_err(|error| Exit::Failed(format!("cannot find this program: {error}")))
}

/// The line that a person would type.
fn line(words: &[&str]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+=".contains(c);
    let quote = |word: &&str| match word.chars().all(plain) {
        true => (*word).into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    printable(&words.iter().map(quote).collect::<Vec<_>>().join(" ")).to_string()
}

fn ended_well(line: &str, status: std::io::Result<std::process::ExitStatus>) -> Result<(), Exit> {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) if status.code() == Some(Exit::Closed.status().into()) => Err(Exit::Closed),
        Ok(status) => Err(Exit::Failed(format!("`{line}` ended with {status}"))),
        Err(error) => Err(Exit::Failed(format!("cannot run `{line}`: {error}"))),
    }
}

/// A machine in the background, which ends with this.
struct Serving(Child);

/// For how long a machine may boot.
const PATIENCE: Duration = Duration::from_secs(30);

impl Serving {
    fn start(words: &[&str]) -> Result<Self, Exit> {
        let mut command = this()?;
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn();
        child.map(Serving).map_err(|error| Exit::Failed(format!("cannot start a machine: {error}")))
    }

    /// Waits until a file is there. If the machine ends before: what it said.
    fn wait_for(&mut self, file: &Path) -> Result<Result<(), String>, Exit> {
        let failed = |error: &dyn fmt::Display| Exit::Failed(format!("the machine: {error}"));
        let begun = Instant::now();
        while !file.exists() {
            if self.0.try_wait().map_err(|error| failed(&error))?.is_some() {
                let mut said = String::new();
                if let Some(errors) = &mut self.0.stderr {
                    errors.read_to_string(&mut said).map_err(|error| failed(&error))?;
                }
                return Ok(Err(said.trim_end().to_owned()));
            }
            if begun.elapsed() > PATIENCE {
                return Err(failed(&"its files do not come"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Ok(()))
    }

    /// Has it end as Ctrl-C would.
    fn end(mut self) -> Result<(), Exit> {
        self.interrupt();
        ended_well("kmem boot --mount", self.0.wait())
    }

    fn interrupt(&self) {
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGINT) };
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.interrupt();
            let _ = self.0.wait();
        }
    }
}
