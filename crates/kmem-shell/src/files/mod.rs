//! Paths as streams: devices, `/proc` files, files of the host.

mod device;
mod modules;
mod proc;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{Shell, Sink, Source, System};

pub(crate) use modules::Modules;

/// How many bytes are copied or compared at a time.
pub(crate) const CHUNK: usize = 64 << 10;

/// Where a path leads.
enum Place<'p> {
    Device(&'p str),
    Proc(&'p str),
    Host(&'p str),
}

fn place(path: &str) -> Place<'_> {
    if let Some(name) = path.strip_prefix("/dev/") {
        Place::Device(name)
    } else if let Some(name) = path.strip_prefix("/proc/") {
        Place::Proc(name)
    } else {
        Place::Host(path)
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
    match place(path) {
        Place::Device(name) => device::open(&shell.modules, name),
        Place::Proc(name) => proc::open(shell, name),
        Place::Host(path) => shell.system.open(path).map(|source| source as Box<dyn Source>),
    }
}

/// Whether two paths lead to one file: to write to the one would empty the other.
pub(crate) fn same<S: System>(shell: &Shell<'_, S>, one: &str, other: &str) -> bool {
    match (place(one), place(other)) {
        (Place::Host(one), Place::Host(other)) => shell.system.same_file(one, other),
        _ => one == other,
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
    match place(path) {
        Place::Device(name) => device::create(&shell.modules, name),
        Place::Proc(name) => Err(format!("/proc/{name} cannot be written")),
        Place::Host(path) => shell.system.create(path).map(|sink| sink as Box<dyn Sink>),
    }
}

/// The names at `path`: those in a directory, or `path` itself where it is none.
///
/// # Errors
///
/// There is no such thing.
pub(crate) fn list<S: System>(shell: &Shell<'_, S>, path: &str) -> Result<Vec<String>, String> {
    match path.trim_end_matches('/') {
        "/dev" => return Ok(device::names(&shell.modules)),
        "/proc" => return Ok(proc::names(shell)),
        _ => {}
    }
    match place(path) {
        Place::Host(path) => shell.system.list(path),
        Place::Device(_) | Place::Proc(_) => open(shell, path).map(|_| Vec::from([path.into()])),
    }
}

/// Copies all bytes from one stream to another and answers how many there were.
///
/// # Errors
///
/// Those of either.
pub(crate) fn copy(source: &mut dyn Source, sink: &mut dyn Sink) -> Result<u64, String> {
    let mut buffer = alloc::vec![0; CHUNK];
    let mut bytes = 0;
    loop {
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
