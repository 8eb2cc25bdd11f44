//! The free lists at a moment, to see whether they are the same later.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kmem::{Mm, Order, Platform, Reclaim};

use crate::Count;

/// How many free blocks of each order each zone has.
///
/// Blocks always merge as far as they can, so the same pages being free means the same counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeLists {
    zones: Vec<ZoneLists>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ZoneLists {
    node: u32,
    zone: &'static str,
    blocks: Vec<u64>,
}

impl FreeLists {
    /// Has all stacks that are kept, and all areas that wait to be unmapped, given back; shrinks all caches,
    /// drains the per-CPU lists of all CPUs, and looks.
    ///
    /// It means something only while nothing else allocates or frees, and where what kmalloc keeps for
    /// itself on each CPU is the same both times.
    pub fn take<P: Platform, R: Reclaim>(mm: &Mm<P, R>) -> Self {
        mm.drain_stacks();
        mm.vm_unmap_aliases();
        // A slab that goes may give its record back to a cache that has been shrunk before.
        while mm.shrink_caches() > 0 {}
        mm.drain_all_pages();
        let orders = || (0..=mm.largest_order().get()).filter_map(Order::new);
        let zones = mm.zones().iter().filter(|zone| zone.is_populated());
        FreeLists {
            zones: zones
                .map(|zone| ZoneLists {
                    node: zone.node().get(),
                    zone: zone.name(),
                    blocks: orders().map(|order| mm.free_blocks(zone, order)).collect(),
                })
                .collect(),
        }
    }

    /// What is different in `later`, in one line: the first difference, and how many pages are
    /// missing or too many in all.
    pub fn difference(&self, later: &FreeLists) -> Option<String> {
        if self == later {
            return None;
        }
        let (before, after) = (self.pages(), later.pages());
        let balance = if after < before {
            format!("{} missing", Count(before - after, "page"))
        } else {
            format!("{} too many", Count(after - before, "page"))
        };
        for (a, b) in self.zones.iter().zip(&later.zones) {
            for (order, (before, after)) in a.blocks.iter().zip(&b.blocks).enumerate() {
                if before != after {
                    return Some(format!(
                        "Node {}, zone {}, order {order}: {} before, {after} now; {balance}",
                        a.node,
                        a.zone,
                        Count(*before, "free block")
                    ));
                }
            }
        }
        Some(balance)
    }

    /// How many pages are on the lists.
    pub fn pages(&self) -> u64 {
        let blocks = self.zones.iter().flat_map(|zone| zone.blocks.iter().enumerate());
        blocks.map(|(order, count)| count << order).sum()
    }
}
