//! The commands: a file a subject, and one table of all.

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
mod page;
mod pages;
mod percpu;
mod slabtop;
mod stacks;

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use kmem::spelling::nearest;

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

/// Commands of one subject, under the heading that `help` gives them.
pub struct Group<S: System> {
    /// The heading.
    pub title: &'static str,
    /// The commands, in the order that `help` lists them.
    pub commands: &'static [Command<S>],
}

/// The commands that every machine has, by subject.
pub const fn groups<S: System>() -> &'static [Group<S>] {
    /// A place for constants that depend on the type.
    struct Of<S>(S);
    impl<S: System> Of<S> {
        const MODULES: &'static [Command<S>] =
            &[modules::insmod(), modules::rmmod(), modules::lsmod()];
        const FILES: &'static [Command<S>] =
            &[files::cp(), files::cat(), files::head(), files::cmp(), files::ls(), echo::echo()];
        const MEMORY: &'static [Command<S>] = &[
            pages::alloc_pages(),
            pages::free(),
            pages::fill(),
            pages::drain(),
            objects::kmalloc(),
            objects::krealloc(),
            objects::kfree(),
            caches::cache(),
            areas::vmalloc(),
            areas::vfree(),
            areas::mmap(),
            highmem::kmap(),
            percpu::percpu(),
            dma::dma(),
        ];
        const REPORTS: &'static [Command<S>] =
            &[slabtop::slabtop(), page::page(), general::dmesg()];
        const TRIALS: &'static [Command<S>] = &[
            general::stress(),
            mistakes::wrong_free(),
            mistakes::overrun(),
            mistakes::leak(),
            stacks::overflow(),
        ];
        const GENERAL: &'static [Command<S>] =
            &[general::help(), general::time(), general::sleep(), general::exit(), general::quit()];
        const GROUPS: &'static [Group<S>] = &[
            Group { title: "Modules", commands: Self::MODULES },
            Group { title: "Files", commands: Self::FILES },
            Group { title: "Memory", commands: Self::MEMORY },
            Group { title: "What there is", commands: Self::REPORTS },
            Group { title: "Trials and mistakes", commands: Self::TRIALS },
            Group { title: "The shell", commands: Self::GENERAL },
        ];
    }
    Of::<S>::GROUPS
}

/// All commands of a machine: those of every machine, and then its own.
pub(crate) fn all<S: System>() -> impl Iterator<Item = &'static Command<S>> {
    groups::<S>().iter().flat_map(|group| group.commands).chain(S::commands())
}

/// Writes text to a command's output.
fn print(out: &mut dyn Sink, text: fmt::Arguments<'_>) -> Result<(), Failure> {
    Ok(out.write(format!("{text}").as_bytes())?)
}

/// The failure of a command that was written wrongly.
fn usage<S: System>(command: &Command<S>) -> Failure {
    Failure::Usage(format!("usage: {}; for example: {}", command.usage, command.example))
}

/// What to say of a wrong word: the name that is most like it, if one is.
pub(crate) fn did_you_mean<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    nearest(word, names).map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

/// Reads a number or another word that has a type.
fn word<T: FromStr>(text: &str, what: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::Usage(format!("'{text}' is no {what}")))
}

/// Reads a size in bytes: `100`, `0x1000`, `64K`, `2M`, `1G`, as everywhere else.
fn size(text: &str) -> Result<usize, Failure> {
    let wrong = |why: &str| Failure::Usage(format!("'{text}' is {why}"));
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        Some(b't' | b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let (number, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(number) => (number, 16),
        None => (digits, 10),
    };
    if number.is_empty() || !number.chars().all(|digit| digit.is_digit(radix)) {
        return Err(wrong("no size: give bytes, or such as 64K, 2M or 1G"));
    }
    // Digits only: what fails is too large.
    usize::from_str_radix(number, radix)
        .ok()
        .and_then(|number| number.checked_mul(1usize.checked_shl(shift)?))
        .ok_or_else(|| wrong("more than there are addresses: ask for less"))
}

/// The arguments of a command that has exactly this many.
fn exactly<'a, S: System, const N: usize>(
    command: &Command<S>,
    arguments: &'a [String],
) -> Result<&'a [String; N], Failure> {
    arguments.try_into().map_err(|_| usage(command))
}

#[cfg(test)]
mod tests {
    use super::{Failure, size};

    #[test]
    fn sizes_have_suffixes_and_either_base() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("0x1000", 4096),
            ("4k", 4096),
            ("0X2K", 2048),
            ("3M", 3 << 20),
            ("1G", 1 << 30),
            ("2T", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_says_so_and_what_is_too_much_says_that() {
        for text in ["", "K", "-1", "+1", "1.5G", "1 G", "0x", "1MB", "é", "1é"] {
            let wrong = matches!(size(text), Err(Failure::Usage(line)) if line.contains("no size"));
            assert!(wrong, "{text}");
        }
        for text in ["18446744073709551616", "16777216T", "0xffffffffffffffffK"] {
            let much =
                matches!(size(text), Err(Failure::Usage(line)) if line.contains("more than"));
            assert!(much, "{text}");
        }
    }
}
