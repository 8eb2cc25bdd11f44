//! The texts' experiment: 4 MB from one device to another, through each kind of device (A309, A311).

use std::fmt;

use kmem::CacheInfo;
use kmem_shell::System;

use super::guide::Guide;
use crate::exit::Exit;

/// What two devices with a copy of the file each take.
pub struct Taken {
    /// The module as it was loaded.
    what: String,
    /// How often memory for a piece of the file was asked for.
    pub calls: u64,
    /// The pages that both devices take, with all that belongs to them.
    pub pages: u64,
    /// Those of them that are whole pieces of the file, and in no slab.
    pub whole: u64,
    /// The bytes that both hold.
    bytes: u64,
}

/// The heading of a table of [`Taken`].
pub const HEADING: &str = "                        calls     pages  bytes a page holds";

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Taken { what, calls, pages, bytes, .. } = self;
        write!(f, "{what:<20} {calls:>8}  {pages:>8}  {:>18}", bytes / pages.max(&1))
    }
}

/// The objects of a cache, in use by anybody.
fn in_use(guide: &Guide<'_>, is: impl Fn(&CacheInfo) -> bool) -> u64 {
    guide.machine.mm().caches().filter(is).map(|cache| cache.active).sum()
}

/// Copies `file`, of so many bytes, from one device of a module to another, and counts what it took.
/// `what` is how the module is loaded: its name, and perhaps a quantum.
pub fn copy(guide: &mut Guide<'_>, what: &str, file: &str, bytes: u64) -> Result<Taken, Exit> {
    let (module, quantum) = what.split_once(" quantum=").unwrap_or((what, "4000"));
    let quantum = quantum.parse().unwrap_or_default();
    let given = guide.machine.mm().kmalloc_size_roundup(quantum);
    let look = |guide: &Guide<'_>| {
        let pages = guide.lists().pages();
        let objects = match module {
            "scullc" => in_use(guide, |cache| cache.name.as_str() == "scullc"),
            _ => in_use(guide, |cache| {
                cache.size == given && cache.name.as_str().starts_with("kmalloc")
            }),
        };
        (pages, guide.slab_pages(), objects)
    };
    guide.command(&format!("insmod {what}"))?;
    let before = look(guide);
    guide.command(&format!("cp {file} /dev/{module}0"))?;
    guide.command(&format!("cp /dev/{module}0 /dev/{module}1"))?;
    guide.command(&format!("cmp /dev/{module}1 {file}"))?;
    let after = look(guide);
    guide.command(&format!("rmmod {module}"))?;
    let pages = before.0.saturating_sub(after.0);
    let whole = pages.saturating_sub(after.1.saturating_sub(before.1));
    let calls = if module == "scullp" { whole } else { after.2.saturating_sub(before.2) };
    Ok(Taken { what: what.into(), calls, pages, whole, bytes: 2 * bytes })
}
