//! kmalloc, caches and their table, as commands.

mod common;

use common::{kmem, tiny};

/// The address in a line that a command has shown.
fn address(line: &str) -> &str {
    line.strip_prefix("address ").unwrap().split(':').next().unwrap()
}

/// A145, A146, A149, A153
#[test]
fn memory_is_held_by_its_address() {
    let out = tiny("kmalloc 100 GFP_KERNEL; kmalloc 4K GFP_ATOMIC; kmalloc 200K GFP_KERNEL").well();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].ends_with(": 100 bytes asked for, 104 got"), "{out}");
    assert!(lines[1].ends_with(": 4096 bytes asked for, 4096 got"), "{out}");
    assert!(lines[2].ends_with(": 204800 bytes asked for, 204800 got"), "{out}");
    let mut addresses = [0, 1, 2].map(|line: usize| address(lines[line]));
    addresses.sort_unstable();
    assert!(addresses.windows(2).all(|pair| pair[0] != pair[1]));
    // Of the texts' machine the sizes are powers of two.
    let texts = ["boot", "--machine", "ldd2-i386", "-c", "kmalloc 100 GFP_KERNEL"];
    assert!(kmem(&texts).well().ends_with("100 bytes asked for, 128 got\n"));
}

/// What a prompt's user would type next depends on an address that is known only then.
fn at_addresses(first: &str, then: impl Fn(&[&str]) -> String) -> common::Run {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_kmem"))
        .args(["boot", "--machine", "tiny"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    writeln!(input, "{first}").unwrap();
    let lines: Vec<String> = first
        .split(';')
        .filter(|command| command.contains("alloc "))
        .map(|_| {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            line
        })
        .collect();
    let addresses: Vec<&str> = lines.iter().map(|line| address(line.trim_end())).collect();
    let second = then(&addresses);
    // It may end before it has read all.
    let _ = writeln!(input, "{second}");
    drop(input);
    let mut out = String::new();
    std::io::Read::read_to_string(&mut output, &mut out).unwrap();
    let mut err = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut err).unwrap();
    let status = child.wait().unwrap().code().expect("ended by a signal");
    common::Run { status, out, err }
}

/// A146, A147, A153
#[test]
fn memory_is_given_back_and_made_larger_by_its_address() {
    let out = at_addresses("kmalloc 100 GFP_KERNEL; kmalloc 5000 GFP_KERNEL", |at| {
        format!("kfree {}; krealloc {} 10K; kfree 0", at[0], at[1])
    });
    assert!(out.well().ends_with(": 10240 bytes asked for, 10240 got\n"));
    // No memory is not what krealloc makes of memory.
    let none = at_addresses("kmalloc 100 GFP_KERNEL", |at| format!("krealloc {} 0", at[0]));
    none.complains(1, "krealloc: memory of 0 bytes is none: `kfree 0x");
}

/// A148
#[test]
fn a_wrong_kfree_is_explained_by_the_manager_where_it_can_do_no_harm() {
    let inside = at_addresses("kmalloc 100 GFP_KERNEL", |at| {
        let inside = usize::from_str_radix(&at[0][2..], 16).unwrap() + 8;
        format!("kfree {inside:#x}")
    });
    inside.complains(1, "kfree: free of an address inside an object");
    tiny("kfree 0x1000").complains(1, "kfree: free of memory that is not this manager's");
    let twice = at_addresses("kmalloc 100 GFP_KERNEL", |at| format!("kfree {0}; kfree {0}", at[0]));
    twice.complains(1, "was freed already");
    let caches = "cache create a 100; cache create b 100; cache alloc a";
    let other = at_addresses(caches, |at| format!("cache free b {}", at[0]));
    other.complains(1, "free of another cache's object");
    let other = at_addresses(caches, |at| format!("kfree {}", at[0]));
    assert!(other.err.contains(" (a) at 0x"), "{}", other.err);
    other.complains(1, "free of another cache's object");
}

/// People know caches by their names.
#[test]
fn a_report_names_the_cache_beside_its_number() {
    for (command, name) in [
        ("wrong_free object", "(kmalloc-64) at 0x"),
        ("wrong_free inside", "(kmalloc-64) at 0x"),
        ("wrong_free cache", "(kmalloc-64) at 0x"),
        ("overrun before", "(overrun) at 0x"),
        ("overrun freed", "(overrun) at 0x"),
    ] {
        let out = tiny(&format!("{command}; dmesg")).well();
        let (shown, logged) = out.split_once("error: ").unwrap();
        let shown: Vec<&str> = shown.split_whitespace().collect();
        for text in [shown.join(" ").as_str(), logged] {
            let (before, _) = text.split_once(name).unwrap_or_else(|| panic!("{command}: {text}"));
            let number = before.trim_end().rsplit(' ').next().unwrap();
            assert!(before.ends_with(&format!("cache {number} ")), "{text}");
            assert!(number.parse::<u16>().is_ok(), "{text}");
        }
    }
}

/// A187, A193, A208
#[test]
fn a_cache_is_made_used_and_destroyed() {
    let out = tiny(
        "cache create dogs 100 hwalign reclaim; cache alloc dogs 3; cache alloc dogs 20 GFP_ATOMIC; \
         cache list; cache free dogs all; cache shrink dogs; cache destroy dogs; cache list",
    );
    let out = out.well();
    let lines: Vec<&str> = out.lines().collect();
    for line in &lines[..3] {
        let at = usize::from_str_radix(&address(line)[2..], 16).unwrap();
        assert!(at.is_multiple_of(64), "{line}");
    }
    assert!(lines[3].starts_with("20 objects from 0x"), "{out}");
    let figures: Vec<&str> = lines[5].split_whitespace().collect();
    assert_eq!(figures, ["dogs", "100", "23", "SLAB_HWCACHE_ALIGN|SLAB_RECLAIM_ACCOUNT"]);
    assert_eq!(lines[6], "gave 1 page back");
    assert_eq!(lines.len(), 8, "{out}");
}

/// A195, A196
#[test]
fn a_cache_that_is_debugged_is_looked_through() {
    let flags = "poison redzone owner quarantine";
    let out = tiny(&format!(
        "cache create dogs 100 {flags}; cache create cats 60; cache alloc dogs 5; cache alloc cats; \
         cache validate dogs; cache free dogs all; cache validate all"
    ));
    let out = out.well();
    let found: Vec<&str> = out.lines().filter(|line| line.contains("nothing is wrong")).collect();
    assert_eq!(found.len(), 3, "{out}");
    assert!(found[0].starts_with("dogs: ") && found[1].starts_with("dogs: "), "{out}");
    assert!(found[2].starts_with("cats: "), "{out}");
    tiny("cache validate dogs").complains(1, "there is no cache dogs");
}

/// A186: looking through a cache, and taking from it what nobody uses, is for anybody.
#[test]
fn caches_of_others_are_shrunk_and_validated_and_nothing_else() {
    let folder = common::Folder::new();
    let file = folder.file("file", 40_000);
    let filled = format!("insmod scullc; cp {file} /dev/scullc0; cache validate scullc");
    let out = tiny(&format!("{filled}; cp /dev/null /dev/scullc0; cache shrink scullc")).well();
    let lines: Vec<&str> = out.lines().collect();
    let slabs = lines[0].strip_prefix("scullc: ").unwrap();
    let objects: u64 = slabs.strip_suffix(" objects, nothing is wrong").unwrap().parse().unwrap();
    assert!(objects >= 10, "{out}");
    let pages = lines[1].strip_prefix("gave ").unwrap().strip_suffix(" pages back").unwrap();
    assert!(pages.parse::<u64>().unwrap() >= 8, "{out}");
    let out = tiny("kmalloc 64 GFP_KERNEL; cache validate kmalloc-64; cache shrink kmalloc-64");
    assert!(out.well().contains("\nkmalloc-64: "));
    for refused in ["alloc kmalloc-64", "free kmalloc-64 all", "destroy kmalloc-64"] {
        let needle = "cache kmalloc-64 was not made here: only shrink and validate take it";
        tiny(&format!("cache {refused}")).complains(1, needle);
    }
    for unknown in ["validate", "shrink"] {
        tiny(&format!("cache {unknown} cats")).complains(1, "there is no cache cats");
    }
}

/// A208, A209: it says how many are in use, the log names them, and it works on.
#[test]
fn a_cache_with_objects_in_use_is_not_destroyed() {
    let made = "cache create dogs 100; cache alloc dogs 3";
    let refused = tiny(&format!("{made}; cache destroy dogs"));
    refused.complains(1, "dogs: still in use: 3 objects; `cache free dogs all` gives all back");
    let one = tiny("cache create dogs 100; cache alloc dogs; cache destroy dogs");
    one.complains(1, "dogs: still in use: 1 object; ");
    // What is still held at the end is given back, and its cache goes.
    tiny(made).well();
}

/// A197
#[test]
fn a_cache_that_must_be_made_and_cannot_is_a_panic() {
    let panicked = tiny("cache create kmalloc-64 8 panic");
    let line = "kernel panic: kmem: cache kmalloc-64: there is a cache kmalloc-64 already\n";
    assert_eq!((panicked.status, panicked.err.as_str()), (4, line));
    for arguments in [&["--help"][..], &["boot", "--help"]] {
        let help = kmem(arguments).well();
        let words: Vec<&str> = help.split_whitespace().collect();
        assert!(words.join(" ").contains("4 the machine's kernel panicked"), "{help}");
    }
    // Without the flag it is an error.
    tiny("cache create kmalloc-64 8").complains(1, "there is a cache kmalloc-64 already");
}

#[test]
fn objects_that_cannot_be_had_are_told_and_those_that_can_are_held() {
    let commands = "cache create big 60K; cache alloc big 5000 'GFP_ATOMIC|__GFP_NOWARN'";
    let run = tiny(commands);
    assert!(run.out.contains(" objects from 0x"), "{}", run.out);
    run.complains(1, "objects of 5000; those are held: out of memory");
    let run = tiny("cache create big 60K; fill; fill GFP_ATOMIC; cache alloc big 2");
    run.complains(1, "cache: 0 objects of 2: out of memory");
}

/// A213
#[test]
fn slabtop_shows_caches_by_the_key_that_is_asked_for() {
    let made =
        "cache create few 8000; cache create many 40; cache alloc few 9; cache alloc many 700";
    let names = |key: &str| -> Vec<String> {
        let out = tiny(&format!("{made}; slabtop {key}")).well();
        let at = out.find("  OBJS ACTIVE  USE OBJ SIZE  SLABS OBJ/SLAB CACHE SIZE").unwrap();
        let rows = out[at..].lines().skip(1);
        rows.filter_map(|row| row.split_whitespace().last())
            .filter(|name| ["few", "many"].contains(name))
            .map(String::from)
            .collect()
    };
    for key in ["", "size", "object", "name"] {
        assert_eq!(names(key), ["few", "many"], "{key}");
    }
    for key in ["active", "objects", "waste"] {
        assert_eq!(names(key), ["many", "few"], "{key}");
    }
    let out = tiny(&format!("{made}; slabtop")).well();
    let row = out.lines().find(|line| line.ends_with(" few")).unwrap();
    let figures: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((figures[1], figures[3], figures[7]), ("9", "7.81K", "few"), "{row}");
    // The sums are of all caches.
    let first = out.lines().find(|line| line.starts_with(" Active / Total Objects")).unwrap();
    let active: u64 = first.split(": ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(active >= 709, "{first}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for commands in [
        "kmalloc",
        "kmalloc 10",
        "kmalloc ten GFP_KERNEL",
        "kmalloc 10 GFP_SOON",
        "kmalloc 10 'GFP_KERNEL|__GFP_NOFAIL'",
        "kfree",
        "kfree here",
        "krealloc 0x10",
        "krealloc 0x10 1X",
        "kmalloc 16777216T GFP_KERNEL",
        "vmalloc 1.5M",
        "dma 4K",
        "cache",
        "cache sell dogs",
        "cache create dogs",
        "cache create 'two words' 8",
        "cache create dogs 0",
        "cache create dogs 8 align=3",
        "cache create dogs 8 fierce",
        "cache create dogs 8; cache alloc dogs many",
        "cache free dogs here",
        "slabtop weight",
        "slabtop size name",
    ] {
        let run = tiny(commands);
        assert_eq!(run.status, 2, "{commands}: {}", run.err);
        assert_eq!(run.err.lines().count(), 1, "{commands}: {}", run.err);
    }
    for commands in [
        "kmalloc 0 GFP_KERNEL",
        "kmalloc 10 __GFP_HIGHMEM",
        "kmalloc 1000M GFP_KERNEL",
        "krealloc 0x1000 10",
        "cache alloc dogs",
        "cache alloc kmalloc-64",
        "cache shrink dogs",
        "cache destroy kmalloc-64",
    ] {
        let run = tiny(commands);
        assert_eq!(run.status, 1, "{commands}: {}", run.err);
        assert_eq!(run.err.lines().count(), 1, "{commands}: {}", run.err);
    }
}

/// Sizes are written as everywhere else.
#[test]
fn sizes_have_suffixes_in_every_command_that_takes_one() {
    let out = tiny(
        "vmalloc 1M; vmalloc 0x1000; kmalloc 4K GFP_KERNEL; dma 3K; cache create dogs 1k align=0x40",
    );
    let out = out.well();
    assert!(out.contains(": 256 pages in ") && out.contains("4096 bytes asked for"), "{out}");
    assert!(out.contains("\n3072 bytes at "), "{out}");
    // What there is not is no mistake in writing.
    tiny("vmalloc 1G").complains(1, "vmalloc: ");
    tiny("kmalloc 1G GFP_KERNEL").complains(1, "kmalloc: ");
}
