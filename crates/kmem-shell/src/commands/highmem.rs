//! High memory by hand.

use alloc::format;
use alloc::string::String;

use kmem::{GFP_KERNEL, Gfp, Mm, Page, Platform, Reclaim, VirtAddr};

use super::{Command, exactly, print};
use crate::{Failure, Shell, Sink, System};

pub(super) const fn kmap<S: System>() -> Command<S> {
    Command {
        name: "kmap",
        usage: "kmap",
        about: "allocate a page of high memory, map it, write, and read it at another address\n\
                A machine without high memory gives a page that has an address anyhow.",
        example: "kmap",
        run: run_kmap,
    }
}

fn run_kmap<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let [] = exactly(&kmap::<S>(), arguments)?;
    let mm = shell.system.mm();
    let page = mm.alloc_page(GFP_KERNEL | Gfp::HIGHMEM).map_err(|error| format!("{error}"))?;
    let done = round_trip(mm, page, out);
    // SAFETY: the page was just allocated, and is mapped nowhere any more.
    unsafe { mm.__free_page(page) };
    done
}

/// Writes to a page by one mapping, and reads it by another.
fn round_trip<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    page: Page,
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let zone = mm.page_zone(page).ok_or_else(|| format!("{} is in no zone", page.pfn()))?;
    let address = |address: Option<VirtAddr>| match address {
        Some(address) => format!("{address}"),
        None => "no address".into(),
    };
    let words = (1usize << P::PAGE_SHIFT) / size_of::<u64>();
    let word = |index: usize| page.pfn().number() << 20 ^ index as u64;
    let before = mm.page_address(page);
    print(out, format_args!("{:?}, zone {}: {}\n", page.pfn(), zone.name(), address(before)))?;
    let at = mm.kmap(page).map_err(|error| format!("{error}"))?;
    for index in 0..words {
        // SAFETY: the page is mapped there, and the caller's.
        unsafe { at.as_ptr::<u64>().add(index).write(word(index)) };
    }
    print(out, format_args!("kmap: {at}; written\n"))?;
    // SAFETY: mapped above, and not used any more by this address.
    unsafe { mm.kunmap(page) };
    let local = mm.kmap_local_page(page).map_err(|error| format!("{error}"))?;
    // SAFETY: the page is mapped there, and the caller's.
    let same =
        (0..words).all(|index| unsafe { local.as_ptr::<u64>().add(index).read() } == word(index));
    // SAFETY: mapped above, the latest of this CPU, and not used any more.
    unsafe { mm.kunmap_local(local) };
    print(out, format_args!("kmap_local_page: {local}; read\n"))?;
    if !same {
        return Err(Failure::Failed(
            "what was written by one address is not read by the other".into(),
        ));
    }
    print(out, format_args!("the same {} bytes by both\n", words * size_of::<u64>()))
}
