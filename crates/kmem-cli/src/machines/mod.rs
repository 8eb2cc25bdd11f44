//! `kmem machines`: what can be booted.

use std::io::Write;

use kmem_host::Description;
use kmem_host::description::KeyHelp;
use serde_json::json;

use crate::console::{COMMAND, size};
use crate::exit::Exit;

/// List the machines that can be booted by name, show one, or explain what a machine is made of
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  kmem machines\n  kmem machines --json\n  \
                        kmem machines tiny > my.toml\n  kmem boot --machine my.toml\n  \
                        kmem machines --keys")]
pub struct Args {
    /// Print this machine as a file that --machine takes
    name: Option<String>,
    /// Explain the keys of machine files and of --set
    #[arg(long, conflicts_with = "name")]
    keys: bool,
    /// One JSON object a line
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

pub fn run(args: &Args) -> Result<(), Exit> {
    let text = match (&args.name, args.keys) {
        (Some(name), _) => {
            let machine = Description::preset(name);
            machine.map_err(|error| Exit::BadInput(error.to_string()))?.to_toml()
        }
        (None, true) if args.json => lines_of(Description::keys().map(|key| key_as_json(&key))),
        (None, true) => Description::keys().map(|key| explained(&key)).collect(),
        (None, false) if args.json => lines_of(Description::presets().map(|row| as_json(&row))),
        (None, false) => as_table(Description::presets()),
    };
    anstream::stdout().write_all(text.as_bytes()).map_err(Exit::not_printed)
}

fn lines_of(rows: impl Iterator<Item = serde_json::Value>) -> String {
    rows.map(|row| format!("{row}\n")).collect()
}

/// A key's lines: what it is for stands below its name.
fn explained(key: &KeyHelp) -> String {
    let KeyHelp { name, about, takes, default } = key;
    let default = default.as_deref().unwrap_or("none");
    format!("{COMMAND}{name}{COMMAND:#}\n    {about}\n    give {takes}\n    default: {default}\n")
}

fn key_as_json(key: &KeyHelp) -> serde_json::Value {
    let KeyHelp { name, about, takes, default } = key;
    json!({ "name": name, "about": about, "takes": takes, "default": default })
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
