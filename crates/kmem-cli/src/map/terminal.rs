//! Memory as coloured text.

use std::fmt::Write;

use anstyle::{Color, RgbColor, Style};

use crate::console;
use crate::look::cells::{Cell, Grid};
use crate::look::runs::{Memory, Owner};

/// Cells of a row: with an address before them they fit in 80 columns.
const COLUMNS: u64 = 64;
/// Rows: with headings and a legend a little more than a screen.
const ROWS: usize = 32;

/// The text, with colours. Where they are taken out signs remain, in lower case where a cell has several
/// owners.
pub fn text(memory: &Memory, name: &str) -> String {
    let grid = Grid::new(memory, 0..u64::MAX, COLUMNS, ROWS);
    let bytes = |pages: u64| console::size(pages.saturating_mul(memory.page));
    let mut out = String::new();
    let bold = Style::new().bold();
    let (ram, cell) = (bytes(memory.ram()), bytes(grid.cell_pages()));
    // Writing to a string does not fail.
    let _ = writeln!(out, "{bold}{name}{bold:#}, {ram} of RAM; a cell is {cell}");
    for drawn in &grid.zones {
        let zone = &memory.zones[drawn.zone];
        let (node, name, size) = (zone.node, &zone.name, bytes(zone.ram));
        let _ = writeln!(out, "\n{bold}Node {node}, zone {name}{bold:#}, {size}");
        let mut next = drawn.rows.first().map_or(0, |row| row.first);
        for row in &drawn.rows {
            if row.first != next {
                let _ = writeln!(out, "{:16} ({} without RAM)", "", bytes(row.first - next));
            }
            let address = row.first.saturating_mul(memory.page);
            let _ = write!(out, "{address:>#15x} ");
            for cell in &row.cells {
                let _ = write!(out, "{}", coloured(cell));
            }
            out.push('\n');
            next = row.first + (COLUMNS << grid.scale);
        }
    }
    out.push('\n');
    let sums = memory.sums();
    for owner in Owner::ALL.into_iter().filter(|owner| sums[*owner as usize] > 0) {
        let pages = sums[owner as usize];
        let (sign, style) = (owner.sign(), style(owner));
        let (label, size) = (owner.label(), bytes(pages));
        let _ = writeln!(out, "  {style} {sign} {style:#} {label:<20} {pages:>12} pages  {size}");
    }
    out
}

fn coloured(cell: &Cell) -> String {
    let Some(owner) = cell.most() else { return " ".into() };
    let sign = match (owner, cell.is_whole()) {
        (Owner::Free, false) => ':',
        (owner, false) => owner.sign().to_ascii_lowercase(),
        (owner, true) => owner.sign(),
    };
    let style = style(owner);
    format!("{style}{sign}{style:#}")
}

/// Dark signs on light colours, and the other way round.
pub fn style(owner: Owner) -> Style {
    let [red, green, blue] = owner.colour();
    let light = u32::from(red) * 299 + u32::from(green) * 587 + u32::from(blue) * 114 > 128_000;
    let ink = if light { RgbColor(0, 0, 0) } else { RgbColor(255, 255, 255) };
    Style::new().bg_color(Some(Color::Rgb(RgbColor(red, green, blue)))).fg_color(Some(ink.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::runs::SAMPLE;

    #[test]
    fn signs_remain_where_there_is_no_colour() {
        let coloured = text(&Memory::parse(SAMPLE).unwrap(), "sample");
        assert!(coloured.contains('\u{1b}'));
        let plain = anstream::adapter::strip_str(&coloured).to_string();
        let expected = "sample, 240 KiB of RAM; a cell is 4 KiB\n\n\
            Node 0, zone DMA, 112 KiB\n            \
            0x0 R.......KKKKKKKK----VVVVVVVVVVVV\n\n\
            Node 1, zone Normal, 128 KiB\n            \
            0x0                                 ................CCCCCCCCSSSSSSSS\n\n   \
            .  free                           23 pages  92 KiB\n";
        assert!(plain.starts_with(expected), "{plain}");
        assert!(plain.lines().all(|line| line.len() <= 80), "{plain}");
    }
}
