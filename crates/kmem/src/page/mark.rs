//! Where a used block is: with a caller, or free on a CPU's page lists.

use crate::sync::atomic::{AtomicU16, Ordering};
use crate::{CpuId, MAX_CPUS};

/// Where a block that is out of the free areas is, in two bytes of its descriptor.
///
/// Whoever frees a block looks that it is [`Place::Held`] and writes its own CPU's number; whoever
/// takes a block from its CPU's lists looks that the number is its own and writes *held*. Plain
/// loads and stores: no locked instruction on the way.
///
/// # Why that is enough
///
/// * A second free after the first is visible sees that the block is not held: found at the call.
/// * Two CPUs that free one block at one moment may both see *held*. Both put it on their lists,
///   but the mark has one value in the end. When it is *a*, CPU *b* finds another's number when it
///   takes its entry, and drops it: found at the latest when it would be handed out again. Each free
///   writes one mark, each hand-out uses one up, so the block is never handed out for two entries.
/// * A store that is late (the CPU was interrupted between its look and its store) can meet a block
///   that has gone back to the free areas. It spoils only the mark, which the free areas do not
///   read; *block*, which they do, says that the frame is free, and the entry is dropped when it
///   is taken. When the block leaves the free areas again its mark is written first, so nobody sees
///   it used with the spoilt one. A store so late that the block has been handed out to somebody else is a free after
///   reuse, which nobody can tell from a right one.
pub struct Mark(AtomicU16);

/// Where a used block is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// With a caller.
    Held,
    /// Free, on the lists of this CPU.
    OnLists(CpuId),
    /// Free, put aside until somebody takes the zone's lock.
    PutAside,
}

// CPU numbers, plus one, lie between the two other values.
const _: () = assert!(MAX_CPUS < u16::MAX as usize);

impl Mark {
    const HELD: u16 = 0;
    const PUT_ASIDE: u16 = u16::MAX;

    const fn of(cpu: CpuId) -> u16 {
        cpu.get() as u16 + 1
    }

    /// A mark of a block that is held.
    #[cfg(not(loom))]
    pub const fn new() -> Mark {
        Mark(AtomicU16::new(Self::HELD))
    }

    /// A mark of a block that is held.
    #[cfg(loom)]
    pub fn new() -> Mark {
        Mark(AtomicU16::new(Self::HELD))
    }

    /// What it says.
    #[inline]
    pub fn place(&self) -> Place {
        match self.0.load(Ordering::Relaxed) {
            Self::HELD => Place::Held,
            Self::PUT_ASIDE => Place::PutAside,
            cpu => match CpuId::new(u32::from(cpu) - 1) {
                Some(cpu) => Place::OnLists(cpu),
                None => Place::Held,
            },
        }
    }

    /// Whether the block is with a caller.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::HELD
    }

    /// Whether the block is on this CPU's lists, by the last store that has become visible.
    #[inline]
    pub fn is_on_lists_of(&self, cpu: CpuId) -> bool {
        self.0.load(Ordering::Relaxed) == Self::of(cpu)
    }

    /// Says that the block is on a CPU's lists.
    #[inline]
    pub fn set_on_lists(&self, cpu: CpuId) {
        self.0.store(Self::of(cpu), Ordering::Relaxed);
    }

    /// Says that the block is put aside, if it is with a caller; answers whether it was. Of two
    /// CPUs that do this at one moment, one is answered `true`: a block is put aside once.
    #[inline]
    pub fn put_aside(&self) -> bool {
        // Relaxed: what the block holds is passed on by the lock under which it is taken again.
        let (from, to) = (Self::HELD, Self::PUT_ASIDE);
        self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Says that the block is with a caller.
    #[inline]
    pub fn set_held(&self) {
        self.0.store(Self::HELD, Ordering::Relaxed);
    }
}

impl Default for Mark {
    fn default() -> Self {
        Self::new()
    }
}
