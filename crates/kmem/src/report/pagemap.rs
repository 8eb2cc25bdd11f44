//! `/proc/pagemap-text`: physical memory as a picture in plain text.

use core::fmt::{self, Write};
use core::iter;

use super::class::{Class, NO_RAM, Piece, intersect, piece, span};
use crate::boot::map::Normalised;
use crate::page::Memmap;
use crate::platform::Platform;
use crate::reclaim::Reclaim;
use crate::{Mm, PfnRange, Zone};

/// Cells of a row. With an address of 15 digits before them they fit in 80 columns.
const CELLS: u64 = 64;

/// Rows that the picture may take: with headings and legend it is little more than a screen.
const ROWS: usize = 40;

/// The scale at which all frames that there can be fit in one row: 2^6 cells of 2^26 of 2^32.
const LARGEST_SCALE: u32 = u32::BITS - CELLS.ilog2();

/// Writes `/proc/pagemap-text`: who has which part of physical memory, one character a cell.
///
/// First a legend: the classes of frames that the machine has, with their pages, which add up to
/// all RAM (A012). Then each zone in the order of addresses, in rows of up to 64 cells behind the
/// address of the first. A cell is a power of two of pages, the smallest with which the machine
/// fits in 40 rows. Its sign is that of the class that most of its RAM is of; of two with as many
/// pages, that of the one further down in the legend. A class without signs is most of no cell.
/// `out` takes the text, of at most 80 columns.
///
/// A machine that works meanwhile is not stopped: each cell is what was seen when it was looked at,
/// and the legend is counted before.
///
/// # Errors
///
/// Those of `out`.
///
/// # Context
///
/// Any; takes no lock. Cost: linear in the frames, each looked at twice; free or used blocks are
/// looked at as a whole.
///
/// ```text
/// Each sign is a cell of 2 pages, 8 KiB, by what its RAM is:
///
/// wholly mostly                            pages
///    .          free                        3880  15.1 MiB
///    C          on a CPU's list               37  148 KiB
///    U      u   in use                         5  20 KiB
///    K      k   kernel image                   9  36 KiB
///    M      m   the manager's tables          69  276 KiB
///               all RAM                     4000  15.6 MiB
///    -          no RAM of the zone            96  384 KiB
///
/// Node 0, zone   Normal: 00000000-00ffffff, 15.6 MiB
/// 00000000 ................................................................
/// 00080000 ................------------------------------------------------
/// 00100000 KKKKk...........................................................
/// ```
pub fn pagemap_text<P: Platform, R: Reclaim>(
    mm: &Mm<P, R>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let (Some(frames), Some(memmap)) = (mm.frames(), mm.memmap()) else { return Ok(()) };
    let map = Map { mm, frames, memmap, scale: 0 }.scaled();
    map.legend(out)?;
    let last = frames.span().end << P::PAGE_SHIFT;
    let digits = (u64::BITS - last.leading_zeros()).div_ceil(4).max(8) as usize;
    for zone in map.zones() {
        let span = span(zone);
        let (start, end) = (span.start << P::PAGE_SHIFT, (span.end << P::PAGE_SHIFT) - 1);
        let size = map.size(zone.present_pages());
        let (node, name) = (zone.node(), zone.name());
        writeln!(out, "\nNode {node}, zone {name:>8}: {start:08x}-{end:08x}, {size}")?;
        let mut drawn = map.first_cell(zone);
        for row in map.rows(zone) {
            if row > drawn {
                let gap = map.size(row - drawn);
                writeln!(out, "{:digits$} ({gap} without RAM of the zone)", "")?;
            }
            write!(out, "{:0digits$x} ", row << P::PAGE_SHIFT)?;
            for cell in map.cells(zone, row) {
                out.write_char(cell.sign())?;
            }
            writeln!(out)?;
            drawn = row + map.row_pages();
        }
    }
    Ok(())
}

/// How many frames of each class there are, and how many that are not the zone's.
#[derive(Default)]
struct Cell {
    pages: [u64; Class::COUNT],
    others: u64,
}

impl Cell {
    fn ram(&self) -> u64 {
        self.pages.iter().sum()
    }

    fn sign(&self) -> char {
        // The last of the largest: who has as much as is free is worth seeing.
        let most = Class::ALL.into_iter().max_by_key(|class| self.pages[*class as usize]);
        match most {
            Some(class) if self.ram() > 0 => {
                let whole = self.others == 0 && self.pages[class as usize] == self.ram();
                class.signs()[usize::from(!whole)]
            }
            _ => NO_RAM,
        }
    }

    fn add(&mut self, cell: &Cell) {
        for (sum, pages) in self.pages.iter_mut().zip(cell.pages) {
            *sum += pages;
        }
        self.others += cell.others;
    }
}

/// The machine, in cells of `1 << scale` pages.
struct Map<'a, P: Platform, R: Reclaim> {
    mm: &'a Mm<P, R>,
    frames: &'a Normalised,
    memmap: &'a Memmap,
    scale: u32,
}

impl<P: Platform, R: Reclaim> Map<'_, P, R> {
    /// With the smallest cells that need no more rows than there may be; each zone has one.
    fn scaled(mut self) -> Self {
        let most = ROWS.max(self.zones().count());
        while self.scale < LARGEST_SCALE
            && self.zones().flat_map(|zone| self.rows(zone)).nth(most).is_some()
        {
            self.scale += 1;
        }
        self
    }

    /// The zones that have RAM, in the order of addresses.
    fn zones(&self) -> impl Iterator<Item = &Zone> {
        let with_ram = || self.mm.zones().iter().filter(|zone| zone.present_pages() > 0);
        let first = with_ram().min_by_key(|zone| zone.start_pfn());
        iter::successors(first, move |last| {
            let later = with_ram().filter(|zone| zone.start_pfn() > last.start_pfn());
            later.min_by_key(|zone| zone.start_pfn())
        })
    }

    /// The first frame of a zone's first cell.
    fn first_cell(&self, zone: &Zone) -> u64 {
        (zone.start_pfn() >> self.scale) << self.scale
    }

    fn row_pages(&self) -> u64 {
        CELLS << self.scale
    }

    /// The first frames of a zone's rows, but of those without RAM.
    fn rows(&self, zone: &Zone) -> impl Iterator<Item = u64> {
        let (first, step) = (self.first_cell(zone), self.row_pages());
        let next = move |from| {
            let ram = self.ram(zone, from..u64::MAX).next()?;
            Some(first + (ram.start - first) / step * step)
        };
        iter::successors(next(first), move |row| next(row + step))
    }

    /// What is in the cells of a row, up to the zone's end.
    fn cells(&self, zone: &Zone, row: u64) -> impl Iterator<Item = Cell> {
        let end = span(zone).end.min(row + self.row_pages());
        let cells = (row..end).step_by(1 << self.scale);
        cells.map(|start| self.cell(zone, start..start + (1 << self.scale)))
    }

    fn cell(&self, zone: &Zone, frames: PfnRange) -> Cell {
        let mut cell = Cell::default();
        for ram in self.ram(zone, frames.clone()) {
            let mut at = ram.start;
            while at < ram.end {
                let Piece { owner, end, .. } = piece(self.mm, self.memmap, at);
                let (class, end) = (Class::of(owner), end.min(ram.end));
                cell.pages[class as usize] += end - at;
                at = end;
            }
        }
        let spanned = intersect(&frames, &span(zone)).map_or(0, |frames| frames.end - frames.start);
        cell.others = spanned - cell.ram();
        cell
    }

    /// The zone's RAM in a range, in order.
    fn ram(&self, zone: &Zone, within: PfnRange) -> impl Iterator<Item = PfnRange> {
        // A node's zones lie one behind the other, so the node and the span make out the zone.
        let (node, within) = (zone.node(), intersect(&within, &span(zone)).unwrap_or(0..0));
        let of_node = self.frames.ram().filter(move |(_, of)| *of == node);
        of_node.filter_map(move |(ram, _)| intersect(&ram, &within))
    }

    fn legend(&self, out: &mut (impl Write + ?Sized)) -> fmt::Result {
        let mut all = Cell::default();
        let mut shown = Signs::default();
        for zone in self.zones() {
            for cell in self.rows(zone).flat_map(|row| self.cells(zone, row)) {
                all.add(&cell);
                shown.insert(cell.sign());
            }
        }
        let (pages, size) = (1u64 << self.scale, self.size(1 << self.scale));
        let plural = if pages == 1 { "" } else { "s" };
        writeln!(
            out,
            "Each sign is a cell of {pages} page{plural}, {size}, by what its RAM is:\n"
        )?;
        writeln!(out, "wholly mostly {:>32}", "pages")?;
        let mut line = |[whole, mostly]: [char; 2], label: &str, pages: u64| {
            let (whole, mostly) = (shown.or_blank(whole), shown.or_blank(mostly));
            let size = self.size(pages);
            writeln!(out, "   {whole}      {mostly}   {label:<20} {pages:>11}  {size}")
        };
        for class in Class::ALL {
            let pages = all.pages[class as usize];
            if pages > 0 {
                line(class.signs(), class.label(), pages)?;
            }
        }
        line([' '; 2], "all RAM", all.ram())?;
        let others = self.zones().map(|zone| zone.spanned_pages() - zone.present_pages()).sum();
        if others > 0 {
            line([NO_RAM, ' '], "no RAM of the zone", others)?;
        }
        Ok(())
    }

    fn size(&self, pages: u64) -> Size {
        Size(pages << P::PAGE_SHIFT)
    }
}

/// ASCII signs, as bits.
#[derive(Default)]
struct Signs(u128);

impl Signs {
    fn insert(&mut self, sign: char) {
        self.0 |= 1 << (sign as u32);
    }

    fn or_blank(&self, sign: char) -> char {
        if self.0 >> (sign as u32) & 1 == 1 { sign } else { ' ' }
    }
}

/// Bytes for people: in the largest unit that they fill, with a tenth where something is left.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let unit = self.0.checked_ilog2().unwrap_or(0) / 10;
        let (whole, rest) = (self.0 >> (10 * unit), self.0 & ((1 << (10 * unit)) - 1));
        let name = UNITS[unit as usize];
        write!(f, "{whole}")?;
        if rest != 0 {
            // The ten bits behind the point are enough for one digit.
            write!(f, ".{}", ((rest >> (10 * (unit - 1))) * 10) >> 10)?;
        }
        write!(f, " {name}")
    }
}
