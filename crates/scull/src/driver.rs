//! Modules of all kinds behind one face, for callers that choose one by name.

use core::fmt;

use kmem::platform::UserMap;
use kmem::{Platform, Reclaim, VirtAddr};

use crate::{Kind, Mode, Module, Parameters, ScullError, Source};

/// A loaded module of any kind. What its calls do, [`Module`]'s of the same name say.
pub trait Driver: Send + Sync {
    /// Its kind.
    fn kind(&self) -> &'static Kind;

    /// Its parameters now.
    fn parameters(&self) -> Parameters;

    /// Changes the parameter of that name, of those that are in [`Parameters::named`].
    ///
    /// # Errors
    ///
    /// The value is out of range, or the parameter is set when the module is loaded and not
    /// afterwards.
    fn set(&self, name: &'static str, value: u64) -> Result<(), ScullError>;

    /// Empties a device, as opening it for writing does.
    ///
    /// # Errors
    ///
    /// There is no such device.
    fn trim(&self, device: u64) -> Result<(), ScullError>;

    /// Reads from a device at a position, in bytes, as [`File::read`](crate::File::read) does.
    ///
    /// # Errors
    ///
    /// There is no such device.
    fn read(&self, device: u64, position: u64, out: &mut [u8]) -> Result<usize, ScullError>;

    /// Writes to a device at a position, in bytes, as [`File::write`](crate::File::write) does.
    ///
    /// # Errors
    ///
    /// There is no such device, no memory, or no more within the quota.
    fn write(&self, device: u64, position: u64, data: &[u8]) -> Result<usize, ScullError>;

    /// Writes behind a device's end, as [`Module::append`] does.
    ///
    /// # Errors
    ///
    /// As [`Driver::write`].
    fn append(&self, device: u64, data: &[u8]) -> Result<usize, ScullError>;

    /// How many bytes a device has, up to the end of what was written farthest.
    ///
    /// # Errors
    ///
    /// There is no such device.
    fn size(&self, device: u64) -> Result<u64, ScullError>;

    /// How many bytes of memory a device has for them.
    ///
    /// # Errors
    ///
    /// There is no such device.
    fn held(&self, device: u64) -> Result<u64, ScullError>;

    /// Makes a device end at `size`, in bytes, as [`Module::truncate`] does.
    ///
    /// # Errors
    ///
    /// There is no such device, or a user has its memory mapped.
    fn truncate(&self, device: u64, size: u64) -> Result<(), ScullError>;

    /// Has `work` do something with a device's memory in a user's address space, as
    /// [`Module::mmap`] gives it, with all pages mapped that there are.
    ///
    /// # Errors
    ///
    /// Those of [`Module::mmap`] and of [`Mapped::populate`](crate::Mapped::populate).
    fn with_mapped(
        &self,
        device: u64,
        user: &dyn UserMap,
        pages: usize,
        work: &mut dyn FnMut(VirtAddr, usize),
    ) -> Result<(), ScullError>;

    /// Where the table of devices is, and how many bytes it has.
    fn table_memory(&self) -> (usize, usize);

    /// Writes what the module's file in `/proc` shows.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    fn write_mem(&self, out: &mut dyn fmt::Write) -> fmt::Result;
}

impl<S: Source, P: Platform, R: Reclaim> Driver for Module<'_, S, P, R> {
    fn kind(&self) -> &'static Kind {
        const { &S::KIND }
    }

    fn parameters(&self) -> Parameters {
        self.parameters()
    }

    fn set(&self, name: &'static str, value: u64) -> Result<(), ScullError> {
        match name {
            "qset" => self.set_qset(value),
            name if name == S::KIND.size => self.set_size(value),
            name => Err(ScullError::ReadOnly { module: S::KIND.name, name }),
        }
    }

    fn trim(&self, device: u64) -> Result<(), ScullError> {
        self.open(device, Mode::Write).map(drop)
    }

    fn read(&self, device: u64, position: u64, out: &mut [u8]) -> Result<usize, ScullError> {
        let mut file = self.open(device, Mode::Read)?;
        file.seek(position);
        file.read(out)
    }

    fn write(&self, device: u64, position: u64, data: &[u8]) -> Result<usize, ScullError> {
        let mut file = self.open(device, Mode::ReadWrite)?;
        file.seek(position);
        file.write(data)
    }

    fn append(&self, device: u64, data: &[u8]) -> Result<usize, ScullError> {
        self.append(device, data)
    }

    fn size(&self, device: u64) -> Result<u64, ScullError> {
        self.size(device)
    }

    fn held(&self, device: u64) -> Result<u64, ScullError> {
        self.held(device)
    }

    fn truncate(&self, device: u64, size: u64) -> Result<(), ScullError> {
        self.truncate(device, size)
    }

    fn with_mapped(
        &self,
        device: u64,
        user: &dyn UserMap,
        pages: usize,
        work: &mut dyn FnMut(VirtAddr, usize),
    ) -> Result<(), ScullError> {
        let mapped = self.mmap(device, user, user.range().start, pages, 0)?;
        let there = mapped.populate()?;
        work(mapped.addresses().start, there);
        Ok(())
    }

    fn table_memory(&self) -> (usize, usize) {
        self.table_memory()
    }

    fn write_mem(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        self.write_mem(out)
    }
}
