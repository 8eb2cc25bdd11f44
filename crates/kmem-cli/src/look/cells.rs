//! The frames of a zone as cells in rows.

use std::collections::BTreeMap;
use std::ops::Range;

use super::runs::{Memory, Owner, Run};

/// How many frames of a cell each owner has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    pub pages: [u64; Owner::COUNT],
}

impl Cell {
    /// How many frames it has of its zone, holes included.
    pub fn all(&self) -> u64 {
        self.pages.iter().sum()
    }

    /// Who has most of its RAM; of two that have as much, the one further down in the legend, so that what
    /// is in use is seen. `None` where there is nothing of the zone.
    pub fn most(&self) -> Option<Owner> {
        let ram = Owner::ALL.into_iter().filter(|owner| *owner != Owner::NoRam);
        let most = ram.max_by_key(|owner| self.pages[*owner as usize])?;
        if self.pages[most as usize] > 0 {
            return Some(most);
        }
        (self.pages[Owner::NoRam as usize] > 0).then_some(Owner::NoRam)
    }

    /// Whether all of it is one owner's.
    pub fn is_whole(&self) -> bool {
        self.pages.iter().filter(|pages| **pages > 0).count() <= 1
    }
}

/// A row of cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The first frame of its first cell.
    pub first: u64,
    pub cells: Vec<Cell>,
}

impl Row {
    /// Adds those of some frames that lie in it.
    fn add(&mut self, frames: &Range<u64>, owner: Owner, scale: u32, span: u64) {
        let end = frames.end.min(self.first + span);
        let mut at = frames.start.max(self.first);
        while at < end {
            let cell = at >> scale;
            let next = ((cell + 1) << scale).min(end);
            let index = (cell - (self.first >> scale)) as usize;
            if self.cells.len() <= index {
                self.cells.resize(index + 1, Cell::default());
            }
            self.cells[index].pages[owner as usize] += next - at;
            at = next;
        }
    }
}

/// A zone that is drawn: which of the memory's zones, and its rows that have RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    pub zone: usize,
    pub rows: Vec<Row>,
}

/// Memory in cells of `1 << scale` pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    pub scale: u32,
    pub zones: Vec<Zone>,
}

/// Every machine fits: 2^40 frames of a cell.
const LARGEST_SCALE: u32 = 40;

impl Grid {
    /// The frames in `within`, in rows of `columns` cells: with the smallest cells that need no more than
    /// `rows` rows, but each zone has one.
    pub fn new(memory: &Memory, within: Range<u64>, columns: u64, rows: usize) -> Grid {
        let columns = columns.max(1);
        let fits = |scale: &u32| count_rows(memory, &within, columns, *scale) <= rows;
        let scale = (0..LARGEST_SCALE).find(fits).unwrap_or(LARGEST_SCALE);
        let mut zones: Vec<BTreeMap<u64, Row>> = vec![BTreeMap::new(); memory.zones.len()];
        let span = columns << scale;
        for (run, frames) in parts(memory, &within).filter(|(run, _)| run.owner != Owner::NoRam) {
            for row in frames.start / span..=(frames.end - 1) / span {
                let new = || Row { first: row * span, cells: Vec::new() };
                zones[run.zone].entry(row).or_insert_with(new).add(&frames, run.owner, scale, span);
            }
        }
        // Holes are drawn where a row has RAM.
        for (run, frames) in parts(memory, &within).filter(|(run, _)| run.owner == Owner::NoRam) {
            let rows = frames.start / span..=(frames.end - 1) / span;
            for (_, row) in zones[run.zone].range_mut(rows) {
                row.add(&frames, run.owner, scale, span);
            }
        }
        let drawn = zones.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
        let zones = drawn.map(|(zone, rows)| Zone { zone, rows: rows.into_values().collect() });
        Grid { scale, zones: zones.collect() }
    }

    /// How many pages a cell has.
    pub fn cell_pages(&self) -> u64 {
        1 << self.scale
    }
}

/// The parts of runs that lie in a range.
fn parts<'m>(
    memory: &'m Memory,
    within: &Range<u64>,
) -> impl Iterator<Item = (&'m Run, Range<u64>)> {
    let within = within.clone();
    memory.runs.iter().filter_map(move |run| {
        let both = run.frames.start.max(within.start)..run.frames.end.min(within.end);
        (!both.is_empty()).then_some((run, both))
    })
}

/// How many rows have RAM.
fn count_rows(memory: &Memory, within: &Range<u64>, columns: u64, scale: u32) -> usize {
    let span = columns << scale;
    let mut next = vec![0; memory.zones.len()];
    let mut rows = 0;
    for (run, frames) in parts(memory, within).filter(|(run, _)| run.owner != Owner::NoRam) {
        let (first, last) = (frames.start / span, (frames.end - 1) / span);
        rows += (last + 1).saturating_sub(first.max(next[run.zone]));
        next[run.zone] = last + 1;
    }
    rows as usize
}

#[cfg(test)]
mod tests {
    use super::super::runs::SAMPLE;
    use super::*;

    fn all(memory: &Memory, columns: u64, rows: usize) -> Grid {
        Grid::new(memory, 0..u64::MAX, columns, rows)
    }

    #[test]
    fn every_frame_is_in_the_cell_that_its_number_says() {
        let memory = Memory::parse(SAMPLE).unwrap();
        for (columns, rows) in [(64, 2), (8, 8), (8, 4), (3, 30), (1, 2), (1, 1000)] {
            let grid = all(&memory, columns, rows);
            let drawn: usize = grid.zones.iter().map(|zone| zone.rows.len()).sum();
            assert!(drawn <= rows, "{columns} {rows}");
            let mut sums = [0; Owner::COUNT];
            for Zone { zone, rows } in &grid.zones {
                for row in rows {
                    assert!(row.cells.len() as u64 <= columns);
                    for (at, cell) in (0..).zip(&row.cells) {
                        let first = row.first + at * grid.cell_pages();
                        let frames = first..first + grid.cell_pages();
                        let mut expected = Cell::default();
                        for frame in frames {
                            let of = |run: &&Run| run.zone == *zone && run.frames.contains(&frame);
                            if let Some(run) = memory.runs.iter().find(of) {
                                expected.pages[run.owner as usize] += 1;
                                sums[run.owner as usize] += 1;
                            }
                        }
                        assert_eq!(*cell, expected, "{first} of {zone}");
                    }
                }
            }
            assert_eq!(sums[..12], memory.sums()[..12], "{columns} {rows}");
        }
    }

    #[test]
    fn cells_are_as_small_as_the_rows_allow() {
        let memory = Memory::parse(SAMPLE).unwrap();
        // Two zones of 32 frames, of which the hole takes part of a row.
        for (columns, rows, scale) in [(64, 2, 0), (8, 8, 0), (8, 7, 1), (8, 4, 1), (8, 3, 2)] {
            assert_eq!(all(&memory, columns, rows).scale, scale, "{columns} {rows}");
        }
        // A row of a zone that is wholly a hole is not there.
        assert_eq!(all(&memory, 4, 15).scale, 0);
        let part = Grid::new(&memory, 30..34, 8, 8);
        let firsts: Vec<_> =
            part.zones.iter().map(|zone| (zone.zone, zone.rows[0].first)).collect();
        assert_eq!(firsts, [(0, 24), (1, 32)]);
    }

    #[test]
    fn a_hole_of_terabytes_takes_no_row_and_no_time() {
        let head = SAMPLE.lines().next().unwrap();
        let far = 1u64 << 45;
        let text = format!(
            "{head}\n0 8 . free 0 Normal :\n8 {} - no-ram 0 Normal :\n{far} 8 U used 0 Normal :\n",
            far - 8
        );
        let memory = Memory::parse(&text).unwrap();
        let grid = all(&memory, 8, 2);
        assert_eq!((grid.scale, grid.zones[0].rows.len()), (0, 2));
        assert_eq!(grid.zones[0].rows[1].cells[0].most(), Some(Owner::Kernel));
    }

    #[test]
    fn what_is_in_use_wins_over_as_much_that_is_free() {
        let mut cell = Cell::default();
        assert_eq!(cell.most(), None);
        cell.pages[Owner::NoRam as usize] = 6;
        assert_eq!(cell.most(), Some(Owner::NoRam));
        cell.pages[Owner::Free as usize] = 2;
        assert_eq!(cell.most(), Some(Owner::Free));
        assert!(!cell.is_whole());
        cell.pages[Owner::Slab as usize] = 2;
        assert_eq!((cell.most(), cell.all()), (Some(Owner::Slab), 10));
    }
}
