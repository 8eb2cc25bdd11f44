//! `cargo xtask pc`: builds the kernel of `kmem-pc` and boots it in QEMU.

pub mod list;
mod machine;
mod patient;
pub mod shown;
mod symbols;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::setup;
use crate::ui::{self, BadInput};
use crate::workspace::{Workspace, run};
use machine::End;
use patient::Patient;
use symbols::{Image, Symboliser};

/// A machine, and what it runs.
#[derive(Args, Clone)]
#[command(after_help = STATUS_HELP)]
pub struct Pc {
    /// Run these commands and end with their status; without them: a shell on the serial line.
    #[arg(short, value_name = "COMMANDS")]
    pub commands: Option<String>,
    /// How many CPUs there are.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub cpus: u32,
    /// How many nodes the CPUs and the memory are spread over.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub nodes: u32,
    /// How much memory there is, in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(64..=65536))]
    pub memory: u64,
    /// How much of it lies below 4 GiB, in MiB; the rest begins there.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=3072))]
    pub below_4g: Option<u64>,
    /// Memory that is not to be used, as if it were not there: `64M-72M`, any number of times.
    #[arg(long = "hole", value_name = "START-END")]
    pub holes: Vec<String>,
    /// What else the kernel is told, a word each: `name=NAME`, `dma=BYTES` (the end of
    /// zone DMA), `highmem=BYTES` (the end of the direct map: RAM above it is high memory),
    /// `mem=BYTES`, `bigphysarea=PAGES`, `ticks=NUMBER`, `hz=NUMBER`.
    #[arg(long = "option", value_name = "KEY=VALUE")]
    pub options: Vec<String>,
    /// Have the machine's time pass with its instructions and not with the host's time.
    #[arg(long)]
    pub instruction_clock: bool,
    /// After how many seconds a run is given up at which nobody types.
    #[arg(long, default_value_t = 600)]
    pub seconds: u64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What QEMU ends with: what the kernel wrote to its exit device, doubled and 1 added.
    qemu: i32,
    /// What this program ends with.
    pub code: u8,
    /// What that means; nothing where all went well.
    pub meaning: &'static str,
}

const fn status(qemu: i32, code: u8, meaning: &'static str) -> Status {
    Status { qemu, code, meaning }
}

/// How the kernel can end a run. `kmem-pc/src/exit.rs` has the other half.
const STATUSES: &[Status] = &[
    status(33, 0, ""),
    status(35, 1, "a command failed"),
    status(37, 2, "the input makes no sense"),
    status(39, 3, "memory was lost"),
    status(41, 4, "the kernel panicked"),
    status(43, 5, "the processor met a fault"),
    status(45, 6, "memory was freed wrongly"),
    status(47, 7, "a stack was used up"),
    status(49, 8, "a fault could not be delivered"),
];

const STATUS_HELP: &str = "\
Exit status: 0 all went well, 1 a command failed, 2 the input makes no sense, 3 memory was lost,
4 the kernel panicked, 5 the processor met a fault, 6 memory was freed wrongly, 7 a stack was used up,
8 a fault could not be delivered, 9 the machine did not end in time; 128 and more: a signal switched it
off. At the prompt Ctrl-A X switches it off, with 0. Commands may come from a pipe, a line each: the
first that fails ends the machine, and so does the end of the input.";

/// The status of a run that the kernel did not end in time.
pub const TIMED_OUT: u8 = 9;

/// What a shell adds to a signal's number to make a status of it.
const SIGNALLED: u8 = 128;

/// Who is at the machine's serial line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    /// Nobody: the machine has its commands, or needs none.
    None,
    /// A person at a terminal.
    Typed,
    /// A pipe or a file.
    Piped,
}

impl Input {
    /// Who is there, by what this program was started with.
    fn of(pc: &Pc) -> Input {
        match pc.commands {
            Some(_) => Input::None,
            None if std::io::stdin().is_terminal() => Input::Typed,
            None => Input::Piped,
        }
    }

    fn stdin(self) -> Stdio {
        match self {
            Input::None => Stdio::null(),
            Input::Typed => Stdio::inherit(),
            Input::Piped => Stdio::piped(),
        }
    }
}

/// What a person at the prompt has to know before it is there.
const HOW_TO_LEAVE: &str = "Ctrl-A X switches the machine off";

/// Builds the kernel and runs it; answers its exit status.
pub fn boot(ws: &Workspace, pc: &Pc) -> Result<ExitCode> {
    let mut out = Patient(std::io::stdout());
    let (code, meaning) = boot_to(ws, pc, Input::of(pc), &mut out)?;
    if !meaning.is_empty() {
        ui::note(&meaning);
    }
    Ok(ExitCode::from(code))
}

/// Builds the kernel and runs its commands, with nobody at the serial line, and hands over each line as
/// it comes. Answers the status that `cargo xtask pc` would end with; [`TIMED_OUT`] is an error here.
pub fn run_lines(ws: &Workspace, pc: &Pc, mut each: impl FnMut(&str)) -> Result<u8> {
    let mut lines = Lines { line: Vec::new(), each: &mut each };
    let (code, meaning) = boot_to(ws, pc, Input::None, &mut lines)?;
    lines.finish();
    if code == TIMED_OUT || code > SIGNALLED {
        bail!("{}: {meaning}", pc.shown());
    }
    Ok(code)
}

/// Takes what a machine writes apart into lines.
struct Lines<'e> {
    line: Vec<u8>,
    each: &'e mut dyn FnMut(&str),
}

impl Lines<'_> {
    fn finish(&mut self) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            (self.each)(String::from_utf8_lossy(&line).trim_end_matches('\r'));
        }
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' { self.finish() } else { self.line.push(*byte) }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Pc {
    /// The least machine: one CPU, 64 MiB, and nothing that it is told.
    pub fn small() -> Pc {
        Pc {
            commands: None,
            cpus: 1,
            nodes: 1,
            memory: 64,
            below_4g: None,
            holes: Vec::new(),
            options: Vec::new(),
            instruction_clock: false,
            seconds: 120,
        }
    }

    /// The machine as one would type it.
    pub fn shown(&self) -> String {
        let Pc { cpus, nodes, memory, .. } = self;
        let mut words =
            vec![format!("cargo xtask pc -- --cpus {cpus} --nodes {nodes} --memory {memory}")];
        words.extend(self.below_4g.map(|below| format!("--below-4g {below}")));
        words.extend(self.holes.iter().map(|hole| format!("--hole {hole}")));
        words.extend(self.options.iter().map(|option| format!("--option {option}")));
        words.extend(self.instruction_clock.then(|| "--instruction-clock".into()));
        words.extend(self.commands.iter().map(|commands| format!("-c '{commands}'")));
        format!("`{}`", words.join(" "))
    }
}

/// Builds the kernel and runs it, its output going to `out` with functions and lines beside
/// addresses. Answers the exit status, and what it means where not all went well.
fn boot_to(ws: &Workspace, pc: &Pc, input: Input, out: &mut dyn Write) -> Result<(u8, String)> {
    if pc.commands.as_ref().is_some_and(|commands| commands.trim().is_empty()) {
        return Err(
            BadInput("there is no command behind -c; without -c there is a prompt".into()).into()
        );
    }
    if pc.nodes > pc.cpus {
        let message = format!("{} nodes want as many CPUs: there are {}", pc.nodes, pc.cpus);
        return Err(BadInput(message).into());
    }
    let command_line = command_line(pc, input)?;
    setup::check_pc()?;
    let kernel = kernel(ws)?;
    let image = Image::new(&kernel, &ws.root);
    let mut symboliser = Symboliser::new(|address| image.calls(address));
    let mut qemu = qemu(&kernel, pc, input, &command_line);
    if input == Input::Typed {
        ui::note(HOW_TO_LEAVE);
    }
    // A person may take as long as they like.
    let bound = (input != Input::Typed).then(|| Duration::from_secs(pc.seconds));
    let end = machine::run(qemu.stdin(input.stdin()), bound, |bytes| symboliser.pass(bytes, out))?;
    match end {
        End::Ended(code) if input == Input::Typed && code.success() => {
            Ok((0, "the machine was switched off".into()))
        }
        End::Ended(code) => match STATUSES.iter().find(|status| code.code() == Some(status.qemu)) {
            Some(status) => Ok((status.code, status.meaning.into())),
            None => bail!("QEMU ended with {code}, and the kernel did not end it"),
        },
        End::TimedOut => {
            let bound = bound.unwrap_or_default().as_secs();
            let meaning = format!("the machine did not end within {bound} s: it was switched off");
            Ok((TIMED_OUT, meaning))
        }
        End::Signalled(signal) => Ok((SIGNALLED + signal, "the machine was switched off".into())),
    }
}

/// Builds the kernel; answers where it is.
pub fn kernel(ws: &Workspace) -> Result<PathBuf> {
    build(ws, &[])?;
    Ok(folder(ws).join("release/kmem-pc"))
}

/// Builds the kernel of fifty lines; answers where it is.
pub fn kernel_of_fifty_lines(ws: &Workspace) -> Result<PathBuf> {
    build(ws, &["--example", "fifty"])?;
    Ok(folder(ws).join("release/examples/fifty"))
}

fn folder(ws: &Workspace) -> PathBuf {
    ws.target.join("pc")
}

fn build(ws: &Workspace, what: &[&str]) -> Result<()> {
    let mut build = cargo(ws, &["build", "--quiet", "--release"]);
    run(build.args(what)).context("the kernel does not build")
}

/// `cargo` for the kernel, which is a workspace of its own.
pub fn cargo(ws: &Workspace, arguments: &[&str]) -> Command {
    let mut cargo = ws.cargo(arguments);
    cargo.current_dir(ws.root.join("kmem-pc")).env("CARGO_TARGET_DIR", folder(ws));
    cargo
}

fn qemu(kernel: &Path, pc: &Pc, input: Input, command_line: &str) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    // Not KVM: what is measured and stepped through is the same everywhere.
    if pc.instruction_clock {
        // A nanosecond each; where nothing runs, time goes on at once.
        qemu.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
    } else {
        qemu.args(["-accel", "tcg,thread=multi"]);
    }
    qemu.args(["-cpu", "max", "-nodefaults", "-no-reboot"]);
    qemu.args(["-display", "none"]);
    if input == Input::Typed {
        // Ctrl-C is the kernel's, and Ctrl-A X is left to end QEMU.
        qemu.args(["-chardev", "stdio,id=console,mux=on,signal=off", "-serial", "chardev:console"]);
    } else {
        qemu.args(["-serial", "stdio"]);
    }
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    // A device that uses memory by itself.
    qemu.args(["-device", "edu"]);
    qemu.arg("-smp").arg(format!("{0},sockets={0}", pc.cpus));
    qemu.arg("-m").arg(format!("{}M", pc.memory));
    if let Some(below) = pc.below_4g {
        qemu.arg("-machine").arg(format!("max-ram-below-4g={below}M"));
    }
    for node in 0..pc.nodes {
        let share = |all: u64| all * u64::from(node) / u64::from(pc.nodes);
        let next = |all: u64| all * u64::from(node + 1) / u64::from(pc.nodes);
        let size = next(pc.memory) - share(pc.memory);
        let (first, last) = (share(pc.cpus.into()), next(pc.cpus.into()) - 1);
        qemu.arg("-object").arg(format!("memory-backend-ram,id=m{node},size={size}M"));
        qemu.arg("-numa").arg(format!("node,nodeid={node},memdev=m{node},cpus={first}-{last}"));
    }
    qemu.arg("-kernel").arg(kernel);
    qemu.arg("-append").arg(command_line);
    qemu
}

/// The bytes that a command line may have. QEMU's loader has a page for it and cuts what is longer.
const LONGEST: usize = 4000;

/// What the kernel is told: options, and behind them its commands.
fn command_line(pc: &Pc, input: Input) -> Result<String> {
    let holes = pc.holes.iter().map(|hole| format!("hole={hole}"));
    let mut words: Vec<String> = holes.chain(pc.options.iter().cloned()).collect();
    words.extend((input == Input::Piped).then(|| "typed=no".into()));
    words.push("--".into());
    words.extend(pc.commands.clone());
    let line = words.join(" ");
    if line.len() > LONGEST {
        let message = format!(
            "options and commands have {} bytes: the loader passes on {LONGEST}; pipe the commands in",
            line.len()
        );
        return Err(BadInput(message).into());
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_way_to_end_has_a_status_of_its_own() {
        let qemu: BTreeSet<i32> = STATUSES.iter().map(|status| status.qemu).collect();
        let codes: BTreeSet<u8> = STATUSES.iter().map(|status| status.code).collect();
        assert_eq!(qemu.len(), STATUSES.len());
        assert_eq!(codes.len(), STATUSES.len());
        assert!(!codes.contains(&TIMED_OUT));
        // The exit device doubles and adds 1: QEMU's own statuses for errors are small.
        assert!(qemu.iter().all(|code| code % 2 == 1 && *code > 32));
        for status in STATUSES {
            assert_eq!(status.code == 0, status.meaning.is_empty(), "{status:?}");
            let help = STATUS_HELP.replace('\n', " ");
            assert!(help.contains(&format!("{} {}", status.code, status.meaning)), "{status:?}");
        }
    }

    #[test]
    fn a_command_line_that_the_loader_would_cut_is_refused() {
        let with = |count| Pc { commands: Some("x".repeat(count)), ..Pc::small() };
        let prefix = "-- ".len();
        let fits = command_line(&with(LONGEST - prefix), Input::None).unwrap();
        assert_eq!(fits.len(), LONGEST);
        let error = command_line(&with(LONGEST - prefix + 1), Input::None).unwrap_err();
        assert!(error.is::<BadInput>());
        let text = error.to_string();
        assert!(text.contains("4001 bytes") && text.contains("4000"), "{text}");
    }

    #[test]
    fn the_kernel_is_told_where_nobody_types() {
        let pc = Pc { holes: vec!["64M-72M".into()], ..Pc::small() };
        assert_eq!(command_line(&pc, Input::Piped).unwrap(), "hole=64M-72M typed=no --");
        assert_eq!(command_line(&pc, Input::Typed).unwrap(), "hole=64M-72M --");
    }

    /// What the kernel has in `Status` is what is known here.
    #[test]
    fn statuses_are_those_of_the_kernel() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kmem-pc/src/exit.rs");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, body) = text.split_once("pub enum Status {").unwrap();
        let (body, _) = body.split_once('}').unwrap();
        let values =
            body.lines().filter_map(|line| line.trim().trim_end_matches(',').split_once("= "));
        let kernel: Vec<i32> =
            values.map(|(_, value)| 2 * value.parse::<i32>().unwrap() + 1).collect();
        let known: Vec<i32> = STATUSES.iter().map(|status| status.qemu).collect();
        assert_eq!(kernel, known);
    }
}
