//! docs/layers.txt.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

/// The order of kmem's modules, and who knows whom among the crates.
#[derive(Debug, Default)]
pub struct List {
    layers: Vec<String>,
    /// Where each module stands: an index into `layers`.
    modules: HashMap<String, usize>,
    crates: HashMap<String, Vec<String>>,
}

impl List {
    pub fn parse(text: &str) -> Result<Self> {
        let mut list = Self::default();
        let mut section = "";
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
            } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name;
            } else {
                list.entry(section, line).with_context(|| format!("line {}", index + 1))?;
            }
        }
        Ok(list)
    }

    fn entry(&mut self, section: &str, line: &str) -> Result<()> {
        let (name, rest) = line.split_once(':').context("not `name: names`")?;
        let names: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
        match section {
            "kmem" => {
                let place = self.layers.len();
                self.layers.push(name.to_owned());
                for module in names {
                    if let Some(twice) = self.modules.insert(module.clone(), place) {
                        bail!("{module} is in {} already", self.layers[twice]);
                    }
                }
            }
            "crates" => {
                if self.crates.insert(name.to_owned(), names).is_some() {
                    bail!("{name} has a line already");
                }
            }
            other => bail!("`[{other}]` is no section: use [kmem] or [crates]"),
        }
        Ok(())
    }

    /// Where a module of kmem stands; higher numbers know lower ones.
    pub fn place(&self, module: &str) -> Option<usize> {
        self.modules.get(module).copied()
    }

    /// The layer's name at a place.
    pub fn layer(&self, place: usize) -> &str {
        &self.layers[place]
    }

    /// The crates that `name` may depend on; none where the crate is not in the list.
    pub fn known_to(&self, name: &str) -> Option<&[String]> {
        self.crates.get(name).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_count_upwards_and_crates_name_what_they_know() {
        let text =
            "# why\n[kmem]\nwords: gfp addr # two\npage: page\n[crates]\nscull: kmem\nkmem:\n";
        let list = List::parse(text).unwrap();
        assert_eq!((list.place("gfp"), list.place("addr")), (Some(0), Some(0)));
        assert_eq!(list.place("page"), Some(1));
        assert_eq!(list.layer(1), "page");
        assert_eq!(list.place("mm"), None);
        assert_eq!(list.known_to("scull"), Some(&["kmem".to_owned()][..]));
        assert_eq!(list.known_to("kmem"), Some(&[][..]));
        assert_eq!(list.known_to("other"), None);
    }

    #[test]
    fn mistakes_are_refused_with_their_line() {
        for (text, line) in [
            ("[kmem]\na: x\nb: x", "line 3"),
            ("[crates]\na:\na:", "line 3"),
            ("[kmem]\nx", "line 2"),
            ("[other]\na: x", "line 2"),
        ] {
            assert_eq!(List::parse(text).unwrap_err().to_string(), line);
        }
    }
}
