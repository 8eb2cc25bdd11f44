//! G9: slabs, and the objects in them.

use core::cell::Cell;
use core::ptr::NonNull;

use kmem::{CacheFlags, CacheInfo, CpuId, GFP_KERNEL, NodeId};

use crate::elsewhere::{last_cpu, on_cpu};
use crate::failure::{at_least, check, equal, some};
use crate::objects::{Held, Own, Source, address, slab_of};
use crate::pages::anywhere;
use crate::{Case, Facts, Failure, Machine};

pub(crate) const fn cases<M: Machine>() -> &'static [Case<M>] {
    const {
        &[
            Case::new(
                "objects lie side by side, and what is freed is used again before pages are asked for",
                &["A171", "A216"],
                anywhere,
                side_by_side,
            )
            .objects(),
            Case::new(
                "what was freed last is handed out next",
                &["A172"],
                anywhere,
                last_in_first_out,
            )
            .objects(),
            Case::new(
                "a CPU has objects of its own at hand, which no other CPU is given",
                &["A174"],
                magazines,
                own_objects,
            )
            .objects(),
            Case::new(
                "objects come from the node that is asked for, or from the CPU's own",
                &["A175"],
                nodes,
                nodes_of_objects,
            )
            .objects(),
            Case::new(
                "slabs begin their objects at different colours",
                &["A176", "A216"],
                anywhere,
                colours,
            )
            .objects(),
            Case::new(
                "a slab is contiguous pages, one where objects are small",
                &["A178"],
                anywhere,
                pages_of_slabs,
            )
            .objects(),
            Case::new(
                "partial slabs serve first, then empty ones, then a new one",
                &["A179", "A180", "A181", "A185"],
                anywhere,
                order_of_service,
            )
            .objects(),
            Case::new(
                "a cache grows by a slab's pages, which are marked and counted as it says",
                &["A184", "A199", "A216"],
                anywhere,
                growth,
            )
            .objects(),
            Case::new(
                "pages stay with a cache until it is shrunk or destroyed",
                &["A186", "A208"],
                anywhere,
                pages_stay,
            )
            .objects(),
            Case::new(
                "a cache of the right size holds objects at least as densely as kmalloc",
                &["A217"],
                anywhere,
                density,
            )
            .objects(),
        ]
    }
}

fn magazines(facts: &Facts) -> Result<(), &'static str> {
    if facts.pagesets && facts.cpus > 1 { Ok(()) } else { Err("two CPUs with lists of their own") }
}

fn nodes(facts: &Facts) -> Result<(), &'static str> {
    if facts.nodes > 1 && facts.cpus > 1 { Ok(()) } else { Err("two nodes, with a CPU each") }
}

fn side_by_side<M: Machine>(machine: &M) -> Result<(), Failure> {
    for size in [16, 100, 1000] {
        let cache = Own::new(machine, "side-by-side", size, CacheFlags::NONE)?;
        let info = cache.info()?;
        let each = u64::from(info.objects_per_slab);
        let mut held = Held::of(&cache);
        held.fill(each, GFP_KERNEL)?;
        let (mut first, mut last) = (usize::MAX, 0);
        held.each(|object| {
            (first, last) = (first.min(object), last.max(object));
            Ok(())
        })?;
        check(slab_of(machine, first)?.0 == slab_of(machine, last)?.0, "they are of one slab")?;
        let span = (last - first) as u64;
        equal(span, (each - 1) * info.stride as u64, "with nothing between them")?;
        at_least((size + 8) as u64, info.stride as u64, "one begins where the other ends")?;

        // Whatever is freed in whatever order: so many objects need so many slabs.
        held.fill(9 * each, GFP_KERNEL)?;
        let slabs = cache.info()?.slabs.slabs();
        for round in 1..6 {
            let mut number = 0;
            held.free_if(|_| {
                number += 1;
                number % 7 < round
            });
            held.fill(10 * each - held.count, GFP_KERNEL)?;
        }
        equal(cache.info()?.slabs.slabs(), slabs, "holes are filled before pages are asked for")?;
        held.finish()?;
    }
    Ok(())
}

fn last_in_first_out<M: Machine>(machine: &M) -> Result<(), Failure> {
    const COUNT: usize = 20;
    let cache = Own::new(machine, "lifo", 100, CacheFlags::NONE)?;
    let count = if machine.facts().pagesets { COUNT } else { 1 };
    let mut objects = [0; COUNT];
    for place in &mut objects[..count] {
        *place = address(cache.take(GFP_KERNEL)?);
    }
    let pointer = |address| NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(address));
    for _ in 0..3 {
        for object in objects[..count].iter().filter_map(|object| pointer(*object)) {
            // SAFETY: taken above.
            unsafe { cache.free(object) };
        }
        for object in objects[..count].iter().rev() {
            equal(address(cache.take(GFP_KERNEL)?) as u64, *object as u64, "the latest is first")?;
        }
    }
    for object in objects[..count].iter().filter_map(|object| pointer(*object)) {
        // SAFETY: taken again above.
        unsafe { cache.free(object) };
    }
    Ok(())
}

fn own_objects<M: Machine>(machine: &M) -> Result<(), Failure> {
    let cache = Own::new(machine, "own", 200, CacheFlags::NONE)?;
    let other = last_cpu(machine);
    let take_and_free = |_| {
        let object = cache.take(GFP_KERNEL)?;
        // SAFETY: just taken.
        unsafe { cache.free(object) };
        Ok(address(object))
    };
    let theirs = on_cpu(machine, other, || take_and_free(()))?;
    let own = take_and_free(())?;
    check(own != theirs, "what another CPU has at hand is not for this one")?;
    for _ in 0..3 {
        equal(take_and_free(())? as u64, own as u64, "a CPU is given what it freed")?;
        let again = on_cpu(machine, other, || take_and_free(()))?;
        equal(again as u64, theirs as u64, "and so is the other")?;
    }
    at_least(cache.info()?.at_hand, 2, "these objects are at hand, and in no slab")
}

fn nodes_of_objects<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let node_of = |object: NonNull<u8>| {
        let (page, _) = slab_of(machine, address(object))?;
        Ok::<NodeId, Failure>(some(mm.page_zone(page), "a zone")?.node())
    };
    let cache = Own::new(machine, "nodes", 300, CacheFlags::NONE)?;
    for node in (0..machine.facts().nodes).filter_map(NodeId::new) {
        let object = mm.kmem_cache_alloc_node(cache.id, GFP_KERNEL, Some(node))?;
        let found = node_of(object);
        // SAFETY: just taken.
        unsafe { cache.free(object) };
        check(found? == node, "an object lies on the node that was asked for")?;
        let memory = mm.kmalloc_node(300, GFP_KERNEL, Some(node))?;
        let found = node_of(memory);
        // SAFETY: just taken.
        unsafe { mm.kfree(memory.as_ptr()) };
        check(found? == node, "kmalloc's, too")?;
    }
    for cpu in (0..machine.facts().cpus).filter_map(CpuId::new) {
        on_cpu(machine, cpu, || {
            let page = mm.alloc_page(GFP_KERNEL)?;
            let own = mm.page_zone(page).map(|zone| zone.node());
            // SAFETY: just allocated.
            unsafe { mm.__free_page(page) };
            // The first is an object of another CPU's that came home, perhaps.
            for _ in 0..3 {
                let object = cache.take(GFP_KERNEL)?;
                let found = node_of(object);
                // SAFETY: just taken.
                unsafe { cache.free(object) };
                check(Some(found?) == own, "without a node, on the CPU's own")?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn colours<M: Machine>(machine: &M) -> Result<(), Failure> {
    const SLABS: u64 = 12;
    let cache = Own::new(machine, "coloured", 700, CacheFlags::NONE)?;
    let info = cache.info()?;
    let mut held = Held::of(&cache);
    held.fill(SLABS * u64::from(info.objects_per_slab), GFP_KERNEL)?;
    // Where the first object of each slab begins: what all offsets of a slab have in common.
    let (mut seen, mut count) = ([usize::MAX; SLABS as usize], 0);
    let bytes = (machine.facts().page_bytes() << info.order.get()) as usize;
    let slack = bytes - info.objects_per_slab as usize * info.stride;
    held.each(|object| {
        let colour = (object - slab_of(machine, object)?.1) % info.stride;
        at_least(slack as u64, colour as u64, "a colour is within what is left of a slab")?;
        if !seen[..count].contains(&colour) {
            *some(seen.get_mut(count), "there are no more colours than slabs")? = colour;
            count += 1;
        }
        Ok(())
    })?;
    at_least(count as u64, 3, "slabs begin at different places")?;
    check(seen[..count].iter().all(|colour| colour.is_multiple_of(64)), "a line or more apart")?;
    held.finish()
}

fn pages_of_slabs<M: Machine>(machine: &M) -> Result<(), Failure> {
    let (mm, page_bytes) = (machine.mm(), machine.facts().page_bytes());
    for size in [16, 100, 256, 1000, 3000, page_bytes as usize, 9 * page_bytes as usize / 4] {
        if size > kmem::boot::LARGEST_OBJECT {
            continue;
        }
        let cache = Own::new(machine, "pages", size, CacheFlags::NONE)?;
        let info = cache.info()?;
        if size as u64 <= page_bytes / 8 {
            equal(info.order.get().into(), 0, "small objects have slabs of one page")?;
        }
        let mut held = Held::of(&cache);
        held.fill(3, GFP_KERNEL)?;
        held.each(|object| {
            let (head, start) = slab_of(machine, object)?;
            let end = start + (page_bytes << info.order.get()) as usize;
            check(start <= object && object + size <= end, "an object is within its slab")?;
            for index in 0..info.order.pages() {
                let pfn = some(head.pfn().checked_add(index), "a frame")?;
                let page = some(mm.pfn_to_page(pfn), "with a descriptor")?;
                check(mm.compound_head(page) == head, "of a slab that is pages in a row")?;
            }
            Ok(())
        })?;
        held.finish()?;
    }
    Ok(())
}

fn order_of_service<M: Machine>(machine: &M) -> Result<(), Failure> {
    const SLABS: u64 = 150;
    let cache = Own::new(machine, "service", 900, CacheFlags::NONE)?;
    let info = cache.info()?;
    let mut held = Held::of(&cache);
    held.fill(SLABS * u64::from(info.objects_per_slab), GFP_KERNEL)?;
    at_least(cache.info()?.slabs.full, SLABS - 1, "a slab with no free object is full")?;
    // Of every third slab all stay, of the next ones the first, of others none: but where CPUs keep
    // objects at hand, what would be empty slabs are theirs for the most part, or are given back.
    let at_hand = machine.facts().pagesets;
    let failure = Cell::new(None);
    held.free_if(|object| match slab_of(machine, object) {
        Ok((head, start)) => match (head.pfn().number() >> info.order.get()) % 3 {
            0 => false,
            2 if !at_hand => true,
            _ => object - start >= 2 * info.stride,
        },
        Err(error) => {
            failure.set(Some(error));
            false
        }
    });
    failure.take().map_or(Ok(()), Err)?;
    if at_hand {
        equal(machine.mm().kmem_cache_shrink(cache.id), 0, "no slab is without an object")?;
    }
    let before = cache.info()?.slabs;
    at_least(before.full, 1, "some slabs are full")?;
    at_least(before.partial, 1, "some have free objects and others")?;
    check((before.empty == 0) == at_hand, "and some have free objects only")?;
    let slabs = before.slabs();
    loop {
        let before = cache.info()?;
        held.fill(1, GFP_KERNEL)?;
        let after = cache.info()?.slabs;
        // What came at once came from partial slabs as far as there were any; the last slab that
        // something was taken from is partial.
        if after.slabs() > slabs {
            equal(before.slabs.free, 0, "a slab is made where no other has a free object")?;
            equal(after.empty, 0, "so none was empty")?;
            at_least(1, after.partial, "and none partial, but the new one")?;
            equal(after.full + after.partial, slabs + 1, "all the others are full")?;
            break;
        }
        if after.empty < before.slabs.empty {
            at_least(1, after.partial, "an empty slab serves when no partial one is left")?;
        }
    }
    held.finish()
}

fn growth<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    for (flags, reclaimable) in [(CacheFlags::NONE, false), (CacheFlags::RECLAIM_ACCOUNT, true)] {
        for size in [100, 3000, 6000] {
            mm.shrink_caches();
            let cache = Own::new(machine, "growing", size, flags)?;
            let counted = || {
                let counters = mm.counters();
                if reclaimable { counters.slab_reclaimable } else { counters.slab_unreclaimable }
            };
            equal(cache.info()?.slabs.slabs(), 0, "a cache begins without a page")?;
            let before = counted();
            let mut held = Held::of(&cache);
            held.fill(60, GFP_KERNEL)?;
            let info = cache.info()?;
            let pages = info.slabs.slabs() * info.order.pages();
            at_least(counted() - before, pages, "the pages are counted as what they are")?;
            if reclaimable {
                equal(counted() - before, pages, "and no others")?;
            }
            held.each(|object| slab_of(machine, object).map(drop))?;
            held.finish()?;
            mm.kmem_cache_shrink(cache.id);
            if reclaimable {
                equal(counted(), before, "and are not when they are given back")?;
            }
        }
    }
    Ok(())
}

fn pages_stay<M: Machine>(machine: &M) -> Result<(), Failure> {
    let mm = machine.mm();
    let cache = Own::new(machine, "staying", 900, CacheFlags::NONE)?;
    let count = 10 * u64::from(cache.info()?.objects_per_slab);
    let mut held = Held::of(&cache);
    held.fill(count, GFP_KERNEL)?;
    let slabs = cache.info()?.slabs.slabs();
    at_least(slabs, 10, "so many objects have so many slabs")?;
    for _ in 0..3 {
        held.free_if(|_| true);
        equal(cache.info()?.slabs.slabs(), slabs, "frees give no page back")?;
        held.fill(count, GFP_KERNEL)?;
        equal(cache.info()?.slabs.slabs(), slabs, "and none is asked for again")?;
    }
    equal(mm.kmem_cache_shrink(cache.id), 0, "slabs in use do not go")?;
    held.finish()?;
    let (pages, free) = (slabs * cache.info()?.order.pages(), mm.free_page_count());
    // SAFETY: nobody uses it.
    unsafe { mm.kmem_cache_destroy(cache.id) }?;
    at_least(mm.free_page_count(), free + pages, "with the cache all of its pages go")?;
    let found = mm.caches().any(|info| info.name.as_str() == cache.name);
    core::mem::forget(cache);
    check(!found, "and it is a cache no more")
}

fn density<M: Machine>(machine: &M) -> Result<(), Failure> {
    const COUNT: u64 = 600;
    let (mm, page_bytes) = (machine.mm(), machine.facts().page_bytes());
    let mut denser = 0;
    for size in [72, 100, 260, 520, 600, 1100, 1200, 2100] {
        // The pages of the slabs of all caches: what they hold are objects, and records where those
        // are elsewhere.
        let slab_pages =
            || -> u64 { mm.caches().map(|cache| cache.slabs.slabs() * cache.order.pages()).sum() };
        let held = |from, is: &dyn Fn(&CacheInfo) -> bool| -> Result<u64, Failure> {
            let slabs = || -> u64 { mm.caches().filter(is).map(|cache| cache.slabs.slabs()).sum() };
            let mut held = Held::new(machine, from);
            // What the slabs that there are have free comes first: the first object that wants a new
            // one is the first that counts.
            let before = loop {
                mm.shrink_caches();
                let (pages, there) = (slab_pages(), slabs());
                held.fill(1, GFP_KERNEL)?;
                if slabs() > there {
                    break pages;
                }
            };
            held.fill(COUNT - 1, GFP_KERNEL)?;
            // What CPUs have ahead of their users is not what the objects need.
            mm.shrink_caches();
            let pages = slab_pages() - before;
            held.finish()?;
            Ok(pages)
        };
        let cache = Own::new(machine, "right-sized", size, CacheFlags::NONE)?;
        let own = held(Source::Cache(cache.id), &|info| info.name.as_str() == cache.name)?;
        let given = mm.kmalloc_size_roundup(size);
        let is_class =
            |info: &CacheInfo| info.size == given && info.name.as_str().starts_with("kmalloc");
        let general = held(Source::Kmalloc(size), &is_class)?;
        let (least, bytes) = (COUNT * size as u64, own * page_bytes);
        at_least(general, own, "a cache of the right size takes no more pages than kmalloc")?;
        denser += u64::from(own < general);
        // Nine tenths of what is held are objects, but for what the last slab has left.
        let last = (page_bytes << cache.info()?.order.get()) + page_bytes;
        at_least(least * 10 / 8 + last, bytes, "its objects lie as densely as they can")?;
    }
    at_least(denser, 1, "and for some sizes fewer")
}
