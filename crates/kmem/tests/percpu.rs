//! Per-CPU data: allocated and static, on several CPUs, in interrupts, without memory, and wrong calls.

mod common;

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use common::{CPU, Machine, Point, Rig, Rng, Scope, as_cpu, lists};
use kmem::gfp::GfpError;
use kmem::platform::{Context, MisuseKind, There};
use kmem::*;

const MIB: u64 = 1 << 20;
const CPUS: u32 = 4;

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

/// Two nodes with 16 MiB each; CPUs 0 and 1 are of the first, 2 and 3 of the second. Three are online.
fn machine() -> Machine {
    let mm = Mm::new(Rig::new(32 << 20));
    let one = NodeId::new(1).unwrap();
    let map = MemoryMap::new().ram(0..16 * MIB, NodeId::ZERO).ram(16 * MIB..32 * MIB, one);
    let map = map.reserved(0..4096, "firmware");
    let setup = Setup::new().cpus(CPUS).cpu_node(cpu(2), one).cpu_node(cpu(3), one);
    // SAFETY: the RAM is this test's, for this manager alone.
    unsafe { mm.boot(&map, &setup) }.unwrap();
    (1..CPUS - 1).for_each(|number| mm.cpu_online(cpu(number)).unwrap());
    mm
}

fn kinds(mm: &Machine) -> Vec<MisuseKind> {
    mm.platform().take_reports().into_iter().map(|report| report.kind).collect()
}

/// All that nobody uses given back, what CPUs have of caches too.
#[track_caller]
fn settled(mm: &Machine) -> Vec<([u64; Order::COUNT], u64)> {
    let online: Vec<_> = mm.online_cpus().collect();
    for cpu in &online {
        // SAFETY: the test's one thread is all CPUs, and does nothing else.
        as_cpu(cpu.get(), || unsafe { mm.cpu_offline(*cpu) }).unwrap();
    }
    while mm.shrink_caches() > 0 {}
    mm.verify().unwrap();
    assert!(mm.is_percpu_consistent());
    let free = lists(mm);
    online.into_iter().for_each(|cpu| mm.cpu_online(cpu).unwrap());
    free
}

fn free<T>(mm: &Machine, object: *const T) {
    // SAFETY: the tests free what they hold, or mean the wrong call and look at no memory after it.
    unsafe { mm.free_percpu(object) }
}

/// The copy of a CPU, of what the test holds.
fn copy(mm: &Machine, object: NonNull<u8>, number: u32) -> NonNull<u8> {
    // SAFETY: the test holds it.
    unsafe { mm.per_cpu_ptr(object, cpu(number)) }.unwrap()
}

/// A287, A288, A290, A291: each object has a zeroed copy for each CPU, online or not, and nobody else
/// has any of it.
#[test]
fn objects_have_copies_that_are_theirs() {
    let mm = machine();
    let before = settled(&mm);
    let mut rng = Rng::new();
    // By the address of a copy of any CPU.
    let mut held: Vec<(NonNull<u8>, usize, u8)> = Vec::new();
    let mut most = 0;
    for step in 0..6000u32 {
        CPU.with(|own| own.number.set(step % 3));
        if rng.percent(if step / 1000 % 2 == 0 { 65 } else { 35 }) {
            let size = match rng.below(20) {
                0 => 1 + rng.below(4096),
                1..5 => 1 + rng.below(700),
                _ => 1 + rng.below(64),
            } as usize;
            let orders = if rng.percent(5) { 13 } else { 5 };
            let align = 1 << rng.below(orders);
            let object = mm.__alloc_percpu_gfp(size, align, rng.pick(&[GFP_KERNEL, GFP_ATOMIC]));
            let object = object.unwrap();
            for number in 0..CPUS {
                let at = copy(&mm, object, number);
                assert!(at.addr().get().is_multiple_of(align), "{size} {align} {at:p}");
                // SAFETY: so many bytes are the test's.
                let bytes = unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), size) };
                assert!(bytes.iter().all(|byte| *byte == 0), "{size} bytes are not zeroed");
                bytes.fill(step as u8 ^ number as u8);
                // On the node of the CPU.
                let page = mm.virt_to_page(VirtAddr::from_ptr(at.as_ptr())).unwrap();
                let node = mm.page_zone(page).unwrap().node();
                assert_eq!(node.get(), number / 2, "copy of cpu {number}");
                assert_eq!(mm.owner(page.pfn()), Owner::Kernel);
            }
            held.push((object, size, step as u8));
        } else if !held.is_empty() {
            let (object, size, stamp) = held.swap_remove(rng.below(held.len() as u64) as usize);
            for number in 0..CPUS {
                let at = copy(&mm, object, number);
                // SAFETY: so many bytes are the test's.
                let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr(), size) };
                let expected = stamp ^ number as u8;
                assert!(bytes.iter().all(|byte| *byte == expected), "somebody else has written");
            }
            free(&mm, object.as_ptr());
        }
        most = most.max(mm.percpu_counts().chunks);
        if step % 500 == 0 {
            assert!(mm.is_percpu_consistent());
            assert_eq!(mm.percpu_counts().objects, held.len() as u64);
        }
    }
    assert!(most > 3, "chunks came and went");
    held.into_iter().for_each(|(object, ..)| free(&mm, object.as_ptr()));
    assert!(mm.percpu_counts().chunks <= 1, "what is empty goes, but for one");
    assert_eq!(kinds(&mm), []);
    CPU.with(|own| own.number.set(0));
    assert_eq!(settled(&mm), before);
    assert_eq!(mm.percpu_counts(), PerCpuCounts::default());
}

/// A287
#[test]
fn what_cannot_be_is_an_error() {
    let mm = machine();
    let refused = |size, align| Err(AllocError::PerCpuLayout { size, align, largest: 4096 });
    for (size, align) in [(4097, 8), (usize::MAX, 1), (8, 8192), (8, 0), (8, 24)] {
        assert_eq!(mm.__alloc_percpu(size, align), refused(size, align));
    }
    assert_eq!(mm.__alloc_percpu(0, 8), Err(AllocError::ZeroSize));
    for flags in [Gfp::HIGHMEM, Gfp::DMA, Gfp::DMA32] {
        let refused = Err(AllocError::BadFlags(GfpError::NotForObjects(flags)));
        assert_eq!(mm.__alloc_percpu_gfp(8, 8, GFP_KERNEL | flags), refused);
    }
    let fresh: Machine = Mm::new(Rig::new(1 << 20));
    assert_eq!(fresh.__alloc_percpu(8, 8), Err(AllocError::NotBooted));
    free(&fresh, std::ptr::null::<u8>());
    assert_eq!(fresh.get_cpu().cpu(), CpuId::BOOT);
    assert_eq!(kinds(&mm), []);
    assert_eq!(mm.percpu_counts(), PerCpuCounts::default());
}

/// A288: every wrong free is found at the call, says what is there, and changes nothing.
#[test]
fn wrong_frees_are_found() {
    let mm = machine();
    let kept = mm.__alloc_percpu(40, 8).unwrap();
    let object = mm.__alloc_percpu(24, 8).unwrap();
    let last = mm.__alloc_percpu(600, 8).unwrap();
    let other = copy(&mm, kept, 2);
    let memory = mm.kmalloc(100, GFP_KERNEL).unwrap();
    let page = mm.__get_free_page(GFP_KERNEL).unwrap();
    let outside = 0u64;
    free(&mm, std::ptr::null::<u8>());
    free(&mm, object.as_ptr());
    let counts = mm.percpu_counts();
    let at = |pointer: *mut u8, offset: usize| pointer.wrapping_add(offset).cast_const();
    let there = |object: NonNull<u8>, cpu: CpuId, free| There::PerCpuData {
        object: VirtAddr::from_ptr(object.as_ptr()),
        cpu,
        free,
    };
    use MisuseKind::*;
    for (pointer, kind, found) in [
        (at(object.as_ptr(), 0), DoubleFree, Some(there(object, cpu(0), true))),
        (at(kept.as_ptr(), 1), InsideObject, Some(there(kept, cpu(0), false))),
        (at(kept.as_ptr(), 8), InsideObject, Some(there(kept, cpu(0), false))),
        (at(last.as_ptr(), 592), InsideObject, Some(there(last, cpu(0), false))),
        (at(other.as_ptr(), 0), NotFirstCopy, Some(there(kept, cpu(2), false))),
        (at(other.as_ptr(), 8), InsideObject, Some(there(kept, cpu(2), false))),
        (at(memory.as_ptr(), 0), NoObject, None),
        (page.as_ptr::<u8>().cast_const(), NoObject, None),
        ((&raw const outside).cast(), Foreign, Some(There::Nothing)),
    ] {
        free(&mm, pointer);
        let reports = mm.platform().take_reports();
        assert_eq!(reports.len(), 1, "{kind:?}");
        assert_eq!(reports[0].kind, kind, "{}", reports[0].line);
        assert!(found.is_none_or(|found| found == reports[0].there), "{}", reports[0].line);
        assert!(reports[0].line.contains("percpu.rs:"), "{}", reports[0].line);
        assert_eq!(mm.percpu_counts(), counts, "{kind:?}");
        assert!(mm.is_percpu_consistent());
    }
    // Not as something else either.
    let page_of = VirtAddr::new(kept.addr().get() & !4095);
    // SAFETY: the manager refuses both.
    unsafe {
        mm.free_pages(page_of, 0);
        mm.kfree(kept.as_ptr());
    }
    assert_eq!(kinds(&mm), [PerCpuPage, NoObject]);
    let page_of = mm.virt_to_page(page_of).unwrap();
    mm.set_page_private(page_of, Some(7));
    assert_eq!(kinds(&mm), [ManagersState]);
    // Copies that there are not.
    // SAFETY: the test holds it; or it is found out.
    unsafe {
        assert_eq!(mm.per_cpu_ptr(kept, cpu(CPUS)), None);
        assert_eq!(mm.per_cpu_ptr(other, cpu(0)), None);
        assert_eq!(mm.per_cpu_ptr(memory, cpu(0)), None);
        assert!(mm.get_cpu_ptr(memory).is_none());
    }
    assert!(!mm.platform().in_atomic(), "what is refused is not pinned");
    assert_eq!(kinds(&mm), [NoSuchCpu, NotFirstCopy, NoObject, NoObject]);
    for object in [kept, last] {
        free(&mm, object.as_ptr());
    }
    // The chunk has gone, and so has what the page was.
    mm.shrink_caches();
    assert_eq!(mm.percpu_counts().chunks, 0);
    free(&mm, kept.as_ptr());
    assert_eq!(kinds(&mm), [DoubleFree]);
    // SAFETY: the test's own.
    unsafe {
        mm.kfree(memory.as_ptr());
        mm.free_page(page);
    }
    assert_eq!(kinds(&mm), []);
}

/// A287, A288, A292: a million mixed operations on all CPUs; what one has goes to others.
#[test]
fn all_cpus_at_once() {
    const STEPS: u32 = 250_000;
    struct Held(NonNull<u64>, u64);
    // SAFETY: whoever has it has the object.
    unsafe impl Send for Held {}
    let mm = machine();
    mm.cpu_online(cpu(3)).unwrap();
    let before = settled(&mm);
    let exchange = Mutex::new(Vec::<Held>::new());
    let counter = PerCpuCounter::new_in(GFP_KERNEL, &mm).unwrap();
    let sizes = PerCpu::new_in(|_| CpuCell::new([0u64; 8]), GFP_KERNEL, &mm).unwrap();
    std::thread::scope(|scope| {
        for number in 0..CPUS {
            let (mm, exchange, counter, sizes) = (&mm, &exchange, &counter, &sizes);
            scope.spawn(move || {
                CPU.with(|own| own.number.set(number));
                let mut rng = Rng::new();
                let mut held: Vec<Held> = Vec::new();
                let free_one = |Held(object, stamp): Held| {
                    for number in 0..CPUS {
                        // SAFETY: it is held.
                        let at = unsafe { mm.per_cpu_ptr(object, cpu(number)) }.unwrap();
                        // SAFETY: as above.
                        assert_eq!(unsafe { at.read() }, stamp + u64::from(number));
                    }
                    free(mm, object.as_ptr());
                };
                for step in 0..STEPS {
                    match rng.below(8) {
                        0..3 if held.len() < 200 => {
                            let size = 8 + 8 * rng.below(16) as usize;
                            let object = mm.__alloc_percpu(size, 8).unwrap().cast::<u64>();
                            let stamp = u64::from(step) << 32 | u64::from(number) << 16;
                            for number in 0..CPUS {
                                // SAFETY: just allocated.
                                let at = unsafe { mm.per_cpu_ptr(object, cpu(number)) }.unwrap();
                                // SAFETY: as above.
                                unsafe { at.write(stamp + u64::from(number)) };
                            }
                            held.push(Held(object, stamp));
                        }
                        3 => exchange.lock().unwrap().extend(held.pop()),
                        4 => {
                            let other = exchange.lock().unwrap().pop();
                            other.into_iter().for_each(free_one);
                        }
                        5 => {
                            let own = mm.get_cpu_var(sizes);
                            own.borrow_mut().expect("nobody interrupts")[0] += 1;
                            counter.inc();
                        }
                        6 if step % 4096 == 0 => _ = mm.shrink_caches(),
                        _ => held.pop().into_iter().for_each(free_one),
                    }
                }
                held.into_iter().for_each(free_one);
                mm.drain_local_pages();
            });
        }
    });
    let rest = exchange.into_inner().unwrap();
    rest.into_iter().for_each(|Held(object, _)| free(&mm, object.as_ptr()));
    let mut sizes = sizes;
    let counted: u64 = sizes.iter_mut().map(|(_, cell)| cell.get_mut()[0]).sum();
    assert_eq!(counted as i64, counter.sum());
    drop((counter, sizes));
    assert_eq!(kinds(&mm), []);
    assert_eq!(settled(&mm), before);
}

/// A143, A287: wherever memory ends, a call fails, and leaves everything as it was.
#[test]
fn every_call_can_fail_anywhere() {
    const GFP: Gfp = GFP_ATOMIC.union(Gfp::MEMALLOC).union(Gfp::NOWARN);
    define_per_cpu! {
        static FIRST: AtomicU64 = AtomicU64::new(1);
        static SECOND: CpuCell<[u64; 500]> = CpuCell::new([2; 500]);
    }
    type Call = fn(&Machine) -> Result<(), AllocError>;
    let calls: [(&str, Call); 4] = [
        ("__alloc_percpu", |mm| {
            mm.__alloc_percpu_gfp(100, 8, GFP).map(|object| free(mm, object.as_ptr()))
        }),
        ("PerCpu", |mm| PerCpu::new_in(|_| AtomicU64::new(3), GFP, mm).map(drop)),
        ("PerCpuCounter", |mm| PerCpuCounter::new_in(GFP, mm).map(drop)),
        ("setup_per_cpu", |mm| {
            match mm.setup_per_cpu(&[&FIRST, &SECOND]) {
                // SAFETY: nobody uses them.
                Ok(()) => unsafe { mm.remove_per_cpu(&[&FIRST, &SECOND]) },
                Err(SetupPerCpuError::Alloc(error)) => return Err(error),
                Err(error) => panic!("{error}"),
            }
            Ok(())
        }),
    ];
    let mm = machine();
    let before = settled(&mm);
    for (name, call) in calls {
        let mut failures = 0;
        for left in 0.. {
            assert!(left < 200, "{name}: fails with {left} pages left");
            let mut taken = Vec::new();
            while let Ok(page) = mm.alloc_page(GFP) {
                taken.push(page);
            }
            for _ in 0..left {
                // SAFETY: the test's own.
                unsafe { mm.__free_page(taken.pop().unwrap()) };
            }
            let result = call(&mm);
            for page in taken {
                // SAFETY: the test's own.
                unsafe { mm.__free_page(page) };
            }
            assert_eq!(mm.percpu_counts().objects, 0, "{name}, {left} left");
            assert_eq!(settled(&mm), before, "{name}, {left} left");
            match result {
                Ok(()) => break,
                Err(AllocError::NoMemory { .. }) => failures += 1,
                Err(error) => panic!("{name} with {left} pages left: {error}"),
            }
        }
        assert!(failures > 0, "{name} never failed");
    }
    assert_eq!(kinds(&mm), []);
    assert_eq!(FIRST.image(), 1);
}

/// What the boot CPU's copy says.
trait Image {
    fn image(&self) -> u64;
}

impl Image for StaticPerCpu<AtomicU64> {
    fn image(&self) -> u64 {
        let mm: Machine = Mm::new(Rig::new(1 << 16));
        mm.get_cpu_var(self).load(Relaxed)
    }
}

/// A283, A286
#[test]
fn static_variables_have_copies_while_they_are_set_up() {
    static MADE: AtomicU32 = AtomicU32::new(0);
    struct Counted(AtomicU64);
    impl Drop for Counted {
        fn drop(&mut self) {
            MADE.fetch_sub(1, Relaxed);
        }
    }
    fn made() -> u64 {
        MADE.fetch_add(1, Relaxed);
        40
    }
    define_per_cpu! {
        static HITS: AtomicU64 = AtomicU64::new(5);
        static EMPTY: () = ();
        static WIDE: CpuCell<[u8; 3000]> = CpuCell::new([9; 3000]);
    }
    static DROPPED: StaticPerCpu<Counted> =
        StaticPerCpu::new(Counted(AtomicU64::new(40)), || Counted(AtomicU64::new(made())));
    let mm = machine();
    let before = settled(&mm);
    // Early: the boot CPU alone.
    mm.this_cpu_add(&HITS, 2);
    assert_eq!(kinds(&mm), []);
    as_cpu(1, || mm.this_cpu_read(&HITS));
    assert_eq!(kinds(&mm), [MisuseKind::NoCopy]);
    assert!(mm.get_cpu_var(&WIDE).borrow_mut().is_none(), "it may be another manager's");
    assert!(mm.per_cpu(&HITS, cpu(1)).is_none() && mm.per_cpu(&HITS, cpu(0)).is_some());

    let all: [&dyn PerCpuStatic; 4] = [&HITS, &EMPTY, &WIDE, &DROPPED];
    mm.setup_per_cpu(&all).unwrap();
    assert_eq!(mm.setup_per_cpu(&[&HITS]), Err(SetupPerCpuError::Again(0)));
    assert_eq!(MADE.load(Relaxed), CPUS - 1);
    let values: Vec<_> = mm.per_cpu_each(&HITS).map(|(_, copy)| copy.load(Relaxed)).collect();
    assert_eq!(values, [7, 5, 5, 5]);
    for number in 0..CPUS {
        as_cpu(number, || {
            assert_eq!(mm.this_cpu_add(&HITS, 10), if number == 0 { 7 } else { 5 });
            let own = mm.get_cpu_var(&WIDE);
            let mut value = own.borrow_mut().unwrap();
            assert_eq!(*value, [9; 3000]);
            value.fill(number as u8 + 9 * u8::from(number == 0));
            assert_eq!(mm.get_cpu_var(&DROPPED).0.load(Relaxed), 40);
        });
    }
    // Another manager's CPUs have none, whatever their numbers: a copy is lent to one CPU.
    let other = machine();
    as_cpu(1, || assert!(other.get_cpu_var(&WIDE).borrow_mut().is_none()));
    assert!(other.get_cpu_var(&WIDE).borrow_mut().is_none());
    assert_eq!(kinds(&other), [MisuseKind::NoCopy; 2]);
    // SAFETY: they are not set up there, which is found out.
    unsafe { other.remove_per_cpu(&[&HITS]) };
    assert_eq!(kinds(&other), [MisuseKind::NoCopy]);
    // A list with one twice: none of it is set up.
    define_per_cpu!(
        static TWICE: AtomicU32 = AtomicU32::new(0);
    );
    let again = mm.setup_per_cpu(&[&TWICE, &TWICE]);
    assert_eq!(again, Err(SetupPerCpuError::Again(1)));
    assert!(mm.setup_per_cpu(&[&TWICE]).is_ok());
    // SAFETY: nobody uses them any more.
    unsafe {
        mm.remove_per_cpu(&[&TWICE]);
        mm.remove_per_cpu(&all);
    }
    assert_eq!(MADE.load(Relaxed), 0, "each copy is dropped");
    assert_eq!(mm.get_cpu_var(&HITS).load(Relaxed), 17, "the boot cpu's value stays");
    assert_eq!(kinds(&mm), []);
    assert_eq!(settled(&mm), before);
}

/// A284, A292: a handler that comes in at any point of the calls finds a copy lent, or has it to itself;
/// what it adds to a counter is not lost.
#[test]
fn handlers_come_in_anywhere() {
    for scope in [Scope::Interrupt, Scope::Nmi] {
        for every in 0..5 {
            let mm: &'static Machine = Box::leak(Box::new(machine()));
            let counter = PerCpuCounter::new_in(GFP_KERNEL, mm).unwrap();
            let counter: &'static PerCpuCounter<_> = Box::leak(Box::new(counter));
            let cell = PerCpu::new_in(|_| CpuCell::new((0u64, 0u64)), GFP_KERNEL, mm).unwrap();
            let cell: &'static PerCpu<_, _> = Box::leak(Box::new(cell));
            let plain = PerCpu::<AtomicU64, _>::new_zeroed_in(GFP_KERNEL, mm).unwrap();
            let plain: &'static PerCpu<AtomicU64, _> = Box::leak(Box::new(plain));
            static HANDLED: AtomicU64 = AtomicU64::new(0);
            static LENT: AtomicU64 = AtomicU64::new(0);
            HANDLED.store(0, Relaxed);
            LENT.store(0, Relaxed);
            let handler = move |_: Point| {
                HANDLED.fetch_add(1, Relaxed);
                counter.add(1);
                mm.this_cpu_inc(plain);
                let own = mm.get_cpu_var(cell);
                match own.borrow_mut() {
                    Some(mut pair) => *pair = (pair.0 + 1, pair.1 + 1),
                    None => _ = LENT.fetch_add(1, Relaxed),
                }
                if scope == Scope::Interrupt
                    && let Ok(object) = mm.alloc_percpu_gfp::<[u64; 9]>(GFP_ATOMIC)
                {
                    free(mm, object.as_ptr());
                }
            };
            CPU.with(|own| own.arm_every(scope, None, every, handler));
            let mut objects = Vec::new();
            for _ in 0..2000u64 {
                counter.add(1);
                mm.this_cpu_inc(plain);
                let own = mm.get_cpu_var(cell);
                if let Some(mut pair) = own.borrow_mut() {
                    pair.0 += 1;
                    // A handler comes in here, too.
                    mm.platform().in_nmi();
                    pair.1 += 1;
                    assert_eq!(pair.0, pair.1, "a handler had the pair half-way");
                }
                drop(own);
                objects.push(mm.__alloc_percpu(24, 8).unwrap());
                if objects.len() > 5 {
                    free(mm, objects.swap_remove(2).as_ptr());
                }
            }
            CPU.with(|own| assert!(own.disarm()));
            let handled = HANDLED.load(Relaxed);
            assert!(handled > 1000 && LENT.load(Relaxed) > 0, "{handled}");
            assert_eq!(counter.sum() as u64, 2000 + handled, "an addition is lost");
            assert_eq!(mm.get_cpu_var(plain).load(Relaxed), 2000 + handled);
            let pair = *mm.get_cpu_var(cell).borrow_mut().unwrap();
            assert_eq!(pair, (2000 + handled - LENT.load(Relaxed), pair.0));
            objects.into_iter().for_each(|object| free(mm, object.as_ptr()));
            assert!(mm.is_percpu_consistent());
            assert_eq!(kinds(mm), []);
        }
    }
}

/// A292: an NMI handler may use per-CPU data, and neither allocate nor free it: it is told so.
#[test]
fn nmi_handlers_neither_allocate_nor_free() {
    let mm: &'static Machine = Box::leak(Box::new(machine()));
    let object = mm.alloc_percpu::<u64>().unwrap();
    let address = object.as_ptr().expose_provenance();
    let counts = mm.percpu_counts();
    CPU.with(|own| {
        own.arm_once(Scope::Nmi, Some(Point::Pin), 0, move |_| {
            let failed = mm.alloc_percpu_gfp::<u64>(GFP_ATOMIC);
            assert!(matches!(failed, Err(AllocError::NoMemory { .. })));
            free(mm, std::ptr::with_exposed_provenance::<u64>(address));
        });
    });
    drop(mm.get_cpu());
    assert_eq!(kinds(mm), [MisuseKind::InNmi; 2]);
    assert_eq!(mm.percpu_counts(), counts);
    free(mm, object.as_ptr());
    assert_eq!(kinds(mm), []);
}

/// A282, A292
#[test]
fn what_needs_a_place_and_what_may_sleep_is_told_apart() {
    let mm = machine();
    assert_eq!(mm.smp_processor_id(), CpuId::BOOT);
    let reports = mm.platform().take_reports();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].kind, reports[0].there), (MisuseKind::MayMove, There::TaskContext));
    let own = mm.get_cpu();
    assert_eq!(mm.smp_processor_id(), own.cpu());
    assert_eq!(mm.task().err(), Some(InAtomic));
    // Nested, and put in whatever order.
    let inner = mm.get_cpu();
    drop(own);
    assert!(mm.platform().in_atomic());
    mm.put_cpu(inner);
    assert!(!mm.platform().in_atomic());
    assert_eq!(kinds(&mm), []);
    let object = {
        let _own = mm.get_cpu();
        mm.alloc_percpu::<u64>().unwrap()
    };
    assert_eq!(kinds(&mm), [MisuseKind::SleepInAtomic]);
    free(&mm, object.as_ptr());
    let mut task = mm.task().unwrap();
    let object = task.alloc_percpu::<AtomicU64>().unwrap();
    let owned: PerCpu<AtomicU64, _> = PerCpu::new_zeroed_in(GFP_KERNEL, &mm).unwrap();
    let guard = task.get_cpu();
    guard.var(&owned).store(3, Relaxed);
    drop(guard);
    assert_eq!(task.get_cpu_var(&owned).load(Relaxed), 3);
    free(&mm, object.as_ptr());
    drop(owned);
    assert_eq!(kinds(&mm), []);
}

/// Chunks of what pages there are: sizes other than 4 KiB.
#[test]
fn pages_of_other_sizes() {
    fn on<const SHIFT: u32>() {
        let mm: Machine<NoReclaim, SHIFT> = Mm::new(Rig::new(64 << 20));
        let map = MemoryMap::new().ram(0..64 * MIB, NodeId::ZERO);
        let setup = Setup::new().cpus(3);
        // SAFETY: the RAM is this test's, for this manager alone.
        unsafe { mm.boot(&map, &setup) }.unwrap();
        let page = 1usize << SHIFT;
        let mut seen = HashMap::new();
        let sizes = [1, 8, 100, page / 2, page, 24, 8];
        for (number, size) in sizes.into_iter().enumerate() {
            let object = mm.__alloc_percpu(size, 8).unwrap();
            for cpu in (0..3).map(cpu) {
                // SAFETY: just allocated.
                let at = unsafe { mm.per_cpu_ptr(object, cpu) }.unwrap();
                // SAFETY: so many bytes are the test's.
                unsafe { at.write_bytes(number as u8 + 1, size) };
            }
            seen.insert(object, (size, number as u8 + 1));
        }
        assert_eq!(seen.len(), sizes.len());
        assert!(matches!(mm.__alloc_percpu(page + 1, 8), Err(AllocError::PerCpuLayout { .. })));
        for (object, (size, stamp)) in seen {
            // SAFETY: as above.
            let at = unsafe { mm.per_cpu_ptr(object, cpu(2)) }.unwrap();
            // SAFETY: as above.
            let bytes = unsafe { std::slice::from_raw_parts(at.as_ptr(), size) };
            assert!(bytes.iter().all(|byte| *byte == stamp));
            // SAFETY: the test's own.
            unsafe { mm.free_percpu(object.as_ptr()) };
        }
        assert!(mm.is_percpu_consistent());
        assert_eq!(mm.percpu_counts().objects, 0);
        assert_eq!(mm.platform().take_reports().len(), 0);
    }
    on::<12>();
    on::<14>();
    on::<16>();
}
