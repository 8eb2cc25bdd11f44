//! `page`: what is known of one page.

use alloc::format;
use alloc::string::String;

use kmem::platform::DirectMap;
use kmem::{Page, Pfn, VirtAddr};

use super::{Command, exactly};
use crate::files::{known, parse_frame, write_page};
use crate::{Failure, Shell, Sink, System};

pub(super) const fn page<S: System>() -> Command<S> {
    Command {
        name: "page",
        usage: "page PFN|@ADDRESS",
        about: "show all that is known of one page: the text of /proc/pages/PFN\n\
                A frame's number as /proc/pageruns and alloc_pages show it, or behind an @ an address:\n\
                a physical one, as /proc/pagemap-text has it, or one of the kernel's own.",
        example: "page @0x100000",
        run: run_page,
    }
}

fn run_page<S: System>(
    shell: &mut Shell<'_, S>,
    arguments: &[String],
    out: &mut dyn Sink,
) -> Result<(), Failure> {
    let [which] = exactly(&page::<S>(), arguments)?;
    let system = shell.system;
    let pfn = match which.strip_prefix('@') {
        None => known(system, parse_frame(which).map_err(Failure::Usage)?)?,
        Some(address) => {
            let number = parse_frame(address).map_err(|_| {
                Failure::Usage(format!("'{address}' is no address: give one such as @0x100000"))
            })?;
            let page = at(system, number);
            let page = page.ok_or_else(|| {
                format!("there is no page at {number:#x}: neither RAM nor mapped to RAM")
            });
            page?.pfn()
        }
    };
    let mut text = String::new();
    write_page(system, pfn, &mut text).map_err(|_| String::from("the text could not be made"))?;
    Ok(out.write(text.as_bytes())?)
}

/// The page at an address: of RAM, of an area of vmalloc, or of the direct map.
fn at<S: System>(system: &S, address: u64) -> Option<Page> {
    let mm = system.mm();
    let physical = Pfn::new(address >> S::Platform::PAGE_SHIFT);
    physical.and_then(|pfn| mm.pfn_to_page(pfn)).or_else(|| {
        let address = VirtAddr::new(usize::try_from(address).ok()?);
        mm.vmalloc_to_page(address.as_ptr()).or_else(|| mm.virt_to_page(address))
    })
}
