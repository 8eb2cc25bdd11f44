//! Running a case, and judging what it leaves behind.

use crate::failure::{check, equal};
use crate::{Case, Failure, Machine, Snapshot};

/// What became of a case on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It held, and the machine is as it was.
    Passed,
    /// It did not hold, or the machine is not as it was.
    Failed(Failure),
    /// It says nothing on such a machine: what it needs.
    Skipped(&'static str),
}

/// Runs a case on a machine that has just booted. Called by a task of the boot CPU.
pub fn run<M: Machine>(case: &Case<M>, machine: &M) -> Outcome {
    match (case.needs)(&machine.facts()) {
        Err(needed) => Outcome::Skipped(needed),
        Ok(()) => match judge(case, machine) {
            Ok(()) => Outcome::Passed,
            Err(failure) => Outcome::Failed(failure),
        },
    }
}

fn judge<M: Machine>(case: &Case<M>, machine: &M) -> Result<(), Failure> {
    (case.prepare)(machine)?;
    let before = Snapshot::take(machine);
    let reports = machine.misuses();
    (case.run)(machine)?;
    equal(
        machine.misuses() - reports,
        case.reports,
        "the case provokes so many reports of misuse",
    )?;
    before.same(&Snapshot::take(machine))?;
    check(machine.mm().verify().is_ok(), "every structure is sound afterwards")
}
