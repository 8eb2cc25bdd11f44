//! G6: nodes.

use kmem::{CpuId, GFP_KERNEL, Gfp, NodeId, Zone};

use crate::elsewhere::{last_cpu, on_cpu};
use crate::failure::{at_least, check, equal, no_memory, some};
use crate::hold::{Block, Hoard};
use crate::pages::anywhere;
use crate::pressure::ORDINARY;
use crate::text::Lines;
use crate::{Case, Facts, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "a request without a node is met from the CPU's own",
                &["A045", "A088", "A089", "A090"],
                anywhere,
                own_node,
            ),
            Case::new(
                "a request that names a node is met from it, or from the nearest other",
                &["A044", "A088", "A089"],
                nodes,
                named_node,
            ),
            Case::new(
                "__GFP_THISNODE fails rather than go to another node",
                &["A088"],
                nodes,
                this_node,
            ),
            Case::new(
                "with one node, naming it is the same as naming none",
                &["A044", "A091"],
                one_node,
                single_node,
            ),
            Case::new(
                "a zone knows its node, and buddyinfo has a line for each node and zone",
                &["A092", "A027"],
                anywhere,
                zones_of_nodes,
            ),
        ]
    }
}

fn nodes(facts: &Facts) -> Result<(), &'static str> {
    if facts.nodes > 1 && facts.cpus > 1 { Ok(()) } else { Err("two nodes, with a CPU each") }
}

fn one_node(facts: &Facts) -> Result<(), &'static str> {
    if facts.nodes == 1 { Ok(()) } else { Err("one node") }
}

fn node_of<M: Machine>(machine: &M, block: &Block<'_, M>) -> Result<NodeId, Failure> {
    Ok(some(machine.mm().page_zone(block.page()), "a page has a zone")?.node())
}

fn own_node<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    for cpu in (0..machine.facts().cpus).filter_map(CpuId::new) {
        let before = mm.counters();
        let node = on_cpu(machine, cpu, || {
            let mut last = None;
            for order in [0, 1, 4] {
                let block = Block::new(machine, GFP_KERNEL, order)?;
                let page = mm.alloc_pages_node(None, GFP_KERNEL, order)?;
                // SAFETY: just allocated.
                let same = unsafe { Block::own(machine, page, order) };
                let node = node_of(machine, &block)?;
                check(node_of(machine, &same)? == node, "no node is the CPU's own")?;
                check(last.is_none_or(|last| last == node), "which is one")?;
                last = Some(node);
            }
            some(last, "a node")
        })?;
        let after = mm.counters();
        equal(after.numa_miss, before.numa_miss, "no request is met elsewhere")?;
        equal(after.numa_other, before.numa_other, "no request leaves the CPU's node")?;
        at_least(after.numa_local, before.numa_local + 6, "each is met on the CPU's node")?;
        let nearest = mm.zonelist(node, GFP_KERNEL).next().map(Zone::node);
        check(nearest == Some(node), "which is where its zonelist begins")?;
    }
    if machine.facts().nodes > 1 {
        let of =
            |cpu| on_cpu(machine, cpu, || node_of(machine, &Block::new(machine, GFP_KERNEL, 0)?));
        check(of(CpuId::BOOT)? != of(last_cpu(machine))?, "CPUs of two nodes have two nodes")?;
    }
    Ok(())
}

/// A node that is not the boot CPU's.
fn other_node<M: Machine>(machine: &M) -> Result<NodeId, Failure> {
    let own = node_of(machine, &Block::new(machine, GFP_KERNEL, 0)?)?;
    let mut zones = machine.mm().zones().iter().filter(|zone| zone.is_populated());
    Ok(some(zones.find(|zone| zone.node() != own), "there is another node")?.node())
}

fn on_node<M: Machine>(
    machine: &M,
    node: NodeId,
    gfp: Gfp,
    order: u32,
) -> Result<Block<'_, M>, Failure> {
    let page = machine.mm().alloc_pages_node(Some(node), gfp, order)?;
    // SAFETY: just allocated.
    Ok(unsafe { Block::own(machine, page, order) })
}

fn named_node<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let other = other_node(machine)?;
    let before = mm.counters();
    for order in [0, 1, 4] {
        let block = on_node(machine, other, GFP_KERNEL, order)?;
        check(node_of(machine, &block)? == other, "a node that is named is the one")?;
    }
    let after = mm.counters();
    equal(after.numa_hit - before.numa_hit, 3, "the requests are met where they prefer")?;
    equal(after.numa_other - before.numa_other, 3, "which is not the CPU's node")?;

    let mut held = Hoard::new(machine);
    while mm.zones().iter().any(|zone| {
        zone.node() == other
            && zone.free_pages()
                > zone.watermarks().low + zone.lowmem_reserve(GFP_KERNEL.highest_zone())
    }) {
        held.push(on_node(machine, other, GFP_KERNEL, 0)?);
    }
    let before = mm.counters();
    let block = on_node(machine, other, GFP_KERNEL, 0)?;
    check(node_of(machine, &block)? != other, "when it is used up, the nearest other serves")?;
    let after = mm.counters();
    equal(after.numa_miss - before.numa_miss, 1, "that is counted")?;
    equal(after.numa_foreign - before.numa_foreign, 1, "on both sides")?;
    let none = NodeId::new(15).filter(|node| !mm.nodes().contains(*node));
    if let Some(none) = none {
        let refused = mm.alloc_pages_node(Some(none), GFP_KERNEL, 0);
        check(refused == Err(kmem::AllocError::NoSuchNode(none)), "there is no such node")?;
    }
    Ok(())
}

fn this_node<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let other = other_node(machine)?;
    let gfp = ORDINARY | Gfp::THISNODE;
    let mut held = Hoard::new(machine);
    while let Ok(page) = mm.alloc_pages_node(Some(other), gfp, 0) {
        // SAFETY: just allocated.
        let block = unsafe { Block::own(machine, page, 0) };
        check(node_of(machine, &block)? == other, "every page is of that node")?;
        held.push(block);
    }
    at_least(held.pages(), 1024, "the node has pages")?;
    no_memory(mm.alloc_pages_node(Some(other), gfp, 0), 0, "it has no more, so requests fail")?;
    at_least(mm.free_page_count(), 1024, "though another node has many")?;
    let block = on_node(machine, other, ORDINARY, 0)?;
    check(node_of(machine, &block)? != other, "which others get")
}

fn single_node<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let before = mm.counters();
    for order in [0, 3, 4] {
        let named = on_node(machine, NodeId::ZERO, GFP_KERNEL, order)?;
        let plain = Block::new(machine, GFP_KERNEL, order)?;
        let zone = |block: &Block<'_, M>| mm.page_zone(block.page()).map(Zone::index);
        check(zone(&named) == zone(&plain), "both are met from the same zone")?;
    }
    let after = mm.counters();
    equal(after.numa_miss, before.numa_miss, "no request is met elsewhere")?;
    equal(after.numa_other, before.numa_other, "there is no elsewhere")?;
    check(mm.zones().iter().all(|zone| zone.node() == NodeId::ZERO), "one node has all zones")
}

fn zones_of_nodes<M: Machine>(machine: &M) -> Result<(), Failure> {
    const NAMES: [&str; 5] = ["DMA", "DMA32", "Normal", "HighMem", "Movable"];
    let mm = machine.mm();
    let mut seen = 0u16;
    for zone in mm.zones().iter().filter(|zone| zone.is_populated()) {
        seen |= kmem::NodeMask::of(zone.node()).bits();
        check(zone.name() == NAMES[zone.kind().index()], "a zone has its text's name")?;
    }
    equal(seen.into(), mm.nodes().bits().into(), "every node has a zone")?;
    equal(seen.count_ones().into(), machine.facts().nodes.into(), "as many as described")?;

    let mut populated = mm.zones().iter().filter(|zone| zone.is_populated());
    let mut lines = Lines::new(|_, line| {
        let zone = some(populated.next(), "no line without a zone")?;
        let mut words = line.split([' ', ',']).filter(|word| !word.is_empty());
        let mut next = || words.next().unwrap_or_default();
        check(next() == "Node", "a line begins with the node")?;
        equal(number(next())?, zone.node().get().into(), "the node's number")?;
        check(next() == "zone" && next() == zone.name(), "then the zone's name")
    });
    kmem::report::buddyinfo(mm, &mut lines)?;
    lines.finish()?;
    check(populated.next().is_none(), "each node and zone has a line")
}

/// A decimal number.
pub(crate) fn number(text: &str) -> Result<u64, Failure> {
    some(text.parse().ok(), "a decimal number")
}
