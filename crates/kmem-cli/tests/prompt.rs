//! The prompt, at a terminal that the test holds the other end of.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

const PROMPT: &str = "kmem> ";

/// `kmem boot` at a terminal.
struct Session {
    child: Child,
    terminal: File,
    screen: String,
    /// How much of the screen has been waited for.
    seen: usize,
}

impl Session {
    fn boot() -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let inner = OpenOptions::new().read(true).write(true).open(name).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kmem"))
            .args(["boot", "--machine", "tiny"])
            .env("TERM", "xterm")
            .stdin(inner.try_clone().unwrap())
            .stdout(inner.try_clone().unwrap())
            .stderr(inner)
            .spawn()
            .unwrap();
        Session { child, terminal: terminal.into(), screen: String::new(), seen: 0 }
    }

    /// Reads more; `false` once the other end is closed.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = self.terminal.read(&mut bytes).unwrap_or(0);
        self.screen += &String::from_utf8_lossy(&bytes[..count]);
        count > 0
    }

    /// Waits until `text` is shown after what was waited for before.
    fn expect(&mut self, text: &str) {
        loop {
            if let Some(at) = self.screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            assert!(self.read(), "{text:?} did not come: {}", self.screen);
        }
    }

    fn enter(&mut self, line: &str) {
        self.expect(PROMPT);
        // The end of the line comes from the key, not from the editor.
        write!(self.terminal, "{line}\r").unwrap();
    }

    /// What was shown in all, and the status.
    fn end(mut self) -> (String, Option<i32>) {
        while self.read() {}
        (self.screen, self.child.wait().unwrap().code())
    }
}

#[test]
fn exit_ends_a_prompt_with_0_whatever_failed_before() {
    for end in ["exit", "ls /dev; quit"] {
        let mut session = Session::boot();
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
    let mut session = Session::boot();
    session.enter("leak 0; exit");
    let (screen, status) = session.end();
    assert_eq!(status, Some(3), "{screen}");
    assert!(screen.contains("1 page of 4096 bytes is lost"), "{screen}");
}

/// The command that provokes a report shows it, so the prompt does not show it again; other
/// messages it shows by itself.
#[test]
fn a_message_is_shown_once_at_a_prompt() {
    let mut session = Session::boot();
    session.enter("wrong_free double");
    session.expect("double free");
    session.enter("fill GFP_KERNEL 2; exit");
    let (screen, status) = session.end();
    assert_eq!(status, Some(0), "{screen}");
    assert_eq!(screen.matches("double free").count(), 1, "{screen}");
    assert!(screen.contains("warning: "), "{screen}");
}

/// A command that takes long shows how far it is, and takes the bar away before its result.
#[test]
fn a_bar_shows_how_far_many_objects_are() {
    let mut session = Session::boot();
    session.enter("cache create many 8; cache alloc many 200000; exit");
    session.expect("% ");
    session.expect("\u{1b}[2K");
    session.expect("200000 objects from 0x");
    let (screen, status) = session.end();
    assert_eq!(status, Some(0), "{screen}");
}

/// Lines that are pasted together, or typed while a command runs, are run one after the other.
#[test]
fn lines_typed_ahead_are_not_lost() {
    let mut session = Session::boot();
    session.expect(PROMPT);
    write!(session.terminal, "alloc_pages GFP_KERNEL 0\ralloc_pages GFP_KERNEL 1\rfree 1\r")
        .unwrap();
    write!(session.terminal, "free 2\rexit\r").unwrap();
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
    let mut session = Session::boot();
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
