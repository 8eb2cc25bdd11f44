//! One CPU's share of the work.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use kmem::{
    AllocError, CpuId, Gfp, Mm, NodeId, Order, Page, PhysAddr, Platform, Reclaim, ZoneKind,
};

use super::held::{Held, Kind};
use super::objects::Objects;
use super::random::Random;
use super::{Problem, Shared, free_verified, stamp};
use crate::System;

/// How many operations are begun at a time, so that the CPUs do not meet at the counter each time.
const BATCH: u64 = 64;

/// After how many operations a worker changes its mind about how much to hold.
const MOOD: u64 = 4096;

/// How many single pages one bulk request asks for at most.
const BULK: usize = 32;

/// What is asked for, to begin with.
const FLAGS: [Gfp; 12] = [
    Gfp::KERNEL,
    Gfp::KERNEL,
    Gfp::ATOMIC,
    Gfp::NOWAIT,
    Gfp::NOIO,
    Gfp::NOFS,
    Gfp::USER,
    Gfp::BUFFER,
    Gfp::HIGHUSER,
    Gfp::HIGHUSER_MOVABLE,
    Gfp::KERNEL.union(Gfp::DMA),
    Gfp::KERNEL.union(Gfp::DMA32),
];

/// What is added now and then. `NOFAIL` is not among them: it would wait without an end where
/// nothing is reclaimed.
const EXTRAS: [Gfp; 7] = [
    Gfp::HIGH,
    Gfp::COLD,
    Gfp::NORETRY,
    Gfp::RETRY_MAYFAIL,
    Gfp::NOMEMALLOC,
    Gfp::MOVABLE,
    Gfp::RECLAIMABLE,
];

/// Works until enough operations are done, then frees all that it holds.
pub(super) fn run<S: System>(system: &S, shared: &Shared, cpu: CpuId) {
    let mm = system.mm();
    let mut worker = Worker {
        mm,
        shared,
        random: Random::new(shared.seed.wrapping_add(u64::from(cpu.get()) << 32)),
        held: Vec::new(),
        pages: 0,
        wanted: shared.share,
        objects: Objects::new(mm, shared, cpu),
    };
    let mut until_mood = 0;
    // Relaxed: the counter orders nothing.
    while !shared.stopped() && !system.is_interrupted() {
        let begun = shared.begun.fetch_add(BATCH, Ordering::Relaxed);
        if begun >= shared.operations {
            break;
        }
        if until_mood == 0 {
            until_mood = MOOD;
            worker.wanted = worker.random.below(shared.share + 1);
            worker.objects.change_mood(&mut worker.random);
            system.progress("operations", begun, shared.operations);
        }
        until_mood -= BATCH;
        // What a machine does for others meanwhile, such as showing its files, has no other CPU.
        system.give_way();
        for _ in 0..BATCH.min(shared.operations - begun) {
            worker.step();
        }
    }
    while let Some(held) = worker.held.pop() {
        worker.free(held);
    }
    worker.objects.finish();
}

struct Worker<'a, P, R> {
    mm: &'a Mm<P, R>,
    shared: &'a Shared,
    random: Random,
    held: Vec<Held>,
    /// How many pages are held, and how many the worker wants to hold.
    pages: u64,
    wanted: u64,
    objects: Objects<'a, P, R>,
}

impl<P: Platform, R: Reclaim> Worker<'_, P, R> {
    /// One allocation or one free, of pages or of an object.
    fn step(&mut self) {
        if self.random.one_in(2) {
            return self.objects.step(&mut self.random);
        }
        if self.random.one_in(2048) {
            self.mm.drain_local_pages();
        }
        if self.random.one_in(1 << 16) {
            self.mm.drain_all_pages();
        }
        let grow = self.pages < self.wanted;
        // Three of four steps lead to where the worker wants to be.
        if grow != self.random.one_in(4) || self.held.is_empty() {
            self.allocate();
        } else {
            let index = self.random.below(self.held.len() as u64) as usize;
            let held = self.held.swap_remove(index);
            self.pages -= u64::from(held.pages);
            self.free(held);
        }
        if self.random.one_in(16)
            && let Some(held) = self.shared.mailbox.take(self.random.any())
        {
            self.shared.counts.freed_elsewhere();
            self.free(held);
        }
    }

    /// Frees a block, or leaves it for others to free.
    fn free(&mut self, held: Held) {
        let mut held = Some(held);
        if self.random.one_in(8) && !self.shared.stopped() {
            held = held.and_then(|held| self.shared.mailbox.post(self.random.any(), held).err());
        }
        if let Some(held) = held {
            // SAFETY: the block was this worker's, and the mailbox did not take it.
            unsafe { free_verified(self.mm, self.shared, held) };
        }
    }

    fn allocate(&mut self) {
        let gfp = self.flags();
        let way = self.random.below(64);
        let result = match way {
            0..28 => self.pages(gfp),
            28..40 => self.address(gfp),
            40..46 => self.node(gfp),
            46..52 => self.exact(gfp),
            52..56 => self.compound(gfp),
            56..60 => self.bulk(gfp),
            60..62 => self.split(gfp),
            62 => self.owned(gfp),
            _ => self.contiguous(gfp),
        };
        if result.is_err() {
            self.shared.counts.refused();
        }
    }

    fn pages(&mut self, gfp: Gfp) -> Result<(), AllocError> {
        let order = self.order();
        let page = self.mm.alloc_pages(gfp, order)?;
        self.hold(page, 1 << order, Kind::Pages, gfp);
        Ok(())
    }

    fn address(&mut self, gfp: Gfp) -> Result<(), AllocError> {
        // An address of high memory is not to be had.
        let gfp = gfp - Gfp::HIGHMEM;
        let order = self.order();
        let address = self.mm.__get_free_pages(gfp, order)?;
        match self.mm.virt_to_page(address) {
            Some(page) => self.hold(page, 1 << order, Kind::Address, gfp),
            None => self.shared.fail(Problem::Unreachable { pfn: address.get() as u64 }),
        }
        Ok(())
    }

    fn node(&mut self, gfp: Gfp) -> Result<(), AllocError> {
        let nodes = self.mm.nodes();
        let node = NodeId::new(self.random.below(kmem::MAX_NODES as u64) as u32);
        let node = node.filter(|node| nodes.contains(*node));
        let strict = node.is_some() && self.random.one_in(2);
        let gfp = if strict { gfp | Gfp::THISNODE } else { gfp };
        let order = self.order();
        let page = self.mm.alloc_pages_node(node, gfp, order)?;
        if strict
            && let Some(zone) = self.mm.page_zone(page)
            && Some(zone.node()) != node
        {
            let pfn = page.pfn().number();
            self.shared.fail(Problem::WrongZone { pfn, zone: zone.name() });
        }
        self.hold(page, 1 << order, Kind::Pages, gfp);
        Ok(())
    }

    fn exact(&mut self, gfp: Gfp) -> Result<(), AllocError> {
        let gfp = gfp - Gfp::HIGHMEM;
        let order = self.order();
        let pages = 1 + self.random.below(1 << order) as u32;
        let salt = self.random.below(Held::SALTS) as u16;
        let bytes = Held::exact_bytes(pages, salt, P::PAGE_SHIFT);
        let address = self.mm.alloc_pages_exact(bytes, gfp)?;
        match self.mm.virt_to_page(address) {
            Some(page) => {
                let held = Held { pfn: page.pfn(), pages, kind: Kind::Exact, salt };
                self.stamp(held, page, gfp);
            }
            None => self.shared.fail(Problem::Unreachable { pfn: address.get() as u64 }),
        }
        Ok(())
    }

    fn compound(&mut self, gfp: Gfp) -> Result<(), AllocError> {
        let order = self.order();
        let page = self.mm.alloc_pages(gfp | Gfp::COMP, order)?;
        self.hold(page, 1 << order, Kind::Compound, gfp);
        Ok(())
    }

    fn bulk(&mut self, gfp: Gfp) -> Result<(), AllocError> {
        let mut pages = [None; BULK];
        let wanted = 1 + self.random.below(BULK as u64) as usize;
        self.mm.alloc_pages_bulk(gfp, &mut pages[..wanted]);
        for page in pages.into_iter().flatten() {
            self.hold(page, 1, Kind::Pages, gfp);
        }
        Ok(())
    }

    /// Splits a block; its pages are freed one by one, whenever it is their turn.
    fn split(&mut self, gfp: Gfp) -> Result<(), AllocError> {
        let order = self.random.halving(self.mm.largest_order().get()).min(4);
        let page = self.mm.alloc_pages(gfp, order)?;
        self.mm.split_page(page, order);
        let first = page.pfn().number();
        for pfn in first..first + (1 << order) {
            match kmem::Pfn::new(pfn).and_then(|pfn| self.mm.pfn_to_page(pfn)) {
                Some(page) => self.hold(page, 1, Kind::Pages, gfp),
                None => self.shared.fail(Problem::Unreachable { pfn }),
            }
        }
        Ok(())
    }

    /// A block with an owner that frees it.
    fn owned(&mut self, gfp: Gfp) -> Result<(), AllocError> {
        let order = self.order();
        let mut pages = self.mm.pages(gfp - Gfp::HIGHMEM, order)?;
        self.shared.counts.allocated(1 << order);
        let bytes = pages.bytes_mut();
        let end = bytes.len() - 1;
        (bytes[0], bytes[end]) = (1, 2);
        Ok(())
    }

    fn contiguous(&mut self, gfp: Gfp) -> Result<(), AllocError> {
        // Looking for them may mean going through a zone: they are rare.
        if !self.random.one_in(32) {
            return self.pages(gfp);
        }
        let count = 1 + self.random.below(100);
        let align = Order::new(self.random.halving(4)).unwrap_or(Order::ZERO);
        let within = PhysAddr::new(0)..PhysAddr::new(u64::MAX);
        let page = self.mm.alloc_contig_pages(count, align, within, gfp)?;
        if !page.pfn().is_aligned(align) {
            let (pfn, pages) = (page.pfn().number(), align.pages());
            self.shared.fail(Problem::Unaligned { pfn, pages });
        }
        self.hold(page, count as u32, Kind::Contiguous, gfp);
        Ok(())
    }

    /// Checks a block that was handed out, stamps it and keeps it.
    fn hold(&mut self, page: Page, pages: u32, kind: Kind, gfp: Gfp) {
        let pfn = page.pfn();
        if pages.is_power_of_two()
            && kind != Kind::Contiguous
            && !pfn.number().is_multiple_of(u64::from(pages))
        {
            let (pfn, pages) = (pfn.number(), u64::from(pages));
            self.shared.fail(Problem::Unaligned { pfn, pages });
        }
        let salt = self.random.below(Held::SALTS) as u16;
        self.stamp(Held { pfn, pages, kind, salt }, page, gfp);
    }

    fn stamp(&mut self, held: Held, page: Page, gfp: Gfp) {
        self.shared.counts.allocated(u64::from(held.pages));
        if let Err(problem) = self.try_stamp(&held, page, gfp) {
            self.shared.fail(problem);
        }
        self.pages += u64::from(held.pages);
        self.held.push(held);
    }

    fn try_stamp(&mut self, held: &Held, page: Page, gfp: Gfp) -> Result<(), Problem> {
        let pfn = held.pfn.number();
        let zone = self.mm.page_zone(page).ok_or(Problem::Unreachable { pfn })?;
        let highest = gfp.highest_zone();
        if zone.kind() > highest {
            // Right only where the machine has no zone that the flags ask for.
            let mut zones = self.mm.zones().iter().filter(|zone| zone.is_populated());
            let low = page.pfn().start(P::PAGE_SHIFT).get() < 4 << 30;
            let wrong = match highest {
                // Without such a zone its devices reach what lies here all the same.
                ZoneKind::Dma32 if low => zones.any(|zone| zone.kind() == highest),
                _ => zones.any(|zone| zone.kind() <= highest),
            };
            if wrong {
                return Err(Problem::WrongZone { pfn, zone: zone.name() });
            }
        }
        // SAFETY: the block was allocated just now, by this worker.
        unsafe {
            if gfp.zeroed() {
                stamp::verify_cleared(self.mm, held)?;
            }
            stamp::write(self.mm, held)?;
        }
        if self.random.one_in(64) && held.kind == Kind::Pages {
            self.refer(page, pfn)?;
        }
        Ok(())
    }

    /// Takes a reference and drops it again.
    fn refer(&self, page: Page, pfn: u64) -> Result<(), Problem> {
        for expected in [1, 2] {
            let found = self.mm.page_count(page);
            if found != expected {
                return Err(Problem::Count { pfn, expected, found });
            }
            if expected == 1 {
                self.mm.get_page(page);
            }
        }
        // SAFETY: the reference was taken above, and the block keeps its first.
        unsafe { self.mm.put_page(page) };
        Ok(())
    }

    fn flags(&mut self) -> Gfp {
        let plain = FLAGS[self.random.below(FLAGS.len() as u64) as usize];
        let mut gfp = plain;
        if self.random.one_in(4) {
            gfp |= EXTRAS[self.random.below(EXTRAS.len() as u64) as usize];
        }
        if self.random.one_in(16) {
            gfp |= Gfp::ZERO;
        }
        // Running out is part of the scenario, so it is nothing to warn of.
        let gfp = if gfp.check().is_ok() { gfp } else { plain };
        gfp | Gfp::NOWARN
    }

    /// Small orders mostly; now and then any.
    fn order(&mut self) -> u32 {
        let largest = self.mm.largest_order().get();
        if self.random.one_in(128) {
            self.random.below(u64::from(largest) + 1) as u32
        } else {
            self.random.halving(largest)
        }
    }
}
