//! The prompt, at a terminal that the test holds the other end of.

mod common;

use common::session::{PROMPT, Session};

#[test]
fn exit_ends_a_prompt_with_0_whatever_failed_before() {
    for end in ["exit", "ls /dev; quit"] {
        let mut session = Session::boot(&[]);
        session.enter("cat /none");
        session.expect("cat: cannot open /none");
        session.enter("exit 1");
        session.expect("usage: exit");
        session.enter(end);
        let (screen, status) = session.end();
        assert_eq!(status, Some(0), "{screen}");
    }
}

#[test]
fn what_is_lost_at_a_prompt_is_told_at_its_end() {
    let mut session = Session::boot(&[]);
    session.enter("leak 0; exit");
    let (screen, status) = session.end();
    assert_eq!(status, Some(3), "{screen}");
    assert!(screen.contains("1 page of 4096 bytes is lost"), "{screen}");
}

/// The command that provokes a report shows it, so the prompt does not show it again; other
/// messages it shows by itself.
#[test]
fn a_message_is_shown_once_at_a_prompt() {
    let mut session = Session::boot(&[]);
    session.enter("wrong_free double");
    session.expect("double free");
    session.enter("fill GFP_KERNEL 2; exit");
    let (screen, status) = session.end();
    assert_eq!(status, Some(0), "{screen}");
    assert_eq!(screen.matches("double free").count(), 1, "{screen}");
    assert!(screen.contains("warning: "), "{screen}");
}

/// A command that takes long shows what is done of how much and the time left, and takes the bar away before
/// anything else is shown. What is over in a moment shows none.
#[test]
fn a_bar_shows_how_far_a_long_command_is() {
    let mut session = Session::boot(&[]);
    session.enter("stress 1000000000");
    session.expect(" of 1,000,000,000 operations, ");
    session.expect("/s, ");
    session.expect(" left");
    session.interrupt();
    session.expect("\u{1b}[2K");
    session.expect("stress: interrupted");
    session.enter("cache create few 8; cache alloc few 9; exit");
    session.expect("9 objects from 0x");
    let (screen, status) = session.end();
    assert_eq!(status, Some(0), "{screen}");
    let after = screen.rsplit("interrupted").next().unwrap();
    assert!(!after.contains(" left"), "{after:?}");
}

/// Lines that are pasted together, or typed while a command runs, are run one after the other.
#[test]
fn lines_typed_ahead_are_not_lost() {
    let mut session = Session::boot(&[]);
    session.expect(PROMPT);
    session.keys("alloc_pages GFP_KERNEL 0\ralloc_pages GFP_KERNEL 1\rfree 1\r");
    session.keys("free 2\rexit\r");
    let (screen, status) = session.end();
    assert_eq!(status, Some(0), "{screen}");
    for shown in ["order 0", "order 1"] {
        assert!(screen.contains(shown), "{screen}");
    }
    assert!(!screen.contains("kmem:"), "{screen}");
}

/// The wrong frees that `stress` makes are its own business: nothing of them is shown after it, who had
/// the objects included. The log has them.
#[test]
fn stress_leaves_nothing_of_its_wrong_frees_on_the_screen() {
    let mut session = Session::boot(&[]);
    // With this seed and so many operations there are caches that keep owners among those made.
    session.enter("stress 300000 1");
    session.expect("free lists as before");
    session.enter("echo between");
    session.expect("between\r\n");
    let shown = session.screen.clone();
    assert!(!shown.contains("error: "), "{shown}");
    assert!(shown.contains(" wrong frees made") && !shown.contains(" 0 wrong frees"), "{shown}");
    session.enter("dmesg");
    session.expect("error: ");
    session.enter("exit");
    assert_eq!(session.end().1, Some(0));
}

/// At the prompt it begins anew.
const CTRL_C: &str = "\u{3}";
/// Shows the whole line again.
const CTRL_L: &str = "\u{c}";
const UP: &str = "\u{1b}[A";

/// Commands, modules, parameters, paths, flags and choices, each from its beginning.
#[test]
fn tab_completes_what_may_stand_where_the_cursor_is() {
    let mut session = Session::boot(&[]);
    session.enter("insmod scull");
    session.expect(PROMPT);
    for (typed, whole) in [
        ("ins\tscullp\tor\t2", "insmod scullp order=2"),
        ("rm\tscu\t", "rmmod scull"),
        ("cat /pr\tmem\t", "cat /proc/meminfo"),
        ("ls /sys/k\t\t\t", "ls /sys/kernel/debug/extfrag/"),
        ("alloc\tGFP_AT\t0", "alloc_pages GFP_ATOMIC 0"),
        ("slabt\twa\t", "slabtop waste"),
        ("time hel\tvm\t", "time help vmalloc"),
    ] {
        session.keys(typed);
        session.keys(CTRL_L);
        session.expect(&format!("{PROMPT}{whole}"));
        session.keys(CTRL_C);
        // The line's end: the prompt itself was shown with the line as well.
        session.expect("\r\n");
        session.expect(PROMPT);
    }
    // More than one: a second Tab lists them.
    session.keys("insmod s\t\t");
    session.expect("scullc  scullp  scullv");
    session.expect(PROMPT);
    session.keys(CTRL_C);
    session.expect("\r\n");
    session.enter("exit");
    assert_eq!(session.end().1, Some(0));
}

#[test]
fn what_a_command_wants_is_shown_while_it_is_typed() {
    let mut session = Session::boot(&[]);
    session.expect(PROMPT);
    session.keys("alloc_pages ");
    session.expect("FLAGS ORDER [NODE]");
    session.keys("GFP_KERNEL ");
    session.expect("ORDER [NODE]");
    session.keys("0\r");
    session.expect("id 1: ");
    session.enter("exit");
    assert_eq!(session.end().1, Some(0));
}

#[test]
fn what_was_typed_is_there_the_next_time() {
    let mut session = Session::boot(&[]);
    session.enter("alloc_pages GFP_KERNEL 3");
    session.enter("exit");
    let (_, status, state) = session.leave();
    assert_eq!(status, Some(0));
    let mut session = Session::boot_in(state, &[]);
    session.expect(PROMPT);
    session.keys(&format!("{UP}{UP}"));
    session.expect("alloc_pages GFP_KERNEL 3");
    session.keys("\r");
    session.expect("order 3");
    session.enter("exit");
    assert_eq!(session.end().1, Some(0));
}

/// The machine goes on: what was there before is there afterwards, and nothing is lost.
#[test]
fn ctrl_c_ends_the_command_and_not_the_machine() {
    let mut session = Session::boot(&[]);
    session.enter("insmod scullp; echo kept > /dev/scullp0");
    for endless in ["stress 1000000000 1", "sleep 3600", "cat /dev/zero > /dev/null"] {
        session.expect(PROMPT);
        session.keys(&format!("echo before; {endless}\r"));
        // The command's own line shows it first.
        session.expect("\nbefore");
        session.interrupt();
        session.expect(": interrupted");
    }
    session.enter("cat /dev/scullp0");
    session.expect("\nkept");
    session.enter("exit");
    let (screen, status) = session.end();
    assert_eq!(status, Some(0), "{screen}");
}
