//! The entry points of memory for devices.
//!
//! # The way of a mapping
//!
//! ```text
//!   dma_map_single ──> is it memory for devices?       direct map, pages in use (check.rs)
//!                        │
//!                        ├─ the device reaches it ───> a record; the address is the memory's own
//!                        │
//!                        └─ it does not (bounce.rs) ─> slots of the device, made when first wanted; the
//!                                                      contents are copied; a record
//! ```
//!
//! Unmapping takes the record out, and whoever did that copies back what the device wrote and gives the
//! slots back: two that unmap one mapping at one moment do not both.
//!
//! # Locking
//!
//! The device's lock (`DmaLevel`) over its records and slots. Nothing is copied, allocated or freed with
//! it.

mod bounce;
mod check;
mod coherent;
mod guards;
mod stream;

use core::panic::Location;
use core::sync::atomic::{Ordering, fence};

use super::Mm;
use crate::dma::{DmaDevice, DmaError, Found, Node, Pool, Record, State, StillGiven};
use crate::page::Page;
use crate::platform::{Misuse, MisuseKind, Passed, Platform, There};
use crate::reclaim::Reclaim;
use crate::sync::{DmaLevel, SpinGuard};
use crate::{GFP_ATOMIC, Gfp};

pub use coherent::Coherent;
pub use guards::{DmaBox, DmaMapped};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// How many mappings and pieces of coherent memory a device has at the moment. Any context but NMI.
    pub fn dma_given(&self, device: &DmaDevice) -> usize {
        device.state.lock(&self.platform).records.len()
    }

    /// Has a device's slots freed, when its driver has done with it.
    ///
    /// # Errors
    ///
    /// The device still has something: [`StillGiven`] says how much. It is reported as misuse, and nothing
    /// changes: the device may still be writing there. So is a call in an NMI handler, and of a manager
    /// whose device it is not; then it says nothing of how much.
    ///
    /// # Context
    ///
    /// Any but NMI. Cost: that of freeing the pages of the slots.
    #[track_caller]
    pub fn dma_detach(&self, device: &DmaDevice) -> Result<(), StillGiven> {
        let site = Location::caller();
        let left = {
            let nothing = StillGiven { count: 0, caller: site };
            let mut state = self.given(device, (0, 0), site).ok_or(nothing)?;
            let slots = state.pool.as_ref().map_or(0, |pool| pool.slots.taken());
            match state.records.any() {
                Some(record) => Err((Some(record), state.records.len())),
                // A transfer that begins or ends at this moment.
                None if slots > 0 => Err((None, 1)),
                None => Ok(state.pool.take()),
            }
        };
        match left {
            Ok(pool) => {
                if let Some(pool) = pool {
                    self.free_pool(pool);
                }
                Ok(())
            }
            Err((None, count)) => Err(StillGiven { count, caller: site }),
            Err((Some(record), count)) => {
                let passed = Passed::Dma { address: record.address, size: record.size };
                self.report_given(MisuseKind::StillGiven, passed, Some(record), site);
                Err(StillGiven { count, caller: record.caller })
            }
        }
    }

    fn free_pool(&self, pool: Pool) {
        if let Some(first) = pool.start.frame(P::PAGE_SHIFT) {
            // SAFETY: the pages were allocated for the slots, of which none is taken.
            unsafe { self.free_contig_pages(Page::of(first), pool.pages) };
        }
    }

    /// What a device has been given, to be looked at and changed; a report, and `None`, in an NMI handler and
    /// where it is another manager's.
    fn given<'a>(
        &'a self,
        device: &'a DmaDevice,
        (address, size): (u64, usize),
        site: &'static Location<'static>,
    ) -> Option<SpinGuard<'a, DmaLevel, State, P>> {
        let passed = Passed::Dma { address, size };
        if self.is_nmi_refused(passed, site) {
            return None;
        }
        let mut state = device.state.lock(&self.platform);
        if state.is_for(self.identity()) {
            return Some(state);
        }
        drop(state);
        let (kind, there) = (MisuseKind::OthersDevice, There::Nothing);
        self.report(&Misuse { kind, passed, there, site });
        None
    }

    /// Keeps note of what a device is given. Any context but NMI.
    fn note(&self, device: &DmaDevice, record: Record) -> Result<(), DmaError> {
        let gfp = GFP_ATOMIC | Gfp::NOWARN;
        let place = self.kmalloc(size_of::<Node>(), gfp).map_err(DmaError::Alloc)?.cast::<Node>();
        match self.given(device, (record.address, record.size), record.caller) {
            // SAFETY: it was just allocated for it.
            Some(mut state) => unsafe { state.records.insert(record, place) },
            None => {
                // SAFETY: as above, and it was not needed.
                unsafe { self.kfree(place.as_ptr().cast()) };
                return Err(DmaError::OthersDevice);
            }
        }
        // What was written to memory is there before the device is told of it. A driver tells it by writing
        // a register, which comes after this. (On x86 for the compiler alone.)
        fence(Ordering::Release);
        Ok(())
    }

    /// Takes note that something was given back; where it was not given, a report, and `None`.
    fn take_note(
        &self,
        device: &DmaDevice,
        passed: (u64, usize),
        is_wanted: impl Fn(&Record) -> bool,
        site: &'static Location<'static>,
    ) -> Option<Record> {
        let found = self.given(device, passed, site)?.records.remove(passed.0, is_wanted);
        match found {
            Found::This((record, place)) => {
                // SAFETY: the record that was in it is out.
                unsafe { self.kfree(place.as_ptr().cast()) };
                // The driver has read that the device is done. Reads of what it wrote come after that.
                fence(Ordering::Acquire);
                Some(record)
            }
            Found::Other(record) => self.wrong_note(passed, Some(record), site),
            Found::Nothing => self.wrong_note(passed, None, site),
        }
    }

    /// What a device has at an address; where that is not it, a report, and `None`.
    fn look_up(
        &self,
        device: &DmaDevice,
        passed: (u64, usize),
        is_wanted: impl Fn(&Record) -> bool,
        site: &'static Location<'static>,
    ) -> Option<Record> {
        let found = self.given(device, passed, site)?.records.find(passed.0, is_wanted);
        match found {
            Found::This(record) => Some(record),
            Found::Other(record) => self.wrong_note(passed, Some(record), site),
            Found::Nothing => self.wrong_note(passed, None, site),
        }
    }

    #[cold]
    #[inline(never)]
    fn wrong_note(
        &self,
        (address, size): (u64, usize),
        there: Option<Record>,
        site: &'static Location<'static>,
    ) -> Option<Record> {
        let kind = if there.is_some() { MisuseKind::GivenOtherwise } else { MisuseKind::NotGiven };
        self.report_given(kind, Passed::Dma { address, size }, there, site);
        None
    }

    fn report_given(
        &self,
        kind: MisuseKind,
        passed: Passed,
        there: Option<Record>,
        site: &'static Location<'static>,
    ) {
        let there = there.map_or(There::Nothing, |record| There::Given {
            address: record.address,
            size: record.size,
            what: record.name(),
            caller: record.caller,
        });
        self.report(&Misuse { kind, passed, there, site });
    }
}
