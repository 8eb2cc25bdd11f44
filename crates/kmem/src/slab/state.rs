//! Where an object is.

use crate::CpuId;
use crate::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Where an object is, in one byte (A148, A207).
///
/// Whoever frees an object looks that it is *held* and writes the number of its CPU's magazines;
/// whoever takes one out of the CPU's magazine looks that the number is its own and writes *held*.
/// These two are plain loads and stores, by the CPU whose number it is. All else that becomes of an
/// object, to the depot, to its slab and out of them, is one compare-and-exchange for an object, in a
/// batch.
///
/// # Why that is enough
///
/// * A free that follows another sees that the object is not held: found at the call.
/// * Of two CPUs that free one object at one moment both may see *held*. Both put it into their
///   magazines; the byte has one value in the end, and the other's entry is dropped when it is taken
///   out, wherever to.
/// * A store may be late: the CPU was interrupted between its look and its store, and the object has
///   gone on to the depot or its slab. Then the byte says that this CPU has it, and who takes it out of
///   there finds that, since it exchanges what it knows to be there. Had it looked and then stored, the
///   late CPU could have handed the object out between the two.
/// * Taking out of a magazine may do that: if the store comes between look and store, the object is
///   being handed out here already, and the late free is one of an object that has been handed out
///   again, which nobody can tell from a right one.
///
/// All of this holds while the slab is there. An entry that is not good stays in its magazine until
/// that is drained, and a slab stays until all that may have one are (`leaving.rs`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(u8);

impl State {
    /// In its slab, free.
    pub(crate) const FREE: State = State(0);
    /// With a caller.
    pub(crate) const HELD: State = State(1);
    /// Free, in the depot.
    pub(crate) const DEPOT: State = State(2);
    /// Free, put aside until somebody takes the node's lock.
    pub(crate) const ASIDE: State = State(3);
    /// Of CPU 0; those of the others follow.
    const FIRST_CPU: u8 = 4;

    /// How many CPUs have a state of their own, and so magazines. Any further ones take from the depot
    /// and give to slabs.
    pub(crate) const CPUS: u32 = u8::MAX as u32 + 1 - Self::FIRST_CPU as u32;

    /// Free, in the magazine of a CPU; `None` for a CPU that has none.
    pub(crate) const fn of(cpu: CpuId) -> Option<State> {
        if cpu.get() < Self::CPUS { Some(State(Self::FIRST_CPU + cpu.get() as u8)) } else { None }
    }

    /// The CPU in whose magazine the object is.
    #[cfg(test)]
    pub(crate) fn cpu(self) -> Option<CpuId> {
        self.0.checked_sub(Self::FIRST_CPU).and_then(|cpu| CpuId::new(cpu.into()))
    }
}

/// The byte of one object.
#[repr(transparent)]
pub(crate) struct ObjectState(AtomicU8);

impl ObjectState {
    /// For the model checker.
    #[cfg(loom)]
    pub(crate) fn new(state: State) -> ObjectState {
        ObjectState(AtomicU8::new(state.0))
    }

    /// What it says. Relaxed, here and below: what an object holds is passed on by whatever passes
    /// on the object.
    #[inline]
    pub(crate) fn get(&self) -> State {
        State(self.0.load(Relaxed))
    }

    #[cfg(not(loom))]
    #[inline]
    pub(crate) fn set(&self, state: State) {
        self.0.store(state.0, Relaxed);
    }

    // The model checker may order a store before an exchange that did not see it, which no memory
    // model allows; an exchange whose result nobody looks at is as good.
    #[cfg(loom)]
    pub(crate) fn set(&self, state: State) {
        self.0.swap(state.0, Relaxed);
    }

    /// Changes one state to another, if it is that one; answers whether it was. A locked instruction.
    #[inline]
    pub(crate) fn change(&self, from: State, to: State) -> bool {
        self.0.compare_exchange(from.0, to.0, Relaxed, Relaxed).is_ok()
    }
}
