//! Objects of kmalloc's, by hand, and what the user holds of them and of caches.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use kmem::{CacheId, Mm, Owner, Platform, Reclaim, VirtAddr};

use super::pages::gfp;
use super::{Command, exactly, print, size, usage};
use crate::{Count, Failure, OnPurpose, Shell, Sink, System};

/// What the user of a shell holds of kmalloc and of caches, and the caches that were made.
///
/// # Invariants
///
/// What is in `memory` and in a cache's `objects` was handed out by the manager and is this value's
/// alone.
pub(crate) struct Objects {
    /// kmalloc's, by address: the size that was asked for, in bytes.
    memory: BTreeMap<usize, usize>,
    pub(super) caches: Vec<OwnCache>,
    /// Addresses that were held and are no more.
    freed: BTreeSet<usize>,
}

/// A cache that was made at the prompt.
pub(super) struct OwnCache {
    pub(super) name: String,
    pub(super) id: CacheId,
    /// The size of its objects in bytes, as it was asked for.
    pub(super) size: usize,
    /// Its objects that the user holds, by address.
    pub(super) objects: BTreeSet<usize>,
}

impl OwnCache {
    /// Gives an object back.
    pub(super) fn free<P: Platform, R: Reclaim>(&mut self, mm: &Mm<P, R>, address: usize) {
        if self.objects.remove(&address) {
            // SAFETY: by the invariant it is the user's alone, and it is off the list.
            unsafe { mm.kmem_cache_free(self.id, pointer(address)) };
        }
    }
}

pub(super) fn pointer(address: usize) -> *mut u8 {
    core::ptr::with_exposed_provenance_mut(address)
}

impl Objects {
    pub(crate) const fn new() -> Self {
        Objects { memory: BTreeMap::new(), caches: Vec::new(), freed: BTreeSet::new() }
    }

    /// The names of the caches that were made.
    pub(crate) fn cache_names(&self) -> impl Iterator<Item = &str> {
        self.caches.iter().map(|cache| cache.name.as_str())
    }

    /// Gives all back, and destroys the caches.
    ///
    /// # Errors
    ///
    /// A cache could not be destroyed.
    pub(crate) fn free_all<P: Platform, R: Reclaim>(
        &mut self,
        mm: &Mm<P, R>,
    ) -> Result<(), String> {
        for (address, _) in core::mem::take(&mut self.memory) {
            // SAFETY: by the invariant it is the user's alone, and it is off the list.
            unsafe { mm.kfree(pointer(address)) };
        }
        let mut failed = Ok(());
        for mut cache in core::mem::take(&mut self.caches) {
            while let Some(address) = cache.objects.first().copied() {
                cache.free(mm, address);
            }
            // SAFETY: nobody else knows the cache.
            if let Err(error) = unsafe { mm.kmem_cache_destroy(cache.id) } {
                failed = Err(format!("cache {}: {error}", cache.name));
            }
        }
        failed
    }

    /// Notes that an address is held no more.
    pub(super) fn forget(&mut self, address: usize) {
        self.freed.insert(address);
    }

    /// Notes that an address is held: by whom it was held before does not matter any more.
    pub(super) fn hold(&mut self, address: usize) {
        self.freed.remove(&address);
    }

    /// Whether the address lies in something that the user holds.
    fn is_held(&self, address: usize) -> bool {
        let within = |start: usize, size: usize| address - start < size;
        let before = self.memory.range(..=address).next_back();
        before.is_some_and(|(start, size)| within(*start, *size))
            || self.caches.iter().any(|cache| {
                let before = cache.objects.range(..=address).next_back();
                before.is_some_and(|start| within(*start, cache.size))
            })
    }
}

/// What comes of a free of something that the user does not hold as that.
///
/// `free` makes the call, where the manager is sure to refuse it: the address lies in what the user
/// holds, or where nobody holds anything. Elsewhere it might be somebody's, and the call would be
/// right.
pub(super) fn free_wrongly<S: System>(
    shell: &Shell<'_, S>,
    address: usize,
    free: impl FnOnce(&Mm<S::Platform, S::Reclaim>),
) -> Failure {
    let mm = shell.system.mm();
    let owner = mm.virt_to_page(VirtAddr::new(address)).map(|page| mm.owner(page.pfn()));
    let nobodys = match owner {
        None => true,
        Some(owner) => {
            matches!(owner, Owner::Free | Owner::FreeOnLists(_) | Owner::Hole | Owner::Metadata)
        }
    };
    if nobodys || shell.objects.is_held(address) {
        let on_purpose = OnPurpose::new(shell.system);
        free(mm);
        drop(on_purpose);
        let report = shell.system.last_misuse();
        return Failure::Failed(report.unwrap_or_else(|| "it was not reported".into()));
    }
    Failure::Failed(if shell.objects.freed.contains(&address) {
        format!("{address:#x} was freed already")
    } else {
        format!("nothing that was handed out here begins at {address:#x}")
    })
}

/// Reads an address, with or without `0x`.
pub(super) fn address(text: &str) -> Result<usize, Failure> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    usize::from_str_radix(digits, 16)
        .ok()
        .filter(|_| !digits.starts_with('+'))
        .ok_or_else(|| Failure::Usage(format!("'{text}' is no address: it has hexadecimal digits")))
}

pub(super) const fn kmalloc<S: System>() -> Command<S> {
    Command {
        name: "kmalloc",
        usage: "kmalloc SIZE FLAGS",
        about: "allocate SIZE bytes and hold them until kfree\n\
                Shows the address, and how many bytes the size class has (ksize).",
        example: "kmalloc 100 GFP_KERNEL",
        run: run_kmalloc,
    }
}

fn run_kmalloc<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let [asked, flags] = exactly(&kmalloc::<S>(), arguments)?;
    let (asked, gfp) = (size(asked)?, gfp(flags)?);
    let mm = shell.system.mm();
    let memory = mm.kmalloc(asked, gfp).map_err(|error| format!("{error}"))?;
    keep(shell, memory.as_ptr().expose_provenance(), asked, out)
}

/// Remembers memory that kmalloc handed out, and shows it.
fn keep<S: System>(
    shell: &mut Shell<'_, S>,
    address: usize,
    asked: usize,
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    shell.objects.hold(address);
    shell.objects.memory.insert(address, asked);
    let got = shell.system.mm().ksize(pointer(address));
    print(
        out,
        format_args!(
            "address {address:#x}: {} asked for, {got} got\n",
            Count(asked as u64, "byte")
        ),
    )
}

pub(super) const fn krealloc<S: System>() -> Command<S> {
    Command {
        name: "krealloc",
        usage: "krealloc ADDRESS SIZE [FLAGS]",
        about: "make memory of kmalloc's larger or smaller; it may move\n\
                0 bytes are refused: kfree gives memory back.",
        example: "krealloc 0x7f0000001000 4K",
        run: run_krealloc,
    }
}

fn run_krealloc<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let (address, asked, gfp) = match arguments {
        [old, asked] => (address(old)?, size(asked)?, kmem::GFP_KERNEL),
        [old, asked, flags] => (address(old)?, size(asked)?, gfp(flags)?),
        _ => return Err(usage(&krealloc::<S>())),
    };
    let mm = shell.system.mm();
    if !shell.objects.memory.contains_key(&address) {
        return Err(Failure::Failed(format!("kmalloc handed nothing out here at {address:#x}")));
    }
    if asked == 0 {
        let message = format!("memory of 0 bytes is none: `kfree {address:#x}` gives it back");
        return Err(Failure::Failed(message));
    }
    // SAFETY: by the invariant the memory is the user's alone; it is known by its new address below.
    let moved = unsafe { mm.krealloc(pointer(address), asked, gfp) };
    let moved = moved.map_err(|error| format!("{error}"))?.as_ptr().expose_provenance();
    shell.objects.memory.remove(&address);
    shell.objects.forget(address);
    keep(shell, moved, asked, out)
}

pub(super) const fn kfree<S: System>() -> Command<S> {
    Command {
        name: "kfree",
        usage: "kfree ADDRESS",
        about: "give back what kmalloc handed out at an address\n\
                What is no such address is reported by the manager, unless it may be somebody else's.",
        example: "kfree 0x7f0000001000",
        run: run_kfree,
    }
}

fn run_kfree<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    _: &mut dyn Sink,
) -> Result<(), Failure> {
    let [at] = exactly(&kfree::<S>(), arguments)?;
    let address = address(at)?;
    // SAFETY: where it was on the list, by the invariant it is the user's alone; null is no memory; and
    // anything else is refused.
    let free = |mm: &Mm<S::Platform, S::Reclaim>| unsafe { mm.kfree(pointer(address)) };
    if shell.objects.memory.remove(&address).is_some() {
        shell.objects.forget(address);
        free(shell.system.mm());
        return Ok(());
    }
    if address == 0 {
        free(shell.system.mm());
        return Ok(());
    }
    Err(free_wrongly(shell, address, free))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hexadecimal_and_have_no_units() {
        assert_eq!(address("0x1f"), Ok(31));
        assert_eq!(address("1f"), Ok(31));
        for wrong in ["", "0x", "+1", "0x+1", "-1", "10g", "11112222333344445"] {
            assert!(matches!(address(wrong), Err(Failure::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn what_is_held_is_known_to_its_last_byte() {
        let mut objects = Objects::new();
        objects.memory.insert(100, 10);
        let held: Vec<usize> = (90..120).filter(|address| objects.is_held(*address)).collect();
        assert_eq!(held, (100..110).collect::<Vec<_>>());
        assert!(!Objects::new().is_held(100));
    }
}
