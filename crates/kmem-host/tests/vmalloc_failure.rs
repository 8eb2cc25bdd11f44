//! Every call of mapped memory with 0, 1, 2 ... pages left, until it succeeds; and as many mappings as a process may
//! have. A test at a time has them all.

use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard};

use kmem::platform::UserMap;
use kmem::{AllocError, CpuId, GFP_ATOMIC, GFP_KERNEL, Gfp, Mm, NoReclaim, Page, VirtAddr};
use kmem_host::{Description, Host, Machine};

const PAGE: usize = 4096;
const EVERYTHING: Gfp = GFP_ATOMIC.union(Gfp::MEMALLOC).union(Gfp::NOWARN);

type TestMm = Mm<Host<12>, NoReclaim>;

/// The mappings of a process are counted together.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Gives back what a call has got.
type Undo = Box<dyn FnOnce(&TestMm)>;

/// Does something that takes memory, given a few pages that the test has anyhow.
type Call = fn(&TestMm, &[Page]) -> Result<Undo, AllocError>;

fn area(memory: NonNull<u8>) -> Undo {
    let address = memory.as_ptr().expose_provenance();
    // SAFETY: it was allocated for this alone.
    Box::new(move |mm| unsafe { mm.kvfree(std::ptr::with_exposed_provenance(address)) })
}

/// The first of a user's addresses.
fn users(mm: &TestMm) -> VirtAddr {
    UserMap::range(mm.platform()).start
}

const CALLS: [(&str, Call); 9] = [
    ("vmalloc of a page", |mm, _| mm.vmalloc(1).map(area)),
    ("vmalloc of many", |mm, _| mm.vmalloc(37 * PAGE).map(area)),
    ("vzalloc", |mm, _| mm.vzalloc(5 * PAGE).map(area)),
    ("vmalloc_32", |mm, _| mm.vmalloc_32(9 * PAGE).map(area)),
    ("kvmalloc", |mm, _| mm.kvmalloc(11 * PAGE, GFP_KERNEL | Gfp::NOWARN).map(area)),
    ("kvzalloc", |mm, _| mm.kvzalloc(90_000, GFP_KERNEL | Gfp::NOWARN).map(area)),
    ("vmap", |mm, pages| {
        let memory = mm.vmap(pages)?.as_ptr().expose_provenance();
        // SAFETY: mapped for this alone.
        Ok(Box::new(move |mm| unsafe { mm.vunmap(std::ptr::with_exposed_provenance(memory)) }))
    }),
    ("vm_map_ram", |mm, pages| {
        let (memory, count) = (mm.vm_map_ram(pages)?.as_ptr().expose_provenance(), pages.len());
        // SAFETY: mapped for this alone.
        Ok(Box::new(move |mm| unsafe {
            mm.vm_unmap_ram(std::ptr::with_exposed_provenance(memory), count);
        }))
    }),
    ("remap_vmalloc_range", |mm, _| {
        let memory = mm.vmalloc(6 * PAGE)?;
        // SAFETY: the test is its own user.
        let mapped =
            unsafe { mm.remap_vmalloc_range(mm.platform(), users(mm), memory.as_ptr(), true) };
        area(memory)(mm);
        mapped.map(|count| -> Undo {
            Box::new(move |mm| {
                assert_eq!(mm.vm_remove_pages(mm.platform(), users(mm), count), count);
            })
        })
    }),
];

/// All that nobody uses given back; how many pages are free.
fn settled(mm: &TestMm) -> u64 {
    mm.vm_unmap_aliases();
    while mm.shrink_caches() > 0 {}
    mm.drain_all_pages();
    mm.verify().unwrap();
    mm.free_page_count()
}

fn take_all_but(mm: &TestMm, left: usize) -> Vec<Page> {
    let mut pages: Vec<Page> = std::iter::from_fn(|| mm.alloc_page(EVERYTHING).ok()).collect();
    for _ in 0..left.min(pages.len()) {
        // SAFETY: the test's own.
        unsafe { mm.__free_page(pages.pop().unwrap()) };
    }
    mm.drain_all_pages();
    pages
}

fn give_back(mm: &TestMm, pages: Vec<Page>) {
    for page in pages {
        // SAFETY: the test's own.
        unsafe { mm.__free_page(page) };
    }
}

#[test]
// A060, A162, A220, A224
fn wherever_memory_runs_out_a_call_fails_and_loses_nothing() {
    let _alone = alone();
    let mut description = Description::preset("tiny").unwrap();
    description.set("cpus=1").unwrap();
    // Without a reserve an ordinary request has what is left.
    description.set("min_free_kbytes=0").unwrap();
    let machine = Machine::<12>::boot(&description).unwrap();
    machine.run_on(CpuId::BOOT, || {
        let mm = machine.mm();
        for (name, call) in CALLS {
            let own: Vec<Page> = (0..7).map(|_| mm.alloc_page(GFP_KERNEL).unwrap()).collect();
            // Neighbours would be one run.
            let shown: Vec<Page> = own.iter().step_by(2).chain(&own[1..2]).copied().collect();
            // What a CPU keeps of the caches that the call uses is there before.
            call(mm, &shown).unwrap_or_else(|error| panic!("{name}: {error}"))(mm);
            let before = settled(mm);
            let mut failures = 0;
            for left in 0.. {
                let taken = take_all_but(mm, left);
                let done = call(mm, &shown);
                let succeeded = done.is_ok();
                match done {
                    Ok(undo) => undo(mm),
                    Err(AllocError::NoMemory { .. }) => failures += 1,
                    Err(error) => panic!("{name} with {left} pages: {error}"),
                }
                give_back(mm, taken);
                assert_eq!(settled(mm), before, "{name} with {left} pages");
                assert_eq!(mm.vmalloc_info().areas, 0, "{name} with {left} pages");
                if succeeded {
                    break;
                }
            }
            assert!(failures > 0, "{name} takes no memory");
            give_back(mm, own);
        }
    });
    assert_eq!(machine.misuse_count(), 0);
    assert!(machine.shutdown().is_clean());
}

#[test]
// A221: what a host allows is not reached: the process goes on.
fn as_many_mappings_as_a_process_may_have_are_refused_in_time() {
    let _alone = alone();
    let most: usize =
        std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    let mut description = Description::preset("tiny").unwrap();
    // A page is a mapping, and the gap behind it another.
    let pages = most.max(1 << 14) as u64;
    let bytes = (pages * PAGE as u64 + (32 << 20)).next_multiple_of(4 << 20);
    description.set(&format!("mapping_area={}", 4 * bytes)).unwrap();
    description.nodes[0].ram[0] = 0..2 * bytes;
    let machine = Machine::<12>::boot(&description).unwrap();
    machine.run_on(CpuId::BOOT, || {
        let mm = machine.mm();
        let mut held = Vec::new();
        let refused = loop {
            match mm.vmalloc(PAGE) {
                Ok(memory) => held.push(memory),
                Err(error) => break error,
            }
        };
        assert_eq!(refused, AllocError::TooManyMappings);
        assert!(refused.to_string().contains("free some"), "{refused}");
        assert!(held.len() > most / 4 && held.len() < most / 2, "{} of {most}", held.len());
        // The host's own mappings are not used up.
        let mapped = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        assert!(mapped < most - most / 8, "{mapped} of {most}");
        // A run is one mapping however large it is: but there is none.
        assert_eq!(mm.vmalloc(64 * PAGE), Err(AllocError::TooManyMappings));
        // SAFETY: the test's own.
        held.drain(..).for_each(|memory| unsafe { mm.vfree(memory.as_ptr()) });
        let memory = mm.vmalloc(64 * PAGE).unwrap();
        // SAFETY: the test's own.
        unsafe { mm.vfree(memory.as_ptr()) };
    });
    let shutdown = machine.shutdown();
    assert!(shutdown.is_clean(), "{shutdown}");
}
