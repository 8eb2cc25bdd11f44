//! The prompt: a line editor that knows what may come next, and keeps what was typed.

use std::borrow::Cow;
use std::cell::RefCell;
use std::env;
use std::fs;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use crate::console::FAINT;
use crate::exit::Exit;
use crate::interrupt::interruptible;

/// What the prompt needs of what runs its lines.
pub trait Talk {
    /// Runs a line.
    fn run(&mut self, line: &str) -> Result<ControlFlow<()>, Exit>;

    /// Where the word before the end of the line begins, and what it may become.
    fn complete(&self, line: &str) -> (usize, Vec<String>);

    /// What the command before the end of the line wants next.
    fn wants(&self, line: &str) -> String;
}

/// How many lines are kept.
const HISTORY: usize = 1000;

/// Reads and runs lines until the end. A line that fails is told of, and the next one follows.
pub fn talk(talk: &mut impl Talk) -> Result<(), Exit> {
    let failed = |error| Exit::Failed(format!("cannot read the terminal: {error}"));
    let talk = RefCell::new(talk);
    let config = Config::builder()
        .max_history_size(HISTORY)
        .and_then(|config| config.history_ignore_dups(true))
        .map_err(failed)?
        .completion_type(CompletionType::List)
        .build();
    let mut editor: Editor<Guide<'_, _>, FileHistory> =
        Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Guide { talk: &talk, colours: has_colours() }));
    // A history that cannot be kept is no reason to stop.
    let history = history_file();
    let _ = history.as_ref().map(|path| editor.load_history(path));
    loop {
        match editor.readline("kmem> ") {
            Ok(line) => {
                if editor.add_history_entry(&line).unwrap_or(false) {
                    let _ = history.as_ref().map(|path| editor.append_history(path));
                }
                match interruptible(|| talk.borrow_mut().run(&line)) {
                    Ok(ControlFlow::Continue(())) => {}
                    Ok(ControlFlow::Break(())) => return Ok(()),
                    Err(Exit::Closed) => return Err(Exit::Closed),
                    Err(exit) => exit.tell(),
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Where lines are kept: `kmem/history` in the folder that programs keep such things in. `None` where there is
/// no such folder.
fn history_file() -> Option<PathBuf> {
    let named = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = named("XDG_STATE_HOME").or_else(|| Some(named("HOME")?.join(".local/state")))?;
    let folder = state.join("kmem");
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// Whether hints can be told from what is typed.
fn has_colours() -> bool {
    let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !plain && std::io::stdout().is_terminal()
}

/// Completes words, and shows what a command wants.
struct Guide<'t, T> {
    talk: &'t RefCell<&'t mut T>,
    colours: bool,
}

impl<T: Talk> Completer for Guide<'_, T> {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, words) = self.talk.borrow().complete(&line[..at]);
        let pair = |word: String| {
            let display = last_part(&word).to_owned();
            // What nothing can follow but another word is followed by a blank.
            let goes_on = word.ends_with(['/', '=']);
            Pair { display, replacement: if goes_on { word } else { word + " " } }
        };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}

/// What of a path is shown in a list: the last name, and the `/` of a directory.
fn last_part(word: &str) -> &str {
    let name = word.strip_suffix('/').unwrap_or(word);
    name.rfind('/').map_or(word, |at| &word[at + 1..])
}

impl<T: Talk> Hinter for Guide<'_, T> {
    type Hint = String;

    fn hint(&self, line: &str, at: usize, _: &Context<'_>) -> Option<String> {
        // Without colours it would look as if it had been typed.
        let wanted = (self.colours && at == line.len() && line.ends_with(' '))
            .then(|| self.talk.borrow().wants(line));
        wanted.filter(|wanted| !wanted.is_empty())
    }
}

impl<T: Talk> Highlighter for Guide<'_, T> {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        format!("{FAINT}{hint}{FAINT:#}").into()
    }
}

impl<T: Talk> Validator for Guide<'_, T> {}

impl<T: Talk> Helper for Guide<'_, T> {}

#[cfg(test)]
mod tests {
    use super::last_part;

    #[test]
    fn a_list_shows_the_last_name_of_a_path() {
        for (word, shown) in [
            ("cat", "cat"),
            ("/dev/scull0", "scull0"),
            ("/dev/", "dev/"),
            ("a/b/", "b/"),
            ("a", "a"),
        ] {
            assert_eq!(last_part(word), shown);
        }
    }
}
