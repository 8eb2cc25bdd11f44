//! Help, manual pages, completions, and documents for programs.

mod common;

use std::process::Command;

use common::{Folder, kmem, tiny};

const COMMANDS: [&str; 10] = [
    "boot",
    "machines",
    "demo",
    "advise",
    "conformance",
    "trace",
    "map",
    "top",
    "completions",
    "man",
];

/// The section of a text that begins with a line.
fn section<'t>(text: &'t str, title: &str) -> &'t str {
    let at = text.find(&format!("\n{title}:\n")).unwrap_or_else(|| panic!("{title}: {text}"));
    let body = &text[at + title.len() + 3..];
    body.find("\n\n").map_or(body, |end| &body[..end])
}

#[test]
fn every_command_explains_itself_shortly_and_at_length() {
    for command in COMMANDS {
        let (short, long) = (kmem(&[command, "-h"]).well(), kmem(&[command, "--help"]).well());
        assert!(short.len() < long.len(), "{command}");
        assert!(!short.contains("Examples:"), "{short}");
        assert!(section(&long, "Examples").contains("  kmem "), "{long}");
        assert!(section(&long, "Exit status").contains("\n  2  "), "{long}");
        for text in [short, long] {
            assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        }
    }
    let all = kmem(&["--help"]).well();
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command} ")), "{command}: {all}");
    }
    for named in ["NO_COLOR", "XDG_STATE_HOME", "\n  141  "] {
        assert!(all.contains(named), "{named}: {all}");
    }
}

/// What help shows is done: the examples with a machine, in a folder of their own.
#[test]
fn the_examples_of_help_work() {
    let folder = Folder::new();
    let mut done = 0;
    for command in ["boot", "machines", "advise", "map", "completions", "man"] {
        let long = kmem(&[command, "--help"]).well();
        for example in section(&long, "Examples").lines().map(str::trim) {
            // These want a terminal, a mount, a home, or the whole line of another shell.
            let wants_more =
                ["<(", "~", "--mount", "/mnt", "man -l", "kmem boot --machine my.toml"];
            let asks = ["kmem boot", "kmem advise"].contains(&example);
            if asks || wants_more.iter().any(|part| example.contains(part)) {
                continue;
            }
            let kmem = env!("CARGO_BIN_EXE_kmem");
            let run = Command::new("sh")
                .args(["-ec", &example.replace("kmem ", &format!("{kmem} "))])
                .current_dir(folder.path(""))
                .output()
                .unwrap();
            let err = String::from_utf8_lossy(&run.stderr);
            assert!(run.status.success(), "{example}: {err}");
            done += 1;
        }
    }
    assert!(done >= 12, "{done}");
}

#[test]
fn manual_pages_have_the_sections_of_help() {
    let page = kmem(&["man", "boot"]).well();
    for part in [
        ".TH kmem-boot 1",
        "\n.SH NAME\nkmem\\-boot",
        "\\-\\-machine",
        "\n.SH EXAMPLES\n.nf\n\\fBkmem boot\\fR\n",
        "\n.SH \"EXIT STATUS\"\n.nf\n0  all went well\n",
        "\n.SH FILES\n",
        "\n.SH ENVIRONMENT\n",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let folder = Folder::new();
    let pages = folder.path("man/man1");
    assert_eq!(kmem(&["man", "--dir", &pages]).well(), "");
    for command in COMMANDS {
        let written = std::fs::read_to_string(format!("{pages}/kmem-{command}.1")).unwrap();
        assert_eq!(written, kmem(&["man", command]).well());
    }
    let whole = std::fs::read_to_string(format!("{pages}/kmem.1")).unwrap();
    assert_eq!(whole, kmem(&["man"]).well());
    assert!(whole.contains("kmem\\-boot(1)"), "{whole}");
}

#[test]
fn shells_complete_commands_options_and_presets() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = kmem(&["completions", shell]).well();
        for word in ["conformance", "machine", "numa2"] {
            // PowerShell and elvish are given no values.
            if word != "numa2" || ["bash", "zsh", "fish"].contains(&shell) {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
    let script = kmem(&["completions", "bash"]).well();
    let complete = |words: &str, at: usize, typed: &str, before: &str| {
        let line = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={at}; _kmem kmem '{typed}' '{before}'; \
             echo \"${{COMPREPLY[*]}}\""
        );
        let run = Command::new("bash").args(["-c", &line]).output().unwrap();
        String::from_utf8(run.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("kmem bo", 1, "bo", "kmem"), "boot");
    assert_eq!(complete("kmem boot --mach", 2, "--mach", "boot"), "--machine");
    assert_eq!(complete("kmem boot --machine ti", 3, "ti", "--machine"), "tiny");
    assert_eq!(complete("kmem machines num", 2, "num", "machines"), "numa2");
}

/// One document each, with numbers as numbers.
#[test]
fn what_reports_prints_a_document_for_programs() {
    let folder = Folder::new();
    let trace = folder.path("trace");
    kmem(&["boot", "--machine", "tiny", "--trace", &trace, "-c", "stress 1000"]);
    let document = |arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&kmem(arguments).well()).unwrap()
    };
    assert_eq!(document(&["machines", "--json"])[0]["memory"], 64 << 20);
    assert_eq!(document(&["machines", "--keys", "--json"])[3]["name"], "cpus");
    assert_eq!(document(&["advise", "--size", "100", "--json"])["machine"], "default");
    assert!(document(&["trace", "--json", &trace])["events"].as_u64().unwrap() > 0);
    let cases = document(&["conformance", "--machine", "tiny", "--case", "A062", "--json"]);
    let cases = cases.as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        assert!(case["ids"].as_array().unwrap().iter().any(|id| id == "A062"), "{case}");
        assert_ne!(case["outcome"], "failed", "{case}");
    }
    // What help says of the forms is so.
    for (command, arguments) in [
        ("machines", &["machines", "--json"][..]),
        ("advise", &["advise", "--size", "100", "--json"]),
        ("trace", &["trace", "--json", &trace]),
        ("conformance", &["conformance", "--machine", "tiny", "--case", "A062", "--json"]),
    ] {
        let help = kmem(&[command, "--help"]).well();
        let said = section(&help, "JSON");
        let document = document(arguments);
        let object = document.get(0).unwrap_or(&document).as_object().unwrap();
        for key in object.keys() {
            let named =
                said.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == key);
            assert!(named, "{command}: {key} is not in: {said}");
        }
    }
}

#[test]
fn help_at_the_prompt_groups_the_commands() {
    let out = tiny("help").well();
    let titles: Vec<&str> =
        out.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
    assert_eq!(titles.first(), Some(&"Modules:"));
    assert_eq!(titles.last(), Some(&"This machine:"));
    assert!(titles.len() >= 6, "{titles:?}");
}
