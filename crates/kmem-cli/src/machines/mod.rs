//! `kmem machines`: what can be booted.

use std::io::Write;

use kmem_host::Description;
use serde_json::json;

use crate::console::{COMMAND, size};
use crate::exit::Exit;

/// List the machines that can be booted by name
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  kmem machines\n  kmem machines --json\n  \
                        kmem boot --machine numa2")]
pub struct Args {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<(), Exit> {
    let rows = Description::presets();
    let text = if args.json {
        rows.map(|machine| format!("{}\n", as_json(&machine))).collect()
    } else {
        as_table(rows)
    };
    let written = anstream::stdout().write_all(text.as_bytes());
    written.map_err(|error| Exit::Failed(format!("cannot write to standard output: {error}")))
}

fn as_json(machine: &Description) -> serde_json::Value {
    json!({
        "name": machine.name,
        "memory": machine.ram_bytes(),
        "cpus": machine.cpus,
        "nodes": machine.nodes.len(),
        "zones": zones(machine),
        "about": machine.about,
    })
}

/// A table that fits a terminal of 100 columns: what a machine is for stands below its figures.
fn as_table(machines: impl Iterator<Item = Description>) -> String {
    let mut text = format!(
        "{COMMAND}{:<10} {:>10} {:>5} {:>6}  {}{COMMAND:#}\n",
        "NAME", "MEMORY", "CPUS", "NODES", "ZONES"
    );
    for machine in machines {
        let (memory, nodes) = (size(machine.ram_bytes()), machine.nodes.len());
        let Description { name, cpus, about, .. } = &machine;
        let zones = zones(&machine).join(" ");
        text += &format!("{name:<10} {memory:>10} {cpus:>5} {nodes:>6}  {zones}\n    {about}\n");
    }
    text
}

/// The zones that a machine's RAM falls into, lowest first.
fn zones(machine: &Description) -> Vec<&'static str> {
    let ram = machine.ram();
    let mut zones = Vec::new();
    let mut start = 0;
    for (name, end) in [
        ("DMA", machine.dma_limit),
        ("DMA32", machine.dma32_limit),
        ("Normal", Some(machine.direct_map_limit.unwrap_or(u64::MAX))),
        ("HighMem", Some(u64::MAX)),
    ] {
        let Some(end) = end.filter(|end| *end > start) else { continue };
        if ram.iter().any(|range| range.start < end && range.end > start) {
            zones.push(name);
        }
        start = end;
    }
    if machine.nodes.iter().any(|node| node.movable > 0) {
        zones.push("Movable");
    }
    zones
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_those_that_ram_falls_into() {
        let zones_of = |name| zones(&Description::preset(name).unwrap());
        assert_eq!(zones_of("tiny"), ["Normal"]);
        assert_eq!(zones_of("x86_64"), ["DMA", "DMA32", "Normal"]);
        assert_eq!(zones_of("lkd-i386"), ["DMA", "Normal", "HighMem"]);
    }
}
