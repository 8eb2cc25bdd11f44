//! The rings of one CPU for one zone.

use super::tune::{ORDERS, PCP_LARGEST, PcpSize, SLOTS, SLOTS_OF_SET, SLOTS_OF_TYPE};
use crate::page::MigrateType;
use crate::{Order, Pfn};

/// The ends of one ring.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// Where its slots begin in the set.
    first: u32,
    /// The number of slots, less one; the number is a power of two.
    mask: u32,
    /// The slot of the coldest entry, counted without wrapping.
    cold: u32,
    /// How many entries there are.
    len: u32,
    high: u32,
    batch: u32,
}

const NO_RING: Ring = Ring { first: 0, mask: 0, cold: 0, len: 0, high: 0, batch: 0 };

const _: () = {
    let mut order = 0;
    while order < ORDERS {
        assert!(SLOTS[order].is_power_of_two());
        order += 1;
    }
};

impl Ring {
    #[inline]
    fn slot(&self, position: u32) -> usize {
        (self.first + (position & self.mask)) as usize
    }

    /// How many blocks there are.
    #[inline]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a push fails.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len >= self.high
    }

    /// The most blocks there may be.
    #[cfg(test)]
    pub fn high(&self) -> u32 {
        self.high
    }

    /// How many move at once.
    #[inline]
    pub fn batch(&self) -> u32 {
        self.batch
    }
}

/// The free blocks that one CPU keeps of one zone. The folder's theory has its picture and
/// invariants.
pub struct PageSet {
    rings: [Ring; ORDERS * MigrateType::COUNT],
    slots: [u32; SLOTS_OF_SET],
}

/// The rings of one migrate type in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingGroup {
    first: u32,
}

impl RingGroup {
    /// The rings of a migrate type.
    #[inline]
    pub const fn of(migrate_type: MigrateType) -> RingGroup {
        RingGroup { first: (migrate_type.index() * ORDERS) as u32 }
    }

    /// The ring of an order up to [`PCP_LARGEST`].
    #[inline]
    const fn ring(self, order: Order) -> usize {
        debug_assert!(order.index() < ORDERS);
        self.first as usize + order.index()
    }
}

/// Which ring: an order up to [`PCP_LARGEST`] and a migrate type.
#[inline]
const fn ring_of(order: Order, migrate_type: MigrateType) -> usize {
    RingGroup::of(migrate_type).ring(order)
}

impl PageSet {
    /// An empty set whose rings hold nothing: every push fails.
    pub const fn new() -> PageSet {
        PageSet { rings: [NO_RING; ORDERS * MigrateType::COUNT], slots: [0; SLOTS_OF_SET] }
    }

    /// Gives empty rings their place and size.
    pub fn resize(&mut self, size: PcpSize) {
        for migrate_type in MigrateType::ALL {
            let mut first = migrate_type.index() * SLOTS_OF_TYPE;
            for (order, slots) in SLOTS.into_iter().enumerate() {
                let (high, batch) = size.of_order(order);
                self.rings[migrate_type.index() * ORDERS + order] = Ring {
                    first: first as u32,
                    mask: (slots - 1) as u32,
                    cold: 0,
                    len: 0,
                    high,
                    batch,
                };
                first += slots;
            }
        }
    }

    /// The ring of an order and type; orders above [`PCP_LARGEST`] have none.
    #[inline]
    pub fn ring(&self, order: Order, migrate_type: MigrateType) -> Option<&Ring> {
        if order > PCP_LARGEST { None } else { self.rings.get(ring_of(order, migrate_type)) }
    }

    /// Takes the hottest block.
    #[inline]
    pub fn pop_hot(&mut self, order: Order, migrate_type: MigrateType) -> Option<Pfn> {
        let ring = self.rings.get_mut(ring_of(order, migrate_type))?;
        if ring.len == 0 {
            return None;
        }
        ring.len -= 1;
        let slot = ring.slot(ring.cold.wrapping_add(ring.len));
        Some(Pfn::from_raw(self.slots[slot]))
    }

    /// Takes the coldest block.
    pub fn pop_cold(&mut self, order: Order, migrate_type: MigrateType) -> Option<Pfn> {
        let ring = self.rings.get_mut(ring_of(order, migrate_type))?;
        if ring.len == 0 {
            return None;
        }
        let slot = ring.slot(ring.cold);
        ring.cold = ring.cold.wrapping_add(1);
        ring.len -= 1;
        Some(Pfn::from_raw(self.slots[slot]))
    }

    /// Puts a block on the hot end. `false` where the ring is at its high mark.
    #[inline]
    pub fn push_hot(&mut self, order: Order, migrate_type: MigrateType, pfn: Pfn) -> bool {
        self.push_hot_in(order, RingGroup::of(migrate_type), pfn)
    }

    /// As [`PageSet::push_hot`], for code that knows the rings.
    #[inline]
    pub fn push_hot_in(&mut self, order: Order, group: RingGroup, pfn: Pfn) -> bool {
        let Some(ring) = self.rings.get_mut(group.ring(order)) else { return false };
        if ring.is_full() {
            return false;
        }
        let slot = ring.slot(ring.cold.wrapping_add(ring.len));
        ring.len += 1;
        self.slots[slot] = pfn.raw();
        true
    }

    /// Puts a block on the cold end. `false` where the ring is at its high mark.
    pub fn push_cold(&mut self, order: Order, migrate_type: MigrateType, pfn: Pfn) -> bool {
        let Some(ring) = self.rings.get_mut(ring_of(order, migrate_type)) else { return false };
        if ring.is_full() {
            return false;
        }
        ring.cold = ring.cold.wrapping_sub(1);
        let slot = ring.slot(ring.cold);
        ring.len += 1;
        self.slots[slot] = pfn.raw();
        true
    }

    /// How many pages all rings hold.
    #[cfg(test)]
    pub fn pages(&self) -> u64 {
        let orders = self.rings.iter().enumerate();
        orders.map(|(ring, ends)| u64::from(ends.len) << (ring % ORDERS)).sum()
    }

    /// Every ring's order and type.
    pub fn kinds() -> impl Iterator<Item = (Order, MigrateType)> {
        (0..ORDERS).flat_map(|order| {
            MigrateType::ALL.map(|migrate_type| (Order::from_raw(order as u8), migrate_type))
        })
    }
}

impl Default for PageSet {
    fn default() -> Self {
        Self::new()
    }
}
