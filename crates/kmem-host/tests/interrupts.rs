//! Interrupts: they arrive anywhere, are masked, wait, and none is lost.

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use kmem::platform::{Context, Cpus, CrossCall, NotCalled};
use kmem::{CpuId, GFP_ATOMIC, GFP_KERNEL};
use kmem_host::{Description, Machine, NotRaised};

const CPU0: CpuId = CpuId::BOOT;

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

fn boot(preset: &str) -> Arc<Machine> {
    Machine::boot(&Description::preset(preset).unwrap()).unwrap_or_else(|error| panic!("{error}"))
}

/// A counter that handlers keep and tests look at.
fn counter() -> (Arc<AtomicU64>, impl Fn() + Clone + Send + Sync + 'static) {
    let count = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&count);
    (count, move || {
        counts.fetch_add(1, SeqCst);
    })
}

/// Where the host has fewer processors than the test has threads, the one that sends would wait for
/// the end of a time slice before each interrupt.
fn let_the_sender_run() {
    std::thread::yield_now();
}

fn wait_for(mut condition: impl FnMut() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

#[test]
fn a_masked_interrupt_waits_and_runs_when_the_outermost_mask_ends() {
    let machine = boot("tiny");
    let host = machine.host();
    let (count, handler) = counter();
    machine.run_on(CPU0, || {
        let outer = host.mask();
        assert!(host.in_atomic());
        machine.interrupt(CPU0, handler.clone()).unwrap();
        machine.interrupt(CPU0, handler.clone()).unwrap();
        let inner = host.mask();
        host.restore(inner);
        assert_eq!(count.load(SeqCst), 0);
        host.restore(outer);
        assert_eq!(count.load(SeqCst), 2);
        assert!(!host.in_atomic());
        // Not masked: it runs at once, since a thread's signal to itself does.
        machine.interrupt(CPU0, handler.clone()).unwrap();
        assert_eq!(count.load(SeqCst), 3);
    });
}

#[test]
fn an_nmi_does_not_wait_for_the_mask() {
    let machine = boot("tiny");
    let host = machine.host();
    let (count, handler) = counter();
    let (masked, masked_handler) = counter();
    machine.run_on(CPU0, || {
        let saved = host.mask();
        machine.interrupt(CPU0, masked_handler).unwrap();
        let seen = Arc::clone(&machine);
        machine
            .nmi(CPU0, move || {
                let host = seen.host();
                assert!(host.in_nmi() && host.in_atomic());
                assert_eq!(host.current(), CPU0);
                // Masking and unmasking in an NMI lets no interrupt in.
                let saved = host.mask();
                host.restore(saved);
                handler();
            })
            .unwrap();
        assert_eq!((count.load(SeqCst), masked.load(SeqCst)), (1, 0));
        assert!(!host.in_nmi());
        host.restore(saved);
        assert_eq!((count.load(SeqCst), masked.load(SeqCst)), (1, 1));
    });
}

#[test]
fn an_interrupt_arrives_while_the_cpu_computes() {
    let machine = boot("tiny");
    let arrived = Arc::new(AtomicBool::new(false));
    let (sets, waits) = (Arc::clone(&arrived), Arc::clone(&arrived));
    let started = Arc::new(AtomicBool::new(false));
    let starts = Arc::clone(&started);
    let task = machine.spawn(Some(cpu(1)), "computes", move || {
        starts.store(true, SeqCst);
        while !waits.load(SeqCst) {
            std::hint::spin_loop();
        }
    });
    wait_for(|| started.load(SeqCst));
    let seen = Arc::clone(&machine);
    machine
        .interrupt(cpu(1), move || {
            assert_eq!(seen.host().current(), cpu(1));
            assert!(seen.host().in_atomic() && !seen.host().in_nmi());
            sets.store(true, SeqCst);
        })
        .unwrap();
    task.join();
}

#[test]
fn an_idle_cpu_s_interrupts_run_on_that_cpu() {
    let machine = boot("tiny");
    let (count, handler) = counter();
    let seen = Arc::clone(&machine);
    machine
        .interrupt(cpu(1), move || {
            assert_eq!(seen.current(), Some(cpu(1)));
            handler();
        })
        .unwrap();
    wait_for(|| count.load(SeqCst) == 1);
    let seen = Arc::clone(&machine);
    let (nmis, handler) = counter();
    machine
        .nmi(CPU0, move || {
            assert!(seen.host().in_nmi());
            assert_eq!(seen.current(), Some(CPU0));
            handler();
        })
        .unwrap();
    wait_for(|| nmis.load(SeqCst) == 1);
    assert_eq!(machine.current(), None);
}

#[test]
fn what_there_is_no_room_for_is_refused_and_the_rest_runs() {
    let machine = boot("tiny");
    let host = machine.host();
    let (count, handler) = counter();
    let line = machine.interrupt_line(handler);
    machine.run_on(CPU0, || {
        let saved = host.mask();
        let mut raised = 0;
        while line.raise(CPU0).is_ok() {
            raised += 1;
        }
        assert_eq!(line.raise(CPU0), Err(NotRaised::Full));
        assert_eq!((line.waiting(), count.load(SeqCst)), (raised, 0));
        host.restore(saved);
        assert_eq!((line.waiting(), count.load(SeqCst)), (0, raised as u64));
        assert_eq!(line.handled(), raised as u64);
    });
}

#[test]
fn interrupts_are_not_lost_while_a_cpu_changes_hands() {
    let machine = boot("tiny");
    let (_, handler) = counter();
    let line = machine.interrupt_line(handler);
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..3)
        .map(|number| {
            let (machine, over) = (Arc::clone(&machine), Arc::clone(&over));
            machine.clone().spawn(Some(cpu(1)), format!("task {number}"), move || {
                while !over.load(Relaxed) {
                    machine.yield_now();
                }
            })
        })
        .collect();
    let mut raised = 0;
    while raised < 20_000 {
        match line.raise(cpu(1)) {
            Ok(()) => raised += 1,
            Err(NotRaised::Full) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        // The last of a burst must run without another one after it.
        if raised % 3 == 0 {
            wait_for(|| line.waiting() == 0);
        }
    }
    wait_for(|| line.waiting() == 0);
    assert_eq!(line.handled(), raised);
    over.store(true, Relaxed);
    tasks.into_iter().for_each(kmem_host::Task::join);
}

#[test]
fn two_cpus_that_call_each_other_both_get_their_answer() {
    const ROUNDS: u64 = 10_000;
    let machine = boot("tiny");
    let ran = [const { AtomicU64::new(0) }; 2];
    std::thread::scope(|scope| {
        for me in 0..2 {
            let (machine, ran) = (&machine, &ran);
            scope.spawn(move || {
                machine.run_on(cpu(me), || {
                    let other = cpu(1 - me);
                    for round in 1..=ROUNDS {
                        let work = || {
                            assert_eq!(machine.host().current(), other);
                            ran[me as usize].fetch_add(1, Relaxed);
                        };
                        machine.host().call_on(other, &work).unwrap();
                        assert_eq!(ran[me as usize].load(Relaxed), round);
                    }
                });
            });
        }
    });
}

#[test]
fn a_call_to_itself_or_an_idle_cpu_runs_there_and_one_to_no_cpu_never() {
    let machine = boot("tiny");
    let host = machine.host();
    let count = AtomicU64::new(0);
    let work = |expected: CpuId| {
        let count = &count;
        move || {
            assert_eq!(host.current(), expected);
            assert!(host.in_atomic());
            count.fetch_add(1, SeqCst);
        }
    };
    machine.run_on(CPU0, || {
        assert_eq!(host.call_on(CPU0, &work(CPU0)), Ok(()));
        assert_eq!(host.call_on(cpu(1), &work(cpu(1))), Ok(()));
        assert_eq!(host.call_on(cpu(2), &work(cpu(2))), Err(NotCalled::NoSuchCpu));
        machine.offline(cpu(1)).unwrap();
        assert_eq!(host.call_on(cpu(1), &work(cpu(1))), Err(NotCalled::Offline));
        machine.online(cpu(1)).unwrap();
        assert_eq!(host.call_on(cpu(1), &work(cpu(1))), Ok(()));
    });
    // From a thread that is no task.
    assert_eq!(host.call_on(CPU0, &work(CPU0)), Ok(()));
    assert_eq!(count.load(SeqCst), 4);
}

/// A number that is only right if nobody interrupts a change of it.
struct Fragile(UnsafeCell<u64>);

// SAFETY: the test changes it on one CPU alone, with interrupts masked.
unsafe impl Sync for Fragile {}

impl Fragile {
    fn add(&self) {
        // SAFETY: as above; volatile, so that it is a load and a store with a gap in between.
        unsafe {
            let value = self.0.get().read_volatile();
            std::hint::spin_loop();
            self.0.get().write_volatile(value + 1);
        }
    }
}

/// A great many interrupts between arbitrary instructions of code that masks and unmasks
/// all the time.
#[test]
fn masked_sections_exclude_handlers_at_every_instruction() {
    const INTERRUPTS: u64 = 150_000;
    let machine = boot("tiny");
    let host = machine.host();
    let number = Arc::new(Fragile(UnsafeCell::new(0)));
    let changed = Arc::clone(&number);
    let line = machine.interrupt_line(move || changed.add());
    let over = AtomicBool::new(false);
    let mut added = 0;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut raised = 0;
            while raised < INTERRUPTS {
                line.raise(CPU0).unwrap();
                raised += 1;
                // Two that wait together arrive together: each is to come on its own.
                wait_for(|| line.waiting() == 0);
            }
            over.store(true, Relaxed);
        });
        machine.run_on(CPU0, || {
            while !over.load(Relaxed) {
                let saved = host.mask();
                number.add();
                host.restore(saved);
                added += 1;
                if added % 16 == 0 {
                    let_the_sender_run();
                }
            }
        });
        sender.join().unwrap();
    });
    wait_for(|| line.waiting() == 0);
    // SAFETY: nobody changes it any more.
    assert_eq!(unsafe { *number.0.get() }, INTERRUPTS + added);
}

/// A handler that allocates and frees while the CPU that it interrupts does the same: no deadlock,
/// and every page is back at the end.
#[test]
fn handlers_allocate_while_their_cpu_is_inside_the_allocator() {
    let machine = boot("default");
    let handler = {
        let machine = Arc::downgrade(&machine);
        let rounds = AtomicU64::new(0);
        move || {
            // An upgrade may end as the last owner and free; the test keeps one to its end.
            let Some(machine) = machine.upgrade() else { return };
            let order = (rounds.fetch_add(1, Relaxed) % 3) as u32;
            if let Ok(page) = machine.mm().alloc_pages(GFP_ATOMIC, order) {
                // SAFETY: the page was allocated above with this order.
                unsafe { machine.mm().__free_pages(page, order) };
            }
        }
    };
    let storm = machine.interrupt_storm(Duration::ZERO, handler);
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (machine, storm) = (&machine, &storm);
            scope.spawn(move || {
                machine.run_on(cpu(number), || {
                    let mut held = Vec::new();
                    while storm.handled() < 60_000 {
                        let_the_sender_run();
                        for order in [0, 0, 1, 0, 3, 0, 9, 0] {
                            if let Ok(page) = machine.mm().alloc_pages(GFP_KERNEL, order) {
                                held.push((page, order));
                            }
                        }
                        for (page, order) in held.drain(..) {
                            // SAFETY: the page was allocated above with this order.
                            unsafe { machine.mm().__free_pages(page, order) };
                        }
                    }
                });
            });
        }
    });
    drop(storm);
    let end = machine.shutdown();
    assert!(end.is_clean() && end.misuse_count == 0, "{end}: {:?}", end.misuses);
}

/// The same with NMIs, which no mask stops: the code that they interrupt may hold any lock.
#[test]
fn nmi_handlers_allocate_while_their_cpu_is_inside_the_allocator() {
    const NMIS: u64 = 30_000;
    let machine = boot("tiny");
    let handler = {
        let machine = Arc::downgrade(&machine);
        move || {
            let Some(machine) = machine.upgrade() else { return };
            assert!(machine.host().in_nmi());
            if let Ok(page) = machine.mm().alloc_pages(GFP_ATOMIC, 0) {
                // SAFETY: the page was allocated above with this order.
                unsafe { machine.mm().__free_pages(page, 0) };
            }
        }
    };
    let line = machine.interrupt_line(handler);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (machine, over) = (&machine, &over);
            scope.spawn(move || {
                machine.run_on(cpu(number), || {
                    while !over.load(Relaxed) {
                        let_the_sender_run();
                        for order in [0, 0, 4, 1] {
                            drop(machine.mm().pages(GFP_KERNEL, order));
                        }
                        machine.mm().drain_local_pages();
                    }
                });
            });
        }
        let mut raised = 0;
        while raised < NMIS {
            line.raise_nmi(cpu((raised % 2) as u32)).unwrap();
            raised += 1;
            wait_for(|| line.waiting() == 0);
        }
        over.store(true, Relaxed);
    });
    assert_eq!(line.handled(), NMIS);
    drop(line);
    let end = machine.shutdown();
    assert!(end.is_clean() && end.misuse_count == 0, "{end}: {:?}", end.misuses);
}

/// One handler raises another's line, on its own CPU and on the other.
#[test]
fn a_handler_raises_interrupts() {
    let machine = boot("tiny");
    let (count, handler) = counter();
    let inner = machine.interrupt_line(handler);
    std::thread::scope(|scope| {
        // A cross call's work is a handler that may borrow.
        for me in 0..2 {
            let (machine, inner) = (&machine, &inner);
            scope.spawn(move || {
                for _ in 0..500 {
                    let raise = || {
                        inner.raise(cpu(0)).unwrap();
                        inner.raise(cpu(1)).unwrap();
                    };
                    machine.host().call_on(cpu(me), &raise).unwrap();
                    wait_for(|| inner.waiting() == 0);
                }
            });
        }
    });
    assert_eq!(count.load(SeqCst), 2 * 500 * 2);
}

/// What a handler holds is given back once it has run, and a machine that only such a handler held
/// ends with it.
#[test]
fn a_single_interrupt_frees_what_it_held() {
    let machine = boot("tiny");
    let held = Arc::clone(&machine);
    machine.interrupt(cpu(1), move || assert!(held.current().is_some())).unwrap();
    let left = Arc::downgrade(&machine);
    drop(machine);
    wait_for(|| left.strong_count() == 0);
}
