//! What the shell needs of a machine.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use kmem::io::Registers;
use kmem::platform::UserMap;
use kmem::{CpuId, KernelStack, Mm, Pfn, Platform, Reclaim};

use crate::Command;

/// Work for a CPU: as a task or as an interrupt handler.
pub type Handler<S> = Arc<dyn Fn(&S, CpuId) + Send + Sync>;

/// For how long a block of pages has been handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// The machine keeps no times.
    NotKept,
    /// It does, and has none of this block.
    Unknown,
    /// In nanoseconds.
    Known(u64),
}

/// A machine that has booted, as the shell sees it.
///
/// The shell's own code runs as a task of the machine. Errors are one line for a person, without a
/// line end: what was asked, what was found, what to do.
pub trait System: Send + Sync + Sized + 'static {
    /// The machine's platform.
    type Platform: Platform + 'static;
    /// What frees memory when it runs low.
    type Reclaim: Reclaim + 'static;

    /// The commands that only this machine has.
    fn commands() -> &'static [Command<Self>] {
        &[]
    }

    /// The memory manager.
    fn mm(&self) -> &Mm<Self::Platform, Self::Reclaim>;

    /// Writes to the console.
    ///
    /// # Errors
    ///
    /// Nobody reads it any more.
    fn print(&self, bytes: &[u8]) -> Result<(), String>;

    /// Nanoseconds since some fixed moment.
    fn nanoseconds(&self) -> u64;

    /// For how long the block of pages that begins at a frame has been handed out. The manager keeps no time
    /// of a page: a machine may that is told of its trace events.
    fn block_age(&self, first: Pfn) -> Age {
        let _ = first;
        Age::NotKept
    }

    /// Waits; the CPU is free for other tasks meanwhile.
    fn sleep(&self, nanoseconds: u64);

    /// Runs `work` as a task on each running CPU, all at once, and waits for all to end.
    ///
    /// # Errors
    ///
    /// A task could not be started, or it panicked.
    fn on_each_cpu(&self, work: Handler<Self>) -> Result<(), String>;

    /// Runs `work` as the running task, on another stack of the machine's manager, and waits for it. Answers
    /// whether it came to its end: `false` where it touched what is below the stack, or another page that
    /// is there to be met, and was ended by force. What it had on the stack is forgotten then.
    fn run_on_stack(
        &self,
        stack: &KernelStack<'_, Self::Platform, Self::Reclaim>,
        work: &dyn Fn(),
    ) -> bool;

    /// Makes interrupts arrive at every CPU until the answer is dropped. `handler` runs as an
    /// interrupt handler: it allocates with `GFP_ATOMIC` only and uses no heap of its own.
    ///
    /// # Errors
    ///
    /// The machine has no such interrupts.
    fn interrupts<'a>(&'a self, handler: Handler<Self>)
    -> Result<Box<dyn Interrupts + 'a>, String>;

    /// The address space of a user of the machine.
    fn user(&self) -> &dyn UserMap;

    /// The manager's messages since the last call, oldest first, a line each. Reports of wrong frees
    /// and wrong calls are among them.
    fn take_log(&self) -> Vec<String>;

    /// Runs `work` with the registers of the machine's device, the `edu` of QEMU or a model of it.
    ///
    /// # Errors
    ///
    /// There is none, it cannot be mapped, or what `work` answers.
    fn with_device(
        &self,
        work: &mut dyn FnMut(&dyn Registers) -> Result<(), String>,
    ) -> Result<(), String> {
        let _ = work;
        Err("this machine has no device that uses memory by itself".into())
    }

    /// How many wrong frees and wrong calls were reported since boot.
    fn misuses(&self) -> u64;

    /// The latest of those reports, in one line.
    fn last_misuse(&self) -> Option<String>;

    /// Says that wrong frees and wrong calls are made on purpose from now on, or no more. Calls nest.
    /// A machine that ends at the first wrong free goes on meanwhile. See [`OnPurpose`].
    fn expect_misuses(&self, expected: bool) {
        let _ = expected;
    }

    /// Says that the reports since wrong frees were first expected, and the errors that were logged with
    /// them, were looked at: nobody is to be shown them by themselves. [`System::take_log`] has them all the
    /// same.
    fn pass_over_reports(&self) {}

    /// Tells how far a long command is: `done` of `total`, which may be more than there will be. `what` is
    /// counted: `bytes`, `pages`, `operations`.
    fn progress(&self, what: &str, done: u64, total: u64) {
        let _ = (what, done, total);
    }

    /// Says that the command which told how far it is has ended.
    fn end_progress(&self) {}

    /// Whether whoever runs the command wants it to stop: commands that take long look, and stop as if they had
    /// come to their end ([`Failure::Failed`](crate::Failure::Failed)).
    fn is_interrupted(&self) -> bool {
        false
    }

    /// Lets other tasks have the caller's CPU: commands that take long call it now and then, each of their
    /// tasks on its own CPU. It costs little where none waits. A machine whose tasks take turns by themselves, or that has no others, does
    /// nothing.
    fn give_way(&self) {}

    /// Whether there is a host behind the machine, whose files commands can read and write.
    fn has_host(&self) -> bool {
        true
    }

    /// How many characters of a text go beside each other on the console.
    fn columns(&self) -> usize {
        100
    }

    /// Whether others than the command that runs may use the machine's memory meanwhile, through its files.
    fn has_others(&self) -> bool {
        false
    }

    /// Opens a file of the host for reading.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or there is no host.
    fn open(&self, path: &str) -> Result<Box<dyn Source>, String>;

    /// Whether two paths lead to one file of the host.
    fn same_file(&self, one: &str, other: &str) -> bool {
        one == other
    }

    /// Makes a file of the host, empty, or empties it.
    ///
    /// # Errors
    ///
    /// It cannot be written, or there is no host.
    fn create(&self, path: &str) -> Result<Box<dyn Sink>, String>;

    /// The names in a directory of the host, sorted.
    ///
    /// # Errors
    ///
    /// It cannot be read, or there is no host.
    fn list(&self, path: &str) -> Result<Vec<String>, String>;
}

/// Fails where the command is to stop. Others get a turn before it goes on.
pub(crate) fn go_on<S: System>(system: &S) -> Result<(), String> {
    system.give_way();
    if system.is_interrupted() { Err("interrupted".into()) } else { Ok(()) }
}

/// Wrong frees and wrong calls are made on purpose until this is dropped.
pub struct OnPurpose<'s, S: System> {
    system: &'s S,
    /// Whether their reports are for the command that made them alone.
    passed_over: bool,
}

impl<'s, S: System> OnPurpose<'s, S> {
    /// Tells the machine.
    pub fn new(system: &'s S) -> Self {
        Self::begin(system, false)
    }

    /// The same, for a command that looks at all of their reports: nobody else is shown one.
    pub fn passed_over(system: &'s S) -> Self {
        Self::begin(system, true)
    }

    fn begin(system: &'s S, passed_over: bool) -> Self {
        system.expect_misuses(true);
        OnPurpose { system, passed_over }
    }
}

impl<S: System> Drop for OnPurpose<'_, S> {
    fn drop(&mut self) {
        if self.passed_over {
            self.system.pass_over_reports();
        }
        self.system.expect_misuses(false);
    }
}

/// Interrupts that arrive until this is dropped.
pub trait Interrupts {
    /// How many have been handled so far.
    fn handled(&self) -> u64;
}

/// Bytes that can be read from the first to the last.
pub trait Source {
    /// Reads some bytes and answers how many; 0 at the end.
    ///
    /// # Errors
    ///
    /// The bytes cannot be read.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, String>;

    /// How many bytes there are from its start to its end, where that is known before they are read.
    fn size(&self) -> Option<u64> {
        None
    }
}

/// A place for bytes.
pub trait Sink {
    /// Writes all of `data`.
    ///
    /// # Errors
    ///
    /// They cannot be written; some may have been.
    fn write(&mut self, data: &[u8]) -> Result<(), String>;

    /// Makes sure that what was written has arrived. Called once, at the end.
    ///
    /// # Errors
    ///
    /// It has not.
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}
