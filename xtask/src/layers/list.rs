//! docs/layers.txt.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

/// The order of kmem's modules, and who knows whom among the crates.
#[derive(Debug, Default)]
pub struct List {
    layers: Vec<String>,
    modules: HashMap<String, Module>,
    crates: HashMap<String, Crate>,
}

#[derive(Debug)]
struct Module {
    /// Its layer: an index into `layers`.
    place: usize,
    line: usize,
}

#[derive(Debug)]
struct Crate {
    /// The crates that it may depend on.
    known: Vec<String>,
    line: usize,
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
                let number = index + 1;
                list.entry(section, line, number).with_context(|| format!("line {number}"))?;
            }
        }
        Ok(list)
    }

    fn entry(&mut self, section: &str, text: &str, line: usize) -> Result<()> {
        let (name, rest) = text.split_once(':').context("not `name: names`")?;
        let names: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
        match section {
            "kmem" => {
                let place = self.layers.len();
                self.layers.push(name.to_owned());
                for module in names {
                    if let Some(twice) = self.modules.insert(module.clone(), Module { place, line })
                    {
                        bail!("{module} is in {} already", self.layers[twice.place]);
                    }
                }
            }
            "crates" => {
                let known = Crate { known: names, line };
                if self.crates.insert(name.to_owned(), known).is_some() {
                    bail!("{name} has a line already");
                }
            }
            other => bail!("`[{other}]` is no section: use [kmem] or [crates]"),
        }
        Ok(())
    }

    /// Where a module of kmem stands; higher numbers know lower ones.
    pub fn place(&self, module: &str) -> Option<usize> {
        self.modules.get(module).map(|module| module.place)
    }

    /// The layer's name at a place.
    pub fn layer(&self, place: usize) -> &str {
        &self.layers[place]
    }

    /// The crates that `name` may depend on; none where the crate is not in the list.
    pub fn known_to(&self, name: &str) -> Option<&[String]> {
        self.crates.get(name).map(|krate| &krate.known[..])
    }

    /// The modules that are listed and not among `there`, with their lines.
    pub fn absent_modules(&self, there: &[String]) -> Vec<(usize, &str)> {
        let listed = self.modules.iter().map(|(name, module)| (module.line, name.as_str()));
        absent(listed, |name| there.iter().any(|module| module == name))
    }

    /// The crates that are listed, at either side of a colon, and not among `there`, with their
    /// lines.
    pub fn absent_crates(&self, there: &[&str]) -> Vec<(usize, &str)> {
        let listed = self.crates.iter().flat_map(|(name, krate)| {
            let names = std::iter::once(name).chain(&krate.known);
            names.map(|name| (krate.line, name.as_str()))
        });
        absent(listed, |name| there.contains(&name))
    }
}

/// What is listed and not there, in the order of the lines.
fn absent<'l>(
    listed: impl Iterator<Item = (usize, &'l str)>,
    there: impl Fn(&str) -> bool,
) -> Vec<(usize, &'l str)> {
    let mut absent: Vec<_> = listed.filter(|(_, name)| !there(name)).collect();
    absent.sort_unstable();
    absent
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
    fn what_is_listed_and_not_there_is_found_with_its_line() {
        let list = List::parse("[kmem]\na: x y\nb: z\n[crates]\nscull: kmem old\nkmem:\n").unwrap();
        let there = ["y".to_owned()];
        assert_eq!(list.absent_modules(&there), [(2, "x"), (3, "z")]);
        assert_eq!(list.absent_crates(&["kmem"]), [(5, "old"), (5, "scull")]);
        assert_eq!(list.absent_crates(&["kmem", "old", "scull"]), []);
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
