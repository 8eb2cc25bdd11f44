//! A machine's memory as a picture: where which rectangle and which text is, whatever file it becomes.

use crate::console;
use crate::look::cells::{Cell, Grid};
use crate::look::runs::{Memory, Owner};

/// Red, green and blue.
pub type Colour = [u8; 3];

/// The background.
pub const PAPER: Colour = [0xff, 0xff, 0xff];
const INK: Colour = [0x1f, 0x24, 0x28];
const FAINT: Colour = [0x6b, 0x73, 0x7c];
const LINE: Colour = [0xc4, 0xca, 0xd0];

/// How a text is set: in a font whose characters are all as wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Title,
    Heading,
    Plain,
}

impl Face {
    /// From one character to the next.
    pub const fn advance(self) -> u32 {
        match self {
            Face::Title => 11,
            Face::Heading | Face::Plain => 7,
        }
    }

    pub const fn is_bold(self) -> bool {
        matches!(self, Face::Title | Face::Heading)
    }
}

/// What is drawn, the first first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Box {
        x: u32,
        y: u32,
        width: u32,
        height: u32,
        colour: Colour,
    },
    /// `x` and `y` are the upper left corner.
    Text {
        x: u32,
        y: u32,
        face: Face,
        colour: Colour,
        text: String,
    },
}

/// What is drawn, and how large it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    /// What the picture shows, in a sentence.
    pub title: String,
    pub items: Vec<Item>,
}

/// Cells of a row.
const COLUMNS: u64 = 128;
/// Rows that the picture may take.
const ROWS: usize = 64;
/// From one cell to the next, and from a row to the next; the last pixel is between them.
const CELL: u32 = 8;
const ROW: u32 = 12;
const MARGIN: u32 = 28;
/// Before the rows: an address.
const LABELS: u32 = 120;
const WIDTH: u32 = MARGIN + LABELS + COLUMNS as u32 * CELL + MARGIN;

/// Draws the memory of a machine of that name.
pub fn draw(memory: &Memory, name: &str) -> Picture {
    let grid = Grid::new(memory, 0..u64::MAX, COLUMNS, ROWS);
    let mut sheet = Sheet { items: Vec::new(), y: MARGIN };
    sheet.heading(memory, &grid, name);
    let address = |frame: u64| frame.saturating_mul(memory.page);
    let mut node = None;
    for drawn in &grid.zones {
        let zone = &memory.zones[drawn.zone];
        sheet.y += if node.replace(zone.node) == Some(zone.node) { 14 } else { 22 };
        let (start, end) = (address(zone.frames.start), address(zone.frames.end) - 1);
        let size = console::size(address(zone.ram));
        let (node, name) = (zone.node, &zone.name);
        sheet.text(MARGIN, Face::Heading, INK, &format!("Node {node}, zone {name}"));
        sheet.text_right(WIDTH - MARGIN, FAINT, &format!("{start:#x} - {end:#x}, {size} of RAM"));
        sheet.y += 22;
        let digits = format!("{:x}", address(memory.runs.last().map_or(0, |run| run.frames.end)));
        let digits = digits.len().max(8);
        let top = sheet.y;
        let mut next = drawn.rows.first().map_or(0, |row| row.first);
        let mut label_next = true;
        for row in &drawn.rows {
            if row.first != next {
                let gap = console::size(address(row.first - next));
                sheet.text(
                    MARGIN + LABELS,
                    Face::Plain,
                    FAINT,
                    &format!("{gap} without RAM of the zone"),
                );
                sheet.y += 18;
            }
            let span = COLUMNS << grid.scale;
            // Every fourth address, the first, and that after what is left out.
            let is_first = row.first != next || label_next;
            let is_told = is_first || (row.first / span).is_multiple_of(4);
            label_next = false;
            let label = is_told.then(|| format!("{:0digits$x}", address(row.first)));
            sheet.row(&row.cells, label.as_deref());
            next = row.first + span;
        }
        // The frame is in the margin around the cells.
        let (left, right) = (MARGIN + LABELS - 3, WIDTH - MARGIN + 2);
        let (top, bottom) = (top - 3, sheet.y + 2);
        for (x, y, width, height) in [
            (left, top, right - left, 1),
            (left, bottom, right - left, 1),
            (left, top, 1, bottom - top),
            (right - 1, top, 1, bottom - top),
        ] {
            sheet.items.push(Item::Box { x, y, width, height, colour: LINE });
        }
        sheet.y += 4;
    }
    sheet.y += 22;
    sheet.legend(memory);
    sheet.y += MARGIN - 6;
    let title =
        format!("The physical memory of {name}: {} of RAM", console::size(address(memory.ram())));
    Picture { width: WIDTH, height: sheet.y, title, items: sheet.items }
}

/// A picture that is being drawn from its top down to `y`.
struct Sheet {
    items: Vec<Item>,
    y: u32,
}

impl Sheet {
    fn text(&mut self, x: u32, face: Face, colour: Colour, text: &str) {
        self.items.push(Item::Text { x, y: self.y, face, colour, text: text.into() });
    }

    /// A plain text that ends at `right`.
    fn text_right(&mut self, right: u32, colour: Colour, text: &str) {
        let width = text.chars().count() as u32 * Face::Plain.advance();
        self.text(right.saturating_sub(width), Face::Plain, colour, text);
    }

    fn square(&mut self, x: u32, y: u32, colour: Colour) {
        self.items.push(Item::Box { x, y, width: 12, height: 12, colour });
    }

    fn heading(&mut self, memory: &Memory, grid: &Grid, name: &str) {
        let bytes = |pages: u64| console::size(pages.saturating_mul(memory.page));
        self.text(MARGIN, Face::Title, INK, &format!("Physical memory of {name}"));
        self.y += 5;
        let (ram, cell) = (bytes(memory.ram()), bytes(grid.cell_pages()));
        let pages = match grid.cell_pages() {
            1 => "one page".into(),
            pages => format!("{pages} pages"),
        };
        self.text_right(WIDTH - MARGIN, FAINT, &format!("{ram} of RAM, a cell is {pages}, {cell}"));
        self.y += 27;
    }

    fn row(&mut self, cells: &[Cell], address: Option<&str>) {
        if let Some(address) = address {
            let width = address.len() as u32 * Face::Plain.advance();
            let (x, y) = ((MARGIN + LABELS - 14).saturating_sub(width), self.y - 3);
            let (face, colour, text) = (Face::Plain, FAINT, address.into());
            self.items.push(Item::Text { x, y, face, colour, text });
        }
        for (at, cell) in (0u32..).zip(cells) {
            if cell.all() > 0 {
                self.cell(MARGIN + LABELS + at * CELL, cell);
            }
        }
        self.y += ROW;
    }

    /// A cell, filled by what share of it each owner has: what is free at the top.
    fn cell(&mut self, x: u32, cell: &Cell) {
        const HEIGHT: u64 = ROW as u64 - 1;
        let all = cell.all();
        let (mut seen, mut from) = (0, 0);
        let free = [Owner::NoRam, Owner::Free, Owner::Listed];
        let others = Owner::ALL.into_iter().filter(|owner| !free.contains(owner));
        for owner in free.into_iter().chain(others) {
            seen += cell.pages[owner as usize];
            let to = (u128::from(seen) * u128::from(HEIGHT) / u128::from(all)) as u64;
            if to > from {
                let (y, height) = (self.y + from as u32, (to - from) as u32);
                let colour = shown(owner);
                self.items.push(Item::Box { x, y, width: CELL - 1, height, colour });
            }
            from = to;
        }
    }

    fn legend(&mut self, memory: &Memory) {
        const COLUMN: u32 = 286;
        let sums = memory.sums();
        let there = Owner::ALL.into_iter().filter(|owner| sums[*owner as usize] > 0);
        for (at, owner) in (0u32..).zip(there) {
            if at > 0 && at % 4 == 0 {
                self.y += 22;
            }
            let x = MARGIN + at % 4 * COLUMN;
            self.square(x, self.y + 2, LINE);
            let (y, colour) = (self.y + 3, shown(owner));
            self.items.push(Item::Box { x: x + 1, y, width: 10, height: 10, colour });
            let bytes = sums[owner as usize].saturating_mul(memory.page);
            self.text(x + 19, Face::Plain, INK, owner.label());
            self.text_right(x + COLUMN - 30, FAINT, &console::size(bytes));
        }
        self.y += 18;
    }
}

/// The colour of an owner on paper: what is no RAM is seen to be a cell.
fn shown(owner: Owner) -> Colour {
    match owner {
        Owner::NoRam => [0xf7, 0xf8, 0xf9],
        owner => owner.colour(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::runs::SAMPLE;

    #[test]
    fn everything_is_inside_the_picture_and_no_text_crosses_another() {
        let picture = draw(&Memory::parse(SAMPLE).unwrap(), "sample");
        let mut texts: Vec<(u32, u32, u32, u32)> = Vec::new();
        for item in &picture.items {
            let (x, y, width, height) = match item {
                Item::Box { x, y, width, height, .. } => (*x, *y, *width, *height),
                Item::Text { x, y, face, text, .. } => {
                    let place = (*x, *y, text.chars().count() as u32 * face.advance(), 10);
                    for other in &texts {
                        let apart = place.0 >= other.0 + other.2
                            || other.0 >= place.0 + place.2
                            || place.1 >= other.1 + other.3
                            || other.1 >= place.1 + place.3;
                        assert!(apart, "{item:?} on {other:?}");
                    }
                    texts.push(place);
                    place
                }
            };
            assert!(width > 0 && height > 0, "{item:?}");
            assert!(x + width <= picture.width && y + height <= picture.height, "{item:?}");
        }
    }

    #[test]
    fn a_cell_shows_the_share_of_each_owner() {
        let mut cell = Cell::default();
        cell.pages[Owner::Free as usize] = 6;
        cell.pages[Owner::Slab as usize] = 5;
        let mut sheet = Sheet { items: Vec::new(), y: 100 };
        sheet.cell(0, &cell);
        let drawn: Vec<_> = sheet
            .items
            .iter()
            .map(|item| match item {
                Item::Box { y, height, colour, .. } => (*y, *height, *colour),
                Item::Text { .. } => panic!("{item:?}"),
            })
            .collect();
        assert_eq!(drawn, [(100, 6, Owner::Free.colour()), (106, 5, Owner::Slab.colour())]);
    }

    #[test]
    fn all_owners_that_there_are_and_their_sizes_are_in_the_legend() {
        let picture = draw(&Memory::parse(SAMPLE).unwrap(), "sample");
        let has = |wanted: &str| {
            picture
                .items
                .iter()
                .any(|item| matches!(item, Item::Text { text, .. } if text == wanted))
        };
        for text in ["free", "92 KiB", "in use: vmalloc", "48 KiB", "no RAM", "Node 1, zone Normal"]
        {
            assert!(has(text), "{text}");
        }
        assert!(!has("in use: kernel"));
    }
}
