//! `kmem advise`: which call gets the memory that somebody needs, and why.
//!
//! | where | what is in it |
//! | --- | --- |
//! | `need.rs` | what is asked about |
//! | `limits.rs` | what of a machine matters |
//! | `decide.rs` | the choice |
//! | `remedy.rs` | what to do where there is no answer |
//! | `advice.rs` | the answer, and how it is shown |
//! | `ask.rs` | questions at a terminal |

mod advice;
mod ask;
mod decide;
mod limits;
mod need;
mod remedy;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write, stdin, stdout};

use kmem_host::description::parse_size;

use crate::choice::Choice;
use crate::console::COMMAND;
use crate::exit::Exit;
use limits::Limits;
use need::{Context, Contiguity, Lifetime, Need, Purpose};

/// Say how to get memory: the call, its flags, what gives it back, and why
///
/// Without --size at a terminal it asks what is needed. The sentences name the statements of
/// docs/acceptance.md that they rest on; docs/choosing.md says the same as a page.
#[derive(Clone, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// The bytes of one piece: 100, 64K, 2M
    #[arg(long, allow_hyphen_values = true)]
    size: Option<String>,
    /// How many pieces of that size are in use at a time [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    count: Option<u64>,
    /// Where the code runs that asks [default: task]
    #[arg(long, value_enum)]
    context: Option<Context>,
    /// What has to lie side by side [default: any]
    #[arg(long, value_enum)]
    contiguity: Option<Contiguity>,
    /// How long the memory is kept [default: long]
    #[arg(long, value_enum)]
    lifetime: Option<Lifetime>,
    /// For a device with so many address lines: 24, 32
    #[arg(long, value_name = "BITS", group = "purpose", allow_negative_numbers = true)]
    dma: Option<u32>,
    /// CPU and device use it at the same time
    #[arg(long, requires = "dma")]
    coherent: bool,
    /// For a process
    #[arg(long, group = "purpose")]
    user: bool,
    /// Pages in high memory do: they are mapped when they are used
    #[arg(long, group = "purpose")]
    high: bool,
    /// Each CPU has a copy of its own
    #[arg(long, group = "purpose")]
    per_cpu: bool,
    /// Print one JSON document for programs instead: see `--help` for its form
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    machine: Choice,
}

const AFTER_HELP: &str = "\
Examples:
  kmem advise
  kmem advise --size 100 --context interrupt
  kmem advise --size 400 --count 10000
  kmem advise --size 64K --dma 24 --machine lkd-i386
  kmem advise --size 16M --contiguity virtual --json

JSON:
  One object. Calls and sentences are texts; what there is none of is null, or an empty array.
  machine    what the advice is for
  before     what has to be done once, before
  call       what answers the memory
  flags      the flags that the call takes, such as \"GFP_ATOMIC\"
  then       what makes the memory usable
  free       what gives it back
  why, mind  arrays of sentences: the reasons, and what to be careful with
  instead    an array of objects, call and when: what else comes into question
  ids        an array of the statements of docs/acceptance.md that the sentences name

Exit status:
  0  there is advice
  1  the questions ended before they were answered
  2  what is asked for contradicts itself, or the machine; each option that a refusal gives leads
     to advice";

pub fn run(args: &Args) -> Result<(), Exit> {
    let machine = Limits::of(&args.machine.describe()?);
    let mut args = args.clone();
    let asks = args.size.is_none();
    if asks {
        if args.json || !stdin().is_terminal() || !stdout().is_terminal() {
            let what = "--size is missing: give the bytes of one piece, such as --size 64K";
            return Err(Exit::BadInput(format!("{what}; try --help")));
        }
        ask::ask(&mut args, &mut ask::Terminal::open()?)?;
    }
    let need = args.need()?;
    if asks {
        let options = need.options().join(" ");
        print(&format!("\n{COMMAND}kmem advise {options}{COMMAND:#}"))?;
    }
    let advice =
        decide::decide(&need, &machine).map_err(|refusal| Exit::BadInput(refusal.to_string()))?;
    if args.json {
        print(&advice.to_json(&machine.name).to_string())
    } else {
        print(advice.to_text().trim_end())
    }
}

fn print(text: &str) -> Result<(), Exit> {
    writeln!(anstream::stdout(), "{text}").map_err(Exit::not_printed)
}

fn no_size(text: &str) -> String {
    format!("'{text}' is no size: give bytes, such as 100, 64K or 2M")
}

impl Args {
    /// What the options ask about.
    fn need(&self) -> Result<Need, Exit> {
        let size = self.size.as_deref().unwrap_or_default();
        Ok(Need {
            size: parse_size(size)
                .ok_or_else(|| Exit::BadInput(format!("--size: {}", no_size(size))))?,
            count: self.count.unwrap_or(1),
            context: self.context.unwrap_or(Context::Task),
            purpose: self.purpose(),
            contiguity: self.contiguity.unwrap_or(Contiguity::Any),
            lifetime: self.lifetime.unwrap_or(Lifetime::Long),
        })
    }

    fn purpose(&self) -> Purpose {
        match *self {
            Args { dma: Some(bits), coherent, .. } => Purpose::Dma { bits, coherent },
            Args { user: true, .. } => Purpose::User,
            Args { high: true, .. } => Purpose::High,
            Args { per_cpu: true, .. } => Purpose::PerCpu,
            _ => Purpose::Software,
        }
    }

    fn set_purpose(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Software => {}
            Purpose::Dma { bits, coherent } => {
                (self.dma, self.coherent) = (Some(bits), coherent);
            }
            Purpose::User => self.user = true,
            Purpose::High => self.high = true,
            Purpose::PerCpu => self.per_cpu = true,
        }
    }
}
