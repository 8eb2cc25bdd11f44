//! `kmem`: boots machines that run the kmem memory manager inside this process.
//!
//! | where | what is in it |
//! | --- | --- |
//! | `exit.rs` | how the command ends, and with which status |
//! | `choice.rs` | the options that choose a machine |
//! | `hosted.rs` | a machine inside the process, as the shell sees it |
//! | `console.rs` | progress, colours, what is printed where |
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
mod map;
mod mount;
mod signals;
mod top;
mod trace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use exit::Exit;

/// A kernel's memory manager at a desk: boot a described machine inside this process, load a
/// driver, copy files through it, and look at its memory.
#[derive(Parser)]
#[command(name = "kmem", version, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  kmem demo
  kmem boot
  kmem boot --machine tiny -c 'insmod scullp; cp /etc/services /dev/scullp0; cat /proc/buddyinfo'

Exit status: 0 all went well; 1 a command failed; 2 the input makes no sense;
3 at the end memory was missing or corrupted; 4 the machine's kernel panicked.";

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
    }
}

/// What is wrong with the arguments, in one line. Where help or the version was asked for they are
/// shown, and the process ends.
fn wrong_usage(error: &clap::Error) -> Exit {
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
    };
    if let DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand | DisplayVersion = error.kind() {
        error.exit();
    }
    // Above the usage is what is wrong, and perhaps a tip.
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| {
        !line.starts_with("Usage:") && !line.starts_with("For more information")
    });
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    let what = lines.join("; ");
    Exit::BadInput(format!("{}; try --help", what.strip_prefix("error: ").unwrap_or(&what)))
}
