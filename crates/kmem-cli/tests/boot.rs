//! `kmem boot` from outside: what it does, says, and ends with.

mod common;

use common::{Folder, kmem, kmem_with, tiny};

/// A080, A322
#[test]
fn buddyinfo_counts_what_is_free() {
    let out = kmem(&["boot", "--machine", "x86_64", "-c", "cat /proc/buddyinfo"]).well();
    let zones: Vec<&str> = out.lines().map(|line| &line[..21]).collect();
    assert_eq!(zones, ["Node 0, zone      DMA", "Node 0, zone    DMA32", "Node 0, zone   Normal"]);
    let pages: u64 = out
        .lines()
        .flat_map(|line| line[21..].split_whitespace().enumerate())
        .map(|(order, count)| count.parse::<u64>().unwrap() << order)
        .sum();
    // 8 GiB less what the descriptors take, of 32 bytes each.
    assert!((2_050_000..2_097_152).contains(&pages), "{pages} pages");
}

/// A081
#[test]
fn the_unusable_index_of_a_new_machine_is_small() {
    let out = tiny("ls /sys/kernel/debug; cat /sys/kernel/debug/extfrag/unusable_index").well();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "extfrag");
    assert!(lines[1].starts_with("Node 0, zone   Normal 0.000 0.0"), "{out}");
}

#[test]
fn every_proc_file_can_be_read() {
    let load = "insmod scullp; insmod scull; insmod scullc; insmod scullv; echo 1 > /dev/scullv0";
    let out = tiny(&format!("{load}; ls /proc")).well();
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        [
            "allocinfo",
            "buddyinfo",
            "iomem",
            "meminfo",
            "modules",
            "pagemap-text",
            "pageruns",
            "pages",
            "pagetypeinfo",
            "scullcmem",
            "scullmem",
            "scullpmem",
            "scullvmem",
            "slabinfo",
            "vmallocinfo",
            "vmstat",
            "zoneinfo"
        ]
    );
    for name in out.lines() {
        let name = if name == "pages" { "pages/0x100" } else { name };
        let text = tiny(&format!("{load}; cat /proc/{name}")).well();
        assert!(!text.is_empty(), "{name}");
    }
    tiny("cat /proc/scullpmem").complains(1, "insmod scullp");
    tiny("cat /proc/nonsense").complains(1, "ls /proc");
}

/// One text, by the frame's number in either base, by a physical address, and by the kernel's.
#[test]
fn a_page_is_told_of_by_number_and_by_address() {
    let out = tiny("ls /proc/pages; cat /proc/pages/256; page 0x100; page @0x100fff").well();
    let text = &out[..out.len() / 3];
    assert_eq!(out, text.repeat(3));
    assert!(
        text.starts_with("frame:       256 (0x100)\naddress:     0x100000-0x100fff\n"),
        "{out}"
    );
    for (wrong, status, needle) in [
        ("page", 2, "usage: page PFN|@ADDRESS"),
        ("page x", 2, "'x' is no frame"),
        ("page +1", 2, "no frame"),
        ("page 0x", 2, "no frame"),
        ("page @", 2, "no address"),
        ("page @zero", 2, "'zero' is no address"),
        ("page 99999999", 1, "RAM ends with frame "),
        ("page 18446744073709551615", 1, "RAM ends with frame "),
        ("page @0xffffffffffffffff", 1, "neither RAM nor mapped"),
        ("cat /proc/pages/x", 1, "/proc/pages/x: 'x' is no frame"),
        ("cat /proc/pages/99999999", 1, "RAM ends with frame "),
        ("cat /proc/pages", 1, "is a directory"),
    ] {
        tiny(wrong).complains(status, needle);
    }
}

/// A copy empties its target first, so a file must not be copied onto itself by another name.
#[test]
fn a_file_is_not_copied_onto_itself() {
    let folder = Folder::new();
    let (file, link, hard) = (folder.file("file", 5000), folder.path("link"), folder.path("hard"));
    std::os::unix::fs::symlink(&file, &link).unwrap();
    std::fs::hard_link(&file, &hard).unwrap();
    let before = std::fs::read(&file).unwrap();
    for other in [file.replace("/file", "/./file"), link, hard] {
        tiny(&format!("cp {file} {other}")).complains(1, "are the same file");
        tiny(&format!("cp {other} {file}")).complains(1, "are the same file");
        assert!(std::fs::read(&file).unwrap() == before, "{other}");
    }
}

#[test]
fn a_failing_command_ends_the_run_with_status_1() {
    let run = tiny("ls /dev; cat /nowhere/at/all; help");
    assert_eq!(run.out, "null\nzero\n");
    run.complains(1, "cat: cannot open /nowhere/at/all");
}

/// What is under /dev and /proc is the machine's however its path is written; all else, links
/// included, is left to the host.
#[test]
fn a_path_leads_to_the_same_file_however_it_is_written() {
    let folder = Folder::new();
    let (file, back) = (folder.file("file", 5000), folder.path("back"));
    tiny(&format!(
        "insmod scullp; cp /dev/..{file} //dev/./scullp0; cp /tmp/../dev/scullp0 /proc/./..{back}"
    ))
    .well();
    assert!(std::fs::read(&file).unwrap() == std::fs::read(&back).unwrap());
    let total = tiny("head -1 /proc/meminfo").well();
    for path in ["//proc/meminfo", "/proc/./meminfo", "/dev/../proc//meminfo", "/../proc/meminfo"] {
        assert_eq!(tiny(&format!("head -1 {path}")).well(), total, "{path}");
    }
    assert_eq!(tiny("ls /proc/../dev//.").well(), "null\nzero\n");
    tiny("insmod scullp; cp //dev/scullp0 /dev/scullp0").complains(1, "are the same file");
}

/// It would be emptied first, and then be read for as long as it grows.
#[test]
fn a_commands_output_does_not_go_to_a_file_that_it_reads() {
    let folder = Folder::new();
    let file = folder.file("file", 5000);
    let before = std::fs::read(&file).unwrap();
    tiny(&format!("cat {file} {file} > {file}")).complains(1, "is read and written");
    assert!(std::fs::read(&file).unwrap() == before);
    tiny("insmod scullp; time cat /dev/zero /dev/scullp0 > //dev/scullp0")
        .complains(1, "is read and written");
}

#[test]
fn bad_input_ends_with_status_2_before_anything_is_done() {
    for (commands, needle) in [
        ("ls /dev; nosuch", "nosuch"),
        ("ls /dev; time nosuch", "kmem: nosuch"),
        ("ls /dev; cat 'a", "'"),
        ("ls /dev; cat a >", ">"),
        ("ls /dev; ls /dev | head", "`|`"),
    ] {
        let run = tiny(commands);
        assert_eq!(run.out, "");
        run.complains(2, needle);
    }
}

#[test]
fn commands_come_from_a_script_or_from_standard_input() {
    let folder = Folder::new();
    let script = folder.path("script");
    std::fs::write(&script, "# a remark\nls /dev\n\nhead -1 /proc/meminfo; cat /none\n").unwrap();
    let run = kmem(&["boot", "--machine", "tiny", "--script", &script]);
    assert!(run.out.starts_with("null\nzero\nMemTotal:"), "{}", run.out);
    run.complains(1, &format!("{script}:4: cat: cannot open /none"));

    let run = kmem_with(&["boot", "--machine", "tiny"], b"ls /dev\nrmmod scullp\nls /dev\n");
    assert_eq!(run.out, "null\nzero\n");
    run.complains(1, "standard input:2: rmmod:");
}

#[test]
fn what_is_held_at_the_end_is_given_back() {
    tiny("insmod scullp; cp /proc/zoneinfo /dev/scullp0; alloc_pages GFP_KERNEL 5; fill").well();
}

#[test]
fn fill_takes_all_and_drain_gives_it_back() {
    let out = tiny("drain; fill; drain; drain").well();
    let free = |line: &str| -> u64 {
        line.rsplit("; ").next().unwrap().split(' ').next().unwrap().parse().unwrap()
    };
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 4);
    // What fill holds is not spoken of where it holds nothing.
    assert!(lines[3].starts_with("0 pages left the CPUs' lists; "), "{out}");
    assert!(lines[3].ends_with(" pages free"), "{out}");
    let (before, after) = (free(lines[0]), free(lines[2]));
    assert_eq!(before, after);
    assert!(before > 15_000, "{out}");
    // What was taken is given back, and counted apart from what lay on the CPUs' lists before.
    let taken = lines[1].split(", ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(lines[2].starts_with(&format!("gave back {taken} pages that fill held; ")), "{out}");
    // What is left are the reserves.
    assert!(free(lines[1]) < before / 8, "{out}");
}

/// A page that is freed stays on its CPU's list, with those that came with it, until it is drained.
#[test]
fn drain_says_how_many_pages_left_the_lists_of_the_cpus() {
    let out = tiny("drain; alloc_pages GFP_KERNEL 0; free 1; drain; drain").well();
    let lines: Vec<&str> = out.lines().collect();
    let left = |line: &str| -> u64 {
        let (left, _) = line.split_once(" pages left the CPUs' lists; ").unwrap();
        left.parse().unwrap()
    };
    assert!(left(lines[2]) > 0, "{out}");
    assert_eq!(left(lines[3]), 0, "{out}");
}

#[test]
fn pages_are_held_under_their_ids() {
    let out = tiny(
        "alloc_pages GFP_KERNEL 0; alloc_pages 'GFP_ATOMIC|__GFP_ZERO' 3; free 1; free 2; \
         alloc_pages GFP_USER 1 0",
    )
    .well();
    let ids: Vec<&str> = out.lines().map(|line| line.split_once(':').unwrap().0).collect();
    assert_eq!(ids, ["id 1", "id 2", "id 3"]);
    tiny("alloc_pages GFP_KERNEL 0; free 1; free 1").complains(1, "freed already");
}

#[test]
fn cmp_reports_the_first_difference_as_cmp_does() {
    let folder = Folder::new();
    let (a, b) = (folder.path("a"), folder.path("b"));
    std::fs::write(&a, "one\ntwo\nthree").unwrap();
    std::fs::write(&b, "one\ntwo\nthr3e").unwrap();
    tiny(&format!("cmp {a} {b}")).complains(1, &format!("{a} {b} differ: byte 12, line 3"));
    std::fs::write(&b, "one\n").unwrap();
    tiny(&format!("cmp {a} {b}")).complains(1, &format!("EOF on {b} after byte 4"));
    tiny(&format!("cmp {a} {a}")).well();
}

#[test]
fn help_has_an_example_for_each_command_and_each_explains_itself() {
    let out = tiny("help").well();
    let names: Vec<&str> = out
        .lines()
        .take_while(|line| !line.starts_with("`;`"))
        // Below headings.
        .filter(|line| !line.is_empty() && !line.starts_with(' ') && !line.ends_with(':'))
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert!(names.len() >= 35, "{names:?}");
    assert!(out.starts_with("Modules:\ninsmod "), "{out}");
    assert!(names.contains(&"serve"), "one that only this machine has");
    for name in names {
        let text = tiny(&format!("help {name}")).well();
        assert!(text.starts_with(name) && text.contains("e.g. "), "{text}");
    }
}

#[test]
fn time_says_how_long_a_command_took() {
    let out = tiny("time sleep 0.01").well();
    let seconds: f64 =
        out.strip_prefix("real ").unwrap().strip_suffix(" s\n").unwrap().parse().unwrap();
    assert!(seconds >= 0.01);
}

#[test]
fn one_thing_is_singular_in_messages() {
    let one = ["boot", "--machine", "tiny", "--mem", "8M", "--cpus", "1", "-c"];
    let run = |commands| kmem(&[&one[..], &[commands]].concat()).well();
    let out = run("fill GFP_KERNEL 10; drain; stress 1 1");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("took 1 block of order 10, 1024 pages; "), "{out}");
    assert!(lines[1].starts_with("gave back 1024 pages that fill held; "), "{out}");
    assert!(lines[3].starts_with("1 operation on 1 CPU, "), "{out}");
    let out = run("stress 0 1");
    assert!(out.contains("\n0 operations on 1 CPU, "), "{out}");
}

/// A062, A063
#[test]
fn wrong_frees_are_reported_and_harm_nothing() {
    for kind in [
        "double",
        "order",
        "interior",
        "tail",
        "misaligned",
        "foreign",
        "object",
        "inside",
        "cache",
    ] {
        let out = tiny(&format!("wrong_free {kind}")).well();
        assert!(out.contains("passed") && out.contains("found"), "{kind}: {out}");
    }
}

/// A266
#[test]
fn tasks_that_go_where_nothing_is_mapped_are_ended_and_the_machine_goes_on() {
    let out = tiny("overflow stack; overflow area; overflow freed; stress 100").well();
    let words: Vec<&str> = out.split_whitespace().collect();
    let text = words.join(" ");
    for wanted in [
        "kernel stack overflow: passed address",
        "the kernel stack of 4 pages at",
        "of task 1 (overflow)",
        "touch of an address that nothing is mapped at: passed address",
        "found an area of 2 pages at",
        "stacks.rs",
        "100 operations",
    ] {
        assert!(text.contains(wanted), "{wanted}: {out}");
    }
    assert_eq!(text.matches("the task was ended").count(), 3, "{out}");
    let out = tiny("cat /proc/meminfo").well();
    assert!(out.contains("KernelStack:"), "{out}");
}

/// A195, A196
#[test]
fn overruns_are_reported_with_what_was_there_and_who_had_it() {
    for (kind, offset, expected) in
        [("before", -1, "cc"), ("behind", 64, "cc"), ("freed", 32, "6b")]
    {
        let out = tiny(&format!("overrun {kind}")).well();
        let words: Vec<&str> = out.split_whitespace().collect();
        let text = words.join(" ");
        assert!(text.contains(&format!("1 byte from offset {offset} on")), "{text}");
        // To the end: the call where it was found.
        assert!(words.last().unwrap().contains("mistakes.rs:"), "{text}");
        assert!(text.contains(&format!("expected {expected}, found 2a; allocated at ")), "{text}");
    }
}

#[test]
fn options_change_the_machine() {
    let zones = |arguments: &[&str]| {
        let mut all = vec!["boot", "-c", "cat /proc/buddyinfo"];
        all.extend(arguments);
        kmem(&all).well()
    };
    assert_eq!(zones(&["--machine", "tiny", "--nodes", "2"]).lines().count(), 2);
    let columns = |text: &str| text.lines().next().unwrap().split_whitespace().count();
    assert_eq!(
        columns(&zones(&["--machine", "tiny"])) - 3,
        columns(&zones(&[
            "--machine",
            "tiny",
            "--set",
            "largest_order=7",
            "--set",
            "page_block_order=7"
        ]))
    );
}

#[test]
fn lost_pages_end_with_status_3_and_their_number() {
    tiny("leak 3").complains(3, "8 pages of 4096 bytes are lost");
    // The failing command is told of as well, and what is lost counts for more.
    let run = tiny("leak 0; cat /none");
    assert_eq!(run.status, 3);
    let lines: Vec<&str> = run.err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", run.err);
    assert!(lines[0].contains("cat: cannot open /none"), "{}", run.err);
    assert!(lines[1].starts_with("kmem: 1 page"), "{}", run.err);
}

#[test]
fn the_log_is_shown_on_demand() {
    let out = tiny("fill GFP_KERNEL 2; dmesg; ls /dev; dmesg").well();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("took "), "{out}");
    // The refusal that ended it is logged once, and shown once.
    assert!(lines[1].contains("order") && lines[1].contains("GFP_KERNEL"), "{out}");
    assert_eq!(lines.last(), Some(&"zero"), "{out}");
    tiny("fill 'GFP_KERNEL|__GFP_NOWARN'; dmesg; drain").well();
    assert_eq!(tiny("dmesg").well(), "");
}

/// `exit` ends the run with what was done before it: its status, and what was lost.
#[test]
fn exit_and_quit_end_a_run() {
    let folder = Folder::new();
    let script = folder.path("script");
    for end in ["exit", "quit"] {
        assert_eq!(tiny(&format!("ls /dev; {end}; cat /none")).well(), "null\nzero\n");
        tiny(&format!("leak 3; {end}")).complains(3, "8 pages of 4096 bytes are lost");
        tiny(&format!("cat /none; {end}")).complains(1, "/none");
        std::fs::write(&script, format!("sleep 0\n  ls /dev; {end} # all\nno such command\n"))
            .unwrap();
        let run = kmem(&["boot", "--machine", "tiny", "--script", &script]);
        assert_eq!(run.well(), "null\nzero\n");
        // What stands behind it in its own line is looked up before anything is done.
        tiny(&format!("ls /dev; {end}; nosuch")).complains(2, "nosuch");
    }
    assert!(tiny("help").well().contains("\nexit "));
}

/// A062: what was reported is in the log as well, once.
#[test]
fn the_log_holds_reports_of_misuse() {
    let out = tiny("wrong_free double; dmesg; dmesg").well();
    let logged: Vec<&str> = out.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(logged.len(), 1, "{out}");
    assert!(logged[0].contains("double free"), "{out}");
    assert_eq!(out.lines().last(), Some(logged[0]), "{out}");
}

#[test]
fn help_for_one_command_may_say_more_than_the_list() {
    let list = tiny("help").well();
    for (command, detail) in [
        ("stress", "refused requests are no failure"),
        ("stress", "not how the CPUs interleave"),
        // What people wonder at otherwise.
        ("slabtop", "its own tables (magazines,"),
        ("insmod", "With quantum=1 a file of a megabyte takes about a"),
        ("insmod", "calls quantum `q`"),
        ("cache", "shrink and validate take any cache of the machine"),
        ("krealloc", "kfree gives memory back"),
    ] {
        let one = tiny(&format!("help {command}")).well();
        assert!(one.contains(detail) && !list.contains(detail), "{one}");
        assert!(one.lines().all(|line| line.chars().count() <= 100), "{one}");
    }
    assert!(list.lines().all(|line| line.chars().count() <= 100), "{list}");
}
