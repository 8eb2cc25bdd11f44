//! What lies at an address, in words.

use core::fmt;

use kmem::page::Block;
use kmem::platform::Platform;
use kmem::{Mm, Owner, Page, Pfn, Reclaim, VirtAddr};
use kmem_shell::Count;

use crate::heap::HEAP;
use crate::{MM, direct, paging, stack, temporary};

/// An address, to be written as what lies there. Takes no lock and allocates nothing: any context.
pub struct Place(pub usize);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.0;
        if address < PAGE {
            return f.write_str("in the first page, which is nobody's: a null pointer");
        }
        if let Some(part) = paging::part_of_image(address) {
            return write!(f, "in the image's {part}");
        }
        let seen = VirtAddr::new(address);
        // The heap's pages are reserved ones to the other manager.
        if let Some(page) = HEAP.virt_to_page(seen) {
            f.write_str("in the machine's heap: ")?;
            return describe(f, &HEAP, page);
        }
        if let Some(page) = MM.virt_to_page(seen) {
            return describe(f, &MM, page);
        }
        if let Some(touch) = stack::touched(address) {
            return touch.fmt(f);
        }
        match address {
            address if (paging::DEVICES..paging::HEAP_MAPPINGS.start).contains(&address) => {
                write!(f, "where devices are seen, physical {:#x}", address - paging::DEVICES)
            }
            address if paging::MAPPINGS.contains(&address) => {
                f.write_str("where the manager maps, and where nothing is mapped")
            }
            address if temporary::WINDOW.contains(&address) => {
                f.write_str("in a slot where a CPU sees high memory for a time")
            }
            direct::BASE..paging::DEVICES => {
                let physical = address - direct::BASE;
                // The managers' descriptors of what the direct map has were looked at above.
                match Pfn::new((physical / PAGE) as u64).and_then(|pfn| MM.pfn_to_page(pfn)) {
                    Some(page) => {
                        f.write_str("behind the end of the direct map, where it would have ")?;
                        describe(f, &MM, page)
                    }
                    None => write!(f, "in the direct map, physical {physical:#x}: no RAM"),
                }
            }
            _ => f.write_str("in no part of the address space that the kernel uses"),
        }
    }
}

const PAGE: usize = 4096;

/// Writes which page it is, and whose.
fn describe<P: Platform, R: Reclaim>(
    f: &mut fmt::Formatter<'_>,
    mm: &Mm<P, R>,
    page: Page,
) -> fmt::Result {
    let pfn = page.pfn();
    write!(f, "page {:#x}", pfn.number())?;
    if let Some(zone) = mm.page_zone(page) {
        write!(f, " of zone {}, node {}", zone.name(), zone.node().get())?;
    }
    let mut first = page;
    if let Some((head, Block::Free(order) | Block::Used(order) | Block::Compound(order))) =
        mm.memmap().and_then(|memmap| memmap.head(pfn))
    {
        write!(f, ", in the block of order {} at page {:#x}", order.get(), head.number())?;
        first = mm.pfn_to_page(head).unwrap_or(page);
    }
    match mm.owner(pfn) {
        Owner::Free => f.write_str(": free"),
        Owner::FreeOnLists(cpu) => write!(f, ": free, on the lists of CPU {}", cpu.get()),
        Owner::Kernel => write!(f, ": in use, {}", Count(mm.page_count(first).into(), "reference")),
        Owner::Slab => f.write_str(": a slab of objects"),
        Owner::Vmalloc => f.write_str(": an area of vmalloc"),
        Owner::Private => f.write_str(": in use, with its holder's own data"),
        Owner::PageCache { mapping, index } => {
            write!(f, ": page {index} of the page cache's mapping {mapping}")
        }
        Owner::User { mappings } => {
            write!(f, ": user memory, in {}", Count(mappings.into(), "page table"))
        }
        Owner::KernelImage => f.write_str(": the kernel's image"),
        Owner::Metadata => f.write_str(": the manager's own tables"),
        Owner::Late => f.write_str(": not usable yet"),
        Owner::Reserved => f.write_str(": reserved"),
        Owner::Hole => f.write_str(": no RAM"),
    }
}
