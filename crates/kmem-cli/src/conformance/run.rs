//! One case on one machine.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cases::{Case, Outcome};
use kmem::CpuId;
use kmem_host::Description;

use super::stage::{Stage, facts};

/// Boots a machine, runs the case there, and answers the outcome's name and what is to be said of
/// it.
pub fn run<const SHIFT: u32>(
    case: &Case<Stage<SHIFT>>,
    description: &Description,
) -> (&'static str, String) {
    // Before booting: a machine for nothing is not booted.
    if let Err(needed) = (case.needs)(&facts(description)) {
        return ("skipped", needed.to_owned());
    }
    let stage = match Stage::<SHIFT>::boot(description) {
        Ok(stage) => stage,
        Err(error) => return ("failed", format!("the machine does not boot: {error}")),
    };
    let judged = catch_unwind(AssertUnwindSafe(|| {
        stage.machine.run_on(CpuId::BOOT, || cases::run(case, &stage))
    }));
    match judged {
        Ok(Outcome::Passed) => ("passed", String::new()),
        Ok(Outcome::Skipped(needed)) => ("skipped", needed.to_owned()),
        Ok(Outcome::Failed(failure)) => ("failed", failure.to_string()),
        Err(payload) => {
            let message = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| payload.downcast_ref::<&str>().copied());
            ("failed", format!("it panicked: {}", message.unwrap_or("without a message")))
        }
    }
}
