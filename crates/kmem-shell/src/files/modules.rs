//! The modules that are loaded.
//!
//! Several use the table at a time: the shell, and who serves its files to others. Its lock is held to look,
//! to put in and to take out; a module is loaded and unloaded outside of it, since that allocates and frees.
//!
//! # Invariant
//!
//! A module is shared by the table and by what is done with one of its files. Who shares it got it out of
//! the table, under the lock; so one that the table alone has is nobody's when it is taken out.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use kmem::{CacheError, Mm};
use scull::{Areas, Driver, Kind, Kmalloc, Module, Pages, Parameters, ScullError, SlabCache};
use spin::Mutex;

use super::leaks::leaks;
use crate::commands::did_you_mean;
use crate::{Failure, System};

/// A loaded module, which a file that is open on one of its devices shares.
pub(crate) type Loaded<'m> = Arc<dyn Driver + 'm>;

/// What is loaded, the latest first, as Linux lists it.
pub(crate) struct Modules<'m> {
    /// Has room for all that there are: it does not allocate while it is locked.
    loaded: Mutex<Vec<Loaded<'m>>>,
}

/// What loads a module.
type Load<'m, S> = fn(
    &'m Mm<<S as System>::Platform, <S as System>::Reclaim>,
    Parameters,
) -> Result<Loaded<'m>, ScullError>;

/// How many modules there are, loaded or not.
const AVAILABLE: usize = 4;

/// How often it is looked whether a module is in use before that is believed, and how long is waited in
/// between. Who looks at a file has its module for a moment; and a file of the host's is closed by the
/// kernel a moment after the program that had it open has ended.
const LOOKS: u32 = 20;
const NANOSECONDS_BETWEEN: u64 = 10_000_000;

/// The modules that there are.
fn available<'m, S: System>() -> [(&'static Kind, Load<'m, S>); AVAILABLE] {
    fn of<'m, S: System, Q: scull::Source>() -> (&'static Kind, Load<'m, S>) {
        (const { &Q::KIND }, |mm, parameters| {
            Ok(Arc::new(Module::<Q, _, _>::load(mm, parameters)?))
        })
    }
    [of::<S, Kmalloc>(), of::<S, SlabCache>(), of::<S, Pages>(), of::<S, Areas>()]
}

impl<'m> Modules<'m> {
    pub(crate) fn new() -> Self {
        Modules { loaded: Mutex::new(Vec::with_capacity(AVAILABLE)) }
    }

    /// A module, if it is loaded. It stays so while the answer is there.
    pub(crate) fn find(&self, name: &str) -> Option<Loaded<'m>> {
        self.loaded.lock().iter().find(|module| module.kind().name == name).cloned()
    }

    /// The kinds of those that are loaded.
    pub(crate) fn kinds(&self) -> Vec<&'static Kind> {
        let mut kinds = Vec::with_capacity(AVAILABLE);
        kinds.extend(self.loaded.lock().iter().map(|module| module.kind()));
        kinds
    }

    /// All that are loaded, and how many have each beside the table and the answer.
    pub(crate) fn all(&self) -> Vec<(Loaded<'m>, usize)> {
        let mut all = Vec::with_capacity(AVAILABLE);
        let users = |module: &Loaded<'m>| (module.clone(), Arc::strong_count(module) - 2);
        all.extend(self.loaded.lock().iter().map(users));
        all
    }

    /// Loads a module with parameters of the form `order=2`.
    pub(crate) fn load<S: System>(
        &self,
        system: &'m S,
        name: &str,
        settings: &[String],
    ) -> Result<(), Failure> {
        let (kind, load) = known::<S>(name)?;
        let twice = || {
            let message = format!("{name} is loaded already; `rmmod {name}` unloads it");
            Err(Failure::Failed(message))
        };
        if self.find(name).is_some() {
            return twice();
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
        let mut loaded = self.loaded.lock();
        if loaded.iter().any(|other| other.kind().name == name) {
            // Somebody else was faster; this one goes when the lock has been let go.
            drop(loaded);
            return twice();
        }
        loaded.insert(0, module);
        Ok(())
    }

    /// Unloads a module; its memory goes back. The lists of what is loaded have it no more from then on.
    ///
    /// A module that leaves something behind is told of, with who allocated it, if no other is loaded
    /// whose it could be (A162).
    pub(crate) fn unload<S: System>(&self, system: &S, name: &str) -> Result<(), Failure> {
        known::<S>(name)?;
        let module = self.take_out(system, name)?;
        drop(module);
        let others = !self.loaded.lock().is_empty();
        let left = if others { None } else { leaks(system.mm(), scull::SOURCE) };
        left.map_or(Ok(()), |left| {
            Err(Failure::Failed(format!("{name} is unloaded and has leaked: {left}")))
        })
    }

    /// Takes a module out of the table that nobody else has.
    fn take_out<S: System>(&self, system: &S, name: &str) -> Result<Loaded<'m>, Failure> {
        for look in 1.. {
            let mut loaded = self.loaded.lock();
            let at = loaded.iter().position(|module| module.kind().name == name);
            let at = at.ok_or_else(|| format!("{name} is not loaded; `lsmod` lists what is"))?;
            if Arc::strong_count(&loaded[at]) == 1 {
                return Ok(loaded.remove(at));
            }
            drop(loaded);
            if look == LOOKS {
                break;
            }
            system.sleep(NANOSECONDS_BETWEEN);
        }
        let message = format!("{name} is in use: a file is open on one of its devices");
        Err(Failure::Failed(message))
    }

    pub(crate) fn unload_all(&self) {
        let none = Vec::with_capacity(AVAILABLE);
        let all = core::mem::replace(&mut *self.loaded.lock(), none);
        drop(all);
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
        self.all().iter().try_for_each(|(module, users)| {
            let (address, bytes) = module.table_memory();
            row(module.kind().name, bytes, *users, address)
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
        let meant = did_you_mean(name, names.iter().copied());
        let names = names.join(", ");
        let name = if name.is_empty() { "''" } else { name };
        Failure::Usage(format!("there is no module {name}{meant}; there are {names}"))
    })
}

fn set(kind: &Kind, parameters: &mut Parameters, setting: &str) -> Result<(), Failure> {
    let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
    let place = parameters.by_name(kind, name).filter(|_| setting.contains('='));
    let place = place.ok_or_else(|| {
        let names = kind.defaults.named(kind).map(|(name, _)| name);
        // Of one that there is only the value is missing.
        let meant = if setting == name && names.contains(&name) {
            format!(" without a value: write {name}=N")
        } else {
            did_you_mean(name, names)
        };
        let names = names.map(|name| format!("{name}=N")).join(", ");
        Failure::Usage(format!("{setting} is no parameter of {}{meant}; give {names}", kind.name))
    })?;
    *place = number(setting, value, *place).map_err(Failure::Usage)?;
    Ok(())
}

/// Reads a parameter's value; `written` is how it was given, and `now` what the parameter has.
pub(super) fn number(written: &str, value: &str, now: u64) -> Result<u64, String> {
    value.parse().map_err(|_| format!("{written} is out of range: give a number such as {now}"))
}
