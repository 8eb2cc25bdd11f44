//! `kmem advise` from outside: what docs/choosing.md shows, wrong questions, a terminal.

mod common;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::Command;

use common::{kmem, kmem_unread, kmem_with};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

/// The rows of the page that begin with a command, as cells without their backquotes.
fn rows() -> Vec<Vec<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/choosing.md");
    let page = std::fs::read_to_string(path).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `kmem advise "));
    rows.map(|row| {
        // A bar inside a cell is escaped.
        let row = row.replace("\\|", "\u{1}");
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().replace('`', "").replace('\u{1}', "|")).collect()
    })
    .collect()
}

/// The arguments of a command on the page.
fn arguments(command: &str) -> Vec<&str> {
    command.split(' ').skip(1).collect()
}

fn advice(command: &str) -> Value {
    let json = kmem(&[&arguments(command)[..], &["--json"]].concat()).well();
    serde_json::from_str(&json).unwrap()
}

/// A130, A131, A132, A133, A134, A331, A332, A333, A334, A335, A336
#[test]
fn the_page_shows_what_the_command_answers() {
    let rows = rows();
    let examples: Vec<_> = rows.iter().filter(|row| row.len() == 3).collect();
    assert!(examples.len() >= 30, "{}", examples.len());
    for row in examples {
        let [command, call, free] = &row[..] else { unreachable!() };
        let answer = advice(command);
        assert_eq!((&answer["call"], &answer["free"]), (&json(call), &json(free)), "{command}");
        // The lines for a person say the same.
        let text = kmem(&arguments(command)).well();
        assert!(text.contains(&format!("call    {call}\n")), "{command}: {text}");
        assert!(text.contains(&format!("free    {free}\n")), "{command}: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        for id in answer["ids"].as_array().unwrap() {
            assert!(text.contains(id.as_str().unwrap()), "{command}: {text}");
        }
    }
}

fn json(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// A230
#[test]
fn the_page_shows_what_the_command_refuses() {
    let rows = rows();
    let refused: Vec<_> = rows.iter().filter(|row| row.len() == 2).collect();
    assert!(refused.len() >= 12, "{}", refused.len());
    for row in refused {
        kmem(&arguments(&row[0])).complains(2, &row[1]);
    }
    assert!(rows.iter().all(|row| [2, 3].contains(&row.len())));
}

/// What is advised on the page is done on the machine that it is for: each call that has a command
/// gets its memory, with these very flags.
#[test]
fn what_is_advised_can_be_had() {
    let mut followed = BTreeSet::new();
    for row in rows().iter().filter(|row| row.len() == 3) {
        let answer = advice(&row[0]);
        let call = answer["call"].as_str().unwrap();
        let flags = answer["flags"].as_str().unwrap_or_default();
        let (name, inside) = call.split_once('(').unwrap_or((call, ""));
        let numbers: Vec<&str> = inside.trim_end_matches(')').split(", ").collect();
        let commands = match name {
            "kmalloc" => format!("kmalloc {} '{flags}'", numbers[0]),
            "__get_free_page" | "alloc_page" => format!("alloc_pages '{flags}' 0"),
            "__get_free_pages" | "alloc_pages" => format!("alloc_pages '{flags}' {}", numbers[1]),
            "kmem_cache_alloc" => {
                let before = answer["before"].as_str().unwrap();
                let size = before.split(", ").nth(1).unwrap();
                let dma = if before.contains("SLAB_CACHE_DMA") { "dma" } else { "" };
                format!("cache create name {size} hwalign {dma}; cache alloc name 10 '{flags}'")
            }
            _ => continue,
        };
        let words = arguments(&row[0]);
        let option = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            Some(words[at + 1])
        };
        let mut boot = vec!["boot", "--machine", option("--machine").unwrap_or("default")];
        boot.extend(option("--set").map(|setting| ["--set", setting]).into_iter().flatten());
        boot.extend(["-c", &commands]);
        kmem(&boot).well();
        followed.insert(name.to_owned());
    }
    assert_eq!(followed.len(), 6, "{followed:?}");
}

#[test]
fn answers_depend_on_the_machine() {
    let call = |options: &str| {
        let answer = advice(&format!("kmem advise {options}"));
        answer["call"].as_str().unwrap().to_owned()
    };
    assert_eq!(call("--size 6K"), "kvmalloc(6144, GFP_KERNEL)");
    assert_eq!(call("--size 6K --set page_shift=16"), "kmalloc(6144, GFP_KERNEL)");
    assert!(call("--size 256K --contiguity physical").starts_with("__get_free_pages("));
    let orders = ["--set", "largest_order=5", "--set", "page_block_order=5"];
    let small = ["advise", "--size", "256K", "--contiguity", "physical"];
    kmem(&[&small[..], &orders].concat()).complains(2, "largest block of machine default, 128K");
    kmem(&["advise", "--size", "1G", "--contiguity", "virtual"]).complains(2, "of RAM of machine");
    assert_eq!(call("--size 1G --contiguity virtual --mem 2G"), "vmalloc(1073741824)");
}

#[test]
fn options_that_make_no_sense_are_refused_in_one_line() {
    for (options, needle) in [
        ("", "--size is missing"),
        ("--json", "--size is missing"),
        ("--context task", "--size is missing"),
        ("--size", "--size"),
        ("--size 0", "give at least 1"),
        ("--size lots", "'lots' is no size: give bytes"),
        ("--size -1", "'-1'"),
        ("--size 99999999999G", "is no size"),
        ("--size 1 --count 0", "give at least 1"),
        ("--size 1 --count -1", "-1"),
        ("--size 1 --count x", "'x'"),
        ("--size 16777215T --count 18446744073709551615", "times 16777215T is more than the"),
        ("--size 1 --dma 0", "a device has no 0 address lines: give 1 to 64"),
        ("--size 1 --dma 65", "give 1 to 64"),
        ("--size 1 --dma x", "'x'"),
        ("--size 1 --context moon", "'moon'"),
        ("--size 1 --contiguity both", "'both'"),
        ("--size 1 --lifetime 3", "'3'"),
        ("--size 1 --user --high", "cannot be used with"),
        ("--size 1 --coherent", "--dma <BITS>"),
        ("--size 1 --machine nosuch", "'nosuch'"),
        ("--size 1 x", "'x'"),
    ] {
        let words = options.split(' ').filter(|word| !word.is_empty());
        let run = kmem(&["advise"].into_iter().chain(words).collect::<Vec<_>>());
        assert!(run.out.is_empty(), "{options}: {}", run.out);
        assert!(run.err.chars().count() < 250, "{}", run.err);
        run.complains(2, needle);
    }
    // Nothing is read where nobody is asked.
    kmem_with(&["advise"], b"100\n1\n").complains(2, "--size is missing");
    assert_eq!(kmem_unread(&["advise", "--size", "1"]).status, 141);
}

#[test]
fn help_says_what_the_options_take() {
    let help = kmem(&["advise", "--help"]).well();
    for shown in
        ["\nExamples:\n  kmem advise\n", "[default: task]", "- block-io:", "docs/choosing.md"]
    {
        assert!(help.contains(shown), "{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
}

/// A terminal that `kmem advise` runs at.
struct Terminal {
    ours: File,
    screen: String,
    /// How much of the screen has been waited for.
    seen: usize,
}

impl Terminal {
    /// Reads more; `false` once the other end is closed.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = self.ours.read(&mut bytes).unwrap_or(0);
        self.screen += &String::from_utf8_lossy(&bytes[..count]);
        count > 0
    }

    /// Waits until `question` is shown, and answers it.
    fn answer(&mut self, question: &str, answer: &str) {
        loop {
            if let Some(at) = self.screen[self.seen..].find(question) {
                self.seen += at + question.len();
                break;
            }
            assert!(self.read(), "{question:?} did not come: {}", self.screen);
        }
        write!(self.ours, "{answer}").unwrap();
    }
}

/// Runs `kmem advise` with these options at a terminal, answers its questions, and tells what was
/// shown and the status.
fn at_terminal(options: &[&str], answers: &[(&str, &str)]) -> (String, Option<i32>) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_kmem"))
        .arg("advise")
        .args(options)
        .env("TERM", "xterm")
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs)
        .spawn()
        .unwrap();
    let mut terminal = Terminal { ours: ours.into(), screen: String::new(), seen: 0 };
    for (question, answer) in answers {
        terminal.answer(question, answer);
    }
    while terminal.read() {}
    (terminal.screen, child.wait().unwrap().code())
}

#[test]
fn without_a_size_a_person_is_asked() {
    let (screen, status) = at_terminal(
        &["--machine", "x86_64"],
        &[
            ("bytes of one piece", "8K\r"),
            ("how many at a time [1]: ", "\r"),
            ("where the code runs (", "?\r"),
            ("where the code runs (", "task\r"),
            ("what for (", "dma 32\r"),
            ("how long (short, long, forever) [long]: ", "\r"),
        ],
    );
    assert_eq!(status, Some(0), "{screen}");
    assert!(screen.contains("kmem advise --size 8K --dma 32"), "{screen}");
    assert!(screen.contains("__get_free_pages(GFP_KERNEL|GFP_DMA32, 1)"), "{screen}");
    assert!(screen.contains("softirq or tasklet"), "{screen}");
    assert!(!screen.contains("side by side"), "{screen}");
}

#[test]
fn a_person_who_leaves_gets_no_advice() {
    for leave in ["\u{3}", "\u{4}"] {
        let (screen, status) =
            at_terminal(&[], &[("bytes of one piece", "100\r"), ("how many", leave)]);
        assert_eq!(status, Some(1), "{screen}");
        assert!(screen.contains("the questions ended"), "{screen}");
        assert!(!screen.contains("kmalloc"), "{screen}");
    }
    let (screen, status) = at_terminal(
        &["--contiguity", "virtual", "--context", "interrupt"],
        &[
            ("bytes of one piece", "16M\r"),
            ("how many", "\r"),
            ("what for", "\r"),
            ("how long", "\r"),
        ],
    );
    assert_eq!(status, Some(2), "{screen}");
    assert!(screen.contains("vmalloc may sleep"), "{screen}");
}
