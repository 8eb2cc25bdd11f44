//! The modules that are loaded.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use kmem::{CacheError, Mm};
use scull::{Areas, Driver, Kind, Kmalloc, Module, Pages, Parameters, ScullError, SlabCache};

use super::leaks::leaks;
use crate::{Failure, System};

/// A loaded module, which a file that is open on one of its devices shares.
pub(crate) type Loaded<'m> = Arc<dyn Driver + 'm>;

/// What is loaded, the latest first, as Linux lists it.
pub(crate) struct Modules<'m> {
    loaded: Vec<Loaded<'m>>,
}

/// What loads a module.
type Load<'m, S> = fn(
    &'m Mm<<S as System>::Platform, <S as System>::Reclaim>,
    Parameters,
) -> Result<Loaded<'m>, ScullError>;

/// The modules that there are, loaded or not.
fn available<'m, S: System>() -> [(&'static Kind, Load<'m, S>); 4] {
    fn of<'m, S: System, Q: scull::Source>() -> (&'static Kind, Load<'m, S>) {
        (const { &Q::KIND }, |mm, parameters| {
            Ok(Arc::new(Module::<Q, _, _>::load(mm, parameters)?))
        })
    }
    [of::<S, Kmalloc>(), of::<S, SlabCache>(), of::<S, Pages>(), of::<S, Areas>()]
}

impl<'m> Modules<'m> {
    pub(crate) const fn new() -> Self {
        Modules { loaded: Vec::new() }
    }

    /// A module, if it is loaded.
    pub(crate) fn find(&self, name: &str) -> Option<&Loaded<'m>> {
        self.loaded.iter().find(|module| module.kind().name == name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Loaded<'m>> {
        self.loaded.iter()
    }

    /// Loads a module with parameters of the form `order=2`.
    pub(crate) fn load<S: System>(
        &mut self,
        system: &'m S,
        name: &str,
        settings: &[String],
    ) -> Result<(), Failure> {
        let (kind, load) = known::<S>(name)?;
        if self.find(name).is_some() {
            let message = format!("{name} is loaded already; `rmmod {name}` unloads it");
            return Err(Failure::Failed(message));
        }
        let mut parameters = kind.defaults;
        for setting in settings {
            set(kind, &mut parameters, setting)?;
        }
        let module = load(system.mm(), parameters).map_err(|error| {
            let message = format!("{name}: {error}");
            match error {
                ScullError::BadParameter { .. } | ScullError::NoCache(CacheError::Size { .. }) => {
                    Failure::Usage(message)
                }
                _ => Failure::Failed(message),
            }
        })?;
        self.loaded.insert(0, module);
        Ok(())
    }

    /// Unloads a module; its memory goes back.
    ///
    /// A module that leaves something behind is told of, with who allocated it, if no other is loaded
    /// whose it could be (A162).
    pub(crate) fn unload<S: System>(&mut self, system: &S, name: &str) -> Result<(), Failure> {
        known::<S>(name)?;
        let at = self.loaded.iter().position(|module| module.kind().name == name);
        let at = at.ok_or_else(|| format!("{name} is not loaded; `lsmod` lists what is"))?;
        if Arc::strong_count(&self.loaded[at]) > 1 {
            let message = format!("{name} is in use: a file is open on one of its devices");
            return Err(Failure::Failed(message));
        }
        self.loaded.remove(at);
        let left = if self.loaded.is_empty() { leaks(system.mm(), scull::SOURCE) } else { None };
        left.map_or(Ok(()), |left| {
            Err(Failure::Failed(format!("{name} is unloaded and has leaked: {left}")))
        })
    }

    pub(crate) fn unload_all(&mut self) {
        self.loaded.clear();
    }

    /// Writes `/proc/modules`, in Linux's columns: name, bytes of the module's own tables, how
    /// many files are open, who uses it, state, address of the tables.
    pub(crate) fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.each(|name, bytes, users, address| {
            writeln!(out, "{name} {bytes} {users} - Live {address:#018x}")
        })
    }

    /// Writes what `lsmod` shows.
    pub(crate) fn write_table(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "Module                  Size  Used by")?;
        self.each(|name, bytes, users, _| writeln!(out, "{name:<19} {bytes:>8}  {users}"))
    }

    fn each(&self, mut row: impl FnMut(&str, usize, usize, usize) -> fmt::Result) -> fmt::Result {
        self.loaded.iter().try_for_each(|module| {
            let (address, bytes) = module.table_memory();
            row(module.kind().name, bytes, Arc::strong_count(module) - 1, address)
        })
    }
}

/// The kinds of modules that there are.
pub(crate) fn kinds<S: System>() -> impl Iterator<Item = &'static Kind> {
    available::<S>().into_iter().map(|(kind, _)| kind)
}

fn known<'m, S: System>(name: &str) -> Result<(&'static Kind, Load<'m, S>), Failure> {
    available::<S>().into_iter().find(|(kind, _)| kind.name == name).ok_or_else(|| {
        let names: Vec<_> = kinds::<S>().map(|kind| kind.name).collect();
        Failure::Usage(format!("there is no module {name}; there are {}", names.join(", ")))
    })
}

fn set(kind: &Kind, parameters: &mut Parameters, setting: &str) -> Result<(), Failure> {
    let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
    let place = parameters.by_name(kind, name).filter(|_| setting.contains('='));
    let place = place.ok_or_else(|| {
        let names = kind.defaults.named(kind).map(|(name, _)| format!("{name}=N"));
        let message =
            format!("{setting} is no parameter of {}; give {}", kind.name, names.join(", "));
        Failure::Usage(message)
    })?;
    *place = number(setting, value).map_err(Failure::Usage)?;
    Ok(())
}

/// Reads a parameter's value; `written` is how it was given.
pub(super) fn number(written: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{written} is out of range: give a number"))
}
