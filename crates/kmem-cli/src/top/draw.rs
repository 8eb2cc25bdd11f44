//! The screens, drawn.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::state::{App, Sample, Screen, Sort};
use crate::console;
use crate::look::cells::Cell;
use crate::look::runs::Owner;
use crate::look::tables::{Cache, ZoneInfo};

/// Before a row of the map: an address.
pub const LABELS: u16 = 16;
/// Lines around the map: the heading, what is at the cursor, the keys.
pub const FRAME_LINES: usize = 5;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
const BLUE: Style = Style::new().fg(Color::Rgb(0x56, 0xb4, 0xe9));
const ORANGE: Style = Style::new().fg(Color::Rgb(0xe6, 0x9f, 0x00));
const RED: Style = Style::new().fg(Color::Rgb(0xd5, 0x5e, 0x00));

/// Draws what was read and chosen.
pub fn draw(frame: &mut Frame<'_>, app: &App) {
    let parts = [Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)];
    let [head, body, foot] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(heading(app)), head);
    frame.render_widget(Paragraph::new(Line::styled(keys(app), FAINT)), foot);
    match app.screen {
        Screen::Overview => list(frame, body, app, overview(app, body.width)),
        Screen::Blocks => list(frame, body, app, blocks(app, body.width)),
        Screen::Caches => list(frame, body, app, caches(app)),
        Screen::Lists => list(frame, body, app, lists(app, body.width)),
        Screen::Map => map(frame, body, app),
    }
    if app.help {
        help(frame, body);
    }
}

fn heading(app: &App) -> Vec<Line<'static>> {
    let mut spans = vec![Span::from(" ")];
    for (at, screen) in (1..).zip(Screen::ALL) {
        let style = match screen == app.screen {
            true => BOLD.add_modifier(Modifier::REVERSED),
            false => FAINT,
        };
        spans.extend([Span::styled(format!(" {at} {} ", screen.name()), style), " ".into()]);
    }
    vec![Line::styled(format!(" {}", app.title), BOLD), spans.into()]
}

fn keys(app: &App) -> String {
    let own = match app.screen {
        Screen::Caches => "s sorts  ",
        Screen::Map if app.map.page.is_some() => "Esc goes back  ",
        Screen::Map => "arrows move, Enter goes in, Esc out  ",
        _ => "",
    };
    format!(" 1-5 or Tab choose  {own}? helps  q ends")
}

/// Lines of which the first stays where it is.
fn list(frame: &mut Frame<'_>, area: Rect, app: &App, (head, lines): (Line<'_>, Vec<Line<'_>>)) {
    let [top, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(head.style(BOLD)), top);
    let most = lines.len().saturating_sub(rest.height.into());
    let lines: Vec<Line<'_>> = lines.into_iter().skip(app.scroll.min(most)).collect();
    frame.render_widget(Paragraph::new(lines), rest);
}

/// `share` of `width` as a bar.
fn bar(share: f64, width: usize) -> String {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share * width as f64 * 8.0).round() as usize;
    let mut text = "█".repeat(eighths / 8);
    text.extend(['▏', '▎', '▍', '▌', '▋', '▊', '▉'].get((eighths % 8).wrapping_sub(1)));
    text
}

fn overview(app: &App, width: u16) -> (Line<'static>, Vec<Line<'static>>) {
    let width = usize::from(width).saturating_sub(68).clamp(12, 60);
    let head = format!(
        " {:<15} {:>9} {:>7} {:>9}  {:<width$.width$} min, low, high",
        "zone", "free", "listed", "of", "free pages"
    );
    let mut lines = Vec::new();
    for zone in app.now.zones.iter().filter(|zone| zone.managed > 0) {
        lines.push(watermarks(zone, width));
    }
    lines.push(Line::default());
    lines.push(Line::styled(format!(" {:<25} {:>16} {:>22}", "", "a second", "since boot"), BOLD));
    for (label, prefix) in [
        ("pages handed out", "pgalloc_"),
        ("pages given back", "pgfree"),
        ("requests that waited", "allocstall"),
        ("met on their node", "numa_hit"),
        ("met on another", "numa_miss"),
        ("of other nodes", "numa_foreign"),
    ] {
        let sum = |sample: &Sample| {
            let of = sample.counters.iter().filter(|(name, _)| name.starts_with(prefix));
            of.map(|(_, count)| *count).fold(0, u64::saturating_add)
        };
        let (rate, all) = (app.rate(sum), sum(&app.now));
        let style = if rate > 0.0 { BLUE } else { Style::new() };
        lines.push(Line::styled(format!(" {label:<25} {rate:>16.0} {all:>22}"), style));
    }
    (head.into(), lines)
}

/// A zone's free pages, and among them its watermarks.
fn watermarks(zone: &ZoneInfo, width: usize) -> Line<'static> {
    let ZoneInfo { node, name, free, min, low, high, managed, .. } = zone;
    let listed: u64 = zone.pagesets.iter().map(|set| set.count).sum();
    // The watermarks are a small share of a zone: the left half is for twice the highest of them.
    let twice = high.saturating_mul(2).min(*managed);
    let place = |pages: u64| {
        let half = width as f64 / 2.0;
        let at = match pages <= twice {
            true => pages as f64 / twice.max(1) as f64 * half,
            false => half + (pages - twice) as f64 / (managed - twice).max(1) as f64 * half,
        };
        (at.round() as usize).min(width)
    };
    let style = match free {
        free if free < min => RED,
        free if free < low => ORANGE,
        _ => BLUE,
    };
    let zone = format!("Node {node}, {name}");
    let mut spans = vec![format!(" {zone:<15} {free:>9} {listed:>7} {managed:>9}  ").into()];
    let mut signs: Vec<char> = format!("{:·<width$}", bar_of(place(*free))).chars().collect();
    for (pages, sign) in [(*high, 'h'), (*low, 'l'), (*min, 'm')] {
        if let Some(at) = signs.get_mut(place(pages).saturating_sub(1)) {
            *at = sign;
        }
    }
    spans.push(Span::styled(signs.into_iter().collect::<String>(), style));
    spans.push(Span::styled(format!(" {min}, {low}, {high}"), FAINT));
    spans.into()
}

fn bar_of(columns: usize) -> String {
    "█".repeat(columns)
}

fn blocks(app: &App, width: u16) -> (Line<'static>, Vec<Line<'static>>) {
    let width = usize::from(width).saturating_sub(60).clamp(8, 60);
    let head = format!(
        " {:<18} {:>5} {:>10} {:>12}  {}",
        "zone", "order", "blocks", "pages", "share of what is free"
    );
    let mut lines = Vec::new();
    for zone in &app.now.blocks {
        let pages = |order: usize| {
            zone.blocks[order].saturating_mul(1u64.checked_shl(order as u32).unwrap_or(0))
        };
        let all: u64 = (0..zone.blocks.len()).map(pages).sum();
        for (order, blocks) in zone.blocks.iter().enumerate() {
            let name = format!("Node {}, {}", zone.node, zone.zone);
            let name = if order == 0 { name } else { String::new() };
            let share = pages(order) as f64 / all as f64;
            let text = format!(" {name:<18} {order:>5} {blocks:>10} {:>12}  ", pages(order));
            let per_cent = if all > 0 { share * 100.0 } else { 0.0 };
            lines.push(Line::from(vec![
                text.into(),
                Span::styled(bar(share, width), BLUE),
                Span::styled(format!(" {per_cent:.1} %"), FAINT),
            ]));
        }
        lines.push(Line::default());
    }
    (head.into(), lines)
}

fn caches(app: &App) -> (Line<'static>, Vec<Line<'static>>) {
    let sorted = app.sort.name();
    let head = format!(
        " {:<19} {:>5} {:>15} {:>6} {:>10} {:>10} {:>8}",
        format!("cache, by {sorted}"),
        "bytes",
        "in use of",
        "",
        "memory",
        "waste",
        "a second"
    );
    let caches = match &app.now.caches {
        Ok(caches) => caches,
        Err(error) => return (head.into(), vec![Line::from(format!(" no caches: {error}"))]),
    };
    let page = app.page;
    let mut rows: Vec<(&Cache, f64)> =
        caches.iter().map(|cache| (cache, app.cache_rate(&cache.name))).collect();
    // Those that nobody has used take no memory, and are many.
    rows.retain(|(cache, rate)| cache.objects > 0 || *rate != 0.0);
    rows.sort_by(|(one, one_rate), (other, other_rate)| match app.sort {
        Sort::Use => other.pages().cmp(&one.pages()),
        Sort::Waste => other.waste(page).cmp(&one.waste(page)),
        Sort::Rate => other_rate.abs().total_cmp(&one_rate.abs()),
    });
    let line = |(cache, rate): (&Cache, f64)| {
        let Cache { name, active, objects, size, .. } = cache;
        let share = if *objects > 0 { *active as f64 / *objects as f64 * 100.0 } else { 0.0 };
        let memory = console::size(cache.pages().saturating_mul(page));
        let waste = console::size(cache.waste(page));
        let text = format!(
            " {name:<19} {size:>5} {active:>7} {objects:>7} {share:>4.0} % {memory:>10} {waste:>10} \
             {rate:>+8.0}"
        );
        Line::styled(text, if *objects == 0 { FAINT } else { Style::new() })
    };
    (head.into(), rows.into_iter().map(line).collect())
}

fn lists(app: &App, width: u16) -> (Line<'static>, Vec<Line<'static>>) {
    let width = usize::from(width).saturating_sub(56).clamp(8, 60);
    let head = format!(
        " {:<18} {:>5} {:>9} {:>9} {:>7}  {}",
        "zone", "CPU", "pages", "at most", "batch", "filled"
    );
    let mut lines = Vec::new();
    for zone in app.now.zones.iter().filter(|zone| zone.managed > 0) {
        for (at, set) in zone.pagesets.iter().enumerate() {
            let name = format!("Node {}, {}", zone.node, zone.name);
            let name = if at == 0 { name } else { String::new() };
            let text = format!(
                " {name:<18} {:>5} {:>9} {:>9} {:>7}  ",
                set.cpu, set.count, set.high, set.batch
            );
            let filled = bar(set.count as f64 / set.high as f64, width);
            lines.push(Line::from(vec![text.into(), Span::styled(filled, BLUE)]));
        }
    }
    if lines.is_empty() {
        lines.push(" no CPU keeps free pages of its own".into());
    }
    (head.into(), lines)
}

/// An owner's sign on its colour.
fn style(owner: Owner) -> Style {
    let [red, green, blue] = owner.colour();
    let light = u32::from(red) * 299 + u32::from(green) * 587 + u32::from(blue) * 114 > 128_000;
    let ink = if light { Color::Black } else { Color::White };
    Style::new().bg(Color::Rgb(red, green, blue)).fg(ink)
}

fn map(frame: &mut Frame<'_>, area: Rect, app: &App) {
    let memory = match &app.map.memory {
        Some(Ok(memory)) => memory,
        Some(Err(error)) => {
            let text = format!(" no map: {error}");
            return frame.render_widget(Paragraph::new(text), area);
        }
        None => return,
    };
    if let Some((pfn, text)) = &app.map.page {
        let lines = match text {
            Ok(text) => text.lines().map(|line| Line::from(format!(" {line}"))).collect(),
            Err(error) => vec![Line::from(format!(" frame {pfn}: {error}"))],
        };
        let text = Paragraph::new(lines).wrap(Wrap { trim: false });
        return frame.render_widget(text, area);
    }
    let parts = [Constraint::Min(0), Constraint::Length(2)];
    let [drawn, below] = Layout::vertical(parts).areas(area);
    let size = |pages: u64| console::size(pages.saturating_mul(memory.page));
    let (mut lines, mut at_cursor) = (Vec::new(), 0);
    for (index, zone) in app.map.grid.zones.iter().enumerate() {
        let of = &memory.zones[zone.zone];
        let text = format!(" Node {}, zone {}, {}", of.node, of.name, size(of.ram));
        lines.push(Line::styled(text, BOLD));
        for (row_index, row) in zone.rows.iter().enumerate() {
            let address = row.first.saturating_mul(memory.page);
            let mut spans = vec![Span::styled(format!("{address:>#14x}  "), FAINT)];
            for (at, cell) in row.cells.iter().enumerate() {
                let is_cursor = app.map.cursor == (index, row_index, at);
                if is_cursor {
                    at_cursor = lines.len();
                }
                spans.push(sign(cell, is_cursor));
            }
            lines.push(spans.into());
        }
    }
    let height = usize::from(drawn.height);
    let from = at_cursor.saturating_sub(height.saturating_sub(2));
    let lines: Vec<Line<'_>> = lines.into_iter().skip(from).collect();
    frame.render_widget(Paragraph::new(lines), drawn);
    let Some((first, cell)) = app.map.cell() else { return };
    let (start, pages) = (first.saturating_mul(memory.page), app.map.grid.cell_pages());
    let end = first.saturating_add(pages).saturating_mul(memory.page).saturating_sub(1);
    let place = format!(" {start:#x}-{end:#x}, frame {first}, {}: ", size(pages));
    let mut spans = vec![Span::styled(place, BOLD)];
    for owner in Owner::ALL.into_iter().filter(|owner| cell.pages[*owner as usize] > 0) {
        let pages = cell.pages[owner as usize];
        let own = style(owner);
        spans.extend([
            Span::styled(owner.sign().to_string(), own),
            format!(" {} {pages}  ", owner.label()).into(),
        ]);
    }
    frame.render_widget(Paragraph::new(vec![Line::default(), spans.into()]), below);
}

fn sign(cell: &Cell, is_cursor: bool) -> Span<'static> {
    let Some(owner) = cell.most() else { return " ".into() };
    let sign = match (owner, cell.is_whole()) {
        (Owner::Free, false) => ':',
        (owner, false) => owner.sign().to_ascii_lowercase(),
        (owner, true) => owner.sign(),
    };
    // Seen without colours too.
    let cursor = Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD);
    let style = if is_cursor { cursor } else { style(owner) };
    Span::styled(if is_cursor { "X".into() } else { sign.to_string() }, style)
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    const TEXT: &str = "\
1 to 5, Tab     choose a screen
up, down        scroll; in the map, arrows move the cursor
s               sort caches by memory, waste, or change a second
Enter           go into the cell at the cursor, down to one page
Esc, Backspace  go back out
q, Ctrl-C       end

In bars of free pages m, l and h are the watermarks min, low and high; \
the left half is up to twice high. A cell of the map shows who has most of \
it, in lower case where others have some of it too. All texts are read \
anew each second.";
    let (width, height) = (66.min(area.width), 14.min(area.height));
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - height) / 2;
    let place = Rect { x, y, width, height };
    frame.render_widget(Clear, place);
    let text = Paragraph::new(TEXT).wrap(Wrap { trim: false });
    frame.render_widget(text.block(Block::bordered().title(" help ")), place);
}
