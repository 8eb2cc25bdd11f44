//! `cargo xtask pc`: builds the kernel of `kmem-pc` and boots it in QEMU.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::setup;
use crate::ui::{self, BadInput};
use crate::workspace::{Workspace, run, shown};

/// A machine, and what it runs.
#[derive(Args)]
pub struct Pc {
    /// Run these commands and end with their status; without them: a shell on the serial line.
    #[arg(short, value_name = "COMMANDS")]
    commands: Option<String>,
    /// How many CPUs there are.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    cpus: u32,
    /// How many nodes the CPUs and the memory are spread over.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    nodes: u32,
    /// How much memory there is, in MiB.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(64..=65536))]
    memory: u64,
    /// After how many seconds a run is given up at which nobody types.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

/// What QEMU's exit status says of the kernel's, which its exit device doubles and adds 1 to.
const STATUSES: &[(i32, u8, &str)] = &[
    (33, 0, ""),
    (35, 1, "a command failed"),
    (37, 2, "the input makes no sense"),
    (41, 4, "the kernel panicked"),
    (43, 5, "the processor met a fault"),
];

/// Builds the kernel and runs it; answers its exit status.
pub fn boot(ws: &Workspace, pc: &Pc) -> Result<ExitCode> {
    if pc.nodes > pc.cpus {
        let message = format!("{} nodes want as many CPUs: there are {}", pc.nodes, pc.cpus);
        return Err(BadInput(message).into());
    }
    setup::check_pc()?;
    let kernel = build(ws)?;
    let mut qemu = qemu(&kernel, pc);
    // A person may take as long as they like.
    let is_bounded = pc.commands.is_some() || !std::io::stdin().is_terminal();
    if pc.commands.is_some() {
        qemu.stdin(Stdio::null());
    }
    let mut child = qemu.spawn().with_context(|| format!("cannot start {}", shown(&qemu)))?;
    let begun = Instant::now();
    let bound = Duration::from_secs(pc.seconds);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if is_bounded && begun.elapsed() > bound {
            child.kill()?;
            child.wait()?;
            bail!("the machine did not end within {} s: it was switched off", pc.seconds);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let known = STATUSES.iter().find(|(code, ..)| status.code() == Some(*code));
    let Some((_, code, meaning)) = known else {
        bail!("QEMU ended with {status}, and the kernel did not end it");
    };
    if !meaning.is_empty() {
        ui::note(meaning);
    }
    Ok(ExitCode::from(*code))
}

/// Builds the kernel; answers where it is.
fn build(ws: &Workspace) -> Result<PathBuf> {
    let target = ws.target.join("pc");
    let mut build = ws.cargo(["build", "--quiet", "--release"]);
    build.current_dir(ws.root.join("kmem-pc")).env("CARGO_TARGET_DIR", &target);
    run(&mut build).context("the kernel does not build")?;
    Ok(target.join("release/kmem-pc"))
}

fn qemu(kernel: &std::path::Path, pc: &Pc) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    // Not KVM: what is measured and stepped through is the same everywhere.
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-nodefaults", "-no-reboot"]);
    qemu.args(["-display", "none", "-serial", "stdio"]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    qemu.arg("-smp").arg(format!("{0},sockets={0}", pc.cpus));
    qemu.arg("-m").arg(format!("{}M", pc.memory));
    for node in 0..pc.nodes {
        let share = |all: u64| all * u64::from(node) / u64::from(pc.nodes);
        let next = |all: u64| all * u64::from(node + 1) / u64::from(pc.nodes);
        let size = next(pc.memory) - share(pc.memory);
        let (first, last) = (share(pc.cpus.into()), next(pc.cpus.into()) - 1);
        qemu.arg("-object").arg(format!("memory-backend-ram,id=m{node},size={size}M"));
        qemu.arg("-numa").arg(format!("node,nodeid={node},memdev=m{node},cpus={first}-{last}"));
    }
    qemu.arg("-kernel").arg(kernel);
    qemu.arg("-append").arg(pc.commands.as_deref().unwrap_or(""));
    qemu
}
