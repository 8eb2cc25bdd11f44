//! The machine's files as a tree, for all who use them at a time.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use scull::ioctl::ioctl;

use super::device::Scull;
use super::error::{EACCES, EBADF, EIO, EISDIR, ENOENT, ENOTDIR, ENOTTY, FileError};
use super::modules::Modules;
use super::proc::Proc;
use super::sys::Setting;
use super::{device, proc, sys};
use crate::System;

/// The machine's files: devices in `/dev`, texts in `/proc` and `/sys`. Modules that are loaded bring some
/// more.
///
/// The shell uses one, and others may use the same one at the same time: [`Shell::tree`](crate::Shell::tree).
/// Paths are from its root, `/dev/scull0`; `//`, `.` and `..` are resolved. Calls are for tasks of the
/// machine: they may sleep.
///
/// ```text
///   /  dev   null zero scull0 scull1 ...          bytes of a device, at any position
///      proc  meminfo slabinfo scullmem ...        a text, made when it is opened
///      sys   module/scull/parameters/qset ...     a text; some are changed by writing
/// ```
pub struct Tree<'m, S: System> {
    system: &'m S,
    pub(crate) modules: Modules<'m>,
}

/// What is at a path.
pub(crate) enum Node<'m, S: System> {
    /// A directory, and the names in it.
    Directory(Vec<String>),
    /// Is empty, and forgets what is written.
    Null,
    /// Has zeroes without end, and forgets what is written.
    Zero,
    /// A device with memory.
    Device(Scull<'m>),
    /// A text that is made when it is read.
    Proc(Proc<'m, S>),
    /// A parameter of a module.
    Setting(Setting<'m>),
}

/// What kind of thing is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A device, or null or zero.
    Device,
    /// A text.
    Text,
}

/// What can be said of a file without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What kind it is.
    pub kind: FileKind,
    /// Whether it can be written.
    pub writable: bool,
    /// How many bytes it has. A text has 0, as in Linux: it is not known before it is made.
    pub size: u64,
    /// How many bytes of memory it has for them.
    pub held: u64,
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// It is written.
    pub write: bool,
    /// It is emptied first. A parameter keeps its value until it gets another.
    pub empty: bool,
    /// What is written goes behind the end, wherever that is then.
    pub append: bool,
}

impl Access {
    /// For reading.
    pub const READ: Access = Access { write: false, empty: false, append: false };
    /// For writing, emptied, as the texts' driver has it.
    pub const WRITE: Access = Access { write: true, empty: true, append: false };
}

/// The names on a path, `//`, `.` and `..` resolved.
pub(super) fn resolve(path: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names
}

impl<'m, S: System> Tree<'m, S> {
    /// The tree of a machine that has no modules loaded.
    pub(crate) fn new(system: &'m S) -> Self {
        Tree { system, modules: Modules::new() }
    }

    fn find(&self, path: &str) -> Result<Node<'m, S>, FileError> {
        let names = resolve(path);
        match names[..] {
            [] => Ok(Node::Directory(["dev", "proc", "sys"].map(String::from).into())),
            ["dev"] => Ok(Node::Directory(device::names(&self.modules))),
            ["dev", ref rest @ ..] => device::find(&self.modules, &rest.join("/")),
            ["proc"] => Ok(Node::Directory(proc::names(self.system, &self.modules))),
            ["proc", ref rest @ ..] => proc::find(self.system, &self.modules, &rest.join("/")),
            ["sys", ref rest @ ..] => sys::find(&self.modules, rest),
            _ => Err(FileError::new(ENOENT, format!("there is no {path} on this machine"))),
        }
    }

    /// The module and the number of the device at a path.
    pub(crate) fn device(&self, path: &str) -> Result<Scull<'m>, FileError> {
        match self.find(path)? {
            Node::Device(device) => Ok(device),
            _ => Err(FileError::new(ENOTTY, format!("{path} is no device with memory"))),
        }
    }

    /// What is at a path.
    ///
    /// # Errors
    ///
    /// There is nothing.
    pub fn status(&self, path: &str) -> Result<Status, FileError> {
        let of = |kind, writable| Status { kind, writable, size: 0, held: 0 };
        Ok(match self.find(path)? {
            Node::Directory(_) => of(FileKind::Directory, false),
            Node::Null | Node::Zero => of(FileKind::Device, true),
            Node::Device(device) => {
                let explain = |error| device.explain(error, 0);
                let held = device.module.held(device.number).map_err(explain)?;
                Status { size: device.size()?, held, ..of(FileKind::Device, true) }
            }
            Node::Proc(_) => of(FileKind::Text, false),
            Node::Setting(setting) => of(FileKind::Text, setting.may_change()),
        })
    }

    /// The names in a directory.
    ///
    /// # Errors
    ///
    /// There is nothing at the path, or no directory.
    pub fn names(&self, path: &str) -> Result<Vec<String>, FileError> {
        match self.find(path)? {
            Node::Directory(names) => Ok(names),
            _ => Err(FileError::new(ENOTDIR, format!("{path} is no directory"))),
        }
    }

    /// The whole of a text, as it is now.
    ///
    /// # Errors
    ///
    /// There is none at the path, or it cannot be made.
    pub fn text(&self, path: &str) -> Result<String, FileError> {
        match self.open(path, Access::READ)?.inner {
            Inner::Text(text) => Ok(text),
            Inner::Setting(setting) => Ok(setting.text()),
            Inner::Null | Inner::Zero | Inner::Device(_) => {
                Err(FileError::new(EIO, format!("{path} is a device and no text")))
            }
        }
    }

    /// Opens a file. The text of one that has a text is made now: what changes later is not in it. A module
    /// stays loaded while one of its files is open.
    ///
    /// # Errors
    ///
    /// There is no file at the path; it cannot be written; a device is to be emptied, and a user of the
    /// machine has its memory mapped.
    pub fn open(&self, path: &str, access: Access) -> Result<File<'m>, FileError> {
        let refuse = |number, what| Err(FileError::new(number, format!("{path} {what}")));
        // Of what is not there either, as nobody can put it there.
        if access.write && matches!(resolve(path)[..], ["proc", _, ..]) {
            return refuse(EACCES, "cannot be written");
        }
        let inner = match self.find(path)? {
            Node::Directory(_) => return refuse(EISDIR, "is a directory: give a file"),
            Node::Null => Inner::Null,
            Node::Zero => Inner::Zero,
            Node::Device(device) => {
                if access.empty {
                    let emptied = device.module.trim(device.number);
                    emptied.map_err(|error| FileError::of(&error, format_args!("{path}")))?;
                }
                Inner::Device(device)
            }
            Node::Proc(_) if access.write => return refuse(EACCES, "cannot be written"),
            Node::Proc(proc) => {
                let mut text = String::new();
                match proc.write(self.system, &self.modules, &mut text) {
                    Ok(()) => Inner::Text(text),
                    Err(_) => return refuse(EIO, "could not be made"),
                }
            }
            Node::Setting(setting) if access.write => match setting.may_change() {
                true => Inner::Setting(setting),
                false => return Err(setting.refusal()),
            },
            Node::Setting(setting) => Inner::Text(setting.text()),
        };
        Ok(File { inner, access })
    }
}

/// A file that is open. It keeps the module that it is of loaded.
pub struct File<'m> {
    inner: Inner<'m>,
    access: Access,
}

enum Inner<'m> {
    Null,
    Zero,
    Device(Scull<'m>),
    Text(String),
    Setting(Setting<'m>),
}

impl File<'_> {
    /// Reads from `position` on, in bytes, and answers how many bytes were read: fewer than `out` has only
    /// at the end.
    ///
    /// # Errors
    ///
    /// It is open for writing a parameter.
    pub fn read_at(&self, position: u64, out: &mut [u8]) -> Result<usize, FileError> {
        match &self.inner {
            Inner::Null => Ok(0),
            Inner::Zero => {
                out.fill(0);
                Ok(out.len())
            }
            Inner::Device(device) => device.read_at(position, out),
            Inner::Text(text) => Ok(read_text(text, position, out)),
            // Opened for both, it is what it is now.
            Inner::Setting(setting) => Ok(read_text(&setting.text(), position, out)),
        }
    }

    /// Writes at `position`, in bytes, and answers how many bytes were written: fewer than there are where
    /// memory ran out on the way. What is written to a parameter is its value as a text, whatever the
    /// position.
    ///
    /// # Errors
    ///
    /// There is no memory; it would be more than the device's quota; the value makes no sense; it is open
    /// for reading.
    pub fn write_at(&self, position: u64, data: &[u8]) -> Result<usize, FileError> {
        match &self.inner {
            Inner::Text(_) => Err(not_for_writing()),
            _ if !self.access.write => Err(not_for_writing()),
            Inner::Null | Inner::Zero => Ok(data.len()),
            Inner::Device(device) if self.access.append => device.append(data),
            Inner::Device(device) => device.write_at(position, data),
            Inner::Setting(setting) => setting.store(data).map(|()| data.len()),
        }
    }

    /// [`File::write_at`], but at `position` even where the file was opened to append: a mapping of it was
    /// changed there.
    ///
    /// # Errors
    ///
    /// Those of [`File::write_at`].
    pub fn write_back(&self, position: u64, data: &[u8]) -> Result<usize, FileError> {
        match &self.inner {
            Inner::Device(device) if self.access.write => device.write_at(position, data),
            _ => self.write_at(position, data),
        }
    }

    /// Makes a device end at `size`, in bytes; with 0 it is emptied. Other files stay as they are.
    ///
    /// # Errors
    ///
    /// A user of the machine has the device's memory mapped.
    pub fn truncate(&self, size: u64) -> Result<(), FileError> {
        match &self.inner {
            Inner::Device(device) => device
                .module
                .truncate(device.number, size)
                .map_err(|error| device.explain(error, size)),
            _ => Ok(()),
        }
    }

    /// Controls a device: see [`scull::ioctl`].
    ///
    /// # Errors
    ///
    /// There is no such control, or what [`ioctl`] says.
    pub fn ioctl(&self, command: u32, argument: &mut i32) -> Result<i32, FileError> {
        match &self.inner {
            Inner::Device(device) => {
                ioctl(&*device.module, command, argument).map_err(|error| device.explain(error, 0))
            }
            _ => Err(FileError::new(ENOTTY, "the file has no controls: give a device".into())),
        }
    }
}

fn not_for_writing() -> FileError {
    FileError::new(EBADF, "the file is open for reading".into())
}

fn read_text(text: &str, position: u64, out: &mut [u8]) -> usize {
    let start = usize::try_from(position).map_or(text.len(), |at| at.min(text.len()));
    let left = &text.as_bytes()[start..];
    let count = left.len().min(out.len());
    out[..count].copy_from_slice(&left[..count]);
    count
}
