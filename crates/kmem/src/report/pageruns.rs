//! `/proc/pageruns`: physical memory as runs of frames, for programs.

use core::fmt::{self, Write};

use super::class::{Class, NO_RAM, intersect, piece, span};
use crate::mm::Owner;
use crate::page::Block;
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{Mm, PfnRange, Zone};

/// Writes `/proc/pageruns`: every run of frames that are of one kind, a line each, by addresses.
///
/// The run's first frame, how many frames it has, the sign and the word of its class, its node and zone, and
/// what more is known:
///
/// | class | sign | what it is | what more |
/// | --- | --- | --- | --- |
/// | `free` | `.` | in a zone's free areas | `order=`: that of its blocks |
/// | `listed` | `C` | free, on the lists of a CPU | `cpu=` |
/// | `slab` | `S` | slabs, and large memory of kmalloc | |
/// | `used` | `U` | other memory that somebody holds | `by=` kernel, vmalloc, private, cache or user |
/// | `kernel` | `K` | the kernel image | |
/// | `tables` | `M` | the manager's own tables | |
/// | `reserved` | `R` | firmware's, or whoever it was reserved for | |
/// | `late` | `L` | can be released later | |
/// | `no-ram` | `-` | a hole in the zone | |
///
/// Signs and sums are those of [`pagemap_text`](super::pagemap_text), but for holes in which another node has
/// RAM: these are no holes here. The first two lines give the version, the size of a page in bytes, and the
/// columns. `out` takes the text.
///
/// A machine that works meanwhile is not stopped: each block is as it was when it was looked at.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any; takes no lock. Cost: linear in the blocks, and in the frames that are in none.
///
/// ```text
/// pageruns - version: 1, page size: 4096
/// # <pfn> <pages> <sign> <class> <node> <zone> : <more>
/// 0 1 R reserved 0 DMA :
/// 1 1 . free 0 DMA : order=0
/// 2 2 . free 0 DMA : order=1
/// ```
pub fn pageruns<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let (Some(frames), Some(memmap)) = (mm.frames(), mm.memmap()) else { return Ok(()) };
    let size = 1u64 << P::PAGE_SHIFT;
    writeln!(out, "pageruns - version: 1, page size: {size}")?;
    writeln!(out, "# <pfn> <pages> <sign> <class> <node> <zone> : <more>")?;
    let mut run: Option<Run<'_>> = None;
    for (ram, node) in frames.ram() {
        for zone in mm.zones().iter().filter(|zone| zone.node() == node) {
            let Some(ram) = intersect(&ram, &span(zone)) else { continue };
            if let Some(hole) = run.as_ref().and_then(|run| run.hole_before(ram.start, zone)) {
                write_ended(out, run.replace(hole))?;
            }
            let mut at = ram.start;
            while at < ram.end {
                let next = piece(mm, memmap, at);
                let end = next.end.min(ram.end);
                let kind = Kind::of(next.owner, next.block);
                match &mut run {
                    Some(run) if run.goes_on(at, zone, kind) => run.frames.end = end,
                    _ => write_ended(out, run.replace(Run { frames: at..end, zone, kind }))?,
                }
                at = end;
            }
        }
    }
    write_ended(out, run)
}

fn write_ended(out: &mut (impl Write + ?Sized), run: Option<Run<'_>>) -> fmt::Result {
    run.map_or(Ok(()), |run| writeln!(out, "{run}"))
}

/// What all frames of a run are.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Free, in blocks of an order.
    Free(u32),
    /// On the lists of a CPU.
    Listed(u32),
    /// Held, by somebody of this name.
    Used(&'static str),
    /// Whatever else is RAM.
    Other(Class),
    /// No RAM.
    Hole,
}

impl Kind {
    fn of(owner: Owner, block: Block) -> Kind {
        match (owner, block) {
            (Owner::Free, Block::Free(order) | Block::Used(order) | Block::Compound(order)) => {
                Kind::Free(order.get())
            }
            (Owner::FreeOnLists(cpu), _) => Kind::Listed(cpu.get()),
            _ => match Class::of(owner) {
                Class::InUse => Kind::Used(holder(owner)),
                class => Kind::Other(class),
            },
        }
    }

    fn sign_and_word(self) -> (char, &'static str) {
        let class = match self {
            Kind::Free(_) => Class::Free,
            Kind::Listed(_) => Class::Listed,
            Kind::Used(_) => Class::InUse,
            Kind::Other(class) => class,
            Kind::Hole => return (NO_RAM, "no-ram"),
        };
        (class.signs()[0], class.word())
    }
}

/// Who has memory in use, in one word.
pub(super) const fn holder(owner: Owner) -> &'static str {
    match owner {
        Owner::Vmalloc => "vmalloc",
        Owner::Private => "private",
        Owner::PageCache { .. } => "cache",
        Owner::User { .. } => "user",
        _ => "kernel",
    }
}

/// Frames one behind the other that are of one zone and kind.
struct Run<'z> {
    frames: PfnRange,
    zone: &'z Zone,
    kind: Kind,
}

impl<'z> Run<'z> {
    fn goes_on(&self, at: u64, zone: &Zone, kind: Kind) -> bool {
        self.frames.end == at && self.zone.index() == zone.index() && self.kind == kind
    }

    /// What lies between this run and RAM of the same zone.
    fn hole_before(&self, start: u64, zone: &'z Zone) -> Option<Run<'z>> {
        let is_hole = self.frames.end < start && self.zone.index() == zone.index();
        is_hole.then_some(Run { frames: self.frames.end..start, zone, kind: Kind::Hole })
    }
}

impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PfnRange { start, end } = &self.frames;
        let (sign, class) = self.kind.sign_and_word();
        let (node, zone) = (self.zone.node(), self.zone.name());
        write!(f, "{start} {} {sign} {class} {node} {zone} :", end - start)?;
        match self.kind {
            Kind::Free(order) => write!(f, " order={order}"),
            Kind::Listed(cpu) => write!(f, " cpu={cpu}"),
            Kind::Used(by) => write!(f, " by={by}"),
            Kind::Other(_) | Kind::Hole => Ok(()),
        }
    }
}
