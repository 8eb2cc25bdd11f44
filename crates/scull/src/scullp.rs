//! scullp: a scull whose quanta are whole pages (A310).

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use kmem::{Mm, Order, Platform, Reclaim};

use crate::ScullError;
use crate::lock::{Guard, Lock};
use crate::memory::Small;
use crate::store::Store;

/// How many devices can be loaded. The texts have four; nothing but the sense of it sets a bound.
const MOST_DEVICES: u32 = 256;

/// How many places a quantum set can have.
const LARGEST_QSET: u32 = 1 << 16;

/// What is set when the module is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// How many devices there are: scullp0, scullp1 and so on.
    pub devices: u32,
    /// A quantum has `2^order` pages: `scullp_order` of the texts (A310).
    pub order: u32,
    /// How many quanta a quantum set has.
    pub qset: u32,
}

impl Parameters {
    /// What the texts have: four devices, order 0, sets of 500.
    pub const DEFAULT: Parameters = Parameters { devices: 4, order: 0, qset: 500 };
}

impl Default for Parameters {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The loaded module. Dropping it unloads it: all its memory goes back.
///
/// Its calls may sleep: they are for tasks, not for interrupt handlers.
pub struct Scullp<'m, P: Platform, R: Reclaim> {
    mm: &'m Mm<P, R>,
    parameters: Parameters,
    /// `None` only while it is being dropped.
    devices: Option<Small<Device<'m, P, R>>>,
}

struct Device<'m, P, R> {
    store: Lock<Store<'m, P, R>>,
    open_files: AtomicU32,
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reading.
    Read,
    /// Writing: the device is trimmed to nothing first.
    Write,
    /// Both: what the device holds is kept.
    ReadWrite,
}

impl<'m, P: Platform, R: Reclaim> Scullp<'m, P, R> {
    /// What the module is called.
    pub const NAME: &'static str = "scullp";

    /// Loads the module.
    ///
    /// # Errors
    ///
    /// A parameter is out of range, or there is no memory for the table of devices.
    pub fn load(mm: &'m Mm<P, R>, parameters: Parameters) -> Result<Self, ScullError> {
        let Parameters { devices, order, qset } = parameters;
        check("devices", devices, 1, MOST_DEVICES)?;
        check("order", order, 0, mm.largest_order().get().min(Order::LIMIT.get()))?;
        check("qset", qset, 1, LARGEST_QSET)?;
        let devices = Small::new(mm, devices as usize, |_| Device {
            store: Lock::new(Store::new(mm, order, qset as usize)),
            open_files: AtomicU32::new(0),
        })?;
        Ok(Scullp { mm, parameters, devices: Some(devices) })
    }

    /// What it was loaded with.
    pub fn parameters(&self) -> Parameters {
        self.parameters
    }

    /// Opens a device, and trims it where it is opened for writing alone.
    ///
    /// # Errors
    ///
    /// There is no such device.
    pub fn open(&self, device: u32, mode: Mode) -> Result<File<'_, 'm, P, R>, ScullError> {
        let file = File { device: self.device(device)?, mm: self.mm, mode, position: 0 };
        // Relaxed: a count for people to read, it orders nothing.
        file.device.open_files.fetch_add(1, Ordering::Relaxed);
        if mode == Mode::Write {
            file.store().trim();
        }
        Ok(file)
    }

    /// How many bytes a device holds, from its start to the end of what was written farthest.
    ///
    /// # Errors
    ///
    /// There is no such device.
    pub fn size(&self, device: u32) -> Result<u64, ScullError> {
        Ok(self.device(device)?.store.lock(self.mm.platform()).size())
    }

    /// How many files are open.
    pub fn open_files(&self) -> u32 {
        self.table().iter().map(|device| device.open_files.load(Ordering::Relaxed)).sum()
    }

    /// Where the table of devices is, and how many bytes it takes of the manager's memory.
    pub fn table_memory(&self) -> (usize, usize) {
        let bytes = size_of_val(self.table()).next_multiple_of(1 << P::PAGE_SHIFT);
        (self.devices.as_ref().map_or(0, Small::address), bytes)
    }

    /// Writes what `/proc/scullpmem` shows (A315): each device, its items, and the quanta of its
    /// last item, with their addresses.
    ///
    /// ```text
    ///
    /// Device 0: qset 500, order 0, sz 1048576
    ///   item at c4184780, qset at c71c4800
    ///        0:c262b000
    ///        1:c2193000
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_mem(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let Parameters { order, qset, .. } = self.parameters;
        for (number, device) in self.table().iter().enumerate() {
            let store = device.store.lock(self.mm.platform());
            let size = store.size();
            writeln!(out, "\nDevice {number}: qset {qset}, order {order}, sz {size}")?;
            store.write_layout(out)?;
        }
        Ok(())
    }

    fn table(&self) -> &[Device<'m, P, R>] {
        self.devices.as_deref().unwrap_or_default()
    }

    fn device(&self, number: u32) -> Result<&Device<'m, P, R>, ScullError> {
        let devices = self.parameters.devices;
        self.table()
            .get(number as usize)
            .ok_or(ScullError::NoSuchDevice { device: number, devices })
    }
}

fn check(name: &'static str, value: u32, smallest: u32, largest: u32) -> Result<(), ScullError> {
    if (smallest..=largest).contains(&value) {
        Ok(())
    } else {
        Err(ScullError::BadParameter { name, value, smallest, largest })
    }
}

impl<P: Platform, R: Reclaim> Drop for Scullp<'_, P, R> {
    fn drop(&mut self) {
        let Some(mut devices) = self.devices.take() else { return };
        for device in devices.iter_mut() {
            device.store.get_mut().trim();
        }
        // SAFETY: the table was made with this manager.
        unsafe { devices.free(self.mm) };
    }
}

/// An open device: one task's place in it.
///
/// Several may be open on one device, in several tasks. Each call is done wholly before or after
/// another's.
pub struct File<'s, 'm, P: Platform, R: Reclaim> {
    device: &'s Device<'m, P, R>,
    mm: &'m Mm<P, R>,
    mode: Mode,
    position: u64,
}

impl<'m, P: Platform, R: Reclaim> File<'_, 'm, P, R> {
    /// Reads from the position on, advances it and answers how many bytes were read: at most to
    /// the end of a quantum, so a caller that wants more calls again; 0 at the end.
    ///
    /// # Errors
    ///
    /// The file is open for writing alone.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, ScullError> {
        if self.mode == Mode::Write {
            return Err(ScullError::NotOpenFor("reading"));
        }
        let count = self.store().read(self.position, out);
        self.position += count as u64;
        Ok(count)
    }

    /// Writes at the position, advances it and answers how many bytes were written: at most to the
    /// end of a quantum, so a caller that has more calls again.
    ///
    /// # Errors
    ///
    /// The file is open for reading alone, or there is no memory: then the device and the position
    /// are as before.
    pub fn write(&mut self, data: &[u8]) -> Result<usize, ScullError> {
        if self.mode == Mode::Read {
            return Err(ScullError::NotOpenFor("writing"));
        }
        let count = self.store().write(self.position, data)?;
        self.position += count as u64;
        Ok(count)
    }

    /// Writes all of `data`, in as many pieces as it takes.
    ///
    /// # Errors
    ///
    /// As [`File::write`]; what was written before the error stays.
    pub fn write_all(&mut self, mut data: &[u8]) -> Result<(), ScullError> {
        while !data.is_empty() {
            data = &data[self.write(data)?..];
        }
        Ok(())
    }

    /// Moves the position, in bytes from the start. It may lie beyond the end: reading there gives
    /// nothing; writing there leaves a hole that reads as zeroes.
    pub fn seek(&mut self, position: u64) {
        self.position = position;
    }

    fn store(&self) -> Guard<'_, Store<'m, P, R>, P> {
        self.device.store.lock(self.mm.platform())
    }
}

impl<P: Platform, R: Reclaim> Drop for File<'_, '_, P, R> {
    fn drop(&mut self) {
        self.device.open_files.fetch_sub(1, Ordering::Relaxed);
    }
}
