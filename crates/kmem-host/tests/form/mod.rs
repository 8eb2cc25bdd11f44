//! The form of a trace file, to the letter: what may be written, and nothing else.
#![allow(dead_code, reason = "each test file uses a part of it")]

/// The header; a `%` stands for a number.
const HEADER: [&str; 12] = [
    "# tracer: nop",
    "#",
    "# entries-in-buffer/entries-written: %/%   #P:%",
    "#",
    "#                                _-----=> irqs-off/BH-disabled",
    "#                               / _----=> need-resched",
    "#                              | / _---=> hardirq/softirq",
    "#                              || / _--=> preempt-depth",
    "#                              ||| / _-=> migrate-disable",
    "#                              |||| /     delay",
    "#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION",
    "#              | |         |   |||||     |         |",
];

/// The events and their fields: behind the equals sign stands what kind of value it is.
const EVENTS: [&str; 18] = [
    "mm_page_alloc page=p pfn=x order=u migratetype=u gfp_flags=g",
    "mm_page_alloc_zone_locked page=p pfn=x order=u migratetype=u percpu_refill=b",
    "mm_page_alloc_extfrag page=p pfn=x alloc_order=u fallback_order=u pageblock_order=u \
     alloc_migratetype=u fallback_migratetype=u fragmenting=b change_ownership=b",
    "mm_page_free page=p pfn=x order=u",
    "mm_page_free_batched page=p pfn=x order=u",
    "mm_page_pcpu_drain page=p pfn=x order=u migratetype=u",
    "kmalloc call_site=s ptr=p bytes_req=u bytes_alloc=u gfp_flags=g node=i accounted=t",
    "kfree call_site=s ptr=p",
    "kmem_cache_alloc call_site=s ptr=p name=w bytes_req=u bytes_alloc=u gfp_flags=g node=i accounted=t",
    "kmem_cache_free call_site=s ptr=p name=w",
    "alloc_vmap_area va_start:=u size=u align=u vstart=x vend=x failed=b",
    "free_vmap_area_noflush va_start=x nr_lazy=u nr_lazy_max=u",
    "purge_vmap_area_lazy start=x end=x num_purged=u",
    "percpu_alloc_percpu call_site=s reserved=b is_atomic=b size=u align=u base_addr=p off=u ptr=p \
     bytes_alloc=u gfp_flags=g",
    "percpu_alloc_percpu_fail reserved=b is_atomic=b size=u align=u",
    "percpu_free_percpu base_addr=p off=u ptr=p",
    "percpu_create_chunk base_addr=p",
    "percpu_destroy_chunk base_addr=p",
];

/// A line of the form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub task: String,
    pub number: i32,
    pub cpu: usize,
    pub marks: String,
    pub micros: u64,
    pub name: String,
    pub fields: Vec<(String, String)>,
}

impl Line {
    /// The value of a field.
    #[track_caller]
    pub fn get(&self, name: &str) -> &str {
        let found = self.fields.iter().find(|field| field.0 == name);
        found.map(|field| field.1.as_str()).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// A field that is a number: hexadecimal where its form says so.
    #[track_caller]
    pub fn number_of(&self, name: &str) -> u64 {
        let value = self.get(name);
        let (digits, radix) = match value.strip_prefix("0x") {
            Some(digits) => (digits, 16),
            None if value.len() == 16 && !name.starts_with("va_start") => (value, 16),
            None => (value, 10),
        };
        u64::from_str_radix(digits, radix).unwrap_or_else(|_| panic!("{name}={value}"))
    }
}

/// A whole file: the numbers of its header (kept, written, CPUs), and its lines.
pub fn read(text: &str) -> ((u64, u64, u64), Vec<Line>) {
    assert!(text.ends_with('\n'), "the last line is not whole");
    let mut lines = text.lines();
    let mut numbers = Vec::new();
    for wanted in HEADER {
        // What the numbers of the third line leave is blank in the fourth.
        let line = lines.next().expect("the header is too short").trim_end_matches(' ');
        let (mut parts, mut rest) = (wanted.split('%'), line);
        rest = rest.strip_prefix(parts.next().unwrap()).unwrap_or_else(|| panic!("{line}"));
        for part in parts {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            numbers.push(rest[..digits].parse().unwrap_or_else(|_| panic!("{line}")));
            rest = rest[digits..].strip_prefix(part).unwrap_or_else(|| panic!("{line}"));
        }
        assert_eq!(rest, "", "{line}");
    }
    let lines: Vec<Line> = lines.filter(|line| !is_lost(line)).map(line).collect();
    ((numbers[0], numbers[1], numbers[2]), lines)
}

/// How many events lines say that were lost.
pub fn lost(text: &str) -> u64 {
    let counts = text.lines().filter(|line| is_lost(line));
    counts.map(|line| line.split(' ').nth(2).unwrap().parse::<u64>().unwrap()).sum()
}

/// `CPU:1 [LOST 5 EVENTS]`
fn is_lost(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    words.len() == 4
        && words[0].strip_prefix("CPU:").is_some_and(is_decimal)
        && (words[1], words[3]) == ("[LOST", "EVENTS]")
        && is_decimal(words[2])
}

/// One line.
#[track_caller]
pub fn line(line: &str) -> Line {
    parse(line).unwrap_or_else(|what| panic!("{what}: {line}"))
}

fn parse(line: &str) -> Result<Line, &'static str> {
    // `%16s-%-7d [%03d] MARKS%6u.%06u: `
    let (before, rest) = line.split_once(" [").ok_or("no cpu")?;
    let (task, number) = before.rsplit_once('-').ok_or("no number of the task")?;
    if task.chars().count() < 16 || task.trim_start().is_empty() {
        return Err("the task is not at its column");
    }
    if number.len() < 7 || !is_decimal(number.trim_end()) || task.chars().count() > 16 {
        return Err("the number of the task is not at its column");
    }
    let (cpu, rest) = rest.split_once("] ").ok_or("no cpu")?;
    if cpu.len() != 3 || !is_decimal(cpu) {
        return Err("the cpu has not three digits");
    }
    let marks = rest.get(..5).ok_or("no marks")?;
    let allowed = ["dDbB.", "nNpBLb.", "hHszZ.", "0123456789abcdef.", "0123456789."];
    if marks.chars().zip(allowed).any(|(mark, of)| !of.contains(mark)) {
        return Err("marks that there are not");
    }
    let (time, rest) = rest[5..].split_once(": ").ok_or("no time")?;
    let (seconds, micros) = time.split_once('.').ok_or("no point in the time")?;
    if seconds.len() < 6
        || !is_decimal(seconds.trim_start())
        || micros.len() != 6
        || !is_decimal(micros)
    {
        return Err("the time is not at its column");
    }
    let micros =
        seconds.trim_start().parse::<u64>().unwrap() * 1_000_000 + micros.parse::<u64>().unwrap();
    let (name, rest) = rest.split_once(": ").ok_or("no name")?;
    let mut form =
        EVENTS.iter().map(|event| event.split(' ')).find(|form| form.clone().next() == Some(name));
    let mut form = form.take().ok_or("no event of that name")?.skip(1);
    let mut fields = Vec::new();
    let mut words = rest.split(' ');
    while let Some(word) = words.next() {
        let wanted = form.next().ok_or("a field too many")?;
        let (wanted, kind) = wanted.split_once('=').unwrap();
        // One value stands behind a colon and a blank.
        let (field, value) = match wanted.ends_with(':') {
            true => (word, words.next().ok_or("no value")?),
            false => word.split_once('=').ok_or("no field")?,
        };
        if field != wanted {
            return Err("another field");
        }
        if !is_of(kind, value) {
            return Err("a value of another form");
        }
        fields.push((field.trim_end_matches(':').to_owned(), value.to_owned()));
    }
    if form.next().is_some() {
        return Err("a field too few");
    }
    let number = number.trim_end().parse().map_err(|_| "no number")?;
    let (task, cpu) = (task.trim_start().to_owned(), cpu.parse().unwrap());
    let (marks, name) = (marks.to_owned(), name.to_owned());
    Ok(Line { task, number, cpu, marks, micros, name, fields })
}

fn is_of(kind: &str, value: &str) -> bool {
    let is_hex = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    match kind {
        "p" => value.len() == 16 && is_hex(value),
        "x" => value.strip_prefix("0x").is_some_and(is_hex),
        "u" => is_decimal(value),
        "i" => value == "-1" || is_decimal(value),
        "b" => matches!(value, "0" | "1"),
        "t" => matches!(value, "true" | "false"),
        "w" => !value.is_empty(),
        "g" => {
            let is_flag = |word: &str| word.strip_prefix("__").unwrap_or(word).starts_with("GFP_");
            value == "none" || value.split('|').all(is_flag)
        }
        "s" => {
            let parts =
                value.rsplit_once('+').and_then(|(at, rest)| Some((at, rest.split_once('/')?)));
            parts.is_some_and(|(at, (offset, size))| {
                !at.is_empty() && is_of("x", offset) && is_of("x", size)
            })
        }
        _ => unreachable!("{kind}"),
    }
}

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lines of a Linux kernel's own trace, which the form has to be the form of.
pub fn check_linux(text: &str) -> usize {
    let is_of_form = |line: &&str| {
        let name = line.split(": ").nth(1).unwrap_or_default();
        EVENTS.iter().any(|event| event.split(' ').next() == Some(name))
    };
    text.lines().filter(is_of_form).map(line).count()
}
