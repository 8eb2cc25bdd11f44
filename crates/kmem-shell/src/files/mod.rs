//! Paths as streams: devices, `/proc` and `/sys` files, files of the host.

mod device;
mod leaks;
mod modules;
mod proc;
mod sys;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{Shell, Sink, Source, System, go_on};

pub(crate) use modules::{Loaded, Modules, kinds};

/// How many bytes are copied or compared at a time.
pub(crate) const CHUNK: usize = 64 << 10;

/// Where a path leads. What is in one of the machine's directories has a name there; the name of
/// the directory itself is empty.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Device(String),
    Proc(String),
    Sys(String),
    /// To the host, which is given the path as it was written: it alone can follow links.
    Host,
}

/// Resolves `//`, `.` and `..` to see whose the path is.
fn place(path: &str) -> Place {
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
    match names.split_first() {
        Some((&"dev", names)) if path.starts_with('/') => Place::Device(names.join("/")),
        Some((&"proc", names)) if path.starts_with('/') => Place::Proc(names.join("/")),
        Some((&"sys", names)) if path.starts_with('/') => Place::Sys(names.join("/")),
        _ => Place::Host,
    }
}

/// The module and the number of the device that a path leads to.
pub(crate) fn device_of<'m, S: System>(
    shell: &Shell<'m, S>,
    path: &str,
) -> Result<(Loaded<'m>, u64), String> {
    match place(path) {
        Place::Device(name) => device::device::<S>(&shell.modules, &name),
        _ => Err(format!("{path} is no device: give one of /dev")),
    }
}

/// The place of a file, which one of the machine's directories is not.
fn file(path: &str) -> Result<Place, String> {
    match place(path) {
        Place::Host if path.is_empty() => Err("the path is empty: give a file".into()),
        Place::Device(name) | Place::Proc(name) | Place::Sys(name) if name.is_empty() => {
            Err(format!("{path} is a directory: give a file"))
        }
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
        Place::Device(name) => device::open::<S>(&shell.modules, &name),
        Place::Proc(name) => proc::open(shell, &name),
        Place::Sys(path) => sys::open(shell, &path),
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
        Place::Device(name) => device::create::<S>(&shell.modules, &name),
        Place::Proc(name) => Err(format!("/proc/{name} cannot be written")),
        Place::Sys(path) => sys::create(&shell.modules, &path),
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
        Place::Device(name) if name.is_empty() => Ok(device::names(&shell.modules)),
        Place::Proc(name) if name.is_empty() => Ok(proc::names(shell)),
        Place::Host => shell.system.list(path),
        Place::Sys(name) => {
            Ok(sys::names(&shell.modules, &name)?.unwrap_or_else(|| Vec::from([path.into()])))
        }
        Place::Device(_) | Place::Proc(_) => open(shell, path).map(|_| Vec::from([path.into()])),
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
    let mut buffer = alloc::vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        go_on(system)?;
        match source.read(&mut buffer)? {
            0 => return Ok(bytes),
            count => {
                sink.write(&buffer[..count])?;
                bytes += count as u64;
            }
        }
    }
}

/// A text that is made when the file is opened, as a stream.
struct Text {
    text: String,
    at: usize,
}

impl Source for Text {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, String> {
        let left = &self.text.as_bytes()[self.at..];
        let count = left.len().min(out.len());
        out[..count].copy_from_slice(&left[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_resolved_before_it_is_decided_whose_it_is() {
        for path in ["/dev/zero", "//dev/zero", "/dev//zero/", "/./dev/./zero", "/../dev/zero"] {
            assert_eq!(place(path), Place::Device("zero".into()), "{path}");
        }
        for path in ["/proc/a", "//proc/a", "/dev/../proc/a", "/tmp/../proc/a", "/proc/b/../a"] {
            assert_eq!(place(path), Place::Proc("a".into()), "{path}");
        }
        for path in ["/sys/a", "//sys/a", "/dev/../sys/./a"] {
            assert_eq!(place(path), Place::Sys("a".into()), "{path}");
        }
        for path in ["/dev", "/dev/", "//dev/.", "/dev/zero/.."] {
            assert_eq!(place(path), Place::Device(String::new()), "{path}");
        }
        assert_eq!(place("/dev/a/b"), Place::Device("a/b".into()));
        for path in
            ["", "/", "/tmp/dev", "dev/zero", "../proc/a", "/dev/../tmp/f", "/devices", "/dev/.."]
        {
            assert_eq!(place(path), Place::Host, "{path}");
        }
    }
}
