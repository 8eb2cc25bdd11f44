//! High memory on machines whose direct map really ends: what is not mapped cannot be reached.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use kmem::highmem::*;
use kmem::platform::{Context, DirectMap, PageMap};
use kmem::{CpuId, GFP_HIGHUSER, Page, VirtAddr};
use kmem_host::{Description, Machine};

const CPU0: CpuId = CpuId::BOOT;

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

fn boot(preset: &str) -> Arc<Machine> {
    Machine::boot(&Description::preset(preset).unwrap()).unwrap_or_else(|error| panic!("{error}"))
}

/// Pages of high memory.
fn high<const N: usize>(machine: &Machine) -> [Page; N] {
    std::array::from_fn(|_| {
        let page = machine.mm().alloc_page(GFP_HIGHUSER).unwrap();
        assert!(machine.mm().page_to_phys(page) >= machine.host().limit());
        page
    })
}

fn free(machine: &Machine, page: Page) {
    // SAFETY: the page is the test's.
    unsafe { machine.mm().__free_page(page) }
}

#[track_caller]
fn is_clean(machine: &Machine) {
    assert_eq!((machine.mm().temporary_mappings(), machine.mm().kmap_info().used), (0, 0));
    let end = machine.shutdown();
    assert!(end.is_clean() && end.misuse_count == 0, "{end}: {:?}", end.misuses);
}

/// One mapping of this process.
struct Mapping {
    range: std::ops::Range<u64>,
    readable: bool,
    /// Device and inode of the file that is mapped, and from which byte on.
    file: String,
    from: u64,
}

fn mappings() -> Vec<Mapping> {
    let text = read_to_string("/proc/self/maps").unwrap();
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
            let (start, end) = fields[0].split_once('-').unwrap();
            Mapping {
                range: hex(start)..hex(end),
                readable: fields[1].starts_with('r'),
                file: format!("{} {}", fields[3], fields[4]),
                from: hex(fields[2]),
            }
        })
        .collect()
}

/// At which addresses of this process a byte of the machine's RAM is seen: found without the machine.
fn seen_at(machine: &Machine, physical: u64) -> Vec<u64> {
    let base = machine.host().base().get() as u64;
    let all = mappings();
    let ram =
        all.iter().find(|there| there.range.contains(&base)).expect("RAM is mapped at its base");
    let seen = all.iter().filter(|there| {
        let bytes = there.range.end - there.range.start;
        there.file == ram.file && (there.from..there.from + bytes).contains(&physical)
    });
    seen.map(|there| there.range.start + (physical - there.from)).collect()
}

/// Reads a byte of this process; `None` where that would be a fault.
fn peek(address: VirtAddr) -> Option<u8> {
    let at = address.get() as u64;
    let readable = mappings().iter().any(|there| there.readable && there.range.contains(&at));
    // SAFETY: it is mapped to be read, and the test alone writes it.
    readable.then(|| unsafe { address.as_ptr::<u8>().read() })
}

// A269, A272, A273, A277
#[test]
fn a_page_of_high_memory_is_nowhere_until_it_is_mapped() {
    for preset in ["lkd-i386", "pae"] {
        let machine = boot(preset);
        let mm = machine.mm();
        machine.run_on(CPU0, || {
            let [page] = high(&machine);
            let physical = mm.page_to_phys(page).get();
            let everywhere = || seen_at(&machine, physical);
            let at = |address: VirtAddr| vec![address.get() as u64];
            // SAFETY, here and below: the page is the test's and mapped.
            // SAFETY: as below: the pages are the test's, and mapped where it writes.
            let put = |address: VirtAddr, byte| unsafe { address.as_ptr::<u8>().write(byte) };
            assert_eq!((everywhere(), mm.page_address(page)), (vec![], None));

            let local = mm.kmap_local_page(page).unwrap();
            put(local, 1);
            assert_eq!((everywhere(), peek(local)), (at(local), Some(1)));
            // SAFETY: mapped above.
            unsafe { mm.kunmap_local(local) };
            assert_eq!((everywhere(), peek(local)), (vec![], None));

            let typed = mm.kmap_atomic(page, KM_USER0).unwrap();
            put(typed, 2);
            assert_eq!((everywhere(), peek(typed)), (at(typed), Some(2)));
            // SAFETY: mapped above.
            unsafe { mm.kunmap_atomic(typed, KM_USER0) };
            assert_eq!((everywhere(), peek(typed)), (vec![], None));

            let address = mm.kmap(page).unwrap();
            put(address, 3);
            assert_eq!((everywhere(), mm.page_address(page)), (at(address), Some(address)));
            // SAFETY: mapped above.
            unsafe { mm.kunmap(page) };
            assert_eq!(mm.page_address(page), None);
            // What nobody has mapped is unmapped when the slots are wanted by others.
            for _ in 0..2 * mm.kmap_info().slots {
                let [other] = high(&machine);
                mm.kmap(other).unwrap();
                // SAFETY: mapped above.
                unsafe { mm.kunmap(other) };
                free(&machine, other);
                // Another page, each time.
                let _: [Page; 1] = high(&machine);
                if everywhere().is_empty() {
                    break;
                }
            }
            assert_eq!(everywhere(), Vec::<u64>::new(), "an old mapping of {page:?} stays");
        });
    }
}

// A270
#[test]
fn tasks_wait_for_slots_and_all_of_them_get_one() {
    const LEFT: usize = 4;
    let mut description = Description::preset("lkd-i386").unwrap();
    // The least range that there is: 256 pages, a quarter of them for slots.
    description.set("mapping_area=1M").unwrap();
    let machine: Arc<Machine> = Machine::boot(&description).unwrap();
    let slots = machine.mm().kmap_info().slots;
    assert_eq!(slots, 64);
    // All slots but a few are taken for good; many tasks that sleep with a mapping want the others.
    let held: Vec<Page> = machine.run_on(CPU0, || {
        let pages: Vec<Page> = (LEFT..slots as usize).flat_map(|_| high::<1>(&machine)).collect();
        for page in &pages {
            machine.mm().kmap(*page).unwrap();
        }
        pages
    });
    let most = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..24)
        .map(|task| {
            let (here, most) = (Arc::clone(&machine), Arc::clone(&most));
            machine.spawn(None, format!("task {task}"), move || {
                let mm = here.mm();
                for round in 0..100u64 {
                    let [page] = high(&here);
                    let address = mm.kmap(page).unwrap();
                    let word = address.as_ptr::<u64>();
                    // SAFETY: the page is this task's and mapped.
                    unsafe { word.write_volatile(task << 32 | round) };
                    most.fetch_max(mm.kmap_info().used.into(), Relaxed);
                    here.sleep(Duration::from_micros(round % 50));
                    // SAFETY: as above; then unmapped and freed.
                    unsafe {
                        assert_eq!(word.read_volatile(), task << 32 | round);
                        mm.kunmap(page);
                        mm.__free_page(page);
                    }
                }
            })
        })
        .collect();
    tasks.into_iter().for_each(|task| task.join());
    assert_eq!(most.load(Relaxed), u64::from(slots), "all slots were taken at some time");
    assert_eq!(machine.mm().kmap_info().waiting, 0);
    machine.run_on(CPU0, || {
        for page in held {
            // SAFETY: mapped above.
            unsafe { machine.mm().kunmap(page) };
            free(&machine, page);
        }
    });
    is_clean(&machine);
}

/// What a page is to hold: a value for each page, written on all of it.
fn value(page: Page, round: u64) -> u64 {
    (page.pfn().number() << 32 | round).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Some words of each page: its first, its last, and between.
const WORDS: [usize; 4] = [0, 1, 300, 511];

/// # Safety
///
/// The page is mapped there and the caller's.
unsafe fn write(address: VirtAddr, value: u64) {
    for index in WORDS {
        // SAFETY: the caller's promise.
        unsafe { address.as_ptr::<u64>().add(index).write_volatile(value ^ index as u64) };
    }
}

/// # Safety
///
/// The page is mapped there.
unsafe fn check(address: VirtAddr, value: u64) {
    for index in WORDS {
        // SAFETY: the caller's promise.
        let found = unsafe { address.as_ptr::<u64>().add(index).read_volatile() };
        assert_eq!(found, value ^ index as u64, "word {index} at {address}");
    }
}

/// Every CPU maps its pages in every way at random, a million operations in all, while interrupts and
/// their handlers' own mappings arrive anywhere.
fn storm(preset: &str, operations: u64) {
    let machine = boot(preset);
    // Handlers have pages of their own, one a CPU.
    let theirs: [Page; 2] = machine.run_on(CPU0, || high(&machine));
    let handler = {
        let machine = Arc::downgrade(&machine);
        let rounds = AtomicU64::new(0);
        move || {
            let Some(machine) = machine.upgrade() else { return };
            let mm = machine.mm();
            let here = machine.current().unwrap();
            let (page, round) = (theirs[here.index()], rounds.fetch_add(1, Relaxed));
            let slot = [KM_IRQ0, KM_IRQ1, KM_SOFTIRQ0][(round % 3) as usize];
            // SAFETY: the page is this CPU's handlers', one of which runs at a time.
            unsafe {
                let address = mm.kmap_atomic(page, slot).unwrap();
                write(address, value(page, round));
                let nested = mm.kmap_local_page(page).unwrap();
                check(nested, value(page, round));
                mm.kunmap_local(nested);
                check(address, value(page, round));
                mm.kunmap_atomic(address, slot);
            }
        }
    };
    let storm = machine.interrupt_storm(Duration::from_micros(100), handler);
    std::thread::scope(|scope| {
        for number in 0..2 {
            let machine = &machine;
            scope.spawn(move || machine.run_on(cpu(number), || mixed(machine, number, operations)));
        }
    });
    assert!(storm.handled() > 100, "{} interrupts", storm.handled());
    drop(storm);
    machine.run_on(CPU0, || theirs.into_iter().for_each(|page| free(&machine, page)));
    is_clean(&machine);
}

/// One CPU's operations: mapping, checking, writing and unmapping one of its pages each.
fn mixed(machine: &Machine, number: u32, operations: u64) {
    let mm = machine.mm();
    let pages: Vec<Page> = (0..1500).flat_map(|_| high::<1>(machine)).collect();
    let mut holds: BTreeMap<Page, u64> = BTreeMap::new();
    let mut mapped: Vec<Page> = Vec::new();
    let mut state = 0x1234_5678_9abc_def1 + u64::from(number);
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for round in 0..operations {
        // Mostly a few pages, which are found mapped; now and then any, so that slots run out.
        let among = if random(10) == 0 { pages.len() } else { 40 };
        let page = pages[random(among as u64) as usize];
        // SAFETY: the pages are this CPU's, mapped while they are used, and ended by their own address.
        unsafe {
            let touch = |address: VirtAddr| {
                if let Some(round) = holds.get(&page) {
                    check(address, value(page, *round));
                }
                write(address, value(page, round));
            };
            match random(16) {
                0..12 => {
                    touch(mm.kmap(page).unwrap());
                    // Some stay mapped for a while; fewer than a half of the slots.
                    mapped.push(page);
                    if mapped.len() > 400 || random(2) == 0 {
                        let at = random(mapped.len() as u64) as usize;
                        mm.kunmap(mapped.swap_remove(at));
                    }
                }
                12..14 => {
                    let address = mm.kmap_local_page(page).unwrap();
                    let other = mm.kmap_local_page(pages[random(40) as usize]).unwrap();
                    touch(address);
                    mm.kunmap_local(other);
                    check(address, value(page, round));
                    mm.kunmap_local(address);
                }
                _ => {
                    let slot = [KM_USER0, KM_USER1, KM_PTE0][random(3) as usize];
                    let address = mm.kmap_atomic(page, slot).unwrap();
                    touch(address);
                    assert!(machine.host().in_atomic());
                    mm.kunmap_atomic(address, slot);
                }
            }
        }
        holds.insert(page, round);
    }
    for page in mapped {
        // SAFETY: mapped above.
        unsafe { mm.kunmap(page) };
    }
    for (page, round) in holds {
        // SAFETY: the pages are this CPU's.
        let bytes = unsafe { mm.kmap_local(page) }.unwrap();
        // SAFETY: mapped.
        unsafe { check(bytes.address(), value(page, round)) };
    }
    pages.into_iter().for_each(|page| free(machine, page));
}

// A269, A270, A273
#[test]
fn contents_are_right_after_a_million_mappings_on_all_cpus_with_interrupts() {
    storm("lkd-i386", 500_000);
}

// A035, A269, A270, A273
#[test]
fn contents_are_right_where_frames_take_36_bits() {
    storm("pae", 50_000);
}

/// NMI handlers have types of their own, and arrive with interrupts masked, too.
// A273, A274
#[test]
fn nmi_handlers_map_pages_in_the_middle_of_others_mappings() {
    const NMIS: u64 = 5_000;
    let machine = boot("lkd-i386");
    let [page, theirs] = machine.run_on(CPU0, || high(&machine));
    let handler = {
        let machine = Arc::downgrade(&machine);
        move || {
            let Some(machine) = machine.upgrade() else { return };
            assert!(machine.host().in_nmi());
            let mm = machine.mm();
            // SAFETY: the page is the handlers', one of which runs at a time.
            unsafe {
                let address = mm.kmap_atomic(theirs, KM_NMI).unwrap();
                write(address, 5);
                let second = mm.kmap_atomic(theirs, KM_NMI_PTE).unwrap();
                check(second, 5);
                mm.kunmap_atomic(second, KM_NMI_PTE);
                mm.clear_highpage(theirs).unwrap();
                assert_eq!(address.as_ptr::<u64>().read_volatile(), 0);
                mm.kunmap_atomic(address, KM_NMI);
            }
        }
    };
    let line = machine.interrupt_line(handler);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (machine, over) = (&machine, &over);
        scope.spawn(move || {
            machine.run_on(CPU0, || {
                let mut round = 0;
                while !over.load(Relaxed) {
                    std::thread::yield_now();
                    // SAFETY: the page is this task's and mapped.
                    unsafe {
                        let address = machine.mm().kmap(page).unwrap();
                        write(address, round);
                        let saved = machine.host().mask();
                        let local = machine.mm().kmap_local_page(page).unwrap();
                        check(local, round);
                        machine.mm().kunmap_local(local);
                        machine.host().restore(saved);
                        machine.mm().kunmap(page);
                    }
                    round += 1;
                }
            });
        });
        for _ in 0..NMIS {
            line.raise_nmi(CPU0).unwrap();
            while line.waiting() != 0 {
                std::thread::yield_now();
            }
        }
        over.store(true, SeqCst);
    });
    assert_eq!(line.handled(), NMIS);
    drop(line);
    machine.run_on(CPU0, || [page, theirs].into_iter().for_each(|page| free(&machine, page)));
    is_clean(&machine);
}

/// A271: the slots are the end of the range for mappings; vmalloc has the rest, and the direct map is
/// elsewhere.
#[test]
fn the_slots_are_in_the_range_for_mappings() {
    let machine = boot("lkd-i386");
    let (window, range) = (machine.mm().kmap_window(), machine.host().range());
    assert_eq!(window.end, range.end);
    assert_eq!(window.end.get() - window.start.get(), 1024 << 12);
    assert!(machine.host().virt_to_phys(window.start).is_none());
    assert_eq!(machine.mm().vmalloc_info().range, range.start..window.start);
    let low = boot("tiny");
    assert!(low.mm().kmap_window().is_empty());
    assert_eq!(low.mm().vmalloc_info().range, low.host().range());
}
