//! Looking at a machine by its texts: what they say, for those who draw it.
//!
//! Whoever looks needs nothing of the machine but `/proc`, so a machine in this process, one that is mounted
//! and Linux itself are looked at alike.
//!
//! | where | what is in it |
//! | --- | --- |
//! | `runs.rs` | `pageruns`: who has which frames |
//! | `cells.rs` | the frames of a zone as cells in rows |
//! | `tables.rs` | `buddyinfo`, `zoneinfo`, `vmstat`, `slabinfo` |

pub mod cells;
pub mod runs;
pub mod tables;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use crate::exit::Exit;

/// A machine's `/proc`.
pub trait Texts {
    /// The text of a file, such as `buddyinfo`.
    ///
    /// # Errors
    ///
    /// It cannot be read: one line that says why.
    fn read(&self, name: &str) -> Result<String, String>;

    /// Does something that is none of the machine's business, such as waiting for a key.
    fn idle(&self, work: &mut dyn FnMut()) {
        work();
    }
}

/// The texts of a machine that is mounted on a folder.
///
/// A thread of their own reads them: whoever serves them may have been stopped, and a read of theirs cannot
/// be taken back.
pub struct Mounted {
    root: PathBuf,
    asked: Sender<PathBuf>,
    told: Receiver<io::Result<String>>,
}

/// How long an answer is waited for: a machine at work has answered long before.
const PATIENCE: Duration = Duration::from_secs(3);
/// The same for a text that takes as long as there are pages.
const LONG_PATIENCE: Duration = Duration::from_secs(60);

impl Mounted {
    /// The machine whose files are in `root`.
    pub fn find(root: &Path) -> Result<Self, Exit> {
        let (asked, questions) = mpsc::channel::<PathBuf>();
        let (answers, told) = mpsc::channel();
        let read = move || {
            let texts = questions.iter().map(std::fs::read_to_string);
            // It ends when nobody wants an answer any more.
            let _ = texts.map(|text| answers.send(text)).take_while(Result::is_ok).count();
        };
        let thread = thread::Builder::new().name("reading".into()).spawn(read);
        thread.map_err(|error| Exit::Failed(format!("cannot start a thread: {error}")))?;
        let found = Mounted { root: root.into(), asked, told };
        let what = match found.text("buddyinfo") {
            Ok(_) => return Ok(found),
            Err(error) if error.kind() == ErrorKind::NotFound => "it has no proc/buddyinfo".into(),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                return Err(Exit::Failed(found.silent()));
            }
            Err(error) => error.to_string(),
        };
        Err(Exit::BadInput(format!(
            "{} is no machine's folder: {what}; `kmem boot --mount DIR` makes one",
            root.display()
        )))
    }

    /// Whether there is such a text: Linux itself does not have all that a machine has.
    pub fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join("proc").join(name)
    }

    fn text(&self, name: &str) -> io::Result<String> {
        // The thread is there as long as this is.
        let _ = self.asked.send(self.path(name));
        let patience = if name == "pageruns" { LONG_PATIENCE } else { PATIENCE };
        self.told.recv_timeout(patience).unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }

    fn silent(&self) -> String {
        format!("the machine of {} has not answered for some seconds", self.root.display())
    }
}

impl Texts for Mounted {
    fn read(&self, name: &str) -> Result<String, String> {
        self.text(name).map_err(|error| match error.kind() {
            ErrorKind::TimedOut => self.silent(),
            _ if error.raw_os_error() == Some(libc::ENOTCONN) || !self.has("buddyinfo") => {
                format!("the machine of {} has ended", self.root.display())
            }
            _ => format!("cannot read {}: {error}", self.path(name).display()),
        })
    }
}
