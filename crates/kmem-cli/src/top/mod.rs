//! `kmem top` and the prompt's `top`: a machine's memory, watched.
//!
//! | where | what is in it |
//! | --- | --- |
//! | `state.rs` | what was read, and what keys have chosen of it |
//! | `draw.rs` | the screens |
//! | `terminal.rs` | the terminal, taken and put back |
//!
//! A machine of this process is read as one that is mounted is: by its texts.

mod draw;
mod state;
mod terminal;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueHint;
use kmem_shell::{Command, Failure, Shell, Sink, Tree};
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use crate::exit::Exit;
use crate::hosted::Hosted;
use crate::look::{Mounted, Texts};
use crate::{console, interrupt, signals};
use state::App;

pub use terminal::put_back;

/// Watch a mounted machine's memory
///
/// Screens for zones, free blocks, caches, CPUs' lists and a map that goes down to one page. `top` at the
/// prompt of `kmem boot` is the same for the machine that runs.
#[derive(clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// The folder that a machine is mounted on; `/` is Linux itself, which has no map
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,
}

const AFTER_HELP: &str = "\
Examples:
  kmem boot --mount /mnt -c 'insmod scull; serve' &
  kmem top /mnt

Notes:
  Keys: 1 to 5 choose a screen, ? helps, q ends. docs/looking.md says how to read each screen.

Exit status:
  0  it was ended
  1  the machine has gone
  2  the input makes no sense, or there is no terminal";

/// For how long the texts are shown before they are read again.
const PERIOD: Duration = Duration::from_secs(1);

/// For how long a key is waited for at a time.
const WAIT: Duration = Duration::from_millis(200);

const NO_TERMINAL: &str = "top needs a terminal: `kmem map` writes a picture without one";

pub fn run(args: &Args) -> Result<(), Exit> {
    // Before there is any other thread.
    signals::watch()
        .map_err(|error| Exit::Failed(format!("cannot start a thread for signals: {error}")))?;
    let machine = Mounted::find(&args.folder)?;
    watch(&machine, &console::printable(&args.folder.display().to_string()))
}

/// Shows a machine until a key ends that.
fn watch(texts: &dyn Texts, title: &str) -> Result<(), Exit> {
    if !terminal::is_there() {
        return Err(Exit::BadInput(NO_TERMINAL.into()));
    }
    let begun = Instant::now();
    let mut app = App::new(title.into(), texts).map_err(Exit::Failed)?;
    let failed = |error| Exit::Failed(format!("cannot use the terminal: {error}"));
    let mut taken = terminal::Taken::new().map_err(failed)?;
    let mut next = PERIOD;
    let mut shown = None;
    while !app.has_ended && !interrupt::is_asked() {
        let mut key = Ok(None);
        texts.idle(&mut || {
            key = (|| {
                let size = taken.terminal.size()?;
                app.lay_out(size.width, size.height);
                // Another screen is drawn as a whole: what others wrote to the terminal goes with the old one.
                let chosen = (app.screen, app.help, app.map.page.is_some(), size);
                if shown.replace(chosen) != Some(chosen) {
                    taken.begin_anew()?;
                }
                taken.terminal.draw(|frame| draw::draw(frame, &app))?;
                let until = next.saturating_sub(begun.elapsed()).min(WAIT);
                Ok(if event::poll(until)? { Some(event::read()?) } else { None })
            })();
        });
        match key.map_err(failed)? {
            Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                app.key(key);
                app.fetch(texts);
            }
            _ => {}
        }
        let now = begun.elapsed();
        if now >= next {
            next = now + PERIOD;
            app.refresh(texts, now).map_err(Exit::Failed)?;
        }
    }
    Ok(())
}

/// The texts of a machine in this process.
struct Own<'m, const SHIFT: u32, const TRACE: bool> {
    machine: &'m Hosted<SHIFT, TRACE>,
    tree: Arc<Tree<'m, Hosted<SHIFT, TRACE>>>,
}

impl<const SHIFT: u32, const TRACE: bool> Texts for Own<'_, SHIFT, TRACE> {
    fn read(&self, name: &str) -> Result<String, String> {
        self.tree.text(&format!("/proc/{name}")).map_err(|error| error.to_string())
    }

    fn idle(&self, work: &mut dyn FnMut()) {
        self.machine.idle(work);
    }
}

/// `top`.
pub const fn top<const SHIFT: u32, const TRACE: bool>() -> Command<Hosted<SHIFT, TRACE>> {
    Command {
        name: "top",
        usage: "top",
        about: "watch zones, free blocks, caches, CPUs' lists and a map of this machine; q ends\n\
                `kmem top DIR` watches one that is mounted from another terminal, while it works.",
        example: "top",
        run: run_top,
    }
}

fn run_top<const SHIFT: u32, const TRACE: bool>(
    shell: &mut Shell<'_, Hosted<SHIFT, TRACE>>,
    arguments: &[String],
    _: &mut dyn Sink,
) -> Result<(), Failure> {
    if !arguments.is_empty() {
        return Err(Failure::Usage("it takes no arguments: write `top`".into()));
    }
    let machine = shell.system();
    watch(&Own { machine, tree: shell.tree() }, machine.title()).map_err(|exit| match exit {
        Exit::BadInput(line) => Failure::Usage(line),
        Exit::Failed(line) => Failure::Failed(line),
        _ => Failure::Failed("it was ended".into()),
    })
}
