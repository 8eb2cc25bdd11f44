//! Two CPUs that free one block at the same moment: it is never handed out twice, and it is
//! reported at the latest when it would be.

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use common::{CPU, Machine, Rig, Scope, as_cpu, frames, settle};
use kmem::platform::MisuseKind;
use kmem::*;

const ONE: u32 = 1;

fn machine<const TRACE: bool>(setup: Setup) -> Machine<NoReclaim, 12, TRACE> {
    let mm = Mm::new(Rig::new(16 << 20));
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&MemoryMap::new().ram(0..16 << 20, NodeId::ZERO), &setup.cpus(2)).unwrap() };
    mm.cpu_online(CpuId::new(ONE).unwrap()).unwrap();
    mm
}

/// Both CPUs allocate everything, by turns. Answers the blocks; panics where one comes twice.
fn take_all(mm: &Machine, order: u32) -> Vec<Page> {
    let mut taken = HashSet::new();
    let mut pages = Vec::new();
    let mut failed = [false; 2];
    while failed != [true; 2] {
        for number in [0, ONE] {
            let gfp = GFP_ATOMIC | Gfp::NOWARN;
            match as_cpu(number, || mm.alloc_pages(gfp, order)) {
                Ok(page) => {
                    for frame in frames(page, order) {
                        assert!(taken.insert(frame), "frame {frame:#x} was handed out twice");
                    }
                    pages.push(page);
                }
                Err(_) => failed[number as usize] = true,
            }
        }
    }
    pages
}

/// While CPU 0 frees a block, CPU 1 frees it too, at each place where CPU 0 can be overtaken in
/// turn. Answers how many places there are.
fn at_every_place(setup: Setup, order: u32, gfp: Gfp) -> u64 {
    let mm: &'static Machine = Box::leak(Box::new(machine(setup)));
    let before = settle(mm);
    for place in 0.. {
        let page = mm.alloc_pages(gfp, order).unwrap();
        let overtaken = CPU.with(|cpu| {
            cpu.arm_once(Scope::OtherCpu(ONE), None, place, move |_| {
                common::free(mm, page, order);
            });
            common::free(mm, page, order);
            !cpu.disarm()
        });
        let pages = take_all(mm, order);
        let reports = mm.platform().take_reports();
        // Where nothing came in between the block was freed once, and rightly.
        assert_eq!(reports.len(), usize::from(overtaken), "at place {place}: {reports:#?}");
        for report in &reports {
            use MisuseKind::{ConcurrentFree, DoubleFree, NoReference};
            let expected = [DoubleFree, ConcurrentFree, NoReference];
            assert!(expected.contains(&report.kind), "{}", report.line);
        }
        pages.into_iter().for_each(|page| common::free(mm, page, order));
        as_cpu(ONE, || mm.drain_local_pages());
        assert_eq!(settle(mm), before, "at place {place}");
        assert_eq!(mm.platform().take_reports(), []);
        if !overtaken {
            return place;
        }
    }
    unreachable!()
}

/// A062, A063
#[test]
fn a_small_block_is_never_handed_out_twice() {
    for order in 0..=3 {
        let places = at_every_place(Setup::new(), order, GFP_KERNEL);
        assert!(places >= 4, "{places}");
    }
}

/// A062, A063
#[test]
fn a_large_block_is_never_handed_out_twice() {
    for order in [4, 5, 8, 9] {
        at_every_place(Setup::new(), order, GFP_KERNEL);
    }
}

/// A062, A063
#[test]
fn without_per_cpu_lists_no_block_is_handed_out_twice() {
    for order in [0, 1, 3, 6] {
        at_every_place(Setup::new().pagesets(false), order, GFP_KERNEL);
    }
}

/// A062, A113
#[test]
fn a_compound_block_is_never_handed_out_twice() {
    for order in [1, 3, 4, 9] {
        at_every_place(Setup::new(), order, GFP_KERNEL | Gfp::COMP);
    }
}

/// Lets two threads go on at the same moment.
struct Line(AtomicUsize);

impl Line {
    fn meet(&self, round: usize) {
        self.0.fetch_add(1, SeqCst);
        let mut spins = 0u32;
        while self.0.load(SeqCst) < 2 * round {
            spins += 1;
            if spins > 200 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

/// Two threads as two CPUs free one block, meet, and allocate one each: many times.
fn two_threads(setup: Setup, order: u32, gfp: Gfp, rounds: usize) {
    // Two threads that wait for each other many thousand times want two processors.
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock();
    let mm: Machine = machine(setup);
    let before = settle(&mm);
    let (mm, line) = (&mm, &Line(AtomicUsize::new(0)));
    let shared = &AtomicU32::new(0);
    let taken = &[const { AtomicU32::new(0) }; 2];
    let page_of = |frame: u32| mm.pfn_to_page(Pfn::new(u64::from(frame)).unwrap()).unwrap();
    let cpu = move |number: u32| {
        CPU.with(|cpu| cpu.number.set(number));
        for round in 0..rounds {
            let meet = |stop: usize| line.meet(5 * round + stop);
            // An entry that is not good is met on the fast path, on the slow one, or by a drain.
            let take = round % 3;
            mm.drain_local_pages();
            meet(1);
            if number == 0 {
                let page = mm.alloc_pages(gfp, order).unwrap();
                shared.store(page.pfn().number() as u32, SeqCst);
            }
            meet(2);
            common::free(mm, page_of(shared.load(SeqCst)), order);
            meet(3);
            if take == 2 {
                mm.drain_local_pages();
            }
            let cold = if take == 1 { Gfp::COLD } else { Gfp::NONE };
            let page = mm.alloc_pages(GFP_KERNEL | cold, order).unwrap();
            taken[number as usize].store(page.pfn().number() as u32, SeqCst);
            meet(4);
            let [a, b] = [&taken[0], &taken[1]].map(|frame| frame.load(SeqCst));
            assert_ne!(a, b, "round {round}: both cpus have frame {a:#x}");
            meet(5);
            common::free(mm, page, order);
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(move || cpu(ONE));
        std::thread::scope(|scope| scope.spawn(move || cpu(0)).join()).unwrap();
        other.join().unwrap();
    });
    as_cpu(ONE, || mm.drain_local_pages());
    assert_eq!(settle(mm), before);
    let reports = mm.platform().take_reports();
    assert_eq!(reports.len(), rounds, "each round frees once too often");
    let late = reports.iter().filter(|report| report.kind == MisuseKind::ConcurrentFree).count();
    println!("order {order}: {late} of {rounds} were found only when the block was taken again");
}

/// A062, A063
#[test]
fn two_threads_free_one_page() {
    two_threads(Setup::new(), 0, GFP_KERNEL, 6_000);
}

/// A062, A063
#[test]
fn two_threads_free_one_large_block() {
    two_threads(Setup::new(), 5, GFP_KERNEL, 2_000);
}

/// A062, A063
#[test]
fn two_threads_free_one_page_without_lists() {
    two_threads(Setup::new().pagesets(false), 0, GFP_KERNEL, 2_000);
}

/// A062, A063, A113
#[test]
fn two_threads_free_one_compound_block() {
    two_threads(Setup::new(), 3, GFP_KERNEL | Gfp::COMP, 2_000);
    two_threads(Setup::new(), 6, GFP_KERNEL | Gfp::COMP, 2_000);
}
