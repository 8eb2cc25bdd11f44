//! The commands: a file a group, and one table of all.

mod areas;
mod caches;
mod dma;
mod echo;
mod files;
mod general;
mod highmem;
mod mistakes;
mod modules;
mod objects;
mod pages;
mod slabtop;
mod stacks;

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::{Failure, Shell, Sink, System};

pub(crate) use areas::Areas;
pub(crate) use objects::Objects;
pub(crate) use pages::{Fill, Held};

/// What runs a command: the shell, the words after the command's name, where output goes.
pub type Run<S> = fn(&mut Shell<'_, S>, &[String], &mut dyn Sink) -> Result<(), Failure>;

/// A command.
pub struct Command<S: System> {
    /// Its name.
    pub name: &'static str,
    /// How it is written.
    pub usage: &'static str,
    /// What it does: a line for the list of all, and perhaps more below it.
    pub about: &'static str,
    /// A line that works, once the machine is in a state for it.
    pub example: &'static str,
    /// What runs it.
    pub run: Run<S>,
}

/// The commands that every machine has, in the order that `help` lists them.
pub const fn table<S: System>() -> &'static [Command<S>] {
    /// A place for a constant that depends on the type.
    struct Of<S>(S);
    impl<S: System> Of<S> {
        const TABLE: &'static [Command<S>] = &[
            modules::insmod(),
            modules::rmmod(),
            modules::lsmod(),
            files::cp(),
            files::cat(),
            files::head(),
            files::cmp(),
            files::ls(),
            echo::echo(),
            pages::alloc_pages(),
            pages::free(),
            pages::fill(),
            pages::drain(),
            objects::kmalloc(),
            objects::krealloc(),
            objects::kfree(),
            areas::vmalloc(),
            areas::vfree(),
            areas::mmap(),
            highmem::kmap(),
            caches::cache(),
            slabtop::slabtop(),
            dma::dma(),
            mistakes::wrong_free(),
            mistakes::overrun(),
            mistakes::leak(),
            stacks::overflow(),
            general::stress(),
            general::sleep(),
            general::time(),
            general::dmesg(),
            general::help(),
            general::exit(),
            general::quit(),
        ];
    }
    Of::<S>::TABLE
}

/// All commands of a machine: those of every machine, and then its own.
pub(crate) fn all<S: System>() -> impl Iterator<Item = &'static Command<S>> {
    table::<S>().iter().chain(S::commands())
}

/// Writes text to a command's output.
fn print(out: &mut dyn Sink, text: fmt::Arguments<'_>) -> Result<(), Failure> {
    Ok(out.write(format!("{text}").as_bytes())?)
}

/// The failure of a command that was written wrongly.
fn usage<S: System>(command: &Command<S>) -> Failure {
    Failure::Usage(format!("usage: {}; for example: {}", command.usage, command.example))
}

/// Reads a number or another word that has a type.
fn word<T: FromStr>(text: &str, what: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::Usage(format!("'{text}' is no {what}")))
}

/// The arguments of a command that has exactly this many.
fn exactly<'a, S: System, const N: usize>(
    command: &Command<S>,
    arguments: &'a [String],
) -> Result<&'a [String; N], Failure> {
    arguments.try_into().map_err(|_| usage(command))
}
