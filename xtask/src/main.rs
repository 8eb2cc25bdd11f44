//! What a developer or CI runs in this repository: `cargo xtask --help`.

mod acceptance;
mod bench;
mod conformance;
mod footprint;
mod freestanding;
mod layers;
mod pc;
mod setup;
mod suites;
mod test;
mod ui;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use workspace::Workspace;

const EXAMPLES: &str = "\
Examples:
  cargo xtask test                  all that CI checks, in CI's order
  cargo xtask layers                which import runs against the order of docs/layers.txt
  cargo xtask conformance           run the tests and cases, write docs/conformance.md
  cargo xtask conformance --check   the same, but fail where the committed page differs
  cargo xtask bench --quick         kmem beside its peers, one short run
  cargo xtask footprint             what a kernel takes that has the memory manager
  cargo xtask pc -- -c 'insmod scullp; cat /proc/buddyinfo'
                                    boot a PC in QEMU and run commands on it

Exit status: 0 all held, 1 a check failed, 2 bad input or a missing program.";

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check all that CI checks: set-up, rustfmt, clippy, documentation, layers, tests, no_std
    /// proof, a PC at work, conformance.
    Test {
        /// Only this step.
        #[arg(long, value_name = "STEP")]
        only: Option<test::Step>,
    },
    /// Check that no import runs against the order of the layers (docs/layers.txt).
    Layers,
    /// Write docs/conformance.md from the cases and tests that pass now.
    Conformance {
        /// Write nothing; fail where the committed page differs from what was found.
        #[arg(long)]
        check: bool,
        /// Read the cases' JSON lines from a file and do not run them.
        #[arg(long, hide = true, value_name = "FILE")]
        cases_from: Option<PathBuf>,
    },
    /// Measure kmem beside other allocators; all arguments go to the bench.
    #[command(disable_help_flag = true)]
    Bench {
        /// For example `--quick`, or `--help` for the bench's own options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Show what the kernel of kmem-pc takes, and of that the memory manager.
    Footprint {
        /// Write docs/footprint.md as well.
        #[arg(long)]
        write: bool,
    },
    /// Build the kernel of kmem-pc and boot it in QEMU.
    Pc(pc::Pc),
}

fn main() -> ExitCode {
    // `cargo xtask pc -- -c ...` reads as `cargo run -- ...` does: what follows is the machine's.
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|name| name == "pc")
        && arguments.get(2).is_some_and(|sign| sign == "--")
    {
        arguments.remove(2);
    }
    let command = Cli::parse_from(arguments).command;
    let done = Workspace::find().and_then(|ws| {
        match command {
            Command::Test { only } => return Ok(test::run(&ws, only)),
            Command::Layers => layers::check(&ws).map(|summary| ui::note(&summary)),
            Command::Conformance { check, cases_from } => {
                conformance::run(&ws, check, cases_from.as_deref())
            }
            Command::Footprint { write } => footprint::run(&ws, write),
            Command::Bench { args } => bench::run_bench(&ws, &args),
            Command::Pc(pc) => return pc::boot(&ws, &pc),
        }
        .map(|()| ExitCode::SUCCESS)
    });
    done.unwrap_or_else(|error| ui::report(&error))
}
