//! `kmem boot`: a machine with a shell.

mod input;
mod prompt;
mod session;
mod traced;

use std::io::{IsTerminal, stdin};
use std::path::PathBuf;

use clap::ValueHint;

use crate::choice::Choice;
use crate::exit::Exit;
use crate::mount::Point;
use crate::{hosted, signals};
use input::Input;
use session::{Commands, Session};
pub use traced::{
    finish as finish_trace, finish_after as finish_trace_after, finish_soon as finish_trace_soon,
};

/// Boot a machine and run commands on it
///
/// Without -c and --script commands are read from standard input: with a prompt if it is a
/// terminal. The first command that fails ends the machine, except at a prompt. At the end what the
/// commands still hold is given back, the machine is shut down, and its memory is checked.
#[derive(clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    machine: Choice,
    /// Run these commands, separated by `;`
    ///
    /// `-c help` lists the commands, `-c 'help cp'` explains one.
    #[arg(short, value_name = "COMMANDS", conflicts_with = "script")]
    commands: Option<String>,
    /// Run the commands of a file, one or more a line
    ///
    /// It is text of UTF-8; `#` begins a remark. An error names the file and the line.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    script: Option<PathBuf>,
    /// Write what the memory manager does to a file, in the text form of Linux's trace files
    ///
    /// `kmem trace FILE` sums it up. The machine is slower by it, and an event takes some 110 bytes.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    trace: Option<PathBuf>,
    /// Show the machine's /dev, /proc and /sys as real files in an empty folder, by FUSE
    ///
    /// The host's programs use them while commands run; `serve`, and standard input without any command,
    /// serve until a signal, whoever has a file open then. However it ends, the folder is unmounted.
    /// docs/files.md says what is different from real device files.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    mount: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  kmem boot
  kmem boot -c 'insmod scullp; cp /etc/services /dev/scullp0; cmp /etc/services /dev/scullp0'
  kmem boot --machine tiny --cpus 4 -c 'stress 100000'
  kmem boot --machine ldd2-i386 --mem 64M --set largest_order=4 -c 'cat /proc/buddyinfo'
  kmem boot --trace events.txt -c 'insmod scullc; stress 10000'; kmem trace events.txt
  kmem boot -c help
  kmem boot --mount /mnt                  # then, elsewhere: ls /mnt/dev; head -5 /mnt/proc/meminfo
  kmem boot --mount /mnt -c 'insmod scull; serve' &
  cp /etc/services /mnt/dev/scull0; cmp /etc/services /mnt/dev/scull0

The shell:
  All names of commands are looked up before the first command of a text runs; what is wrong with
  a command's arguments is found (2) when its turn comes. At a prompt what fails is told and does
  not count: the status is 0, or 3. What the machine reports is in its files, in the forms that
  Linux has: cat /proc/buddyinfo, /proc/slabinfo, /sys/kernel/debug/extfrag/unusable_index.

Signals:
  Ctrl-C ends the command that runs: at a prompt the next one may follow, elsewhere the machine is
  shut down and its memory checked, and the status is 130. SIGTERM, SIGQUIT and SIGHUP (and Ctrl-C
  while nothing runs) end the machine as `exit` does where it waits for commands or serves; while a
  command runs, or between two of a script, they end the process without the check. A second one
  ends it at once.

Files:
  $XDG_STATE_HOME/kmem/history, or ~/.local/state/kmem/history
      The lines that were typed at the prompt, the latest 1000.

Environment:
  NO_COLOR                no colours, and no hints at the prompt, if it is set and not empty
  XDG_STATE_HOME, HOME    where the history is kept

Exit status:
  0  all went well
  1  a command was understood and failed
  2  the input makes no sense
  3  at the end memory was missing or corrupted
  4  the machine's kernel panicked, as it does for a cache that must be made (`panic`) and cannot
  130  Ctrl-C ended a command
  141  nobody reads the output any more";

pub fn run(args: &Args) -> Result<(), Exit> {
    let description = args.machine.describe()?;
    let commands = match (&args.commands, &args.script) {
        (Some(commands), _) => Commands::Given(Input::Text(commands.clone())),
        (None, Some(path)) => Commands::Given(Input::script(path)?),
        (None, None) if stdin().is_terminal() => Commands::Prompt,
        (None, None) => Commands::Given(Input::standard()),
    };
    let point = args.mount.as_deref().map(Point::claim).transpose()?;
    // Before there is any other thread.
    signals::watch()
        .map_err(|error| Exit::Failed(format!("cannot start a thread for signals: {error}")))?;
    let trace = args.trace.as_deref().map(|path| traced::start(path, &description)).transpose()?;
    let trace = trace.map(|trace| &trace.file);
    finish_trace_after(hosted::boot(&description, trace, Session { commands, point }))
}
