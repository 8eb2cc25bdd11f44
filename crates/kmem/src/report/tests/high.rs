//! A machine whose direct map ends before its RAM does.

use std::format;

use super::*;
use crate::platform::{Context, Cpus, DirectMap, Hooks, Level, Misuse, TemporaryMap};
use crate::{CpuId, Pfn, VirtAddr, ZoneKind};

/// A [`Desk`] that calls all RAM from 32 MiB on high.
struct HighDesk<'r>(Desk<'r>);

// SAFETY: as the desk's.
unsafe impl Cpus for HighDesk<'_> {
    fn pin(&self) {
        self.0.pin();
    }

    fn unpin(&self) {
        self.0.unpin();
    }

    fn current(&self) -> CpuId {
        self.0.current()
    }
}

// SAFETY: as the desk's.
unsafe impl<'r> Context for HighDesk<'r> {
    type Saved = <Desk<'r> as Context>::Saved;

    fn mask(&self) -> Self::Saved {
        self.0.mask()
    }

    fn restore(&self, saved: Self::Saved) {
        self.0.restore(saved);
    }

    fn in_atomic(&self) -> bool {
        self.0.in_atomic()
    }

    fn in_nmi(&self) -> bool {
        self.0.in_nmi()
    }
}

// SAFETY: a part of the desk's.
unsafe impl DirectMap for HighDesk<'_> {
    fn base(&self) -> VirtAddr {
        self.0.base()
    }

    fn limit(&self) -> PhysAddr {
        PhysAddr::new(32 * MIB)
    }

    fn temporary_map(&self) -> Option<&dyn TemporaryMap> {
        Some(self)
    }
}

// SAFETY: the desk sees all of its RAM at all times.
unsafe impl TemporaryMap for HighDesk<'_> {
    fn map(&self, frame: Pfn, _: usize) -> VirtAddr {
        self.0.pin();
        self.0.phys_to_virt(frame.start(12)).unwrap()
    }

    unsafe fn unmap(&self, _: VirtAddr, _: usize) {
        self.0.unpin();
    }
}

impl Hooks for HighDesk<'_> {
    fn log(&self, level: Level, message: core::fmt::Arguments<'_>) {
        self.0.log(level, message);
    }

    fn misuse(&self, report: &Misuse<'_>) {
        self.0.misuse(report);
    }
}

// A020, A035: high memory has its four lines, its zone and its counter.
#[test]
fn high_memory_is_counted_apart() {
    let mut ram = ram(64 * MIB);
    // SAFETY: one thread uses it.
    let mm = Mm::new(HighDesk(unsafe { Desk::new(&mut ram) }));
    let map = MemoryMap::new().ram(0..64 * MIB, NodeId::ZERO);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &Setup::new().movable(NodeId::ZERO, 16 * MIB)).unwrap() };
    let low = mm.alloc_pages(GFP_KERNEL, 4).unwrap();
    let high = mm.alloc_pages(crate::GFP_HIGHUSER, 0).unwrap();
    assert_eq!(mm.page_zone(high).map(|zone| zone.kind()), Some(ZoneKind::HighMem));

    let text = text!(meminfo, &mm);
    let names = [
        "MemTotal:     ",
        "MemFree:      ",
        "MemAvailable: ",
        "HighTotal:    ",
        "HighFree:     ",
        "LowTotal:     ",
        "LowFree:      ",
        "Slab:         ",
        "SReclaimable: ",
        "SUnreclaim:   ",
        "KernelStack:  ",
    ];
    assert_shape(&text, &names.map(|name| format!("{name}  ######## kB")));
    // The zones HighMem and Movable both lie above the direct map; no table does.
    assert_eq!(value(&text, "HighTotal"), 32 << 10);
    assert_eq!(value(&text, "HighFree"), (32 << 10) - 4);
    assert_eq!(value(&text, "LowTotal"), value(&text, "MemTotal") - (32 << 10));
    assert_eq!(value(&text, "LowFree"), value(&text, "LowTotal") - 64);
    assert_eq!(value(&text, "MemFree"), value(&text, "HighFree") + value(&text, "LowFree"));
    assert_eq!(value(&text!(vmstat, &mm), "pgalloc_high"), 1);
    assert!(text!(buddyinfo, &mm).contains("\nNode 0, zone  HighMem "));
    assert!(text!(zoneinfo, &mm).contains("\nNode 0, zone  HighMem\n"));
    // SAFETY: both were allocated above.
    unsafe {
        mm.__free_pages(low, 4);
        mm.__free_pages(high, 0);
    }
}
