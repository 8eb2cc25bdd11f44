//! The terminal: a screen of its own while it is watched, and the old one afterwards, however this ends.

use std::io::{self, IsTerminal, stdin, stdout};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

/// Whether the terminal is to be put back.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether there is one, for keys and for what is drawn.
pub fn is_there() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

/// The terminal as it was, if it is taken. For whoever ends the process as well.
pub fn put_back() {
    if TAKEN.swap(false, SeqCst) {
        // Nobody is left to tell.
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// A terminal that is put back when this is dropped.
pub struct Taken {
    pub terminal: Terminal<CrosstermBackend<io::Stdout>>,
}

impl Taken {
    /// Takes it: keys come one by one, unseen, and the screen is empty.
    ///
    /// # Errors
    ///
    /// The terminal cannot do that.
    pub fn new() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                put_back();
                before(info);
            }));
        });
        enable_raw_mode()?;
        TAKEN.store(true, SeqCst);
        let taken = execute!(stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match taken {
            Ok(terminal) => Ok(Taken { terminal }),
            Err(error) => {
                put_back();
                Err(error)
            }
        }
    }

    /// Empties the screen, so that what is drawn next is drawn as a whole, in the size that it has now.
    ///
    /// Not by the library's own `clear`, which asks the terminal where its cursor is: some never answer.
    ///
    /// # Errors
    ///
    /// The terminal cannot do that.
    pub fn begin_anew(&mut self) -> io::Result<()> {
        execute!(stdout(), Clear(ClearType::All))?;
        self.terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        put_back();
    }
}
