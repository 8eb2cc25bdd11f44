//! `kmem machines`: what can be booted.

use std::io::Write;

use kmem_host::Description;
use kmem_host::description::KeyHelp;
use serde_json::json;

use crate::choice::{self, MachineName};
use crate::console::{COMMAND, JsonRows, size};
use crate::exit::Exit;

/// List the machines that can be booted by name, show one, or explain what a machine is made of
///
/// Each preset has a line with its RAM, CPUs, nodes and zones, and one on what it is for. A machine file is
/// TOML: it says where RAM, the kernel and what firmware keeps lie, which nodes there are, and how the
/// memory manager is set up. All of its keys may be left out but `ram` of a `[[node]]`, and all can be changed
/// by --set.
#[derive(clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// Print this preset, or this machine file once it was checked, as a file that --machine takes
    #[arg(value_name = "NAME|FILE", value_parser = MachineName, hide_possible_values = true)]
    name: Option<String>,
    /// Explain the keys of machine files and of --set: what each is for, takes, and is by default
    #[arg(long, conflicts_with = "name")]
    keys: bool,
    /// Print one JSON document for programs instead: see `--help` for its form
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  kmem machines
  kmem machines --json
  kmem machines tiny > my.toml
  kmem machines my.toml                  # whether it makes sense, and what it comes to
  kmem boot --machine my.toml
  kmem machines --keys

JSON:
  An array of objects, each on a line of its own. Sizes are numbers of bytes.
  Of machines: name, memory, cpus, nodes, zones (an array of names), about.
  Of keys (--keys): name, about, takes, default (as it stands in a file; null: nothing).

Files:
  Machine files are TOML of at most 1 MiB. What is wrong in one is told with its place:
  my.toml:7:12 is line 7, column 12.

Exit status:
  0  it was printed
  1  it could not be printed
  2  there is no such machine or option";

pub fn run(args: &Args) -> Result<(), Exit> {
    let text = match (&args.name, args.keys) {
        (Some(name), _) => {
            let machine = choice::find(name)?;
            choice::check(&machine)?;
            machine.to_toml()
        }
        (None, true) if args.json => lines_of(Description::keys().map(|key| key_as_json(&key))),
        (None, true) => Description::keys().map(|key| explained(&key)).collect(),
        (None, false) if args.json => lines_of(Description::presets().map(|row| as_json(&row))),
        (None, false) => as_table(Description::presets()),
    };
    anstream::stdout().write_all(text.as_bytes()).map_err(Exit::not_printed)
}

fn lines_of(rows: impl Iterator<Item = serde_json::Value>) -> String {
    let mut document = JsonRows::new();
    let rows: String = rows.map(|row| document.row(&row)).collect();
    rows + document.end()
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
