//! The files in `/dev`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::error::{ENOENT, FileError};
use super::modules::{Loaded, Modules, kinds};
use super::tree::Node;
use crate::System;

/// The names in `/dev`.
pub(super) fn names(modules: &Modules<'_>) -> Vec<String> {
    let all = modules.all();
    let numbered = all.iter().flat_map(|(module, _)| {
        let name = module.kind().name;
        (0..module.parameters().devices).map(move |number| format!("{name}{number}"))
    });
    let mut names: Vec<_> =
        ["null", "zero"].map(String::from).into_iter().chain(numbered).collect();
    // By name, and of one module by number.
    names.sort_by(|one, other| split(one).cmp(&split(other)));
    names
}

/// A device's name as that of its module and its number, if it ends with one.
fn split(name: &str) -> (&str, Option<u64>) {
    let module = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (module, name[module.len()..].parse().ok())
}

/// What has that name in `/dev`.
pub(super) fn find<'m, S: System>(
    modules: &Modules<'m>,
    name: &str,
) -> Result<Node<'m, S>, FileError> {
    match name {
        "null" => Ok(Node::Null),
        "zero" => Ok(Node::Zero),
        _ => scull::<S>(modules, name).map(Node::Device),
    }
}

/// A device of a scull module.
#[derive(Clone)]
pub(crate) struct Scull<'m> {
    pub(crate) module: Loaded<'m>,
    pub(crate) number: u64,
}

/// The device of that name.
pub(super) fn scull<'m, S: System>(
    modules: &Modules<'m>,
    name: &str,
) -> Result<Scull<'m>, FileError> {
    let missing =
        || FileError::new(ENOENT, format!("there is no device /dev/{name}; `ls /dev` lists them"));
    let (prefix, number) = split(name);
    let kind = kinds::<S>().find(|kind| kind.name == prefix).ok_or_else(missing)?;
    // A number can be written in many ways, `00` among them; a name in one.
    let number = number.filter(|number| name == format!("{prefix}{number}"));
    let number = number.ok_or_else(missing)?;
    let module = modules.find(kind.name).ok_or_else(|| {
        let message = format!("/dev/{name} needs the module {prefix}: `insmod {prefix}` first");
        FileError::new(ENOENT, message)
    })?;
    // It may lie beyond its module's last.
    module.size(number).map_err(|error| FileError::of(&error, format_args!("/dev/{name}")))?;
    Ok(Scull { module, number })
}

impl Scull<'_> {
    /// Fills `out`, up to the end of the device.
    pub(super) fn read_at(&self, position: u64, out: &mut [u8]) -> Result<usize, FileError> {
        let mut done = 0;
        while done < out.len() {
            // One read goes to the end of a quantum at most.
            let at = position + done as u64;
            match self.module.read(self.number, at, &mut out[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) => return Err(self.explain(error, at)),
            }
        }
        Ok(done)
    }

    /// Writes as much as there is memory for; an error if that is nothing.
    pub(super) fn write_at(&self, position: u64, data: &[u8]) -> Result<usize, FileError> {
        self.write(data, position, |at, data| self.module.write(self.number, at, data))
    }

    /// [`Scull::write_at`] at the end, wherever it is now.
    pub(super) fn append(&self, data: &[u8]) -> Result<usize, FileError> {
        let end = self.size()?;
        self.write(data, end, |_, data| self.module.append(self.number, data))
    }

    fn write(
        &self,
        data: &[u8],
        position: u64,
        piece: impl Fn(u64, &[u8]) -> Result<usize, scull::ScullError>,
    ) -> Result<usize, FileError> {
        let mut done = 0;
        while done < data.len() {
            // One write goes to the end of a quantum at most.
            let at = position.saturating_add(done as u64);
            match piece(at, &data[done..]) {
                Ok(count) => done += count,
                // What is there is there: who has more asks again, and is told then.
                Err(_) if done > 0 => break,
                Err(error) => return Err(self.explain(error, at)),
            }
        }
        Ok(done)
    }

    pub(super) fn size(&self) -> Result<u64, FileError> {
        self.module.size(self.number).map_err(|error| self.explain(error, 0))
    }

    pub(super) fn explain(&self, error: scull::ScullError, position: u64) -> FileError {
        let name = self.module.kind().name;
        FileError::of(&error, format_args!("/dev/{name}{} at byte {position}", self.number))
    }
}
