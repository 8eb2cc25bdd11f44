//! The stress scenario, on small machines.

mod common;

use common::{kmem, tiny};

fn stress(machine: &str, seed: &str) {
    let out = kmem(&["boot", "--machine", machine, "-c", &format!("stress 60000 {seed}")]).well();
    assert!(out.starts_with(&format!("seed {seed}\n60000 operations on ")), "{out}");
    assert!(out.ends_with("free lists as before\n"), "{out}");
}

/// A062, A082: many CPUs and interrupts at once, contents verified.
#[test]
fn stress_leaves_tiny_as_it_was() {
    stress("tiny", "1");
    stress("tiny", "2");
}

/// The same with several nodes.
#[test]
fn stress_leaves_numa2_as_it_was() {
    stress("numa2", "3");
}

/// The same with holes between the RAM.
#[test]
fn stress_leaves_holes_as_it_was() {
    stress("holes", "4");
}

/// The same with high memory, which is reached through temporary mappings.
#[test]
fn stress_leaves_high_memory_as_it_was() {
    stress("lkd-i386", "5");
}

/// The same without per-CPU lists, on one CPU.
#[test]
fn stress_leaves_a_machine_without_pagesets_as_it_was() {
    stress("ldd2-i386", "6");
}

/// A002: the same with larger pages.
#[test]
fn stress_leaves_machines_with_larger_pages_as_they_were() {
    for shift in ["13", "14", "16"] {
        let setting = format!("page_shift={shift}");
        let arguments = ["boot", "--machine", "tiny", "--set", &setting, "-c", "stress 20000 7"];
        assert!(kmem(&arguments).well().ends_with("free lists as before\n"));
    }
}

/// What CPUs keep of kmalloc is there before the free lists are looked at, on machines on which there is
/// not always room for it, and where a low zone is small for so many CPUs.
#[test]
fn stress_leaves_machines_with_little_memory_for_their_cpus_as_they_were() {
    for (machine, seeds) in [
        (&["--machine", "tiny", "--mem", "2M"][..], 1..9),
        (&["--mem", "16M", "--set", "page_shift=16"], 1..4),
        (&["--mem", "20M", "--cpus", "32"], 1..3),
        (&["--cpus", "128"], 1..2),
    ] {
        for seed in seeds {
            let command = format!("stress 20000 {seed}");
            let out = kmem(&[&["boot"], machine, &["-c", &command]].concat()).well();
            assert!(out.ends_with("free lists as before\n"), "{machine:?} {seed}: {out}");
        }
    }
}

/// A machine that is too small is refused with what is missing.
#[test]
fn stress_says_what_there_is_no_memory_for() {
    let run = tiny("fill GFP_KERNEL 0; stress 1000 1");
    run.complains(
        1,
        "stress: too little memory to begin with: 0 of 2 CPUs have what they keep of kmalloc-",
    );
}

#[test]
fn a_seed_is_made_and_shown_where_none_is_given() {
    let out = kmem(&["boot", "--machine", "tiny", "-c", "stress 100"]).well();
    let seed = out.lines().next().unwrap().strip_prefix("seed ").unwrap();
    assert!(seed.parse::<u64>().is_ok(), "{out}");
}
