//! The options that choose a machine.

use std::path::Path;

use kmem_host::description::parse_size;
use kmem_host::{Description, DescriptionError};

use crate::exit::Exit;

/// Which machine, and what is different about it.
#[derive(Clone, clap::Args)]
pub struct Choice {
    /// A preset, as `kmem machines` lists them, or a machine file in TOML
    #[arg(long, value_name = "NAME|FILE", default_value = "default")]
    pub machine: String,
    /// How much RAM: 512M, 4G
    #[arg(long, value_name = "SIZE")]
    pub mem: Option<String>,
    /// How many CPUs
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// How many nodes; the RAM is divided among them
    #[arg(long, value_name = "N")]
    pub nodes: Option<u32>,
    /// One more setting, such as largest_order=8; may be given again. `kmem machines --keys` lists
    /// the keys
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Choice {
    /// The description that was asked for.
    pub fn describe(&self) -> Result<Description, Exit> {
        let mut description = self.find().map_err(bad)?;
        if let Some(text) = &self.mem {
            let bytes = parse_size(text).ok_or_else(|| {
                Exit::BadInput(format!("--mem '{text}' is no size: give one such as 512M or 4G"))
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
        description.check().map_err(bad)?;
        Ok(description)
    }

    /// A preset's name comes first, so that a file of that name is written `./tiny`.
    fn find(&self) -> Result<Description, DescriptionError> {
        let name = self.machine.as_str();
        let preset = Description::preset_names().any(|preset| preset == name);
        let looks_like_file = name.contains('/') || name.ends_with(".toml");
        if !preset && (looks_like_file || Path::new(name).exists()) {
            Description::from_file(name)
        } else {
            Description::preset(name)
        }
    }
}

fn bad(error: DescriptionError) -> Exit {
    Exit::BadInput(match error {
        DescriptionError::NoSuchKey { .. } => {
            let advice = "`kmem machines NAME` prints a machine file";
            format!("{error}; `kmem machines --keys` explains them, {advice}")
        }
        _ => error.to_string(),
    })
}
