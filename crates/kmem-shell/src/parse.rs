//! A line of text as commands and words.
//!
//! Words are separated by blanks. `'...'` and `"..."` keep blanks; `\` keeps the next character,
//! except in `'...'`. `;` and line ends separate commands. `> FILE` sends a command's output to a
//! file. `#` at the start of a word begins a remark, to the end of the line. `|`, `&` and `<` at the
//! start of a word are refused: they would do what people do not expect, which is nothing.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::iter::Peekable;
use core::str::Chars;

use crate::{Error, Failure};

/// One command as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// Its name and its arguments. Never empty.
    pub words: Vec<String>,
    /// The file that its output goes to, if not the console.
    pub output: Option<String>,
}

/// Reads commands from a text.
///
/// # Errors
///
/// A quote without its end, `>` without a file, or a word that begins with a sign of other shells.
pub fn parse(text: &str) -> Result<Vec<Invocation>, Error> {
    let fail = |message| Error { command: String::new(), failure: Failure::Usage(message) };
    let mut commands = Vec::new();
    let mut now = Invocation::default();
    let mut redirect = false;
    let mut characters = text.chars().peekable();
    loop {
        match characters.peek() {
            None | Some(';' | '\n') => {
                if redirect {
                    return Err(fail("> has no file after it: write `COMMAND > FILE`".into()));
                }
                if now.words.is_empty() && now.output.is_some() {
                    return Err(fail("> has no command before it: write `COMMAND > FILE`".into()));
                }
                if !now.words.is_empty() {
                    commands.push(core::mem::take(&mut now));
                }
                if characters.next().is_none() {
                    return Ok(commands);
                }
            }
            Some(c) if c.is_whitespace() => {
                characters.next();
            }
            Some('#') => while characters.next_if(|c| *c != '\n').is_some() {},
            Some('>') => {
                characters.next();
                if redirect || now.output.is_some() {
                    let what = if redirect {
                        "`>>` does not append here"
                    } else {
                        "a command has one output"
                    };
                    return Err(fail(format!(
                        "{what}: write `>` once, which empties the file first"
                    )));
                }
                redirect = true;
            }
            Some(c @ ('|' | '&' | '<')) => {
                let none = match c {
                    '|' => "there are no pipes",
                    '&' => "nothing runs in the background",
                    _ => "commands have no input",
                };
                let rest = "of the signs only `;` and `>` do something here: put others in quotes";
                return Err(fail(format!("`{c}` begins a word, and {none}: {rest}")));
            }
            Some(_) => {
                let word = word(&mut characters).map_err(|quote| {
                    fail(format!("a {quote} is not closed: write another one at its end"))
                })?;
                if core::mem::take(&mut redirect) {
                    now.output = Some(word);
                } else {
                    now.words.push(word);
                }
            }
        }
    }
}

/// Reads one word; the error is the quote that has no end.
fn word(characters: &mut Peekable<Chars<'_>>) -> Result<String, char> {
    let mut word = String::new();
    while let Some(c) = characters.next_if(|c| !c.is_whitespace() && *c != ';' && *c != '>') {
        match c {
            '\'' => loop {
                match characters.next() {
                    None => return Err('\''),
                    Some('\'') => break,
                    Some(c) => word.push(c),
                }
            },
            '"' => loop {
                match characters.next() {
                    None => return Err('"'),
                    Some('"') => break,
                    Some('\\') => word.extend(characters.next()),
                    Some(c) => word.push(c),
                }
            },
            '\\' => word.extend(characters.next()),
            c => word.push(c),
        }
    }
    Ok(word)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn words(text: &str) -> Vec<Vec<String>> {
        parse(text).unwrap().into_iter().map(|command| command.words).collect()
    }

    #[test]
    fn semicolons_and_line_ends_separate_commands() {
        assert_eq!(words("a b;c\n\n;;d "), [vec!["a", "b"], vec!["c"], vec!["d"]]);
        assert!(words(" ; \n").is_empty());
    }

    #[test]
    fn quotes_and_backslashes_keep_what_separates() {
        assert_eq!(words(r#"a 'b ;c' "d\" >e" f\ g''"#), [["a", "b ;c", "d\" >e", "f g"]]);
        assert_eq!(words(r"'\n' ''"), [[r"\n", ""]]);
        assert_eq!(words(r"a|b '|' \<"), [["a|b", "|", "<"]]);
    }

    #[test]
    fn a_remark_ends_with_its_line() {
        assert_eq!(words("a # b; c\nd e#f"), [vec!["a"], vec!["d", "e#f"]]);
    }

    #[test]
    fn output_goes_to_the_named_file() {
        let commands = parse("cat a>'b c'; ls").unwrap();
        assert_eq!(commands[0].output.as_deref(), Some("b c"));
        assert_eq!(commands[0].words, ["cat", "a"]);
        assert_eq!(commands[1].output, None);
    }

    #[test]
    fn what_cannot_be_read_is_a_usage_error() {
        for text in [
            "a 'b",
            "a \"b\\",
            "a >",
            "a > ; b",
            "> b",
            "a > b > c",
            "a | b",
            "a && b",
            "a &",
            "a < b",
            "a > b 2>&1",
        ] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error.failure, Failure::Usage(_)), "{text}: {error}");
        }
    }
}
