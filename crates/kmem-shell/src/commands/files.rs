//! Copying, showing and comparing files. They are streamed: none is held whole.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use super::{Command, exactly, print, usage, word};
use crate::files::{CHUNK, copy, create, list, open, same};
use crate::{Failure, Shell, Sink, Source, System, go_on};

pub(super) const fn cp<S: System>() -> Command<S> {
    Command {
        name: "cp",
        usage: "cp FROM TO",
        about: "copy a file or a device; TO is emptied first",
        example: "cp /etc/services /dev/scullp0",
        run: run_cp,
    }
}

fn run_cp<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    _: &mut dyn Sink,
) -> Result<(), Failure> {
    let [from, to] = exactly(&cp::<S>(), arguments)?;
    if same(shell, from, to) {
        return Err(Failure::Failed(format!("{from} and {to} are the same file")));
    }
    let mut source = open(shell, from)?;
    let mut sink = create(shell, to)?;
    copy(shell.system, &mut *source, &mut *sink)?;
    Ok(sink.finish()?)
}

pub(super) const fn cat<S: System>() -> Command<S> {
    Command {
        name: "cat",
        usage: "cat FILE...",
        about: "show files",
        example: "cat /proc/buddyinfo",
        run: run_cat,
    }
}

fn run_cat<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    if arguments.is_empty() {
        return Err(usage(&cat::<S>()));
    }
    for path in arguments {
        copy(shell.system, &mut *open(shell, path)?, out)?;
    }
    Ok(())
}

pub(super) const fn head<S: System>() -> Command<S> {
    Command {
        name: "head",
        usage: "head [-N] FILE",
        about: "show the first N lines, 10 if N is not given",
        example: "head -5 /proc/scullpmem",
        run: run_head,
    }
}

fn run_head<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let (mut lines, path): (u64, _) = match arguments {
        [path] => (10, path),
        [flag, lines, path] if flag == "-n" => {
            (word(lines, "number of lines: give one such as 5")?, path)
        }
        [flag, path] if flag.starts_with('-') => {
            (word(&flag[1..], "number of lines: give one such as -5")?, path)
        }
        _ => return Err(usage(&head::<S>())),
    };
    let mut source = open(shell, path)?;
    let mut buffer = alloc::vec![0; CHUNK];
    while lines > 0 {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let mut end = 0;
        for line in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            end += line.len();
            lines -= u64::from(line.ends_with(b"\n"));
            if lines == 0 {
                break;
            }
        }
        out.write(&buffer[..end])?;
    }
    Ok(())
}

pub(super) const fn cmp<S: System>() -> Command<S> {
    Command {
        name: "cmp",
        usage: "cmp FILE FILE",
        about: "compare two files byte by byte; says nothing if they are equal",
        example: "cmp /etc/services /dev/scullp0",
        run: run_cmp,
    }
}

fn run_cmp<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    _: &mut dyn Sink,
) -> Result<(), Failure> {
    let [a, b] = exactly(&cmp::<S>(), arguments)?;
    let mut sides = [Side::open(shell, a)?, Side::open(shell, b)?];
    // Bytes and lines count from 1, as in cmp(1).
    let (mut byte, mut line) = (1u64, 1u64);
    let total = sides.iter().filter_map(|side| side.source.size()).min();
    loop {
        go_on(shell.system)?;
        if let Some(total) = total {
            shell.system.progress("bytes", byte - 1, total);
        }
        let [left, right] = &mut sides;
        let (x, y) = (left.bytes()?, right.bytes()?);
        let count = x.len().min(y.len());
        if count == 0 {
            let shorter = match (x.is_empty(), y.is_empty()) {
                (true, true) => return Ok(()),
                (true, false) => a,
                _ => b,
            };
            let read = byte - 1;
            return Err(Failure::Failed(format!("EOF on {shorter} after byte {read}")));
        }
        if let Some(at) = x[..count].iter().zip(&y[..count]).position(|(x, y)| x != y) {
            byte += at as u64;
            line += lines(&x[..at]);
            return Err(Failure::Failed(format!("{a} {b} differ: byte {byte}, line {line}")));
        }
        byte += count as u64;
        line += lines(&x[..count]);
        left.at += count;
        right.at += count;
    }
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// One of two streams that are compared: each gives as many bytes at a time as it likes.
struct Side<'m> {
    source: Box<dyn Source + 'm>,
    buffer: alloc::vec::Vec<u8>,
    at: usize,
    filled: usize,
}

impl<'m> Side<'m> {
    fn open<S: System>(shell: &Shell<'m, S>, path: &str) -> Result<Self, String> {
        let source = open(shell, path)?;
        Ok(Side { source, buffer: alloc::vec![0; CHUNK], at: 0, filled: 0 })
    }

    /// The bytes that were read and not yet compared; none at the end of the file.
    fn bytes(&mut self) -> Result<&[u8], String> {
        if self.at == self.filled {
            self.at = 0;
            self.filled = self.source.read(&mut self.buffer)?;
        }
        Ok(&self.buffer[self.at..self.filled])
    }
}

pub(super) const fn ls<S: System>() -> Command<S> {
    Command {
        name: "ls",
        usage: "ls PATH...",
        about: "list a directory: /dev, /proc, or one of the host",
        example: "ls /dev",
        run: run_ls,
    }
}

fn run_ls<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    if arguments.is_empty() {
        return Err(usage(&ls::<S>()));
    }
    for path in arguments {
        for name in list(shell, path)? {
            print(out, format_args!("{name}\n"))?;
        }
    }
    Ok(())
}
