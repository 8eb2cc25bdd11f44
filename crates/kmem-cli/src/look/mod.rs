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

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

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
pub struct Mounted {
    root: PathBuf,
}

impl Mounted {
    /// The machine whose files are in `root`.
    pub fn find(root: &Path) -> Result<Self, Exit> {
        let found = Mounted { root: root.into() };
        let text = std::fs::read_to_string(found.path("buddyinfo"));
        let what = match text {
            Ok(_) => return Ok(found),
            Err(error) if error.kind() == ErrorKind::NotFound => "it has no proc/buddyinfo".into(),
            Err(error) => error.to_string(),
        };
        Err(Exit::BadInput(format!(
            "{} is no machine's folder: {what}; `kmem boot --mount DIR` makes one",
            root.display()
        )))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join("proc").join(name)
    }
}

impl Texts for Mounted {
    fn read(&self, name: &str) -> Result<String, String> {
        std::fs::read_to_string(self.path(name)).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTCONN) => {
                format!("the machine of {} has ended", self.root.display())
            }
            _ if !self.path("buddyinfo").exists() => {
                format!("the machine of {} has ended", self.root.display())
            }
            _ => format!("cannot read {}: {error}", self.path(name).display()),
        })
    }
}
