//! Finding out what is wrong with a call, and reporting it. Memory stays as it is.

use core::panic::Location;
use core::sync::atomic::Ordering::Relaxed;

use super::Mm;
use crate::page::{Block, Descriptor, Memmap, PageFlags, Place};
use crate::platform::{Misuse, MisuseKind, Passed, Platform, There};
use crate::reclaim::Reclaim;
use crate::{Order, Pfn, VirtAddr};

impl<P: Platform, R: Reclaim> Mm<P, R> {
    /// Counts a wrong call and passes it to the kernel.
    #[cold]
    #[inline(never)]
    pub(super) fn report(&self, misuse: &Misuse<'_>) {
        self.events.misuses.fetch_add(1, Relaxed);
        let mut misuse = *misuse;
        // An address that no page is at may be one for mappings, whatever the call is about.
        if let (There::Nothing, Passed::Address(address, _) | Passed::Object(address)) =
            (misuse.there, misuse.passed)
        {
            misuse.there = self.area_there(address).unwrap_or(There::Nothing);
        }
        self.platform.misuse(&misuse);
    }

    /// Whether this is an NMI handler, which may have interrupted the holder of a lock that the call takes:
    /// then it is reported.
    #[inline]
    pub(super) fn is_nmi_refused(&self, passed: Passed, site: &'static Location<'static>) -> bool {
        let in_nmi = self.platform.in_nmi();
        if in_nmi {
            let (kind, there) = (MisuseKind::InNmi, There::AtomicContext);
            self.report(&Misuse { kind, passed, there, site });
        }
        in_nmi
    }

    /// The descriptor of a block that may be freed with this order by whoever holds it; otherwise a
    /// report, and `None`.
    pub(super) fn check_free(
        &self,
        pfn: Pfn,
        order: u32,
        passed: Passed,
        site: &'static Location<'static>,
    ) -> Option<&Descriptor> {
        let wrong = |kind, there| {
            self.report(&Misuse { kind, passed, there, site });
            None
        };
        let Some(memmap) = self.tables().map(|tables| &tables.memmap) else {
            return wrong(MisuseKind::Foreign, There::Nothing);
        };
        let Some(descriptor) = memmap.get(pfn) else {
            return wrong(MisuseKind::Foreign, There::Nothing);
        };
        let (head, block) = memmap.head(pfn)?;
        let there = what_is_there(memmap, head, block);
        match (block, there) {
            (Block::Hole, _) => wrong(MisuseKind::Foreign, there),
            (Block::Reserved, _) => wrong(MisuseKind::Reserved, there),
            (Block::Free(_), _) | (_, There::PerCpu { .. } | There::Free { .. }) => {
                wrong(MisuseKind::DoubleFree, there)
            }
            (Block::Interior | Block::Tail, _) => wrong(MisuseKind::Interior, there),
            (Block::Compound(_), _) if head != pfn => wrong(MisuseKind::CompoundTail, there),
            (Block::Used(_), _) if head != pfn => wrong(MisuseKind::Interior, there),
            (Block::Used(size) | Block::Compound(size), _) if size.get() != order => {
                wrong(MisuseKind::WrongOrder, there)
            }
            (Block::Used(_) | Block::Compound(_), _) if descriptor.count() == 0 => {
                wrong(MisuseKind::NoReference, there)
            }
            (Block::Used(_) | Block::Compound(_), _)
                if descriptor.count() == 1 && descriptor.is_of_objects() =>
            {
                wrong(whose(descriptor), there)
            }
            (Block::Used(_) | Block::Compound(_), _) => Some(descriptor),
        }
    }

    /// An entry of a CPU's lists whose block is not there: two CPUs freed it at one moment.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(super) fn report_stray(&self, pfn: Pfn, order: Order) {
        let passed = Passed::Page(pfn, order.get());
        self.report_at(pfn, MisuseKind::ConcurrentFree, passed, Location::caller());
    }

    /// An address that is not the first byte of a page of the direct map.
    #[cold]
    #[inline(never)]
    pub(super) fn report_wrong_address(
        &self,
        address: VirtAddr,
        order: u32,
        site: &'static Location<'static>,
    ) {
        let pfn = self.platform.virt_to_phys(address).and_then(|phys| phys.frame(P::PAGE_SHIFT));
        let (kind, there) = match pfn.map_or(There::Nothing, |pfn| self.there(pfn)) {
            There::Nothing => (MisuseKind::Foreign, There::Nothing),
            there => (MisuseKind::Misaligned, there),
        };
        self.report(&Misuse { kind, passed: Passed::Address(address, order), there, site });
    }

    /// A call that is wrong for what is at a frame.
    #[cold]
    #[inline(never)]
    pub(super) fn report_at(
        &self,
        pfn: Pfn,
        kind: MisuseKind,
        passed: Passed,
        site: &'static Location<'static>,
    ) {
        let there = self.there(pfn);
        self.report(&Misuse { kind, passed, there, site });
    }

    /// What is at a frame.
    fn there(&self, pfn: Pfn) -> There {
        let found = self.memmap().and_then(|memmap| Some((memmap, memmap.head(pfn)?)));
        found.map_or(There::Nothing, |(memmap, (head, block))| what_is_there(memmap, head, block))
    }
}

/// What is wrong with a free of a page that the manager handed out as something else than a page.
pub(super) fn whose(descriptor: &Descriptor) -> MisuseKind {
    if descriptor.has(PageFlags::Vmalloc) {
        MisuseKind::VmallocPage
    } else if descriptor.has(PageFlags::PerCpu) {
        MisuseKind::PerCpuPage
    } else {
        MisuseKind::Slab
    }
}

/// A block in the words of a report.
pub(super) fn what_is_there(memmap: &Memmap, head: Pfn, block: Block) -> There {
    match block {
        Block::Hole => There::Nothing,
        Block::Reserved => There::Reserved,
        Block::Free(order) => There::Free { head, order },
        Block::Used(order) | Block::Compound(order) => match memmap.at(head).place() {
            Place::Held => There::Block { head, order },
            Place::OnLists(cpu) => There::PerCpu { head, order, cpu },
            Place::PutAside => There::Free { head, order },
        },
        // A page inside no block: nobody makes such.
        Block::Interior | Block::Tail => There::Nothing,
    }
}
