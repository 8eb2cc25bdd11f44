//! `kmem boot --trace` and `kmem trace`: what is written is of the form, and is read back.

mod common;
#[path = "../../kmem-host/tests/form/mod.rs"]
mod form;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::mounted::until;
use common::{Folder, Run, kmem, kmem_with};
use serde_json::Value;

/// Runs commands on a small machine that is traced to a file.
fn traced(path: &str, commands: &str) -> Run {
    kmem(&["boot", "--machine", "tiny", "--trace", path, "-c", commands])
}

fn read(path: &str) -> ((u64, u64, u64), Vec<form::Line>) {
    form::read(&std::fs::read_to_string(path).unwrap())
}

fn summary(path: &str) -> Value {
    serde_json::from_str(&kmem(&["trace", "--json", path]).well()).unwrap()
}

#[test]
fn a_trace_is_written_and_read_back() {
    let folder = Folder::new();
    let path = folder.path("events.txt");
    let load =
        "insmod scullc; insmod scullp; echo something > /dev/scullc0; rmmod scullc; rmmod scullp";
    let run = traced(&path, &format!("{load}; stress 2000; cat /proc/slabinfo"));
    assert_eq!(run.status, 0, "{}", run.err);
    let (header, lines) = read(&path);
    assert!(run.err.contains(&format!("events.txt: {} events", lines.len())), "{}", run.err);
    assert_eq!((header.0, header.1), (lines.len() as u64, lines.len() as u64));
    assert!(lines.is_sorted_by_key(|line| line.micros));
    // As our own reader counts.
    let summary = summary(&path);
    assert_eq!(summary["events"], lines.len());
    for what in ["lost", "not_understood", "unreadable"] {
        assert_eq!(summary[what], 0, "{what}");
    }
    for event in
        ["kmalloc", "kfree", "kmem_cache_alloc", "kmem_cache_free", "mm_page_alloc", "mm_page_free"]
    {
        let count = lines.iter().filter(|line| line.name == event).count();
        assert!(count > 0, "{event}");
        assert_eq!(summary["by_event"][event], count, "{event}");
    }
    // The machine is traced from its boot to its end, and gives everything back: what no free is of.
    for memory in ["pages", "objects", "areas", "percpu"] {
        let of = &summary["memory"][memory];
        assert_eq!((&of["freed_unseen"], &of["reused"]), (&0.into(), &0.into()), "{memory}: {of}");
    }
    let callers = summary["callers"].as_array().unwrap();
    let scullc =
        |caller: &&Value| caller["caller"].as_str().unwrap().starts_with("crates/scull/src/");
    assert!(callers.iter().filter(scullc).all(|caller| caller["live"] == 0));
    assert!(callers.iter().any(|caller| scullc(&caller)), "{callers:?}");
    let text = kmem(&["trace", &path]).well();
    assert!(text.contains("events in 0.") || text.contains("events in "), "{text}");
    assert!(text.contains("crates/scull/src/") && text.contains("\norder "), "{text}");
}

#[test]
fn a_cache_has_as_many_events_as_slabinfo_counts_objects() {
    let folder = Folder::new();
    let path = folder.path("events.txt");
    let run = traced(&path, "cache create dogs 100; cache alloc dogs 37; cat /proc/slabinfo");
    let active = run.out.lines().find_map(|line| line.strip_prefix("dogs ")).unwrap();
    assert_eq!(active.split_whitespace().next(), Some("37"), "{}", run.out);
    let lines = read(&path).1;
    // What is still held is given back at the end.
    for event in ["kmem_cache_alloc", "kmem_cache_free"] {
        let dogs = lines.iter().filter(|line| line.name == event && line.get("name") == "dogs");
        assert_eq!(dogs.count(), 37, "{event}");
    }
}

#[test]
fn every_page_size_can_be_traced() {
    let folder = Folder::new();
    for shift in [12, 13, 14, 16] {
        let path = folder.path("events.txt");
        let setting = format!("page_shift={shift}");
        let run = kmem(&["boot", "--set", &setting, "--trace", &path, "-c", "stress 500"]);
        assert_eq!(run.status, 0, "{}", run.err);
        assert!(read(&path).1.len() > 500, "{shift}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_said_before_boot() {
    let folder = Folder::new();
    for (path, needle) in
        [(folder.path(""), "Is a directory"), (folder.path("none/events.txt"), "No such file")]
    {
        let run = traced(&path, "stress 300");
        assert_eq!(run.out, "");
        run.complains(2, needle);
    }
}

/// The machine goes on, and the loss is told of at its end.
#[test]
fn a_file_that_is_full_fails_the_command() {
    let run = traced("/dev/full", "stress 300; echo done");
    assert!(run.out.ends_with("done\n"), "{}", run.out);
    run.complains(1, "cannot write the trace /dev/full: No space left");
}

#[test]
fn a_trace_is_whole_after_a_failure_and_after_a_kernel_panic() {
    let folder = Folder::new();
    let path = folder.path("events.txt");
    let run = traced(&path, "stress 200; cat /nonsense; stress 200");
    assert_eq!(run.status, 1, "{}", run.err);
    let lines = read(&path).1;
    assert!(lines.iter().any(|line| line.name == "kmem_cache_alloc"));
    // The failure is the last word of the command, and what was given back after it is in the file.
    assert_eq!(summary(&path)["memory"]["pages"]["live"], 0);
    let run = traced(&path, "stress 200; cache create dogs 100; cache create dogs 100 panic");
    assert_eq!(run.status, 4, "{}", run.err);
    let (header, lines) = read(&path);
    assert_eq!(header.0, lines.len() as u64);
    assert!(lines.iter().any(|line| line.name == "kmem_cache_alloc"));
}

/// Ctrl-C ends the command and then the machine; other signals, and a second Ctrl-C, end the process as
/// without a trace. The file has what was recorded.
#[test]
fn a_trace_is_whole_after_a_signal() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let folder = Folder::new();
        let path = folder.path("events.txt");
        let mut child = Command::new(env!("CARGO_BIN_EXE_kmem"))
            .args(["boot", "--machine", "tiny", "--trace", &path])
            .args(["-c", "stress 300; echo begun; sleep 1000"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while lines.next().expect("it ended too early").unwrap() != "begun" {}
        // SAFETY: a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        let status = child.wait().unwrap();
        let ended_by = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(ended_by, (signal != libc::SIGINT).then_some(signal), "{status}");
        let (header, lines) = read(&path);
        assert!(header.0 == lines.len() as u64 && lines.len() > 300, "{header:?}");
        if signal == libc::SIGINT {
            assert_eq!(status.code(), Some(128 + signal));
            assert_eq!(summary(&path)["memory"]["pages"]["live"], 0);
        }
    }
}

/// A trace of another kernel: this one has events lost, tasks of all names, and what began before it.
#[test]
fn traces_of_linux_are_read() {
    let trace = "\
# tracer: nop
#
# entries-in-buffer/entries-written: 7/9   #P:4
#
 kworker/u8:1-ev-317     [000] d.h1.    17.000005: mm_page_alloc: page=00000000ed7d54db pfn=0x1b2880 order=2 migratetype=1 gfp_flags=GFP_HIGHUSER_MOVABLE|__GFP_COMP
        opt cgu.0-9       [001] .....    17.000105: kmem_cache_alloc: call_site=getname_flags.part.0+0x24/0x1f0 ptr=00000000ed7d54db name=names_cache bytes_req=4096 bytes_alloc=4096 gfp_flags=GFP_KERNEL node=-1 accounted=false
CPU:1 [LOST 2 EVENTS]
            bash-13494   [001] .....    17.000205: kmem_cache_alloc: call_site=getname_flags.part.0+0x24/0x1f0 ptr=00000000ed7d54db name=names_cache bytes_req=4096 bytes_alloc=4096 gfp_flags=GFP_KERNEL node=-1 accounted=false
            bash-13494   [001] .....    17.000305: kfree: call_site=free_x+0x1/0x2 ptr=0000000000000000
            bash-13494   [001] .....    17.000405: kmem_cache_free: call_site=free_y+0x1/0x2 ptr=00000000aaaaaaaa name=filp
           <...>-1       [003] .....    18.000505: mm_page_free: page=00000000ed7d54db pfn=0x1b2882 order=1
            bash-13494   [001] .....    18.000605: alloc_vmap_area: va_start: 18446683600570826752 size=20480 align=16384 vstart=0xffffc90000000000 vend=0xffffe8ffffffffff failed=0
";
    let out = kmem_with(&["trace", "-", "--json"], trace.as_bytes()).well();
    let summary: Value = serde_json::from_str(&out).unwrap();
    let of = |path: &str| summary.pointer(path).and_then(Value::as_u64);
    for (path, wanted) in [
        ("/events", 7),
        ("/microseconds", 1_000_600),
        ("/cpus", 4),
        ("/lost", 2),
        ("/not_understood", 0),
        ("/memory/objects/reused", 1),
        ("/memory/objects/freed_null", 1),
        ("/memory/objects/freed_unseen", 1),
        ("/memory/objects/live_bytes", 4096),
        ("/memory/pages/live", 2),
        ("/memory/areas/live_bytes", 20480),
        ("/orders/2/allocations", 1),
        ("/callers/0/allocations", 2),
    ] {
        assert_eq!(of(path), Some(wanted), "{path}: {out}");
    }
    let text = kmem_with(&["trace", "-"], trace.as_bytes()).well();
    assert!(
        text.starts_with("standard input: 7 events in 1.000600 s on 4 CPUs\n2 events were lost"),
        "{text}"
    );
}

#[test]
fn what_is_no_trace_is_refused() {
    let folder = Folder::new();
    let path = folder.path("text");
    std::fs::write(&path, "hello\nworld\n").unwrap();
    kmem(&["trace", &path]).complains(2, "is no trace");
    kmem(&["trace", &folder.path("none")]).complains(1, "No such file");
    kmem(&["trace", &folder.path("")]).complains(1, "directory");
    kmem(&["trace", "/dev/zero"]).complains(2, "longer than");
    kmem(&["trace", "--page", "5", &path]).complains(2, "--page");
    std::fs::write(&path, "# tracer: nop\n").unwrap();
    assert!(kmem(&["trace", &path]).well().contains("0 events"));
}

/// Who holds the other end and does not read cannot keep the process: a signal ends it.
#[test]
fn a_reader_that_does_not_read_does_not_stop_a_signal() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let folder = Folder::new();
        let path = folder.path("fifo");
        let name = std::ffi::CString::new(path.as_str()).unwrap();
        // SAFETY: the path is a string with its end.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let mut kmem = Command::new(env!("CARGO_BIN_EXE_kmem"));
        kmem.args(["boot", "--machine", "tiny", "--trace", &path, "-c", "echo; stress 3000000"]);
        let mut child = kmem.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let _reader = std::fs::File::open(&path).unwrap();
        // It has booted, and soon waits for room.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(500));
        // The first one may only ask the command to stop, which waits; the second one does not wait for that.
        for _ in 0..2 {
            // SAFETY: the process is this test's child, which has not been waited for.
            unsafe { libc::kill(child.id() as i32, signal) };
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        until("its end", || child.try_wait().unwrap().is_some());
        assert!(!child.wait().unwrap().success());
    }
}

/// One of the two would write over the other.
#[test]
fn the_output_is_no_place_for_a_trace() {
    let folder = Folder::new();
    let path = folder.path("output");
    std::fs::write(&path, "precious\n").unwrap();
    for name in ["/dev/stdout", path.as_str()] {
        let output = std::fs::File::options().append(true).open(&path).unwrap();
        let mut kmem = Command::new(env!("CARGO_BIN_EXE_kmem"));
        kmem.args(["boot", "--machine", "tiny", "--trace", name, "-c", "echo never"]);
        let run = kmem.stdout(output).output().unwrap();
        let err = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(2), "{err}");
        assert!(err.contains(&format!("cannot write the trace {name}: the output goes")), "{err}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious\n");
    }
}
