//! The files in `/dev`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use scull::Mode;

use super::modules::{MachineScullp, Modules};
use crate::{Sink, Source, System};

/// The names in `/dev`.
pub(super) fn names<S: System>(modules: &Modules<'_, S>) -> Vec<String> {
    let devices = modules.scullp().map_or(0, |module| module.parameters().devices);
    ["null", "zero"]
        .map(String::from)
        .into_iter()
        .chain((0..devices).map(|number| format!("scullp{number}")))
        .collect()
}

pub(super) fn open<'m, S: System>(
    modules: &Modules<'m, S>,
    name: &str,
) -> Result<Box<dyn Source + 'm>, String> {
    match name {
        "null" => Ok(Box::new(Null)),
        "zero" => Ok(Box::new(Zero)),
        _ => Ok(Box::new(Scull::find(modules, name, Mode::Read)?)),
    }
}

pub(super) fn create<'m, S: System>(
    modules: &Modules<'m, S>,
    name: &str,
) -> Result<Box<dyn Sink + 'm>, String> {
    match name {
        "null" | "zero" => Ok(Box::new(Null)),
        _ => Ok(Box::new(Scull::find(modules, name, Mode::Write)?)),
    }
}

/// Is empty, and forgets what is written.
struct Null;

impl Source for Null {
    fn read(&mut self, _: &mut [u8]) -> Result<usize, String> {
        Ok(0)
    }
}

impl Sink for Null {
    fn write(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// Has zeroes without end.
struct Zero;

impl Source for Zero {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, String> {
        out.fill(0);
        Ok(out.len())
    }
}

/// A scullp device, and a position in it.
struct Scull<'m, S: System> {
    module: Arc<MachineScullp<'m, S>>,
    number: u32,
    position: u64,
}

impl<'m, S: System> Scull<'m, S> {
    /// Finds the device and opens it once, so that writing alone trims it.
    fn find(modules: &Modules<'m, S>, name: &str, mode: Mode) -> Result<Self, String> {
        let missing = || format!("there is no device /dev/{name}; `ls /dev` lists them");
        let number = name.strip_prefix("scullp").and_then(|number| number.parse().ok());
        // A number can be written in many ways, `+0` and `00` among them; a name in one.
        let number = number.filter(|number: &u32| name == format!("scullp{number}"));
        let number = number.ok_or_else(missing)?;
        let module = modules
            .scullp()
            .ok_or_else(|| format!("/dev/{name} needs the module scullp: `insmod scullp` first"))?;
        module.open(number, mode).map_err(|error| format!("/dev/{name}: {error}"))?;
        Ok(Scull { module: module.clone(), number, position: 0 })
    }

    fn explain(&self, error: scull::ScullError) -> String {
        format!("/dev/scullp{} at byte {}: {error}", self.number, self.position)
    }
}

impl<S: System> Source for Scull<'_, S> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, String> {
        let mut file =
            self.module.open(self.number, Mode::Read).map_err(|error| self.explain(error))?;
        file.seek(self.position);
        let count = file.read(out).map_err(|error| self.explain(error))?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<S: System> Sink for Scull<'_, S> {
    fn write(&mut self, mut data: &[u8]) -> Result<(), String> {
        let mut file =
            self.module.open(self.number, Mode::ReadWrite).map_err(|error| self.explain(error))?;
        file.seek(self.position);
        // One write goes to the end of a quantum at most.
        while !data.is_empty() {
            let count = file.write(data).map_err(|error| self.explain(error))?;
            self.position += count as u64;
            data = &data[count..];
        }
        Ok(())
    }
}
