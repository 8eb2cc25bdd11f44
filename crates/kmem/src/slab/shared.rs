//! What an operation on a node of a cache needs, and where an object lies.

use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

use super::debug::{Bytes, Debug};
use super::geometry::Geometry;
use super::lists::{Lists, Open};
use super::magazine::Entry;
use super::record::Record;
use super::state::{ObjectState, State};
use crate::page::{Descriptor, Memmap, PageFlags, SlabView};
use crate::platform::{Caller, Overwritten, Platform, Where};
use crate::{NodeId, Pfn, VirtAddr};

/// Where an object lies: the first frame of its slab, its number there, the slab's node, and the
/// object's byte.
#[derive(Clone, Copy)]
pub(crate) struct At<'m> {
    pub(crate) head: Pfn,
    pub(crate) object: u32,
    /// The node that the object lies on.
    pub(crate) node: NodeId,
    /// The object's byte.
    pub(crate) state: &'m ObjectState,
}

/// What was known of an object at a moment.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    /// The node that it lies on.
    pub(crate) node: NodeId,
    pub(crate) state: State,
    /// How many bytes were asked for, where that bounds what its caller may use.
    pub(crate) asked: Option<usize>,
    /// Who allocated, and who freed it, where that is kept.
    pub(crate) owners: (Option<Caller>, Option<Caller>),
}

/// What there is at an address in a slab.
pub(crate) enum Sight {
    /// An object that begins there.
    Object(Seen),
    /// None does: the first frame of the slab, and the object that the address lies in, if it lies in
    /// one, with whether that is free.
    Inside(Pfn, Option<(usize, bool)>),
}

/// A node of a cache, for one operation: what the cache's objects look like, and where.
pub(crate) struct Shared<'a, P> {
    pub(crate) platform: &'a P,
    pub(crate) map: &'a Memmap,
    pub(crate) geometry: &'a Geometry,
    /// How the cache is debugged, if it is.
    pub(crate) debug: Option<&'a Debug>,
    /// The number of the cache.
    pub(crate) cache: u16,
}

/// What a caller asked for, and who it is.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) bytes: usize,
    /// `None` where that is not kept, and for the manager itself.
    pub(crate) owner: Option<Caller>,
    /// Where the call was made, for reports.
    pub(crate) site: &'static Location<'static>,
}

impl Asked {
    /// Asked by the manager itself.
    #[track_caller]
    pub(crate) fn internal(bytes: usize) -> Asked {
        Asked { bytes, owner: None, site: Location::caller() }
    }
}

// Not derived: that would ask the platform to be `Copy`.
impl<P> Clone for Shared<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Shared<'_, P> {}

impl<'a, P: Platform> Shared<'a, P> {
    /// Where an object lies that is known to be one of the cache's: an entry of a magazine.
    ///
    /// # Panics
    ///
    /// Where it is none: the magazine is corrupt.
    pub(super) fn at(&self, object: usize) -> At<'a> {
        match self.look(object) {
            Some(at) => at,
            None => panic!("kmem: {object:#x} in a magazine is no object: the magazine is corrupt"),
        }
    }

    /// Where an object of the cache lies; `None` where none begins at the address. For who knows that
    /// its slab stays.
    pub(crate) fn look<'r>(&self, address: usize) -> Option<At<'r>> {
        let (head, view) = self.slab_at(address)?;
        self.find(head, view, address)
    }

    /// The slab of the cache that an address lies in.
    pub(super) fn slab_at(&self, address: usize) -> Option<(Pfn, SlabView)> {
        let phys = self.platform.virt_to_phys(VirtAddr::new(address))?;
        let (head, descriptor) = slab_of(self.map, phys.frame(P::PAGE_SHIFT)?)?;
        let view = descriptor.slab();
        (view.cache == self.cache).then_some((head, view))
    }

    /// Whether the slab is about to go that an object of a magazine is of.
    pub(super) fn is_leaving(&self, object: usize) -> bool {
        self.map.at(self.at(object).head).has(PageFlags::Leaving)
    }

    /// The object that begins at an address, in a slab of the cache; `None` where none does.
    #[inline(always)]
    pub(crate) fn find<'r>(&self, head: Pfn, view: SlabView, address: usize) -> Option<At<'r>> {
        let offset = address.wrapping_sub(self.first(head, view.colour));
        let object = self.geometry.index(offset as u32)?;
        let record = record_of(view, self.geometry.objects)?;
        Some(At { head, object, node: view.node, state: record.state(object) })
    }

    /// The object of a slab that an address lies in, and whether it is free.
    pub(super) fn around(
        &self,
        head: Pfn,
        view: SlabView,
        address: usize,
    ) -> Option<(usize, bool)> {
        let first = self.first(head, view.colour);
        let index = address.checked_sub(first)? / self.geometry.stride as usize;
        let record = record_of(view, self.geometry.objects)?;
        let index = u32::try_from(index).ok().filter(|index| *index < record.objects())?;
        let free = record.state(index).get() != State::HELD;
        Some((first + index as usize * self.geometry.stride as usize, free))
    }

    /// The address of a slab's first object.
    #[inline(always)]
    pub(super) fn first(&self, head: Pfn, colour: u32) -> usize {
        let start = self.platform.phys_to_virt(head.start(P::PAGE_SHIFT));
        // Slabs are of the direct map: the cache's flags never ask for high memory.
        start.map_or(0, VirtAddr::get).wrapping_add(colour as usize)
    }

    /// The objects of a slab, as entries of a magazine.
    pub(super) fn entry(&self, first: usize, record: Record, object: u32) -> Entry {
        let address = first + object as usize * self.geometry.stride as usize;
        Entry { object: address, state: record.state(object).into() }
    }
}

impl<P: Platform> Shared<'_, P> {
    /// An object leaves its slab for a caller: where the cache is debugged, its bytes are looked at
    /// and written. Under the node's lock, like the next two.
    pub(super) fn hand_out(
        &self,
        record: Record,
        object: u32,
        address: usize,
        asked: Asked,
        wrong: &mut impl FnMut(Overwritten),
    ) {
        let Some((debug, at)) = self.debugged(address) else { return };
        self.look_at(record, object, address, true, State::HELD, wrong);
        let bytes = asked.bytes.min(u32::MAX as usize) as u32;
        // SAFETY: the object was just taken out of its slab; records of such caches have tracks.
        unsafe {
            debug.hand_out(at, bytes);
            record.track(object).allocated(asked.owner, bytes);
        }
    }

    /// A caller gives an object back.
    pub(super) fn take_back(
        &self,
        record: Record,
        object: u32,
        address: usize,
        owner: Option<Caller>,
        wrong: &mut impl FnMut(Overwritten),
    ) {
        let Some((debug, at)) = self.debugged(address) else { return };
        self.look_at(record, object, address, false, record.state(object).get(), wrong);
        // SAFETY: the object was just given back; records of such caches have tracks.
        unsafe {
            debug.free(at);
            record.track(object).freed(owner);
        }
    }

    /// Whether the bytes of a free object, or those around one that is with a caller, are as they were
    /// left; answers `false`, and puts them right, where they are not. `state` is what the object's byte
    /// said before: where that is not so any more it is somebody else's to look.
    pub(super) fn look_at(
        &self,
        record: Record,
        object: u32,
        address: usize,
        is_free: bool,
        state: State,
        wrong: &mut impl FnMut(Overwritten),
    ) -> bool {
        let Some((debug, at)) = self.debugged(address) else { return true };
        // SAFETY: records of such caches have tracks.
        let asked = unsafe { record.track(object) }.asked();
        // SAFETY: an object of the cache, which is free; or what is looked at is not its holder's.
        let found =
            unsafe { if is_free { debug.check_free(at) } else { debug.check_held(at, asked) } };
        let Some((place, offset, bytes)) = found else { return true };
        // An NMI handler that frees it says so before it writes to it: then these are its bytes.
        fence(Ordering::Acquire);
        if record.state(object).get() != state {
            return true;
        }
        wrong(self.overwritten(record, object, address, place, offset, bytes));
        // SAFETY: as above.
        unsafe { if is_free { debug.free(at) } else { debug.mend_held(at, asked) } };
        false
    }

    fn overwritten(
        &self,
        record: Record,
        object: u32,
        address: usize,
        place: Where,
        offset: i32,
        bytes: Bytes,
    ) -> Overwritten {
        // SAFETY: records of caches that are debugged have tracks.
        let (allocated, freed) = unsafe { record.track(object) }.owners();
        let Bytes { expected, found, length } = bytes;
        let (object, cache) = (VirtAddr::new(address), self.cache);
        Overwritten { object, cache, place, offset, length, expected, found, allocated, freed }
    }

    /// An object goes back to its slab that was kept out of use.
    pub(super) fn leave_quarantine(
        &self,
        lists: &mut Lists,
        address: usize,
        wrong: &mut impl FnMut(Overwritten),
    ) -> bool {
        let at = self.at(address);
        if let Some(record) = record_of(self.map.at(at.head).slab(), self.geometry.objects) {
            self.look_at(record, at.object, address, true, at.state.get(), wrong);
        }
        lists.give(self.map, at.head, at.object, State::DEPOT)
    }

    /// What is known of an object whose slab stays meanwhile.
    pub(super) fn seen(&self, at: At<'_>) -> Seen {
        let (node, state) = (at.node, at.state.get());
        let view = self.map.at(at.head).slab();
        let record = record_of(view, self.geometry.objects);
        let (Some(debug), Some(record)) = (self.debug, record) else {
            return Seen { node, state, asked: None, owners: (None, None) };
        };
        // SAFETY: records of caches that are debugged have tracks.
        let track = unsafe { record.track(at.object) };
        let asked = debug.has_slack().then(|| track.asked() as usize);
        Seen { node, state, asked, owners: track.owners() }
    }

    fn debugged(&self, address: usize) -> Option<(&Debug, NonNull<u8>)> {
        Some((self.debug?, NonNull::new(core::ptr::with_exposed_provenance_mut(address))?))
    }
}

/// Gives objects back to their slabs. Those that come one after the other often share one, which then
/// is found, and put on its list, once.
pub(super) struct Giver<'l, 'a, P: Platform> {
    of: Shared<'a, P>,
    lists: &'l mut Lists,
    /// The slab of the last object, and the address where it begins.
    open: Option<(usize, Open)>,
}

impl<'l, 'a, P: Platform> Giver<'l, 'a, P> {
    pub(super) fn new(of: Shared<'a, P>, lists: &'l mut Lists) -> Self {
        Giver { of, lists, open: None }
    }

    /// Gives an object back that is in a state, of a slab on these lists. Answers `false`, and does
    /// nothing, where it is not in that state, or the slab has it.
    #[must_use]
    pub(super) fn give(&mut self, object: usize, from: State) -> bool {
        let bytes = self.of.geometry.bytes(P::PAGE_SHIFT) as usize;
        if self.open.as_ref().is_none_or(|(start, _)| object.wrapping_sub(*start) >= bytes) {
            self.close();
            let head = self.of.at(object).head;
            let slab = self.lists.open(self.of.map, head);
            self.open = Some((self.of.first(head, 0), slab));
        }
        let Some((start, slab)) = &self.open else { return false };
        let place = (object - start) as u32;
        match self.of.geometry.index(place.wrapping_sub(slab.colour)) {
            Some(index) => slab.record.give(index, from),
            None => false,
        }
    }

    fn close(&mut self) {
        if let Some((_, slab)) = self.open.take() {
            self.lists.close(self.of.map, slab);
        }
    }
}

impl<P: Platform> Drop for Giver<'_, '_, P> {
    fn drop(&mut self) {
        self.close();
    }
}

/// The first frame of the slab that a frame is part of, and its descriptor.
#[inline]
pub(crate) fn slab_of(map: &Memmap, pfn: Pfn) -> Option<(Pfn, &Descriptor)> {
    let descriptor = map.get(pfn)?;
    let (head, descriptor) = match descriptor.compound_head() {
        Some(head) => (head, map.get(head)?),
        None => (pfn, descriptor),
    };
    descriptor.is_slab().then_some((head, descriptor))
}

/// The record of the slab of which this is said.
#[inline(always)]
pub(crate) fn record_of(view: SlabView, objects: u32) -> Option<Record> {
    let address = core::ptr::with_exposed_provenance_mut(view.record);
    // SAFETY: a frame that is marked as a slab's has the address of its record, of as many objects as
    // its cache's geometry says, until it is no slab's any more.
    core::ptr::NonNull::new(address).map(|at| unsafe { Record::new(at, objects) })
}
