//! A loaded module: its devices, and files open on them.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use kmem::platform::UserMap;
use kmem::{Mm, Platform, Reclaim, VirtAddr};

use crate::lock::{Guard, Lock};
use crate::mapped::Mapped;
use crate::memory::Small;
use crate::quota::Account;
use crate::store::{Shape, Store};
use crate::{Parameters, ScullError, Source};

/// How many devices can be loaded. The texts have four; nothing but the sense of it sets a bound.
const MOST_DEVICES: u64 = 256;

/// How many places a quantum set can have.
const LARGEST_QSET: u64 = 1 << 16;

/// A loaded module, whose quanta come from `S`. Dropping it unloads it: all its memory goes back.
///
/// Its calls may sleep: they are for tasks, not for interrupt handlers.
pub struct Module<'m, S: Source, P: Platform, R: Reclaim> {
    mm: &'m Mm<P, R>,
    /// As loaded. What may be changed since then is in `shape`.
    parameters: Parameters,
    /// The shape that a device takes over when it is trimmed.
    shape: Lock<Shape<S>>,
    /// `None` only while it is being loaded, and dropped.
    devices: Option<Small<Device<'m, S, P, R>>>,
}

pub(crate) struct Device<'m, S, P, R> {
    pub(crate) store: Lock<Store<'m, S, P, R>>,
    open_files: AtomicU32,
    /// How many mappings users have of it. Changed with the store's lock held.
    pub(crate) mappings: AtomicU32,
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

impl<'m, S: Source, P: Platform, R: Reclaim> Module<'m, S, P, R> {
    /// What the module is called.
    pub const NAME: &'static str = S::KIND.name;

    /// What its parameters are where nobody says anything.
    pub const DEFAULTS: Parameters = S::KIND.defaults;

    /// Loads the module.
    ///
    /// # Errors
    ///
    /// A parameter is out of range; there is no memory for the table of devices; a cache that the
    /// quanta are to come from cannot be made (A306).
    pub fn load(mm: &'m Mm<P, R>, parameters: Parameters) -> Result<Self, ScullError> {
        check("devices", parameters.devices, 1, MOST_DEVICES)?;
        check("qset", parameters.qset, 1, LARGEST_QSET)?;
        let source = S::new(mm, parameters.size)?;
        let shape = Shape { source, qset: parameters.qset as usize };
        // From here on dropping it ends the source.
        let mut module = Module { mm, parameters, shape: Lock::new(shape), devices: None };
        let account = Account::new(parameters.quota);
        module.devices = Some(Small::new(mm, parameters.devices as usize, |_| Device {
            store: Lock::new(Store::new(mm, shape, account)),
            open_files: AtomicU32::new(0),
            mappings: AtomicU32::new(0),
        })?);
        Ok(module)
    }

    /// Its parameters now.
    pub fn parameters(&self) -> Parameters {
        let Shape { source, qset } = self.shape();
        Parameters { size: source.size(), qset: qset as u64, ..self.parameters }
    }

    /// Changes how large quanta are, in what [`Kind::size`](crate::Kind::size) counts. A device
    /// takes it over when it is trimmed; until then it stays as it is.
    ///
    /// # Errors
    ///
    /// The size is out of range, or it cannot be changed while the module is loaded: scullc would
    /// need another cache (A305).
    pub fn set_size(&self, size: u64) -> Result<(), ScullError> {
        if !S::KIND.resizable {
            return Err(ScullError::ReadOnly { module: S::KIND.name, name: S::KIND.size });
        }
        let source = S::new(self.mm, size)?;
        self.shape.lock(self.mm.platform()).source = source;
        Ok(())
    }

    /// Changes how many quanta a quantum set has; otherwise as [`Module::set_size`].
    ///
    /// # Errors
    ///
    /// The number is out of range.
    pub fn set_qset(&self, qset: u64) -> Result<(), ScullError> {
        check("qset", qset, 1, LARGEST_QSET)?;
        self.shape.lock(self.mm.platform()).qset = qset as usize;
        Ok(())
    }

    /// Opens a device, and trims it where it is opened for writing alone.
    ///
    /// # Errors
    ///
    /// There is no such device; it is to be trimmed, and a user has its memory mapped.
    pub fn open(&self, device: u64, mode: Mode) -> Result<File<'_, 'm, S, P, R>, ScullError> {
        let file = File { device: self.device(device)?, mm: self.mm, mode, position: 0 };
        // Relaxed: a count for people to read, it orders nothing.
        file.device.open_files.fetch_add(1, Ordering::Relaxed);
        if mode == Mode::Write {
            let shape = self.shape();
            self.unmapped(file.device)?.trim(shape);
        }
        Ok(file)
    }

    /// Makes a device end at `size`, in bytes, as `ftruncate` does: what lies behind is given back, and
    /// what it had not reached before reads as zeroes. With 0 the device is trimmed.
    ///
    /// # Errors
    ///
    /// There is no such device, or a user has its memory mapped.
    pub fn truncate(&self, device: u64, size: u64) -> Result<(), ScullError> {
        let shape = self.shape();
        let mut store = self.unmapped(self.device(device)?)?;
        match size {
            0 => store.trim(shape),
            size => store.resize(size),
        }
        Ok(())
    }

    /// Writes behind the end of a device and answers how many bytes: at most to the end of a quantum. Where
    /// the end is and the write are one step: what others append comes before or after it.
    ///
    /// # Errors
    ///
    /// There is no such device, no memory, or no more within the quota.
    pub fn append(&self, device: u64, data: &[u8]) -> Result<usize, ScullError> {
        let mut store = self.device(device)?.store.lock(self.mm.platform());
        let end = store.size();
        store.write(end, data)
    }

    /// Gives a user `pages` addresses of pages from `address` on, at which they see the device's memory
    /// from `offset` on, in bytes (A072, A312). Nothing is mapped yet: see [`Mapped::fault`].
    ///
    /// # Errors
    ///
    /// There is no such device, its memory cannot be mapped, the offset is not a multiple of a page, or the
    /// addresses are not the user's.
    pub fn mmap<'s>(
        &'s self,
        device: u64,
        user: &'s dyn UserMap,
        address: VirtAddr,
        pages: usize,
        offset: u64,
    ) -> Result<Mapped<'s, 'm, S, P, R>, ScullError> {
        Mapped::new(
            self.device(device)?,
            self.mm,
            user,
            address..pages_behind::<P>(address, pages),
            offset,
        )
    }

    /// How many bytes a device holds, from its start to the end of what was written farthest.
    ///
    /// # Errors
    ///
    /// There is no such device.
    pub fn size(&self, device: u64) -> Result<u64, ScullError> {
        Ok(self.device(device)?.store.lock(self.mm.platform()).size())
    }

    /// How many bytes a device's quanta, sets and list items have: what its quota counts.
    ///
    /// # Errors
    ///
    /// There is no such device.
    pub fn held(&self, device: u64) -> Result<u64, ScullError> {
        Ok(self.device(device)?.store.lock(self.mm.platform()).held())
    }

    /// How many files are open.
    pub fn open_files(&self) -> u32 {
        self.table().iter().map(|device| device.open_files.load(Ordering::Relaxed)).sum()
    }

    /// Where the table of devices is, and how many bytes it has.
    pub fn table_memory(&self) -> (usize, usize) {
        (self.devices.as_ref().map_or(0, Small::address), size_of_val(self.table()))
    }

    /// Writes what the module's file in `/proc` shows (A315): each device, its items, and the quanta
    /// of its last item, with their addresses. For scullp:
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
        self.table().iter().enumerate().try_for_each(|(number, device)| {
            device.store.lock(self.mm.platform()).write_mem(number, out)
        })
    }

    /// A device's store, for a change that takes memory away from it: not while a user has it mapped.
    fn unmapped<'l>(
        &'l self,
        device: &'l Device<'m, S, P, R>,
    ) -> Result<Guard<'l, Store<'m, S, P, R>, P>, ScullError> {
        let store = device.store.lock(self.mm.platform());
        // Relaxed: it changes with the lock held.
        match device.mappings.load(Ordering::Relaxed) {
            0 => Ok(store),
            mappings => Err(ScullError::Mapped { mappings }),
        }
    }

    fn shape(&self) -> Shape<S> {
        *self.shape.lock(self.mm.platform())
    }

    fn table(&self) -> &[Device<'m, S, P, R>] {
        self.devices.as_deref().unwrap_or_default()
    }

    fn device(&self, number: u64) -> Result<&Device<'m, S, P, R>, ScullError> {
        let devices = self.parameters.devices;
        usize::try_from(number)
            .ok()
            .and_then(|index| self.table().get(index))
            .ok_or(ScullError::NoSuchDevice { device: number, devices })
    }
}

/// The address behind so many pages.
fn pages_behind<P: Platform>(address: VirtAddr, pages: usize) -> VirtAddr {
    let bytes = pages.checked_shl(P::PAGE_SHIFT).unwrap_or(usize::MAX);
    VirtAddr::new(address.get().saturating_add(bytes))
}

/// Refuses a parameter that is out of range.
pub(crate) fn check(
    name: &'static str,
    value: u64,
    smallest: u64,
    largest: u64,
) -> Result<(), ScullError> {
    if (smallest..=largest).contains(&value) {
        Ok(())
    } else {
        Err(ScullError::BadParameter { name, value, smallest, largest })
    }
}

impl<S: Source, P: Platform, R: Reclaim> Drop for Module<'_, S, P, R> {
    fn drop(&mut self) {
        let shape = *self.shape.get_mut();
        if let Some(mut devices) = self.devices.take() {
            for device in devices.iter_mut() {
                device.store.get_mut().trim(shape);
            }
            // SAFETY: the table was made with this manager.
            unsafe { devices.free(self.mm) };
        }
        // SAFETY: the devices are gone, and with them all quanta and all who could ask for one.
        unsafe { shape.source.close(self.mm) };
    }
}

/// An open device: one task's place in it.
///
/// Several may be open on one device, in several tasks. Each call is done wholly before or after
/// another's.
pub struct File<'s, 'm, S: Source, P: Platform, R: Reclaim> {
    device: &'s Device<'m, S, P, R>,
    mm: &'m Mm<P, R>,
    mode: Mode,
    position: u64,
}

impl<'m, S: Source, P: Platform, R: Reclaim> File<'_, 'm, S, P, R> {
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
    /// The file is open for reading alone, there is no memory, or the device's quota is used up. The
    /// device and the position are as before then.
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

    /// The position, in bytes from the start.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn store(&self) -> Guard<'_, Store<'m, S, P, R>, P> {
        self.device.store.lock(self.mm.platform())
    }
}

impl<S: Source, P: Platform, R: Reclaim> Drop for File<'_, '_, S, P, R> {
    fn drop(&mut self) {
        self.device.open_files.fetch_sub(1, Ordering::Relaxed);
    }
}
