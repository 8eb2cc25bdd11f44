//! CPUs that stop and start while the others allocate and free.

use alloc::vec::Vec;

use cases::{Failure, check, equal, warm_up};
use kmem::{CacheFlags, CacheId, CpuId, GFP_KERNEL};

use super::note;
use super::ring::{self, Place};
use crate::machine::Machine;
use crate::{MM, smp, task};

/// How often each CPU but the first stops.
const ROUNDS: u32 = 25;

/// All CPUs but the first.
fn others() -> Vec<CpuId> {
    smp::online().filter(|cpu| *cpu != CpuId::BOOT).collect()
}

/// Stops and starts all CPUs, so that they have nothing at hand, and then has them get what they keep: it
/// lies where it lay the last time that this was done.
pub(super) fn begin_anew(machine: &Machine) -> Result<(), Failure> {
    for cpu in others() {
        check(smp::stop(cpu).is_ok(), "a CPU can be stopped")?;
        check(smp::resume(cpu).is_ok(), "and it can be started again")?;
    }
    // SAFETY: this is the running CPU, and no handler allocates now.
    let gone = unsafe { MM.cpu_offline(CpuId::BOOT) };
    check(gone.is_ok(), "the first CPU can do without lists")?;
    while MM.shrink_caches() > 0 {}
    check(MM.cpu_online(CpuId::BOOT).is_ok(), "and have them again")?;
    warm_up(machine)
}

/// A cache of which a CPU has objects at hand.
fn used_by(cpu: CpuId) -> Result<CacheId, Failure> {
    let cache = MM.kmem_cache_create("away", 400, 0, CacheFlags::NONE, None, None);
    let cache = cache.map_err(|_| Failure::new("a cache can be made"))?;
    let ran = task::run_on(cpu.get(), &|| {
        let objects: Vec<_> =
            (0..20).filter_map(|_| MM.kmem_cache_alloc(cache, GFP_KERNEL).ok()).collect();
        for object in objects {
            // SAFETY: it was just allocated.
            unsafe { MM.kmem_cache_free(cache, object.as_ptr()) };
        }
    });
    check(ran.is_ok(), "there is a stack for a task")?;
    Ok(cache)
}

/// Stops a CPU while all others call it: a call is answered, or the caller is told that the CPU does not
/// run, and what was on its lists is drained by it or by whoever stops it.
fn stop_while_called(cpu: CpuId) -> Result<(), Failure> {
    let callers = smp::online().filter(|other| *other != cpu && *other != CpuId::BOOT);
    let mut stopped = Ok(());
    let called = task::while_others(callers, &|| MM.drain_all_pages(), || stopped = smp::stop(cpu));
    check(called.is_ok(), "there are stacks for tasks")?;
    check(stopped.is_ok(), "a CPU can be stopped while others call it")
}

pub(super) fn come_and_go(machine: &Machine) -> Result<(), Failure> {
    let others = others();
    // SAFETY: nobody is at a ring before this and after it.
    unsafe { ring::begin()? };
    for _ in 0..ROUNDS {
        for cpu in &others {
            // What it holds it holds while it is away.
            // SAFETY: a task, which does not leave its CPU here.
            let turns = || (0..200).for_each(|_| unsafe { ring::turn(Place::Task, GFP_KERNEL) });
            let ran = task::run_on(cpu.get(), &turns);
            check(ran.is_ok(), "there is a stack for a task")?;
            let cache = used_by(*cpu)?;
            stop_while_called(*cpu)?;
            // SAFETY: its objects are free, and nobody uses it.
            let destroyed = unsafe { MM.kmem_cache_destroy(cache) };
            check(destroyed.is_ok(), "a cache can go while a CPU that used it is away")?;
            check(!MM.is_online(*cpu), "a CPU that has stopped has no lists")?;
            check(smp::call_on(*cpu, &|| {}).is_err(), "it cannot be called")?;
            // SAFETY: as above.
            let done = unsafe { ring::load(turns) };
            done?;
            check(smp::resume(*cpu).is_ok(), "and it can be started again")?;
            check(MM.is_online(*cpu), "a CPU that has started has lists")?;
        }
        equal(smp::online().count() as u64, others.len() as u64 + 1, "all CPUs run")?;
    }
    // SAFETY: as above.
    let done = unsafe { ring::end()? };
    begin_anew(machine)?;
    note(format_args!("{} CPUs, {ROUNDS} times each, {} turns", others.len(), done.turns));
    Ok(())
}
