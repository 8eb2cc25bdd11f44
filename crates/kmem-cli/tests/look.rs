//! Looking at machines: `kmem map`, `kmem top`, and `top` at the prompt.

mod common;

use std::os::unix::process::ExitStatusExt;

use common::mounted::{Mounted, until};
use common::session::{PROMPT, Session};
use common::tmux::Screen;
use common::{Folder, kmem, tiny};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What the terminal is told when a screen of its own is given back.
const GIVEN_BACK: &str = "\u{1b}[?1049l";

/// A folder with a machine's texts, but for runs of frames.
fn texts() -> Folder {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("proc")).unwrap();
    let zone = "Node 0, zone   Normal";
    for (name, text) in [
        ("buddyinfo", format!("{zone}     1     2     3\n")),
        (
            "zoneinfo",
            format!("{zone}\n  pages free     17\n        min      3\n        managed  64\n"),
        ),
        ("vmstat", "pgalloc_normal 47\npgfree 0\n".into()),
    ] {
        std::fs::write(folder.path("proc/") + name, text).unwrap();
    }
    folder
}

#[test]
fn a_map_is_a_picture_by_its_name() {
    let folder = Folder::new();
    let (svg, png) = (folder.path("map.svg"), folder.path("map.PNG"));
    let commands = "insmod scullp; cp /dev/null /dev/scullp0; alloc_pages GFP_KERNEL 5";
    for file in [&svg, &png] {
        let arguments = ["map", "--machine", "tiny", "-c", commands, "--output", file];
        assert!(kmem(&arguments).well().starts_with("id 1: pfn "));
    }
    let text = std::fs::read_to_string(svg).unwrap();
    for part in
        ["<svg xmlns=", ">Physical memory of tiny<", ">Node 0, zone Normal<", ">in use: kernel<"]
    {
        assert!(text.contains(part), "{part}");
    }
    assert!(text.ends_with("</svg>\n"));
    assert!(std::fs::read(png).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
}

/// Each owner's pages, as the machine itself counts them, and all RAM.
#[test]
fn the_sums_of_a_map_are_those_of_the_machine() {
    let commands = "insmod scullv; echo 12345 > /dev/scullv0; cat /proc/pagemap-text";
    let out = kmem(&["map", "--machine", "numa2", "--json", "-c", commands]).well();
    let at = out.find("\n{").unwrap() + 1;
    let (legend, json) = out.split_at(at);
    let json: Value = serde_json::from_str(json).unwrap();
    let sum = |start: &str| -> u64 {
        let owners = json["owners"].as_array().unwrap().iter();
        let of = owners.filter(|owner| owner["owner"].as_str().unwrap().starts_with(start));
        of.map(|owner| owner["pages"].as_u64().unwrap()).sum()
    };
    let pages = |label: &str| -> u64 {
        let line = legend.lines().find(|line| line.get(14..).is_some_and(|l| l.starts_with(label)));
        let line = line.unwrap_or_else(|| panic!("no {label} in {legend}"));
        line[34..].split_whitespace().next().unwrap().parse().unwrap()
    };
    assert_eq!(sum("free"), pages("free"));
    assert_eq!(sum("in use"), pages("in use"));
    assert_eq!(sum("slab"), pages("slab"));
    assert_eq!(sum("kernel image"), pages("kernel image"));
    assert_eq!(json["ram_pages"], pages("all RAM"));
    assert!(sum("in use: vmalloc") > 0);
    let of_zones =
        json["zones"].as_array().unwrap().iter().map(|z| z["ram_pages"].as_u64().unwrap());
    assert_eq!(of_zones.sum::<u64>(), pages("all RAM"));
}

#[test]
fn without_a_file_a_map_is_text() {
    let out = kmem(&["map", "--machine", "tiny"]).well();
    assert!(out.starts_with("tiny, 64 MiB of RAM; a cell is "), "{out}");
    assert!(!out.contains('\u{1b}'), "no colours in a pipe: {out}");
    assert!(out.contains("manager's tables") && out.lines().all(|line| line.len() <= 80), "{out}");
    // The machine's tables are at the end of its RAM.
    let last = out.lines().rfind(|line| line.starts_with("      0x")).unwrap();
    assert!(last.contains(".:MMMM") || last.contains("..MMMM"), "{out}");
}

#[test]
fn what_makes_no_sense_to_map_or_top_is_said_in_one_line() {
    let (folder, watched) = (Folder::new(), texts());
    let (file, texts) = (folder.path("x"), watched.path(""));
    for (arguments, status, needle) in [
        (&["map", "--output", "map.gif"][..], 2, "end it in .svg or .png"),
        (&["map", "/no/such/folder"], 2, "/no/such/folder is no machine's folder"),
        (&["map", "/no/such/folder", "-c", "ls"], 2, "cannot be used with"),
        (&["map", "--machine", "nosuch"], 2, "'nosuch'"),
        (&["map", "--machine", "tiny", "-c", "nosuch"], 2, "no such command"),
        (
            &["map", "--machine", "tiny", "--output", "/no/such/x.svg"],
            1,
            "cannot write /no/such/x.svg",
        ),
        (&["map", &texts, "--json"], 2, "has no proc/pageruns: Linux's own memory has no map"),
        (&["top"], 2, "<DIR>"),
        (&["top", &file], 2, "it has no proc/buddyinfo; `kmem boot --mount DIR` makes one"),
        (&["top", &texts], 2, "needs a terminal"),
    ] {
        kmem(arguments).complains(status, needle);
    }
    tiny("top").complains(2, "needs a terminal");
    tiny("top x").complains(2, "no arguments");
}

#[test]
fn a_mounted_machine_is_mapped_and_watched_until_it_goes() {
    let mut mounted = Mounted::serving("insmod scullp");
    mounted.sh("head -c 100000 /dev/zero > dev/scullp0");
    let root = mounted.text("");
    let out = kmem(&["map", &root]).well();
    assert!(out.contains("in use: ") && out.contains("manager's tables"), "{out}");
    let page = mounted.sh("cat proc/pages/0x100");
    assert!(page.starts_with("frame:       256 (0x100)\n"), "{page}");
    assert_eq!(mounted.sh("ls proc/pages"), "");
    assert_eq!(mounted.try_sh("cat proc/pages/x").0, 1);

    // One that somebody has stopped says nothing, and is not waited for without end.
    mounted.signal(libc::SIGSTOP);
    let threads = format!("/proc/{}/task", mounted.child.id());
    until("its stop", || {
        std::fs::read_dir(&threads).unwrap().flatten().all(|thread| {
            let status = std::fs::read_to_string(thread.path().join("status"));
            status.is_ok_and(|status| status.contains("State:\tT"))
        })
    });
    kmem(&["map", &root]).complains(1, &format!("the machine of {root} has not answered for"));
    let boot = kmem(&["boot", "--machine", "tiny", "--mount", &root, "-c", "echo never"]);
    boot.complains(1, "cannot mount on");
    mounted.signal(libc::SIGCONT);

    let screen = Screen::start(&format!("kmem top {root}"));
    screen.shows("pages handed out");
    screen.keys(&["5"]);
    screen.shows("zone DMA32");
    mounted.signal(libc::SIGTERM);
    assert!(mounted.wait().success());
    let shown = screen.shows("ended with 1");
    let flat = shown.replace('\n', "");
    assert!(flat.contains(&format!("the machine of {root} has ended")), "{shown}");
}

#[test]
fn top_at_the_prompt_shows_the_machine_and_gives_the_terminal_back() {
    let screen = Screen::start("kmem boot --machine tiny");
    screen.enter("insmod scullp; cp /proc/meminfo /dev/scullp0");
    screen.keys(&["top", "Enter"]);
    screen.shows("pages handed out");
    // A cell of the map has several pages, and one of them is told of.
    for (key, shown) in [
        ("2", "share of what is free"),
        ("3", "kmalloc-192"),
        ("4", "at most"),
        ("5", "Node 0, zone Normal"),
        ("Down", "0x200000-0x207fff, frame 512, 32 KiB"),
        ("Enter", "0x200000-0x200fff, frame 512, 4 KiB"),
        ("Enter", "page block:  order 9, frames 512-1023"),
        ("Escape", "frame 512, 4 KiB"),
        ("?", "Esc"),
        ("?", "frame 512, 4 KiB"),
        ("1", "requests that waited"),
    ] {
        screen.keys(&[key]);
        screen.shows(shown);
    }
    screen.keys(&["q"]);
    // The screen is as it was before.
    let shown = screen.shows("kmem> top\nkmem>");
    assert!(shown.starts_with("tiny, 64 MiB of RAM"), "{shown}");
    screen.enter("lsmod");
    screen.keys(&["exit", "Enter"]);
    screen.shows("ended with 0");
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let texts = texts();
    let mut session = Session::start(Folder::new(), &["top", &texts.path("")]);
    session.expect("handed");
    kill_process(Pid::from_child(&session.child), Signal::TERM).unwrap();
    session.expect(GIVEN_BACK);
    assert_eq!(session.child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));

    let mut session = Session::boot(&[]);
    session.enter("top");
    session.expect("handed");
    kill_process(Pid::from_child(&session.child), Signal::TERM).unwrap();
    session.expect(GIVEN_BACK);
    assert!(!session.screen.ends_with(PROMPT));
    assert_eq!(session.child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
}

/// The manager keeps no time; a machine that is traced is told of each block.
#[test]
fn the_age_of_a_block_is_known_where_there_is_a_trace() {
    let folder = Folder::new();
    let trace = folder.path("events");
    let run = |commands: &str, traced: bool| {
        let mut arguments = vec!["boot", "--machine", "tiny", "-c", commands];
        if traced {
            arguments.extend(["--trace", &trace]);
        }
        kmem(&arguments).out
    };
    let alloc = "alloc_pages GFP_KERNEL 3";
    // Which page that is, is the same each time: nothing else runs on the machine.
    let out = run(alloc, false);
    let pfn = out.strip_prefix("id 1: pfn ").unwrap().split(',').next().unwrap();
    let pfn = u64::from_str_radix(
        pfn.trim_start_matches("0x"),
        if pfn.starts_with("0x") { 16 } else { 10 },
    )
    .unwrap();
    let age = |out: &str| {
        let line = out.lines().find_map(|line| line.strip_prefix("age:")).map(str::trim);
        line.map(String::from)
    };
    // Any page of the block has the block's.
    let look = format!("{alloc}; sleep 0.05; page {}", pfn + 5);
    let told = age(&run(&look, true)).unwrap();
    let seconds: f64 = told.strip_suffix(" s").unwrap_or_else(|| panic!("{told}")).parse().unwrap();
    assert!(seconds >= 0.05, "{told}");
    assert!(age(&run(&look, false)).unwrap().contains("`kmem boot --trace FILE`"));
    // What is free has none.
    assert_eq!(age(&run(&format!("{alloc}; free 1; drain; page {pfn}"), true)), None);
}
