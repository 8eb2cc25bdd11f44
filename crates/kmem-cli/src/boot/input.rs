//! Where commands come from.

use std::io::{BufRead, stdin};
use std::path::{Path, PathBuf};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::exit::Exit;

/// Where commands come from.
pub enum Input {
    /// The command line: all of it is one text.
    Text(String),
    /// A file that was read whole.
    Script { path: PathBuf, text: String },
    /// Standard input, which is no terminal.
    Standard,
    /// A person at a terminal.
    Prompt,
}

impl Input {
    /// The commands of a file.
    pub fn script(path: &Path) -> Result<Self, Exit> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Input::Script { path: path.to_owned(), text }),
            Err(error) => {
                Err(Exit::BadInput(format!("cannot read the script {}: {error}", path.display())))
            }
        }
    }

    /// Hands each piece of the input to `work`, with where it stands, until one fails. A piece that
    /// fails at a prompt is shown to the person by `complain`, and the next one follows.
    pub fn each(
        self,
        mut work: impl FnMut(&str) -> Result<(), Exit>,
        complain: impl Fn(&Exit),
    ) -> Result<(), Exit> {
        match self {
            Input::Text(text) => work(&text),
            Input::Script { path, text } => numbered(text.lines(), &path.to_string_lossy(), work),
            Input::Standard => {
                for line in stdin().lock().lines() {
                    let line = line.map_err(|error| {
                        Exit::Failed(format!("cannot read standard input: {error}"))
                    })?;
                    work(&line)?;
                }
                Ok(())
            }
            Input::Prompt => {
                let failed = |error| Exit::Failed(format!("cannot read the terminal: {error}"));
                let mut editor = DefaultEditor::new().map_err(failed)?;
                loop {
                    match editor.readline("kmem> ") {
                        Ok(line) if matches!(line.trim(), "exit" | "quit") => return Ok(()),
                        Ok(line) => {
                            // A history that cannot be kept is no reason to stop.
                            let _ = editor.add_history_entry(&line);
                            work(&line).unwrap_or_else(|exit| complain(&exit));
                        }
                        Err(ReadlineError::Interrupted) => {}
                        Err(ReadlineError::Eof) => return Ok(()),
                        Err(error) => return Err(failed(error)),
                    }
                }
            }
        }
    }
}

fn numbered<'t>(
    lines: impl Iterator<Item = &'t str>,
    name: &str,
    mut work: impl FnMut(&str) -> Result<(), Exit>,
) -> Result<(), Exit> {
    for (index, line) in lines.enumerate() {
        let at = |text: String| format!("{name}:{}: {text}", index + 1);
        work(line).map_err(|exit| match exit {
            Exit::Failed(text) => Exit::Failed(at(text)),
            Exit::BadInput(text) => Exit::BadInput(at(text)),
            Exit::Lost(text) => Exit::Lost(at(text)),
        })?;
    }
    Ok(())
}
