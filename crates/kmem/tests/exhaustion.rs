//! Memory that runs out: every call that allocates fails cleanly, at every point, and the flags say
//! how hard it tries before.

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use common::{CPU, Machine, Point, Rig, Scope, lists, settle};
use kmem::*;

const BYTES: u64 = 8 << 20;

/// A reclaimer that gives back what it hoards, one block a call, from some call on.
#[derive(Default)]
struct OnDemand {
    hoard: Mutex<Vec<(Page, u32)>>,
    calls: AtomicU32,
    /// The number of calls in vain before the first that frees.
    in_vain: AtomicU32,
    wakes: AtomicU32,
    asked: Mutex<Vec<ReclaimRequest>>,
}

impl Reclaim for OnDemand {
    fn reclaim(&self, pages: &dyn PageSource, request: &ReclaimRequest) -> u64 {
        assert!(!CPU.with(|cpu| cpu.in_atomic()), "reclaim in atomic context");
        assert!(request.gfp.may_sleep());
        self.asked.lock().unwrap().push(*request);
        if self.calls.fetch_add(1, SeqCst) < self.in_vain.load(SeqCst) {
            return 0;
        }
        let Some((page, order)) = self.hoard.lock().unwrap().pop() else { return 0 };
        let before = pages.free_page_count();
        // SAFETY: the block was the hoard's.
        unsafe { pages.free_pages(page, order) };
        assert_eq!(pages.free_page_count(), before + (1 << order));
        1 << order
    }

    fn wake_background(&self, _: &ReclaimRequest) {
        self.wakes.fetch_add(1, SeqCst);
    }
}

impl OnDemand {
    /// Hoards one block, to be given back after so many calls in vain. Forgets what was counted.
    fn prepare(&self, hoard: &[(Page, u32)], in_vain: u32) {
        *self.hoard.lock().unwrap() = hoard.to_vec();
        self.calls.store(0, SeqCst);
        self.wakes.store(0, SeqCst);
        self.in_vain.store(in_vain, SeqCst);
        self.asked.lock().unwrap().clear();
    }

    fn calls(&self) -> u32 {
        self.calls.load(SeqCst)
    }
}

type Mem = Machine<OnDemand>;

fn boot(setup: Setup) -> Mem {
    let mm = Mm::with_reclaim(Rig::new(BYTES as usize), OnDemand::default());
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&MemoryMap::new().ram(0..BYTES, NodeId::ZERO), &setup).unwrap() };
    mm
}

/// A machine without reserves, so that how many pages are left is how many there are.
fn bare() -> Mem {
    boot(Setup::new().min_free_kbytes(0))
}

const ALL: Gfp = GFP_KERNEL.union(Gfp::MEMALLOC).union(Gfp::NOWARN);

/// Takes all memory, page by page, in ascending order.
fn exhaust(mm: &Mem) -> Vec<Page> {
    let mut pages: Vec<Page> = std::iter::from_fn(|| mm.alloc_page(ALL).ok()).collect();
    assert_eq!(mm.free_page_count(), 0, "pages are free that MEMALLOC did not get");
    pages.sort();
    pages
}

fn release(mm: &Mem, pages: impl IntoIterator<Item = Page>) {
    pages.into_iter().for_each(|page| common::free(mm, page, 0));
}

/// What a call got, to be freed.
enum Got {
    Nothing,
    Pages(Vec<(Page, u32)>),
    Exact(VirtAddr, usize),
}

/// Every public call that allocates, as: flags, to what it got and how often it failed.
type Call = (&'static str, fn(&Mem, Gfp) -> (Got, usize));

fn one<T>(result: Result<T, AllocError>, got: impl FnOnce(T) -> Got) -> (Got, usize) {
    match result {
        Ok(value) => (got(value), 0),
        Err(AllocError::NoMemory { .. }) => (Got::Nothing, 1),
        Err(error) => panic!("{error}"),
    }
}

fn block(mm: &Mem, gfp: Gfp, order: u32) -> (Got, usize) {
    one(mm.alloc_pages(gfp, order), |page| Got::Pages(vec![(page, order)]))
}

fn at(mm: &Mem, address: Result<VirtAddr, AllocError>, order: u32) -> (Got, usize) {
    one(address, |address| Got::Pages(vec![(mm.virt_to_page(address).unwrap(), order)]))
}

const CALLS: &[Call] = &[
    ("alloc_page", |mm, gfp| one(mm.alloc_page(gfp), |page| Got::Pages(vec![(page, 0)]))),
    ("alloc_pages 1", |mm, gfp| block(mm, gfp, 1)),
    ("alloc_pages 2", |mm, gfp| block(mm, gfp, 2)),
    ("alloc_pages 4", |mm, gfp| block(mm, gfp, 4)),
    ("alloc_pages 10", |mm, gfp| block(mm, gfp, 10)),
    ("compound", |mm, gfp| block(mm, gfp | Gfp::COMP, 2)),
    ("cold", |mm, gfp| block(mm, gfp | Gfp::COLD, 0)),
    ("movable", |mm, gfp| block(mm, gfp | Gfp::MOVABLE, 1)),
    ("alloc_pages_node", |mm, gfp| {
        let found = mm.alloc_pages_node(Some(NodeId::ZERO), gfp | Gfp::THISNODE, 1);
        one(found, |page| Got::Pages(vec![(page, 1)]))
    }),
    ("__get_free_pages", |mm, gfp| at(mm, mm.__get_free_pages(gfp, 3), 3)),
    ("__get_free_page", |mm, gfp| at(mm, mm.__get_free_page(gfp), 0)),
    ("get_zeroed_page", |mm, gfp| at(mm, mm.get_zeroed_page(gfp), 0)),
    ("__get_dma_pages", |mm, gfp| at(mm, mm.__get_dma_pages(gfp, 1), 1)),
    ("pages", |mm, gfp| {
        let pages = mm.pages(gfp, 1).map(|pages| pages.into_page());
        one(pages, |page| Got::Pages(vec![(page, 1)]))
    }),
    ("alloc_pages_exact", |mm, gfp| {
        one(mm.alloc_pages_exact(5 << 12, gfp), |address| Got::Exact(address, 5 << 12))
    }),
    ("alloc_contig_pages", |mm, gfp| {
        let range = PhysAddr::new(0)..PhysAddr::new(BYTES);
        let found = mm.alloc_contig_pages(6, Order::ZERO, range, gfp);
        let pages = |first: Page| {
            let frames = first.pfn().number()..first.pfn().number() + 6;
            frames.map(|frame| (mm.pfn_to_page(Pfn::new(frame).unwrap()).unwrap(), 0)).collect()
        };
        one(found, |first| Got::Pages(pages(first)))
    }),
    ("alloc_pages_bulk", |mm, gfp| {
        let mut pages = [None; 12];
        let filled = mm.alloc_pages_bulk(gfp, &mut pages);
        assert_eq!(pages.iter().flatten().count(), filled);
        let got = pages.into_iter().flatten().map(|page| (page, 0)).collect();
        (Got::Pages(got), usize::from(filled < 12))
    }),
];

fn give_back(mm: &Mem, got: Got) -> u64 {
    match got {
        Got::Nothing => 0,
        Got::Pages(pages) => {
            pages.iter().for_each(|(page, order)| common::free(mm, *page, *order));
            pages.iter().map(|(_, order)| 1 << order).sum()
        }
        Got::Exact(address, bytes) => {
            // SAFETY: the test holds them.
            unsafe { mm.free_pages_exact(address, bytes) };
            bytes.div_ceil(4096) as u64
        }
    }
}

/// With so many pages left, in one run and strewn, every call either gets what it asks for or fails
/// and says so; and nothing is lost.
///
/// A065, A083, A143
#[test]
fn every_call_fails_cleanly_at_every_point() {
    let mm = bare();
    let before = settle(&mm);
    let mut held = exhaust(&mm);
    let flags = [
        GFP_ATOMIC,
        GFP_NOWAIT - Gfp::NOWARN,
        GFP_KERNEL,
        GFP_KERNEL | Gfp::NORETRY,
        GFP_KERNEL | Gfp::RETRY_MAYFAIL,
        GFP_KERNEL | Gfp::MEMALLOC,
        GFP_KERNEL | Gfp::NOMEMALLOC,
        GFP_NOIO,
    ];
    let (mut failed, mut succeeded) = (0, 0);
    for left in (0..=24).chain([40]) {
        for step in [1, 2] {
            let places: Vec<usize> = (0..left).map(|page| 64 + page * step).collect();
            let some: Vec<Page> = places.iter().map(|at| held[*at]).collect();
            release(&mm, some.iter().copied());
            let free = settle(&mm);
            for (name, call) in CALLS {
                for gfp in flags {
                    mm.reclaim().prepare(&[], 0);
                    let failures = mm.counters().failures;
                    let (got, errors) = call(&mm, gfp);
                    let lines = mm.platform().take_lines();
                    assert_eq!(lines.len(), errors, "{name}: {lines:?}");
                    assert_eq!(mm.counters().failures, failures + errors as u64, "{name}");
                    failed += errors;
                    succeeded += usize::from(errors == 0);
                    give_back(&mm, got);
                    assert_eq!(mm.free_page_count(), left as u64, "{name} {gfp} lost pages");
                    let quietly = call(&mm, gfp | Gfp::NOWARN).0;
                    assert_eq!(mm.platform().take_lines(), [""; 0], "{name} {gfp} with NOWARN");
                    give_back(&mm, quietly);
                    assert_eq!(settle(&mm), free, "{name} {gfp}, {left} left");
                }
            }
            let again = exhaust(&mm);
            assert_eq!(again.len(), left);
            for (at, page) in places.into_iter().zip(again) {
                held[at] = page;
            }
        }
    }
    assert!(failed > 1000 && succeeded > 1000, "{failed} failed, {succeeded} succeeded");
    release(&mm, held);
    assert_eq!(settle(&mm), before);
    assert_eq!(mm.platform().take_reports(), []);
}

/// Where reclaim frees what is missing, whatever the call had to wait for, it succeeds.
///
/// A101, A138
#[test]
fn every_call_succeeds_when_reclaim_frees_in_time() {
    let mm = bare();
    let before = settle(&mm);
    let mut hoard = mm.alloc_pages(GFP_KERNEL, 10).ok();
    let mut held = exhaust(&mm);
    for (name, call) in CALLS {
        if *name == "alloc_contig_pages" {
            continue;
        }
        for in_vain in 0..=1 {
            let Some(block) = hoard.take() else { panic!("the hoard is lost") };
            mm.reclaim().prepare(&[(block, 10)], in_vain);
            let (got, errors) = call(&mm, GFP_KERNEL | Gfp::NOWARN);
            assert_eq!(errors, 0, "{name} failed although reclaim freed at call {in_vain}");
            assert_eq!(mm.reclaim().calls(), in_vain + 1, "{name}");
            give_back(&mm, got);
            mm.drain_all_pages();
            hoard = mm.alloc_pages(ALL, 10).ok();
            mm.reclaim().prepare(&[], 0);
            let (got, errors) = call(&mm, GFP_ATOMIC | Gfp::NOWARN);
            assert!(errors > 0, "{name}: nothing was free");
            assert_eq!(mm.reclaim().calls(), 0, "{name} with GFP_ATOMIC went into reclaim");
            give_back(&mm, got);
        }
    }
    common::free(&mm, hoard.unwrap(), 10);
    release(&mm, held.drain(..));
    assert_eq!(settle(&mm), before);
}

/// A108
#[test]
fn nofail_waits_until_there_is_memory() {
    let mm = bare();
    let mut held = exhaust(&mm);
    for gfp in [GFP_KERNEL, GFP_NOIO, GFP_KERNEL | Gfp::ZERO, GFP_KERNEL | Gfp::NOMEMALLOC] {
        for in_vain in [0, 4, 30, 3000] {
            mm.reclaim().prepare(&[(held.pop().unwrap(), 0)], in_vain);
            let page = mm.alloc_page(gfp | Gfp::NOFAIL).unwrap();
            assert_eq!(mm.reclaim().calls(), in_vain + 1);
            let attempts: Vec<u32> =
                mm.reclaim().asked.lock().unwrap().iter().map(|asked| asked.attempt).collect();
            assert!(attempts.iter().copied().eq(0..=in_vain), "{attempts:?}");
            // Somebody who waits that long says so, now and then.
            assert_eq!(mm.platform().take_lines().len() as u32, in_vain / 1024);
            held.push(page);
        }
    }
    release(&mm, held);
    mm.verify().unwrap();
}

/// A task that frees memory for others does not go into reclaim again; where it must not fail it
/// waits for somebody else to free.
///
/// A108, A110
#[test]
fn nofail_waits_for_others_where_it_must_not_reclaim() {
    let mm: &'static Mem = Box::leak(Box::new(bare()));
    let mut held = exhaust(mm);
    for memalloc in [false, true] {
        mm.reclaim().prepare(&[], 0);
        let page = held.pop().unwrap();
        CPU.with(|cpu| {
            cpu.memalloc.set(memalloc);
            cpu.arm_once(Scope::OtherCpu(1), Some(Point::Relax), 20, move |_| {
                common::free(mm, page, 0);
            });
        });
        let flag = if memalloc { Gfp::NONE } else { Gfp::MEMALLOC };
        let found = mm.alloc_page(GFP_KERNEL | Gfp::NOFAIL | flag);
        CPU.with(|cpu| cpu.memalloc.set(false));
        assert_eq!(found, Ok(page), "memalloc task: {memalloc}");
        assert!(!CPU.with(|cpu| cpu.disarm()));
        assert_eq!(mm.reclaim().calls(), 0);
        held.push(page);
    }
    release(mm, held);
    mm.verify().unwrap();
}

/// A request that may sleep, made where that is forbidden, is reported and then goes on as one that
/// must not: it neither reclaims nor waits.
///
/// A101, A135
#[test]
fn a_request_in_the_wrong_place_does_not_reclaim() {
    use kmem::platform::{Context, MisuseKind};
    let mm = bare();
    let held = exhaust(&mm);
    for gfp in [GFP_KERNEL, GFP_KERNEL | Gfp::RETRY_MAYFAIL, GFP_KERNEL | Gfp::NOFAIL, GFP_NOFS] {
        mm.reclaim().prepare(&[], 0);
        let saved = mm.platform().mask();
        let found = mm.alloc_page(gfp | Gfp::NOWARN);
        mm.platform().restore(saved);
        assert!(matches!(found, Err(AllocError::NoMemory { .. })), "{gfp}: {found:?}");
        assert_eq!(mm.reclaim().calls(), 0, "{gfp}");
        let reports = mm.platform().take_reports();
        assert_eq!(reports.len(), 1, "{gfp}: {reports:#?}");
        assert_eq!(reports[0].kind, MisuseKind::SleepInAtomic);
    }
    release(&mm, held);
    mm.verify().unwrap();
}

/// A107, A108, A109
#[test]
fn the_flags_say_how_often_to_try() {
    let mm = bare();
    let held = exhaust(&mm);
    let calls = |gfp: Gfp| {
        mm.reclaim().prepare(&[], 0);
        let found = mm.alloc_page(gfp | Gfp::NOWARN);
        assert!(matches!(found, Err(AllocError::NoMemory { .. })), "{gfp}: {found:?}");
        mm.reclaim().calls()
    };
    assert_eq!(calls(GFP_KERNEL | Gfp::NORETRY), 1);
    assert_eq!(calls(GFP_KERNEL), 2);
    assert_eq!(calls(GFP_KERNEL | Gfp::RETRY_MAYFAIL), 1 + 16);
    for never in [GFP_ATOMIC, GFP_NOWAIT, Gfp::NONE, GFP_KERNEL | Gfp::MEMALLOC] {
        assert_eq!(calls(never), 0, "{never}");
    }
    // The daemon is woken by those who say so.
    for (gfp, wakes) in [(GFP_ATOMIC, 1), (GFP_NOWAIT, 1), (Gfp::NONE, 0), (GFP_KERNEL, 1)] {
        calls(gfp);
        assert_eq!(mm.reclaim().wakes.load(SeqCst), wakes, "{gfp}");
    }
    release(&mm, held);
}

/// Single pages that are freed one by one never make a large block where each second one is in use:
/// the request ends all the same.
///
/// A060, A083
#[test]
fn progress_that_does_not_help_ends() {
    let mm = bare();
    let held = exhaust(&mm);
    let even: Vec<(Page, u32)> = held.iter().step_by(2).map(|page| (*page, 0)).collect();
    for (gfp, most) in [(GFP_KERNEL, 64), (GFP_KERNEL | Gfp::NORETRY, 1)] {
        mm.reclaim().prepare(&even, 0);
        let found = mm.alloc_pages(gfp | Gfp::NOWARN, 1);
        assert!(matches!(found, Err(AllocError::NoMemory { .. })), "{found:?}");
        assert_eq!(mm.reclaim().calls(), most);
        let freed: Vec<Page> = std::iter::from_fn(|| mm.alloc_page(ALL).ok()).collect();
        assert_eq!(freed.len() as u32, most);
    }
    release(&mm, held);
    mm.verify().unwrap();
}

/// With half of all memory free there may be no two pages side by side.
///
/// A060
#[test]
fn a_checkerboard_has_no_larger_block() {
    let mm = bare();
    let before = settle(&mm);
    let held = exhaust(&mm);
    let odd = |page: &Page| page.pfn().number() % 2 == 1;
    release(&mm, held.iter().copied().filter(odd));
    assert!(mm.free_page_count() * 2 >= held.len() as u64 - 1);
    let found = mm.alloc_pages(GFP_KERNEL | Gfp::NOWARN, 1);
    assert!(matches!(found, Err(AllocError::NoMemory { .. })), "{found:?}");
    let page = mm.alloc_page(GFP_KERNEL).unwrap();
    common::free(&mm, page, 0);
    release(&mm, held.into_iter().filter(|page| !odd(page)));
    assert_eq!(settle(&mm), before);
}

/// How many pages a request of these flags gets until it fails.
fn gets(mm: &Mem, gfp: Gfp) -> u64 {
    mm.reclaim().prepare(&[], 0);
    let pages: Vec<Page> = std::iter::from_fn(|| mm.alloc_page(gfp | Gfp::NOWARN).ok()).collect();
    let count = pages.len() as u64;
    release(mm, pages);
    settle(mm);
    count
}

/// Who is more urgent goes deeper into the reserve; NOMEMALLOC keeps out of it and wins over
/// MEMALLOC.
///
/// A102, A110, A119, A120, A138, A139
#[test]
fn the_reserve_is_for_the_urgent() {
    let mm = boot(Setup::new());
    let before = settle(&mm);
    let zone = &mm.zones()[0];
    let (free, marks) = (mm.free_page_count(), zone.watermarks());
    assert!(marks.min >= 8, "{marks:?}");
    let kernel = gets(&mm, GFP_KERNEL);
    assert_eq!(kernel, free - marks.min);
    assert_eq!(gets(&mm, GFP_NOWAIT), kernel);
    // Not even for a moment is the reserve on a list, where others do not reach it.
    let held: Vec<Page> = std::iter::from_fn(|| {
        assert!(zone.free_pages() >= marks.min, "{} of {marks:?}", zone.free_pages());
        mm.alloc_page(GFP_NOWAIT).ok()
    })
    .collect();
    release(&mm, held);
    let atomic = gets(&mm, GFP_ATOMIC);
    assert!(kernel < atomic && atomic < free, "{kernel} {atomic} {free}");
    let high = gets(&mm, GFP_KERNEL | Gfp::HIGH);
    assert!(kernel < high && high < atomic, "{kernel} {high} {atomic}");
    assert_eq!(gets(&mm, GFP_KERNEL | Gfp::MEMALLOC), free);
    assert_eq!(gets(&mm, GFP_ATOMIC | Gfp::MEMALLOC), free);
    for gfp in [GFP_ATOMIC, GFP_KERNEL, GFP_ATOMIC | Gfp::MEMALLOC, GFP_KERNEL | Gfp::MEMALLOC] {
        assert_eq!(gets(&mm, gfp | Gfp::NOMEMALLOC), kernel, "{gfp}");
    }
    CPU.with(|cpu| cpu.memalloc.set(true));
    assert_eq!(gets(&mm, GFP_KERNEL), free);
    assert_eq!(gets(&mm, GFP_KERNEL | Gfp::NOMEMALLOC), kernel);
    CPU.with(|cpu| cpu.memalloc.set(false));
    assert_eq!(settle(&mm), before);
}

/// With the rule of the older texts an atomic request gets the last free page, on whichever list of
/// its CPU that is, and fails when none is left.
///
/// A140, A086
#[test]
fn an_atomic_request_gets_the_last_page() {
    let mm = boot(Setup::new().whole_reserve_for_atomic(true));
    let free = mm.free_page_count();
    assert_eq!(gets(&mm, GFP_ATOMIC), free);
    let held = exhaust(&mm);
    for (gfp, order) in [(GFP_ATOMIC, 0), (GFP_ATOMIC | Gfp::MOVABLE, 0), (GFP_ATOMIC, 1)] {
        // One block goes onto this CPU's list of its page block's type.
        let pair = held.iter().find(|page| {
            let frame = page.pfn().number();
            frame % 2 == 0 && held.iter().any(|other| other.pfn().number() == frame + 1)
        });
        let first = *pair.unwrap();
        let second = mm.pfn_to_page(first.pfn().checked_add(1).unwrap()).unwrap();
        release(&mm, [first, second]);
        assert_eq!(mm.listed_pages(), 2);
        let page = mm.alloc_pages(gfp, order).unwrap_or_else(|error| panic!("{error}"));
        common::free(&mm, page, order);
        mm.drain_all_pages();
        assert_eq!(std::iter::from_fn(|| mm.alloc_page(ALL).ok()).count(), 2);
        let last = mm.alloc_page(GFP_ATOMIC | Gfp::NOWARN);
        assert!(matches!(last, Err(AllocError::NoMemory { .. })), "{last:?}");
    }
    release(&mm, held);
    mm.verify().unwrap();
}

/// Sizes, orders and counts beyond all bounds are errors, not panics.
///
/// A058, A083
#[test]
fn nonsense_is_refused() {
    let mm = bare();
    let before = lists(&mm);
    for order in [11, 15, 16, 31, 32, 63, 64, 255, u32::MAX] {
        for gfp in [GFP_KERNEL, GFP_ATOMIC, GFP_KERNEL | Gfp::NOFAIL] {
            let found = mm.alloc_pages(gfp, order).unwrap_err();
            assert!(matches!(found, AllocError::OrderTooLarge { .. }), "{found}");
            assert!(mm.__get_free_pages(gfp, order).is_err());
            assert!(mm.pages(gfp, order).is_err());
        }
    }
    assert_eq!(mm.alloc_pages_exact(0, GFP_KERNEL), Err(AllocError::ZeroSize));
    for size in [(4 << 20) + 1, 1 << 40, isize::MAX as usize, usize::MAX] {
        let found = mm.alloc_pages_exact(size, GFP_KERNEL).unwrap_err();
        assert!(matches!(found, AllocError::OrderTooLarge { .. }), "{found}");
    }
    let all = PhysAddr::new(0)..PhysAddr::new(u64::MAX);
    let zero = mm.alloc_contig_pages(0, Order::ZERO, all.clone(), GFP_KERNEL);
    assert_eq!(zero, Err(AllocError::ZeroSize));
    for count in [1 << 20, 1 << 32, (1 << 32) + 1, (1 << 63) + 1, u64::MAX] {
        let found = mm.alloc_contig_pages(count, Order::ZERO, all.clone(), GFP_KERNEL);
        assert!(matches!(found, Err(AllocError::NoMemory { .. })), "{count}: {found:?}");
    }
    let last = u64::MAX;
    for (start, end) in [(last - 1, last), (4096, 0), (0, 4095), (1, 8191), (last, 0)] {
        let range = PhysAddr::new(start)..PhysAddr::new(end);
        let found = mm.alloc_contig_pages(1, Order::LIMIT, range, GFP_KERNEL);
        assert!(matches!(found, Err(AllocError::NoMemory { .. })), "{found:?}");
    }
    let bad = mm.alloc_page(Gfp::NOFAIL).unwrap_err();
    assert!(matches!(bad, AllocError::BadFlags(_)), "{bad}");
    let node = NodeId::new(7).unwrap();
    assert_eq!(mm.alloc_pages_node(Some(node), GFP_KERNEL, 0), Err(AllocError::NoSuchNode(node)));
    assert_eq!(lists(&mm), before);
    assert_eq!(mm.platform().take_reports(), []);
}

/// On a machine that has worked for a while, the larger the block, the likelier a request fails; the
/// largest is to be had soon after boot.
///
/// A061
#[test]
fn the_larger_the_order_the_likelier_a_request_fails() {
    let mm = bare();
    let before = settle(&mm);
    let mut rng = common::Rng::new();
    let possible = || -> Vec<bool> {
        mm.drain_all_pages();
        let can = |order| {
            let block = mm.alloc_pages(GFP_ATOMIC | Gfp::NOWARN, order).ok();
            block.inspect(|block| common::free(&mm, *block, order)).is_some()
        };
        (0..=10).map(can).collect()
    };
    assert!(possible().iter().all(|can| *can), "after boot all can be had");
    let mut held: Vec<(Page, u32)> = Vec::new();
    let mut successes = [0u32; 11];
    let looks = 300;
    for _ in 0..looks {
        for _ in 0..40 {
            // Around four fifths of memory in use, most of it in small blocks.
            if mm.free_page_count() > BYTES / 4096 / 5 {
                let order = rng.order(3);
                let block = mm.alloc_pages(GFP_ATOMIC | Gfp::NOWARN, order);
                held.extend(block.map(|block| (block, order)));
            } else {
                let (block, order) = held.swap_remove(rng.below(held.len() as u64) as usize);
                common::free(&mm, block, order);
            }
        }
        for (order, can) in possible().into_iter().enumerate() {
            successes[order] += u32::from(can);
        }
    }
    println!("of {looks} requests of each order succeeded: {successes:?}");
    assert!(successes.is_sorted_by(|small, large| small >= large), "{successes:?}");
    assert_eq!(successes[0], looks);
    assert!(successes[10] * 4 < looks, "{successes:?}");
    for (block, order) in held {
        common::free(&mm, block, order);
    }
    assert_eq!(settle(&mm), before);
}
