//! Interrupts and NMIs that arrive while their CPU is inside the manager, and use it themselves.

mod common;

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use common::{CPU, Machine, Point, Rig, Rng, Scope, frames, settle};
use kmem::platform::MisuseKind;
use kmem::*;

type Traced = Machine<NoReclaim, 12, true>;

/// A machine that lives for ever, so that handlers can have it. With two zones and per-CPU lists.
fn machine<const TRACE: bool>() -> &'static Machine<NoReclaim, 12, TRACE> {
    let mm = Box::leak(Box::new(Mm::new(Rig::new(16 << 20))));
    let map = MemoryMap::new().ram(0..16 << 20, NodeId::ZERO);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &Setup::new().dma_limit(PhysAddr::new(8 << 20))).unwrap() };
    mm
}

/// What some code holds, each page stamped by it.
struct Holder<const TRACE: bool> {
    mm: &'static Machine<NoReclaim, 12, TRACE>,
    rng: Rng,
    gfp: Gfp,
    most: usize,
    blocks: Vec<(Page, u32)>,
    stamp: u64,
    /// All frames that anybody holds.
    taken: Rc<RefCell<HashSet<u64>>>,
    allocated: u64,
    freed: u64,
}

impl<const TRACE: bool> Holder<TRACE> {
    fn pair(
        mm: &'static Machine<NoReclaim, 12, TRACE>,
        of: [(Gfp, usize); 2],
    ) -> [Rc<RefCell<Self>>; 2] {
        let taken = Rc::new(RefCell::new(HashSet::new()));
        let mut stamp = 0x5a5a_0000;
        of.map(|(gfp, most)| {
            stamp += 1;
            let (rng, blocks, taken) = (Rng::new(), Vec::new(), taken.clone());
            let (allocated, freed) = (0, 0);
            let holder = Holder { mm, rng, gfp, most, blocks, stamp, taken, allocated, freed };
            Rc::new(RefCell::new(holder))
        })
    }

    fn words(&self, page: Page, order: u32) -> impl Iterator<Item = (u64, *mut u64)> {
        frames(page, order).flat_map(|frame| {
            let start = self.mm.platform().frame(frame).cast::<u64>();
            [0, 255, 511].map(|word| (frame, start.wrapping_add(word)))
        })
    }

    fn alloc(&mut self, order: u32) {
        let Ok(page) = self.mm.alloc_pages(self.gfp | Gfp::NOWARN, order) else { return };
        for frame in frames(page, order) {
            assert!(self.taken.borrow_mut().insert(frame), "frame {frame:#x} was handed out twice");
        }
        for (frame, word) in self.words(page, order) {
            // SAFETY: the page is this holder's.
            unsafe { word.write(self.stamp ^ frame) };
        }
        self.blocks.push((page, order));
        self.allocated += 1;
    }

    fn free(&mut self, at: usize) {
        let (page, order) = self.blocks.swap_remove(at);
        for (frame, word) in self.words(page, order) {
            // SAFETY: the page is this holder's.
            assert_eq!(unsafe { word.read() }, self.stamp ^ frame, "contents of {frame:#x}");
        }
        for frame in frames(page, order) {
            assert!(self.taken.borrow_mut().remove(&frame));
        }
        common::free(self.mm, page, order);
        self.freed += 1;
    }

    fn step(&mut self) {
        if self.blocks.len() < self.most && (self.blocks.is_empty() || self.rng.percent(55)) {
            let order = self.rng.order(5);
            self.alloc(order);
        } else {
            let at = self.rng.below(self.blocks.len() as u64) as usize;
            self.free(at);
        }
    }

    fn free_all(&mut self) {
        while !self.blocks.is_empty() {
            self.free(self.blocks.len() - 1);
        }
    }
}

/// A task and a handler work at the same memory; the handler comes at every `every`th call that the
/// manager makes.
fn work_together<const TRACE: bool>(scope: Scope, at: Option<Point>, every: u64, steps: u32) {
    let mm = machine::<TRACE>();
    let before = settle(mm);
    let [task, handler] = Holder::pair(mm, [(GFP_KERNEL, 300), (GFP_ATOMIC, 60)]);
    let inner = handler.clone();
    CPU.with(|cpu| {
        cpu.arm_every(scope, at, every, move |_| {
            let mut handler = inner.borrow_mut();
            for _ in 0..3 {
                handler.step();
            }
        });
        for step in 0..steps {
            task.borrow_mut().step();
            match step % 500 {
                100 => mm.drain_local_pages(),
                200 => mm.drain_all_pages(),
                300 => drop(mm.pages(GFP_KERNEL | Gfp::ZERO, 2)),
                _ => {}
            }
        }
        cpu.disarm();
    });
    assert!(handler.borrow().allocated > 0, "no handler has run: {scope:?} {at:?} {every}");
    assert!(handler.borrow().freed > 0, "no handler has freed: {scope:?} {at:?} {every}");
    mm.verify().unwrap();
    task.borrow_mut().free_all();
    handler.borrow_mut().free_all();
    assert_eq!(mm.platform().take_reports(), []);
    assert_eq!(settle(mm), before);
}

/// A084, A119, A132
#[test]
fn interrupts_at_every_kth_call() {
    for every in 0..=24 {
        work_together::<false>(Scope::Interrupt, None, every, 3000);
    }
}

/// A084, A119, A132
#[test]
fn interrupts_at_every_kind_of_call() {
    use Point::{Current, InAtomic, InNmi, Mask, Pin, Restore, Unpin};
    for at in [Pin, Unpin, Current, Mask, Restore, InAtomic, InNmi] {
        for every in [0, 1, 7] {
            work_together::<false>(Scope::Interrupt, Some(at), every, 3000);
        }
    }
}

/// A084, A119
#[test]
fn nmis_at_every_kth_call() {
    for every in 0..=24 {
        work_together::<false>(Scope::Nmi, None, every, 3000);
    }
}

/// What an NMI handler frees while its own CPU holds the zone's lock is put aside and freed later;
/// what it allocates then comes from elsewhere or not at all.
///
/// A084, A119
#[test]
fn nmis_while_the_zone_is_locked() {
    for every in [0, 1, 5] {
        work_together::<true>(Scope::Nmi, None, every, 2000);
    }
    let mm = machine::<true>();
    let before = settle(mm);
    let held: Vec<(Page, u32)> = [0, 1, 3, 4, 7, 0, 0]
        .map(|order| (mm.alloc_pages(GFP_KERNEL, order).unwrap(), order))
        .to_vec();
    let free = mm.free_page_count();
    let pages: u64 = held.iter().map(|(_, order)| 1u64 << order).sum();
    let freed = held.clone();
    CPU.with(|cpu| {
        cpu.arm_once(Scope::Nmi, Some(Point::Trace), 0, move |_| {
            for (page, order) in &freed {
                common::free(mm, *page, *order);
                let found = mm.alloc_pages(GFP_ATOMIC | Gfp::NOWARN, 5);
                if let Ok(page) = found {
                    let zone = mm.page_zone(page).unwrap();
                    assert_eq!(zone.name(), "DMA", "a block of the zone that is locked");
                    common::free(mm, page, 5);
                }
            }
        });
        // This takes the lock of the zone Normal.
        let block = mm.alloc_pages(GFP_KERNEL, 6).unwrap();
        assert!(!cpu.disarm());
        assert!(held.iter().any(|(page, _)| mm.owner(page.pfn()) == Owner::Free));
        // The next one who takes it frees what was put aside.
        common::free(mm, block, 6);
        assert_eq!(mm.free_page_count(), free + pages);
    });
    assert_eq!(mm.platform().take_reports(), []);
    assert_eq!(settle(mm), before);
}

/// Puts the machine in a state, and does one thing in it.
type Case = (
    &'static str,
    fn(&'static Traced) -> Vec<(Page, u32)>,
    fn(&'static Traced, &mut Vec<(Page, u32)>),
);

fn some(mm: &'static Traced, count: usize, order: u32) -> Vec<(Page, u32)> {
    (0..count).map(|_| (mm.alloc_pages(GFP_KERNEL, order).unwrap(), order)).collect()
}

const CASES: &[Case] = &[
    ("take from a list", |mm| some(mm, 1, 0), |mm, held| held.extend(some(mm, 1, 0))),
    (
        "refill a list",
        |mm| {
            mm.drain_local_pages();
            Vec::new()
        },
        |mm, held| held.extend(some(mm, 1, 0)),
    ),
    ("take a large block", |_| Vec::new(), |mm, held| held.extend(some(mm, 1, 6))),
    (
        "free onto a list",
        |mm| some(mm, 1, 1),
        |mm, held| held.drain(..).for_each(|(page, order)| common::free(mm, page, order)),
    ),
    (
        "spill a full list",
        |mm| {
            // One more than fits.
            let high = mm.pagesets(&mm.zones()[1]).next().unwrap().high;
            let mut all = some(mm, high as usize + 1, 0);
            mm.drain_local_pages();
            let last = all.pop().unwrap();
            all.into_iter().for_each(|(page, order)| common::free(mm, page, order));
            vec![last]
        },
        |mm, held| held.drain(..).for_each(|(page, order)| common::free(mm, page, order)),
    ),
    (
        "free a large block",
        |mm| some(mm, 1, 7),
        |mm, held| held.drain(..).for_each(|(page, order)| common::free(mm, page, order)),
    ),
    (
        "drain",
        |mm| {
            let all = some(mm, 20, 0);
            all.into_iter().for_each(|(page, order)| common::free(mm, page, order));
            Vec::new()
        },
        |mm, _| mm.drain_all_pages(),
    ),
    (
        "take and free a run",
        |_| Vec::new(),
        |mm, _| {
            let range = PhysAddr::new(0)..PhysAddr::new(16 << 20);
            let page = mm.alloc_contig_pages(21, Order::ZERO, range, GFP_KERNEL).unwrap();
            // SAFETY: the run was just allocated.
            unsafe { mm.free_contig_pages(page, 21) };
        },
    ),
    (
        "exact and compound",
        |_| Vec::new(),
        |mm, _| {
            let address = mm.alloc_pages_exact(5 << 12, GFP_KERNEL).unwrap();
            // SAFETY: the pages were just allocated.
            unsafe { mm.free_pages_exact(address, 5 << 12) };
            let page = mm.alloc_pages(GFP_KERNEL | Gfp::COMP, 2).unwrap();
            mm.get_page(page);
            // SAFETY: both references are the test's.
            unsafe { mm.put_page(page) };
            // SAFETY: as above.
            unsafe { mm.put_page(page) };
        },
    ),
    (
        "fail",
        |mm| {
            let mut held = Vec::new();
            for order in [10, 5, 3, 0] {
                while let Ok(page) = mm.alloc_pages(GFP_KERNEL | Gfp::NOWARN, order) {
                    held.push((page, order));
                }
            }
            held
        },
        |mm, _| {
            let found = mm.alloc_pages(GFP_KERNEL | Gfp::NOWARN, 9);
            assert!(matches!(found, Err(AllocError::NoMemory { .. })), "{found:?}");
        },
    ),
];

/// One interrupt, at each place of each operation in turn.
fn at_every_place(scope: Scope) {
    let mm = machine::<true>();
    let before = settle(mm);
    for (name, prepare, act) in CASES {
        let mut places = 0;
        for place in 0.. {
            let mut held = prepare(mm);
            let theirs: Vec<_> = [0, 2, 4]
                .into_iter()
                .filter_map(|order| {
                    Some((mm.alloc_pages(GFP_ATOMIC | Gfp::NOWARN, order).ok()?, order))
                })
                .collect();
            let interrupted = CPU.with(|cpu| {
                cpu.arm_once(scope, None, place, move |_| {
                    let mut taken = HashSet::new();
                    let mut mine = Vec::new();
                    for order in [0, 0, 1, 3, 4, 6] {
                        let gfp = GFP_ATOMIC | Gfp::NOWARN | Gfp::ZERO;
                        let Ok(page) = mm.alloc_pages(gfp, order) else { continue };
                        frames(page, order).for_each(|frame| assert!(taken.insert(frame)));
                        mine.push((page, order));
                    }
                    for (page, order) in theirs.iter().chain(&mine) {
                        common::free(mm, *page, *order);
                    }
                    mm.drain_local_pages();
                });
                act(mm, &mut held);
                let interrupted = !cpu.disarm();
                if !interrupted {
                    // `theirs` went with the handler; the block is found by who holds nothing.
                    mm.drain_local_pages();
                }
                interrupted
            });
            assert_eq!(mm.platform().take_reports(), [], "{name}, place {place}");
            held.drain(..).for_each(|(page, order)| common::free(mm, page, order));
            if !interrupted {
                break;
            }
            assert_eq!(settle(mm), before, "{name}, place {place}");
            places += 1;
        }
        assert!(places >= 3, "{name} was interrupted at {places} places only");
        // The last round's handler did not run: what it was to free is still held.
        free_everything(mm);
        assert_eq!(settle(mm), before, "{name}");
    }
}

/// Frees every block that anybody holds.
fn free_everything(mm: &'static Traced) {
    for frame in 0..(16 << 20) >> 12 {
        let pfn = Pfn::new(frame).unwrap();
        if let (page::Block::Used(order), Owner::Kernel) =
            (mm.memmap().unwrap().get(pfn).unwrap().block(), mm.owner(pfn))
        {
            common::free(mm, mm.pfn_to_page(pfn).unwrap(), order.get());
        }
    }
}

/// A084, A119
#[test]
fn one_interrupt_at_every_place() {
    at_every_place(Scope::Interrupt);
}

/// A084, A119
#[test]
fn one_nmi_at_every_place() {
    at_every_place(Scope::Nmi);
}

/// A handler that asks to drain lists that its CPU is at is heard at the next call.
///
/// A086
#[test]
fn a_drain_that_comes_in_between_is_made_up_for() {
    let mm = machine::<false>();
    let mut asked = 0;
    for place in 0.. {
        // Pages on one list, and another one that is about to be filled.
        mm.drain_local_pages();
        let page = mm.alloc_pages(GFP_KERNEL, 1).unwrap();
        common::free(mm, page, 1);
        let inside = Rc::new(RefCell::new(false));
        let seen = inside.clone();
        let interrupted = CPU.with(|cpu| {
            cpu.arm_once(Scope::Interrupt, None, place, move |_| {
                mm.drain_local_pages();
                *seen.borrow_mut() = mm.listed_pages() > 0;
            });
            let page = mm.alloc_page(GFP_KERNEL).unwrap();
            let interrupted = !cpu.disarm();
            common::free(mm, page, 0);
            interrupted
        });
        if *inside.borrow() {
            asked += 1;
            // The free above was the next call: at most its own page is on a list.
            assert!(mm.listed_pages() <= 1, "{} pages at place {place}", mm.listed_pages());
        }
        if !interrupted {
            break;
        }
    }
    assert!(asked > 0, "no interrupt came while the cpu was at its lists");
    mm.verify().unwrap();
}

/// A handler that may not sleep and asks to is reported, and served as one that does not.
///
/// A135
#[test]
fn a_sleeping_request_in_a_handler_is_reported() {
    let mm = machine::<false>();
    let before = settle(mm);
    CPU.with(|cpu| {
        cpu.arm_once(Scope::Interrupt, None, 0, move |_| {
            let page = mm.alloc_page(GFP_KERNEL).unwrap();
            common::free(mm, page, 0);
        });
        let page = mm.alloc_page(GFP_ATOMIC).unwrap();
        common::free(mm, page, 0);
        assert!(!cpu.disarm());
    });
    let reports = mm.platform().take_reports();
    assert_eq!(reports.len(), 1, "{reports:#?}");
    assert_eq!(reports[0].kind, MisuseKind::SleepInAtomic);
    assert!(reports[0].line.contains("tests/interrupts.rs"), "{}", reports[0].line);
    assert_eq!(settle(mm), before);
}
