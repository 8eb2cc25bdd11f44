//! Several CPUs at once, each with interrupts: blocks change hands, contents are verified.

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use common::{CPU, Machine, Rig, Rng, Scope, frames, settle};
use kmem::*;

const CPUS: u32 = 4;

fn machine(setup: Setup) -> &'static Machine {
    let mm = Box::leak(Box::new(Mm::new(Rig::new(24 << 20))));
    let map = MemoryMap::new()
        .ram(0..11 << 20, NodeId::ZERO)
        .ram(13 << 20..24 << 20, NodeId::new(1).unwrap());
    let setup = setup
        .cpus(CPUS)
        .dma_limit(PhysAddr::new(3 << 20))
        .cpu_node(CpuId::new(2).unwrap(), NodeId::new(1).unwrap())
        .cpu_node(CpuId::new(3).unwrap(), NodeId::new(1).unwrap());
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup).unwrap() };
    (1..CPUS).for_each(|cpu| mm.cpu_online(CpuId::new(cpu).unwrap()).unwrap());
    mm
}

/// A block with what its last holder wrote into it.
struct Block {
    page: Page,
    order: u32,
    stamp: u64,
}

static STAMPS: AtomicU64 = AtomicU64::new(1);

impl Block {
    fn words(mm: &Machine, page: Page, order: u32) -> impl Iterator<Item = (u64, *mut u64)> {
        frames(page, order).flat_map(move |frame| {
            let start = mm.platform().frame(frame).cast::<u64>();
            [0, 300, 511].map(|word| (frame, start.wrapping_add(word)))
        })
    }

    fn alloc(mm: &Machine, gfp: Gfp, order: u32) -> Option<Block> {
        let page = mm.alloc_pages(gfp | Gfp::NOWARN, order).ok()?;
        let stamp = STAMPS.fetch_add(1, SeqCst) << 32;
        for (frame, word) in Self::words(mm, page, order) {
            // SAFETY: the page is this holder's; if not, the stamps tell.
            unsafe {
                if gfp.contains(Gfp::ZERO) {
                    assert_eq!(word.read_volatile(), 0, "frame {frame:#x} is not cleared");
                }
                word.write_volatile(stamp ^ frame);
            }
        }
        Some(Block { page, order, stamp })
    }

    fn free(self, mm: &Machine) {
        for (frame, word) in Self::words(mm, self.page, self.order) {
            // SAFETY: as in `alloc`.
            let found = unsafe { word.read_volatile() };
            assert_eq!(found, self.stamp ^ frame, "somebody else has written to {frame:#x}");
        }
        common::free(mm, self.page, self.order);
    }
}

const FLAGS: &[Gfp] = &[
    GFP_KERNEL,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL.union(Gfp::RECLAIMABLE),
    GFP_KERNEL.union(Gfp::ZERO),
    GFP_KERNEL.union(GFP_DMA),
    GFP_KERNEL.union(Gfp::COLD),
    GFP_ATOMIC,
    GFP_KERNEL.union(Gfp::COMP),
];

fn work(
    mm: &'static Machine,
    number: u32,
    exchange: &Mutex<Vec<Block>>,
    interrupts: Option<u64>,
    steps: u32,
) {
    CPU.with(|cpu| cpu.number.set(number));
    let mut rng = Rng::new();
    let mut own: Vec<Block> = Vec::new();
    let theirs = Rc::new(RefCell::new(Vec::new()));
    if let Some(every) = interrupts {
        let theirs = theirs.clone();
        let mut turn = 0;
        let handler = move |_| {
            let mut theirs = theirs.borrow_mut();
            turn += 1;
            if turn % 3 == 0 || theirs.len() > 20 {
                if let Some(block) = theirs.pop() {
                    Block::free(block, mm);
                }
            } else {
                theirs.extend(Block::alloc(mm, GFP_ATOMIC, turn % 4));
            }
        };
        CPU.with(|cpu| cpu.arm_every(Scope::Interrupt, None, every, handler));
    }
    for step in 0..steps {
        match rng.below(100) {
            0..=44 => {
                let order = rng.order(6);
                own.extend(Block::alloc(mm, rng.pick(FLAGS), order));
            }
            45..=79 if !own.is_empty() => {
                let at = rng.below(own.len() as u64) as usize;
                own.swap_remove(at).free(mm);
            }
            80..=89 if !own.is_empty() => {
                let at = rng.below(own.len() as u64) as usize;
                exchange.lock().unwrap().push(own.swap_remove(at));
            }
            90..=98 => {
                let block = exchange.lock().unwrap().pop();
                block.into_iter().for_each(|block| block.free(mm));
            }
            _ if step % 7 == 0 => mm.drain_all_pages(),
            _ => {}
        }
        if own.len() > 200 {
            own.drain(100..).for_each(|block| block.free(mm));
        }
    }
    CPU.with(|cpu| cpu.disarm());
    own.into_iter().for_each(|block| block.free(mm));
    theirs.take().into_iter().for_each(|block| block.free(mm));
    mm.drain_local_pages();
}

fn all_at_once(setup: Setup, interrupts: Option<u64>, steps: u32) {
    let mm = machine(setup);
    let before = settle(mm);
    let exchange = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..CPUS {
            let exchange = &exchange;
            scope.spawn(move || work(mm, number, exchange, interrupts, steps));
        }
    });
    exchange.into_inner().unwrap().into_iter().for_each(|block: Block| block.free(mm));
    assert_eq!(mm.platform().take_reports(), []);
    assert_eq!(settle(mm), before, "the free lists are not the initial ones");
}

/// A079, A084
#[test]
fn cpus_share_the_memory() {
    all_at_once(Setup::new(), None, 60_000);
}

/// A079, A084, A119
#[test]
fn cpus_with_interrupts_share_the_memory() {
    all_at_once(Setup::new(), Some(5), 30_000);
    all_at_once(Setup::new(), Some(18), 30_000);
}

/// A079
#[test]
fn cpus_without_lists_share_the_memory() {
    all_at_once(Setup::new().pagesets(false), Some(11), 30_000);
}

/// Each of four holders drops its reference when it likes: the block is freed once, by the last.
///
/// A007, A008
#[test]
fn the_last_reference_frees_the_block() {
    let mm = machine(Setup::new());
    let before = settle(mm);
    let pages: Vec<(Page, u32)> = (0..1500)
        .map(|at| {
            let order = at % 3;
            let gfp = if at % 2 == 0 { GFP_KERNEL } else { GFP_KERNEL | Gfp::COMP };
            let page = mm.alloc_pages(gfp, order).unwrap();
            (1..CPUS).for_each(|_| mm.get_page(page));
            assert_eq!(mm.page_count(page), CPUS);
            (page, order)
        })
        .collect();
    let free = mm.free_page_count();
    std::thread::scope(|scope| {
        for number in 0..CPUS {
            let pages = &pages;
            scope.spawn(move || {
                CPU.with(|cpu| cpu.number.set(number));
                for (page, order) in pages {
                    if number % 2 == 0 {
                        // SAFETY: the reference is this thread's.
                        unsafe { mm.put_page(*page) };
                    } else {
                        common::free(mm, *page, *order);
                    }
                }
                mm.drain_local_pages();
            });
        }
    });
    let held: u64 = pages.iter().map(|(_, order)| 1u64 << order).sum();
    assert_eq!(mm.free_page_count(), free + held);
    assert_eq!(mm.platform().take_reports(), []);
    assert_eq!(settle(mm), before);
}

/// CPUs that go and come while others work lose nothing.
///
/// A086
#[test]
fn cpus_come_and_go() {
    let mm = machine(Setup::new());
    let before = settle(mm);
    let exchange = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let exchange = &exchange;
        for number in 0..2 {
            scope.spawn(move || work(mm, number, exchange, None, 40_000));
        }
        scope.spawn(move || {
            for round in 0..200 {
                let number = 2 + round % 2;
                let cpu = CpuId::new(number).unwrap();
                // It works, leaves pages on its lists, and goes.
                CPU.with(|cpu| cpu.number.set(number));
                let blocks: Vec<Block> =
                    (0..60).filter_map(|at| Block::alloc(mm, GFP_KERNEL, at % 4)).collect();
                blocks.into_iter().for_each(|block| block.free(mm));
                // SAFETY: that CPU does nothing meanwhile.
                unsafe { mm.cpu_offline(cpu) }.unwrap();
                Block::alloc(mm, GFP_KERNEL, 0).into_iter().for_each(|block| block.free(mm));
                mm.cpu_online(cpu).unwrap();
            }
            for number in [2, 3] {
                CPU.with(|cpu| cpu.number.set(number));
                mm.drain_local_pages();
            }
        });
    });
    exchange.into_inner().unwrap().into_iter().for_each(|block: Block| block.free(mm));
    assert_eq!(mm.platform().take_reports(), []);
    assert_eq!(settle(mm), before);
}
