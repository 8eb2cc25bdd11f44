//! Caches by name: in reports, and for whoever looks at them.

use std::sync::Arc;

use kmem::{CacheFlags, CacheId, CpuId, GFP_KERNEL};
use kmem_host::{Description, Machine};

fn boot() -> Arc<Machine<12>> {
    Machine::boot(&Description::preset("tiny").unwrap()).unwrap()
}

fn make(machine: &Machine<12>, name: &str) -> CacheId {
    machine.mm().kmem_cache_create(name, 100, 0, CacheFlags::DEBUG, None, None).unwrap()
}

/// The number in `cache 37 (dogs) at`.
fn number(report: &str, name: &str) -> u16 {
    let (before, _) = report.split_once(&format!(" ({name}) at 0x")).unwrap_or_else(|| {
        panic!("no cache {name}: {report}");
    });
    before.rsplit_once("cache ").unwrap().1.parse().unwrap()
}

/// A062, A195: a report names the cache as it was when the report was made, in the log too.
#[test]
fn a_report_has_the_name_that_the_cache_had_then() {
    let machine = boot();
    let mm = machine.mm();
    let numbers: Vec<u16> = ["dogs", "cats"]
        .iter()
        .map(|name| {
            machine.run_on(CpuId::BOOT, || {
                let cache = make(&machine, name);
                let object = mm.kmem_cache_alloc(cache, GFP_KERNEL).unwrap().as_ptr();
                // SAFETY: the object is the test's. The byte behind it is in its red zone; the second
                // free is reported and changes nothing. Nobody else knows the cache.
                unsafe {
                    object.add(100).write_volatile(0);
                    mm.kmem_cache_free(cache, object);
                    mm.kmem_cache_free(cache, object);
                    mm.kmem_cache_destroy(cache).unwrap();
                }
            });
            let (misuses, log) = (machine.misuses(), machine.take_log());
            let (overrun, double) = (&misuses[misuses.len() - 2], &misuses[misuses.len() - 1]);
            assert!(overrun.starts_with("memory was overwritten: "), "{overrun}");
            assert!(double.starts_with("double free: "), "{double}");
            assert_eq!(number(overrun, name), number(double, name));
            for report in [overrun, double] {
                assert!(log.contains(&format!("error: {report}")), "{log:?}");
            }
            number(double, name)
        })
        .collect();
    // The second one is where the first was.
    assert_eq!(numbers[0], numbers[1]);
    assert!(machine.misuses()[0].contains(" (dogs) "));
}

/// A handle that is out of date says nothing of the cache that has its number now.
#[test]
fn a_cache_that_is_gone_has_no_name() {
    let machine = boot();
    let mm = machine.mm();
    machine.run_on(CpuId::BOOT, || {
        let gone = make(&machine, "dogs");
        // SAFETY: nobody uses it.
        unsafe { mm.kmem_cache_destroy(gone) }.unwrap();
        let cats = make(&machine, "cats");
        assert!(mm.kmem_cache_alloc(gone, GFP_KERNEL).is_err());
        // SAFETY: nobody uses it.
        unsafe { mm.kmem_cache_destroy(cats) }.unwrap();
    });
    let report = machine.misuses().pop().unwrap();
    assert!(report.starts_with("use of a cache that has been destroyed: "), "{report}");
    assert!(!report.contains("dogs") && !report.contains("cats"), "{report}");
}

/// A190: a name leads to the cache that has it, and a number to its name, while it is there.
#[test]
fn caches_are_found_by_name_while_they_are_there() {
    let machine = boot();
    let mm = machine.mm();
    machine.run_on(CpuId::BOOT, || {
        // SAFETY: handles of others' caches are used to look at these alone.
        let find = |name: &str| unsafe { mm.find_cache(name) };
        assert_eq!(find("dogs"), None);
        let dogs = make(&machine, "dogs");
        assert_eq!(find("dogs"), Some(dogs));
        assert_eq!(find("dog"), None);
        let object = mm.kmem_cache_alloc(dogs, GFP_KERNEL).unwrap();
        assert!(mm.kmem_cache_validate(find("dogs").unwrap()).unwrap().objects > 0);
        // SAFETY: it is the test's.
        unsafe { mm.kmem_cache_free(dogs, object.as_ptr()) };
        assert!(mm.kmem_cache_shrink(find("dogs").unwrap()) > 0);
        // Numbers are the places that caches lie in, in the order of the list.
        for (number, info) in
            mm.caches().enumerate().filter(|(_, info)| info.name.as_str() != "dogs")
        {
            assert_eq!(mm.cache_name(number as u16), Some(info.name), "{number}");
            assert!(find(info.name.as_str()).is_some(), "{}", info.name);
        }
        let number = (0..u16::MAX)
            .find(|number| mm.cache_name(*number).is_some_and(|name| name.as_str() == "dogs"));
        let number = number.unwrap();
        assert_eq!(format!("{dogs:?}"), format!("cache {number}"));
        // SAFETY: nobody uses it.
        unsafe { mm.kmem_cache_destroy(dogs) }.unwrap();
        assert_eq!((find("dogs"), mm.cache_name(number)), (None, None));
    });
    assert!(machine.misuses().is_empty());
}
