//! What is shown on a PC besides the acceptance cases: what people type, how a run ends, and the kernel
//! of fifty lines. Each is a run of `cargo xtask pc`, or of QEMU, as a person would start it.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Input, Pc, TIMED_OUT, kernel_of_fifty_lines};
use crate::suites::Tally;
use crate::workspace::Workspace;

/// A run: what is typed or asked for, and what must come of it.
struct Run {
    name: &'static str,
    /// What follows `cargo xtask pc`.
    arguments: &'static [&'static str],
    /// What somebody types.
    typed: &'static str,
    status: u8,
    /// What is said, in this order.
    says: &'static [&'static str],
}

const fn run(name: &'static str, arguments: &'static [&'static str], status: u8) -> Run {
    Run { name, arguments, typed: "", status, says: &[] }
}

impl Run {
    const fn typed(self, typed: &'static str) -> Run {
        Run { typed, ..self }
    }

    const fn says(self, says: &'static [&'static str]) -> Run {
        Run { says, ..self }
    }
}

const RUNS: &[Run] = &[
    run(
        "a_module_a_million_operations_and_a_proc_file",
        &["--", "-c", "insmod scullp; stress 1000000; cat /proc/buddyinfo"],
        0,
    )
    .says(&[
        "1000000 operations on 4 CPUs",
        "free lists as before",
        "Node 0, zone",
        "Node 1, zone",
    ]),
    run("input_that_ends_ends_the_machine", &[], 0)
        .typed("echo first\necho second")
        .says(&["first", "second"]),
    run("a_line_of_a_pipe_that_fails_ends_the_machine", &[], 2)
        .typed("nonsense\ncrash panic\n")
        .says(&["no such command"]),
    run(
        "devices_hold_data_between_commands",
        &["-c", "insmod scull; echo kept > /dev/scull0; sleep 20; cat /dev/scull0"],
        0,
    )
    .says(&["kept"]),
    run("cpus_stop_and_start", &["-c", "cpu offline 3; cpu; stress 20000; cpu online 3; cpu"], 0)
        .says(&["CPU 2 runs", "on 3 CPUs", "CPU 3 runs, on node 1"]),
    run("wrong_frees_on_purpose_are_reported", &["-c", "wrong_free double; overrun behind"], 0)
        .says(&["double free"]),
    run(
        "help_is_about_a_machine_without_a_host",
        &["-c", "help cp; help; cp /etc/services /dev/null"],
        1,
    )
    .says(&[
        "e.g. cp /proc/slabinfo /dev/scullp0",
        "Files are in /dev, /proc and /sys.",
        "there is no host behind a PC",
    ]),
    run("what_fails_ends_with_1", &["-c", "cat /dev/scullp0; cpu"], 1).says(&["scullp"]),
    run("what_makes_no_sense_ends_with_2", &["-c", "nonsense"], 2).says(&["no such command"]),
    run("no_command_ends_with_2", &["-c", " "], 2),
    run("more_nodes_than_cpus_end_with_2", &["--cpus", "1", "--nodes", "2", "-c", "cpu"], 2),
    run("an_unknown_option_ends_with_2", &["--option", "colour=red", "-c", "cpu"], 2)
        .says(&["colour=red"]),
    run("no_room_for_the_kernel_ends_with_2", &["--hole", "2M-1G", "-c", "cpu"], 2)
        .says(&["a hole is where the kernel"]),
    run("too_little_memory_ends_with_2", &["--hole", "8M-1G", "-c", "cpu"], 2)
        .says(&["too little RAM"]),
    run("lost_memory_ends_with_3", &["-c", "leak 3"], 3).says(&["8 pages are lost"]),
    run(
        "cpus_of_a_node_without_ram_have_the_nearest_nodes",
        &["--cpus", "2", "--memory", "256", "--hole", "128M-1G", "-c", "stress 20000; slabtop"],
        0,
    )
    .says(&["free lists as before", "kmalloc"]),
    run("a_panic_ends_with_4", &["-c", "crash panic 1"], 4).says(&[
        "kernel panic:",
        "kmem_pc::commands::crash",
        "crash.rs:",
        "CPU 1",
    ]),
    run("a_page_fault_ends_with_5", &["-c", "crash page-fault"], 5).says(&[
        "page fault: a write to",
        "kmem_pc::commands::crash::write_to_device",
        "crash.rs:",
        "CPU 0",
        "the address",
    ]),
    run(
        "high_memory_is_not_where_the_direct_map_would_have_it",
        &["--option", "highmem=64M", "-c", "crash high-memory"],
        5,
    )
    .says(&[
        "page fault: a read of 0xffff8",
        "where nothing is mapped",
        "kmem_pc::commands::crash::read_high_memory",
        "behind the end of the direct map",
        "of zone HighMem",
    ]),
    run("no_room_for_zone_dma_ends_with_2", &["--option", "highmem=16M", "-c", "cpu"], 2)
        .says(&["highmem= leaves"]),
    run("a_write_to_code_ends_with_5", &["-c", "crash write-text"], 5).says(&["read-only"]),
    run("an_invalid_instruction_ends_with_5", &["-c", "crash invalid interrupt"], 5)
        .says(&["invalid instruction", "interrupt"]),
    run("a_wrong_free_ends_with_6", &["-c", "crash wrong-free"], 6).says(&[
        "double free",
        "crash.rs:",
        "CPU 0",
        "zone DMA32, node 0",
    ]),
    run(
        "a_task_that_overflows_is_ended_and_the_machine_goes_on",
        &["-c", "overflow stack; overflow area; overflow freed; stress 2000"],
        0,
    )
    .says(&[
        "kernel stack overflow",
        "of task 1 (overflow)",
        "touch of an address that nothing is mapped at",
        "free lists as before",
    ]),
    run("a_stack_overflow_where_no_task_can_be_ended_ends_with_7", &["-c", "crash stack 2"], 7)
        .says(&[
            "stack overflow",
            "kmem_pc::commands::crash::deeper",
            "CPU 2",
            "bytes below the kernel stack of task",
        ]),
    run("a_stack_overflow_of_a_handler_ends_with_7", &["-c", "crash stack interrupt"], 7).says(&[
        "stack overflow",
        "an interrupt handler",
        "bytes below the kernel stack of task 0 (interrupts)",
    ]),
    run("a_double_fault_ends_with_8", &["-c", "crash double-fault"], 8).says(&["double fault"]),
    run("what_hangs_ends_with_9", &["--", "--seconds", "5", "-c", "crash hang"], TIMED_OUT)
        .says(&["did not end within 5 s"]),
];

/// What a person types, who makes mistakes. The terminal is not there, so this is QEMU alone.
const NEWCOMER: Run = Run { status: FINE, ..run("a_newcomer_at_the_prompt", &[], 0) }
    .typed(
        "help\r\ninsmod scullp\r\necho held > /dev/scullp0\r\nnonsense\r\nfree_everything\r\n\
         cat /proc/slabinfo\r\ncat /proc/pagemap-text\r\ncat /dev/scullp0\r\n\
         sleep 1000\r\n\x03exit\r\n",
    )
    .says(&[
        "kmem> ",
        "insmod",
        "no such command",
        "slabinfo - version",
        "Each sign is a cell",
        "Node 0, zone",
        "kmem> cat /dev/scullp0",
        "held",
        "sleep: interrupted",
    ]);

const FIFTY: Run =
    Run { status: FINE, ..run("the_kernel_of_fifty_lines_has_pages_and_vec", &[], 0) }.says(&[
        "pages: 8 at",
        "Vec: 1000 squares",
        "Box: the last of them, 998001",
        "BTreeMap: 1000",
    ]);

/// What QEMU itself ends with where all went well.
const FINE: u8 = 33;

/// Runs all of them, and tells each.
pub fn check(ws: &Workspace) -> Result<Tally> {
    let program = std::env::current_exe().context("this program has a path")?;
    let mut tally = Tally::default();
    let mut tell = |name: &str, result: Result<()>| {
        match &result {
            Ok(()) => println!("pc {name} ... ok"),
            Err(error) => println!("pc {name} ... FAILED, {error:#}"),
        }
        tally.passed += usize::from(result.is_ok());
        tally.failed += usize::from(result.is_err());
    };
    for run in RUNS {
        let mut command = Command::new(&program);
        command.arg("pc").args(run.arguments);
        tell(run.name, judge(&mut command, run));
    }
    let pc = Pc { cpus: 4, nodes: 2, memory: 512, ..Pc::small() };
    let mut qemu = super::qemu(&super::kernel(ws)?, &pc, Input::None, "--");
    tell(NEWCOMER.name, judge(&mut qemu, &NEWCOMER));
    let mut qemu = super::qemu(&kernel_of_fifty_lines(ws)?, &Pc::small(), Input::None, "");
    tell(FIFTY.name, judge(&mut qemu, &FIFTY));
    Ok(tally)
}

/// Runs a command, and compares its status and what it says.
fn judge(command: &mut Command, run: &Run) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(run.typed.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let text = [&*output.stdout, &*output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if output.status.code() != Some(run.status.into()) {
        bail!("it ended with {} and not with {}:\n{text}", output.status, run.status);
    }
    let mut rest = &*text;
    for wanted in run.says {
        let Some((_, after)) = rest.split_once(wanted) else {
            bail!("it does not say `{wanted}` there:\n{text}");
        };
        rest = after;
    }
    Ok(())
}
