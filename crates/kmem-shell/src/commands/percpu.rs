//! Per-CPU data by hand.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::ptr;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use kmem::{CpuId, GFP_KERNEL, Mm, PerCpu};

use super::{Command, exactly, print, usage};
use crate::{Count, Failure, Shell, Sink, System, go_on};

pub(super) const fn percpu<S: System>() -> Command<S> {
    Command {
        name: "percpu",
        usage: "percpu [NUMBER]",
        about: "have every CPU count to NUMBER, and interrupt handlers with it, without a lock\n\
                Each CPU has a counter of its own, in a line of the cache that no other CPU has. NUMBER\n\
                is 100000 if it is not given.",
        example: "percpu 1000000",
        run: run_percpu,
    }
}

/// A counter for each CPU, of a shell's machine.
type Counters<'m, S> = PerCpu<AtomicU64, &'m Mm<<S as System>::Platform, <S as System>::Reclaim>>;

/// Where the counters are, for work that the compiler cannot see the end of.
struct Place(*const ());

// SAFETY: the counters are for all CPUs; see `Place::of`.
unsafe impl Send for Place {}
// SAFETY: as above.
unsafe impl Sync for Place {}

impl Place {
    /// # Safety
    ///
    /// The counters stay until the place is used no more.
    unsafe fn of<S: System>(counters: &Counters<'_, S>) -> Arc<Self> {
        Arc::new(Place(ptr::from_ref(counters).cast()))
    }

    /// Counts one on this CPU.
    fn count<S: System>(&self, system: &S) {
        // SAFETY: the counters are still there, by the promise of `of`. They are of this machine.
        let counters = unsafe { &*self.0.cast::<Counters<'_, S>>() };
        system.mm().this_cpu_inc(counters);
    }
}

/// How often a task looks whether it is to stop.
const LOOK: u64 = 1 << 14;

fn run_percpu<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let rounds = match arguments {
        [] => 100_000,
        _ => {
            let [number] = exactly(&percpu::<S>(), arguments)?;
            number.parse::<u64>().map_err(|_| usage(&percpu::<S>()))?
        }
    };
    let (system, mm) = (shell.system, shell.system.mm());
    let counters: Counters<'_, S> =
        PerCpu::new_zeroed_in(GFP_KERNEL, mm).map_err(|error| format!("{error}"))?;
    // SAFETY: tasks and handlers have ended when `count` returns, and nobody else has it.
    let place = unsafe { Place::of::<S>(&counters) };
    let (tasks, handlers) = count(system, &place, rounds)?;
    go_on(system)?;
    let mut sum = 0;
    for (cpu, counter) in mm.per_cpu_each(&counters) {
        let (at, counted) = (ptr::from_ref(counter), counter.load(Relaxed));
        sum += counted;
        print(out, format_args!("cpu {cpu}: counted to {counted} at {at:p}\n"))?;
    }
    let handled = Count(handlers, "interrupt");
    print(out, format_args!("{sum} in all: {tasks} by tasks, and {handled}\n"))?;
    if sum != tasks + handlers {
        return Err(Failure::Failed(format!("{tasks} and {handlers} are not {sum}")));
    }
    Ok(())
}

/// Has tasks and handlers on all CPUs count; answers how many times both did.
fn count<S: System>(system: &S, place: &Arc<Place>, rounds: u64) -> Result<(u64, u64), Failure> {
    let (tasks, handlers) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (shared, handled) = (Arc::clone(place), Arc::clone(&handlers));
    let storm = system.interrupts(Arc::new(move |system: &S, _: CpuId| {
        shared.count(system);
        handled.fetch_add(1, Relaxed);
    }))?;
    let (shared, counted) = (Arc::clone(place), Arc::clone(&tasks));
    let done = system.on_each_cpu(Arc::new(move |system: &S, _: CpuId| {
        for round in 0..rounds {
            if round % LOOK == 0 && go_on(system).is_err() {
                counted.fetch_add(round, Relaxed);
                return;
            }
            shared.count(system);
        }
        counted.fetch_add(rounds, Relaxed);
    }));
    drop(storm);
    done?;
    Ok((tasks.load(Relaxed), handlers.load(Relaxed)))
}
