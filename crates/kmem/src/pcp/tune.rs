//! The sizes of the per-CPU lists.

use crate::Order;
use crate::page::MigrateType;

/// The largest order that the per-CPU lists hold. Kernel stacks, slabs and network buffers are up to
/// this; larger blocks are rare and a few of them would be much memory to hold idle.
pub const PCP_LARGEST: Order = Order::from_raw(3);

/// How many orders that is.
pub(super) const ORDERS: usize = PCP_LARGEST.index() + 1;

/// Slots for each order. 256 pages are 1 MiB at 4 KiB: as much as a second-level cache, so that
/// what is freed and allocated again within one is not carried to the zone and back.
/// 64 blocks of 2, and 32 of 4 and 8 pages, hold 0.5 to 1 MiB likewise.
pub(super) const SLOTS: [usize; ORDERS] = [256, 64, 32, 32];

/// Slots of all orders together, of one migrate type.
pub(super) const SLOTS_OF_TYPE: usize = SLOTS[0] + SLOTS[1] + SLOTS[2] + SLOTS[3];

/// Slots of a page set: 4.5 KiB of frame numbers.
pub(super) const SLOTS_OF_SET: usize = SLOTS_OF_TYPE * MigrateType::COUNT;

/// How full a page set's rings may get, and how much moves at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcpSize {
    /// The most blocks of order 0 in one ring.
    pub high: u32,
    /// How many blocks of order 0 move to or from the zone at once.
    pub batch: u32,
}

impl PcpSize {
    /// No per-CPU lists: every call goes to the zone.
    pub const NONE: PcpSize = PcpSize { high: 0, batch: 0 };

    /// The size for a zone with `managed` pages shared by `cpus` CPUs.
    ///
    /// All CPUs' order-0 rings of one type together hold at most a 32nd of the zone, and each larger
    /// order's half as many pages or as many, so that a small zone does not end up on lists that
    /// other CPUs cannot reach: usually one type is in use, and then less than an eighth is. With two
    /// CPUs, the 16 MiB of a DMA zone get 64 slots, a zone from 64 MiB on all 256. A batch is a
    /// quarter: one taking of the lock for 64 pages on a large zone.
    pub fn for_zone(managed: u64, cpus: u32) -> PcpSize {
        let share = managed / 32 / u64::from(cpus.max(1));
        let high = share.min(SLOTS[0] as u64) as u32;
        // Below four blocks a list only moves pages back and forth.
        if high < 4 { Self::NONE } else { PcpSize { high, batch: high / 4 } }
    }

    /// The most pages that all rings of a set hold.
    pub fn capacity(self) -> u64 {
        let pages = |order: usize| u64::from(self.of_order(order).0) << order;
        (0..ORDERS).map(pages).sum::<u64>() * MigrateType::COUNT as u64
    }

    /// High mark and batch of an order's ring: in proportion to its slots.
    pub(super) fn of_order(self, order: usize) -> (u32, u32) {
        let scale = |blocks: u32| (blocks as usize * SLOTS[order] / SLOTS[0]) as u32;
        let high = scale(self.high);
        (high, if high == 0 { 0 } else { (high / 4).max(1) })
    }
}
