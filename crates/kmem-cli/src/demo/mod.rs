//! `kmem demo`: a tour of what the memory manager does, with each thing checked.

mod density;
mod guide;
mod mapped;
mod outside;
mod sample;
mod tour;

use std::path::PathBuf;

use kmem_host::Description;

use crate::exit::Exit;
use crate::hosted::{self, Hosted};
use sample::Sample;
use tour::Tour;

/// The pages of the machines that are shown: those of the presets which the tour boots.
const PAGE_SHIFT: u32 = 12;

/// Such a machine.
type Machine = Hosted<PAGE_SHIFT>;

/// Take a tour: boot, copy a file through a driver, look at the memory, free wrongly
///
/// Each command is shown before its result. Ends with status 0 only if all that is claimed was
/// found to be so.
#[derive(clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// The file that is copied through the device; one of 8 MiB is made if it is not given
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  kmem demo
  kmem demo --file /usr/bin/env

Exit status:
  0  all that is claimed was found to be so
  1  something was not, or a command failed
  2  the file is none that the machine holds
  3  at the end memory was missing or corrupted";

pub fn run(args: &Args) -> Result<(), Exit> {
    let description = Description::preset("default")
        .map_err(|error| Exit::Failed(format!("the preset cannot be read: {error}")))?;
    let sample = match &args.file {
        Some(path) => Sample::existing(path, description.ram_bytes())?,
        None => Sample::make()?,
    };
    hosted::run(&description, None, |machine| Tour::new(&sample).take(machine))
}
