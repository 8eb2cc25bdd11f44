//! `/proc/pages/PFN`: all that is known of one frame.

use core::fmt::{self, Write};

use super::class::{Class, piece, span};
use super::pageruns::holder;
use crate::mm::Owner;
use crate::page::{Block, Place};
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{AreaInfo, Mm, Page, Pfn};

/// Writes what is known of one frame, a line each: what, a colon, and the answer.
///
/// Empty where the frame has no descriptor: it is far from all RAM. Frames of a hole have one where RAM is
/// near. For a slab the cache is told, for memory of `vmalloc` the area and who made it. How long a page has
/// been what it is the manager does not know: it keeps no time. `out` takes the text.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any but NMI. Cost: a few look-ups; for memory of `vmalloc` all runs of all areas.
///
/// ```text
/// frame:       4660 (0x1234)
/// address:     0x1234000-0x1234fff
/// mapped at:   0x7f3001234000
/// node:        0
/// zone:        Normal
/// class:       slab
/// block:       order 2, frames 4660-4663, held
/// page block:  order 9, frames 4608-5119, Unmovable
/// references:  1
/// cache:       kmalloc-256
/// ```
pub fn page<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    pfn: Pfn,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let found = mm.memmap().and_then(|memmap| Some((memmap, memmap.get(pfn)?)));
    let Some((memmap, descriptor)) = found else { return Ok(()) };
    let (frame, page) = (pfn.number(), Page::of(pfn));
    let start = frame << P::PAGE_SHIFT;
    let end = start + (1 << P::PAGE_SHIFT) - 1;
    writeln!(out, "frame:       {frame} ({frame:#x})")?;
    writeln!(out, "address:     {start:#x}-{end:#x}")?;
    let next = piece(mm, memmap, frame);
    if matches!(next.block, Block::Hole) {
        return writeln!(out, "class:       no RAM");
    }
    match mm.page_address(page) {
        Some(address) => writeln!(out, "mapped at:   {:#x}", address.get())?,
        None => writeln!(out, "mapped at:   nowhere (high memory)")?,
    }
    let zone = mm
        .zones()
        .iter()
        .find(|zone| zone.index() == descriptor.zone() && span(zone).contains(&frame));
    if let Some(zone) = zone {
        writeln!(out, "node:        {}\nzone:        {}", zone.node(), zone.name())?;
    }
    // A frame of page cache says itself whose it is; the rest is the block's.
    let owner = mm.owner(pfn);
    let class = Class::of(owner);
    write!(out, "class:       {}", class.label())?;
    match owner {
        Owner::FreeOnLists(cpu) => writeln!(out, " (CPU {})", cpu.get())?,
        Owner::PageCache { mapping, index } => {
            writeln!(out, " (page {index} of mapping {mapping} in the page cache)")?;
        }
        Owner::User { mappings } => writeln!(out, " (in {mappings} page tables of users)")?,
        _ if class == Class::InUse => writeln!(out, " ({})", holder(owner))?,
        _ => writeln!(out)?,
    }
    if let Block::Free(order) | Block::Used(order) | Block::Compound(order) = next.block {
        let first = frame & !(order.pages() - 1);
        let last = first + order.pages() - 1;
        let compound = if matches!(next.block, Block::Compound(_)) { ", compound" } else { "" };
        let place = Pfn::new(first).and_then(|head| memmap.get(head)).map(|head| head.place());
        let place = match (next.block, place) {
            (Block::Free(_), _) => "free",
            (_, Some(Place::OnLists(_))) => "on a CPU's list",
            (_, Some(Place::PutAside)) => "about to be free",
            _ => "held",
        };
        let order = order.get();
        writeln!(out, "block:       order {order}, frames {first}-{last}, {place}{compound}")?;
    }
    if zone.is_some() {
        let order = mm.page_block_order();
        let first = frame & !(order.pages() - 1);
        let last = first + order.pages() - 1;
        let (order, name) = (order.get(), memmap.migrate_type(pfn).name());
        writeln!(out, "page block:  order {order}, frames {first}-{last}, {name}")?;
    }
    writeln!(out, "references:  {}", mm.page_count(page))?;
    if owner == Owner::Slab {
        let cache = descriptor.is_slab().then(|| mm.cache_name(descriptor.slab().cache));
        match cache.flatten() {
            Some(name) => writeln!(out, "cache:       {name}")?,
            None => writeln!(out, "cache:       none: memory of kmalloc in pages of its own")?,
        }
    }
    if owner == Owner::Vmalloc
        && let Some((area, at)) = mm.vm_area_of(page)
    {
        let AreaInfo { start, pages, kind, caller, .. } = area;
        let (address, kind) = (start.get(), kind.name());
        writeln!(out, "area:        {address:#x}, page {at} of {pages}, {kind}")?;
        writeln!(out, "made by:     {}:{}", caller.file(), caller.line())?;
    }
    if let Some(private) = descriptor.private().filter(|_| owner == Owner::Private) {
        writeln!(out, "private:     {private:#x}")?;
    }
    Ok(())
}
