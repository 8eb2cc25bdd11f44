//! What tells shells and readers about the command: `kmem completions` and `kmem man`.
//!
//! Both are made from the options themselves, so they say what `--help` says. What stands below the options
//! there is made of sections: a line that ends in a colon, and indented lines below it. They become the
//! sections of a manual page, with their lines as they are.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Command, ValueHint};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::exit::Exit;

/// Print a script with which a shell completes the words of kmem
///
/// It completes commands, options, presets and files.
#[derive(clap::Args)]
#[command(after_long_help = AFTER_COMPLETIONS)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

const AFTER_COMPLETIONS: &str = "\
Examples:
  source <(kmem completions bash)
  kmem completions bash > ~/.local/share/bash-completion/completions/kmem
  kmem completions zsh > ~/.zfunc/_kmem          # with fpath+=~/.zfunc before compinit
  kmem completions fish > ~/.config/fish/completions/kmem.fish

Exit status:
  0  it was printed
  1  it could not be printed
  2  there is no such shell";

/// Print the manual page of kmem or of one of its commands, or write all to a folder
///
/// Pages are for man(1), as text of roff(7).
#[derive(clap::Args)]
#[command(after_long_help = AFTER_MAN)]
pub struct Manual {
    /// The command whose page is printed, such as boot; that of kmem if it is not given
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Option<String>,
    /// Write the pages of all commands to this folder, which is made if it is not there
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

const AFTER_MAN: &str = "\
Examples:
  kmem man | man -l -
  kmem man boot | man -l -
  kmem man --dir ~/.local/share/man/man1; man kmem-boot

Exit status:
  0  it was printed or written
  1  it could not be
  2  there is no such command";

/// `kmem completions`.
pub fn completions(args: &Completions, mut command: Command) -> Result<(), Exit> {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "kmem", &mut script);
    io::stdout().write_all(&script).map_err(Exit::not_printed)
}

/// `kmem man`.
pub fn manual(args: &Manual, command: Command) -> Result<(), Exit> {
    // Not a page of its own: it says what the others say.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let commands = || command.get_subcommands();
    if let Some(folder) = &args.dir {
        return std::iter::once(&command).chain(commands()).try_for_each(|of| write(folder, of));
    }
    let of = match &args.command {
        None => &command,
        Some(name) => commands().find(|of| of.get_name() == name).ok_or_else(|| {
            let names: Vec<_> = commands().map(Command::get_name).collect();
            let names = names.join(", ");
            Exit::BadInput(format!("there is no command '{name}': give one of {names}, or nothing"))
        })?,
    };
    io::stdout().write_all(&page(of).map_err(Exit::not_printed)?).map_err(Exit::not_printed)
}

/// Writes the page of a command to a folder.
fn write(folder: &Path, of: &Command) -> Result<(), Exit> {
    let path = folder.join(Man::new(of.clone()).get_filename());
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, page(of)?));
    written.map_err(|error| Exit::Failed(format!("cannot write {}: {error}", path.display())))
}

/// The page of a command.
fn page(of: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(of.clone()).manual("kmem");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if of.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let below = of.get_after_long_help().or(of.get_after_help()).map(ToString::to_string);
    sections(&below.unwrap_or_default()).to_writer(&mut page)?;
    Ok(page)
}

/// What stands below the options, as sections of a page.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut open = false;
    for line in text.lines() {
        match line.strip_suffix(':') {
            Some(title) if !line.starts_with(' ') => {
                if std::mem::replace(&mut open, true) {
                    roff.control("fi", []);
                }
                roff.control("SH", [title.to_uppercase().as_str()]);
                roff.control("nf", []);
            }
            _ => {
                // What is typed stands out.
                let line = line.strip_prefix("  ").unwrap_or(line);
                roff.text([if line.starts_with("kmem ") { bold(line) } else { roman(line) }]);
            }
        }
    }
    if open {
        roff.control("fi", []);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_below_the_options_becomes_sections() {
        let page = sections("Examples:\n  kmem demo\n\nExit status:\n  0  all is well:\n").render();
        for part in [
            ".SH EXAMPLES\n.nf\n\\fBkmem demo\\fR\n",
            ".fi\n.SH \"EXIT STATUS\"\n.nf\n0  all is well:\n.fi\n",
        ] {
            assert!(page.contains(part), "{page}");
        }
    }
}
