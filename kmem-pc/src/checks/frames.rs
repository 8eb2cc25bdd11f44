//! The frames of the loader's map.

use cases::{Failure, check, equal};
use kmem::boot::map::ReservedClass;
use kmem::{Owner, Pfn};

use super::note;
use crate::machine::Machine;
use crate::paging::PAGE;
use crate::{MM, paging};

/// Every frame that is wholly RAM in the loader's map has a descriptor and an owner, the one that it
/// should have; there is no other frame.
pub(super) fn accounted(machine: &Machine) -> Result<(), Failure> {
    let found = machine.found();
    let frames = MM.frames().ok_or(Failure::new("the manager is booted"))?;
    let image = paging::image();
    let (mut ram, mut heap, mut kernel, mut free) = (0, 0, 0, 0);
    // Two regions of RAM may meet inside a page.
    for (range, _) in frames.ram() {
        for number in range.start..range.end {
            let within = number * PAGE..(number + 1) * PAGE;
            let covered: u64 = found
                .ram
                .iter()
                .map(|region| {
                    region.end.min(within.end).saturating_sub(region.start.max(within.start))
                })
                .sum();
            equal(covered, PAGE, "a frame is RAM of the loader's map")?;
            let pfn = Pfn::new(number).ok_or(Failure::new("a frame has a number"))?;
            check(MM.pfn_to_page(pfn).is_some(), "a frame has a descriptor")?;
            ram += 1;
            match MM.owner(pfn) {
                Owner::KernelImage => {
                    check(image.contains(&within.start), "the image's frames are in the image")?;
                    kernel += 1;
                }
                Owner::Reserved => heap += 1,
                Owner::Free | Owner::FreeOnLists(_) => free += 1,
                Owner::Hole => return Err(Failure::new("a frame of RAM is no hole")),
                _ => {}
            }
        }
    }
    let whole: u64 = found.whole_pages();
    equal(ram, whole, "each whole page of the loader's map is there")?;
    equal(kernel, (image.end - image.start).div_ceil(PAGE), "the image is the kernel's")?;
    let kept =
        frames.reserved_in_ram().filter(|(reserved, _)| reserved.class == ReservedClass::Kept);
    let kept: u64 = kept.map(|(reserved, _)| reserved.range.end - reserved.range.start).sum();
    let set_aside = (found.heap.end - found.heap.start) / PAGE + found.loader_pages() + kept;
    equal(heap, set_aside, "what the loader left, the heap and bigphysarea are reserved")?;
    equal(free, MM.free_page_count(), "what is free is counted")?;
    note(format_args!("{ram} frames: {free} free, {heap} set aside, {kernel} of the image"));
    Ok(())
}
