//! Memory before there is a page allocator, the hand-over, and what was set aside: on a rig.

mod common;

use std::cell::Cell;
use std::ptr::NonNull;
use std::rc::Rc;

use common::{CPU, Machine, Rig, Rng, Scope, lists, settle};
use kmem::boot::memblock::{MemblockError, Wanted};
use kmem::boot::{BootMem, BootMemError, Carveout, CarveoutError, CommandLine};
use kmem::platform::{DirectMap, MisuseKind};
use kmem::*;

const MIB: u64 = 1 << 20;
const ALL: Gfp = GFP_ATOMIC.union(Gfp::MEMALLOC).union(Gfp::NOWARN);

fn map() -> MemoryMap {
    MemoryMap::new().ram(0..16 * MIB, NodeId::ZERO).reserved(0..4096, "firmware")
}

/// 16 MiB, of which the lower half is for devices.
fn setup() -> Setup {
    Setup::new().dma_limit(PhysAddr::new(8 * MIB)).cpus(2)
}

/// A machine whose boot-time memory is open.
fn open(command_line: &str) -> (BootMem, Machine) {
    let (boot, mm) = (BootMem::new(), Mm::new(Rig::new(16 << 20)));
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { boot.open(&map(), &setup()) }.unwrap();
    boot.apply(mm.platform(), &CommandLine::parse(command_line).unwrap()).unwrap();
    (boot, mm)
}

fn boot(boot: &BootMem, mm: &Machine) {
    // SAFETY: as above.
    unsafe { mm.boot_from(boot, &setup()) }.unwrap();
}

fn kinds(mm: &Machine) -> Vec<MisuseKind> {
    mm.platform().take_reports().into_iter().map(|report| report.kind).collect()
}

fn physical(mm: &Machine, memory: NonNull<u8>) -> u64 {
    mm.platform().virt_to_phys(VirtAddr::from_ptr(memory.as_ptr())).unwrap().get()
}

/// Nothing allocated, nothing on the command line: the machine is the one that boots from the map.
///
/// A253
#[test]
fn a_hand_over_without_allocations_is_an_ordinary_boot() {
    let (early, mm) = open("");
    boot(&early, &mm);
    let plain: Machine = Mm::new(Rig::new(16 << 20));
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { plain.boot(&map(), &setup()) }.unwrap();
    assert_eq!(lists(&mm), lists(&plain));
    let text = |mm: &Machine| {
        let mut text = String::new();
        report::iomem(mm, &mut text).unwrap();
        text
    };
    assert_eq!(text(&mm), text(&plain));
}

/// A boot that fails takes nothing: the memory is open as it was, and a second try gets it.
///
/// A250, A253
#[test]
fn a_boot_that_fails_leaves_boot_time_memory_open() {
    let (early, mm) = open("");
    let pages = early.alloc_bootmem_pages(mm.platform(), 4096).unwrap();
    let wrong = setup().cpus(0);
    // SAFETY: refused.
    let failed = unsafe { mm.boot_from(&early, &wrong) };
    assert!(matches!(failed, Err(BootError::Setup(_))), "{failed:?}");
    assert!(!early.is_handed_over() && !mm.is_booted());
    let more = early.alloc_bootmem_pages(mm.platform(), 4096).unwrap();
    assert_ne!(pages, more);
    // All RAM allocated: the manager's tables have no room.
    let rest = |low: bool| {
        let mut size = 8 << 20;
        while size > 64 {
            let got = if low {
                early.alloc_bootmem_low(mm.platform(), size)
            } else {
                early.alloc_bootmem(mm.platform(), size)
            };
            if got.is_err() {
                size /= 2;
            }
        }
    };
    rest(false);
    rest(true);
    // SAFETY: refused.
    let failed = unsafe { mm.boot_from(&early, &setup()) };
    assert!(matches!(failed, Err(BootError::NoRoom { .. })), "{failed:?}");
    let above = PhysAddr::new(8 * MIB)..PhysAddr::new(16 * MIB);
    // SAFETY: the test's own, all of it.
    unsafe { early.memblock_free(mm.platform(), above) }.unwrap();
    boot(&early, &mm);
    assert_eq!(
        mm.frames().unwrap().ram_pages(),
        mm.managed_pages() + mm.frames().unwrap().reserved_pages()
    );
    mm.verify().unwrap();
    assert_eq!(kinds(&mm), []);
}

/// A247, A250
#[test]
fn each_stage_refuses_what_does_not_belong_to_it() {
    let (early, mm): (_, Machine) = (BootMem::new(), Mm::new(Rig::new(16 << 20)));
    let on = mm.platform();
    assert_eq!(early.alloc_bootmem(on, 1), Err(BootMemError::NotOpen));
    // SAFETY: refused.
    let refused = unsafe { mm.boot_from(&early, &setup()) };
    assert_eq!(refused, Err(BootError::BootMem(BootMemError::NotOpen)));
    let overlap = map().ram(0..4096, NodeId::new(1).unwrap());
    // SAFETY: refused.
    let refused = unsafe { early.open(&overlap, &setup()) };
    assert!(matches!(refused, Err(BootMemError::Map(MapError::NodesOverlap { .. }))));
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { early.open(&map(), &setup()) }.unwrap();
    // SAFETY: refused.
    assert_eq!(unsafe { early.open(&map(), &setup()) }, Err(BootMemError::Again));
    let empty = Err(BootMemError::Memory(MemblockError::Empty));
    assert_eq!(early.alloc_bootmem(on, 0), empty);
    assert_eq!(early.alloc_bootmem_low_pages(on, 0), empty);
    for size in [17 << 20, usize::MAX, usize::MAX - 4095] {
        let refused = [early.alloc_bootmem(on, size), early.alloc_bootmem_pages(on, size)];
        for refused in refused {
            let no_room = matches!(refused, Err(BootMemError::Memory(MemblockError::NoRoom(_))));
            assert!(no_room, "{size:#x}: {refused:?}");
        }
    }
    // A call in the middle of another, and whatever is done in an initialization function.
    let seen = early.older_scheme(on, "outer", |start, _| {
        assert!(early.alloc_bootmem(on, 64).is_ok());
        start
    });
    assert!(seen.unwrap().is_empty());
    let taken = early.older_scheme(on, "outer", |start, _| {
        // What is to be the caller's own for ever is given to somebody else meanwhile.
        let wanted = Wanted { within: start.get()..u64::MAX, ..Wanted::new(4096, 1) };
        early.memblock_alloc(on, "inner", &wanted).unwrap();
        PhysAddr::new(start.get() + 4096)
    });
    assert!(matches!(taken, Err(BootMemError::Memory(MemblockError::NoRoom(_)))), "{taken:?}");
    assert_eq!(kinds(&mm), []);
    boot(&early, &mm);
    // SAFETY: refused.
    assert_eq!(unsafe { early.open(&map(), &setup()) }, Err(BootMemError::Again));
    let line = CommandLine { mem: Some(MIB), bigphysarea: Some(1) };
    assert_eq!(early.apply(on, &line), Err(BootMemError::HandedOver));
    assert_eq!(kinds(&mm), [MisuseKind::BootIsOver]);
    let wanted = Wanted::new(64, 64);
    assert_eq!(early.memblock_phys_alloc(on, "late", &wanted), Err(BootMemError::HandedOver));
    let report = &on.take_reports()[0];
    assert!(report.line.contains("64 bytes") && report.line.contains("bootmem.rs"), "{report:?}");
    let mut text = String::new();
    assert!(early.memblock_dump(&mut text).is_err() && text.is_empty());
}

/// Frees of what is not allocated, by what is there; nothing changes.
///
/// A252
#[test]
fn wrong_frees_at_boot_are_reported_and_change_nothing() {
    let (early, mm) = open("");
    let on = mm.platform();
    let memory = early.alloc_bootmem(on, 100).unwrap();
    let dump = || {
        let mut text = String::new();
        early.memblock_dump(&mut text).unwrap();
        text
    };
    let before = dump();
    let at = physical(&mm, memory);
    let wrong = [
        (0..4096, MisuseKind::Reserved),
        (at..at + 101, MisuseKind::DoubleFree),
        (at - 1..at + 100, MisuseKind::DoubleFree),
        (15 * MIB..15 * MIB + 1, MisuseKind::DoubleFree),
        (20 * MIB..21 * MIB, MisuseKind::Foreign),
    ];
    for (range, kind) in wrong {
        let range = PhysAddr::new(range.start)..PhysAddr::new(range.end);
        // SAFETY: wrong on purpose.
        let refused = unsafe { early.memblock_free(on, range.clone()) };
        let refused =
            matches!(refused, Err(BootMemError::Memory(MemblockError::NotAllocated { .. })));
        assert!(refused, "{range:?}");
        assert_eq!(kinds(&mm), [kind], "{range:?}");
        assert_eq!(dump(), before);
    }
    let mut elsewhere = 0u8;
    // SAFETY: wrong on purpose: it is no memory of the machine's.
    let refused = unsafe { early.free_bootmem(on, NonNull::from(&mut elsewhere), 1) };
    assert!(refused.is_err());
    assert_eq!(kinds(&mm), [MisuseKind::Foreign]);
    assert_eq!(dump(), before);
    // SAFETY: the test's own, in two parts.
    unsafe {
        early.free_bootmem(on, memory.add(50), 50).unwrap();
        early.free_bootmem(on, memory, 50).unwrap();
    }
    assert!(!dump().contains("bootmem"));
    assert_eq!(kinds(&mm), []);
}

/// Whatever is allocated at boot, in whatever order: the page allocator has all else, and gets the
/// rest when it is released.
///
/// A247, A252, A253
#[test]
fn what_is_allocated_freed_and_released_adds_up() {
    let mut rng = Rng::new();
    for _ in 0..12 {
        let (early, mm) = open("");
        let on = mm.platform();
        let mut held: Vec<(NonNull<u8>, usize)> = Vec::new();
        for _ in 0..60 {
            if rng.below(3) == 0 && !held.is_empty() {
                let (memory, size) = held.swap_remove(rng.below(held.len() as u64) as usize);
                // SAFETY: the test's own.
                unsafe { early.free_bootmem(on, memory, size) }.unwrap();
                continue;
            }
            let size = 1 + rng.below(60_000) as usize;
            let pages = size.next_multiple_of(4096);
            let (got, size) = match rng.below(4) {
                0 => (early.alloc_bootmem(on, size), size),
                1 => (early.alloc_bootmem_low(on, size), size),
                2 => (early.alloc_bootmem_pages(on, size), pages),
                _ => (early.alloc_bootmem_low_pages(on, size), pages),
            };
            let memory = got.unwrap();
            // SAFETY: so many bytes were allocated and cleared.
            let bytes = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), size) };
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(0xee);
            held.push((memory, size));
        }
        boot(&early, &mm);
        let frames = mm.frames().unwrap();
        assert_eq!(frames.ram_pages(), mm.managed_pages() + frames.reserved_pages());
        mm.verify().unwrap();
        // All that the page allocator has is nobody's.
        let mut pages = Vec::new();
        while let Ok(page) = mm.alloc_page(ALL) {
            let start = page.pfn().number() << 12;
            for (memory, size) in &held {
                let at = physical(&mm, *memory);
                assert!(start + 4096 <= at || at + *size as u64 <= start, "{page:?}");
            }
            pages.push(page);
        }
        pages.into_iter().for_each(|page| common::free(&mm, page, 0));
        // Each page that some of it has is released once, when none of it is used any more.
        let mut frames: Vec<u64> = Vec::new();
        for (memory, size) in &held {
            let at = physical(&mm, *memory);
            frames.extend(at >> 12..(at + *size as u64).div_ceil(4096));
        }
        frames.sort_unstable();
        frames.dedup();
        let managed = mm.managed_pages();
        for frame in &frames {
            let range = PhysAddr::new(frame << 12)..PhysAddr::new((frame + 1) << 12);
            // SAFETY: nothing uses it any more.
            assert_eq!(unsafe { mm.release_late(range.clone()) }, Ok(1));
            // SAFETY: refused.
            assert!(unsafe { mm.release_late(range) }.is_err());
        }
        assert_eq!(mm.managed_pages(), managed + frames.len() as u64);
        let mut text = String::new();
        report::iomem(&mm, &mut text).unwrap();
        assert!(!text.contains("bootmem"), "{text}");
        settle(&mm);
        assert_eq!(kinds(&mm), []);
    }
}

/// A248: where zone DMA ends, and where there is none.
#[test]
fn a_machine_without_a_zone_dma_has_no_limit_to_boot_time_memory() {
    let (early, mm): (_, Machine) = (BootMem::new(), Mm::new(Rig::new(16 << 20)));
    let on = mm.platform();
    let high = map().mapped(9 * MIB..16 * MIB);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { early.open(&high, &Setup::new()) }.unwrap();
    let low = early.alloc_bootmem_low(on, 100).unwrap();
    let normal = early.alloc_bootmem(on, 100).unwrap();
    assert_eq!((physical(&mm, low), physical(&mm, normal)), (9 * MIB, 9 * MIB + 128));
    // With one, and nothing mapped below its limit, there is no low memory.
    let (early, mm): (_, Machine) = (BootMem::new(), Mm::new(Rig::new(16 << 20)));
    let on = mm.platform();
    // SAFETY: as above.
    unsafe { early.open(&high, &setup()) }.unwrap();
    assert!(early.alloc_bootmem_low(on, 1).is_err());
    assert!(early.alloc_bootmem(on, 1).is_ok());
}

/// What lies beyond the direct map has no address, and can be had by its physical one.
///
/// A247
#[test]
fn memory_beyond_the_direct_map_is_allocated_by_its_physical_address_only() {
    let early = BootMem::new();
    let mm: Machine = Mm::new(Rig::with_direct(16 << 20, 4 << 20));
    let on = mm.platform();
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { early.open(&map(), &setup()) }.unwrap();
    assert!(early.alloc_bootmem(on, 5 << 20).is_err());
    let wanted = Wanted::new(5 * MIB, 4096);
    assert!(early.memblock_alloc(on, "buffer", &wanted).is_err());
    assert_eq!(early.memblock_phys_alloc(on, "buffer", &wanted), Ok(PhysAddr::new(4096)));
    let high = Wanted { within: 4 * MIB..u64::MAX, ..Wanted::new(64, 64) };
    assert!(early.memblock_alloc(on, "ring", &high).is_err());
    assert!(early.memblock_phys_alloc(on, "ring", &high).is_ok());
    // An area for blocks with addresses does not go there either.
    let line = CommandLine { bigphysarea: Some(1024), ..CommandLine::default() };
    assert!(early.apply(on, &line).is_err());
}

/// A256: as much as is asked for, wherever it fits, and never by halves.
#[test]
fn bigphysarea_is_taken_from_the_start_of_memory_as_long_as_there_is_room() {
    for (pages, start) in [(1, 1), (1023, 1), (1024, 1), (1025, 1), (1791, 1), (2500, 1)] {
        let (early, mm) = open(&format!("bigphysarea={pages}"));
        boot(&early, &mm);
        let frames = mm.bigphysarea_frames().unwrap().unwrap();
        assert_eq!(frames, start * 256..start * 256 + pages, "{pages}");
        assert_eq!(mm.bigphysarea_usage().unwrap().pages, pages);
        assert!(mm.bigphysarea_alloc_pages(pages, 1, Gfp::ZERO).is_ok());
        assert!(mm.bigphysarea_alloc_pages(1, 1, Gfp::NONE).is_err());
        // What reaches beyond zone DMA is not for devices that reach no further.
        let dma = mm.bigphysarea_alloc_pages(1, 1, Gfp::DMA);
        let for_dma = frames.end <= 2048;
        assert_eq!(matches!(dma, Err(CarveoutError::NotForDma { .. })), !for_dma, "{dma:?}");
        assert_eq!(mm.owner(Pfn::new(frames.start).unwrap()), Owner::Reserved);
        let range = PhysAddr::new(MIB)..PhysAddr::new(2 * MIB);
        // SAFETY: refused.
        assert!(unsafe { mm.release_late(range) }.is_err(), "it is kept");
        mm.verify().unwrap();
    }
    let (early, mm) = open("");
    let line = CommandLine { bigphysarea: Some(4096), ..CommandLine::default() };
    assert!(early.apply(mm.platform(), &line).is_err());
    let line = CommandLine { bigphysarea: Some(u64::MAX), ..CommandLine::default() };
    assert!(early.apply(mm.platform(), &line).is_err());
    let line = CommandLine { bigphysarea: Some(16), ..CommandLine::default() };
    early.apply(mm.platform(), &line).unwrap();
    assert_eq!(early.apply(mm.platform(), &line), Err(BootMemError::Again));
    boot(&early, &mm);
    assert_eq!(mm.bigphysarea_usage().unwrap().pages, 16);
}

/// A321: a driver that may use it finds that there is none, and does without.
#[test]
fn a_machine_without_bigphysarea_says_so() {
    let mm: Machine = Mm::new(Rig::new(16 << 20));
    assert_eq!(mm.bigphysarea_alloc(1), Err(CarveoutError::Nothing), "before boot");
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map(), &setup()) }.unwrap();
    assert_eq!(mm.bigphysarea_alloc(1), Err(CarveoutError::Nothing));
    assert_eq!(mm.bigphysarea_alloc_pages(1, 1, Gfp::DMA), Err(CarveoutError::Nothing));
    assert!(matches!(
        mm.bigphysarea_alloc_pages(1, 1, Gfp::DMA | Gfp::HIGHMEM),
        Err(CarveoutError::BadFlags(_))
    ));
    let mut text = String::new();
    report::bigphysarea(&mm, &mut text).unwrap();
    assert_eq!(text, "");
    let page = mm.get_zeroed_page(GFP_KERNEL).unwrap();
    // SAFETY: wrong on purpose.
    unsafe { mm.bigphysarea_free(NonNull::new(page.as_ptr()).unwrap()) };
    assert_eq!(kinds(&mm), [MisuseKind::Foreign]);
    assert_eq!(mm.counters().misuses, 1);
    assert_eq!(mm.unmanaged_ram().count(), 0);
}

/// An interrupt or an NMI at every place where a call of `bigphysarea` calls the platform makes such a
/// call itself.
///
/// A256
#[test]
fn interrupts_may_come_in_between_calls_of_bigphysarea() {
    for scope in [Scope::Interrupt, Scope::Nmi] {
        let (early, mm) = open("bigphysarea=64");
        boot(&early, &mm);
        let mm: &'static Machine = Box::leak(Box::new(mm));
        let (mut served, mut refused) = (0, 0);
        for (left, freeing) in (0..40).flat_map(|left| [(left, false), (left, true)]) {
            let before = mm.bigphysarea_usage().unwrap();
            let answer = Rc::new(Cell::new(None));
            let tell = answer.clone();
            let arm = || {
                CPU.with(|cpu| {
                    cpu.arm_once(scope, None, left, move |_| {
                        tell.set(Some(mm.bigphysarea_alloc(5000)));
                    });
                });
            };
            let held = if freeing {
                let held = mm.bigphysarea_alloc(9000).unwrap();
                arm();
                // SAFETY: the test's own.
                unsafe { mm.bigphysarea_free(held) };
                None
            } else {
                arm();
                Some(mm.bigphysarea_alloc(9000).unwrap())
            };
            let came = !CPU.with(|cpu| cpu.disarm());
            match answer.get() {
                Some(Ok(memory)) => {
                    served += 1;
                    assert_ne!(Some(memory), held);
                    // SAFETY: the test's own.
                    unsafe { mm.bigphysarea_free(memory) };
                }
                Some(Err(error)) => {
                    refused += 1;
                    assert_eq!((scope, error), (Scope::Nmi, CarveoutError::Busy));
                }
                None => assert!(!came),
            }
            if let Some(held) = held {
                // SAFETY: the test's own.
                unsafe { mm.bigphysarea_free(held) };
            }
            assert_eq!(mm.bigphysarea_usage().unwrap(), before);
        }
        // Nothing of the platform's is called while the lock is held, so nobody has to wait for it here.
        assert!(served > 0 && refused == 0, "{scope:?} {served} {refused}");
        assert_eq!(kinds(mm), []);
    }
}

/// A256, A320: threads as CPUs never get the same page.
#[test]
fn cpus_share_a_carveout() {
    let (early, mm) = open("bigphysarea=96");
    boot(&early, &mm);
    std::thread::scope(|scope| {
        for cpu in 0..2 {
            let mm = &mm;
            scope.spawn(move || {
                CPU.with(|this| this.number.set(cpu));
                let mut held: Vec<(NonNull<u8>, usize)> = Vec::new();
                for round in 0..2000usize {
                    let pages = 1 + round % 7;
                    let mark = (cpu as u8) << 7 | (round % 100) as u8;
                    if let Ok(memory) = mm.bigphysarea_alloc(pages * 4096) {
                        // SAFETY: so many bytes were allocated.
                        unsafe { memory.write_bytes(mark, pages * 4096) };
                        held.push((memory, pages * 4096));
                    }
                    if held.len() > 8 {
                        let (memory, size) = held.swap_remove(round % 8);
                        // SAFETY: the test's own.
                        let bytes = unsafe { std::slice::from_raw_parts(memory.as_ptr(), size) };
                        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
                        assert_eq!(bytes[0] >> 7, cpu as u8);
                        // SAFETY: the test's own.
                        unsafe { mm.bigphysarea_free(memory) };
                    }
                }
                for (memory, _) in held {
                    // SAFETY: the test's own.
                    unsafe { mm.bigphysarea_free(memory) };
                }
            });
        }
    });
    let usage = mm.bigphysarea_usage().unwrap();
    assert_eq!((usage.used, usage.longest, usage.blocks), (0, 96, 0));
    assert_eq!(kinds(&mm), []);
}

/// A257: the page in which `mem=` lies is left alone as well, and so is what nobody can use.
#[test]
fn mem_takes_whole_pages_off_and_leaves_what_is_reserved_reserved() {
    let early = BootMem::new();
    let mm: Machine = Mm::new(Rig::new(16 << 20));
    let on = mm.platform();
    let map = map().reserved(12 * MIB..13 * MIB, "firmware").late(14 * MIB..15 * MIB);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { early.open(&map, &setup()) }.unwrap();
    let line = CommandLine { mem: Some(10 * MIB + 5000), ..CommandLine::default() };
    early.apply(on, &line).unwrap();
    let refused = early.apply(on, &CommandLine { mem: Some(100), ..CommandLine::default() });
    let no_ram = MemblockError::NoRam { limit: 0 };
    assert_eq!(refused, Err(BootMemError::Mem { limit: 100, error: no_ram }));
    assert!(refused.unwrap_err().to_string().starts_with("mem=100: all ram lies above"));
    boot(&early, &mm);
    assert_eq!(mm.frames().unwrap().span().end << 12, 10 * MIB + 4096);
    let above: Vec<_> = mm.unmanaged_ram().map(|r| r.start << 12..r.end << 12).collect();
    assert_eq!(above, [10 * MIB + 4096..12 * MIB, 13 * MIB..14 * MIB, 15 * MIB..16 * MIB]);
    let late = PhysAddr::new(14 * MIB)..PhysAddr::new(15 * MIB);
    // SAFETY: refused.
    assert!(unsafe { mm.release_late(late) }.is_err(), "the manager does not have it");
    let mut text = String::new();
    report::iomem(&mm, &mut text).unwrap();
    for line in [
        "00001000-00a00fff : System RAM",
        "00a01000-00bfffff : RAM above mem=",
        "00c00000-00cfffff : firmware",
        "00d00000-00dfffff : RAM above mem=",
        "00e00000-00efffff : Boot loader",
        "00f00000-00ffffff : RAM above mem=",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

/// A carveout takes what it can use: whole pages of the direct map, its table at the end.
///
/// A320
#[test]
fn a_carveout_begins_once_with_whole_pages_of_the_direct_map() {
    let rig: Rig = Rig::new(16 << 20);
    let area = Carveout::new();
    let begin = |area: &Carveout, range: std::ops::Range<u64>| {
        let range = PhysAddr::new(range.start)..PhysAddr::new(range.end);
        // SAFETY: the RAM is this test's.
        unsafe { area.begin(&rig, range) }
    };
    assert_eq!(begin(&area, 4096..8192), Err(CarveoutError::Nothing), "its table needs a page");
    assert_eq!(begin(&area, 4097..16383), Err(CarveoutError::Nothing));
    assert_eq!(begin(&area, 0..u64::MAX), Err(CarveoutError::Unmapped));
    assert_eq!(begin(&area, 15 * MIB..17 * MIB), Err(CarveoutError::Unmapped));
    assert_eq!(area.alloc(&rig, 1, 1), Err(CarveoutError::Nothing));
    assert_eq!(begin(&area, 4097..5 * 4096), Ok(()));
    assert_eq!(begin(&area, 8 * 4096..16 * 4096), Err(CarveoutError::Again));
    assert_eq!(area.frames(&rig), Ok(Some(2..4)));
    assert_eq!(area.alloc(&rig, 0, 1), Err(CarveoutError::ZeroSize));
    assert_eq!(area.alloc(&rig, 1, 0), Err(CarveoutError::ZeroSize));
    let refused = area.alloc(&rig, u64::MAX, 1);
    assert_eq!(refused, Err(CarveoutError::NoRoom { pages: u64::MAX, longest: 2 }));
    assert_eq!(area.alloc(&rig, 1, 3), Ok(Pfn::new(3).unwrap()));
    // SAFETY: wrong on purpose, then the test's own.
    unsafe {
        let page = |number| Pfn::new(number).unwrap();
        assert_eq!(area.free(&rig, page(2)), Err(CarveoutError::Free { page: page(2) }));
        assert_eq!(area.free(&rig, page(4)), Err(CarveoutError::Foreign), "the table's page");
        assert_eq!(area.free(&rig, page(1)), Err(CarveoutError::Foreign));
        assert_eq!(area.free(&rig, page(3)), Ok(1));
    }
    for pages in [1u64, 1023, 1024, 1025, 100_000] {
        let all = Carveout::pages_to_reserve(pages, 12);
        assert_eq!(
            Carveout::pages_of_reserved(all, 12),
            pages,
            "so many are left beside the table"
        );
        assert_eq!(Carveout::pages_of_reserved(all - 1, 12), pages - 1, "and no more");
    }
}

/// A256: more than there is in one piece is refused with how much there is, which is then to be had.
#[test]
fn bigphysarea_says_how_many_pages_there_are() {
    let refused = |pages| {
        let early = BootMem::new();
        let mm: Machine = Mm::new(Rig::new(16 << 20));
        // SAFETY: the RAM is this test's, for this manager alone.
        unsafe { early.open(&map().reserved(5 * MIB..5 * MIB + 1, "firmware"), &setup()) }.unwrap();
        early.apply(mm.platform(), &CommandLine { mem: None, bigphysarea: Some(pages) })
    };
    // From behind 5 MiB and a page to 16 MiB, less a page of the table for each 1024 others.
    let most = (11 << 8) - 1 - 3;
    assert_eq!(refused(4096), Err(BootMemError::Bigphysarea { pages: 4096, most }));
    assert_eq!(refused(most + 1), Err(BootMemError::Bigphysarea { pages: most + 1, most }));
    assert_eq!(refused(most), Ok(()));
    let text = refused(4096).unwrap_err().to_string();
    assert!(text.starts_with("bigphysarea=4096 ") && text.contains(" 2812 are free"), "{text}");
}
