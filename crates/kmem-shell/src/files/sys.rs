//! The files in `/sys`: what parameters the loaded modules have, `/sys/module/scull/parameters/qset`, and how
//! much of what is free lies in pieces, `/sys/kernel/debug/extfrag/unusable_index`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kmem::report;
use scull::ScullError;

use super::Text;
use super::modules::{Loaded, Modules, number};
use crate::{Shell, Sink, Source, System};

/// The longest text that is a number: 2^64 has 20 digits, and a line end may follow.
const LONGEST: usize = 24;

/// What a path below `/sys` leads to.
enum Node<'a, 'm> {
    /// A directory, and what is in it.
    Directory(Vec<&'static str>),
    /// A parameter of a module, by its name, and its value.
    Parameter(&'a Loaded<'m>, &'static str, u64),
    /// The shares of free memory that are in too small pieces.
    UnusableIndex,
}

/// The directories on the way to a file, and the file.
const UNUSABLE_INDEX: [&str; 4] = ["kernel", "debug", "extfrag", "unusable_index"];

fn find<'a, 'm>(modules: &'a Modules<'m>, path: &str) -> Result<Node<'a, 'm>, String> {
    let missing = || {
        format!(
            "there is no /sys/{path}; `ls /sys` lists what there is, `ls /sys/module` the loaded modules"
        )
    };
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let (module, rest) = match names[..] {
        [] => return Ok(Node::Directory(Vec::from(["kernel", "module"]))),
        ["module"] => {
            return Ok(Node::Directory(modules.iter().map(|module| module.kind().name).collect()));
        }
        ["module", name, ref rest @ ..] => (modules.find(name).ok_or_else(missing)?, rest),
        ref names => {
            let (way, file) = (&UNUSABLE_INDEX[..], Node::UnusableIndex);
            if !way.starts_with(names) {
                return Err(missing());
            }
            return Ok(way
                .get(names.len())
                .map_or(file, |next| Node::Directory(Vec::from([*next]))));
        }
    };
    let mut parameters = module.parameters().named(module.kind()).into_iter();
    match rest {
        [] => Ok(Node::Directory(Vec::from(["parameters"]))),
        ["parameters"] => Ok(Node::Directory(parameters.map(|(name, _)| name).collect())),
        ["parameters", wanted] => {
            let (name, value) = parameters.find(|(name, _)| name == wanted).ok_or_else(missing)?;
            Ok(Node::Parameter(module, name, value))
        }
        _ => Err(missing()),
    }
}

/// The names in a directory; none where the path is a file's.
pub(super) fn names(modules: &Modules<'_>, path: &str) -> Result<Option<Vec<String>>, String> {
    Ok(match find(modules, path)? {
        Node::Directory(names) => Some(names.into_iter().map(String::from).collect()),
        Node::Parameter(..) | Node::UnusableIndex => None,
    })
}

/// The text as it is now: what changes later is not in it.
pub(super) fn open<'m, S: System>(
    shell: &Shell<'m, S>,
    path: &str,
) -> Result<Box<dyn Source + 'm>, String> {
    let text = match find(&shell.modules, path)? {
        Node::Directory(_) => return Err(format!("/sys/{path} is a directory: give a file")),
        Node::Parameter(_, _, value) => format!("{value}\n"),
        Node::UnusableIndex => {
            let mut text = String::new();
            report::unusable_index(shell.system.mm(), &mut text)
                .map_err(|_| format!("/sys/{path} could not be written"))?;
            text
        }
    };
    Ok(Box::new(Text { text, at: 0 }))
}

pub(super) fn create<'m>(modules: &Modules<'m>, path: &str) -> Result<Box<dyn Sink + 'm>, String> {
    let (module, name) = match find(modules, path)? {
        Node::Parameter(module, name, _) => (module, name),
        Node::Directory(_) => return Err(format!("/sys/{path} is a directory: give a file")),
        Node::UnusableIndex => return Err(format!("/sys/{path} cannot be written")),
    };
    let kind = module.kind();
    if !kind.may_change(name) {
        let error = ScullError::ReadOnly { module: kind.name, name };
        return Err(format!("/sys/{path}: {error}"));
    }
    Ok(Box::new(Change { module: module.clone(), name, path: path.into(), text: Vec::new() }))
}

/// A parameter that is being written: it changes when all is there.
struct Change<'m> {
    module: Loaded<'m>,
    name: &'static str,
    path: String,
    text: Vec<u8>,
}

impl Sink for Change<'_> {
    fn write(&mut self, data: &[u8]) -> Result<(), String> {
        if self.text.len() + data.len() > LONGEST {
            return Err(format!("/sys/{}: too much for a number", self.path));
        }
        self.text.extend_from_slice(data);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        let explain = |error: String| format!("/sys/{}: {error}", self.path);
        let text = String::from_utf8_lossy(&self.text);
        let text = text.trim();
        let value = number(&format!("'{text}'"), text).map_err(explain)?;
        self.module.set(self.name, value).map_err(|error| explain(format!("{error}")))
    }
}
