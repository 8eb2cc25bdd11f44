//! What a race of two CPUs leaves behind, made by hand: the race itself is the integration tests'.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::Mutex;
use std::vec::Vec;

use super::Mm;
use crate::page::{PageFlags, Place};
use crate::platform::desk::Desk;
use crate::platform::{
    Context, Cpus, CrossCall, DirectMap, Hooks, Level, Misuse, MisuseKind, NotCalled, PageMapError,
    UserMap,
};
use crate::{
    AllocError, CpuId, GFP_KERNEL, Gfp, MemoryMap, NodeId, Page, Pfn, PhysAddr, Setup, VirtAddr,
};

/// A desk that says which of its CPUs it is as it is told.
pub(super) struct Cpu<'r> {
    desk: Desk<'r>,
    number: AtomicU32,
    pub(super) nmi: AtomicBool,
    /// Whether a CPU can make the other run something.
    pub(super) can_call: AtomicBool,
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

    fn cross_call(&self) -> Option<&dyn CrossCall> {
        if self.can_call.load(Relaxed) { Some(self) } else { None }
    }
}

// SAFETY: the other CPU does nothing, or is where an interrupt may come.
unsafe impl CrossCall for Cpu<'_> {
    fn call_on(&self, other: CpuId, work: &(dyn Fn() + Sync)) -> Result<(), NotCalled> {
        let own = self.number.swap(other.get(), Relaxed);
        work();
        self.number.store(own, Relaxed);
        Ok(())
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
        self.nmi.load(Relaxed)
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
    pub(super) fn as_cpu<T>(&self, number: u32, work: impl FnOnce() -> T) -> T {
        let before = self.platform.number.swap(number, Relaxed);
        let result = work();
        self.platform.number.store(before, Relaxed);
        result
    }

    pub(super) fn reports(&self) -> Vec<MisuseKind> {
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

/// 16 MiB and two CPUs.
pub(super) fn boot(ram: &mut [u8]) -> Mm<Cpu<'_>> {
    // SAFETY: one thread uses it.
    let desk = unsafe { Desk::new(ram) };
    let (number, reports) = (AtomicU32::new(0), Mutex::default());
    let (nmi, can_call) = (AtomicBool::new(false), AtomicBool::new(false));
    let mm = Mm::new(Cpu { desk, number, nmi, can_call, reports });
    let map = MemoryMap::new().ram(0..16 << 20, NodeId::ZERO);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &Setup::new().cpus(2)).unwrap() };
    mm.cpu_online(CpuId::new(1).unwrap()).unwrap();
    mm
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
            // SAFETY: that CPU does nothing meanwhile.
            unsafe { mm.cpu_offline(CpuId::new(1).unwrap()) }.unwrap();
            None
        },
    ];
    for (way, leave) in ways.into_iter().enumerate() {
        for order in 0..=3 {
            let mut ram = std::vec![0; 17 << 20];
            let mm = boot(&mut ram);
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

/// An NMI handler puts a block aside, another CPU that looked before frees it too and hands it out
/// again, and it is put aside a second time before anybody could take the lock: it is freed once.
///
/// A062, A063
#[test]
fn a_block_that_is_put_aside_again_is_freed_once() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let free = mm.free_page_count();
    let (first, block) = (mm.alloc_pages(GFP_KERNEL, 4), mm.alloc_pages(GFP_KERNEL, 4));
    let (first, block) = (first.unwrap(), block.unwrap());
    let zone = mm.page_zone(block).unwrap();
    {
        let _held = zone.hold(&mm.platform);
        mm.platform.nmi.store(true, Relaxed);
        for page in [first, block] {
            // SAFETY: the test's own, and not used.
            unsafe { mm.__free_pages(page, 4) };
        }
        let descriptor = mm.descriptor(block).unwrap();
        assert_eq!(descriptor.place(), Place::PutAside);
        // What the other CPU's free and the next allocation leave behind.
        descriptor.mark().set_held();
        descriptor.set_count(1);
        // SAFETY: as above.
        unsafe { mm.__free_pages(block, 4) };
        assert_eq!(descriptor.place(), Place::PutAside);
        mm.platform.nmi.store(false, Relaxed);
    }
    mm.verify().unwrap();
    assert_eq!(mm.free_page_count(), free);
    let again: Vec<Page> = (0..2).map(|_| mm.alloc_pages(GFP_KERNEL, 4).unwrap()).collect();
    assert!(again[0] != again[1] && again.contains(&block) && again.contains(&first));
    assert_eq!(mm.reports(), []);
}

/// More references than can be counted: the block stays for ever, and is not freed under those who
/// hold it.
///
/// A007
#[test]
fn too_many_references_pin_a_page() {
    let mut ram = std::vec![0; 17 << 20];
    let mm = boot(&mut ram);
    let page = mm.alloc_page(GFP_KERNEL).unwrap();
    let descriptor = mm.descriptor(page).unwrap();
    descriptor.set_count((1 << 31) - 2);
    mm.get_page(page);
    assert_eq!(mm.reports(), []);
    mm.get_page(page);
    assert_eq!(mm.reports(), [MisuseKind::TooManyReferences]);
    let most = mm.page_count(page);
    for _ in 0..3 {
        // SAFETY: nothing uses the page.
        unsafe { mm.put_page(page) };
        assert_eq!(mm.page_count(page), most);
    }
    mm.get_page(page);
    assert_eq!(mm.reports(), [MisuseKind::TooManyReferences]);
    assert_eq!(mm.page_count(page), most);
    // One less is counted as ever.
    descriptor.set_count((1 << 31) - 1);
    // SAFETY: as above.
    unsafe { mm.put_page(page) };
    assert_eq!(mm.page_count(page), (1 << 31) - 2);
}

/// A user's address space of four pages.
#[derive(Default)]
struct User(Mutex<[Option<Pfn>; 4]>);

const USERS: usize = 0x40_0000;

// SAFETY: nothing is mapped for real, and the tests look at no page.
unsafe impl UserMap for User {
    fn range(&self) -> core::ops::Range<VirtAddr> {
        VirtAddr::new(USERS)..VirtAddr::new(USERS + (4 << 12))
    }

    unsafe fn map(&self, address: VirtAddr, frame: Pfn, _: bool) -> Result<(), PageMapError> {
        let place = &mut self.0.lock().unwrap()[(address.get() - USERS) >> 12];
        if place.is_some() {
            return Err(PageMapError::Occupied);
        }
        *place = Some(frame);
        Ok(())
    }

    fn unmap(&self, address: VirtAddr) -> Option<Pfn> {
        self.0.lock().unwrap()[(address.get() - USERS) >> 12].take()
    }
}

/// A page that has as many references or mappings as can be counted is not mapped for a user once more, and
/// nothing of it changes.
///
/// A072
#[test]
fn a_page_is_not_mapped_for_a_user_more_often_than_is_counted() {
    let mut ram = std::vec![0; 17 << 20];
    let (mm, user) = (boot(&mut ram), User::default());
    let page = mm.alloc_page(GFP_KERNEL).unwrap();
    let descriptor = mm.descriptor(page).unwrap();
    let insert = |index: usize| {
        let address = VirtAddr::new(USERS + (index << 12));
        // SAFETY: the page is the test's, which looks at none of its bytes.
        unsafe { mm.vm_insert_page(&user, address, page, true) }
    };
    const MOST: u32 = (1 << 31) - 1;
    for (references, mappings, is_fine) in [
        (MOST - 1, 0, true),
        (MOST, 0, false),
        (MOST + 1, 0, false),
        (u32::MAX, 0, false),
        (1, u32::MAX - 1, true),
        (1, u32::MAX, false),
    ] {
        descriptor.set_count(references);
        descriptor.set_map_count(mappings);
        let before = descriptor.flags();
        if is_fine {
            assert_eq!(insert(0), Ok(()));
            assert_eq!(mm.page_count(page), references + 1);
            assert_eq!(descriptor.map_count(), mappings + 1);
            assert!(descriptor.has(PageFlags::User));
            assert_eq!(mm.vm_remove_pages(&user, VirtAddr::new(USERS), 4), 1);
            assert_eq!(mm.reports(), []);
        } else {
            assert_eq!(insert(0), Err(AllocError::NotAllocated), "{references} {mappings}");
            assert_eq!(descriptor.flags(), before);
            assert_eq!(mm.vm_remove_pages(&user, VirtAddr::new(USERS), 4), 0);
            assert_eq!(mm.reports(), [MisuseKind::TooManyReferences]);
        }
        assert_eq!((mm.page_count(page), descriptor.map_count()), (references, mappings));
    }
    descriptor.set_count(1);
    descriptor.set_map_count(0);
    // It is mapped at a page of the user's, and nowhere else.
    for address in [0, USERS - 4096, USERS + 8, USERS + (4 << 12), usize::MAX - 4095] {
        // SAFETY: it is refused.
        let refused = unsafe { mm.vm_insert_page(&user, VirtAddr::new(address), page, true) };
        assert_eq!(refused, Err(AllocError::Occupied), "{address:#x}");
    }
    assert_eq!((mm.page_count(page), mm.reports()), (1, std::vec![]));
    // Nor is a page of another slab layer's.
    mm.set_page_slab(page, false);
    assert_eq!(insert(0), Err(AllocError::NotAllocated));
    assert_eq!(mm.reports(), [MisuseKind::Slab]);
    mm.clear_page_slab(page);
    // Where it must not sleep nothing is unmapped, nor at addresses that are none of the user's.
    insert(1).unwrap();
    mm.platform.pin();
    assert_eq!(mm.vm_remove_pages(&user, VirtAddr::new(USERS), 4), 0);
    mm.platform.unpin();
    assert_eq!(mm.reports(), [MisuseKind::SleepInAtomic]);
    for (from, count) in
        [(USERS - 4096, 3), (USERS, 5), (USERS + 1, 2), (USERS + (9 << 12), 1), (0, usize::MAX)]
    {
        assert_eq!(mm.vm_remove_pages(&user, VirtAddr::new(from), count), 0, "{from:#x}");
    }
    assert_eq!(mm.vm_remove_pages(&user, VirtAddr::new(USERS + (1 << 12)), 1), 1);
    // One that is said to be mapped nowhere, while it is, is reported when it is unmapped.
    insert(3).unwrap();
    mm.set_page_map_count(page, 0);
    assert_eq!(mm.vm_remove_pages(&user, VirtAddr::new(USERS), 4), 1);
    assert_eq!((mm.page_count(page), mm.reports()), (1, std::vec![MisuseKind::NotMapped]));
    // SAFETY: the test's own.
    unsafe { mm.__free_page(page) };
    assert_eq!(mm.reports(), []);
}

/// What the README says of a manager's size.
#[test]
fn a_manager_takes_28_kib_of_static_data() {
    assert!(size_of::<Mm<()>>().div_ceil(1 << 10) == 28, "{}", size_of::<Mm<()>>());
}
