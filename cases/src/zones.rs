//! G2: zones, and which requests they serve.

use kmem::page::Block as Part;
use kmem::platform::DirectMap;
use kmem::{
    GFP_DMA, GFP_HIGHUSER, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Gfp, MAX_NODES, NodeId, Pfn, PhysAddr,
    Zone, ZoneKind,
};

use crate::failure::{at_least, at_most, check, equal, no_memory, some};
use crate::hold::{Block, Hoard};
use crate::pages::{anywhere, high_memory};
use crate::pressure::{ORDINARY, is_down_to_min, preferred, press};
use crate::{Case, Facts, Failure, Machine};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "the description selects the set of zones",
                &["A019", "A022"],
                anywhere,
                zone_set,
            ),
            Case::new(
                "32-bit x86: DMA below 16 MB, Normal to 896 MB, HighMem above",
                &["A020", "A040"],
                i386,
                i386_layout,
            ),
            Case::new(
                "64-bit x86: DMA below 16 MB, DMA32 to 4 GB, Normal above, no HighMem",
                &["A021", "A040"],
                x86_64,
                x86_64_layout,
            ),
            Case::new(
                "without a limit there is no DMA zone, and Normal serves what asks for it",
                &["A022", "A033"],
                no_dma,
                normal_serves_all,
            ),
            Case::new(
                "a zone without pages is listed, empty, and in no zonelist",
                &["A022"],
                anywhere,
                empty_zones,
            ),
            Case::new(
                "each frame of RAM belongs to exactly one zone, the one that its address says",
                &["A023", "A039", "A040"],
                anywhere,
                one_zone_each,
            ),
            Case::new("holes are spanned and not present", &["A039"], with_hole, holes_are_spanned),
            Case::new(
                "no free or used block crosses from one zone into another",
                &["A028"],
                anywhere,
                no_block_crosses,
            ),
            Case::new(
                "without a zone flag Normal comes first and lower zones after it",
                &["A029", "A118"],
                normal_above_others,
                normal_first,
            ),
            Case::new(
                "__GFP_DMA takes from DMA alone and fails when that is exhausted",
                &["A030", "A034", "A114", "A126"],
                dma,
                dma_only,
            ),
            Case::new(
                "__GFP_DMA32 takes from DMA32, then from DMA, and from nowhere else",
                &["A115", "A041"],
                dma32,
                dma32_then_dma,
            ),
            Case::new(
                "__GFP_HIGHMEM takes from HighMem, then from Normal, then from below",
                &["A031", "A116", "A125", "A041"],
                high_memory,
                high_memory_first,
            ),
            Case::new(
                "without high memory __GFP_HIGHMEM changes nothing",
                &["A032", "A033"],
                no_high_memory,
                highmem_means_nothing,
            ),
            Case::new(
                "64 GB of physical addresses can be used, and only low memory has addresses",
                &["A035"],
                pae,
                beyond_32_bits,
            ),
            Case::new(
                "the zonelist of a request is its own zones, nearest node first, high to low",
                &["A036"],
                anywhere,
                zonelists,
            ),
            Case::new(
                "a lower zone keeps pages back from requests that could use a higher one",
                &["A037"],
                reserving,
                lowmem_reserve,
            ),
            Case::new(
                "ZONE_MOVABLE is open to movable requests alone",
                &["A038", "A019", "A117"],
                movable,
                movable_zone,
            ),
        ]
    }
}

fn need(holds: bool, what: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(what) }
}

fn i386(facts: &Facts) -> Result<(), &'static str> {
    let limits = facts.dma_limit == Some(16 * MIB) && facts.direct_limit == Some(896 * MIB);
    need(limits && facts.end > 896 * MIB, "limits at 16 and 896 MB, and RAM above")
}

fn x86_64(facts: &Facts) -> Result<(), &'static str> {
    let limits = facts.dma_limit == Some(16 * MIB) && facts.dma32_limit == Some(4 * GIB);
    let ram = facts.dma_ram.1 > 0 && facts.end > 4 * GIB;
    need(limits && ram && facts.nodes == 1, "limits at 16 MB and 4 GB, RAM above each, one node")
}

fn no_dma(facts: &Facts) -> Result<(), &'static str> {
    need(facts.dma_limit.is_none() && facts.dma32_limit.is_none(), "no DMA zones")
}

pub(crate) fn dma(facts: &Facts) -> Result<(), &'static str> {
    need(facts.dma_limit.is_some_and(|limit| limit < facts.end), "a DMA zone")
}

fn dma32(facts: &Facts) -> Result<(), &'static str> {
    let (dma, dma32) = facts.dma_ram;
    need(dma > 0 && dma32 > 2 * dma, "DMA, and a DMA32 that is larger")
}

fn normal_above_others(facts: &Facts) -> Result<(), &'static str> {
    let low = facts.dma32_limit.or(facts.dma_limit);
    need(
        low.is_some_and(|low| low < facts.end) && facts.nodes == 1,
        "Normal with a DMA zone below it on one node",
    )
}

fn no_high_memory(facts: &Facts) -> Result<(), &'static str> {
    need(!facts.has_highmem() && !facts.movable, "no high memory")
}

fn pae(facts: &Facts) -> Result<(), &'static str> {
    need(facts.end == 64 * GIB && facts.has_highmem(), "64 GB of addresses, not all mapped")
}

fn with_hole(facts: &Facts) -> Result<(), &'static str> {
    need(facts.ram < facts.end, "a hole in RAM")
}

fn reserving(facts: &Facts) -> Result<(), &'static str> {
    need(
        (facts.has_highmem() || facts.end > 4 * GIB) && facts.nodes == 1,
        "Normal below HighMem, or DMA32 below Normal, on one node",
    )
}

fn movable(facts: &Facts) -> Result<(), &'static str> {
    need(facts.movable, "a zone Movable")
}

fn nodes() -> impl Iterator<Item = NodeId> {
    (0..MAX_NODES as u32).filter_map(NodeId::new)
}

fn zone_set<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, facts) = (machine.mm(), machine.facts());
    let wanted = |kind| match kind {
        ZoneKind::Dma => facts.dma_limit.is_some(),
        ZoneKind::Dma32 => facts.dma32_limit.is_some(),
        ZoneKind::Normal => true,
        ZoneKind::HighMem => facts.has_highmem(),
        ZoneKind::Movable => facts.movable,
    };
    let mut zones = 0;
    for node in nodes().filter(|node| mm.nodes().contains(*node)) {
        for kind in ZoneKind::ALL {
            let zone = mm.zone(node, kind);
            check(zone.is_some() == wanted(kind), "a node has the zones that are described")?;
            if let Some(zone) = zone {
                check(zone.kind() == kind && zone.node() == node, "a zone knows what it is")?;
                zones += 1;
            }
        }
    }
    equal(mm.zones().len() as u64, zones, "all zones are listed, each once")?;
    check(mm.zones().iter().any(|zone| zone.is_populated()), "one of them has pages")
}

/// Where a zone's RAM begins and ends, in bytes.
fn bytes<M: Machine>(zone: &Zone) -> (u64, u64) {
    let shift = <M::P as DirectMap>::PAGE_SHIFT;
    let (start, spanned) = (zone.start_pfn(), zone.spanned_pages());
    (start << shift, (start + spanned) << shift)
}

#[track_caller]
fn is_at<M: Machine>(machine: &M, kind: ZoneKind, start: u64, end: u64) -> Result<(), Failure> {
    let zone = some(machine.mm().zone(NodeId::ZERO, kind), "the machine has the zone")?;
    let (begins, ends) = bytes::<M>(zone);
    equal(begins, start, "the first address of a zone")?;
    equal(ends, end, "the address at which a zone ends")?;
    check(zone.is_populated(), "the zone has pages")
}

fn i386_layout<M: Machine>(machine: &M) -> Result<(), Failure> {
    is_at(machine, ZoneKind::Dma, 0, 16 * MIB)?;
    is_at(machine, ZoneKind::Normal, 16 * MIB, 896 * MIB)?;
    // Where RAM has a hole at the limit, high memory begins behind it.
    let end = machine.facts().end;
    is_at(machine, ZoneKind::HighMem, 896 * MIB, end)?;
    check(machine.mm().zone(NodeId::ZERO, ZoneKind::Dma32).is_none(), "there is no DMA32")
}

fn x86_64_layout<M: Machine>(machine: &M) -> Result<(), Failure> {
    is_at(machine, ZoneKind::Dma, 0, 16 * MIB)?;
    let dma32 = some(machine.mm().zone(NodeId::ZERO, ZoneKind::Dma32), "there is a DMA32")?;
    let (start, end) = bytes::<M>(dma32);
    equal(start, 16 * MIB, "DMA32 begins where DMA ends")?;
    at_most(end, 4 * GIB, "DMA32 ends at 4 GB at the latest")?;
    is_at(machine, ZoneKind::Normal, 4 * GIB, machine.facts().end)?;
    check(machine.mm().zone(NodeId::ZERO, ZoneKind::HighMem).is_none(), "there is no HighMem")
}

fn normal_serves_all<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    for flags in [Gfp::DMA, Gfp::DMA32, Gfp::HIGHMEM, Gfp::NONE] {
        let block = Block::new(machine, GFP_KERNEL | flags, 0)?;
        let zone = some(mm.page_zone(block.page()), "a page has a zone")?;
        check(zone.kind() == ZoneKind::Normal, "Normal serves every request")?;
    }
    Ok(())
}

fn empty_zones<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    for zone in mm.zones().iter().filter(|zone| !zone.is_populated()) {
        equal(zone.free_pages(), 0, "an empty zone has no free pages")?;
        equal(zone.watermarks().high, 0, "and keeps none back")?;
    }
    for node in nodes().filter(|node| mm.nodes().contains(*node)) {
        for flags in [GFP_KERNEL, GFP_DMA, GFP_HIGHUSER_MOVABLE] {
            let mut list = mm.zonelist(node, flags);
            check(list.all(Zone::is_populated), "no request looks at an empty zone")?;
        }
    }
    Ok(())
}

fn one_zone_each<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, facts) = (machine.mm(), machine.facts());
    let frames = some(mm.frames(), "the machine is booted")?;
    let mut present = [0u64; kmem::zone::MAX_ZONES];
    for (range, node) in frames.ram() {
        for pfn in range.filter_map(Pfn::new) {
            let page = some(mm.pfn_to_page(pfn), "a frame of RAM has a descriptor")?;
            let zone = some(mm.page_zone(page), "a frame of RAM has a zone")?;
            let address = mm.page_to_phys(page).get();
            let by_address = match address {
                at if facts.dma_limit.is_some_and(|limit| at < limit) => ZoneKind::Dma,
                at if facts.dma32_limit.is_some_and(|limit| at < limit) => ZoneKind::Dma32,
                at if facts.direct_limit.is_some_and(|limit| at >= limit) => ZoneKind::HighMem,
                _ => ZoneKind::Normal,
            };
            let kind = zone.kind();
            check(kind == by_address || kind == ZoneKind::Movable, "its address says which")?;
            check(zone.node() == node, "and it is its node's")?;
            present[usize::from(zone.index())] += 1;
        }
    }
    for zone in mm.zones() {
        let counted = present[usize::from(zone.index())];
        equal(zone.present_pages(), counted, "a zone's present pages are its frames of RAM")?;
        at_least(zone.spanned_pages(), counted, "it spans them")?;
        at_least(counted, zone.managed_pages(), "and manages no more than those")?;
    }
    let apart = |zone: &Zone| {
        let (start, end) = bytes::<M>(zone);
        mm.zones().iter().all(|other| {
            let (from, to) = bytes::<M>(other);
            let itself = other.index() == zone.index() || other.node() != zone.node();
            itself || start.max(from) >= end.min(to)
        })
    };
    check(mm.zones().iter().all(apart), "the zones of a node do not overlap")
}

fn holes_are_spanned<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let frames = some(mm.frames(), "the machine is booted")?;
    let mut holes = 0;
    for zone in mm.zones().iter().filter(|zone| zone.present_pages() != 0) {
        let (start, end) = (zone.start_pfn(), zone.start_pfn() + zone.spanned_pages());
        let ram: u64 = frames
            .ram()
            .map(|(range, _)| range.end.min(end).saturating_sub(range.start.max(start)))
            .sum();
        at_least(ram, zone.present_pages(), "present pages are RAM within the span")?;
        holes += zone.spanned_pages() - zone.present_pages();
        let is_ram = |frame| frames.ram().any(|(range, _)| range.contains(&frame));
        check(is_ram(start) && is_ram(end - 1), "a span begins and ends with RAM")?;
    }
    at_least(holes, 1, "a hole is spanned and not present")
}

fn no_block_crosses<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    // Everything is taken in pieces of one page and freed again: all blocks merge anew.
    let mut held = Hoard::new(machine);
    held.fill(GFP_HIGHUSER_MOVABLE | Gfp::NOWARN, 0);
    held.clear();
    mm.drain_all_pages();
    let memmap = some(mm.memmap(), "the machine is booted")?;
    let one_zone = |first: Pfn, order: u32| {
        let zone_of = |pfn| mm.pfn_to_page(pfn).and_then(|page| mm.page_zone(page));
        let zone = zone_of(first).map(Zone::index);
        let end = first.checked_add((1 << order) - 1);
        zone.is_some() && end.and_then(zone_of).map(Zone::index) == zone
    };
    let mut blocks = 0;
    for extent in memmap.extents() {
        for pfn in extent.range().filter_map(Pfn::new) {
            if let Some(Part::Free(order)) = memmap.get(pfn).map(|descriptor| descriptor.block()) {
                // Zones are ranges of frames, so both ends say it of all between.
                check(one_zone(pfn, order.get()), "a free block lies in one zone")?;
                blocks += 1;
            }
        }
    }
    at_least(blocks, 1, "there are free blocks")?;
    // What can be handed out as the largest block lies in one zone, too.
    let largest = mm.largest_order().get();
    held.fill(GFP_HIGHUSER_MOVABLE | Gfp::NOWARN, largest);
    held.each(|page, order| check(one_zone(page.pfn(), order), "a used block lies in one zone"))
}

fn kind_of<M: Machine>(machine: &M, block: &Block<'_, M>) -> Result<ZoneKind, Failure> {
    Ok(some(machine.mm().page_zone(block.page()), "a page has a zone")?.kind())
}

fn normal_first<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let normal = some(mm.zone(NodeId::ZERO, ZoneKind::Normal), "there is a zone Normal")?;
    let mut held = Hoard::new(machine);
    let mut lower = 0;
    while lower == 0 {
        let block = Block::new(machine, ORDINARY, 0)?;
        let kind = kind_of(machine, &block)?;
        check(kind <= ZoneKind::Normal, "nothing comes from above Normal")?;
        if kind < ZoneKind::Normal {
            lower += 1;
            let low = normal.watermarks().low;
            at_most(normal.free_pages(), low, "Normal is used up to its low mark before others")?;
        }
        held.push(block);
    }
    at_least(held.pages(), normal.managed_pages() / 2, "Normal serves most requests")
}

fn dma_only<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, facts) = (machine.mm(), machine.facts());
    let limit = facts.dma_limit.unwrap_or(0);
    let mut held = Hoard::new(machine);
    at_least(held.fill(ORDINARY | GFP_DMA, 0), 64, "DMA pages that can be had")?;
    held.each(|page, _| {
        let kind = some(mm.page_zone(page), "a page has a zone")?.kind();
        check(kind == ZoneKind::Dma, "a DMA request is met from DMA alone")?;
        check(mm.page_to_phys(page).get() < limit, "where the devices reach")
    })?;
    let elsewhere = mm.free_page_count();
    at_least(elsewhere, 256, "there is much memory elsewhere")?;
    no_memory(mm.alloc_page(ORDINARY | GFP_DMA), 0, "DMA is exhausted, so the request fails")?;
    equal(mm.free_page_count(), elsewhere, "and takes nothing from other zones")?;
    Block::new(machine, ORDINARY, 0)?.free();
    Ok(())
}

fn dma32_then_dma<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, facts) = (machine.mm(), machine.facts());
    let limit = facts.dma32_limit.unwrap_or(0);
    let block = Block::new(machine, ORDINARY | Gfp::DMA32, 0)?;
    check(kind_of(machine, &block)? == ZoneKind::Dma32, "DMA32 comes first")?;
    block.free();
    mm.drain_all_pages();
    // The machine itself may have had some of it since boot.
    let free_in_normal = || {
        let normal = mm.zones().iter().filter(|zone| zone.kind() == ZoneKind::Normal);
        normal.map(Zone::free_pages).sum::<u64>()
    };
    let before = free_in_normal();
    let mut held = Hoard::new(machine);
    held.fill(ORDINARY | Gfp::DMA32, 0);
    let (mut dma, mut dma32) = (0u64, 0u64);
    held.each(|page, _| {
        check(mm.page_to_phys(page).get() < limit, "nothing lies above the limit")?;
        match mm.page_zone(page).map(Zone::kind) {
            Some(ZoneKind::Dma) => dma += 1,
            Some(ZoneKind::Dma32) => dma32 += 1,
            _ => return Err(Failure::new("a DMA32 request is met from DMA32 or DMA")),
        }
        Ok(())
    })?;
    at_least(dma, 1, "DMA serves when DMA32 is exhausted")?;
    at_least(dma32, dma, "DMA32 serves most requests")?;
    no_memory(mm.alloc_page(ORDINARY | Gfp::DMA32), 0, "both are exhausted, so the request fails")?;
    equal(free_in_normal(), before, "Normal, which is forbidden, is untouched")
}

fn high_memory_first<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let zone = |kind| mm.zone(NodeId::ZERO, kind);
    let high = some(zone(ZoneKind::HighMem), "there is a zone HighMem")?;
    let normal = some(zone(ZoneKind::Normal), "there is a zone Normal")?;
    let request = GFP_HIGHUSER | Gfp::NORETRY | Gfp::NOWARN;
    let mut held = Hoard::new(machine);
    let mut from = [0u64; ZoneKind::COUNT];
    while let Ok(page) = mm.alloc_page(request) {
        // SAFETY: just allocated.
        let block = unsafe { Block::own(machine, page, 0) };
        let kind = kind_of(machine, &block)?;
        if from[kind.index()] == 0 && kind < ZoneKind::HighMem {
            at_most(high.free_pages(), high.watermarks().low, "HighMem is used before others")?;
        }
        if from[kind.index()] == 0 && kind < ZoneKind::Normal {
            let reserve = normal.lowmem_reserve(ZoneKind::HighMem);
            let low = normal.watermarks().low + reserve;
            at_most(normal.free_pages(), low, "Normal is used before those below")?;
        }
        from[kind.index()] += 1;
        held.push(block);
    }
    at_least(from[ZoneKind::HighMem.index()], high.managed_pages() / 2, "HighMem serves most")?;
    at_least(from[ZoneKind::Normal.index()], 1, "Normal serves the rest")?;
    // DMA keeps pages back from such requests; where that is all it has, it serves none.
    if let Some(dma) = zone(ZoneKind::Dma) {
        let kept = dma.lowmem_reserve(ZoneKind::HighMem) + dma.watermarks().min;
        check(
            (from[ZoneKind::Dma.index()] > 0) == (kept < dma.managed_pages()),
            "DMA serves what it does not keep back",
        )?;
    }
    // A request that forbids HighMem never gets it, however little there is elsewhere.
    held.clear();
    mm.drain_all_pages();
    let all_high = high.free_pages();
    held.fill(ORDINARY, 0);
    held.each(|page, _| {
        let kind = some(mm.page_zone(page), "a page has a zone")?.kind();
        check(kind <= ZoneKind::Normal, "GFP_KERNEL never gets high memory")
    })?;
    equal(high.free_pages(), all_high, "HighMem is untouched")?;
    check(is_down_to_min(normal, ZoneKind::Normal), "Normal is used up")
}

fn highmem_means_nothing<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    for node in nodes().filter(|node| mm.nodes().contains(*node)) {
        let plain = mm.zonelist(node, GFP_KERNEL).map(Zone::index);
        let high = mm.zonelist(node, GFP_KERNEL | Gfp::HIGHMEM).map(Zone::index);
        check(plain.eq(high), "the flag does not change which zones are looked at")?;
    }
    let block = Block::new(machine, GFP_KERNEL | Gfp::HIGHMEM, 0)?;
    check(mm.page_address(block.page()).is_some(), "what it gives has an address")
}

fn beyond_32_bits<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let pattern = |index: usize| (index % 251) as u8;
    let gib = |gib: u64| PhysAddr::new(gib * GIB);
    // In the last GiB that 36 bits address.
    let order = kmem::Order::ZERO;
    let page = mm.alloc_contig_pages(1, order, gib(63)..gib(64), GFP_HIGHUSER)?;
    // SAFETY: just allocated as a block of one page.
    let block = unsafe { Block::own(machine, page, 0) };
    at_least(mm.page_to_phys(page).get(), 63 * GIB, "a frame that takes 36 bits")?;
    check(mm.page_address(page).is_none(), "it is not mapped for good")?;
    let bytes = machine.facts().page_bytes() as usize;
    let address = mm.kmap_local_page(page)?;
    for index in 0..bytes {
        // SAFETY: the frame is ours and mapped until `unmap`.
        unsafe { address.as_ptr::<u8>().add(index).write(pattern(index)) };
    }
    // SAFETY: the latest mapping, not used afterwards.
    unsafe { mm.kunmap_local(address) };
    // Another frame in between, so that nothing is left where the first one was seen.
    let other = Block::new(machine, GFP_HIGHUSER | Gfp::ZERO, 0)?;
    let address = mm.kmap_local_page(block.page())?;
    // SAFETY: the frame is mapped until `unmap`, and was written.
    let read = |index: usize| unsafe { address.as_ptr::<u8>().add(index).read() };
    let kept = (0..bytes).all(|index| read(index) == pattern(index));
    // SAFETY: the latest mapping, not used afterwards.
    unsafe { mm.kunmap_local(address) };
    check(kept, "a frame above 4 GB keeps what was written to it")?;
    let address = mm.kmap_local_page(other.page())?;
    // SAFETY: as above; the page was cleared.
    let read = |index: usize| unsafe { address.as_ptr::<u8>().add(index).read() };
    let zero = (0..bytes).all(|index| read(index) == 0);
    // SAFETY: the latest mapping, not used afterwards.
    unsafe { mm.kunmap_local(address) };
    check(zero, "and another frame is another frame")
}

fn zonelists<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let requests = [GFP_DMA, Gfp::DMA32, GFP_KERNEL, GFP_HIGHUSER, GFP_HIGHUSER_MOVABLE];
    for node in nodes().filter(|node| mm.nodes().contains(*node)) {
        for gfp in requests {
            let list = || mm.zonelist(node, gfp);
            let first = some(list().next(), "a request has a zone to look at")?;
            let local = mm.zones().iter().any(|zone| {
                zone.node() == node && zone.is_populated() && zone.kind() <= first.kind()
            });
            check(first.node() == node || !local, "its own node's zones come first")?;
            for (zone, next) in list().zip(list().skip(1)) {
                let same = zone.node() == next.node();
                check(!same || zone.kind() > next.kind(), "on a node, high to low")?;
                let again = list().skip_while(|other| other.index() != zone.index());
                let again = again.skip_while(|other| other.node() == zone.node());
                let split = again.into_iter().any(|other| other.node() == zone.node());
                check(!split, "one node after the other")?;
            }
            // A machine without DMA zones serves DMA requests from what devices reach: all of it.
            let described = mm.zone(node, gfp.highest_zone()).is_some();
            let allowed = |zone: &Zone| zone.kind() <= gfp.highest_zone() || !described;
            check(list().all(allowed), "no zone that the flags forbid")?;
            if described {
                let wanted = mm.zones().iter().filter(|zone| zone.is_populated());
                let wanted = wanted.filter(|zone| zone.kind() <= gfp.highest_zone()).count();
                equal(list().count() as u64, wanted as u64, "every zone that they allow, once")?;
            }
        }
    }
    Ok(())
}

fn lowmem_reserve<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let (higher, lower) = if machine.facts().has_highmem() {
        (GFP_HIGHUSER, GFP_KERNEL)
    } else {
        (GFP_KERNEL, GFP_KERNEL | Gfp::DMA32)
    };
    let zone = some(preferred(machine, lower), "there is a lower zone")?;
    let reserve = zone.lowmem_reserve(higher.highest_zone());
    at_least(reserve, 1, "the lower zone keeps pages back from higher requests")?;
    equal(zone.lowmem_reserve(lower.highest_zone()), 0, "and none from its own")?;
    let quiet = Gfp::NORETRY | Gfp::NOWARN;
    let mut held = Hoard::new(machine);
    held.fill(higher | quiet, 0);
    let kept = zone.watermarks().min + reserve;
    equal(zone.free_pages(), kept, "higher requests stop with the reserve still there")?;
    no_memory(mm.alloc_page(higher | quiet), 0, "higher requests fail")?;
    let mut own = Hoard::new(machine);
    own.fill(lower | quiet, 0);
    at_least(own.pages(), reserve, "the zone's own requests get what was kept back")?;
    equal(zone.free_pages(), zone.watermarks().min, "down to the min mark")
}

fn movable_zone<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let zone = some(mm.zone(NodeId::ZERO, ZoneKind::Movable), "there is a zone Movable")?;
    check(zone.is_populated(), "it has pages")?;
    // Not a kind of memory: below it, at the same kind of address, another zone has its frames.
    let below = mm.zones().iter().any(|other| {
        other.kind() != ZoneKind::Movable
            && other.start_pfn() + other.spanned_pages() == zone.start_pfn()
    });
    check(below, "it is the end of what would be another zone's")?;
    let block = Block::new(machine, GFP_HIGHUSER_MOVABLE, 0)?;
    check(kind_of(machine, &block)? == ZoneKind::Movable, "a movable page comes from there")?;
    block.free();
    mm.drain_all_pages();
    let all = zone.free_pages();
    for forbidden in [GFP_KERNEL, GFP_KERNEL | Gfp::MOVABLE, GFP_HIGHUSER] {
        let mut held = Hoard::new(machine);
        held.fill(forbidden | Gfp::NORETRY | Gfp::NOWARN, 0);
        equal(zone.free_pages(), all, "no other request gets pages of it")?;
        let block = Block::new(machine, GFP_HIGHUSER_MOVABLE, 0)?;
        check(kind_of(machine, &block)? == ZoneKind::Movable, "which it keeps for movable ones")?;
        drop(held);
        block.free();
        mm.drain_all_pages();
    }
    let pressed = press(machine, Gfp::HIGHMEM | Gfp::MOVABLE);
    check(is_down_to_min(zone, ZoneKind::Movable), "movable requests use it up")?;
    let left = |zone: &Zone| zone.is_populated() && !is_down_to_min(zone, ZoneKind::Movable);
    check(!mm.zones().iter().any(left), "and then what is below")?;
    drop(pressed);
    Ok(())
}
