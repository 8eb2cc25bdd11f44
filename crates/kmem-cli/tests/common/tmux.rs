//! A terminal that somebody looks at: a session of tmux, which has a screen and not only bytes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Folder;

/// Columns and lines.
pub const SIZE: (u16, u16) = (100, 40);

/// After which what is waited for does not come any more.
const PATIENCE: Duration = Duration::from_secs(100);

/// A terminal in which a line of `sh` runs. It is gone with this.
pub struct Screen {
    folder: Folder,
}

impl Screen {
    /// `kmem` in the line is this project's command. Its status is shown when it has ended.
    pub fn start(line: &str) -> Self {
        let screen = Screen { folder: Folder::new() };
        let (columns, lines) = (SIZE.0.to_string(), SIZE.1.to_string());
        let folder = screen.folder.path("");
        // Ctrl-C is for the command: the shell around it stays.
        let whole = format!(
            "trap : INT; kmem() {{ '{}' \"$@\"; }}; export XDG_STATE_HOME='{folder}'; unset NO_COLOR; {line}; \
             echo \"ended with $?\"; sleep 1000",
            env!("CARGO_BIN_EXE_kmem"),
        );
        let started = screen
            .tmux(&[
                "-f",
                "/dev/null",
                "new-session",
                "-d",
                "-x",
                &columns,
                "-y",
                &lines,
                "sh",
                "-c",
                &whole,
            ])
            .status()
            .expect("tmux is there");
        assert!(started.success(), "tmux starts");
        screen
    }

    /// A server of its own, so that no other session is in the way.
    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.args(["-S", &self.folder.path("socket")]).args(arguments);
        tmux.env_remove("TMUX").env("TERM", "xterm-256color").stdin(Stdio::null());
        tmux
    }

    /// Types: names of keys (`Enter`, `Tab`, `C-c`), or text.
    pub fn keys(&self, keys: &[&str]) {
        let done = self.tmux(&[&["send-keys"], keys].concat()).status().unwrap();
        assert!(done.success(), "{keys:?}");
    }

    /// What is on the screen now, line by line.
    pub fn now(&self) -> String {
        self.capture(&[])
    }

    /// The same with the sequences that make colours.
    pub fn with_colours(&self) -> String {
        self.capture(&["-e"])
    }

    fn capture(&self, how: &[&str]) -> String {
        let output = self.tmux(&[&["capture-pane", "-p"], how].concat()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until the screen is as wanted, and answers what is on it.
    pub fn wait(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.now();
            if is(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < PATIENCE, "{what} did not come:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a text anywhere on the screen.
    pub fn shows(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    /// Types a line where the last line that there is is an empty prompt, and waits for the next such prompt.
    pub fn enter(&self, line: &str) -> String {
        let prompts =
            |screen: &str| screen.lines().filter(|line| line.starts_with("kmem>")).count();
        let at_prompt = |screen: &str| screen.trim_end().lines().last() == Some("kmem>");
        let before = prompts(&self.wait("the prompt", at_prompt));
        self.keys(&["-l", line]);
        self.keys(&["Enter"]);
        self.wait("the next prompt", |screen| at_prompt(screen) && prompts(screen) > before)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).stderr(Stdio::null()).status();
    }
}
