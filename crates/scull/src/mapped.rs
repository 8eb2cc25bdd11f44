//! A device's memory in a user's address space (A072, A312).

use core::ops::Range;
use core::sync::atomic::Ordering;

use kmem::platform::UserMap;
use kmem::{Mm, Platform, Reclaim, VirtAddr};

use crate::module::Device;
use crate::{ScullError, Source};

/// Addresses of a user at which a device's memory is seen: the device's own pages, one by one, and not
/// copies. What the one side writes the other reads.
///
/// While there is one the device is not trimmed, as in the texts' driver. Dropping it takes the pages out of
/// the user's address space.
pub struct Mapped<'s, 'm, S: Source, P: Platform, R: Reclaim> {
    device: &'s Device<'m, S, P, R>,
    mm: &'m Mm<P, R>,
    user: &'s dyn UserMap,
    addresses: Range<VirtAddr>,
    offset: u64,
}

impl<'s, 'm, S: Source, P: Platform, R: Reclaim> Mapped<'s, 'm, S, P, R> {
    pub(crate) fn new(
        device: &'s Device<'m, S, P, R>,
        mm: &'m Mm<P, R>,
        user: &'s dyn UserMap,
        addresses: Range<VirtAddr>,
        offset: u64,
    ) -> Result<Self, ScullError> {
        let of_page = |number: u64| number.is_multiple_of(1 << P::PAGE_SHIFT);
        let range = user.range();
        let is_users = range.start <= addresses.start && addresses.end <= range.end;
        if !is_users || addresses.is_empty() || !of_page(addresses.start.get() as u64) {
            return Err(ScullError::BadParameter {
                name: "address",
                value: addresses.start.get() as u64,
                smallest: range.start.get() as u64,
                largest: range.end.get() as u64,
            });
        }
        if !of_page(offset) {
            return Err(ScullError::TooFar { position: offset });
        }
        let store = device.store.lock(mm.platform());
        if !store.is_mappable() {
            return Err(ScullError::NotMappable { module: S::KIND.name });
        }
        device.mappings.fetch_add(1, Ordering::Relaxed);
        drop(store);
        Ok(Mapped { device, mm, user, addresses, offset })
    }

    /// The addresses.
    pub fn addresses(&self) -> Range<VirtAddr> {
        self.addresses.clone()
    }

    /// What a kernel does when the user touches an address for the first time: maps the page that is there.
    /// A page that is mapped already stays.
    ///
    /// # Errors
    ///
    /// The device holds nothing there; the address is not of this mapping; there is no memory for the
    /// mapping.
    pub fn fault(&self, address: VirtAddr) -> Result<(), ScullError> {
        let position = address.get().wrapping_sub(self.addresses.start.get()) as u64;
        let position = position & !((1 << P::PAGE_SHIFT) - 1);
        let there = self.offset.saturating_add(position);
        if !self.addresses.contains(&address) {
            return Err(ScullError::NothingThere { position: there });
        }
        // Held until the page has a reference of the user's.
        let store = self.device.store.lock(self.mm.platform());
        let page = store.page(there).ok_or(ScullError::NothingThere { position: there })?;
        let at = VirtAddr::new(self.addresses.start.get() + position as usize);
        // SAFETY: quanta were cleared and hold what was written to the device since; they are copied from and
        // to by pointer, and nobody has a reference to their bytes.
        match unsafe { self.mm.vm_insert_page(self.user, at, page, true) } {
            Err(kmem::AllocError::Occupied) => Ok(()),
            done => Ok(done?),
        }
    }

    /// [`Mapped::fault`] for all pages that the device has something of; answers how many.
    ///
    /// # Errors
    ///
    /// There is no memory for a mapping; those before it are mapped.
    pub fn populate(&self) -> Result<usize, ScullError> {
        let mut done = 0;
        for at in (self.addresses.start.get()..self.addresses.end.get()).step_by(1 << P::PAGE_SHIFT)
        {
            match self.fault(VirtAddr::new(at)) {
                Ok(()) => done += 1,
                Err(ScullError::NothingThere { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl<S: Source, P: Platform, R: Reclaim> Drop for Mapped<'_, '_, S, P, R> {
    fn drop(&mut self) {
        let pages = (self.addresses.end.get() - self.addresses.start.get()) >> P::PAGE_SHIFT;
        self.mm.vm_remove_pages(self.user, self.addresses.start, pages);
        let _store = self.device.store.lock(self.mm.platform());
        self.device.mappings.fetch_sub(1, Ordering::Relaxed);
    }
}
