//! `kmem`: boots machines that run the kmem memory manager inside this process.
//!
//! | where | what is in it |
//! | --- | --- |
//! | `exit.rs` | how the command ends, and with which status |
//! | `choice.rs` | the options that choose a machine |
//! | `hosted.rs` | a machine inside the process, as the shell sees it |
//! | `console.rs` | colours, errors, sizes, what is printed where |
//! | `progress.rs` | how far something long is |
//! | `manual.rs` | `kmem man`, `kmem completions` |
//! | `boot/` | `kmem boot`: a machine with a shell |
//! | `machines/` | `kmem machines`: what can be booted |
//! | `demo/` | `kmem demo`: a tour |
//! | `advise/` | `kmem advise`: which call gets the memory that is needed |
//! | `conformance/` | `kmem conformance`: the acceptance cases on every machine |
//! | `trace/` | `kmem trace`: what a trace file comes to |
//! | `look/` | what a machine's texts say, for `map` and `top` |
//! | `map/` | `kmem map`: physical memory as a picture |
//! | `top/` | `kmem top`: a machine, watched |

mod advise;
mod boot;
mod choice;
mod conformance;
mod console;
mod demo;
mod exit;
mod hosted;
mod interrupt;
mod look;
mod machines;
mod manual;
mod map;
mod mount;
mod progress;
mod signals;
mod top;
mod trace;

use std::process::ExitCode;

use clap::error::ContextKind;
use clap::{CommandFactory, Parser, Subcommand};
use exit::Exit;
use kmem_host::Description;

/// A kernel's memory manager at a desk: boot a described machine inside this process, load a
/// driver, copy files through it, and look at its memory.
///
/// The machine has RAM, CPUs, nodes and interrupts of its own, and the memory manager of a kernel runs on it:
/// zones, the buddy system, slab caches, kmalloc, vmalloc. Its shell loads modules and shows /proc and /sys
/// as Linux does. At the end the machine is shut down and its memory is checked: what was lost or
/// overwritten is told.
#[derive(Parser)]
#[command(
    name = "kmem",
    version,
    after_long_help = AFTER_HELP,
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  kmem demo
  kmem boot
  kmem boot --machine tiny -c 'insmod scullp; cp /etc/services /dev/scullp0; cat /proc/buddyinfo'
  kmem advise --size 64K --context interrupt
  kmem help boot

Files:
  $XDG_STATE_HOME/kmem/history
      What was typed at the prompt of `kmem boot`; in ~/.local/state if that is not set.
  A machine file (--machine FILE) is TOML: `kmem machines NAME` prints one.

Environment:
  NO_COLOR            no colours, if it is set and not empty; elsewhere than on a terminal there
                      are none anyway
  XDG_STATE_HOME      where the history of the prompt is kept
  HOME                the same, if XDG_STATE_HOME is not set

Exit status:
  0  all went well
  1  a command failed
  2  the input makes no sense: one line on standard error says what, and what to give instead
  3  at the end memory was missing or corrupted
  4  the machine's kernel panicked
  130  Ctrl-C ended a command
  141  nobody reads the output any more";

#[derive(Subcommand)]
enum Command {
    Boot(boot::Args),
    Machines(machines::Args),
    Demo(demo::Args),
    Advise(advise::Args),
    Conformance(conformance::Args),
    Trace(trace::Args),
    Map(map::Args),
    Top(top::Args),
    Completions(manual::Completions),
    Man(manual::Manual),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

fn run() -> Result<(), Exit> {
    match Cli::try_parse().map_err(|error| wrong_usage(&error))?.command {
        Command::Boot(args) => boot::run(&args),
        Command::Machines(args) => machines::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Advise(args) => advise::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Map(args) => map::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Completions(args) => manual::completions(&args, Cli::command()),
        Command::Man(args) => manual::manual(&args, Cli::command()),
    }
}

/// What is wrong with the arguments, in one line. Where help or the version was asked for they are
/// shown, and the process ends.
fn wrong_usage(error: &clap::Error) -> Exit {
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
    };
    match error.kind() {
        DisplayHelp | DisplayVersion => {
            return match error.print() {
                Ok(()) => Exit::end(Ok(())),
                Err(error) => Exit::not_printed(error),
            };
        }
        DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => {}
    }
    // Above the usage is what is wrong, and perhaps a tip. That one may pass a word as a value, where there
    // is none to pass, is of no help.
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| {
        !line.starts_with("Usage:") && !line.starts_with("For more information")
    });
    let helps = |line: &&str| !line.is_empty() && !line.starts_with("tip: to pass ");
    let lines: Vec<&str> = lines.filter(helps).collect();
    let what = lines.join("; ").replace(":; ", ": ");
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    // What Rust says of a number that is none.
    let number = ["invalid digit found in string", "cannot parse integer from empty string"];
    let what =
        number.iter().fold(what.to_owned(), |what, said| what.replace(said, "give a whole number"));
    let what = what.replace("number too large to fit in target type", "give a smaller number");
    let advice = match error.get(ContextKind::InvalidArg).map(ToString::to_string) {
        Some(word) if Description::preset_names().any(|name| name == word) => {
            format!("write --machine {word}")
        }
        _ => "try --help".into(),
    };
    Exit::BadInput(format!("{what}; {advice}"))
}
