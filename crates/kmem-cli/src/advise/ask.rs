//! Questions to a person at a terminal.

use clap::ValueEnum;
use kmem_host::description::parse_size;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::Args;
use super::need::{Context, Contiguity, Lifetime, Purpose, word};
use crate::console::printable;
use crate::exit::Exit;

/// Answers to questions, and what is said between them.
pub trait Person {
    /// The answer to a question.
    fn answer(&mut self, question: &str) -> Result<String, Exit>;
    /// Says something.
    fn tell(&mut self, line: &str) -> Result<(), Exit>;
}

/// A person at the terminal.
pub struct Terminal(DefaultEditor);

impl Terminal {
    pub fn open() -> Result<Self, Exit> {
        DefaultEditor::new().map(Terminal).map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &ReadlineError) -> Exit {
    Exit::Failed(format!("cannot read the terminal: {error}"))
}

impl Person for Terminal {
    fn answer(&mut self, question: &str) -> Result<String, Exit> {
        self.0.readline(question).map_err(|error| match error {
            ReadlineError::Interrupted | ReadlineError::Eof => {
                Exit::Failed("the questions ended before all were answered".into())
            }
            error => unreadable(&error),
        })
    }

    fn tell(&mut self, line: &str) -> Result<(), Exit> {
        super::print(line)
    }
}

/// One question: `read` makes something of an answer, or says what is wrong with it.
struct Question<'a, T> {
    text: &'a str,
    /// What an empty answer means.
    default: Option<(&'a str, T)>,
    /// What `?` says.
    help: String,
    read: &'a dyn Fn(&str) -> Result<T, String>,
}

impl<T> Question<'_, T> {
    /// Asks until the answer is one.
    fn ask(self, person: &mut dyn Person) -> Result<T, Exit> {
        let default = self.default.as_ref().map(|(shown, _)| format!(" [{shown}]"));
        let prompt = format!("{}{}: ", self.text, default.unwrap_or_default());
        loop {
            let answer = person.answer(&prompt)?;
            match answer.trim() {
                "?" => person.tell(&self.help)?,
                "" => match self.default {
                    Some((_, default)) => return Ok(default),
                    None => person.tell(&self.help)?,
                },
                answer => match (self.read)(answer) {
                    Ok(value) => return Ok(value),
                    Err(wrong) => person.tell(&printable(&wrong))?,
                },
            }
        }
    }
}

/// Asks for one of some choices.
fn choice<T: ValueEnum>(person: &mut dyn Person, question: &str, default: T) -> Result<T, Exit> {
    let words: Vec<String> = T::value_variants().iter().map(|value| word(value.clone())).collect();
    let help = |value: &T| {
        let value = value.to_possible_value()?;
        let about = value.get_help().map(ToString::to_string).unwrap_or_default();
        Some(format!("  {:<11}{about}", value.get_name()))
    };
    let help: Vec<String> = T::value_variants().iter().filter_map(help).collect();
    let words = words.join(", ");
    Question {
        text: &format!("{question} ({words})"),
        default: Some((&word(default.clone()), default)),
        help: help.join("\n"),
        read: &|answer| {
            T::from_str(answer, true)
                .map_err(|_| format!("'{answer}' is none of {words}; ? explains"))
        },
    }
    .ask(person)
}

/// Reads the answer to what the memory is for.
fn purpose(answer: &str) -> Result<Purpose, String> {
    let lines = |bits: &str| match bits.trim().parse() {
        Ok(bits @ 1..=64) => Ok(bits),
        _ => Err(format!("'{bits}' is no number of address lines: give 24, 32 or up to 64")),
    };
    match answer.split_once(' ').unwrap_or((answer, "")) {
        ("software", "") => Ok(Purpose::Software),
        ("user", "") => Ok(Purpose::User),
        ("high", "") => Ok(Purpose::High),
        ("per-cpu", "") => Ok(Purpose::PerCpu),
        ("dma", bits) => Ok(Purpose::Dma { bits: lines(bits)?, coherent: false }),
        ("coherent", bits) => Ok(Purpose::Dma { bits: lines(bits)?, coherent: true }),
        _ => Err(format!(
            "'{answer}' is none of software, dma 24, coherent 32, user, high, per-cpu; ? explains"
        )),
    }
}

const PURPOSES: &str = "  \
  software   the kernel's own use, by address
  dma N      a device with N address lines, transfer by transfer: dma 24, dma 32
  coherent N the same, and the CPU uses the memory at the same time
  user       a process gets it
  high       pages that are mapped only when they are used
  per-cpu    each CPU has a copy of its own";

/// Fills in what the arguments leave open.
pub fn ask(args: &mut Args, person: &mut dyn Person) -> Result<(), Exit> {
    person.tell("What do you need memory for? Enter takes what is in brackets, ? explains.")?;
    if args.size.is_none() {
        let size = Question {
            text: "bytes of one piece (100, 64K, 2M)",
            default: None,
            help: "  The size of one structure or buffer: 100, 64K, 2M; of pages, 4K for each."
                .into(),
            read: &|answer| {
                let size = parse_size(answer).filter(|size| *size > 0);
                size.map(|_| answer.to_owned()).ok_or_else(|| super::no_size(answer))
            },
        };
        args.size = Some(size.ask(person)?);
    }
    if args.count.is_none() {
        let count = Question {
            text: "how many at a time",
            default: Some(("1", 1)),
            help: "  How many pieces of that size are in use at a time: 1, 10000.".into(),
            read: &|answer| match answer.parse() {
                Ok(count) if count > 0 => Ok(count),
                _ => Err(format!("'{answer}' is no number of pieces: give 1 or more")),
            },
        };
        args.count = Some(count.ask(person)?);
    }
    if args.context.is_none() {
        args.context = Some(choice(person, "where the code runs", Context::Task)?);
    }
    if args.purpose() == Purpose::Software {
        let what = Question {
            text: "what for (software, dma N, coherent N, user, high, per-cpu)",
            default: Some(("software", Purpose::Software)),
            help: PURPOSES.into(),
            read: &purpose,
        };
        args.set_purpose(what.ask(person)?);
    }
    // A device wants frames, and a copy for each CPU is small.
    let asks = !matches!(args.purpose(), Purpose::Dma { .. } | Purpose::PerCpu);
    if args.contiguity.is_none() && asks {
        args.contiguity = Some(choice(person, "side by side", Contiguity::Any)?);
    }
    if args.lifetime.is_none() {
        args.lifetime = Some(choice(person, "how long", Lifetime::Long)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    struct Script {
        answers: VecDeque<&'static str>,
        said: String,
    }

    impl Person for Script {
        fn answer(&mut self, question: &str) -> Result<String, Exit> {
            self.said += question;
            self.said.push('\n');
            let answer = self.answers.pop_front();
            answer.map(str::to_owned).ok_or_else(|| Exit::Failed("no more answers".into()))
        }

        fn tell(&mut self, line: &str) -> Result<(), Exit> {
            self.said += line;
            self.said.push('\n');
            Ok(())
        }
    }

    /// What is needed after these options and answers, as options, and what was said.
    fn asked(options: &[&str], answers: &[&'static str]) -> (Result<String, Exit>, String) {
        let mut args = Cli::try_parse_from([&["advise"], options].concat()).unwrap().args;
        let mut person = Script { answers: answers.iter().copied().collect(), said: String::new() };
        let result = ask(&mut args, &mut person)
            .and_then(|()| args.need())
            .map(|need| need.options().join(" "));
        assert!(result.is_err() || person.answers.is_empty(), "{}", person.said);
        assert!(person.said.lines().all(|line| line.chars().count() <= 100), "{}", person.said);
        (result, person.said)
    }

    #[test]
    fn empty_answers_take_the_defaults() {
        let (need, said) = asked(&[], &["64K", "", "", "", "", ""]);
        assert_eq!(need.unwrap(), "--size 64K");
        assert!(said.contains("where the code runs (task, locked, interrupt,"), "{said}");
        assert!(said.contains(") [task]: "), "{said}");
    }

    #[test]
    fn answers_are_what_options_say() {
        let (need, _) = asked(&[], &["100", "5000", "Softirq", "dma 24", "short"]);
        assert_eq!(
            need.unwrap(),
            "--size 100 --count 5000 --context interrupt --lifetime short --dma 24"
        );
        let (need, _) = asked(&[], &["1M", "2", "task", "user", "physical", "long"]);
        assert_eq!(need.unwrap(), "--size 1M --count 2 --contiguity physical --user");
        let (need, _) = asked(&[], &["64", "", "", "per-cpu", "forever"]);
        assert_eq!(need.unwrap(), "--size 64 --lifetime forever --per-cpu");
        let (need, _) = asked(&[], &["64", "", "", "coherent 32", ""]);
        assert_eq!(need.unwrap(), "--size 64 --dma 32 --coherent");
    }

    #[test]
    fn what_options_say_is_not_asked() {
        let options = ["--context", "nmi", "--high", "--lifetime", "long"];
        let (need, said) = asked(&options, &["4K", "", "any"]);
        assert_eq!(need.unwrap(), "--size 4K --context nmi --high");
        assert!(!said.contains("where the code runs") && !said.contains("what for"), "{said}");
    }

    #[test]
    fn wrong_answers_are_told_and_asked_again() {
        let (need, said) = asked(
            &[],
            &[
                "lots", "", "0", "?", "100", "0", "x", "3", "nowhere", "?", "task", "dma",
                "dma 65", "dma x", "moon", "?", "high", "some", "any", "long",
            ],
        );
        assert_eq!(need.unwrap(), "--size 100 --count 3 --high");
        for shown in [
            "'lots' is no size",
            "'0' is no size",
            "'x' is no number of pieces",
            "'nowhere' is none of task, ",
            "  block-io   Block I/O code: it may sleep",
            "'' is no number of address lines",
            "'65' is no number of address lines",
            "'moon' is none of software, ",
            "  per-cpu    each CPU has a copy",
            "'some' is none of any, physical, virtual",
        ] {
            assert!(said.contains(shown), "{shown}: {said}");
        }
    }

    #[test]
    fn an_end_before_the_last_answer_fails() {
        let (need, _) = asked(&[], &["100", ""]);
        assert!(matches!(need, Err(Exit::Failed(_))));
    }
}
