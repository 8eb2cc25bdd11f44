//! The address space of a user: the low half of the kernel's tables, which the kernel uses for nothing else.
//!
//! Nothing runs there: this is where a kernel that has processes would keep the tables of each. What is mapped
//! may be reached from a user's code as far as the processor is concerned.

use core::ops::Range;

use kmem::platform::{PageMapError, UserMap};
use kmem::{Pfn, VirtAddr};

use crate::paging::{self, NotMapped, PAGE};

/// Where a user's memory is: 1 GiB of it.
const RANGE: Range<usize> = 0x1000_0000_0000..0x1000_4000_0000;

/// The machine's user.
pub struct User;

// SAFETY: the range is used for nothing else, and entries lead where they are asked to.
unsafe impl UserMap for User {
    fn range(&self) -> Range<VirtAddr> {
        VirtAddr::new(RANGE.start)..VirtAddr::new(RANGE.end)
    }

    unsafe fn map(
        &self,
        address: VirtAddr,
        frame: Pfn,
        writable: bool,
    ) -> Result<(), PageMapError> {
        let rights = if writable { paging::USER_DATA } else { paging::USER_CONSTANTS };
        // SAFETY: the caller has the frame; where something is mapped it is refused.
        let mapped = unsafe { paging::map(address.get(), frame.number() * PAGE, PAGE, rights) };
        mapped.map_err(|error| match error {
            NotMapped::Occupied => PageMapError::Occupied,
            NotMapped::NoTable | NotMapped::Divided => PageMapError::NoTables,
        })
    }

    fn unmap(&self, address: VirtAddr) -> Option<Pfn> {
        // A user that touches the page meets a fault from now on, which is what is wanted. SAFETY: so it is
        // nobody's else.
        let frame = unsafe { paging::take(address.get()) }?;
        paging::forget(address.get()..address.get() + PAGE as usize);
        Pfn::new(frame)
    }
}
