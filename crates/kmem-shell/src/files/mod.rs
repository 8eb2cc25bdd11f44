//! Paths as streams: the machine's own files, and files of the host.
//!
//! [`Tree`] is the machine's files, for the shell and for whoever else uses them at the same time; the
//! streams below are how the shell's commands read and write them.

mod device;
mod error;
mod leaks;
mod modules;
mod proc;
mod sys;
mod tree;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{Shell, Sink, Source, System, go_on};

pub use error::FileError;
pub use tree::{Access, File, FileKind, Status, Tree};

pub(crate) use device::Scull;
pub(crate) use modules::kinds;
pub(crate) use proc::{known, parse_frame, write_page};

/// How many bytes are copied or compared at a time.
pub(crate) const CHUNK: usize = 64 << 10;

/// Whose file a path leads to.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// The machine's, by this path.
    Machine(String),
    /// To the host, which is given the path as it was written: it alone can follow links.
    Host,
}

/// Resolves `//`, `.` and `..` to see whose the path is.
fn place(path: &str) -> Place {
    let names = tree::resolve(path);
    match names.first() {
        Some(&("dev" | "proc" | "sys")) if path.starts_with('/') => {
            Place::Machine(format!("/{}", names.join("/")))
        }
        _ => Place::Host,
    }
}

/// The device that a path leads to.
pub(crate) fn device_of<'m, S: System>(
    shell: &Shell<'m, S>,
    path: &str,
) -> Result<Scull<'m>, String> {
    match place(path) {
        Place::Machine(path) if path.starts_with("/dev/") => Ok(shell.tree.device(&path)?),
        _ => Err(format!("{path} is no device: give one of /dev")),
    }
}

/// The place of a file.
fn file(path: &str) -> Result<Place, String> {
    match place(path) {
        Place::Host if path.is_empty() => Err("the path is empty: give a file".into()),
        place => Ok(place),
    }
}

/// Opens what is at `path` for reading.
///
/// The answer keeps a module that it reads from loaded, and borrows nothing of the shell.
///
/// # Errors
///
/// There is no such thing, or it cannot be read.
pub(crate) fn open<'m, S: System>(
    shell: &Shell<'m, S>,
    path: &str,
) -> Result<Box<dyn Source + 'm>, String> {
    match file(path)? {
        Place::Machine(path) => {
            let file = shell.tree.open(&path, Access::READ)?;
            let status = shell.tree.status(&path)?;
            let size = Some(status.size).filter(|_| status.kind == FileKind::Device);
            Ok(Box::new(Reading { file, position: 0, size }))
        }
        Place::Host => shell.system.open(path).map(|source| source as Box<dyn Source>),
    }
}

/// Whether two paths lead to one file: to write to the one would empty the other.
pub(crate) fn same<S: System>(shell: &Shell<'_, S>, one: &str, other: &str) -> bool {
    match (place(one), place(other)) {
        (Place::Host, Place::Host) => shell.system.same_file(one, other),
        (one, other) => one == other,
    }
}

/// Opens what is at `path` for writing, and empties it.
///
/// # Errors
///
/// There is no such thing, or it cannot be written.
pub(crate) fn create<'m, S: System>(
    shell: &Shell<'m, S>,
    path: &str,
) -> Result<Box<dyn Sink + 'm>, String> {
    match file(path)? {
        Place::Machine(path) => {
            let file = shell.tree.open(&path, Access::WRITE)?;
            // A parameter changes when all of its text is there.
            let is_text = shell.tree.status(&path)?.kind == FileKind::Text;
            let text = is_text.then(Vec::new);
            Ok(Box::new(Writing { file, position: 0, text }))
        }
        Place::Host => shell.system.create(path).map(|sink| sink as Box<dyn Sink>),
    }
}

/// The names at `path`: those in a directory, or `path` itself where it is none.
///
/// # Errors
///
/// There is no such thing.
pub(crate) fn list<S: System>(shell: &Shell<'_, S>, path: &str) -> Result<Vec<String>, String> {
    match place(path) {
        Place::Machine(place) => match shell.tree.status(&place)?.kind {
            FileKind::Directory => Ok(shell.tree.names(&place)?),
            FileKind::Device | FileKind::Text => Ok(Vec::from([path.into()])),
        },
        Place::Host => shell.system.list(path),
    }
}

/// Copies all bytes from one stream to another and answers how many there were.
///
/// # Errors
///
/// Those of either; the command is to stop.
pub(crate) fn copy<S: System>(
    system: &S,
    source: &mut dyn Source,
    sink: &mut dyn Sink,
) -> Result<u64, String> {
    let total = source.size();
    let mut buffer = alloc::vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        go_on(system)?;
        if let Some(total) = total {
            system.progress("bytes", bytes, total);
        }
        match source.read(&mut buffer)? {
            0 => return Ok(bytes),
            count => {
                sink.write(&buffer[..count])?;
                bytes += count as u64;
            }
        }
    }
}

/// A file of the machine that is read from its start to its end.
struct Reading<'m> {
    file: File<'m>,
    position: u64,
    /// How many bytes it had when it was opened.
    size: Option<u64>,
}

impl Source for Reading<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, String> {
        let count = self.file.read_at(self.position, out)?;
        self.position += count as u64;
        Ok(count)
    }

    fn size(&self) -> Option<u64> {
        // /dev/zero has no end.
        self.size.filter(|size| *size > 0)
    }
}

/// The longest text that is collected: what is longer is refused as what it is by then.
const LONGEST_TEXT: usize = 64;

/// A file of the machine that is written from its start on.
struct Writing<'m> {
    file: File<'m>,
    position: u64,
    /// What is to be written in one piece, at the end.
    text: Option<Vec<u8>>,
}

impl Sink for Writing<'_> {
    fn write(&mut self, mut data: &[u8]) -> Result<(), String> {
        if let Some(text) = &mut self.text {
            text.extend_from_slice(data);
            if text.len() > LONGEST_TEXT {
                self.file.write_at(0, text)?;
            }
            return Ok(());
        }
        while !data.is_empty() {
            let count = self.file.write_at(self.position, data)?;
            self.position += count as u64;
            data = &data[count..];
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        if let Some(text) = &self.text {
            self.file.write_at(0, text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_resolved_before_it_is_decided_whose_it_is() {
        let machine = |path: &str| Place::Machine(path.into());
        for path in ["/dev/zero", "//dev/zero", "/dev//zero/", "/./dev/./zero", "/../dev/zero"] {
            assert_eq!(place(path), machine("/dev/zero"), "{path}");
        }
        for path in ["/proc/a", "//proc/a", "/dev/../proc/a", "/tmp/../proc/a", "/proc/b/../a"] {
            assert_eq!(place(path), machine("/proc/a"), "{path}");
        }
        for path in ["/sys/a", "//sys/a", "/dev/../sys/./a"] {
            assert_eq!(place(path), machine("/sys/a"), "{path}");
        }
        for path in ["/dev", "/dev/", "//dev/.", "/dev/zero/.."] {
            assert_eq!(place(path), machine("/dev"), "{path}");
        }
        assert_eq!(place("/dev/a/b"), machine("/dev/a/b"));
        for path in
            ["", "/", "/tmp/dev", "dev/zero", "../proc/a", "/dev/../tmp/f", "/devices", "/dev/.."]
        {
            assert_eq!(place(path), Place::Host, "{path}");
        }
    }
}
