//! Running part of a case somewhere else: on another CPU, in an interrupt handler.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, Ordering};

use kmem::CpuId;

use crate::{Failure, Machine};

/// Something that is said once, wherever, and read afterwards.
struct Answer<T> {
    state: AtomicU8,
    value: UnsafeCell<Option<T>>,
}

const OPEN: u8 = 0;
const WRITING: u8 = 1;
const GIVEN: u8 = 2;

// SAFETY: whoever wins the change from `OPEN` to `WRITING` writes the value, once; it is read by
// value, when nobody else has the answer any more.
unsafe impl<T: Send> Sync for Answer<T> {}

impl<T> Answer<T> {
    fn give(&self, value: T) {
        if self.state.compare_exchange(OPEN, WRITING, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            // SAFETY: this call alone made the change from `OPEN`.
            unsafe { *self.value.get() = Some(value) };
            // Release pairs with the Acquire in `ask`.
            self.state.store(GIVEN, Ordering::Release);
        }
    }
}

/// What `work` answers when `place` runs it.
#[track_caller]
fn ask<T: Send>(
    place: impl FnOnce(&(dyn Fn() + Sync)),
    work: impl Fn() -> Result<T, Failure> + Sync,
) -> Result<T, Failure> {
    const UNSAID: Failure = Failure::new("the machine runs what it is given, and waits for it");
    let answer = Answer { state: AtomicU8::new(OPEN), value: UnsafeCell::new(None) };
    place(&|| answer.give(work()));
    // Acquire pairs with the Release in `give`.
    if answer.state.load(Ordering::Acquire) != GIVEN {
        return Err(UNSAID);
    }
    answer.value.into_inner().unwrap_or(Err(UNSAID))
}

/// Runs `work` as a task on a CPU.
#[track_caller]
pub(crate) fn on_cpu<M: Machine, T: Send>(
    machine: &M,
    cpu: CpuId,
    work: impl Fn() -> Result<T, Failure> + Sync,
) -> Result<T, Failure> {
    ask(|work| machine.run_on(cpu, work), work)
}

/// Runs `work` as an interrupt handler on a CPU.
#[track_caller]
pub(crate) fn in_interrupt<M: Machine, T: Send>(
    machine: &M,
    cpu: CpuId,
    work: impl Fn() -> Result<T, Failure> + Sync,
) -> Result<T, Failure> {
    let mut raised = Ok(());
    let answer = ask(|work| raised = machine.interrupt(cpu, work), work);
    raised.and(answer)
}

/// Runs `work` in a task that must not sleep.
#[track_caller]
pub(crate) fn without_preemption<M: Machine, T: Send>(
    machine: &M,
    work: impl Fn() -> Result<T, Failure> + Sync,
) -> Result<T, Failure> {
    ask(|work| machine.without_preemption(work), work)
}

/// Runs `work` with the task's memory restricted to some nodes.
#[track_caller]
pub(crate) fn with_allowed_nodes<M: Machine, T: Send>(
    machine: &M,
    nodes: kmem::NodeMask,
    work: impl Fn() -> Result<T, Failure> + Sync,
) -> Result<T, Failure> {
    ask(|work| machine.with_allowed_nodes(nodes, work), work)
}

/// The last of the machine's CPUs: another one than the boot CPU where there are two.
pub(crate) fn last_cpu<M: Machine>(machine: &M) -> CpuId {
    CpuId::new(machine.facts().cpus.saturating_sub(1)).unwrap_or(CpuId::BOOT)
}
