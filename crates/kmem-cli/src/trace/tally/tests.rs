//! What short traces come to.

use super::super::line::Line;
use super::*;

/// The tally of events, each of which is told without what stands before its name.
fn tally(events: &[&str]) -> Tally {
    let mut tally = Tally::new(4096);
    for (number, event) in events.iter().enumerate() {
        let line = format!("            task-1       [000] .....     1.{number:06}: {event}");
        match Line::parse(&line) {
            Some(Line::Event(event)) => tally.add(&event),
            other => panic!("{other:?}: {line}"),
        }
    }
    tally
}

fn kmalloc(pointer: u64, asked: u64, got: u64, caller: &str) -> String {
    format!(
        "kmalloc: call_site={caller} ptr={pointer:016x} bytes_req={asked} bytes_alloc={got} \
         gfp_flags=GFP_KERNEL node=-1 accounted=false"
    )
}

fn kfree(pointer: u64) -> String {
    format!("kfree: call_site=f+0x0/0x0 ptr={pointer:016x}")
}

#[test]
fn allocations_and_frees_are_matched_by_address() {
    let (one, two) = (kmalloc(0x10, 40, 48, "one"), kmalloc(0x20, 100, 128, "two"));
    let of = tally(&[&one, &two, &kfree(0x10), &kfree(0x30), &kfree(0), &kmalloc(0, 9, 16, "one")]);
    let objects = of.layer(Layer::Objects);
    let total = Use { allocations: 2, bytes: 176, live: 1, live_bytes: 128 };
    let wanted = OfLayer {
        total,
        asked: 140,
        peak: 176,
        failed: 1,
        freed: 1,
        freed_unseen: 1,
        freed_null: 1,
        reused: 0,
    };
    assert_eq!(objects, wanted);
    assert_eq!((of.events["kmalloc"], of.events["kfree"]), (3, 3));
    let callers = of.callers();
    assert_eq!((callers[0].0, callers[0].2.live_bytes), ("two", 128));
    assert_eq!(
        (callers[1].0, callers[1].2),
        ("one", Use { allocations: 1, bytes: 48, ..Use::default() })
    );
    assert_eq!(of.layer(Layer::Pages), OfLayer::default());
}

/// Kernels have frees that no event tells of.
#[test]
fn an_allocation_where_something_is_live_ends_it() {
    let of = tally(&[&kmalloc(0x10, 40, 48, "one"), &kmalloc(0x10, 100, 128, "two"), &kfree(0x10)]);
    let objects = of.layer(Layer::Objects);
    assert_eq!((objects.reused, objects.freed, objects.total.live_bytes), (1, 1, 0));
    assert!(of.callers().iter().all(|(_, _, of)| of.live == 0 && of.allocations == 1));
}

#[test]
fn a_block_may_be_freed_in_parts_and_is_told_of_twice_where_many_are() {
    let page = |pfn: u64, order| format!("page=00000000000000{pfn:02x} pfn={pfn:#x} order={order}");
    let alloc = |pfn, order| {
        format!("mm_page_alloc: {} migratetype=0 gfp_flags=GFP_KERNEL", page(pfn, order))
    };
    let of = tally(&[
        &alloc(0x10, 2),
        &alloc(0x20, 0),
        &format!("mm_page_free: {}", page(0x10, 1)),
        &format!("mm_page_free: {}", page(0x20, 0)),
        &format!("mm_page_free_batched: {}", page(0x20, 0)),
        &format!("mm_page_free: {}", page(0x40, 3)),
        "mm_page_alloc: page=(null) pfn=0x0 order=4 migratetype=0 gfp_flags=GFP_KERNEL",
    ]);
    let pages = of.layer(Layer::Pages);
    assert_eq!((pages.total.allocations, pages.total.bytes), (2, 5 * 4096));
    assert_eq!((pages.total.live, pages.total.live_bytes, pages.peak), (2, 8192, 5 * 4096));
    assert_eq!((pages.freed, pages.freed_unseen, pages.failed), (2, 1, 1));
    let wanted = Use { allocations: 1, bytes: 16384, live: 2, live_bytes: 8192 };
    assert_eq!((of.orders[&2], of.orders[&0].live), (wanted, 0));
    assert_eq!(of.orders.len(), 2);
}

/// The address is decimal where an area is taken, and hexadecimal where it is given back.
#[test]
fn areas_and_per_cpu_data_are_matched_by_their_own_names() {
    let percpu = "base_addr=00007f0000001000 off=40 ptr=00007f0000001028";
    let of = tally(&[
        "alloc_vmap_area: va_start: 1048576 size=20480 align=1 vstart=0x1 vend=0x2 failed=0",
        "alloc_vmap_area: va_start: 0 size=20480 align=1 vstart=0x1 vend=0x2 failed=1",
        &format!(
            "percpu_alloc_percpu: call_site=f+0x0/0x0 reserved=0 is_atomic=0 size=8 align=8 {percpu} \
             bytes_alloc=32 gfp_flags=GFP_KERNEL"
        ),
        "percpu_alloc_percpu_fail: reserved=0 is_atomic=0 size=8 align=8",
    ]);
    let (areas, of_cpus) = (of.layer(Layer::Areas), of.layer(Layer::PerCpu));
    assert_eq!((areas.total.live_bytes, areas.failed), (20480, 1));
    assert_eq!((of_cpus.total.live_bytes, of_cpus.asked, of_cpus.failed), (32, 8, 1));
    let mut of = of;
    for event in [
        "free_vmap_area_noflush: va_start=0x100000 nr_lazy=5 nr_lazy_max=9".to_owned(),
        format!("percpu_free_percpu: {percpu}"),
    ] {
        let line = format!("  task-1 [000] .....     2.000000: {event}");
        let Some(Line::Event(event)) = Line::parse(&line) else { panic!("{line}") };
        of.add(&event);
    }
    assert_eq!((of.layer(Layer::Areas).total.live, of.layer(Layer::PerCpu).total.live), (0, 0));
}

#[test]
fn an_event_that_makes_no_sense_is_counted_and_changes_nothing() {
    let of = tally(&[
        "kmalloc: call_site=f+0x0/0x0 ptr=0000000000000010 bytes_req=many bytes_alloc=48",
        "kfree: call_site=f+0x0/0x0",
        "mm_page_alloc: page=0000000000000010 pfn=0x10 order=60 migratetype=0 gfp_flags=GFP_KERNEL",
        "mm_page_free: page=0000000000000010 pfn=0xffffffffffffffff order=3",
        "some_other_event: whatever",
    ]);
    assert_eq!((of.unreadable, of.events.len()), (4, 5));
    assert!(Layer::ALL.iter().all(|layer| of.layer(*layer) == OfLayer::default()));
}
