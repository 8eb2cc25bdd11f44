//! What is looked at: the texts as they were read last, and what keys have chosen of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::look::Texts;
use crate::look::cells::{Cell, Grid};
use crate::look::runs::Memory;
use crate::look::tables::{self, Cache, FreeBlocks, ZoneInfo};

/// What is on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    Overview,
    Blocks,
    Caches,
    Lists,
    Map,
}

impl Screen {
    pub const ALL: [Screen; 5] =
        [Screen::Overview, Screen::Blocks, Screen::Caches, Screen::Lists, Screen::Map];

    pub const fn name(self) -> &'static str {
        match self {
            Screen::Overview => "overview",
            Screen::Blocks => "free blocks",
            Screen::Caches => "caches",
            Screen::Lists => "CPUs' lists",
            Screen::Map => "map",
        }
    }
}

/// What caches are sorted by, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Use,
    Waste,
    Rate,
}

impl Sort {
    pub const fn name(self) -> &'static str {
        match self {
            Sort::Use => "memory",
            Sort::Waste => "waste",
            Sort::Rate => "rate",
        }
    }

    const fn next(self) -> Sort {
        match self {
            Sort::Use => Sort::Waste,
            Sort::Waste => Sort::Rate,
            Sort::Rate => Sort::Use,
        }
    }
}

/// The texts at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Duration,
    pub zones: Vec<ZoneInfo>,
    pub blocks: Vec<FreeBlocks>,
    pub counters: BTreeMap<String, u64>,
    /// Or why it is not there: of Linux's, only root may read it.
    pub caches: Result<Vec<Cache>, String>,
}

impl Sample {
    fn read(texts: &dyn Texts, at: Duration) -> Result<Sample, String> {
        let sample = Sample {
            at,
            zones: tables::zoneinfo(&texts.read("zoneinfo")?),
            blocks: tables::buddyinfo(&texts.read("buddyinfo")?),
            counters: tables::vmstat(&texts.read("vmstat")?),
            caches: texts.read("slabinfo").map(|text| tables::slabinfo(&text)),
        };
        if sample.blocks.is_empty() {
            return Err("buddyinfo has no zone: it is no machine's".into());
        }
        Ok(sample)
    }
}

/// Where the cursor is, and what part of memory is drawn.
#[derive(Debug, Default)]
pub struct MapView {
    /// The runs, or why they are not there: Linux has none.
    pub memory: Option<Result<Memory, String>>,
    pub grid: Grid,
    /// The parts that were gone into, the last one the smallest.
    pub within: Vec<Range<u64>>,
    /// The zone, the row of it and the cell of that.
    pub cursor: (usize, usize, usize),
    /// The frame that the cursor is to be put on.
    seek: Option<u64>,
    /// A page that is told of.
    pub page: Option<(u64, Result<String, String>)>,
}

impl MapView {
    pub fn range(&self) -> Range<u64> {
        self.within.last().cloned().unwrap_or(0..u64::MAX)
    }

    /// The cell at the cursor, and its first frame.
    pub fn cell(&self) -> Option<(u64, &Cell)> {
        let (zone, row, cell) = self.cursor;
        let row = self.grid.zones.get(zone)?.rows.get(row)?;
        Some((row.first + cell as u64 * self.grid.cell_pages(), row.cells.get(cell)?))
    }

    /// Puts the cursor on the cell of a row that is nearest.
    fn put(&mut self, zone: usize, row: usize, cell: usize) {
        let cells = self.grid.zones.get(zone).and_then(|zone| zone.rows.get(row));
        let there = cells.into_iter().flat_map(|row| row.cells.iter().enumerate());
        let there = there.filter(|(_, cell)| cell.all() > 0).map(|(at, _)| at);
        if let Some(nearest) = there.min_by_key(|at| at.abs_diff(cell)) {
            self.cursor = (zone, row, nearest);
        }
    }

    /// Moves to the row before or behind.
    fn step_row(&mut self, down: bool) {
        let (zone, row, cell) = self.cursor;
        let rows = |zone: usize| self.grid.zones.get(zone).map_or(0, |zone| zone.rows.len());
        let to = match (down, row) {
            (true, row) if row + 1 < rows(zone) => Some((zone, row + 1)),
            (true, _) => (zone + 1 < self.grid.zones.len()).then_some((zone + 1, 0)),
            (false, 0) => zone.checked_sub(1).map(|zone| (zone, rows(zone).saturating_sub(1))),
            (false, row) => Some((zone, row - 1)),
        };
        if let Some((zone, row)) = to {
            self.put(zone, row, cell);
        }
    }

    fn step_cell(&mut self, right: bool) {
        let (zone, row, cell) = self.cursor;
        let before = self.cursor;
        self.put(zone, row, if right { cell + 1 } else { cell.wrapping_sub(1).min(cell) });
        if self.cursor != before {
            return;
        }
        self.step_row(right);
        if self.cursor != before {
            let (zone, row, _) = self.cursor;
            self.put(zone, row, if right { 0 } else { usize::MAX });
        }
    }

    /// Goes into the cell at the cursor. Answers the page that it is, where it is one.
    fn enter(&mut self) -> Option<u64> {
        let (first, cell) = self.cell()?;
        if cell.all() == 0 {
            return None;
        }
        if self.grid.scale == 0 {
            return Some(first);
        }
        self.within.push(first..first + self.grid.cell_pages());
        self.cursor = (0, 0, 0);
        None
    }

    /// Goes back out of a page, or of a part.
    fn leave(&mut self) {
        if self.page.take().is_none() {
            self.seek = self.within.pop().map(|part| part.start);
        }
    }

    /// Draws it anew in so many columns and rows.
    fn lay_out(&mut self, columns: u64, rows: usize) {
        // Round addresses begin the rows.
        let columns = columns.checked_ilog2().map_or(1, |shift| 1 << shift);
        let Some(Ok(memory)) = &self.memory else { return };
        let seek = self.seek.take();
        let at = seek.or_else(|| self.cell().map(|(first, _)| first));
        let old = self.grid.scale;
        // Each zone has a line of its own above its rows.
        let rows = rows.saturating_sub(memory.zones.len()).max(1);
        self.grid = Grid::new(memory, self.range(), columns, rows);
        let is_same = seek.is_some() || at.is_some() && old == self.grid.scale;
        let at = at.filter(|_| is_same).unwrap_or_default();
        let (span, pages) = (columns << self.grid.scale, self.grid.cell_pages());
        let found = self.grid.zones.iter().enumerate().find_map(|(zone, drawn)| {
            let row =
                drawn.rows.iter().position(|row| (row.first..row.first + span).contains(&at))?;
            let cell = ((at - drawn.rows[row].first) / pages) as usize;
            let is_there = drawn.rows[row].cells.get(cell).is_some_and(|cell| cell.all() > 0);
            is_there.then_some((zone, row, cell))
        });
        match found.filter(|_| is_same) {
            Some(cursor) => self.cursor = cursor,
            None => self.put(0, 0, 0),
        }
    }
}

/// All that is shown and chosen.
#[derive(Debug)]
pub struct App {
    /// Whose memory it is.
    pub title: String,
    pub screen: Screen,
    pub help: bool,
    pub sort: Sort,
    /// The first line of a list that is shown.
    pub scroll: usize,
    /// The size of a page, in bytes.
    pub page: u64,
    pub now: Sample,
    pub before: Option<Sample>,
    pub map: MapView,
    pub has_ended: bool,
}

impl App {
    /// Reads the texts for the first time.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub fn new(title: String, texts: &dyn Texts) -> Result<App, String> {
        // Linux has no such text; its pages are those of this process.
        let runs = texts.read("pageruns").and_then(|text| Memory::parse(&text));
        // SAFETY: the call only answers a number.
        let own = || unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.try_into().unwrap_or(4096);
        let page = runs.map_or_else(|_| own(), |memory| memory.page);
        Ok(App {
            title,
            screen: Screen::Overview,
            help: false,
            sort: Sort::Use,
            scroll: 0,
            page,
            now: Sample::read(texts, Duration::ZERO)?,
            before: None,
            map: MapView::default(),
            has_ended: false,
        })
    }

    /// Reads the texts again.
    ///
    /// # Errors
    ///
    /// They cannot be read: the machine has ended.
    pub fn refresh(&mut self, texts: &dyn Texts, at: Duration) -> Result<(), String> {
        let sample = Sample::read(texts, at)?;
        self.before = Some(std::mem::replace(&mut self.now, sample));
        self.map.memory = None;
        self.fetch(texts);
        Ok(())
    }

    /// Reads what the screen needs beside that: it may take long, and others do not need it.
    pub fn fetch(&mut self, texts: &dyn Texts) {
        if self.screen != Screen::Map {
            return;
        }
        let read = || texts.read("pageruns").and_then(|text| Memory::parse(&text));
        self.map.memory.get_or_insert_with(read);
        if let Some((frame, text)) = &mut self.map.page {
            *text = texts.read(&format!("pages/{frame}"));
        }
    }

    /// Says how large the screen is before it is drawn, in characters.
    pub fn lay_out(&mut self, width: u16, height: u16) {
        let columns = u64::from(width.saturating_sub(super::draw::LABELS));
        let rows = usize::from(height).saturating_sub(super::draw::FRAME_LINES);
        self.map.lay_out(columns, rows);
    }

    /// A counter's change a second.
    pub fn rate(&self, of: impl Fn(&Sample) -> u64) -> f64 {
        let Some(before) = &self.before else { return 0.0 };
        let time = self.now.at.saturating_sub(before.at).as_secs_f64();
        let change = of(&self.now) as f64 - of(before) as f64;
        if time > 0.0 { change / time } else { 0.0 }
    }

    /// How many objects more or fewer are in use each second.
    pub fn cache_rate(&self, name: &str) -> f64 {
        let active = |sample: &Sample| {
            let caches = sample.caches.as_deref().unwrap_or_default();
            caches.iter().find(|cache| cache.name == name).map_or(0, |cache| cache.active)
        };
        self.rate(active)
    }

    /// What a key does.
    pub fn key(&mut self, key: KeyEvent) {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if self.help && key.code != KeyCode::Char('q') && !is_control {
            self.help = false;
            return;
        }
        let at = Screen::ALL.iter().position(|screen| *screen == self.screen).unwrap_or(0);
        let count = Screen::ALL.len();
        match key.code {
            KeyCode::Char('c') if is_control => self.has_ended = true,
            KeyCode::Char('q') => self.has_ended = true,
            KeyCode::Char('?') => self.help = true,
            KeyCode::Char(digit @ '1'..='5') => self.show(digit as usize - '1' as usize),
            KeyCode::Tab => self.show((at + 1) % count),
            KeyCode::BackTab => self.show((at + count - 1) % count),
            KeyCode::Char('s') if self.screen == Screen::Caches => {
                (self.sort, self.scroll) = (self.sort.next(), 0);
            }
            _ if self.screen == Screen::Map => self.map_key(key.code),
            KeyCode::Up => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::Down => self.scroll = self.scroll.saturating_add(1),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(10),
            KeyCode::Home => self.scroll = 0,
            _ => {}
        }
    }

    fn show(&mut self, screen: usize) {
        (self.screen, self.scroll) = (Screen::ALL[screen], 0);
    }

    fn map_key(&mut self, code: KeyCode) {
        let map = &mut self.map;
        match code {
            KeyCode::Esc | KeyCode::Backspace => map.leave(),
            _ if map.page.is_some() => {}
            KeyCode::Left => map.step_cell(false),
            KeyCode::Right => map.step_cell(true),
            KeyCode::Up => map.step_row(false),
            KeyCode::Down => map.step_row(true),
            KeyCode::Enter => {
                let page = map.enter();
                map.page = page.map(|frame| (frame, Ok(String::new())));
            }
            _ => {}
        }
    }
}
