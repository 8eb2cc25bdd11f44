//! G4 and G17: /proc/buddyinfo.

use kmem::Zone;

use crate::failure::{check, equal, some};
use crate::hold::{Block, Hoard};
use crate::numa::number;
use crate::pages::anywhere;
use crate::text::Lines;
use crate::{Case, Failure, Machine, Snapshot};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[Case::new(
            "buddyinfo counts the free blocks of each order, for each zone, in Linux's shape",
            &["A080", "A322", "A027", "A092"],
            anywhere,
            buddyinfo,
        )]
    }
}

fn buddyinfo<M: Machine>(machine: &M) -> Result<(), Failure> {
    compare(machine)?;
    // And after work that leaves blocks of every size.
    let mut held = Hoard::new(machine);
    for order in 0..=machine.mm().largest_order().get() {
        held.push(Block::new(machine, kmem::GFP_KERNEL, order)?);
    }
    compare(machine)
}

fn compare<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let lists = Snapshot::take(machine);
    let mut populated = mm.zones().iter().filter(|zone| zone.is_populated());
    let mut total = 0;
    let mut lines = Lines::new(|_, line| {
        let zone = some(populated.next(), "no line without a zone")?;
        let rest = some(line.strip_prefix("Node "), "a line begins with the node")?;
        let (node, rest) = some(rest.split_once(", zone "), "then comes the zone")?;
        equal(number(node)?, zone.node().get().into(), "the node's number")?;
        check(rest.len() > 9 && rest.is_char_boundary(9), "the name has eight columns")?;
        let (name, counts) = rest.split_at(9);
        check(name.trim() == zone.name(), "the zone's name")?;
        check(name.ends_with(' ') && !name.trim_end().is_empty(), "which ends at the eighth")?;
        let (mut pages, mut order) = (0, 0);
        let mut counts = counts;
        while !counts.is_empty() {
            // Linux: six columns and a space, also after the last.
            check(counts.len() >= 7, "a count has six columns at least, and a space behind it")?;
            let padded = counts.len() - counts.trim_start().len();
            let end = some(counts[padded..].find(' '), "a space behind each count")? + padded;
            check(end >= 6, "a count has six columns at least")?;
            let count = number(&counts[padded..end])?;
            equal(count, lists.blocks(zone.index(), order), "a count is that of the free list")?;
            pages += count << order;
            counts = &counts[end + 1..];
            order += 1;
        }
        let orders = mm.largest_order().get() + 1;
        equal(order.into(), orders.into(), "there is a count for each order")?;
        equal(pages, zone.free_pages(), "the blocks are all that is free in the zone")?;
        total += pages;
        Ok(())
    });
    kmem::report::buddyinfo(mm, &mut lines)?;
    lines.finish()?;
    check(populated.next().is_none(), "each zone has a line")?;
    equal(total, mm.zones().iter().map(Zone::free_pages).sum(), "and no free page is left out")?;
    equal(total, lists.free(), "with the CPUs' lists drained, that is all")
}
