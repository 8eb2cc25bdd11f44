//! The program as it is run.

use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().unwrap()
}

#[test]
fn a_process_is_seen_to_grow_by_what_a_peer_takes() {
    for peer in ["talc", "buddy_system"] {
        let ran = bench(&["--held-by", peer, "--filter", "held for 700"]);
        assert!(ran.status.success(), "{peer}: {ran:?}");
        let bytes: f64 = std::str::from_utf8(&ran.stdout).unwrap().trim().parse().unwrap();
        // A header of talc's is a word or two; buddy_system takes the next power of two.
        assert!((700.0..1100.0).contains(&bytes), "{peer}: {bytes} bytes for 700");
    }
}

#[test]
fn bad_input_ends_with_status_2_and_one_line() {
    for args in [&["--fast"][..], &["--filter", "no such row"], &["--seed", "many"]] {
        let ran = bench(args);
        assert_eq!(ran.status.code(), Some(2), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&ran.stderr).lines().count(), 1, "{args:?}");
        assert!(ran.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_says_how_all_peers_are_built() {
    let ran = bench(&["--help"]);
    assert!(ran.status.success());
    assert!(String::from_utf8_lossy(&ran.stdout).contains("--features c-peers"));
}
