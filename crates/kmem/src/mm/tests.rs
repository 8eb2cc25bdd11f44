//! What a race of two CPUs leaves behind, made by hand: the race itself is the integration tests'.

use core::fmt;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::boxed::Box;
use std::sync::Mutex;
use std::vec::Vec;

use super::Mm;
use crate::platform::desk::Desk;
use crate::platform::{Context, Cpus, DirectMap, Hooks, Level, Misuse, MisuseKind};
use crate::{CpuId, GFP_KERNEL, Gfp, MemoryMap, NodeId, Page, PhysAddr, Setup, VirtAddr};

/// A desk that says which of its CPUs it is as it is told.
struct Cpu<'r> {
    desk: Desk<'r>,
    number: AtomicU32,
    reports: Mutex<Vec<MisuseKind>>,
}

// SAFETY: there is one thread; no code runs as two CPUs at once.
unsafe impl Cpus for Cpu<'_> {
    fn pin(&self) {
        self.desk.pin();
    }

    fn unpin(&self) {
        self.desk.unpin();
    }

    fn current(&self) -> CpuId {
        CpuId::new(self.number.load(Relaxed)).unwrap()
    }
}

// SAFETY: as the desk's.
unsafe impl Context for Cpu<'_> {
    type Saved = bool;

    fn mask(&self) -> bool {
        self.desk.mask()
    }

    fn restore(&self, saved: bool) {
        self.desk.restore(saved);
    }

    fn in_atomic(&self) -> bool {
        self.desk.in_atomic()
    }

    fn in_nmi(&self) -> bool {
        false
    }
}

// SAFETY: as the desk's.
unsafe impl DirectMap for Cpu<'_> {
    fn base(&self) -> VirtAddr {
        self.desk.base()
    }

    fn limit(&self) -> PhysAddr {
        self.desk.limit()
    }
}

impl Hooks for Cpu<'_> {
    fn log(&self, _: Level, _: fmt::Arguments<'_>) {}

    fn misuse(&self, report: &Misuse<'_>) {
        self.reports.lock().unwrap().push(report.kind);
    }
}

impl Mm<Cpu<'_>> {
    fn as_cpu<T>(&self, number: u32, work: impl FnOnce() -> T) -> T {
        let before = self.platform.number.swap(number, Relaxed);
        let result = work();
        self.platform.number.store(before, Relaxed);
        result
    }

    fn reports(&self) -> Vec<MisuseKind> {
        core::mem::take(&mut self.platform.reports.lock().unwrap())
    }

    /// CPU 1 frees a block, then CPU 0 does, which has looked at it before.
    fn free_on_both(&self, page: Page, order: u32) {
        // SAFETY: wrong on purpose; nothing uses the block's memory.
        self.as_cpu(1, || unsafe { self.__free_pages(page, order) });
        let descriptor = self.descriptor(page).unwrap();
        // What CPU 0 has seen: a block that is held, with one reference.
        descriptor.mark().set_held();
        descriptor.set_count(1);
        // SAFETY: as above.
        unsafe { self.__free_pages(page, order) };
        assert_eq!(self.reports(), []);
    }
}

/// The list of CPU 1 has an entry that is not good: however it leaves the list, it is reported once,
/// and the block is handed out for the entry of CPU 0 alone.
///
/// A062, A063
#[test]
fn an_entry_that_is_not_good_is_found_wherever_it_leaves_the_list() {
    type Leave = for<'r> fn(&Mm<Cpu<'r>>, u32) -> Option<Page>;
    fn alloc(mm: &Mm<Cpu<'_>>, gfp: Gfp, order: u32) -> Option<Page> {
        mm.as_cpu(1, || mm.alloc_pages(gfp, order).ok())
    }
    let ways: [Leave; 4] = [
        |mm, order| alloc(mm, GFP_KERNEL, order),
        |mm, order| alloc(mm, GFP_KERNEL | Gfp::COLD, order),
        |mm, _| {
            mm.as_cpu(1, || mm.drain_local_pages());
            None
        },
        |mm, _| {
            mm.cpu_offline(CpuId::new(1).unwrap()).unwrap();
            None
        },
    ];
    for (way, leave) in ways.into_iter().enumerate() {
        for order in 0..=3 {
            let mut ram = Box::new_uninit_slice(17 << 20);
            for byte in &mut ram {
                *byte = MaybeUninit::new(0);
            }
            // SAFETY: one thread uses it.
            let desk = unsafe { Desk::new(&mut ram) };
            let (number, reports) = (AtomicU32::new(0), Mutex::default());
            let mm = Mm::new(Cpu { desk, number, reports });
            let map = MemoryMap::new().ram(0..16 << 20, NodeId::ZERO);
            mm.boot(map, Setup::new().cpus(2)).unwrap();
            mm.cpu_online(CpuId::new(1).unwrap()).unwrap();

            let page = mm.alloc_pages(GFP_KERNEL, order).unwrap();
            mm.drain_local_pages();
            mm.free_on_both(page, order);
            let other = leave(&mm, order);
            assert_eq!(mm.reports(), [MisuseKind::ConcurrentFree], "way {way}, order {order}");
            assert_ne!(other, Some(page), "way {way}, order {order}");
            mm.verify().unwrap();
            assert_eq!(mm.alloc_pages(GFP_KERNEL, order), Ok(page), "way {way}, order {order}");
            // Nobody gets it a second time.
            for number in [0, 1] {
                mm.as_cpu(number, || {
                    while let Ok(next) = mm.alloc_pages(GFP_KERNEL | Gfp::NOWARN, order) {
                        assert_ne!(next, page, "way {way}, order {order}");
                    }
                });
            }
            assert_eq!(mm.reports(), []);
            mm.verify().unwrap();
        }
    }
}
