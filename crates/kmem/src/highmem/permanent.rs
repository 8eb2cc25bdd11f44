//! The slots of permanent mappings: which frame is in which, and how many use it.

use crate::Pfn;

/// No slot: the end of a list or chain.
const NONE: u16 = u16::MAX;
/// No frame: nothing looks for the slot.
const NO_FRAME: u32 = u32::MAX;

/// One slot.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    frame: u32,
    users: u32,
    /// The next slot of the same bucket.
    chain: u16,
    /// The neighbours on the list that the slot is on; free and retiring ones use `next` alone.
    prev: u16,
    next: u16,
}

impl Slot {
    /// A slot that nothing was ever mapped in.
    pub(crate) const EMPTY: Slot =
        Slot { frame: NO_FRAME, users: 0, chain: NONE, prev: NONE, next: NONE };
}

/// How many slots there are, and what they are doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KmapInfo {
    /// All slots: the most pages that are mapped at once (A270).
    pub slots: u32,
    /// Those whose page somebody has mapped.
    pub used: u32,
    /// Those whose page nobody has mapped any more, and which still show it.
    pub idle: u32,
    /// Those in which nothing is mapped.
    pub free: u32,
    /// How many callers wait for a slot.
    pub waiting: u32,
}

/// What became of a request for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// The frame is mapped in this slot, and the caller is one of its users.
    Mapped(u16),
    /// Nothing is mapped in this slot, which is the caller's until it is published or abandoned.
    Fresh(u16),
    /// No slot is free. Idle ones were set apart for the caller to unmap: [`PermanentMaps::retire`]
    /// until it answers none, then [`PermanentMaps::finish`].
    Flush,
    /// No slot is free, none is idle, or somebody unmaps those already. The caller is counted as
    /// one who waits until it says [`PermanentMaps::stop_waiting`].
    Wait,
    /// The frame has as many users as can be counted.
    TooMany,
}

/// The slots of permanent mappings.
///
/// # Invariants
///
/// * A slot is on the list of the free, on that of the idle, on that of the retiring, or on none: used,
///   or with somebody who maps a frame in it.
/// * A slot with a frame is in the bucket of that frame; no two have one frame. An idle slot without a
///   frame shows one that another slot has too.
/// * `used` slots have users.
pub(crate) struct PermanentMaps<'a> {
    slots: &'a mut [Slot],
    buckets: &'a mut [u16],
    free: u16,
    oldest_idle: u16,
    latest_idle: u16,
    retiring: u16,
    info: KmapInfo,
    flushing: bool,
}

impl<'a> PermanentMaps<'a> {
    /// How many buckets go with so many slots: chains are of length one on average at most.
    pub(crate) const fn buckets_for(slots: u32) -> usize {
        slots.next_power_of_two() as usize
    }

    /// Slots of which all are free. There are [`PermanentMaps::buckets_for`] buckets and fewer slots than
    /// [`NONE`].
    pub(crate) fn new(slots: &'a mut [Slot], buckets: &'a mut [u16]) -> Self {
        slots.fill(Slot::EMPTY);
        buckets.fill(NONE);
        let count = slots.len() as u32;
        let info = KmapInfo { slots: count, free: count, ..KmapInfo::default() };
        for (index, slot) in slots.iter_mut().enumerate().take(count.saturating_sub(1) as usize) {
            slot.next = index as u16 + 1;
        }
        let free = if count == 0 { NONE } else { 0 };
        let (oldest_idle, latest_idle, retiring) = (NONE, NONE, NONE);
        let flushing = false;
        PermanentMaps { slots, buckets, free, oldest_idle, latest_idle, retiring, info, flushing }
    }

    /// What the slots are doing.
    pub(crate) fn info(&self) -> KmapInfo {
        self.info
    }

    /// The slot that a frame is mapped in, if somebody has it mapped.
    pub(crate) fn find(&self, frame: Pfn) -> Option<u16> {
        let slot = self.lookup(frame)?;
        (self.at(slot).users > 0).then_some(slot)
    }

    /// The frame that is mapped in a slot, if somebody has it mapped.
    pub(crate) fn frame_in(&self, slot: u16) -> Option<Pfn> {
        let slot = self.slots.get(usize::from(slot)).filter(|slot| slot.users > 0)?;
        Some(Pfn::from_raw(slot.frame))
    }

    /// Makes the caller a user of a frame's mapping, or gives it a slot to map it in.
    pub(crate) fn acquire(&mut self, frame: Pfn) -> Acquired {
        if let Some(slot) = self.lookup(frame) {
            return self.use_once_more(slot);
        }
        if self.free != NONE {
            let slot = self.free;
            self.free = self.at(slot).next;
            self.info.free -= 1;
            return Acquired::Fresh(slot);
        }
        if self.info.idle > 0 && !self.flushing {
            self.flushing = true;
            return Acquired::Flush;
        }
        self.info.waiting += 1;
        Acquired::Wait
    }

    /// Says that a frame has been mapped in a fresh slot; answers the slot that the caller is a user of
    /// now. It is another one where somebody mapped the frame at the same moment; the caller's then
    /// waits among the idle ones.
    pub(crate) fn publish(&mut self, slot: u16, frame: Pfn) -> Acquired {
        if let Some(other) = self.lookup(frame) {
            self.make_idle(slot);
            return self.use_once_more(other);
        }
        let bucket = self.bucket(frame);
        let chain = self.buckets[bucket];
        self.buckets[bucket] = slot;
        *self.at_mut(slot) = Slot { frame: frame.raw(), users: 1, chain, prev: NONE, next: NONE };
        self.info.used += 1;
        Acquired::Mapped(slot)
    }

    /// Gives a fresh slot back in which nothing could be mapped.
    pub(crate) fn abandon(&mut self, slot: u16) {
        self.push_free(slot);
    }

    /// Ends one use of a frame's mapping. Answers how many are left; `None` where there was none.
    pub(crate) fn release(&mut self, frame: Pfn) -> Option<u32> {
        let slot = self.find(frame)?;
        let users = self.at(slot).users - 1;
        self.at_mut(slot).users = users;
        if users == 0 {
            self.info.used -= 1;
            self.make_idle(slot);
        }
        Some(users)
    }

    /// Takes idle slots, oldest first, as many as there is room for: nobody finds them any more, and
    /// they are the caller's to unmap. Answers how many.
    pub(crate) fn retire(&mut self, out: &mut [u16]) -> usize {
        debug_assert!(self.flushing);
        let mut count = 0;
        while count < out.len() && self.oldest_idle != NONE {
            let slot = self.oldest_idle;
            self.unlink_idle(slot);
            self.unhash(slot);
            *self.at_mut(slot) = Slot { next: self.retiring, ..Slot::EMPTY };
            self.retiring = slot;
            out[count] = slot;
            count += 1;
        }
        count
    }

    /// Says that what was retired has been unmapped and no CPU reaches it any more: the slots are
    /// free.
    pub(crate) fn finish(&mut self) {
        while self.retiring != NONE {
            let slot = self.retiring;
            self.retiring = self.at(slot).next;
            self.push_free(slot);
        }
        self.flushing = false;
    }

    /// Says that the caller, who was told to wait, does not any more.
    pub(crate) fn stop_waiting(&mut self) {
        self.info.waiting -= 1;
    }

    fn use_once_more(&mut self, slot: u16) -> Acquired {
        let Some(users) = self.at(slot).users.checked_add(1) else { return Acquired::TooMany };
        if users == 1 {
            self.unlink_idle(slot);
            self.info.used += 1;
        }
        self.at_mut(slot).users = users;
        Acquired::Mapped(slot)
    }

    fn at(&self, slot: u16) -> &Slot {
        &self.slots[usize::from(slot)]
    }

    fn at_mut(&mut self, slot: u16) -> &mut Slot {
        &mut self.slots[usize::from(slot)]
    }

    /// The bucket of a frame: a multiplication spreads neighbours, which are mapped together.
    fn bucket(&self, frame: Pfn) -> usize {
        let hash = u64::from(frame.raw()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The upper half of the product is the better one; there are at most 2^15 buckets.
        (hash >> 32) as usize & (self.buckets.len() - 1)
    }

    fn lookup(&self, frame: Pfn) -> Option<u16> {
        let mut slot = *self.buckets.get(self.bucket(frame))?;
        while slot != NONE {
            if self.at(slot).frame == frame.raw() {
                return Some(slot);
            }
            slot = self.at(slot).chain;
        }
        None
    }

    /// Takes a slot out of its bucket, if it is in one.
    fn unhash(&mut self, slot: u16) {
        let Slot { frame, chain, .. } = *self.at(slot);
        if frame == NO_FRAME {
            return;
        }
        let bucket = self.bucket(Pfn::from_raw(frame));
        let mut before = self.buckets[bucket];
        if before == slot {
            self.buckets[bucket] = chain;
            return;
        }
        while self.at(before).chain != slot {
            before = self.at(before).chain;
        }
        self.at_mut(before).chain = chain;
    }

    fn push_free(&mut self, slot: u16) {
        *self.at_mut(slot) = Slot { next: self.free, ..Slot::EMPTY };
        self.free = slot;
        self.info.free += 1;
    }

    fn make_idle(&mut self, slot: u16) {
        let before = self.latest_idle;
        self.latest_idle = slot;
        match before {
            NONE => self.oldest_idle = slot,
            before => self.at_mut(before).next = slot,
        }
        let slot = self.at_mut(slot);
        (slot.prev, slot.next) = (before, NONE);
        self.info.idle += 1;
    }

    fn unlink_idle(&mut self, slot: u16) {
        let Slot { prev, next, .. } = *self.at(slot);
        match prev {
            NONE => self.oldest_idle = next,
            prev => self.at_mut(prev).next = next,
        }
        match next {
            NONE => self.latest_idle = prev,
            next => self.at_mut(next).prev = prev,
        }
        self.info.idle -= 1;
    }
}

#[cfg(test)]
impl PermanentMaps<'_> {
    /// Has a slot have so many users.
    pub(crate) fn set_users(&mut self, slot: u16, users: u32) {
        self.at_mut(slot).users = users;
    }

    /// Whether every list and chain is as the invariants say.
    pub(crate) fn verify(&self) {
        let walk = |first: u16| {
            let mut slot = first;
            core::iter::from_fn(move || {
                let here = (slot != NONE).then_some(slot)?;
                slot = self.at(here).next;
                Some(here)
            })
        };
        let mut seen = std::vec![false; self.slots.len()];
        let mut mark = |slot: u16| {
            assert!(!std::mem::replace(&mut seen[usize::from(slot)], true), "a slot is twice");
        };
        let free = walk(self.free).inspect(|slot| mark(*slot)).count();
        let idle: std::vec::Vec<u16> = walk(self.oldest_idle).inspect(|slot| mark(*slot)).collect();
        walk(self.retiring).for_each(&mut mark);
        assert_eq!((free as u32, idle.len() as u32), (self.info.free, self.info.idle));
        assert_eq!(idle.last().copied().unwrap_or(NONE), self.latest_idle);
        assert!(idle.windows(2).all(|pair| self.at(pair[1]).prev == pair[0]));
        assert!(idle.iter().all(|slot| self.at(*slot).users == 0));
        let mut hashed = 0;
        for (bucket, first) in self.buckets.iter().enumerate() {
            let mut slot = *first;
            while slot != NONE {
                let frame = Pfn::from_raw(self.at(slot).frame);
                assert_eq!(self.bucket(frame), bucket);
                assert_eq!(self.lookup(frame), Some(slot), "two slots have one frame");
                hashed += 1;
                slot = self.at(slot).chain;
            }
        }
        let with_frame = self.slots.iter().filter(|slot| slot.frame != NO_FRAME).count();
        assert_eq!(hashed, with_frame);
        let used = self.slots.iter().filter(|slot| slot.users > 0).count();
        assert_eq!(used as u32, self.info.used);
    }
}
