//! What is shown on this machine beyond the cases that every machine runs: interrupts, single steps and
//! NMIs that allocate and map, CPUs that come and go under load, collections, page tables, high memory that
//! is out of reach, and that every frame of the loader's map is accounted for.

mod collections;
mod contract;
mod cpus;
mod frames;
mod highmem;
mod nmis;
mod ring;
mod steps;
mod ticks;

use core::fmt::Write;

use cases::{Case, Facts, Failure, warm_up};

use crate::machine::Machine;
use crate::serial::Serial;

/// All of them.
pub static ALL: &[Case<Machine>] = &[
    Case {
        name: "the machine keeps its contract with the manager",
        ids: &[],
        reports: 0,
        prepare: nothing,
        needs: anywhere,
        run: contract::kept,
    },
    Case {
        name: "a page that is mapped is seen by all CPUs, and by none when it is unmapped",
        ids: &[],
        reports: 0,
        prepare: nothing,
        needs: anywhere,
        run: contract::seen_by_all,
    },
    Case {
        name: "high memory is out of reach where the direct map would have it, and where it was mapped",
        ids: &["A010", "A272"],
        reports: 0,
        prepare: nothing,
        needs: highmem::there_is_some,
        run: highmem::out_of_reach,
    },
    Case {
        name: "an interrupt or NMI at every instruction of a mapping of high memory can map",
        ids: &["A269", "A273", "A275"],
        reports: 0,
        prepare: nothing,
        needs: highmem::there_is_some,
        run: highmem::at_every_instruction,
    },
    Case {
        name: "every frame of the loader's map is accounted for",
        ids: &["A004", "A012"],
        reports: 0,
        prepare: nothing,
        needs: anywhere,
        run: frames::accounted,
    },
    Case {
        name: "Vec, Box, BTreeMap and String live in kmalloc's memory, on all CPUs at once",
        ids: &[],
        reports: 0,
        prepare: warm_up,
        needs: anywhere,
        run: collections::live,
    },
    Case {
        name: "an interrupt at every instruction of an allocation or free can allocate",
        ids: &["A119", "A132", "A163"],
        reports: 0,
        prepare: warm_up,
        needs: anywhere,
        run: steps::at_every_instruction,
    },
    Case {
        name: "an NMI at any moment is served or refused, and never waits",
        ids: &["A119"],
        reports: 0,
        prepare: warm_up,
        needs: anywhere,
        run: nmis::under_load,
    },
    Case {
        name: "the timers' interrupts allocate with GFP_ATOMIC under load",
        ids: &["A119", "A132", "A163"],
        reports: 0,
        prepare: warm_up,
        needs: anywhere,
        run: ticks::under_load,
    },
    Case {
        name: "CPUs stop and start under load, and no page goes with them",
        ids: &["A086"],
        reports: 0,
        prepare: cpus::begin_anew,
        needs: two_cpus,
        run: cpus::come_and_go,
    },
];

/// Says what a check came to, for people.
fn note(text: core::fmt::Arguments<'_>) {
    let _ = writeln!(Serial, "  {text}");
}

fn nothing(_: &Machine) -> Result<(), Failure> {
    Ok(())
}

fn anywhere(_: &Facts) -> Result<(), &'static str> {
    Ok(())
}

fn two_cpus(facts: &Facts) -> Result<(), &'static str> {
    if facts.cpus > 1 { Ok(()) } else { Err("two CPUs") }
}
