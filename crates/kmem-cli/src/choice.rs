//! The options that choose a machine.

use std::ffi::OsStr;
use std::path::Path;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use kmem_host::description::parse_size;
use kmem_host::{Description, DescriptionError};

use crate::exit::Exit;

/// Which machine, and what is different about it.
#[derive(Clone, clap::Args)]
pub struct Choice {
    /// A preset, as `kmem machines` lists them, or a machine file
    ///
    /// What has a `/` in it, or ends in `.toml`, is a file; so is what is no preset and is there.
    /// `kmem machines NAME` prints a file to begin with.
    #[arg(
        long,
        value_name = "NAME|FILE",
        default_value = "default",
        value_parser = MachineName,
        hide_possible_values = true
    )]
    pub machine: String,
    /// How much RAM in all, from 1M for each node to 16T: 512M, 4G
    ///
    /// In bytes, or with K, M, G or T for powers of 1024. Nodes share it as they did before, and holes
    /// stay where they are. Without it: as much as the machine has. The host gives 8 MiB for each GiB
    /// at once, the rest when it is used: 1T takes 8 GiB and half a minute to boot.
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    pub mem: Option<String>,
    /// How many CPUs, from 1 to 256
    #[arg(long, value_name = "N", value_parser = of_cpus, allow_negative_numbers = true)]
    pub cpus: Option<u32>,
    /// How many nodes, from 1 to 16; the RAM is divided among them
    #[arg(long, value_name = "N", value_parser = of_nodes, allow_negative_numbers = true)]
    pub nodes: Option<u32>,
    /// One more setting, such as largest_order=8; may be given again
    ///
    /// `kmem machines --keys` lists the keys, what each takes and its default. Settings come after
    /// --mem, --nodes and --cpus, in the order that they are given in.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Choice {
    /// The description that was asked for.
    pub fn describe(&self) -> Result<Description, Exit> {
        let mut description = find(&self.machine)?;
        if let Some(text) = &self.mem {
            let bytes = parse_size(text).ok_or_else(|| {
                Exit::BadInput(format!(
                    "--mem '{text}' is no size: give one up to 16T such as 512M or 4G"
                ))
            })?;
            description.mem(bytes).map_err(bad)?;
        }
        if let Some(nodes) = self.nodes {
            description.nodes(nodes).map_err(bad)?;
        }
        if let Some(cpus) = self.cpus {
            description.cpus(cpus).map_err(bad)?;
        }
        for setting in &self.set {
            description.set(setting).map_err(bad)?;
        }
        check(&description)?;
        Ok(description)
    }
}

/// The preset or the machine file with this name. A preset's comes first, so that a file of that name is written
/// `./tiny`.
pub fn find(name: &str) -> Result<Description, Exit> {
    let preset = Description::preset_names().any(|preset| preset == name);
    let looks_like_file = name.contains('/') || name.ends_with(".toml");
    let found = if !preset && (looks_like_file || Path::new(name).exists()) {
        Description::from_file(name)
    } else {
        Description::preset(name)
    };
    found.map_err(bad)
}

/// Whether what a machine has goes together.
pub fn check(machine: &Description) -> Result<(), Exit> {
    machine.check().map_err(bad)
}

/// What `--cpus` takes.
fn of_cpus(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "give a number of CPUs from 1 to 256")
}

/// What `--nodes` takes.
fn of_nodes(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "give a number of nodes from 1 to 16")
}

/// The name of a machine: any text, of which shells complete the presets.
#[derive(Clone)]
pub struct MachineName;

impl TypedValueParser for MachineName {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Description::preset_names().map(PossibleValue::new)))
    }
}

fn bad(error: DescriptionError) -> Exit {
    let mut innermost = &error;
    while let DescriptionError::At { error, .. } = innermost {
        innermost = error;
    }
    Exit::BadInput(match innermost {
        DescriptionError::NoSuchKey { .. } => {
            let told = error.to_string();
            // A question ends by itself.
            let and = if told.ends_with('?') { " " } else { "; " };
            let advice = "`kmem machines NAME` prints a machine file";
            format!("{told}{and}`kmem machines --keys` explains them, {advice}")
        }
        DescriptionError::Unreadable { .. } => {
            format!("{error}; `kmem machines NAME` prints one, `kmem machines` lists the presets")
        }
        DescriptionError::NoPreset { .. } => {
            format!("{error}; or give a machine file, such as ./my.toml")
        }
        _ => error.to_string(),
    })
}
