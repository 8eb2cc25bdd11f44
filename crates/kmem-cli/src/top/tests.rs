//! The screens, drawn into memory, and what keys do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw::draw;
use super::state::{App, Screen};
use crate::look::Texts;
use crate::look::runs::SAMPLE;

/// A machine that is nothing but texts.
struct Fake(RefCell<BTreeMap<String, String>>);

impl Texts for Fake {
    fn read(&self, name: &str) -> Result<String, String> {
        self.0.borrow().get(name).cloned().ok_or_else(|| format!("there is no {name}"))
    }
}

impl Fake {
    fn new() -> Self {
        let fake = Fake(RefCell::default());
        fake.put("pageruns", SAMPLE);
        fake.put("buddyinfo", "Node 0, zone      DMA      7      0      2\nNode 1, zone   Normal      0      0      4\n");
        fake.put(
            "zoneinfo",
            "Node 0, zone      DMA\n  pages free     15\n        min      2\n        low      4\n        \
             high     6\n        managed  19\n  pagesets\n    cpu: 0\n              count:    3\n              \
             high:     12\n              batch:    4\nNode 1, zone   Normal\n  pages free     1\n        min      \
             3\n        low      5\n        high     8\n        managed  32\n",
        );
        fake.put("vmstat", "pgalloc_dma 100\npgalloc_normal 200\npgfree 50\nnuma_hit 290\n");
        fake.slabs(100);
        fake
    }

    fn put(&self, name: &str, text: &str) {
        self.0.borrow_mut().insert(name.into(), text.into());
    }

    fn slabs(&self, active: u64) {
        let cache = |name: &str, active, all, size, slabs| {
            format!(
                "{name} {active} {all} {size} 16 1 : tunables 0 0 0 : slabdata {slabs} {slabs} 0\n"
            )
        };
        let text = "slabinfo - version: 2.1\n# name\n".to_owned()
            + &cache("large", 30, 32, 256, 2)
            + &cache("wasteful", 1, 96, 40, 1)
            + &cache("unused", 0, 0, 32, 0)
            + &cache("busy", active, 128, 32, 1);
        self.put("slabinfo", &text);
    }
}

fn screen(app: &mut App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    app.lay_out(width, height);
    terminal.draw(|frame| draw(frame, app)).unwrap();
    terminal.backend().to_string()
}

fn keys(app: &mut App, texts: &Fake, codes: &[KeyCode]) {
    for code in codes {
        app.key(KeyEvent::new(*code, KeyModifiers::NONE));
        app.fetch(texts);
        app.lay_out(100, 30);
    }
}

fn line<'s>(screen: &'s str, word: &str) -> &'s str {
    let line = screen.lines().find(|line| line.contains(word));
    line.unwrap_or_else(|| panic!("no {word} in\n{screen}"))
}

#[test]
fn the_overview_has_zones_their_watermarks_and_rates() {
    let texts = Fake::new();
    let mut app = App::new("sample".into(), &texts).unwrap();
    let shown = screen(&mut app, 100, 30);
    let dma = line(&shown, "Node 0, DMA");
    assert!(dma.contains(" 15       3        19  ") && dma.contains(" 2, 4, 6"), "{dma}");
    // The marks are in the bar of what is free, and not in one that is below them.
    assert!(dma.contains("█m█") && dma.find('m') < dma.find('l') && dma.find('l') < dma.find('h'));
    let normal = line(&shown, "Node 1, Normal");
    assert!(normal.rfind('█').unwrap() < normal.rfind('m').unwrap(), "{normal}");
    assert!(line(&shown, "pages handed out").contains(" 0 ") && shown.contains(" 300"), "{shown}");

    texts.put("vmstat", "pgalloc_dma 300\npgalloc_normal 500\npgfree 40\n");
    app.refresh(&texts, Duration::from_secs(2)).unwrap();
    let shown = screen(&mut app, 100, 30);
    let out = line(&shown, "pages handed out");
    assert!(out.contains(" 250 ") && out.contains(" 800"), "{out}");
    assert!(line(&shown, "pages given back").contains(" -5 "), "{shown}");
}

#[test]
fn free_blocks_and_lists_have_a_line_each() {
    let texts = Fake::new();
    let mut app = App::new("sample".into(), &texts).unwrap();
    keys(&mut app, &texts, &[KeyCode::Char('2')]);
    let shown = screen(&mut app, 100, 30);
    assert!(line(&shown, "46.7 %").contains(" 0          7            7"), "{shown}");
    assert!(line(&shown, "53.3 %").contains(" 2          2            8"), "{shown}");
    assert!(line(&shown, "100.0 %").contains(" 2          4           16"), "{shown}");
    keys(&mut app, &texts, &[KeyCode::Tab, KeyCode::Tab]);
    assert_eq!(app.screen, Screen::Lists);
    let shown = screen(&mut app, 100, 30);
    assert!(line(&shown, "Node 0, DMA").contains(" 0         3        12       4  ███"), "{shown}");
    assert!(!shown.contains("Node 1"), "{shown}");
}

#[test]
fn caches_are_sorted_by_memory_waste_and_rate() {
    let texts = Fake::new();
    let mut app = App::new("sample".into(), &texts).unwrap();
    texts.slabs(120);
    app.refresh(&texts, Duration::from_secs(1)).unwrap();
    keys(&mut app, &texts, &[KeyCode::Char('3')]);
    for (sorted, first) in [("memory", "large"), ("waste", "wasteful"), ("rate", "busy")] {
        let shown = screen(&mut app, 100, 30);
        assert!(shown.contains(&format!("by {sorted}")), "{shown}");
        assert!(shown.lines().nth(3).unwrap().contains(first), "{sorted}: {shown}");
        keys(&mut app, &texts, &[KeyCode::Char('s')]);
    }
    assert!(line(&screen(&mut app, 100, 30), "busy").contains("+20"));
    // One that nobody has used is not shown.
    assert!(!screen(&mut app, 100, 30).contains("unused"));
    texts.0.borrow_mut().remove("slabinfo");
    app.refresh(&texts, Duration::from_secs(2)).unwrap();
    assert!(screen(&mut app, 100, 30).contains("no caches: there is no slabinfo"));
}

#[test]
fn the_map_goes_down_to_one_page_and_back() {
    let texts = Fake::new();
    texts.put("pages/20", "frame:       20 (0x14)\nclass:       in use (vmalloc)\n");
    let mut app = App::new("sample".into(), &texts).unwrap();
    keys(&mut app, &texts, &[KeyCode::Char('5')]);
    let shown = screen(&mut app, 100, 30);
    assert!(shown.contains("XXXX") || shown.contains('X'), "{shown}");
    assert!(line(&shown, "Node 0, zone DMA").contains("112 KiB"), "{shown}");
    assert!(shown.contains(".......KKKKKKKK----VVVVVVVVVVVV"), "{shown}");
    assert!(shown.contains("0x0-0xfff, frame 0, 4 KiB: R reserved 1"), "{shown}");
    keys(&mut app, &texts, &[KeyCode::Right; 20]);
    assert!(screen(&mut app, 100, 30).contains("frame 20, 4 KiB: V in use: vmalloc 1"));
    keys(&mut app, &texts, &[KeyCode::Enter]);
    assert!(screen(&mut app, 100, 30).contains("class:       in use (vmalloc)"));
    // It is read anew with the rest.
    texts.put("pages/20", "class:       free\n");
    app.refresh(&texts, Duration::from_secs(1)).unwrap();
    assert!(screen(&mut app, 100, 30).contains("class:       free"));
    keys(&mut app, &texts, &[KeyCode::Esc]);
    assert!(screen(&mut app, 100, 30).contains("frame 20, "));
    // Into the other zone and back, whatever row is reached.
    keys(&mut app, &texts, &[KeyCode::Down]);
    assert!(screen(&mut app, 100, 30).contains("frame 32, "), "the nearest cell of the row below");
    keys(&mut app, &texts, &[KeyCode::Up]);
    assert!(screen(&mut app, 100, 30).contains("frame 31, "));
    keys(&mut app, &texts, &[KeyCode::Right]);
    assert!(screen(&mut app, 100, 30).contains("frame 32, "));
    keys(&mut app, &texts, &[KeyCode::Left]);
    assert!(screen(&mut app, 100, 30).contains("frame 31, "));
}

#[test]
fn a_cell_of_many_pages_is_gone_into() {
    let texts = Fake::new();
    let head = SAMPLE.lines().next().unwrap();
    texts.put(
        "pageruns",
        &format!("{head}\n0 65536 . free 0 DMA : order=4\n65536 65536 U used 0 DMA : by=kernel\n"),
    );
    let mut app = App::new("sample".into(), &texts).unwrap();
    keys(&mut app, &texts, &[KeyCode::Char('5'), KeyCode::Right]);
    let outer = app.map.grid.cell_pages();
    assert!(outer > 1);
    assert_eq!(app.map.cell().map(|(first, _)| first), Some(outer));
    keys(&mut app, &texts, &[KeyCode::Enter]);
    assert_eq!(app.map.range(), outer..2 * outer);
    assert_eq!(app.map.cell().map(|(first, _)| first), Some(outer));
    assert!(app.map.grid.cell_pages() < outer);
    keys(&mut app, &texts, &[KeyCode::Backspace]);
    assert_eq!(app.map.range(), 0..u64::MAX);
    assert_eq!(app.map.grid.cell_pages(), outer);
    // The cursor is where it went in.
    assert_eq!(app.map.cell().map(|(first, _)| first), Some(outer));
}

#[test]
fn no_size_and_no_key_is_too_much() {
    let texts = Fake::new();
    let mut app = App::new("sample".into(), &texts).unwrap();
    let all = [
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::PageDown,
        KeyCode::PageUp,
        KeyCode::Home,
        KeyCode::Char('s'),
        KeyCode::Char('?'),
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Char('x'),
        KeyCode::Char('5'),
        KeyCode::Enter,
    ];
    for screen_key in '1'..='5' {
        keys(&mut app, &texts, &[KeyCode::Char(screen_key)]);
        for key in all {
            keys(&mut app, &texts, &[key]);
            for (width, height) in [(1, 1), (2, 9), (20, 3), (79, 24), (300, 100)] {
                screen(&mut app, width, height);
            }
        }
    }
    assert!(!app.has_ended);
}

#[test]
fn help_is_shown_until_a_key_and_q_ends() {
    let texts = Fake::new();
    let mut app = App::new("sample".into(), &texts).unwrap();
    keys(&mut app, &texts, &[KeyCode::Char('?')]);
    let folded = |width, height| {
        let shown = screen(
            &mut App { help: true, ..App::new("sample".into(), &texts).unwrap() },
            width,
            height,
        );
        shown.replace(['│', '"'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for (width, height) in [(100, 30), (80, 24), (60, 30)] {
        let shown = folded(width, height);
        assert!(shown.contains("help"), "{shown}");
        let last = "A cell of the map shows who has most of it, in lower case where others have some of it too. \
                    All texts are read anew each second.";
        assert!(width < 66 || shown.contains(last), "{shown}");
    }
    keys(&mut app, &texts, &[KeyCode::Char('4')]);
    assert_eq!((app.help, app.screen), (false, Screen::Overview));
    keys(&mut app, &texts, &[KeyCode::Char('q')]);
    assert!(app.has_ended);
    let mut app = App::new("sample".into(), &texts).unwrap();
    app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(app.has_ended);
}

#[test]
fn a_machine_that_goes_away_is_an_error_and_linux_has_no_map() {
    let texts = Fake::new();
    texts.0.borrow_mut().remove("pageruns");
    let mut app = App::new("linux".into(), &texts).unwrap();
    keys(&mut app, &texts, &[KeyCode::Char('5'), KeyCode::Enter, KeyCode::Down]);
    assert!(screen(&mut app, 100, 30).contains("no map: there is no pageruns"));
    texts.0.borrow_mut().clear();
    let error = app.refresh(&texts, Duration::from_secs(1)).unwrap_err();
    assert_eq!(error, "there is no zoneinfo");
    assert!(App::new("none".into(), &texts).is_err());
}
