//! `cpu`: stops and starts CPUs.

use alloc::format;
use alloc::string::String;

use kmem::CpuId;
use kmem_shell::{Command, Failure, Shell, Sink};

use super::{print, usage};
use crate::machine::Machine;
use crate::smp;

pub(super) const COMMAND: Command<Machine> = Command {
    name: "cpu",
    usage: "cpu [offline|online NUMBER]",
    about: "list the CPUs, or stop or start one; what a CPU keeps goes back when it stops",
    example: "cpu offline 1",
    run,
};

fn run(
    shell: &mut Shell<'_, Machine>,
    words: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let [change, number] = words else {
        if !words.is_empty() {
            return Err(usage(&COMMAND));
        }
        for cpu in smp::online() {
            let node = shell.system().found().node_of(cpu);
            print(out, format_args!("CPU {} runs, on node {}\n", cpu.get(), node.get()))?;
        }
        return Ok(());
    };
    let cpu = number.parse().ok().and_then(CpuId::new).ok_or_else(|| usage(&COMMAND))?;
    let changed = match change.as_str() {
        "offline" => smp::stop(cpu),
        "online" => smp::resume(cpu),
        _ => return Err(usage(&COMMAND)),
    };
    changed.map_err(|error| Failure::Failed(format!("CPU {number}: {error}")))
}
