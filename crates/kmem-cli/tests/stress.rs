//! The stress scenario, on small machines.

mod common;

use common::kmem;

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

#[test]
fn a_seed_is_made_and_shown_where_none_is_given() {
    let out = kmem(&["boot", "--machine", "tiny", "-c", "stress 100"]).well();
    let seed = out.lines().next().unwrap().strip_prefix("seed ").unwrap();
    assert!(seed.parse::<u64>().is_ok(), "{out}");
}
