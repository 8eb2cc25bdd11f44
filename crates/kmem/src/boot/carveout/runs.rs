//! Runs of pages that are in use or free, in a table with an entry for each page.

#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use super::Usage;

/// What is known of a run: its entry without the bit.
const USED: u32 = 1;

/// The table, seen as runs.
///
/// # Invariants
///
/// The table is runs, one behind the other: the entry of a run's first page is its length, which is not
/// 0, shifted left by one, and [`USED`] or not. No two free runs touch.
pub(super) struct Runs<'t> {
    table: &'t mut [u32],
}

/// Why nothing was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotFreed {
    /// The page is free.
    Free,
    /// The page lies in a run that is in use, and is not its first.
    Inside {
        /// The run's first page.
        start: u32,
        /// Its length.
        pages: u32,
    },
}

#[derive(Clone, Copy)]
struct Run {
    start: u32,
    pages: u32,
    used: bool,
}

impl Run {
    fn end(self) -> u32 {
        self.start + self.pages
    }
}

impl<'t> Runs<'t> {
    /// The longest run that an entry can tell.
    pub(super) const LONGEST: u32 = u32::MAX >> 1;

    /// What a table says. It has at least one entry and at most [`Runs::LONGEST`], and is one that
    /// [`Runs::clear`] was called on, or is about to be.
    pub(super) fn over(table: &'t mut [u32]) -> Self {
        Runs { table }
    }

    /// Makes all pages one free run.
    pub(super) fn clear(&mut self) {
        self.write(0, self.table.len() as u32, false);
    }

    fn read(&self, start: u32) -> Option<Run> {
        let entry = *self.table.get(start as usize)?;
        Some(Run { start, pages: entry >> 1, used: entry & USED != 0 })
    }

    fn write(&mut self, start: u32, pages: u32, used: bool) {
        if pages > 0 {
            self.table[start as usize] = pages << 1 | if used { USED } else { 0 };
        }
    }

    /// The runs, in order. A table that somebody has written to has an end as well.
    fn iter(&self) -> impl Iterator<Item = Run> + '_ {
        let first = self.read(0);
        core::iter::successors(first, |run| self.read(run.end())).take_while(|run| run.pages > 0)
    }

    /// The first free place of so many pages at a multiple of `align`, where page 0 has the number
    /// `base`.
    pub(super) fn alloc(&mut self, pages: u32, align: u64, base: u64) -> Option<u32> {
        let (run, at) = self.iter().filter(|run| !run.used).find_map(|run| {
            let start = (base + u64::from(run.start)).checked_next_multiple_of(align)? - base;
            let fits = start.checked_add(pages.into())? <= u64::from(run.end());
            // Where it fits, it is a page of the table.
            fits.then_some((run, start as u32))
        })?;
        self.write(run.start, at - run.start, false);
        self.write(at, pages, true);
        self.write(at + pages, run.end() - at - pages, false);
        Some(at)
    }

    /// Frees the run that begins at a page of the table; answers its length.
    pub(super) fn free(&mut self, at: u32) -> Result<u32, NotFreed> {
        let mut before: Option<Run> = None;
        let mut found = None;
        for run in self.iter() {
            if run.end() > at {
                found = Some(run);
                break;
            }
            before = Some(run);
        }
        let Some(run) = found.filter(|run| run.used) else { return Err(NotFreed::Free) };
        if run.start != at {
            return Err(NotFreed::Inside { start: run.start, pages: run.pages });
        }
        let after = self.read(run.end()).filter(|after| !after.used);
        let end = after.map_or(run.end(), Run::end);
        let start = before.filter(|before| !before.used).map_or(run.start, |before| before.start);
        self.write(start, end - start, false);
        Ok(run.pages)
    }

    /// How full the table is.
    pub(super) fn usage(&self) -> Usage {
        let mut usage = Usage { pages: self.table.len() as u64, ..Usage::default() };
        for run in self.iter() {
            if run.used {
                usage.used += u64::from(run.pages);
                usage.blocks += 1;
            } else {
                usage.longest = usage.longest.max(run.pages.into());
            }
        }
        usage
    }
}
