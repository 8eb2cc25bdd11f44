//! `/proc/iomem`: what physical addresses are used for.

use core::fmt::{self, Write};

use crate::boot::map::{Normalised, Reserved, ReservedClass};
use crate::page::{Block, Memmap};
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{Mm, Pfn, PfnRange};

/// Writes `/proc/iomem`: RAM and what is reserved, in bytes, by whole pages.
///
/// Firmware's ranges are entries of their own, which cut `System RAM`. The kernel image, the
/// manager's tables (`kmem memmap` and others), what was allocated at boot and what the boot loader still
/// uses are RAM, so they are indented below it; of the last two, what has been released since is left
/// out. RAM above `mem=` is not the manager's and stands for itself. Names are those of
/// the memory map. `out` takes the text.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any. Cost: quadratic in the number of ranges, and a look at each frame of the boot loader's.
///
/// ```text
/// 00000000-0009efff : System RAM
/// 0009f000-000fffff : Reserved
/// 00100000-07ffffff : System RAM
///   00100000-00280fff : Kernel code
///   07e00000-07ffffff : kmem memmap
/// ```
pub fn iomem<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let (Some(frames), Some(memmap)) = (mm.frames(), mm.memmap()) else { return Ok(()) };
    let map = Map { frames, memmap };
    let mut entry = |indent: &str, range: &PfnRange, name: Name| {
        let (start, end) = (range.start << P::PAGE_SHIFT, (range.end << P::PAGE_SHIFT) - 1);
        writeln!(out, "{indent}{start:08x}-{end:08x} : {name}")
    };
    let mut from = 0;
    while let Some((outer, name)) = map.next_run(from..u64::MAX, |piece| piece.outer) {
        entry("", &outer, name)?;
        from = outer.start;
        while let Some((inner, name)) = map.next_run(from..outer.end, |piece| piece.inner) {
            entry("  ", &inner, name)?;
            from = inner.end;
        }
        from = outer.end;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Ram,
    /// As the memory map has it.
    Given(&'static str),
    /// A table of the manager.
    Table(&'static str),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Ram => f.write_str("System RAM"),
            Name::Given(name) => f.write_str(name),
            Name::Table(name) => write!(f, "kmem {name}"),
        }
    }
}

/// Frames that are all used for the same.
struct Piece {
    end: u64,
    outer: Option<Name>,
    inner: Option<Name>,
}

struct Map<'a> {
    frames: &'a Normalised,
    memmap: &'a Memmap,
}

impl Map<'_> {
    /// The first frames of `within` that have a name of the sort that `name` picks, as far as it
    /// stays the same. Pieces of unlike owners or nodes may have one name.
    fn next_run(
        &self,
        within: PfnRange,
        name: impl Fn(&Piece) -> Option<Name>,
    ) -> Option<(PfnRange, Name)> {
        let mut at = within.start;
        let mut run: Option<(PfnRange, Name)> = None;
        while at < within.end
            && let Some(piece) = self.piece(at)
        {
            match (&mut run, name(&piece)) {
                (Some((range, run_name)), Some(name)) if *run_name == name => range.end = piece.end,
                (Some(_), _) => break,
                (None, name) => run = name.map(|name| (at..piece.end, name)),
            }
            at = piece.end;
        }
        run
    }

    /// What frame `at` is used for, up to where that changes; `None` behind the last frame in use.
    fn piece(&self, at: u64) -> Option<Piece> {
        let ram = self.frames.ram().map(|(range, _)| range).find(|ram| ram.end > at);
        let reserved = self.frames.reserved().find(|reserved| reserved.range.end > at);
        let ranges = ram.iter().chain(reserved.iter().map(|reserved| &reserved.range));
        let edges = ranges.flat_map(|range| [range.start, range.end]).filter(|edge| *edge > at);
        let mut end = edges.min()?;

        let in_ram = ram.is_some_and(|ram| ram.start <= at);
        let mut reserved = reserved.filter(|reserved| reserved.range.start <= at);
        let may_go = |r: &Reserved| matches!(r.class, ReservedClass::Late | ReservedClass::Boot);
        if reserved.as_ref().is_some_and(may_go) {
            let there = self.is_reserved(at);
            end = (at..end).find(|frame| self.is_reserved(*frame) != there).unwrap_or(end);
            reserved = reserved.filter(|_| there);
        }
        let is_firmware = reserved.as_ref().is_some_and(|r| r.class == ReservedClass::Firmware);
        let name = reserved.map(|reserved| match reserved.class {
            ReservedClass::Metadata => Name::Table(reserved.name),
            _ => Name::Given(reserved.name),
        });
        let (outer, inner) =
            if in_ram && !is_firmware { (Some(Name::Ram), name) } else { (name, None) };
        Some(Piece { end, outer, inner })
    }

    /// Whether a frame has not been released. One without a descriptor cannot be.
    fn is_reserved(&self, frame: u64) -> bool {
        let descriptor = Pfn::new(frame).and_then(|pfn| self.memmap.get(pfn));
        descriptor.is_none_or(|descriptor| descriptor.is(Block::Reserved))
    }
}
