//! What is about no particular thing: the stress scenario, time, help, the end.

use alloc::format;
use alloc::string::String;

use super::{Command, Group, exactly, groups, print, usage, word};
use crate::shell::find;
use crate::stress;
use crate::{Failure, Shell, Sink, System, go_on};

pub(super) const fn stress<S: System>() -> Command<S> {
    Command {
        name: "stress",
        usage: "stress OPERATIONS [SEED]",
        about: "allocate and free at random on all CPUs and in interrupts, checking contents\n\
                Memory runs out on purpose now and then: refused requests are no failure.\n\
                SEED fixes what each CPU's worker chooses, not how the CPUs interleave.",
        example: "stress 100000",
        run: run_stress,
    }
}

fn run_stress<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let (operations, seed) = match arguments {
        [operations] => (operations, shell.system.nanoseconds()),
        [operations, seed] => (operations, word(seed, "seed: give a whole number")?),
        _ => return Err(usage(&stress::<S>())),
    };
    let operations = word(operations, "number of operations: give a whole number such as 100000")?;
    print(out, format_args!("seed {seed}\n"))?;
    let report = stress::run(shell.system, operations, seed)
        .map_err(|message| format!("{message} (seed {seed})"))?;
    print(out, format_args!("{report}\n"))
}

pub(super) const fn sleep<S: System>() -> Command<S> {
    Command {
        name: "sleep",
        usage: "sleep SECONDS",
        about: "wait; the CPU is free for others meanwhile",
        example: "sleep 0.5",
        run: run_sleep,
    }
}

/// A day: longer sleeps are slips of the finger.
const LONGEST_SLEEP: f64 = 86_400.0;

/// How long nobody looks whether a sleep is to end, in nanoseconds.
const NAP: u64 = 50_000_000;

fn run_sleep<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    _: &mut dyn Sink,
) -> Result<(), Failure> {
    let [seconds] = exactly(&sleep::<S>(), arguments)?;
    let seconds: f64 = word(seconds, "number of seconds: give one such as 0.5")?;
    if !(0.0..=LONGEST_SLEEP).contains(&seconds) {
        let message = format!("the time is out of range: give 0 to {LONGEST_SLEEP} seconds");
        return Err(Failure::Usage(message));
    }
    // In pieces, so that it can be ended.
    let end = shell.system.nanoseconds() + (seconds * 1e9) as u64;
    loop {
        match end.saturating_sub(shell.system.nanoseconds()) {
            0 => return Ok(()),
            left => shell.system.sleep(left.min(NAP)),
        }
        go_on(shell.system)?;
    }
}

pub(super) const fn time<S: System>() -> Command<S> {
    Command {
        name: "time",
        usage: "time COMMAND [ARGUMENT]...",
        about: "run a command and say how long it took",
        example: "time cp /etc/services /dev/scullp0",
        run: run_time,
    }
}

fn run_time<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    if arguments.is_empty() {
        return Err(usage(&time::<S>()));
    }
    let command = find::<S>(arguments).map_err(|error| Failure::Usage(format!("{error}")))?;
    if command.name == time::<S>().name {
        return Err(Failure::Usage("it cannot time itself: write `time` once".into()));
    }
    let start = shell.system.nanoseconds();
    let explain = |message| format!("{}: {message}", command.name);
    shell.run_into(command, &arguments[1..], out).map_err(|failure| match failure {
        Failure::Usage(message) => Failure::Usage(explain(message)),
        Failure::Failed(message) => Failure::Failed(explain(message)),
    })?;
    let microseconds = (shell.system.nanoseconds() - start) / 1000;
    let line = format!("real {}.{:06} s\n", microseconds / 1_000_000, microseconds % 1_000_000);
    // To the console even where the command's own output goes to a file.
    Ok(shell.system.print(line.as_bytes())?)
}

pub(super) const fn dmesg<S: System>() -> Command<S> {
    Command {
        name: "dmesg",
        usage: "dmesg",
        about: "show what the machine has logged since the last time, warnings and reports with it\n\
                A prompt shows them by itself after each command, so there is little left then.",
        example: "dmesg",
        run: run_dmesg,
    }
}

fn run_dmesg<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let [] = exactly(&dmesg::<S>(), arguments)?;
    shell.system.take_log().iter().try_for_each(|line| print(out, format_args!("{line}\n")))
}

pub(super) const fn help<S: System>() -> Command<S> {
    Command {
        name: "help",
        usage: "help [COMMAND]",
        about: "list the commands, or explain one",
        example: "help stress",
        run: run_help,
    }
}

/// A file of the host that there always is, in examples.
const OF_HOST: &str = "/etc/services";

fn run_help<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    match arguments {
        [] => {
            for Group { title, commands } in groups::<S>() {
                list(out, title, commands)?;
            }
            if !S::commands().is_empty() {
                list(out, "This machine", S::commands())?;
            }
            let paths = match shell.system.has_host() {
                true => {
                    "Paths under /dev, /proc and /sys are the machine's, all others the host's."
                }
                false => "Files are in /dev, /proc and /sys.",
            };
            print(
                out,
                format_args!(
                    "`;` separates commands; one that fails ends the line.\n\
                     `> FILE` sends output to a file, quotes keep blanks.\n\
                     {paths}\n\
                     `help COMMAND` says more, with an example.\n"
                ),
            )
        }
        [_] => {
            let Command { usage, about, example, .. } =
                find::<S>(arguments).map_err(|error| Failure::Usage(format!("{error}")))?;
            print(out, format_args!("{usage}\n"))?;
            for line in about.lines() {
                print(out, format_args!("    {line}\n"))?;
            }
            // A text of the machine's does as well as a file.
            let example = match shell.system.has_host() {
                true => String::from(*example),
                false => example.replace(OF_HOST, "/proc/slabinfo"),
            };
            print(out, format_args!("    e.g. {example}\n"))
        }
        _ => Err(usage(&help::<S>())),
    }
}

/// Commands with their first line, below a heading.
fn list<S: System>(
    out: &mut dyn Sink,
    title: &str,
    commands: &[Command<S>],
) -> Result<(), Failure> {
    print(out, format_args!("{title}:\n"))?;
    for Command { name, about, .. } in commands {
        let about = about.lines().next().unwrap_or_default();
        print(out, format_args!("{name:<12} {about}\n"))?;
    }
    print(out, format_args!("\n"))
}

pub(super) const fn exit<S: System>() -> Command<S> {
    Command {
        name: "exit",
        usage: "exit",
        about: "end the run here; what is still held is given back",
        example: "exit",
        run: |shell, arguments, _| end(shell, &exit(), arguments),
    }
}

pub(super) const fn quit<S: System>() -> Command<S> {
    Command {
        name: "quit",
        usage: "quit",
        about: "the same as exit",
        example: "quit",
        run: |shell, arguments, _| end(shell, &quit(), arguments),
    }
}

fn end<S: System>(
    shell: &mut Shell<'_, S>,
    command: &Command<S>,
    arguments: &[String],
) -> Result<(), Failure> {
    let [] = exactly(command, arguments)?;
    shell.ended = true;
    Ok(())
}
