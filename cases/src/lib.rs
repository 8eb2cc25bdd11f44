//! The acceptance cases: one table of identifiers, name and function, for every machine.
//!
//! A case proves statements of `docs/acceptance.md` by an experiment on a booted machine. It knows
//! [`Machine`] and nothing else of where it runs, so one source proves a statement inside a process
//! and on the metal.
//!
//! ```text
//!   table() ──► Case ── needs(&Facts) ──► skipped, with the reason
//!                 └──── run(&machine) ──► passed, or failed with what was found and wanted
//! ```
//!
//! [`run`] is how a case is run: as a task of the boot CPU on a machine that has just booted. A case
//! leaves the machine as it found it, and [`run`] checks that: the free lists are the same, every
//! structure is sound, and there are as many reports of misuse as the case says that it provokes.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `machine.rs` | what a machine offers to cases |
//! | `failure.rs`, `run.rs`, `snapshot.rs` | how a case is judged |
//! | `hold.rs`, `objects.rs`, `elsewhere.rs`, `pressure.rs`, `text.rs` | what cases are written with |
//! | `nested.rs` | a machine inside the machine, for what happens before a manager has booted |
//! | `warm.rs` | what CPUs keep of kmalloc, taken before a case begins |
//! | `reclaimer.rs` | a reclaimer that frees what a case hands it |
//! | the others | the cases, a file a group of statements |
//!
//! Nothing here allocates from a heap: a machine on the metal has none before its manager works.

#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]

mod areas;
mod behaviour;
mod bootmem;
mod buddy;
mod caches;
mod calls;
mod contexts;
mod devices;
mod dma;
mod elsewhere;
mod failure;
mod files;
mod frees;
mod gfp;
mod highmem;
mod hold;
mod ioremap;
mod kmalloc;
mod machine;
mod modifiers;
mod nested;
mod numa;
mod objects;
mod pages;
mod pagesets;
mod percpu;
mod pressure;
mod reclaimer;
mod run;
mod slabs;
mod snapshot;
mod stacks;
mod text;
mod types;
mod users;
mod warm;
mod zones;

pub use failure::{Failure, at_least, check, equal};
pub use machine::{Facts, Machine};
pub use reclaimer::FreeOnDemand;
pub use run::{Outcome, run};
pub use snapshot::Snapshot;
pub use warm::warm_up;

/// One experiment, and the statements that it proves.
pub struct Case<M> {
    /// What is shown, as a sentence without its full stop.
    pub name: &'static str,
    /// The statements of `docs/acceptance.md` that it proves where it passes.
    pub ids: &'static [&'static str],
    /// How many reports of misuse it provokes. They are what it is about.
    pub reports: u64,
    /// What is done before the free lists are looked at: what CPUs keep for themselves of what the case
    /// uses is there when it begins.
    pub prepare: fn(&M) -> Result<(), Failure>,
    /// Whether it says anything on such a machine; if not, what it needs.
    pub needs: fn(&Facts) -> Result<(), &'static str>,
    /// The experiment. A task of the boot CPU runs it.
    pub run: fn(&M) -> Result<(), Failure>,
}

impl<M: Machine> Case<M> {
    const fn new(
        name: &'static str,
        ids: &'static [&'static str],
        needs: fn(&Facts) -> Result<(), &'static str>,
        run: fn(&M) -> Result<(), Failure>,
    ) -> Self {
        Case { name, ids, reports: 0, prepare: |_| Ok(()), needs, run }
    }

    const fn reports(mut self, reports: u64) -> Self {
        self.reports = reports;
        self
    }

    /// The case uses kmalloc.
    const fn objects(mut self) -> Self {
        self.prepare = warm_up;
        self
    }
}

/// All cases.
pub fn table<M: Machine + 'static>() -> impl Iterator<Item = &'static Case<M>> {
    let groups: [&'static [Case<M>]; _] = [
        pages::cases(),
        zones::cases(),
        calls::cases(),
        frees::cases(),
        buddy::cases(),
        pagesets::cases(),
        numa::cases(),
        gfp::cases(),
        modifiers::cases(),
        types::cases(),
        contexts::cases(),
        behaviour::cases(),
        kmalloc::cases(),
        slabs::cases(),
        caches::cases(),
        areas::cases(),
        highmem::cases(),
        percpu::cases(),
        devices::cases(),
        ioremap::cases(),
        dma::cases(),
        files::cases(),
        users::cases(),
        bootmem::cases(),
        stacks::cases(),
    ];
    groups.into_iter().flatten()
}
