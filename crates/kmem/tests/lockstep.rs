//! The whole manager beside a model of who holds what, in lock step, with the contents checked.

mod common;

use std::collections::HashMap;

use common::{Rig, Rng, frames, lists, settle};
use kmem::platform::desk::Desk;
use kmem::*;

/// One thing that the test holds.
struct Held {
    page: Page,
    kind: Kind,
    /// Written into every page, so that a page that two hold is seen.
    stamp: u64,
    gfp: Gfp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Block { order: u32, references: u32 },
    Exact { bytes: usize },
    Run { pages: u64 },
}

const FLAGS: &[Gfp] = &[
    GFP_KERNEL,
    GFP_KERNEL,
    GFP_ATOMIC,
    GFP_NOWAIT,
    GFP_NOIO,
    GFP_NOFS,
    GFP_USER,
    GFP_HIGHUSER,
    GFP_HIGHUSER_MOVABLE,
    GFP_BUFFER,
    Gfp::NONE,
    GFP_KERNEL.union(GFP_DMA),
    GFP_ATOMIC.union(GFP_DMA32),
    GFP_KERNEL.union(Gfp::ZERO),
    GFP_HIGHUSER.union(Gfp::ZERO),
    GFP_KERNEL.union(Gfp::COLD),
    GFP_KERNEL.union(Gfp::COMP),
    GFP_KERNEL.union(Gfp::COMP).union(Gfp::ZERO),
    GFP_KERNEL.union(Gfp::RECLAIMABLE),
    GFP_KERNEL.union(Gfp::NORETRY).union(Gfp::NOWARN),
    GFP_KERNEL.union(Gfp::RETRY_MAYFAIL),
    GFP_KERNEL.union(Gfp::MEMALLOC),
    GFP_ATOMIC.union(Gfp::NOMEMALLOC),
    GFP_KERNEL.union(Gfp::THISNODE),
];

/// The kinds of zone that flags allow, from the texts' table and not from the manager's. All RAM here
/// lies below 4 GiB, so without a zone DMA32 Normal has what it would have.
fn allowed(gfp: Gfp, has_dma32: bool) -> &'static [ZoneKind] {
    use ZoneKind::{Dma, Dma32, HighMem, Movable, Normal};
    if gfp.contains(Gfp::DMA) {
        &[Dma]
    } else if gfp.contains(Gfp::DMA32) && has_dma32 {
        &[Dma, Dma32]
    } else if gfp.contains(Gfp::HIGHMEM | Gfp::MOVABLE) {
        &[Dma, Dma32, Normal, HighMem, Movable]
    } else if gfp.contains(Gfp::HIGHMEM) {
        &[Dma, Dma32, Normal, HighMem]
    } else {
        &[Dma, Dma32, Normal]
    }
}

struct Test<'m, P: Platform> {
    mm: &'m Mm<P>,
    /// Where a frame's bytes are.
    bytes: &'m dyn Fn(u64) -> *mut u8,
    rng: Rng,
    held: Vec<Held>,
    /// By frame: the stamp of its holder.
    holders: HashMap<u64, u64>,
    initial: u64,
    stamps: u64,
    failures: u64,
}

impl<P: Platform> Test<'_, P> {
    fn page_bytes(&self) -> usize {
        1 << P::PAGE_SHIFT
    }

    /// Where in a page stamps are: at both ends and once in the middle.
    fn places(&self, frame: u64) -> [*mut u64; 3] {
        let page = (self.bytes)(frame);
        let middle = (frame.wrapping_mul(0x9e37) as usize * 8) % self.page_bytes();
        [0, middle, self.page_bytes() - 8].map(|at| page.wrapping_add(at).cast())
    }

    fn expected(stamp: u64, frame: u64) -> u64 {
        stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ frame
    }

    fn write(&self, frames: std::ops::Range<u64>, stamp: u64) {
        for frame in frames {
            for place in self.places(frame) {
                // SAFETY: the frame is held by the test.
                unsafe { place.write(Self::expected(stamp, frame)) };
            }
        }
    }

    fn check(&self, frames: std::ops::Range<u64>, stamp: u64) {
        for frame in frames {
            for place in self.places(frame) {
                // SAFETY: the frame is held by the test, which has written it.
                let found = unsafe { place.read() };
                assert_eq!(found, Self::expected(stamp, frame), "contents of frame {frame:#x}");
            }
        }
    }

    /// Notes what was handed out: nobody had it, it lies where the flags allow, it is zero where
    /// that was asked for.
    fn take(&mut self, page: Page, pages: u64, kind: Kind, gfp: Gfp) {
        self.stamps += 1;
        let stamp = self.stamps;
        let first = page.pfn().number();
        for frame in first..first + pages {
            let before = self.holders.insert(frame, stamp);
            assert_eq!(before, None, "frame {frame:#x} was handed out twice: {kind:?} {gfp}");
            if gfp.contains(Gfp::ZERO) {
                let words = self.page_bytes() / 8;
                let step = if pages == 1 { 1 } else { 61 };
                for word in (0..words).step_by(step) {
                    // SAFETY: the frame is held by the test; the manager has cleared it.
                    let found = unsafe { (self.bytes)(frame).cast::<u64>().add(word).read() };
                    assert_eq!(found, 0, "word {word} of frame {frame:#x}, {gfp}");
                }
            }
        }
        for frame in [first, first + pages - 1] {
            let page = self.mm.pfn_to_page(Pfn::new(frame).unwrap()).unwrap();
            let zone = self.mm.page_zone(page).unwrap();
            let has_dma32 = self.mm.zones().iter().any(|zone| zone.kind() == ZoneKind::Dma32);
            assert!(
                allowed(gfp, has_dma32).contains(&zone.kind()),
                "{gfp} got zone {}",
                zone.name()
            );
        }
        self.write(first..first + pages, stamp);
        self.held.push(Held { page, kind, stamp, gfp });
    }

    fn alloc_block(&mut self) {
        let gfp = self.rng.pick(FLAGS);
        let order = self.rng.order(self.mm.largest_order().get());
        let node = self.rng.pick(&[None, None, None, Some(0), Some(1)]).and_then(NodeId::new);
        let node = node.filter(|node| self.mm.nodes().contains(*node));
        let page = match self.mm.alloc_pages_node(node, gfp, order) {
            Ok(page) => page,
            Err(AllocError::NoMemory { .. }) => {
                self.failures += 1;
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let number = page.pfn().number();
        assert!(number.is_multiple_of(1 << order), "{number:#x} is not aligned to order {order}");
        assert_eq!(self.mm.page_count(page), 1);
        if let (Some(node), true) = (node, gfp.contains(Gfp::THISNODE)) {
            assert_eq!(self.mm.page_zone(page).unwrap().node(), node);
        }
        if gfp.contains(Gfp::COMP) && order > 0 {
            let last = Pfn::new(number + (1 << order) - 1).unwrap();
            let tail = self.mm.pfn_to_page(last).unwrap();
            assert_eq!(self.mm.compound_head(tail), page);
            assert_eq!(self.mm.compound_order(page).get(), order);
            assert_eq!(self.mm.page_count(tail), 1);
        }
        self.take(page, 1 << order, Kind::Block { order, references: 1 }, gfp);
    }

    fn alloc_exact(&mut self) {
        let largest = self.page_bytes() << self.mm.largest_order().get().min(5);
        let bytes = 1 + self.rng.below(largest as u64) as usize;
        let gfp = self.rng.pick(&[GFP_KERNEL, GFP_ATOMIC, GFP_KERNEL | Gfp::ZERO]);
        let before = self.mm.free_page_count();
        if let Ok(address) = self.mm.alloc_pages_exact(bytes, gfp) {
            let pages = bytes.div_ceil(self.page_bytes()) as u64;
            assert_eq!(before - self.mm.free_page_count(), pages, "{bytes} bytes");
            let page = self.mm.virt_to_page(address).unwrap();
            self.take(page, pages, Kind::Exact { bytes }, gfp);
        }
    }

    fn alloc_run(&mut self) {
        let pages = 1 + self.rng.below(40);
        let align = Order::new(self.rng.order(6)).unwrap();
        let span = self.mm.zones().iter().map(|zone| zone.start_pfn() + zone.spanned_pages());
        let span = span.max().unwrap();
        let start = self.rng.below(span);
        let within = start..start + self.rng.below(span);
        let address = |frame: u64| PhysAddr::new(frame << P::PAGE_SHIFT);
        let range = address(within.start)..address(within.end);
        if let Ok(page) = self.mm.alloc_contig_pages(pages, align, range, GFP_KERNEL) {
            let first = page.pfn().number();
            assert!(first.is_multiple_of(align.pages()));
            assert!(within.start <= first && first + pages <= within.end, "{first:#x}: {within:?}");
            self.take(page, pages, Kind::Run { pages }, GFP_KERNEL);
        }
    }

    fn alloc_bulk(&mut self) {
        let gfp = self.rng.pick(FLAGS) - Gfp::COMP;
        let mut pages = vec![None; 1 + self.rng.below(40) as usize];
        let filled = self.mm.alloc_pages_bulk(gfp, &mut pages);
        assert_eq!(pages.iter().flatten().count(), filled);
        for page in pages.into_iter().flatten() {
            self.take(page, 1, Kind::Block { order: 0, references: 1 }, gfp);
        }
    }

    /// Splits a block into pages that are held one by one.
    fn split(&mut self, at: usize) {
        let Held { page, kind: Kind::Block { order, references: 1 }, gfp, stamp } = self.held[at]
        else {
            return;
        };
        if gfp.contains(Gfp::COMP) {
            return;
        }
        self.mm.split_page(page, order);
        self.held.swap_remove(at);
        for frame in frames(page, order) {
            let page = self.mm.pfn_to_page(Pfn::new(frame).unwrap()).unwrap();
            assert_eq!(self.mm.page_count(page), 1);
            let kind = Kind::Block { order: 0, references: 1 };
            self.held.push(Held { page, kind, stamp, gfp });
        }
    }

    fn reference(&mut self, at: usize) {
        let page = self.held[at].page;
        if let Kind::Block { references, .. } = &mut self.held[at].kind {
            self.mm.get_page(page);
            *references += 1;
            assert_eq!(self.mm.page_count(page), *references);
        }
    }

    fn free(&mut self, at: usize) {
        let Held { page, kind, stamp, gfp } = self.held.swap_remove(at);
        let first = page.pfn().number();
        if let Kind::Block { order, references } = kind
            && references > 1
        {
            // SAFETY: the test holds that many references.
            unsafe { self.mm.put_page(page) };
            let kind = Kind::Block { order, references: references - 1 };
            assert_eq!(self.mm.page_count(page), references - 1);
            self.held.push(Held { page, kind, stamp, gfp });
            return;
        }
        let pages = match kind {
            Kind::Block { order, .. } => 1 << order,
            Kind::Exact { bytes } => bytes.div_ceil(self.page_bytes()) as u64,
            Kind::Run { pages } => pages,
        };
        self.check(first..first + pages, stamp);
        for frame in first..first + pages {
            assert_eq!(self.holders.remove(&frame), Some(stamp));
        }
        let way = self.rng.below(5);
        let address = self.mm.page_address(page);
        // SAFETY: the block is the test's, and from here on nobody's.
        unsafe {
            match (kind, way, address) {
                (Kind::Exact { bytes }, _, Some(address)) => {
                    self.mm.free_pages_exact(address, bytes);
                }
                (Kind::Run { pages }, _, _) => self.mm.free_contig_pages(page, pages),
                (Kind::Block { order: 0, .. }, 0, _) => self.mm.free_hot_page(page),
                (Kind::Block { order: 0, .. }, 1, _) => self.mm.free_cold_page(page),
                (Kind::Block { .. }, 2, _) => self.mm.put_page(page),
                (Kind::Block { order, .. }, 3, Some(address)) => {
                    self.mm.free_pages(address, order);
                }
                (Kind::Block { order, .. }, _, _) => self.mm.__free_pages(page, order),
                (Kind::Exact { .. }, _, None) => panic!("an exact size outside the direct map"),
            }
        }
    }

    fn run(mut self, steps: u32) {
        let before = lists(self.mm);
        let mut filling = 50;
        for step in 0..steps {
            if step % 2048 == 0 {
                filling = self.rng.pick(&[35, 45, 55, 90]);
            }
            if step % 16384 == 0 {
                self.mm.verify().unwrap();
            }
            let at = |rng: &mut Rng, held: &Vec<Held>| rng.below(held.len() as u64) as usize;
            match self.rng.below(1000) {
                0..=2 => self.mm.drain_all_pages(),
                3..=4 => self.mm.drain_local_pages(),
                5..=24 if !self.held.is_empty() => {
                    let at = at(&mut self.rng, &self.held);
                    self.split(at);
                }
                25..=44 if !self.held.is_empty() => {
                    let at = at(&mut self.rng, &self.held);
                    self.reference(at);
                }
                45..=49 => self.alloc_run(),
                50..=74 => self.alloc_exact(),
                75..=79 => self.alloc_bulk(),
                _ if self.rng.percent(filling) => self.alloc_block(),
                _ if !self.held.is_empty() => {
                    let at = at(&mut self.rng, &self.held);
                    self.free(at);
                }
                _ => {}
            }
            let free = self.mm.free_page_count();
            assert_eq!(free + self.holders.len() as u64, self.initial, "step {step}");
        }
        assert!(self.failures > 0, "memory never ran out: the test is too gentle");
        while !self.held.is_empty() {
            self.free(self.held.len() - 1);
        }
        assert_eq!(self.mm.free_page_count(), self.initial);
        assert_eq!(settle(self.mm), before, "the free lists are not the initial ones");
        assert_eq!(self.mm.counters().misuses, 0);
    }
}

fn run<P: Platform>(mm: &Mm<P>, bytes: &dyn Fn(u64) -> *mut u8, steps: u32) {
    mm.verify().unwrap();
    let initial = mm.free_page_count();
    Test {
        mm,
        bytes,
        rng: Rng::new(),
        held: Vec::new(),
        holders: HashMap::new(),
        initial,
        stamps: 0,
        failures: 0,
    }
    .run(steps);
}

/// Each of the six does so many steps: more than a million together.
const STEPS: u32 = if cfg!(debug_assertions) { 180_000 } else { 400_000 };

/// Two zones, two holes and a kernel image on a desk, in pages of `2^SHIFT` bytes: 2048 of them.
fn on_a_desk<const SHIFT: u32>(setup: Setup) {
    let size = 2048 << SHIFT;
    let mut ram = vec![0; size + (64 << 10)];
    // SAFETY: one thread uses it.
    let mm = Mm::new(unsafe { Desk::<SHIFT>::new(&mut ram) });
    let at = |page: u64| page << SHIFT;
    let map = MemoryMap::new()
        .ram(0..at(159), NodeId::ZERO)
        .ram(at(256)..at(1100), NodeId::ZERO)
        .ram(at(1109)..at(2048), NodeId::ZERO)
        .kernel(at(300)..at(333) + 1, "Kernel image")
        .reserved(at(1999)..at(2003), "ACPI Tables");
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup.dma_limit(PhysAddr::new(at(512)))).unwrap() };
    let address = |frame: u64| {
        let page = mm.pfn_to_page(Pfn::new(frame).unwrap()).unwrap();
        mm.page_address(page).unwrap().as_ptr()
    };
    run(&mm, &address, STEPS);
}

/// A042, A043, A047, A048, A051, A052, A053, A054, A055, A056, A059, A067, A079, A002
#[test]
fn pages_of_4_kib() {
    on_a_desk::<12>(Setup::new());
}

/// A079, A002
#[test]
fn pages_of_8_kib() {
    on_a_desk::<13>(Setup::new());
}

/// A079, A002, A058
#[test]
fn pages_of_16_kib_and_orders_up_to_5() {
    on_a_desk::<14>(Setup::new().largest_order(Order::new(5).unwrap()));
}

/// A079, A002
#[test]
fn pages_of_64_kib() {
    on_a_desk::<16>(Setup::new());
}

/// A079, A084
#[test]
fn without_per_cpu_lists() {
    on_a_desk::<12>(Setup::new().pagesets(false).page_block_order(Order::ZERO));
}

/// Two nodes with all kinds of zone, borders inside page blocks among them.
///
/// A079, A118, A028, A035, A038, A044
#[test]
fn all_kinds_of_zone_on_two_nodes() {
    let mib = |mib: u64| mib << 20;
    let mm = Mm::new(Rig::<12>::with_direct(32 << 20, 19 << 20));
    let one = NodeId::new(1).unwrap();
    let map = MemoryMap::new()
        .ram(0..mib(13), NodeId::ZERO)
        .ram(mib(13)..mib(18), one)
        .ram(mib(18)..mib(25), NodeId::ZERO)
        .ram(mib(26)..mib(32), one)
        .reserved(mib(20)..mib(21), "device");
    let setup = Setup::new()
        .dma_limit(PhysAddr::new(mib(5)))
        .dma32_limit(PhysAddr::new(mib(11)))
        .movable(NodeId::ZERO, mib(3))
        .movable(one, mib(2));
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup).unwrap() };
    let kinds: std::collections::BTreeSet<&str> =
        mm.zones().iter().filter(|zone| zone.is_populated()).map(Zone::name).collect();
    assert_eq!(kinds.len(), 5, "{kinds:?}");
    run(&mm, &|frame| mm.platform().frame(frame), STEPS);
    assert_eq!(mm.platform().take_reports(), []);
}
