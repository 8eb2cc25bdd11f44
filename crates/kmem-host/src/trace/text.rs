//! The form: a header, and a line for each event.

use std::fmt::{self, Write};

use super::Record;

/// The header of a trace file: as long for any number of events, so that it can be written again when they
/// are known. What the numbers leave is filled with blanks behind the mark of a line that has no more.
pub(super) fn header(kept: u64, written: u64, cpus: usize) -> String {
    /// Digits of the largest number.
    const WIDTH: usize = 20;
    let blanks = 2 * WIDTH - digits(kept) - digits(written);
    let mut text = String::with_capacity(600);
    // Writing to a text does not fail.
    let _ = writeln!(text, "# tracer: nop\n#");
    let _ = writeln!(text, "# entries-in-buffer/entries-written: {kept}/{written}   #P:{cpus}");
    let _ = writeln!(text, "#{:blanks$}", "");
    text.push_str(COLUMNS);
    text
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// What each column is.
const COLUMNS: &str = "\
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
";

/// Writes the line of a record, with its end; before it, one that says what was lost there.
pub(super) fn line(out: &mut String, record: &Record) -> fmt::Result {
    let Record { time, event, thread, cpu, lost } = record;
    if *lost != 0 {
        lost_line(out, usize::from(*cpu), u64::from(*lost))?;
    }
    let (seconds, micros) = (time / 1_000_000_000, time % 1_000_000_000 / 1000);
    let (name, marks) = (thread.name(), thread.marks());
    writeln!(
        out,
        "{name:>16}-{:<7} [{cpu:03}] {} {seconds:>5}.{micros:06}: {event}",
        thread.number,
        marks.as_str(),
    )
}

/// Writes the line that says that events were lost.
pub(super) fn lost_line(out: &mut String, cpu: usize, lost: u64) -> fmt::Result {
    writeln!(out, "CPU:{cpu} [LOST {lost} EVENTS]")
}
