//! The files in `/sys`: what parameters the loaded modules have, `/sys/module/scull/parameters/qset`, and how
//! much of what is free lies in pieces, `/sys/kernel/debug/extfrag/unusable_index`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kmem::report;
use scull::ScullError;

use super::error::{EINVAL, ENOENT, FileError};
use super::modules::{Loaded, Modules, number};
use super::proc::Proc;
use super::tree::Node;
use crate::System;

/// The longest text that is a number: 2^64 has 20 digits, and a line end may follow.
const LONGEST: usize = 24;

/// The directories on the way to a file, and the file.
const UNUSABLE_INDEX: [&str; 4] = ["kernel", "debug", "extfrag", "unusable_index"];

/// What names below `/sys` lead to.
pub(super) fn find<'m, S: System>(
    modules: &Modules<'m>,
    names: &[&str],
) -> Result<Node<'m, S>, FileError> {
    let missing = || {
        let path = names.join("/");
        let advice = "`ls /sys` lists what there is, `ls /sys/module` the loaded modules";
        FileError::new(ENOENT, format!("there is no /sys/{path}; {advice}"))
    };
    let directory = |names: Vec<&str>| Ok(Node::Directory(owned(names)));
    let (module, rest) = match *names {
        [] => return directory(Vec::from(["kernel", "module"])),
        ["module"] => {
            return directory(modules.kinds().into_iter().map(|kind| kind.name).collect());
        }
        ["module", name, ref rest @ ..] => (modules.find(name).ok_or_else(missing)?, rest),
        _ => {
            if !UNUSABLE_INDEX.starts_with(names) {
                return Err(missing());
            }
            return match UNUSABLE_INDEX.get(names.len()) {
                Some(next) => directory(Vec::from([*next])),
                None => Ok(Node::Proc(Proc::Report(report::unusable_index))),
            };
        }
    };
    let mut parameters = module.parameters().named(module.kind()).into_iter();
    match *rest {
        [] => directory(Vec::from(["parameters"])),
        ["parameters"] => directory(parameters.map(|(name, _)| name).collect()),
        ["parameters", wanted] => {
            let found = parameters.find(|(name, _)| *name == wanted);
            let (name, _) = found.ok_or_else(missing)?;
            Ok(Node::Setting(Setting { module, name }))
        }
        _ => Err(missing()),
    }
}

fn owned(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(String::from).collect()
}

/// A parameter of a module.
#[derive(Clone)]
pub(crate) struct Setting<'m> {
    module: Loaded<'m>,
    name: &'static str,
}

impl Setting<'_> {
    fn path(&self) -> String {
        format!("/sys/module/{}/parameters/{}", self.module.kind().name, self.name)
    }

    /// Whether it may be changed now.
    pub(super) fn may_change(&self) -> bool {
        self.module.kind().may_change(self.name)
    }

    /// Why it may not.
    pub(super) fn refusal(&self) -> FileError {
        let error = ScullError::ReadOnly { module: self.module.kind().name, name: self.name };
        FileError::of(&error, format_args!("{}", self.path()))
    }

    /// The value now.
    fn value(&self) -> u64 {
        let mut named = self.module.parameters().named(self.module.kind()).into_iter();
        named.find(|(name, _)| *name == self.name).map_or(0, |(_, value)| value)
    }

    /// The same as text.
    pub(super) fn text(&self) -> String {
        format!("{}\n", self.value())
    }

    /// Changes it to what a text says: each is a whole number.
    pub(super) fn store(&self, text: &[u8]) -> Result<(), FileError> {
        let wrong = |what: &str| FileError::new(EINVAL, format!("{}: {what}", self.path()));
        if text.len() > LONGEST {
            return Err(wrong("too much for a number"));
        }
        let text = String::from_utf8_lossy(text);
        let text = text.trim();
        let value = number(&format!("'{text}'"), text, self.value());
        let value = value.map_err(|message| wrong(&message))?;
        let changed = self.module.set(self.name, value);
        changed.map_err(|error| FileError::of(&error, format_args!("{}", self.path())))
    }
}
