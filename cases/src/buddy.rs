//! G4: blocks split in halves and merge with their buddies.

use kmem::{GFP_KERNEL, Gfp, Order};

use crate::areas::small;
use crate::failure::{at_least, at_most, check, equal, some};
use crate::hold::{Block, Hoard};
use crate::pages::anywhere;
use crate::{Case, Failure, Machine, Snapshot};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "each zone has a free list for each order, and they hold all that is free",
                &["A078"],
                anywhere,
                free_lists,
            ),
            Case::new(
                "a block is split in halves down to the order asked for",
                &["A079"],
                anywhere,
                splitting,
            ),
            Case::new(
                "pages that are freed one by one, in any order, merge to the block they were",
                &["A079"],
                anywhere,
                merging,
            ),
            Case::new(
                "after random work the free lists are the initial ones, and blocks never overlap",
                &["A079"],
                anywhere,
                random_work,
            ),
            Case::new(
                "free memory is ever more scattered with use, and the report tells how much",
                &["A081"],
                small,
                ageing,
            ),
        ]
    }
}

fn free_lists<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    mm.drain_all_pages();
    let largest = mm.largest_order().get();
    for zone in mm.zones() {
        let blocks = |order| Order::new(order).map_or(0, |order| mm.free_blocks(zone, order));
        let pages: u64 = (0..=largest).map(|order| blocks(order) << order).sum();
        equal(pages, zone.free_pages(), "a zone's lists hold its free pages")?;
        let beyond: u64 = (largest + 1..Order::COUNT as u32).map(blocks).sum();
        equal(beyond, 0, "no block is larger than the largest order")?;
        let spare = zone.managed_pages() >> largest;
        at_most(blocks(largest), spare, "there are no more blocks than there is memory for")?;
    }
    let free: u64 = mm.zones().iter().map(|zone| zone.free_pages()).sum();
    equal(free, mm.free_page_count(), "with the CPUs' lists drained, that is all there is")
}

fn splitting<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    // The smallest order that no CPU keeps lists of: each request goes to the zone.
    const ORDER: u32 = 4;
    let largest = mm.largest_order().get();
    let mut held = Hoard::new(machine);
    let mut splits = 0;
    for _ in 0..3 << (largest - ORDER) {
        let before = Snapshot::take(machine);
        let block = Block::new(machine, GFP_KERNEL, ORDER)?;
        let after = Snapshot::take(machine);
        let zone = some(mm.page_zone(block.page()), "a block has a zone")?.index();
        let count = |snapshot: &Snapshot, order| snapshot.blocks(zone, order);
        let taken = (ORDER..=largest).find(|order| count(&before, *order) > count(&after, *order));
        let taken = some(taken, "a block leaves the list of its order")?;
        for order in 0..=largest {
            let (was, is) = (count(&before, order), count(&after, order));
            let wanted = match order {
                order if order == taken => was - 1,
                order if (ORDER..taken).contains(&order) => was + 1,
                _ => was,
            };
            equal(is, wanted, "one block goes, and a half of each size below it comes")?;
        }
        splits += u64::from(taken > ORDER);
        held.push(block);
    }
    at_least(splits, 3, "larger blocks were split")?;
    // Where one was split once, its second half serves the next request.
    let halves = held.blocks() - splits;
    check(largest == ORDER || halves >= splits, "halves are used up before more is split")
}

fn merging<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let largest = mm.largest_order().get();
    let before = Snapshot::take(machine);
    let page = mm.alloc_pages(GFP_KERNEL, largest)?;
    let zone = some(mm.page_zone(page), "a block has a zone")?.index();
    let without = Snapshot::take(machine);
    equal(without.blocks(zone, largest) + 1, before.blocks(zone, largest), "one block is taken")?;
    mm.split_page(page, largest);
    // All odd pages first, so that nothing can merge; then the even ones, from the last.
    let count = 1u64 << largest;
    let first = page.pfn();
    let free = |index: u64| -> Result<(), Failure> {
        let pfn = some(first.checked_add(index), "a frame")?;
        let page = some(mm.pfn_to_page(pfn), "a page")?;
        // SAFETY: the page is of the block that was split, and each is freed once.
        unsafe { mm.__free_page(page) };
        Ok(())
    };
    for index in (1..count).step_by(2) {
        free(index)?;
    }
    let odd = Snapshot::take(machine);
    let singles = odd.blocks(zone, 0) - without.blocks(zone, 0);
    equal(singles, count / 2, "pages whose buddies are in use stay alone")?;
    equal(odd.blocks(zone, largest), without.blocks(zone, largest), "no block is there yet")?;
    for pair in (0..count / 2).rev() {
        free(2 * pair)?;
    }
    before.same(&Snapshot::take(machine))
}

/// A small generator (xorshift) with a fixed seed: a failure can be had again.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const SEED: u64 = 0x2545_f491_4f6c_dd1d;

    pub(crate) const fn new() -> Random {
        Random(Self::SEED)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn random_work<M: Machine>(machine: &M) -> Result<(), Failure> {
    const STEPS: usize = 20_000;
    let mm = machine.mm();
    let before = Snapshot::take(machine);
    let largest = u64::from(mm.largest_order().get());
    let mut random = Random::new();
    let mut held: [Option<Block<'_, M>>; 64] = [const { None }; 64];
    for step in 0..STEPS {
        let slot = random.below(64) as usize;
        if let Some(block) = held[slot].take() {
            block.free();
            continue;
        }
        // Small orders are asked for more often, as they are.
        let order = random.below(random_limit(largest, step)) as u32;
        let kind = [Gfp::NONE, Gfp::MOVABLE, Gfp::RECLAIMABLE][random.below(3) as usize];
        let Ok(page) = mm.alloc_pages(GFP_KERNEL | kind | Gfp::NOWARN, order) else { continue };
        // SAFETY: just allocated.
        let block = unsafe { Block::own(machine, page, order) };
        equal(block.frame() % (1 << order), 0, "a block is aligned to its size")?;
        let end = block.frame() + (1 << order);
        let overlaps = held.iter().flatten().any(|other| {
            let other_end = other.frame() + (1 << other.order());
            block.frame() < other_end && other.frame() < end
        });
        check(!overlaps, "no frame is handed out twice")?;
        held[slot] = Some(block);
    }
    check(mm.verify().is_ok(), "every structure is sound in between")?;
    drop(held);
    before.same(&Snapshot::take(machine))
}

/// The largest order only at every eighth step.
fn random_limit(largest: u64, step: usize) -> u64 {
    if step.is_multiple_of(8) { largest + 1 } else { 4 }
}

/// Has all pages in use, a quarter of which is freed and allocated anew time and again. What is freed first was
/// allocated together, and lies together; later it has the places that others left.
fn ageing<M: Machine>(machine: &M) -> Result<(), Failure> {
    const OWNERS: usize = 16;
    const ROUNDS: usize = 24;
    const FEW: usize = 3;
    const PAIR: Order = match Order::new(1) {
        Some(order) => order,
        None => Order::ZERO,
    };
    let mm = machine.mm();
    let mut random = Random::new();
    let mut owners = [const { None }; OWNERS].map(|_: Option<()>| Hoard::new(machine));
    let page = || {
        let page = mm.alloc_page(GFP_KERNEL | Gfp::NORETRY | Gfp::NOWARN).ok()?;
        // SAFETY: just allocated.
        Some(unsafe { Block::own(machine, page, 0) })
    };
    let share = mm.free_page_count() / OWNERS as u64;
    for owner in &mut owners {
        while let Some(block) = (owner.blocks() < share).then(page).flatten() {
            owner.push(block);
        }
    }
    // The sums of some rounds after the first, and of the last ones.
    let (mut early, mut late) = (0, 0);
    for round in 0..ROUNDS {
        let mut freed = 0;
        let first = random.below(OWNERS as u64) as usize;
        for index in 0..OWNERS / 4 {
            let owner = &mut owners[(first + 5 * index) % OWNERS];
            freed += owner.blocks();
            owner.clear();
        }
        mm.drain_all_pages();
        let zones = || mm.zones().iter().map(|zone| mm.free_area_counts(zone));
        let (free, singles) = zones().fold((0, 0), |(free, singles), zone| {
            (free + zone.pages(), singles + zone.blocks(Order::ZERO))
        });
        let scattered = singles * 1000 / free.max(1);
        let told =
            zones().map(|zone| zone.unusable(PAIR) * zone.pages()).sum::<u64>() / free.max(1);
        check(scattered.abs_diff(told) <= 1, "the report tells the share of single pages")?;
        match round {
            0 => at_most(scattered, 100, "at first nearly all that is free has neighbours")?,
            1..=FEW => early += scattered,
            _ if round >= ROUNDS - FEW => late += scattered,
            _ => {}
        }
        while let Some(block) = (freed > 0).then(page).flatten() {
            owners[random.below(OWNERS as u64) as usize].push(block);
            freed -= 1;
        }
    }
    at_least(late, early + 100 * FEW as u64, "with use there are fewer")?;
    at_least(late, 500 * FEW as u64, "until most that is free has none")
}
