//! Whether memory is such that a device can be told of it.

use core::panic::Location;

use super::super::Mm;
use super::super::wrong::what_is_there;
use crate::dma::DmaError;
use crate::page::Block;
use crate::platform::{Misuse, MisuseKind, Passed, Platform, There};
use crate::reclaim::Reclaim;
use crate::{Pfn, PhysAddr, VirtAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// The physical address of memory of the direct map whose pages are all in use. Anything else is
    /// reported.
    pub(super) fn phys_for_dma(
        &self,
        memory: *const u8,
        size: usize,
        site: &'static Location<'static>,
    ) -> Result<PhysAddr, DmaError> {
        let address = VirtAddr::new(memory.addr());
        let last = memory.addr().checked_add(size - 1).map(VirtAddr::new);
        let start = self.platform.virt_to_phys(address);
        // The direct map may end within the memory.
        let is_whole = last.is_some_and(|last| self.platform.virt_to_phys(last).is_some());
        let start = start.filter(|_| is_whole);
        let passed = Passed::Object(address);
        match start.map(|start| (start, self.first_unused(start, size))) {
            Some((start, None)) => Ok(start),
            Some((_, Some(pfn))) => {
                self.report_at(pfn, MisuseKind::NotForDma, passed, site);
                Err(DmaError::NotForDma(address))
            }
            None => {
                let (kind, there) = (MisuseKind::NotForDma, There::Nothing);
                self.report(&Misuse { kind, passed, there, site });
                Err(DmaError::NotForDma(address))
            }
        }
    }

    /// Reports pages that are not in use.
    pub(super) fn check_all_in_use(
        &self,
        start: PhysAddr,
        size: usize,
        site: &'static Location<'static>,
    ) -> Result<(), DmaError> {
        match self.first_unused(start, size) {
            None => Ok(()),
            Some(pfn) => {
                self.report_at(pfn, MisuseKind::NotForDma, Passed::Page(pfn, 0), site);
                Err(DmaError::NotInUse(pfn.start(P::PAGE_SHIFT)))
            }
        }
    }

    /// The first frame of some bytes that is not RAM in use. What is reserved is in use: the kernel's own
    /// data lies there. Cost: a look at each block.
    fn first_unused(&self, start: PhysAddr, size: usize) -> Option<Pfn> {
        let first = start.get() >> P::PAGE_SHIFT;
        let last = match start.get().checked_add(size as u64 - 1) {
            Some(last) => last >> P::PAGE_SHIFT,
            None => u64::MAX,
        };
        let mut at = first;
        while at <= last {
            let Some(pfn) = Pfn::new(at) else { return Some(Pfn::MAX) };
            let Some(memmap) = self.memmap() else { return Some(pfn) };
            let Some((head, block)) = memmap.head(pfn) else { return Some(pfn) };
            at = match (block, what_is_there(memmap, head, block)) {
                (Block::Used(order) | Block::Compound(order), There::Block { .. }) => {
                    head.number() + order.pages()
                }
                (_, There::Reserved) => at + 1,
                _ => return Some(pfn),
            };
        }
        None
    }
}
