//! A line of a trace file: who, where, when, and what.
//!
//! The forms that are read are those of Linux's `trace` and `trace_pipe`:
//!
//! ```text
//!             bash-13494   [001] d.h1.  2017.408687: kfree: call_site=f+0x1/0x2 ptr=00000000085f7a4e
//!   |--------------|-----|  |---|-----|-------------|-----|
//!    task           number   CPU marks seconds       event
//! ```
//!
//! A task's name may hold blanks, dashes and brackets, so its number is behind the last dash before the CPU.
//! Values may hold blanks where a cache's name does: a value ends where the next word is a field.

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'t> {
    /// An event.
    Event(Event<'t>),
    /// So many events of a CPU were lost here.
    Lost(u64),
    /// How many CPUs there were, as the header says.
    Cpus(u64),
    /// What explains the columns, and empty lines.
    Remark,
}

/// An event as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'t> {
    /// The task.
    pub task: &'t str,
    /// Its number.
    pub number: u32,
    /// The CPU.
    pub cpu: u32,
    /// When, in microseconds.
    pub time: u64,
    /// What happened.
    pub name: &'t str,
    fields: &'t str,
}

impl<'t> Line<'t> {
    /// Reads a line. `None` for one that is of none of these forms.
    pub fn parse(line: &'t str) -> Option<Line<'t>> {
        let line = line.trim_end();
        if let Some(remark) = line.strip_prefix('#') {
            let cpus = remark.split_once("#P:").and_then(|(_, cpus)| cpus.trim().parse().ok());
            return Some(cpus.map_or(Line::Remark, Line::Cpus));
        }
        if line.is_empty() {
            return Some(Line::Remark);
        }
        if let Some(count) = lost(line) {
            return Some(Line::Lost(count));
        }
        event(line).map(Line::Event)
    }
}

/// `CPU:1 [LOST 25 EVENTS]`
fn lost(line: &str) -> Option<u64> {
    let (cpu, count) = line.strip_prefix("CPU:")?.split_once(" [LOST ")?;
    cpu.parse::<u32>().ok()?;
    count.strip_suffix(" EVENTS]")?.parse().ok()
}

fn event(line: &str) -> Option<Event<'_>> {
    // A task's name may look like a CPU; the CPU is the first that has a number of a task before it.
    let (task, number, rest) = line.match_indices('[').find_map(|(at, _)| {
        let (task, number) = line[..at].trim_end().rsplit_once('-')?;
        // `(  123)` stands here where traces keep groups of threads.
        let number = number.split(' ').next()?.parse().ok()?;
        let (cpu, rest) = line[at + 1..].split_once(']')?;
        Some((task.trim_start(), number, (cpu.parse::<u32>().ok()?, rest)))
    })?;
    let (cpu, rest) = rest;
    let (before, rest) = rest.split_once(": ").or_else(|| rest.split_once(":\t"))?;
    // The marks are left out where the option for them is off.
    let (seconds, micros) = before.split(' ').rfind(|word| !word.is_empty())?.split_once('.')?;
    if micros.len() != 6 {
        return None;
    }
    let seconds: u64 = seconds.parse().ok()?;
    let time = seconds.checked_mul(1_000_000)?.checked_add(micros.parse::<u32>().ok()?.into())?;
    let (name, fields) = rest.split_once(':')?;
    let is_word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_word.then_some(Event { task, number, cpu, time, name, fields })
}

impl<'t> Event<'t> {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&'t str> {
        let mut rest = self.fields;
        loop {
            // What begins here is a field of that name, or something else up to the next blank.
            let word = rest.trim_start();
            let after = word.strip_prefix(name);
            if let Some(value) = after.and_then(|after| after.strip_prefix('=')) {
                return Some(value_of(value));
            }
            if let Some(value) = after.and_then(|after| after.strip_prefix(": ")) {
                return value.split(' ').next();
            }
            rest = word.split_once(' ')?.1;
        }
    }

    /// A field that is a decimal number, or has `0x` before it.
    pub fn number(&self, name: &str) -> Option<u64> {
        let value = self.get(name)?;
        match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => value.parse().ok(),
        }
    }

    /// A field that is a pointer: hexadecimal, with `0x` before it or not. 0 where it is null.
    pub fn pointer(&self, name: &str) -> Option<u64> {
        let value = self.get(name)?;
        if value == "(null)" {
            return Some(0);
        }
        u64::from_str_radix(value.strip_prefix("0x").unwrap_or(value), 16).ok()
    }
}

/// The value that a text begins with: up to the next word that is a field.
fn value_of(text: &str) -> &str {
    let ends = text.match_indices(' ').map(|(at, _)| at);
    let is_field = |word: &str| word.split_once('=').is_some_and(|(name, _)| !name.contains(' '));
    let end = ends.into_iter().find(|at| is_field(&text[at + 1..]));
    text[..end.unwrap_or(text.len())].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn event(line: &str) -> Event<'_> {
        match Line::parse(line) {
            Some(Line::Event(event)) => event,
            other => panic!("{other:?}: {line}"),
        }
    }

    #[test]
    fn a_line_is_taken_apart() {
        let of = event(
            "            bash-13494   [001] d.h1.  2017.408675: kmem_cache_alloc: call_site=f.part.0+0x1/0x2a0 \
             ptr=000000009da49640 name=a b bytes_req=40 bytes_alloc=48 gfp_flags=GFP_KERNEL node=-1",
        );
        assert_eq!((of.task, of.number, of.cpu, of.time), ("bash", 13494, 1, 2_017_408_675));
        assert_eq!((of.name, of.get("name")), ("kmem_cache_alloc", Some("a b")));
        assert_eq!(of.get("call_site"), Some("f.part.0+0x1/0x2a0"));
        assert_eq!(of.pointer("ptr"), Some(0x9da4_9640));
        assert_eq!((of.number("bytes_req"), of.number("bytes_alloc")), (Some(40), Some(48)));
        assert_eq!((of.get("node"), of.number("node"), of.get("nodes")), (Some("-1"), None, None));
    }

    #[test]
    fn tasks_may_be_called_anything() {
        let rest = ".....     1.000000: kfree: call_site=f+0x1/0x2 ptr=0000000000000000";
        for task in ["kworker/u8:1-ev", "opt cgu.0", "a-7 [003] b", "<...>", "cpu 0", "[x]"] {
            let line = format!("{task:>16}-{:<7} [{:03}] {rest}", 42, 1);
            let of = event(&line);
            let wanted = if task.starts_with("a-7") { ("a", 7, 3) } else { (task, 42, 1) };
            assert_eq!((of.task, of.number, of.cpu), wanted, "{line}");
        }
    }

    #[test]
    fn numbers_are_of_the_base_that_they_are_written_in() {
        let of = event(
            "  a-1 [000]     1.000000: alloc_vmap_area: va_start: 1048576 size=8192 align=1 vstart=0x10 \
             vend=0x20 failed=0",
        );
        assert_eq!((of.number("va_start"), of.number("vstart")), (Some(1 << 20), Some(16)));
        let of =
            event("  a-1 [000] .....     1.000000: mm_page_free: page=(null) pfn=0x1f order=3");
        assert_eq!(
            (of.pointer("page"), of.number("pfn"), of.number("order")),
            (Some(0), Some(31), Some(3))
        );
    }

    #[test]
    fn other_lines_are_known_or_refused() {
        assert_eq!(Line::parse("# tracer: nop"), Some(Line::Remark));
        assert_eq!(Line::parse(""), Some(Line::Remark));
        let counts = "# entries-in-buffer/entries-written: 48741/48741   #P:12";
        assert_eq!(Line::parse(counts), Some(Line::Cpus(12)));
        assert_eq!(Line::parse("CPU:1 [LOST 25 EVENTS]"), Some(Line::Lost(25)));
        for line in [
            "hello",
            "bash-1 [001]",
            "bash-1 [x] ..... 1.000000: kfree: ptr=0",
            "bash-1 [001] ..... 1.00: kfree: ptr=0",
            "bash-1 [001] ..... 99999999999999999999.000000: kfree: ptr=0",
            "bash-1 [001] ..... 1.000000: no event",
            "bash-x [001] ..... 1.000000: kfree: ptr=0",
            "CPU:1 [LOST many EVENTS]",
        ] {
            assert_eq!(Line::parse(line), None, "{line}");
        }
    }
}
