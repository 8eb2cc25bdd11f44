//! The machine's files as files of the host, by FUSE.
//!
//! ```text
//!   cp, dd, cat, tail ...                 the prompt, -c, a script
//!        | system calls                        |
//!   Linux's FUSE                               |
//!        | requests                            |
//!   fuser's threads -- files.rs --+            |  as tasks of the machine
//!                    numbers.rs   |            |
//!                                 Tree: one for both
//! ```
//!
//! * A request is a task on whichever CPU is free, so a command that has CPU 0 for long stops the host's
//!   programs only where there is no other CPU. What a task does with the host it does without a CPU: a
//!   command may copy from the folder that its own machine serves.
//! * Nothing is cached: attributes and names hold for no time, reads and writes come through as they are
//!   called. So what a command does at the prompt is seen at once.
//! * At the end the mount is *detached and aborted*: it goes out of the host's tree even where a program
//!   has a file open or stands in it, and what such a program asks from then on fails with ENOTCONN.
//!   Requests that run are waited for, files that are open let go of their modules, and then the machine
//!   is checked as always.
//! * The lock here: `Gate`. Requests share it, the end has it alone. No request waits for another, apart
//!   from what they do in the machine.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `point.rs` | the folder: what may be mounted on, dead mounts, detaching |
//! | `table.rs` | the host's table of mounts, read |
//! | `files.rs` | FUSE's requests, answered |
//! | `serve.rs` | the command `serve` |
//! | `numbers.rs` | numbers of files and of open files |

mod files;
mod numbers;
mod point;
mod serve;
mod table;

use std::io::ErrorKind;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption};
use kmem_shell::Tree;

use crate::exit::Exit;
use crate::hosted::Hosted;
use files::{Files, Shared};

pub use point::{Point, detach};
pub use serve::serve;

/// As many threads answer at most.
const MOST_THREADS: usize = 8;

/// A machine's files, mounted. Dropping it detaches them.
pub struct Mount<const SHIFT: u32, const TRACE: bool> {
    shared: Arc<Shared<SHIFT, TRACE>>,
    /// Its own end is not wanted: it would unmount whatever is at the folder by then, which may be
    /// somebody else's. Its threads end when the kernel has nothing for them any more.
    session: ManuallyDrop<BackgroundSession>,
}

impl<const SHIFT: u32, const TRACE: bool> Mount<SHIFT, TRACE> {
    /// Mounts the machine's files.
    ///
    /// # Errors
    ///
    /// The host does not let this process mount.
    pub fn start(
        point: &Point,
        machine: &'static Hosted<SHIFT, TRACE>,
        tree: Arc<Tree<'static, Hosted<SHIFT, TRACE>>>,
    ) -> Result<Self, Exit> {
        let shared = Arc::new(Shared::new(machine, tree));
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(table::SOURCE.into()),
            MountOption::NoExec,
            MountOption::NoAtime,
        ];
        // One more than CPUs: what needs none does not wait for those that have them.
        config.n_threads = Some((machine.cpus() + 1).min(MOST_THREADS));
        let failed = |what: String| Exit::Failed(format!("cannot mount on {point}: {what}"));
        let mounted = fuser::spawn_mount(Files(Arc::clone(&shared)), point.path(), &config);
        let session = mounted.map_err(|error| match error.kind() {
            // The kernel said no, and then the helper of users who may not mount was looked for.
            ErrorKind::NotFound => failed(
                "it is not permitted, and there is no fusermount3: run as root, with CAP_SYS_ADMIN"
                    .into(),
            ),
            _ => failed(error.to_string()),
        })?;
        point.note_mounted();
        machine.note_mounted();
        Ok(Mount { shared, session: ManuallyDrop::new(session) })
    }
}

impl<const SHIFT: u32, const TRACE: bool> Mount<SHIFT, TRACE> {
    /// Whether the host still asks: not after somebody unmounted the files, and the last of them that a program
    /// had open was closed.
    pub fn is_there(&self) -> bool {
        !self.session.guard.is_finished()
    }
}

impl<const SHIFT: u32, const TRACE: bool> Drop for Mount<SHIFT, TRACE> {
    fn drop(&mut self) {
        detach();
        self.shared.close();
    }
}
