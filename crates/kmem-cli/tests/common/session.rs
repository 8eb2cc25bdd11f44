//! `kmem boot` at a terminal that the test holds the other end of.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::Folder;

pub const PROMPT: &str = "kmem> ";

/// The seconds after which what is waited for does not come any more.
const PATIENCE: i64 = 100;

/// `kmem boot` at a terminal.
pub struct Session {
    pub child: Child,
    pub terminal: File,
    pub screen: String,
    /// How much of the screen has been waited for.
    seen: usize,
    /// Where the prompt keeps what was typed.
    state: Folder,
}

impl Session {
    pub fn boot(arguments: &[&str]) -> Self {
        Session::boot_in(Folder::new(), arguments)
    }

    pub fn boot_in(state: Folder, arguments: &[&str]) -> Self {
        Session::start(state, &[&["boot", "--machine", "tiny"], arguments].concat())
    }

    /// Any subcommand at a terminal of 100 columns and 30 lines.
    pub fn start(state: Folder, arguments: &[&str]) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let inner = OpenOptions::new().read(true).write(true).open(name).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kmem"))
            .args(arguments)
            .env("TERM", "xterm")
            .env("XDG_STATE_HOME", state.path(""))
            .env_remove("NO_COLOR")
            .stdin(inner.try_clone().unwrap())
            .stdout(inner.try_clone().unwrap())
            .stderr(inner)
            .spawn()
            .unwrap();
        Session { child, terminal: terminal.into(), screen: String::new(), seen: 0, state }
    }

    /// Reads more; `false` once the other end is closed.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let wait = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&self.terminal, PollFlags::IN)], Some(&wait)).unwrap();
        assert!(ready > 0, "nothing more came: {:?}", self.screen);
        let count = self.terminal.read(&mut bytes).unwrap_or(0);
        self.screen += &String::from_utf8_lossy(&bytes[..count]);
        count > 0
    }

    /// Waits until `text` is shown after what was waited for before.
    pub fn expect(&mut self, text: &str) {
        loop {
            if let Some(at) = self.screen[self.seen..].find(text) {
                self.seen += at + text.len();
                return;
            }
            assert!(self.read(), "{text:?} did not come: {}", self.screen);
        }
    }

    pub fn enter(&mut self, line: &str) {
        self.expect(PROMPT);
        // The end of the line comes from the key, not from the editor.
        self.keys(&format!("{line}\r"));
    }

    /// Types keys.
    pub fn keys(&mut self, keys: &str) {
        write!(self.terminal, "{keys}").unwrap();
    }

    /// What Ctrl-C does while a command runs: the terminal is not the child's own, so it sends no signal.
    pub fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    /// What was shown in all, and the status.
    pub fn end(self) -> (String, Option<i32>) {
        let (screen, status, _) = self.leave();
        (screen, status)
    }

    /// The same, and where the prompt keeps what was typed.
    pub fn leave(mut self) -> (String, Option<i32>, Folder) {
        while self.read() {}
        (self.screen, self.child.wait().unwrap().code(), self.state)
    }
}
