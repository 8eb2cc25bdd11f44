//! `conformance`: runs the acceptance cases.

use alloc::format;
use alloc::string::String;
use cases::Outcome;
use kmem_shell::{Command, Failure, OnPurpose, Shell, Sink};
use serde_json::json;

use super::print;
use crate::checks;
use crate::machine::Machine;

pub(super) const COMMAND: Command<Machine> = Command {
    name: "conformance",
    usage: "conformance [TEXT|ID]",
    about: "run the acceptance cases, or those with a text in their name or with an identifier\n\
            Writes a JSON object a line, such as those in the array of `kmem conformance --json`.",
    example: "conformance A062",
    run,
};

fn run(
    shell: &mut Shell<'_, Machine>,
    words: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let machine = shell.system();
    let name = cases::Machine::facts(machine).name;
    let wanted = words.join(" ");
    let _on_purpose = OnPurpose::new(machine);
    let (mut passed, mut skipped, mut failed) = (0, 0, 0);
    for case in cases::table::<Machine>().chain(checks::ALL) {
        if !case.name.contains(&wanted) && !case.ids.contains(&wanted.as_str()) {
            continue;
        }
        let (outcome, detail) = match cases::run(case, machine) {
            Outcome::Passed => {
                passed += 1;
                ("passed", String::new())
            }
            Outcome::Skipped(needed) => {
                skipped += 1;
                ("skipped", format!("needs {needed}"))
            }
            Outcome::Failed(failure) => {
                failed += 1;
                ("failed", format!("{failure}"))
            }
        };
        report(out, name, case.name, case.ids, outcome, &detail)?;
    }
    if passed + skipped + failed == 0 {
        return Err(Failure::Usage(format!("there is no case '{wanted}'")));
    }
    let summary = format!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        return Err(Failure::Failed(summary));
    }
    print(out, format_args!("{summary}\n"))
}

/// Writes what became of a case or a check.
pub(super) fn report(
    out: &mut dyn Sink,
    machine: &str,
    case: &str,
    ids: &[&str],
    outcome: &str,
    detail: &str,
) -> Result<(), Failure> {
    let line = json!({
        "machine": machine,
        "case": case,
        "ids": ids,
        "outcome": outcome,
        "detail": detail,
    });
    print(out, format_args!("{line}\n"))
}
