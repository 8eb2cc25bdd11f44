//! What boot makes of a map, at its edges: the direct map's limits, address 0, late memory, reserves.

mod common;

use std::fmt;

use common::{CPU, Machine, Rig, settle};
use kmem::platform::desk::Desk;
use kmem::platform::{Context, Cpus, DirectMap, Hooks, Level, Misuse};
use kmem::*;

const MIB: u64 = 1 << 20;
/// Takes whatever there is, and does not complain.
const ALL: Gfp = GFP_KERNEL.union(Gfp::MEMALLOC).union(Gfp::NOWARN);

fn boot(mm: &Machine, map: &MemoryMap, setup: &Setup) {
    // SAFETY: the RAM is the test's, for this manager alone.
    unsafe { mm.boot(map, setup) }.unwrap();
}

fn held(mm: &Machine, gfp: Gfp) -> Vec<Page> {
    std::iter::from_fn(|| mm.alloc_page(gfp).ok()).collect()
}

fn release(mm: &Machine, pages: Vec<Page>) {
    pages.into_iter().for_each(|page| common::free(mm, page, 0));
}

/// Where the direct map ends in the middle of what devices reach, blocks with an address lie on this
/// side of the limit with all of their pages, and all memory on this side can be had.
///
/// A010, A014, A020, A035, A073
#[test]
fn no_block_with_an_address_reaches_beyond_the_direct_map() {
    for (pages, bytes) in [(3, 0), (3, 100), (5, 4095), (0, 0)] {
        let limit = 32 * MIB + (pages << 12) + bytes;
        let mm: Machine = Mm::new(Rig::with_direct(64 << 20, limit as usize));
        let map = MemoryMap::new().ram(0..64 * MIB, NodeId::ZERO).mapped(0..16 * MIB);
        boot(&mm, &map, &Setup::new().dma32_limit(PhysAddr::new(64 * MIB)));
        let before = settle(&mm);
        let end = limit >> 12;
        for order in [10, 6, 3, 1, 0] {
            let mut blocks = Vec::new();
            for gfp in [Gfp::DMA32, Gfp::NONE] {
                while let Ok(block) = mm.pages(ALL | gfp, order) {
                    let last = block.page().pfn().number() + (1 << order);
                    assert!(last <= end, "order {order}: up to {last:#x}, mapped to {end:#x}");
                    blocks.push(block);
                }
            }
            if order == 0 {
                let got = blocks.len() as u64;
                let low = mm.zones().iter().filter(|zone| zone.kind() != ZoneKind::HighMem);
                assert_eq!(got, low.map(Zone::managed_pages).sum::<u64>(), "limit {limit:#x}");
            }
        }
        // What lies beyond is high memory: to be had, without an address.
        let high = held(&mm, ALL | Gfp::HIGHMEM);
        assert!(!high.is_empty());
        for page in &high {
            let beyond = page.pfn().number() >= end;
            assert_eq!(mm.page_address(*page).is_none(), beyond, "{page:?}");
        }
        release(&mm, high);
        assert_eq!(settle(&mm), before);
    }
}

/// A platform whose addresses are the physical ones.
struct Identity<'r>(Desk<'r, 16>);

// SAFETY: as the desk's.
unsafe impl Cpus for Identity<'_> {
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
unsafe impl Context for Identity<'_> {
    type Saved = bool;

    fn mask(&self) -> bool {
        self.0.mask()
    }

    fn restore(&self, saved: bool) {
        self.0.restore(saved);
    }

    fn in_atomic(&self) -> bool {
        self.0.in_atomic()
    }

    fn in_nmi(&self) -> bool {
        false
    }
}

// SAFETY: what the test's map calls RAM is the desk's slice, and the frame at 0, which is not to be
// handed out.
unsafe impl DirectMap for Identity<'_> {
    const PAGE_SHIFT: u32 = 16;

    fn base(&self) -> VirtAddr {
        VirtAddr::new(0)
    }

    fn limit(&self) -> PhysAddr {
        PhysAddr::new(1 << 47)
    }
}

impl Hooks for Identity<'_> {
    fn log(&self, _: Level, _: fmt::Arguments<'_>) {}

    fn misuse(&self, report: &Misuse<'_>) {
        panic!("{report}");
    }
}

/// Address 0 says "none", so the frame that would be seen there is nobody's.
///
/// A015, A065
#[test]
fn the_frame_at_address_0_is_not_handed_out() {
    let mut ram = vec![0; 33 << 20];
    let start = (ram.as_mut_ptr().expose_provenance() as u64).next_multiple_of(1 << 16);
    // SAFETY: one thread uses it.
    let mm = Mm::new(Identity(unsafe { Desk::new(&mut ram) }));
    let map =
        MemoryMap::new().ram(0..2 << 16, NodeId::ZERO).ram(start..start + (32 << 20), NodeId::ZERO);
    // SAFETY: the RAM is the test's, but for two frames, which it does not touch.
    unsafe { mm.boot(&map, &Setup::new()) }.unwrap();
    assert_eq!(mm.owner(Pfn::new(0).unwrap()), Owner::Reserved);
    let mut got = 0;
    while let Ok(address) = mm.__get_free_page(ALL) {
        assert_ne!(address.get(), 0);
        got += 1;
    }
    assert_eq!(got, mm.managed_pages());
    assert_eq!(mm.free_page_count(), 0);
    mm.verify().unwrap();
}

/// Memory of a zone that is empty until late memory is released is there for all afterwards.
///
/// A022, A036, A044
#[test]
fn a_zone_that_is_wholly_late_is_used_once_it_is_released() {
    let one = NodeId::new(1).unwrap();
    let mm: Machine = Mm::new(Rig::new(48 << 20));
    let map = MemoryMap::new()
        .ram(0..24 * MIB, NodeId::ZERO)
        .ram(24 * MIB..48 * MIB, one)
        .late(0..8 * MIB)
        .late(24 * MIB..48 * MIB);
    let setup = Setup::new().cpus(2).cpu_node(CpuId::new(1).unwrap(), one);
    boot(&mm, &map, &setup.dma_limit(PhysAddr::new(8 * MIB)));
    mm.cpu_online(CpuId::new(1).unwrap()).unwrap();
    let here = ALL | Gfp::THISNODE;
    assert!(mm.alloc_page(ALL | Gfp::DMA).is_err());
    assert!(mm.alloc_pages_node(Some(one), here, 0).is_err());
    for late in [0..8 * MIB, 24 * MIB..48 * MIB] {
        let range = PhysAddr::new(late.start)..PhysAddr::new(late.end);
        // SAFETY: nobody uses the range.
        let released = unsafe { mm.release_late(range.clone()) };
        assert_eq!(released, Ok((late.end - late.start) >> 12));
        // SAFETY: as above.
        assert!(matches!(unsafe { mm.release_late(range) }, Err(ReleaseError::NotLate(_))));
    }
    let before = settle(&mm);
    let dma = held(&mm, ALL | Gfp::DMA);
    assert_eq!(dma.len() as u64, (8 * MIB) >> 12);
    release(&mm, dma);
    CPU.with(|cpu| cpu.number.set(1));
    let local: Vec<Page> = std::iter::from_fn(|| mm.alloc_page(here).ok()).collect();
    assert_eq!(local.len() as u64, (24 * MIB) >> 12);
    release(&mm, local);
    assert!(mm.listed_pages() > 0, "the zone has lists too");
    mm.drain_local_pages();
    CPU.with(|cpu| cpu.number.set(0));
    assert_eq!(settle(&mm), before);
    let zone = mm.zone(one, ZoneKind::Normal).unwrap();
    assert!(zone.watermarks().min > 0, "and marks");
}

/// Only what was described as late is released, once, and while it is reserved.
///
/// A039
#[test]
fn what_is_not_late_is_not_released() {
    let mm: Machine = Mm::new(Rig::new(16 << 20));
    let map = MemoryMap::new()
        .ram(0..16 * MIB, NodeId::ZERO)
        .late(4 * MIB..5 * MIB)
        .reserved(5 * MIB..6 * MIB, "firmware")
        .kernel(6 * MIB..7 * MIB, "kernel");
    boot(&mm, &map, &Setup::new());
    let managed = mm.managed_pages();
    let free = settle(&mm);
    let refused = [(3, 5), (5, 6), (6, 7), (4, 6), (8, 9), (15, 18), (100, 101)];
    for (start, end) in refused {
        let range = PhysAddr::new(start * MIB)..PhysAddr::new(end * MIB);
        // SAFETY: refused.
        let released = unsafe { mm.release_late(range) };
        assert!(matches!(released, Err(ReleaseError::NotLate(_))), "{start} to {end}");
    }
    // SAFETY: refused: not one whole frame.
    let released =
        unsafe { mm.release_late(PhysAddr::new(4 * MIB + 1)..PhysAddr::new(4 * MIB + 8000)) };
    assert_eq!(released, Err(ReleaseError::Empty));
    assert_eq!((mm.managed_pages(), settle(&mm)), (managed, free));
    let late = PhysAddr::new(4 * MIB)..PhysAddr::new(5 * MIB);
    // SAFETY: nobody uses it.
    assert_eq!(unsafe { mm.release_late(late.clone()) }, Ok(256));
    // A page of it that somebody has is not late any more.
    let pages = held(&mm, ALL);
    // SAFETY: refused.
    assert!(matches!(unsafe { mm.release_late(late) }, Err(ReleaseError::NotLate(_))));
    release(&mm, pages);
    mm.verify().unwrap();
}

/// However much is to be kept back, a zone keeps at most a quarter, and what is asked for is not
/// taken for less.
///
/// A026, A139
#[test]
fn no_reserve_is_too_large_to_be_meant() {
    let marks = |kilobytes: u64| {
        let mm: Machine = Mm::new(Rig::new(16 << 20));
        let setup = Setup::new().dma_limit(PhysAddr::new(MIB)).min_free_kbytes(kilobytes);
        boot(&mm, &MemoryMap::new().ram(0..16 * MIB, NodeId::ZERO), &setup);
        let marks: Vec<u64> = mm.zones().iter().map(|zone| zone.watermarks().min).collect();
        let quarters: Vec<u64> = mm.zones().iter().map(|zone| zone.managed_pages() / 4).collect();
        assert!(mm.alloc_page(GFP_KERNEL).is_ok(), "{kilobytes} leave nothing");
        (marks, quarters)
    };
    for kilobytes in [16 << 10, 1 << 30, 1 << 53, 1 << 54, u64::MAX >> 10, u64::MAX] {
        let (marks, quarters) = marks(kilobytes);
        assert_eq!(marks, quarters, "{kilobytes}");
    }
    assert!(marks(1024).0.iter().sum::<u64>() <= 256);
}
