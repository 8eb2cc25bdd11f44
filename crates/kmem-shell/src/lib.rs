//! A shell for a machine that runs [`kmem`]: `insmod scullp; cp FILE /dev/scullp0; cat
//! /proc/buddyinfo`.
//!
//! It needs a [`System`], which is all that it knows of the machine: a machine inside a process and
//! a PC behind a serial line offer the same commands. Paths under `/dev` and `/proc` are the
//! machine's, however they are written; all others, and those that do not begin with `/`, are of
//! the host that the machine runs on, if it has one.
//!
//! | where | what is in it |
//! | --- | --- |
//! | `system.rs` | what the shell needs of a machine |
//! | `parse.rs` | a line of text as commands and words |
//! | `shell.rs` | the state between commands, and running one |
//! | `complete.rs` | what a word that is being typed may become |
//! | `commands/` | a file a subject, and the table of all commands |
//! | `files/` | the machine's files as a tree that several use at a time; paths as streams |
//! | `free_lists.rs` | the free lists at a moment, to compare |
//! | `memory.rs` | the bytes of a page that the shell owns |
//! | `stress/` | the random work of the command `stress` |
//! | `text.rs` | words of messages |

#![no_std]

extern crate alloc;

mod commands;
mod complete;
mod error;
mod files;
mod free_lists;
mod memory;
mod parse;
mod shell;
mod stress;
mod system;
mod text;

pub use commands::{Command, Group, Run, groups};
pub use complete::Completion;
pub use error::{Error, Failure};
pub use files::{Access, File, FileError, FileKind, Status, Tree};
pub use free_lists::FreeLists;
pub use parse::{Invocation, parse};
pub use shell::Shell;
pub(crate) use system::go_on;
pub use system::{Age, Handler, Interrupts, OnPurpose, Sink, Source, System};
pub use text::Count;
