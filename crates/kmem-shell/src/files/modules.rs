//! The modules that are loaded.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use scull::{Parameters, Scullp};

use crate::System;

/// The scullp of a machine.
pub(crate) type MachineScullp<'m, S> = Scullp<'m, <S as System>::Platform, <S as System>::Reclaim>;

/// What is loaded. A file that is open on a module's device shares the module, so it cannot go
/// away below it.
pub(crate) struct Modules<'m, S: System> {
    scullp: Option<Arc<MachineScullp<'m, S>>>,
}

impl<'m, S: System> Modules<'m, S> {
    pub(crate) const fn new() -> Self {
        Modules { scullp: None }
    }

    pub(crate) fn scullp(&self) -> Option<&Arc<MachineScullp<'m, S>>> {
        self.scullp.as_ref()
    }

    /// Loads a module with parameters of the form `order=2`.
    pub(crate) fn load(
        &mut self,
        system: &'m S,
        name: &str,
        settings: &[String],
    ) -> Result<(), String> {
        known(name)?;
        if self.scullp.is_some() {
            return Err(format!("{name} is loaded already; `rmmod {name}` unloads it"));
        }
        let mut parameters = Parameters::DEFAULT;
        for setting in settings {
            set(&mut parameters, setting)?;
        }
        let module = Scullp::load(system.mm(), parameters).map_err(|e| format!("{name}: {e}"))?;
        self.scullp = Some(Arc::new(module));
        Ok(())
    }

    /// Unloads a module; its memory goes back.
    pub(crate) fn unload(&mut self, name: &str) -> Result<(), String> {
        known(name)?;
        match self.scullp.take() {
            None => Err(format!("{name} is not loaded; `lsmod` lists what is")),
            Some(module) => match Arc::try_unwrap(module) {
                Ok(module) => {
                    drop(module);
                    Ok(())
                }
                Err(shared) => {
                    self.scullp = Some(shared);
                    Err(format!("{name} is in use: a file is open on one of its devices"))
                }
            },
        }
    }

    pub(crate) fn unload_all(&mut self) {
        self.scullp = None;
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
        self.scullp.iter().try_for_each(|module| {
            let (address, bytes) = module.table_memory();
            row(MachineScullp::<S>::NAME, bytes, Arc::strong_count(module) - 1, address)
        })
    }
}

fn known(name: &str) -> Result<(), String> {
    match name {
        "scullp" => Ok(()),
        _ => Err(format!("there is no module {name}; there is scullp")),
    }
}

fn set(parameters: &mut Parameters, setting: &str) -> Result<(), String> {
    let explain =
        || format!("{setting} is no parameter of scullp; give devices=N, order=N or qset=N");
    let (key, value) = setting.split_once('=').ok_or_else(explain)?;
    if !matches!(key, "devices" | "order" | "qset") {
        return Err(explain());
    }
    let value = value.parse().map_err(|_| format!("{setting} is out of range: give a number"))?;
    match key {
        "devices" => parameters.devices = value,
        "order" => parameters.order = value,
        "qset" => parameters.qset = value,
        _ => return Err(explain()),
    }
    Ok(())
}
