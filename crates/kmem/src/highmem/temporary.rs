//! A CPU's slots for temporary mappings: what is mapped in which.
//!
//! They belong to one CPU and are changed by code that stays on it, with plain loads and stores. A
//! handler that interrupts a change leaves everything as it found it, but for slots that it took and
//! forgot. So what a change has to see to is that the slot it is at is not taken by the handler:
//!
//! ```text
//!   begin a nested one    depth + 1 ── map ── note the address       a handler takes the one above
//!   end the latest        unmap ── forget the address ── depth - 1   until the last step
//!   a typed one           CHANGING ── map or unmap ── note or forget
//! ```
//!
//! Other CPUs read them for reports and counts.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, compiler_fence};

use super::{KM_TYPE_NR, KmType, NESTED};
use crate::{Pfn, VirtAddr};

/// Nothing is mapped.
const NOTHING: usize = 0;
/// The slot is being changed. No page begins here.
const CHANGING: usize = 1;
/// A nested mapping that was ended while later ones had not been. No page begins here.
const GONE: usize = 2;

/// What is mapped in one slot.
struct Mapped {
    /// Where it is seen; [`NOTHING`], [`CHANGING`] or [`GONE`].
    address: AtomicUsize,
    frame: AtomicU32,
}

impl Mapped {
    const fn nothing() -> Mapped {
        Mapped { address: AtomicUsize::new(NOTHING), frame: AtomicU32::new(0) }
    }

    fn get(&self) -> Option<(VirtAddr, Pfn)> {
        match self.address.load(Relaxed) {
            NOTHING | CHANGING | GONE => None,
            address => {
                // A reader on another CPU may see a frame that was there before: it is for a report.
                Some((VirtAddr::new(address), Pfn::from_raw(self.frame.load(Relaxed))))
            }
        }
    }

    fn set(&self, address: VirtAddr, frame: Pfn) {
        self.frame.store(frame.raw(), Relaxed);
        self.put(address.get());
    }

    /// Changes the address after everything that was done before and before all that comes after, as a
    /// handler on this CPU sees it.
    fn put(&self, address: usize) {
        compiler_fence(Ordering::SeqCst);
        self.address.store(address, Relaxed);
        compiler_fence(Ordering::SeqCst);
    }
}

/// What is mapped in the slot of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// Nothing.
    Free,
    /// The code that this code interrupted is changing it.
    Changing,
    /// This frame, at this address.
    Live(VirtAddr, Pfn),
}

/// How a nested mapping ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was the latest.
    Latest,
    /// It was not: the latest one is still there, at this address, with this frame.
    Inner(VirtAddr, Pfn),
    /// There is none at this address.
    NotThere,
}

/// A CPU's slots for temporary mappings.
///
/// # Invariants
///
/// The nested mappings are those below `depth`; the last of them is not [`GONE`], and none from `depth`
/// on is, so that whoever ends the latest one can tell those that ended before it.
#[repr(align(64))]
pub(crate) struct CpuSlots {
    depth: AtomicUsize,
    nested: [Mapped; NESTED],
    typed: [Mapped; KM_TYPE_NR],
}

impl CpuSlots {
    /// Nothing mapped.
    pub(crate) const fn new() -> CpuSlots {
        CpuSlots {
            depth: AtomicUsize::new(0),
            nested: [const { Mapped::nothing() }; NESTED],
            typed: [const { Mapped::nothing() }; KM_TYPE_NR],
        }
    }

    /// What is mapped in the slot of a type.
    pub(crate) fn typed(&self, slot: KmType) -> Typed {
        let mapped = &self.typed[slot as usize];
        match mapped.get() {
            Some((address, frame)) => Typed::Live(address, frame),
            None if mapped.address.load(Relaxed) == CHANGING => Typed::Changing,
            None => Typed::Free,
        }
    }

    /// Maps a frame in the slot of a type, by `map`, in which nothing is mapped. By the slots' CPU.
    pub(crate) fn begin_typed(
        &self,
        slot: KmType,
        frame: Pfn,
        map: impl FnOnce(usize) -> VirtAddr,
    ) -> VirtAddr {
        let mapped = &self.typed[slot as usize];
        mapped.put(CHANGING);
        let address = map(slot as usize);
        mapped.set(address, frame);
        address
    }

    /// Ends the mapping in the slot of a type, by `unmap`. By the slots' CPU.
    pub(crate) fn end_typed(&self, slot: KmType, unmap: impl FnOnce(usize)) {
        let mapped = &self.typed[slot as usize];
        mapped.put(CHANGING);
        unmap(slot as usize);
        mapped.put(NOTHING);
    }

    /// Maps a frame in the next nested slot, by `map`; `None` where all are taken. By the slots' CPU.
    pub(crate) fn begin_nested(
        &self,
        frame: Pfn,
        map: impl FnOnce(usize) -> VirtAddr,
    ) -> Option<VirtAddr> {
        // A handler that arrives before the store takes the same slot and has given it back; one that
        // arrives after it takes the next.
        let depth = self.depth.load(Relaxed);
        let mapped = self.nested.get(depth)?;
        self.set_depth(depth + 1);
        let address = map(KM_TYPE_NR + depth);
        mapped.set(address, frame);
        Some(address)
    }

    /// Ends the nested mapping at an address, by `unmap`: the latest, or another that lasts until now.
    /// By the slots' CPU.
    pub(crate) fn end_nested(&self, address: VirtAddr, unmap: impl FnOnce(usize)) -> Ended {
        let depth = self.depth.load(Relaxed);
        let at = |index: usize| self.nested.get(index).and_then(Mapped::get);
        let mut all = (0..depth).rev().filter_map(|index| Some((index, at(index)?)));
        let Some((index, (_, frame))) = all.find(|(_, (at, _))| *at == address) else {
            return Ended::NotThere;
        };
        unmap(KM_TYPE_NR + index);
        if index + 1 < depth {
            self.nested[index].put(GONE);
            // There is none only where this code interrupted the making of it.
            let (address, frame) =
                (index + 1..depth).rev().find_map(at).unwrap_or((address, frame));
            return Ended::Inner(address, frame);
        }
        // Those below that have ended already go with it, in one step: a handler in between finds
        // this slot still taken, and its own above it.
        let is_gone = |index: &usize| self.nested[*index].address.load(Relaxed) == GONE;
        let gone = (0..index).rev().take_while(is_gone).count();
        let left = index - gone;
        for index in (left..=index).rev() {
            self.nested[index].put(NOTHING);
        }
        self.set_depth(left);
        Ended::Latest
    }

    fn set_depth(&self, depth: usize) {
        compiler_fence(Ordering::SeqCst);
        self.depth.store(depth, Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// The frame that is mapped at an address, if one is. Any CPU.
    pub(crate) fn mapped_at(&self, address: VirtAddr) -> Option<Pfn> {
        let mut all = self.typed.iter().chain(&self.nested).filter_map(Mapped::get);
        all.find(|(at, _)| *at == address).map(|(_, frame)| frame)
    }

    /// How many mappings have not been ended. Any CPU.
    pub(crate) fn live(&self) -> u32 {
        self.typed.iter().chain(&self.nested).filter_map(Mapped::get).count() as u32
    }
}
