//! Trace events, with the names and fields of Linux's `kmem` group.

use core::fmt;

use crate::{Gfp, Order, Pfn};

/// One event. What each field means is Linux's, so that tools which read Linux's traces read these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The first frame that the event is about, or `None` for an allocation that failed.
    pub pfn: Option<Pfn>,
    /// The order of the block.
    pub order: Order,
    /// The migrate type: 0 unmovable, 1 movable, 2 reclaimable.
    pub migrate_type: u8,
    /// What happened.
    pub kind: EventKind,
}

/// The events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// `mm_page_alloc`: a caller was given a block, or none.
    PageAlloc {
        /// The flags that the caller gave.
        gfp: Gfp,
    },
    /// `mm_page_alloc_zone_locked`: a block was taken from the free areas under the zone's lock.
    PageAllocZoneLocked {
        /// Whether it went to a per-CPU list and not to a caller.
        percpu_refill: bool,
    },
    /// `mm_page_alloc_extfrag`: a block of another migrate type was taken.
    PageAllocExtfrag {
        /// The order of the block it was taken from.
        fallback_order: Order,
        /// The migrate type that it had.
        fallback_migrate_type: u8,
        /// The order of a page block.
        page_block_order: Order,
        /// Whether the page block changed its type.
        change_ownership: bool,
    },
    /// `mm_page_free`: a caller gave a block back.
    PageFree,
    /// `mm_page_free_batched`: the same, for one page of many in one call.
    PageFreeBatched,
    /// `mm_page_pcpu_drain`: a block went from a per-CPU list to the free areas.
    PagePcpuDrain,
}

impl EventKind {
    /// Linux's name of the event, without the group `kmem:`.
    pub const fn name(&self) -> &'static str {
        match self {
            EventKind::PageAlloc { .. } => "mm_page_alloc",
            EventKind::PageAllocZoneLocked { .. } => "mm_page_alloc_zone_locked",
            EventKind::PageAllocExtfrag { .. } => "mm_page_alloc_extfrag",
            EventKind::PageFree => "mm_page_free",
            EventKind::PageFreeBatched => "mm_page_free_batched",
            EventKind::PagePcpuDrain => "mm_page_pcpu_drain",
        }
    }
}

/// Prints the event as Linux's trace files do, without the `page=` pointer, which means nothing
/// outside the kernel that printed it.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Linux prints an allocation that failed with frame number 0.
        let pfn = self.pfn.map_or(0, Pfn::number);
        write!(f, "{}: pfn={pfn:#x}", self.kind.name())?;
        match self.kind {
            EventKind::PageAllocExtfrag {
                fallback_order,
                fallback_migrate_type,
                page_block_order,
                change_ownership,
            } => write!(
                f,
                " alloc_order={} fallback_order={fallback_order} pageblock_order={page_block_order} \
                 alloc_migratetype={} fallback_migratetype={fallback_migrate_type} fragmenting={} \
                 change_ownership={}",
                self.order,
                self.migrate_type,
                u8::from(fallback_order < page_block_order),
                u8::from(change_ownership),
            ),
            EventKind::PageAlloc { gfp } => {
                write!(f, " order={} migratetype={} gfp_flags={gfp}", self.order, self.migrate_type)
            }
            EventKind::PageAllocZoneLocked { percpu_refill } => write!(
                f,
                " order={} migratetype={} percpu_refill={}",
                self.order,
                self.migrate_type,
                u8::from(percpu_refill)
            ),
            EventKind::PageFree | EventKind::PageFreeBatched => write!(f, " order={}", self.order),
            EventKind::PagePcpuDrain => {
                write!(f, " order={} migratetype={}", self.order, self.migrate_type)
            }
        }
    }
}
