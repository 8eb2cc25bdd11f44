//! Tasks: one at a time on a CPU, sleeping, waking, moving, and CPUs that come and go.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::Duration;

use kmem::platform::{Clock, Context, Cpus, Sleep, WakeReason};
use kmem::{CpuId, GFP_KERNEL, NodeId, NodeMask};
use kmem_host::{Description, HostError, Machine, Task};

const CPU0: CpuId = CpuId::BOOT;
/// Long enough that a wake which was lost is told from one that was slow.
const LONG: u64 = 120_000_000_000;

fn cpu(number: u32) -> CpuId {
    CpuId::new(number).unwrap()
}

fn boot(preset: &str) -> Arc<Machine> {
    Machine::boot(&Description::preset(preset).unwrap()).unwrap_or_else(|error| panic!("{error}"))
}

/// The text of a panic.
fn message(work: impl FnOnce() + Send) -> String {
    let result = std::thread::scope(|scope| scope.spawn(work).join());
    let payload = result.expect_err("it did not panic");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().expect("a text")).to_owned(),
    }
}

#[test]
fn tasks_of_one_cpu_never_run_at_once() {
    let machine = boot("tiny");
    let inside = Arc::new(AtomicUsize::new(0));
    let total = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..6)
        .map(|number| {
            let (machine, inside) = (Arc::clone(&machine), Arc::clone(&inside));
            let total = Arc::clone(&total);
            machine.clone().spawn(Some(cpu(1)), format!("task {number}"), move || {
                for round in 0..300 {
                    assert_eq!(inside.fetch_add(1, SeqCst), 0);
                    assert_eq!(machine.current(), Some(cpu(1)));
                    total.store(total.load(Relaxed) + 1, Relaxed);
                    inside.fetch_sub(1, SeqCst);
                    match round % 3 {
                        0 => machine.sleep(Duration::from_micros(1)),
                        _ => machine.yield_now(),
                    }
                }
            })
        })
        .collect();
    tasks.into_iter().for_each(Task::join);
    assert_eq!(total.load(Relaxed), 6 * 300);
    assert_eq!(machine.shutdown().running_tasks, 0);
}

#[test]
fn a_task_moves_to_another_cpu_and_back() {
    let machine = boot("tiny");
    let other = boot("tiny");
    assert_eq!(machine.current(), None);
    machine.run_on(CPU0, || {
        assert_eq!(machine.current(), Some(CPU0));
        machine.run_on(cpu(1), || {
            assert_eq!(machine.current(), Some(cpu(1)));
            machine.run_on(cpu(1), || assert_eq!(machine.current(), Some(cpu(1))));
        });
        assert_eq!(machine.current(), Some(CPU0));
        // A thread is a task of one machine at a time.
        other.run_on(CPU0, || assert_eq!((machine.current(), other.current()), (None, Some(CPU0))));
        assert_eq!(machine.current(), Some(CPU0));
        machine.without_cpu(|| assert_eq!(machine.current(), None));
    });
    assert_eq!(machine.current(), None);
}

#[test]
fn wakes_are_not_lost() {
    const ROUNDS: u64 = 5_000;
    let machine = boot("tiny");
    // Two players on each CPU, so that every turn is a sleep, a wake and a change of hands.
    let turn = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..4)
        .map(|me| {
            let (machine, turn) = (Arc::clone(&machine), Arc::clone(&turn));
            machine.clone().spawn(Some(cpu(me % 2)), format!("player {me}"), move || {
                let host = machine.host();
                let key = Arc::as_ptr(&turn) as usize;
                for round in 0..ROUNDS {
                    let mine = round * 4 + u64::from(me);
                    let ready = || turn.load(SeqCst) == mine;
                    while !ready() {
                        let reason = host.wait(key, &ready, LONG);
                        assert!(reason == WakeReason::Woken || ready(), "a wake was lost");
                    }
                    turn.store(mine + 1, SeqCst);
                    host.wake(key);
                }
            })
        })
        .collect();
    tasks.into_iter().for_each(Task::join);
    assert_eq!(turn.load(SeqCst), ROUNDS * 4);
}

#[test]
fn a_handler_wakes_a_task() {
    let machine = boot("tiny");
    let done = Arc::new(AtomicBool::new(false));
    let (sets, waits) = (Arc::clone(&done), Arc::clone(&done));
    let sleeper = Arc::clone(&machine);
    let task = machine.spawn(None, "sleeper", move || {
        while !waits.load(SeqCst) {
            sleeper.host().wait(7, &|| waits.load(SeqCst), LONG);
        }
    });
    let waker = Arc::clone(&machine);
    machine
        .interrupt(cpu(1), move || {
            sets.store(true, SeqCst);
            waker.host().wake(7);
        })
        .unwrap();
    task.join();
}

#[test]
fn a_wait_ends_when_its_time_is_over_and_at_once_in_atomic_context() {
    let machine = boot("tiny");
    let host = machine.host();
    machine.run_on(CPU0, || {
        let before = host.nanoseconds();
        assert_eq!(host.wait(1, &|| false, 1_000_000), WakeReason::TimedOut);
        assert!(host.nanoseconds() - before >= 1_000_000);
        let guard = machine.preempt_disable();
        assert!(host.in_atomic());
        assert_eq!(host.wait(1, &|| false, LONG), WakeReason::Woken);
        assert_eq!(machine.current(), Some(CPU0));
        drop(guard);
        assert!(!host.in_atomic());
    });
}

#[test]
fn a_task_may_join_one_that_needs_its_cpu() {
    let machine = boot("tiny");
    let inner = Arc::clone(&machine);
    let answer = machine.run_on(CPU0, || {
        let task = inner.spawn(Some(CPU0), "inner", || 42);
        task.join()
    });
    assert_eq!(answer, 42);
}

#[test]
fn a_task_that_panics_gives_its_cpu_back() {
    let machine = boot("tiny");
    let inner = Arc::clone(&machine);
    let text = message(|| {
        machine
            .spawn(Some(CPU0), "panics", move || {
                let _guard = inner.preempt_disable();
                let _ = inner.host().mask();
                panic!("on purpose");
            })
            .join()
    });
    assert_eq!(text, "on purpose");
    machine.run_on(CPU0, || assert!(!machine.host().in_atomic()));
    assert_eq!(machine.shutdown().running_tasks, 0);
}

#[test]
fn a_thread_without_a_cpu_is_told_so() {
    let machine = boot("tiny");
    let text = message(|| {
        let _ = machine.host().current();
    });
    assert!(text.contains("holds no cpu") && text.contains("run_on"), "{text}");
    // One that holds another machine's CPU has none of this one either.
    let other = boot("tiny");
    let text = message(|| {
        other.run_on(CPU0, || machine.host().current());
    });
    assert!(text.contains("holds no cpu"), "{text}");
    let text = message(|| machine.run_on(cpu(2), || ()));
    assert!(text.contains("no cpu 2") && text.contains("has 2"), "{text}");
    let text = message(|| {
        machine.run_on(CPU0, || {
            let _guard = machine.preempt_disable();
            machine.sleep(Duration::ZERO);
        });
    });
    assert!(text.contains("atomic context"), "{text}");
}

/// A086: a CPU that goes takes no page with it.
#[test]
fn a_cpu_goes_and_comes_back() {
    let machine = boot("tiny");
    let free = machine.mm().free_page_count();
    machine.run_on(cpu(1), || {
        for _ in 0..10 {
            drop(machine.mm().pages(GFP_KERNEL, 0).unwrap());
        }
    });
    machine.offline(cpu(1)).unwrap();
    assert_eq!(machine.online_cpus().collect::<Vec<_>>(), [CPU0]);
    assert_eq!(machine.mm().free_page_count(), free);
    assert_eq!(machine.mm().listed_pages(), 0);

    assert_eq!(machine.offline(cpu(1)), Err(HostError::Offline { cpu: cpu(1) }));
    assert_eq!(machine.offline(CPU0), Err(HostError::LastCpu { cpu: CPU0 }));
    assert_eq!(machine.offline(cpu(2)), Err(HostError::NoSuchCpu { cpu: cpu(2) }));

    // A task that is bound to it waits for it; one that is not goes elsewhere.
    let arrived = Arc::new(AtomicBool::new(false));
    let arrives = Arc::clone(&arrived);
    let bound = machine.spawn(Some(cpu(1)), "bound", move || arrives.store(true, SeqCst));
    let seen = Arc::clone(&machine);
    let free = machine.spawn(None, "free", move || seen.current());
    assert_eq!(free.join(), Some(CPU0));
    assert!(!arrived.load(SeqCst) && !bound.is_finished());
    machine.online(cpu(1)).unwrap();
    bound.join();
    assert!(machine.online(cpu(1)).is_err());
    machine.run_on(CPU0, || {
        assert_eq!(machine.offline(CPU0), Err(HostError::OwnCpu { cpu: CPU0 }));
    });
    assert!(machine.shutdown().is_clean());
}

#[test]
fn cpus_come_and_go_under_tasks_and_calls() {
    let machine = boot("numa2");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                machine.run(|| {
                    while !over.load(Relaxed) {
                        let order = 1;
                        drop(machine.mm().pages(GFP_KERNEL, order).unwrap());
                        machine.mm().drain_all_pages();
                        machine.yield_now();
                    }
                });
            });
        }
        for _ in 0..300 {
            machine.offline(cpu(1)).unwrap();
            machine.online(cpu(1)).unwrap();
        }
        over.store(true, Relaxed);
    });
    let end = machine.shutdown();
    assert!(end.is_clean() && end.misuse_count == 0, "{end}: {:?}", end.misuses);
}

#[test]
fn a_task_s_nodes_and_privileges_end_with_their_scope() {
    let machine = boot("numa2");
    let host = machine.host();
    machine.run_on(CPU0, || {
        let only = NodeMask::of(NodeId::ZERO);
        machine.with_allowed_nodes(only, || {
            assert_eq!(host.allowed_nodes(), only);
            // A handler is no task.
            let all = Arc::new(AtomicBool::new(false));
            let (seen, sets) = (Arc::clone(&machine), Arc::clone(&all));
            machine
                .interrupt(CPU0, move || {
                    sets.store(seen.host().allowed_nodes() == NodeMask::ALL, SeqCst);
                })
                .unwrap();
            assert!(all.load(SeqCst));
        });
        assert_eq!(host.allowed_nodes(), NodeMask::ALL);
        machine.with_memalloc(|| assert!(host.memalloc()));
        assert!(!host.memalloc());
    });
}
