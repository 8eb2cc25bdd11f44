//! What holders keep in descriptors: it is theirs as long as they hold the page, and gone afterwards.

mod common;

use common::{Machine, Rig, frames, free, settle};
use kmem::page::PageFlags;
use kmem::platform::{MisuseKind, Passed};
use kmem::*;

const MIB: u64 = 1 << 20;

/// 16 MiB, of which the first page is reserved.
fn machine() -> Machine {
    let mm = Mm::new(Rig::new(16 << 20));
    let map = MemoryMap::new().ram(0..16 * MIB, NodeId::ZERO).reserved(0..4096, "firmware");
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &Setup::new()) }.unwrap();
    mm
}

fn page_at(mm: &Machine, frame: u64) -> Page {
    mm.pfn_to_page(Pfn::new(frame).unwrap()).unwrap()
}

fn kinds(mm: &Machine) -> Vec<MisuseKind> {
    mm.platform().take_reports().into_iter().map(|report| report.kind).collect()
}

/// Whether a page has nothing that a holder could have left there.
fn is_clean(mm: &Machine, page: Page) -> bool {
    let there = mm.descriptor(page).unwrap();
    there.flags() == 0
        && there.map_count() == 0
        && there.private().is_none()
        && there.mapping().is_none()
}

/// Whichever page of a block has states, and whichever way it is freed, the next holder finds none.
///
/// A005, A006, A009
#[test]
fn no_page_of_a_block_keeps_its_states() {
    type Leave = fn(&Machine, Page, u32);
    let plain: Leave = |mm, page, order| free(mm, page, order);
    let put: Leave = |mm, page, _| {
        mm.get_page(page);
        // SAFETY: the test's own references; nothing uses the pages.
        unsafe { mm.put_page(page) };
        // SAFETY: as above.
        unsafe { mm.put_page(page) };
    };
    let split: Leave = |mm, page, order| {
        mm.split_page(page, order);
        frames(page, order).for_each(|frame| free(mm, page_at(mm, frame), 0));
    };
    let ways = [(GFP_KERNEL, plain), (GFP_KERNEL, put), (GFP_KERNEL, split)];
    let compound = GFP_KERNEL | Gfp::COMP;
    let mm = machine();
    let before = settle(&mm);
    for (gfp, leave) in ways.into_iter().chain([(compound, plain), (compound, put)]) {
        for order in [0, 1, 3, 4, 6] {
            for which in [0, 1, (1 << order) - 1] {
                let block = mm.alloc_pages(gfp, order).unwrap();
                let frames = frames(block, order);
                assert!(frames.clone().all(|frame| is_clean(&mm, page_at(&mm, frame))));
                let page = page_at(&mm, frames.start + which % (1 << order));
                assert!(!mm.set_page_flag(page, PageFlags::Dirty));
                assert!(mm.set_page_flag(page, PageFlags::Dirty));
                mm.set_page_mapping(page, Some((4, 5)));
                mm.set_page_map_count(page, 6);
                assert_eq!(mm.descriptor(page).unwrap().mapping(), Some((4, 5)));
                leave(&mm, block, order);
                for frame in frames {
                    let page = page_at(&mm, frame);
                    assert!(is_clean(&mm, page), "{gfp} order {order} page {which}: {frame:#x}");
                }
            }
        }
    }
    assert_eq!(kinds(&mm), []);
    assert_eq!(settle(&mm), before);
}

/// Who does not hold a page changes nothing about it, and what the manager knows is nobody else's to
/// say.
///
/// A006, A063
#[test]
fn states_are_changed_by_a_holder_alone() {
    let mm = machine();
    let before = settle(&mm);
    let listed = mm.alloc_page(GFP_KERNEL).unwrap();
    let block = mm.alloc_pages(GFP_KERNEL, 5).unwrap();
    let inner = page_at(&mm, block.pfn().number() + 9);
    let held = mm.alloc_page(GFP_KERNEL).unwrap();
    free(&mm, listed, 0);
    free(&mm, block, 5);
    for page in [listed, block, inner, page_at(&mm, 0)] {
        let changes: [fn(&Machine, Page); 7] = [
            |mm, page| assert!(!mm.set_page_flag(page, PageFlags::Uptodate)),
            |mm, page| assert!(!mm.clear_page_flag(page, PageFlags::Uptodate)),
            |mm, page| mm.set_page_private(page, Some(1)),
            |mm, page| mm.set_page_mapping(page, Some((1, 2))),
            |mm, page| mm.set_page_map_count(page, 1),
            |mm, page| mm.set_page_slab(page, false),
            |mm, page| mm.clear_page_slab(page),
        ];
        for change in changes {
            change(&mm, page);
            let reports = mm.platform().take_reports();
            assert_eq!(reports.len(), 1, "{reports:#?}");
            assert_eq!(reports[0].kind, MisuseKind::NotInUse);
            assert_eq!(reports[0].passed, Passed::Page(page.pfn(), 0));
            assert!(reports[0].line.contains("tests/state.rs"), "{}", reports[0].line);
            assert!(is_clean(&mm, page), "{page:?}");
        }
    }
    use PageFlags::*;
    let managers = [Slab, SlabReclaimable, Private, Mapping, Kernel, Metadata, Late, Inner, Mapped];
    for flag in managers {
        assert!(!mm.set_page_flag(held, flag) && !mm.clear_page_flag(held, flag));
        assert_eq!(kinds(&mm), [MisuseKind::ManagersState; 2], "{flag:?}");
        assert!(is_clean(&mm, held), "{flag:?}");
    }
    free(&mm, held, 0);
    assert_eq!(settle(&mm), before);
}

/// The pages of a slab are freed by the slab layer, which says so first; any other free is a wrong
/// one. References may come and go.
///
/// A018, A062
#[test]
fn a_slab_is_not_freed_as_pages() {
    let mm = machine();
    let before = settle(&mm);
    for (order, gfp) in
        [(0, GFP_KERNEL), (3, GFP_KERNEL), (4, GFP_KERNEL), (2, GFP_KERNEL | Gfp::COMP)]
    {
        let slab = mm.alloc_pages(gfp, order).unwrap();
        mm.set_page_slab(slab, true);
        mm.set_page_slab(slab, true);
        mm.set_page_slab(slab, false);
        let counters = mm.counters();
        assert_eq!((counters.slab_reclaimable, counters.slab_unreclaimable), (1 << order, 0));
        let free_pages = mm.free_page_count();
        free(&mm, slab, order);
        // SAFETY: wrong on purpose; nothing uses the memory.
        unsafe { mm.put_page(slab) };
        assert_eq!(kinds(&mm), [MisuseKind::Slab; 2]);
        mm.split_page(slab, order);
        assert_eq!(kinds(&mm).len(), 1);
        mm.get_page(slab);
        // SAFETY: the reference was taken above.
        unsafe { mm.put_page(slab) };
        assert_eq!((mm.page_count(slab), mm.free_page_count()), (1, free_pages));
        if order > 0 {
            let inner = page_at(&mm, slab.pfn().number() + 1);
            mm.clear_page_slab(inner);
            assert_eq!(kinds(&mm), [MisuseKind::NotInUse]);
        }
        mm.clear_page_slab(slab);
        mm.clear_page_slab(slab);
        let counters = mm.counters();
        assert_eq!((counters.slab_reclaimable, counters.slab_unreclaimable), (0, 0));
        // The other way round.
        mm.set_page_slab(slab, false);
        mm.set_page_slab(slab, true);
        mm.clear_page_slab(slab);
        let counters = mm.counters();
        assert_eq!((counters.slab_reclaimable, counters.slab_unreclaimable), (0, 0));
        free(&mm, slab, order);
        assert_eq!(kinds(&mm), []);
    }
    assert_eq!(settle(&mm), before);
}
