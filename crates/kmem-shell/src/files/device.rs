//! The files in `/dev`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::modules::{Loaded, Modules, kinds};
use crate::{Sink, Source, System};

/// The names in `/dev`.
pub(super) fn names(modules: &Modules<'_>) -> Vec<String> {
    let numbered = modules.iter().flat_map(|module| {
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

pub(super) fn open<'m, S: System>(
    modules: &Modules<'m>,
    name: &str,
) -> Result<Box<dyn Source + 'm>, String> {
    match name {
        "null" => Ok(Box::new(Null)),
        "zero" => Ok(Box::new(Zero)),
        _ => {
            let device = Scull::find::<S>(modules, name)?;
            // Reading nothing tells whether it is there.
            device
                .module
                .read(device.number, 0, &mut [])
                .map_err(|e| format!("/dev/{name}: {e}"))?;
            Ok(Box::new(device))
        }
    }
}

pub(super) fn create<'m, S: System>(
    modules: &Modules<'m>,
    name: &str,
) -> Result<Box<dyn Sink + 'm>, String> {
    match name {
        "null" | "zero" => Ok(Box::new(Null)),
        _ => {
            let device = Scull::find::<S>(modules, name)?;
            device.module.trim(device.number).map_err(|error| format!("/dev/{name}: {error}"))?;
            Ok(Box::new(device))
        }
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

/// A device of a scull module, and a position in it.
struct Scull<'m> {
    module: Loaded<'m>,
    number: u64,
    position: u64,
}

/// The module and the number of the device of that name.
pub(super) fn device<'m, S: System>(
    modules: &Modules<'m>,
    name: &str,
) -> Result<(Loaded<'m>, u64), String> {
    Scull::find::<S>(modules, name).map(|device| (device.module, device.number))
}

impl<'m> Scull<'m> {
    /// The device of that name, which may lie beyond its module's last.
    fn find<S: System>(modules: &Modules<'m>, name: &str) -> Result<Self, String> {
        let missing = || format!("there is no device /dev/{name}; `ls /dev` lists them");
        let (prefix, number) = split(name);
        let kind = kinds::<S>().find(|kind| kind.name == prefix).ok_or_else(missing)?;
        // A number can be written in many ways, `00` among them; a name in one.
        let number = number.filter(|number| name == format!("{prefix}{number}"));
        let number = number.ok_or_else(missing)?;
        let module = modules.find(kind.name).ok_or_else(|| {
            format!("/dev/{name} needs the module {prefix}: `insmod {prefix}` first")
        })?;
        Ok(Scull { module: module.clone(), number, position: 0 })
    }

    fn explain(&self, error: scull::ScullError) -> String {
        let name = self.module.kind().name;
        format!("/dev/{name}{} at byte {}: {error}", self.number, self.position)
    }
}

impl Source for Scull<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, String> {
        let read = self.module.read(self.number, self.position, out);
        let count = read.map_err(|error| self.explain(error))?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Sink for Scull<'_> {
    fn write(&mut self, mut data: &[u8]) -> Result<(), String> {
        // One write goes to the end of a quantum at most.
        while !data.is_empty() {
            let written = self.module.write(self.number, self.position, data);
            let count = written.map_err(|error| self.explain(error))?;
            self.position += count as u64;
            data = &data[count..];
        }
        Ok(())
    }
}
